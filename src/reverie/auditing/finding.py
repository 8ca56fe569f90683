"""Which of six findings an audit states, in this order of precedence.

copies        training records are plainly there; where no chance explains them, fair or not
unfair        training and held-out rows are not alike: nothing follows from comparing them
exposes       whoever has the model, or the samples, can tell who was in the training set
leans         some test rejects, jointly; the effect is smaller than that
none          nothing rejects, no count passes its yardstick, and copies would have been seen
inconclusive  as none, without the power to see them
"""

from __future__ import annotations

from collections.abc import Sequence

from reverie.auditing.facts.counted import Facts
from reverie.auditing.fairness.comparison import Fairness
from reverie.auditing.judging import Judging
from reverie.auditing.model.cyclic import EXTRACTED
from reverie.auditing.model.membership import AT, TRUE_POSITIVES
from reverie.auditing.nulls.rank_tests import Effect
from reverie.auditing.planting import NEEDED, SHARES, Power
from reverie.auditing.row import Row
from reverie.curve import Gap

FINDINGS = ("unfair", "copies", "exposes", "leans", "none", "inconclusive")
RECOMMENDED = ("unfair", "copies", "exposes")  # to fail on


def finding_of(
    facts: Facts,
    fairness: Fairness,
    table: Sequence[Row],
    effect: Effect,
    leak: Gap | None,
    power: Sequence[Power],
    judging: Judging,
) -> str:
    """One of FINDINGS; see the module."""
    if facts.sure:
        return "copies"
    if not fairness.fair:
        return "unfair"
    if facts.copies:
        return "copies"
    if exposures(table, effect, leak, judging):
        return "exposes"
    joint = [row.p_joint for row in table if row.p_joint is not None]
    if min(joint) <= judging.alpha:
        return "leans"
    return "none" if seen(power) else "inconclusive"


def exposures(
    table: Sequence[Row], effect: Effect, leak: Gap | None, judging: Judging
) -> list[str]:
    """What tells who was in the training set, a sentence each; none where nothing does."""
    found = []
    caught = next((row for row in table if row.statistic == TRUE_POSITIVES), None)
    if caught is not None and caught.value >= judging.exposed_tpr:
        low = 0.0 if caught.interval is None else caught.interval[0]
        if low > AT:  # a handful of held-out rows cannot say what 1% is
            found.append(
                f"a membership score of the model names {caught.value:.0%} of the training rows "
                f"at {AT:.0%} false alarms"
            )
    extracted = next((row for row in table if row.statistic == EXTRACTED), None)
    if extracted is not None and extracted.value > 0:
        found.append(
            f"{extracted.value:.0f} training rows come out of the model when its samples are "
            "noised and denoised again and again"
        )
    if effect.low > judging.exposed_excess:
        found.append(
            f"{100 * effect.excess:.0f} percentage points more of the samples than chance are "
            "nearest to a training row"
        )
    if leak is not None and leak.low > judging.leak_budget:
        found.append(
            f"the leak of {leak.nats:.3g} nats is beyond the budget of {judging.leak_budget:g}"
        )
    return found


def seen(power: Sequence[Power]) -> list[Power]:
    """Of each kind the least share at which copies would have been seen; empty if a kind has none.

    So that "would have been seen" speaks of every kind that was planted.
    """
    kinds = dict.fromkeys(row.kind for row in power)
    least = [
        next((row for row in power if row.kind == kind and row.caught >= NEEDED), None)
        for kind in kinds
    ]
    found = [row for row in least if row is not None]
    enough = found and len(found) == len(least) and min(r.share for r in found) <= 2 * SHARES[1]
    return found if enough else []


def legacy(finding: str, rejects: bool) -> str:
    """The word of the release before: copies, dependence, none or inconclusive."""
    if finding == "unfair":
        return "dependence" if rejects else "inconclusive"
    return {"exposes": "dependence", "leans": "dependence"}.get(finding, finding)
