"""Load arrays, tables and images; write samples back in the data's own units and format.

A Dataset keeps the user's values; `Scaler` maps them to model space (mean 0, deviation 1: one mean
and deviation for images, one per column otherwise) and back. Nothing is unpickled.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.files import write_bytes

BUILT_IN = ("digits", "wine", "breast-cancer", "fashion-mnist")
FASHION = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
FASHION_MEAN = 72.94  # of the 60,000 training images, published with the set
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = (
    ".npy, .npz, .csv, .parquet, an idx file (MNIST format), a folder of images, or one of "
    + ", ".join(BUILT_IN)
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows as the user has them: `values` (n, *shape), images as (n, channels, height, width)."""

    values: np.ndarray
    kind: str  # "images", "table" or "vectors"
    source: str
    layout: str = "as-is"  # how the user's image axes lie: "hw", "hwc", "chw"
    columns: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape[1:]

    def sha256(self) -> str:
        """Hash of shape, type and every value: names the data in a run."""
        head = f"{self.values.shape}{self.values.dtype.str}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.values).tobytes()).hexdigest()

    def check(self, rows: int = 2) -> Dataset:
        """Return self, or raise InputError: too few rows, not finite, or a constant column."""
        if len(self) < rows:
            raise InputError(f"{self.source} has {len(self)} row(s); at least {rows} are needed")
        flat = self.values.reshape(len(self), -1)
        if not np.isfinite(flat).all():
            row, column = np.argwhere(~np.isfinite(flat))[0]
            raise InputError(
                f"{self.source}: row {row}, {self._name(column)} is not a finite number; "
                "drop or fill missing values first"
            )
        constant = (flat == flat[0]).all(0)
        rows_of_numbers = self.values.ndim == 2  # elsewhere a constant corner is no mistake
        if constant.all() or (rows_of_numbers and constant.any()):
            column = int(np.argmax(constant))
            raise InputError(
                f"{self.source}: {self._name(column)} is constant ({flat[0, column]:g}) "
                "over all rows; drop it"
            )
        return self

    def _name(self, column: int) -> str:
        return f"column {self.columns[column]!r}" if self.columns else f"column {column}"

    def take(self, rows: np.ndarray) -> Dataset:
        """The same data with only these rows."""
        return self.with_values(self.values[rows], self.source)

    def with_values(self, values: np.ndarray, source: str) -> Dataset:
        """Other rows of the same kind, layout and columns."""
        return Dataset(values, self.kind, source, self.layout, self.columns)


@dataclass(frozen=True)
class Scaler:
    """Affine map between the user's units and model space, with what is needed to write back."""

    mean: list[float]
    std: list[float]
    shape: list[int]
    kind: str
    layout: str
    dtype: str
    columns: list[str] | None
    integer: list[bool]
    low: list[float]
    high: list[float]

    @classmethod
    def fit(cls, data: Dataset) -> Scaler:
        """Read mean, deviation, range and integer columns off the training rows."""
        flat = data.values.reshape(len(data), -1).astype(np.float64)
        images = data.kind == "images"
        mean, std = (flat.mean(), flat.std()) if images else (flat.mean(0), flat.std(0))
        whole = np.equal(flat, np.round(flat)).all(0)
        return cls(
            mean=np.atleast_1d(mean).tolist(),
            std=np.atleast_1d(np.where(std > 0, std, 1.0)).tolist(),
            shape=list(data.shape),
            kind=data.kind,
            layout=data.layout,
            dtype=data.values.dtype.str,
            columns=None if data.columns is None else list(data.columns),
            integer=np.atleast_1d(whole.all() if images else whole).tolist(),
            low=np.atleast_1d(flat.min() if images else flat.min(0)).tolist(),
            high=np.atleast_1d(flat.max() if images else flat.max(0)).tolist(),
        )

    def _row(self, values: Sequence[float]) -> np.ndarray:
        row = np.asarray(values, dtype=np.float64)
        return row if len(row) == 1 else row.reshape(self.shape)

    def to_model(self, values: np.ndarray, source: str = "the data") -> Tensor:
        """Standardise rows (n, *shape); InputError if the shape differs from the fitted one."""
        if list(values.shape[1:]) != self.shape:
            raise InputError(
                f"{source} has points of shape {tuple(values.shape[1:])}; "
                f"this run was fitted on {tuple(self.shape)}"
            )
        scaled = (values - self._row(self.mean)) / self._row(self.std)
        return torch.from_numpy(scaled.astype(np.float32))

    def to_user(self, points: Tensor) -> np.ndarray:
        """Back to the data's units and type: integer columns are rounded, kept in their range."""
        raw = points.detach().cpu().double().numpy() * self._row(self.std) + self._row(self.mean)
        whole = np.broadcast_to(self._row(self.integer).astype(bool), raw.shape)
        rounded = np.clip(np.round(raw), self._row(self.low), self._row(self.high))
        return np.where(whole, rounded, raw).astype(np.dtype(self.dtype))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# --- reading -----------------------------------------------------------------------------------


def load(source: str | Path | np.ndarray | Tensor | Dataset) -> Dataset:
    """Load a built-in name, a file, a folder of images, an array or a tensor.

    Files: `.npy`, `.npz` (one array, or `FILE.npz:KEY`), `.csv` (a header is recognised),
    `.parquet` (extra `tables`). Raises InputError with what is wrong and where.
    """
    if isinstance(source, Dataset):
        return source
    if isinstance(source, Tensor):
        source = source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array")
    text = str(source)
    if text in BUILT_IN:
        return _built_in(text)
    path, _, key = text.partition(".npz:")
    path = Path(path + ".npz") if key else Path(text)
    if path.is_dir():
        return _from_folder(path)
    if not path.exists():
        raise InputError(f"{text} does not exist; DATA is {FORMATS}")
    if path.stat().st_size == 0:
        raise InputError(f"{text} is empty")
    if path.name.endswith(("-ubyte", "-ubyte.gz")):
        return _read_idx(path)
    readers = {".npy": _read_npy, ".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise InputError(f"{text} has an unknown ending; DATA is {FORMATS}")
    return readers[path.suffix.lower()](path, key)


def _built_in(name: str) -> Dataset:
    from sklearn import datasets

    if name == "digits":
        digits: Any = datasets.load_digits()
        images = digits.images.astype(np.uint8)
        return Dataset(images[:, None], "images", name, "hw")
    if name == "fashion-mnist":
        return _fashion_mnist()
    loader = {"wine": datasets.load_wine, "breast-cancer": datasets.load_breast_cancer}[name]
    table: Any = loader()
    return Dataset(table.data, "table", name, columns=tuple(map(str, table.feature_names)))


def _fashion_mnist() -> Dataset:
    """The 60,000 training images of Zalando's set (MIT licence), where Debian puts them."""
    if not FASHION.exists():
        raise InputError("fashion-mnist is not here: apt-get install dataset-fashion-mnist")
    images = _read_idx(FASHION)
    if (
        images.values.shape != (60_000, 1, 28, 28)
        or abs(images.values.mean() - FASHION_MEAN) > 0.01
    ):
        raise InputError(f"{FASHION} does not hold the 60,000 training images of Fashion-MNIST")
    return images.with_values(images.values, "fashion-mnist")


def _read_idx(path: Path) -> Dataset:
    """Images (n, rows, columns) of bytes in the format of MNIST, gzipped or not."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged ({_first_line(error)})") from error
    if len(raw) < 16 or raw[:4] != b"\x00\x00\x08\x03":
        raise InputError(f"{path} is not an idx file of images (three axes of bytes)")
    shape = tuple(int.from_bytes(raw[k : k + 4], "big") for k in (4, 8, 12))
    if len(raw) != 16 + math.prod(shape):
        raise InputError(f"{path} holds {len(raw) - 16} bytes, its header says {math.prod(shape)}")
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(shape).copy()  # writable
    return _from_array(pixels, str(path))


def _from_array(array: np.ndarray, source: str) -> Dataset:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{source} holds {array.dtype}, not numbers")
    if array.ndim == 0:
        raise InputError(f"{source} is a single number; give rows of points")
    if array.ndim == 1:
        return Dataset(array[:, None], "vectors", source, "flat")
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.ndim == 4 and array.shape[1] in (1, 3, 4):
        return Dataset(array, "images", source, "chw")
    if array.ndim == 4 and array.shape[3] in (1, 3, 4):
        return Dataset(np.moveaxis(array, 3, 1), "images", source, "hwc")
    if array.ndim == 3 and array.dtype == np.uint8:
        return Dataset(array[:, None], "images", source, "hw")
    return Dataset(array, "vectors", source)


def _read_npy(path: Path, key: str) -> Dataset:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is not a plain NumPy array ({_first_line(error)})") from error
    return _from_array(array, str(path))


def _read_npz(path: Path, key: str) -> Dataset:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            if not key and len(names) != 1:
                raise InputError(f"{path} holds {', '.join(names)}: name one as {path}:NAME")
            name = key or names[0]
            if name not in names:
                raise InputError(f"{path} has no array {name!r}; it holds {', '.join(names)}")
            return _from_array(archive[name], f"{path}:{name}")
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a NumPy archive ({_first_line(error)})") from error


def _read_csv(path: Path, key: str) -> Dataset:
    """Numbers separated by commas; lines that begin with # stand before the table and are skipped.

    The first line is a header when none of its cells is a number.
    """
    try:
        above, first = _first_row(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text") from error
    header = not any(_is_number(cell) for cell in first)
    if header and len(first) == 1 and ";" in first[0]:
        raise InputError(f"{path} separates its cells by semicolons: use commas")
    skip = above + int(header)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no rows: said better below
            values = np.loadtxt(
                path,
                delimiter=",",
                skiprows=skip,
                ndmin=2,
                quotechar='"',
                comments=None,
                encoding="utf-8-sig",
            )
    except ValueError as error:
        raise InputError(_csv_fault(path, first, skip, header)) from error
    if values.size == 0:
        raise InputError(f"{path} has a header but no rows")
    if values.shape[1] != len(first):
        raise InputError(_csv_fault(path, first, skip, header))
    return Dataset(values, "table", str(path), columns=tuple(first) if header else None)


def _first_row(path: Path) -> tuple[int, list[str]]:
    """How many comment lines stand on top, and the cells of the first line after them."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file)):
            if row and not row[0].startswith("#"):
                return number, row
    return 0, []


def _csv_fault(path: Path, first: list[str], skip: int, header: bool) -> str:
    """Name the first cell that is not a number, or the first row of another length."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if number <= skip:
                continue
            if len(row) != len(first):
                return f"{path}: line {number} has {len(row)} cells, the first line {len(first)}"
            for index, cell in enumerate(row):
                if not _is_number(cell):
                    name = repr(first[index]) if header else str(index)
                    what = f"{cell!r}, not a number" if cell.strip() else "empty"
                    return f"{path}: line {number}, column {name} is {what}"
    return f"{path} cannot be read as numbers separated by commas"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path, key: str) -> Dataset:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            "reading .parquet needs the extra: pip install 'reverie[tables]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a parquet file ({_first_line(error)})") from error
    arrays = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.to_numpy()
        if values.dtype.kind not in "fiub":
            raise InputError(f"{path}: column {name!r} holds {column.type}, not numbers")
        arrays.append(values.astype(np.float64))
    if not arrays or len(arrays[0]) == 0:
        raise InputError(f"{path} has no rows")
    return Dataset(np.stack(arrays, 1), "table", str(path), columns=tuple(table.column_names))


def _from_folder(path: Path) -> Dataset:
    from PIL import Image, UnidentifiedImageError

    files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                if image.mode.startswith(("I", "F")):
                    raise InputError(
                        f"{file} has more than 8 bits a pixel: give a .npy array, or 8-bit images"
                    )
                grey = image.mode in ("1", "L")
                pixels = np.asarray(image.convert("L" if grey else "RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"{file} is not an image ({_first_line(error)})") from error
        images.append(pixels[..., None] if grey else pixels)
        if images[-1].shape != images[0].shape:
            raise InputError(
                f"{file} is {images[-1].shape}, but {files[0].name} is {images[0].shape}: "
                "resize all images to one size and mode"
            )
    stack = np.stack(images)
    return Dataset(np.moveaxis(stack, 3, 1), "images", str(path), "hwc")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# --- writing -----------------------------------------------------------------------------------


def save(path: str | Path, values: np.ndarray, scaler: Scaler) -> Path:
    """Write rows in the user's own format: `.npy`, `.npz`, `.csv`, `.parquet` or PNGs.

    A path without an ending is a folder of PNGs (images only). Returns the path written. Files are
    replaced atomically. Raises InputError on an unknown ending or an unwritable place.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        values = _user_layout(values, scaler.layout)
        if suffix == ".npy":
            return write_bytes(path, lambda file: np.save(file, values))
        return write_bytes(path, lambda file: np.savez_compressed(file, samples=values))
    if suffix in (".csv", ".parquet"):
        return _save_table(path, values, scaler)
    if suffix:
        raise InputError(f"{path}: samples are written as .npy, .npz, .csv, .parquet or a folder")
    return _save_images(path, values, scaler)


def in_user_layout(data: Dataset) -> np.ndarray:
    """The values with their axes as the user gave them."""
    return _user_layout(data.values, data.layout)


def _user_layout(values: np.ndarray, layout: str) -> np.ndarray:
    if layout in ("hw", "flat"):
        return values[:, 0]
    return np.moveaxis(values, 1, 3) if layout == "hwc" else values


def _save_table(path: Path, values: np.ndarray, scaler: Scaler) -> Path:
    flat = values.reshape(len(values), -1)
    names = scaler.columns or [f"x{j}" for j in range(flat.shape[1])]
    whole = np.broadcast_to(np.asarray(scaler.integer), flat.shape[1])
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise InputError("writing .parquet needs: pip install 'reverie[tables]'") from error
        columns = [
            flat[:, j].astype(np.int64 if whole[j] else np.float64) for j in range(len(names))
        ]
        table = pyarrow.table(dict(zip(names, columns, strict=True)))
        return write_bytes(path, lambda file: parquet.write_table(table, file))

    def write(file: Any) -> None:
        head = [] if scaler.columns is None else [",".join(_quoted(n) for n in names)]
        rows = (
            ",".join(str(int(v)) if w else repr(float(v)) for v, w in zip(row, whole, strict=True))
            for row in flat
        )
        file.write(("\n".join([*head, *rows]) + "\n").encode())

    return write_bytes(path, write)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n') else name


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


# --- splitting ---------------------------------------------------------------------------------


def split(
    data: Dataset, n: int | None, holdout: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Random train and held-out row indices, and how many held-out rows stand in training too.

    Default `holdout`: with `n`, all other rows up to 10,000; else a fifth of the rows, at least
    200 and at most half. Rows are kept as they are: a split that depends on the values would break
    the exchangeability on which the audit rests.
    """
    total = len(data)
    if n is not None and not 1 <= n <= total - 1:
        raise InputError(f"--n {n}: {data.source} has {total} rows, so N is 1 to {total - 1}")
    if holdout is None:
        holdout = min(total - n, 10_000) if n else min(max(total // 5, 200), total // 2, 10_000)
    if not 0 <= holdout < total or (n or 1) + holdout > total:
        raise InputError(
            f"cannot hold out {holdout} of {total} rows beside {n or 'the'} training rows"
        )
    order = np.random.default_rng(seed).permutation(total)
    held = order[:holdout]
    train = order[holdout:] if n is None else order[holdout : holdout + n]
    shared = int(shared_rows(data.values[held], data.values[train]).sum())
    return np.sort(train), np.sort(held), shared


def some_rows(points: Tensor, most: int, seed: int) -> Tensor:
    """At most `most` rows, at random: splits keep the order of the file, which may matter."""
    if len(points) <= most:
        return points
    pick = np.random.default_rng(seed).choice(len(points), most, replace=False)
    return points[torch.as_tensor(np.sort(pick), device=points.device)]


def shared_rows(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask (len(rows),) of the rows that stand verbatim among `others`."""
    if len(rows) == 0 or len(others) == 0:
        return np.zeros(len(rows), bool)
    kinds = [a.dtype for a in (rows, others) if a.dtype.kind == "f"]
    common = min(kinds, key=lambda kind: kind.itemsize) if kinds else np.dtype(np.float64)
    flat = [
        np.ascontiguousarray(a.reshape(len(a), -1).astype(common) + 0.0) for a in (rows, others)
    ]
    known = {row.tobytes() for row in flat[1]}
    return np.fromiter((row.tobytes() in known for row in flat[0]), bool, len(rows))
