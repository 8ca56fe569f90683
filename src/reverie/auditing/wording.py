"""The verdict's words, for readers who are not statisticians: no word that was not checked.

A finding is one sentence; then what is plainly there, how large the effect is, what chance would
do, and what would have been seen, with its kind, noise and share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie.auditing.facts.named import DISCOVERY_RATE
from reverie.auditing.finding import seen
from reverie.auditing.planting import NEEDED

if TYPE_CHECKING:
    from reverie.auditing.verdict import Verdict

SECTIONS = {
    "tests": "Tests: is the training set closer to the samples than chance allows?",
    "membership": "Membership: can the model tell who was in its training set?",
    "information": "Information about the training set",
    "metrics": "Published metrics, beside their values for held-out rows",
    "fidelity": "Fidelity: do the samples resemble held-out data?",
}
TOLD = {
    "tests": "Each asks whether swapping training and held-out rows would change anything.",
    "membership": "With the model at hand: how well a score of it tells who was trained on.",
    "information": "In nats: how much better a training row is known than a fresh one.",
    "metrics": "As published; read them beside their value for held-out rows, not by themselves.",
    "fidelity": "Apart from copying: do samples and held-out rows differ in law?",
}
OF_SAMPLES = ("tail", "share", "cell counts", "near-copies")  # what the samples themselves show
BLIND_SPOTS = (
    "Copies that were changed in ways that were not tried: parts of a record, several changes "
    "at once, pictures cut and pasted, texts in other words.",
    "Rows of the samples that nobody can tell from chance: on tables of few distinct rows "
    "equality gives nobody away, and is not called copying.",
    "It is no differential-privacy guarantee, and it says nothing about what honest "
    "generalisation discloses.",
)
CITATIONS = (
    "This audit: reverie, with its version. The tail, near-copy and cell-count tests are its own.",
    "Joint correction of all p-values: S. Holm (1979), Scand. J. Statist. 6, 65-70.",
    "Named records: Y. Benjamini, Y. Hochberg (1995), J. R. Statist. Soc. B 57, 289-300; "
    "S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia (2023), Ann. Statist. 51, 149-178.",
    "Permutation p-values of shares and cell counts: J. Robinson (1982), J. R. Statist. Soc. B "
    "44, 91-101; I. Skovgaard (1987), J. Appl. Probab. 24, 875-887.",
    "Odds in the near-copy test: K. T. Wallenius (1963), thesis, Stanford University.",
    "Two one-sided tests against a tolerance: D. J. Schuirmann (1987), J. Pharmacokinet. "
    "Biopharm. 15, 657-680.",
    "1/3-ratio rule: X. Gu et al. (2023), arXiv 2310.02664.",
)


def sentences(verdict: Verdict) -> list[str]:
    """Finding, facts, effect, chance and what would have been seen, a line or two each."""
    facts = verdict.facts.sentences()
    facts = facts if verdict.finding != "copies" else facts[1:]
    return [headline(verdict), *_why(verdict), *facts, *_after(verdict)]


def lines_below(verdict: Verdict) -> list[str]:
    """The sentences that stand below the counts on a page: effect, chance, power and notes."""
    probed = [] if verdict.cyclic is None else verdict.cyclic.sentences()
    return [*_after(verdict), *verdict.notes, *probed]


def _after(verdict: Verdict) -> list[str]:
    lines = [_size(verdict), *_leak(verdict), *_chance(verdict), *_cells(verdict)]
    return lines + _named(verdict) + _power(verdict) + _limit(verdict)


def headline(verdict: Verdict) -> str:
    """The finding in a sentence."""
    return {
        "unfair": lambda: (
            "Training and held-out rows are not alike, so that nothing can be "
            "concluded from comparing them."
        ),
        "copies": lambda: f"Training records are in the samples: {verdict.facts.sentences()[0]}",
        "exposes": lambda: (
            "Whoever has the model or the samples can tell who was in the training "
            f"set: {'; '.join(verdict.exposures)}."
        ),
        "leans": lambda: _leans(verdict),
        "none": lambda: _none(verdict),
        "inconclusive": lambda: (
            "Nothing was found, but too little could have been seen to call that an answer."
        ),
    }[verdict.finding]()


def _leans(verdict: Verdict) -> str:
    lines = [row for row in verdict.table if (row.p_joint or 0) <= verdict.alpha]
    rejecting = [row.statistic for row in lines if row.p_joint is not None]
    if set(rejecting) & set(OF_SAMPLES):
        return (
            "The samples are measurably closer to the training rows than chance allows, as is "
            f"usual for models with few data: {_excess(verdict)}."
        )
    return (
        "The model knows its training rows better than fresh ones (" + ", ".join(rejecting) + "), "
        "but its samples show nothing of it."
    )


def _none(verdict: Verdict) -> str:
    told = "; ".join(power.words for power in seen(verdict.power))
    return (
        "Nothing was found that chance does not explain, and copies of these kinds would have "
        f"been seen four times in five: {told}."
    )


def _why(verdict: Verdict) -> list[str]:
    """Why the comparison is unfair, and what to do; or that copies stand whatever it is."""
    if verdict.fairness.fair:
        return []
    reasons = [
        f"{reason.sentence} {reason.advice} {_typed(reason.remedy)}".strip()
        for reason in verdict.fairness.reasons
    ]
    if verdict.finding == "copies":
        return ["These copies need no comparison. Beside them, the comparison is not fair:",
                *reasons]  # fmt: skip
    return reasons


def _typed(remedy: str) -> str:
    return f"Type: {remedy}" if remedy else ""


def _excess(verdict: Verdict) -> str:
    effect = verdict.effect
    amount = 100 * effect.excess
    return (
        f"{abs(amount):.1f} percentage points {'more' if amount >= 0 else 'fewer'} of the samples "
        f"than expected are nearest to a training row (95%: {100 * effect.low:+.1f} to "
        f"{100 * effect.high:+.1f})"
    )


def _size(verdict: Verdict) -> str:
    effect = verdict.effect
    judged = {
        "within": f"within the tolerance of {100 * effect.tolerance:g} points",
        "beyond": f"beyond the tolerance of {100 * effect.tolerance:g} points",
        "unsure": f"not surely on either side of the tolerance of {100 * effect.tolerance:g} "
        "points",
    }[effect.place]
    return f"Size of the effect: {_excess(verdict)}, {judged}."


def _leak(verdict: Verdict) -> list[str]:
    leak = verdict.leak
    if leak is None:
        return []
    by = "The model's curve knows" if leak.level is not None else "The model's density gives"
    better = "better" if leak.level is not None else "more"
    counted = "" if leak.level is None else f", counted {leak.reach} ({leak.clock})"
    return [
        f"{by} a training record {leak.nats:.3g} nats {better} than a fresh one "
        f"(95%: {leak.low:.3g} to {leak.high:.3g}){counted}."
    ]


def _chance(verdict: Verdict) -> list[str]:
    if not verdict.fairness.fair:
        return []
    return [
        "If training and held-out rows had been swapped at random, a result this extreme in any "
        f"of the tests would occur with probability {p_text(verdict.p_joint)}."
    ]


def _cells(verdict: Verdict) -> list[str]:
    """On tables of few distinct rows: the counts are a line of their own, and never copies."""
    cells = verdict.row("cell counts")
    if cells is None or cells.p_joint is None or cells.p_joint > verdict.alpha:
        return []
    return [
        f"The samples repeat {cells.value:.0%} of the accidents by which the training table's "
        f"counts differ from its law ({cells.detail}). That gives away how many records are of "
        "each kind, not whose they are."
    ]


def _named(verdict: Verdict) -> list[str]:
    named = [record for record in verdict.records if record.named]
    if not named:
        return []
    count = len(verdict.flagged_samples)
    return [
        f"{len(named)} training records stand out one by one by their distance (at most "
        f"{DISCOVERY_RATE:.0%} of them by mistake, on average); "
        f"{'1 sample gives' if count == 1 else f'{count} samples give'} them away."
    ]


def _power(verdict: Verdict) -> list[str]:
    """What would have been seen, and what not; `none` has said it already."""
    if not verdict.power:
        return ["Power: no copies were planted, so it is not known what would have been seen."]
    kinds = dict.fromkeys(power.kind for power in verdict.power)
    yes, no = [], []
    for kind in kinds:
        rows = [power for power in verdict.power if power.kind == kind]
        least = next((power for power in rows if power.caught >= NEEDED), None)
        (no if least is None else yes).append((least or rows[-1]).words)
    lines = []
    if yes and verdict.finding != "none":
        lines.append(f"Planted among the samples, these were caught: {'; '.join(yes)}.")
    if no:
        lines.append(f"Planted among the samples, these were not caught: {'; '.join(no)}.")
    return lines


def _limit(verdict: Verdict) -> list[str]:
    if verdict.fewest <= 1 or verdict.finding in ("copies", "unfair"):
        return []
    sizes = verdict.sizes
    kind, train, held = "rows", sizes["train"], sizes["holdout"]
    if "train_groups" in sizes:
        kind, train, held = "groups of rows", sizes["train_groups"], sizes["holdout_groups"]
    return [
        f"With {train} training and {held} held-out {kind}, no rank test at {verdict.alpha:.0%} "
        f"can see fewer than {verdict.fewest} copied ones; the plain counts can."
    ]


def p_text(value: float | None) -> str:
    """A p-value in three figures; empty for None."""
    if value is None:
        return ""
    if value < 1e-300:
        return "< 1e-300"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
