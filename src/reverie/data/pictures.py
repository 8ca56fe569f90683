"""Folders of pictures: as viewers show them, exact to the bit, with a word about what was changed.

A picture is turned as its EXIF tag says. Transparency is laid over white. 16 bits stay 16. Of an
animation the first picture counts. A folder of folders has a class for each, named by the folder.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reverie.data.dataset import Dataset
from reverie.data.deep_png import decode, is_deep
from reverie.data.options import Reading
from reverie.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
LUMA = (0.299, 0.587, 0.114)  # grey of colour, as ITU-R BT.601 has it
ORIENTATION = 0x0112  # the EXIF tag
SHOWN = 3  # names of files that are left out


@dataclass
class Changes:
    """What was done to pictures, counted, to be said once."""

    done: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def sentences(self, total: int) -> tuple[str, ...]:
        """One sentence for each kind of change."""
        lines = [f"{count} of {total} pictures {what}" for what, count in self.done.items()]
        for names, what in ((self.bad, "could not be read"), (self.others, "are no pictures")):
            if names:
                shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
                lines.append(f"{len(names)} files {what} and are left out ({shown})")
        return tuple(lines)


def read_folder(path: Path, reading: Reading | None = None) -> Dataset:
    """All pictures of a folder, in the order of their names; of folders in it, with their names
    as labels.

    InputError on one that cannot be read (unless `skip_bad`), and where sizes or modes differ
    (unless `size` and `mode` say what to bring them to).
    """
    said, changes = reading or Reading(), Changes()
    files, classes = pictures_in(path, changes)
    images, labels = [], []
    for file, label in files:
        try:
            pixels = _pixels(file, changes)
        except InputError:
            if not said.skip_bad:
                raise
            changes.bad.append(file.name)
            continue
        pixels = as_asked(pixels, said, changes)
        if images and (pixels.shape != images[0].shape or pixels.dtype != images[0].dtype):
            raise InputError(
                f"{file} is {size_of(pixels)}, but {files[0][0].name} is {size_of(images[0])}: "
                "resize all images to one size and mode, or --size 64 --mode rgb does so"
            )
        images.append(pixels)
        labels.append(label)
    if not images:
        raise InputError(f"{path} holds no picture that can be read")
    stack = np.moveaxis(np.stack(images), 3, 1)
    notes = changes.sentences(len(images))
    if classes:
        notes += (f"{len(classes)} classes by folder: {', '.join(classes[:8])}",)
    return Dataset(
        stack, "images", str(path), "hwc", notes=notes, folders=tuple(classes),
        folder_of=np.array(labels) if classes else None,
    )  # fmt: skip


def pictures_in(path: Path, changes: Changes) -> tuple[list[tuple[Path, int]], list[str]]:
    """The pictures of a folder with their class, and the names of the classes."""
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    pictures = [p for p in inside if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
    changes.others += [p.name for p in inside if p.is_file() and p not in set(pictures)]
    if pictures:
        changes.others += [f"{p.name}/" for p in inside if p.is_dir()]
        return [(file, 0) for file in pictures], []
    found, classes = [], []
    for folder in (p for p in inside if p.is_dir()):
        within = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        own = [p for p in within if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
        changes.others += [f"{folder.name}/{p.name}" for p in within if p not in set(own)]
        if own:
            found += [(file, len(classes)) for file in own]
            classes.append(folder.name)
    if not found:
        raise InputError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return found, classes


def _pixels(file: Path, changes: Changes) -> np.ndarray:
    """The pixels of a file; see `pixels_of`."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} is not an image ({error.strerror or error})") from error
    return pixels_of(raw, str(file), changes)


def pixels_of(raw: bytes, file: str, changes: Changes) -> np.ndarray:
    """Pixels (h, w, 1 or 3) in the file's own depth, as a viewer shows them."""
    from PIL import Image, ImageOps

    try:
        if is_deep(raw[:33]):
            return _opaque(decode(raw, file), changes)
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
            turned = ImageOps.exif_transpose(image)
            if image.getexif().get(ORIENTATION, 1) != 1:
                changes.done["are turned as their EXIF tag says"] += 1
            if getattr(image, "n_frames", 1) > 1:
                changes.done["have several frames, of which the first is taken"] += 1
            return _flat(turned, changes)
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} is not an image ({line})") from error


def _flat(image: Any, changes: Changes) -> np.ndarray:
    """Pixels of one Pillow image, without palette and without transparency."""
    mode = image.mode
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if mode == "I":
        return _as_deep(np.asarray(image))[..., None]
    if mode == "F":
        return np.asarray(image)[..., None]
    if mode in ("LA", "La"):
        return _opaque(np.asarray(image.convert("LA")), changes)
    if mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _opaque(np.asarray(image.convert("RGBA")), changes)
    if mode in ("1", "L"):
        return np.asarray(image.convert("L"))[..., None]
    pixels = np.asarray(image.convert("RGB"))
    grey = mode == "P" and (pixels == pixels[..., :1]).all()
    return pixels[..., :1] if grey else pixels


def _as_deep(pixels: np.ndarray) -> np.ndarray:
    """Whole numbers as 16 bits where they are such."""
    fits = pixels.min(initial=0) >= 0 and pixels.max(initial=0) < 2**16
    return pixels.astype(np.uint16) if fits else pixels


def _opaque(pixels: np.ndarray, changes: Changes) -> np.ndarray:
    """Pixels (h, w, c) from those with alpha last (c of 2 or 4), laid over white."""
    if pixels.shape[2] in (1, 3):
        return pixels
    most = float(np.iinfo(pixels.dtype).max)
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    if (alpha == most).all():
        return np.ascontiguousarray(colour)
    changes.done["are partly transparent and are laid over white"] += 1
    share = alpha / most
    return np.round(colour * share + most * (1 - share)).astype(pixels.dtype)


def as_asked(pixels: np.ndarray, said: Reading, changes: Changes) -> np.ndarray:
    """Pixels brought to the mode and the size that the user asks for."""
    channels = pixels.shape[2]
    if said.mode == "rgb" and channels == 1:
        pixels = np.repeat(pixels, 3, 2)
        changes.done["are grey and become rgb"] += 1
    elif said.mode == "grey" and channels == 3:
        pixels = np.round(pixels @ np.array(LUMA))[..., None].astype(pixels.dtype)
        changes.done["are in colour and become grey"] += 1
    if said.size is not None and pixels.shape[:2] != (said.size, said.size):
        square = pixels.shape[0] == pixels.shape[1]
        pixels = _resized(pixels, said.size)
        cut = "" if square else ", cut to a square about their middle"
        changes.done[f"are brought to {said.size} x {said.size}{cut}"] += 1
    return pixels


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    planes = [
        np.asarray(ImageOps.fit(Image.fromarray(pixels[..., k].astype(np.float32)), (size, size),
                                Image.Resampling.LANCZOS))
        for k in range(pixels.shape[2])
    ]  # fmt: skip
    stack = np.stack(planes, 2)
    if pixels.dtype.kind not in "iu":
        return stack
    ends = np.iinfo(pixels.dtype)
    return np.clip(np.round(stack), ends.min, ends.max).astype(pixels.dtype)


def size_of(pixels: np.ndarray) -> str:
    height, width, channels = pixels.shape
    kind = "grey" if channels == 1 else "rgb"
    return f"{height} x {width} {kind} of {8 * pixels.dtype.itemsize} bits"
