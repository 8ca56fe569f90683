"""One-step distillation: a generator x = g(z) whose noised law matches a teacher's.

    IKL(q, p) = int w(t) KL(q_t | p_t) dt
    grad_theta = int w(t) E[(s_phi - s_p)(x_t, t) . d x_t / d theta] dt,    x_0 = g_theta(z)

Alternately the critic s_phi is fitted to the generator's own samples by denoising score matching,
and the generator takes a step along the gradient (Diff-Instruct: Luo et al. 2023, arXiv
2305.18455). What the teacher copies the student copies too: audit its samples like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reverie.denoisers import Denoiser, Network, evaluating
from reverie.errors import InputError
from reverie.objectives.base import DenoisingFit
from reverie.objectives.noise_law import NoiseLaw
from reverie.processes import GaussianProcess
from reverie.processes.gaussian import require_gaussian

Weight = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Student:
    """A one-step generator: `module` maps normal z (n, *latent) to points (n, *shape).

    >>> import torch
    >>> from reverie.objectives import Student
    >>> student = Student(torch.nn.Linear(4, 2), latent=(4,))
    >>> student.sample(10, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([10, 2])
    """

    module: nn.Module
    latent: tuple[int, ...]

    @torch.no_grad()
    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points (n, *shape), in one evaluation of the module."""
        with evaluating(self.module):
            return self.module(torch.randn((n, *self.latent), generator=generator))


def distil(
    teacher: Denoiser,
    student: nn.Module,
    critic: Network,
    latent: tuple[int, ...],
    steps: int,
    *,
    critic_steps: int = 5,
    warmup: int = 200,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight: Weight | None = None,
    generator: torch.Generator | None = None,
) -> Student:
    """Train `student` in place to draw from the law of `teacher` in one step.

    teacher: any Denoiser of clean points on a Gaussian process, the memoriser among them. critic:
    a Network on a process with the same levels; it takes `warmup` steps before the first and
    `critic_steps` before every step of the student. weight: w of t (B,) as in `ikl_surrogate`.
    Raises InputError on other processes, or when the student's points do not fit the teacher.
    Source: Luo et al. 2023 (Diff-Instruct; arXiv 2305.18455).

    >>> import torch
    >>> from reverie.denoisers import Memoriser, Network, ResidualMLP
    >>> from reverie.objectives import distil
    >>> from reverie.processes import VP
    >>> teacher = Memoriser(VP(), torch.tensor([[-1.0], [1.0]]))
    >>> critic = Network(VP(), ResidualMLP((1,), width=8))
    >>> student = distil(teacher, torch.nn.Linear(2, 1), critic, latent=(2,), steps=2, warmup=2)
    >>> student.sample(5).shape
    torch.Size([5, 1])
    """
    process = require_gaussian(teacher.process, "distillation", one_level=True)
    if steps < 1 or critic_steps < 1 or warmup < 0 or lr <= 0:
        raise InputError("steps and critic_steps must be >= 1, warmup >= 0 and lr positive")
    generator = generator or torch.Generator().manual_seed(0)
    law, fitting = NoiseLaw(process, critic.data_std), DenoisingFit(critic, lr)
    optimiser = torch.optim.Adam(student.parameters(), lr=0.3 * lr, betas=(0.5, 0.99))

    def draw() -> Tensor:
        return student(torch.randn((batch_size, *latent), generator=generator))

    for step in range(steps):
        for _ in range(critic_steps + (warmup if step == 0 else 0)):
            fitting.step(draw().detach(), generator)
        x = draw()
        t = law.draw(batch_size, generator)[0]
        optimiser.zero_grad(set_to_none=True)
        ikl_surrogate(teacher, critic, x, t, weight, generator=generator).mean().backward()
        optimiser.step()
    return Student(student.eval(), tuple(latent))


def ikl_surrogate(
    teacher: Denoiser,
    critic: Denoiser,
    x: Tensor,
    t: Tensor,
    weight: Weight | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A quantity (B,) whose gradient through x (B, *shape) is w(t) (s_phi - s_p) d x_t / d theta.

    Its value means nothing. With clean guesses, s_phi - s_p = alpha (xhat_phi - xhat_p) / sigma^2.
    weight: w(t), (B,), default 1 / gamma, which makes the gradient the difference of the guesses.
    """
    process: GaussianProcess = teacher.process  # type: ignore[assignment]
    with torch.no_grad(), evaluating(teacher), evaluating(critic):
        state = process.corrupt(x, t, generator=generator)
        apart = critic(state, t.to(state)) - teacher(state, t.to(state))
        gamma = process.clock(t).to(x)
        scale = gamma * (1 / gamma if weight is None else weight(t).to(x))
    return (scale[:, None] * apart.flatten(1) * x.flatten(1)).sum(1)
