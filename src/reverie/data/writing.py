"""Write rows back in the user's own format, header, types and units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.dataset import Column, Dataset
from reverie.data.parquet import write_parquet
from reverie.data.scaler import Scaler
from reverie.data.table_coder import TableCoder
from reverie.data.text_tables import ENDINGS, write_csv
from reverie.data.words import write_words
from reverie.errors import InputError
from reverie.files import write_bytes


def save(path: str | Path, values: np.ndarray, scaler: Scaler) -> Path:
    """Write rows in the user's own format: `.npy`, `.npz`, `.csv`, `.parquet`, `.txt` or PNGs.

    A path without an ending is a folder of PNGs (images only). Returns the path written. Files are
    replaced atomically. Raises InputError on an unknown ending or an unwritable place.
    """
    path, name = Path(path), Path(path).name.lower()
    if name.endswith((".npy", ".npz")):
        values = _user_layout(values, scaler.layout)
        if name.endswith(".npy"):
            return write_bytes(path, lambda file: np.save(file, values))
        return write_bytes(path, lambda file: np.savez_compressed(file, samples=values))
    if name.endswith((*ENDINGS, ".parquet")):
        flat = values.reshape(len(values), -1)
        return _save_table(path, flat, _fields(scaler, flat.shape[1]), scaler.columns is not None)
    if name.endswith(".txt"):
        if scaler.kind != "text" or not scaler.categories:
            raise InputError(f"{path}: only text is written as .txt; use .npy, .csv or .parquet")
        return write_words(path, values, scaler.categories[0])
    if path.suffix:
        raise InputError(
            f"{path}: samples are written as .npy, .npz, .csv, .parquet, .txt or a folder"
        )
    return _save_images(path, values, scaler)


def save_rows(path: str | Path, data: Dataset) -> Path:
    """Write a Dataset as `save` does, a mixed table with its categories and missing cells."""
    if (
        data.kind != "text"
        and data.fields
        and Path(path).name.lower().endswith((*ENDINGS, ".parquet"))
    ):
        return _save_table(Path(path), data.values, data.fields, data.columns is not None)
    return save(path, data.values, Scaler.fit(data))


def ending_of(data: Dataset) -> str:
    """The ending under which `save_rows` keeps the form of the data's source; "" is a folder."""
    name = data.source.lower()
    for ending in (*reversed(ENDINGS), ".parquet", ".npz", ".txt"):
        if name.endswith(ending):
            return ending
    if ".npz:" in name:
        return ".npz"
    if data.kind == "table":
        return ".csv"
    return "" if data.kind == "images" and Path(data.source).is_dir() else ".npy"


def in_user_layout(data: Dataset) -> np.ndarray:
    """The values with their axes as the user gave them."""
    return _user_layout(data.values, data.layout)


def _user_layout(values: np.ndarray, layout: str) -> np.ndarray:
    if layout in ("hw", "flat"):
        return values[:, 0]
    return np.moveaxis(values, 1, 3) if layout == "hwc" else values


def _fields(scaler: Scaler, width: int) -> list[Column]:
    """The columns of a table of samples."""
    if isinstance(scaler, TableCoder):
        return scaler.fields
    names = scaler.columns or [f"x{j}" for j in range(width)]
    whole = np.broadcast_to(np.asarray(scaler.integer), width)
    types = scaler.types or ["int64" if w else "double" for w in whole]
    decimals = scaler.decimals or [None] * width
    categories = scaler.categories or [[]] * width
    return [
        Column(name, "categorical" if known else "numeric", tuple(known), dtype=kind,
               decimals=0 if w and d is None else d)
        for name, kind, w, d, known in zip(names, types, whole, decimals, categories, strict=True)
    ]  # fmt: skip


def _save_table(path: Path, values: np.ndarray, fields: Sequence[Column], header: bool) -> Path:
    if path.suffix.lower() == ".parquet":
        return write_parquet(path, values, fields)
    return write_csv(path, values, fields, header, gzipped=path.suffix.lower() == ".gz")


def _save_images(path: Path, values: np.ndarray, scaler: Scaler) -> Path:
    if scaler.kind != "images":
        raise InputError(
            f"{path}: only images are written to a folder; use .npy, .csv or .parquet"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}") from error
    digits = max(5, int(math.log10(max(len(values), 1))) + 1)
    for index, image in enumerate(to_pixels(values, scaler, stretch=False)):
        pixels = to_image(image)
        write_bytes(path / f"{index:0{digits}d}.png", lambda f, p=pixels: p.save(f, "PNG"))
    return path


def to_pixels(values: np.ndarray, scaler: Scaler, stretch: bool = True) -> np.ndarray:
    """Images (n, C, H, W) as bytes, by the training range; bytes stay bytes."""
    least = 127 if stretch else 16  # up to 16 they are levels (the digits), not pixels
    if np.dtype(scaler.dtype) == np.uint8 and scaler.high[0] > least:
        return values.astype(np.uint8)
    low, high = scaler.low[0], scaler.high[0]
    return np.clip(255 * (values.astype(np.float64) - low) / (high - low), 0, 255).astype(np.uint8)


def to_image(pixels: np.ndarray) -> Any:
    """One Pillow image from bytes (C, H, W)."""
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) in (1, 2) else np.moveaxis(pixels[:4], 0, 2))
