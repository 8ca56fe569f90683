"""The page of a sweep: memorised share by size, epochs or width, with its null."""

from __future__ import annotations

from pathlib import Path

from reverie.files import write_text
from reverie.report.figures import sweep_figure
from reverie.report.frame import render_page
from reverie.runs.sweeps import Sweep


def write_sweep(folder: Path, sweep: Sweep, again: str) -> Path:
    """Write sweep.html into `folder`, atomically. again: the command line that makes it again.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from reverie import sweep
    >>> from reverie.report import write_sweep
    >>> from reverie.runs import FitConfig
    >>> config = FitConfig(steps=10, width=8, depth=1, check_every=10)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = sweep("wine", f"{folder}/sweep", {"n": [20, 40]}, config=config, samples=20)
    ...     print(write_sweep(Path(folder), found, "reverie sweep wine --over n=20,40").name)
    sweep.html
    """
    lines = sweep.lines()
    html = render_page(
        "sweep.html",
        sweep=sweep,
        lines=lines,
        figure=sweep_figure(lines),
        again=again,
    )
    return write_text(folder / "sweep.html", html)
