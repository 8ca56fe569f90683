"""Heat kernels of H^n for any n, exactly: one derivative by y = cosh r is two dimensions more.

With D = -d/dy and the generator half the Laplacian (Millson; Davies & Mandouvalos 1988; Grigor'yan
& Noguchi 1998)

    p_(n+2) = exp(-n tau/2) / (2 pi) D p_n,       p_1 = (2 pi tau)^(-1/2) exp(-r^2 / 2 tau)
    p_n(r)  = sqrt(2) exp((2n - 1) tau/8) int_r^inf p_(n+1)(s) sinh s / sqrt(cosh s - cosh r) ds

so that odd dimensions are closed and even ones one integral, and the pull of `heat_kernels`, which
is D p / p, is a ratio of two of them. With h = r^2 / 2 as a function of y and h_j = |h^(j)|,

    D^k exp(-h/tau) = g_k exp(-h/tau),    g_(k+1) = 1/tau sum_(j <= k) C(k, j) h_(j+1) g_(k-j)

a sum of positive terms: the derivatives of h alternate in sign. All is kept in units of y, as
g_k y^k and h_j y^j, which do not overflow far out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from reverie.processes.heat_kernels import LEAST_ANGLE, Radial, log_sinhc

MOST_DIMENSIONS = 16  # beyond it the recurrence for h_j loses digits
NEAR, TERMS = 1.0, 56  # of y - 1: inside, h_j is read from its series, to 2^-TERMS of a term
NODES, FALLEN = 48, 40.0  # of Gauss and Legendre, to where the integrand is exp(-FALLEN)
AT_ONCE = 2**18  # numbers of all nodes that are held at a time


def hyperbolic(r: Tensor, tau: Tensor, dim: int) -> Radial:
    """log p and pull of H^dim at distances r and durations tau, 2 <= dim <= MOST_DIMENSIONS."""
    return _odd(r, tau, dim) if dim % 2 else _even(r, tau, dim)


def _odd(r: Tensor, tau: Tensor, dim: int) -> Radial:
    k = dim // 2
    r, tau = torch.broadcast_tensors(r, tau)
    g = _powers(r.clamp(min=LEAST_ANGLE), tau, k + 1)
    log_y = _log_cosh(r)
    log_p = _log_constant(tau, k) - 0.5 * r.square() / tau + g[k].log() - k * log_y
    return log_p, (g[k + 1] / g[k]) * (-log_y).exp()


def _even(r: Tensor, tau: Tensor, dim: int) -> Radial:
    """s^2 = r^2 + 2 tau w^2 leaves an integrand smooth in w, about exp(-w^2 - (k - 1/2) s)."""
    k = dim // 2
    r, tau = torch.broadcast_tensors(r, tau)
    r = r.clamp(min=LEAST_ANGLE)
    log_y = _log_cosh(r)
    fall = k - 0.5 + r / tau
    length = 2 * FALLEN / (fall + (fall.square() + 2 * FALLEN / tau).sqrt())  # of s - r
    reach = (length * (length + 2 * r) / (2 * tau)).sqrt()
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(NODES))
    totals = [torch.zeros_like(r), torch.zeros_like(r)]
    each = max(1, AT_ONCE // max(r.numel(), 1))
    for node, weight in zip(nodes.split(each), weights.split(each), strict=True):
        shape = (-1, *(1,) * r.ndim)
        w = 0.5 * (1 + node.to(r).reshape(shape)) * reach
        s = (r.square() + 2 * tau * w * w).sqrt()
        a, b = 0.5 * (s + r), tau * w * w / (s + r)  # b = (s - r)/2 without cancellation
        spread = log_sinhc(s) - 0.5 * (log_sinhc(a) + log_sinhc(b)) - w * w
        g, far = _powers(s, tau, k + 1), _log_cosh(s) - log_y
        for j in (0, 1):  # relative to y^k and y^(k+1) at r, so that nothing underflows
            part = g[k + j] * (spread - (k + j) * far).exp()
            totals[j] = totals[j] + (weight.to(r).reshape(shape) * part).sum(0)
    log_p = (
        _log_constant(tau, k) + 0.5 * math.log(2) + (4 * k - 1) * tau / 8
        + (reach * tau.sqrt()).log() - 0.5 * r.square() / tau
        + totals[0].log() - k * log_y
    )  # fmt: skip
    # of H^(n+2), over 2 pi exp(n tau/2): the constants of the two integrals differ by just that
    return log_p, (totals[1] / totals[0]) * (-log_y).exp()


def _log_constant(tau: Tensor, k: int) -> Tensor:
    """Of H^(2k+1): log of (2 pi tau)^(-1/2) (2 pi)^(-k) exp(-k^2 tau/2)."""
    return -0.5 * (2 * math.pi * tau).log() - k * math.log(2 * math.pi) - 0.5 * k * k * tau


def _powers(r: Tensor, tau: Tensor, most: int) -> list[Tensor]:
    """g_k y^k for k = 0 to `most`."""
    h, g = _slopes(r, most), [torch.ones_like(r)]
    for k in range(most):
        terms = (math.comb(k, j) * h[j] * g[k - j] for j in range(k + 1))
        g.append(torch.stack(list(terms)).sum(0) / tau)
    return g


def _slopes(r: Tensor, count: int) -> list[Tensor]:
    """h_j y^j for j = 1 to `count`, h = r^2 / 2 as a function of y = cosh r.

    (y^2 - 1) h'' + y h' = 1, differentiated, gives each from the two before it. Upwards that loses
    (y + 1)/(y - 1) a step; near y = 1 the Taylor series, whose terms fall by (y - 1)/2, does not.
    """
    less = 2 * (0.5 * r).sinh().square()  # y - 1 without cancellation
    near = less < NEAR
    q = torch.where(near, 1.0, r.tanh()).square()
    far = [torch.where(near, 1.0, r / r.tanh())]
    if count > 1:
        far.append((far[0] - 1) / q)
    for j in range(1, count - 1):
        far.append(((2 * j + 1) * far[j] - j * j * far[j - 1]) / q)
    if not near.any():
        return far
    at_one = [1.0]
    for j in range(1, count + TERMS):
        at_one.append(at_one[-1] * j * j / (2 * j + 1))
    inside, y = torch.where(near, less, 0.0), torch.where(near, 1 + less, 1.0)
    close = []
    for j in range(count):
        value = torch.zeros_like(r)
        for m in range(TERMS - 1, -1, -1):  # Horner's rule for sum (-x)^m h_(j+m) / m!
            value = at_one[j + m] / math.factorial(m) - inside * value
        close.append(value * y ** (j + 1))
    return [torch.where(near, c, f) for c, f in zip(close, far, strict=True)]


def _log_cosh(r: Tensor) -> Tensor:
    return r + torch.log1p((-2 * r).exp()) - math.log(2)
