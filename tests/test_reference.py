"""The reference: what the docstring of every public name says, and that it shows an example.

Public are the names of `reverie.__all__` and the classes and functions that a room's `__init__`
offers. The examples themselves are run by `pytest --doctest-modules src/reverie`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from functools import cache

import pytest

import reverie

# names that are not documented yet; each must still lack something, so the set can only shrink
TO_DO: set[str] = set()
ARRAYS = re.compile(r"\b(Tensor|ndarray|NDArray|ArrayLike)\b")
SIZE = r"[A-Za-z0-9_*'+\-/ ]+"
SHAPE = re.compile(rf"\((\)|{SIZE},\)|{SIZE}(, *{SIZE})+\))")
SENTENCE = re.compile(r"^\S.*[.:;]$|^\S.*\.\)$")


@cache
def public() -> dict[str, object]:
    """Every public class and function by its dotted name; re-exports count once."""
    found: dict[int, tuple[str, object]] = {}

    def add(name: str, one: object) -> None:
        if not inspect.isclass(one) and not inspect.isfunction(one):
            one = type(one)  # `sample` is an object that is called
        if one.__module__.startswith("reverie"):
            found.setdefault(id(one), (name, one))

    for name in reverie.__all__:
        if name != "__version__":
            add(f"reverie.{name}", getattr(reverie, name))
    for room in pkgutil.iter_modules(reverie.__path__):
        if not room.ispkg:
            continue
        module = importlib.import_module(f"reverie.{room.name}")
        for name in sorted({*dir(module), *getattr(module, "__all__", ())}):
            one = getattr(module, name)
            if not name.startswith("_") and (inspect.isclass(one) or inspect.isfunction(one)):
                add(f"reverie.{room.name}.{name}", one)
    return dict(found.values())
