"""The diffusion Schrodinger bridge by mean matching, exactly, on linear-Gaussian chains.

Iterative proportional fitting on chains of `steps` kernels (De Bortoli, Thornton, Heng & Doucet
2021): each pass reverses the chain of the last one by regression. Two targets for the mean of
X_k given X_k+1, where F is the mean of the chain that is reversed:

    "drift"            X_k+1 + F(X_k) - F(X_k+1)     the paper's, with the reference's variance
    "posterior-mean"   X_k                            exact where the variance is learned as well

On Gaussian chains regressions are closed forms, so that what is left is the bias of the method.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reverie.errors import InputError

TARGETS = ("posterior-mean", "drift")


@dataclass(frozen=True)
class Kernel:
    """X' | x ~ N(gain x + shift, noise)."""

    gain: Tensor
    shift: Tensor
    noise: Tensor

    def push(self, mean: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of X' where x has these."""
        after = self.gain @ cov @ self.gain.T + self.noise
        return self.gain @ mean + self.shift, 0.5 * (after + after.T)


def reverse_kernel(
    kernel: Kernel, mean: Tensor, cov: Tensor, *, target: str, fixed: Tensor | None
) -> Kernel:
    """The kernel X | x' that mean matching fits where x ~ N(mean, cov) and X' = kernel(x).

    fixed: its covariance; None takes that of the regression's residual.
    """
    after, wide = kernel.push(mean, cov)
    across = cov @ kernel.gain.T  # Cov(X, X')
    if target == "drift":
        centre = after + kernel.gain @ (mean - after)
        slope = wide + kernel.gain @ (across - wide)
    else:
        centre, slope = mean, across
    gain = torch.linalg.solve(wide, slope.T).T
    left = torch.eye(len(mean), dtype=mean.dtype) - gain @ kernel.gain
    residual = left @ cov @ left.T + gain @ kernel.noise @ gain.T  # symmetric in every digit
    noise = residual if fixed is None else fixed
    return Kernel(gain, centre - gain @ after, noise)


def gaussian_mean_matching(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    epsilon: float,
    *,
    steps: int = 20,
    iterations: int = 60,
    target: str = "posterior-mean",
    learned_variance: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of X_1, and Cov(X_0, X_1), of the forward chain after `iterations`.

    first, second: (mean (d,), covariance (d, d)) of the ends; the reference is Brownian motion of
    variance epsilon. One iteration is a backward fit and a forward fit.
    Raises InputError on an unknown target. Source: De Bortoli et al. 2021, on Gaussians.

    >>> import torch
    >>> from reverie.bridges import gaussian_mean_matching
    >>> unit = (torch.zeros(1).double(), torch.eye(1).double())
    >>> mean, covariance, cross = gaussian_mean_matching(unit, unit, epsilon=1.0, steps=50)
    >>> covariance.round(decimals=2), cross.round(decimals=2)  # (sqrt(5) - 1) / 2
    (tensor([[1.]], dtype=torch.float64), tensor([[0.6200]], dtype=torch.float64))
    """
    if target not in TARGETS:
        raise InputError(f"no target is called {target!r}; choose {', '.join(TARGETS)}")
    eye = torch.eye(len(first[0]), dtype=first[0].dtype)
    noise = epsilon / steps * eye
    fixed = None if learned_variance and target == "posterior-mean" else noise
    chain = [Kernel(eye, torch.zeros_like(first[0]), noise)] * steps
    for half in range(2 * iterations):
        start = second if half % 2 else first
        chain = _reversed(chain, start, target, fixed)
    return _ends(chain, first)


def _reversed(
    chain: list[Kernel], start: tuple[Tensor, Tensor], target: str, fixed: Tensor | None
) -> list[Kernel]:
    mean, cov = start
    back = []
    for kernel in chain:
        back.append(reverse_kernel(kernel, mean, cov, target=target, fixed=fixed))
        mean, cov = kernel.push(mean, cov)
    return back[::-1]


def _ends(chain: list[Kernel], start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    (mean, cov), across = start, start[1]
    for kernel in chain:
        mean, cov = kernel.push(mean, cov)
        across = across @ kernel.gain.T
    return mean, cov, across
