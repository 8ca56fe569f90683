"""Lineages of the coalescent with mutation: the series and the draws behind Wright-Fisher noise.

Followed backwards for a time tau, infinitely many lineages coalesce in pairs and are lost by
mutation at total rate k (k + theta - 1) / 2; A of them are left. Given A = n and the clean shares
x, their types l are multinomial (n, x), and the noised shares Dirichlet(a + l) with theta = sum a
(Griffiths 1980; Tavare 1984; Jenkins & Spano 2017, section 2).
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor

DIGITS = 20  # of the law of A that are right
UNDERFLOW = 1e-280
NODES, WEIGHTS = (torch.as_tensor(a) for a in np.polynomial.legendre.leggauss(12))


def mean_lineages(theta: Tensor, tau: Tensor) -> Tensor:
    """Mean of A for short times, the leading order in tau (Griffiths 1984)."""
    drop = 0.5 * (theta - 1) * tau
    small = drop.abs() < 1e-6
    return 2 / tau * torch.where(small, 1.0, drop / torch.expm1(drop.where(~small, 1.0)))


@lru_cache(maxsize=512)
def lineage_law(theta: float, tau: float) -> Tensor:
    """P(A = n), n = 0..N, in float64; what lies beyond N is below 1e-16.

    The series sum_k (-1)^(k - n) (theta + 2k - 1) (theta + n)_(k - 1) e^(-k (k + theta - 1) tau/2)
    / (n! (k - n)!), k >= n, cancels more digits the shorter tau is: it is summed in as many as
    it takes, about 70 at tau = .01, where it takes a second.
    """
    mean = float(mean_lineages(torch.tensor(theta), torch.tensor(tau)))
    last = int(mean + 9 * math.sqrt(mean)) + 12
    size, terms = _size(theta, tau, last)
    with localcontext() as context:
        context.prec = int(size / math.log(10)) + DIGITS
        base, half = Decimal(theta), -Decimal(tau) / 2
        factor = [(base + 2 * k - 1) * (half * k * (k + base - 1)).exp() for k in range(terms)]
        law = [_probability(n, base, factor) for n in range(1, last + 1)]
        law = [1 - sum(law), *law]
    return torch.tensor([float(p) for p in law], dtype=torch.float64).clamp(min=0)


def _probability(n: int, theta: Decimal, factor: list[Decimal]) -> Decimal:
    """The series of P(A = n), n > 0, in the precision of the context."""
    weight = Decimal(1)
    for j in range(n - 1):
        weight *= (theta + n + j) / (j + 1)
    weight /= n
    total = factor[n] * weight
    for k in range(n, len(factor) - 1):
        weight *= -(theta + n + k - 1) / (k + 1 - n)
        total += factor[k + 1] * weight
    return total


def _size(theta: float, tau: float, last: int) -> tuple[float, int]:
    """Logarithm of the largest term of the series, and how many terms of k matter."""
    n = np.arange(1, last + 1)[:, None]
    top, terms = 0.0, last + 16
    while True:
        k = np.arange(1, terms)[None]
        log = gammaln(theta + n + k - 1) - gammaln(theta + n) - gammaln(n + 1)
        log = log - gammaln(np.maximum(k - n, 0) + 1) + np.log(np.abs(theta + 2 * k - 1) + 1e-300)
        log = np.where(k >= n, log - 0.5 * k * (k + theta - 1) * tau, -np.inf)
        top = max(top, float(log.max()))
        if log[:, -1].max() < -2.5 * DIGITS:
            return top, terms
        terms *= 2


def draw_lineages(
    theta: Tensor, tau: Tensor, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw A (B,) for theta (B,) and tau (B,), float64 whole numbers.

    The waiting times of the ladder k, k - 1, ... are drawn down from well above the mean; the time
    to come down to there from infinity is a gamma variate with the exact mean and variance, the
    only approximation (its third cumulant is 4/9 short of the true one's).
    """
    mean = mean_lineages(theta, tau)
    reach = 10 * mean.sqrt() + 20
    top = (mean + reach).ceil()
    width = int((2 * reach).max()) + 2
    level = (top[:, None] - torch.arange(width).to(top)).clamp(min=0)
    rate = (0.5 * level * (level + theta[:, None] - 1)).abs()  # at 0 never: 1 / 0, not 1 / -0
    wait = torch.empty_like(rate).exponential_(generator=generator) / rate
    clock = _arrival(top, theta, generator)[:, None] + wait.cumsum(1)
    return top - (clock <= tau[:, None]).sum(1)


def _arrival(top: Tensor, theta: Tensor, generator: torch.Generator | None) -> Tensor:
    """Time (B,) spent above `top` lineages; sums over k > top are integrals from top + 1/2."""
    edge, nodes = (top + 0.5)[:, None], 0.5 * (NODES + 1).to(top)
    slope = edge + (theta - 1)[:, None] * nodes
    mean = (2 / slope) @ (0.5 * WEIGHTS).to(top)
    variance = (4 * nodes.square() / (edge * slope.square())) @ (0.5 * WEIGHTS).to(top)
    return _gamma(mean.square() / variance, generator) * variance / mean


def draw_types(count: Tensor, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Multinomial counts (B, k) of `count` (B,) draws from shares x (B, k)."""
    left, rest, drawn = count, x.flip(1).cumsum(1).flip(1), []
    for i in range(x.shape[1] - 1):
        share = (x[:, i] / rest[:, i].clamp(min=1e-300)).clamp(0, 1)
        drawn.append(torch.binomial(left, share, generator=generator))
        left = left - drawn[-1]
    return torch.stack([*drawn, left], 1)


def draw_dirichlet(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw shares (B, k), all positive, of Dirichlet laws with weights (B, k)."""
    parts = _gamma(weights, generator).clamp(min=1e-30)
    return parts / parts.sum(1, keepdim=True)


def evolve(
    x: Tensor, rates: Tensor, tau: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Shares (B, k) that start at x after durations tau (B,), and the types of their lineages.

    rates: (B, k), of mutation to each type.
    """
    count = draw_lineages(rates.sum(1), tau, generator=generator)
    types = draw_types(count, x, generator)
    return draw_dirichlet(rates + types, generator), types


def log_rising(base: Tensor, count: Tensor) -> Tensor:
    """log of base (base + 1) ... (base + count - 1)."""
    return torch.lgamma(base + count) - torch.lgamma(base)


def _gamma(shape: Tensor, generator: torch.Generator | None) -> Tensor:
    # the public torch.distributions.Gamma takes no generator
    return torch._standard_gamma(shape, generator=generator)  # pyright: ignore


def sum_over_lineages(terms: Tensor, weights: Tensor, tilt: Tensor) -> tuple[Tensor, Tensor]:
    """log sum_n e^(weights_n) sum_{|l| = n} prod_i e^(terms_i(l_i)), and the mean of l there.

    terms: (P, k, N + 1) logarithms; weights: (N + 1,). tilt: (P,), a log z at which the largest
    terms_i(l) + l log z lie near the l that matter, to keep the products within floating point.
    Returns (P,) and (P, k). Every product is of positive numbers: no digits cancel.
    """
    count = torch.arange(terms.shape[2]).to(terms)
    tilted = terms + count * tilt[:, None, None]
    peak = tilted.amax(2, keepdim=True)
    parts = (tilted - peak).exp().unbind(1)
    before, after = [torch.zeros_like(parts[0])], [torch.zeros_like(parts[0])]
    before[0][:, 0] = after[0][:, 0] = 1
    for i in range(len(parts)):
        before.append(_convolve(before[-1], parts[i]))
        after.append(_convolve(after[-1], parts[-1 - i]))
    # what underflows is left out: it is of pairs too far apart to matter
    whole = before[-1].where(before[-1] > UNDERFLOW, 0.0)
    logs = whole.log() + weights - count * tilt[:, None]
    total = torch.logsumexp(logs, 1).clamp(min=-1e6)
    share = (logs - total[:, None]).exp() / whole.where(whole > 0, 1.0)
    mean = [
        (share * _convolve(count * part, _convolve(before[i], after[-2 - i]))).sum(1)
        for i, part in enumerate(parts)
    ]
    return total + peak.sum((1, 2)), torch.stack(mean, 1)


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    """Coefficients (P, N + 1) of the product of two polynomials, cut at degree N."""
    out, size = torch.zeros_like(a), a.shape[1]
    for shift in range(size):
        out[:, shift:].addcmul_(a[:, : size - shift], b[:, shift : shift + 1])
    return out
