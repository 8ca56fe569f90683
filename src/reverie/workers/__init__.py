"""Many independent pieces of work: in this process, on processes of this machine, or on Ray.

Names are loaded when first used; Ray, an extra, only where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reverie import lazily as _lazily

_HOMES = {
    "Piece": "reverie.workers.pieces",
    "Workers": "reverie.workers.pieces",
    "spread": "reverie.workers.spreading",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]
__getattr__ = _lazily(__name__, _HOMES, {})

if TYPE_CHECKING:
    from reverie.workers.pieces import Piece as Piece
    from reverie.workers.pieces import Workers as Workers
    from reverie.workers.spreading import spread as spread
