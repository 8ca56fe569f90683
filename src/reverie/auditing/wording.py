"""The verdict's words, for readers who are not statisticians."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie.auditing.facts.named import DISCOVERY_RATE, fewest_named
from reverie.auditing.nulls.cell_test import REPEATED

if TYPE_CHECKING:
    from reverie.auditing.verdict import Verdict

HEADLINES = {
    "copies": "The samples contain copies of training records.",
    "dependence": "The samples lean towards the training set more than chance allows, but no "
    "copies were found among them.",
    "none": "No evidence of copying, and copies would have been seen.",
    "inconclusive": "No evidence of copying, but too little data to tell.",
}
SECTIONS = {
    "tests": "Tests: is the training set closer to the samples than chance allows?",
    "membership": "Membership: can the model tell who was in its training set?",
    "information": "Information about the training set",
    "metrics": "Published metrics, beside their values for held-out rows",
    "fidelity": "Fidelity: do the samples resemble held-out data?",
}
OF_SAMPLES = ("tail", "share", "cell counts", "near-copies")  # what the samples themselves show
BLIND_SPOTS = (
    "The null is that training and held-out rows are exchangeable: a random split, without "
    "duplicates or shared persons across it.",
    "The tests look at distances between whole records in the scaled columns or pixels: a copy of "
    "part of a record, or one moved, mirrored or recoloured, is not seen.",
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
    """Finding, p-value, what was found, its size, the power and the limits, one line each."""
    lines = [headline(verdict), _chance(verdict)]
    if verdict.finding == "copies":
        lines += _copies(verdict)
    elif verdict.finding == "dependence":
        lines.append(_why_not_copies(verdict))
    lines += [_size(verdict), _power(verdict)]
    lines += [_limit(verdict)] if verdict.fewest > 1 else []
    if verdict.leak is not None:
        lines.append(
            f"The model's curve knows a training record {verdict.leak.nats:.3g} nats better than "
            f"a fresh one (95%: {verdict.leak.low:.3g} to {verdict.leak.high:.3g}), counted up to "
            f"u = {verdict.leak.level:.3g} ({verdict.leak.clock})."
        )
    return lines


def headline(verdict: Verdict) -> str:
    """The finding in a sentence, which says where the dependence shows."""
    lines = [row for row in verdict.table if (row.p_joint or 0) <= verdict.alpha]
    rejecting = [row.statistic for row in lines if row.p_joint is not None]
    if verdict.finding != "dependence" or set(rejecting) & set(OF_SAMPLES):
        return HEADLINES[verdict.finding]
    return (
        "The model knows its training rows better than fresh ones (" + ", ".join(rejecting) + "), "
        "but its samples show nothing of it."
    )


def _chance(verdict: Verdict) -> str:
    if verdict.finding == "copies":
        names = ("near-copies", "cell counts")
        found = [row for name in names if (row := verdict.row(name)) is not None]
        least = min(row.p_joint for row in found if row.p_joint is not None)
        return (
            "If training and held-out rows had been swapped at random, copies this clear would "
            f"be found with probability {p_text(least)} (corrected over all tests)."
        )
    return (
        "If training and held-out rows had been swapped at random, a result this extreme in any "
        f"of the tests would occur with probability {p_text(verdict.p_joint)}."
    )


def _copies(verdict: Verdict) -> list[str]:
    """Which of the two ways the copies were found, and what is listed."""
    lines = []
    near, cells = verdict.row("near-copies"), verdict.row("cell counts")
    if near is not None and near.p_joint is not None and near.p_joint <= verdict.alpha:
        named = [r for r in verdict.records if r.named]
        lines.append(
            f"{near.value:.0f} training records have a sample within a third of the way to their "
            f"nearest record. A model that merely fits too closely is drawn to all its training "
            f"rows a little; so many rows reproduced so closely is what copies look like."
        )
        if named:
            lines.append(
                f"{len(named)} training records stand out one by one (at most "
                f"{DISCOVERY_RATE:.0%} of them by mistake, on average); {_number(verdict)} give "
                "them away."
            )
        else:
            least = fewest_named(verdict.sizes["train"], verdict.sizes["holdout"])
            lines.append(
                f"With {verdict.sizes['holdout']} held-out rows single records can be named only "
                f"when at least {least} stand out together; the closest are listed, unnamed."
            )
    if cells is not None and cells.interval is not None and cells.interval[0] > REPEATED:
        lines.append(
            f"The samples repeat {cells.value:.0%} (95%: {cells.interval[0]:.0%} to "
            f"{cells.interval[1]:.0%}) of the accidents by which the training table's counts "
            f"differ from its law ({cells.detail}). On a table of so few distinct rows this gives "
            "away how many training records are of each kind, not which person is which; "
            "a model that only tabulates the training rows does the same."
        )
    return lines


def _number(verdict: Verdict) -> str:
    count = len(verdict.flagged_samples)
    return "1 sample" if count == 1 else f"{count} samples"


def _why_not_copies(verdict: Verdict) -> str:
    near = verdict.row("near-copies")
    assert near is not None
    if headline(verdict) != HEADLINES["dependence"]:
        return f"It is not called copying: {near.detail}."
    return (
        f"It is not called copying: {near.detail}. Copies would bring many more training than "
        "held-out rows so close. Fitting the training set a little too closely, as every model "
        "with few data does, draws samples towards all training rows at once, and looks like so."
    )


def _size(verdict: Verdict) -> str:
    e = verdict.effect
    amount = f"{100 * abs(e.excess):.1f} percentage points {'more' if e.excess >= 0 else 'fewer'}"
    judged = {
        "within": f"within the tolerance of {100 * e.tolerance:g} points",
        "beyond": f"beyond the tolerance of {100 * e.tolerance:g} points",
        "unsure": f"not surely on either side of the tolerance of {100 * e.tolerance:g} points",
    }[e.place]
    return (
        f"Size of the dependence: {amount} of the samples than expected are nearest to a "
        f"training row (95%: {100 * e.low:+.1f} to {100 * e.high:+.1f}), {judged}."
    )


def _power(verdict: Verdict) -> str:
    seen = [p for p in verdict.power if p.caught >= 0.8]
    on_top = "" if verdict.finding in ("none", "inconclusive") else " on top of what is there"
    if not seen:
        tried = ", ".join(f"{p.share:.2%}" for p in verdict.power)
        return (
            f"Power: copies planted{on_top} were not called copies four times in five at any "
            f"share of the samples tried ({tried})."
        )
    best = seen[0]
    return (
        f"Power: copies planted{on_top} as {best.share:.2%} of the samples ({best.copies}) would "
        f"have been caught (called copies) {best.caught:.0%} of the time "
        f"(\u00b1 {1.96 * best.stderr:.0%})."
    )


def _limit(verdict: Verdict) -> str:
    sizes = verdict.sizes
    kind, train, held = "rows", sizes["train"], sizes["holdout"]
    if "train_groups" in sizes:
        kind, train, held = "groups of rows", sizes["train_groups"], sizes["holdout_groups"]
    return (
        f"With {train} training and {held} held-out {kind}, no rank test at {verdict.alpha:.0%} "
        f"can see fewer than {verdict.fewest} copied ones."
    )


def p_text(value: float | None) -> str:
    """A p-value in three figures; empty for None."""
    if value is None:
        return ""
    if value < 1e-300:
        return "< 1e-300"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
