"""HTML from templates, with everything that is put into them escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> str:
    """The template filled with `values`; it may extend others that stand beside it."""
    from jinja2 import Environment, FileSystemLoader  # pages are rare, and this is slow to load

    environment = Environment(
        loader=FileSystemLoader(template.parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template.name).render(**values)
