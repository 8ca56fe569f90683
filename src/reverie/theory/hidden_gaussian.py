"""How linear a denoiser is, and how far it stands from the Gaussian of its data.

Three readings per noise level (Li, Dai & Qu, NeurIPS 2024):

    linearity      E |cos(D(a x1 + b x2), a D(x1) + b D(x2))|,  a = b = 1/sqrt(2)
    distillation   the affine map closest in mean square to D on stated inputs
    distance       E sqrt(|D_1 - D_2|^2 / d)

Two traps are closed here. A denoiser with a mean is affine, not linear, so linearity is measured
about a centre. And the least-squares affine fit to *any* exact posterior mean, the memoriser
included, on noised points of its own data is the Gaussian denoiser of those data (tower
property), so a distillation says nothing without its inputs, which are therefore an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from reverie.denoisers import Denoiser, Linear
from reverie.errors import InputError
from reverie.processes import EDM, GaussianProcess
from reverie.processes.gaussian import require_gaussian


def edm_sigmas(
    count: int = 10, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> np.ndarray:
    """Decreasing sigma / alpha (count,) of the Karras schedule, both ends included.

    Ten levels are those at which Li, Dai & Qu 2024 train their distilled models.
    """
    if count < 2:
        raise InputError(f"a schedule needs at least two levels, not {count}")
    places = torch.linspace(1, 0, count, dtype=torch.float64)
    return EDM(sigma_min, sigma_max, rho).sigma(places).numpy()


def times_of(process: GaussianProcess, sigmas: Sequence[float] | np.ndarray) -> np.ndarray:
    """Process times (L,) at which sigma / alpha takes the values `sigmas` (L,)."""
    ratio = torch.as_tensor(np.asarray(sigmas, dtype=np.float64))
    return process.time(ratio**-2).numpy()


class _Place(TypedDict):
    device: torch.device
    generator: torch.Generator | None


@dataclass(frozen=True, eq=False)
class LevelScores:
    """A mean and its standard error over draws at each process time; all (L,)."""

    t: np.ndarray
    mean: np.ndarray
    stderr: np.ndarray


@dataclass(frozen=True, eq=False)
class Linearity:
    """Linearity per level: `cosine` (1 for a linear map) and relative error `nmse` (0 for one)."""

    cosine: LevelScores
    nmse: LevelScores


@torch.no_grad()
def linearity(
    denoiser: Denoiser,
    inputs: Tensor,
    t: Sequence[float] | np.ndarray,
    *,
    centre: Tensor | None = None,
    pairs: int = 100,
    generator: torch.Generator | None = None,
) -> Linearity:
    """Linearity of z -> D(alpha c + z) - c on pairs of noised `inputs` (n, *shape).

    t: (L,) process times. centre: c (*shape), default the mean of the inputs; pass the training
    mean when the inputs are held out. Both scores are per pair, averaged over `pairs`. Raises
    InputError on fewer than two inputs. Source: Li, Dai & Qu 2024 (score and its NMSE variant).
    """
    process = _gaussian(denoiser)
    data = _checked(process, inputs, 2)
    middle = data.mean(0) if centre is None else centre.to(data)
    place = _Place(device=data.device, generator=generator)
    scores = []
    for time in np.atleast_1d(t):
        given = data.new_full((3 * pairs,), float(time))
        alpha, sigma = process.scales(float(time), data)
        rows = torch.randint(len(data), (2 * pairs,), **place)
        noise = torch.randn((2 * pairs, *data.shape[1:]), dtype=data.dtype, **place)
        z = alpha * (data[rows] - middle) + sigma * noise
        z = torch.cat([z, math.sqrt(0.5) * (z[:pairs] + z[pairs:])])
        guess = (denoiser(z + alpha * middle, given) - middle).flatten(1).double()
        first, second, joint = guess.split(pairs)
        summed = math.sqrt(0.5) * (first + second)
        cosine = torch.cosine_similarity(joint, summed, dim=1, eps=1e-30).abs()
        scores.append(torch.stack([cosine, (joint - summed).norm(dim=1) / joint.norm(dim=1)]))
    cosine, nmse = torch.stack(scores, 1).cpu().numpy()
    return Linearity(_summary(t, cosine), _summary(t, nmse))


@dataclass(frozen=True, eq=False)
class AffineMap:
    """xhat = weight x_t + bias at one process time; weight (d, d), bias (d,), float64.

    weight_stderr: of a fitted map, standard error of |weight|_F over the draws, taken as
    independent and of equal variance.
    """

    weight: Tensor
    bias: Tensor
    t: float
    weight_stderr: float = 0.0

    def __call__(self, state: Tensor) -> Tensor:
        """Apply the map to states (B, *shape)."""
        flat = state.flatten(1).double() @ self.weight.T + self.bias
        return flat.to(state.dtype).reshape(state.shape)

    def weight_error(self, other: AffineMap) -> float:
        """|W - W'|_F / |W'|_F, the normalised error of the weights alone."""
        return float((self.weight - other.weight).norm() / other.weight.norm())


@torch.no_grad()
def distil(
    denoiser: Denoiser,
    inputs: Tensor,
    t: float,
    *,
    draws: int = 100_000,
    generator: torch.Generator | None = None,
    batch_size: int = 4096,
) -> AffineMap:
    """Affine map of least mean square distance to `denoiser` on noised `inputs` at time t.

    inputs: (n, *shape), visited in turn; `draws` noised states, in antithetic pairs, stream
    through the normal equations (float64, centred), so that memory is d^2. On the denoiser's own
    training data any exact posterior mean distils to the Gaussian denoiser of those data: compare
    training and held-out inputs. Raises InputError when there are fewer draws than unknowns.
    """
    process = _gaussian(denoiser)
    data = _checked(process, inputs, 1)
    dim = math.prod(data.shape[1:])
    if draws <= dim + 1:
        raise InputError(f"{draws} draws cannot fix an affine map of {dim} inputs: take more")
    middle = data.mean(0)
    alpha = process.scales(t, data)[0]
    gram = torch.zeros(dim + 1, dim + 1, dtype=torch.float64, device=data.device)
    cross = torch.zeros(dim + 1, dim, dtype=torch.float64, device=data.device)
    square, done = 0.0, 0
    while done < draws:
        rows = torch.arange(done, done + min(batch_size, draws - done)) // 2 % len(data)
        state = torch.cat(process.corrupt_pair(data[rows[::2]], t, generator=generator))
        guess = denoiser(state, data.new_full((len(state),), float(t)))
        z = (state - alpha * middle).flatten(1).double()
        z = torch.cat([z, z.new_ones(len(z), 1)], 1)
        gram += z.T @ z
        target = (guess - middle).flatten(1).double()
        cross += z.T @ target
        square += float(target.square().sum())
        done += len(state)
    solution = torch.linalg.solve(gram, cross)
    weight, shift = solution[:-1].T, solution[-1]
    residual = max(square - float((solution * cross).sum()), 0.0) / (done - dim - 1)
    stderr = math.sqrt(residual * float(torch.linalg.inv(gram).diagonal()[:-1].sum()))
    centre = (alpha * middle).flatten().double()
    bias = shift + middle.flatten().double() - weight @ centre
    return AffineMap(weight, bias, float(t), stderr)


def gaussian_map(linear: Linear, t: float) -> AffineMap:
    """The Gaussian denoiser W_G x_t + b_G of `linear` at time t, for comparison of weights.

    Source: Li, Dai & Qu 2024, theorem 1. Raises InputError when coordinates differ in noise.
    """
    process = linear.process
    if not process.isotropic:
        raise InputError("the Gaussian map needs one noise level for all coordinates")
    mean, basis = linear.mean.double().flatten(), linear.basis.double()
    alpha, sigma = (v.reshape(()) for v in process.scales(t, mean[None]))
    gain = alpha * linear.spectrum / (alpha.square() * linear.spectrum + sigma.square())
    weight = basis * gain @ basis.T
    return AffineMap(weight, mean - alpha * (weight @ mean), float(t))


@torch.no_grad()
def distance(
    first: Denoiser,
    second: Denoiser | Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    t: Sequence[float] | np.ndarray,
    *,
    generator: torch.Generator | None = None,
) -> LevelScores:
    """E sqrt(|D_1 - D_2|^2 / d) per level, both denoisers on the same noised `inputs`.

    inputs: (n, *shape), each noised once per level; t: (L,) times of `first`'s process. `second`
    is called as second(state, t). In the units of the data, per coordinate. Source: the score
    difference of Li, Dai & Qu 2024.
    """
    process = _gaussian(first)
    data = _checked(process, inputs, 2)
    rows = []
    for time in np.atleast_1d(t):
        state = process.corrupt(data, float(time), generator=generator)
        given = data.new_full((len(data),), float(time))
        apart = (first(state, given) - second(state, given)).flatten(1).double()
        rows.append(apart.square().mean(1).sqrt())
    return _summary(t, torch.stack(rows).cpu().numpy())


@torch.no_grad()
def generalisation_score(samples: Tensor, data: Tensor) -> float:
    """Mean over `samples` of the distance to the nearest row of `data`, over the sample's norm.

    Samples (m, *shape), data (n, *shape). Li, Dai & Qu 2024 call a model generalising above .6
    (a figure of their image sets, not a law). Raises InputError on empty sets.
    """
    if len(samples) == 0 or len(data) == 0:
        raise InputError("the generalisation score needs samples and data")
    flat = samples.flatten(1).double()
    return float((torch.cdist(flat, data.flatten(1).double()).amin(1) / flat.norm(dim=1)).mean())


def _summary(t: Sequence[float] | np.ndarray, values: np.ndarray) -> LevelScores:
    """Mean and standard error of values (L, n)."""
    error = values.std(1, ddof=1) / math.sqrt(values.shape[1])
    return LevelScores(np.atleast_1d(np.asarray(t, dtype=np.float64)), values.mean(1), error)


def _gaussian(denoiser: Denoiser) -> GaussianProcess:
    return require_gaussian(denoiser.process, "this reading")


def _checked(process: GaussianProcess, inputs: Tensor, least: int) -> Tensor:
    if len(inputs) < least:
        raise InputError(f"this reading needs at least {least} inputs, not {len(inputs)}")
    return process.space.check(inputs)
