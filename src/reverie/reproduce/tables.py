"""The table of a reproduction: our number beside the published one, and how that one is known."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reverie.files import write_bytes, write_text

TAGS = {
    "V": "read in the paper, its official code or its figures",
    "S": "read in a secondary source only",
    "D": "reconstructed for this library, not a published figure",
    "": "no published figure",
}
ROUNDING = 1e-12  # within which values agree though no error is told


@dataclass(frozen=True)
class Row:
    """One line: what was measured, our value and its standard error, the reference and its tag."""

    quantity: str
    ours: float
    reference: float | None = None
    tag: str = ""
    stderr: float | None = None
    note: str = ""

    @property
    def agrees(self) -> bool | None:
        """Is ours within two standard errors of the reference, or, without one, within 5% of it?

        None without a reference. The published figure's own error is not known here.
        """
        if self.reference is None:
            return None
        room = 0.05 * abs(self.reference) if self.stderr is None else 2 * self.stderr
        return bool(abs(self.ours - self.reference) <= max(room, ROUNDING))


def write_table(
    out: Path, title: str, rows: list[Row], seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Write `table.json` and `table.txt` under `out` and return the table as plain numbers."""
    table = {
        "title": title,
        "seed": seed,
        "settings": settings,
        "tags": {tag: TAGS[tag] for tag in sorted({row.tag for row in rows})},
        "rows": [
            {k: _plain(v) for k, v in (asdict(row) | {"agrees": row.agrees}).items()}
            for row in rows
        ],
    }
    write_text(out / "table.json", json.dumps(table, indent=1) + "\n")
    write_text(out / "table.txt", _as_text(table, rows))
    return table


def panels(count: int, width: float = 4.2, height: float = 3.5) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels side by side, outside pyplot's global state."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all; the folder is made."""
    write_bytes(path, lambda file: figure.savefig(file, dpi=140, format="png"))


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    # JSON has no infinity: a date that was never reached is null
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(table: dict[str, Any], rows: list[Row]) -> str:
    wide = max(len(row.quantity) for row in rows)
    lines = [table["title"], f"seed {table['seed']}; " + _settings(table["settings"]), ""]
    lines.append(f"{'quantity':<{wide}}  {'ours':>10}  {'+-':>9}  {'reference':>10}  tag  agrees")
    for row in rows:
        error = "" if row.stderr is None else f"{row.stderr:.2g}"
        known = "" if row.reference is None else f"{row.reference:.5g}"
        tag = f"[{row.tag}]" if row.tag else ""
        agrees = {None: "", True: "yes", False: "no"}[row.agrees]
        line = f"{row.quantity:<{wide}}  {row.ours:>10.5g}  {error:>9}  {known:>10}  {tag:<3}"
        line += f"  {agrees:<6}"
        lines.append(f"{line}  {row.note}".rstrip())
    lines.append("")
    lines += [f"[{tag}] {TAGS[tag]}" for tag in table["tags"] if tag]
    lines.append(_beside(rows))
    return "\n".join(lines) + "\n"


def _beside(rows: list[Row]) -> str:
    """How many figures were read in the paper, and how many of them ours agree with."""
    read = [row for row in rows if row.tag == "V" and row.reference is not None]
    agree = sum(bool(row.agrees) for row in read)
    return (
        f"{len(read)} figures were read in the paper; {agree} agree (within 2 standard errors, "
        "or 5% where ours has none)"
    )


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())
