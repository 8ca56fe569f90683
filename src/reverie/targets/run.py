"""`sample`: draws of an unnormalised density, its constant, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.plan import Plan
from reverie.targets.annealing import Annealing, Progress, anneal
from reverie.targets.controlled import Resampled
from reverie.targets.estimate import LogZ, effective, log_z_of_islands, log_z_of_weights
from reverie.targets.kernels import KERNELS, ReversibleLayer, ULALayer
from reverie.targets.known import mode_coverage, mode_shares
from reverie.targets.learned import LEARNED, learned_pair
from reverie.targets.pair import Chain, Layer, PathPair
from reverie.targets.smc import SMC, Islands
from reverie.targets.starts import GaussianStart
from reverie.targets.stochastic import REPEATED, REPEATS, annealed_flow
from reverie.targets.target import Target
from reverie.targets.training import LOSSES, train

METHODS = ("smc", "ais", *LEARNED, "scld", "snf")
ISLANDS = 16
MOVES = (2, 8, 32, 128)  # of SMC at each temperature, until two of them agree
BLOCK = 1 << 14  # paths at once
TRAINING = 1000


@dataclass(eq=False)
class TargetRun:
    """What `sample` returns.

    samples: (n, dim), of equal weight. log_z: with its interval, or why there is none. elbo, eubo:
    bounds of log Z in nats with standard errors; eubo None without exact draws. ess: effective
    draws. draws, log_weight: what the samples were drawn from, (n, dim) and (n,). modes: the share
    of samples nearest to each mode, where modes were given. tried: log Z at so many moves, where
    SMC looked for enough of them. losses: of training.

    >>> from reverie.targets import Gaussian, TargetRun, sample
    >>> run = sample(Gaussian([1.0], [[0.25]]), n=256, steps=4, moves=4)
    >>> isinstance(run, TargetRun), run.samples.shape, run.settings["islands"]
    (True, torch.Size([256, 1]), 16)
    >>> print(run.sentences()[0])
    log Z = 0.0... nats [-0.0..., 0.0...] (90% interval).
    """

    method: str
    samples: Tensor
    log_z: LogZ
    elbo: float
    elbo_stderr: float
    ess: float
    draws: Tensor
    log_weight: Tensor
    start: GaussianStart
    settings: dict[str, Any]
    evaluations: int
    gradients: int
    undefined: int = 0
    eubo: float | None = None
    eubo_stderr: float | None = None
    modes: np.ndarray | None = None
    curve: LossCurve | None = None
    plan: Plan | None = None
    temperatures: np.ndarray | None = None
    tried: list[tuple[int, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    roots: float | None = None

    def sentences(self) -> list[str]:
        """What was found, in words, and what these figures cannot see."""
        lines = [f"{self.log_z}."]
        gap = f"{self.elbo:.5g} +- {self.elbo_stderr:.2g}"
        if self.eubo is None:
            lines.append(f"Lower bound (ELBO) {gap} nats; an upper one needs exact draws.")
        else:
            lines.append(
                f"Lower bound (ELBO) {gap}, upper bound (EUBO) {self.eubo:.5g} +- "
                f"{self.eubo_stderr:.2g} nats."
            )
        lines.append(f"{self.ess:,.0f} of {len(self.log_weight):,} draws count (effective size).")
        if self.roots is not None:
            lines.append(
                f"An island of {self.settings['size']} particles descends from {self.roots:.3g} "
                "of its start, in effect."
            )
        if self.modes is not None:
            empty = int((self.modes == 0).sum())
            lines.append(
                f"{len(self.modes) - empty} of {len(self.modes)} given modes have samples "
                f"(entropy {mode_coverage(self.modes):.3f} of equal shares)."
            )
        if self.undefined:
            lines.append(
                f"The log density was not a number at {self.undefined:,} of "
                f"{self.evaluations:,} points asked for; they were given no weight."
            )
        lines.append(
            "None of this sees a mode that no draw came near: the interval is right if every "
            "region with mass was visited. Start from a wider law to look further."
        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; samples are apart."""
        return {
            "method": self.method, "dim": self.samples.shape[1], "n": len(self.samples),
            "log_z": self.log_z.to_json(), "elbo": _number(self.elbo),
            "elbo_stderr": _number(self.elbo_stderr), "eubo": _number(self.eubo),
            "eubo_stderr": _number(self.eubo_stderr), "ess": self.ess, "roots": self.roots,
            "evaluations": self.evaluations, "gradients": self.gradients,
            "undefined": self.undefined,
            "modes": None if self.modes is None else self.modes.tolist(),
            "temperatures": None if self.temperatures is None else self.temperatures.tolist(),
            "excess_nats": None if self.plan is None else self.plan.excess,
            "tried": [list(pair) for pair in self.tried],
            "start": {"mean": self.start.mean.tolist(),
                      "deviation": self.start.scale.square().sum(1).sqrt().tolist()},
            "settings": self.settings, "sentences": self.sentences(),
        }  # fmt: skip


def sample(
    log_density: Callable[[Tensor], Tensor],
    dim: int | None = None,
    *,
    method: str = "smc",
    n: int = 4096,
    steps: int | None = None,
    start: Any = None,
    gradient: Callable[[Tensor], Tensor] | None = None,
    kernel: str | None = None,
    moves: int | None = None,
    loss: str | None = None,
    layers: str | None = None,
    training: int = TRAINING,
    exact: Tensor | None = None,
    modes: Tensor | None = None,
    seed: int = 0,
    level: float = 0.9,
    progress: Progress | None = None,
) -> TargetRun:
    """Draw from exp(log_density) on R^dim and tell its normalising constant.

    log_density: points (n, dim) -> (n,), nats, up to a constant. dim: by default the function's
    own `.dim`. method: one of `METHODS`; smc (default) is resampled in independent islands, ais is
    not, the others are trained first: `training` steps of `loss`, by default log-variance, of snf
    reverse-kl. steps: K of the path; by default planned (smc, ais) or 64; of snf how often
    `layers` stand (`stochastic_flow`; "flow mala", 8 times). start: a Gaussian as a
    `GaussianStart`, a deviation, or (mean, deviation); by default found by a pilot from N(0, I).
    kernel: hmc (default), mala, random-walk (no gradient), and for ais ula. moves: of SMC at each
    temperature; by default as many as change log Z no more. exact: draws of the target (m, dim),
    for the upper bound. modes: (M, dim).
    Everything is float64 and repeats with `seed`. Raises InputError on what cannot be used.

    >>> from reverie.targets import sample
    >>> run = sample(lambda x: -0.5 * x.square().sum(1), 2, n=1024)
    >>> print(run.log_z)  # log 2 pi = 1.8379
    log Z = 1.8... nats [1.8..., 1.8...] (90% interval)
    """
    asked = getattr(log_density, "dim", None) if dim is None else dim
    if asked is None:
        raise InputError("the target's dimension is not known: give dim")
    loss = loss or ("reverse-kl" if method == "snf" else "log-variance")
    _check(method, n, steps, kernel, moves, loss, training, level, layers)
    target = Target(log_density, asked, gradient=gradient)
    law = _start(start, asked)
    generator = torch.Generator().manual_seed(seed)
    settings = dict(method=method, n=n, steps=steps, seed=seed, level=level)
    if method in ("smc", "ais"):
        name = kernel or "hmc"
        path = anneal(
            target, start=law, kernel=name, steps=steps, generator=generator, progress=progress
        )
        settings |= {"kernel": name, "steps": path.steps}
        maker = _by_islands if method == "smc" else _by_paths
        run = maker(target, path, n, moves, level, settings, exact, generator, progress)
        run = replace(run, curve=path.curve, plan=path.plan, temperatures=path.temperatures)
    else:
        run = _by_learning(
            target, law, method, n, steps, loss, training, level, settings, exact, seed, generator,
            progress, layers,
        )  # fmt: skip
    shares = None if modes is None else mode_shares(run.samples, modes)
    return replace(
        run, modes=shares, evaluations=target.evaluations, gradients=target.gradients,
        undefined=target.undefined,
    )  # fmt: skip


def _by_islands(
    target: Target,
    path: Annealing,
    n: int,
    moves: int | None,
    level: float,
    settings: dict[str, Any],
    exact: Tensor | None,
    generator: torch.Generator,
    progress: Progress | None,
) -> TargetRun:
    """SMC; where the moves are not given, four times as many until log Z stays where it is."""
    size = max(2, math.ceil(n / ISLANDS))
    tried: list[tuple[int, LogZ, Islands]] = []
    for count in MOVES if moves is None else (moves,):
        found = SMC(target, path, size=size, moves=count).islands(ISLANDS, generator, progress)
        ess = found.effective()
        log_z = log_z_of_islands(
            found.log_z.numpy(), ess=ess, n=size * ISLANDS, level=level, memory=found.memory
        )
        tried.append((count, log_z, found))
        if len(tried) > 1 and _agree(tried[-2][1], tried[-1][1]):
            break
    else:
        if moves is None:
            count, log_z, found = tried[-1]
            change = log_z.value - tried[-2][1].value
            reason = (
                log_z.reason or f"four times the moves still changed log Z by {change:+.2g} nats"
            )
            tried[-1] = count, replace(log_z, low=math.nan, high=math.nan, reason=reason), found
    count, log_z, found = tried[-1]
    logs = found.log_z.numpy()
    x = found.x.reshape(-1, target.dim)
    weight = (found.log_weight + found.log_z[:, None]).reshape(-1)
    return TargetRun(
        "smc", found.drawn(n, generator), log_z, float(logs.mean()),
        float(logs.std(ddof=1) / math.sqrt(len(logs))), log_z.ess, x, weight, path.start,
        settings | {"moves": count, "size": size, "islands": ISLANDS}, 0, 0,
        tried=[(c, z.value) for c, z, _ in tried], roots=float(found.roots.mean()),
    )  # fmt: skip


def _agree(first: LogZ, second: LogZ) -> bool:
    """Whether the second can be told and is within two standard errors of the first."""
    if not (second.told and math.isfinite(first.stderr)):
        return False
    return abs(second.value - first.value) <= 2 * math.hypot(first.stderr, second.stderr)


def _by_paths(
    target: Target,
    path: Annealing,
    n: int,
    moves: int | None,
    level: float,
    settings: dict[str, Any],
    exact: Tensor | None,
    generator: torch.Generator,
    progress: Progress | None,
) -> TargetRun:
    def layer(k: int) -> Layer:
        bath = path.baths[k]
        return ULALayer(bath) if path.kernel == "ula" else ReversibleLayer(path.kernel, bath)

    layers = [layer(k) for k in range(path.steps) for _ in range(moves or 1)]
    pair = Chain(target, path.start, layers)
    settings = settings | {"moves": moves or 1}
    return _weighed("ais", pair, path.start, n, level, settings, exact, generator, progress)


def _by_learning(
    target: Target,
    start: GaussianStart | None,
    method: str,
    n: int,
    steps: int | None,
    loss: str,
    training: int,
    level: float,
    settings: dict[str, Any],
    exact: Tensor | None,
    seed: int,
    generator: torch.Generator,
    progress: Progress | None,
    layers: str | None,
) -> TargetRun:
    if start is None:
        start = anneal(target, generator=generator).start
    if method == "snf":
        words = layers or REPEATED
        pair = annealed_flow(target, start, layers=words, repeats=steps or REPEATS, seed=seed)
        settings = settings | {"layers": words}
    else:
        base = "cmcd" if method == "scld" else method
        pair = learned_pair(base, target, start, steps=steps, seed=seed)
    losses = train(pair, loss=loss, steps=training, generator=generator, progress=progress)
    settings = settings | {"loss": loss, "training": training, "steps": pair.steps}
    if method == "scld":
        size = max(2, math.ceil(n / ISLANDS))
        found = Resampled(pair, size).islands(ISLANDS, generator)
        logs = found.log_z.numpy()
        log_z = log_z_of_islands(logs, ess=found.effective(), n=size * ISLANDS, level=level)
        weight = (found.log_weight + found.log_z[:, None]).reshape(-1)
        return TargetRun(
            method, found.drawn(n, generator), log_z, float(logs.mean()),
            float(logs.std(ddof=1) / math.sqrt(len(logs))), log_z.ess,
            found.x.reshape(-1, target.dim), weight, start,
            settings | {"size": size, "islands": ISLANDS}, 0, 0,
            losses=losses, roots=float(found.roots.mean()),
        )  # fmt: skip
    run = _weighed(method, pair, start, n, level, settings, exact, generator, None)
    return replace(run, losses=losses)


@torch.no_grad()
def _weighed(
    method: str,
    pair: PathPair,
    start: GaussianStart,
    n: int,
    level: float,
    settings: dict[str, Any],
    exact: Tensor | None,
    generator: torch.Generator,
    progress: Progress | None,
) -> TargetRun:
    """Independent weighted paths, a block at a time."""
    states, weights, valid = [], [], True
    for done in range(0, n, BLOCK):
        part = pair.rollout(min(BLOCK, n - done), generator=generator)
        states.append(part.states)
        weights.append(part.log_weight)
        valid = valid and part.valid
        if progress is not None:
            progress(min(done + BLOCK, n), n)
    x, logs = torch.cat(states), torch.cat(weights)
    log_z = log_z_of_weights(logs.numpy(), valid=valid, level=level)
    upper = None
    if exact is not None:
        back = [
            pair.rollout(len(rows), direction="backward", ends=rows, generator=generator)
            for rows in torch.as_tensor(exact, dtype=torch.float64).split(BLOCK)
        ]
        upper = torch.cat([part.log_weight for part in back])
    finite = torch.softmax(torch.nan_to_num(logs, nan=-torch.inf), 0)
    rows = torch.multinomial(finite, n, replacement=True, generator=generator)
    return TargetRun(
        method, x[rows], log_z, float(logs.mean()), float(logs.std() / math.sqrt(n)),
        effective(logs.numpy()), x, logs, start, settings, 0, 0,
        eubo=None if upper is None else float(upper.mean()),
        eubo_stderr=None if upper is None else float(upper.std() / math.sqrt(len(upper))),
    )  # fmt: skip


def _start(start: Any, dim: int) -> GaussianStart | None:
    if start is None or isinstance(start, GaussianStart):
        if start is not None and start.dim != dim:
            raise InputError(f"the start has {start.dim} coordinates, the target {dim}")
        return start
    if isinstance(start, tuple):
        if len(start) != 2:
            raise InputError("a start is a deviation, or a pair (mean, deviation)")
        return GaussianStart.of(dim, *start)
    return GaussianStart.of(dim, 0.0, start)


def _check(
    method: str,
    n: int,
    steps: int | None,
    kernel: str | None,
    moves: int | None,
    loss: str,
    training: int,
    level: float,
    layers: str | None,
) -> None:
    if method not in METHODS:
        raise InputError(f"no method is called {method!r}; choose {', '.join(METHODS)}")
    if kernel is not None and (kernel not in KERNELS or method not in ("smc", "ais")):
        raise InputError(
            f"kernel {kernel!r}: smc and ais take {', '.join(KERNELS)}; learned methods take none"
        )
    if layers is not None and method != "snf":
        raise InputError(f"layers are of snf; {method} has its own")
    if loss not in LOSSES:
        raise InputError(f"no loss is called {loss!r}; choose {' or '.join(LOSSES)}")
    counts = {"n": (n, 64), "steps": (steps, 2), "moves": (moves, 1), "training": (training, 0)}
    for name, (count, least) in counts.items():
        if count is not None and (not isinstance(count, int) or count < least):
            raise InputError(f"{name} is {count!r}; it must be a whole number of at least {least}")
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it must lie between 0 and 1")


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
