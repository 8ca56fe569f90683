"""One line of an audit's table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    p_joint: p_value corrected over all lines that have one (Holm); None where p_value is.
    section: one of `wording.SECTIONS`.
    """

    statistic: str
    value: float
    null: str
    interval: tuple[float, float] | None
    p_value: float | None
    p_joint: float | None
    n: int
    detail: str = ""
    section: str = "tests"
