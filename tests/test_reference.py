"""The reference: what the docstring of every public name says, and that it shows an example.

Public are the names of `reverie.__all__` and the classes and functions that a room's `__init__`
offers. The examples themselves are run by `pytest --doctest-modules src/reverie`.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

import reverie
from reverie.errors import InputError

# names that are not documented yet; each must still lack something, so the set can only shrink
TO_DO: set[str] = set()
ARRAYS = re.compile(r"\b(Tensor|ndarray|NDArray|ArrayLike)\b")
SIZE = r"(?:\*?\w+(?:\.\w+)?(?: ?(?:[-+*/]|or) ?\w+)*|\.\.\.)"
# (n, d), (B, *shape), (L,), (*shape), ()
SHAPE = re.compile(rf"\((?:|\*\w+|{SIZE},|{SIZE}(?:, {SIZE})+)\)")
MAKERS = "__init__", "__post_init__", "__new__", "__call__"
SENTENCE = re.compile(r"\S.*[.:;?]\)?$")


@cache
def public() -> dict[str, Any]:
    """Every public class and function by its dotted name; re-exports count once."""
    found: dict[int, tuple[str, Any]] = {}

    def add(name: str, one: Any) -> None:
        if not inspect.isclass(one) and not inspect.isfunction(one):
            one = type(one)  # `sample` is an object that is called
        if one.__module__.startswith("reverie"):
            found.setdefault(id(one), (name, one))

    for name in reverie.__all__:
        if name != "__version__":
            add(f"reverie.{name}", getattr(reverie, name))
    for room, module in rooms().items():
        for name in sorted(shown(module)):
            one = getattr(module, name)
            if not name.startswith("_") and (inspect.isclass(one) or inspect.isfunction(one)):
                add(f"reverie.{room}.{name}", one)
    return dict(found.values())


def rooms() -> dict[str, ModuleType]:
    names = [room.name for room in pkgutil.iter_modules(reverie.__path__) if room.ispkg]
    return {name: importlib.import_module(f"reverie.{name}") for name in names}


def shown(module: ModuleType) -> set[str]:
    return {*dir(module), *getattr(module, "__all__", ())}


@cache
def tree_of(path: str) -> ast.Module:
    return ast.parse(Path(path).read_text())


def code_of(one: Any) -> list[ast.AST]:
    """A function as it is written, or the methods that make an object of a class."""
    one = inspect.unwrap(one)
    node: Any = tree_of(str(inspect.getsourcefile(one)))
    for part in one.__qualname__.split("."):  # the last of overloads
        node = [n for n in node.body if getattr(n, "name", None) == part][-1]
    if not inspect.isclass(one):
        return [node]
    return [method for method in node.body if getattr(method, "name", "") in MAKERS]


def raises_input_error(one: Any) -> bool:
    """Whether `raise InputError` stands in the source itself."""
    raised = (n.exc for code in code_of(one) for n in ast.walk(code) if isinstance(n, ast.Raise))
    return any(
        isinstance(e, ast.Call) and getattr(e.func, "id", "") == "InputError" for e in raised
    )


def parameters_of(one: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(one).parameters.values())
    except ValueError:  # made by nobody's hand, as errors and typed dictionaries
        return []


def lacks(one: Any) -> list[str]:
    """What the docstring of a public name lacks."""
    text = inspect.getdoc(one) if one.__doc__ else None
    if not text:
        return ["a docstring"]
    found = []
    first = text.splitlines()[0]
    if not SENTENCE.match(first):
        found.append(f"a first line that is a sentence ({first!r})")
    body, _, example = text.partition(">>> ")
    if not example:
        found.append("an example")
    elif "\n\n" in example:
        found.append("its words before the example")
    arrays = [p.name for p in parameters_of(one) if ARRAYS.search(str(p.annotation))]
    if arrays and not SHAPE.search(body):
        found.append(f"the shape of {', '.join(arrays)}")
    if raises_input_error(one) and "InputError" not in body:
        found.append("when it raises InputError")
    return found


def test_rooms_show_what_they_load_late() -> None:
    """A name that `lazily` finds and `dir` does not would escape the checks below."""
    late = 0
    for room, module in rooms().items():
        find = vars(module).get("__getattr__")
        if find is not None:
            homes = inspect.getclosurevars(find).nonlocals["homes"]
            assert sorted({*homes} - shown(module)) == [], f"hidden names of {room}"
            late += len(homes)
    assert late > 0


def test_every_public_name_says_what_it_is() -> None:
    assert len(public()) > 300
    lacking = {name: lacks(one) for name, one in public().items() if name not in TO_DO}
    said = "\n".join(f"{name} lacks {'; '.join(bad)}" for name, bad in lacking.items() if bad)
    assert not said, f"docs of the reference:\n{said}"


def test_what_is_to_do_is_still_lacking() -> None:
    names = public()
    assert sorted(TO_DO - set(names)) == []
    assert [name for name in sorted(TO_DO) if not lacks(names[name])] == []


def example_of(one: Any) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(one) or "")


def test_examples_print_and_use_the_name() -> None:
    """An example that prints nothing checks nothing; one without its name shows something else."""
    bad = []
    for name, one in public().items():
        examples = example_of(one)
        if name in TO_DO or not examples:
            continue
        code = "".join(example.source for example in examples)
        if not any(example.want for example in examples) and "silent" not in code:
            bad.append(f"{name} prints nothing")
        if not re.search(rf"\b{name.rpartition('.')[2]}\b", code):
            bad.append(f"{name} is not in its own example")
    assert bad == []


def poor(rows: np.ndarray) -> np.ndarray:
    """Rows without end

    >>> poor(np.zeros(2)).shape
    (2,)

    And more words.
    """
    if rows.ndim != 1:
        raise InputError("rows are numbers")
    return rows


class Poor:
    def __init__(self, rows: Tensor) -> None:
        if len(rows) < 2:
            raise InputError("two rows, please")


def test_what_is_poor_is_found() -> None:
    assert [text.split(" (")[0] for text in lacks(poor)] == [
        "a first line that is a sentence",
        "its words before the example",
        "the shape of rows",
        "when it raises InputError",
    ]
    assert lacks(Poor) == ["a docstring"]
    Poor.__doc__ = "A class of rows (by Song et al. 2021, eq. 5)."
    assert lacks(Poor) == ["an example", "the shape of rows", "when it raises InputError"]
    Poor.__doc__ = "A class of rows (n, d); InputError on fewer than two.\n\n>>> Poor\n"
    assert lacks(Poor) == []
