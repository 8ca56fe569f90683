"""A whole page: one self-contained file, its style inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.templates import render

HERE = Path(__file__).parent


def render_page(template: str, **values: Any) -> str:
    """The page `template` of this folder, which extends frame.html, filled with `values`."""
    return render(HERE / template, style=(HERE / "page.css").read_text(), **values)
