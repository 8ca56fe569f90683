"""The site: `make docs` builds it, runs its tutorials, and takes a warning for an error."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import reverie

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project, author, copyright = "reverie", "the authors of reverie", "2026, the authors of reverie"
version = release = reverie.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
html_theme, html_title = "furo", f"reverie {version}"
html_static_path: list[str] = []
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
myst_enable_extensions = ["deflist", "dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_fence_as_directive: list[str] = []
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / ".notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True

# rooms of the reference, in the order in which one meets them; the root comes first
ROOMS = [
    "", "data", "spaces", "processes", "denoisers", "objectives", "curve", "calibration", "plan",
    "sampling", "information", "auditing", "runs", "report", "diffusers", "bridges", "targets",
    "inverse", "simulation", "cascade", "theory", "reproduce", "testing",
]  # fmt: skip


def public(room: str) -> list[str]:
    """Classes and functions of ours that `reverie.ROOM` offers, in the order of the alphabet."""
    module = importlib.import_module(f"reverie.{room}".rstrip("."))
    names = [name for name in dir(module) if not name.startswith("_")]
    found = [(name, getattr(module, name)) for name in names]
    return [
        name
        for name, item in found
        if (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__.startswith("reverie")
    ]


def write_reference() -> None:
    """A page for every room that is there, and their list; files change only where names do."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    listed = []
    for room in ROOMS:
        if room and importlib.util.find_spec(f"reverie.{room}") is None:
            continue
        module = f"reverie.{room}".rstrip(".")
        lines = [module, "=" * len(module), "", *summary(module), ""]
        for name in public(room):
            kind = "class" if inspect.isclass(getattr(sys.modules[module], name)) else "function"
            lines += [f".. auto{kind}:: {module}.{name}"]
            lines += ["   :members:", ""] if kind == "class" else [""]
        write_changed(folder / f"{module}.rst", "\n".join(lines))
        listed.append(module)
    index = ["Reference", "=========", "", ".. toctree::", "   :maxdepth: 1", ""]
    write_changed(folder / "index.rst", "\n".join([*index, *(f"   {m}" for m in listed), ""]))


def summary(module: str) -> list[str]:
    """The first paragraph of a room's docstring."""
    text = inspect.getdoc(sys.modules[module]) or ""
    return plain(text.split("\n\n")[0].splitlines())


def write_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def plain(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText: its words as they stand, indented blocks as code."""
    text: list[str] = []
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        rows = [row for row in block.splitlines() if row.strip()]
        if not rows:
            continue
        if rows[0].lstrip().startswith(">>>"):
            text += ["", *inspect.cleandoc("\n".join(rows)).splitlines(), ""]
        elif all(row.startswith("    ") for row in rows):
            text += ["", "::", "", *rows, ""]
        else:
            text += ["", *(escaped(row.strip()) for row in rows), ""]
    return text


def escaped(row: str) -> str:
    pieces = re.split(r"(`[^`]+`)", row)
    return "".join(
        f"``{piece[1:-1]}``" if piece.startswith("`") else re.sub(r"([*|_\\])", r"\\\1", piece)
        for piece in pieces
    )


def setup(app) -> None:  # noqa: ANN001
    write_reference()

    def process(app, what, name, item, options, lines) -> None:  # noqa: ANN001
        lines[:] = plain(list(lines))

    app.connect("autodoc-process-docstring", process)
