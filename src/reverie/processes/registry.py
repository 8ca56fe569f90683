"""Processes by name: the text of `--process` and of a run's config.json, and how to add one.

    @register("windy", space=Torus)
    class Windy(Process): ...

makes `windy:speed=3` a process of `fit`, from Python and the command line, as long as the file
that says so was imported. A process that nobody registered is passed as an object, or typed as
`package.module:Class[speed=3]`; a file never makes the program import what it names.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any, TypeVar

from reverie.errors import InputError
from reverie.processes.base import Process
from reverie.spaces import Bounded, FiniteSet, Manifold, Mixed, Simplex, Space

Kind = TypeVar("Kind", bound=type[Process])
Read = Callable[[Space, str], Process]
Write = Callable[[Any], str]
OWN = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)(?:\[(.*)\])?", re.DOTALL)
GAUSSIAN = "edm:sigma_min=0.02,sigma_max=40"


@dataclass(frozen=True)
class Entry:
    """A class of processes under a name: where it lives, how it is read and how written.

    read(space, text) makes it of what follows the colon, and write(process) gives that text.
    is_on_file: the text may name a file, so that a run must keep the written form.
    """

    kind: type[Process]
    space: type[Space]
    read: Read
    write: Write
    is_on_file: bool = False


ENTRIES: dict[str, Entry] = {}


def register(
    name: str,
    *,
    space: type[Space] = Space,
    read: Read | None = None,
    write: Write | None = None,
    is_on_file: bool = False,
) -> Callable[[Kind], Kind]:
    """Decorate a class of processes with the name by which `fit` and runs know it.

    space: the kind of space that it lives on. read, write: default, the keyword arguments
    `key=value,...` of the class, which is told `space` or `shape` where it asks for them, and what
    its `settings()` returns. Raises InputError where the name is another class's.

    >>> from reverie import register
    >>> from reverie.processes import VP, process_on
    >>> from reverie.spaces import Euclidean
    >>> @register("slow-vp", space=Euclidean)
    ... class SlowVP(VP):
    ...     pass
    >>> type(process_on(Euclidean((2,)), "slow-vp:beta_max=5")).__name__
    'SlowVP'
    """

    def keep(kind: Kind) -> Kind:
        taken = ENTRIES.get(name)
        if taken is not None and taken.kind.__qualname__ != kind.__qualname__:
            raise InputError(f"the name {name!r} is that of {taken.kind.__name__}: choose another")
        ENTRIES[name] = Entry(
            kind, space, read or _reader(name, kind), write or _written, is_on_file
        )
        return kind

    return keep


# --- from text to a process and back ---------------------------------------------------------


@singledispatch
def default_process(space: Space) -> str:
    """The spec that `fit` takes on a space where none is named.

    >>> from reverie.processes import default_process
    >>> from reverie.spaces import Euclidean, FiniteSet, Sphere
    >>> [default_process(space) for space in (Euclidean((2,)), FiniteSet(4, 3), Sphere(2))]
    ['edm:sigma_min=0.02,sigma_max=40', 'masking', 'brownian']
    """
    return GAUSSIAN


default_process.register(FiniteSet, lambda space: "masking")
default_process.register(Manifold, lambda space: "brownian")
default_process.register(Simplex, lambda space: "wright-fisher")
default_process.register(Mixed, lambda space: "product")
default_process.register(Bounded, lambda space: "bridge")


def names_on(space: Space) -> list[str]:
    """The names of the processes on this kind of space."""
    return [name for name, entry in ENTRIES.items() if isinstance(space, entry.space)]


def process_on(space: Space, spec: str) -> Process:
    """The process of a name, or of `name:key=value,...`, on `space`.

    Raises InputError that names the choices.

    >>> from reverie.processes import process_on
    >>> from reverie.spaces import FiniteSet
    >>> type(process_on(FiniteSet("acgt", 8), "masking")).__name__
    'Masking'
    """
    name, _, rest = spec.partition(":")
    entry = ENTRIES.get(name)
    if entry is not None and isinstance(space, entry.space):
        return entry.read(space, rest)
    place = _place(space)
    if entry is not None and place == "vectors":
        words = {FiniteSet: "symbols", Simplex: "shares", Mixed: "table", Bounded: "domain"}
        fit = words.get(entry.space, _SPELLED)
        raise InputError(f"{name} is no process on vectors: say where the data live, space {fit}")
    choices = ", ".join(names_on(space))
    raise InputError(f"no process on {place} is called {name!r}; choose one of {choices}")


_SPELLED = "sphere, torus, rotations or hyperbolic"


def _place(space: Space) -> str:
    if isinstance(space, FiniteSet):
        return "symbols"
    if isinstance(space, Simplex):
        return "shares"
    if isinstance(space, Mixed):
        return "tables"
    return str(space) if isinstance(space, Manifold) else "vectors"


def name_of(process: Process) -> str:
    """The text from which `process_on` makes this process again; InputError for one without.

    >>> from reverie.processes import EDM, name_of
    >>> name_of(EDM(0.02, 40))
    'edm:sigma_min=0.02,sigma_max=40,rho=7.0'
    """
    for name, entry in ENTRIES.items():
        if type(process) is entry.kind:
            text = entry.write(process)
            return f"{name}:{text}" if text else name
    raise InputError(
        f"{type(process).__name__} has no name: register it, or keep the object and pass it where "
        "the run is loaded"
    )


def own_name(process: Process) -> str:
    """How a run's config.json calls a process: `name_of`, or else its class, passed again."""
    try:
        return name_of(process)
    except InputError:
        return f"{OWN_PREFIX}{type(process).__module__}:{type(process).__qualname__}"


OWN_PREFIX = "own "


def process_typed(text: str) -> Process | None:
    """The process `package.module:Class[a=1]` that a user typed, or None for a registered name.

    The module is imported, also from the current folder. Raises InputError where it cannot be, or
    has no such class, or the settings do not suit it.

    >>> from reverie.processes import process_typed
    >>> process_typed("reverie.processes:VP[beta_max=10]").settings()["beta_max"]
    10
    >>> process_typed("edm") is None
    True
    """
    found = OWN.fullmatch(text)
    if found is None or found[1] in ENTRIES:
        return None
    module, name, rest = found.groups()
    kind = _imported(text, module, name)
    settings = {key: _value(value) for key, value in pairs_of(rest or "").items()}
    if not (isinstance(kind, type) and issubclass(kind, Process)):
        raise InputError(f"{text}: {name} is no Process")
    try:
        inspect.signature(kind).bind(**settings)
    except TypeError as error:
        raise InputError(f"{text}: {name} {error}; write its settings as [key=value]") from error
    return kind(**settings)


def _imported(text: str, module: str, name: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))  # as python -m does, so that one's own file is found
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        known = ", ".join(ENTRIES)
        raise InputError(
            f"no process is called {module!r} and no module can be imported by that name "
            f"({error}); choose one of {known}, or write package.module:Class"
        ) from error
    except AttributeError as error:
        raise InputError(f"{text}: {module} has no class {name!r}") from error
    finally:
        sys.path.pop(0)


# --- settings in text ------------------------------------------------------------------------


def pairs_of(text: str) -> dict[str, str]:
    """The settings `key=value,...`; commas inside brackets belong to the value."""
    parts = re.split(r",(?![^\[(]*[\])])", text)
    pairs = (part.partition("=") for part in parts if part)
    return {key.strip(): value.strip() for key, _, value in pairs}


def number_of(key: str, value: str) -> float:
    """A setting as a number; InputError where it is none."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise InputError(f"process setting {key}={value!r} is not of the form key=number")
    return number


def numbers_of(name: str, text: str, known: Collection[str]) -> dict[str, float]:
    """The settings of a process as numbers; InputError on one that is not `known`."""
    pairs = pairs_of(text)
    unknown = sorted(set(pairs) - set(known))
    if unknown:
        only = f"only {', '.join(sorted(known))}" if known else "and takes none"
        raise InputError(f"{name} has no setting {', '.join(unknown)}, {only}")
    return {key: number_of(key, value) for key, value in pairs.items()}


def text_of(settings: Mapping[str, Any]) -> str:
    """Settings as `key=value,...`."""
    return ",".join(f"{key}={value!r}" for key, value in settings.items())


def _value(text: str) -> Any:
    """A number, a list or True from text; any other text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _reader(name: str, kind: type[Process]) -> Read:
    takes = inspect.signature(kind).parameters

    def read(space: Space, text: str) -> Process:
        known: dict[str, Any] = {"space": space, "shape": space.shape}
        told = {key: value for key, value in known.items() if key in takes}
        unknown = sorted(set(pairs_of(text)) - set(takes))
        if unknown:
            only = ", ".join(key for key in takes if key not in told)
            raise InputError(f"{name} has no setting {', '.join(unknown)}, only {only}")
        given = {key: _value(value) for key, value in pairs_of(text).items()}
        try:
            return kind(**(told | given))
        except TypeError as error:
            raise InputError(f"{name}:{text} {error}") from error

    return read


def _written(process: Any) -> str:
    if not hasattr(process, "settings"):
        raise InputError(f"{type(process).__name__} has no settings() to write it with")
    left = ("space", "shape")
    return text_of({k: v for k, v in process.settings().items() if k not in left})
