"""The page of a split, and its JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.auditing.fairness.split import SplitReport
from reverie.data import Dataset, Scaler
from reverie.files import write_json, write_text
from reverie.report.figures import png_data
from reverie.report.frame import render_page

GROUPS, PICTURES = 12, 4


def write_split(
    folder: Path, split: SplitReport, train: Dataset, holdout: Dataset, again: str
) -> tuple[Path, Path]:
    """Write split.html and split.json into `folder`, atomically; returns both paths.

    train, holdout: for the title, and the pictures of groups of images. again: the command line
    that makes the page again.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from reverie.auditing import audit_split
    >>> from reverie.data import load
    >>> from reverie.report import write_split
    >>> a, b = (load(np.random.default_rng(seed).normal(size=(50, 2))) for seed in (0, 1))
    >>> found = audit_split(a.values, b.values)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print([path.name for path in write_split(Path(folder), found, a, b, "reverie audit")])
    ['split.html', 'split.json']
    """
    html = render_page(
        "split_page.html",
        title=f"The split of {train.source} and {holdout.source}",
        split=split.to_html(),
        pictures=_pictures(split, train, holdout),
        again=again,
    )
    data = {"train": train.source, "holdout": holdout.source} | split.to_json()
    page = write_text(folder / "split.html", html)
    return page, write_json(folder / "split.json", data | {"reproduce": again})


def _pictures(split: SplitReport, train: Dataset, holdout: Dataset) -> list[list[dict[str, Any]]]:
    """The first images of the largest groups, with where they stand."""
    if train.kind != "images":
        return []
    scaler = Scaler.fit(train)
    groups = []
    for cluster in split.clusters[:GROUPS]:
        places = [("training", train, row) for row in cluster.train_rows]
        places += [("held-out", holdout, row) for row in cluster.holdout_rows]
        first = places[: PICTURES - 1] + places[-1:]  # both sides show where both are in it
        groups.append(
            [
                {"where": f"{side} row {row}", "png": png_data(data.values[[row]], scaler)[0]}
                for side, data, row in first
            ]
        )
    return groups
