"""Denoising Markov models: a generator, its score-matching operator and three objectives.

A Markov process has a generator L, (L f)(x) = d/dt E[f(X_t) | X_0 = x]; L* is its adjoint. The
reversal of the process with marginals q has K f = [L*(q f) - f L* q] / q, and a model of it puts a
positive function beta in the place of q. The path KL between the two is the mean of

    Phi(f) = (L f) / f - L log f >= 0,   0 where f is constant,   at f = q / beta:

1/2 |grad log f|^2 of a diffusion, sum_y Q[x, y] (r - 1 - log r), r = f(y) / f(x), of a chain.
Three objectives differ from each other by numbers that beta does not touch (Benton, Shi, De
Bortoli, Deligiannidis & Doucet 2022, section 3; their implicit objective is eq. 9):

    explicit   E_q[Phi(q / beta)]
    denoising  E_{x0} E_{q(.|x0)}[Phi(q(.|x0) / beta)]
    implicit   E_q[(L* beta) / beta + L log beta]

and the last one, integrated over time with the end's -log p_ref, bounds -log p(x0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reverie.processes.chains import check_rates

Function = Callable[[Tensor], Tensor]  # states (B, ...) to values (B,)


class Generator:
    """The generator of a Markov process, acting on functions of a batch of states."""

    def apply(self, f: Function) -> Function:
        """L f."""
        raise NotImplementedError

    def adjoint(self, f: Function) -> Function:
        """L* f, in counting or Lebesgue measure."""
        raise NotImplementedError

    def phi(self, f: Function) -> Function:
        """The score-matching operator of a positive function: (L f) / f - L log f."""
        forward, logarithm = self.apply(f), self.apply(lambda x: f(x).log())
        return lambda x: forward(x) / f(x) - logarithm(x)

    def implicit(self, beta: Function) -> Function:
        """(L* beta) / beta + L log beta, whose mean over the marginal needs no knowledge of it."""
        backward, logarithm = self.adjoint(beta), self.apply(lambda x: beta(x).log())
        return lambda x: backward(x) / beta(x) + logarithm(x)

    def reversal(self, beta: Function, f: Function) -> Function:
        """K f, the generator of the reversal whose marginals are proportional to beta."""
        both = self.adjoint(lambda x: beta(x) * f(x))
        alone = self.adjoint(beta)
        return lambda x: (both(x) - f(x) * alone(x)) / beta(x)


class ChainGenerator(Generator):
    """Jumps with the rate matrix `rates` (M, M) on the states 0..M-1; states are int64 (B,)."""

    def __init__(self, rates: Tensor) -> None:
        self.rates = check_rates(rates)
        self.all = torch.arange(len(self.rates))

    def apply(self, f: Function) -> Function:
        return tabulate(self.rates @ f(self.all))

    def adjoint(self, f: Function) -> Function:
        return tabulate(self.rates.T @ f(self.all))


class DiffusionGenerator(Generator):
    """dX = drift(X) dt + noise(X) dW on R^d: L f = drift . grad f + 1/2 tr(a Hess f).

    drift maps points (B, d) to (B, d), noise to (B, d, d), with a = noise noise^T.
    """

    def __init__(self, drift: Function, noise: Function) -> None:
        self.drift, self.noise = drift, noise

    def _square(self, x: Tensor) -> Tensor:
        noise = self.noise(x[None])[0]
        return noise @ noise.T

    def apply(self, f: Function) -> Function:
        def one(x: Tensor) -> Tensor:
            slope, bend = torch.func.grad(_single(f))(x), torch.func.hessian(_single(f))(x)
            return self.drift(x[None])[0] @ slope + 0.5 * (self._square(x) * bend).sum()

        return torch.func.vmap(one)

    def adjoint(self, f: Function) -> Function:
        def one(x: Tensor) -> Tensor:
            flow = torch.func.jacrev(lambda y: self.drift(y[None])[0] * _single(f)(y))(x)
            bend = torch.func.hessian(lambda y: self._square(y) * _single(f)(y))(x)
            return 0.5 * torch.einsum("ijij->", bend) - flow.trace()

        return torch.func.vmap(one)


def _single(f: Function) -> Function:
    return lambda x: f(x[None])[0]


def tabulate(values: Tensor) -> Function:
    """The function on 0..M-1 with these values (M,)."""
    return lambda x: values[x]


# --- the objectives on a chain whose states can be listed ------------------------------------


def explicit(chain: ChainGenerator, beta: Tensor, law: Tensor) -> Tensor:
    """E_q[Phi(q / beta)] in nats per unit of time; beta, law q: (M,)."""
    return law @ chain.phi(tabulate(law / beta))(chain.all)


def implicit(chain: ChainGenerator, beta: Tensor, law: Tensor) -> Tensor:
    """E_q[(L* beta) / beta + L log beta] in nats per unit of time; beta, law q: (M,)."""
    return law @ chain.implicit(tabulate(beta))(chain.all)


def denoising(chain: ChainGenerator, beta: Tensor, first: Tensor, kernel: Tensor) -> Tensor:
    """E_{x0} E_{q(.|x0)}[Phi(q(.|x0) / beta)] per unit of time; first: (M,) the law of x0.

    kernel: (M, M), q(x | x0) in row x0, positive.
    """
    terms = [
        law @ chain.phi(tabulate(law / beta))(chain.all) * share
        for share, law in zip(first, kernel, strict=True)
    ]
    return torch.stack(terms).sum()


def chain_bound(
    chain: ChainGenerator,
    betas: Sequence[Tensor],
    times: Tensor,
    weights: Tensor,
    reference: Tensor,
    horizon: float,
) -> Tensor:
    """The bound (M,) on -log p(x0) in nats of every state, with betas (M,) at quadrature times.

    times, weights: a quadrature rule on [0, horizon]; reference: (M,) the law that stands in for
    that of the noise at the horizon. With the true marginals its mean over the data is their
    entropy + KL(noise || reference). Source: Benton et al. 2022, section 3.
    """
    end = torch.linalg.matrix_exp(horizon * chain.rates)
    bound = -end @ reference.log()
    for beta, time, weight in zip(betas, times, weights, strict=True):
        kernel = torch.linalg.matrix_exp(time * chain.rates)
        bound = bound + weight * (kernel @ chain.implicit(tabulate(beta))(chain.all))
    return bound
