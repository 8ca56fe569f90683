"""A fitted bridge: solvers by name, what can be asked of it, and its folder.

A folder holds `bridge.json` (solver, reference, settings, the form of both ends) and
`bridge.safetensors`; both are written atomically and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from reverie.bridges.base import Bridge
from reverie.bridges.chain import ChainBridge
from reverie.bridges.coupling import (
    Coupling,
    Independent,
    MinibatchSinkhorn,
    Paired,
)
from reverie.bridges.gaussian import GaussianBridge
from reverie.bridges.light import LightSB
from reverie.bridges.matching import NetworkBridge, fit_matching
from reverie.bridges.process import pairs_for
from reverie.bridges.reference import Reference, reference_named
from reverie.bridges.sinkhorn import SinkhornBridge, sinkhorn
from reverie.curve import LossCurve, measure
from reverie.data import Dataset, Scaler
from reverie.data import load as load_rows
from reverie.errors import InputError
from reverie.files import new_folder, read_json, write_bytes, write_json

SOLVERS = ("lightsb", "dsbm", "sf2m", "dsb", "gaussian", "sinkhorn")
LIGHT_DIM = 100  # coordinates up to which LightSB is the default
POINTS = 5000  # rows of an end that the Sinkhorn solver holds
MINIBATCH, ROUNDS, ITERATIONS, STEPS = 256, 4, 10, 2000
JSON, TENSORS = "bridge.json", "bridge.safetensors"
Progress = Callable[[int, int], None]


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

    def sample(
        self, x: Any, *, reverse: bool = False, steps: int = 50, seed: int = 0
    ) -> np.ndarray:
        """Far ends of rows x of the first end, or of the second if `reverse`, in their type.

        steps: of the simulated path, for network solvers; the others draw from the exact plan.
        """
        near, far = self._ends(reverse)
        draw = torch.Generator().manual_seed(seed)
        start = self._points(x, near)
        found = self.bridge.sample(start, reverse=reverse, steps=steps, generator=draw)
        return _rows(found * self._unit, far)

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

        b: None takes the ends that the bridge draws for a. Its rate is path KL in nats per unit of
        the far end's signal-to-noise ratio, so that `plan_steps` reads it.
        """
        x0 = self._points(a, self.first)
        if b is None:
            x1 = self.bridge.sample(x0, generator=torch.Generator().manual_seed(seed))
        else:
            x1 = Paired(x0, self._points(b, self.second)).b
        told = (x1 if reverse else x0) if self.paired else None
        return measure(
            self.bridge.denoiser(reverse=reverse),
            pairs_for(x0, x1, reverse=reverse),
            levels,
            condition=told,
            generator=torch.Generator().manual_seed(seed),
        )

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
            write_json(folder / JSON, self.to_json())
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
    def load(cls, path: str | Path) -> BridgeRun:
        """Read a folder that `save` wrote; InputError where it is damaged or no bridge."""
        path = Path(path)
        if not (path / JSON).exists():
            raise InputError(f"{path} is not the folder of a bridge: it has no {JSON}")
        told = read_json(path / JSON)
        try:
            tensors = load((path / TENSORS).read_bytes())
            reference = reference_named(told["reference"], told["sigma"])
            bridge = _rebuilt(told["solver"], told["settings"], tensors, reference)
            ends = [Scaler(**form) for form in told["ends"]]
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
    seed: int = 0,
    progress: Progress | None = None,
) -> BridgeRun:
    """Fit a Schrodinger bridge from the law of rows a to that of rows b.

    a, b: whatever `fit` takes; both ends have points of one shape, and rows come back in the
    user's units. standardise: divide every coordinate by its mean deviation within an end, so that
    none counts by its unit alone; None does so for tables of columns.
    solver: lightsb (default up to 100 coordinates), dsbm (default above, and of pairs), sf2m, dsb
    (mean matching by regression), gaussian, sinkhorn. sigma: of the reference (default: the mean
    deviation of both ends' coordinates); reference: brownian, ou:pull=P, or a Gaussian process.
    paired: row i of a belongs to row i of b, and paths are told where they began. steps: of a fit;
    rounds: refits of dsbm, iterations of dsb. Raises InputError on ends that do not fit together.

    >>> import numpy as np
    >>> from reverie import bridge
    >>> rng = np.random.default_rng(0)
    >>> young, old = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 3
    >>> run = bridge(young, old, solver="gaussian")
    >>> run.sample(young).mean(0).round(1), run.sample(old, reverse=True).mean(0).round(1)
    (array([2.9, 3. ]), array([-0.2,  0. ]))
    """
    first, second = load_rows(a).check(2, constants=True), load_rows(b).check(2, constants=True)
    if first.shape != second.shape:
        raise InputError(
            f"the ends have points of shape {first.shape} and {second.shape}; a bridge needs the "
            "same"
        )
    forms = Scaler.fit(first), Scaler.fit(second)
    x0, x1 = (_points(rows, form) for rows, form in zip((first, second), forms, strict=True))
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
    coupling = _coupling(name, x0, x1, noise, paired)
    found = _solve(name, coupling, noise, steps, rounds, seed, progress)
    own = None if units is None else units.tolist()
    return BridgeRun(found, name, float(sigma), reference, *forms, paired, own)


def _coupling(solver: str, x0: Tensor, x1: Tensor, reference: Reference, paired: bool) -> Coupling:
    if paired:
        return Paired(x0, x1)
    if solver == "sf2m":
        return MinibatchSinkhorn(x0, x1, reference, MINIBATCH)
    return Independent(x0, x1)


def _solve(
    solver: str,
    ends: Coupling,
    reference: Reference,
    steps: int | None,
    rounds: int | None,
    seed: int,
    progress: Progress | None,
) -> Bridge:
    generator = torch.Generator().manual_seed(seed)
    if solver == "gaussian":
        return GaussianBridge.fit(ends.a, ends.b, reference)
    if solver == "sinkhorn":
        if max(len(ends.a), len(ends.b)) > POINTS:
            raise InputError(f"the sinkhorn solver holds {POINTS:,} rows an end; choose another")
        return SinkhornBridge(ends.a, ends.b, reference)
    if solver == "lightsb":
        return LightSB.fit(
            ends, reference, steps=steps or STEPS, generator=generator, progress=progress
        )
    if solver == "dsb":
        fits = ITERATIONS if rounds is None else max(rounds, 1)
        return ChainBridge.fit(
            ends, reference, iterations=fits, generator=generator, progress=progress
        )
    told_start = isinstance(ends, Paired)
    refits = 0 if solver == "sf2m" or told_start else (ROUNDS if rounds is None else rounds)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fit_matching(
            ends,
            reference,
            rounds=refits,
            steps=steps or STEPS,
            told_start=told_start,
            generator=generator,
            progress=progress,
        )


def _rebuilt(
    solver: str, settings: dict[str, Any], tensors: dict[str, Tensor], reference: Reference
) -> Bridge:
    """The bridge of a folder. KeyError, RuntimeError where its pieces do not fit."""
    if solver == "gaussian":
        m = reference.last_scale
        mean, cov = tensors["mean1"] * m, tensors["cov1"] * m**2
        return GaussianBridge(tensors["mean0"], tensors["cov0"], mean, cov, reference)
    if solver == "sinkhorn":
        return SinkhornBridge.of(tensors, reference, settings["error"])
    if solver == "lightsb":
        made: Bridge = LightSB(
            settings["dim"], reference, settings["components"], settings["unit"]
        )
    elif solver == "dsb":
        own = {k: settings[k] for k in ("steps", "radial", "frozen", "power")}
        made = ChainBridge(settings["dim"], reference, **own)
    elif solver in SOLVERS:
        own = {k: settings[k] for k in ("width", "depth", "told_start")}
        made = NetworkBridge(settings["dim"], reference, **own)
    else:
        raise KeyError(f"no solver is called {solver!r}")
    made.load_state_dict(tensors)
    return made.eval()


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
