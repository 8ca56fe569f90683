"""Pieces of work for the tests of workers, in a module that costs a new process little."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from reverie.errors import InputError


def labour(given, shared, tell):
    """A piece that does what its word says, beside others that tell who did them."""
    folder = Path(shared)
    if given == "bad":
        raise InputError("its input is bad")
    if given == "killed always":
        os.kill(os.getpid(), signal.SIGKILL)
    if given == "killed once" and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if given == "faulty":
        raise ZeroDivisionError("nothing is divided by nothing")
    tell(0.5)
    return os.getpid(), torch.get_num_threads(), torch.ones(2) * len(str(given))


def refuse(given, shared, tell):
    """A piece that fails if it is told to."""
    if given:
        raise InputError("its loss is not finite")
    return given
