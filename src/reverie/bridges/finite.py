"""Schrodinger bridges on finite sets that can be enumerated: the exact plan, and its iteration.

The reference is a chain of `steps` transition matrices over M states. The plan is
P(x0, x1) = f(x0) R(x0, x1) g(x1), R the product of the matrices, by Sinkhorn in the log domain;
the bridge is the chain R_k(x, y) h_k+1(y) / h_k(x), with h_k(x) = sum_y R_k..(x, y) g(y) (Doob).

Discrete Markovian fitting (CSBM: Ksenofontov & Korotin 2025) alternates bridges of the reference
between the pairs of a plan and the Markov chain with their marginals of two neighbouring times;
here both projections are exact sums, so that the iteration can be held against the plan.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from reverie.errors import InputError
from reverie.processes.jump import JumpProcess


class FiniteReference:
    """Transition matrices (steps, M, M), each row a law.

    InputError on other shapes, or rows that are no laws.

    >>> from reverie.bridges import FiniteReference
    >>> from reverie.processes import Uniform
    >>> FiniteReference.of_process(Uniform(3, sites=2), noise=1.0, steps=4).whole.shape
    torch.Size([9, 9])
    """

    def __init__(self, kernels: Tensor) -> None:
        kernels = kernels.double()
        if kernels.ndim != 3 or kernels.shape[1] != kernels.shape[2] or len(kernels) == 0:
            raise InputError(f"a chain is (steps, M, M) matrices, not {tuple(kernels.shape)}")
        if (kernels < 0).any() or not torch.allclose(
            kernels.sum(2), torch.ones(kernels.shape[:2], dtype=torch.float64)
        ):
            raise InputError("every row of a transition matrix is a law: not negative, of sum 1")
        self.kernels = kernels
        eye = torch.eye(kernels.shape[1], dtype=torch.float64)
        # from[k] = R_0..k-1 and to[k] = R_k.. : what lies before and after time k
        self.before = [eye]
        for kernel in kernels:
            self.before.append(self.before[-1] @ kernel)
        self.after = [eye]
        for kernel in kernels.flip(0):
            self.after.insert(0, kernel @ self.after[0])

    @classmethod
    def of_process(cls, process: JumpProcess, noise: float, steps: int = 10) -> FiniteReference:
        """A chain of symbols over all strings of its sites; noise: relaxation times in all.

        String i has the digits of i in base M, the first site the highest.
        """
        sigma = torch.tensor([noise / steps], dtype=torch.float64)
        site = process.transition(sigma)[0]
        sites = int(torch.tensor(process.space.shape or (1,)).prod())
        if len(site) ** sites > 5000:
            raise InputError(f"{len(site)} symbols on {sites} sites are too many to enumerate")
        whole = reduce(torch.kron, [site] * sites)
        return cls(whole.expand(steps, -1, -1))

    @property
    def whole(self) -> Tensor:
        """R (M, M) from the first time to the last."""
        return self.before[-1]


class FiniteBridge:
    """The exact bridge between laws p0 and p1 (M,) under a finite reference.

    plan (M, M): the law of both ends; error: how far its first marginal is off, in total.
    InputError on ends that are no laws of M states, or that the reference cannot reach.

    >>> import torch
    >>> from reverie.bridges import FiniteBridge, FiniteReference
    >>> lazy = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double()
    >>> reference = FiniteReference(lazy.expand(5, 2, 2))
    >>> bridge = FiniteBridge(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]), reference)
    >>> bridge.plan.round(decimals=6), bridge.kernels().shape
    (tensor([[0.5000, 0.5000],
            [0.0000, 0.0000]], dtype=torch.float64), torch.Size([5, 2, 2]))
    """

    def __init__(
        self,
        p0: Tensor,
        p1: Tensor,
        reference: FiniteReference,
        *,
        tolerance: float = 1e-12,
        iterations: int = 10_000,
    ) -> None:
        states = reference.kernels.shape[1]
        for law in (p0, p1):
            if law.shape != (states,) or (law < 0).any() or abs(float(law.sum()) - 1) > 1e-6:
                raise InputError(f"an end of this bridge is a law of {states} states")
        self.reference = reference
        self.a, self.b = p0.double(), p1.double()
        log_first, log_last, log = self.a.log(), self.b.log(), reference.whole.log()
        g = torch.zeros(states, dtype=torch.float64)
        for _ in range(iterations):
            f = log_first - (log + g).logsumexp(1)
            g = log_last - (log + f[:, None]).logsumexp(0)
            self.plan = (f[:, None] + log + g).exp()
            self.error = float((self.plan.sum(1) - self.a).abs().sum())
            if self.error < tolerance:
                break
        if not torch.isfinite(self.plan).all():
            raise InputError("the reference cannot reach some states of the second end")
        self.potential = (g - g.max()).exp()

    def kernels(self) -> Tensor:
        """Transition matrices (steps, M, M) of the bridge, forward."""
        h = [after @ self.potential for after in self.reference.after]
        pairs = zip(self.reference.kernels, h[:-1], h[1:], strict=True)
        return torch.stack([k * after / now[:, None] for k, now, after in pairs])

    def path(self, start: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """States (steps + 1, n) of paths from start (n,)."""
        rows = [start]
        for kernel in self.kernels():
            rows.append(torch.multinomial(kernel[rows[-1]], 1, generator=generator)[:, 0])
        return torch.stack(rows)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Pairs of states, each (n,)."""
        pick = torch.multinomial(self.plan.flatten(), n, replacement=True, generator=generator)
        return pick // len(self.b), pick % len(self.b)


def finite_markov_projection(plan: Tensor, reference: FiniteReference) -> Tensor:
    """One iteration of discrete Markovian fitting: the plan (M, M) of the Markov projection.

    plan: any law of pairs of states that the reference can join.
    """
    ratio = torch.where(plan > 0, plan / reference.whole, 0.0)
    found = plan.sum(1).diag()
    for k, kernel in enumerate(reference.kernels):
        # p(x_k, x_k+1) = sum over ends of the plan and of the reference's bridge between them
        ends = reference.before[k].T @ ratio @ reference.after[k + 1].T
        joint = ends * kernel
        mass = joint.sum(1, keepdim=True)
        found = found @ torch.where(mass > 0, joint / mass, kernel)
    return found
