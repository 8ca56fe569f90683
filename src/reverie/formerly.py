"""Attributes and keywords of the release before, which work for one more under a warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made", bound=Callable[..., Any])


def warn(old: str, new: str, *, above: int = 2) -> None:
    """The one sentence of every old name, said where the caller of the caller stands."""
    text = f"{old} is now {new}; the old name goes with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=above + 1)


class Formerly:
    """An attribute's old name: reads the one that it has now.

    Example: in class Cascade, `levels = Formerly("depth")`
    """

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.owner = name, owner.__name__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError(f"type object {self.owner!r} has no attribute {self.name!r}")
        warn(f"{self.owner}.{self.name}", f"{self.owner}.{self.new}")
        return getattr(instance, self.new)


def keywords(**names: str) -> Callable[[Made], Made]:
    """Decorate a function with old keywords, `old="new"`, which it takes under a warning."""

    def decorate(made: Made) -> Made:
        @functools.wraps(made)
        def call(*args: Any, **given: Any) -> Any:
            for old in names.keys() & given.keys():
                warn(f"{old}=", f"{names[old]}=")
                given[names[old]] = given.pop(old)
            return made(*args, **given)

        return call  # type: ignore[return-value]

    return decorate
