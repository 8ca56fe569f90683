"""`reverie.posterior`: learn p(theta | x) from a simulator, sample it and read its density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.curve import LossCurve, measure
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.information.flow import flow_density
from reverie.processes import EDM
from reverie.sampling import sample
from reverie.simulation.composition import Composed
from reverie.simulation.coordinates import Coordinates, coordinates
from reverie.simulation.fitting import Check, Fit, Settings
from reverie.simulation.pairs import Simulator, as_rows, check_pairs, simulate
from reverie.simulation.reweighted import are_gaussian, reweighted
from reverie.simulation.stored import read_posterior, write_posterior

BLOCK = 20_000  # states that a network sees at once
ROUNDS = 100  # of drawing again what fell outside the prior
DRAWS = 1000  # of each single posterior, for its covariance


@dataclass(eq=False)
class Posterior:
    """p(theta | x), learned: a denoiser of w given x, and the coordinates w of theta.

    denoiser: of w (B, d), with `condition` x (B, m) in the user's units. checks: how the held-out
    curve fell. curves: of the training and of the held-out pairs (nats, summed over dimensions);
    `curves["train"].leak(curves["holdout"])` is how much better it knows its training pairs.

    >>> import torch
    >>> from reverie import Posterior, posterior
    >>> prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1), 1), 1)
    >>> found = posterior(lambda theta: theta + 1, prior, n=200, steps=20)
    >>> isinstance(found, Posterior), found.sample_each(5, [[1.0], [1.2]]).shape
    (True, torch.Size([2, 5, 1]))
    """

    denoiser: Denoiser
    coordinates: Coordinates
    dim: int
    observed: int
    checks: list[Check] = field(default_factory=list)
    curves: dict[str, LossCurve] = field(default_factory=dict)

    def sample(self, n: int, x: Any, *, steps: int = 40, seed: int = 0) -> Tensor:
        """Draw `n` parameters (n, d) given one observation x (m,) or (1, m), or all of x (k, m).

        Several rows are independent observations of the same parameters: composed where their
        single posteriors pass for Gaussian (see `composition`), else weighted by their densities
        (see `reweighted`); then some draws come up more than once.
        Draws outside the prior's support are drawn again. steps: K of the third-order UniPC on
        the process's own levels, K + 1 evaluations. Raises InputError on a wrong shape, and on
        several rows without a prior known in closed form or with too little in common.
        """
        rows = self._observations(x)
        generator = torch.Generator().manual_seed(seed)
        if len(rows) == 1:
            return self._draw(self.denoiser, rows.expand(n, -1), n, steps, generator)
        drawn = self._singles(rows, seed)
        composed = self._composed(rows, drawn)
        if are_gaussian(drawn):
            return self._draw(composed, None, n, steps, generator)
        return self._reweighted(composed, n, steps, generator)

    def sample_each(self, n: int, x: Any, *, steps: int = 40, seed: int = 0) -> Tensor:
        """Draw `n` parameters for every row of x (B, m) by itself: (B, n, d)."""
        rows = self._observations(x)
        generator = torch.Generator().manual_seed(seed)
        given = rows.repeat_interleave(n, 0)
        drawn = self._draw(self.denoiser, given, len(given), steps, generator)
        return drawn.reshape(len(rows), n, self.dim)

    def log_prob(self, theta: Any, x: Any, *, tolerance: float = 1e-5) -> Tensor:
        """log p(theta | x) in nats (B,), minus infinity outside the prior's support.

        What little mass the flow puts outside is not given back to the inside.
        theta: (B, d). x: (m,) or (1, m) for all, or (B, m) row by row. By the probability flow
        with the exact trace (Song et al. 2021, eq. 39). Raises InputError on shapes that disagree.
        """
        points, rows = as_rows(theta, "theta"), self._observations(x)
        if points.shape[1] != self.dim or len(rows) not in (1, len(points)):
            raise InputError(
                f"theta has shape {tuple(points.shape)} and x {tuple(rows.shape)}; need "
                f"(B, {self.dim}), and one observation for all or for each"
            )
        inside = self.coordinates.inside(points)
        value = torch.full((len(points),), -torch.inf, dtype=torch.float64)
        if inside.any():
            given = rows.expand(len(points), -1)[inside]
            w = self.coordinates.to_model(points[inside]).float()
            flow = flow_density(
                self.denoiser, w, probes=None, tolerance=tolerance, condition=given
            )
            value[inside] = flow.nats + self.coordinates.log_volume(points[inside])
        return value

    def composed(self, x: Any, *, seed: int = 0) -> Composed:
        """The denoiser given all rows of x (k, m); single posteriors' covariances from draws."""
        rows = self._observations(x)
        return self._composed(rows, self._singles(rows, seed))

    def _singles(self, rows: Tensor, seed: int) -> Tensor:
        """DRAWS draws of each single posterior, (k, DRAWS, d) in model coordinates."""
        drawn = self.sample_each(DRAWS, rows, seed=seed + 1).flatten(0, 1)
        return self.coordinates.to_model(drawn).reshape(len(rows), DRAWS, self.dim)

    def _composed(self, rows: Tensor, drawn: Tensor) -> Composed:
        prior_guess = self.coordinates.prior_guess
        if prior_guess is None:
            raise InputError(
                "several observations need the prior in closed form: fit with prior=, a "
                "MultivariateNormal or independent coordinates with cdf and icdf"
            )
        centred = drawn - drawn.mean(1, keepdim=True)
        return Composed(self.denoiser, prior_guess, rows, centred.mT @ centred / (DRAWS - 1))

    def _reweighted(
        self, composed: Composed, n: int, steps: int, generator: torch.Generator
    ) -> Tensor:
        """Draws (n, d) given all observations, by importance weights."""
        half, rows = max(n, DRAWS), composed.observations
        given = rows[torch.arange(half) % len(rows)]
        parts = [
            self._flow(composed, None, half, steps, generator),
            self._flow(self.denoiser, given, half, steps, generator),
        ]
        theta = torch.cat(parts)
        inside = self.coordinates.inside(theta)
        w = self.coordinates.to_model(theta)
        log_prior = self.coordinates.log_prior(w)
        return theta[reweighted(composed, w, inside, log_prior, n, generator)]

    def save(self, folder: str | Path) -> Path:
        """Write `posterior.safetensors` and `posterior.json` in a new folder that appears at once.

        Raises InputError where the folder is not empty, and on a denoiser that was not fitted.
        """
        place = Path(folder)
        write_posterior(place, self.denoiser, self.coordinates, self.checks, self.curves)
        return place

    @classmethod
    def load(cls, folder: str | Path, prior: Any = None) -> Posterior:
        """What `save` wrote.

        prior: needed again unless it was none, a box or a MultivariateNormal. Raises InputError
        on a folder that is missing or damaged.
        """
        network, space, checks, curves = read_posterior(Path(folder), prior)
        dim, observed = network.linear.slope.shape
        return cls(network, space, dim, observed, checks, curves)

    def measure(self, theta: Any, x: Any, levels: int = 32, *, seed: int = 0) -> LossCurve:
        """Loss curve of p(theta | x) on pairs theta (n, d), x (n, m), in nats."""
        points, rows = check_pairs(theta, x)
        w = self.coordinates.to_model(points)
        generator = torch.Generator().manual_seed(seed)
        given = self._observations(rows)
        return measure(self.denoiser, w, levels, generator=generator, condition=given)

    def _draw(
        self,
        denoiser: Denoiser,
        given: Tensor | None,
        n: int,
        steps: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Parameters (n, d), one for each row of `given` (n, m)."""
        if n < 1:
            raise InputError(f"n is {n}; draw at least one sample")
        found = torch.empty(n, self.dim, dtype=torch.float64)
        missing = torch.arange(n)
        for _ in range(ROUNDS):
            parts = [
                self._flow(
                    denoiser, None if given is None else given[rows], len(rows), steps, generator
                )
                for rows in missing.split(BLOCK)
            ]
            found[missing] = torch.cat(parts)
            missing = missing[~self.coordinates.inside(found[missing])]
            if len(missing) == 0:
                return found
        raise InputError(
            f"{len(missing)} of {n} draws still lie outside the prior after {ROUNDS} rounds: the "
            "observation is far from all simulated ones, or the training too short"
        )

    def _flow(
        self,
        denoiser: Denoiser,
        given: Tensor | None,
        n: int,
        steps: int,
        generator: torch.Generator,
    ) -> Tensor:
        clean, noisy = denoiser.process.t_range
        times = torch.linspace(noisy, clean, steps + 1, dtype=torch.float64)
        w = sample(
            denoiser, n, times, "unipc-3", shape=(self.dim,), condition=given,
            generator=generator,
        )  # fmt: skip
        return self.coordinates.to_user(w)

    def _observations(self, x: Any) -> Tensor:
        values = np.asarray(x, dtype=np.float64)
        rows = as_rows(values[None] if values.ndim == 1 else values, "x")
        if rows.shape[1] != self.observed:
            raise InputError(f"x has {rows.shape[1]} values; the pairs had {self.observed}")
        return rows.float()


def posterior(
    data: Simulator | tuple[Any, Any],
    prior: Any = None,
    *,
    n: int = 10_000,
    holdout: float = 0.1,
    on_check: Callable[[Check], None] | None = None,
    **settings: Any,
) -> Posterior:
    """Learn p(theta | x) by denoising score matching on pairs (Geffner et al. 2023; NPSE).

    data: a simulator, theta (n, d) -> x (n, m), which is run on `n` draws of the prior; or a pair
        of arrays (theta, x). Simulations that fail (a value that is not finite) are made again
        from new draws, with a warning: p(theta | x) at an x that succeeded stays what it is.
    prior: a torch Distribution over (d,), or any object with sample((n,)) and log_prob; it may be
        left out with arrays (then there is no support to respect).
    holdout: share of the pairs that training never sees; training stops where their loss curve
        stops falling, and falls back on the linear-Gaussian posterior if it never fell.
    on_check: called after every look at the held-out curve. settings: fields of `Settings`.
    Raises InputError on bad pairs (rows are named), priors, settings or shares.

    >>> import torch
    >>> from reverie import posterior
    >>> prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1), 1), 1)
    >>> simulate = lambda theta: theta + 0.1 * torch.randn_like(theta)
    >>> found = posterior(simulate, prior, n=200, steps=20)
    >>> found.sample(5, [0.5]).shape, found.log_prob([[0.5]], [0.5]).shape
    (torch.Size([5, 1]), torch.Size([1]))
    """
    chosen = _settings(settings)
    if callable(data):
        theta, x = simulate(data, prior, n, chosen.seed)
    else:
        theta, x = check_pairs(*data)
    if not 0 < holdout < 1 or not 1 < round(holdout * len(theta)) < len(theta) - 1:
        raise InputError(f"holdout is {holdout}; it must leave rows on both sides, as .1 does")
    if chosen.exchangeable < 1 or x.shape[1] % chosen.exchangeable:
        raise InputError(
            f"exchangeable is {chosen.exchangeable}, but x has {x.shape[1]} values: they must "
            "split into that many equal blocks"
        )
    space = coordinates(theta, prior)
    order = np.random.default_rng(chosen.seed).permutation(len(theta))
    held, kept = np.split(order, [round(holdout * len(theta))])
    w, x = space.to_model(theta).float(), x.float()
    pairs = {"train": (w[kept], x[kept]), "holdout": (w[held], x[held])}
    fit = Fit(EDM(0.002, 80.0), pairs["train"], pairs["holdout"], chosen, space.bounds)
    denoiser = fit.run(on_check)
    found = Posterior(denoiser, space, w.shape[1], x.shape[1], fit.checks)
    for name, (points, rows) in pairs.items():
        generator = torch.Generator().manual_seed(chosen.seed)
        found.curves[name] = measure(
            denoiser, points[: len(held)], 32, generator=generator, condition=rows[: len(held)],
            label=name,
        )  # fmt: skip
    return found


def _settings(settings: dict[str, Any]) -> Settings:
    unknown = set(settings) - set(Settings.__dataclass_fields__)
    if unknown:
        raise InputError(
            f"posterior takes no {unknown.pop()!r}; settings are "
            f"{', '.join(Settings.__dataclass_fields__)}"
        )
    return Settings(**settings)
