"""Write rows back in the user's own format, header, types and units."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.dataset import Column, Dataset, TableForm, column_from_json
from reverie.data.deep_png import encode
from reverie.data.parquet import ENDINGS as ARROW
from reverie.data.parquet import write_parquet
from reverie.data.scaler import Scaler
from reverie.data.spreadsheets import write_excel
from reverie.data.text_tables import ENDINGS, write_csv
from reverie.data.words import write_words
from reverie.errors import InputError
from reverie.files import write_bytes

EXCEL = ".xlsx"


def save(path: str | Path, values: np.ndarray, scaler: Scaler) -> Path:
    """Write rows in the user's own format, which the ending of `path` names.

    Endings: `.npy`, `.npz`, `.csv`, `.parquet`, `.xlsx`, `.txt`. A path without one is a folder of
    PNGs (images only). Returns the path written. Files are replaced atomically. Raises
    InputError on an unknown ending or an unwritable place. values: (n, *shape), in the user's
    units.

    >>> import tempfile
    >>> import numpy as np
    >>> from reverie.data import Scaler, load, save
    >>> data = load("wine")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(f"{folder}/wine.csv", data.values, Scaler.fit(data))
    ...     print(path.read_text().splitlines()[0][:18])
    alcohol,malic_acid
    """
    path, name = Path(path), Path(path).name.lower()
    if name.endswith((".npy", ".npz")):
        values = _user_layout(values, scaler.layout)
        if name.endswith(".npy"):
            return write_bytes(path, lambda file: np.save(file, values))
        return write_bytes(path, lambda file: np.savez_compressed(file, samples=values))
    if name.endswith((*ENDINGS, *ARROW, EXCEL)):
        flat = values.reshape(len(values), -1)
        form = None if scaler.table is None else TableForm(**scaler.table)
        fields = _fields(scaler, flat.shape[1])
        return _save_table(path, flat, fields, scaler.columns is not None, form)
    if name.endswith(".txt"):
        if scaler.kind != "text" or not scaler.categories:
            raise InputError(f"{path}: only text is written as .txt; use .npy, .csv or .parquet")
        return write_words(path, values, scaler.categories[0])
    if path.suffix:
        raise InputError(
            f"{path}: samples are written as .npy, .npz, .csv, .parquet, .xlsx, .txt or a folder"
        )
    return _save_images(path, values, scaler)


def save_rows(path: str | Path, data: Dataset) -> Path:
    """Write a Dataset as `save` does, a mixed table with its categories and missing cells.

    >>> import tempfile
    >>> from reverie.data import load, save_rows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_rows(f"{folder}/wine.csv", load("wine"))
    ...     print(load(path).shape)
    (13,)
    """
    if (
        data.kind != "text"
        and data.fields
        and Path(path).name.lower().endswith((*ENDINGS, *ARROW, EXCEL))
    ):
        named = data.columns is not None
        return _save_table(Path(path), data.values, data.fields, named, data.form)
    return save(path, data.values, Scaler.fit(data))


def ending_of(data: Dataset) -> str:
    """The ending under which `save_rows` keeps the form of the data's source; "" is a folder.

    >>> import numpy as np
    >>> from reverie.data import ending_of, load
    >>> ending_of(load(np.zeros((3, 2)))), ending_of(load("wine"))
    ('.npy', '.csv')
    """
    name = data.source.lower()
    for ending in (*sorted(ENDINGS, key=len, reverse=True), *ARROW, ".npz", ".txt", EXCEL):
        if name.endswith(ending):
            return ending
    if ".npz:" in name:
        return ".npz"
    if data.kind == "table":
        return ".csv"
    return "" if data.kind == "images" and Path(data.source).is_dir() else ".npy"


def in_user_layout(data: Dataset) -> np.ndarray:
    """The values (n, ...) with their axes as the user gave them.

    >>> import numpy as np
    >>> from reverie.data import in_user_layout, load
    >>> images = load(np.zeros((5, 8, 8, 3), dtype=np.uint8))
    >>> images.values.shape, in_user_layout(images).shape
    ((5, 3, 8, 8), (5, 8, 8, 3))
    """
    return _user_layout(data.values, data.layout)


def _user_layout(values: np.ndarray, layout: str) -> np.ndarray:
    if layout in ("hw", "flat"):
        return values[:, 0]
    if layout == "hwcn":
        return np.transpose(values, (2, 3, 1, 0))
    return np.moveaxis(values, 1, 3) if layout == "hwc" else values


def _fields(scaler: Scaler, width: int) -> list[Column]:
    """The columns of a table of samples."""
    if scaler.fields and len(scaler.fields) == width:
        return [column_from_json(field) for field in scaler.fields]
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


def _save_table(
    path: Path,
    values: np.ndarray,
    fields: Sequence[Column],
    header: bool,
    form: TableForm | None,
) -> Path:
    name = path.name.lower()
    if name.endswith(ARROW):
        return write_parquet(path, values, fields)
    if name.endswith(EXCEL):
        return write_excel(path, values, fields)
    if name.removesuffix(".gz").endswith(".tsv"):
        form = replace(form or TableForm(), sep="\t")
    return write_csv(path, values, fields, header, gzipped=name.endswith(".gz"), form=form)


def _save_images(path: Path, values: np.ndarray, scaler: Scaler) -> Path:
    if scaler.kind != "images":
        raise InputError(
            f"{path}: only images are written to a folder; use .npy, .csv or .parquet"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}") from error
    if np.dtype(scaler.dtype) == np.uint16 and values.shape[1] in (1, 3):
        pages = [_deep(image) for image in values.astype(np.uint16)]
    else:
        images = map(to_image, to_pixels(values, scaler, stretch=False))
        pages = [_png(image) for image in images]
    digits = max(5, int(math.log10(max(len(values), 1))) + 1)
    for index, page in enumerate(pages):
        write_bytes(path / f"{index:0{digits}d}.png", lambda f, page=page: f.write(page))
    return path


def _deep(pixels: np.ndarray) -> bytes:
    """A PNG of pixels (c, h, w) of 16 bits."""
    from PIL import Image

    if len(pixels) == 1:
        return _png(Image.fromarray(pixels[0]))
    return encode(np.moveaxis(pixels, 0, 2))


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def to_pixels(values: np.ndarray, scaler: Scaler, stretch: bool = True) -> np.ndarray:
    """Images (n, C, H, W) as bytes, by the training range; bytes stay bytes.

    >>> import numpy as np
    >>> from reverie.data import Scaler, load, to_pixels
    >>> images = load(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8))
    >>> pixels = to_pixels(images.values, Scaler.fit(images))
    >>> pixels.dtype, pixels.shape
    (dtype('uint8'), (5, 3, 8, 8))
    """
    least = 127 if stretch else 16  # up to 16 they are levels (the digits), not pixels
    if np.dtype(scaler.dtype) == np.uint8 and scaler.high[0] > least:
        return values.astype(np.uint8)
    low, high = scaler.low[0], scaler.high[0]
    return np.clip(255 * (values.astype(np.float64) - low) / (high - low), 0, 255).astype(np.uint8)


def to_image(pixels: np.ndarray) -> Any:
    """One Pillow image from bytes (C, H, W).

    >>> import numpy as np
    >>> from reverie.data import to_image
    >>> to_image(np.zeros((3, 4, 6), dtype=np.uint8)).size  # width, height
    (6, 4)
    """
    from PIL import Image

    return Image.fromarray(pixels[0] if len(pixels) in (1, 2) else np.moveaxis(pixels[:4], 0, 2))
