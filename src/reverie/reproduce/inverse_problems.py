"""Inverse problems with an unconditional denoiser: what each method gets wrong, and by how much.

On Gaussian data the guided guess is compared with E[x | x_t, y], where moment matching is exact.
On a mixture of five Gaussians, one of two coordinates observed, draws are compared with the
posterior. On digits half an image is filled in; where the truth is drawn from the model as well,
intervals of the exact posterior would cover at their level.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.reproduce import inverse_digits, inverse_mixture
from reverie.reproduce.inverse_scores import DRAWS
from reverie.reproduce.tables import write_table


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write two figures and the table; `full` takes four times as many observations."""
    observations, images = (400, 128) if full else (100, 32)
    rows = inverse_mixture.gaussian_rows(seed)
    rows += inverse_mixture.mixture_rows(out, seed, observations)
    rows += inverse_digits.digits_rows(out, seed, images)
    settings = dict(observations=observations, images=images, draws=DRAWS)
    return write_table(out, "Inverse problems: six methods against the posterior", rows, seed,
                       settings)  # fmt: skip
