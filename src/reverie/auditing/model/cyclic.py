"""The cyclic probe: what a model has stored but does not draw, brought out by going round.

    points -> noise to a level -> denoise -> noise again, fresh -> ...

Between the step at which training and held-out curves part and the first visible copies, training
rows have basins already: a trajectory that falls into one stays (Verma et al. 2026; Sharma and
Martiniani 2026). Staying proves nothing by itself, because stripes and flat colours are basins
too; so every look at the trajectories counts them with the audit's own facts, held-out rows beside
them. It is an extraction tool: what it finds are training records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.common_space import common_space
from reverie.auditing.facts.counted import Facts, KnownPool, count_facts
from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.returning import basin_levels
from reverie.auditing.row import Row
from reverie.curve import level_times
from reverie.data import Dataset, load
from reverie.data.coders import Scaler
from reverie.denoisers import Denoiser, condition_rows
from reverie.errors import InputError
from reverie.sampling import sample
from reverie.sampling.samplers import samplers_of

STEPS = 6  # of the sampler, in a cycle
GRID = 1024
STILL = 1 / 3  # of the median distance between rows: a cycle that moves less stays where it is
SETTLED = 3  # cycles that a trajectory must stay
EXTRACTED = "rows extracted by cycling"
TOOL = (
    "The cyclic probe is an extraction tool: the rows it lists are training records, and whoever "
    "has the model can do the same."
)
ToUser = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Look:
    """What was counted after so many cycles: trajectories and rows beyond their yardsticks."""

    cycle: int
    copies: int  # trajectories that are training rows
    rows: int  # distinct training rows among them
    held_rows: int  # held-out rows met in the same ways
    beyond: bool


@dataclass(frozen=True, eq=False)
class CyclicProbe:
    """What going round brought out; see `cyclic_probe`.

    levels: noise times, one for each group of trajectories. by_level: trajectories that are
    copies in the end, for each. looks: one for cycle 0 (the samples themselves) and those after.
    rows: training rows extracted, by any look; records: (trajectory, training row, cycle) at the
    first look that shows it. settled: trajectories that stayed for SETTLED cycles; degenerate:
    those of them that are no training row, at `attractors` distinct places.
    """

    cycles: int
    levels: list[float]
    clocks: list[float]
    by_level: list[int]
    trajectories: int
    looks: list[Look]
    rows: list[int]
    records: list[tuple[int, int, int]]
    settled: int
    degenerate: int
    attractors: int
    evaluations: int
    facts: Facts = field(repr=False)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def extracts(self) -> bool:
        """Whether training rows came out, beyond what held-out rows show."""
        return any(look.beyond for look in self.looks[1:])

    def sentences(self) -> list[str]:
        """What came out, what was there before, and what stayed without being a row."""
        first, last = self.looks[0], self.looks[-1]
        share = f"{last.copies:,} of {self.trajectories:,}"
        said = [TOOL]
        if self.extracts:
            named = ", ".join(map(str, self.rows[:8])) + (" ..." if len(self.rows) > 8 else "")
            said.append(
                f"{len(self.rows):,} training rows were extracted ({named}): after "
                f"{last.cycle:,} cycles {share} trajectories are training rows; of the samples "
                f"they began from {first.copies:,} were. {last.held_rows:,} held-out rows are met "
                "in the same ways."
            )
        else:
            said.append(
                f"Nothing was extracted in {self.cycles:,} cycles of {self.trajectories:,} "
                "trajectories, at these levels, that held-out rows do not show too. Other levels, "
                "or more cycles, may find more."
            )
        if self.settled:
            said.append(
                f"{self.settled:,} trajectories stayed in place for {SETTLED} cycles; "
                f"{self.degenerate:,} of these, at {self.attractors:,} places, are no training "
                "row: "
                + (
                    "the noise moves them too little to say more."
                    if self.degenerate and self.attractors > 0.9 * self.degenerate
                    else "basins of the model's own, which prove no memory."
                )
            )
        return said

    def line(self) -> Row:
        """The line of an audit's table."""
        total = self.sizes.get("train", 0)
        return Row(
            EXTRACTED, float(len(self.rows) if self.extracts else 0), "0 beyond held-out rows",
            None, None, None, total,
            f"{self.cycles:,} cycles, {self.trajectories:,} trajectories, at "
            f"{len(self.levels)} noise levels; {self.looks[-1].held_rows:,} held-out rows met",
            "membership",
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {
            name: getattr(self, name)
            for name in (
                "cycles", "levels", "clocks", "by_level", "trajectories", "rows", "settled",
                "degenerate", "attractors", "evaluations", "sizes",
            )
        }  # fmt: skip
        return plain | {
            "extracts": self.extracts,
            "looks": [asdict(look) for look in self.looks],
            "records": [
                dict(zip(("trajectory", "train_row", "cycle"), record, strict=True))
                for record in self.records
            ],
            "sentences": self.sentences(),
            "facts": self.facts.to_json(),
        }


def probe_cost(trajectories: int, cycles: int, steps: int = STEPS) -> int:
    """Evaluations of the model, in states, that a probe takes with a sampler of one per step."""
    return trajectories * cycles * (steps + 1)


def cyclic_states(
    denoiser: Denoiser,
    points: Tensor,
    t: float,
    *,
    steps: int = STEPS,
    sampler: str | None = None,
    condition: Any = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Points (n, *shape) after one cycle, two, ...: noised to t, denoised in `steps`, for ever.

    sampler: default the deterministic `ddim` where there is one. InputError on a level outside
    the process's range.
    """
    process = denoiser.process
    low, high = process.t_range
    if not low < t <= high:
        raise InputError(
            f"the level t = {t:.4g} is outside the process's, {low:.4g} to {high:.4g}"
        )
    names = samplers_of(process)
    chosen = sampler or ("ddim" if "ddim" in names else next(iter(names)))
    times = _times(denoiser, t, steps)
    while True:
        with torch.no_grad():
            noised = process.corrupt(points, torch.tensor(t).double(), generator=generator)
        points = sample(
            denoiser, len(points), times, chosen, init=noised, generator=generator,
            condition=condition,
        )  # fmt: skip
        yield points


def _times(denoiser: Denoiser, t: float, steps: int) -> Tensor:
    """Levels (steps + 1,) from t to the cleanest, in equal strata of the clock's range."""
    grid = level_times(denoiser.process, GRID)
    inside = grid[grid < t]
    if len(inside) == 0:
        return torch.tensor([t], dtype=torch.float64)
    places = np.linspace(-1, len(inside) - 1, steps + 1)[1:].round().astype(int)
    return torch.tensor([t, *inside[np.unique(places.clip(0))]], dtype=torch.float64)


def cyclic_probe(
    denoiser: Denoiser,
    samples: Tensor,
    train: Any,
    holdout: Any,
    *,
    cycles: int = 100,
    levels: list[float] | None = None,
    steps: int = STEPS,
    sampler: str | None = None,
    space: str | Scaler | None = None,
    to_user: ToUser | None = None,
    condition: Any = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CyclicProbe:
    """Cycle samples of a model, and judge the trajectories by the facts of the audit.

    samples: (n, *shape) in the denoiser's space. train, holdout: rows as `audit` takes them.
    levels: noise times; the trajectories are dealt out to them in turn (default `basin_levels` of
    the training and held-out rows together). space: as in `audit`, or a run's coder, which also
    gives to_user: from the denoiser's points to the rows' units (default: as they are). condition:
    of the samples. progress: cycles done and their number. Raises InputError on no cycles, few
    samples, or levels outside the process's range.
    """
    if cycles < 1 or len(samples) < 2:
        raise InputError("a cyclic probe needs at least one cycle and two samples")
    sets = [load(given, mixed=True) for given in (train, holdout)]
    to_user = to_user or _units(space)
    pooled = np.concatenate([data.values for data in sets])
    levels = levels or basin_levels(denoiser.process, _points(denoiser, pooled, space), seed=seed)
    judge = _Judge(sets, space, to_user)
    group = np.arange(len(samples)) % len(levels)
    told = condition_rows(condition, len(samples), samples)
    generator = torch.Generator().manual_seed(seed)
    walks = [
        cyclic_states(
            denoiser, samples[group == k], level, steps=steps, sampler=sampler,
            condition=None if told is None else told[torch.as_tensor(group == k)],
            generator=generator,
        )
        for k, level in enumerate(levels)
    ]  # fmt: skip
    states, wanted = samples.clone(), _looks(cycles)
    judge.look(0, states)
    for cycle in range(1, cycles + 1):
        for k, walk in enumerate(walks):
            states[torch.as_tensor(group == k)] = next(walk).to(states)
        if cycle > cycles - SETTLED - 1:
            judge.remember(states)
        if cycle in wanted:
            judge.look(cycle, states)
        if progress is not None:
            progress(cycle, cycles)
    clock = denoiser.process.clock(torch.tensor(levels, dtype=torch.float64))
    return judge.probe(
        cycles, levels, clock.reshape(len(levels), -1).mean(1).tolist(), group,
        probe_cost(len(samples), cycles, steps),
    )  # fmt: skip


def _looks(cycles: int) -> set[int]:
    """1, 3, 10, 30, ... and the last."""
    return {c for k in range(9) for c in (10**k, 3 * 10**k) if c < cycles} | {cycles}


def _units(space: Any) -> ToUser:
    if isinstance(space, Scaler):
        return space.to_user
    return lambda points: points.detach().cpu().numpy()


def _points(denoiser: Denoiser, values: np.ndarray, space: Any) -> Tensor:
    """Rows in the denoiser's space."""
    if isinstance(space, Scaler):
        return space.to_model(values)
    shape = denoiser.process.space.shape
    rows = torch.as_tensor(values)
    rows = rows if shape is None else rows.reshape(len(rows), *shape)
    return denoiser.process.space.as_points(rows)


class _Judge:
    """Looks at trajectories with the facts of the audit; the pool is asked once."""

    def __init__(self, sets: list[Dataset], space: Any, to_user: ToUser) -> None:
        self.sets, self.space, self.to_user = sets, space, to_user
        self.pool: KnownPool | None = None
        self.looks: list[Look] = []
        self.seen: dict[int, tuple[int, int, int]] = {}
        self.facts: Facts | None = None
        self.kept: list[np.ndarray] = []

    def _common(self, states: Tensor) -> Any:
        rows = np.asarray(self.to_user(states))
        drawn = self.sets[0].with_values(
            rows.reshape(len(rows), *self.sets[0].shape), "the trajectories"
        )
        return common_space(self.sets[0], self.sets[1], drawn, space=self.space)

    def look(self, cycle: int, states: Tensor) -> None:
        """Count now."""
        common = self._common(states)
        self.pool = self.pool or KnownPool.of(common)
        facts = count_facts(common, pool=self.pool, density=False)
        self.facts = facts
        held = max((fact.held_rows for fact in facts.facts), default=0)
        self.looks.append(
            Look(cycle, len(facts.sample_rows), len(facts.train_rows), held, facts.copies)
        )
        if cycle:
            for match in facts.records:
                self.seen.setdefault(match.train_row, (match.sample, match.train_row, cycle))

    def remember(self, states: Tensor) -> None:
        """Keep where the trajectories are, in the common space."""
        self.kept.append(self._common(states).drawn)

    def probe(
        self,
        cycles: int,
        levels: list[float],
        clocks: list[float],
        group: np.ndarray,
        evaluations: int,
    ) -> CyclicProbe:
        """Everything that was seen."""
        assert self.facts is not None
        copies = np.zeros(len(group), bool)
        copies[self.facts.sample_rows] = True
        settled, places = self._settled(copies)
        records = sorted(self.seen.values(), key=lambda record: (record[2], record[1]))
        return CyclicProbe(
            cycles, levels, clocks, [int(copies[group == k].sum()) for k in range(len(levels))],
            len(group), self.looks, sorted(self.seen), records, int(settled.sum()),
            int((settled & ~copies).sum()), places, evaluations, self.facts,
            {"train": len(self.sets[0]), "holdout": len(self.sets[1])},
        )  # fmt: skip

    def _settled(self, copies: np.ndarray) -> tuple[np.ndarray, int]:
        """Trajectories that stayed at the end, and the places of those that are no row."""
        if len(self.kept) <= SETTLED:
            return np.zeros(len(copies), bool), 0
        pool = np.concatenate([self._common_rows(k) for k in (0, 1)])
        spacing = nearest(np.unique(pool, axis=0), np.unique(pool, axis=0), 1, skip_self=True)[0]
        within = STILL * float(np.median(spacing))
        moved = [
            np.linalg.norm(b - a, axis=1)
            for a, b in zip(self.kept[:-1], self.kept[1:], strict=True)
        ]
        settled = np.max(moved, axis=0) <= within
        return settled, _places(self.kept[-1][settled & ~copies], within)

    def _common_rows(self, side: int) -> np.ndarray:
        common = common_space(self.sets[0], self.sets[1], space=self.space)
        return (common.members, common.held)[side]


def _places(points: np.ndarray, within: float) -> int:
    """Balls of radius `within` that cover points (n, d), taken greedily in their order."""
    left, count = points, 0
    while len(left):
        left = left[np.linalg.norm(left - left[0], axis=1) > within]
        count += 1
    return count
