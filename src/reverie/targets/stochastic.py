"""Stochastic normalizing flows: pairs of Markov chains with deterministic layers among them.

    flow       x' = T(x)                                log ratio log |det DT(x)|
    mala       reversible for gamma_b                   log gamma_b(x) - log gamma_b(x')
    langevin   x' = x + h grad log gamma_b + sqrt(2h) xi, and the same kernel back
    vae        x' ~ N(m(x), s^2), x ~ N(m'(x'), s'^2)   with networks m and m'
    diffusion  x ~ q(x | x') a step of noising, x' ~ N(its mean given a guess of the data, s^2)

Every kernel is normalised, forward noise included (public code of the papers drops it in the
Gaussian layer: constant for training, wrong for weights). Hagemann, Hertrich & Steidl 2022 and
2023 (arXiv 2109.11375, sections 3 and 4; 2111.12506); Wu, Koehler & Noe 2020 (2002.06707). Their
networks and settings are not copied.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from reverie.denoisers.networks.conditions import Values
from reverie.denoisers.networks.network import Network, ResidualMLP
from reverie.errors import InputError
from reverie.flows import Flow, couplings
from reverie.processes import VP
from reverie.targets.annealing import Progress, anneal
from reverie.targets.kernels import Bath, GaussianLayer, ReversibleLayer, ULALayer
from reverie.targets.learned import Whitened
from reverie.targets.pair import Chain, Layer, PathPair, Rollout
from reverie.targets.starts import GaussianStart
from reverie.targets.target import Point, Target

LAYERS = ("flow", "mala", "langevin", "vae", "diffusion")
REPEATED, REPEATS = "flow mala", 8  # of a pair for `sample`
WORD = re.compile(r"([a-z]+)(?:@([0-9.]+))?(?:\*([0-9]+))?")
NOISE = 0.1  # of a VAE layer at first, in deviations of the start
FIRST_STEP = 1.2  # of MALA in a bath's own units, over dim^(1/6)
LEVELS = (1e-3, 1.0)  # times of the diffusion layers


class FlowLayer(Layer):
    """A deterministic layer: a flow, or its inverse where it runs `from_target`.

    >>> import torch
    >>> from reverie.flows import couplings
    >>> from reverie.targets import FlowLayer, Gaussian, Target
    >>> layer = FlowLayer(couplings(2, 2, width=8).double())  # untrained: the identity
    >>> point = Target(Gaussian([0.0, 0.0], torch.eye(2)), 2).at(torch.ones(1, 2).double())
    >>> moved, ratio = layer.ahead(point)
    >>> moved.x.detach(), ratio.detach()
    (tensor([[1., 1.]], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """

    def __init__(self, flow: Flow, *, from_target: bool = False) -> None:
        super().__init__()
        self.flow, self.from_target = flow, from_target

    def ahead(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        if detach:
            raise InputError(
                "a path through a flow moves with its weights: train it by reverse-kl or "
                "forward-kl, not log-variance"
            )
        move = self.flow.inverse if self.from_target else self.flow.forward
        x, volume = move(point.x, point.target.told(len(point)))
        return point.target.at(x), volume

    def back(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        move = self.flow.forward if self.from_target else self.flow.inverse
        x, volume = move(point.x, point.target.told(len(point)))
        return point.target.at(x), -volume


class VAELayer(GaussianLayer):
    """Gaussian kernels with learned means both ways, each x plus a network; learned noises.

    dim, told: coordinates, and numbers that a row is told. width: of the networks.

    >>> import torch
    >>> from reverie.targets import Gaussian, Target, VAELayer
    >>> point = Target(Gaussian([0.0], [[1.0]]), 1).at(torch.ones(1, 1))
    >>> VAELayer(1).mean_ahead(point).tolist()  # untrained: it stays where it is
    [[1.0]]
    """

    def __init__(self, dim: int, *, told: int = 0, width: int = 64, noise: float = NOISE) -> None:
        super().__init__()
        self.up, self.down = (_network(dim + told, width, dim) for _ in range(2))
        self.log_noise = nn.Parameter(torch.full((2,), math.log(noise)))

    @property
    def noise(self) -> Tensor:  # type: ignore[override]
        return self.log_noise[0].exp()

    @property
    def noise_back(self) -> Tensor:  # type: ignore[override]
        return self.log_noise[1].exp()

    def mean_ahead(self, point: Point) -> Tensor:
        return point.x + self.up(_seen(point))

    def mean_back(self, point: Point) -> Tensor:
        return point.x + self.down(_seen(point))


class Guesses(nn.Module):
    """The guess of the data at each level of `steps` diffusion layers, and their learned noises.

    Levels are those of the VP process; the guess is a preconditioned network.
    """

    times: Tensor

    def __init__(
        self, dim: int, steps: int, *, told: int = 0, width: int = 64, depth: int = 2,
        deviation: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        condition = Values((told,)) if told else None
        body = ResidualMLP((dim,), width=width, depth=depth, condition=condition)
        self.network = Network(VP(), body, deviation)
        # equal steps of log-SNR, from noise to data; the data themselves are the last level
        first, last = (float(self.network.process.clock(torch.tensor(t))) for t in LEVELS)
        levels = torch.logspace(math.log10(last), math.log10(first), steps, dtype=torch.float64)
        self.register_buffer("times", self.network.process.time(levels))
        alpha, sigma = self.network.process.scales(self.times, torch.zeros(steps, 1))
        alphas = [*alpha.flatten().tolist(), 1.0]
        keeps = [here / there for here, there in pairwise(alphas)]
        self.keeps, self.alphas = keeps, alphas
        self.sigmas = [*sigma.flatten().tolist(), 0.0]
        # at first those of the reversal of N(0, I): wide enough for weights to have a variance
        noises = [math.sqrt(1 - keep**2) for keep in keeps]
        self.log_noise = nn.Parameter(torch.tensor(noises).log())

    def _posterior(self, k: int) -> tuple[float, float]:
        """Weights of the guess and of the place in the mean of a step's posterior."""
        keep, before, after = self.keeps[k], self.sigmas[k] ** 2, self.sigmas[k + 1] ** 2
        return self.alphas[k + 1] * (1 - keep**2) / before, keep * after / before

    def mean(self, k: int, x: Tensor, told: Tensor | None) -> Tensor:
        """Mean (n, dim) of the point one level cleaner than x."""
        guess, place = self._posterior(k)
        time = self.times[k].expand(len(x))
        return guess * self.network(x, time, told) + place * x


class DiffusionLayer(GaussianLayer):
    """Step k of a diffusion: noising backward, its learned reversal forward.

    guesses: shared by the steps of one diffusion, k = 0 next to the noise.

    >>> import torch
    >>> from reverie.targets import DiffusionLayer, Gaussian, Target, stochastic_flow
    >>> pair = stochastic_flow(Target(Gaussian([0.0], [[1.0]]), 1), "diffusion*4", width=8)
    >>> all(isinstance(layer, DiffusionLayer) for layer in pair.layers)
    True
    """

    def __init__(self, k: int, guesses: Guesses) -> None:
        super().__init__()
        self.k, self.guesses = k, guesses
        self.noise_back = math.sqrt(1 - guesses.keeps[k] ** 2)

    @property
    def noise(self) -> Tensor:  # type: ignore[override]
        return self.guesses.log_noise[self.k].exp()

    def mean_ahead(self, point: Point) -> Tensor:
        return self.guesses.mean(self.k, point.x, point.target.told(len(point)))

    def mean_back(self, point: Point) -> Tensor:
        return self.guesses.keeps[self.k] * point.x

    def back(
        self, point: Point, generator: torch.Generator | None = None, detach: bool = False
    ) -> tuple[Point, Tensor]:
        """As ever; with `share` below 1 the log ratios of that share of rows, others 0.

        They are divided by the share, so that sums are right on average: noising asks no network,
        and a training needs only some of its guesses.
        """
        if self.share == 1:
            return super().back(point, generator, detach)
        mean = self.mean_back(point)
        xi = self._draw(mean, generator)
        moved = point.target.at(mean + self.noise_back * xi)
        n, told = len(point), point.target.told(len(point))
        rows = torch.randperm(n, generator=generator)[: max(1, round(self.share * n))]
        guess = self.guesses.mean(self.k, moved.x[rows], None if told is None else told[rows])
        part = self._ratio(xi[rows], (point.x[rows] - guess) / self.noise)
        ratio = torch.zeros(n, dtype=part.dtype, device=part.device)
        return moved, ratio.index_put((rows,), part * (n / len(rows)))


class StochasticFlow(Chain):
    """A chain from a Gaussian start through layers of any kind, for each y where it is told one.

    Made by `stochastic_flow`, trained by `train`. `.given(y)` is the pair of one y.

    >>> import torch
    >>> from reverie.targets import ConditionalTarget, StochasticFlow, stochastic_flow
    >>> target = ConditionalTarget(lambda x, y: -0.5 * (x - y).square().sum(1), 1)
    >>> pair = stochastic_flow(target, "flow*2 mala", told=1, width=8)
    >>> isinstance(pair, StochasticFlow), pair.draw(5, torch.zeros(1, 1)).shape
    (True, torch.Size([5, 1]))
    """

    def given(self, condition: Tensor) -> PathPair:
        """The pair for one y, (c,) or (1, c), as a `PathPair` on the density of x given y."""
        return _Given(self, condition[None] if condition.ndim == 1 else condition)

    @torch.no_grad()
    def draw(
        self,
        n: int,
        condition: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Ends (n, dim) of n forward paths; condition: (1, c) for all or (n, c)."""
        return self.rollout(n, condition=condition, generator=generator).states


class _Given(PathPair):
    def __init__(self, pair: StochasticFlow, condition: Tensor) -> None:
        super().__init__()
        self.pair, self.condition = pair, condition
        self.target = pair.target.conditioned(condition)

    def rollout(
        self,
        n: int,
        *,
        direction: str = "forward",
        ends: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        return self.pair.rollout(
            n, direction=direction, ends=ends, generator=generator, condition=self.condition
        )


def stochastic_flow(
    target: Target,
    layers: str,
    *,
    start: GaussianStart | None = None,
    baths: Sequence[Bath] | None = None,
    deviation: float | None = None,
    told: int = 0,
    width: int = 64,
    seed: int = 0,
) -> StochasticFlow:
    """An untrained pair from words, in float64: "flow*2 mala flow*2 mala".

    layers: words of `LAYERS` from the start to the target; word*3 is three of them, mala@0.5 one
    at temperature .5. Without @ the temperatures of mala and langevin rise in equal steps to 1.
    start: pi_0, by default N(0, I). baths: one for each mala and langevin layer, from a pilot
    (`anneal`); else their units go with the temperature from the start's deviations to `deviation`
    of the target, by default the same. told: numbers in a row of y, of a `ConditionalTarget`.
    Raises InputError on other words.

    >>> import torch
    >>> from reverie.targets import Gaussian, Target, stochastic_flow
    >>> pair = stochastic_flow(Target(Gaussian([1.0], [[1.0]]), 1), "flow*2 mala vae", width=8)
    >>> weight = pair.rollout(4000, generator=torch.Generator().manual_seed(0)).log_weight.exp()
    >>> len(pair.layers), round(float(weight.mean().detach()), 1)  # Z = 1, untrained as it is
    (4, 1.0)
    """
    law = GaussianStart.of(target.dim) if start is None else start
    words = _words(layers)
    moving = [k for k, (word, _) in enumerate(words) if word in ("mala", "langevin")]
    if baths is not None and len(baths) != len(moving):
        raise InputError(f"{len(moving)} layers move by a density, {len(baths)} baths are given")
    known = iter(baths or ())
    diffusions = sum(word == "diffusion" for word, _ in words)
    made: list[Layer] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guesses = Guesses(target.dim, diffusions, told=told, width=width) if diffusions else None
        step = 0
        for k, (word, level) in enumerate(words):
            if word in ("mala", "langevin"):
                b = (moving.index(k) + 1) / len(moving) if level is None else level
                bath = next(known, None) or _bath(law, b, deviation)
                made.append(_moving(word, bath))
            elif word == "vae":
                made.append(VAELayer(target.dim, told=told, width=width))
            elif word == "diffusion":
                assert guesses is not None
                made.append(DiffusionLayer(step, guesses))
                step += 1
            else:
                flow = couplings(target.dim, 2, width=width, told=told, seed=seed + k)
                made.append(FlowLayer(flow))
    return StochasticFlow(target, law, made).double()


def annealed_flow(
    target: Target,
    start: GaussianStart,
    *,
    layers: str = REPEATED,
    repeats: int = REPEATS,
    width: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Whitened:
    """An untrained pair of `repeats` times `layers` in the start's own units.

    The temperatures and steps of its mala and langevin layers are a pilot's.
    """
    words = " ".join([layers] * repeats)
    moving = sum(word in ("mala", "langevin") for word, _ in _words(words))

    def build(inner: Target) -> Chain:
        baths, law = None, GaussianStart.of(inner.dim)
        if moving:
            generator = torch.Generator().manual_seed(seed)
            path = anneal(
                inner, start=law, kernel="mala", steps=moving, generator=generator,
                progress=progress,
            )  # fmt: skip
            baths = path.baths
        return stochastic_flow(inner, words, start=law, baths=baths, width=width, seed=seed)

    return Whitened(target, start, build)


def _words(layers: str) -> list[tuple[str, float | None]]:
    found: list[tuple[str, float | None]] = []
    for text in layers.replace(",", " ").split():
        match = WORD.fullmatch(text)
        if match is None or match[1] not in LAYERS:
            raise InputError(f"no layer is called {text!r}; write words of {', '.join(LAYERS)}, "
                             "as in flow*2 mala@0.5 flow*2 mala")  # fmt: skip
        word, at, count = match.groups()
        level = _level(word, at)
        if count is not None and not 1 <= int(count) <= 1000:
            raise InputError(f"{text}: a layer stands once to 1,000 times")
        found += [(word, level)] * int(count or 1)
    if not found:
        raise InputError(f"a stochastic flow needs layers: words of {', '.join(LAYERS)}")
    return found


def _level(word: str, at: str | None) -> float | None:
    if at is None:
        return None
    level = float(at) if at.count(".") <= 1 and at != "." else math.nan
    if word not in ("mala", "langevin") or not 0 < level <= 1:
        raise InputError(f"{word}@{at}: mala and langevin take a temperature above 0, up to 1")
    return level


def _bath(start: GaussianStart, b: float, deviation: float | None) -> Bath:
    """Temperature b in units of a Gaussian whose precision goes from the start's to the target's.

    The largest step is near the best for a Gaussian target of that width (Roberts & Rosenthal
    1998).
    """
    scale = start.scale
    if deviation is not None:
        wide = scale.square().sum(1).sqrt()
        scale = torch.diag(((1 - b) / wide.square() + b / deviation**2).rsqrt())
    return Bath(start, b, FIRST_STEP / start.dim ** (1 / 6), scale)


def _moving(word: str, bath: Bath) -> Layer:
    if word == "mala":
        return ReversibleLayer("mala", bath)
    return ULALayer(bath.stepped(0.5 * bath.step**2))


def _network(inside: int, width: int, out: int) -> nn.Sequential:
    last = nn.Linear(width, out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(inside, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last
    )


def _seen(point: Point) -> Tensor:
    told = point.target.told(len(point))
    return point.x if told is None else torch.cat([point.x, told.to(point.x)], 1)
