"""HTML from templates, all that is put into them escaped; and how results show themselves."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

# colours of their own, so that a card reads the same in a light and in a dark notebook
CARD = (
    "border-left:4px solid #64748b;background:#fff;color:#1f2937;padding:.4rem .9rem;"
    "font:14px/1.5 system-ui,sans-serif;max-width:46rem"
)
CELL = "text-align:left;padding:.15rem .7rem .15rem 0;color:#1f2937;background:#fff"


def render(template: Path, **values: Any) -> str:
    """The template filled with `values`; it may extend others that stand beside it."""
    from jinja2 import Environment, FileSystemLoader  # pages are rare, and this is slow to load

    environment = Environment(
        loader=FileSystemLoader(template.parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template.name).render(**values)


def axes(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure of `width` x `height` inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    return figure, ax


def svg(figure: Any) -> str:
    """A figure of matplotlib as SVG text, the same bytes for the same figure."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "reverie"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "reverie"})
    text = file.getvalue()
    named = [(ax.get_ylabel(), ax.get_xlabel()) for ax in figure.axes]
    label = "; ".join(f"{y} against {x}" for y, x in named if x and y) or "figure"
    return f'<svg role="img" aria-label="{escape(label)}"' + text[text.index("<svg") + 4 :]


@dataclass(frozen=True)
class Card:
    """What a result says of itself: a sentence, a short table, and perhaps a picture.

    rows: cells of the table, as many in each as in `header`. draw: draws on given axes.
    """

    answer: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    draw: Callable[[Any], Any] | None = None

    def text(self) -> str:
        """The sentence, and the table in columns."""
        table = [list(map(str, row)) for row in (self.header, *self.rows) if row]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join([self.answer, *lines])

    def html(self) -> str:
        """The same as a fragment for a notebook, the picture below; all text escaped."""
        rows = [_row("th", self.header)] if self.header else []
        rows += [_row("td", row) for row in self.rows]
        table = f'<table style="border-collapse:collapse">{"".join(rows)}</table>' if rows else ""
        picture = ""
        if self.draw is not None:
            figure, ax = axes(6.0, 3.2)
            self.draw(ax)
            picture = svg(figure)
        answer = f'<p style="margin:.2rem 0"><strong>{escape(self.answer)}</strong></p>'
        return f'<div style="{CARD}">{answer}{table}{picture}</div>'


class Shown:
    """A result that shows itself: a card in a notebook, its text where it is printed."""

    def card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.card().text()

    def _repr_html_(self) -> str:
        return self.card().html()


def _row(tag: str, cells: Sequence[str]) -> str:
    inside = "".join(f'<{tag} style="{CELL}">{escape(str(cell))}</{tag}>' for cell in cells)
    return f"<tr>{inside}</tr>"
