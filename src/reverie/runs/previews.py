"""Small pictures (or tables) of what a model draws while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.curve import level_times
from reverie.data import Scaler, save, to_image, to_pixels
from reverie.denoisers import Denoiser, Seen
from reverie.files import write_bytes
from reverie.sampling import sample, samplers_of
from reverie.sampling.starting import start_law

COUNT, LEVELS = 48, 19


def write_preview(
    path: Path, denoiser: Denoiser, scaler: Scaler, seed: int, seen: Seen | None = None
) -> Path:
    """Draw COUNT samples from fixed noise and write them: a contact sheet, or 16 rows of numbers.

    `path` has no ending; returns the file written. seen: the training rows, where samples start
    whose first level keeps signal.
    """
    device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
    times = torch.as_tensor(level_times(denoiser.process, LEVELS))
    points = sample(
        denoiser,
        COUNT if scaler.kind == "images" else 16,
        times,
        "ddim" if "ddim" in samplers_of(denoiser.process) else "ancestral",
        shape=scaler.point_shape,
        generator=torch.Generator(device).manual_seed(seed),
        device=device,
        start=start_law(denoiser, times, float(times[0]), seen=seen),
    )
    values = scaler.to_user(points)
    if scaler.kind == "images":
        sheet = contact_sheet(values, scaler)
        return write_bytes(path.with_suffix(".png"), lambda file: sheet.save(file, "PNG"))
    if scaler.kind == "text":
        return save(path.with_suffix(".txt"), values, scaler)
    if values.ndim == 2:
        return save(path.with_suffix(".csv"), values, scaler)
    return save(path.with_suffix(".npy"), values, scaler)


def contact_sheet(values: np.ndarray, scaler: Scaler, across: int = 12, scale: int = 4) -> Any:
    """One Pillow image with images (n, C, H, W) side by side, enlarged `scale` times."""
    pixels = to_pixels(values, scaler)
    count, channels, height, width = pixels.shape
    down = -(-count // across)
    sheet = np.full((channels, down * (height + 1), across * (width + 1)), 255, np.uint8)
    for index, image in enumerate(pixels):
        row, column = divmod(index, across)
        top, left = row * (height + 1), column * (width + 1)
        sheet[:, top : top + height, left : left + width] = image
    return to_image(sheet.repeat(scale, 1).repeat(scale, 2))
