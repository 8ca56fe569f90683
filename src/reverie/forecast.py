"""How much data, before any training: what a linear model of the data's own spectrum would do.

The law's spectrum is read off all rows; the theory then says, without simulation, what a linear
diffusion model fitted to N of them costs on training and on fresh rows at each noise level, how
its KL falls with N, and what weight decay or a stopping time would buy. The same linear model is
fitted and measured beside it, as a check of the theory on these very data.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.model.risk import RowRisk, row_risk
from reverie.curve import LossCurve
from reverie.data import Dataset, Scaler, load, split
from reverie.denoisers import Linear
from reverie.errors import InputError
from reverie.processes import GaussianProcess, build
from reverie.runs.run import Run
from reverie.templates import Card, Shown
from reverie.theory import CriticalTime, LinearTheory, spectrum_of

PROCESS = "edm:sigma_min=0.02,sigma_max=40"
LEVELS = 64
WIDEST = 4096  # above this many coordinates the measured curves are left out
BLOCK = 4096
BLIND_SPOTS = (
    "A linear model knows means and covariances only: clusters, edges and all other structure "
    "beyond second moments do not exist for it. A network needs more data for them, or less where "
    "they make the data simple.",
    "It never reproduces a record: its memorisation is an overfitted spectrum and missing "
    "directions. Whether a network copies is asked of its samples, with reverie audit.",
    "The curves are asymptotic (error of order 1/d) and take the data as Gaussian-like: heavy "
    "tails and nearly constant coordinates bend them, most at high signal-to-noise and small "
    "ridge.",
)


@dataclass(frozen=True, eq=False, repr=False)
class Forecast(Shown):
    """Predictions of linear theory for one data set; KL per dimension and areas in nats.

    curves: "theory train", "theory test", "oracle", and, where measured, "linear train" and
    "linear holdout" of the fitted model; "network train", "network holdout" of a given run.
    """

    source: str
    rows: int
    n: int
    dim: int
    constant: int
    ridge: float
    spectrum: np.ndarray = field(repr=False)
    spectrum_error: float
    curves: dict[str, LossCurve] = field(repr=False)
    sizes: np.ndarray = field(repr=False)  # N
    kl_plain: np.ndarray = field(repr=False)  # per dimension, no ridge, exact expectation
    kl_ridge: np.ndarray = field(repr=False)  # per dimension, best ridge of every N, asymptotic
    budget: float
    needed: dict[str, float]
    kl_now: dict[str, float]
    best_ridge: float
    best_time: float
    speciation: CriticalTime
    collapse: CriticalTime
    risk: RowRisk | None = field(default=None, repr=False)  # of all rows, as the file numbers them

    @property
    def gap(self) -> float:
        """Predicted nats between fresh and training rows over the curve's range."""
        return self.curves["theory test"].area() - self.curves["theory train"].area()

    @property
    def measured_gap(self) -> float | None:
        if "linear holdout" not in self.curves:
            return None
        return self.curves["linear holdout"].area() - self.curves["linear train"].area()

    @property
    def trouble(self) -> float:
        """Signal-to-noise ratio at which the predicted gap per e-fold is largest."""
        train, test = self.curves["theory train"], self.curves["theory test"]
        return float(train.u[np.argmax(train.u * (test.rate - train.rate))])

    @property
    def error(self) -> float | None:
        """Largest relative distance of the predicted test curve from the measured one."""
        if "linear holdout" not in self.curves:
            return None
        measured = self.curves["linear holdout"].rate
        return float(np.abs(self.curves["theory test"].rate / measured - 1).max())

    def network_distance(self) -> float | None:
        """Nats by which a network's held-out area lies under (< 0) the predicted linear one."""
        if "network holdout" not in self.curves:
            return None
        network, theory = self.curves["network holdout"], self.curves["theory test"]
        low, high = (f(network.u[i], theory.u[i]) for f, i in ((max, 0), (min, -1)))
        return network.area(low, high) - theory.area(low, high)

    def sentences(self) -> list[str]:
        """The forecast in words."""
        measured = "" if self.measured_gap is None else f" (measured: {self.measured_gap:.3g})"
        lines = [
            f"Fitted to {self.n:,} rows, a linear model with ridge {self.ridge:g} pays "
            f"{self.gap:.3g} nats more on a fresh row than on a training row{measured}, most "
            f"of it around a signal-to-noise ratio of {self.trouble:.3g}.",
            f"Its KL per dimension falls below {self.budget:g} nats from "
            f"N = {_count(self.needed['no ridge'])} on without weight decay (exact expectation), "
            f"from N = {_count(self.needed['best ridge'])} on with the best weight decay of each "
            "N (asymptotic).",
            f"At N = {self.n:,} the KL per dimension is {_nats(self.kl_now['no ridge'])} without "
            f"weight decay, {_nats(self.kl_now['best ridge'])} with the best ridge "
            f"({self.best_ridge:.3g} of the mean variance), "
            f"{_nats(self.kl_now['best time'])} when stopped at the best time "
            f"(learning rate x steps = {self.best_time:.3g}).",
            self._times(),
        ]
        if self.error is not None:
            lines.append(
                f"Predicted and measured test curves of the linear model differ by at most "
                f"{self.error:.1%} at any noise level."
            )
        if self.risk is not None:
            lines.append(self.risk.sentence())
        distance = self.network_distance()
        if distance is not None:
            side = "fewer" if distance < 0 else "more"
            lines.append(
                f"The given network pays {abs(distance):.3g} nats {side} on fresh rows than the "
                "linear model is predicted to."
            )
        return lines

    def _times(self) -> str:
        speciation = (
            f"a sampler chooses the main direction near sigma = {self.speciation.sigma:.3g}"
            if self.speciation.sigma > 0
            else "no direction stands out of the noise (leading variance below 1)"
        )
        return (
            f"In units of the data's deviation, {speciation}, and the exact optimum of the "
            "training loss would collapse onto single rows below sigma = "
            f"{self.collapse.sigma:.3g}."
        )

    def card(self) -> Card:
        """KL per dimension now and the rows that the budget needs, by how the model is held."""
        rows = [
            (how, _nats(self.kl_now[how]), _count(self.needed[how]) if how in self.needed else "")
            for how in self.kl_now
        ]
        header = (f"at N = {self.n:,}", "KL per dimension", f"N for {self.budget:g} nats")
        return Card(self.sentences()[0], header, rows, self._draw)

    def _draw(self, ax: Any) -> None:
        ax.loglog(self.sizes, self.kl_plain, label="no weight decay")
        ax.loglog(self.sizes, self.kl_ridge, label="best weight decay")
        ax.axhline(self.budget, color="#6b7280", lw=0.8, ls=":")
        ax.set_xlabel("training rows N")
        ax.set_ylabel("KL per dimension (nats)")
        ax.legend(frameon=False, fontsize=8)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; infinite needs are null."""
        return {
            "source": self.source,
            "rows": self.rows,
            "n": self.n,
            "dim": self.dim,
            "constant": self.constant,
            "ridge": self.ridge,
            "gap": self.gap,
            "measured_gap": self.measured_gap,
            "trouble": self.trouble,
            "largest_error": self.error,
            "budget": self.budget,
            "needed": {k: _finite(v) for k, v in self.needed.items()},
            "kl_now": {k: _finite(v) for k, v in self.kl_now.items()},
            "best_ridge": self.best_ridge,
            "best_time": self.best_time,
            "speciation": {k: _finite(v) for k, v in asdict(self.speciation).items()},
            "collapse": asdict(self.collapse),
            "risk": None if self.risk is None else self.risk.to_json(),
            "network_distance": self.network_distance(),
            "sizes": self.sizes.tolist(),
            "kl_plain": [_finite(v) for v in self.kl_plain.tolist()],
            "kl_ridge": self.kl_ridge.tolist(),
            "spectrum": self.spectrum.tolist(),
            "spectrum_error": self.spectrum_error,
            "curves": {k: c.to_json() for k, c in self.curves.items()},
            "sentences": self.sentences(),
            "cannot_see": list(BLIND_SPOTS),
        }


def predict(
    data: Any,
    n: int | None = None,
    *,
    budget: float = 0.1,
    ridge: float = 0.05,
    run: Run | None = None,
    seed: int = 0,
) -> Forecast:
    """Forecast what a linear diffusion model of `data` would do, in seconds and without training.

    data: whatever `reverie.data.load` takes. n: training rows, default all that `fit` would not
    hold out. budget: nats of KL per dimension. ridge: added to every variance of the linear model,
    in units of the mean variance; it holds nearly dead coordinates. run: a fitted run whose curves
    to set beside. Raises InputError on bad data, n, budget or ridge.

    >>> import numpy as np
    >>> from reverie import predict
    >>> data = np.random.default_rng(0).normal(size=(500, 8))
    >>> forecast = predict(data, budget=0.1)
    >>> forecast.needed["no ridge"]  # rows for .1 nats a dimension
    43.0
    """
    if not budget > 0 or not ridge >= 0:
        raise InputError(f"budget is {budget} and ridge {ridge}; need budget > 0 and ridge >= 0")
    dataset = load(data).moving().check(rows=4)
    if dataset.kind == "text":
        raise InputError(f"{dataset.source} is text: a forecast is of numbers")
    train, held, _ = split(dataset, n, None, seed)
    if len(train) < 3:
        raise InputError(f"n is {len(train)}; a covariance needs at least 3 rows")
    process = build(PROCESS)
    points = Scaler.fit(dataset).to_model(dataset.values).flatten(1)
    law = spectrum_of(points)
    theory = LinearTheory(law, n=len(train), ridge=ridge, process=process, mean="estimated")
    curves = _theory_curves(theory)
    if points.shape[1] <= WIDEST and len(held) > 1:
        clock = curves["theory test"].u
        curves |= _measured_curves(process, points, train, held, ridge, clock)
    if run is not None:
        curves |= {f"network {k}": run.curves[k] for k in ("train", "holdout") if k in run.curves}
    return replace(
        _forecast(theory, dataset, law, curves, budget, ridge), risk=row_risk(points.numpy())
    )


def _theory_curves(theory: LinearTheory) -> dict[str, LossCurve]:
    return {
        "theory train": theory.train_curve(),
        "theory test": theory.test_curve(),
        "oracle": theory.oracle_curve(),
    }


def _measured_curves(
    process: GaussianProcess,
    points: Tensor,
    train: np.ndarray,
    held: np.ndarray,
    ridge: float,
    clock: np.ndarray,
) -> dict[str, LossCurve]:
    """Exact rates of the fitted linear denoiser on the training and on the held-out rows."""
    mean, covariance = _moments(points, train)
    spectrum, basis = torch.linalg.eigh(covariance)
    linear = Linear(process, mean, spectrum.clamp(min=0) + ridge, basis)
    curves = {}
    for name, moments in (("train", (mean, covariance)), ("holdout", _moments(points, held))):
        rate = linear.exact_rate(clock, *moments)
        curves[f"linear {name}"] = LossCurve(clock, rate, process=process, dim=len(mean))
    return curves


def _moments(points: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d), 1/n, in float64, streamed over rows."""
    index = torch.as_tensor(rows)
    mean = torch.zeros(points.shape[1], dtype=torch.float64)
    for part in index.split(BLOCK):
        mean += points[part].double().sum(0) / len(rows)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in index.split(BLOCK):
        centred = points[part].double() - mean
        covariance.addmm_(centred.T, centred, alpha=1 / len(rows))
    return mean, covariance


def _forecast(
    theory: LinearTheory,
    dataset: Dataset,
    law: Any,
    curves: dict[str, LossCurve],
    budget: float,
    ridge: float,
) -> Forecast:
    dim, n = theory.dim, theory.n
    assert n is not None
    plain = theory.at(ridge=0.0)
    best = plain.optimal_ridge()
    time = plain.optimal_time()
    sizes = np.unique(np.geomspace(max(dim / 8, 4), 100 * dim, 33).round()).astype(int)
    tuned = [plain.at(n=int(size)) for size in sizes]
    return Forecast(
        source=dataset.source,
        rows=len(dataset),
        n=n,
        dim=dim,
        constant=theory.constant,
        ridge=ridge,
        spectrum=law.values,
        spectrum_error=law.error,
        curves=curves,
        sizes=sizes,
        kl_plain=np.asarray(plain.expected_kl(sizes)) / dim,
        kl_ridge=np.array([t.at(ridge=t.optimal_ridge()).kl() / dim for t in tuned]),
        budget=budget,
        needed={
            "no ridge": plain.critical_n(budget, 0.0),
            "best ridge": plain.critical_n(budget, "optimal"),
        },
        kl_now={
            "no ridge": float(plain.expected_kl()) / dim,
            "best ridge": plain.at(ridge=best).kl() / dim,
            "best time": plain.at(time=time).kl() / dim,
        },
        best_ridge=best,
        best_time=time,
        speciation=theory.speciation_time(),
        collapse=theory.collapse_time(n),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _count(value: float) -> str:
    return f"{math.ceil(value):,}" if math.isfinite(value) else "no N"


def _nats(value: float) -> str:
    return f"{value:.3g} nats" if math.isfinite(value) else "infinite (N <= d + 1)"
