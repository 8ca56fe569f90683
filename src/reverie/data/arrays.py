"""Arrays as rows: NumPy with gaps, masks and fields, tensors of any precision, sparse, lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data.dataset import Column, Dataset
from reverie.errors import InputError

CHANNELS = (1, 3, 4)


def from_tensor(tensor: Tensor, source: str = "the array") -> Dataset:
    """A tensor of any precision, dense or sparse, on any device."""
    tensor = tensor.detach().cpu()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        raise InputError(
            f"{source} holds complex numbers; give real and imaginary parts as columns"
        )
    if tensor.dtype == torch.bfloat16 or str(tensor.dtype).startswith("torch.float8"):
        tensor = tensor.float()  # NumPy has no such type; single precision holds it exactly
    return from_array(tensor.resolve_neg().numpy(), source)


def from_array(array: np.ndarray, source: str) -> Dataset:
    """Rows of an array: vectors, or pictures by their shape; a masked cell is missing."""
    if isinstance(array, np.ma.MaskedArray):
        gone, array = np.ma.getmaskarray(array), array.data
        array = np.where(gone, np.nan, array.astype(np.float64)) if gone.any() else array
    if array.dtype.names:
        return _structured(array, source)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{source} holds {array.dtype}, not numbers")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.ndim == 0:
        raise InputError(f"{source} is a single number; give rows of points")
    if array.size == 0 and len(array):
        raise InputError(f"{source} has rows of no column: its shape is {array.shape}")
    if array.ndim == 1:
        return Dataset(array[:, None], "vectors", source, "flat")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.ndim == 4:
        return _pictures(array, source)
    if array.ndim == 3 and array.dtype == np.uint8:
        return Dataset(array[:, None], "images", source, "hw")
    return Dataset(array, "vectors", source)


def from_sparse(matrix: Any, source: str) -> Dataset:
    """A sparse matrix of SciPy, with its zeros."""
    rows, columns = matrix.shape
    if rows * columns > 2**31:
        raise InputError(f"{source} is sparse, {rows:,} x {columns:,}: too large with its zeros")
    return from_array(np.asarray(matrix.todense()), source)


def from_list(rows: Any, source: str = "the array") -> Dataset:
    """Rows as lists of numbers; None is a missing cell."""
    try:
        array = np.array(rows, dtype=object)
        if array.ndim and any(v is None for v in array.ravel()):
            array = np.array([np.nan if v is None else v for v in array.ravel()]).reshape(
                array.shape
            )
        else:
            array = np.asarray(rows)
    except ValueError as error:
        raise InputError(f"{source} is a list of rows of unequal lengths") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{source} is a list with other things than numbers in it")
    return from_array(array, source)


def _structured(array: np.ndarray, source: str) -> Dataset:
    """Fields of a structured array as named columns."""
    names = tuple(array.dtype.names or ())
    fields, columns = [], []
    for name in names:
        column = array[name]
        if column.ndim != 1 or column.dtype.kind not in "fiubUS":
            raise InputError(f"{source}: field {name!r} holds {column.dtype}, not numbers")
        if column.dtype.kind in "US":
            texts, codes = np.unique(column.astype(str), return_inverse=True)
            fields.append(Column(name, "categorical", tuple(map(str, texts)), "string"))
            columns.append(codes.astype(np.float64))
            continue
        kind = {"f": "double", "b": "bool"}.get(column.dtype.kind, "int64")
        missing = "" if column.dtype.kind == "f" and np.isnan(column).any() else None
        decimals = None if kind == "double" else 0
        fields.append(Column(name, dtype=kind, decimals=decimals, missing=missing))
        columns.append(column.astype(np.float64))
    return Dataset(np.stack(columns, 1), "table", source, columns=names, fields=tuple(fields))


def _pictures(array: np.ndarray, source: str) -> Dataset:
    """Pictures (n, c, h, w) or (n, h, w, c): where both may be, bytes and 3 channels decide."""
    _, one, two, three = array.shape
    first, last = one in CHANNELS, three in CHANNELS
    notes: tuple[str, ...] = ()
    if first and last and (one, three) != (1, 1):
        if (one == two) != (two == three):  # pictures are square
            first = two == three
        else:
            first = array.dtype != np.uint8
            layout = "(n, c, h, w)" if first else "(n, h, w, c)"
            notes = (
                f"an array of shape {array.shape} has two axes of channels; read as {layout}",
            )
    if first:
        return Dataset(array, "images", source, "chw", notes=notes)
    if last:
        return Dataset(np.moveaxis(array, 3, 1), "images", source, "hwc", notes=notes)
    if array.shape[2] in (3, 4) and array.shape[0] == array.shape[1] and array.dtype == np.uint8:
        note = "pictures lie along the last axis (h, w, c, n), and are read so"
        return Dataset(np.transpose(array, (3, 2, 0, 1)), "images", source, "hwcn", notes=(note,))
    return Dataset(array, "vectors", source)
