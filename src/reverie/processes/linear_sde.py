"""Linear stochastic differential equations: velocities, rotations and several noises at once.

    dX = A X db + B dW_b,   b(t) = duration * t,   X_0 = (x, auxiliary variables of a normal law)

so that X_t = M x + N(0, S) with M and S in closed form. A state knows x only through

    y = Gamma^-1 M^T S^-1 X_t = x + N(0, Gamma^-1),   Gamma = M^T S^-1 M,

a sufficient statistic. Hence I(x; X_t) has the differential 1/2 tr(mmse dGamma) (I-MMSE; Palomar &
Verdu 2006, theorem 4), and dGamma/db = -N^T N with N = B^T S^-1 M, so that it never increases.
Fisher information adds up along x -> X_s -> X_t, so the step t -> s with the guess xhat costs
exactly 1/2 e^T (Gamma_s - Gamma_t) e nats, e = x - xhat. Where A acts on every coordinate alike
Gamma is a number, the clock: all that a Gaussian process has, holds exactly. Where A mixes the
coordinates the clock is tr(Gamma)/d, and only the area is exact.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.base import Draw, Guess, Process, State, point_shape
from reverie.processes.linear_moments import (
    check_pair,
    check_reached,
    root,
    stationary,
    transition,
)
from reverie.spaces import Euclidean

TABLE = 257  # clock values that bracket the inverse
NEWTON_ROUNDS = 3


class LinearSDE(Process):
    """X_t of any stable pair: drift A (k, k) and diffusion B (k, l), units of b(t) = duration * t.

    data_dims: how many leading variables of A are data. 1: A acts on every coordinate alike, its
    first variable the coordinate, the others auxiliary (velocities); otherwise the number d of
    coordinates of a point, and k is a multiple of d. States are (B, *shape) without auxiliary
    variables, else (B, k / data_dims, *shape), the data first. start: covariance of the auxiliary
    variables at t = 0 (default: their stationary one). t_min: the cleanest level.
    Raises InputError where A has an eigenvalue whose real part is not negative (the process would
    never forget), where the noise does not reach every variable, and on wrong shapes.
    Source of the clock: Palomar & Verdu 2006, theorem 4 (I-MMSE).

    >>> import torch
    >>> from reverie.processes import LinearSDE
    >>> drift = torch.tensor([[0.0, 1.0], [-1.0, -2.0]])  # a damped spring: place and velocity
    >>> process = LinearSDE(drift, torch.tensor([[0.0], [2.0]]), duration=5.0)
    >>> process.corrupt(torch.zeros(3, 4), 0.5).shape, process.stationary().diagonal()
    (torch.Size([3, 2, 4]), tensor([1.0000, 1.0000], dtype=torch.float64))
    """

    clock_label = "signal-to-noise ratio"

    def __init__(
        self,
        drift: Tensor,
        diffusion: Tensor,
        *,
        data_dims: int = 1,
        start: Tensor | None = None,
        duration: float = 1.0,
        t_min: float = 1e-3,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        drift, diffusion = (torch.as_tensor(m).double() for m in (drift, diffusion))
        check_pair(drift, diffusion, data_dims)
        shape = (data_dims,) if shape is None and data_dims > 1 else shape
        if data_dims > 1 and math.prod(shape or ()) != data_dims:
            raise InputError(f"points of shape {shape} do not have {data_dims} coordinates")
        if not 0 < t_min < 1 or duration <= 0:
            raise InputError(f"t_min is {t_min}, duration {duration}; need 0 < t_min < 1, above 0")
        self.space, self.t_range = Euclidean(shape), (float(t_min), 1.0)
        self.duration, self.data_dims, self.size = float(duration), data_dims, len(drift)
        self.copies = self.size // data_dims
        self.monotone = self.steps_exact = data_dims == 1
        self._matrices = drift, diffusion
        still = stationary(drift, diffusion)
        aux = still[data_dims:, data_dims:] if start is None else torch.as_tensor(start).double()
        if aux.shape != (self.size - data_dims,) * 2 or (torch.linalg.eigvalsh(aux) < 0).any():
            raise InputError(
                f"start has shape {tuple(aux.shape)}; it must be the covariance of the "
                f"{self.size - data_dims} auxiliary variables, without a negative eigenvalue"
            )
        self.start = torch.zeros_like(drift)
        self.start[data_dims:, data_dims:] = aux
        check_reached(drift, diffusion, self.start, self.duration * t_min)

    # --- the law of a state -------------------------------------------------------------------

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Drift A (k, k) and diffusion B (k, l), float64."""
        return self._matrices

    def transition(self, duration: Tensor) -> tuple[Tensor, Tensor]:
        """exp(A b) and the noise covariance, (L, k, k) each, over durations b (L,)."""
        return transition(*self.matrices(), duration)

    def stationary(self) -> Tensor:
        """Covariance (k, k) of the law that the process forgets everything for."""
        return stationary(*(m.detach().cpu() for m in self.matrices()))

    def moments(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """M (L, k, data_dims) and S (L, k, k), float64; L is 1 for one time or B equal ones."""
        move, noise = self.transition(self.duration * self._times(t))
        return move[:, :, : self.data_dims], noise + move @ self.start.to(move) @ move.mT

    def precision(self, t: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """M^T S^-1 (L, data_dims, k), Gamma (L, data_dims, data_dims) and S^-1 (L, k, k)."""
        mean, covariance = self.moments(t)
        inverse = torch.cholesky_inverse(root(covariance))
        reading = mean.mT @ inverse
        return reading, reading @ mean, inverse

    def clock(self, t: Tensor | float) -> Tensor:
        gamma = self.precision(t)[1]
        return _mean_trace(gamma).expand(torch.as_tensor(t).numel())

    @torch.no_grad()
    def time(self, u: Tensor | float) -> Tensor:
        """Inverse of `clock`: a table brackets, Newton's method in log t against log u ends."""
        given, home = torch.as_tensor(u, dtype=torch.float64), self.matrices()[0]
        goal = given.to(home).reshape(-1).log()
        low, high = (math.log(end) for end in self.t_range)
        place = torch.linspace(high, low, TABLE, dtype=torch.float64).to(home)
        table = self._log_clock(place)[0]
        right = torch.searchsorted(table, goal).clamp(1, TABLE - 1)
        ends = place[right], place[right - 1]
        share = (goal - table[right - 1]) / (table[right] - table[right - 1])
        log_t = ends[1] + share.clamp(0, 1) * (ends[0] - ends[1])
        for _ in range(NEWTON_ROUNDS):
            value, slope = self._log_clock(log_t)
            log_t = (log_t - (value - goal) / slope).clamp(*ends)
        return log_t.exp().to(given.device)

    def _log_clock(self, log_t: Tensor) -> tuple[Tensor, Tensor]:
        """log u and its derivative by log t, (L,) each."""
        t = log_t.exp()
        reading, gamma, _ = self.precision(t)
        u = _mean_trace(gamma)
        return u.log(), -t * _mean_trace(self._speed(reading)) / u

    def speed(self, t: Tensor | float) -> Tensor:
        """-dGamma/dt (L, data_dims, data_dims): information lost per unit of process time."""
        return self._speed(self.precision(t)[0])

    def _speed(self, reading: Tensor) -> Tensor:
        seen = reading @ self.matrices()[1]
        return self.duration * seen @ seen.mT

    # --- the contract ---------------------------------------------------------------------------

    def sample_prior(self, n: int, **draw: Unpack[Draw]) -> State:
        """Draw N(0, S) of the noisy end."""
        shape, t = point_shape(self.space, draw.get("shape")), draw.get("t")
        x = torch.zeros(
            (n, *shape), dtype=draw.get("dtype", torch.float32), device=draw.get("device", "cpu")
        )
        when = self.t_range[1] if t is None else t
        return self.corrupt(x, when, generator=draw.get("generator"))

    def corrupt(
        self,
        x: Tensor,
        t: Tensor | float,
        *,
        end: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """Draw X_t given x; `end` is the standard normal noise (B, k, ...) to use."""
        mean, covariance = self.moments(t)
        noise = self._noise(x, generator) if end is None else end.reshape(len(x), self.size, -1)
        blocks = (
            mean.to(x) @ x.reshape(len(x), self.data_dims, -1) + root(covariance).to(x) @ noise
        )
        return self._state(blocks, x.shape[1:])

    def corrupt_pair(
        self, x: Tensor, t: Tensor | float, *, generator: torch.Generator | None = None
    ) -> tuple[State, State]:
        end = self._noise(x, generator)
        return self.corrupt(x, t, end=end), self.corrupt(x, t, end=-end)

    def log_kernel(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        covariance = self.moments(t)[1]
        reading, gamma, inverse = (m.to(state.device) for m in self.precision(t))
        z, points = self.blocks(state).double(), x.reshape(len(x), self.data_dims, -1).double()
        own = (z * (inverse @ z)).flatten(1).sum(1, keepdim=True)
        cross = (reading @ z).flatten(1) @ points.flatten(1).T
        square = own - 2 * cross + gamma.flatten(1) @ (points @ points.mT).flatten(1).T
        volume = covariance.logdet().to(own) + self.size * math.log(2 * math.pi)
        return (-0.5 * (square + z.shape[2] * volume[:, None])).to(state)

    def target(self, state: State, x: Tensor, t: Tensor | float) -> Tensor:
        return x

    def rate(self, prediction: Tensor, x: Tensor, state: State, t: Tensor | float) -> Tensor:
        """1/2 e^T (dGamma/du) e, e = x - prediction; of one clock for all, 1/2 |e|^2."""
        speed = self.speed(t)
        return self.quadratic(speed / _mean_trace(speed)[:, None, None], x - prediction)

    def charge(
        self, guess: Guess, x: Tensor, state: State, t: Tensor | float, s: Tensor | float
    ) -> Tensor:
        """1/2 e^T (Gamma_s - Gamma_t) e: exact, whether or not the clock is one number."""
        off = x - guess(state, self._times(t).expand(len(state)))
        return self.quadratic(self.precision(s)[1] - self.precision(t)[1], off).double()

    def start_kl(self, u: float, second: float) -> float:
        return 0.5 * u * second

    def reverse(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        s: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> State:
        """Draw from p(X_s | X_t, x = prediction), the first-order step whose path KL is exact."""
        kept, clean, noise = (m.to(state) for m in self.step(t, s))
        blocks = kept @ self.blocks(state)
        blocks = blocks + clean @ prediction.reshape(len(prediction), self.data_dims, -1)
        return self._state(
            blocks + noise @ self._noise(prediction, generator), prediction.shape[1:]
        )

    def step(self, t: Tensor | float, s: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """X_s = J X_t + G xhat + R z: J (L, k, k), G (L, k, data_dims), R (L, k, k), float64."""
        move, noise = self.transition(self.duration * (self._times(t) - self._times(s)))
        (mean_t, total), (mean_s, before) = self.moments(t), self.moments(s)
        kept = torch.linalg.solve(total, move @ before).mT  # S_s Phi^T S_t^-1
        rest = torch.eye(self.size).to(kept) - kept @ move
        # Joseph's form: a sum of squares, where S_s - J Phi S_s would cancel
        spread = kept @ noise @ kept.mT + rest @ before @ rest.mT
        return kept, mean_s - kept @ mean_t, root(spread)

    def finish(
        self,
        prediction: Tensor,
        state: State,
        t: Tensor | float,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return prediction

    def readout(self, state: State) -> Tensor:
        return state[:, 0] if self.copies > 1 else state

    # --- conversions ----------------------------------------------------------------------------

    def statistic(self, state: State, t: Tensor | float) -> Tensor:
        """y (B, *shape) = x + N(0, Gamma^-1): all that the state knows about x."""
        reading, gamma, _ = self.precision(t)
        weights = torch.linalg.solve(gamma, reading).to(state)
        return (weights @ self.blocks(state)).reshape(self.readout(state).shape)

    def score(self, prediction: Tensor, state: State, t: Tensor | float) -> State:
        """grad log p_t of the whole state: -S^-1 (X_t - M xhat), exact where xhat = E[x | X_t]."""
        reading, _, inverse = (m.to(state) for m in self.precision(t))
        clean = reading.mT @ prediction.reshape(len(prediction), self.data_dims, -1)
        return (clean - inverse @ self.blocks(state)).reshape(state.shape)

    def clean(self, score: State, state: State, t: Tensor | float) -> Tensor:
        """E[x | X_t] from the score of the whole state: the inverse of `score`."""
        mean = self.moments(t)[0]
        _, gamma, inverse = (m.to(state) for m in self.precision(t))
        pulled = mean.mT.to(state) @ (self.blocks(score) + inverse @ self.blocks(state))
        return torch.linalg.solve(gamma, pulled).reshape(self.readout(state).shape)

    # --- layout ---------------------------------------------------------------------------------

    def blocks(self, state: State) -> Tensor:
        """States as (B, k, G): k variables of each of the G groups that A acts on alike."""
        return state.reshape(len(state), self.size, -1)

    def _state(self, blocks: Tensor, shape: torch.Size) -> State:
        copies = () if self.copies == 1 else (self.copies,)
        return blocks.reshape(len(blocks), *copies, *shape)

    def _noise(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Standard normal blocks for points x."""
        groups = x[0].numel() // self.data_dims
        return torch.randn(
            (len(x), self.size, groups), generator=generator, dtype=x.dtype, device=x.device
        )

    def quadratic(self, matrix: Tensor, off: Tensor) -> Tensor:
        """1/2 e^T G e (B,) of e (B, *shape), summed over groups; G (L, data_dims, data_dims)."""
        off = off.reshape(len(off), self.data_dims, -1)
        return 0.5 * (off * (matrix.to(off) @ off)).flatten(1).sum(1)

    def _times(self, t: Tensor | float) -> Tensor:
        """Times (L,) in float64, of a batch at one time that one."""
        device = self.matrices()[0].device
        times = torch.as_tensor(t, dtype=torch.float64, device=device).reshape(-1)
        return times[:1] if len(times) > 1 and (times == times[0]).all() else times


def require_linear_sde(process: Process, purpose: str) -> LinearSDE:
    """The process, if it is a linear SDE; else InputError that says what `purpose` needs."""
    if not isinstance(process, LinearSDE):
        raise InputError(f"{purpose} is for linear SDEs; {type(process).__name__} is none")
    return process


def _mean_trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).mean(1)
