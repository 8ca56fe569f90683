"""What networks predict, and the one linear solve that turns any of it into any other.

With x = alpha c + sigma e, every prediction is value = p c + q e, mode by mode:

    clean     p = 1        q = 0
    noise     p = 0        q = 1
    score     p = 0        q = -1/sigma         grad log p_t(x)
    v         p = -sigma   q = alpha            Salimans & Ho 2022
    velocity  p = alpha'   q = sigma'           dx/dt; e - c for the rectified process
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes import GaussianProcess

PREDICTIONS = ("clean", "noise", "velocity", "score", "v")
ELSEWHERE = {  # what others call them
    "epsilon": "noise", "eps": "noise", "x0": "clean", "x_start": "clean", "sample": "clean",
    "v_prediction": "v", "flow": "velocity", "flow_prediction": "velocity",
}  # fmt: skip


def unknown_prediction(kind: str) -> InputError:
    """The error for a word that is none of `PREDICTIONS`, with the one meant where it is known."""
    meant = f" ({kind} is {ELSEWHERE[kind]!r} here)" if kind in ELSEWHERE else ""
    return InputError(f"predicts={kind!r}: choose one of {', '.join(PREDICTIONS)}{meant}")


def shares_of(
    kind: str, process: GaussianProcess, t: Tensor, like: Tensor
) -> tuple[Tensor, Tensor]:
    alpha, sigma = process.scales(t, like)
    if kind == "clean":
        return torch.ones_like(alpha), torch.zeros_like(alpha)
    if kind == "noise":
        return torch.zeros_like(alpha), torch.ones_like(alpha)
    if kind == "score":
        return torch.zeros_like(alpha), -1 / sigma
    if kind == "v":
        return -sigma, alpha
    if kind == "velocity":
        return _slopes(process, t, like)
    raise unknown_prediction(kind)


def _slopes(process: GaussianProcess, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(d alpha/dt, d sigma/dt) by forward differentiation of the schedule."""
    time = t.to(torch.float64).reshape(-1).contiguous()  # an expanded tensor has no tangent
    ones = torch.ones_like(time)
    both = torch.func.jvp(lambda s: (process.alpha(s), process.sigma(s)), (time,), (ones,))[1]
    shape = (-1, *(1,) * (like.ndim - 1))
    first, second = (
        slope.to(like).reshape(shape if slope.ndim == 1 else (-1, *like.shape[1:]))
        for slope in both
    )
    return first, second


def convert(
    value: Tensor, state: Tensor, t: Tensor, process: GaussianProcess, source: str, to: str
) -> Tensor:
    """Turn a prediction of kind `source` at (state, t) into kind `to`; both in `PREDICTIONS`.

    Shapes: `value` and `state` (B, *shape), `t` () or (B,). InputError on an unknown kind.
    Source of v: Salimans & Ho 2022.

    >>> import torch
    >>> from reverie.denoisers import convert
    >>> from reverie.processes import Rectified
    >>> x, noise, t = torch.ones(1, 2), torch.zeros(1, 2), torch.tensor(0.5)
    >>> state = 0.5 * x + 0.5 * noise
    >>> convert(x, state, t, Rectified(), "clean", "velocity")  # dx/dt = noise - x
    tensor([[-1., -1.]])
    """
    if source == to and source in PREDICTIONS:
        return value
    value, state = process.to_modes(value), process.to_modes(state)
    alpha, sigma = process.scales(t, state)
    p, q = shares_of(source, process, t, state)
    clean = value if source == "clean" else (sigma * value - q * state) / (p * sigma - q * alpha)
    if to != "clean":
        p, q = shares_of(to, process, t, state)
        clean = p * clean + q * (state - alpha * clean) / sigma
    return process.from_modes(clean)
