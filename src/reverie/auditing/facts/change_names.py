"""What was done to a picture, in words: read off the training picture and the sample."""

from __future__ import annotations

import io

import numpy as np

from reverie.auditing.facts.picture_changes import Change

MOST = 500  # pictures that are looked at one by one; others are called by their map alone
JPEG = (30, 50, 75, 90)  # qualities
LEVELS = 255.0
SEEN = (6.0, 0.06, 3.0)  # levels of brightness, part of the contrast, levels of noise worth a word


def named(
    pool: np.ndarray, drawn: np.ndarray, left: np.ndarray, row: np.ndarray, change: np.ndarray,
    maps: list[Change], picked: np.ndarray,
) -> list[str]:  # fmt: skip
    """A name for each picked sample, such as "mirrored" or "noise of 48 levels".

    pool, drawn: pictures; left: the samples that were asked; row, change: what was found for each.
    """
    low, high = float(pool.min()), float(pool.max())
    scale = LEVELS / (high - low) if high > low else 1.0
    names = []
    for number, i in enumerate(picked):
        map_name = maps[change[i]].name
        if number >= MOST:
            names.append(map_name or "brightness, contrast or noise")
            continue
        sample = (np.asarray(drawn[left[i]], float) - low) * scale
        made = maps[change[i]].apply((np.asarray(pool[row[i]], float) - low) * scale)
        names.append(_words(map_name, made, sample))
    return names


def _words(map_name: str, made: np.ndarray, sample: np.ndarray) -> str:
    if map_name.startswith("inverted"):
        return map_name
    inside = (made > 60) & (made < 195)  # what was cut off at black and white tells nothing
    if inside.sum() < 20:
        inside = (sample > 0) & (sample < LEVELS)
    slope, offset = np.polyfit(made[inside], sample[inside], 1) if inside.sum() > 2 else (1, 0)
    noise = float((sample - slope * made - offset)[inside].std()) if inside.any() else 0.0
    level = float((sample - made)[inside].mean()) if inside.any() else 0.0
    words = [map_name] if map_name else []
    if not map_name and noise > SEEN[2] and (quality := _jpeg(made, sample, noise)):
        return f"saved as JPEG of quality about {quality}"
    if abs(slope - 1) > max(
        SEEN[1], 4 * noise / (made[inside].std() + 1) / np.sqrt(inside.sum() + 1)
    ):
        words.append(f"contrast x {slope:.1f}")
    elif abs(level) > SEEN[0]:
        words.append(f"brightness {level:+.0f} levels")
    if noise > SEEN[2] and not map_name:
        words.append(f"noise of {noise:.0f} levels")
    return ", ".join(words) or "almost unchanged"


def _jpeg(made: np.ndarray, sample: np.ndarray, noise: float) -> int | None:
    """The quality at which saving explains over half of what is left, if there is one."""
    from PIL import Image

    pixels = np.clip(np.moveaxis(made, 0, -1), 0, LEVELS).round().astype(np.uint8)
    grey = pixels.shape[-1] == 1
    if pixels.shape[-1] not in (1, 3):
        return None
    left = []
    for quality in JPEG:
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if grey else pixels).save(file, "JPEG", quality=quality)
        again = np.asarray(Image.open(file), float)
        again = again[None] if grey else np.moveaxis(again, -1, 0)
        left.append(float((sample - again).std()))
    best = int(np.argmin(left))
    return JPEG[best] if left[best] < 0.5 * noise else None
