"""The page of a sweep: memorised share by size, epochs or width, with its null."""

from __future__ import annotations

from pathlib import Path

from reverie.files import write_text
from reverie.report.figures import sweep_figure
from reverie.sweeps import Sweep


def write_sweep(folder: Path, sweep: Sweep, again: str) -> Path:
    """Write sweep.html into `folder`, atomically. again: the command line that makes it again."""
    from jinja2 import Environment

    here, lines = Path(__file__).parent, sweep.lines()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    html = environment.from_string((here / "sweep.html").read_text()).render(
        sweep=sweep,
        lines=lines,
        style=(here / "page.css").read_text(),
        figure=sweep_figure(lines),
        again=again,
    )
    return write_text(folder / "sweep.html", html)
