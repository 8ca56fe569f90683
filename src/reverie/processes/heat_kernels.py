"""Heat kernels of isotropic spaces as functions of the distance r: log-densities and slopes.

The generator is half the Laplacian, tau the duration, densities are with respect to the volume of
the space of unit size (`spaces`), logarithms natural. Each function takes distances r and
durations tau of shapes that broadcast (float64) and returns

    log p(r, tau)    and    pull(r, tau) = -(d log p / dr) / sn(r),    sn = sin or sinh,

so that the score at x of the kernel from y is pull times the tangential part of y at x (for
rotations of angle r, where the tangential part is sin(r) long too): it needs no logarithm map and
is smooth at r = 0.

Short times use one uniform expansion on spheres,

    p = (2 pi tau)^(-d/2) exp(-r^2 / 2 tau) (r / sin r)^m exp(m^2 tau / 2 + tau b(r)) F(z),

m = (d - 1)/2: the WKB expansion with its first correction (Minakshisundaram & Pleijel 1949;
b = m (m - 1)/2 (cot r - 1/r)/r), and F(z) = sqrt(2 pi z) I_(d/2-1)(z) exp(-z) at
z = pi (pi - r)/tau, which sums the geodesics that meet at the antipode (Molchanov 1975); F holds
the pole of b at r = pi, which is taken out of b. Long times use the series over eigenfunctions.
"""

from __future__ import annotations

import math

import torch
from scipy import special
from torch import Tensor

Radial = tuple[Tensor, Tensor]
SPHERE_SWITCH = 0.16  # duration from which the series is used; from S^4 on 0.1
ROTATION_SWITCH = 1.0
TORUS_SWITCH = math.pi
LEAST_ANGLE = 1e-4  # nearer than this a pull is read here: it is flat at 0 and at pi
NEAREST_ANTIPODE = 1e-3


def sphere(r: Tensor, tau: Tensor, dim: int) -> Radial:
    """The kernel of S^dim, dim > 1: expansion below SPHERE_SWITCH, series above.

    At the switch the two agree to 1e-4 of p on S^2, to rounding on S^3, to 5e-4 on S^5 and to 6e-3
    on S^9 (within 2.5 of the centre; beyond it p is less than 1e-8 of its peak).
    """
    switch = SPHERE_SWITCH if dim < 4 else 0.1
    return _switch(r, tau, switch, sphere_expansion, sphere_series, dim)


def sphere_series(r: Tensor, tau: Tensor, dim: int) -> Radial:
    """Sum over degrees l of N_l exp(-l (l + d - 1) tau / 2) R_l(cos r) / volume.

    R_l is the zonal harmonic with R_l(1) = 1, and N_l the number of harmonics of degree l.
    """
    degrees = math.ceil(12 / math.sqrt(float(tau.min()))) + dim
    z = r.cos()
    old, new = torch.ones_like(z), z  # R_0, R_1, and their derivatives by z
    old_slope, new_slope = torch.zeros_like(z), torch.ones_like(z)
    total, slope = torch.ones_like(z * tau), torch.zeros_like(z * tau)
    for degree in range(1, degrees + 1):
        count = (2 * degree + dim - 1) / (dim - 1) * math.comb(degree + dim - 2, degree)
        weight = count * (-0.5 * degree * (degree + dim - 1) * tau).exp()
        total, slope = total + weight * new, slope + weight * new_slope
        a, b, c = 2 * degree + dim - 1, degree, degree + dim - 1
        new_slope, old_slope = (a * (new + z * new_slope) - b * old_slope) / c, new_slope
        new, old = (a * z * new - b * old) / c, new
    total = total.clamp(min=1e-18)  # beyond the antipode's last digits rounding may be negative
    half = 0.5 * (dim + 1)
    area = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
    return total.log() - area, slope / total


def sphere_expansion(r: Tensor, tau: Tensor, dim: int) -> Radial:
    """The uniform short-time expansion of the module's page."""
    m = 0.5 * (dim - 1)
    r = r.clamp(max=math.pi - NEAREST_ANTIPODE)
    travel = 0.5 * r.square() / tau
    r = r.clamp(min=LEAST_ANGLE)
    rest = math.pi - r
    ratio, ratio_slope = _cot_ratio(r)
    strength = 0.5 * m * (m - 1)
    b = strength * (ratio + 1 / (math.pi * rest))
    b_slope = strength * (ratio_slope + 1 / (math.pi * rest.square()))
    z = math.pi * rest / tau
    log_meeting, meeting_slope = _meeting(z, dim)
    log_p = (
        -0.5 * dim * (2 * math.pi * tau).log() - travel
        + m * (r / r.sin()).log() + 0.5 * m * m * tau + tau * b + log_meeting
    )  # fmt: skip
    slope = -r / tau - m * r * ratio + tau * b_slope - math.pi / tau * meeting_slope
    return log_p, -slope / r.sin()


def rotation(r: Tensor, tau: Tensor) -> Radial:
    """The kernel of SO(3) by angle: sum over turns below ROTATION_SWITCH, characters above."""
    return _switch(r, tau, ROTATION_SWITCH, rotation_images, rotation_series)


def rotation_series(r: Tensor, tau: Tensor) -> Radial:
    """Sum of (2l + 1) exp(-l (l + 1) tau / 2) sin((2l + 1) r/2) / sin(r/2), over 8 pi^2."""
    degrees = math.ceil(9 / math.sqrt(float(tau.min())))
    z = r.cos()
    # characters: chi_l = 1 + 2 sum_(k <= l) cos(k r) = 1 + 2 sum T_k, and derivatives by z
    old, new = torch.ones_like(z), z
    old_slope, new_slope = torch.zeros_like(z), torch.ones_like(z)
    character, character_slope = torch.ones_like(z), torch.zeros_like(z)
    total, slope = torch.ones_like(z * tau), torch.zeros_like(z * tau)
    for degree in range(1, degrees + 1):
        character = character + 2 * new
        character_slope = character_slope + 2 * new_slope
        weight = (2 * degree + 1) * (-0.5 * degree * (degree + 1) * tau).exp()
        total, slope = total + weight * character, slope + weight * character_slope
        new_slope, old_slope = 2 * (new + z * new_slope) - old_slope, new_slope
        new, old = 2 * z * new - old, new
    total = total.clamp(min=1e-18)
    return total.log() - math.log(8 * math.pi**2), slope / total


def rotation_images(r: Tensor, tau: Tensor) -> Radial:
    """Sum over whole turns k of (-1)^k (r + 2 pi k) exp(-(r + 2 pi k)^2 / 2 tau) / sin(r/2)."""
    r = r.clamp(max=math.pi - LEAST_ANGLE)
    travel = 0.5 * r.square() / tau
    r = r.clamp(min=LEAST_ANGLE)
    total, slope = r, 1 - r.square() / tau
    for k in (-2, -1, 1, 2):
        angle = r + 2 * math.pi * k
        weight = (-1) ** k * (0.5 * (r.square() - angle.square()) / tau).exp()
        total, slope = total + weight * angle, slope + weight * (1 - angle.square() / tau)
    log_p = (
        (total / (0.5 * r).sin()).log() - travel
        - 1.5 * tau.log() + tau / 8 + 0.5 * math.log(2 * math.pi) - math.log(8 * math.pi**2)
    )  # fmt: skip
    gradient = slope / total - 0.5 / (0.5 * r).tan()
    return log_p, -gradient / r.sin()


def hyperbolic_three(r: Tensor, tau: Tensor) -> Radial:
    """The kernel of H^3: (2 pi tau)^(-3/2) r / sinh(r) exp(-tau/2 - r^2 / 2 tau)."""
    log_p = -1.5 * (2 * math.pi * tau).log() - log_sinhc(r) - 0.5 * tau - 0.5 * r.square() / tau
    r = r.clamp(min=LEAST_ANGLE)
    return log_p, (r / tau + _log_sinhc_slope(r)) / r.sinh()


def hyperbolic_two(r: Tensor, tau: Tensor) -> Radial:
    """The kernel of H^2 (McKean 1970), an integral over s > r done by Gauss-Hermite nodes.

    p = sqrt(2) exp(-tau/8) (2 pi tau)^(-3/2) int_r^inf s exp(-s^2/2 tau) / sqrt(cosh s - cosh r);
    with s^2 = r^2 + 2 tau y^2 the integrand is exp(-y^2) times a smooth even function of y.
    """
    travel = 0.5 * r.square() / tau
    r = r.clamp(min=LEAST_ANGLE)
    nodes, weights = special.roots_hermite(32)
    total, slope = torch.zeros_like(r * tau), torch.zeros_like(r * tau)
    for y, weight in zip(nodes[16:].tolist(), weights[16:].tolist(), strict=True):
        s = (r.square() + 2 * tau * y * y).sqrt()
        a, b = 0.5 * (s + r), tau * y * y / (s + r)  # b = (s - r)/2 without cancellation
        value = weight * (-0.5 * (log_sinhc(a) + log_sinhc(b))).exp()
        change = _log_sinhc_slope(a) * (r / s + 1) + _log_sinhc_slope(b) * (r / s - 1)
        total, slope = total + value, slope - 0.25 * value * change
    log_p = (
        math.log(2) - tau / 8 - 1.5 * (2 * math.pi * tau).log() - travel
        + 0.5 * (2 * tau).log() + total.log()
    )  # fmt: skip
    return log_p, (r / tau - slope / total) / r.sinh()


def circle(angle: Tensor, tau: Tensor) -> Radial:
    """log-density and score (its derivative by the angle) of the wrapped normal on the circle.

    angle in [-pi, pi]: images below TORUS_SWITCH, the Fourier series above.
    """
    return _switch(angle, tau, TORUS_SWITCH, circle_images, circle_series)


def circle_images(angle: Tensor, tau: Tensor) -> Radial:
    """Sum of normal densities at angle + 2 pi k, |k| <= 2, or 1 for durations below 1."""
    turns = (-1, 1) if float(tau.max()) < 1 else (-1, 1, -2, 2)
    total = torch.zeros_like(angle * tau)  # over the nearest image, which is the largest
    shift = torch.zeros_like(total)
    for k in turns:
        turn = 2 * math.pi * k
        weight = (-turn * (0.5 * turn + angle) / tau).exp()
        total, shift = total + weight, shift + turn * weight
    log_p = total.log1p() - 0.5 * angle.square() / tau - 0.5 * (2 * math.pi * tau).log()
    return log_p, -(angle + shift / (1 + total)) / tau


def circle_series(angle: Tensor, tau: Tensor) -> Radial:
    """(1 + 2 sum_(k <= 6) exp(-k^2 tau / 2) cos(k angle)) / 2 pi."""
    total, slope = torch.ones_like(angle * tau), torch.zeros_like(angle * tau)
    for k in range(1, 7):
        weight = 2 * (-0.5 * k * k * tau).exp()
        total = total + weight * (k * angle).cos()
        slope = slope - k * weight * (k * angle).sin()
    return total.log() - math.log(2 * math.pi), slope / total


def _switch(r: Tensor, tau: Tensor, at: float, short: object, long: object, *rest: int) -> Radial:
    """One of two representations of each entry, by its duration."""
    if bool((tau < at).all()):
        return short(r, tau, *rest)  # type: ignore[operator]
    if bool((tau >= at).all()):
        return long(r, tau, *rest)  # type: ignore[operator]
    r, tau = torch.broadcast_tensors(r, tau)
    early = tau < at
    # the unused entries get a duration that suits the representation: nothing is nan
    first = short(r, torch.where(early, tau, 0.5 * at), *rest)  # type: ignore[operator]
    second = long(r, torch.where(early, at, tau), *rest)  # type: ignore[operator]
    log_p, pull = (torch.where(early, a, b) for a, b in zip(first, second, strict=True))
    return log_p, pull


def _cot_ratio(r: Tensor) -> Radial:
    """(cot r - 1/r) / r and its derivative."""
    small = r < 0.05
    safe = torch.where(small, 1.0, r)
    square = r.square()
    value = torch.where(
        small, -1 / 3 - square / 45 - 2 * square.square() / 945, (1 / safe.tan() - 1 / safe) / safe
    )
    exact = (1 / safe.square() - 1 / safe.sin().square() - value) / safe
    return value, torch.where(small, -2 * r / 45 - 8 * r * square / 945, exact)


def _meeting(z: Tensor, dim: int) -> Radial:
    """log F(z) and its derivative, F = sqrt(2 pi z) I_(dim/2-1)(z) exp(-z)."""
    if dim == 2:
        zero, one = torch.special.i0e(z), torch.special.i1e(z)
        return 0.5 * (2 * math.pi * z).log() + zero.log(), 0.5 / z + one / zero - 1
    if dim == 3:
        return torch.log(-torch.expm1(-2 * z)), 2 * (-2 * z).exp() / -torch.expm1(-2 * z)
    order = 0.5 * dim - 1
    z = z.clamp(max=1e6)  # F is 1 there
    here, above = _ScaledBessel.apply(z, order), _ScaledBessel.apply(z, order + 1)
    return 0.5 * (2 * math.pi * z).log() + here.log(), (0.5 + order) / z + above / here - 1


class _ScaledBessel(torch.autograd.Function):
    """I_order(z) exp(-z), which torch has for orders 0 and 1 only."""

    @staticmethod
    def forward(ctx: object, z: Tensor, order: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(z)  # type: ignore[attr-defined]
        ctx.order = order  # type: ignore[attr-defined]
        return torch.from_numpy(special.ive(order, z.detach().numpy()))

    @staticmethod
    def backward(ctx: object, above: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (z,), order = ctx.saved_tensors, ctx.order  # type: ignore[attr-defined]
        here, next_one = _ScaledBessel.apply(z, order), _ScaledBessel.apply(z, order + 1)
        return above * (next_one + (order / z - 1) * here), None


def log_sinhc(r: Tensor) -> Tensor:
    small = r < 1e-3
    safe = torch.where(small, 1.0, r)
    far = safe + torch.log(-torch.expm1(-2 * safe)) - (2 * safe).log()
    return torch.where(small, r.square() / 6, far)


def _log_sinhc_slope(r: Tensor) -> Tensor:
    """coth(r) - 1/r."""
    small = r < 1e-2
    safe = torch.where(small, 1.0, r)
    return torch.where(small, r / 3 - r**3 / 45, 1 / safe.tanh() - 1 / safe)
