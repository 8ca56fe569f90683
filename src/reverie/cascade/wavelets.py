"""Wavelet cascade: images drawn from coarse to fine, each scale given the one below it.

    p(x) = p(x_J) prod_j p(details_j | x_j)

with x_j the averages and details_j the three detail bands of scale j of an orthonormal wavelet
transform (wavelet score-based generative models: Guth, Coste, De Bortoli & Mallat 2022,
arXiv 2208.05003). Every factor is a diffusion model of its own, standardised channel by channel,
and told the clean averages where it draws details; all take the same number of steps. Each is a
Denoiser with a condition, so that `measure`, `plan_steps` and `sample` read it by itself.

The slots of `denoisers.multiscale`, the other model of one network a scale, are trained here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reverie.denoisers import Network
from reverie.denoisers.networks.convolution import Convolutional
from reverie.denoisers.networks.multiscale import Multiscale, averages
from reverie.errors import InputError
from reverie.formerly import Formerly, keywords, warn
from reverie.objectives.averaging import Average, learning_rate
from reverie.objectives.base import DenoisingFit
from reverie.plan import Plan
from reverie.processes import GaussianProcess
from reverie.sampling import sample
from reverie.spaces import Wavelet

Body = Callable[[int, int], nn.Module]  # of (channels, channels it is told)
EMA = 0.99


class Scale(NamedTuple):
    """One factor's standardised data (n, C, h, w) and what it is told (n, C', h, w), or None."""

    data: Tensor
    condition: Tensor | None

    @property
    def told(self) -> Tensor | None:
        """The name of `condition` in the release before."""
        warn("Scale.told", "Scale.condition")
        return self.condition


class Standard(nn.Module):
    """Mean and deviation of each channel, (C, 1, 1)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, data: Tensor) -> None:
        super().__init__()
        deviation, mean = torch.std_mean(data, (0, 2, 3), keepdim=True)
        if (deviation <= 0).any():
            raise InputError("a channel of the wavelet transform is constant: use less depth")
        self.register_buffer("mean", mean[0])
        self.register_buffer("deviation", deviation[0])

    def forward(self, data: Tensor) -> Tensor:
        return (data - self.mean) / self.deviation


def _undo(standard: nn.Module, data: Tensor) -> Tensor:
    assert isinstance(standard, Standard)
    return data * standard.deviation + standard.mean


class Cascade(nn.Module):
    """A model of images (n, C, H, W) with `depth` scales of details and one of averages.

    images: training images, for the channels' means and deviations. wavelet: orthonormal, as
    `haar` or `db4` (see `spaces.filters`). process: of every factor, isotropic. body: makes the
    network of (channels, channels of the condition), default `Convolutional`. networks: the
    factors' networks by scale, averages first, then details from coarse to fine. Raises InputError
    on data that are no images, or sides that do not halve `depth` times.
    Source: Guth, Coste, De Bortoli & Mallat 2022 (arXiv 2208.05003).

    >>> import torch
    >>> from reverie.cascade import Cascade
    >>> from reverie.denoisers import Convolutional
    >>> from reverie.processes import VP
    >>> images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> body = lambda channels, told: Convolutional(channels, condition=told, width=4, depth=1)
    >>> cascade = Cascade(images, VP(), depth=1, body=body)
    >>> cascade.sample(3, torch.linspace(1, 0.01, 4)).shape
    torch.Size([3, 1, 8, 8])
    """

    levels = Formerly("depth")

    @keywords(levels="depth")
    def __init__(
        self,
        images: Tensor,
        process: GaussianProcess,
        wavelet: str = "haar",
        depth: int = 1,
        body: Body | None = None,
    ) -> None:
        super().__init__()
        if images.ndim != 4:
            raise InputError(f"a cascade is of images (n, C, H, W), not {tuple(images.shape)}")
        make = body or (lambda channels, given: Convolutional(channels, condition=given))
        self.shape, self.depth = tuple(images.shape[1:]), depth
        Wavelet(self.shape, wavelet, depth)  # says so where the sides do not halve
        channels = self.shape[0]
        self.transforms = [
            Wavelet((channels, *(side >> level for side in self.shape[1:])), wavelet, 1)
            for level in reversed(range(depth))
        ]
        pieces = self._pieces(images)
        self.averages = nn.ModuleList(Standard(averages) for averages, _ in pieces)
        self.details = nn.ModuleList(Standard(details) for _, details in pieces)
        counts = [(channels, 0)] + [(3 * channels, channels)] * depth
        self.networks = nn.ModuleList(Network(process, make(*count)) for count in counts)

    def _pieces(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Averages and details of every level, coarse to fine."""
        pieces = []
        for transform in reversed(self.transforms):
            modes = transform.to_modes(images)
            corners = _quarters(modes)
            images = corners[0]
            pieces.insert(0, (images, torch.cat(corners[1:], 1)))
        return pieces

    def scales(self, images: Tensor) -> list[Scale]:
        """What each network is trained and measured on, in the order of `networks`."""
        pieces = self._pieces(images)
        standard = [a(averages) for a, (averages, _) in zip(self.averages, pieces, strict=True)]
        scales = [Scale(standard[0], None)]
        for d, told, (_, details) in zip(self.details, standard, pieces, strict=True):
            scales.append(Scale(d(details), told))
        return scales

    @torch.no_grad()
    def sample(
        self,
        n: int,
        plan: Plan | Tensor | list[Plan],
        sampler: str = "ancestral",
        *,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        """Draw `n` images (n, C, H, W). plan: one for all scales, or a list in their order.

        Further options are those of `reverie.sample`. InputError on another number of plans.
        """
        plans = plan if isinstance(plan, list) else [plan] * (self.depth + 1)
        if len(plans) != self.depth + 1:
            raise InputError(f"{len(plans)} plans for {self.depth + 1} scales: give one for each")
        side = [size >> self.depth for size in self.shape[1:]]
        shape, told, images = (self.shape[0], *side), None, torch.empty(0)
        for k, network in enumerate(self.networks):
            assert isinstance(network, Network)
            drawn = sample(
                network, n, plans[k], sampler, shape=shape, condition=told, generator=generator,
                **options,
            )  # fmt: skip
            if k == 0:
                images = _undo(self.averages[0], drawn)
            else:
                details = _undo(self.details[k - 1], drawn).chunk(3, 1)
                images = self.transforms[k - 1].from_modes(_joined([images, *details]))
            if k < self.depth:
                told = self.averages[k](images)
                shape = (3 * self.shape[0], *told.shape[2:])
        return images


def fit_cascade(
    cascade: Cascade,
    images: Tensor,
    steps: int,
    *,
    batch_size: int = 64,
    lr: float = 2e-3,
    generator: torch.Generator,
) -> Iterator[tuple[int, int]]:
    """Train every network for `steps` minibatches of images (n, C, H, W), yielding (scale, step).

    Adam with a cosine learning rate; the weights kept are a running average.

    >>> import torch
    >>> from reverie.cascade import Cascade, fit_cascade
    >>> from reverie.denoisers import Convolutional
    >>> from reverie.processes import VP
    >>> noise = torch.Generator().manual_seed(0)
    >>> images = torch.randn(8, 1, 8, 8, generator=noise)
    >>> body = lambda channels, told: Convolutional(channels, condition=told, width=4, depth=1)
    >>> list(fit_cascade(Cascade(images, VP(), body=body), images, steps=2, generator=noise))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    """
    for place, scale in enumerate(cascade.scales(images)):
        for step in _train(cascade.networks[place], scale, steps, batch_size, lr, generator):
            yield place, step


def fit_multiscale(
    model: Multiscale,
    images: Tensor,
    steps: int,
    *,
    batch_size: int = 64,
    lr: float = 2e-3,
    generator: torch.Generator,
) -> Iterator[tuple[int, int]]:
    """Train the network of every slot on images (n, C, H, W), yielding (slot, step).

    As `fit_cascade` does: Adam, a cosine learning rate, a running average of the weights.

    >>> import torch
    >>> from reverie.cascade import fit_multiscale
    >>> from reverie.denoisers import Convolutional, Multiscale
    >>> noise = torch.Generator().manual_seed(0)
    >>> images = torch.randn(8, 1, 8, 8, generator=noise)
    >>> body = lambda shape: Convolutional(shape[0], width=4, depth=1)
    >>> model = Multiscale.build(images, 2, body)
    >>> list(fit_multiscale(model, images, steps=2, generator=noise))
    [(1, 0), (1, 1), (2, 0), (2, 1)]
    """
    for place, network in enumerate(model.denoisers):
        scale = Scale(averages(model.process, images, place), None)
        for step in _train(network, scale, steps, batch_size, lr, generator):
            yield place + 1, step


def _train(
    network: nn.Module,
    scale: Scale,
    steps: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> Iterator[int]:
    assert isinstance(network, Network)
    fitting = DenoisingFit(network, lr)
    average = Average(network, EMA)
    for step in range(steps):
        for group in fitting.optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, lr, floor=0.0)
        rows = torch.randint(len(scale.data), (batch_size,), generator=generator)
        told = None if scale.condition is None else scale.condition[rows]
        fitting.step(scale.data[rows], generator, told)
        average.update(step)
        yield step
    average.put()


def _quarters(modes: Tensor) -> list[Tensor]:
    """Averages and the three detail bands of a one-level transform (n, C, H, W)."""
    height, width = (side // 2 for side in modes.shape[2:])
    return [part for row in modes.split(height, 2) for part in row.split(width, 3)]


def _joined(quarters: list[Tensor]) -> Tensor:
    """The inverse of `_quarters`."""
    top, bottom = torch.cat(quarters[:2], 3), torch.cat(quarters[2:], 3)
    return torch.cat([top, bottom], 2)
