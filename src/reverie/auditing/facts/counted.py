"""All plain facts about the samples of an audit, counted once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reverie.auditing.common_space import CommonSpace
from reverie.auditing.facts.all_but_k import all_but_k
from reverie.auditing.facts.changed_pictures import changed_pictures
from reverie.auditing.facts.fact import Fact, Match
from reverie.auditing.facts.near import Closest, Pool, near
from reverie.auditing.facts.row_keys import Keys
from reverie.auditing.facts.rows_of import Rows
from reverie.auditing.facts.spikes import spikes
from reverie.auditing.facts.verbatim import Repeats, agreement, distinct_share, repeats, verbatim
from reverie.auditing.facts.words import sentences
from reverie.errors import InputError


@dataclass(frozen=True, eq=False)
class Facts:
    """What is plainly there: no null, no p-value. See `count_facts`."""

    facts: list[Fact]
    repeats: Repeats
    sizes: dict[str, int]
    fair: bool = True  # may held-out rows be a yardstick

    @property
    def copies(self) -> bool:
        """Is any count beyond its yardsticks?"""
        return any(fact.beyond for fact in self.facts)

    @property
    def sure(self) -> bool:
        """Does any count stand whatever the held-out rows are, fair or not?"""
        return any(fact.sure for fact in self.facts)

    @property
    def nothing(self) -> bool:
        """Is every count 0? Only then may "no copies were found" be said."""
        return all(fact.samples == 0 for fact in self.facts)

    @property
    def records(self) -> list[Match]:
        """Samples and the training rows they give away, of the facts that are beyond; each sample
        and row once, by its closest kind."""
        seen: set[tuple[int, int]] = set()
        found = []
        for fact in self.facts:
            for record in fact.records if fact.beyond else []:
                if (record.sample, record.train_row) not in seen:
                    seen.add((record.sample, record.train_row))
                    found.append(record)
        return found

    @property
    def train_rows(self) -> np.ndarray:
        """Training rows that are given away, by the facts that are beyond."""
        return np.unique(
            np.concatenate(
                [np.empty(0, np.int64)] + [f.train_rows for f in self.facts if f.beyond]
            )
        )

    @property
    def sample_rows(self) -> np.ndarray:
        """Samples that give a training row away, by the facts that are beyond."""
        return np.unique(
            np.concatenate(
                [np.empty(0, np.int64)] + [f.sample_rows for f in self.facts if f.beyond]
            )
        )

    def without_yardstick(self) -> Facts:
        """The same where held-out rows are no yardstick: only what is `sure` stands."""
        facts = [replace(fact, beyond=fact.sure) for fact in self.facts]
        return replace(self, facts=facts, fair=False)

    def of_few_cells(self) -> Facts:
        """The same on a table of few distinct rows, where equality gives nobody away."""
        return replace(self, facts=[replace(f, beyond=False, sure=False) for f in self.facts])

    def of(self, kind: str) -> list[Fact]:
        """The facts of one kind."""
        return [fact for fact in self.facts if fact.kind == kind]

    def sentences(self) -> list[str]:
        """The facts in plain words."""
        return sentences(self.facts, self.repeats, self.fair)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "copies": self.copies,
            "sure": self.sure,
            "nothing": self.nothing,
            "sentences": self.sentences(),
            "repeats": vars(self.repeats),
            "sizes": self.sizes,
            "facts": [fact.to_json() for fact in self.facts],
        }


def _varying(space: CommonSpace) -> CommonSpace:
    """A table without the coordinates that no real row varies: noise on them is no distance."""
    if space.sets and space.sets[0].values.ndim != 2:
        return space
    vary = (space.members != space.members[0]).any(0) | (space.held != space.members[0]).any(0)
    if vary.all():
        return space
    parts = (space.members[:, vary], space.held[:, vary], space.drawn[:, vary])
    text = None if space.text is None else space.text[vary]
    return replace(space, members=parts[0], held=parts[1], drawn=parts[2], text=text)


@dataclass(frozen=True, eq=False)
class KnownPool:
    """What counting finds out about training and held-out rows, whatever the samples."""

    keys: Keys
    around: Pool

    @classmethod
    def of(cls, space: CommonSpace) -> KnownPool:
        rows, space = Rows.of(space), _varying(space)
        return cls(rows.keys, Pool.of(space, rows.keys.total))


def count_facts(
    space: CommonSpace,
    *,
    products: bool = False,
    total: int | None = None,
    pool: KnownPool | None = None,
    density: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Facts:
    """Count samples that are, or nearly are, training rows, with the same for held-out rows.

    space: from `common_space`, with samples. products: also search pairs of changes of pictures.
    total: how many samples were drawn, where these are some of them; chance is reckoned with all
    that differ: a sample that is given many times has one chance to be a training row.
    pool: what is known of the training and held-out rows, where they were asked before.
    density: count spikes, which cost most.
    progress: called with the kinds of facts done and their number. Needs no null: it holds with a
    handful of held-out rows, and where training and held-out rows are no fair comparison. Raises
    InputError without samples.
    """
    if len(space.drawn) == 0:
        raise InputError("there are no samples whose copies could be counted")
    rows, space = Rows.of(space), _varying(space)
    count = math.ceil((len(rows.drawn) if total is None else total) * distinct_share(rows))
    if pool is not None:
        rows.__dict__["keys"] = pool.keys
    tell = progress or (lambda done, total: None)
    equal = agreement(rows.keys, rows.drawn, 0)
    facts = verbatim(rows, equal, count)
    tell(1, 5)
    table = not space.sets or space.sets[0].values.ndim == 2
    facts += all_but_k(rows, equal, count) if table and space.coder is None else []
    tell(2, 5)
    around = Pool.of(space, rows.keys.total) if pool is None else pool.around
    closest = Closest.of(space, around, equal.met)
    facts += [] if closest is None else [near(space, around, closest, count)]
    tell(3, 5)
    facts += [] if closest is None or not density else [spikes(space, around, closest)]
    tell(4, 5)
    if space.sets and space.sets[0].kind == "images":
        facts += changed_pictures(space, equal.met, products=products)
    tell(5, 5)
    sizes = {"train": len(rows.train), "holdout": len(rows.held), "samples": len(rows.drawn)}
    return Facts(facts, repeats(rows), sizes)
