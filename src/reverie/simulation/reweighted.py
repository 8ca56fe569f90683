"""Several observations of posteriors that are not Gaussian: weighted draws of what they all allow.

`Composed` takes each factor as Gaussian. Whether that holds is tested on draws of every single
posterior: by Mardia's (1970) statistics of n rows, b1 = mean (z_i.z_j)^3 and b2 = mean |z_i|^4 of
the whitened rows, for a normal law

    n b1 / 6 ~ chi^2 of d (d + 1)(d + 2)/6 degrees
    (b2 - d (d + 2)) / sqrt(8 d (d + 2)/n) ~ N(0, 1)

Where it is rejected at LEVEL (Bonferroni over the tests) draws come from a mixture m: half of the
composed law c, half of the single posteriors in equal shares. Their weights are importance
weights of the right product,

    W = prod_i p(w | x_i) / p(w)^(k - 1) / m(w),   m = c / 2 + sum_i p(w | x_i) / 2k,

with all densities by the probability flow, so that the composed law is a proposal and no more
(deterministic mixtures: Owen & Zhou 2000). (sum W)^2 / sum W^2 of the draws count; with fewer than
FEWEST the observations are refused.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from reverie.errors import InputError
from reverie.information.flow import flow_density
from reverie.simulation.composition import Composed

LEVEL = 1e-3
FEWEST = 100
TOLERANCE = 1e-3  # of the flow's densities: far below the spread of the weights' logarithms
LEAST = 1e-10  # of a variance in units of the largest: a direction that draws do not move along


def normality(draws: Tensor) -> float:
    """The smaller p-value, doubled, of Mardia's two tests on rows (n, d)."""
    rows = draws.double() - draws.double().mean(0)
    n = len(rows)
    variance, basis = torch.linalg.eigh(rows.T @ rows / n)
    kept = variance > LEAST * variance[-1]
    z = rows @ (basis[:, kept] / variance[kept].sqrt())
    d = z.shape[1]
    skewness = float((z @ z.T).pow(3).mean())
    kurtosis = float(z.square().sum(1).square().mean())
    skew_p = stats.chi2.sf(n * skewness / 6, d * (d + 1) * (d + 2) / 6)
    tail_p = 2 * stats.norm.sf(abs(kurtosis - d * (d + 2)) / np.sqrt(8 * d * (d + 2) / n))
    return float(min(1.0, 2 * min(skew_p, tail_p)))


def are_gaussian(draws: Tensor) -> bool:
    """Whether none of the laws of draws (k, n, d) is told from a normal one, at LEVEL in all."""
    return min(normality(rows) for rows in draws) > LEVEL / len(draws)


def reweighted(
    composed: Composed,
    proposed: Tensor,
    inside: Tensor,
    log_prior: Tensor,
    n: int,
    generator: torch.Generator,
) -> Tensor:
    """Rows of `proposed` (N,) that stand for n draws given all observations.

    proposed: (N, d) in model coordinates, half of the composed law and half of the single ones.
    inside: (N,), of the prior's support. log_prior: (N,), up to a constant. Raises InputError
    where fewer than FEWEST of the draws count.
    """
    count = len(composed.observations)
    logs = torch.full((len(proposed),), -torch.inf, dtype=torch.float64)
    points = proposed[inside].float()
    single = torch.stack(
        [
            flow_density(
                composed.denoiser, points, probes=None, tolerance=TOLERANCE,
                condition=row.expand(len(points), -1),
            ).nats.double()
            for row in composed.observations
        ]
    )  # fmt: skip
    joint = flow_density(composed, points, probes=None, tolerance=TOLERANCE).nats.double()
    # densities of the proposal, halved: of the composed law, and of the mean single one
    mixed = torch.logaddexp(joint, single.logsumexp(0) - np.log(count))
    logs[inside] = single.sum(0) - (count - 1) * log_prior[inside] - mixed
    weights = (logs - logs.max()).exp().nan_to_num(0.0)
    worth = float(weights.sum().square() / weights.square().sum())
    if worth < FEWEST:
        raise InputError(
            f"the single posteriors are not Gaussian, and only {worth:.0f} of {len(proposed)} "
            f"draws count given all {count} observations (at least {FEWEST} are needed): they "
            "agree on too little; fit a posterior of all observations at once with exchangeable="
        )
    # systematic: each row comes up as often as its weight says, to less than one
    places = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    chosen = torch.searchsorted(weights.cumsum(0) / weights.sum(), places.double())
    order = torch.randperm(n, generator=generator)
    return chosen.clamp(max=len(proposed) - 1)[order]
