"""Implicit nonlinear diffusion: a linear diffusion behind a flow is a nonlinear one of the data.

    z_0 = T(x_0),   z_t = alpha z_0 + sigma e,   x_t = T^-1(z_t)

With S = T^-1 and dz = f z dt + g dw the data move by Ito's rule as

    dx = [ J_S f z + g^2 / 2 sum_i d^2 S / dz_i^2 ] dt + g J_S dw          at z = T(x)

so that noise enters along what the flow has learned. Flow and denoiser are trained together on the
one bound that there is,

    -log p(x) <= bound(z) - log |det DT(x)|                                (nats)

(setting nll), or the flow on it and the denoiser on the plain noise-matching loss (setting fid),
two updates a batch. Kim, Na, Kwon, Lee, Kang & Moon 2022 (arXiv 2205.13699); the two settings
follow the description of their code, the flow is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from reverie.curve import level_times
from reverie.denoisers import Network, network_for
from reverie.errors import InputError
from reverie.flows.base import Flow
from reverie.flows.coupling import couplings
from reverie.information.bound import Bound, bound
from reverie.objectives.averaging import Average, learning_rate
from reverie.processes import VP, GaussianProcess
from reverie.processes.gaussian import require_gaussian
from reverie.sampling import sample

SETTINGS = ("nll", "fid")
AVERAGE, CLIP, WARMUP = 0.999, 1.0, 50
STEPS = 20  # of a sampler
Ticker = Callable[[int, int], None]


class ImplicitDiffusion(nn.Module):
    """A flow and a denoiser of its outputs: one model of points (n, dim).

    flow: from data to the space of the diffusion. denoiser: of a Gaussian process there. dim:
    coordinates. InputError on noise that is not Gaussian, or has several clocks.

    >>> import torch
    >>> from reverie.denoisers import Linear
    >>> from reverie.flows import ImplicitDiffusion, couplings
    >>> from reverie.processes import VP
    >>> rows = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> model = ImplicitDiffusion(couplings(2, 2, width=8), Linear.fit(VP(), rows), 2)
    >>> found = model.bound(rows, generator=torch.Generator().manual_seed(1))
    >>> round(found.nats, 1), model.sample(4).shape  # 2.84 for N(0, I)
    (2.9, torch.Size([4, 2]))
    """

    def __init__(self, flow: Flow, denoiser: Any, dim: int) -> None:
        super().__init__()
        require_gaussian(denoiser.process, "an implicit diffusion", one_level=True)
        self.flow, self.denoiser, self.dim = flow, denoiser, dim

    @property
    def process(self) -> GaussianProcess:
        return self.denoiser.process

    def losses(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One unbiased estimate (n,) of the bound on -log p(x), nats; x: (n, dim)."""
        z, volume = self.flow(x)
        low, path = self.process.t_range[0], self._path(z, generator)
        alpha, sigma = self.process.scales(low, z)
        ends = 0.5 * (1 + math.log(2 * math.pi)) + (sigma / alpha).log()
        decoded = ends.expand_as(z).sum(1)  # of the last denoise, in expectation
        return path + self.process.prior_kl(z) + decoded - volume

    def noise_losses(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Squared error (n,) of the guessed noise at a time drawn evenly in [t_min, 1]."""
        low, high = self.process.t_range
        t = low + (high - low) * torch.rand(len(z), generator=generator, dtype=torch.float64)
        return 2 * self._half_squares(z, t, generator)

    def _path(self, z: Tensor, generator: torch.Generator | None) -> Tensor:
        """int rate du (n,) by levels drawn evenly in log-SNR, in strata that the rows share."""
        ends = self.process.clock(torch.tensor(self.process.t_range, dtype=torch.float64)).log()
        width = float((ends[0] - ends[1]).abs())
        shift = torch.rand(1, generator=generator, dtype=torch.float64)
        share = (torch.randperm(len(z), generator=generator).double() + shift) / len(z)
        t = self.process.time((ends.min() + width * share).exp())
        return width * self._half_squares(z, t, generator)

    def _half_squares(self, z: Tensor, t: Tensor, generator: torch.Generator | None) -> Tensor:
        """1/2 |e - its guess|^2 = gamma / 2 |z - its guess|^2, which is the rate times gamma."""
        state = self.process.corrupt(z, t, generator=generator)
        alpha, sigma = self.process.scales(t, z)
        off = (alpha / sigma) * (z - self.denoiser(state, t))
        return 0.5 * off.square().sum(1)

    @torch.no_grad()
    def bound(self, x: Tensor, generator: torch.Generator | None = None, **options: Any) -> Bound:
        """The bound on -log p of rows x (n, dim), nats; options as in `reverie.bound`.

        Its diffusion part carries -log |det DT|, so that the three parts add up.
        """
        z, volume = self.flow(x)
        found = bound(self.denoiser, z, generator=generator, **options)
        each = found.each - volume.double().numpy()
        error = float(each.std(ddof=1) / math.sqrt(len(each)))
        moved = found.diffusion - float(volume.double().mean())
        return replace(found, diffusion=moved, stderr=error, each=each)

    @torch.no_grad()
    def sample(
        self, n: int, steps: Any = STEPS, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """n points (n, dim): samples behind the flow, brought back; options as in `sample`.

        steps: equal steps of log-SNR, or the plan or times that `reverie.sample` takes.
        """
        if isinstance(steps, int):
            steps = torch.as_tensor(level_times(self.process, steps + 1))
        z = sample(self.denoiser, n, steps, shape=(self.dim,), generator=generator, **options)
        return self.flow.inverse(z)[0]

    @torch.no_grad()
    def corrupt(
        self, x: Tensor, t: float | Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """x_t (n, dim) of the process in data space, given x_0."""
        z, _ = self.flow(x)
        return self.flow.inverse(self.process.corrupt(z, t, generator=generator))[0]

    def drift_and_diffusion(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The process in data space at x_t = x (n, dim): drift (n, dim), matrix (n, dim, dim).

        By Ito's rule from the flow's derivatives, row by row: for few coordinates.
        """
        rate, squared = _linear(self.process, t)
        z = self.flow(x)[0].detach().requires_grad_()
        with torch.enable_grad():
            back = self.flow.inverse(z)[0]
            first = torch.stack([_slope(part, z) for part in back.unbind(1)], 1)
            curved = torch.stack(  # sum_j d^2 S_i / dz_j^2
                [
                    sum((_slope(part[:, j], z)[:, j] for j in range(self.dim)), 0 * z[:, 0])
                    for part in first.unbind(1)
                ],
                1,
            )
        drift = rate * (first @ z[:, :, None])[:, :, 0] + 0.5 * squared * curved
        return drift.detach(), math.sqrt(squared) * first.detach()


def _slope(value: Tensor, z: Tensor) -> Tensor:
    """Gradient (n, dim) of value (n,) with respect to its own row of z, differentiable again."""
    if not value.requires_grad:
        return torch.zeros_like(z)
    (found,) = torch.autograd.grad(
        value.sum(), z, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return found


def _linear(process: GaussianProcess, t: float) -> tuple[float, float]:
    """f and g^2 of dz = f z dt + g dw: f = alpha'/alpha, g^2 = (sigma^2)' - 2 f sigma^2."""
    with torch.enable_grad():
        at = torch.tensor([t], dtype=torch.float64, requires_grad=True)
        alpha, sigma = process.alpha(at), process.sigma(at)
        (f,) = torch.autograd.grad(alpha.log().sum(), at, retain_graph=True)
        (grown,) = torch.autograd.grad(sigma.square().sum(), at)
    rate = float(f)
    return rate, float(grown) - 2 * rate * float(sigma.detach()) ** 2


def fit_implicit(
    rows: Tensor,
    *,
    flow: Flow | None = None,
    setting: str = "nll",
    steps: int = 2000,
    batch: int = 256,
    rate: float = 2e-3,
    width: int = 64,
    depth: int = 2,
    layers: int = 4,
    seed: int = 0,
    progress: Ticker | None = None,
) -> ImplicitDiffusion:
    """Train flow and denoiser together on rows (n, dim), in deviations of the data.

    flow: by default `layers` couplings; a flow without parameters, as the identity, gives the
    plain model. setting: nll (one loss, the bound) or fid (the flow by the bound, the denoiser by
    the noise it misses at even times). The last weights are an average. InputError on others.

    >>> import torch
    >>> from reverie.flows import fit_implicit
    >>> rows = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> model = fit_implicit(rows, steps=3, width=8, layers=2)
    >>> model.corrupt(rows[:5], 0.5).shape
    torch.Size([5, 2])
    """
    if setting not in SETTINGS:
        raise InputError(f"no setting is called {setting!r}; choose {' or '.join(SETTINGS)}")
    if rows.ndim != 2 or len(rows) < 2:
        raise InputError(f"rows are {tuple(rows.shape)}; they must be at least 2 of (n, dim)")
    dim = rows.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = network_for(VP(), (dim,), width=width, depth=depth)
    assert isinstance(denoiser, Network)
    behind = couplings(dim, layers, width=width, seed=seed) if flow is None else flow
    model = ImplicitDiffusion(behind, denoiser, dim).train()
    average = Average(model, AVERAGE)
    draw = torch.Generator().manual_seed(seed)
    groups = [list(behind.parameters()), list(denoiser.parameters())]
    optimiser = torch.optim.AdamW(
        [{"params": group} for group in groups if group], lr=rate, weight_decay=0.0, fused=True
    )
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, rate, WARMUP)
        x = rows[torch.randint(len(rows), (batch,), generator=draw)]
        optimiser.zero_grad()
        if setting == "nll":
            model.losses(x, draw).mean().backward()
        else:
            _both(model, x, draw)
        for group in filter(None, groups):  # each by itself: the bound's slopes are far larger
            nn.utils.clip_grad_norm_(group, CLIP, foreach=True)
        optimiser.step()
        average.update(step)
        if progress is not None:
            progress(step + 1, steps)
    return average.put()


def _both(model: ImplicitDiffusion, x: Tensor, draw: torch.Generator) -> None:
    """Gradients of the setting fid: the flow's of the bound, the denoiser's of the noise loss."""
    flow = list(model.flow.parameters())
    with torch.no_grad():
        z = model.flow(x)[0]
    model.noise_losses(z, draw).mean().backward()
    if not flow:
        return
    slopes = torch.autograd.grad(model.losses(x, draw).mean(), flow)
    for weight, slope in zip(flow, slopes, strict=True):
        weight.grad = slope
