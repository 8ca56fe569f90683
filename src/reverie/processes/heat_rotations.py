"""The heat kernel of SO(4), exactly: two unit quaternions, up to a common sign.

x -> p x conj(q) is a rotation of R^4, and SO(4) = S^3 x S^3 / {(1, 1), (-1, -1)}. With the metric
1/2 tr of `spaces.rotations` the velocity A(v, w), where p moves by the vector v and q by w, has
square length 2 (|v|^2 + |w|^2). So Brownian motion of duration tau is a pair of independent ones
of duration tau / 2 on S^3, and with K the kernel of S^3, alpha and beta the angles of p and q,

    p_tau = [K(alpha) K(beta) + K(pi - alpha) K(pi - beta)] / 8

by volume (8 = sqrt(2)^6). Checked against the characters of the vector representation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reverie.processes.heat_kernels import Radial

UNITS = torch.eye(4, dtype=torch.float64)
Travel = Callable[[Tensor, Tensor], Tensor]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The quaternion product of a (..., 4) and b (..., 4), the real part first."""
    (s, x, y, z), (t, u, v, w) = a.unbind(-1), b.unbind(-1)
    return torch.stack(
        [
            s * t - x * u - y * v - z * w,
            s * u + x * t + y * w - z * v,
            s * v - x * w + y * t + z * u,
            s * w + x * v - y * u + z * t,
        ],
        -1,
    )


LEFT = torch.stack([_product(unit.expand(4, 4), UNITS).T for unit in UNITS])  # x -> e_i x
RIGHT = torch.stack([_product(UNITS, unit.expand(4, 4)).T for unit in UNITS])  # x -> x e_j
CONJUGATE = torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64)
# rotations x -> e_i x conj(e_j), (4, 4, 4, 4): orthogonal, of square norm 4
PAIRS = torch.einsum("iab,j,jbc->ijac", LEFT, CONJUGATE, RIGHT)


def quaternions(turn: Tensor) -> tuple[Tensor, Tensor]:
    """The pair p, q (..., 4) of rotations (..., 4, 4), up to a common sign."""
    outer = 0.25 * torch.einsum("ijab,...ab->...ij", PAIRS.to(turn), turn)  # p q^T
    largest = outer.square().sum(-1).argmax(-1)[..., None, None]
    row = outer.gather(-2, largest.expand(*outer.shape[:-2], 1, 4))[..., 0, :]
    q = row / row.norm(dim=-1, keepdim=True)
    p = (outer @ q[..., None])[..., 0]
    return p / p.norm(dim=-1, keepdim=True), q


def rotation_of(p: Tensor, q: Tensor) -> Tensor:
    """The rotation (..., 4, 4) of a pair of unit quaternions."""
    return torch.einsum("ijab,...i,...j->...ab", PAIRS.to(p), p, q)


def velocity(v: Tensor, w: Tensor) -> Tensor:
    """The antisymmetric matrix A(v, w) (..., 4, 4) of vectors (..., 3)."""
    left, right = LEFT[1:].to(v), RIGHT[1:].to(v)
    return torch.einsum("iab,...i->...ab", left, v) - torch.einsum("iab,...i->...ab", right, w)


def vectors(skew: Tensor) -> tuple[Tensor, Tensor]:
    """v and w (..., 3) of an antisymmetric matrix: the inverse of `velocity`."""
    v = 0.25 * torch.einsum("iab,...ab->...i", LEFT[1:].to(skew), skew)
    w = -0.25 * torch.einsum("iab,...ab->...i", RIGHT[1:].to(skew), skew)
    return v, w


def density_and_pull(
    turn: Tensor, tau: Tensor, profile: Callable[[Tensor, Tensor], Radial]
) -> tuple[Tensor, Tensor, Tensor]:
    """log p (...) of turns (..., 4, 4), and the score's v and w (..., 3) at the turn's end.

    profile: log K and pull of S^3 by angle and duration; tau broadcasts against (...).
    """
    p, q = quaternions(turn)
    log_p: list[Tensor] = []
    pulls: list[tuple[Tensor, Tensor]] = []
    for sign in (1.0, -1.0):
        sides = [profile(_angle(sign * side), 0.5 * tau) for side in (p, q)]
        log_p.append(sides[0][0] + sides[1][0])
        pulls.append((sides[0][1], sides[1][1]))
    logs = torch.stack(log_p, -1)
    share = logs.softmax(-1)
    # half: the metric's 2; -p has the opposite vector part
    along = [
        -0.5 * (share[..., 0] * near - share[..., 1] * far)
        for near, far in zip(*pulls, strict=True)
    ]
    total = logs.logsumexp(-1) - math.log(8)
    return total, along[0][..., None] * p[..., 1:], along[1][..., None] * q[..., 1:]


def drawn(x: Tensor, tau: Tensor, skew: Tensor, travel: Travel) -> Tensor:
    """States (B, 4, 4) from x along standard normal vectors x A, `skew` = A.

    travel: how far S^3's kernel goes in a duration, from the length of a standard normal vector.
    """
    ends = []
    for vector in vectors(skew):
        size = (math.sqrt(2) * vector).norm(dim=1)
        angle = travel(size, 0.5 * tau)
        axis = vector / vector.norm(dim=1, keepdim=True).clamp(min=1e-300)
        ends.append(torch.cat([angle.cos()[:, None], angle.sin()[:, None] * axis], 1))
    return x @ rotation_of(ends[0], ends[1])


def _angle(side: Tensor) -> Tensor:
    """The angle in [0, pi] of unit quaternions (..., 4) from 1."""
    return torch.atan2(side[..., 1:].norm(dim=-1), side[..., 0])
