"""The house: imports run one way, generic code asks no process for its type, names are public.

All of it is read off the source, so that a new file is held to it without being listed here.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

import reverie

ROOT = Path(reverie.__file__).parent
# a file imports from its own room and from rooms above; `curve` reads denoisers
FLOORS = [
    "errors", "formerly", "files", "templates", "workers",
    "spaces", "data", "processes", "denoisers", "curve", "calibration", "diffusers", "objectives",
    "information", "plan", "sampling", "flows", "bridges", "targets", "theory", "auditing", "runs",
    "cascade", "inverse", "simulation", "forecast", "report", "reproduce", "testing", "cli",
]  # fmt: skip
PROCESSES = {
    "Process", "GaussianProcess", "JumpProcess", "LinearSDE", "Brownian", "WrightFisher",
    "LogRatios", "Masking", "Ordinal", "Uniform", "RateMatrix", "ModalProcess", "FunctionNoise",
    "Learned", "Tabulated", "CriticallyDamped", "Flexible", "VP", "VE", "EDM", "Cosine",
}  # fmt: skip
LINES = 400


@cache
def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name below the package, as a tree."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module) -> list[tuple[str, list[str], int]]:
    """(module below the package, names, column) of the imports of reverie, types aside."""
    aside = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in aside:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reverie."):
            module = (node.module or "").removeprefix("reverie.")
            found.append((module, [alias.name for alias in node.names], node.col_offset))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("reverie."):
                    found.append((alias.name.removeprefix("reverie."), [], node.col_offset))
    return found


def files_of(module: str, names: list[str]) -> list[str]:
    """The files that an import of names from a module reads: submodules among the names too."""
    inner = [f"{module}.{name}" for name in names if f"{module}.{name}" in modules()]
    return inner or [module]


@pytest.mark.parametrize("name", [n for n in modules() if n and n != "__main__"])
def test_imports_run_one_way(name: str) -> None:
    floor = FLOORS.index(name.split(".")[0])
    for module, _, _ in imports(modules()[name]):
        room = module.split(".")[0]
        assert FLOORS.index(room) <= floor, f"{name} imports {module}, which is on a lower floor"


def test_no_circles() -> None:
    """A package's front door imports its files; files import files."""
    edges = {
        name: {
            file
            for module, names, _ in imports(tree)
            for file in files_of(module, names)
            if file != name
        }
        for name, tree in modules().items()
        if name not in ("", "__main__")
    }
    doors = {name for name in modules() if any(n.startswith(f"{name}.") for n in modules())}
    inside = {
        n: {e for e in edges[n] if e not in doors or not n.startswith(f"{e}.")} for n in edges
    }
    state: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        state[name] = 1
        for other in inside.get(name, ()):
            assert state.get(other) != 1, " -> ".join((*path, name, other))
            if other not in state:
                visit(other, (*path, name))
        state[name] = 2

    for name in inside:
        if name not in state:
            visit(name, ())


# the command line, and the front doors, load what they need when it is needed
LATE = {"cli.entry": "help without torch"}


def test_no_import_inside_a_function_hides_a_circle() -> None:
    late = [
        (name, module)
        for name, tree in modules().items()
        for module, _, column in imports(tree)
        if column and name not in LATE
    ]
    assert late == []


def test_the_root_is_six_files() -> None:
    files = {path.name for path in ROOT.iterdir() if path.is_file()}
    assert len(files - {"__init__.py", "__main__.py", "py.typed"}) <= 6, files


def imported_from(tree: ast.Module, room: str) -> set[str]:
    """The names that a module has from a room."""
    return {
        name
        for module, names, _ in imports(tree)
        if module.split(".")[0] == room
        for name in names
    }


def test_generic_code_asks_no_process_for_its_type() -> None:
    """`isinstance` of a process stands in its own room alone, where each knows its kind."""
    found = []
    for name, tree in modules().items():
        if name.split(".")[0] == "processes":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                kinds = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                kinds &= imported_from(tree, "processes")
                if kinds & PROCESSES:
                    found.append((name, node.lineno, sorted(kinds & PROCESSES)))
    assert found == []


def test_no_private_name_is_imported_from_another_module() -> None:
    found = [
        (name, module, private)
        for name, tree in modules().items()
        for module, names, _ in imports(tree)
        for private in names
        if private.startswith("_")
    ]
    assert found == []


def test_no_file_is_two_rooms() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in ROOT.rglob("*.py")
        if (count := len(path.read_text().splitlines())) > LINES
    }
    assert long == {}


def test_no_module_bears_the_name_of_a_public_function() -> None:
    """`from reverie import fit` and `import reverie.fit` would be two things."""
    functions = {name for name in reverie.__all__ if name[0].islower()}
    files = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert not functions & files
