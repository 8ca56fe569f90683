"""MaxCut by Langevin dynamics on a product of spheres (Li & Erdogdu 2023, arXiv 2010.11176).

The semidefinite program max 1/4 <L, Z>, Z_ii = 1, Z >= 0 is written with rows x_i on the sphere
S^{k-1}: F(X) = -1/4 <L, X X^T>, without spurious optima for almost every cost once k (k + 1) / 2
is more than n. Langevin moves by the exponential map,

    x_i <- exp_{x_i}(-eta grad_i F + sqrt(2 eta / beta) P_i xi_i)

and samples exp(-beta F); near the optimum E F - F* is about d / (2 beta) for d directions that are
not flat (Laplace). So beta is chosen from the gap wanted and eta from the curvature. What is left
is taken by a quasi-Newton descent, and a dual certificate bounds the optimum from above whatever
was done before: with y_i = 1/4 ((L X)_i, x_i) and S = diag(y) - L / 4, it is at most
sum y - n min(0, lambda_min(S)).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import ArpackError, eigsh

from reverie.errors import InputError
from reverie.targets.graphs import Graph, graph_of

CURVATURE = 0.2  # eta times the largest curvature
COOLING = 300  # Langevin steps, over which beta rises to its last value
ROUNDS, ITERATIONS = 6, 2000
MEMORY, SHORTEST = 10, 1e-12  # of the descent
DENSE = 2000  # nodes up to which all eigenvalues are computed, beyond by Lanczos
SWEEPS = 100
SLACK = 1e-10  # of the eigenvalue, relative


@dataclass(frozen=True, eq=False)
class Cut:
    """What `maxcut` returns.

    value: 1/4 <L, X X^T>, what the program attains. bound: its dual certificate: no cut is above.
    cut: weight between the sides (n,) of -1 and 1. vectors: (n, k). beta, eta, steps: of Langevin.
    """

    graph: Graph
    value: float
    bound: float
    cut: float
    sides: np.ndarray
    vectors: np.ndarray
    beta: float
    eta: float
    steps: int
    asked: float

    @property
    def gap(self) -> float:
        """How far the program's value may be from its optimum, relative to the bound."""
        return (self.bound - self.value) / max(abs(self.bound), 1e-300)

    def sentences(self) -> list[str]:
        """What was found, in words."""
        met = "" if self.gap <= self.asked else f", not the {self.asked:.1g} that was asked"
        share = f" ({100 * self.cut / self.bound:.1f}% of it)" if self.bound > 0 else ""
        lines = [
            f"No cut of this graph weighs more than {self.bound:.8g}; the program attains "
            f"{self.value:.8g} (relative gap {self.gap:.1e}{met}).",
            f"A cut of weight {self.cut:.8g} was found{share}: "
            f"{int((self.sides > 0).sum())} nodes against {int((self.sides < 0).sum())}.",
        ]
        whole = np.array_equal(self.graph.weights.data, np.round(self.graph.weights.data))
        if whole and self.cut >= math.floor(self.bound + 1e-9):
            lines.append("Weights are whole, and so it is the best cut.")
        if self.graph.loops:
            lines.append(f"{self.graph.loops} edges from a node to itself were left out.")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, and the side of every node by its name."""
        return {
            "nodes": self.graph.nodes, "edges": self.graph.edges, "value": self.value,
            "bound": self.bound, "gap": self.gap, "cut": self.cut, "rank": self.vectors.shape[1],
            "beta": self.beta, "eta": self.eta, "langevin_steps": self.steps,
            "sides": {n: int(s) for n, s in zip(self.graph.names, self.sides, strict=True)},
        }  # fmt: skip


def maxcut(
    graph: Any,
    *,
    rank: int | None = None,
    accuracy: float = 1e-4,
    roundings: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Cut:
    """Bound the maximum cut of a graph and find a cut.

    graph: as `graph_of` takes it. rank: k, by default the least with k (k + 1) / 2 > n. accuracy:
    relative gap to the certificate; where it is not reached the result says so. roundings: random
    hyperplanes, each improved by moves of single nodes. InputError on what is no graph.

    Example: maxcut([(0, 1), (1, 2), (2, 0)]).cut
    """
    known = graph_of(graph)
    n = known.nodes
    k = default_rank(n) if rank is None else rank
    if not isinstance(k, int) or k < 2:
        raise InputError(f"rank is {rank!r}; a node's vector needs at least 2 coordinates")
    if not 0 < accuracy < 1 or roundings < 1:
        raise InputError("accuracy must lie between 0 and 1, and roundings be at least 1")
    rng = np.random.default_rng(seed)
    laplacian = known.laplacian()
    curvature = _curvature(laplacian)
    eta = CURVATURE / curvature
    x = _unit(rng.normal(size=(n, k)))
    scale = max(float(np.abs(known.weights.data).sum()) / 4, 1e-300)
    beta = n * (k - 1) / (2 * accuracy * scale)
    heat = np.geomspace(min(1 / curvature, beta), beta, COOLING)
    for done, b in enumerate(heat):
        x = langevin_step(laplacian, x, eta, float(b), rng)
        if progress is not None:
            progress(done + 1, COOLING + ROUNDS)
    value = bound = math.nan
    for turn in range(ROUNDS):
        x = _descended(laplacian, x, 10.0 ** -(7 + turn))
        value, bound = certificate(laplacian, x)
        if progress is not None:
            progress(COOLING + (ROUNDS if turn == ROUNDS - 1 else turn + 1), COOLING + ROUNDS)
        if bound - value <= accuracy * abs(bound):
            break
    if progress is not None:
        progress(COOLING + ROUNDS, COOLING + ROUNDS)
    sides, cut = rounded(known, x, roundings, rng)
    return Cut(known, value, bound, cut, sides, x, beta, eta, COOLING, accuracy)


def default_rank(n: int) -> int:
    """The least k with k (k + 1) / 2 > n, at least 2."""
    return max(2, math.floor((math.sqrt(8 * n + 1) - 1) / 2) + 1)


def langevin_step(
    laplacian: sparse.csr_array, x: np.ndarray, eta: float, beta: float, rng: np.random.Generator
) -> np.ndarray:
    """One step of rows x (n, k), or of C chains (n, C, k)."""
    flat = (laplacian @ x.reshape(len(x), -1)).reshape(x.shape)
    move = 0.5 * eta * flat
    if np.isfinite(beta):
        move = move + math.sqrt(2 * eta / beta) * rng.normal(size=x.shape)
    move = move - (move * x).sum(-1, keepdims=True) * x
    length = np.linalg.norm(move, axis=-1, keepdims=True)
    # sin(0) / 0 = 1
    return _unit(np.cos(length) * x + np.sinc(length / np.pi) * move)


def langevin_gap(
    graph: Graph,
    optimum: float,
    *,
    rank: int,
    beta: float,
    eta: float,
    steps: int,
    burn_in: int,
    chains: int = 64,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean of F - F* over chains at one temperature after a burn-in, and its standard error."""
    rng, laplacian = np.random.default_rng(seed), graph.laplacian()
    x = _unit(rng.normal(size=(graph.nodes, chains, rank)))
    total = np.zeros(chains)
    for step in range(burn_in + steps):
        x = langevin_step(laplacian, x, eta, beta, rng)
        if step >= burn_in:
            flat = (laplacian @ x.reshape(len(x), -1)).reshape(x.shape)
            total += optimum - 0.25 * (x * flat).sum((0, 2))
    gaps = total / steps
    return float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(chains))


def certificate(laplacian: sparse.csr_array, x: np.ndarray) -> tuple[float, float]:
    """1/4 <L, X X^T> of unit rows x (n, k), and an upper bound of the program's optimum."""
    n, pull = len(x), laplacian @ x
    y = 0.25 * (pull * x).sum(1)
    slack = sparse.diags_array(y) - 0.25 * laplacian
    return float(y.sum()), float(y.sum() - n * min(0.0, _least(sparse.csr_array(slack))))


def rounded(
    graph: Graph, x: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Sides (n,) of the best of `count` random hyperplanes, each improved node by node."""
    sides = np.where(x @ rng.normal(size=(x.shape[1], count)) >= 0, 1.0, -1.0)
    weights = graph.weights
    for _ in range(SWEEPS * graph.nodes):
        gain = sides * (weights @ sides)  # what a move of each node adds, (n, count)
        best = gain.argmax(0)
        better = gain[best, np.arange(count)] > 1e-12
        if not better.any():
            break
        sides[best[better], np.flatnonzero(better)] *= -1
    cuts = np.asarray(graph.cut(sides))
    chosen = int(cuts.argmax())
    return sides[:, chosen].astype(int), float(cuts[chosen])


def _descended(laplacian: sparse.csr_array, x: np.ndarray, tolerance: float) -> np.ndarray:
    """L-BFGS on free vectors v with x = v / |v|, by halving steps until F falls."""

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        length = np.linalg.norm(v, axis=1, keepdims=True)
        unit = v / length
        pull = -0.5 * (laplacian @ unit)
        slope = (pull - (pull * unit).sum(1, keepdims=True) * unit) / length
        return 0.5 * float((pull * unit).sum()), slope

    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=MEMORY)
    v, (value, slope) = x, loss(x)
    enough, first = tolerance * max(1.0, abs(value)), 1 / _curvature(laplacian)
    for _ in range(ITERATIONS):
        if float(np.abs(slope).max()) <= enough:
            break
        move = -_newton(slope, pairs, first)
        fall, step = float((move * slope).sum()), 1.0
        while step > SHORTEST:
            new, (lower, turned) = v + step * move, loss(v + step * move)
            if lower <= value + 1e-4 * step * fall:
                break
            step *= 0.5
        else:
            if not pairs:
                break
            pairs.clear()  # start again from the steepest descent
            continue
        bend = float(((new - v) * (turned - slope)).sum())
        if bend > 0:
            pairs.append((new - v, turned - slope, bend))
        v, value, slope = new, lower, turned
    return _unit(v)


def _newton(
    slope: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray, float]], first: float
) -> np.ndarray:
    """The inverse Hessian of the pairs (moves, changes of slope, products), on a slope."""
    result, shares = slope.copy(), []
    for moved, turned, bend in reversed(pairs):
        share = float((moved * result).sum()) / bend
        result -= share * turned
        shares.append(share)
    scale = first
    if pairs:
        _, turned, bend = pairs[-1]
        scale = bend / float((turned * turned).sum())
    result *= scale
    for (moved, turned, bend), share in zip(pairs, reversed(shares), strict=True):
        result += (share - float((turned * result).sum()) / bend) * moved
    return result


def _least(matrix: sparse.csr_array) -> float:
    """A lower bound of the least eigenvalue: computed, less its possible error."""
    n = len(matrix.indptr) - 1  # rows
    if n <= DENSE:
        values = np.linalg.eigvalsh(matrix.toarray())
        return float(values[0]) - SLACK * float(np.abs(values).max())
    norm = float(np.max(np.asarray(abs(matrix).sum(1))))
    shifted = sparse.csr_array(sparse.eye_array(n) * norm - matrix)
    try:
        options: Any = dict(which="LM", tol=1e-10, maxiter=100 * n, ncv=60)
        found: Any = eigsh(shifted, k=1, **options)
    except ArpackError:
        return float(np.linalg.eigvalsh(matrix.toarray())[0]) - SLACK * norm
    # an eigenvalue lies within the residual of the Rayleigh quotient
    value, vector = float(found[0][0]), found[1][:, 0]
    off = float(np.linalg.norm(shifted @ vector - value * vector))
    return norm - value - off - SLACK * norm


def _curvature(laplacian: sparse.csr_array) -> float:
    """A bound of F's curvature on the spheres: half the largest absolute row sum, twice."""
    return max(float(abs(laplacian).sum(1).max()), 1e-300)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
