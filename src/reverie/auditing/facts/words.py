"""The facts in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie.auditing.facts.fact import Fact, listed

if TYPE_CHECKING:
    from reverie.auditing.facts.verbatim import Repeats

NOTHING = (
    "No copies were found: no sample equals a training row, nor is one with a few cells changed, "
    "with noise, or under the changes that were tried."
)


def sentences(facts: list[Fact], repeats: Repeats, fair: bool = True) -> list[str]:
    """What is beyond its yardsticks first, then the other counts that are not 0.

    fair: may held-out rows be a yardstick; else no word is said about chance.
    """
    lines = [_copies(fact) for fact in facts if fact.beyond]
    lines += [_other(fact, fair) for fact in facts if fact.samples and not fact.beyond]
    if not any(fact.samples for fact in facts):
        lines.append(NOTHING)
    if repeats.distinct < repeats.samples:
        lines.append(
            f"{repeats.samples:,} samples hold {repeats.distinct:,} distinct rows; the commonest "
            f"stands {repeats.most:,} times."
        )
    return lines


def _copies(fact: Fact) -> str:
    rows = f"{fact.rows:,} training row{'s' * (fact.rows != 1)}"
    which = listed(fact.train_rows.tolist())
    named = f"row{'s' * (fact.rows != 1)} {which}"
    count = f"{fact.samples:,} of {fact.sample_total:,} samples"
    what = {
        "verbatim": f"{count} repeat {rows} exactly",
        "all but k": f"{count} are {rows} with {_cells(fact)}",
        "near": f"{count} are {rows} with a little noise",
        "spike": f"{count} crowd around {rows}",
        "changed picture": f"{count} are {rows} changed ({fact.change})",
    }[fact.kind]
    return f"{what} ({named}); {_beside(fact)}."


def _other(fact: Fact, fair: bool) -> str:
    count = f"{fact.samples:,} of {fact.sample_total:,} samples"
    if fact.kind == "shared value":
        return (
            f"{count} equal a value that several real rows share: by itself that gives nobody "
            "away."
        )
    what = {
        "verbatim": "equal a training row",
        "all but k": f"agree with one training row but for {_cells(fact)}",
        "near": "lie within a third of the way from a training row to its nearest other row",
        "spike": "crowd around a training row",
        "changed picture": f"resemble a training picture after a change ({fact.change})",
    }[fact.kind]
    return f"{count} {what} ({fact.rows:,} distinct rows), {_beside(fact)}: " + (
        "not beyond what chance may give." if fair else "held-out rows are no yardstick here."
    )


def _cells(fact: Fact) -> str:
    return fact.change or "a few cells changed"


def _beside(fact: Fact) -> str:
    told = f"{fact.held_rows:,} of {fact.held_total:,} held-out rows are met so"
    if fact.repeats:
        told += f", and {fact.repeats:,} real rows repeat another real row so"
    if fact.beyond and fact.expected is not None and fact.expected < 0.5:
        told += ", and chance explains none"
    return told
