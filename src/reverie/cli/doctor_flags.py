"""Flags of what tells about the installation itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import tyro

from reverie.cli.common_flags import Common


@dataclass(frozen=True)
class Doctor:
    """Tell versions, devices, and which extras are here; how to get those that are not.

    Example: reverie doctor
    """

    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)


@dataclass(frozen=True)
class Completion:
    """Print a script that completes commands and flags in your shell.

    Example: reverie completion bash > ~/.local/share/bash-completion/completions/reverie
    Example: reverie completion zsh > ~/.zfunc/_reverie
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """bash, zsh or fish."""
    common: tyro.conf.OmitArgPrefixes[Common] = field(default_factory=Common)
