"""A whole page: one self-contained file, its style inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.report.glossary import words_of
from reverie.templates import render

HERE = Path(__file__).parent


def render_page(template: str, **values: Any) -> str:
    """The page `template` of this folder, which extends frame.html, filled with `values`.

    again: the command line that makes the page again; versions: of packages, shown below it.
    """
    style = (HERE / "page.css").read_text()
    return render(HERE / template, style=style, words_of=words_of, **values)
