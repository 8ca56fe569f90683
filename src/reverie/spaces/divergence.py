"""The Riemannian divergence of a tangent vector field."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reverie.spaces.manifold import Manifold


def divergence(
    space: Manifold,
    field: Callable[[Tensor], Tensor],
    x: Tensor,
    directions: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Values (B, *shape) and divergence (B,) of a tangent field at points x (B, *shape).

    div v = sum_i <q_i, D v[q_i]> over an orthonormal frame q; any smooth extension of `field`
    off the manifold will do, because derivatives are taken along the manifold only.
    directions: tangent vectors (B, M, *shape) with mean outer product the identity (Hutchinson
    1989), whose mean is an unbiased estimate; None takes the frame itself: exact, `dim` gradients.
    Gradients flow on to the field's parameters.

    >>> import torch
    >>> from reverie.spaces import Sphere, divergence
    >>> space, pole = Sphere(2), torch.tensor([0.0, 0.0, 1.0])
    >>> x = torch.eye(3)
    >>> field = lambda x: space.tangent(x, pole.expand_as(x))  # the gradient of the height
    >>> divergence(space, field, x)[1].detach()  # -2 height
    tensor([ 0.,  0., -2.])
    """
    vectors = space.frame(x.detach()) if directions is None else directions
    training, count = torch.is_grad_enabled(), vectors.shape[1]
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        value = field(x)
        total = torch.zeros_like(x.flatten(1)[:, 0])
        for k in range(count if value.requires_grad else 0):  # a constant has no gradient
            q = vectors[:, k]
            (pulled,) = torch.autograd.grad(
                value, x, space.lower(x, q).detach(), create_graph=training,
                retain_graph=training or k + 1 < count, materialize_grads=True,
            )  # fmt: skip
            total = total + (pulled * q).flatten(1).sum(1)
    if directions is not None:
        total = total / count
    return (value, total) if training else (value.detach(), total.detach())


def probes(
    space: Manifold, x: Tensor, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """`count` random tangent directions (B, count, *shape): signs on an orthonormal frame."""
    frame = space.frame(x)
    signs = torch.randint(0, 2, (len(x), count, space.dim), generator=generator, device=x.device)
    return torch.einsum("bmk,bk...->bm...", (2 * signs - 1).to(x), frame)
