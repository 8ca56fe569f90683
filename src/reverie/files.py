"""Atomic files: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reverie.errors import InputError


def write_bytes(path: Path, write: Callable[[Any], Any]) -> Path:
    """Replace `path` by what `write(file)` produces; nobody ever sees half of it.

    Raises InputError when the place cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def write_text(path: Path, text: str) -> Path:
    """Replace `path` by `text`, atomically."""
    return write_bytes(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> Path:
    """Replace `path` by strict JSON (no NaN), atomically."""
    return write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def free_place(path: Path) -> Path:
    """The path itself; InputError where it exists and is not an empty folder."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is not an empty folder: choose another")
    return path


@contextmanager
def new_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill inside the block; it appears at `path` in one rename when the block ends.

    replace: what stands at `path` is removed just before; somebody who looks in between finds
    nothing there, never a half. Raises InputError when `path` exists and is not an empty folder
    without `replace`, or cannot be written.
    """
    path = Path(path) if replace else free_place(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield temporary
        for file in filter(Path.is_file, temporary.rglob("*")):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        os.chmod(temporary, 0o755)
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Read JSON; InputError names a file that is missing or broken."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
