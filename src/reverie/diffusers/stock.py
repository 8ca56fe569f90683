"""A U-Net trained here as a stock UNet2DModel with a stock scheduler, without a custom pipeline.

With data of unit variance, y = x + sigma e and total = sqrt(1 + sigma^2), EDM preconditioning is

    xhat = y / total^2 + (sigma / total) F(y / total) = alpha x_t - sigma_t v,    v = -F,

the v-prediction (Salimans & Ho 2022) of the variance-preserving state x_t = y / total, whose
alpha = 1 / total and sigma_t = sigma / total. F is told i = 62.5 log(sigma) + 500. A table of
levels sigma_j = sigma_min exp(j / 62.5) therefore tells it i = j + offset, and a shift of the time
is a rotation of its sines and cosines, which goes into the first linear map of the embedding.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reverie.denoisers.networks.network import Network
from reverie.denoisers.networks.unet import TIME_SCALE, TIME_SHIFT, UNet
from reverie.diffusers.loading import library
from reverie.errors import InputError

PER_LOG_SIGMA = 0.25 * TIME_SCALE  # c_noise = log(sigma) / 4


def as_stock(network: Network) -> tuple[Any, Any]:
    """UNet2DModel and DDPMScheduler that give the same predictions as `network`.

    The scheduler's levels are uniform in log-SNR over the process's range. Raises InputError for
    networks of another kind, and for images whose sides the U-Net has to pad.
    """
    body = network.body
    if not isinstance(body, UNet):
        raise InputError(
            f"diffusers has no model like this {type(body).__name__}: only runs of the network "
            "'unet' can be exported"
        )
    if body.condition is not None:
        raise InputError("conditional networks are not exported: a pipeline would not tell them")
    if network.data_std != 1.0 or not network.process.isotropic:
        raise InputError("only networks on standardised data with one noise level are exported")
    if body.size != body.shape[1:]:
        raise InputError(
            f"images of {body.shape[1]} x {body.shape[2]} are padded to {body.size[0]} x "
            f"{body.size[1]} inside the U-Net, which a stock pipeline does not do: "
            "train on images of that size"
        )
    times = torch.tensor(network.process.t_range, dtype=torch.float64)
    low, high = network.process.clock(times).rsqrt().tolist()
    scheduler = library().DDPMScheduler(
        trained_betas=(betas := _betas(low, high)),
        num_train_timesteps=len(betas),
        prediction_type="v_prediction",
        variance_type="fixed_small",
        clip_sample=False,
        timestep_spacing="linspace",
    )
    model = copy.deepcopy(body.model).cpu().eval()
    with torch.no_grad():
        for parameter in model.conv_out.parameters():
            parameter.neg_()
        _shift_time(model, PER_LOG_SIGMA * math.log(low) + TIME_SCALE * TIME_SHIFT)
    return model, scheduler


def _betas(low: float, high: float) -> list[float]:
    """Betas whose running product of 1 - beta, in float32, stays at the levels from low to high.

    Each beta makes up for the rounding of those before it: near clean data a table in float32
    would otherwise drift by more than its own last digit.
    """
    count = math.ceil(PER_LOG_SIGMA * math.log(high / low) - 1e-9) + 1
    sigma = low * np.exp(np.arange(count) / PER_LOG_SIGMA)
    betas, product = [], 1.0
    for signal in 1 / (1 + sigma**2):
        beta = np.float32(1 - signal / product)
        betas.append(float(beta))
        product *= float(np.float32(1) - beta)
    return betas


def _shift_time(model: Any, offset: float) -> None:
    """Make the model read time j as it read j + offset: rotate the weights of its sines."""
    config, linear = model.config, model.time_embedding.linear_1
    assert isinstance(linear, nn.Linear)
    half = linear.in_features // 2
    exponent = torch.arange(half, dtype=torch.float64) / (half - config.freq_shift)
    angle = offset * torch.exp(-math.log(10_000) * exponent)
    first, second = linear.weight.double().split(half, 1)
    cosine, sine = (first, second) if config.flip_sin_to_cos else (second, first)
    turned = _rotated(cosine, sine, angle)
    linear.weight.copy_(torch.cat(turned if config.flip_sin_to_cos else turned[::-1], 1))


def _rotated(cosine: Tensor, sine: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of cos(a) and sin(a) that equal `cosine` and `sine` at a + angle."""
    return cosine * angle.cos() + sine * angle.sin(), sine * angle.cos() - cosine * angle.sin()
