"""Flags that many commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Common:
    """Flags that every command has."""

    quiet: bool = False
    """Print nothing but the result (and errors)."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class OfRun:
    """Flags of commands that open a run."""

    process: str | None = None
    """The process of your own that the run was fitted with, as package.module:Class[a=1]; nothing
    is imported because a run's folder names it."""


@dataclass(frozen=True)
class Spread:
    """Flags of commands whose work is many independent pieces."""

    jobs: int | None = None
    """Worker processes on this machine (default 1), or the most pieces at a time on Ray (default
    as many as fit). What comes out is the same."""
    on: Literal["local", "ray"] = "local"
    """Where the work is done: this machine, or ray: the cluster at RAY_ADDRESS (HOST:PORT), else
    one that is started on this machine. Machines must share the output folder."""
    threads: int | None = None
    """Threads of each piece, which decide the last bits; a folder keeps the number it began with
    (default: the cores of each worker; on Ray 1)."""
