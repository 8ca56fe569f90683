"""Step-optimised schedules: levels that damp the network's error in a multistep solver.

DPM-Solver++ of order up to three writes x_K as a sum of network outputs at the levels lambda_n =
log(alpha/sigma), with coefficients c_n = int e^lambda (Lagrange polynomial of n) dlambda. Xue et
al. minimise sum_n |c_n| err(lambda_n), err = sigma^2/alpha of the variance-preserving process,
over the interior levels; the first three solver steps enter by the root of their squared terms.
No network is called. Levels of other processes are those with the same signal-to-noise ratio.

Source: Xue et al. 2024 (arXiv 2402.17376) and the program its authors released; the optimiser
(softmax of steps, exact gradients, L-BFGS, two starts) is ours.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from reverie.plan.classic import log_snr, vp_time

FIRST = 3  # solver steps whose terms are summed in squares; also the highest order
LEAST = 1e-3  # no step is smaller than this share of an even one
NODES, WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(12))


@lru_cache(maxsize=256)
def _levels(low: float, high: float, steps: int) -> tuple[float, ...]:
    starts = [log_snr(low, high, steps), vp_time(low, high, steps)]
    found = [_descend(0.5 * torch.from_numpy(start)) for start in starts]
    return tuple((2 * min(found, key=lambda levels: float(error_bound(levels)))).tolist())


def step_optimised(low: float, high: float, steps: int) -> np.ndarray:
    """Knots on log gamma; the better of two starts, uniform log-SNR and uniform time."""
    return np.array(_levels(float(low), float(high), steps))


def error_bound(levels: Tensor) -> Tensor:
    """The objective of levels (K + 1,) of lambda = log(alpha/sigma), increasing."""
    count = len(levels) - 1
    error = torch.exp(-levels) / torch.sqrt(1 + torch.exp(2 * levels))  # sigma^2 / alpha
    step = torch.arange(count)
    order = torch.minimum(torch.minimum(step + 1, count - step), torch.tensor(FIRST))
    total, coefficients = levels.new_zeros(()), levels.new_zeros(count)
    for size in range(1, int(order.max()) + 1):
        rows = step[order == size]
        past = rows[:, None] + torch.arange(1 - size, 1)
        terms = error[past] * _step_weights(levels[past], levels[rows + 1])
        early = (rows < FIRST) | (size == 1)
        total = total + terms[early].square().sum(1).sqrt().sum()
        coefficients = coefficients.index_add(0, past[~early].ravel(), terms[~early].ravel())
    return total + coefficients.abs().sum()


def _step_weights(past: Tensor, stop: Tensor) -> Tensor:
    """int e^lambda l_j dlambda from past[:, -1] to stop, for the Lagrange basis on past (M, m)."""
    start = past[:, -1:]
    half = 0.5 * (stop[:, None] - start)
    nodes = start + half * (NODES + 1)
    mass = half * WEIGHTS * nodes.exp()
    weights = []
    for j in range(past.shape[1]):
        basis = mass
        for other in range(past.shape[1]):
            if other != j:
                gap = past[:, j : j + 1] - past[:, other : other + 1]
                basis = basis * (nodes - past[:, other : other + 1]) / gap
        weights.append(basis.sum(1))
    return torch.stack(weights, dim=1)


def _descend(levels: Tensor) -> Tensor:
    """Minimise over positive steps with a fixed sum: their logarithms are free."""
    low, span, count = levels[0], levels[-1] - levels[0], len(levels) - 1
    if count < 2:
        return levels
    even = torch.arange(1, count + 1) / count

    def build(free: Tensor) -> Tensor:
        share = (1 - LEAST) * torch.softmax(free, 0).cumsum(0) + LEAST * even
        return torch.cat([low[None], low + span * share])

    def value(free: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            leaf = torch.from_numpy(free).requires_grad_(True)
            bound = error_bound(build(leaf)).log()
            (slope,) = torch.autograd.grad(bound, leaf)
        return float(bound.detach()), slope.numpy()

    start = levels.diff().log().numpy()
    found = minimize(
        value, start, jac=True, method="L-BFGS-B", options={"maxfun": 60, "maxls": 10}
    ).x
    best = min((start, found), key=lambda free: value(free)[0])
    return build(torch.from_numpy(best))
