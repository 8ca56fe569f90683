"""Train the conditional denoiser on pairs (w, x), and stop by its loss curve on held-out pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.curve import LossCurve, measure
from reverie.errors import InputError
from reverie.objectives.averaging import Average, learning_rate, put
from reverie.processes import GaussianProcess
from reverie.processes.times import low_discrepancy
from reverie.simulation.network import LinearGuess, PairBody, PairNetwork

LEVELS, CHECK_ROWS = 32, 2000
BROAD, COARSE_SHARE = 2.0, 0.2  # share of levels above BROAD deviations of the parameters
Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Settings:
    """How the network is built and trained.

    exchangeable: of how many blocks an observation consists whose order means nothing, as that of
    repeated measurements; training shuffles them. patience: checks without a better curve.
    """

    exchangeable: int = 1
    steps: int = 6000
    batch_size: int = 128
    lr: float = 1e-3
    width: int = 128
    depth: int = 3
    weight_decay: float = 1e-4
    ema: float = 0.999
    warmup: int = 200
    check_every: int = 500
    patience: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Check:
    """Nats under the held-out curve after `step` steps, and the running loss of training."""

    step: int
    loss: float
    nats: float


class Fit:
    """Training of one network on pairs w (n, d), x (n, m), and its best average of weights.

    Average and learning rate are those of `runs.Trainer`, its loop is not: here the pairs of noise
    are antithetic, the observation's blocks are shuffled row by row, a part of the network (its
    linear guess) is solved for and not trained, and the first check stands before the first step,
    so that the linear guess itself may win.
    """

    def __init__(
        self,
        process: GaussianProcess,
        pairs: Pairs,
        held: Pairs,
        settings: Settings,
        bounds: Tensor | None = None,
    ) -> None:
        self.pairs, self.settings = pairs, settings
        self.held = tuple(part[:CHECK_ROWS] for part in held)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.network = start(process, pairs, settings, bounds)
        self.average = Average(self.network.body, settings.ema)
        self.best = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.linear_curve = self.best_curve = self._curve()
        self.checks = [Check(0, math.nan, self.best_curve.area())]
        self.stale = 0
        self.optimiser = torch.optim.AdamW(
            self.network.body.parameters(), settings.lr, (0.9, 0.99),
            weight_decay=settings.weight_decay, fused=True,
        )  # fmt: skip

    def run(self, on_check: Callable[[Check], None] | None = None) -> PairNetwork:
        """Train to the end or out of patience; the best network, or the linear guess alone.

        The network must lower the held-out curve by two standard errors of the paired difference;
        otherwise the linear guess is the posterior.
        """
        settings, running = self.settings, math.nan
        for step in range(1, settings.steps + 1):
            loss = self._step(step)
            if not math.isfinite(loss):
                raise InputError(
                    f"the loss is not finite at step {step}: lower lr (now {settings.lr:g})"
                )
            running = loss if math.isnan(running) else 0.99 * running + 0.01 * loss
            if step % settings.check_every == 0 or step == settings.steps:
                self._check(step, running)
                if on_check is not None:
                    on_check(self.checks[-1])
            if self.stale >= settings.patience:
                break
        if not self.best_curve.gap(self.linear_curve).low > 0:
            self.best.body.silence()
        return self.best

    def _step(self, step: int) -> float:
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step - 1, settings.steps, settings.lr, settings.warmup)
        loss = self._loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.body.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(step - 1)
        return float(loss.detach())

    def _loss(self) -> Tensor:
        """Mean square error of F at stratified levels, on antithetic noise.

        Pairs e and -e cancel what is odd in the noise: at low levels nearly all of the gradient's.
        """
        (w, x), process = self.pairs, self.network.process
        batch = self.settings.batch_size
        rows = torch.randint(len(w), (batch,), generator=self.generator)
        t = self._times(low_discrepancy(batch, (0.0, 1.0), self.generator))
        state = torch.cat(process.corrupt_pair(w[rows], t, generator=self.generator))
        given = shuffled(x[rows], self.settings.exchangeable, self.generator)
        clean, given, t = w[rows].repeat(2, 1), given.repeat(2, 1), t.repeat(2)
        guess = self.network(state, t, given)
        return self.network.errors(guess, clean, t).square().sum(1).mean()

    def _times(self, places: Tensor) -> Tensor:
        """The time law, at places (B,) in [0, 1]: uniform in log sigma on either side of BROAD.

        Below, that weighs errors as the likelihood does; above, little is left to learn.
        """
        process = self.network.process
        high, low = process.clock(torch.tensor(process.t_range)).log().tolist()
        middle = -2 * math.log(BROAD)
        fine = high + (middle - high) * places / (1 - COARSE_SHARE)
        coarse = middle + (low - middle) * (places - 1 + COARSE_SHARE) / COARSE_SHARE
        level = torch.where(places < 1 - COARSE_SHARE, fine, coarse)
        return process.time(level.exp()).clamp(*process.t_range)

    def _check(self, step: int, running: float) -> None:
        curve = self._curve()
        self.checks.append(Check(step, running, curve.area()))
        self.stale += 1
        if curve.area() < self.best_curve.area():
            put(self.best.body, self.average.weights)
            self.best_curve, self.stale = curve, 0

    def _curve(self) -> LossCurve:
        """Held-out curve of the averaged weights, with noise common to all checks."""
        w, x = self.held
        generator = torch.Generator().manual_seed(self.settings.seed + 1)
        with self.average.kept():
            return measure(
                self.network, w, LEVELS, generator=generator, batch_size=CHECK_ROWS,
                keep_samples=True, condition=x,
            )  # fmt: skip


def start(
    process: GaussianProcess, pairs: Pairs, settings: Settings, bounds: Tensor | None = None
) -> PairNetwork:
    """The network before training: the linear-Gaussian guess."""
    w, x = pairs
    blocks = settings.exchangeable
    single = x.reshape(len(x) * blocks, -1)
    mean, std = single.mean(0).repeat(blocks), single.std(0).repeat(blocks)
    std = torch.where(std > 0, std, 1.0)  # a constant column tells nothing
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        inputs = x.shape[1] + w.shape[1] * (1 if bounds is None else 2)
        body = PairBody(inputs, w.shape[1], settings.width, settings.depth)
    linear = LinearGuess(w.double(), ((x - mean) / std).double(), blocks)
    return PairNetwork(process, linear, body, mean, std, bounds)


def shuffled(x: Tensor, blocks: int, generator: torch.Generator) -> Tensor:
    """Rows of x (B, m) with their `blocks` equal parts in random order, each row in its own."""
    if blocks == 1:
        return x
    order = torch.rand(len(x), blocks, generator=generator).argsort(1)
    parts = x.reshape(len(x), blocks, -1)
    return parts.gather(1, order[:, :, None].expand_as(parts)).reshape(x.shape)
