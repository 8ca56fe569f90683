"""Where the real data of some reproductions stand: a folder named by REVERIE_DATA."""

from __future__ import annotations

import os
from pathlib import Path

from reverie.errors import InputError


def real_data(name: str, source: str) -> Path:
    """The file or folder `name` under the folder that the environment's REVERIE_DATA names.

    source: where a user finds it, for the sentence when it is not there (InputError).
    """
    root = os.environ.get("REVERIE_DATA")
    if root and (Path(root) / name).exists():
        return Path(root) / name
    missing = f"{Path(root) / name} does not exist" if root else "REVERIE_DATA is not set"
    raise InputError(f"{missing}: name a folder that holds {name} ({source})")
