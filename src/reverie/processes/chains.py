"""The other chains of the field, and any chain of a user's own.

Time is measured in relaxation times: Q is scaled so that its slowest mode decays as e^-sigma. So
one range of noise levels serves every chain.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.jump import JumpProcess
from reverie.processes.site_tables import check_alphabet
from reverie.spaces import FiniteSet

ROUNDING = 1e-6  # relative to the largest rate: what float32 input may leave of a row's sum
Range = tuple[float, float] | None


class Uniform(JumpProcess):
    """A site that is hit forgets its symbol and draws any of the S: Q = 1 1^T / S - I.

    Source: Austin et al. 2021, section 3.1, in continuous time as Campbell et al. 2022.

    >>> from reverie.processes import Uniform
    >>> process = Uniform(4, sites=8)
    >>> process.kernel(process.time(1.0))[0, 0].round(decimals=3)  # even odds to be untouched
    tensor([0.6250, 0.1250, 0.1250, 0.1250], dtype=torch.float64)
    """

    def __init__(
        self, symbols: int | str, sites: int | tuple[int, ...], sigma_range: Range = None
    ) -> None:
        space = FiniteSet(symbols, sites)
        check_alphabet(space.symbols, "uniform")
        law = torch.full((space.symbols,), 1 / space.symbols, dtype=torch.float64)
        rates = law.expand(space.symbols, -1) - torch.eye(space.symbols, dtype=torch.float64)
        super().__init__(space, rates, law, sigma_range)

    def transition(self, sigma: Tensor) -> Tensor:
        kept = (-sigma).exp()[:, None, None]
        eye = torch.eye(self.symbols, dtype=sigma.dtype, device=sigma.device)
        return kept * eye + (1 - kept) / self.symbols


class Ordinal(JumpProcess):
    """Symbols on a line: jumps i -> j at a rate proportional to exp(-(i - j)^2 / (2 reach^2)).

    reach: in symbols, default a twentieth of the range, at least one. Symmetric, so that noise is
    uniform. The discretised Gaussian of Austin et al. 2021, eq. 8, in continuous time.
    InputError unless reach is positive.

    >>> from reverie.processes import Ordinal
    >>> process = Ordinal(9, sites=2)
    >>> process.kernel(0.4)[0, 4].round(decimals=2)  # where the middle symbol has gone
    tensor([0.0000, 0.0000, 0.0100, 0.0300, 0.9100, 0.0300, 0.0100, 0.0000, 0.0000],
           dtype=torch.float64)
    """

    ordered = True

    def __init__(
        self,
        symbols: int | str,
        sites: int | tuple[int, ...],
        reach: float | None = None,
        sigma_range: Range = None,
    ) -> None:
        space = FiniteSet(symbols, sites)
        check_alphabet(space.symbols, "ordinal")
        reach = max(1.0, space.symbols / 20) if reach is None else reach
        if reach <= 0:
            raise InputError(f"reach is {reach}; it must be positive, in symbols")
        self.reach = float(reach)
        place = torch.arange(space.symbols, dtype=torch.float64)
        rates = torch.exp(-0.5 * ((place[:, None] - place) / reach).square())
        rates = rates - rates.sum(1).diag()
        gaps, self.modes = torch.linalg.eigh(rates)
        self.gaps = gaps / -gaps[-2]  # the largest is 0, the next the slowest mode
        law = torch.full((space.symbols,), 1 / space.symbols, dtype=torch.float64)
        super().__init__(space, rates / -gaps[-2], law, sigma_range)

    def transition(self, sigma: Tensor) -> Tensor:
        modes = self.modes.to(sigma)
        decay = (sigma[:, None] * self.gaps.to(sigma)).exp()
        return (modes * decay[:, None]) @ modes.T


class RateMatrix(JumpProcess):
    """Any rate matrix (M, M): off-diagonal rates not negative, rows that sum to 0.

    symbols: the data's, the first of the M states (default: all). Raises InputError that names
    the first row that is not a generator's, and on chains without one stationary law.

    >>> import torch
    >>> from reverie.processes import RateMatrix
    >>> rates = torch.tensor([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, -1.0]])  # a round
    >>> RateMatrix(rates, sites=2).stationary
    tensor([0.3333, 0.3333, 0.3333], dtype=torch.float64)
    """

    def __init__(
        self,
        rates: Tensor,
        sites: int | tuple[int, ...],
        symbols: int | str | None = None,
        sigma_range: Range = None,
    ) -> None:
        rates = check_rates(rates)
        space = FiniteSet(len(rates) if symbols is None else symbols, sites)
        if space.symbols > len(rates):
            raise InputError(
                f"{space.symbols} symbols need as many states, but the rate matrix has "
                f"{len(rates)}"
            )
        decay = -torch.linalg.eigvals(rates).real
        still = decay <= 1e-9 * decay.max()
        if int(still.sum()) != 1:
            raise InputError(
                f"the chain of this rate matrix has {int(still.sum())} stationary laws; it must "
                "forget where it started"
            )
        # the null vector of Q^T, normalised by an extra row of ones
        system = torch.cat([rates.T, torch.ones_like(rates[:1])])
        goal = torch.zeros(len(rates) + 1, 1, dtype=torch.float64)
        goal[-1] = 1
        law = torch.linalg.lstsq(system, goal, driver="gelsd").solution[:, 0].clamp(min=0)
        super().__init__(space, rates / decay[~still].min(), law / law.sum(), sigma_range)


def check_rates(rates: Tensor) -> Tensor:
    """Return a rate matrix (M, M) in float64, or raise InputError that names its first bad row."""
    matrix = torch.as_tensor(rates, dtype=torch.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise InputError(f"a rate matrix is square, at least 2 by 2, not {tuple(matrix.shape)}")
    off = matrix - matrix.diagonal().diag()
    slack = ROUNDING * float(off[torch.isfinite(off)].abs().max())
    for row, values in enumerate(matrix):
        if not torch.isfinite(values).all():
            raise InputError(f"row {row} of the rate matrix holds a value that is not finite")
        if (off[row] < 0).any():
            state = int((off[row] < 0).nonzero()[0, 0])
            raise InputError(
                f"row {row} of the rate matrix holds the negative rate {float(values[state]):g} "
                f"to state {state}"
            )
        if abs(float(values.sum())) > slack:
            raise InputError(
                f"row {row} of the rate matrix sums to {float(values.sum()):g}; the rows of a "
                "generator sum to 0, each diagonal entry being minus the sum of the others"
            )
    if not off.any():
        raise InputError("every rate of the rate matrix is 0: no state is ever left")
    return off - off.sum(1).diag()
