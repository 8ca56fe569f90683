"""Sequences, grids and tables of symbols: every site holds one of finitely many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.base import Space


class FiniteSet(Space):
    """{0, ..., S - 1}^sites, points int64 (B, *sites).

    symbols: how many, or a string of the letters themselves. sites: how many, or their shape.
    sizes: how many of the symbols each site has, where they differ, as the columns of a table do.
    Raises InputError on fewer than two symbols, repeated letters, no sites, sizes beyond 1 to S.

    >>> from reverie.spaces import FiniteSet
    >>> space = FiniteSet("acgt", sites=4)
    >>> points = space.encode(["gatt", "acca"], pad="a")
    >>> points.tolist(), space.decode(points)
    ([[2, 0, 3, 3], [0, 1, 1, 0]], ['gatt', 'acca'])
    """

    shape: tuple[int, ...]

    def __init__(
        self,
        symbols: int | str,
        sites: int | tuple[int, ...],
        sizes: Sequence[int] | None = None,
    ) -> None:
        self.alphabet = symbols if isinstance(symbols, str) else None
        self.symbols = len(symbols) if isinstance(symbols, str) else int(symbols)
        self.shape = (sites,) if isinstance(sites, int) else tuple(sites)
        if self.alphabet is not None and len(set(self.alphabet)) < self.symbols:
            raise InputError(f"the alphabet {self.alphabet!r} holds a letter twice")
        if self.symbols < 2:
            raise InputError(f"a site needs at least two symbols to choose from, not {symbols!r}")
        if not self.shape or min(self.shape) < 1:
            raise InputError(f"the sites have shape {self.shape}; every side must be at least 1")
        self.sizes = None if sizes is None else torch.as_tensor(sizes).reshape(self.shape)
        if (
            self.sizes is not None
            and not 1 <= self.sizes.min() <= self.sizes.max() <= self.symbols
        ):
            raise InputError(f"a site has 1 to {self.symbols} symbols, not {self.sizes.tolist()}")

    @property
    def outside(self) -> Tensor | None:
        """Mask (*sites, S) of the symbols that a site does not have; None where all have all."""
        if self.sizes is None:
            return None
        return torch.arange(self.symbols) >= self.sizes[..., None]

    def as_points(self, data: Tensor) -> Tensor:
        return self._whole(data)

    def check(self, x: Tensor) -> Tensor:
        """Return `x` as int64 (B, *sites); InputError names the first row and symbol outside."""
        self._check_shape(x)
        points = self._whole(x)
        most = torch.tensor(self.symbols) if self.sizes is None else self.sizes.to(points.device)
        bad = ((points < 0) | (points >= most)).flatten(1)
        if bad.any():
            row = int(bad.any(1).nonzero()[0, 0])
            site = int(bad[row].nonzero()[0, 0])
            symbol, known = (
                int(points.flatten(1)[row, site]),
                int(most.expand(self.shape).flatten()[site]),
            )
            raise InputError(
                f"row {row} holds the symbol {symbol}; the {known} symbols are numbered "
                f"from 0 to {known - 1}"
            )
        return points

    @staticmethod
    def _whole(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x.long()
        bad = (x != x.round()) | ~torch.isfinite(x)
        if bad.any():
            row = int(bad.reshape(len(x), -1).any(1).nonzero()[0, 0])
            value = float(x[row][bad[row]].reshape(-1)[0])
            raise InputError(f"row {row} holds {value:g}; a symbol is a whole number")
        return x.long()

    def encode(self, words: Sequence[str], pad: str) -> Tensor:
        """Words of letters as points (B, sites), filled up on the right with the letter `pad`.

        Raises InputError that names the first row with an unknown letter or too many of them.
        """
        if self.alphabet is None or len(self.shape) != 1:
            raise InputError("only a set with an alphabet and one row of sites reads words")
        if pad not in self.alphabet:
            raise InputError(f"the padding {pad!r} is not in the alphabet {self.alphabet!r}")
        number = {letter: i for i, letter in enumerate(self.alphabet)}
        rows = []
        for row, word in enumerate(words):
            if len(word) > self.shape[0]:
                raise InputError(f"row {row}, {word!r}, is longer than {self.shape[0]} letters")
            unknown = [letter for letter in word if letter not in number]
            if unknown:
                raise InputError(
                    f"row {row}, {word!r}, holds {unknown[0]!r}, which is not in the alphabet "
                    f"{self.alphabet!r}"
                )
            rows.append([number[letter] for letter in word.ljust(self.shape[0], pad)])
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), *self.shape)

    def decode(self, points: Tensor) -> list[str]:
        """Points (B, sites) as words, padding included."""
        if self.alphabet is None:
            raise InputError("only a set with an alphabet writes words")
        letters = self.alphabet
        return ["".join(letters[i] for i in row) for row in self.check(points).tolist()]

    def __repr__(self) -> str:
        sizes = "" if self.sizes is None else f", {self.sizes.tolist()}"
        return f"FiniteSet({self.alphabet or self.symbols!r}, {self.shape}{sizes})"
