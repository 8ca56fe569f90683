"""An unnormalised density: what is known of a target that has no data.

`log_density` maps points (n, dim) to (n,), up to a constant: log gamma(x) with Z = int gamma. The
gradient is taken by autograd, or given. Every evaluation is counted, and a `Point` remembers what
was asked of it, so that a step of Langevin type costs one gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from reverie.errors import InputError

LogDensity = Callable[[Tensor], Tensor]


class Target:
    """The density exp(log_density(x)) on R^dim, unnormalised.

    log_density: (n, dim) -> (n,), nats, -inf outside the support. gradient: (n, dim) -> (n, dim),
    by default autograd's. `.evaluations` and `.gradients` count points that were asked for,
    `.undefined` those where it was not a number.
    Where it is not a number it counts as -inf: paths that overflow end there. InputError where
    what comes back has another shape, or is +inf.

    >>> import torch
    >>> from reverie.targets import Target
    >>> target = Target(lambda x: -x.square().sum(1), 2)
    >>> target.with_gradient(torch.tensor([[1.0, 2.0]]))
    (tensor([-5.]), tensor([[-2., -4.]]))
    >>> target.evaluations, target.gradients, target.undefined
    (1, 1, 0)
    """

    def __init__(
        self, log_density: LogDensity, dim: int, *, gradient: LogDensity | None = None
    ) -> None:
        if not callable(log_density):
            raise InputError("the log density must be a function of points (n, dim)")
        if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
            raise InputError(f"dim is {dim!r}; it must be a whole number of at least 1")
        self.log_density, self.dim, self.given = log_density, dim, gradient
        self.evaluations = self.gradients = self.undefined = 0
        self.condition: Tensor | None = None

    def conditioned(self, condition: Tensor) -> Target:
        """The target for what each row is told; InputError: this one is told nothing."""
        raise InputError("this target is told nothing: make a ConditionalTarget of it")

    def told(self, n: int) -> Tensor | None:
        """What each of n rows is told, (n, c), or None."""
        return None if self.condition is None else self.condition.expand(n, -1)

    def __call__(self, x: Tensor) -> Tensor:
        """Log density (n,) of points (n, dim); differentiable where x is."""
        self.evaluations += len(x)
        return self.checked(x)

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log density (n,) and its gradient (n, dim), 0 where it is not finite.

        Both are differentiable again where gradients are on and x asks for them.
        """
        self.evaluations += len(x)
        self.gradients += len(x)
        again = torch.is_grad_enabled() and x.requires_grad
        if self.given is not None:
            value, slope = self.checked(x), self._slope(self._asked(self.given, x), x)
            return (value, slope) if again else (value.detach(), slope.detach())
        with torch.enable_grad():
            place = x if again else x.detach().requires_grad_()
            value = self.checked(place)
            if not value.requires_grad:
                raise InputError(
                    "autograd cannot follow this log density: write it in torch operations, or "
                    "give its gradient"
                )
            (slope,) = torch.autograd.grad(value.sum(), place, create_graph=again)
        slope = torch.where(torch.isfinite(slope), slope, torch.zeros_like(slope))
        return (value, slope) if again else (value.detach(), slope)

    def checked(self, x: Tensor) -> Tensor:
        """Log density (n,) as `__call__` gives it, uncounted."""
        return self._checked(self._asked(self.log_density, x), x)

    def at(self, x: Tensor, velocity: Tensor | None = None) -> Point:
        """The point that remembers its log density and gradient."""
        return Point(self, x, velocity)

    @staticmethod
    def _asked(function: LogDensity, x: Tensor) -> Any:
        try:
            return function(x)
        except InputError:
            raise
        except Exception as error:  # a function of the user's own may raise what it likes
            name = getattr(function, "__name__", type(function).__name__)
            raise InputError(
                f"{name} fails on points {tuple(x.shape)}: {type(error).__name__}: {error}"
            ) from error

    def _checked(self, value: Any, x: Tensor) -> Tensor:
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"the log density of points {tuple(x.shape)} must be a tensor ({len(x)},), "
                f"not {found}"
            )
        self.undefined += int(torch.isnan(value).sum())
        value = torch.nan_to_num(value, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        bad = value == torch.inf
        if bool(bad.any()):
            shown = ", ".join(f"{c:.4g}" for c in x[bad][0].detach().tolist()[:6])
            raise InputError(
                f"the log density is +inf at ({shown}{', ...' if x.shape[1] > 6 else ''}); it "
                "must be a number, or -inf outside the support"
            )
        return value

    def _slope(self, slope: Any, x: Tensor) -> Tensor:
        if not isinstance(slope, Tensor) or slope.shape != x.shape:
            found = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
            raise InputError(f"the gradient must be a tensor {tuple(x.shape)}, not {found}")
        return torch.where(torch.isfinite(slope), slope, torch.zeros_like(slope))


class ConditionalTarget(Target):
    """A density of x for each y: log_density(x, y) of points (n, dim) and what they are told.

    y: (n, c), one row for each point. gradient: in x, (n, dim), by default autograd's.
    `.conditioned(y)` is the target of fixed rows y, one for all or one for each, with its own
    counts; asked without y it raises InputError.

    >>> import torch
    >>> from reverie.targets import ConditionalTarget
    >>> target = ConditionalTarget(lambda x, y: -0.5 * (x - y).square().sum(1), 1)
    >>> target.conditioned(torch.tensor([[2.0]]))(torch.tensor([[0.0], [2.0]]))
    tensor([-2., 0.])
    """

    def __init__(
        self,
        log_density: Callable[[Tensor, Tensor], Tensor],
        dim: int,
        *,
        gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        def untold(x: Tensor) -> Tensor:
            raise InputError("this density is conditional: ask target.conditioned(y)")

        super().__init__(untold, dim)
        self.of_both, self.gradient_of_both = log_density, gradient

    def conditioned(self, condition: Tensor) -> Target:
        """The target of rows y: (1, c) or (c,) for all points, or (n, c) for each of n."""
        y = condition[None] if condition.ndim == 1 else condition

        def bound(function: Callable[[Tensor, Tensor], Tensor]) -> LogDensity:
            return lambda x: function(x, y.to(x).expand(len(x), -1))

        slope = self.gradient_of_both
        found = Target(
            bound(self.of_both), self.dim, gradient=None if slope is None else bound(slope)
        )
        found.condition = y
        return found


class Point:
    """Points x (n, dim), perhaps with a velocity, that remember what the target said of them.

    >>> import torch
    >>> from reverie.targets import Point, Target
    >>> target = Target(lambda x: -x.square().sum(1), 1)
    >>> point = Point(target, torch.ones(3, 1))
    >>> point.gradient.tolist(), point.log_density.tolist(), target.evaluations  # once each
    ([[-2.0], [-2.0], [-2.0]], [-1.0, -1.0, -1.0], 3)
    """

    def __init__(
        self,
        target: Target,
        x: Tensor,
        velocity: Tensor | None = None,
        log_density: Tensor | None = None,
        gradient: Tensor | None = None,
    ) -> None:
        self.target, self.x, self.velocity = target, x, velocity
        self._log_density, self._gradient = log_density, gradient

    def __len__(self) -> int:
        return len(self.x)

    @property
    def log_density(self) -> Tensor:
        if self._log_density is None:
            self._log_density = self.target(self.x)
        return self._log_density

    @property
    def gradient(self) -> Tensor:
        if self._gradient is None:
            self._log_density, self._gradient = self.target.with_gradient(self.x)
        return self._gradient

    def moving(self, velocity: Tensor | None) -> Point:
        """The same place with another velocity."""
        return Point(self.target, self.x, velocity, self._log_density, self._gradient)

    def taken(self, index: Tensor) -> Point:
        """The points at these rows."""
        kept = [
            None if value is None else value[index]
            for value in (self.velocity, self._log_density, self._gradient)
        ]
        return Point(self.target, self.x[index], *kept)

    def chosen(self, other: Point, first: Tensor) -> Point:
        """Row by row this point where `first` (n,), else the other. Both must be evaluated."""
        row = first[:, None]
        return Point(
            self.target,
            torch.where(row, self.x, other.x),
            None,
            torch.where(first, self.log_density, other.log_density),
            torch.where(row, self.gradient, other.gradient),
        )
