"""What a fit can be followed by: its bias, and what going round brings out of it.

The bias is that of two networks on disjoint halves of the training rows, with the same noise.

Both start from the same weights, see the same noise and levels, and differ in nothing but their
rows. Samples a_i of the one and b_i of the other from the same noise then tell how much of a
sample is the rows' (Garnier-Brun et al. 2026, arXiv 2603.03469, known from its abstract; the
statistic is ours):

    bias    1/2 mean_i ( 1[a_i is nearest to a row of A] - 1[b_i is nearest to a row of A] )
            0 where the halves leave no trace, whatever their rows; 1/2 where all are copies
    apart   mean |a_i - b_i| over mean |a_i - b_j|, j another noise: 0 where both drew the same
            sample, 1 where the noise decides nothing

A network on half of the rows leans more than one on all: the bias is that of n / 2 rows. Samples
lean while the held-out curve still falls, so the best held-out curve is no promise of privacy.

    copied      share of the model's samples that are training rows, beyond what held-out rows show
    extracted   the same after CYCLES cycles of noise and denoising (`auditing.model.cyclic`)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.facts.neighbours import nearest
from reverie.auditing.model.cyclic import cyclic_probe
from reverie.auditing.model.stored import coordinates
from reverie.curve import Z95, level_times
from reverie.data import some_rows
from reverie.denoisers import Denoiser
from reverie.denoisers.base import state_type
from reverie.sampling import sample
from reverie.sampling.samplers import samplers_of

SAMPLES, STEPS = 256, 18
COMPARED = 5000  # rows of each half that samples are compared with
TRAJECTORIES, CYCLES, KNOWN = 64, 10, 2000  # of the probe; rows of either split that it knows


@dataclass(frozen=True)
class Bias:
    """Share of samples that a half pulls to its own rows, its 95% interval, and `apart`."""

    value: float
    low: float
    high: float
    apart: float

    def row(self) -> dict[str, float]:
        """Columns of the fit's table of checks."""
        return {"bias": self.value, "bias_low": self.low, "bias_high": self.high,
                "apart": self.apart}  # fmt: skip


def paired_samples(
    denoiser: Denoiser,
    shape: tuple[int, ...],
    count: int,
    *,
    steps: int = STEPS,
    seed: int = 0,
    condition: Tensor | None = None,
) -> Tensor:
    """Samples (count, *shape) on any space, from noise that depends on `seed` alone.

    condition: rows (n, ...) that what each sample is told is dealt from.
    """
    process = denoiser.process
    times = torch.as_tensor(level_times(process, steps + 1))
    generator = torch.Generator().manual_seed(seed)
    told = None
    if condition is not None:
        told = condition[torch.randint(len(condition), (count,), generator=generator)]
    names = samplers_of(process)
    name = "ddim" if "ddim" in names else next(iter(names))
    device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
    start = process.sample_prior(count, shape=shape, t=float(times[0]), generator=generator)
    kind = state_type(denoiser) if start.is_floating_point() else start.dtype
    start = start.to(device, kind)
    return sample(denoiser, count, times, name, init=start, condition=told, generator=generator)


def split_halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Places of two disjoint random halves of `count` rows, of one size."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    half = count // 2
    return order[:half], order[half : 2 * half]


def bias_between(
    denoiser: Denoiser, samples: tuple[Tensor, Tensor], halves: tuple[Tensor, Tensor]
) -> Bias:
    """The bias of samples (m, *shape) of two networks to the rows (h, *shape) of their halves.

    denoiser: either one, for its space. The interval is over noises, the networks as they are.
    """
    kept = [rows[:COMPARED] for rows in halves]
    pool = np.concatenate([coordinates(denoiser, rows) for rows in kept])
    drawn = [coordinates(denoiser, points) for points in samples]
    in_first = [nearest(points, pool, 1)[1][:, 0] < len(kept[0]) for points in drawn]
    lean = 0.5 * (in_first[0].astype(float) - in_first[1])
    value, count = float(lean.mean()), len(lean)
    # a variance of 0 in a small sample is none: one noise more, that leans either way
    spread = math.sqrt((float(((lean - value) ** 2).sum()) + 0.25) / (count * (count - 1)))
    same = np.linalg.norm(drawn[0] - drawn[1], axis=1).mean()
    other = np.linalg.norm(drawn[0] - np.roll(drawn[1], 1, axis=0), axis=1).mean()
    return Bias(value, value - Z95 * spread, value + Z95 * spread, float(same / max(other, 1e-30)))


def extracted(
    denoiser: Denoiser, train: Tensor, holdout: Tensor, *, seed: int = 0
) -> dict[str, float]:
    """`copied` and `extracted` of the model, or nothing on data that are no vectors or images.

    train, holdout: (n, *shape); at most KNOWN of each are asked for.
    """
    if denoiser.process.gaussian is None:
        return {}
    start = paired_samples(denoiser, tuple(train.shape[1:]), TRAJECTORIES, seed=seed)
    known = [some_rows(rows, KNOWN, seed).cpu().numpy() for rows in (train, holdout)]
    probe = cyclic_probe(denoiser, start.cpu(), *known, cycles=CYCLES, seed=seed)
    first, last = (
        look.copies / TRAJECTORIES if look.beyond else 0.0
        for look in (probe.looks[0], probe.looks[-1])
    )
    return {"copied": first, "extracted": last}
