"""The same map where data are no vectors: symbols of a finite set, and points of a manifold.

A coder reads the user's rows as points of its space, writes points back in the user's units, and
embeds rows for an audit: in its coordinates Euclidean distances rank as the space's own do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.data.manifold_coder import SHORT_NAMES as SHORT_NAMES
from reverie.data.manifold_coder import ManifoldCoder as ManifoldCoder
from reverie.data.scaler import Scaler, form_of
from reverie.errors import InputError
from reverie.formerly import Formerly
from reverie.spaces import (
    Euclidean,
    FiniteSet,
    Manifold,
    Simplex,
    Space,
)

EUCLIDEAN, SYMBOLS, SHARES, TABLE = "euclidean", "symbols", "shares", "table"
DOMAIN = "domain"
TABLES = (TABLE, DOMAIN)
MOST_SYMBOLS = 256
ONE_HOT = 64  # symbols; beyond, they are the levels of a measurement and lie on a line


@dataclass(frozen=True, kw_only=True)
class SymbolCoder(Scaler):
    """Rows of symbols: `alphabets` are a site's values in order, one list, or one per column.

    `fit` and `to_model` raise InputError on one symbol only, too many, or one that is not known.

    >>> import numpy as np
    >>> from reverie.data import SymbolCoder, load
    >>> data = load(np.array([[10, 20], [20, 30], [10, 10]]))
    >>> coder = SymbolCoder.fit(data)
    >>> coder.to_model(data.values), coder.space.symbols
    (tensor([[0, 1],
            [1, 2],
            [0, 0]]), 3)
    """

    alphabets: list[list[float]]

    levels = Formerly("alphabets")

    @classmethod
    def fit(cls, data: Dataset) -> SymbolCoder:
        """Read the symbols off all rows, training and held out.

        Raises InputError on a column with one value only in every row of the whole set, or with
        too many different ones to be symbols.
        """
        flat = data.values.reshape(len(data), -1).astype(np.float64)
        own = data.kind == "table"  # the columns of a table have alphabets of their own
        groups = [flat[:, [j]] for j in range(flat.shape[1])] if own else [flat]
        named = [data.name(j) for j in range(flat.shape[1])] if own else ["the set"]
        named_values = [f.categories for f in data.fields] if data.fields else []
        alphabets = []
        for j, (values, name) in enumerate(zip(groups, named, strict=True)):
            letters = named_values[j] if named_values else ()
            alphabets.append(
                [float(i) for i in range(len(letters))]
                if letters
                else _alphabet(values, f"{data.source}: {name}")
            )
        if max(map(len, alphabets)) < 2:
            raise InputError(f"{data.source} holds one symbol only")
        return cls(**form_of(data), alphabets=alphabets)

    @property
    def space(self) -> FiniteSet:
        if self.kind == "text" and self.categories:
            return FiniteSet("".join(self.categories[0]), tuple(self.shape))
        return FiniteSet(max(map(len, self.alphabets)), tuple(self.shape))

    def to_model(self, values: np.ndarray, source: str = "the data") -> Tensor:
        """Symbols (n, *sites), int64, counted from 0; InputError names the first unknown one."""
        self._check_shape(values, source)
        flat = values.reshape(len(values), -1).astype(np.float64)
        codes = np.empty(flat.shape, np.int64)
        for j, place in self._sites(flat.shape[1]):
            known = np.asarray(self.alphabets[j])
            found = np.searchsorted(known, flat[:, place]).clip(max=len(known) - 1)
            odd = known[found] != flat[:, place]
            if odd.any():
                row, column = np.argwhere(odd)[0]
                raise InputError(
                    f"{source}: row {row} holds {flat[:, place][row, column]:g}, which is none of "
                    f"the {len(known)} symbols of this run"
                )
            codes[:, place] = found
        return torch.from_numpy(codes.reshape(values.shape))

    def to_user(self, points: Tensor) -> np.ndarray:
        """Back to the user's values; a symbol that a column does not have becomes its last."""
        codes = points.detach().cpu().numpy().reshape(len(points), -1)
        raw = np.empty(codes.shape)
        for j, place in self._sites(codes.shape[1]):
            known = np.asarray(self.alphabets[j])
            raw[:, place] = known[codes[:, place].clip(max=len(known) - 1)]
        return raw.reshape(len(points), *self.shape).astype(np.dtype(self.dtype))

    def embed(self, values: np.ndarray) -> np.ndarray:
        """Coordinates (n, F) whose squared distances count the sites that differ.

        Sites of over 64 symbols are levels of a measurement, and count the squared difference.
        """
        codes = self.to_model(values).flatten(1)
        symbols = self.space.symbols
        if symbols == 2 or symbols > ONE_HOT:
            return codes.double().numpy()
        return torch.nn.functional.one_hot(codes, symbols).flatten(1).double().numpy() / 2**0.5

    @property
    def distances(self) -> str:
        """What `embed` compares, for the reader."""
        if self.space.symbols > ONE_HOT:
            return "Rows are compared by the levels of their sites."
        return "Rows are compared by the number of sites that differ."

    def _sites(self, count: int) -> list[tuple[int, slice]]:
        if len(self.alphabets) == 1:
            return [(0, slice(None))]
        return [(j, slice(j, j + 1)) for j in range(count)]


def _alphabet(values: np.ndarray, name: str) -> list[float]:
    """The symbols among `values`, in order; integers that fill half of their range: all of it."""
    known = np.unique(values)
    if len(known) > MOST_SYMBOLS:
        raise InputError(
            f"{name} holds {len(known):,} different values; a set of symbols has at most "
            f"{MOST_SYMBOLS}"
        )
    whole = bool((known == np.round(known)).all())
    span = int(known[-1] - known[0]) + 1 if whole else 0
    if whole and len(known) > 2 and span <= MOST_SYMBOLS and 2 * len(known) >= span:
        known = np.arange(known[0], known[-1] + 1)
    return known.tolist()


@dataclass(frozen=True, kw_only=True)
class PointsCoder(Scaler):
    """Rows that are the points of a space as they stand: shares, or a space of one's own.

    of: the space's name where reverie has it (`simplex`), else empty; then the process says it.

    >>> import numpy as np
    >>> from reverie.data import PointsCoder, coder_for, load
    >>> coder = coder_for("shares", load(np.array([[0.2, 0.8], [0.5, 0.5]])))
    >>> isinstance(coder, PointsCoder), coder.space.shape
    (True, (2,))
    """

    of: str = ""

    @property
    def space(self) -> Space:
        if self.of == SHARES:
            return Simplex(self.shape[0])
        raise InputError("this run lives on a space of your own: pass its process")

    def to_model(self, values: np.ndarray, source: str = "the data") -> Tensor:
        """Points (n, *shape), checked where the space is known."""
        self._check_shape(values, source)
        points = torch.from_numpy(values.astype(np.float32))
        if not self.of:
            return points
        try:
            return self.space.check(points)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error

    def to_user(self, points: Tensor) -> np.ndarray:
        """The points themselves, in the data's type."""
        return points.detach().cpu().numpy().astype(np.dtype(self.dtype))

    def embed(self, values: np.ndarray) -> np.ndarray:
        """Coordinates (n, F); roots of shares, whose chords rank as Fisher-Rao distances."""
        flat = values.reshape(len(values), -1).astype(np.float64)
        return np.sqrt(np.clip(flat, 0, None)) if self.of == SHARES else flat

    @property
    def distances(self) -> str:
        """What `embed` compares, for the reader."""
        if self.of == SHARES:
            return "Rows are compared by their Fisher-Rao distance."
        return "Rows are compared by their numbers as they stand."


@singledispatch
def space_word(space: Space) -> str:
    """What `FitConfig.space` says of a space; "own" for one that reverie does not have."""
    return "own"


space_word.register(Euclidean, lambda space: EUCLIDEAN)
space_word.register(FiniteSet, lambda space: SYMBOLS)
space_word.register(Manifold, repr)
space_word.register(Simplex, lambda space: SHARES)


@singledispatch
def coder_on(space: Space, data: Dataset, train: Dataset) -> Scaler:
    """The coder of rows on the space of a process; register one for a class of spaces.

    data: all rows. train: those whose scale it may read. Raises InputError where rows do not lie
    in the space.

    >>> import numpy as np
    >>> from reverie.data import coder_on, load
    >>> from reverie.spaces import Euclidean, FiniteSet
    >>> data = load(np.array([[0, 1], [2, 1]]))
    >>> [type(coder_on(space, data, data)).__name__ for space in (Euclidean(), FiniteSet(3, 2))]
    ['Scaler', 'SymbolCoder']
    """
    coder = PointsCoder(**form_of(data))
    space.check(space.as_points(coder.to_model(data.values)))
    return coder


@coder_on.register(Euclidean)
def _vectors(space: Euclidean, data: Dataset, train: Dataset) -> Scaler:
    return Scaler.fit(train)


@coder_on.register(FiniteSet)
def _symbols(space: FiniteSet, data: Dataset, train: Dataset) -> Scaler:
    coder = SymbolCoder.fit(data)
    if data.kind != "text" and _numbered(data.values, space.symbols):
        coder = replace(coder, alphabets=[[float(i) for i in range(space.symbols)]])
    if coder.space.symbols > space.symbols or coder.space.shape != space.shape:
        raise InputError(
            f"{data.source} has {coder.space.symbols} symbols on sites {coder.space.shape}; the "
            f"process is of {space.symbols} on {space.shape}"
        )
    space.check(coder.to_model(data.values, data.source))
    return coder


def _numbered(values: np.ndarray, symbols: int) -> bool:
    """Whether the rows are numbers of symbols, 0 to `symbols` - 1."""
    return bool(np.isin(values, np.arange(symbols)).all())


@coder_on.register(Manifold)
def _points(space: Manifold, data: Dataset, train: Dataset) -> Scaler:
    return ManifoldCoder.fit(data, repr(space))


@coder_on.register(Simplex)
def _shares(space: Simplex, data: Dataset, train: Dataset) -> Scaler:
    return coder_for(SHARES, data)


def coder_for(space: str, data: Dataset) -> Scaler:
    """The coder of a space's name for these rows.

    space: `euclidean`, `symbols`, `sphere`, `torus`, `rotations`, `hyperbolic`, `shares`, `table`,
    `domain`, or a manifold spelled out, as `Sphere(2)`. Raises InputError on an unknown name and
    on rows that do not lie in the space.

    >>> import numpy as np
    >>> from reverie.data import coder_for, load
    >>> angles = load(np.array([[0.0, 1.0], [3.0, -3.0], [1.5, 2.0]]))
    >>> coder_for("torus", angles).to_model(angles.values).shape
    torch.Size([3, 2])
    """
    if data.kind == "text" and space != SYMBOLS:
        raise InputError(f"{data.source} is text: its space is symbols, not {space}")
    return NAMED.get(space, lambda rows: ManifoldCoder.fit(rows, space))(data)


def _of_shares(data: Dataset) -> Scaler:
    coder = PointsCoder(**form_of(data), of=SHARES)
    coder.to_model(data.values, data.source)
    return coder


# coders by the name of their space, and by a field that no other has
NAMED: dict[str, Callable[[Dataset], Scaler]] = {
    EUCLIDEAN: Scaler.fit, SYMBOLS: SymbolCoder.fit, SHARES: _of_shares,
}  # fmt: skip
KINDS: dict[str, type[Scaler]] = {
    "alphabets": SymbolCoder, "of": PointsCoder, "manifold": ManifoldCoder,
}  # fmt: skip


def coder_from_json(values: dict[str, Any]) -> Scaler:
    """The coder that `to_json` wrote; TypeError where a field is missing.

    >>> import numpy as np
    >>> from reverie.data import Scaler, coder_from_json, load
    >>> scaler = Scaler.fit(load(np.array([[0.0, 10.0], [2.0, 30.0]])))
    >>> coder_from_json(scaler.to_json()).mean
    [1.0, 20.0]
    """
    # runs of the release before call alphabets levels
    values = {"alphabets" if k == "levels" else k: v for k, v in values.items()}
    # a coder that has the fields of another and more is registered after it
    kinds = reversed(list(KINDS.items()))
    return next((kind for key, kind in kinds if key in values), Scaler)(**values)
