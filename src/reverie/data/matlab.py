"""MATLAB files of versions 5 to 7: one array of numbers, or of pictures (h, w, c, n)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.arrays import from_array, from_sparse
from reverie.data.dataset import Dataset
from reverie.data.mat5 import DamagedError, arrays_of
from reverie.errors import InputError

HDF5 = b"\x89HDF\r\n\x1a\n"
V73 = b"MATLAB 7.3"


def read_mat(path: Path, key: str = "") -> Dataset:
    """The array of a MATLAB file, or the one named `key`; a column of labels beside it is left."""
    from scipy import sparse

    with path.open("rb") as file:
        head = file.read(520)
    if head.startswith((HDF5, V73)) or HDF5 in head:
        raise InputError(
            f"{path} is a MATLAB 7.3 file (HDF5): save it in MATLAB with save(..., '-v7')"
        )
    try:
        found = arrays_of(path.read_bytes())
    except DamagedError as error:
        raise InputError(f"{path} is not a MATLAB 5 file ({error})") from error
    numbers = {
        k: v
        for k, v in found.items()
        if sparse.issparse(v) or (v.dtype.kind in "fiub" and v.ndim > 1)
    }
    if key and key not in numbers:
        raise InputError(f"{path} has no array of numbers {key!r}; it holds {', '.join(numbers)}")
    arrays = {key: numbers[key]} if key else _without_labels(numbers)
    if len(arrays) != 1:
        held = f": {', '.join(arrays)}; name one as {path}:NAME" if arrays else "; one is needed"
        raise InputError(f"{path} holds {len(arrays)} arrays of numbers{held}")
    name, array = next(iter(arrays.items()))
    if sparse.issparse(array):
        return from_sparse(array, str(path))
    if array.ndim == 4 and array.shape[2] in (1, 3, 4) and array.shape[3] not in (1, 3, 4):
        note = f"{name} of shape {array.shape} is read as pictures (h, w, c, n)"
        pictures = np.ascontiguousarray(np.transpose(array, (3, 2, 0, 1)))
        return Dataset(pictures, "images", str(path), "hwcn", notes=(note,))
    data = from_array(array, str(path))
    left = sorted(set(numbers) - {name})
    if left and not key:
        data = replace(data, notes=(*data.notes, f"{', '.join(left)} beside {name} is left out"))
    return data


def _without_labels(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays but for columns of labels beside a wider one of as many rows."""
    wide = {k: v for k, v in arrays.items() if min(v.shape[:2]) > 1 or v.ndim > 2}
    return wide if len(wide) == 1 else arrays
