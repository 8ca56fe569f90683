"""One self-contained HTML page over one or more models, and the same as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import reverie
from reverie.auditing import SplitReport, Verdict, nearest
from reverie.auditing.model.copying import CopyingDistance
from reverie.auditing.model.dimension import DimensionCurve
from reverie.curve import LossCurve
from reverie.data import Dataset, ManifoldCoder, Scaler
from reverie.files import write_json, write_text
from reverie.plan import AnyPlan
from reverie.report.copied import copied_picture
from reverie.report.figures import checks_figure, curves_figure, plan_figure, png_data, svg
from reverie.report.frame import render_page
from reverie.report.manifold_figures import figure_for
from reverie.runs.readings import PathKL

GALLERY = 12
PAIRS = 12


@dataclass(frozen=True, eq=False)
class ModelReport:
    """What the page shows of one model; everything but the name may be missing.

    samples: (n, *shape) in the user's units. Curves and plans are in nats.

    >>> from reverie.report import ModelReport
    >>> ModelReport("mine", n=100, about="A first look.").to_json()["name"]
    'mine'
    """

    name: str
    n: int | None = None
    about: str = ""
    split: SplitReport | None = None
    verdict: Verdict | None = None
    curves: dict[str, LossCurve] = field(default_factory=dict)
    plan: AnyPlan | None = None
    path_kl: PathKL | None = None
    copying: CopyingDistance | None = None
    dimension: DimensionCurve | None = None
    checks: list[dict[str, float]] = field(default_factory=list)  # of the fit, by step
    needed: dict[str, int | None] = field(default_factory=dict)  # nats -> steps
    train: Dataset | None = None
    holdout: Dataset | None = None
    samples: np.ndarray | None = None
    scaler: Scaler | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; the names that pipelines rely on come first."""
        verdict, plan = self.verdict, self.plan
        leak = verdict.leak if verdict is not None else None
        rivals = plan.compare() if plan is not None else {}
        return {
            "name": self.name,
            "n": self.n,
            "finding": verdict.finding if verdict else None,
            "p_value": verdict.p_value if verdict else None,
            "p_joint": verdict.p_joint if verdict else None,
            "leak": leak.nats if leak else None,
            "leak_level": leak.level if leak else None,
            "plan": None if plan is None else plan.to_json(),
            "rivals": {name: rival.excess for name, rival in rivals.items()},
            "path_kl_to_training_rows": None if self.path_kl is None else asdict(self.path_kl),
            "distance_to_memoriser": None if self.copying is None else self.copying.to_json(),
            "dimension": None if self.dimension is None else self.dimension.to_json(),
            "checks": self.checks,
            "steps_needed": self.needed,
            "split": None if self.split is None else self.split.to_json(),
            "verdict": verdict.to_json() if verdict else None,
            "curves": {k: {x: v for x, v in c.to_json().items() if x != "covariance"}
                       for k, c in self.curves.items()},
        }  # fmt: skip


def write_report(
    folder: Path, name: str, title: str, models: list[ModelReport], reproduce: list[str]
) -> tuple[Path, Path]:
    """Write `name`.html and `name`.json into `folder`, atomically; returns both paths.

    reproduce: command lines shown on the page, so that a reader can make it again.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from reverie.report import ModelReport, write_report
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model, again = ModelReport("mine", n=100), "reverie audit run"
    ...     paths = write_report(Path(folder), "audit", "Mine", [model], [again])
    ...     print([path.name for path in paths])
    ['audit.html', 'audit.json']
    """
    html = render_page(
        "page.html",
        title=title,
        models=[_view(model) for model in models],
        again="\n".join(reproduce),
        versions=_versions(),
    )
    data = {
        "title": title,
        "models": [model.to_json() for model in models],
        "reproduce": reproduce,
        "versions": _versions(),
    }
    return write_text(folder / f"{name}.html", html), write_json(folder / f"{name}.json", data)


def _versions() -> dict[str, str]:
    import torch

    return {"reverie": reverie.__version__, "torch": torch.__version__, "numpy": np.__version__}


def _view(model: ModelReport) -> dict[str, Any]:
    """Everything of one model as text and inline pictures."""
    plan = model.plan
    return {
        "model": model,
        "split": model.split.to_html() if model.split else "",
        "verdict": model.verdict.to_html(copied_picture(model)) if model.verdict else "",
        "curves": curves_figure(model.curves) if model.curves else "",
        "copying": svg(model.copying.figure()) if model.copying else "",
        "dimension": svg(model.dimension.figure()) if model.dimension else "",
        "checks": checks_figure(model.checks) if len(model.checks) > 1 else "",
        "staircase": plan_figure(plan) if plan is not None and plan.u.ndim == 1 else "",
        "rivals": [] if plan is None else [
            {"name": name, "excess": rival.excess, "seen": rival.excesses.get("samples")}
            for name, rival in plan.compare().items()
        ],
        "gallery": _gallery(model),
        "manifold": _manifold(model),
        "records": model.verdict.records[:PAIRS] if model.verdict else [],
    }  # fmt: skip


def _is_pictured(model: ModelReport) -> bool:
    return (
        model.scaler is not None
        and model.scaler.kind == "images"
        and model.samples is not None
        and model.train is not None
        and model.holdout is not None
    )


def _gallery(model: ModelReport) -> list[dict[str, Any]]:
    """The first samples, each beside its nearest training and nearest held-out image."""
    if not _is_pictured(model):
        return []
    assert model.samples is not None
    assert model.train is not None
    assert model.holdout is not None
    assert model.scaler is not None
    chosen = model.samples[:GALLERY].astype(np.float64)
    shown = [png_data(chosen, model.scaler)]
    distances = []
    for other in (model.train, model.holdout):
        rows = [a.reshape(len(a), -1).astype(np.float64) for a in (chosen, other.values)]
        distance, index = nearest(rows[0], rows[1], 1)
        shown.append(png_data(other.values[index[:, 0]], model.scaler))
        distances.append(distance[:, 0])
    return [
        {"sample": s, "train": t, "holdout": h, "to_train": dt, "to_holdout": dh}
        for s, t, h, dt, dh in zip(*shown, *distances, strict=True)
    ]


def _manifold(model: ModelReport) -> str:
    """Training rows and samples on a map of their manifold, where there is one."""
    coder = model.scaler
    if not isinstance(coder, ManifoldCoder) or model.samples is None or model.train is None:
        return ""
    points = coder.to_model(model.train.values), coder.to_model(model.samples)
    return figure_for(coder.space, *points) or ""
