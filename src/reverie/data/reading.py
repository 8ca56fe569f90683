"""Load arrays, tables and images from wherever the user has them. Nothing is unpickled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from reverie.data.arrays import from_array, from_list, from_sparse, from_tensor
from reverie.data.databases import DATABASES, read_query
from reverie.data.dataset import Dataset
from reverie.data.frames import from_frame, is_frame
from reverie.data.identifiers import set_apart
from reverie.data.idx import fashion_mnist, read_idx
from reverie.data.matlab import read_mat
from reverie.data.options import Reading
from reverie.data.parquet import ENDINGS as ARROW
from reverie.data.parquet import only_numbers, read_parquet
from reverie.data.pictures import read_folder
from reverie.data.said import as_said
from reverie.data.spreadsheets import read_excel
from reverie.data.stored.opening import open_stored
from reverie.data.text_tables import ENDINGS, read_csv
from reverie.data.volumes import is_dicom, is_nifti, read_volumes, volumes_in
from reverie.data.words import read_words
from reverie.errors import InputError

BUILT_IN = ("digits", "wine", "breast-cancer", "fashion-mnist")
FORMATS = (
    ".npy, .npz, .csv or .tsv (.gz), .parquet, .feather, .xlsx, .txt (a row a line), .mat, "
    "FILE.sqlite:SELECT ..., an idx file (MNIST format), .nii (.gz), .dcm, a Zarr array, .tar "
    "shards (SHARDS/{000..099}.tar or their folder), a folder of images, "
    "of NIfTI or of DICOM files, or one of " + ", ".join(BUILT_IN)
)


def load(
    source: Any,
    *,
    mixed: bool = False,
    reading: Reading | None = None,
    keys: bool | None = None,
    stored: bool | None = None,
) -> Dataset:
    """Load a built-in name, a file, a folder of images, an array, a tensor or a DataFrame.

    Files: `.npy`, `.npz` (one array, or `FILE.npz:KEY`), tables of text (`.csv`, `.tsv`, `.data`,
    also gzipped; see `sniffing`), `.parquet` and `.feather` (extra `tables`), `.xlsx` (extra
    `excel`), `.sqlite:QUERY`, `.txt` (every line a row of letters), `.mat` of MATLAB 5, volumes of
    NIfTI and DICOM (extras `nifti`, `dicom`; see `volumes`).
    In memory: NumPy (masked, structured), tensors (any precision, sparse), SciPy's sparse
    matrices, lists, and tables of pandas, polars, PyArrow or the DataFrame protocols.

    mixed: tables may hold categories and missing cells (see `Column`), as audits and finite sets
    take them. reading: what the user says about the source. keys: whether columns that name rows
    stay; by default only in mixed tables. stored: whether rows stay on disk and are read in pieces
    (`.npy`, `.parquet`, `.feather`, Zarr, folders of images, shards of `.tar`); by default where
    they would take a quarter of the memory, and of shards and Zarr always. Raises InputError: what
    is wrong, and where.

    >>> import numpy as np
    >>> from reverie.data import load
    >>> wine, mine = load("wine"), load(np.zeros((5, 8, 8, 3), dtype=np.uint8))
    >>> wine.shape, wine.columns[:2], mine.kind, mine.values.shape
    ((13,), ('alcohol', 'malic_acid'), 'images', (5, 3, 8, 8))
    """
    said = reading or Reading()
    if stored is not None:
        said = reading = replace(said, stored=stored)
    if isinstance(source, str | Path) and str(source) not in BUILT_IN:
        found = open_stored(str(source), said)
        if found is not None:
            return found if said.stored is not False else found.in_full()
    if isinstance(source, Dataset):
        data = source if reading is None else as_said(source, said)
        return data if mixed or data.reading is None else _loaded_numbers(data)
    data = as_said(_load(source, True, said), said) if mixed else _numbers(source, said)
    return data if (mixed if keys is None else keys) else without_keys(data)


def without_keys(data: Dataset) -> Dataset:
    """A table that came with its columns' names, without those that name rows."""
    if data.kind != "table" or data.columns is None or not data.fields:
        return data
    (kept,), found = set_apart([data])
    if not found:
        return data
    said = data.reading or Reading()
    names = ", ".join(f"{column.name} ({column.why})" for column in found[:8])
    note = f"set apart, for they name rows: {names}" + (", ..." if len(found) > 8 else "")
    ignored = (*said.ignore, *(column.name for column in found))
    return replace(kept, notes=(*data.notes, note), reading=replace(said, ignore=ignored))


def _loaded_numbers(data: Dataset) -> Dataset:
    """A table that was loaded with its categories, as one of numbers; InputError where it is none.

    Its file is read again where it is refused, for the line of the cell.
    """
    kept = without_keys(data)
    if any(f.kind == "categorical" or f.has_missing for f in kept.fields) and kept.kind == "table":
        return only_numbers(kept) if data.in_memory else _numbers(data.source, data.reading)
    return kept


def _numbers(source: Any, said: Reading | None) -> Dataset:
    """A source as numbers: what is text is set apart if it names rows, else refused."""
    said = said or Reading()
    try:
        return as_said(_load(source, False, said), said)
    except InputError:
        try:
            data = as_said(_load(source, True, said), said)
            kept = without_keys(data)
        except InputError:
            kept = data = None
        texts = [] if kept is None else [
            f for f in kept.fields if f.kind == "categorical" or f.has_missing
        ]  # fmt: skip
        if kept is None or texts or kept.kind != "table":
            raise
        return kept


def _load(source: Any, mixed: bool, said: Reading) -> Dataset:
    if isinstance(source, Tensor):
        return from_tensor(source)
    if isinstance(source, np.ndarray):
        return from_array(source, "the array")
    if is_frame(source):
        data = from_frame(source, said)
        return data if mixed else only_numbers(data)
    if isinstance(source, list | tuple):
        return from_list(source)
    if hasattr(source, "todense"):
        return from_sparse(source, "the array")
    if not isinstance(source, str | Path):
        raise InputError(
            f"the data are a {type(source).__name__}; give an array, tensor, DataFrame or path"
        )
    text = str(source)
    return _built_in(text) if text in BUILT_IN else _from_path(text, mixed, said)


def _from_path(text: str, mixed: bool, said: Reading) -> Dataset:
    path, key = _path_and_key(text)
    try:
        if path.is_dir():
            volumes = volumes_in(path)
            return read_volumes(path, volumes) if volumes else read_folder(path, said)
        if not path.exists():
            raise InputError(f"{text} does not exist; DATA is {FORMATS}")
        if path.stat().st_size == 0:
            raise InputError(f"{text} is empty")
        return _from_file(path, key, mixed, said)
    except (PermissionError, IsADirectoryError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text} cannot be read ({_first_line(error)})") from error


def _path_and_key(text: str) -> tuple[Path, str]:
    """A path, and what a colon behind its ending names within it."""
    for ending in (".npz", ".mat", ".xlsx", *DATABASES):
        path, colon, key = text.partition(ending + ":")
        if colon:
            return Path(path + ending), key
    return Path(text), ""


def _from_file(path: Path, key: str, mixed: bool, said: Reading) -> Dataset:
    name = path.name.lower()
    if name.endswith(("-ubyte", "-ubyte.gz")):
        return read_idx(path)
    if name.endswith(ENDINGS) or (said.sep is not None and name.endswith((".txt", ".txt.gz"))):
        return read_csv(path, mixed, said)
    if name.endswith(ARROW):
        return read_parquet(path, mixed, said)
    if name.endswith(".xlsx"):
        data = read_excel(path, key, said)
        return data if mixed else only_numbers(data)
    if name.endswith(DATABASES):
        data = read_query(path, key, said)
        return data if mixed else only_numbers(data)
    if name.endswith(".txt"):
        return read_words(path)
    if name.endswith(".mat"):
        return read_mat(path, key)
    if is_nifti(path) or is_dicom(path):
        return read_volumes(path, [path])
    if name.endswith(".npy"):
        return _read_npy(path)
    if name.endswith(".npz"):
        return _read_npz(path, key)
    raise InputError(f"{path} has an unknown ending; DATA is {FORMATS}")


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


def _read_npy(path: Path) -> Dataset:
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except Exception as error:  # damaged headers fail in many ways
        raise InputError(f"{path} is not a plain NumPy array ({_first_line(error)})") from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is not a plain NumPy array, but an archive: call it .npz")
    return from_array(array, str(path))


def _read_npz(path: Path, key: str) -> Dataset:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            if not key and len(names) != 1:
                raise InputError(f"{path} holds {', '.join(names)}: name one as {path}:NAME")
            name = key or names[0]
            if name not in names:
                raise InputError(f"{path} has no array {name!r}; it holds {', '.join(names)}")
            return from_array(archive[name], f"{path}:{name}")
    except InputError:
        raise
    except Exception as error:  # damaged archives fail in many ways
        raise InputError(f"{path} is not a NumPy archive ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
