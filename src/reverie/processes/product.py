"""Products: every part of a point has noise of its own kind, along one time.

A state is one row of numbers with a slice for each part (`spaces.Mixed`), say Gaussian noise on
numbers and masking on symbols. Given x the parts' noises are independent, so that the kernel is
the product of theirs, a step of the reversal acts part by part on one prediction, and the path KL
of a step is the sum of the parts' charges: the clock has a column for each part.

Two clocks move along one time. In t in [END, 1 - END]

    a clock that starts at 0 (the share of revealed sites)     u = most (1 - t)
    any other (a signal-to-noise ratio)          log u from its least to its most, as logit(1 - t)

With u = 1 - t the share, a ratio is about (u / (1 - u))^k: a normal number has as large a part of
its variance explained, gamma / (1 + gamma) (k = 1), as symbols are shown, so that neither part is
known long before the other, and uniform t makes log u logistic, densest where numbers take shape.

The area is information, by the chain rule along the path. Let m be the shown symbols at share u
and y the numbers at ratio gamma. I(x; y, m) = I(x; m) + I(x; y | m), and given m the I-MMSE
relation holds for y: d/dgamma = 1/2 E|x - E[x | y, m]|^2. Also I(x; y, m) = I(x; y) + I(x; m | y),
and given y the symbols come by the chain rule along a random order: d/du = E sum_hidden H(x_i | y,
m) / (1 - u). Both are partial derivatives of one function, whose change along any path, from no
information to all of it, is sum_j int rate_j du_j. At the ends the bound adds what the path leaves
out: `prior_kl`, the first revelations (`opening`) and the last denoise (`reconstruction`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from reverie.errors import InputError
from reverie.processes.base import Draw, Guess, Process, State, float64
from reverie.processes.masking import Masking
from reverie.spaces.mixed import Mixed, join_flat, split_flat

END = 0.005  # of the time, left out at both ends: clocks are positive there
REACH = math.log((1 - END) / END)  # logit of the cleanest time


class ProductProcess(Process):
    """Noise of each of `parts` on its slice of one row; see the module.

    A prediction is the parts' predictions, flattened one after another: (B, P). Raises InputError
    on parts with several clocks, without a fixed shape, or whose clock is not finite.

    >>> import torch
    >>> from reverie.processes import VP, Masking, ProductProcess
    >>> process = ProductProcess(VP(shape=(2,)), Masking(3, sites=1))
    >>> rows = torch.tensor([[0.1, -0.4, 2.0]])  # two numbers and a symbol
    >>> process.corrupt(rows, 0.5).shape, process.clock(0.5).shape
    (torch.Size([1, 3]), torch.Size([1, 2]))
    """

    space: Mixed
    clock_label = "clock of each part"

    def __init__(self, *parts: Process) -> None:
        super().__init__()
        self.space = Mixed(*(part.space for part in parts))
        self.parts, self._held = parts, nn.ModuleList(parts)
        self.t_range = (END, 1 - END)
        self.area_exact, self.steps_exact, self.monotone, self.has_kernel, self.steps_measured = (
            all(getattr(part, flag) for part in parts)
            for flag in ("area_exact", "steps_exact", "monotone", "has_kernel", "steps_measured")
        )
        self.costly_kernel = any(part.costly_kernel for part in parts)
        self.ends = [_ends(part) for part in parts]
        sizes = zip(parts, self.space.sizes, strict=True)
        self.snr_sizes = tuple(size if part.clock_is_snr else 0 for part, size in sizes)
        self.shapes = [
            (*_shape(part), part.numbers) if part.numbers > 1 else _shape(part) for part in parts
        ]
        masks = [part.mask if isinstance(part, Masking) else -1 for part in parts]
        each = torch.tensor(masks).repeat_interleave(torch.tensor(self.space.sizes))
        self.hidden_at = (each >= 0).nonzero()[:, 0]  # coordinates that can be masked,
        self.masks = each[self.hidden_at]  # and the symbols of their masks

    # --- the parts of a row --------------------------------------------------------------------

    @property
    def numbers(self) -> int:
        return -(-sum(map(math.prod, self.shapes)) // self.space.dim)

    def split(self, prediction: Tensor) -> list[Tensor]:
        """The parts' predictions of a prediction (B, P)."""
        return split_flat(prediction, self.shapes)

    def join(self, predictions: list[Tensor], like: Tensor) -> Tensor:
        """A prediction (B, P) of the parts', in the type of `like`; the inverse of `split`."""
        return join_flat(predictions, like.dtype)

    def part_times(self, t: Tensor | float) -> list[Tensor]:
        """The time of each part, (T,) in float64, at times t, () or (T,)."""
        clock = self.clock(t)
        return [part.time(clock[:, j]).clamp(*part.t_range) for j, part in enumerate(self.parts)]

    def _each(self, t: Tensor | float, *rows: Tensor) -> list[tuple[Any, ...]]:
        """Of every part: itself, its time, and its slices of rows (B, D)."""
        pieces = (self.space.split(row) for row in rows)
        return list(zip(self.parts, self.part_times(t), *pieces, strict=True))

    # --- noising -------------------------------------------------------------------------------

    def clock(self, t: Tensor | float) -> Tensor:
        time = float64(t).reshape(-1)
        share = 1 - time
        place = 0.5 + (share / time).log() / (2 * REACH)
        columns = [
            high * share if low == 0 else (math.log(low) + math.log(high / low) * place).exp()
            for low, high in self.ends
        ]
        return torch.stack(columns, 1)

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        t = draw.get("t")
        times = self.part_times(self.t_range[1] if t is None else t)
        pieces = []
        for part, time in zip(self.parts, times, strict=True):
            own: Draw = {**draw, "shape": _shape(part), "t": float(time)}
            pieces.append(part.sample_prior(n, **own))
        return join_flat(pieces, draw.get("dtype", torch.float32))

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        if end is not None:
            raise InputError("the parts of a product draw their own noise: end is not taken")
        pieces = [
            part.corrupt(clean, time, generator=generator)
            for part, time, clean in self._each(t, x)
        ]
        return self.space.join(pieces, x)

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        pairs = [
            part.corrupt_pair(clean, time, generator=generator)
            for part, time, clean in self._each(t, x)
        ]
        first, second = (self.space.join(pieces, x) for pieces in zip(*pairs, strict=True))
        return first, second

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        """The sum of the parts', (B, N) in float64."""
        each = self._each(t, state.double(), x.double())
        logs = [part.log_kernel(own, points, time) for part, time, own, points in each]
        return torch.stack([log.double() for log in logs]).sum(0)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        each = self._each(t, state, x)
        return self.join([part.target(own, clean, time) for part, time, own, clean in each], x)

    def average_target(
        self, weights: Tensor, state: Tensor, x: Tensor, t: Tensor | float
    ) -> Tensor:
        pieces = []
        for part, time, own, points in self._each(t, state, x):
            kind = points.dtype if points.is_floating_point() else weights.dtype
            pieces.append(part.average_target(weights.to(kind), own, points, time))
        return self.join(pieces, weights)

    # --- costs ---------------------------------------------------------------------------------

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        """Rates (B, J), one column a part."""
        each = zip(self._each(t, x, state), self.split(prediction), strict=True)
        rates = [part.rate(guess, c, own, time) for (part, time, c, own), guess in each]
        return torch.stack([rate.double() for rate in rates], 1)

    def hide_one(
        self, state: State, generator: torch.Generator | None = None, opposite: bool = False
    ) -> State:
        """The states with one symbol more hidden in each, evenly chosen; as they are without any.

        Several symbols hidden by chance are then as they would be given that this one is.
        """
        count = len(self.hidden_at)
        if not count:
            return state
        place = torch.randint(count, (len(state),), generator=generator, device=state.device)
        rows, state = torch.arange(len(state), device=state.device), state.clone()
        at, mask = self.hidden_at.to(state.device)[place], self.masks.to(state)[place]
        state[rows, at] = mask
        return state

    def mixture_weight(self, state: State, t: Tensor | float) -> Tensor:
        """Weights (B,) of states of which each half is from `corrupt`, the other from `hide_one`.

        Under the second law a state with m hidden symbols of d is m / (d t) times as likely; the
        mean over both halves, weighted by 2 / (1 + m / (d t)), is that over `corrupt` (the balance
        heuristic: Veach & Guibas 1995), and no weight times 1 / t grows as t falls to 0.
        """
        if not len(self.hidden_at):
            return torch.ones(len(state), dtype=torch.float64, device=state.device)
        masks = self.masks.to(state)
        hidden = (state[:, self.hidden_at.to(state.device)] == masks).sum(1)
        chance = float64(t).to(state.device).reshape(-1) * len(masks)
        return 2 / (1 + hidden / chance)

    def probe(
        self,
        guess: Guess,
        x: Tensor,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Rates (B, J) of an antithetic pair, the second with one symbol hidden for sure."""
        batch, time = len(x), torch.as_tensor(t, dtype=torch.float64)
        first, second = self.corrupt_pair(x, time, generator=generator)
        state = torch.cat([first, self.hide_one(second, generator)])
        times, both = time.expand(batch).repeat(2), torch.cat([x, x])
        at = times if time.ndim else time
        rate = self.rate(guess(state, times), both, state, at)
        rate = rate * self.mixture_weight(state, at)[:, None]
        return 0.5 * (rate[:batch] + rate[batch:])

    def charge(
        self, guess: Guess, x: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """The sum (B,) of the parts' charges, the guess frozen at t."""
        now = float64(t).expand(len(state))
        pieces = self.split(guess(state, now))
        total = torch.zeros(len(state), dtype=torch.float64, device=state.device)
        each = zip(self._each(t, x, state), self.part_times(s), pieces, strict=True)
        for (part, time, clean, own), then, piece in each:
            total = total + part.charge(_frozen(piece), clean, own, time, then)
        return total

    def expected_charge(
        self, prediction: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        each = zip(self._each(t, state), self.part_times(s), self.split(prediction), strict=True)
        parts = [
            part.expected_charge(piece, own, time, then).double()
            for (part, time, own), then, piece in each
        ]
        return torch.stack(parts).sum(0)

    # --- the reversal --------------------------------------------------------------------------

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        each = zip(self._each(t, state), self.part_times(s), self.split(prediction), strict=True)
        pieces = [
            part.reverse(piece, own, time, then, generator=generator)
            for (part, time, own), then, piece in each
        ]
        return self.space.join(pieces, state)

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        each = zip(self._each(t, state), self.split(prediction), strict=True)
        pieces = [
            part.finish(piece, own, time, generator=generator) for (part, time, own), piece in each
        ]
        return self.space.join(pieces, state)

    # --- the ends of the bound -----------------------------------------------------------------

    def start_kl(self, u: float, second: float) -> float:
        """The sum of the parts' bounds at their own noisy ends, each with all of E|x|^2."""
        return sum(part.start_kl(low, second) for part, (low, _) in self._with_ends() if low)

    def prior_kl(self, x: Tensor) -> Tensor:
        """KL (B,) in nats from the prior of the parts whose noise ends before it forgets."""
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for part, piece in zip(self.parts, self.space.split(x), strict=True):
            total = total + part.prior_kl(piece).double()  # type: ignore[operator]
        return total

    def opening(
        self, guess: Guess, x: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Nats (B,), one draw each, of the clocks that start at 0 up to their first level.

        A prior of hidden symbols alone has clock 0; the other parts stay at their noisy end.
        """
        most = self.t_range[1]
        pieces = self.space.split(self.corrupt(x, most, generator=generator))
        share = torch.rand(len(x), generator=generator, dtype=torch.float64, device=x.device)
        early = {}
        for j, (part, (low, high)) in enumerate(self._with_ends()):
            if low == 0:
                clean = self.space.split(x)[j]
                early[j] = part.time(share.cpu() * high * (1 - most))
                pieces[j] = part.corrupt(clean, early[j], generator=generator)
        state = self.space.join(pieces, x)
        found = self.split(guess(state, torch.full_like(share, most)))
        total = torch.zeros_like(share)
        for j, time in early.items():
            part, piece = self.parts[j], self.space.split(x)[j]
            rate = part.rate(found[j], piece, pieces[j], time)
            total = total + rate * self.ends[j][1] * (1 - most)
        return total

    def reconstruction(
        self,
        prediction: Tensor,
        x: Tensor,
        state: State,
        values: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Nats (B,) of the last denoise of states at the cleanest level.

        values: the grid (V,) on which all numbers lie, as in `GaussianProcess.reconstruction`.
        """
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        rows = zip(self.parts, self.space.split(x), self.space.split(state), strict=True)
        for (part, clean, own), piece in zip(rows, self.split(prediction), strict=True):
            if part.gaussian is not None:
                nats = part.gaussian.reconstruction(clean, values, generator=generator)
            else:
                nats = part.reconstruction(piece, clean, own)  # type: ignore[operator]
            total = total + nats.double()
        return total

    def _with_ends(self) -> list[tuple[Process, tuple[float, float]]]:
        return list(zip(self.parts, self.ends, strict=True))


def _shape(part: Process) -> tuple[int, ...]:
    assert part.space.shape is not None  # the space was checked
    return part.space.shape


def _ends(part: Process) -> tuple[float, float]:
    """Least and most of a part's clock, which starts at 0 or is positive."""
    clock = part.clock(torch.tensor(part.t_range[::-1], dtype=torch.float64))
    if clock.ndim > 1:
        raise InputError(f"{type(part).__name__} has several clocks: a part of a product has one")
    low, high = clock.tolist()
    if not (0 <= low < high < math.inf):
        raise InputError(f"the clock of {type(part).__name__} runs from {low:g} to {high:g}")
    return low, high


def _frozen(piece: Tensor) -> Callable[[State, Tensor], Tensor]:
    """A guess that is the same whatever it is asked."""
    return lambda state, t: piece
