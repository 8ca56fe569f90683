"""The watch as a callback of Lightning: `Trainer(callbacks=[watch_callback(watch)])`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from reverie.errors import InputError
from reverie.runs.watch import Watch


def watch_callback(watched: Watch) -> Any:
    """A Lightning callback that steps the watch after every batch and obeys its stop.

    Raises InputError where Lightning is not installed.
    """
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            base: Any = import_module(name).Callback
            break
        except ImportError:
            continue
    else:
        raise InputError("watch_callback needs Lightning: pip install lightning")

    class WatchCallback(base):  # type: ignore[misc]
        """Measures when the watch is due; the last reading comes when the fit ends."""

        def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
            if watched.step(trainer.global_step):
                trainer.should_stop = True

        def on_train_end(self, trainer: Any, *_: Any) -> None:
            watched.close(trainer.global_step)

    return WatchCallback()
