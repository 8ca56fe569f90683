"""The conditional denoiser of a posterior: a sparse linear-Gaussian guess that a network corrects.

With y = w_t / alpha and s = sigma / alpha, and the regression w = c(x) + U z of the parameters on
the observation, whose residuals have the variances S along the columns of U,

    what = c + U [ S / (S + s^2) U^T (y - c) + s sqrt(S / (S + s^2)) F(., log s, x) ]

the preconditioning of Karras et al. 2022 (eq. 7) about each observation's own centre and with a
variance for each direction. Where parameters and observation are jointly Gaussian, F = 0 is exact.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from reverie.denoisers import Denoiser
from reverie.denoisers.networks.network import FourierTime
from reverie.processes import GaussianProcess
from reverie.simulation.coordinates import border_push


class LinearGuess(nn.Module):
    """w | x ~ N(offset + slope x, U diag(S) U^T), fitted by least squares on pairs.

    blocks: equal parts of x (n, m) whose order means nothing; the guess depends on their mean.
    """

    slope: Tensor
    offset: Tensor
    basis: Tensor
    spectrum: Tensor

    def __init__(self, w: Tensor, x: Tensor, blocks: int = 1) -> None:
        super().__init__()
        slope, offset = sparse_regression(w, x.reshape(len(x), blocks, -1).mean(1))
        slope = slope.repeat(1, blocks) / blocks
        residual = w - x @ slope.T - offset
        spectrum, basis = torch.linalg.eigh(residual.T @ residual / len(w))
        self.register_buffer("slope", slope.float())
        self.register_buffer("offset", offset.float())
        self.register_buffer("basis", basis.float())
        self.register_buffer("spectrum", spectrum.clamp(min=1e-8).float())

    @classmethod
    def blank(cls, dim: int, observed: int) -> LinearGuess:
        """A guess of these shapes, to load another one's numbers into."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        shapes = {"slope": (dim, observed), "offset": (dim,), "basis": (dim, dim)}
        for name, shape in (shapes | {"spectrum": (dim,)}).items():
            made.register_buffer(name, torch.zeros(shape))
        return made

    def centre(self, x: Tensor) -> Tensor:
        return x @ self.slope.T + self.offset


def sparse_regression(w: Tensor, x: Tensor, size: float = 0.01) -> tuple[Tensor, Tensor]:
    """Slope (d, m) and offset (d,) of w on x; slopes whose t-test does not reject are zero.

    Each coordinate of w is regressed on all of x, then again on what stays at `size`, corrected
    for all d m tests (Bonferroni): a slope that is not there would cost 1/n in every coordinate.
    """
    count, width = x.shape
    design = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    full = torch.linalg.lstsq(design, w).solution
    error = (w - design @ full).square().sum(0) / max(count - width - 1, 1)
    inverse = torch.linalg.pinv(design.T @ design).diagonal()
    ratio = full / (inverse[:, None] * error).sqrt().clamp(min=1e-30)
    bound = float(student.isf(0.5 * size / (width * w.shape[1]), max(count - width - 1, 1)))
    kept = ratio.abs() > bound
    kept[-1] = True
    result = torch.zeros_like(full)
    for j in range(w.shape[1]):
        columns = kept[:, j]
        result[columns, j] = torch.linalg.lstsq(design[:, columns], w[:, j : j + 1]).solution[:, 0]
    return result[:-1].T.contiguous(), result[-1]


class GatedBlock(nn.Module):
    """Residual block whose hidden units are products of two maps (SwiGLU, Shazeer 2020)."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(time_width, 2 * width)
        self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.leave = nn.Linear(width, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulate(time).chunk(2, 1)
        inner = self.norm(h) * (1 + scale) + shift
        return h + self.leave(nn.functional.silu(self.gate(inner)) * self.value(inner))


class PairBody(nn.Module):
    """F(inputs, level): (B, d) from all that is known (B, k) and levels (B,)."""

    def __init__(self, inputs: int, dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.time = nn.Sequential(FourierTime(), nn.Linear(32, 64), nn.SiLU())
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(GatedBlock(width, 64) for _ in range(depth))
        self.leave = nn.Linear(width, dim)
        self.silence()

    def silence(self) -> None:
        """Make F zero: the linear guess alone."""
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, inputs: Tensor, level: Tensor) -> Tensor:
        time, h = self.time(level), self.enter(inputs)
        for block in self.blocks:
            h = block(h, time)
        return self.leave(h)


class PairNetwork(Denoiser):
    """Denoiser of w (B, d) given `condition` x (B, m); x is standardised here.

    bounds: (2, d) of a box in which w lies; the network is told how the box alone moves a guess.
    """

    process: GaussianProcess
    x_mean: Tensor
    x_std: Tensor
    bounds: Tensor | None

    def __init__(
        self,
        process: GaussianProcess,
        linear: LinearGuess,
        body: PairBody,
        x_mean: Tensor,
        x_std: Tensor,
        bounds: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.process, self.linear, self.body = process, linear, body
        self.register_buffer("x_mean", x_mean)
        self.register_buffer("x_std", x_std)
        self.register_buffer("bounds", bounds)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        alpha, sigma = self.process.scales(t, state)
        linear, spread = self.linear, sigma / alpha
        x = ((condition - self.x_mean) / self.x_std).to(state)
        total = (linear.spectrum + spread.square()).sqrt()
        centre = linear.centre(x)
        y = state / alpha
        z = (y - centre) @ linear.basis
        known = [z / total, x]
        if self.bounds is not None:
            known.append(border_push(y, spread, self.bounds))
        level = 0.25 * spread.log().flatten().expand(len(state))
        raw = self.body(torch.cat(known, 1), level)
        share = linear.spectrum / total.square()
        correction = spread * share.sqrt() * raw
        return centre + (share * z + correction) @ linear.basis.T

    def errors(self, guess: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """(guess - clean) / c_out in the regression's basis (B, d): the error of F itself."""
        alpha, sigma = self.process.scales(t, clean)
        spread, variance = sigma / alpha, self.linear.spectrum
        scale = ((variance + spread.square()) / variance).sqrt() / spread
        return (guess - clean) @ self.linear.basis * scale
