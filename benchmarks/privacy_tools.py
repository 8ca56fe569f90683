"""Other people's privacy audits as one call each: a case -> what the tool says, and its word.

Words: `accuses` (training records are copied), `silent`, `unfair`, `refuses` (a sentence on
units), `hole`, `exposes`; `-` where a tool does not take such data; `fails` where it raises. A
library that is not installed has tools that say so. How each number becomes a word stands in
`bench_verdicts`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reverie.auditing import audit
from reverie.auditing.common_space import common_space
from reverie.auditing.metrics.data_copying import copying_test
from reverie.auditing.model.holes import hole
from reverie.errors import InputError
from scenarios import Case
from tables import Table

ATTACKS = 200
MATCHED = 400  # samples that NewRowSynthesis, a query each, looks up
LEVEL = 0.05
BEYOND = 1.645  # one-sided 95%


@dataclass(frozen=True)
class Said:
    word: str
    detail: str


@dataclass(frozen=True)
class Tool:
    """A column of the table. run is None where the library is not installed."""

    name: str
    library: str
    run: Callable[[Case], Said] | None
    pictures: bool = False

    def __call__(self, case: Case) -> Said:
        if self.run is None:
            return Said("not installed", "")
        if case.train.pictures is not None and not self.pictures:
            return Said("-", "takes no pictures")
        np.random.seed(0)  # noqa: NPY002 (the attacks sample with pandas, which has no other)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                return self.run(case)
            except Exception as error:  # a peer may fail in any way: its row says so
                return Said("fails", type(error).__name__)


def tools() -> list[Tool]:
    """All columns, ours last."""
    sdmetrics = _have("sdmetrics") and _have("pandas")
    anonymeter = _have("anonymeter") and _have("numba") and _have("polars")
    columns = [
        ("NewRow", "sdmetrics", new_row, sdmetrics),
        ("DCR overfit", "sdmetrics", overfitting, sdmetrics),
        ("DCR baseline", "sdmetrics", baseline, sdmetrics),
        ("single out 1", "anonymeter", lambda c: singling_out(c, "univariate"), anonymeter),
        ("single out n", "anonymeter", lambda c: singling_out(c, "multivariate"), anonymeter),
        ("linkability", "anonymeter", linkability, anonymeter),
        ("inference", "anonymeter", inference, anonymeter),
    ]
    found = [Tool(name, lib, run if there else None) for name, lib, run, there in columns]
    return [*found, Tool("C_T", "", meehan, True), Tool("reverie", "reverie", ours, True)]


def versions() -> list[str]:
    """The peers that are installed, with their versions."""
    names = dict.fromkeys(tool.library for tool in tools() if tool.library)
    return [f"{n} {importlib.metadata.version(n)}" if _have(n) else f"{n}: not installed"
            for n in names]  # fmt: skip


def _have(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def frame(table: Table):
    import pandas as pd

    return pd.DataFrame(dict(zip(table.names, table.columns, strict=True)))


def _three(case: Case):
    return [frame(table) for table in (case.train, case.holdout, case.samples)]


def _metadata(table: Table) -> dict:
    kinds = {True: "numerical", False: "categorical"}
    return {"columns": {n: {"sdtype": kinds[n in table.numeric]} for n in table.names}}


def new_row(case: Case) -> Said:
    from sdmetrics.single_table import NewRowSynthesis

    train, _, drawn = _three(case)
    some = dict(synthetic_sample_size=MATCHED) if len(drawn) > MATCHED else {}
    told = NewRowSynthesis.compute_breakdown(train, drawn, _metadata(case.train), **some)
    matched = told["num_matched_rows"]
    return Said("accuses" if matched else "silent", f"score {told['score']:.2f}")


def overfitting(case: Case) -> Said:
    from sdmetrics.single_table import DCROverfittingProtection

    train, held, drawn = _three(case)
    told = DCROverfittingProtection.compute_breakdown(
        train, drawn, held, _metadata(case.train), None
    )
    closer = told["synthetic_data_percentages"]["closer_to_training"]
    beyond = closer > 0.5 + BEYOND * np.sqrt(0.25 / len(drawn))
    return Said("accuses" if beyond else "silent", f"score {told['score']:.2f}")


def baseline(case: Case) -> Said:
    from sdmetrics.single_table import DCRBaselineProtection

    train, held, drawn = _three(case)
    DCRBaselineProtection._seed = 0
    scores = [
        DCRBaselineProtection.compute_breakdown(train, rows, _metadata(case.train), None)["score"]
        for rows in (drawn, held)
    ]
    return Said("accuses" if scores[0] < scores[1] / 2 else "silent",
                f"score {scores[0]:.2f}, held-out {scores[1]:.2f}")  # fmt: skip


def _attacked(risk) -> Said:
    low, high = risk.ci
    word = "accuses" if low > 0 else "silent"
    return Said(word, f"risk {risk.value:.2f} [{low:.2f}, {high:.2f}]")


def singling_out(case: Case, mode: str) -> Said:
    from anonymeter.evaluators import SinglingOutEvaluator

    train, held, drawn = _three(case)
    logging.getLogger("anonymeter").setLevel(logging.ERROR)
    attack = SinglingOutEvaluator(
        ori=train, syn=drawn, control=held, n_attacks=ATTACKS, seed=0, max_attempts=4000,
        n_cols=min(3, train.shape[1]),
    ).evaluate(mode=mode)  # fmt: skip
    return _attacked(attack.risk())


def linkability(case: Case) -> Said:
    from anonymeter.evaluators import LinkabilityEvaluator

    train, held, drawn = _three(case)
    names = list(train.columns)
    halves = names[::2], names[1::2]
    count = min(len(train), len(held), ATTACKS)
    attack = LinkabilityEvaluator(
        ori=train, syn=drawn, control=held, aux_cols=halves, n_attacks=count
    ).evaluate(n_jobs=1)
    return _attacked(attack.risk())


def inference(case: Case) -> Said:
    from anonymeter.evaluators import InferenceEvaluator

    train, held, drawn = _three(case)
    names = list(train.columns)
    categories = [n for n in names if n not in case.train.numeric]
    secret = (categories or names)[-1]
    attack = InferenceEvaluator(
        ori=train, syn=drawn, control=held, aux_cols=[n for n in names if n != secret],
        secret=secret, regression=not categories, n_attacks=ATTACKS,
    ).evaluate(n_jobs=1)  # fmt: skip
    return _attacked(attack.risk())


@contextlib.contextmanager
def _files(case: Case):
    """The three sets as files: every tool of ours reads what a user would give it."""
    with tempfile.TemporaryDirectory() as folder:
        sets = {"train": case.train, "holdout": case.holdout, "samples": case.samples}
        yield [str(table.write(Path(folder) / name)) for name, table in sets.items()]


def meehan(case: Case) -> Said:
    with _files(case) as files:
        space = common_space(*files)
    found = copying_test(space.members, space.held, space.drawn)
    word = "accuses" if found.p_value <= LEVEL else "silent"
    return Said(word, f"C_T {found.value:.1f}, p {found.p_value:.2g}")


def ours(case: Case) -> Said:
    with _files(case) as files:
        if case.scenario == 11:
            space = common_space(*files)
            found = hole(space.members, space.held, space.drawn)
            seen = found is not None and found.seen and found.auc > 0.5
            return Said("hole" if seen else "silent", f"AUC {found.auc:.2f}" if found else "")
        try:
            verdict = audit(*files, metrics=False, power=False)
        except InputError as error:
            return Said("refuses" if "units" in str(error) else "fails", str(error)[:60])
    words = {"copies": "accuses", "exposes": "exposes", "unfair": "unfair"}
    reasons = "/".join(reason.kind for reason in verdict.fairness.reasons)
    detail = f"{verdict.finding} {reasons}".strip()
    if case.scenario == 14:
        p = verdict.row("share").p_value
        detail += f", share p {p:.4f}"
    return Said(words.get(verdict.finding, "silent"), detail)
