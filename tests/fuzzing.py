"""Files of every format, mutated at random and read: `python tests/fuzzing.py 10000`.

A file is changed in bytes, cut, joined to another, filled with zeros or given another ending. What
is wrong with it must be said in an InputError; every other exception is a fault, and so is a file
that is read though its checksum is broken (gzip, PNG, npz).
"""

from __future__ import annotations

import gzip
import io
import sqlite3
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from reverie.data import Reading, describe, load
from reverie.errors import InputError

ROWS = 30
CHECKED = (".png", ".npz", ".gz")  # formats that tell by themselves when a byte is changed


def _table(rng: np.random.Generator, sep: str = ",", decimal: str = ".") -> bytes:
    days = np.datetime64("2021-01-01") + rng.integers(0, 900, ROWS)
    lines = [sep.join(("id", "day", "x", "kind", "ok"))]
    for k, day in enumerate(days):
        number = f"{rng.normal():.3f}".replace(".", decimal)
        cells = (f"A{k:05d}", str(day), number, ("red", "blue", "", "NA")[k % 4], str(k % 3 == 0))
        lines.append(sep.join(cells))
    return ("\n".join(lines) + "\n").encode()


def _saved(write) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def _database() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.sqlite"
        connection = sqlite3.connect(path)
        connection.execute("create table t (a integer, b real, c text)")
        connection.executemany("insert into t values (?, ?, ?)",
                               [(k, k / 3, "xy"[k % 2]) for k in range(ROWS)])  # fmt: skip
        connection.commit()
        connection.close()
        return path.read_bytes()


def seeds(rng: np.random.Generator) -> dict[str, bytes]:
    """A small valid file of each format, by its name."""
    from PIL import Image
    from scipy.io import savemat

    numbers = rng.normal(size=(ROWS, 3)).round(3)
    image = Image.fromarray(rng.integers(0, 255, (6, 5, 3)).astype(np.uint8))
    head = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (ROWS, 4, 5))
    pixels = rng.integers(0, 255, (ROWS, 4, 5)).astype(np.uint8)
    plain = "\n".join(",".join(map(str, row)) for row in numbers.tolist()).encode() + b"\n"
    found = {
        "mixed.csv": _table(rng), "tabs.tsv": _table(rng, "\t"),
        "german.csv": _table(rng, ";", ","),
        "numbers.csv": b"a,b,c\n" + plain, "blanks.data": plain.replace(b",", b"  "),
        "packed.csv.gz": gzip.compress(_table(rng), mtime=0),
        "latin.csv": b"ort,x\n" + "München,1\nKöln,2\n".encode("cp1252") * 9,
        "words.txt": b"abc\nabd\nbcd\n" * 9,
        "rows.npy": _saved(lambda f: np.save(f, numbers)),
        "rows.npz": _saved(lambda f: np.savez_compressed(f, x=numbers)),
        "rows.mat": _saved(lambda f: savemat(f, {"X": numbers})),
        "images-ubyte": head + pixels.tobytes(),
        "images-ubyte.gz": gzip.compress(head + pixels.tobytes(), mtime=0),
        "db.sqlite": _database(),
    }  # fmt: skip
    for kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp"):
        found[f"picture.{kind}"] = _saved(lambda f, kind=kind: image.save(f, kind))
    return found | _extras(numbers)


def _extras(numbers: np.ndarray) -> dict[str, bytes]:
    """Formats whose reader is an extra, where it is installed."""
    found = {}
    try:
        import pyarrow
        from pyarrow import feather, parquet

        table = pyarrow.table({"a": numbers[:, 0], "b": ["x", "y", None] * (ROWS // 3)})
        found["table.parquet"] = _saved(lambda f: parquet.write_table(table, f))
        found["table.feather"] = _saved(lambda f: feather.write_feather(table, f))
    except ImportError:
        pass
    try:
        import openpyxl

        book = openpyxl.Workbook()
        for row in [["a", "b", "c"], *numbers.tolist()]:
            book.active.append(row)
        found["sheet.xlsx"] = _saved(book.save)
    except ImportError:
        pass
    return found | _volumes(numbers)


def _volumes(numbers: np.ndarray) -> dict[str, bytes]:
    """Of NIfTI and DICOM, where their packages are installed."""
    found = {}
    try:
        import nibabel

        volume = nibabel.Nifti1Image(numbers.reshape(ROWS, 3, 1).astype(np.float32), np.eye(4))
        found["head.nii"] = volume.to_bytes()
        found["head.nii.gz"] = gzip.compress(volume.to_bytes(), mtime=0)
    except ImportError:
        pass
    try:
        import pydicom  # noqa: F401  # its writer is in a module of its own
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        pixels = (1000 * np.abs(numbers)).astype("<u2")
        for name, value in dict(
            SOPClassUID=CTImageStorage, SOPInstanceUID="1.2.3", SeriesInstanceUID="1.2",
            Rows=ROWS, Columns=3, SamplesPerPixel=1, BitsAllocated=16, BitsStored=16, HighBit=15,
            PixelRepresentation=0, PhotometricInterpretation="MONOCHROME2",
            PixelData=pixels.tobytes(),
        ).items():  # fmt: skip
            setattr(header, name, value)
        found["slice.dcm"] = _saved(lambda f: header.save_as(f, enforce_file_format=True))
    except ImportError:
        pass
    return found


def mutate(raw: bytes, other: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """A changed file and what was done to it."""
    way = rng.choice(["flip", "cut", "join", "zero", "insert", "drop", "repeat", "swap", "same"])
    data = bytearray(raw)
    place, size = int(rng.integers(len(raw))), int(rng.integers(1, 64))
    if way == "flip":
        for k in rng.integers(0, len(raw), rng.integers(1, 6)):
            data[k] ^= int(rng.integers(1, 256))
    elif way == "cut":
        data = data[:place]
    elif way == "join":
        data = data[:place] + bytearray(other)
    elif way == "zero":
        data[place : place + size] = bytes(len(data[place : place + size]))
    elif way == "insert":
        data[place:place] = rng.bytes(size)
    elif way == "drop":
        del data[place : place + size]
    elif way == "repeat":
        data[place:place] = data[place : place + size]
    elif way == "swap":
        half = data[place : place + size]
        data = data[:place] + half[::-1] + data[place + size :]
    return bytes(data), str(way)


def read(path: Path, mixed: bool) -> None:
    """Read and describe a file, or a folder with it where it is a picture."""
    if path.suffix.lower() in (".png", ".jpeg", ".gif", ".tiff", ".bmp", ".webp"):
        describe(path.parent, Reading(size=4, mode="rgb"))
    elif mixed:
        describe(path)
    else:
        load(path)


def run(count: int, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """How many files ended how, and the faults: what was done, and the traceback."""
    rng = np.random.default_rng(seed)
    known = seeds(rng)
    names, ended, faults = sorted(known), Counter(), []
    for number in range(count):
        name, other = rng.choice(names, 2)
        raw, way = mutate(known[name], known[other], rng)
        called = other if rng.random() < 0.1 else name  # another format's ending
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "in" / called
            path.parent.mkdir()
            path.write_bytes(raw)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read(path, mixed=bool(rng.random() < 0.7))
                ended["read"] += 1
                if called == name and way == "flip" and _is_broken(name, raw):
                    faults.append(f"{number}: {name}, {way}: read though its checksum is broken")
            except InputError as error:
                ended["refused"] += 1
                if "\n" in str(error) or "Traceback" in str(error):
                    faults.append(f"{number}: {name}, {way}: not one sentence: {error}")
            except Exception:
                faults.append(f"{number}: {called} of {name}, {way}: {traceback.format_exc()}")
    return ended, faults


def _is_broken(name: str, raw: bytes) -> bool:
    """Whether the format's own checksum says that a byte was changed."""
    if name.endswith(".gz"):
        try:
            gzip.decompress(raw)
        except (OSError, EOFError, zlib.error):
            return True
    return False


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    ended, faults = run(count, seed)
    print(f"{count:,} files: {dict(ended)}, {len(faults)} faults")
    for fault in faults[:20]:
        print(fault)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
