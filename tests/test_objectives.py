"""Objectives against closed forms: orthogonality, duals by SLSQP, exact gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import minimize
from scipy.special import rel_entr

from reverie import fit, measure
from reverie.denoisers import Linear, Memoriser, Network, ResidualMLP, convert
from reverie.errors import InputError
from reverie.objectives import GapNoise, Standard, distil, dual_optimum, train_constrained
from reverie.objectives.constrained import dual_step
from reverie.objectives.distillation import ikl_surrogate
from reverie.objectives.gap import carry, fixed_noise, fixed_optimum, floor
from reverie.processes import EDM, VE, VP, Rectified
from reverie.sampling import sample
from reverie.theory.copying import copied_share, geometric_times


def points(count=5, dim=3):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def orthogonal(error, state):
    """Largest |z| of E[error_k f(x_t)] = 0 over test functions: the mark of a conditional mean."""
    tests = [torch.ones(len(state), 1), state, state.sin(), (state[:, :1] * state).tanh()]
    products = torch.cat(
        [error[:, k : k + 1] * f for f in tests for k in range(error.shape[1])], 1
    )
    scores = products.mean(0) / (products.std(0) / math.sqrt(len(products)))
    return float(scores.abs().max())


def always(s):
    """The gap law that draws s and nothing else."""
    return lambda t, generator: torch.full_like(t, s)


@pytest.mark.parametrize("process", [VP(), EDM(0.05, 20), Rectified()])
def test_gap_noise_has_the_score_of_any_gap_law_as_its_mean(process, generator):
    """Five points in R^3, the gap drawn at random: E[xi | x_t] = -sigma_{t|s} grad log p_t."""
    data, count, t = points(), 200_000, 0.4
    x = data[torch.randint(5, (count,), generator=generator)]
    s = torch.where(torch.rand(count, generator=generator) < 0.5, 0.1, 0.37)
    before = process.corrupt(x, s, generator=generator)
    state, noise, gain = carry(process, before, t, s, generator=generator)
    clean = Memoriser(process, data)(state, torch.tensor(t))
    score = convert(clean, state, torch.tensor(t), process, "clean", "score")
    _, sigma = process.scales(t, state)
    error = noise + gain * sigma * score
    assert orthogonal(error, state) < 4.5  # of 30 products: 5e-5 by chance
    assert orthogonal(noise + sigma * score, state) > 20  # the factor matters


def test_the_minimiser_of_the_resampled_objective_is_the_memoriser(generator):
    """The loss is a square in xhat, so its slope at the memoriser vanishes for every direction."""
    process, data = EDM(0.05, 20), points()
    objective = GapNoise(process, data)
    rows = torch.randint(5, (200_000,), generator=generator)
    t = torch.full((len(rows),), 0.35, dtype=torch.float64)
    drawn = objective.draw(rows, data[rows], t, generator)
    slope = drawn.gain * (drawn.gain * Memoriser(process, data)(drawn.state, t) - drawn.target)
    assert orthogonal(slope, drawn.state) < 4.5
    standard = Standard(process).draw(rows, data[rows], t, generator)
    assert torch.equal(standard.target, data[rows])
    assert float(standard.gain) == 1


def test_loss_of_the_draw_is_the_loss_of_the_noise(generator):
    """(alpha / sigma)^2 (gain xhat - target)^2 = (xi - c eps)^2, by hand, with a common stream."""
    process, data = VP(), points()
    t = torch.full((5,), 0.5, dtype=torch.float64)
    drawn = GapNoise(process, data, law=always(0.2)).draw(torch.arange(5), data, t, generator)
    again = torch.Generator().manual_seed(0)
    before = process.corrupt(data, 0.2, generator=again)
    state, noise, gain = carry(process, before, 0.5, 0.2, generator=again)
    guess = torch.tanh(state)
    alpha, sigma = process.scales(0.5, state)
    by_hand = (noise - gain * (state - alpha * guess) / sigma).square().mean(1)
    assert torch.allclose(drawn.loss(guess, (alpha / sigma).square()), by_hand, rtol=1e-10)
    assert torch.equal(drawn.state, state)


def test_floor_of_the_gap_objective(generator):
    """Var[xi | x_t, x] = 1 - (1 - abar_{t|s}) / (1 - abar_t), in closed form and simulated."""
    process, count = VP(), 400_000
    abar = [math.exp(-float(process.log_decay(torch.tensor(u).double()))) for u in (0.5, 0.3)]
    known = 1 - (1 - abar[0] / abar[1]) / (1 - abar[0])
    assert float(floor(process, 0.5, 0.3)) == pytest.approx(known, rel=1e-12)
    x = torch.zeros(count, 1, dtype=torch.float64)
    before = process.corrupt(x, 0.3, generator=generator)
    state, noise, gain = carry(process, before, 0.5, 0.3, generator=generator)
    _, sigma = process.scales(0.5, state)
    rest = noise - gain * state / sigma  # E[xi | x_t, x] = c eps
    assert float(rest.var()) == pytest.approx(known, rel=5 * math.sqrt(2 / count))


def test_fixed_noise_has_another_optimum(generator):
    """x_s fixed and finite: the optimum is the memoriser of the noisy sample, not of the data."""
    process, data, t, s = VP(), points(), 0.4, 0.3
    kept = fixed_noise(data, 11)
    assert torch.equal(kept, fixed_noise(data, 11))
    noisy = process.corrupt(data, s, end=kept)
    rows = torch.randint(5, (200_000,), generator=generator)
    state, noise, gain = carry(process, noisy[rows], t, s, generator=generator)
    best = fixed_optimum(process, noisy, state, t, s)
    assert orthogonal(noise - best, state) < 4.5
    _, sigma = process.scales(t, state)
    clean = Memoriser(process, data)(state, torch.tensor(t))
    memorised = gain * convert(clean, state, torch.tensor(t), process, "clean", "noise")
    assert orthogonal(noise - memorised, state) > 20
    objective = GapNoise(process, data, law=always(s), resample=False, seed=11)
    times = torch.full((len(rows),), t, dtype=torch.float64)
    drawn = objective.draw(rows, data[rows], times, generator)
    alpha, _ = process.scales(t, state)
    target = (drawn.gain * drawn.state - alpha * drawn.target) / sigma  # xi
    assert orthogonal(target - fixed_optimum(process, noisy, drawn.state, t, s), drawn.state) < 4.5


def test_bad_gaps_get_a_sentence(generator):
    process, data = VP(), points()
    later = GapNoise(process, data, law=lambda t, generator: t + 0.1)
    with pytest.raises(InputError, match="s must come before t"):
        later.draw(torch.arange(5), data, torch.full((5,), 0.5), generator)
    with pytest.raises(InputError, match="s must come before t"):
        fixed_optimum(process, data, data, 0.2, 0.3)
    with pytest.raises(InputError, match="one noisy version"):
        fit(data, objective="gap-fixed", augment="flip")
    with pytest.raises(InputError, match="choose one of standard"):
        fit(data, objective="gaps")


@pytest.mark.parametrize("objective", ["gap", "gap-fixed"])
def test_fit_with_a_gap_objective_resumes_bit_for_bit(tmp_path, objective):
    settings = dict(width=16, depth=1, steps=40, check_every=20, batch_size=16)
    data = points(80, 2).numpy()

    def interrupt(event, trainer):
        if event.step == 23:
            raise KeyboardInterrupt

    fit(data, objective=objective, out=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        fit(data, objective=objective, out=tmp_path / "cut", on_event=interrupt, **settings)
    fit(out=tmp_path / "cut", resume=True)
    whole, cut = (load_file(tmp_path / name / "ema.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[k], cut[k]) for k in whole)


@pytest.mark.slow
def test_gap_objective_learns_the_law():
    """On a Gaussian the network's held-out area comes within 10% of the exact one's."""
    data = points(2000, 2).float() * torch.tensor([1.0, 0.5])
    run = fit(data.numpy(), objective="gap", steps=600, check_every=600, width=32, depth=1,
              process="edm:sigma_min=0.1,sigma_max=20", holdout=500)  # fmt: skip
    held = run.holdout_points()
    exact = Linear.fit(run.process, run.train_points())
    areas = [
        measure(d, held, 24, generator=torch.Generator().manual_seed(0)).area()
        for d in (run.denoiser, exact)
    ]
    assert areas[0] < 1.1 * areas[1]


def test_dual_optimum_of_the_finite_toy():
    """The weight .756814 of the categorical example, SLSQP and dual ascent: three ways, one p."""
    law, group, budget = np.array([0.7, 0.25, 0.05]), np.array([0.1, 0.1, 0.8]), 0.4
    multipliers, best = dual_optimum(law, group[None], [budget])
    assert multipliers[0] == pytest.approx(0.756814, abs=5e-7)
    primal = minimize(
        lambda p: rel_entr(law, p).sum(), np.full(3, 1 / 3), method="SLSQP", tol=1e-12,
        bounds=[(1e-6, 1)] * 3,
        constraints=[dict(type="eq", fun=lambda p: p.sum() - 1),
                     dict(type="ineq", fun=lambda p: budget - rel_entr(group, p).sum())],
    )  # fmt: skip
    assert np.allclose(best, primal.x, atol=1e-5)
    climbing = np.zeros(1)
    for _ in range(2000):
        p = (law + climbing[0] * group) / (1 + climbing[0])
        climbing = dual_step(climbing, rel_entr(group, p).sum(keepdims=True), [budget], 0.5)
    assert climbing[0] == pytest.approx(multipliers[0], abs=1e-8)


def test_complementary_slackness():
    """Discretised Gaussians: a binding price is met exactly, a slack one is free."""
    grid = np.linspace(-8, 8, 801)
    laws = np.exp(-0.5 * (grid - np.array([[0.0], [2.0], [-0.3]])) ** 2)
    laws /= laws.sum(1, keepdims=True)
    budgets = [0.5, 0.5]
    multipliers, best = dual_optimum(laws[0], laws[1:], budgets)
    costs = rel_entr(laws[1:], best).sum(1)
    assert multipliers[0] > 0.01
    assert costs[0] == pytest.approx(budgets[0], abs=1e-7)
    assert multipliers[1] == 0
    assert costs[1] < budgets[1]
    with pytest.raises(InputError, match="no law meets all budgets"):
        dual_optimum(laws[0], laws[1:], [0.01, 0.01])


def network(process, dim, seed=0, width=48, depth=2):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Network(process, ResidualMLP((dim,), width, depth), 1.0)


@pytest.mark.slow
def test_constrained_training_raises_the_rare_share():
    """A group far away: its loss falls to the budget, its samples come at lam / (1 + lam)."""
    rng = torch.Generator().manual_seed(1)
    common = torch.randn(600, 1, generator=rng) * 0.4 - 1.2
    rare = torch.randn(200, 1, generator=rng) * 0.4 + 1.2
    process = EDM(0.1, 10)
    free = train_constrained(network(process, 1), common, [rare], [1e6], 600, generator=rng)
    assert not free.multipliers.any()
    budget = 2.5
    assert free.losses[-1, 0] > 2 * budget
    held = train_constrained(
        network(process, 1), common, [rare], [budget], 1000, dual_rate=0.05, generator=rng
    )
    assert held.losses[-8:].mean() == pytest.approx(budget, rel=0.15)
    times = geometric_times(process, 10, 0.1, 30)
    drawn = sample(held.network, 2000, times, shape=(1,), generator=rng)
    share = float((drawn > 0).float().mean())
    assert share == pytest.approx(held.group_weights()[-1, 1], abs=0.06)


@pytest.mark.slow
def test_held_out_loss_at_most_a_budget():
    """Eight points overfit; held-out rows at a price keep the network off them.

    The held-out rows are trained on, so a third set is the judge.
    """
    rng = torch.Generator().manual_seed(3)
    data, held, fresh = torch.randn(408, 2, generator=rng).split((8, 200, 200))
    process, one = EDM(0.1, 10), torch.ones(2)

    def nats(denoiser, points):
        noise = torch.Generator().manual_seed(0)
        return measure(denoiser, points, 16, generator=noise).area()

    exact = Linear(process, 0 * one, one, torch.eye(2))
    budget = 1.1 * nats(exact, held)

    def trained(price):
        return train_constrained(
            network(process, 2, width=32, depth=1), data, [held], [price], 300,
            dual_rate=0.5, every=20, batch_size=64, lr=5e-3, generator=rng,
        )  # fmt: skip

    free, bound = trained(1e6), trained(budget)
    assert not free.multipliers.any()
    assert free.losses[-1, 0] > 1.3 * budget
    assert bound.losses[-5:].mean() < 1.1 * budget  # the ascent still moves around its end
    excess = [nats(found.network, fresh) - nats(exact, fresh) for found in (free, bound)]
    assert excess[1] < 0.5 * excess[0]


def test_constrained_training_rejects_bad_input():
    data = torch.zeros(3, 1)
    for groups, budgets, match in (([data], [1, 2], "budgets"), ([data[:0]], [1], "one row")):
        with pytest.raises(InputError, match=match):
            train_constrained(network(EDM(), 1), data, groups, budgets, 5)


def gaussian(process, mean):
    one = torch.ones(1, dtype=torch.float64)
    return Linear(process, mean * one, one, torch.eye(1, dtype=torch.float64))


def test_gradient_of_the_one_step_generator_is_exact():
    """g = theta + z against N(0, 1), exact scores: int w theta / (1 + sigma^2) dt, exactly."""
    process, theta = VE(0.01, 50), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    x = theta + torch.randn(
        2001, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    loss = ikl_surrogate(gaussian(process, 0.0), gaussian(process, 0.7), x, t, lambda t: 1 + t)
    (gradient,) = torch.autograd.grad(torch.trapezoid(loss, t), theta)
    known = 0.7 * torch.trapezoid((1 + t) / (1 + process.sigma(t) ** 2), t)
    assert float(gradient) == pytest.approx(float(known), rel=1e-9)


class Push(torch.nn.Module):
    """A small map from normal noise to the plane."""

    def __init__(self, dim=2, width=64):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(dim, width), torch.nn.SiLU(), torch.nn.Linear(width, width),
            torch.nn.SiLU(), torch.nn.Linear(width, dim),
        )  # fmt: skip

    def forward(self, z):
        return z + self.body(z)


@pytest.mark.slow
def test_a_copying_teacher_has_a_copying_student():
    """Distilled from the memoriser of four points in the plane, in one step."""
    corners = torch.tensor([[2.0, 0], [-2, 0], [0, 2], [0, -2]])
    process, rng = EDM(0.3, 5), torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = Push()
    critic = network(process, 2, width=32, depth=1)
    fresh = torch.randn(1000, 2, generator=rng)
    found = distil(
        Memoriser(process, corners), student, critic, (2,), 500,
        critic_steps=2, batch_size=128, lr=5e-3, generator=rng,
    )  # fmt: skip
    drawn = found.sample(1000, generator=rng)
    # a continuous map of normal noise must leave some threads between the points
    assert copied_share(drawn, corners) > 0.55
    assert copied_share(fresh, corners) < 0.2
    shares = torch.cdist(drawn, corners).argmin(1).bincount(minlength=4) / 1000
    assert float(shares.min()) > 0.15


def test_distillation_rejects_bad_input():
    process = EDM(0.3, 5)
    with pytest.raises(InputError, match="steps"):
        distil(Memoriser(process, points(4, 2)), Push(), network(process, 2), (2,), 0)
