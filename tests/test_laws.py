"""The public laws of `reverie.testing`: kept by everything shipped, broken where they should."""

from __future__ import annotations

import pytest
import torch

from own_processes import Potts, Whirl, Windy
from reverie.denoisers import Denoiser, Linear, Memoriser, Network, ResidualMLP, network_for
from reverie.processes import (
    EDM,
    VE,
    VP,
    Brownian,
    Cosine,
    CriticallyDamped,
    Custom,
    DomainBridges,
    Flexible,
    Learned,
    LinearSDE,
    LogLinear,
    LogRatios,
    Masking,
    Ordinal,
    RateMatrix,
    Rectified,
    SubVP,
    Tabulated,
    Uniform,
    WrightFisher,
    build,
)
from reverie.spaces import (
    Bounded,
    Euclidean,
    FiniteSet,
    Hyperbolic,
    Intervals,
    Rotations,
    Simplex,
    Sphere,
    Torus,
)
from reverie.testing import BrokenLaw, check_denoiser, check_process, check_space

G = torch.Generator().manual_seed(0)
PLANE = torch.randn(6, 2, generator=G)
WORDS = torch.randint(0, 4, (6, 3), generator=G)
RING = torch.eye(4).roll(1, 0) + torch.eye(4).roll(-1, 0) - 2 * torch.eye(4)
SHARES = torch.distributions.Dirichlet(torch.tensor([2.0, 3.0, 4.0])).sample((6,))
TABLE = Bounded(Intervals([0.0], [float("inf")]), FiniteSet(3, 1))
ROWS = torch.tensor([[0.1, 0], [0.7, 2], [2.0, 1], [0.4, 1], [1.1, 0], [0.0, 2]])
TURN = torch.tensor([[-1.0, 0.5], [-0.5, -1.0]])
GAUSSIAN = {
    "vp": VP(t_min=1e-3), "sub-vp": SubVP(), "cosine": Cosine(), "ve": VE(0.02, 20),
    "edm": EDM(0.02, 20), "rectified": Rectified(), "log-linear": LogLinear(),
    "custom": Custom(lambda t: 1 - t, lambda t: t), "learned": Learned(),
    "tabulated": Tabulated(torch.linspace(0.9999, 0.001, 200)),
    "modes": build("modes:schedule=vp,shape=2,basis=haar,t_min=0.001,speed=1/1"),
    "speeds": build("modes:schedule=vp,shape=2,basis=haar,t_min=0.001,speed=1/0.8"),
    "functions": build("functions:kernel=exponential,length=0.3,shape=2"),
}  # fmt: skip
OTHERS = {
    "damped": (CriticallyDamped(), PLANE),
    "linear": (LinearSDE(TURN, torch.eye(2), data_dims=2), PLANE),
    "flexible": (Flexible(2), PLANE),
    "masking": (Masking(4, 3), WORDS),
    "uniform": (Uniform(4, 3), WORDS),
    "ordinal": (Ordinal(4, 3), WORDS),
    "rates": (RateMatrix(RING, 3), WORDS),
    "sphere": (Brownian(Sphere(2), 1e-2), Sphere(2).uniform(6, generator=G)),
    "torus": (Brownian(Torus(2), 1e-2), Torus(2).uniform(6, generator=G)),
    "rotations": (Brownian(Rotations(3), 1e-2), Rotations(3).uniform(6, generator=G)),
    "wright-fisher": (WrightFisher([2.0, 2.0, 2.0], 0.3), SHARES[:3]),
    "log-ratios": (LogRatios(3, VP(t_min=1e-3)), SHARES),
    "bridge": (DomainBridges(TABLE), ROWS),
    "whirl": (Whirl(), PLANE),
    "potts": (Potts(3, 4), WORDS),
    "windy": (Windy(), PLANE[:, :1]),
}
CASES = {name: (process, PLANE) for name, process in GAUSSIAN.items()} | OTHERS


@pytest.mark.parametrize("name", CASES)
def test_every_process_keeps_the_laws(name: str) -> None:
    process, points = CASES[name]
    draws = 400 if name == "wright-fisher" else 1500  # its kernel is a series
    check_process(process, process.space.as_points(points), draws=draws)


class Lying(VP):
    """Claims and formulas that are wrong, one at a time."""

    def __init__(self, lie: str) -> None:
        super().__init__(t_min=1e-3)
        self.lie = lie
        if lie == "isotropic":
            self.columns = 1

    def time(self, u):
        return super().time(u) * (1.1 if self.lie == "time" else 1)

    def log_kernel(self, state, x, t):
        return super().log_kernel(state, x, t) * (0.5 if self.lie == "kernel" else 1)

    def rate(self, prediction, x, state, t):
        return super().rate(prediction, x, state, t) * (1.2 if self.lie == "rate" else 1)

    def reverse(self, prediction, state, t, s, *, generator=None):
        moved = super().reverse(prediction, state, t, s, generator=generator)
        return 1.3 * moved if self.lie == "reverse" else moved

    def charge(self, guess, x, state, t, s):
        return super().charge(guess, x, state, t, s) * (2 if self.lie == "charge" else 1)

    def corrupt_pair(self, x, t, *, generator=None):
        one, two = super().corrupt_pair(x, t, generator=generator)
        return one, two + (1 if self.lie == "pair" else 0)


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        ("time", "time(clock(t)) misses t"),
        ("kernel", "log_kernel disagrees with draws of corrupt"),
        ("rate", "area_exact is said, but the area"),
        ("reverse", "leaves the law of X_s given x"),
        ("charge", "charge differs from clock times rate"),
        ("pair", "second draw of corrupt_pair"),
    ],
)
def test_a_lie_is_told(lie: str, sentence: str) -> None:
    with pytest.raises(BrokenLaw) as told:
        check_process(Lying(lie), PLANE, draws=6000)
    assert sentence in str(told.value)
    assert str(told.value).startswith("Lying: ")


def test_a_rate_that_rises_is_no_monotone_one() -> None:
    class Claims(Brownian):
        monotone = True

    with pytest.raises(BrokenLaw, match="monotone is said"):
        check_process(Claims(Sphere(2), 1e-2), Sphere(2).uniform(6, generator=G), draws=3000)


@pytest.mark.parametrize("name", ["vp", "masking", "sphere", "whirl", "wright-fisher"])
def test_networks_and_memorisers_keep_the_laws(name: str) -> None:
    process, points = CASES[name]
    points = process.space.as_points(points)
    check_denoiser(Memoriser(process, points), points)
    check_denoiser(network_for(process, tuple(points.shape[1:]), width=8, depth=1, train=points),
                   points)  # fmt: skip


class Rude(Denoiser):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.process, self.fault = VP(t_min=1e-3), fault

    def forward(self, state, t, condition=None):
        if self.fault == "in place":
            state.mul_(0.5)
        if self.fault == "batch":
            return state - state.mean(0)
        if self.fault == "shape":
            return state[:, :1]
        return torch.rand_like(state) if self.fault == "chance" else state


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("in place", "changes the state in place"),
        ("batch", "depends on the rest of the batch"),
        ("shape", "its guess has shape"),
        ("chance", "does not repeat"),
    ],
)
def test_a_rude_denoiser_is_told(fault: str, sentence: str) -> None:
    with pytest.raises(BrokenLaw, match=sentence):
        check_denoiser(Rude(fault), PLANE)
    check_denoiser(Linear.fit(VP(), PLANE), PLANE)
    check_denoiser(Network(VP(), ResidualMLP((2,), 8, 1)), PLANE)


@pytest.mark.parametrize(
    ("space", "points"),
    [
        (Euclidean((2,)), PLANE),
        (Euclidean(), PLANE),
        (FiniteSet(4, 3), WORDS),
        (Simplex(3), SHARES),
        (Sphere(2), Sphere(2).uniform(6, generator=G)),
        (Torus(2), Torus(2).uniform(6, generator=G)),
        (Rotations(3), Rotations(3).uniform(6, generator=G)),
        (Hyperbolic(2), Hyperbolic(2).exp(Hyperbolic(2).origin().expand(6, 3),
         Hyperbolic(2).noise(Hyperbolic(2).origin().expand(6, 3).double(), generator=G))),
    ],
    ids=lambda value: repr(value) if not isinstance(value, torch.Tensor) else "",
)  # fmt: skip
def test_every_space_keeps_the_laws(space, points) -> None:
    check_space(space, points)


def test_a_space_that_lets_all_pass_is_told() -> None:
    class Lax(Euclidean):
        def check(self, x):
            return x

    with pytest.raises(BrokenLaw, match="lets rows with a value that is not finite pass"):
        check_space(Lax((2,)), PLANE)

    class Bent(Sphere):
        def log(self, x, y):
            return 0.9 * super().log(x, y)

    with pytest.raises(BrokenLaw, match=r"exp\(x, log\(x, y\)\) misses y"):
        check_space(Bent(2), Sphere(2).uniform(6, generator=G))
