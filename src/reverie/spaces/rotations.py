"""Rotations SO(n) as matrices, with the metric 1/2 tr(A^T B).

On SO(3) distances are then rotation angles and the volume is 8 pi^2. A tangent vector at R is the
matrix R A with A antisymmetric.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.spaces.manifold import OPEN, Manifold, length, sinc


class Rotations(Manifold):
    """SO(n), points as matrices (n, n). Raises InputError for n < 3.

    >>> import torch
    >>> from reverie.spaces import Rotations
    >>> space = Rotations(3)
    >>> x = space.uniform(4, generator=torch.Generator().manual_seed(0))
    >>> x.shape, torch.linalg.det(x).round(decimals=6)
    (torch.Size([4, 3, 3]), tensor([1., 1., 1., 1.], dtype=torch.float64))
    """

    rule = "an orthogonal matrix of determinant 1"

    def __init__(self, n: int = 3) -> None:
        if n < 3:
            raise InputError(f"rotations need n = 3 or more, not {n}; the circle is Torus(1)")
        self.n, self.shape, self.dim, self.gap = n, (n, n), n * (n - 1) // 2, float(n - 1)
        self.log_volume = sum(
            math.log(2) + 0.5 * k * math.log(math.pi) - math.lgamma(0.5 * k)
            for k in range(2, n + 1)
        )

    def residual(self, x: Tensor) -> Tensor:
        identity = torch.eye(self.n, dtype=x.dtype, device=x.device)
        off = (x.mT @ x - identity).abs().flatten(1).amax(1)
        return torch.where(torch.linalg.det(x) > 0, off, off + 2)

    def project(self, x: Tensor) -> Tensor:
        left, _, right = torch.linalg.svd(x)
        sign = torch.linalg.det(left @ right)
        left = torch.cat([left[..., :-1], left[..., -1:] * sign[:, None, None]], -1)
        return left @ right

    def tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return x @ _skew(x.mT @ v)

    def lower(self, x: Tensor, v: Tensor) -> Tensor:
        return 0.5 * v

    def gradient(self, x: Tensor, derivative: Tensor) -> Tensor:
        return 2 * self.tangent(x, derivative)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        turn = _skew(x.mT @ v)
        step = _rodrigues(turn) if self.n == 3 else torch.linalg.matrix_exp(turn)
        return _tidy(x @ step)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        turn = x.mT @ y
        return x @ (_log_three(turn) if self.n == 3 else _log_any(turn))

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        if self.n == 3:
            trace = x.flatten(1) @ y.flatten(1).T
            return 2 * ((3 - trace) / 4).clamp(*OPEN).sqrt().asin()
        turn = (x[:, None].mT @ y[None]).flatten(0, 1)
        return _angles(turn).norm(dim=1).div(math.sqrt(2)).reshape(len(x), len(y))

    def frame(self, x: Tensor) -> Tensor:
        return x[:, None] @ _generators(self.n).to(x)

    def uniform(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        z = torch.randn((n, *self.shape), generator=generator, dtype=dtype, device=device)
        q, r = torch.linalg.qr(z)  # Haar on O(n) once the signs of the diagonal are fixed
        q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None, :]
        flip = torch.linalg.det(q).sign()
        return torch.cat([q[..., :1] * flip[:, None, None], q[..., 1:]], -1)

    def origin(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.eye(self.n, dtype=dtype)

    def __repr__(self) -> str:
        return f"Rotations({self.n})"


def _skew(a: Tensor) -> Tensor:
    return 0.5 * (a - a.mT)


def _tidy(x: Tensor) -> Tensor:
    """One Newton step towards the closest rotation, so that rounding does not add up."""
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return 0.5 * x @ (3 * identity - x.mT @ x)


def _generators(n: int) -> Tensor:
    """The antisymmetric matrices E_ij, i < j, (n (n - 1) / 2, n, n): orthonormal in our metric."""
    rows, columns = torch.triu_indices(n, n, 1)
    basis = torch.zeros((len(rows), n, n), dtype=torch.float64)
    place = torch.arange(len(rows))
    basis[place, rows, columns], basis[place, columns, rows] = -1.0, 1.0
    return basis


def _axis(turn: Tensor) -> Tensor:
    """The vector (B, 3) of an antisymmetric matrix (B, 3, 3)."""
    return torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], 1)


def _hat(w: Tensor) -> Tensor:
    zero = torch.zeros_like(w[:, 0])
    x, y, z = w.unbind(1)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, 1).reshape(-1, 3, 3)


def _rodrigues(turn: Tensor) -> Tensor:
    angle = length(_axis(turn))[..., None]
    identity = torch.eye(3, dtype=turn.dtype, device=turn.device)
    return identity + sinc(angle) * turn + 0.5 * sinc(0.5 * angle).square() * (turn @ turn)


def _log_three(turn: Tensor) -> Tensor:
    """Antisymmetric logarithm through the unit quaternion, stable from angle 0 to pi."""
    r = turn
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    w = _axis(r - r.mT)
    # four times the outer product of the quaternion (w, x, y, z) with itself
    outer = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, w[:, 0], w[:, 1], w[:, 2]], 1),
            torch.stack([w[:, 0], 1 + xx - yy - zz, r[:, 0, 1] + r[:, 1, 0],
                         r[:, 0, 2] + r[:, 2, 0]], 1),
            torch.stack([w[:, 1], r[:, 0, 1] + r[:, 1, 0], 1 - xx + yy - zz,
                         r[:, 1, 2] + r[:, 2, 1]], 1),
            torch.stack([w[:, 2], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1],
                         1 - xx - yy + zz], 1),
        ],
        1,
    )  # fmt: skip
    largest = outer.diagonal(dim1=1, dim2=2).argmax(1)
    row = outer[torch.arange(len(r), device=r.device), largest]
    quaternion = row / row.norm(dim=1, keepdim=True)
    quaternion = quaternion * torch.where(quaternion[:, :1] < 0, -1.0, 1.0)
    scalar, vector = quaternion[:, :1], quaternion[:, 1:]
    size = length(vector)
    ratio = 2 * torch.atan2(size, scalar) / size.clamp(min=1e-300)
    return _hat(vector * torch.where(size > 0, ratio, 2 / scalar.clamp(min=0.5)))


def _angles(turn: Tensor) -> Tensor:
    """Angles (B, n) of the eigenvalues, each rotation plane counted twice."""
    values = torch.linalg.eigvals(turn.detach())
    return torch.atan2(values.imag, values.real)


def _log_any(turn: Tensor) -> Tensor:
    values, vectors = torch.linalg.eig(turn)
    angle = torch.atan2(values.imag, values.real)
    log = vectors @ torch.diag_embed(1j * angle) @ torch.linalg.inv(vectors)
    return _skew(log.real.to(turn.dtype))
