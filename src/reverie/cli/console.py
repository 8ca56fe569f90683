"""What every command shares: progress bars, the command line as typed, and opening a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reverie.data.stored.rows import tell_with
from reverie.runs.config import FitConfig
from reverie.runs.readings import standard_curves
from reverie.runs.run import Run
from reverie.runs.trainer import Event, Trainer
from reverie.workers.cluster import where
from reverie.workers.pieces import Workers

TYPED: list[str] = []  # the command line, for the pages' "make this again"


def again() -> str:
    """The command line as it was typed, quoted for a shell."""
    return shlex.join(TYPED)


@dataclass(frozen=True)
class Console:
    """Progress on standard error, unless quiet."""

    quiet: bool

    def bar(self, total: int, title: str) -> Any:
        return tqdm(
            total=total, desc=title, disable=self.quiet, file=sys.stderr, dynamic_ncols=True,
            mininterval=0.2, leave=False,
        )  # fmt: skip

    def ticker(self, title: str) -> Callable[[int, int], None]:
        """A callback (done, total) that draws a bar of its own."""
        bars: list[Any] = []

        def tick(done: int, total: int) -> None:
            if not bars:
                bars.append(self.bar(total, title))
            bars[0].update(done - bars[0].n)
            if done >= total:
                bars.pop().close()

        return tick

    def say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=sys.stderr)

    def training(self, title: str, config: FitConfig) -> Callable[[Event, Trainer], None]:
        """A callback for the events of a fit: loss, leak and time left."""
        bars: list[Any] = []  # drawn with the first step: bad input gets its sentence alone
        shown: dict[str, str] = {}

        def show(event: Event, trainer: Trainer) -> None:
            if not bars:
                bars.append(self.bar(config.steps, title))
            bar = bars[0]
            if event.row is not None and "leak" in event.row:
                shown["leak"] = f"{event.row['leak']:.3g}"
            bar.update(event.step - bar.n)
            if event.step % 20 == 0 or event.row is not None:
                bar.set_postfix(loss=f"{event.loss:.3f}", **shown, refresh=False)
            if trainer.progress.stopped:
                bar.close()

        return show


def workers_of(command: Any, console: Console) -> Workers:
    """Where the command's pieces of work are done; says so where that is another machine."""
    said = command.spread
    workers = Workers(said.jobs, said.on, said.threads).check()
    if workers.on == "ray":
        console.say(where())
    return workers


def follow(console: Console) -> None:
    """Passes over rows that stay on disk are shown, where that is not silenced."""
    tell_with(None if console.quiet else console.ticker)


def open_run(path: Path, console: Console, process: str | None = None) -> Run:
    """The run at `path`, its curves measured; process: of one's own, as it was typed."""
    run = Run.load(path, process=process)
    if not run.curves:
        standard_curves(run, progress=console.ticker("curves"))
    return run
