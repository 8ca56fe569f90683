"""Solve a linear system that is known by its products, row by row of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gmres(product: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """x (B, m) that minimises |right - product(x)| over the first `iterations` Krylov vectors.

    The matrix need not be symmetric: the Jacobian of a network never quite is. It is exact after m
    iterations; the residual never grows. Source: Saad & Schultz 1986, algorithm 3.
    """
    batch, size = right.shape
    steps = min(iterations, size)
    scale = right.norm(dim=1)
    basis = [_unit(right, scale)]
    columns = []
    # below this share of a product, what lies outside the space spanned so far is rounding
    rounding = torch.finfo(right.dtype).eps ** 0.75
    for step in range(steps):
        image = product(basis[-1])
        least = rounding * image.norm(dim=1)
        space = torch.stack(basis, 1)
        inside = torch.zeros_like(space[:, :, 0])
        for _ in range(2):  # once more, for what the first pass leaves to rounding
            part = (space @ image[:, :, None])[:, :, 0]
            image = image - (part[:, None] @ space)[:, 0]
            inside = inside + part
        length = image.norm(dim=1)
        length = torch.where(length > least, length, 0.0)
        basis.append(_unit(image, length))
        # a row that was solved before has no vector here: a 1 gives its absence the weight zero
        below = torch.where(basis[step].any(1), length, 1.0)[:, None]
        unused = inside.new_zeros(batch, steps - 1 - step)
        columns.append(torch.cat([inside, below, unused], 1))
        if not length.any():
            break
    hessenberg = torch.stack(columns, 2)
    goal = torch.zeros_like(hessenberg[:, :, :1])
    goal[:, 0, 0] = scale
    weights = torch.linalg.lstsq(hessenberg, goal).solution
    return (torch.stack(basis[:-1], 1) * weights).sum(1)


def _unit(vector: Tensor, length: Tensor) -> Tensor:
    """vector / length, and zero where the length is."""
    safe = torch.where(length > 0, length, 1.0)
    return torch.where((length > 0)[:, None], vector / safe[:, None], 0.0)
