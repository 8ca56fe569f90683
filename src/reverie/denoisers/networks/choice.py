"""The networks that `fit` builds by name, each for the processes that it suits."""

from __future__ import annotations

import math

from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.adaptive_mixture import AdaptiveMixture
from reverie.denoisers.networks.conditions import Encoder, Values
from reverie.denoisers.networks.linear_sde import StateNetwork
from reverie.denoisers.networks.network import MaskedNetwork, Network, ResidualMLP
from reverie.denoisers.networks.operator import FourierNeuralOperator
from reverie.denoisers.networks.tangent import CorrectedKernel, TangentNetwork
from reverie.denoisers.networks.tokens import PosteriorHead, TokenMLP, TokenTransformer
from reverie.errors import InputError
from reverie.processes import Brownian, GaussianProcess, JumpProcess, LinearSDE, Process
from reverie.spaces import Functions

HEADS = 4
WAVES = 12  # of a Fourier neural operator, along each axis
BANDWIDTHS, WIDEST = 5, 0.1  # of the kernel estimate, from tau_min on


def network_for(
    process: Process,
    shape: tuple[int, ...],
    name: str = "mlp",
    width: int = 256,
    depth: int = 3,
    *,
    body: nn.Module | None = None,
    train: Tensor | None = None,
    condition: Encoder | None = None,
    masked: bool = False,
) -> Denoiser:
    """A fresh network for points of `shape`, or around a `body` of the user's own.

    name: mlp; unet (images); fno (functions); transformer (symbols); kernel (manifolds: a kernel
    estimate of `train` (n, *shape) that a network corrects). condition: what it is told, for
    Gaussian noise (see `condition_of`). masked: told its own points, where they are observed.
    Raises InputError where these do not fit.
    """
    if isinstance(process, GaussianProcess):
        kind = MaskedNetwork if masked else Network
        told = Values(shape) if masked else condition
        if body is None and name == "fno":
            body = _operator(process, shape, width, depth, told)
        return kind(process, body or _vectors(name, shape, width, depth, told), data_std=1.0)
    if condition is not None or masked:
        raise InputError("only networks of Gaussian noise are told a condition")
    if isinstance(process, LinearSDE):
        if body is None and name != "mlp":
            raise InputError(f"network {name!r} is not for noise with a velocity: use mlp")
        return StateNetwork(process, body or ResidualMLP(shape, width, depth), data_std=1.0)
    if isinstance(process, JumpProcess):
        return PosteriorHead(process, body or _tokens(name, process, width, depth))
    if isinstance(process, Brownian):
        if name == "kernel" and train is not None:
            return CorrectedKernel(_estimate(process, train), width, depth)
        if body is None and name != "mlp":
            raise InputError(f"network {name!r} is not for manifolds: use mlp or kernel")
        return TangentNetwork(process, body, width, depth)
    raise InputError(f"there is no network for {type(process).__name__} yet: build a Denoiser")


def _vectors(
    name: str, shape: tuple[int, ...], width: int, depth: int, condition: Encoder | None
) -> nn.Module:
    if name == "unet":
        from reverie.denoisers.networks.unet import UNet

        return UNet(shape, width, condition)
    if name != "mlp":
        raise InputError(f"network {name!r} is not for vectors and images: use mlp or unet")
    return ResidualMLP(shape, width, depth, condition=condition)


def _operator(
    process: GaussianProcess, shape: tuple[int, ...], width: int, depth: int, told: Encoder | None
) -> nn.Module:
    if not isinstance(process.space, Functions):
        raise InputError("network 'fno' is for functions: use it with the process functions")
    if told is not None:
        raise InputError("network 'fno' is told observations of its function only: use mlp")
    return FourierNeuralOperator(process.space, min(WAVES, min(shape) // 2), width, depth)


def _tokens(name: str, process: JumpProcess, width: int, depth: int) -> nn.Module:
    kinds = {"mlp": TokenMLP, "transformer": TokenTransformer}
    if name not in kinds:
        raise InputError(f"network {name!r} is not for symbols: use mlp or transformer")
    if name == "transformer" and width % HEADS:
        raise InputError(f"width is {width}; a transformer needs a multiple of {HEADS}")
    return kinds[name](process.states, process.space.shape, process.symbols, width, depth)


def _estimate(process: Brownian, train: Tensor) -> AdaptiveMixture:
    """The kernel estimate of the training rows: the same one whenever it is made again."""
    ratio = math.log(max(WIDEST / process.tau_min, 10.0)) / (BANDWIDTHS - 1)
    taus = [process.tau_min * math.exp(ratio * k) for k in range(BANDWIDTHS)]
    return AdaptiveMixture(process, process.space.project(train.double()), taus)
