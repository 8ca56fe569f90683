"""Sweeps: how the memorised share falls with N, and rises with epochs and width.

Held-out rows in the samples' place are the null of the memorised share (see
`auditing.memorisation`). Effective model memorisation, EMM, is the largest N of which at least 90%
of the samples are memorised (Gu et al. 2023).

One run directory and one line of `sweep.csv` per fit; the same command continues where it was
stopped, and more values may be added to a sweep that is done. Fits go to as many workers as there
are (see `reverie.workers`): each takes its data from its own folder, and the table is the same.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from reverie.auditing.metrics.memorisation import Emm, effective_memorisation, memorised_rows
from reverie.auditing.nulls.rank_tests import wilson
from reverie.data import Dataset, load, split
from reverie.errors import InputError
from reverie.files import read_json, write_json, write_text
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit
from reverie.runs.folder import Own
from reverie.runs.opening import begin
from reverie.runs.readings import draw_paired
from reverie.runs.run import Run
from reverie.runs.trainer import Event, Trainer
from reverie.workers.pieces import HERE, Piece, Tell, Ticker, Workers, agreed_threads
from reverie.workers.spreading import spread

SAMPLES = 500
COUNTS = ("hits", "best_hits", "null_hits")
Hooks = Callable[[str, FitConfig], Any]


@dataclass(frozen=True)
class Line:
    """Fits that differ in one setting (and the seed, over which they are pooled)."""

    label: str
    axis: str
    places: list[float]
    samples: list[int]
    hits: list[int]  # memorised at the end
    best_hits: list[int]  # at the snapshot with the most
    null_count: list[int]
    null_hits: list[int]

    def emm(self, best: bool = False) -> Emm | None:
        """EMM at the end, or over the highest snapshots; None where N is not what varies."""
        if self.axis != "n":
            return None
        hits = self.best_hits if best else self.hits
        return effective_memorisation(
            self.places, [h / c for h, c in zip(hits, self.samples, strict=True)]
        )


@dataclass(frozen=True, eq=False)
class Sweep:
    """The table of a sweep: `rows` as in sweep.csv, `axes` the settings that vary."""

    source: str
    axes: list[str]
    rows: list[dict[str, Any]]

    def lines(self) -> list[Line]:
        """The rows along N (or the first axis that varies), one line per rest of the settings."""
        axis = "n" if "n" in self.axes else self.axes[0]
        others = [name for name in self.axes if name not in (axis, "seed")]
        groups: dict[tuple, dict[float, list[dict[str, Any]]]] = {}
        for row in self.rows:
            key = tuple(row[name] for name in others)
            groups.setdefault(key, {}).setdefault(row[axis], []).append(row)
        result = []
        for key, places in groups.items():
            label = ", ".join(f"{k} {v:g}" for k, v in zip(others, key, strict=True))
            order = sorted(places)

            def pooled(
                name: str, order: list[float] = order, places: dict[float, Any] = places
            ) -> list[int]:
                return [sum(row[name] for row in places[place]) for place in order]

            counts = {name: pooled(name) for name in ("samples", *COUNTS, "null_count")}
            result.append(Line(label, axis, order, **counts))
        return result

    def to_json(self) -> dict[str, Any]:
        """Plain values: the rows, and EMM along every line in N."""
        emm = [
            {"line": line.label, "final": str(line.emm()), "highest": str(line.emm(best=True))}
            for line in self.lines()
            if line.axis == "n"
        ]
        return {"source": self.source, "axes": self.axes, "rows": self.rows, "emm": emm}


def sweep(
    data: Any,
    out: str | Path,
    over: Mapping[str, Sequence[float]],
    *,
    config: FitConfig | None = None,
    samples: int = SAMPLES,
    hooks: Hooks | None = None,
    workers: Workers = HERE,
    progress: Ticker | None = None,
) -> Sweep:
    """Fit every combination of the settings in `over`, or continue to; returns the table.

    over: numeric fields of FitConfig, or `epochs`, with their values. All fits hold out the same
    rows, and smaller N are parts of larger ones (at one seed). samples: drawn at every check of a
    fit (config.check_every), so that the highest share over snapshots is known too. hooks(name,
    config) may return a callback for the events of that fit, where fits are made in this process.
    workers: where fits are made; their number of threads is kept in sweep.json and stays, so that
    the table is the same, bit for bit, wherever it is continued. progress: told the steps that are
    done, and all. Raises InputError on bad settings or data, before the first fit, on an `out`
    that holds a sweep of other data or settings, or, after the others, on fits that failed.

    >>> import tempfile
    >>> import numpy as np
    >>> from reverie import sweep
    >>> from reverie.runs import FitConfig
    >>> data = np.random.default_rng(0).normal(size=(300, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = FitConfig(steps=10, width=8, depth=1, check_every=10)
    ...     table = sweep(data, f"{folder}/sweep", {"n": [20, 40]}, config=config, samples=20)
    >>> [(row["n"], row["samples"]) for row in table.rows]
    [(20, 20), (40, 20)]
    """
    dataset, path = load(data).check(constants=True), Path(out)
    base = (config or FitConfig()).check()
    if samples < 1:
        raise InputError(f"samples is {samples}; it must be at least 1")
    held = len(split(dataset, None, base.holdout, base.seed)[1])
    if held < 1:
        raise InputError("a sweep needs held-out rows: they are the null of the memorised share")
    base = replace(base, holdout=held)
    fits = _grid(dataset, base, over)
    note = {"sha256": dataset.sha256(), "config": base.to_json(), "samples": samples}
    rows, threads = _open(path, note, workers.check())
    note |= {"threads": threads}
    known = {name: settings for name, settings, _ in fits}
    pieces = [
        _piece(name, chosen, path / "fits" / name, samples, None if workers.here else dataset)
        for name, _, chosen in fits
        if name not in rows
    ]
    done = spread(
        _fitted, pieces, workers=workers, shared=(dataset, hooks) if workers.here else None,
        threads=threads, folder=path, gpu=base.device.startswith("cuda"), progress=progress,
    )  # fmt: skip
    for name, row in done:
        rows[name] = {"fit": name} | known[name] | row
        # by settings and not by time, so that the files are the same whoever was first
        first = [n for n in rows if n not in known]
        rows = {n: rows[n] for n in (*first, *(n for n in known if n in rows))}
        _write(path, note, rows)
    return Sweep(dataset.source, list(over), [rows[name] for name in known])


def _piece(
    name: str, config: FitConfig, folder: Path, samples: int, data: Dataset | None
) -> Piece:
    """A fit; with `data` its folder is begun before it is given away, and holds all it needs."""

    def prepare() -> None:
        if not (folder / "config.json").exists():
            begin(data, config, folder, Own())

    return Piece(
        name, (name, config, folder, samples), config.steps, None if data is None else prepare
    )


def _fitted(
    given: tuple[str, FitConfig, Path, int],
    shared: tuple[Dataset, Hooks | None] | None,
    tell: Tell,
) -> dict[str, Any]:
    """Make one fit, or continue to; its figures. shared: where the parent is this very process."""
    name, config, folder, samples = given
    data, hooks = shared or (None, None)
    own = hooks(name, config) if hooks is not None else None

    def look(event: Event, trainer: Trainer) -> None:
        tell(event.step)
        if own is not None:
            own(event, trainer)

    watch = _Watch(folder / "snapshots.json", samples, look)
    run = fit(data, config=config, out=folder, resume=True, on_event=watch)
    return watch.row(run)


def _grid(
    data: Dataset, base: FitConfig, over: Mapping[str, Sequence[float]]
) -> list[tuple[str, dict[str, float], FitConfig]]:
    """Name, settings and configuration of every fit; all of them checked."""
    typed = {name: [_typed(name, v) for v in values] for name, values in over.items()}
    if not typed:
        raise InputError("a sweep needs settings to go over, as n=50,100,200")
    if {"epochs", "steps"} <= set(typed):
        raise InputError("sweep over epochs or over steps, not both: one follows from the other")
    for name, values in typed.items():
        if not values or len(set(values)) < len(values):
            raise InputError(f"the values of {name} must be different, and at least one")
    fits = []
    for values in itertools.product(*typed.values()):
        settings = dict(zip(typed, values, strict=True))
        plain: dict[str, Any] = {k: v for k, v in settings.items() if k != "epochs"}
        chosen = replace(base, **plain)
        train = split(data, chosen.n, chosen.holdout, chosen.seed)[0]
        if "epochs" in settings:
            steps = round(settings["epochs"] * len(train) / chosen.batch_size)
            chosen = replace(chosen, steps=max(steps, 1))
        name = ",".join(f"{k}={v:g}" for k, v in settings.items())
        fits.append((name, settings, chosen.check()))
    return fits


def _typed(name: str, value: float) -> float:
    """A value as the type of its setting, or InputError."""
    kinds = {f.name: str(f.type).split()[0] for f in fields(FitConfig)} | {"epochs": "float"}
    numeric = [k for k, kind in kinds.items() if kind in ("int", "float") and k != "holdout"]
    if name not in numeric:  # the same rows are held out of all fits
        raise InputError(f"cannot sweep over {name!r}; choose among {', '.join(numeric)}")
    if name == "epochs" and not value > 0:
        raise InputError(f"epochs is {value:g}; it must be positive")
    if kinds[name] == "float":
        return float(value)
    if value != int(value):
        raise InputError(f"{name} is {value:g}; it must be a whole number")
    return int(value)


class _Watch:
    """Counts memorised samples at every check of a fit, and keeps them beside the run."""

    def __init__(self, path: Path, samples: int, own: Callable[[Event, Trainer], None]) -> None:
        self.path, self.samples, self.own = path, samples, own
        kept = read_json(path) if path.exists() else {"null": [0, 0], "steps": {}}
        self.null: list[int] = kept["null"]
        self.steps: dict[str, Any] = kept["steps"]

    def __call__(self, event: Event, trainer: Trainer) -> None:
        if event.row is not None:
            self._count(event, trainer)
        self.own(event, trainer)  # last: it may be interrupted, and a check is not made twice

    def _count(self, event: Event, trainer: Trainer) -> None:
        assert event.row is not None
        assert trainer.holdout is not None
        train = trainer.train.flatten(1).cpu().numpy()
        shape = tuple(trainer.train.shape[1:])
        with trainer.averaged() as network:
            drawn = draw_paired(network, shape, self.samples, seed=trainer.config.seed)
        held = trainer.holdout.flatten(1).cpu().numpy()
        self.null = [memorised_rows(held, train), len(held)]
        hits = memorised_rows(drawn.flatten(1).cpu().numpy(), train)
        self.steps[str(event.step)] = {"hits": hits, "leak": event.row.get("leak")}
        write_json(self.path, {"null": self.null, "steps": self.steps})

    def row(self, run: Run) -> dict[str, Any]:
        """The line of a finished fit."""
        config, step, n = run.config, run.step, len(run.train)
        last = self.steps[str(step)]
        best = max(self.steps, key=lambda s: (self.steps[s]["hits"], -int(s)))
        hits, best_hits = last["hits"], self.steps[best]["hits"]
        low, high = wilson(hits, self.samples)
        null_low, null_high = wilson(*self.null)
        return {
            "n": n, "steps": step, "width": config.width, "seed": config.seed,
            "epochs": step * config.batch_size / n,
            "share": hits / self.samples, "low": low, "high": high,
            "best_share": best_hits / self.samples, "best_step": int(best),
            "null_share": self.null[0] / self.null[1], "null_low": null_low,
            "null_high": null_high, "leak": last["leak"],
            "samples": self.samples, "hits": hits, "best_hits": best_hits,
            "null_count": self.null[1], "null_hits": self.null[0],
        }  # fmt: skip


def _open(
    path: Path, note: dict[str, Any], workers: Workers
) -> tuple[dict[str, dict[str, Any]], int]:
    """The rows of the fits that are done, and the threads of each; a new sweep writes its note."""
    file = path / "sweep.json"
    kept = read_json(file) if file.exists() else None
    threads = agreed_threads(kept, workers, str(path))
    if kept is None:
        write_json(file, note | {"threads": threads, "rows": []})
        return {}, threads
    other = [key for key in note if not isinstance(kept, dict) or kept.get(key) != note[key]]
    if other:
        raise InputError(
            f"{path} holds a sweep with other {', '.join(other)}: choose another folder"
        )
    return {row["fit"]: row for row in kept["rows"]}, threads


def _write(path: Path, note: dict[str, Any], rows: dict[str, dict[str, Any]]) -> None:
    """Replace sweep.csv and sweep.json, each in one rename."""
    lines = list(rows.values())
    columns = list(dict.fromkeys(column for row in lines for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path / "sweep.csv", text.getvalue())
    write_json(path / "sweep.json", note | {"rows": lines})
