"""Published results, made again: each module has `run(out, seed=0, full=False)`.

Those that make several independent fits also take `workers` and `progress`.

A run writes a figure, `table.json` and `table.txt` (our number beside the published one, with how
that one is known) to the folder `out`, and returns the table.
"""

from __future__ import annotations

import re
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.errors import InputError

if TYPE_CHECKING:
    from reverie.workers.pieces import Ticker, Workers

SHARES = re.compile(r"\ndef run\((?:(?!\ndef ).)*?\n    workers:", re.DOTALL)

# read off the folder, without importing it: help needs no torch
RESULTS = tuple(
    path.stem.replace("_", "-")
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if "\ndef run(" in path.read_text(encoding="utf-8")
)


def reproduce(
    name: str,
    out: Path,
    seed: int = 0,
    full: bool = False,
    *,
    workers: Workers | None = None,
    progress: Ticker | None = None,
) -> dict[str, Any]:
    """Make the published result `name` (one of RESULTS) again, into `out`; returns its table.

    full: the slow version. workers: where its fits are made, if there are several; progress: told
    what of them is done, and all. Raises InputError on an unknown name, or on other workers than
    this process where nothing is shared out.

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
    if "workers" in signature(module.run).parameters:
        return module.run(Path(out), seed=seed, full=full, workers=workers, progress=progress)
    if workers is not None and not workers.here:
        raise InputError(
            f"{name} does one thing after another: leave out --jobs and --on; those that share "
            f"fits out are {', '.join(_shared_out())}"
        )
    return module.run(Path(out), seed=seed, full=full)


def _shared_out() -> list[str]:
    """The results whose fits go to workers."""
    folder = Path(__file__).parent
    files = {name: folder / f"{name.replace('-', '_')}.py" for name in RESULTS}
    return [
        name for name, file in files.items() if SHARES.search(file.read_text(encoding="utf-8"))
    ]
