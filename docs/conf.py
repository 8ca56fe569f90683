"""The site: `make docs` builds it, runs its tutorials, and takes a warning for an error."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from itertools import pairwise
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
autodoc_inherit_docstrings = False  # those of torch are another markup
suppress_warnings = ["ref.python"]  # a name of two rooms is one object
python_maximum_signature_line_length = 88
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True

# rooms of the reference, in the order in which one meets them; the root comes first
ROOMS = [
    "", "data", "spaces", "processes", "denoisers", "objectives", "curve", "calibration", "plan",
    "sampling", "information", "auditing", "runs", "report", "diffusers", "flows", "bridges",
    "targets", "inverse", "simulation", "cascade", "theory", "reproduce", "testing",
]  # fmt: skip


def public(room: str) -> list[str]:
    """Classes and functions of ours that `reverie.ROOM` offers, in the order of the alphabet."""
    module = importlib.import_module(f"reverie.{room}".rstrip("."))
    names = {*dir(module), *getattr(module, "__all__", ())}
    found = [(name, getattr(module, name)) for name in sorted(names) if not name.startswith("_")]
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
    listed: list[str] = []
    told: set[int] = set()
    for room in ROOMS:
        if room and importlib.util.find_spec(f"reverie.{room}") is None:
            continue
        module = f"reverie.{room}".rstrip(".")
        names = public(room)
        lines = [module, "=" * len(module), "", *summary(module), ""]
        for name in names:
            item = getattr(sys.modules[module], name)
            kind = "class" if inspect.isclass(item) else "function"
            if id(item) in told:
                lines += [f"* ``{name}`` is described in its own room", ""]
                continue
            told.add(id(item))
            lines += [f".. auto{kind}:: {module}.{name}"]
            lines += ["   :members:", ""] if kind == "class" else [""]
        write_changed(folder / f"{module}.rst", "\n".join(lines))
        listed.append(module)
    index = ["Reference", "=========", "", ".. toctree::", "   :maxdepth: 1", ""]
    write_changed(folder / "index.rst", "\n".join([*index, *(f"   {m}" for m in listed), ""]))


def summary(module: str) -> list[str]:
    """The first paragraph of a room's docstring."""
    lines = (inspect.getdoc(sys.modules[module]) or "").split("\n\n")[0].splitlines()
    plain(lines)
    return lines


def write_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def plain(lines: list[str]) -> None:
    """Docstrings are plain text: code in single backticks, shapes as (n, *shape), |x| a length."""
    made, example, literal = [], False, False
    for line in lines:
        if line.startswith(">>>") and not example:
            example, literal = True, False
            made.append("")
        if not line.strip():
            example = literal = False
            made.append("")
        elif example:
            made.append(line)
        elif line.startswith(" ") and (literal or not made or not made[-1].strip()):
            if not literal:
                made += ["::", ""]
            literal = True
            made.append(line)
        else:
            if re.match(r"\w[\w, ]*: ", line) and hanging(lines):
                made.append("")
            made.append(escaped(line.strip()))
    lines[:] = made


def hanging(lines: list[str]) -> bool:
    """Does a list of arguments, `name: meaning`, go on with indented lines?"""
    named = re.compile(r"\w[\w, ]*: ")
    return any(b.startswith("    ") and named.match(a) for a, b in pairwise(lines))


def escaped(line: str) -> str:
    """One line of words: code in double backticks, markup characters as themselves."""
    return "".join(
        f"``{part}``" if k % 2 else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part)
        for k, part in enumerate(line.split("`"))
    )


def setup(app) -> None:  # noqa: ANN001
    write_reference()

    def process(app, what, name, item, options, lines) -> None:  # noqa: ANN001
        plain(lines)

    app.connect("autodoc-process-docstring", process)
