"""A denoiser as a stock model, so that stock pipelines run it: `to_diffusers(denoiser)`.

    calibrated = reverie.calibration.calibrate(reverie.from_diffusers(pipe), rows)
    pipe.unet, pipe.scheduler = reverie.diffusers.to_diffusers(calibrated)

Schedulers recover the clean guess from what the model predicts. From noise they would divide a
rounding error by alpha, 1/158 or less at the noisy end; v = (alpha x - xhat) / sigma gives the
guess back to the last digits at every level, so that models on a table answer in v. What the guess
has already (guidance, clipping, the mixture with the linear optimum) is not done again.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser, state_type
from reverie.denoisers.conversions import convert
from reverie.diffusers.calling import Preconditioned
from reverie.diffusers.loading import StockDenoiser, is_flow, library
from reverie.errors import InputError
from reverie.processes.gaussian import require_gaussian


class StockModel(nn.Module):
    """A denoiser called as models of diffusers are: (sample, timestep, condition) -> `.sample`.

    config: of the model inside, which pipelines read shapes from.

    >>> from diffusers import DDPMScheduler, UNet2DModel
    >>> from reverie import from_diffusers
    >>> from reverie.diffusers import StockModel, to_diffusers
    >>> blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    >>> blocks |= {"block_out_channels": [8], "norm_num_groups": 4, "layers_per_block": 1}
    >>> unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **blocks)
    >>> model, scheduler = to_diffusers(from_diffusers(unet, DDPMScheduler()))
    >>> isinstance(model, StockModel), scheduler.config.prediction_type
    (True, 'v_prediction')
    """

    def __init__(self, denoiser: Denoiser, scheduler: Any, stock: StockDenoiser) -> None:
        super().__init__()
        self.denoiser, self.config = denoiser, getattr(stock.stock.model, "config", None)
        process = require_gaussian(denoiser.process, "a stock model", one_level=True)
        self.process, self.flow = process, is_flow(scheduler)
        module = stock.call.module
        self.edm = module if isinstance(module, Preconditioned) else None
        self.train_steps = int(scheduler.config.num_train_timesteps)
        # what the scheduler takes its last level for, which may lie beyond the process: no signal
        self.last = None if self.flow or self.edm else float(scheduler.alphas_cumprod[-1])

    @property
    def dtype(self) -> torch.dtype:
        return state_type(self.denoiser)

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor | None = None,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """The prediction (B, *shape) that makes the scheduler's clean guess the denoiser's."""
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise InputError(f"a denoiser as a stock model takes no {', '.join(given)}")
        told = torch.as_tensor(timestep, dtype=torch.float64, device=sample.device)
        told = told.reshape(-1).expand(len(sample))
        condition = encoder_hidden_states if class_labels is None else class_labels
        out = self._answer(sample, told, condition)
        return Answer(out) if return_dict else (out,)

    def _answer(self, sample: Tensor, told: Tensor, condition: Any) -> Tensor:
        wide = sample.to(torch.promote_types(sample.dtype, torch.float32))
        low, high = self.process.t_range
        if self.edm is not None:
            sigma = (4 * told).exp()
            skip, out, total = self.edm.scales(sigma, wide)
            t = self.process.time(sigma**-2).clamp(low, high)
            state = wide * total
            return ((self.denoiser(state, t, condition) - skip * state) / out).to(sample.dtype)
        t = told / self.train_steps if self.flow else (told + 1) / self.train_steps
        guess = self.denoiser(wide, t.clamp(low, high), condition)
        if self.last is None:
            return convert(guess, wide, t, self.process, "clean", "velocity").to(sample.dtype)
        out = convert(guess, wide, t.clamp(low, high), self.process, "clean", "v")
        beyond = (t > high + 0.5 / self.train_steps).reshape(-1, *(1,) * (wide.ndim - 1))
        blind = (self.last**0.5 * wide - guess) / (1 - self.last) ** 0.5
        return torch.where(beyond, blind, out).to(sample.dtype)


class Answer(tuple):
    """What a stock model answers with: `.sample`, or `[0]`."""

    def __new__(cls, sample: Tensor) -> Answer:
        return super().__new__(cls, (sample,))

    @property
    def sample(self) -> Tensor:
        return self[0]


def to_diffusers(denoiser: Denoiser, scheduler: Any = None) -> tuple[StockModel, Any]:
    """A denoiser made of a diffusers model, calibrated or guided, as (model, scheduler).

    denoiser: one with a `from_diffusers` inside. scheduler: the kind to run it with, made from the
    config of the model's own (default the model's own); the one returned differs from it in what
    the model predicts, and clips no more. Its timesteps are set anew. Raises InputError where no
    such model is inside, or on schedulers of another family.

    >>> from diffusers import DDPMScheduler, UNet2DModel
    >>> from reverie import from_diffusers
    >>> from reverie.diffusers import to_diffusers
    >>> blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    >>> blocks |= {"block_out_channels": [8], "norm_num_groups": 4, "layers_per_block": 1}
    >>> unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **blocks)
    >>> model, scheduler = to_diffusers(from_diffusers(unet, DDPMScheduler()))
    >>> type(scheduler).__name__
    'DDPMScheduler'
    """
    inside = [part for part in denoiser.modules() if isinstance(part, StockDenoiser)]
    if not inside:
        raise InputError(
            "to_diffusers takes a denoiser with a model of diffusers inside, such as "
            "calibrate(from_diffusers(pipe), rows)"
        )
    library()
    own = inside[0].scheduler
    scheduler = own if scheduler is None else scheduler
    edm, flow = isinstance(inside[0].call.module, Preconditioned), is_flow(own)
    if is_flow(scheduler) != flow or (hasattr(scheduler, "alphas_cumprod") == edm and not flow):
        raise InputError(
            f"{type(scheduler).__name__} is of another family of noise than the model's "
            f"{type(own).__name__}"
        )
    wanted = {"clip_sample": False, "thresholding": False}
    wanted |= {} if edm else {"prediction_type": "flow_prediction" if flow else "v_prediction"}
    taken = inspect.signature(type(scheduler).__init__).parameters
    settings = {name: value for name, value in wanted.items() if name in taken}
    remade = type(scheduler).from_config(scheduler.config, **settings)
    return StockModel(denoiser, remade, inside[0]).eval(), remade
