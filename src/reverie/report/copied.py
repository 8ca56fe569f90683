"""The picture of a verdict: samples beside the training rows that they copy or come near."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reverie.auditing.facts.fact import Match
from reverie.report.figures import png_data
from reverie.templates import render

if TYPE_CHECKING:
    from reverie.report.page import ModelReport

SHOWN, ROWS, COLUMNS = 12, 6, 16
COPIES = "{} the training record that it copies; what differs is marked."
CLOSEST = "{} the training record that it comes closest to: no copy is claimed."
BESIDE, BELOW = "Left the sample, right", "Below the sample, above it"  # pictures; rows


def copied_picture(model: ModelReport) -> str:
    """HTML of the records that are copied, else of the closest; empty where neither can be shown.

    Pictures stand side by side; tables and texts row over row, with the cells that differ marked.
    """
    verdict = model.verdict
    if verdict is None or model.samples is None or model.train is None:
        return ""
    matches = verdict.facts.records[:SHOWN]
    copies = bool(matches)
    if not copies:
        matches = [Match(r.sample, r.train_row, None, r.distance) for r in verdict.records[:SHOWN]]
    sources = {r.train_row: r.source_row for r in verdict.records}
    named = [(m, m.train_row if sources.get(m.train_row) is None else sources[m.train_row])
             for m in matches]  # fmt: skip
    are_pictures = model.train.kind == "images" and model.scaler is not None
    caption = (COPIES if copies else CLOSEST).format(BESIDE if are_pictures else BELOW)
    told = {"caption": caption, "pictures": [], "rows": [], "names": []}
    if are_pictures:
        told["pictures"] = _pictures(model, named, copies)
    else:
        told |= _table(model, named[:ROWS])
    return render(Path(__file__).parent / "copied.html", **told)


def _pictures(
    model: ModelReport, named: list[tuple[Match, Any]], copies: bool
) -> list[dict[str, Any]]:
    assert model.samples is not None
    assert model.train is not None
    assert model.scaler is not None
    if not named:
        return []
    train = png_data(model.train.values[[m.train_row for m, _ in named]], model.scaler)
    drawn = png_data(np.asarray(model.samples)[[m.sample for m, _ in named]], model.scaler)
    return [
        {"match": m, "row": row, "train": t, "sample": s, "copy": copies}
        for (m, row), t, s in zip(named, train, drawn, strict=True)
    ]


def _table(model: ModelReport, named: list[tuple[Match, Any]]) -> dict[str, Any]:
    """Rows over rows, with the cells that differ; the columns that differ first if many."""
    assert model.samples is not None
    assert model.train is not None
    train, samples = model.train, np.asarray(model.samples)
    if train.values.ndim != 2:
        return {}
    if train.kind == "text":
        names: list[str] = ["text"]
        pairs = [(train.text(train.values[m.train_row]), train.text(samples[m.sample]))
                 for m, _ in named]  # fmt: skip
    else:
        width = train.values.shape[1]
        names = list(train.columns or (f"x{j}" for j in range(width)))
        pairs = [
            (train.text(train.values[m.train_row]), train.text(samples[m.sample]))
            for m, _ in named
        ]
    kept = _columns(pairs, len(names))
    return {
        "names": [names[j] for j in kept],
        "rows": [
            {
                "match": m,
                "row": row,
                "cells": [
                    {"train": ours[j], "sample": theirs[j], "differs": ours[j] != theirs[j]}
                    for j in kept
                ],
            }
            for (m, row), (ours, theirs) in zip(named, pairs, strict=True)
        ],
    }


def _columns(pairs: list[tuple[Any, Any]], width: int) -> list[int]:
    """At most COLUMNS columns, those that differ among them."""
    if width <= COLUMNS:
        return list(range(width))
    differ = [sum(a[j] != b[j] for a, b in pairs) for j in range(width)]
    order = sorted(range(width), key=lambda j: (-(0 < differ[j] < len(pairs)), j))
    return sorted(order[:COLUMNS])
