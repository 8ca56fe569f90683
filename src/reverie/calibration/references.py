"""What a model should never be worse than: the best guess that a few moments of the rows allow.

`reference_of(process, rows)` gives it, by the kind of the process:

    Gaussian noise, log-ratios     the linear optimum of the rows' mean and covariance
    symbols                        each site's own frequencies, and its own noisy symbol
    manifolds                      the score of the heat kernel around the rows' mean; 0 where the
                                   uniform law explains the rows better
    any other process              the mean over rows of what a guess averages

A process of one's own joins with `@reference_of.register`. A reference is saved as named tensors.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any, ClassVar

import torch
from torch import Tensor

from reverie.denoisers.base import Denoiser
from reverie.denoisers.exact.low_rank import MODES, LowRankLinear, Moments
from reverie.errors import InputError
from reverie.processes import (
    Brownian,
    DomainBridges,
    GaussianProcess,
    JumpProcess,
    LogRatios,
    Process,
    ProductProcess,
)

MOST_ROWS = 2000  # rows that a mean on a manifold is read from
MEAN_STEPS = 30


class Reference(Denoiser):
    """A guess made of a few tensors; `kind` names it in a file, and subclasses enrol themselves.

    A subclass gives `tensors()` and the class method `from_tensors(process, tensors)`.
    Guesses have the shape of the process's target, (B, *shape) for Gaussian noise.

    >>> import torch
    >>> from reverie.calibration import Reference, reference_of
    >>> from reverie.processes import VP
    >>> rows = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> reference = reference_of(VP(), rows)
    >>> isinstance(reference, Reference), reference.kind, sorted(reference.tensors())
    (True, 'linear', ['basis', 'mean', 'rest', 'spectrum'])
    """

    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Reference]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Reference.kinds[cls.kind] = cls

    def tensors(self) -> dict[str, Tensor]:
        """All that `from_tensors` needs; InputError where a subclass does not give it."""
        raise InputError(f"the reference {self.kind!r} cannot be saved: give it tensors()")

    @classmethod
    def from_tensors(cls, process: Process, tensors: dict[str, Tensor]) -> Reference:
        """The reference that `tensors` was of; InputError where a subclass does not read them."""
        raise InputError(f"the reference {cls.kind!r} cannot be loaded: give it from_tensors()")


class LinearReference(Reference):
    """The linear optimum of low-rank `moments`, on a Gaussian process or on log-ratios."""

    kind = "linear"

    def __init__(self, process: Process, moments: Moments) -> None:
        super().__init__()
        self.process, self.moments, self.seen = process, moments, moments
        base = getattr(process, "base", process)  # of log-ratios, the noise on them
        self.linear = LowRankLinear(base, moments)  # type: ignore[arg-type]

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.linear(state, t)

    def tensors(self) -> dict[str, Tensor]:
        law = self.moments
        rest = torch.tensor([law.rest], dtype=torch.float64)
        return {"mean": law.mean, "basis": law.basis, "spectrum": law.spectrum, "rest": rest}

    @classmethod
    def from_tensors(cls, process: Process, tensors: dict[str, Tensor]) -> LinearReference:
        mean, basis, spectrum = (tensors[name] for name in ("mean", "basis", "spectrum"))
        return cls(process, Moments(mean, basis, spectrum, float(tensors["rest"])))


class SiteMarginals(Reference):
    """p(x_i | x_t) of independent sites: frequencies (*sites, S) times the own symbol's evidence.

    Exact, by Bayes' rule, where the sites are independent.
    """

    kind = "site marginals"
    process: JumpProcess

    def __init__(self, process: JumpProcess, frequencies: Tensor) -> None:
        super().__init__()
        self.process, self.frequencies = process, frequencies.double()

    @classmethod
    def fit(cls, process: JumpProcess, rows: Tensor) -> SiteMarginals:
        """Frequencies of rows (N, *sites), with one row's weight spread over all symbols."""
        points = process.space.check(rows).flatten(1)
        count, sites, symbols = len(points), points.shape[1], process.symbols
        place = points + symbols * torch.arange(sites, device=points.device)
        table = torch.bincount(place.flatten(), minlength=sites * symbols).double()
        table = (table.reshape(sites, symbols) + 1 / symbols) / (count + 1)
        return cls(process, table.reshape(*rows.shape[1:], symbols))

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        prior = self.frequencies.to(state.device)
        return self.process.clean_law(prior.log().expand(len(state), *prior.shape), state, t)

    def tensors(self) -> dict[str, Tensor]:
        return {"frequencies": self.frequencies}

    @classmethod
    def from_tensors(cls, process: Process, tensors: dict[str, Tensor]) -> SiteMarginals:
        return cls(process, tensors["frequencies"])  # type: ignore[arg-type]


class OfParts(Reference):
    """Of a product, the guess that takes its parts to be independent: a reference for each.

    Numbers are guessed linearly from the noised numbers, symbols from their frequencies.
    """

    kind = "covariance and marginals"
    process: ProductProcess

    def __init__(self, process: ProductProcess, parts: list[Reference]) -> None:
        super().__init__()
        self.process, self.parts = process, torch.nn.ModuleList(parts)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        time = torch.as_tensor(t, dtype=torch.float64).reshape(-1).expand(len(state))
        pieces, times = self.process.space.split(state), self.process.part_times(time)
        guesses = [
            part(piece, at.to(piece) if piece.is_floating_point() else at)
            for part, piece, at in zip(self.parts, pieces, times, strict=True)
        ]
        return self.process.join(guesses, state)

    def tensors(self) -> dict[str, Tensor]:
        found = {}
        for j, part in enumerate(self.parts):
            assert isinstance(part, Reference)
            found |= {f"{j}.{part.kind}.{name}": value for name, value in part.tensors().items()}
        return found

    @classmethod
    def from_tensors(cls, process: Process, tensors: dict[str, Tensor]) -> OfParts:
        whole: Any = process
        parts = []
        for j, part in enumerate(whole.parts):
            own = {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{j}.")}
            kind = next(iter(own)).split(".")[0]
            named = {k.split(".", 1)[1]: v for k, v in own.items()}
            parts.append(Reference.kinds[kind].from_tensors(part, named))
        return cls(whole, parts)


class HeatAround(Reference):
    """The score of data that are a heat kernel of duration `dispersion` from `centre` (*shape).

    An infinite dispersion is the uniform law, whose score is 0.
    """

    kind = "heat kernel"
    process: Brownian

    def __init__(self, process: Brownian, centre: Tensor, dispersion: float) -> None:
        super().__init__()
        self.process, self.centre, self.dispersion = process, centre.double(), float(dispersion)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if self.dispersion == float("inf"):
            return torch.zeros_like(state)
        here = self.process._exact(state)
        centre = self.centre.to(here.device).expand(here.shape)
        duration = self.process._durations(t, here) + self.dispersion
        return self.process.heat.score(here, centre, duration).to(state)

    def tensors(self) -> dict[str, Tensor]:
        spread = torch.tensor([self.dispersion], dtype=torch.float64)
        return {"centre": self.centre, "dispersion": spread}

    @classmethod
    def from_tensors(cls, process: Process, tensors: dict[str, Tensor]) -> HeatAround:
        return cls(process, tensors["centre"], float(tensors["dispersion"]))  # type: ignore[arg-type]


class MeanTarget(Reference):
    """The mean of the targets, whatever they are: the best guess that does not look at the state.

    Where the target depends on the state as well, its mean over the rows kept, at that state.
    """

    kind = "mean target"

    def __init__(self, process: Process, mean: Tensor | None, rows: Tensor | None = None) -> None:
        super().__init__()
        self.process, self.mean, self.rows = process, mean, rows

    @classmethod
    def fit(cls, process: Process, rows: Tensor) -> MeanTarget:
        if type(process).average_target is not Process.average_target:
            return cls(process, None, rows[:MOST_ROWS])
        middle = torch.tensor(sum(process.t_range) / 2, dtype=torch.float64)
        return cls(process, process.target(rows, rows, middle).double().mean(0))

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        if self.mean is not None:
            kind = state.dtype if state.is_floating_point() else self.mean.dtype
            mean = self.mean.to(state.device, kind)
            return mean.expand(len(state), *mean.shape)
        assert self.rows is not None
        share = state.new_full((len(state), len(self.rows)), 1 / len(self.rows))
        return self.process.average_target(share, state, self.rows.to(state), t)

    def tensors(self) -> dict[str, Tensor]:
        named = {"mean": self.mean, "rows": self.rows}
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def from_tensors(cls, process: Process, tensors: dict[str, Tensor]) -> MeanTarget:
        return cls(process, tensors.get("mean"), tensors.get("rows"))


@singledispatch
def reference_of(process: Process, rows: Tensor, modes: int = MODES) -> Reference:
    """The best guess from a few moments of rows (N, *shape), points of the process's space.

    modes: leading modes of a covariance to keep. Raises InputError on fewer than two rows.

    >>> import torch
    >>> from reverie.calibration import reference_of
    >>> from reverie.processes import Masking
    >>> rows = torch.tensor([[0, 1], [0, 2], [0, 1]])
    >>> reference_of(Masking(3, sites=2), rows).kind
    'site marginals'
    """
    _enough(rows)
    return MeanTarget.fit(process, rows)


@reference_of.register
def _(process: GaussianProcess, rows: Tensor, modes: int = MODES) -> Reference:
    return LinearReference(process, Moments.fit(rows, modes))


@reference_of.register
def _(process: ProductProcess, rows: Tensor, modes: int = MODES) -> Reference:
    pieces = process.space.split(process.space.check(rows))
    parts = zip(process.parts, pieces, strict=True)
    return OfParts(process, [reference_of(part, piece, modes) for part, piece in parts])


@reference_of.register
def _(process: LogRatios, rows: Tensor, modes: int = MODES) -> Reference:
    return LinearReference(process, Moments.fit(process.space.log_ratios(rows), modes))


@reference_of.register
def _(process: DomainBridges, rows: Tensor, modes: int = MODES) -> Reference:
    return LinearReference(process, Moments.fit(process.embed(rows), modes))


@reference_of.register
def _(process: JumpProcess, rows: Tensor, modes: int = MODES) -> Reference:
    _enough(rows)
    return SiteMarginals.fit(process, rows)


@reference_of.register
def _(process: Brownian, rows: Tensor, modes: int = MODES) -> Reference:
    _enough(rows)
    space, points = process.space, rows[:MOST_ROWS].double()
    if not process.has_kernel:
        return HeatAround(process, space.origin(), float("inf"))
    if not space.compact:
        return HeatAround(process, *space.heat_moments(points))
    centre = _mean(process, points)
    durations = torch.logspace(-4, 1, 51, dtype=torch.float64)
    scores = [_log_likelihood(process, points, centre, float(s)) for s in durations]
    best = max(range(len(scores)), key=scores.__getitem__)
    uniform = -space.log_volume * len(points)
    # one centre and one spread are bought with half a nat of log n each (Schwarz 1978)
    paid = 0.5 * (space.dim + 1) * torch.tensor(float(len(points))).log().item()
    spread = float(durations[best]) if scores[best] - paid > uniform else float("inf")
    return HeatAround(process, centre, spread)


def _log_likelihood(process: Brownian, rows: Tensor, centre: Tensor, spread: float) -> float:
    durations = rows.new_full((len(rows),), spread)
    return float(process.heat.log_density(rows, centre[None], durations).sum())


def _mean(process: Brownian, rows: Tensor) -> Tensor:
    """The point (*shape) of least mean squared distance, from the best of some rows."""
    space = process.space
    starts = rows[:: max(1, len(rows) // 64)]
    cost = space.distances(starts, rows).square().mean(1)
    centre = starts[int(cost.argmin())][None]
    for _ in range(MEAN_STEPS):
        step = space.log(centre.expand(rows.shape), rows).mean(0, keepdim=True)
        centre = space.exp(centre, space.tangent(centre, step))
    return centre[0]


def _enough(rows: Tensor) -> None:
    if len(rows) < 2:
        raise InputError(f"a reference needs at least two rows, not {len(rows)}")
