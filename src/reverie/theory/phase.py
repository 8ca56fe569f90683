"""The phase diagram: losses and KL over samples, ridge and noise level, without simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.errors import InputError
from reverie.theory.equivalents import Atoms, compress, kl_per_dim
from reverie.theory.rates import fit_of, oracle_rate, ridge_rates

MANY = 512  # atoms above which sums over the spectrum are compressed


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    """n (A,), ridge (B,), u (L,); train, test (A, B, L) rates in nats per unit of u.

    oracle: (L,), the rate of the true Gaussian. kl: (A, B) nats in total, infinite where n <= d
    without a ridge. Asymptotic, known mean.

    >>> import numpy as np
    >>> from reverie.theory import PhaseDiagram, atoms, phase_diagram
    >>> n, ridge, u = np.array([20, 200]), np.array([0.01, 0.1]), np.ones(1)
    >>> diagram = phase_diagram(atoms(np.ones(8)), n, ridge, u)
    >>> isinstance(diagram, PhaseDiagram), diagram.kl.round(3), diagram.best_ridge()
    (True, array([[1.619, 0.968],
           [0.082, 0.075]]), array([0.1, 0.1]))
    """

    n: np.ndarray
    ridge: np.ndarray
    u: np.ndarray
    train: np.ndarray
    test: np.ndarray
    oracle: np.ndarray
    kl: np.ndarray
    dim: float

    @property
    def gap(self) -> np.ndarray:
        """Test less training rate (A, B, L)."""
        return self.test - self.train

    def best_ridge(self) -> np.ndarray:
        """Of the ridges given, the one with the least KL, for every n: (A,)."""
        return self.ridge[self.kl.argmin(1)]

    def plot(self, ax: Any = None) -> Any:
        """Draw KL per dimension over n and ridge, with the best ridge of each n."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=(5.2, 3.8), layout="constrained")[1]
        shown = np.log10(np.where(np.isfinite(self.kl), self.kl, np.nan) / self.dim)
        mesh = ax.pcolormesh(self.n, self.ridge, shown.T, shading="nearest", cmap="viridis")
        ax.plot(self.n, self.best_ridge(), "w.-", lw=1, label="best ridge")
        ax.set(xscale="log", yscale="log", xlabel="samples N", ylabel="ridge (data units squared)")
        ax.legend(loc="upper right")
        ax.figure.colorbar(mesh, ax=ax, label="log10 of KL per dimension (nats)")
        return ax


def phase_diagram(
    spectrum: Atoms, n: np.ndarray, ridge: np.ndarray, u: np.ndarray
) -> PhaseDiagram:
    """Every combination of n (A,), ridge (B,) and clock u (L,), in one vectorised solve.

    Raises InputError where n < 1, ridge < 0 or u <= 0.

    >>> import numpy as np
    >>> from reverie.theory import atoms, phase_diagram
    >>> n, ridge, u = np.array([20, 200]), np.array([0.01, 0.1]), np.ones(1)
    >>> phase_diagram(atoms(np.ones(8)), n, ridge, u).gap[:, :, 0].round(3)  # nats per unit of u
    array([[0.424, 0.365],
           [0.04 , 0.035]])
    """
    n, ridge, u = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (n, ridge, u))
    if (n < 1).any() or (ridge < 0).any() or (u <= 0).any():
        raise InputError("a phase diagram needs n >= 1, ridge >= 0 and u > 0")
    few = compress(spectrum) if len(spectrum.values) > MANY else spectrum
    train, test = ridge_rates(fit_of(few, n[:, None, None]), ridge[:, None], u)
    kl = few.dim * kl_per_dim(ridge, few.dim / n[:, None], few)
    return PhaseDiagram(n, ridge, u, train, test, oracle_rate(few, u), kl, few.dim)
