"""Bridges on enumerable sets: the plan by brute force, the iteration that finds it, paths."""

from __future__ import annotations

import itertools

import pytest
import torch

from reverie import InputError
from reverie.bridges.finite import FiniteBridge, FiniteReference, finite_markov_projection
from reverie.processes import Ordinal, Uniform


def laws(states: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    p = torch.rand(2, states, generator=draw, dtype=torch.float64)
    p[0, 0] = 0
    return p[0] / p[0].sum(), p[1] / p[1].sum()


def reference(states: int = 4, steps: int = 3) -> FiniteReference:
    draw = torch.Generator().manual_seed(1)
    kernels = torch.rand(steps, states, states, generator=draw, dtype=torch.float64)
    kernels = kernels + 2 * torch.eye(states)
    return FiniteReference(kernels / kernels.sum(2, keepdim=True))


def test_the_plan_has_its_ends_and_the_form_of_a_bridge() -> None:
    p, q = laws(4)
    chain = reference()
    bridge = FiniteBridge(p, q, chain)
    assert torch.allclose(bridge.plan.sum(1), p, atol=1e-11)
    assert torch.allclose(bridge.plan.sum(0), q, atol=1e-11)
    ratio = (bridge.plan / chain.whole)[1:]  # of rank one: f(x0) g(x1)
    assert torch.linalg.svdvals(ratio)[1] < 1e-9 * torch.linalg.svdvals(ratio)[0]


def test_the_chain_is_the_reference_reweighted_at_its_ends() -> None:
    """Every path's probability by brute force: P(x0, x1) / R(x0, x1) times the reference's."""
    p, q = laws(4)
    chain = reference()
    bridge = FiniteBridge(p, q, chain)
    kernels = bridge.kernels()
    assert torch.allclose(kernels.sum(2), torch.ones(3, 4, dtype=torch.float64))
    for path in itertools.product(range(4), repeat=4):
        ours, theirs = p[path[0]], bridge.plan[path[0], path[-1]] / chain.whole[path[0], path[-1]]
        for k in range(3):
            ours = ours * kernels[k, path[k], path[k + 1]]
            theirs = theirs * chain.kernels[k, path[k], path[k + 1]]
        assert float(ours) == pytest.approx(float(theirs), abs=1e-12)


def test_the_projection_is_a_sum_over_paths() -> None:
    p, q = laws(3)
    chain = reference(3)
    plan = p[:, None] * q
    joint = torch.zeros(3, 3, 3, dtype=torch.float64)
    for path in itertools.product(range(3), repeat=4):
        mass = plan[path[0], path[-1]] / chain.whole[path[0], path[-1]]
        for k in range(3):
            mass = mass * chain.kernels[k, path[k], path[k + 1]]
        for k in range(3):
            joint[k, path[k], path[k + 1]] += mass
    want = p.diag()
    for k in range(3):
        total = joint[k].sum(1, keepdim=True)
        want = want @ torch.where(total > 0, joint[k] / total, 0)
    assert torch.allclose(finite_markov_projection(plan, chain), want)


@pytest.mark.parametrize(
    "process", [Uniform(3, 2), Ordinal(9, 1, reach=1.0)], ids=["uniform", "ordinal"]
)
def test_markovian_fitting_finds_the_plan(process) -> None:
    chain = FiniteReference.of_process(process, noise=0.4, steps=4)
    p, q = laws(9)
    exact = FiniteBridge(p, q, chain).plan
    plan, off = p[:, None] * q, []
    for _ in range(40):
        plan = finite_markov_projection(plan, chain)
        assert torch.allclose(plan.sum(0), q, atol=1e-9)  # both ends are kept
        off.append(float((plan - exact).abs().sum()))
    assert off[-1] < 1e-4
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(off[:10]))


def test_strings_move_site_by_site() -> None:
    process = Uniform(3, 2)
    chain = FiniteReference.of_process(process, noise=0.5, steps=2)
    site = process.transition(torch.tensor([0.5], dtype=torch.float64))[0]
    assert float(chain.whole[3 * 1 + 2, 3 * 0 + 2]) == pytest.approx(
        float(site[1, 0] * site[2, 2])
    )


def test_paths_have_the_law_of_the_ends() -> None:
    p, q = laws(4)
    bridge = FiniteBridge(p, q, reference())
    draw = torch.Generator().manual_seed(0)
    x0, _ = bridge.sample(40_000, generator=draw)
    path = bridge.path(x0, generator=draw)
    found = torch.zeros(16).index_add_(0, path[0] * 4 + path[-1], torch.ones(40_000)) / 40_000
    assert 0.5 * float((found.reshape(4, 4) - bridge.plan).abs().sum()) < 0.02


def test_bad_input_is_one_sentence() -> None:
    p, q = laws(4)
    for wrong in (
        lambda: FiniteBridge(p[:3], q, reference()),
        lambda: FiniteBridge(2 * p, q, reference()),
        lambda: FiniteReference(torch.ones(2, 3, 3)),
        lambda: FiniteReference.of_process(Uniform(10, 6), 0.5),
        lambda: FiniteBridge(p, q, FiniteReference(torch.eye(4).expand(2, -1, -1))),
    ):
        with pytest.raises(InputError):
            wrong()
