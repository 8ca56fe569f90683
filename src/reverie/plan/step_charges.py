"""Plans for processes whose steps do not cost clock times rate: every step is measured.

Where `steps_exact` is false the path KL of a plan is still the sum of the charges of its steps,
less the information between its ends; but a charge depends on both ends of its step. So all pairs
of N nodes are measured, with N evaluations of the denoiser a row (its guess at a node serves every
step that starts there), and the cheapest path of K steps through the nodes is found by dynamic
programming, which asks nothing of the charges.

Two readings of a charge: over the data's own symbols, which prices a plan, and over symbols drawn
from the prediction, which has far less variance and chooses one. (Priced by what chose it, a plan
would look better than it is.)

Approximate, and to be named so: knots stand on nodes, the price carries the rows' sampling error,
and the limit of infinitely many steps, against which `excess` counts, is extrapolated from N steps
and N / 2 (their excess falls as one over the steps).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from reverie.curve import LossCurve, as_points, level_times
from reverie.denoisers import Denoiser, condition_rows, evaluating
from reverie.errors import InputError
from reverie.plan.paths import cheapest_path
from reverie.plan.plans import Plan
from reverie.plan.steps import PlannedSteps
from reverie.processes import Process

METHODS = ("loss-adaptive", "log-snr", "entropic")


@dataclass(frozen=True, eq=False, repr=False)
class MeasuredPlan(PlannedSteps):
    """A plan through the nodes of `charges_of`, priced by measured steps.

    u: (K + 1,) or (K + 1, J) clock values. t: (K + 1,). stderr: of the excess, in nats, over the
    rows. staircase: mean nats of the steps.

    >>> import torch
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.plan import MeasuredPlan, measure_steps
    >>> from reverie.processes import Uniform
    >>> rows = torch.tensor([[0, 1], [0, 2], [2, 1], [3, 3]]).repeat(50, 1)
    >>> denoiser, noise = Memoriser(Uniform(4, sites=2), rows), torch.Generator().manual_seed(0)
    >>> charges = measure_steps(denoiser, rows, nodes=9, generator=noise)
    >>> plan = charges.plan(steps=4)
    >>> isinstance(plan, MeasuredPlan), plan.steps, plan.excess > 0
    (True, 4, True)
    """

    stderr: float
    staircase: float
    charges_of: StepCharges = field(repr=False)

    @property
    def curve(self) -> LossCurve:
        """Charges of neighbouring nodes per unit of clock."""
        return self.charges_of.curve

    @property
    def approximation(self) -> str:
        rows = len(self.charges_of.charge)
        return (
            f"steps between {len(self.charges_of.u)} levels were measured on {rows} rows "
            f"(standard error {self.stderr:.2g} nats)"
        )

    def compare(self) -> dict[str, MeasuredPlan]:
        """This plan and its rivals through the same nodes, cheapest first."""
        plans = {method: self.charges_of.plan(self.steps, method) for method in METHODS}
        return dict(sorted(plans.items(), key=lambda item: item[1].excess))

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: grid, excess with its error, and provenance."""
        return super().to_json() | {
            "charge": self.excess,
            "charges": self.excesses,
            "staircase_nats": self.staircase,
            "stderr_nats": self.stderr,
        }


@dataclass(frozen=True, eq=False)
class StepCharges:
    """Nats of the step from node i to node j > i, noisy to clean.

    u, t: (N,) clock and time of the nodes. charge: (n, N, N) of every row. expected: (N, N), mean
    over symbols drawn from the predictions. `plan` raises InputError on more steps than the nodes
    allow, or an unknown method.

    >>> import torch
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.plan import StepCharges, measure_steps
    >>> from reverie.processes import Uniform
    >>> rows = torch.tensor([[0, 1], [0, 2], [2, 1], [3, 3]]).repeat(50, 1)
    >>> denoiser, noise = Memoriser(Uniform(4, sites=2), rows), torch.Generator().manual_seed(0)
    >>> charges = measure_steps(denoiser, rows, nodes=9, generator=noise)
    >>> isinstance(charges, StepCharges), charges.charge.shape
    (True, (200, 9, 9))
    """

    u: np.ndarray
    t: np.ndarray
    charge: np.ndarray = field(repr=False)
    expected: np.ndarray = field(repr=False)
    process: Process = field(repr=False)

    def plan(self, steps: int = 10, method: str = "loss-adaptive") -> MeasuredPlan:
        """The plan of K steps through the nodes: the cheapest, or even in log u or information.

        Raises InputError on an unknown method or more steps than there are.
        """
        last = len(self.u) - 1
        if not 1 <= steps <= last:
            raise InputError(f"steps is {steps}; these nodes allow 1 to {last}")
        if method == "loss-adaptive":
            knots = cheapest_path(self.expected, steps)
        elif method == "log-snr":
            knots = np.round(np.linspace(0, last, steps + 1)).astype(int)
        elif method == "entropic":
            running = np.cumsum(np.r_[0.0, self.expected.diagonal(1)])
            goals = np.linspace(0, running[-1], steps + 1)
            knots = _distinct(np.abs(running[:, None] - goals).argmin(0), last)
        else:
            raise InputError(f"no measured plan is called {method!r}; choose {', '.join(METHODS)}")
        return self._priced(knots, method)

    def steps_needed(self, nats: float) -> int | None:
        """The least K whose plan adds at most `nats`; None where all nodes do not do."""
        counts = range(1, len(self.u))
        return next((k for k in counts if self.plan(k).excess <= nats), None)

    def _priced(self, knots: np.ndarray, method: str) -> MeasuredPlan:
        rows = self.charge[:, knots[:-1], knots[1:]].sum(1)
        # Richardson: with an excess that halves with the steps, the limit is 2 S(N) - S(N / 2)
        gap = rows - (2 * self._total(1) - self._total(2))
        excess, stderr = float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap)))
        return MeasuredPlan(
            self.u[knots],
            self.t[knots],
            method,
            "nats",
            excess,
            stderr=stderr,
            staircase=float(rows.mean()),
            charges_of=self,
        )

    @property
    def curve(self) -> LossCurve:
        """Charges of neighbouring nodes per unit of clock: the loss curve in the limit."""
        rate = self.charge.mean(0).diagonal(1) / np.diff(self.u)
        return LossCurve(self.u, np.r_[rate, rate[-1:]], process=self.process, t=self.t)

    def _total(self, stride: int) -> np.ndarray:
        """Charges (n,) of the plan through every `stride`-th node."""
        knots = np.arange(0, len(self.u), stride)
        return self.charge[:, knots[:-1], knots[1:]].sum(1)


@torch.no_grad()
def measure_steps(
    denoiser: Denoiser,
    data: torch.Tensor | np.ndarray,
    nodes: int = 65,
    *,
    generator: torch.Generator | None = None,
    batch_size: int = 256,
    condition: Any = None,
) -> StepCharges:
    """Measure the charges in nats of all steps between `nodes` levels on data (n, *shape).

    nodes: odd, at least 3, even in the log clock. `condition` (n, ...) goes row by row. Keeps
    n N^2 numbers. Raises InputError on fewer than two rows, and on other processes than jumps.

    >>> import torch
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.plan import measure_steps
    >>> from reverie.processes import Uniform
    >>> rows = torch.tensor([[0, 1], [0, 2], [2, 1], [3, 3]]).repeat(50, 1)
    >>> denoiser, noise = Memoriser(Uniform(4, sites=2), rows), torch.Generator().manual_seed(0)
    >>> charges = measure_steps(denoiser, rows, nodes=9, generator=noise)
    >>> charges.expected.shape, charges.plan(steps=8).steps
    ((9, 9), 8)
    """
    process = denoiser.process
    if type(process).expected_charge is Process.expected_charge:
        raise InputError("steps are measured where a process has expected_charge, as jumps have")
    rows = process.space.check(as_points(denoiser, data))
    if nodes < 3 or nodes % 2 == 0:
        raise InputError(f"nodes is {nodes}; it must be odd, at least 3")
    if len(rows) < 2:
        raise InputError("step charges need at least two rows of data")
    condition = condition_rows(condition, len(rows), rows)
    times = level_times(process, nodes)
    charge = np.zeros((len(rows), nodes, nodes), np.float32)
    expected = np.zeros((nodes, nodes))
    with evaluating(denoiser):
        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            extra = None if condition is None else condition[part]
            priced, guessed = _charges(denoiser, process, rows[part], times, extra, generator)
            charge[part] = priced
            expected += guessed.sum(0) / len(rows)
    clock = process.clock(torch.as_tensor(times)).numpy()
    return StepCharges(clock, times, charge, expected, process)


def _charges(
    denoiser: Denoiser,
    process: Process,
    x: torch.Tensor,
    times: np.ndarray,
    condition: Any,
    generator: torch.Generator | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Charges (B, N, N) of one block over its own symbols, and over the predictions'."""
    batch = len(x)
    # one noise for all nodes of a row: the path through them must not chase lucky draws
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    charge, expected = np.zeros((2, batch, len(times), len(times)))
    for i, t in enumerate(times[:-1]):
        same = torch.Generator(x.device).manual_seed(seed)
        state = process.corrupt(x, float(t), generator=same)
        prediction = denoiser(
            state, torch.full((batch,), float(t), dtype=torch.float64), condition
        )
        for j in range(i + 1, len(times)):
            nats = process.charge(
                lambda state, t, guess=prediction: guess, x, state, float(t), float(times[j])
            )
            charge[:, i, j] = nats.cpu().numpy()
            mean = process.expected_charge(prediction, state, float(t), float(times[j]))
            expected[:, i, j] = mean.cpu().numpy()
    return charge, expected


AnyPlan = Plan | MeasuredPlan  # read off a curve, or measured step by step


def _distinct(knots: np.ndarray, last: int) -> np.ndarray:
    """Increasing knots from 0 to `last`, each at least one after the one before."""
    count = len(knots) - 1
    for k in range(1, count + 1):
        knots[k] = max(knots[k], knots[k - 1] + 1)
    return np.minimum(knots, last - count + np.arange(count + 1))
