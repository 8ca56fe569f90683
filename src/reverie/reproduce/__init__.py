"""Published results, made again: each module has `run(out, seed=0, full=False)`.

A run writes a figure, `table.json` and `table.txt` (our number beside the published one, with how
that one is known) to the folder `out`, and returns the table.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from reverie.errors import InputError

# read off the folder, without importing it: help needs no torch
RESULTS = tuple(
    path.stem.replace("_", "-")
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if "\ndef run(" in path.read_text(encoding="utf-8")
)


def reproduce(name: str, out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Make the published result `name` (one of RESULTS) again, into `out`; returns its table.

    full: the slow version. Raises InputError on an unknown name.

    >>> from pathlib import Path
    >>> from reverie.reproduce import RESULTS, reproduce
    >>> "dominance" in RESULTS, "minimax-rate" in RESULTS
    (True, True)
    >>> reproduce("dominanz", Path("out"))
    Traceback (most recent call last):
        ...
    reverie.errors.InputError: no result is called 'dominanz'; choose one of ...
    """
    if name not in RESULTS:
        raise InputError(f"no result is called {name!r}; choose one of {', '.join(RESULTS)}")
    module = import_module(f"reverie.reproduce.{name.replace('-', '_')}")
    return module.run(Path(out), seed=seed, full=full)
