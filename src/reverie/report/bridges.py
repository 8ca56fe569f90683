"""The page of a bridge: both ends, what it makes of them, and paths."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from reverie.bridges.run import BridgeRun
from reverie.data import Dataset
from reverie.files import write_text
from reverie.report.figures import png_data, svg
from reverie.report.frame import render_page

SHOWN, PATHS, STEPS = 1000, 40, 40
PICTURES, STAGES = 6, 5
FIRST, SECOND, MADE = "#1d4ed8", "#c2410c", "#047857"


def write_bridge(folder: Path, run: BridgeRun, a: Dataset, b: Dataset, again: str) -> Path:
    """Write bridge.html into `folder`, atomically. again: the command line that makes it again.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from reverie import bridge
    >>> from reverie.data import load
    >>> from reverie.report import write_bridge
    >>> a = load(np.random.default_rng(0).normal(size=(50, 2)))
    >>> run = bridge(a, a, solver="gaussian")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(write_bridge(Path(folder), run, a, a, "reverie bridge a.npy a.npy").name)
    bridge.html
    """
    first, second = (_some(rows, SHOWN) for rows in (a, b))
    html = render_page(
        "bridge.html",
        run=run,
        names=(a.source, b.source),
        counts=(len(a), len(b)),
        moved=_moments(run.sample(first), second),
        back=_moments(run.sample(second, reverse=True), first),
        figure="" if a.kind == "images" else _figure(run, first, second),
        pictures=_pictures(run, first) if a.kind == "images" else [],
        flat=int(np.prod(first.shape[1:])) == 2,
        again=again,
    )
    return write_text(folder / "bridge.html", html)


def _some(rows: Dataset, most: int) -> np.ndarray:
    pick = np.random.default_rng(0).permutation(len(rows))[:most]
    return rows.values[np.sort(pick)]


def _moments(found: np.ndarray, want: np.ndarray) -> dict[str, float]:
    """How far means and spread are off, over all coordinates, in units of the wanted spread."""
    found, want = (v.reshape(len(v), -1).astype(np.float64) for v in (found, want))
    spread = np.sqrt(want.var(0).mean()) or 1.0
    return {
        "mean": float(np.sqrt(np.square(found.mean(0) - want.mean(0)).mean()) / spread),
        "deviation": float(abs(np.sqrt(found.var(0).mean()) / spread - 1)),
    }


def _pictures(run: BridgeRun, first: np.ndarray) -> list[list[str]]:
    """A few pictures on their way: rows of data addresses, from the first end to the second."""
    path = run.path(first[:PICTURES], steps=STEPS)
    shown = path[:: STEPS // (STAGES - 1)]
    low = min(run.first.low[0], run.second.low[0])
    high = max(run.first.high[0], run.second.high[0])
    form = replace(run.second, dtype="<f8", low=[low], high=[high])
    by_stage = [png_data(stage, form) for stage in shown]
    return [list(row) for row in zip(*by_stage, strict=True)]


def _figure(run: BridgeRun, first: np.ndarray, second: np.ndarray) -> str:
    """Paths in the plane of two coordinates, or of the first coordinate against time."""
    from matplotlib.figure import Figure

    path = run.path(first[:PATHS], steps=STEPS).reshape(STEPS + 1, -1, np.prod(first.shape[1:]))
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    if path.shape[2] == 2:
        flat = [v.reshape(len(v), -1) for v in (first, second, run.sample(first))]
        for rows, colour, name in zip(
            flat, (FIRST, SECOND, MADE), ("first end", "second end", "moved rows"), strict=True
        ):
            ax.plot(*rows.T, ".", ms=2, color=colour, alpha=0.5, label=name)
        ax.plot(path[:, :, 0], path[:, :, 1], color="#6b7280", lw=0.5, alpha=0.7)
        ax.legend(frameon=False, fontsize=8, markerscale=4)
    else:
        ax.plot(np.linspace(0, 1, STEPS + 1), path[:, :, 0], color="#6b7280", lw=0.6)
        ax.set_xlabel("time, first end to second")
        ax.set_ylabel("first coordinate")
    return svg(figure)
