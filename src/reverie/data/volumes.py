"""Medical volumes: NIfTI files (extra `nifti`) and DICOM series (extra `dicom`).

    FILE.nii[.gz]   of four axes: every volume along the last is a row; of three: every slice is
    a folder of NIfTI files                 every file is a row, a volume, in the order of names
    a folder of DICOM files                 every series is a row, a volume; every slice is, of a
                                            single series, or where each series has only one
    FILE.dcm        of several frames: every frame is a row

Volumes are (n, 1, depth, height, width), slices (n, 1, height, width). NIfTI axes are turned to
the nearest of left to right, back to front, bottom to top (RAS+), and depth is bottom to top.
Slices of a series stand in the order of their places along its normal. Numbers are those that the
header's slope and intercept give (Hounsfield units, say).

Whole numbers without a scale stay as they are, anything else is float32.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.dataset import Dataset
from reverie.errors import InputError

NIFTI = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom", ".ima")
MAGIC, MAGIC_AT = b"DICM", 128
SAME_PLACE = 1e-3  # millimetres between slices of one place
INVERTED = "DICOM slices of MONOCHROME1 are turned to bright on dark"


def is_nifti(path: Path) -> bool:
    """Whether a file is one of NIfTI by its name."""
    return path.name.lower().endswith(NIFTI)


def is_dicom(path: Path) -> bool:
    """Whether a file is one of DICOM by its name, or by its mark where the name says nothing."""
    if path.name.lower().endswith(DICOM):
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    with path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def volumes_in(path: Path) -> list[Path]:
    """The NIfTI or DICOM files of a folder, also of folders in it; none where it has other kinds.

    InputError where it holds both.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    kinds = {kind: [p for p in files if kind(p)] for kind in (is_nifti, is_dicom)}
    if all(kinds.values()):
        raise InputError(f"{path} holds NIfTI and DICOM files: give a folder of one kind")
    return kinds[is_nifti] or kinds[is_dicom]


def read_volumes(path: Path, files: Sequence[Path]) -> Dataset:
    """The rows of a folder whose volumes are `files`, or of one file; see the module.

    InputError on damaged files, on unequal shapes, and where the extra is not installed.
    """
    return _read_nifti(path, files) if is_nifti(files[0]) else _read_dicom(path, files)


# --- NIfTI ---------------------------------------------------------------------------------------


def _read_nifti(path: Path, files: Sequence[Path]) -> Dataset:
    turned, parts = 0, []
    for file in files:
        volume, was_turned = _nifti(file)
        turned += was_turned
        parts.append(volume)
    notes = [f"{turned} of {len(files)} volumes are turned to RAS+ axes"] if turned else []
    if len(files) == 1 and parts[0].ndim == 3:
        return _slices(parts[0], path, [*notes, "one volume: its slices are the rows"])
    if len(files) == 1:
        notes.append("one file of several volumes: each is a row")
        parts = list(np.moveaxis(parts[0], 3, 0))
    for file, volume in zip(files, parts, strict=False):
        if volume.ndim != 3:
            raise InputError(
                f"{file} has {volume.ndim} axes: files of a folder are one volume each"
            )
    return _stacked(parts, path, files, notes)


def _nifti(file: Path) -> tuple[np.ndarray, bool]:
    """A volume (depth, height, width), or several along a last axis, and whether it was turned."""
    try:
        import nibabel  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError("reading NIfTI needs the extra: pip install 'reverie[nifti]'") from error
    try:
        image: Any = nibabel.load(file)
        straight = nibabel.as_closest_canonical(image)
        scale = image.dataobj.slope, image.dataobj.inter
        plain = scale == (1.0, 0.0) and image.get_data_dtype().kind in "iu"
        values = np.asanyarray(straight.dataobj)
    except Exception as error:  # its reader fails in many ways on damaged files
        raise InputError(f"{file} is not a NIfTI volume ({_first_line(error)})") from error
    if values.dtype.names or values.dtype.kind not in "fiub":
        raise InputError(f"{file} holds {values.dtype}, not one number a cell")
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (3, 4):
        raise InputError(f"{file} has {values.ndim} axes; volumes have three, or four with time")
    values = values.transpose(2, 1, 0, *range(3, values.ndim))
    return values if plain else values.astype(np.float32), straight is not image


# --- DICOM ---------------------------------------------------------------------------------------


def _read_dicom(path: Path, files: Sequence[Path]) -> Dataset:
    series: dict[str, list[Any]] = defaultdict(list)
    for file in files:
        header = _dicom(file)
        if "PixelData" not in header and ("Rows" in header or "SOPClassUID" not in header):
            raise InputError(f"{file} is cut short: its picture is missing")
        if "PixelData" in header:
            series[str(header.get("SeriesInstanceUID", ""))].append((file, header))
    skipped = len(files) - sum(map(len, series.values()))
    notes = (
        [f"{skipped} of {len(files)} files hold no picture and are left out"] if skipped else []
    )
    if not series:
        raise InputError(f"{path} holds no DICOM picture")
    found = [volume for members in series.values() for volume in _volumes(members, notes)]
    stacks, names = [_series(volume) for volume in found], [volume[0][0] for volume in found]
    if len(stacks) == 1:
        return _slices(stacks[0], path, [*notes, "one volume: its slices are the rows"])
    if all(len(stack) == 1 for stack in stacks):
        same = _alike(stacks, names)
        return _slices(np.concatenate(same), path, notes)
    return _stacked(stacks, path, names, [*notes, f"{len(stacks)} volumes: each is a row"])


def _dicom(file: Path) -> Any:
    try:
        import pydicom  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError("reading DICOM needs the extra: pip install 'reverie[dicom]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that bend the standard
            return pydicom.dcmread(file)
    except Exception as error:  # damaged files fail in many ways
        raise InputError(f"{file} is not a DICOM file ({_first_line(error)})") from error


def _volumes(members: list[Any], notes: list[str]) -> list[list[Any]]:
    """The volumes (file, header) of one series, each in the order of places along its normal.

    Where every place has several slices, as at several times, each time is a volume.
    """
    inverted = any(h.get("PhotometricInterpretation") == "MONOCHROME1" for _, h in members)
    if inverted and INVERTED not in notes:
        notes.append(INVERTED)
    ordered = sorted(members, key=lambda pair: _place(pair[1]))
    at = np.array([_place(header)[0] for _, header in ordered])
    start = np.append(True, np.diff(at) > SAME_PLACE)
    times = set(np.bincount(start.cumsum() - 1).tolist())
    if len(times) > 1 or times == {1} or start.sum() == 1:
        return [ordered]
    count = times.pop()
    return [ordered[k::count] for k in range(count)]


def _series(volume: list[Any]) -> np.ndarray:
    """Slices (depth, height, width[, 3]) of one volume."""
    slices = [_pixels(file, header) for file, header in volume]
    if any(s.dtype != slices[0].dtype for s in slices):
        slices = [s.astype(np.float32) for s in slices]
    return np.concatenate(_alike(slices, [file for file, _ in volume]))


def _place(header: Any) -> tuple[float, float]:
    """Where a slice lies along the normal of its series, then the number that it bears."""
    number = float(header.get("InstanceNumber") or 0)
    axes, corner = header.get("ImageOrientationPatient"), header.get("ImagePositionPatient")
    if not axes or not corner or len(axes) != 6 or len(corner) != 3:
        return 0.0, number
    rows, columns = np.asarray(axes, dtype=np.float64).reshape(2, 3)
    return float(np.cross(rows, columns) @ np.asarray(corner, dtype=np.float64)), number


def _pixels(file: Path, header: Any) -> np.ndarray:
    """Frames (f, h, w), or (f, h, w, 3) in colour, in the units of the header."""
    from pydicom.pixels import (  # pyright: ignore[reportMissingImports]
        apply_color_lut,
        apply_rescale,
        pixel_array,
    )

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that bend the standard
            pixels, kind = pixel_array(header), str(header.PhotometricInterpretation)
            colour = int(header.get("SamplesPerPixel", 1)) > 1
            if kind == "PALETTE COLOR":
                pixels, colour = apply_color_lut(pixels, header), True
            if kind == "MONOCHROME1":  # stored numbers count down from the brightest
                signed = int(header.get("PixelRepresentation", 0))
                pixels = (-1 if signed else 2 ** int(header.BitsStored) - 1) - pixels
            pixels = _scaled(pixels, header, apply_rescale)
    except Exception as error:  # of a compression without its decoder, cut files and others
        raise InputError(
            f"{file} holds no picture that can be read ({_first_line(error)})"
        ) from error
    return pixels if pixels.ndim == (4 if colour else 3) else pixels[None]


def _scaled(pixels: np.ndarray, header: Any, apply_rescale: Any) -> np.ndarray:
    """Stored numbers in the units of the header; as they are where it has no scale but 1."""
    if "DoseGridScaling" in header:
        return (pixels * float(header.DoseGridScaling)).astype(np.float32)
    slope, shift = (float(header.get(k, d)) for k, d in (("RescaleSlope", 1),
                                                         ("RescaleIntercept", 0)))  # fmt: skip
    plain = (slope, shift) == (1, 0) and "ModalityLUTSequence" not in header
    return pixels if plain else apply_rescale(pixels, header).astype(np.float32)


# --- both ----------------------------------------------------------------------------------------


def _alike(parts: Sequence[np.ndarray], files: Sequence[Path]) -> list[np.ndarray]:
    """The parts, or InputError that names the first whose slices have another shape."""
    for part, file in zip(parts, files, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise InputError(
                f"{file} is {_size(part.shape[1:])}, but {files[0].name} is "
                f"{_size(parts[0].shape[1:])}: bring all to one size"
            )
    return list(parts)


def _stacked(
    parts: Sequence[np.ndarray], path: Path, files: Sequence[Path], notes: Sequence[str]
) -> Dataset:
    """Volumes (d, h, w[, 3]) as rows (n, channels, d, h, w)."""
    for part, file in zip(parts, files, strict=False):
        if part.shape != parts[0].shape:
            raise InputError(
                f"{file} is {_size(part.shape)}, but {files[0].name} is {_size(parts[0].shape)}: "
                "bring all volumes to one size"
            )
    values = np.stack(parts)
    values = np.moveaxis(values, 4, 1) if values.ndim == 5 else values[:, None]
    return Dataset(np.ascontiguousarray(values), "vectors", str(path), notes=tuple(notes))


def _slices(volume: np.ndarray, path: Path, notes: Sequence[str]) -> Dataset:
    """Slices (n, h, w[, 3]) as pictures (n, channels, h, w)."""
    colour = volume.ndim == 4
    values = np.moveaxis(volume, 3, 1) if colour else volume[:, None]
    layout = "hwc" if colour else "hw"
    return Dataset(np.ascontiguousarray(values), "images", str(path), layout, notes=tuple(notes))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
