"""The laws of a process: clock, noise, kernel, costs, flags and reversal.

Draws are compared at five standard errors, so that a right process fails once in a million
comparisons; what only holds in the limit of short steps is compared with the slack that is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from reverie.curve import measure
from reverie.denoisers import Memoriser
from reverie.processes import Process
from reverie.testing.broken import BrokenLaw

SIGMAS = 5.0
LAWS: list[Callable[[Bench], Iterator[str]]] = []
SHORT = 1 / 512  # of the process's time: a short step
CHAIN = 128  # short steps, where one long step is not exact
LIMIT = 0.05  # relative slack of what holds for short steps only


class Bench:
    """A process, some points of its space, and draws from them."""

    def __init__(self, process: Process, points: Tensor, draws: int, seed: int) -> None:
        self.process, self.points, self.draws = process, process.space.check(points), draws
        self.generator = torch.Generator().manual_seed(seed)
        low, high = process.t_range
        self.times = torch.linspace(low, high, 9, dtype=torch.float64)
        self.middle = self.times[1:-1:2]

    def rows(self) -> Tensor:
        """Places (draws,) of points, drawn evenly."""
        return torch.randint(len(self.points), (self.draws,), generator=self.generator)

    def noised(self, rows: Tensor, t: Tensor | float) -> Tensor:
        return self.process.corrupt(self.points[rows], t, generator=self.generator)

    def weights(self, state: Tensor, t: Tensor | float) -> Tensor:
        """Posterior weights (B, N) of the points, by the kernel."""
        return self.process.log_kernel(state, self.points, t).double().softmax(1)


def check_process(process: Process, points: Tensor, *, draws: int = 2000, seed: int = 0) -> None:
    """Check the laws of a process on points (n, *shape) of its space, n at least 2 and few.

    Raises BrokenLaw that lists every law that fails.


    >>> import torch
    >>> from reverie.processes import VP
    >>> from reverie.testing import check_process
    >>> class Wrong(VP):
    ...     def sigma(self, t):
    ...         return 0.5 * super().sigma(t)
    >>> points = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    >>> check_process(VP(), points, draws=500)  # silent: it keeps the laws
    >>> check_process(Wrong(), points, draws=500)
    Traceback (most recent call last):
        ...
    reverie.testing.broken.BrokenLaw: Wrong: area_exact is said, but the area between ...
    """
    bench = Bench(process, points, draws, seed)
    with torch.no_grad():
        broken = [sentence for law in LAWS for sentence in law(bench)]
    if broken:
        name = type(process).__name__
        raise BrokenLaw("\n".join(f"{name}: {sentence}" for sentence in broken))


def _law(law: Callable[[Bench], Iterator[str]]) -> Callable[[Bench], Iterator[str]]:
    LAWS.append(law)
    return law


def _off(gap: Tensor, slack: float = 0.0) -> float:
    """By how many standard errors the mean of draws (n, ...) leaves [-slack, slack], the most."""
    spread, mean = torch.std_mean(gap.double(), 0)
    error = spread / math.sqrt(len(gap)) + 1e-12 + 1e-6 * mean.abs()
    return float(((mean.abs() - slack).clamp(min=0) / error).max())


# --- clock and noising ---------------------------------------------------------------------------


@_law
def _clocks(bench: Bench) -> Iterator[str]:
    process, (low, high) = bench.process, bench.process.t_range
    if not 0 <= low < high <= 1:
        yield f"t_range is {(low, high)}; it must satisfy 0 <= low < high <= 1"
        return
    clock = process.clock(bench.times)
    if clock.shape[0] != len(bench.times) or clock.ndim > 2:
        yield f"clock gives shape {tuple(clock.shape)} for {len(bench.times)} times"
    elif not torch.isfinite(clock).all() or (clock < 0).any():
        yield "clock is not finite and at least 0 on t_range"
    elif (clock.diff(dim=0) >= 0).any():
        yield "clock does not decrease in t"
    else:
        again = process.time(clock)
        worst = float((again - bench.times).abs().max())
        if worst > 1e-6:
            yield f"time(clock(t)) misses t by {worst:.2g}"


@_law
def _noising(bench: Bench) -> Iterator[str]:
    process, x = bench.process, bench.points
    for t in bench.middle:
        one, two = (
            process.corrupt(x, t, generator=torch.Generator().manual_seed(1)) for _ in "ab"
        )
        if not torch.equal(one, two):
            yield f"corrupt at t = {float(t):.2g} does not repeat with the same generator"
        alone = process.corrupt(x[:1].expand(4, *x.shape[1:]), t, generator=bench.generator)
        if alone.shape[1:] != one.shape[1:]:
            yield "corrupt gives states of different shapes for one point and for many"
    prior = process.sample_prior(3, shape=tuple(x.shape[1:]), generator=bench.generator)
    if prior.shape[1:] != one.shape[1:]:
        yield f"sample_prior draws states {tuple(prior.shape[1:])}, corrupt {tuple(one.shape[1:])}"
    if process.isotropic and process.gaussian is None:
        yield "isotropic is said of a process whose `gaussian` is None"


@_law
def _pairs(bench: Bench) -> Iterator[str]:
    """Both draws of `corrupt_pair` have the law of `corrupt`."""
    rows, t = bench.rows(), bench.middle[1]
    plain = bench.noised(rows, t).double().flatten(1)
    for name, state in zip(("first", "second"), _pair(bench, rows, t), strict=True):
        off = _off(state.double().flatten(1) - plain)
        if off > SIGMAS:
            yield f"the {name} draw of corrupt_pair has another mean than corrupt ({off:.1f} s.e.)"


def _pair(bench: Bench, rows: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return bench.process.corrupt_pair(bench.points[rows], t, generator=bench.generator)


@_law
def _kernel(bench: Bench) -> Iterator[str]:
    """Posterior weights by `log_kernel` are right about draws of `corrupt`."""
    if not bench.process.has_kernel:
        return
    for t in bench.middle:
        rows = bench.rows()
        weights = bench.weights(bench.noised(rows, t), t)
        hit = torch.nn.functional.one_hot(rows, len(bench.points)) - weights
        own = weights.gather(1, rows[:, None])[:, 0] - weights.square().sum(1)
        rare = SIGMAS / len(rows)  # events that these draws cannot count
        off = max(_off(hit, rare), _off(own[:, None], rare))
        if off > SIGMAS:
            at = f"at t = {float(t):.2g} ({off:.1f} s.e.)"
            yield f"log_kernel disagrees with draws of corrupt {at}"


# --- costs ---------------------------------------------------------------------------------------


@_law
def _targets(bench: Bench) -> Iterator[str]:
    process, x, t = bench.process, bench.points, bench.middle[1]
    rows = torch.arange(len(x)).repeat_interleave(4)
    state = bench.noised(rows, t)
    target = process.target(state, x[rows], t)
    if not torch.isfinite(target).all():
        yield "target is not finite"
        return
    rate = process.rate(target, x[rows], state, t)
    if float(rate.abs().max()) > 1e-6:
        yield f"the rate of the target itself is {float(rate.abs().max()):.2g}, not 0"
    weights = torch.rand(len(state), len(x), generator=bench.generator, dtype=torch.float64)
    weights = weights / weights.sum(1, keepdim=True)
    mean = process.average_target(weights.to(target), state, x, t).reshape(target.shape)
    each = [process.target(state, x[j : j + 1].expand(len(state), *x.shape[1:]), t)
            for j in range(len(x))]  # fmt: skip
    wanted = torch.einsum("bn,nb...->b...", weights.to(target), torch.stack(each))
    if not torch.allclose(
        mean.to(wanted), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max())
    ):
        yield "average_target is not the weighted mean of targets"


@_law
def _probes(bench: Bench) -> Iterator[str]:
    """The mean of `probe` is the mean of `rate` over draws of `corrupt`."""
    if not bench.process.has_kernel:
        return
    process, memoriser = bench.process, Memoriser(bench.process, bench.points)
    for t in bench.middle[1:]:
        rows = bench.rows()
        x, state = bench.points[rows], bench.noised(rows, t)
        times = t.expand(len(rows))
        plain = process.rate(memoriser(state, times), x, state, t).reshape(len(rows), -1)
        probe = process.probe(memoriser, x, t, generator=bench.generator)
        off = _off(probe.double().reshape(len(rows), -1) - plain.double())
        if off > SIGMAS:
            yield f"probe is not the mean of rate at t = {float(t):.2g} ({off:.1f} s.e.)"


@_law
def _charges(bench: Bench) -> Iterator[str]:
    """`steps_exact` says that a charge is clock times rate; elsewhere that is its limit."""
    if not bench.process.has_kernel:
        return
    process, memoriser = bench.process, Memoriser(bench.process, bench.points)
    low, high = process.t_range
    t = bench.middle[1]
    s = bench.times[1] if process.steps_exact else t - (high - low) * SHORT
    rows = bench.rows()
    x, state = bench.points[rows], bench.noised(rows, t)
    charge = process.charge(memoriser, x, state, t, s).double()
    rate = process.rate(memoriser(state, t.expand(len(rows))), x, state, t).double()
    step = (process.clock(s) - process.clock(t)).reshape(1, -1)
    gap = charge - (step * rate.reshape(len(rows), -1)).sum(1)
    size = float(charge.mean().abs()) + 1e-12
    if process.steps_exact and not process.steps_measured:
        worst = float(gap.mean().abs()) / size
        if worst > 1e-4 and _off(gap[:, None]) > SIGMAS:
            yield f"steps_exact is said, but charge differs from clock times rate by {worst:.2%}"
    elif _off(gap[:, None], LIMIT * size) > SIGMAS:
        yield "the charge of a short step is not clock time multiplied by the rate"
    if process.steps_measured:
        guess = memoriser(state, t.expand(len(rows)))
        expected = process.expected_charge(guess, state, t, bench.times[1]).double()
        drawn = process.charge(memoriser, x, state, t, bench.times[1]).double()
        off = _off((drawn - expected)[:, None])
        if off > SIGMAS:
            yield f"expected_charge of the exact guess is not the mean of charge ({off:.1f} s.e.)"


@_law
def _areas(bench: Bench) -> Iterator[str]:
    """`area_exact`: the area under the ideal curve is the information that states gain."""
    process = bench.process
    if not (process.area_exact and process.has_kernel):
        return
    noisy, clean = bench.times[6], bench.times[2]
    clock = process.clock(torch.stack([noisy, clean]))
    if clock.ndim > 1:
        return  # of several clocks the path between two levels is the process's own
    levels = torch.linspace(0, 1, 33, dtype=torch.float64)
    ends = clock.log() if bool((clock > 0).all()) else clock
    grid = ends[0] + levels * (ends[1] - ends[0])
    grid = grid.exp() if bool((clock > 0).all()) else grid
    rows = bench.rows()
    curve = measure(
        Memoriser(process, bench.points), bench.points[rows], grid.numpy(),
        generator=bench.generator, batch_size=len(rows),
    )  # fmt: skip
    gained = [_information(bench, rows, t) for t in (noisy, clean)]
    error = curve.area_stderr() or 0.0
    gap = gained[1] - gained[0]
    error = math.hypot(error, float(gap.std()) / math.sqrt(len(gap)))
    off = abs(curve.area() - float(gap.mean()))
    if off > SIGMAS * error + 0.01 * abs(float(gap.mean())):
        yield (
            f"area_exact is said, but the area between two levels is {curve.area():.4g} nats and "
            f"the information gained {float(gap.mean()):.4g}"
        )


def _information(bench: Bench, rows: Tensor, t: Tensor) -> Tensor:
    """log p(x_t | x) - log p(x_t), (n,) in nats."""
    state = bench.noised(rows, t)
    kernel = bench.process.log_kernel(state, bench.points, t).double()
    own = kernel.gather(1, rows[:, None])[:, 0]
    return own - kernel.logsumexp(1) + math.log(len(bench.points))


@_law
def _monotony(bench: Bench) -> Iterator[str]:
    """`monotone`: the ideal rate never rises with the clock."""
    process = bench.process
    if not (process.monotone and process.has_kernel):
        return
    rows, memoriser = bench.rows()[: bench.draws // 2], Memoriser(process, bench.points)
    before = None
    for t in bench.times.flip(0)[1:-1]:
        rate = process.probe(memoriser, bench.points[rows], t, generator=bench.generator)
        rate = rate.double().reshape(len(rows), -1)
        if before is not None:
            rise = rate - before
            spread, mean = torch.std_mean(rise, 0)
            if (mean > SIGMAS * spread / math.sqrt(len(rise)) + 1e-6).any():
                yield f"monotone is said, but the ideal rate rises at t = {float(t):.2g}"
        before = rate


# --- the reversal --------------------------------------------------------------------------------


@_law
def _reversal(bench: Bench) -> Iterator[str]:
    """Told the truth, `reverse` leads from X_t given x to X_s given x."""
    process = bench.process
    if not process.has_kernel:
        return
    t, s = bench.times[5], bench.times[3]
    exact = process.steps_exact or process.steps_measured or process.gaussian is not None
    times = torch.linspace(float(t), float(s), 2 if exact else CHAIN + 1, dtype=torch.float64)
    rows = bench.rows()
    x, state = bench.points[rows], bench.noised(rows, t)
    for now, then in pairwise(times):
        truth = process.target(state, x, now)
        state = process.reverse(truth, state, now, then, generator=bench.generator)
    direct = bench.noised(rows, s)
    if state.shape != direct.shape:
        yield f"reverse gives states {tuple(state.shape[1:])}, corrupt {tuple(direct.shape[1:])}"
        return
    nats = [_own_nats(bench, y, rows, s) for y in (state, direct)]
    slack = 0.0 if exact else LIMIT * max(1.0, float(nats[1].std()))
    off = _off((nats[0] - nats[1])[:, None], slack)
    if off > SIGMAS:
        yield f"reverse, told the truth, leaves the law of X_s given x ({off:.1f} s.e.)"
    low = process.t_range[0]
    clean = bench.noised(rows, low)
    ended = process.finish(process.target(clean, x, low), clean, low, generator=bench.generator)
    try:
        process.space.check(ended)
    except ValueError as error:
        yield f"finish leaves the space: {error}"


def _own_nats(bench: Bench, state: Tensor, rows: Tensor, t: Tensor) -> Tensor:
    kernel = bench.process.log_kernel(state, bench.points, t).double()
    return kernel.gather(1, rows[:, None])[:, 0].clamp(min=-1e3)
