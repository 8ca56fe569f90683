"""The page of a ranking of checkpoints, and its JSON."""

from __future__ import annotations

from pathlib import Path

from reverie.files import write_json, write_text
from reverie.report.figures import curves_figure, ranking_figure
from reverie.report.frame import render_page
from reverie.runs.ranking import Ranking


def write_ranking(folder: Path, ranking: Ranking, again: str) -> tuple[Path, Path]:
    """Write rank.html and rank.json into `folder`, atomically; returns both paths.

    again: the command line that makes the page again.
    """
    html = render_page(
        "rank.html",
        ranking=ranking,
        figure=ranking_figure(ranking) if len(ranking.checkpoints) > 1 else "",
        curves=curves_figure(ranking.keep.curves),
        again=again,
    )
    page = write_text(folder / "rank.html", html)
    return page, write_json(folder / "rank.json", ranking.to_json() | {"reproduce": again})
