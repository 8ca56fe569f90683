"""Flags that many commands share."""

from __future__ import annotations

from dataclasses import dataclass


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
