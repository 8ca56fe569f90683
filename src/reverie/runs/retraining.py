"""Retrain on disjoint data: what a sample tells of its training set, and what models agree on.

R models with the same settings and seeds, each on rows of its own. The same command continues
where it was stopped: every model is an ordinary run directory, `OUT/model-0` to `OUT/model-R-1`,
made by as many workers as there are (see `reverie.workers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reverie.auditing.retrained.agreement import (
    LEAST_HELD,
    NULL,
    Likeness,
    Share,
    memorised,
    reproducibility,
)
from reverie.auditing.retrained.information import InformationBound, information_bound
from reverie.auditing.row import Row
from reverie.data import Dataset, load, split
from reverie.denoisers import Denoiser, Memoriser
from reverie.errors import InputError
from reverie.files import read_json, write_json
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit
from reverie.runs.folder import Own, split_rows, whole_data
from reverie.runs.opening import begin
from reverie.runs.readings import draw_paired
from reverie.runs.run import Run
from reverie.runs.trainer import Event, Trainer
from reverie.workers.pieces import HERE, Piece, Tell, Ticker, Workers, agreed_threads
from reverie.workers.spreading import spread

SAMPLES = 1000
Hooks = Callable[[str, FitConfig], Any]


@dataclass(frozen=True, eq=False)
class Retrainings:
    """R runs on disjoint rows, and three sets of points of each: (samples, *shape), in user units.

    independent: of fresh noise for every model. paired: of the same noise for all models.
    copied: of that same noise, by the memoriser of the model's own training rows.
    """

    runs: list[Run]
    independent: list[np.ndarray]
    paired: list[np.ndarray]
    copied: list[np.ndarray]

    def information(self, seed: int = 0) -> InformationBound:
        """The lower bound on I(sample; training set); the seeds are given, only data differ."""
        training = [run.train.values for run in self.runs]
        return information_bound(training, self.independent, seed=seed)

    def shares(self, seed: int = 0, similarity: str = "distance") -> dict[str, Share]:
        """Reproducibility between disjoint data, to the memoriser, and the memorised share.

        Every noise is used once, for one pair of models or one model in turn, so that counts are
        over independent noises.
        """
        images = self.runs[0].scaler.kind == "images"
        held = self.runs[0].holdout.values
        likeness = Likeness(held, images=images, similarity=similarity)
        count = len(self.runs)
        pairs = [(a, a + 1) for a in range(0, count - 1, 2)]
        agree = [[self.paired[pair[side]] for pair in pairs] for side in (0, 1)]
        own = [
            memorised(points[b::count], run.train.values, likeness)
            for b, (run, points) in enumerate(zip(self.runs, self.paired, strict=True))
        ]
        return {
            "disjoint": reproducibility(_turns(agree[0]), _turns(agree[1]), likeness, seed=seed),
            "memoriser": reproducibility(
                _turns(self.paired), _turns(self.copied), likeness, seed=seed
            ),
            "memorised": Share(
                sum(share.hits for share in own),
                sum(share.count for share in own),
                NULL,
                float(np.mean([share.threshold for share in own])),
            ),
        }


def _turns(sets: list[np.ndarray]) -> np.ndarray:
    """Point k from set k mod len(sets)."""
    points = sets[0].copy()
    for b in range(1, len(sets)):
        points[b :: len(sets)] = sets[b][b :: len(sets)]
    return points


def retrain(
    data: Any,
    count: int,
    out: str | Path,
    *,
    config: FitConfig | None = None,
    holdout: np.ndarray | None = None,
    samples: int = SAMPLES,
    hooks: Hooks | None = None,
    workers: Workers = HERE,
    progress: Ticker | None = None,
) -> Retrainings:
    """Train `count` models on disjoint random rows of `data`, or continue to, and draw from each.

    config.n: rows of each model (default: as many as there are). config.holdout: rows kept from
    all of them, or `holdout`: which. hooks(name, config) may return a callback for the events of
    that fit, where fits are made in this process. workers, progress: as in `sweep`; the threads of
    a fit are kept in retrain.json. Raises InputError on fewer than two models, too few rows, or an
    `out` that holds retrainings of other data or settings.

    >>> import tempfile
    >>> import numpy as np
    >>> from reverie import retrain
    >>> from reverie.runs import FitConfig
    >>> data = np.random.default_rng(0).normal(size=(300, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     config = FitConfig(steps=10, width=8, depth=1)
    ...     fits = retrain(data, 2, f"{folder}/fits", config=config, samples=20)
    >>> len(fits.runs), fits.runs[0].train_values.shape
    (2, (75, 2))
    """
    dataset, path = load(data, mixed=True), Path(out)
    config = (config or FitConfig()).check()
    if count < 2:
        raise InputError(f"{count} retraining(s): at least two models are compared")
    training, held = _partition(dataset.check(constants=True), count, config, holdout)
    config = replace(config, n=len(training[0]), holdout=len(held))
    threads = _claim(path, dataset, config, count, workers.check())
    pieces = [
        _piece(f"model-{b}", b, config, path, samples, (rows, held), workers.here, dataset)
        for b, rows in enumerate(training)
    ]
    done = spread(
        _retrained, pieces, workers=workers, shared=(dataset, hooks) if workers.here else None,
        threads=threads, folder=path, gpu=config.device.startswith("cuda"), progress=progress,
    )  # fmt: skip
    made = dict(done)
    runs, sets = [], []
    for piece in pieces:
        run, drawn = made[piece.name]
        runs.append(run if workers.here else Run.load(path / piece.name))
        sets.append(drawn)
    independent, paired, copied = map(list, zip(*sets, strict=True))
    return Retrainings(runs, independent, paired, copied)


def _piece(
    name: str,
    place: int,
    config: FitConfig,
    path: Path,
    samples: int,
    rows: tuple[np.ndarray, np.ndarray],
    here: bool,
    data: Dataset,
) -> Piece:
    """A model; away from here its folder is begun before, and holds all it needs."""

    def prepare() -> None:
        if not (path / name / "config.json").exists():
            begin(data, config, path / name, Own(), rows)

    given = place, config, path / name, samples, rows if here else None
    return Piece(name, given, config.steps, None if here else prepare)


def _retrained(
    given: tuple[int, FitConfig, Path, int, Any],
    shared: tuple[Dataset, Hooks | None] | None,
    tell: Tell,
) -> tuple[Run | None, list[np.ndarray]]:
    """Train one model, or continue to, and draw from it; the run where this is its process."""
    place, config, folder, samples, rows = given
    data, hooks = shared or (None, None)
    own = hooks(folder.name, config) if hooks is not None else None

    def look(event: Event, trainer: Trainer) -> None:
        tell(event.step)
        if own is not None:
            own(event, trainer)

    run = fit(data, config=config, out=folder, resume=True, rows=rows, on_event=look)
    return run if shared is not None else None, _drawn(run, place, samples)


def retrain_run(
    run: Run, count: int, out: str | Path, *, samples: int = SAMPLES, **how: Any
) -> Retrainings:
    """Retrain a run's settings on disjoint rows of its data, without its held-out rows.

    Each model gets as many rows as the run had, or as there are. how: hooks, workers and progress
    of `retrain`.
    """
    if run.path is None:
        both = np.concatenate([run.train.values, run.holdout.values])
        data = run.train.with_values(both, "the array")
        held = np.arange(len(run.train), len(both))
    else:
        data = whole_data(run.path)[2]
        held = split_rows(run.path)[1]
    most = (len(data) - len(held)) // max(count, 1)
    config = replace(run.config, n=min(len(run.train), most))
    return retrain(data, count, out, config=config, holdout=held, samples=samples, **how)


def _partition(
    data: Dataset, count: int, config: FitConfig, holdout: np.ndarray | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Row indices of every model, and the ones that none of them sees."""
    if holdout is None:
        holdout = split(data, None, config.holdout, config.seed)[1]
    rest = np.setdiff1d(np.arange(len(data)), holdout)
    n = config.n or len(rest) // count
    if n < 2 or n * count > len(rest):
        raise InputError(
            f"{count} models of {max(n, 2)} rows need {max(n, 2) * count} rows; {data.source} has "
            f"{len(rest)} beside {len(holdout)} held-out ones"
        )
    order = np.random.default_rng(config.seed).permutation(rest)
    return [np.sort(order[b * n : (b + 1) * n]) for b in range(count)], np.asarray(holdout)


def _claim(path: Path, data: Dataset, config: FitConfig, count: int, workers: Workers) -> int:
    """Write retrain.json, or check that what is there is the same work; the threads of a fit."""
    note = {"models": count, "sha256": data.sha256(), "config": config.to_json()}
    file = path / "retrain.json"
    kept = read_json(file) if file.exists() else None
    threads = agreed_threads(kept, workers, str(path))
    if kept is None:
        write_json(file, note | {"threads": threads})
        return threads
    other = [key for key in note if not isinstance(kept, dict) or kept.get(key) != note[key]]
    if other:
        raise InputError(
            f"{path} holds retrainings with other {', '.join(other)}: choose another folder"
        )
    return threads


def _drawn(run: Run, place: int, samples: int) -> list[np.ndarray]:
    """Points of fresh noise, of the noise of all models, and of the memoriser from the latter."""
    memoriser = Memoriser(run.process, run.train_points())
    models = (run.denoiser, place + 1), (run.denoiser, 0), (memoriser, 0)
    return [_points(run, model, samples, seed) for model, seed in models]


def _points(run: Run, denoiser: Denoiser, samples: int, seed: int) -> np.ndarray:
    shape = run.scaler.point_shape
    return run.scaler.to_user(draw_paired(denoiser, shape, samples, seed=seed))


def retrain_rows(retrainings: Retrainings, seed: int = 0) -> list[Row]:
    """Lines of the audit's table: information, reproducibility, memorised share.

    p_joint is left to the caller. The shares need 20 held-out rows and are left out without them.
    """
    bound = retrainings.information(seed)
    over = (
        f"at least {bound.lower:.3g} nats at 95% confidence, over samples and training sets"
        if bound.lower is not None
        else "for these two training sets; three models or more bound it over training sets too"
    )
    rows = [
        Row(
            "information on the training set (nats)",
            bound.value,
            f"0; cannot exceed log {bound.models} = {bound.most:.3g}",
            bound.interval,
            bound.p_value,
            None,
            bound.samples,
            f"{over}; of {bound.models} models, {bound.accuracy:.1%} of samples are traced to "
            f"their own, by {bound.chosen}",
        )
    ]
    if len(retrainings.runs[0].holdout) < LEAST_HELD:
        return rows
    names = {
        "disjoint": "reproducibility, disjoint data",
        "memoriser": "reproducibility, to the memoriser",
        "memorised": "samples like a training row",
    }
    for key, share in retrainings.shares(seed).items():
        null = "by chance" if key != "memorised" else "of held-out rows"
        rest = f"; the generalised share (GL) is {1 - share.value:.3g}"
        rows.append(
            Row(
                names[key],
                share.value,
                f"{share.null:.1%} {null}",
                share.interval,
                None,
                None,
                share.count,
                f"alike: at most {share.threshold:.3g} apart, in common units"
                + (rest if key == "memorised" else ""),
            )
        )
    return rows
