"""Load arrays, tables and images from wherever the user has them. Nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.data.parquet import read_parquet
from reverie.data.pictures import fashion_mnist, read_folder, read_idx
from reverie.data.text_tables import ENDINGS, read_csv
from reverie.data.words import read_words
from reverie.errors import InputError

BUILT_IN = ("digits", "wine", "breast-cancer", "fashion-mnist")
FORMATS = (
    ".npy, .npz, .csv (.gz), .parquet, .txt (a row a line), .mat, an idx file (MNIST format), a folder "
    "of images, or one of " + ", ".join(BUILT_IN)
)


def load(source: str | Path | np.ndarray | Tensor | Dataset, *, mixed: bool = False) -> Dataset:
    """Load a built-in name, a file, a folder of images, an array or a tensor.

    Files: `.npy`, `.npz` (one array, or `FILE.npz:KEY`), `.csv` or `.data`, also gzipped (a header
    is recognised), `.parquet` (extra `tables`), `.txt` (every line a row of letters), `.mat`. mixed:
    tables may hold categories and missing cells (see `Column`), as audits and finite sets take
    them. Raises InputError: what is wrong, and where.
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
        return read_folder(path)
    if not path.exists():
        raise InputError(f"{text} does not exist; DATA is {FORMATS}")
    if path.stat().st_size == 0:
        raise InputError(f"{text} is empty")
    name = path.name.lower()
    if name.endswith(("-ubyte", "-ubyte.gz")):
        return read_idx(path)
    if name.endswith(ENDINGS):
        return read_csv(path, mixed)
    if name.endswith(".parquet"):
        return read_parquet(path, mixed)
    if name.endswith(".txt"):
        return read_words(path)
    if name.endswith((".mat", ".amat")):
        return _read_mat(path)
    if name.endswith(".npy"):
        return _read_npy(path)
    if name.endswith(".npz"):
        return _read_npz(path, key)
    raise InputError(f"{text} has an unknown ending; DATA is {FORMATS}")


def _built_in(name: str) -> Dataset:
    from sklearn import datasets

    if name == "digits":
        digits: Any = datasets.load_digits()
        images = digits.images.astype(np.uint8)
        return Dataset(images[:, None], "images", name, "hw")
    if name == "fashion-mnist":
        return fashion_mnist()
    loader = {"wine": datasets.load_wine, "breast-cancer": datasets.load_breast_cancer}[name]
    table: Any = loader()
    return Dataset(table.data, "table", name, columns=tuple(map(str, table.feature_names)))


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


def _read_npy(path: Path) -> Dataset:
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


def _read_mat(path: Path) -> Dataset:
    """The one array of a MATLAB file (version 5)."""
    from scipy.io import loadmat

    try:
        found = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    except (ValueError, OSError, EOFError, NotImplementedError, TypeError) as error:
        raise InputError(f"{path} is not a MATLAB 5 file ({_first_line(error)})") from error
    arrays = {k: v for k, v in found.items() if v.dtype.kind in "fiub" and v.ndim >= 2}
    if len(arrays) != 1:
        raise InputError(f"{path} holds {len(arrays)} arrays of numbers; one is needed")
    return _from_array(next(iter(arrays.values())), str(path))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
