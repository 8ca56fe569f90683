"""The laws of a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.flows import Flow
from reverie.testing.broken import BrokenLaw

ROUNDING = 1e-4  # of a round trip in float32, relative to 1 + |x|; 1e-6 in float64
JACOBIANS = 8  # rows whose Jacobian is taken by autograd, both ways


def check_flow(flow: Flow, x: Tensor, told: Tensor | None = None) -> None:
    """Check that a flow runs back where it came from, and that its volumes are its Jacobian's.

    x: (n, dim), points; told: (n, c), what each is told. The inverse of T(x) is x, the two
    log-determinants of a round trip add up to 0, and both are those of autograd's Jacobian on the
    first rows. Raises BrokenLaw.

    >>> import torch
    >>> from reverie.flows import Flow, couplings
    >>> from reverie.testing import check_flow
    >>> x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    >>> check_flow(couplings(3, 2, width=8), x)  # silent: it keeps both laws
    >>> class Wrong(Flow):  # forgets its volume
    ...     def forward(self, x, told=None):
    ...         return 2 * x, torch.zeros(len(x))
    ...     def inverse(self, z, told=None):
    ...         return z / 2, torch.zeros(len(z))
    >>> check_flow(Wrong(), x)
    Traceback (most recent call last):
        ...
    reverie.testing.broken.BrokenLaw: Wrong: its log-determinant is 0 and its Jacobian's 2.079 ...
    """
    room = ROUNDING if x.dtype == torch.float32 else 1e-6
    with torch.no_grad():
        z, volume = flow(x, told)
        again, volume_back = flow.inverse(z, told)
    broken: list[str] = []
    if z.shape != x.shape or volume.shape != (len(x),):
        broken.append(f"points {tuple(x.shape)} became {tuple(z.shape)}, {tuple(volume.shape)}")
    else:
        off = float(((again - x).abs() / (1 + x.abs())).max())
        if not off <= room:
            broken.append(f"the inverse of T(x) is off x by {off:.2g}")
        off = float((volume + volume_back).abs().max())
        if not off <= room * x.shape[1] * 10:
            broken.append(f"log-determinants of a round trip add up to {off:.2g}, not 0")
        broken += _volumes(flow, x, told, volume, "", room)
        broken += _volumes(_Back(flow), z, told, volume_back, " of the inverse", room)
    if broken:
        raise BrokenLaw("\n".join(f"{type(flow).__name__}: {text}" for text in broken))


class _Back:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def __call__(self, z: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z, told)


def _volumes(
    flow: Flow | _Back, x: Tensor, told: Tensor | None, volume: Tensor, what: str, room: float
) -> list[str]:
    for k in range(min(JACOBIANS, len(x))):
        row = None if told is None else told[k : k + 1]

        def moved(point: Tensor, row: Tensor | None = row) -> Tensor:
            return flow(point[None], row)[0][0]

        jacobian = torch.autograd.functional.jacobian(moved, x[k])
        assert isinstance(jacobian, Tensor)
        exact = float(torch.linalg.slogdet(jacobian.double()).logabsdet)
        found = float(volume[k])
        if not abs(found - exact) <= 10 * room * (1 + abs(exact)):
            text = f"its log-determinant{what} is {found:.4g} and its Jacobian's {exact:.4g}"
            return [f"{text} at row {k}"]
    return []
