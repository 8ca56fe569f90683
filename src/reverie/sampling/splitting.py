"""Samplers of linear SDEs that evaluate the score: symmetric splitting and Euler-Maruyama.

The reverse drift -A X + Q s(X, t), Q = B B^T, is split by the stationary covariance S:

    -A X - Q S^-1 X            the stationary process run backwards: solved exactly, with its noise
    Q (s(X, t) + S^-1 X)       what the data ask for: one Euler step

Half of the first, all of the second, half of the first: SSCS (Dockhorn, Vahdat & Kreis 2022,
section 3.3), here for every linear SDE. The splitting is symmetric, but its order is 1: the score
depends on what it moves, and the published sampler asks it at the level where the step starts.
With the second part by the midpoint rule, at the middle of the step and at two evaluations, the
order is 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reverie.processes import LinearSDE
from reverie.processes.linear_moments import root, transition
from reverie.sampling.scales import Request, Visit, Visits


class Splitting(NamedTuple):
    """Matrices of the K steps, float64: X -> free X + noise z, then X + kick (score + pull X).

    free, noise: (K, k, k), of half a step each. kick: (K, k, k). pull: (k, k).
    """

    free: Tensor
    noise: Tensor
    kick: Tensor
    pull: Tensor


def splitting(process: LinearSDE, times: Tensor) -> Splitting:
    """The matrices of SSCS along falling times (K + 1,)."""
    drift, diffusion = (m.detach().cpu() for m in process.matrices())
    steps = -process.duration * times.diff()
    still = process.stationary()
    backwards = still @ drift.mT @ torch.linalg.inv(still)  # -A - Q S^-1, by Lyapunov's equation
    free, noise = transition(backwards, diffusion, 0.5 * steps)
    kick = steps[:, None, None] * (diffusion @ diffusion.mT)
    return Splitting(free, root(noise), kick, torch.linalg.inv(still))


def sscs(request: Request, midpoint: bool = False) -> Visits:
    """Visit the K + 1 levels; a visit's guess is the last of its step, made after its first half.

    midpoint: two evaluations a step, order 2.
    """
    process, times, state = request.process, request.times, request.state
    guess, generator = request.guess, request.generator
    free, noise, kick, pull = (m.to(state) for m in splitting(process, times))

    def pushed(start: Tensor, at: Tensor, t: Tensor, push: Tensor) -> tuple[Tensor, Tensor]:
        """`start` moved by the score at the state `at`, and the guess made there."""
        prediction = guess(at, t.to(at).expand(len(at)))
        score = process.blocks(process.score(prediction, at, t))
        move = push @ (score + pull @ process.blocks(at))
        return start + move.reshape(start.shape), prediction

    for k in range(len(times) - 1):
        inner = at = _half(process, state, free[k], noise[k], generator)
        t = times[k]
        if midpoint:
            t = 0.5 * (times[k] + times[k + 1])
            at, _ = pushed(inner, inner, t, 0.5 * kick[k])
        inner, prediction = pushed(inner, at, t, kick[k])
        yield Visit(float(times[k]), state, prediction)
        state = _half(process, inner, free[k], noise[k], generator)
    yield Visit(float(times[-1]), state, guess(state, times[-1].to(state).expand(len(state))))


def euler_maruyama(request: Request) -> Visits:
    """Euler-Maruyama on the reverse SDE dX = (-A X + Q s) db + B dW, the plain rival."""
    process, times, state = request.process, request.times, request.state
    guess, generator = request.guess, request.generator
    drift, diffusion = (m.detach().to(state) for m in process.matrices())
    for k, t in enumerate(times):
        prediction = guess(state, t.to(state).expand(len(state)))
        yield Visit(float(t), state, prediction)
        if k + 1 == len(times):
            return
        step = process.duration * float(t - times[k + 1])
        blocks = process.blocks(state)
        score = process.blocks(process.score(prediction, state, t))
        move = step * (diffusion @ diffusion.mT @ score - drift @ blocks)
        noise = step**0.5 * (diffusion @ _normal(blocks, diffusion.shape[1], generator))
        state = (blocks + move + noise).reshape(state.shape)


def _half(
    process: LinearSDE,
    state: Tensor,
    free: Tensor,
    noise: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    blocks = process.blocks(state)
    moved = free @ blocks + noise @ _normal(blocks, process.size, generator)
    return moved.reshape(state.shape)


def _normal(blocks: Tensor, rows: int, generator: torch.Generator | None) -> Tensor:
    shape = (len(blocks), rows, blocks.shape[2])
    return torch.randn(shape, generator=generator, dtype=blocks.dtype, device=blocks.device)
