"""The networks that `fit` builds by name: one registry by process, open to processes of one's own.

`network_of(process, wanted)` is a `functools.singledispatch` registry: register a function of
these two for a class of processes. A process that nobody registered has a network on its state
(see `networks.plain`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch

from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.adaptive_mixture import AdaptiveMixture
from reverie.denoisers.networks.conditions import Encoder, Values
from reverie.denoisers.networks.convolutional_unet import ConvolutionalUNet
from reverie.denoisers.networks.into_domain import DomainNetwork
from reverie.denoisers.networks.linear_sde import StateNetwork
from reverie.denoisers.networks.network import MaskedNetwork, Network, ResidualMLP
from reverie.denoisers.networks.operator import FourierNeuralOperator
from reverie.denoisers.networks.plain import PlainNetwork
from reverie.denoisers.networks.simplex import InLogRatios, SharesNetwork
from reverie.denoisers.networks.table import TableNetwork
from reverie.denoisers.networks.tangent import CorrectedKernel, TangentNetwork
from reverie.denoisers.networks.tokens import PosteriorHead, TokenMLP, TokenTransformer
from reverie.denoisers.networks.unet import UNet
from reverie.errors import InputError
from reverie.processes import (
    Brownian,
    DomainBridges,
    GaussianProcess,
    JumpProcess,
    LinearSDE,
    LogRatios,
    Process,
    ProductProcess,
    WrightFisher,
)
from reverie.spaces import Functions

HEADS = 4
WIDTH, CONVOLUTIONAL_WIDTH = 256, 64
CHANNELS, PICTURE_SIDE, VOLUME_SIDE = 4, 16, 4  # of pictures and volumes that get convolutions
MLP_BLOCKS = 3  # `depth` for which a level of the convolutional network has one block
WAVES = 12  # of a Fourier neural operator, along each axis
BANDWIDTHS, WIDEST = 5, 0.1  # of the kernel estimate, from tau_min on


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked of a network: for points of `shape`, by name, or around a `body` of one's own.

    train: training points (n, *shape). condition: what it is told. masked: told its own points,
    where they are observed.
    """

    shape: tuple[int, ...]
    name: str = "mlp"
    width: int = 256
    depth: int = 3
    body: nn.Module | None = None
    train: Tensor | None = None
    condition: Encoder | None = None
    masked: bool = False

    def only(self, *names: str, of: str) -> None:
        """InputError where another network is named, or a condition is told, that `of` lacks."""
        if self.condition is not None or self.masked:
            raise InputError("only networks of Gaussian noise are told a condition")
        if self.body is None and self.name not in names:
            raise InputError(f"network {self.name!r} is not for {of}: use {' or '.join(names)}")

    def perceptron(self, shape: tuple[int, ...]) -> ResidualMLP:
        """An MLP of the wanted size over points of `shape`."""
        return ResidualMLP(shape, self.width, self.depth)


def network_for(
    process: Process,
    shape: tuple[int, ...],
    name: str | None = "mlp",
    width: int | None = None,
    depth: int = 3,
    *,
    body: nn.Module | None = None,
    train: Tensor | None = None,
    condition: Encoder | None = None,
    masked: bool = False,
) -> Denoiser:
    """A fresh network for points of `shape`, or around a `body` of the user's own.

    name: mlp; convolutional (pictures and volumes); unet (images, of diffusers); fno (functions);
    transformer (symbols); kernel (manifolds: a kernel estimate of `train` (n, *shape) that a
    network corrects); None is `default_name`'s. width: None is `default_width`'s. condition: what
    it is told, for
    Gaussian noise (see `condition_of`). masked: told its own points, where they are observed.
    A process that nobody registered gets a network on its state, and needs `train`, whose noised
    states and targets give it its units. Raises InputError where these do not fit.

    >>> from reverie.denoisers import network_for
    >>> from reverie.processes import VP, Masking
    >>> type(network_for(VP(), (2,), width=16)).__name__
    'Network'
    >>> type(network_for(Masking(4, sites=8), (8,), "transformer", width=16, depth=1)).__name__
    'PosteriorHead'
    """
    name = default_name(process, tuple(shape)) if name is None else name
    width = default_width(name) if width is None else width
    wanted = Wanted(tuple(shape), name, width, depth, body, train, condition, masked)
    return network_of(process, wanted)


@singledispatch
def default_name(process: Process, shape: tuple[int, ...]) -> str:
    """The network for points of `shape` where none is named; register one for other processes."""
    return "mlp"


def default_width(name: str) -> int:
    """The width of a network where none is said."""
    return CONVOLUTIONAL_WIDTH if name == "convolutional" else WIDTH


@singledispatch
def network_of(process: Process, wanted: Wanted) -> Denoiser:
    """The network of one process; register a function of these arguments for a class of them."""
    wanted.only("mlp", of=type(process).__name__)
    if wanted.train is None:
        raise InputError(
            f"a network for {type(process).__name__} reads its units off training points: pass "
            "train="
        )
    return PlainNetwork(process, wanted.train, wanted.width, wanted.depth, wanted.body)


@default_name.register(GaussianProcess)
def _grid_or_vector(process: GaussianProcess, shape: tuple[int, ...]) -> str:
    on_functions = isinstance(process.space, Functions)
    is_picture = len(shape) == 3 and shape[0] <= CHANNELS and min(shape[1:]) >= PICTURE_SIDE
    is_volume = len(shape) == 4 and min(shape[1:]) >= VOLUME_SIDE
    return "convolutional" if (is_picture or is_volume) and not on_functions else "mlp"


@network_of.register(GaussianProcess)
def _gaussian(process: GaussianProcess, wanted: Wanted) -> Denoiser:
    kind = MaskedNetwork if wanted.masked else Network
    told = Values(wanted.shape) if wanted.masked else wanted.condition
    body = wanted.body or _body(process, wanted, told)
    return kind(process, body, data_std=1.0)


def _body(process: GaussianProcess, wanted: Wanted, told: Encoder | None) -> nn.Module:
    if wanted.name == "fno":
        return _operator(process, wanted, told)
    if wanted.name == "unet":
        return UNet(wanted.shape, wanted.width, told)
    if wanted.name == "convolutional":
        depth = max(1, wanted.depth // MLP_BLOCKS)
        return ConvolutionalUNet(wanted.shape, wanted.width, depth, told)
    if wanted.name != "mlp":
        raise InputError(
            f"network {wanted.name!r} is not for vectors and images: use mlp, convolutional or "
            "unet"
        )
    return ResidualMLP(wanted.shape, wanted.width, wanted.depth, condition=told)


def _operator(process: GaussianProcess, wanted: Wanted, told: Encoder | None) -> nn.Module:
    if not isinstance(process.space, Functions):
        raise InputError("network 'fno' is for functions: use it with the process functions")
    if told is not None:
        raise InputError("network 'fno' is told observations of its function only: use mlp")
    waves = min(WAVES, min(wanted.shape) // 2)
    return FourierNeuralOperator(process.space, waves, wanted.width, wanted.depth)


@network_of.register(LinearSDE)
def _states(process: LinearSDE, wanted: Wanted) -> Denoiser:
    wanted.only("mlp", of="noise with a velocity")
    body = wanted.body or wanted.perceptron(wanted.shape)
    return StateNetwork(process, body, data_std=1.0)


@network_of.register(JumpProcess)
def _symbols(process: JumpProcess, wanted: Wanted) -> Denoiser:
    wanted.only("mlp", "transformer", of="symbols")
    if wanted.body is not None:
        return PosteriorHead(process, wanted.body)
    if wanted.name == "transformer" and wanted.width % HEADS:
        raise InputError(f"width is {wanted.width}; a transformer needs a multiple of {HEADS}")
    kind = {"mlp": TokenMLP, "transformer": TokenTransformer}[wanted.name]
    shape = process.space.shape
    body = kind(process.states, shape, process.symbols, wanted.width, wanted.depth)
    return PosteriorHead(process, body)


@network_of.register(Brownian)
def _tangents(process: Brownian, wanted: Wanted) -> Denoiser:
    wanted.only("mlp", "kernel", of="manifolds")
    if wanted.name == "kernel" and wanted.train is not None:
        return CorrectedKernel(_estimate(process, wanted.train), wanted.width, wanted.depth)
    return TangentNetwork(process, wanted.body, wanted.width, wanted.depth)


def _estimate(process: Brownian, train: Tensor) -> AdaptiveMixture:
    """The kernel estimate of the training rows: the same one whenever it is made again."""
    ratio = math.log(max(WIDEST / process.tau_min, 10.0)) / (BANDWIDTHS - 1)
    taus = [process.tau_min * math.exp(ratio * k) for k in range(BANDWIDTHS)]
    return AdaptiveMixture(process, process.space.project(train.double()), taus)


@network_of.register(WrightFisher)
def _shares(process: WrightFisher, wanted: Wanted) -> Denoiser:
    wanted.only("mlp", of="shares")
    return SharesNetwork(process, wanted.body, wanted.width, wanted.depth)


@network_of.register(LogRatios)
def _ratios(process: LogRatios, wanted: Wanted) -> Denoiser:
    wanted.only("mlp", of="log-ratios")
    body = wanted.body or wanted.perceptron((wanted.shape[0] - 1,))
    return InLogRatios(process, Network(process.base, body, data_std=1.0))


@network_of.register(ProductProcess)
def _tables(process: ProductProcess, wanted: Wanted) -> Denoiser:
    wanted.only("mlp", of="tables")
    return TableNetwork(process, wanted.train, wanted.width, wanted.depth, wanted.body)


@network_of.register(DomainBridges)
def _into_domain(process: DomainBridges, wanted: Wanted) -> Denoiser:
    wanted.only("mlp", of="bridges into a domain")
    return DomainNetwork(process, wanted.width, wanted.depth, wanted.body)
