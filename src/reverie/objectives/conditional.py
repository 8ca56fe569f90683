"""Training with conditions: noisings that tell the network something about each row.

Conditional   the row's own condition, lost now and then (CDE; Ho & Salimans 2022 for the loss)
Masked        the row itself at random coordinates (Simformer: Gloeckler et al. 2024)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reverie.denoisers import drop_conditions
from reverie.errors import InputError
from reverie.objectives.base import Noising, Told

DROPPED = 0.1  # of the rows, as in classifier-free guidance (Ho & Salimans 2022, table 1)
SHARES = (0.3, 0.7)  # of coordinates observed (Gloeckler et al. 2024, code)


class Conditional:
    """Any noising, with the conditions (n, ...) of the training rows; `dropped` of them lost.

    InputError on a share outside [0, 1).

    >>> import torch
    >>> from reverie.objectives import Conditional, Standard
    >>> from reverie.processes import VP
    >>> noising = Conditional(Standard(VP()), conditions=torch.arange(100))
    >>> rows, generator = torch.tensor([4, 9]), torch.Generator().manual_seed(0)
    >>> noising.draw(rows, torch.zeros(2, 3), torch.tensor([0.2, 0.4]), generator).condition
    tensor([-1,  9])
    """

    def __init__(self, noising: Noising, conditions: Tensor, dropped: float = DROPPED) -> None:
        if not 0 <= dropped < 1:
            raise InputError(f"dropped is {dropped}; it must lie in [0, 1)")
        self.noising, self.conditions, self.dropped = noising, conditions, dropped

    def draw(self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator) -> Told:
        drawn = self.noising.draw(rows, x, t, generator)
        return Told(drawn, self.tell(rows, generator))

    def tell(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Conditions (B, ...) of the rows (B,), some of them lost."""
        return drop_conditions(self.conditions[rows], self.dropped, generator)


class Masked:
    """Any noising, on the coordinates that are left when others are observed.

    parameters: a mask (*shape) of those that a posterior is asked about; then every row is, with
    equal odds, of the kind joint (none observed), posterior (the others observed), likelihood
    (they observed), or each coordinate observed with chance .3 or .7. Without it only the joint
    and the last two kinds are drawn. Gloeckler et al. 2024, appendix A; theirs draws one kind per
    batch, ours per row. Raises InputError on a mask that is all or nothing.

    >>> import torch
    >>> from reverie.objectives import Masked, Standard
    >>> from reverie.processes import VP
    >>> noising = Masked(Standard(VP()), torch.tensor([True, False, False]))
    >>> noising.tell(torch.ones(4, 3), torch.Generator().manual_seed(0))
    tensor([[1., nan, nan],
            [1., nan, nan],
            [nan, 1., 1.],
            [nan, nan, nan]])
    """

    def __init__(self, noising: Noising, parameters: Tensor | None = None) -> None:
        if parameters is not None and bool(parameters.all() | (~parameters).all()):
            raise InputError("the mask of parameters must hold some coordinates, and not all")
        self.noising, self.parameters = noising, parameters

    def draw(self, rows: Tensor, x: Tensor, t: Tensor, generator: torch.Generator) -> Told:
        drawn = self.noising.draw(rows, x, t, generator)
        return Told(drawn, self.tell(x, generator))

    def tell(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The points x (B, *shape), NaN where they are not observed."""
        return x.masked_fill(~self.observed(x, generator), math.nan)

    def observed(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A mask like x (B, *shape): the coordinates that are given."""
        device, width = x.device, (len(x), *(1,) * (x.ndim - 1))
        shares = torch.tensor((0.0, *SHARES), device=device)
        count = len(shares) if self.parameters is None else len(shares) + 2
        kind = torch.randint(count, width, generator=generator, device=device)
        chance = shares[kind.clamp(max=len(shares) - 1)]
        observed = torch.rand(x.shape, generator=generator, device=device) < chance
        if self.parameters is None:
            return observed
        asked = self.parameters.to(device).expand(x.shape)
        observed = torch.where(kind == len(shares), ~asked, observed)
        return torch.where(kind == len(shares) + 1, asked, observed)
