"""Flows by name: those of the package zuko, behind the one interface.

    nsf      autoregressive rational-quadratic splines (Durkan et al. 2019)
    maf      autoregressive affine maps (Papamakarios et al. 2017)
    realnvp  affine couplings (Dinh et al. 2017)
    nice     additive couplings (Dinh et al. 2014)

Splines are the identity outside [-5, 5]: give points in deviations of the data.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from reverie.errors import InputError
from reverie.flows.base import Flow

FLOWS = ("nsf", "maf", "realnvp", "nice")


class ZukoFlow(Flow):
    """A lazy flow of zuko as a `Flow`, from data to noise.

    >>> import torch
    >>> import zuko
    >>> from reverie.flows import ZukoFlow
    >>> flow = ZukoFlow(zuko.flows.MAF(2, transforms=1, hidden_features=[8]))
    >>> flow(torch.zeros(3, 2))[0].shape
    torch.Size([3, 2])
    """

    def __init__(self, lazy: nn.Module) -> None:
        super().__init__()
        self.lazy: Any = lazy

    def forward(self, x: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.lazy.transform(told).call_and_ladj(x)

    def inverse(self, z: Tensor, told: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.lazy.transform(told).inv.call_and_ladj(z)


def flow_named(
    name: str, dim: int, *, told: int = 0, transforms: int = 3, width: int = 64, depth: int = 2
) -> ZukoFlow:
    """A flow of zuko by name (`FLOWS`), of points (n, dim), from data to noise.

    told: numbers that a row is told. transforms: maps after each other. width, depth: of each
    map's network. InputError on another name, or where zuko is not installed.

    >>> import torch
    >>> from reverie.flows import flow_named
    >>> flow = flow_named("nsf", 2, width=8)
    >>> x = torch.tensor([[0.5, -1.0]])
    >>> torch.allclose(flow.inverse(flow(x)[0])[0], x, atol=1e-4)
    True
    """
    if name not in FLOWS:
        raise InputError(f"no flow is called {name!r}; choose {', '.join(FLOWS)}")
    flows = _zuko().flows
    kind = {"nsf": "NSF", "maf": "MAF", "realnvp": "RealNVP", "nice": "NICE"}[name]
    if dim == 1 and name in ("realnvp", "nice"):
        raise InputError(f"{name} couples coordinates, and there is one: choose nsf or maf")
    made = getattr(flows, kind)(dim, told, transforms=transforms, hidden_features=[width] * depth)
    return ZukoFlow(made)


def _zuko() -> Any:
    try:
        import zuko
    except ImportError as error:
        raise InputError(
            "this flow needs the package zuko: pip install 'reverie[flows]'"
        ) from error
    return zuko
