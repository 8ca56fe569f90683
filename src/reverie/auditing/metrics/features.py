"""The user's own features: a function of rows, or arrays computed beforehand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data import Dataset, in_user_layout
from reverie.errors import InputError

Features = Callable[[np.ndarray], Any] | str | Path
NAMES = ("train", "holdout", "samples")


def features_of(sets: list[Dataset], features: Features) -> list[Dataset]:
    """The sets as rows of features (n, f).

    features: a callable from rows, as the user gave them, to (n, f); `package.module:function` for
    one; or a `.npz` file with arrays `train`, `holdout` and `samples`, row for row. Raises
    InputError when it cannot be read, or when lengths or widths do not fit.
    """
    if callable(features):
        found = [features(in_user_layout(data)) for data in sets]
    elif str(features).endswith(".npz"):
        found = _read(Path(features), len(sets))
    else:
        function = function_typed(str(features))
        found = [function(in_user_layout(data)) for data in sets]
    result = []
    for name, data, rows in zip(NAMES, sets, found, strict=False):
        array = np.asarray(rows)
        if array.dtype.kind not in "fiub" or array.ndim < 2 or len(array) != len(data):
            raise InputError(
                f"features of {name} are {array.dtype} of shape {array.shape}; they must be "
                f"numbers, one row for each of its {len(data)}"
            )
        flat = array.reshape(len(array), -1).astype(np.float64)
        if not np.isfinite(flat).all():
            row = int(np.argwhere(~np.isfinite(flat))[0, 0])
            raise InputError(f"features of {name}: row {row} is not finite")
        result.append(Dataset(flat, "vectors", f"features of {name}"))
    widths = {data.shape for data in result}
    if len(widths) > 1:
        raise InputError(f"features have rows of shape {' and '.join(map(str, sorted(widths)))}")
    return result


def _read(path: Path, count: int) -> list[np.ndarray]:
    if not path.exists():
        raise InputError(f"{path} does not exist; --features is a .npz or package.module:function")
    try:
        with np.load(path, allow_pickle=False) as archive:
            absent = [name for name in NAMES[:count] if name not in archive.files]
            if absent:
                raise InputError(f"{path} has no array {absent[0]!r}")
            return [archive[name] for name in NAMES[:count]]
    except InputError:
        raise
    except Exception as error:  # zipfile's, numpy's and zlib's own
        raise InputError(f"{path} is not a NumPy archive ({error})") from error


def function_typed(
    text: str, flag: str = "--features", otherwise: str = "a .npz file or "
) -> Callable[..., Any]:
    """The function `package.module:name` that a user typed after `flag`; the module is imported.

    Raises InputError where it cannot be, or has no such name.
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise InputError(f"{flag} {text}: give {otherwise}package.module:function")
    sys.path.insert(0, str(Path.cwd()))  # as python -m does, so that one's own file is found
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise InputError(f"{flag} {text}: {error}") from error
    except AttributeError as error:
        raise InputError(f"{flag} {text}: {module} has no function {name!r}") from error
    finally:
        sys.path.pop(0)
