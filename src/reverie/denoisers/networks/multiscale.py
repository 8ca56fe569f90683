"""Non-uniform diffusion: fine scales turn to noise first, and then need no network.

An image is split by Haar's transform into K scales. Scale k (1 the finest, K the averages) runs a
schedule to its end at t = k / K. In slot k, t in ((k - 1) / K, k / K], the scales below k are
noise, and a network of its own sees the image averaged k - 1 times (Batzolis et al. 2022,
arXiv 2207.09786, section 3). As one denoiser of one modal process it takes every sampler; what is
below the slot is guessed to be 0, its mean, and so stays noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.networks.network import Network
from reverie.errors import InputError
from reverie.processes import GaussianProcess, LogLinear, ModalProcess


def multiscale_process(
    shape: tuple[int, ...], scales: int, schedule: GaussianProcess | None = None
) -> ModalProcess:
    """Haar's K = `scales` scales of images (C, H, W), scale k at its end at t = k / K.

    schedule: default log-SNR linear from 10 to -10. It is followed beyond its end, where a faster
    scale is all noise. Raises InputError on fewer than two scales, or sides that do not halve
    scales - 1 times.
    """
    schedule = LogLinear() if schedule is None else schedule
    return _process(shape, scales, 1, schedule, schedule.t_range)


def slot_process(
    shape: tuple[int, ...], scales: int, slot: int, schedule: GaussianProcess | None = None
) -> ModalProcess:
    """The process of one slot, ((slot - 1) / K, slot / K], on images averaged slot - 1 times."""
    schedule = LogLinear() if schedule is None else schedule
    start, stop = schedule.t_range
    ends = (max(start, (slot - 1) / scales * stop), slot / scales * stop)
    return _process(shape, scales, slot, schedule, ends)


def _process(
    shape: tuple[int, ...],
    scales: int,
    slot: int,
    schedule: GaussianProcess,
    t_range: tuple[float, float],
) -> ModalProcess:
    if scales < 2:
        raise InputError(f"a multiscale process needs at least two scales, not {scales}")
    start, stop = schedule.t_range
    ends = [(scales - band) / scales * stop for band in range(scales - slot + 1)]
    speed: Any = [(stop - start) / (end - start) for end in ends]
    sides = tuple(side >> (slot - 1) for side in shape[-2:])
    averaged = (*shape[:-2], *sides)
    basis = f"haar/{scales - slot}"
    if slot == scales:
        basis, speed = "identity", torch.ones(averaged, dtype=torch.float64)
    return ModalProcess(schedule, shape=averaged, basis=basis, speed=speed, t_range=t_range)


class Multiscale(Denoiser):
    """One denoiser for each slot, 1 (whole images) to K (averages), as one of the whole process.

    denoisers: of `slot_process(shape, K, k)` for k = 1 to K, in this order. InputError where their
    shapes do not halve.
    Source: Batzolis et al. 2022, section 3.

    >>> import torch
    >>> from reverie.denoisers import Convolutional, Multiscale
    >>> images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> body = lambda shape: Convolutional(shape[0], width=4, depth=1)
    >>> denoiser = Multiscale.build(images, 2, body)
    >>> denoiser(images, torch.tensor(0.7)).shape
    torch.Size([8, 1, 8, 8])
    """

    process: ModalProcess

    def __init__(self, process: ModalProcess, denoisers: Sequence[Denoiser]) -> None:
        super().__init__()
        self.process, self.denoisers = process, nn.ModuleList(denoisers)
        whole = process.basis.shape
        for k, denoiser in enumerate(denoisers):
            expected = (*whole[:-2], *(side >> k for side in whole[-2:]))
            if denoiser.process.space.shape != expected:
                raise InputError(
                    f"the denoiser of slot {k + 1} is of points {denoiser.process.space.shape}; "
                    f"need {expected}"
                )

    @classmethod
    def build(
        cls,
        images: Tensor,
        scales: int,
        body: Callable[[tuple[int, ...]], nn.Module],
        schedule: GaussianProcess | None = None,
    ) -> Multiscale:
        """Fresh networks for images (n, C, H, W): `body(shape)` of each slot's images."""
        shape = tuple(images.shape[1:])
        process = multiscale_process(shape, scales, schedule)
        networks = []
        for slot in range(1, scales + 1):
            own = slot_process(shape, scales, slot, schedule)
            assert own.space.shape is not None
            spread = float(averages(process, images, slot - 1).std())
            networks.append(Network(own, body(own.space.shape), spread))
        return cls(process, networks)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        count = len(self.denoisers)
        times = torch.as_tensor(t).to(state).expand(len(state))
        stop = self.process.schedule.t_range[1]
        slots = (times * count / stop - 1e-6).ceil().long().clamp(1, count)
        modes = self.process.to_modes(state)
        clean = torch.zeros_like(modes)
        for slot in slots.unique().tolist():
            rows, denoiser = slots == slot, self.denoisers[slot - 1]
            assert isinstance(denoiser, Denoiser)
            own: ModalProcess = denoiser.process  # type: ignore[assignment]
            corner = tuple(slice(side) for side in own.basis.shape[-2:])
            image = own.from_modes(modes[rows][(..., *corner)])
            guess = denoiser(image, times[rows], condition)
            part = clean[rows]
            part[(..., *corner)] = own.to_modes(guess)
            clean[rows] = part
        return self.process.from_modes(clean)


def averages(process: ModalProcess, images: Tensor, times: int) -> Tensor:
    """Images (n, C, H, W) averaged `times` times by Haar's transform: sides H / 2^times."""
    modes = process.to_modes(images)
    corner = modes[(..., *(slice(side >> times) for side in images.shape[-2:]))]
    scales = process.basis.count
    if times == scales - 1:
        return corner
    return slot_process(tuple(images.shape[1:]), scales, times + 1).from_modes(corner)
