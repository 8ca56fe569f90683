"""Every schedule at several numbers of steps: the table of `reverie plan`, its page, its files.

All figures are of one curve between its own ends, for the ancestral sampler.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.curve import LossCurve
from reverie.files import write_json, write_text
from reverie.plan import AnyPlan, StepCharges, plan_steps, steps_needed
from reverie.plan.excess import Warp, has_samples_clock
from reverie.report.figures import calibration_figure, plan_figure
from reverie.report.frame import render_page
from reverie.runs.readings import PathKL
from reverie.runs.trust import Trusted
from reverie.sampling.drawn_steps import DrawnSteps
from reverie.sampling.ends import Ends
from reverie.theory.bounds import NO_CERTIFICATE, Certificate, Facts, certificates

MOST = 500  # steps that are searched for a budget
SEEN = "loss-adaptive in the samples clock"


@dataclass(frozen=True, eq=False)
class PlanReport:
    """What `reverie plan` found; plans and splits by number of steps.

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.report import PlanReport, report_plans
    >>> u = np.geomspace(1e-2, 1e4, 65)
    >>> report = report_plans("normal", LossCurve(u, 0.5 / (1 + u)), [5])
    >>> isinstance(report, PlanReport), report.chosen[5].steps
    (True, 5)
    """

    name: str
    curve: LossCurve
    sampler: str
    chosen: dict[int, AnyPlan]
    tables: dict[int, dict[str, AnyPlan]]
    bounds: dict[int, list[Certificate]]
    splits: dict[int, PathKL] = field(default_factory=dict)
    budget: float | None = None
    needed: int | None = None  # steps for the budget; None where `MOST` do not do
    trusted: Trusted | None = None
    drawn: tuple[DrawnSteps, ...] = ()
    ends: Ends | None = None

    @property
    def methods(self) -> list[str]:
        """Every schedule, cheapest first at the last number of steps."""
        return list(next(reversed(self.tables.values())))

    @property
    def marked(self) -> str:
        """The row of the tables that holds the chosen plan."""
        plan = next(iter(self.chosen.values()))
        return SEEN if (plan.method, plan.clock) == ("loss-adaptive", "samples") else plan.method

    def lines(self) -> list[str]:
        """The guard, the tables, grids and certificates as text."""
        said = self.sentences()
        return [*said, "", *self._budget(), *self._table(), "", *self._splits(),
                *self._bounds(), *self._grids()]  # fmt: skip

    def sentences(self) -> list[str]:
        """What is true of the model before any plan, its ends, and how many steps are enough."""
        said = [] if self.trusted is None else self.trusted.sentences()
        said += [] if self.ends is None else self.ends.sentences()
        said += [f"steps by drawing, {found}" for found in self.drawn]
        area, error = self.curve.area(), self.curve.area_error()
        sampling = self.curve.area_stderr()
        plus = "" if sampling is None else f" +- {sampling:.2g} over rows"
        return [*said, f"area under the curve {area:.4g} nats{plus}, {error:.2g} for its levels"]

    def warnings(self) -> list[str]:
        """What is dangerous about plans of the tables."""
        plans = [plan for table in self.tables.values() for plan in table.values()]
        return [f"{plan.steps} steps: {plan.warning}" for plan in plans if plan.warning]

    def approximate(self) -> str:
        """In what sense the figures are no exact path KL, or nothing."""
        plan, process = next(iter(self.chosen.values())), self.curve.process
        if plan.approximation:
            return f"approximate: {plan.approximation}"
        if process is None or process.steps_exact:
            return ""
        return "approximate: a step is charged clock times rate, which is exact for short steps"

    @property
    def is_seen(self) -> bool:
        """Whether the curve has the clock of samples."""
        return has_samples_clock(self.curve)

    def no_certificate(self) -> str:
        """Why the sampler has no certificate, or nothing."""
        return "" if self.sampler == "ancestral" else NO_CERTIFICATE.format(self.sampler)

    def _table(self) -> list[str]:
        head = "".join(f"{f'K = {steps}':>23}" for steps in self.tables)
        bracket = " (in brackets: its charge in the samples clock, closer to what one sees)"
        lines = [
            f"path KL that the schedule adds, in nats{bracket if self.is_seen else ''}; ancestral "
            "sampler",
            "",
            f"  {'':<34}{head}",
        ]
        for method in self.methods:
            cells = ""
            for table in self.tables.values():
                charges = table[method].excesses
                seen = f"({charges['samples']:.3g})" if "samples" in charges else ""
                cells += f"{charges['nats']:>12.4g} {seen:<10}"
            lines.append(f"{'*' if method == self.marked else ' '} {method:<34}{cells}".rstrip())
        lines += [self.approximate()] if self.approximate() else []
        return lines + [f"warning, {text}" for text in self.warnings()]

    def _budget(self) -> list[str]:
        if self.budget is None:
            return []
        found = f"more than {MOST}" if self.needed is None else f"{self.needed}"
        plan = "the loss-adaptive plan in nats, ancestral sampler,"
        return [f"{found} steps of {plan} add at most {self.budget:g} nats", ""]

    def _splits(self) -> list[str]:
        return [
            f"K = {steps}: path KL to the training rows' own law (the ideal is the memoriser): "
            f"{s.total:.4g} = {s.excess:.4g} schedule + {s.denoiser:.4g} denoiser; "
            f"initialisation at most {s.initialisation:.2g}"
            for steps, s in self.splits.items()
        ] + ([""] if self.splits else [])

    def _bounds(self) -> list[str]:
        if self.no_certificate():
            return [self.no_certificate(), ""]
        if not any(self.bounds.values()):
            return []
        shown = ", ".join(f"K = {steps}" for steps in self.bounds)
        lines = [f"certificates of the loss-adaptive plan in nats at {shown} (- where vacuous):"]
        for same in zip(*self.bounds.values(), strict=True):
            if any(bound.informative for bound in same):
                first = same[0]
                values = ", ".join(f"{b.value:.3g}" if b.informative else "-" for b in same)
                order = " (order only)" if first.tag == "order" else ""
                unit = "nats" if first.kind == "KL" else "in total variation"
                steps = f"; {first.steps:,} steps for the budget" if first.steps else ""
                lines += [f"  {first.name}: {values} {unit}{order}{steps}",
                          f"      {first.assumption}; {first.source}"]  # fmt: skip
        return [*lines, ""]

    def _grids(self) -> list[str]:
        lines = []
        for steps, plan in self.chosen.items():
            where, values = ("u", plan.u) if plan.t is None else ("t", plan.t)
            if values.ndim == 1:
                lines += [f"{steps} steps of {plan.name}, {where} from noisy to clean:",
                          "  " + " ".join(f"{value:.4g}" for value in values)]  # fmt: skip
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "model": self.name,
            "sampler": self.sampler,
            "budget_nats": self.budget,
            "steps_needed": self.needed,
            "no_certificate": self.no_certificate() or None,
            "approximate": self.approximate() or None,
            "warnings": self.warnings(),
            "clock": next(iter(self.chosen.values())).clock,
            "area_nats": self.curve.area(),
            "area_error_nats": self.curve.area_error(),
            "trust": None if self.trusted is None else self.trusted.to_json(),
            "steps_by_drawing": [found.to_json() for found in self.drawn],
            "ends": None if self.ends is None else self.ends.to_json(),
            "plans": [
                plan.to_json()
                | {
                    "rivals": {name: p.excess for name, p in self.tables[steps].items()},
                    "charges_of_rivals": {n: p.excesses for n, p in self.tables[steps].items()},
                    "certificates": [bound.to_json() for bound in self.bounds[steps]],
                    "path_kl_to_training_rows": _split(self.splits.get(steps)),
                }
                for steps, plan in self.chosen.items()
            ],
        }


def _split(split: PathKL | None) -> dict[str, float] | None:
    return None if split is None else vars(split)


def report_plans(
    name: str,
    curve: LossCurve,
    counts: list[int],
    *,
    method: str | None = None,
    clock: str | Warp | None = None,
    sampler: str = "ancestral",
    budget: float | None = None,
    facts: Facts | None = None,
    charges: StepCharges | None = None,
) -> PlanReport:
    """Plan every number of steps in `counts` with every schedule, and certify them.

    method, clock: default `default_method`'s and `default_plan`'s. budget: nats, for the number of
    steps that the loss-adaptive plan in nats needs. facts: what the certificates of Gaussian noise
    stand on. charges: measured steps, on which plans then stand. Raises InputError as `plan_steps`
    does.

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.report import report_plans
    >>> u = np.geomspace(1e-2, 1e2, 33)
    >>> report = report_plans("normal", LossCurve(u, 0.5 / (1 + u)), [5], clock="nats")
    >>> sorted(report.chosen), round(report.chosen[5].excess, 2)
    ([5], 1.48)
    """
    if charges is not None:
        measured = {steps: charges.plan(steps, method or "loss-adaptive") for steps in counts}
        return PlanReport(
            name, charges.curve, sampler, dict(measured),
            {steps: dict(plan.compare()) for steps, plan in measured.items()},
            {steps: [] for steps in counts}, budget=budget,
            needed=None if budget is None else charges.steps_needed(budget),
        )  # fmt: skip
    chosen: dict[int, AnyPlan] = {
        steps: plan_steps(curve, steps, method, clock, sampler=sampler) for steps in counts
    }
    gaussian = curve.process is None or curve.process.clock_is_snr
    simple = gaussian and curve.columns == 1 and curve.is_log
    return PlanReport(
        name,
        curve,
        sampler,
        chosen,
        {steps: _table(curve, steps) for steps in counts},
        {k: certificates(curve, k, budget, facts, sampler) if simple else [] for k in counts},
        budget=budget,
        needed=None if budget is None else steps_needed(curve, [budget], MOST)[0],
    )


def _table(curve: LossCurve, steps: int) -> dict[str, AnyPlan]:
    """Every schedule, and the exact program in the samples clock where there is one."""
    plans = plan_steps(curve, steps, clock="nats").compare()
    if has_samples_clock(curve):
        plans[SEEN] = plan_steps(curve, steps, clock="samples")
    return dict(sorted(plans.items(), key=lambda item: item[1].excess))


def grid_text(plan: AnyPlan) -> str:
    """The levels as plain columns, noisy to clean, under one header line.

    t, sigma, alpha and log-SNR = log(alpha^2 / sigma^2) of x_t = alpha x + sigma e; without a
    Gaussian process of one noise level, the clock alone.
    """
    process = None if plan.curve.process is None else plan.curve.process.gaussian
    if plan.t is None or process is None or not process.isotropic:
        return "# u\n" + "".join(
            f"{value:.12g}\n" for value in plan.u.reshape(plan.steps + 1, -1)[:, 0]
        )
    t = torch.as_tensor(plan.t, dtype=torch.float64)
    columns = (t, process.sigma(t), process.alpha(t), process.gamma(t).log())
    rows = np.stack([column.numpy() for column in columns], axis=1)
    lines = (" ".join(f"{value:.12g}" for value in row) for row in rows)
    return "# t sigma alpha log_snr\n" + "".join(f"{line}\n" for line in lines)


def write_plans(folder: Path, report: PlanReport, again: str) -> list[Path]:
    """Write plan.html, plan.json and plan-K.txt of every K into `folder`, atomically.

    again: the command line that makes the page again. Returns the paths, the page first.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.report import report_plans, write_plans
    >>> u = np.geomspace(1e-2, 1e4, 65)
    >>> report = report_plans("normal", LossCurve(u, 0.5 / (1 + u)), [5])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print([path.name for path in write_plans(Path(folder), report, "reverie plan run")])
    ['plan.html', 'plan.json', 'plan-5.txt']
    """
    known = None if report.trusted is None else report.trusted.calibration
    figures = {k: plan_figure(p) for k, p in report.chosen.items() if p.u.ndim == 1}
    html = render_page(
        "plans.html",
        report=report,
        figures=figures,
        calibration=None if known is None else calibration_figure(known),
        most=MOST,
        again=again,
    )
    written = [write_text(folder / "plan.html", html)]
    written.append(write_json(folder / "plan.json", report.to_json()))
    for steps, plan in report.chosen.items():
        written.append(write_text(folder / f"plan-{steps}.txt", grid_text(plan)))
    return written
