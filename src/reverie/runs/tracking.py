"""Metrics of a fit for a tracker: TensorBoard, Weights & Biases, Trackio, MLflow.

They go through accelerate's trackers (its extra: `cluster`). Nothing is imported, written or sent
unless a tracker is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reverie.errors import InputError
from reverie.runs.config import FitConfig
from reverie.runs.trainer import Event, Trainer

OnEvent = Callable[[Event, Trainer], None]
EVERY = 20  # steps between two losses; every check is told
PROJECT = "reverie"


def trackers_of(track: Any) -> list[Any]:
    """What is asked for: classes of trackers by their names, or trackers as they are.

    track: None, names joined by commas, a GeneralTracker of accelerate, or several. Raises
    InputError on an unknown name, and where a package is not installed.
    """
    if track is None:
        return []
    asked = track.split(",") if isinstance(track, str) else track
    asked = list(asked) if isinstance(asked, list | tuple) else [asked]
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    except ImportError as error:
        raise InputError("track needs accelerate: pip install 'reverie[cluster]'") from error
    built_in = "tensorboard", "wandb", "trackio", "mlflow"
    found = []
    for one in asked:
        name = one.strip() if isinstance(one, str) else None
        if name is None:
            found.append(one)
        elif name not in LOGGER_TYPE_TO_CLASS:
            raise InputError(f"no tracker is called {name!r}: choose {', '.join(built_in)}")
        elif name in built_in and name not in {str(known) for known in get_available_trackers()}:
            raise InputError(f"track {name} needs a package of that name: pip install {name}")
        else:
            found.append(LOGGER_TYPE_TO_CLASS[name])
    return found


@contextmanager
def tracking(
    asked: list[Any], path: Path | None, config: FitConfig, on_event: OnEvent | None
) -> Iterator[OnEvent | None]:
    """A callback that tells the trackers, and then `on_event`; they are closed with the block.

    asked: of `trackers_of`. path: the run, which names it and holds a `trackers` folder for those
    that write one.
    """
    if not asked:
        yield on_event
        return
    from accelerate import PartialState

    PartialState(cpu=config.device == "cpu")  # the trackers ask it whether to speak
    name, folder = ("fit", Path("trackers")) if path is None else (path.name, path / "trackers")
    opened = [_opened(one, name, folder, config) for one in asked]

    def tell(event: Event, trainer: Trainer) -> None:
        told = {"loss": event.loss} if event.step % EVERY == 0 else {}
        told |= {k: v for k, v in (event.row or {}).items() if k != "step"}
        for tracker in opened if told else ():
            tracker.log(told, step=event.step)
        if on_event is not None:
            on_event(event, trainer)

    try:
        yield tell
    finally:
        for tracker in opened:
            tracker.finish()


def _opened(one: Any, name: str, folder: Path, config: FitConfig) -> Any:
    if isinstance(one, type):
        if one.requires_logging_directory:  # type: ignore[attr-defined]
            folder.mkdir(parents=True, exist_ok=True)
            one = one(name, logging_dir=str(folder))
        else:
            one = one(PROJECT)
    if hasattr(one, "start"):
        one.start()
    one.store_init_configuration({k: v for k, v in config.to_json().items() if v is not None})
    return one
