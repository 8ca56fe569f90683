"""What keeps a fit: its state in one rename, at times, after Ctrl-C and at the end."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from reverie.files import write_json, write_text
from reverie.runs.folder import save_tensors
from reverie.runs.trainer import Event, Trainer

SAVE_SECONDS = 20.0
COLUMNS = (
    "step", "loss", "train_nats", "holdout_nats", "leak", "leak_low", "leak_high", "lr", "bias",
    "bias_low", "bias_high", "apart", "copied", "extracted",
)  # fmt: skip


def sweep_left(path: Path) -> None:
    """Remove the temporary files that a killed write left behind."""
    for left in [*path.glob(".*"), *(path / "previews").glob(".*")]:
        left.unlink(missing_ok=True)


Heard = Callable[[Event, Trainer], None]


def drain(
    trainer: Trainer, path: Path | None, on_event: Heard | None, on_check: Heard | None = None
) -> None:
    """Train to the end and keep it in `path`; on_check is called after a check of a kept fit."""
    saved = monotonic()
    try:
        for event in _between_steps(trainer.events()):
            if event.step == trainer.started + 1 and path is not None:
                (path / "curves.json").unlink(missing_ok=True)  # they were of older weights
            if on_event is not None:
                on_event(event, trainer)
            if path is not None and event.row is not None and on_check is not None:
                on_check(event, trainer)
            if path is not None and monotonic() - saved > SAVE_SECONDS:
                save_state(trainer, path)
                saved = monotonic()
    except KeyboardInterrupt:
        if path is not None:
            save_state(trainer, path)
        raise
    if path is not None:
        save_state(trainer, path)


def _between_steps(events: Iterator[Event]) -> Iterator[Event]:
    """Let Ctrl-C wait for the end of a step: half a step could not be resumed bit for bit.

    A second Ctrl-C stops at once. Only the main thread may do this; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from events
        return
    asked: list[int] = []
    usual = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, ask)
    try:
        for event in events:
            yield event
            if asked:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, usual)


def save_state(trainer: Trainer, path: Path) -> None:
    """Write the state in one rename, then the files that are read off it."""
    tensors, note = trainer.state()
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
