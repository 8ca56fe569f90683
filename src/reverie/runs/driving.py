"""Drive a trainer to its end: save now and then, draw previews, stop between steps when asked.

Only the first process writes. A signal to any process stops all of them after the same step.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from reverie.files import write_json, write_text
from reverie.runs.folder import save_tensors
from reverie.runs.lowering import is_sharded
from reverie.runs.trainer import Event, Trainer

OnEvent = Callable[[Event, Trainer], None]
SAVE_SECONDS = 20.0
COLUMNS = (
    "step", "loss", "train_nats", "holdout_nats", "leak", "leak_low", "leak_high", "lr", "bias",
    "bias_low", "bias_high", "apart", "copied", "extracted",
)  # fmt: skip


def drive(
    trainer: Trainer,
    path: Path | None,
    on_event: OnEvent | None,
    on_check: OnEvent | None = None,
) -> None:
    """Train to the end, and save in `path` now and then, at the end, and when stopped.

    on_check: called after a check of a fit that is kept, in the process that writes.
    Raises KeyboardInterrupt, saved, after the step in which a signal came to any process.
    """
    ranks, saved, asked = trainer.ranks, monotonic(), False
    folder = path if ranks.first else None
    try:
        with _signals() as signals:
            for event in trainer.events():
                if event.step == trainer.started + 1 and folder is not None:
                    (folder / "curves.json").unlink(missing_ok=True)  # they were of older weights
                if on_event is not None:
                    _tell(on_event, event, trainer, signals)
                if folder is not None and event.row is not None and on_check is not None:
                    on_check(event, trainer)
                late = ranks.first and monotonic() - saved > SAVE_SECONDS
                asked, late = ranks.any(bool(signals), late)
                if asked:
                    raise KeyboardInterrupt
                if late:
                    keep(trainer, path)
                    saved = monotonic()
    except KeyboardInterrupt:
        if asked or ranks.count == 1:
            keep(trainer, path)
        raise
    keep(trainer, path)


def _tell(on_event: OnEvent, event: Event, trainer: Trainer, signals: list[int]) -> None:
    """An interrupt inside the caller's code counts as a signal: the other processes stop too."""
    try:
        on_event(event, trainer)
    except KeyboardInterrupt:
        signals.append(signal.SIGINT)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM until a step ends: half a step could not be resumed bit for bit.

    A second one stops at once. Only the main thread may do this; elsewhere it does nothing.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in usual.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        put_back()

    for number in usual:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        put_back()


def keep(trainer: Trainer, path: Path | None) -> None:
    """Write the state in one rename, then the files that are read off it.

    All processes call it; the first one writes.
    """
    if path is None or not (trainer.ranks.first or is_sharded(trainer.optimiser)):
        return
    tensors, note = trainer.state()
    if not trainer.ranks.first:
        return
    plain = note | {"best": note["best"] if math.isfinite(note["best"]) else None}
    save_tensors(path / "state.safetensors", tensors, plain)
    weights = trainer.network.state_dict()
    save_tensors(path / "model.safetensors", weights, {"step": note["step"]})
    with trainer.averaged() as network:
        save_tensors(path / "ema.safetensors", network.state_dict(), {"step": note["step"]})
    rows = [",".join(COLUMNS)]
    rows += [
        ",".join(f"{row[c]:.8g}" if c in row else "" for c in COLUMNS) for row in note["rows"]
    ]
    write_text(path / "metrics.csv", "\n".join(rows) + "\n")
    write_json(path / "state.json", {k: v for k, v in plain.items() if k != "rows"})


def sweep_up(path: Path) -> None:
    """Remove the temporary files that a killed write left behind."""
    for left in [*path.glob(".*"), *(path / "previews").glob(".*")]:
        left.unlink(missing_ok=True)
