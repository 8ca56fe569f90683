"""How many steps? The fewest whose draws cannot be told from draws at four times as many.

Nats count detail that nobody sees, and so ask for more steps than it takes. Here the question is
put to draws: n of them at K steps and n at 4K, from the same starting states, row by row, so that
luck cancels in what they are compared by, the energy distance. With h over pairs z = (a, b),

    h(z, z') = |a - b'| + |a' - b| - |a - a'| - |b - b'|,

its mean over different pairs is unbiased, whatever the pairing. "Cannot be told" is at the user's
own n, of whoever sees two sets of draws and not their noise: the distance is held against what it
would be by chance between independent sets of n with one law. That law is read off the same draws,
their pairs dealt anew: exchanging a pair turns the sign of its rows of h, and random signs give
the standard error and the share that lies as high.

New draws are to agree as well, and the fewest steps that pass are those that were lucky. So K is
taken only where the distance, with KEPT standard errors of its own from one set of pairs to the
next, stays below what chance reaches at LEVEL.

Beside it stands a classifier, of what a distance of whole points misses: boosted trees learn K
from 4K on half of the pairs and judge the rest. Where the law is one, a pair (a, b) of which just
one is called 4K is as likely to be called so in a as in b, so that a coin counts them exactly.

Steps are doubled until the draws agree, then halved between the last two; a run at 4K steps serves
twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from reverie.curve import LossCurve
from reverie.denoisers import Denoiser
from reverie.denoisers.exact.low_rank import Moments
from reverie.errors import InputError
from reverie.plan import AnyPlan, StepCharges, plan_steps
from reverie.sampling.initialisation import initial_states
from reverie.sampling.run import sample
from reverie.sampling.samplers import sampler_named

MORE = 4
MOST = 64  # steps whose draws are compared with four times as many
DEALS, SIGNS = 8, 250  # of the same draws to other pairs, and of signs to these
LEVEL = 0.05
KEPT = 1.6449  # standard errors that 19 new draws in 20 stay below
LEAST_DRAWS = 20
BLOCK = 1024
COLUMNS, TREES = 64, 50


@dataclass(frozen=True)
class Called:
    """How many of `count` unseen draws a classifier called by their right number of steps."""

    accuracy: float
    p_value: float
    count: int


@dataclass(frozen=True)
class Compared:
    """Draws at K steps beside draws at 4K: energy distance, its error where they agree, p."""

    steps: int
    energy: float
    stderr: float
    p_value: float
    error: float = 0.0  # of the distance and of `critical`, from one set of pairs to the next
    critical: float = math.inf  # what chance reaches at LEVEL
    classifier: Called | None = None

    @property
    def told(self) -> bool:
        """Whether the draws at K steps can be told from those at 4K."""
        return self.p_value < LEVEL

    @property
    def settled(self) -> bool:
        """Whether they cannot, and new draws most likely neither."""
        return not self.told and self.energy + KEPT * self.error <= self.critical


@dataclass(frozen=True)
class DrawnSteps:
    """steps: the fewest that will do at `n` draws, or None up to the most that were tried.

    tried: every number of steps, in increasing order. evaluations: of the denoiser, states in all.
    """

    sampler: str
    n: int
    steps: int | None
    tried: tuple[Compared, ...]
    evaluations: int

    def __str__(self) -> str:
        cost = f"{self.evaluations:,} evaluations of single states"
        if self.steps is None:
            last = self.tried[-1]
            word = "can" if last.told else "may"
            return (
                f"{self.sampler}: {self.n:,} draws at {last.steps} steps {word} still be told "
                f"from as many at {MORE * last.steps} (found with {cost})"
            )
        here = next(c for c in self.tried if c.steps == self.steps)
        return (
            f"{self.sampler}: {self.steps} steps; {self.n:,} draws cannot be told from as many at "
            f"{MORE * self.steps} (energy distance {here.energy:.2g}, standard error "
            f"{here.stderr:.2g}{_beside(here.classifier)}; found with {cost})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and the sentence."""
        tried = [asdict(c) | {"told": c.told, "settled": c.settled} for c in self.tried]
        plain = {k: getattr(self, k) for k in ("sampler", "n", "steps", "evaluations")}
        return plain | {"tried": tried, "sentence": str(self)}


def _beside(found: Called | None) -> str:
    if found is None:
        return ""
    return (
        f"; boosted trees call {found.accuracy:.0%} of the draws rightly, p = {found.p_value:.2g}"
    )


def paired_classifier(first: Tensor, second: Tensor, seed: int = 0) -> Called:
    """How well boosted trees tell draws (n, *shape) from others that were paired with them.

    p is exact and one-sided (McNemar's test; see the module). Over 64 columns of numbers are seen
    in 64 principal coordinates of both sets together. Raises InputError on sets of two shapes.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    if first.shape != second.shape:
        raise InputError(f"two sets of one shape are compared, not {first.shape}, {second.shape}")
    n, half = len(first), len(first) // 2
    rows = torch.cat([first, second]).detach().flatten(1).cpu().double()
    rows = (_principal(rows) if first.is_floating_point() else rows).numpy()
    deal = np.random.default_rng(seed).permutation(n)
    learnt, rest = deal[:half], deal[half:]
    model = HistGradientBoostingClassifier(max_iter=TREES, random_state=seed)
    model.fit(rows[np.r_[learnt, n + learnt]], np.repeat([0, 1], half))
    called = model.predict(rows[np.r_[rest, n + rest]]).reshape(2, -1)  # 1: the second set
    right, wrong = int((called[1] > called[0]).sum()), int((called[1] < called[0]).sum())
    p_value = float(stats.binom.sf(right - 1, right + wrong, 0.5)) if right + wrong else 1.0
    return Called(0.5 + (right - wrong) / called.size, p_value, called.size)


def _principal(rows: Tensor) -> Tensor:
    """Rows (n, d), or where d is larger their COLUMNS principal coordinates."""
    if rows.shape[1] <= COLUMNS:
        return rows
    centred = rows - rows.mean(0)
    some = centred[:: -(-len(rows) // BLOCK)]
    values, vectors = torch.linalg.eigh(some @ some.T)
    keep = values[-COLUMNS:].clamp(min=values[-1] * 1e-12).sqrt()
    return centred @ (some.T @ (vectors[:, -COLUMNS:] / keep))


class Energy(NamedTuple):
    """A distance of two sets of pairs, and what chance would give.

    stderr, critical, p_value: of independent sets of n with one law, their standard error, the
    value that one in twenty passes, and the share that lies as high. error: the standard error of
    the distance from one set of pairs to the next, and of that value from one deal to the next.
    """

    energy: float
    stderr: float
    p_value: float
    error: float
    critical: float


def paired_energy(
    first: Tensor, second: Tensor, signs: int = SIGNS, generator: torch.Generator | None = None
) -> Energy:
    """Energy distance of draws (n, *shape) that were paired by their noise, held against chance.

    Unbiased, so that it may be negative. p is exact where the sets are independent, cautious where
    pairs share noise. Integers are symbols and stand a share of their sites apart,
    other points Euclid's distance. Raises InputError on sets of two shapes.
    """
    if first.shape != second.shape:
        raise InputError(f"two sets of one shape are compared, not {first.shape}, {second.shape}")
    a, b = (points.detach().flatten(1).cpu() for points in (first, second))
    apart = _euclid if a.is_floating_point() else _sites
    across, own, other = apart(a, b), apart(a, a), apart(b, b)
    n = len(a)
    device = "cpu" if generator is None else generator.device
    found = _kernel(across, own, other)
    energy, rows = float(found.sum() / (n * (n - 1))), found.sum(1) / (n - 1)
    noise = float(found.square().mean()) / (n - 1)  # of a row's mean where its law is one
    error = math.sqrt((4 * max(float(rows.var()) - noise, 0.0) + 2 * noise) / n)
    drawn = torch.empty(DEALS, signs, dtype=torch.float64)
    for row in drawn:
        deal = torch.randperm(n, generator=generator, device=device).cpu()
        chance = _kernel(across[:, deal], own, other[deal][:, deal])
        coins = torch.randint(2, (n, signs), generator=generator, device=device)
        turned = (2 * coins - 1).to(chance)
        row.copy_((turned * (chance @ turned)).sum(0) / (n * (n - 1)))
    as_high = int((drawn >= energy - 1e-12 * abs(energy)).sum())
    p_value = (1 + as_high) / (1 + drawn.numel())
    error = math.hypot(error, float(drawn.quantile(1 - LEVEL, dim=1).std()))
    critical = float(drawn.quantile(1 - LEVEL))
    return Energy(energy, float(drawn.std()), p_value, error, critical)


def _kernel(across: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """h (n, n) of the pairs, 0 on the diagonal."""
    return (across + across.T - own - other).fill_diagonal_(0)


def _euclid(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a.double(), b.double())


def _sites(a: Tensor, b: Tensor) -> Tensor:
    """Share of sites (n, m) at which symbols differ."""
    return torch.cdist(a.double(), b.double(), p=0) / a.shape[1]


@torch.no_grad()
def steps_by_drawing(
    denoiser: Denoiser,
    curve: LossCurve | StepCharges,
    n: int,
    sampler: str = "ancestral",
    *,
    clock: str | None = None,
    shape: tuple[int, ...] | None = None,
    start: Moments | Tensor | np.ndarray | None = None,
    condition: Any = None,
    most: int = MOST,
    generator: torch.Generator | None = None,
) -> DrawnSteps:
    """The least K whose n draws cannot be told from n draws at 4K steps of the same plan.

    curve: what plans stand on, or measured steps. clock: of the plans, default `default_plan`'s.
    shape: of one point, where the process has none. start: rows of data or their moments, from
    which runs then start (see `initial_states`). condition: one for all draws or one for each.
    most: the largest K tried; all runs together take at most about 32 n `most` steps.
    Raises InputError on fewer than 20 draws, or a sampler that keeps times of its own.
    """
    if not isinstance(n, int | np.integer) or n < LEAST_DRAWS:
        raise InputError(f"n is {n}; draw a whole number of points, at least {LEAST_DRAWS}")
    if not isinstance(most, int | np.integer) or most < 1:
        raise InputError(f"most is {most}; try a whole number of steps, at least 1")
    if sampler_named(denoiser.process, sampler).own_times:
        raise InputError(f"{sampler} keeps times of its own: there are no steps to choose")
    if isinstance(curve, StepCharges):
        charges, most = curve, min(int(most), (len(curve.u) - 1) // MORE)
        make: Callable[[int], AnyPlan] = charges.plan
    else:
        read = curve
        make = lambda steps: plan_steps(read, steps, clock=clock, sampler=sampler)  # noqa: E731
    draws = _Draws(denoiser, make, int(n), sampler, shape, start, condition, generator)
    return _search(draws, max(int(most), 1))


class _Draws:
    """Draws by number of steps, from the same states and seeds; each is made once."""

    def __init__(
        self,
        denoiser: Denoiser,
        make: Callable[[int], AnyPlan],
        n: int,
        sampler: str,
        shape: tuple[int, ...] | None,
        start: Any,
        condition: Any,
        generator: torch.Generator | None,
    ) -> None:
        self.denoiser, self.make, self.n, self.sampler = denoiser, make, n, sampler
        self.shape, self.start, self.condition = shape, start, condition
        device = "cpu" if generator is None else generator.device
        self.seed = int(torch.randint(2**62, (), generator=generator, device=device))
        self.kept: dict[int, Tensor] = {}
        self.evaluations = 0
        self.counter = denoiser.register_forward_pre_hook(self._count)

    def _count(self, module: Any, arguments: tuple[Any, ...]) -> None:
        self.evaluations += len(arguments[0]) if arguments else 0

    def __call__(self, steps: int) -> Tensor:
        if steps not in self.kept:
            self.kept[steps] = self._drawn(self.make(steps))
        return self.kept[steps]

    def _drawn(self, plan: AnyPlan) -> Tensor:
        noise, parts = torch.Generator().manual_seed(self.seed), []
        for first in range(0, self.n, BLOCK):
            count, told = min(BLOCK, self.n - first), self.condition
            if isinstance(told, Tensor | np.ndarray) and len(told) == self.n > 1:
                told = told[first : first + count]
            noise.manual_seed(self.seed + first)
            init = None
            if self.start is not None:
                level = float(plan.times[0])
                init = initial_states(self.denoiser.process, self.start, count, level, noise)
            drawn = sample(
                self.denoiser, count, plan, self.sampler, shape=self.shape, generator=noise,
                condition=told, init=init,
            )  # fmt: skip
            parts.append(drawn.cpu())
        return torch.cat(parts)

    def compare(self, steps: int) -> Compared:
        """Draws at `steps` beside draws at four times as many."""
        signs = torch.Generator().manual_seed(self.seed + steps)
        found = paired_energy(self(steps), self(MORE * steps), generator=signs)
        return Compared(steps, *found)

    def classified(self, found: Compared) -> Compared:
        """The same with what a classifier says of these draws."""
        first, second = self(found.steps), self(MORE * found.steps)
        return replace(found, classifier=paired_classifier(first, second, self.seed % 2**32))


def _search(draws: _Draws, most: int) -> DrawnSteps:
    """Doubling until the draws agree, then halving between the last two numbers of steps."""
    tried: dict[int, Compared] = {}
    try:
        steps, below = 1, 0
        while True:
            tried[steps] = draws.compare(steps)
            if tried[steps].settled or steps >= most:
                break
            below, steps = steps, min(2 * steps, most)
        found = steps if tried[steps].settled else None
        while found is not None and found - below > 1:
            middle = (below + found) // 2
            tried[middle] = draws.compare(middle)
            below, found = (below, middle) if tried[middle].settled else (middle, found)
    finally:
        draws.counter.remove()
    if found is not None:
        tried[found] = draws.classified(tried[found])
    order = tuple(tried[k] for k in sorted(tried))
    return DrawnSteps(draws.sampler, draws.n, found, order, draws.evaluations)
