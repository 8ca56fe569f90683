"""Normalizing flows, and what is made of them: densities, layers, a diffusion inside a flow.

    from reverie.flows import FlowDensity, couplings, flow_named

Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie import lazily as _lazily

_HOMES = {
    "Composed": "reverie.flows.base",
    "Coupling": "reverie.flows.coupling",
    "FLOWS": "reverie.flows.named",
    "Flow": "reverie.flows.base",
    "FlowDensity": "reverie.flows.base",
    "Identity": "reverie.flows.base",
    "ImplicitDiffusion": "reverie.flows.implicit",
    "ZukoFlow": "reverie.flows.named",
    "couplings": "reverie.flows.coupling",
    "fit_implicit": "reverie.flows.implicit",
    "flow_named": "reverie.flows.named",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


__getattr__ = _lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from reverie.flows.base import Composed as Composed
    from reverie.flows.base import Flow as Flow
    from reverie.flows.base import FlowDensity as FlowDensity
    from reverie.flows.base import Identity as Identity
    from reverie.flows.coupling import Coupling as Coupling
    from reverie.flows.coupling import couplings as couplings
    from reverie.flows.implicit import ImplicitDiffusion as ImplicitDiffusion
    from reverie.flows.implicit import fit_implicit as fit_implicit
    from reverie.flows.named import FLOWS as FLOWS
    from reverie.flows.named import ZukoFlow as ZukoFlow
    from reverie.flows.named import flow_named as flow_named
