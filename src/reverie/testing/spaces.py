"""The laws of a space."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from reverie.spaces import Manifold, Space
from reverie.testing.broken import BrokenLaw


def check_space(space: Space, points: Tensor) -> None:
    """Check the laws of a space on points (n, *shape) of it, n at least 2.

    `check` keeps the points and refuses rows that are not finite or of another shape; on manifolds
    exp and log are inverse, distances are those of log, and projections stay. Raises BrokenLaw.


    >>> import torch
    >>> from reverie.spaces import Sphere
    >>> from reverie.testing import check_space
    >>> points = Sphere(2).uniform(8, generator=torch.Generator().manual_seed(0))
    >>> check_space(Sphere(2), points)  # silent: it keeps the laws
    """
    broken: list[str] = []
    kept = space.check(space.as_points(points))
    if not torch.equal(kept.to(points), points):
        broken.append("check changes points of the space")
    if space.shape is not None and tuple(points.shape[1:]) != tuple(space.shape):
        broken.append(f"points have shape {tuple(points.shape[1:])}, the space {space.shape}")
    for name, bad in (("a value that is not finite", _spoilt(points)),
                      ("another shape", points[..., None])):  # fmt: skip
        if bad is None:
            continue
        try:
            space.check(bad)
        except ValueError:
            continue
        if name == "another shape" and space.shape is None:
            continue
        broken.append(f"check lets rows with {name} pass")
    broken += laws_of_space(space, kept)
    if broken:
        raise BrokenLaw("\n".join(f"{space!r}: {sentence}" for sentence in broken))


def _spoilt(points: Tensor) -> Tensor | None:
    if not points.is_floating_point():
        return None
    bad = points.clone()
    bad[-1] = torch.nan
    return bad


@singledispatch
def laws_of_space(space: Space, points: Tensor) -> list[str]:
    """Sentences about the laws that one kind of space breaks; register more for your own.

    points: (n, *shape).

    >>> import torch
    >>> from reverie.spaces import Torus
    >>> from reverie.testing import laws_of_space
    >>> points = Torus(2).uniform(8, generator=torch.Generator().manual_seed(0))
    >>> laws_of_space(Torus(2), points)
    []
    """
    return []


@laws_of_space.register(Manifold)
def _manifold(space: Manifold, points: Tensor) -> list[str]:
    x = points.double()
    y = x.roll(1, 0)
    broken = []
    v = space.log(x, y)
    for name, off in (
        ("exp(x, log(x, y)) misses y", space.distances(space.exp(x, v), y).diagonal()),
        ("project moves points of the space", (space.project(x) - x).flatten(1).norm(dim=1)),
        ("log is not tangent", (space.tangent(x, v) - v).flatten(1).norm(dim=1)),
        ("distances differ from the length of log",
         space.distances(x, y).diagonal() - space.inner(x, v, v).clamp(min=0).sqrt()),
    ):  # fmt: skip
        worst = float(off.abs().max())
        if not worst < 1e-5:
            broken.append(f"{name} by {worst:.2g}")
    return broken
