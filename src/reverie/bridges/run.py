"""A fitted bridge: solvers by name, what can be asked of it, and its folder.

A folder holds `bridge.json` (solver, reference, settings, the form of both ends) and
`bridge.safetensors`; both are written atomically and nothing is unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.coupling import Paired
from reverie.bridges.process import pairs_for
from reverie.bridges.reference import reference_named
from reverie.bridges.rows import End, split_ends
from reverie.bridges.sinkhorn import sinkhorn
from reverie.bridges.solvers import SOLVERS, Progress, coupling_for, rebuilt, solve
from reverie.curve import LossCurve, measure
from reverie.data import Dataset, Scaler
from reverie.data import load as load_rows
from reverie.errors import InputError
from reverie.files import new_folder, read_json, write_bytes, write_json
from reverie.plan import Plan, plan_steps

LIGHT_DIM = 100  # coordinates up to which LightSB is the default
JSON, TENSORS = "bridge.json", "bridge.safetensors"
ENDS = ("first", "second")


@dataclass(eq=False)
class BridgeRun:
    """What `reverie.bridge` returns. Points are rows (n, *shape) in the user's units.

    units: what a coordinate is divided by before it is bridged, (d,); None leaves all as they are.
    sigma, plans, curves and costs are of divided coordinates.

    >>> import numpy as np
    >>> from reverie import BridgeRun, bridge
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + 3
    >>> run = bridge(a, b, solver="sinkhorn")
    >>> isinstance(run, BridgeRun), run.path(a, steps=4).shape, run.plan(a, b).shape
    (True, (5, 50, 2), (50, 50))
    """

    bridge: Bridge
    solver: str
    sigma: float
    reference: str
    first: Scaler
    second: Scaler
    paired: bool = False
    units: list[float] | None = None
    rows: tuple[End, End] | None = field(default=None, repr=False)

    def sample(
        self,
        x: Any,
        *,
        reverse: bool = False,
        steps: int = 50,
        plan: Plan | None = None,
        seed: int = 0,
    ) -> np.ndarray:
        """Far ends of rows x of the first end, or of the second if `reverse`, in their type.

        steps: of the simulated path, for network solvers; the others draw from the exact plan.
        plan: of this direction (`plan_steps` on its curve), instead of equal steps.
        """
        near, far = self._ends(reverse)
        draw = torch.Generator().manual_seed(seed)
        start = self._points(x, near)
        times = None if plan is None else self.times(plan, reverse=reverse)
        found = self.bridge.sample(
            start, reverse=reverse, steps=steps, times=times, generator=draw
        )
        return _rows(found * self._unit, far)

    def times(self, plan: Plan, *, reverse: bool = False) -> Tensor:
        """Reference times (K + 2,), 0 to 1, of a plan's K steps and the last guess after them."""
        inner = torch.as_tensor(plan.u[1:], dtype=torch.float64)
        process = self.bridge.denoiser(reverse=reverse).process
        between = process.times_of(inner).sort().values
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return torch.cat([ends[:1], between, ends[1:]])

    def path(self, x: Any, *, reverse: bool = False, steps: int = 50, seed: int = 0) -> np.ndarray:
        """Paths (steps + 1, n, *shape), float64, from the first end to the second."""
        near, far = self._ends(reverse)
        draw = torch.Generator().manual_seed(seed)
        start = self._points(x, near)
        rows = self.bridge.path(start, reverse=reverse, steps=steps, generator=draw)
        rows = rows.double() * self._unit
        return rows.numpy().reshape(*rows.shape[:2], *far.shape)

    def plan(self, a: Any, b: Any) -> np.ndarray:
        """The entropic plan (n, m) between rows a and b under this reference, of total mass 1."""
        reference = self.bridge.reference
        y = self._points(b, self.second) / reference.last_scale
        return sinkhorn(self._points(a, self.first), y, reference.epsilon).matrix().numpy()

    def curve(
        self, a: Any, b: Any = None, *, reverse: bool = False, levels: int = 32, seed: int = 0
    ) -> LossCurve:
        """The loss curve of one direction on pairs (a, b), row by row; rows of the first end.

        Either may be None: the bridge then draws it for the other. Its rate is path KL in nats per
        unit of the far end's signal-to-noise ratio, so that `plan_steps` reads it.
        """
        pairs, own = self.pairs(a, b, reverse=reverse, seed=seed)
        return measure(
            self.bridge.denoiser(reverse=reverse, markov=own or self.paired),
            pairs,
            levels,
            condition=pairs[:, 1] if self.paired else None,
            generator=torch.Generator().manual_seed(seed),
        )

    def pairs(
        self, a: Any, b: Any, *, reverse: bool = False, seed: int = 0
    ) -> tuple[Tensor, bool]:
        """Rows (n, 2, d) of `curve`, divided; and whether the bridge drew one end itself."""
        if a is None and b is None:
            raise InputError("a curve needs rows of one end at least")
        draw = torch.Generator().manual_seed(seed)
        x0, x1 = (
            None if rows is None else self._points(rows, form)
            for rows, form in ((a, self.first), (b, self.second))
        )
        if x0 is None:
            assert x1 is not None
            x0 = self.bridge.sample(x1, reverse=True, generator=draw)
        elif x1 is None:
            x1 = self.bridge.sample(x0, generator=draw)
        return pairs_for(x0, Paired(x0, x1).b, reverse=reverse), a is None or b is None

    def plan_steps(
        self, steps: int = 10, method: str = "loss-adaptive", *, reverse: bool = False
    ) -> Plan:
        """The plan of a direction's `steps`, on its curve of held-out rows of the far end.

        Without held-out rows it is that of training rows. InputError where the bridge has neither.
        """
        ends = self.known_rows()
        near, far = ends[::-1] if reverse else ends
        some = far.holdout if len(far.holdout_rows) > 1 else far.train
        start = near.holdout if len(far.holdout_rows) > 1 else near.train
        told = (start if self.paired else None, some)
        a, b = told[::-1] if reverse else told
        return plan_steps(self.curve(a, b, reverse=reverse), steps, method)

    def known_rows(self) -> tuple[End, End]:
        """The rows of both ends; InputError where a bridge of an older folder has none."""
        if self.rows is None:
            raise InputError(
                "this bridge does not know the rows it was fitted on: fit it again with this "
                "release"
            )
        return self.rows

    def transport_cost(self, a: Any, *, seed: int = 0) -> float:
        """Mean |x1 - x0|^2 / 2 of rows a and the ends that the bridge draws for them, divided by
        `units`."""
        x0 = self._points(a, self.first)
        draw = torch.Generator().manual_seed(seed)
        x1 = self.bridge.sample(x0, generator=draw)
        return float(0.5 * (x1 - x0).square().sum(1).mean())

    @property
    def _unit(self) -> Tensor:
        return torch.as_tensor(self.units or [1.0], dtype=torch.float64)

    def points(self, x: Any, *, reverse: bool = False) -> Tensor:
        """Rows of the first end (the second if `reverse`) as vectors (n, d) divided by `units`."""
        return self._points(x, self._ends(reverse)[0])

    def _points(self, x: Any, form: Scaler) -> Tensor:
        """Rows in the user's units as divided vectors (n, d), float64."""
        return _points(x, form) / self._unit

    def _ends(self, reverse: bool) -> tuple[Scaler, Scaler]:
        return (self.second, self.first) if reverse else (self.first, self.second)

    # --- the folder -----------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write a new folder; InputError where `path` is not empty or cannot be written."""
        tensors = {k: v.detach().clone().contiguous() for k, v in self.bridge.state_dict().items()}
        with new_folder(Path(path)) as folder:
            write_bytes(folder / TENSORS, lambda file: file.write(save(tensors)))
            told = self.to_json()
            if self.rows is not None:
                names = zip(self.rows, ENDS, strict=True)
                told["rows"] = [end.write(folder, name) for end, name in names]
            write_json(folder / JSON, told)
        return Path(path)

    def to_json(self) -> dict[str, Any]:
        """What stands in `bridge.json`."""
        return {
            "solver": self.solver,
            "sigma": self.sigma,
            "reference": self.reference,
            "paired": self.paired,
            "units": self.units,
            "settings": self.bridge.settings(),
            "ends": [self.first.to_json(), self.second.to_json()],
        }

    @classmethod
    def load(cls, path: str | Path, *, rows: bool = False) -> BridgeRun:
        """Read a folder that `save` wrote; InputError where it is damaged or no bridge.

        rows: read the rows of both ends too, which `plan_steps` and an audit need.
        """
        path = Path(path)
        if not (path / JSON).exists():
            raise InputError(f"{path} is not the folder of a bridge: it has no {JSON}")
        told = read_json(path / JSON)
        try:
            tensors = load((path / TENSORS).read_bytes())
            reference = reference_named(told["reference"], told["sigma"])
            bridge = rebuilt(told["solver"], told["settings"], tensors, reference)
            ends = [Scaler(**form) for form in told["ends"]]
            kept = told.get("rows") if rows else None
            known = None
            if kept is not None:
                first, second = (
                    End.read(path, name, named, form)
                    for name, named, form in zip(ENDS, kept, ends, strict=True)
                )
                known = first, second
        except (KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path} is damaged: {reason}") from error
        return cls(
            bridge,
            told["solver"],
            told["sigma"],
            told["reference"],
            ends[0],
            ends[1],
            paired=told["paired"],
            units=told.get("units"),
            rows=known,
        )


def bridge(
    a: Any,
    b: Any,
    *,
    solver: str | None = None,
    sigma: float | None = None,
    reference: str = "brownian",
    paired: bool = False,
    standardise: bool | None = None,
    steps: int | None = None,
    rounds: int | None = None,
    holdout: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> BridgeRun:
    """Fit a Schrodinger bridge from the law of rows a to that of rows b.

    a, b: whatever `fit` takes; both ends have points of one shape, and rows come back in the
    user's units. standardise: divide every coordinate by its mean deviation within an end, so that
    none counts by its unit alone; None does so for tables of columns.
    solver: lightsb (default up to 100 coordinates), dsbm (default above, and of pairs), alpha-dsbm
    (one network, no refits), sf2m, dsb (mean matching by regression), gaussian, sinkhorn. sigma:
    of the reference (default: the mean deviation of both ends' coordinates); reference: brownian,
    ou:pull=P, or a Gaussian process. paired: row i of a belongs to row i of b, and paths are told
    where they began. steps: of a fit (of alpha-dsbm twice as many in all); rounds: refits of dsbm,
    iterations of dsb. holdout: rows of each end that are not fitted, so
    that the bridge can be audited (default a fifth; 0 fits all). Raises InputError on ends that do
    not fit together.

    >>> import numpy as np
    >>> from reverie import bridge
    >>> rng = np.random.default_rng(0)
    >>> young, old = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 3
    >>> run = bridge(young, old, solver="gaussian", holdout=0)
    >>> run.sample(young).mean(0).round(1), run.sample(old, reverse=True).mean(0).round(1)
    (array([2.9, 3. ]), array([-0.2,  0. ]))
    """
    first, second = load_rows(a).check(2, constants=True), load_rows(b).check(2, constants=True)
    if first.shape != second.shape:
        raise InputError(
            f"the ends have points of shape {first.shape} and {second.shape}; a bridge needs the "
            "same"
        )
    ends = split_ends(first, second, holdout, paired, seed)
    forms = Scaler.fit(first), Scaler.fit(second)
    x0, x1 = (_points(end.train, form) for end, form in zip(ends, forms, strict=True))
    units = None
    if first.kind == "table" if standardise is None else standardise:
        spread = (0.5 * (x0.var(0) + x1.var(0))).sqrt()
        units = torch.where(spread > 0, spread, 1.0)
        x0, x1 = x0 / units, x1 / units
    name = solver or ("lightsb" if x0.shape[1] <= LIGHT_DIM and not paired else "dsbm")
    if name not in SOLVERS:
        raise InputError(f"no solver is called {name!r}; choose {', '.join(SOLVERS)}")
    if paired and name not in ("dsbm", "sf2m"):
        raise InputError(f"{name} finds its own pairs; paired ends are fitted by dsbm")
    if sigma is None:
        sigma = float((0.5 * (x0.var(0).mean() + x1.var(0).mean())).sqrt()) or 1.0
    noise = reference_named(reference, sigma)
    coupling = coupling_for(name, x0, x1, noise, paired)
    found = solve(name, coupling, noise, steps, rounds, seed, progress)
    own = None if units is None else units.tolist()
    return BridgeRun(found, name, float(sigma), reference, *forms, paired, own, ends)


def _points(x: Any, form: Scaler) -> Tensor:
    """Rows in the user's units as vectors (n, d), float64."""
    data = x if isinstance(x, Dataset) else load_rows(x)
    if list(data.shape) != list(form.shape):
        raise InputError(
            f"{data.source} has points of shape {data.shape}; this end of the bridge has "
            f"{tuple(form.shape)}"
        )
    return torch.from_numpy(data.values.reshape(len(data), -1).astype(np.float64))


def _rows(points: Tensor, form: Scaler) -> np.ndarray:
    """Vectors (n, d) back in the shape and type of an end."""
    raw = points.double().numpy().reshape(len(points), *form.shape)
    mean, std = (torch.as_tensor(v, dtype=torch.float64) for v in (form.mean, form.std))
    scaled = (torch.from_numpy(raw) - _fit(mean, form)) / _fit(std, form)
    return form.to_user(scaled)


def _fit(row: Tensor, form: Scaler) -> Tensor:
    return row if len(row) == 1 else row.reshape(form.shape)
