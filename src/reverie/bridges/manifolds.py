"""Schrodinger bridges on manifolds between two sets of points, by heat kernels in closed form.

The reference is Brownian motion of duration tau (generator half the Laplacian) on a homogeneous
space whose heat kernel p is known: circles, spheres, tori, rotations, hyperbolic and flat space,
products. The plan is f_i p_tau(x_i, y_j) g_j (Sinkhorn); given a state with `left` to go the far
end is y_j with odds g_j p_left(state, y_j), and the drift the mean score towards it. Between two
points the bridge at a share s has the density p_s(x, z) p_1-s(z, y) / p_1(x, y): a draw from the
kernel around the nearer end is kept with chance p(z, far) / p(far, far), since a kernel is highest
at its own point. So paths are exact at any number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.heat import heat_kernel
from reverie.spaces.manifold import Manifold

TRIES = 50_000  # rounds of rejection
BLOCK = 32  # rows whose kernels are read together
TOLERANCE, ITERATIONS = 1e-9, 10_000


class ManifoldMotion:
    """Brownian motion of duration tau on a space; what lies between two of its points.

    InputError unless tau > 0.

    >>> import torch
    >>> from reverie.bridges import ManifoldMotion
    >>> from reverie.spaces import Torus
    >>> start, end = torch.full((5, 1), 3.0).double(), torch.full((5, 1), -3.0).double()
    >>> ManifoldMotion(Torus(1), 0.01).between(start, end, 0.5).abs().min() > 2.5  # the short way
    tensor(True)
    """

    def __init__(self, space: Manifold, tau: float = 1.0) -> None:
        if not 0 < tau < float("inf"):
            raise InputError(f"tau is {tau:g}; a bridge needs a duration, tau > 0")
        self.space, self.tau, self.kernel = space, float(tau), heat_kernel(space)

    def log_density(self, x: Tensor, y: Tensor, duration: float) -> Tensor:
        """log p (B, N) of all pairs of states x (B, *shape) and points y (N, *shape)."""
        return self.kernel.log_density(x, y, x.new_full((len(x),), duration))

    def between(
        self,
        x: Tensor,
        y: Tensor,
        share: float,
        duration: float | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """States (B, *shape) at a share in (0, 1) of the bridges from x to y (B, *shape) each.

        duration: of the whole, default tau. InputError where it is far too short for the way.
        """
        whole = self.tau if duration is None else duration
        first, last = share * whole, (1 - share) * whole
        near, far = (x, y) if first <= last else (y, x)
        first, last = sorted((first, last))
        found, open_ = near.clone(), torch.arange(len(near))
        top = self._paired(far[:1], far[:1], last)
        for _ in range(TRIES):
            at = near[open_]
            noise = self.space.noise(at, generator=generator)
            trial = self.kernel.draw(at, at.new_full((len(at),), first), noise, generator)
            log = self._paired(trial, far[open_], last) - top
            chance = torch.rand(len(at), generator=generator, dtype=at.dtype).log()
            kept = chance < log
            found[open_[kept]] = trial[kept]
            open_ = open_[~kept]
            if len(open_) == 0:
                return found
        raise InputError(
            f"{len(open_)} of {len(x)} bridges join points too far apart for a duration of "
            f"{whole:g}; take a longer one"
        )

    def _paired(self, x: Tensor, y: Tensor, duration: float) -> Tensor:
        """log p (B,) of x and y (B, *shape) row by row."""
        blocks = zip(x.split(BLOCK), y.split(BLOCK), strict=True)  # kernels are of all pairs
        rows = [self.log_density(a, b, duration).diagonal() for a, b in blocks]
        return torch.cat(rows)


class ManifoldBridge:
    """The exact bridge between points a (n, *shape) and b (m, *shape) of equal weights.

    plan (n, m): of total mass 1; error: by how much its first marginal is off.

    >>> import torch
    >>> from reverie.bridges import ManifoldBridge
    >>> from reverie.spaces import Sphere
    >>> noise = torch.Generator().manual_seed(0)
    >>> a, b = (Sphere(2).uniform(n, generator=noise) for n in (5, 4))
    >>> bridge = ManifoldBridge(a, b, Sphere(2), tau=2.0)
    >>> bridge.plan.shape, bridge.path(a, steps=3, generator=noise).shape
    (torch.Size([5, 4]), torch.Size([4, 5, 3]))
    """

    def __init__(self, a: Tensor, b: Tensor, space: Manifold, tau: float = 1.0) -> None:
        self.motion = ManifoldMotion(space, tau)
        self.a, self.b = (space.check(points.double()) for points in (a, b))
        log = self.motion.log_density(self.a, self.b, tau)
        here, there = (torch.full((n,), n, dtype=torch.float64).log() for n in log.shape)
        g = torch.zeros_like(there)
        for _ in range(ITERATIONS):
            f = -here - (log + g).logsumexp(1)
            g = -there - (log + f[:, None]).logsumexp(0)
            self.plan = (f[:, None] + log + g).exp()
            self.error = float((self.plan.sum(1) - 1 / len(self.a)).abs().sum())
            if self.error < TOLERANCE:
                break
        self.potentials = (f, g)

    def weights(self, state: Tensor, left: float, *, reverse: bool = False) -> Tensor:
        """P(far point | state) (B, number of far points), with a duration `left` to go."""
        points, potential = self._far(reverse)
        return (self.motion.log_density(state, points, left) + potential).softmax(1)

    def drift(self, state: Tensor, left: float, *, reverse: bool = False) -> Tensor:
        """The tangent vector (B, *shape) per unit of duration: the mean score of what is left."""
        weights = self.weights(state, left, reverse=reverse)
        duration = state.new_full((len(state),), left)
        return self.motion.kernel.mean_score(weights, state, self._far(reverse)[0], duration)

    def path(
        self,
        x: Tensor,
        *,
        reverse: bool = False,
        steps: int = 10,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Paths (steps + 1, B, *shape) from states x, in the order of time."""
        points, tau = self._far(reverse)[0], self.motion.tau
        states = [self.motion.space.check(x.double())]
        for k in range(steps):
            left = tau * (1 - k / steps)
            pick = torch.multinomial(
                self.weights(states[-1], left, reverse=reverse), 1, generator=generator
            )
            far = points[pick[:, 0]]
            share = 1 / (steps - k)
            states.append(
                self.motion.between(states[-1], far, share, left, generator=generator)
                if share < 1
                else far
            )
        return torch.stack(states[::-1] if reverse else states)

    def _far(self, reverse: bool) -> tuple[Tensor, Tensor]:
        return (self.a, self.potentials[0]) if reverse else (self.b, self.potentials[1])
