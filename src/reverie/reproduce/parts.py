"""The independent fits of a reproduction, on workers, each kept until the table is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reverie.errors import InputError
from reverie.files import read_json, write_json
from reverie.workers.pieces import HERE, Piece, Ticker, Work, Workers, agreed_threads
from reverie.workers.spreading import spread


class Parts:
    """What `work` gives of each piece, kept under `out`/parts, so that the same command goes on.

    note: the settings that the parts depend on. Raises InputError where parts of others are kept.
    """

    def __init__(
        self,
        out: Path,
        note: dict[str, Any],
        workers: Workers | None = None,
        progress: Ticker | None = None,
    ) -> None:
        self.folder, self.progress = Path(out) / "parts", progress
        self.workers = (workers or HERE).check()
        file = self.folder / "note.json"
        kept = read_json(file) if file.exists() else None
        self.threads = agreed_threads(kept, self.workers, str(self.folder))
        if kept is None:
            write_json(file, note | {"threads": self.threads})
        elif kept != note | {"threads": self.threads}:
            raise InputError(
                f"{self.folder} holds parts of other settings: choose another folder, or remove it"
            )

    def made(self, work: Work, pieces: Sequence[Piece]) -> list[Any]:
        """The values of all pieces in their order, as JSON gives them back."""
        files = {piece.name: self.folder / f"{_word(piece.name)}.json" for piece in pieces}
        left = [piece for piece in pieces if not files[piece.name].exists()]
        for name, value in spread(
            work, left, workers=self.workers, threads=self.threads, folder=self.folder,
            progress=self.progress,
        ):  # fmt: skip
            write_json(files[name], json.dumps(value))  # a string: values may be infinite
        return [json.loads(read_json(files[piece.name])) for piece in pieces]

    def done(self) -> None:
        """The table is written: the parts are not needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _word(name: str) -> str:
    return re.sub(r"[^\w=.-]+", "-", name)
