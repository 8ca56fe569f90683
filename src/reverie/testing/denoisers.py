"""The laws of a denoiser."""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.denoisers import Denoiser, evaluating
from reverie.testing.broken import BrokenLaw


def check_denoiser(denoiser: Denoiser, points: Tensor, *, seed: int = 0) -> None:
    """Check the laws of a denoiser on points (n, *shape) of its process's space, n at least 2.

    The guess has the target's shape, is finite, repeats, does not depend on the rest of its batch,
    leaves the state as it was, and takes a time for each row. Raises BrokenLaw.


    >>> import torch
    >>> from reverie.denoisers import Memoriser
    >>> from reverie.processes import VP
    >>> from reverie.testing import check_denoiser
    >>> points = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    >>> check_denoiser(Memoriser(VP(), points), points)  # silent: it keeps the laws
    """
    process, generator = denoiser.process, torch.Generator().manual_seed(seed)
    broken: list[str] = []
    low, high = process.t_range
    with torch.no_grad(), evaluating(denoiser):
        for share in (0.05, 0.5, 0.95):
            t = torch.full((len(points),), low + share * (high - low), dtype=torch.float64)
            state = process.corrupt(points, t, generator=generator)
            kept = state.clone()
            guess, again = denoiser(state, t), denoiser(state, t)
            wanted = process.target(state, points, t).shape
            if not torch.equal(state, kept):
                broken.append("it changes the state in place")
            if guess.shape != wanted:
                broken.append(f"its guess has shape {tuple(guess.shape)}, not {tuple(wanted)}")
                break
            if not torch.isfinite(guess).all():
                broken.append(f"its guess at t = {float(t[0]):.3g} is not finite")
            elif not torch.equal(guess, again):
                broken.append("its guess does not repeat")
            else:
                alone = denoiser(kept[:1], t[:1])
                scale = float(guess.double().abs().max()) + 1e-12
                if float((alone - guess[:1]).double().abs().max()) > 1e-3 * scale:
                    broken.append("its guess about a row depends on the rest of the batch")
    if broken:
        name = type(denoiser).__name__
        raise BrokenLaw("\n".join(f"{name}: {text}" for text in dict.fromkeys(broken)))
