"""The phi^4 field on a periodic square lattice, and a sampler of its own for it.

    p(phi) ~ exp(-E),   E = -beta sum_<ij> phi_i phi_j + sum_i (phi_i^4 - phi_i^2)

in the normalisation of Guth et al. 2022 (their critical beta is .68). Chains advance together:
Metropolis steps on one colour of the checkerboard after the other, and flips of the signs of whole
clusters (Swendsen & Wang 1987; embedded in phi^4 by Brower & Tamayo 1989), which keep the chains
moving at the critical point.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from reverie.errors import InputError

REACH = 1.2  # of a Metropolis proposal: about half are accepted at beta near .7
SWEEPS = 4  # Metropolis sweeps between cluster flips


def energy(fields: np.ndarray, beta: float) -> np.ndarray:
    """E (n,) of fields (n, L, L)."""
    beside = np.roll(fields, 1, 1) + np.roll(fields, 1, 2)
    square = fields**2
    return (square * (square - 1) - beta * fields * beside).sum((1, 2))


def binder(magnetisation: np.ndarray) -> float:
    """Binder's cumulant 1 - <m^4> / (3 <m^2>^2) of magnetisations (n,)."""
    square = np.asarray(magnetisation, dtype=np.float64) ** 2
    return float(1 - (square**2).mean() / (3 * square.mean() ** 2))


class Chains:
    """`count` Markov chains of L x L fields (count, L, L) at inverse temperature `beta`.

    They start from signs that all agree and values near the bottom of the well. Raises InputError
    on an odd side, where the checkerboard has no two colours, or one below 2.
    """

    def __init__(self, count: int, side: int, beta: float, seed: int = 0) -> None:
        if side < 2 or side % 2:
            raise InputError(f"the side is {side}; a checkerboard needs an even one")
        self.beta, self.rng = beta, np.random.default_rng(seed)
        self.fields = np.ones((count, side, side), dtype=np.float32)
        rows, columns = np.indices((side, side))
        self._colours = [(rows + columns) % 2 == colour for colour in (0, 1)]
        place = np.arange(count * side * side).reshape(self.fields.shape)
        self._bonds = [(place, np.roll(place, -1, axis), axis) for axis in (1, 2)]

    def advance(self, rounds: int) -> None:
        """`rounds` times: Metropolis sweeps, then one flip of clusters."""
        for _ in range(rounds):
            for _ in range(SWEEPS):
                self.sweep()
            self.flip()

    def sweep(self) -> None:
        """One Metropolis step of every site, all sites of a colour at once."""
        fields, rng = self.fields, self.rng
        for colour in self._colours:
            around = sum(np.roll(fields, shift, axis) for shift in (1, -1) for axis in (1, 2))
            old, pull = fields[:, colour], self.beta * np.asarray(around)[:, colour]
            new = old + REACH * (2 * rng.random(old.shape, dtype=np.float32) - 1)
            fall = pull * (new - old) + _well(old) - _well(new)
            accepted = -rng.standard_exponential(old.shape, dtype=np.float32) < fall
            fields[:, colour] = np.where(accepted, new, old)

    def flip(self) -> None:
        """Join neighbours of one sign with chance 1 - exp(-2 beta phi_i phi_j); flip half."""
        fields, starts, stops = self.fields, [], []
        for here, there, axis in self._bonds:
            aligned = 2 * self.beta * fields * np.roll(fields, -1, axis)
            joined = self.rng.standard_exponential(fields.shape, dtype=np.float32) < aligned
            starts.append(here[joined])
            stops.append(there[joined])
        start, stop = np.concatenate(starts), np.concatenate(stops)
        graph = coo_array((np.ones(len(start), dtype=np.int8), (start, stop)), (fields.size,) * 2)
        count, cluster = connected_components(graph, directed=False)
        signs = 2 * self.rng.integers(0, 2, count, dtype=np.int8) - 1
        self.fields = fields * signs[cluster].reshape(fields.shape).astype(np.float32)


def _well(phi: np.ndarray) -> np.ndarray:
    square = phi * phi
    return square * (square - 1)
