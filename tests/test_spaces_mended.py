"""Plans near uniform laws, large alphabets, SO(4), bounded jumps, bent posteriors."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import xlogy
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Uniform

from own_processes import Windy
from reverie import InputError, fit, measure, plan_steps, posterior, sample
from reverie.denoisers import (
    Denoiser,
    GaussianMixture,
    Memoriser,
    PosteriorHead,
    TokenTransformer,
)
from reverie.information import bound, entropy
from reverie.plan import plan_at, steps_needed
from reverie.plan.rising import swells
from reverie.processes import (
    EDM,
    VP,
    Brownian,
    JumpProcess,
    Masking,
    Ordinal,
    RateMatrix,
    WrightFisher,
)
from reverie.processes import Uniform as UniformNoise
from reverie.processes.heat_rotations import quaternions, rotation_of
from reverie.processes.times import bound_rate, low_discrepancy
from reverie.simulation import Posterior
from reverie.simulation.coordinates import Whitened
from reverie.simulation.reweighted import are_gaussian, normality
from reverie.spaces import Manifold, Rotations, Sphere, Torus

# --- plans near a uniform law --------------------------------------------------------------------


def clusters(space: Manifold, near: float = 0.2) -> Tensor:
    """60 rows about one point and 20 about another: the second cluster weighs 1/4."""
    generator = torch.Generator().manual_seed(3)
    centre = space.uniform(1, generator=generator)
    other = space.uniform(200, generator=generator)
    other = other[space.distances(centre, other)[0].argmax()][None]
    parts = []
    for middle, count in ((centre, 60), (other, 20)):
        here = middle.expand(count, *space.shape).contiguous()
        parts.append(space.exp(here, near * space.noise(here, generator=generator)))
    return torch.cat(parts)


def memorised(space: Manifold) -> tuple[Memoriser, Tensor]:
    data = clusters(space)
    return Memoriser(Brownian(space, 1e-3), data), data


def share(space: Manifold, drawn: Tensor, data: Tensor) -> float:
    return float((space.distances(drawn.double(), data).argmin(1) >= 60).double().mean())


@pytest.mark.parametrize(
    "space",
    [
        Torus(1),
        Sphere(2),
        pytest.param(Torus(2), marks=pytest.mark.slow),
        pytest.param(Rotations(3), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_shares_of_clusters_hold_on_the_default_plan(space: Manifold) -> None:
    denoiser, data = memorised(space)
    generator = torch.Generator().manual_seed(0)
    curve = measure(denoiser, data, levels=48, generator=generator)
    n = 1500
    plan = plan_steps(curve, 20)
    found = share(space, sample(denoiser, n, plan, generator=generator), data)
    assert abs(found - 0.25) < 2.5 * math.sqrt(0.25 * 0.75 / n)  # was 5 to 12 of them
    assert "guess explains" in plan.approximation
    assert not plan.curve.process.steps_exact  # type: ignore[union-attr]


def test_shares_hold_on_a_process_that_does_not_tell_how_it_forgets() -> None:
    """One of a user's own, without `slowest`: read off its curve, whose peak is at half of it."""
    generator = torch.Generator().manual_seed(0)
    process = Windy()
    data = clusters(process.space)
    denoiser = Memoriser(process, data)
    plan = plan_steps(measure(denoiser, data, levels=32, generator=generator), 20)
    assert swells(plan.curve) == pytest.approx(1.0, rel=0.5)  # e^-tau is left of the circle's
    assert "slowest" in plan.approximation
    n = 800
    found = share(process.space, sample(denoiser, n, plan, generator=generator), data)
    assert abs(found - 0.25) < 2.5 * math.sqrt(0.25 * 0.75 / n)  # was 8 of them
    flat = GaussianMixture(VP(), torch.zeros(1, 2), torch.eye(2)[None], torch.ones(1))
    assert swells(measure(flat, torch.randn(60, 2, generator=generator), levels=8)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("space", [Torus(1), Sphere(2)], ids=repr)
def test_a_plan_of_few_steps_keeps_the_shares_of_a_trained_score(space: Manifold) -> None:
    """Twenty steps against a hundred and sixty of one network, whose own shares are its own."""
    run = fit(clusters(space).repeat(8, 1), process=Brownian(space, 1e-3), steps=600, holdout=100)
    centres, n = clusters(space), 3000
    few, many = (
        share(space, run.scaler.to_model(run.sample(n, steps, seed=1)), centres)
        for steps in (20, 160)
    )
    assert abs(few - many) < 2 * math.sqrt(2 * 0.25 * 0.75 / n)


def circle_kl(data: Tensor, tau: float) -> float:
    """KL from uniform of the noised rows on the circle, by sums of normal densities."""
    angle = np.linspace(-np.pi, np.pi, 2001)[:-1]
    density = sum(
        np.exp(-((angle - x + 2 * np.pi * k) ** 2) / (2 * tau))
        for x in data[:, 0].numpy()
        for k in range(-8, 9)
    ) / (len(data) * math.sqrt(2 * np.pi * tau))
    return float(xlogy(density, density * 2 * np.pi).mean() * 2 * np.pi)


def test_no_plan_claims_less_than_its_first_step_leaves() -> None:
    denoiser, data = memorised(Torus(1))
    generator = torch.Generator().manual_seed(0)
    curve = measure(denoiser, data.repeat(6, 1), levels=64, generator=generator)
    error = curve.area_stderr()
    assert error is not None
    for method in ("loss-adaptive", "log-snr"):
        for steps in (1, 3, 10, 40):
            plan = plan_steps(curve, steps, method)
            # the area that is taken off is measured
            assert plan.excess > circle_kl(data, 1 / plan.u[1]) - 3 * error
    # from the uniform end to one level the claim is that KL itself, to the curve's noise
    first = float(curve.u[0])
    for tau in (4.0, 2.0, 1.2):
        kl = circle_kl(data, tau)
        assert plan_at(curve, np.array([first, 1 / tau]), "own").excess == pytest.approx(
            kl, rel=0.1
        )
    # and what plans add dies out as one over the steps
    excess = [plan_steps(curve, steps).excess for steps in (40, 80, 160)]
    assert 0.3 < excess[1] / excess[0] < 0.7
    assert 0.3 < excess[2] / excess[1] < 0.7
    (needed,) = steps_needed(curve, [2 * excess[0]])
    assert needed is not None
    assert 8 <= needed <= 40


@pytest.mark.slow
def test_wright_fisher_plans_stop_where_shares_are_decided() -> None:
    process = WrightFisher([1.0, 1.0, 1.0], tau_min=0.05)
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([[0.9, 0.05, 0.05]] * 3 + [[0.05, 0.05, 0.9]]).double()
    denoiser = Memoriser(process, rows)
    curve = measure(denoiser, rows.repeat(20, 1), levels=24, generator=generator)
    plan = plan_steps(curve, 20)
    left = process.slowest / plan.u
    assert (np.minimum(left[:-1], 7) - left[1:])[left[:-1] > 1].max() < 1
    n = 1000
    drawn = sample(denoiser, n, plan, generator=generator)
    found = float((drawn[:, 2] > drawn[:, 0]).double().mean())
    assert abs(found - 0.25) < 3 * math.sqrt(0.25 * 0.75 / n)


# --- large alphabets -----------------------------------------------------------------------------


def test_masking_by_formula_is_masking_by_tables() -> None:
    """The methods that are linear in the symbols against those of every chain, on 4 symbols."""
    process, generator = Masking(4, 3), torch.Generator().manual_seed(0)
    x = torch.randint(4, (40, 3), generator=generator)
    t = torch.rand(40, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    state = process.corrupt(x, t, generator=generator)
    logits = torch.randn(40, 3, 4, generator=generator, dtype=torch.float64)
    guess = process.clean_law(logits, state, t)
    ratios = process.ratios(guess, state, t)
    pairs: list[tuple[str, tuple[Any, ...]]] = [
        ("clean_law", (logits, state, t)),
        ("log_likelihood", (state, t)),
        ("ratios", (guess, state, t)),
        ("score_entropy", (ratios, x, state, t)),
        ("expected_charge", (guess, state, 0.6, 0.3)),
        ("reverse_rates", (guess, state, t)),
        ("forward_rates", (state,)),
        ("log_kernel", (state, x, t)),
        ("step_law", (guess, state, t, 0.5 * t)),
    ]
    for name, given in pairs:
        ours, tables = getattr(process, name)(*given), getattr(JumpProcess, name)(process, *given)
        assert torch.allclose(ours.double(), tables.double(), atol=1e-10), name
    weights = torch.rand(40, 40, generator=generator, dtype=torch.float64)
    brute = weights @ process.target(state, x, t).flatten(1)
    assert torch.allclose(process.average_target(weights, state, x, t), brute)


def test_ancestral_steps_of_masking_follow_the_law_of_a_step() -> None:
    process, generator = Masking(3, 1), torch.Generator().manual_seed(0)
    n = 20_000
    state = torch.full((n, 1), process.mask)
    guess = torch.tensor([0.2, 0.5, 0.3]).double().expand(n, 1, 3)
    drawn = process.reverse(guess, state, 0.8, 0.6, generator=generator)
    law = process.step_law(guess[:1], state[:1], 0.8, 0.6)[0, 0].numpy()
    counts = torch.bincount(drawn[:, 0], minlength=4).numpy()
    assert stats.chisquare(counts, law * n).pvalue > 1e-3


def test_masking_never_builds_symbols_by_symbols() -> None:
    """With 50,000 symbols one such table takes 20 GB."""
    torch.manual_seed(0)
    process = Masking(50_000, 4)
    denoiser = PosteriorHead(process, TokenTransformer(process.states, (4,), 50_000, 8, 1, 2))
    x = torch.randint(50_000, (3, 4))
    bound_rate(process, denoiser, x, low_discrepancy(3, process.t_range)).mean().backward()
    generator = torch.Generator().manual_seed(0)
    curve = measure(denoiser, x, levels=3, generator=generator)
    assert curve.rate == pytest.approx(4 * math.log(50_000), rel=0.05)  # nothing is known yet
    bound(denoiser, x, draws=2, generator=generator)
    for name in ("ancestral", "tau-leaping", "first-hitting"):
        drawn = sample(denoiser, 2, plan_steps(curve, 2), name, generator=generator)
        assert int(drawn.max()) < 50_000
    measure(Memoriser(process, x), x, levels=2, generator=generator)
    with pytest.raises(InputError, match="50001 are too many"):
        process.kernel(0.5)


STEP = """
import resource, sys, time, torch
from reverie.denoisers import PosteriorHead, TokenTransformer
from reverie.processes import Masking
from reverie.processes.times import bound_rate, low_discrepancy
torch.set_num_threads(1)
symbols, sites = int(sys.argv[1]), 32
process = Masking(symbols, sites)
body = TokenTransformer(process.states, (sites,), symbols, 64, 2, 2)
denoiser = PosteriorHead(process, body)
optimiser = torch.optim.Adam(denoiser.parameters(), 1e-3)
x, spent = torch.randint(symbols, (16, sites)), []
for _ in range(4):
    start = time.process_time()
    loss = bound_rate(process, denoiser, x, low_discrepancy(16, process.t_range)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    spent.append(time.process_time() - start)
print(min(spent), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("symbols", "seconds"), [(5000, 0.5), (50_000, 5.0)])
def test_a_training_step_is_linear_in_the_vocabulary(symbols: int, seconds: float) -> None:
    """16 rows of 32 sites on one core: time of the CPU, and memory of the whole process in GiB."""
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(symbols)], capture_output=True, text=True, check=True
    )
    spent, memory = map(float, done.stdout.split())
    assert spent < seconds
    assert memory < 3


def test_other_chains_refuse_large_alphabets() -> None:
    for kind in (UniformNoise, Ordinal):
        with pytest.raises(InputError, match="masking is linear"):
            kind(5000, 2)


# --- rotations beyond three ----------------------------------------------------------------------


def test_the_kernel_of_so4_has_its_characters() -> None:
    """Mass 1 and E tr R = 4 exp(-3 tau / 2), of the density as of draws."""
    space, n = Rotations(4), 4000
    heat, generator = Brownian(space).heat, torch.Generator().manual_seed(0)
    uniform = space.uniform(n, generator=generator)
    p, q = quaternions(uniform)
    assert torch.allclose(rotation_of(p, q), uniform, atol=1e-12)
    one = space.origin()[None]
    for tau in (0.3, 1.0, 2.0):
        time, start = torch.full((n,), tau).double(), one.expand(n, 4, 4).contiguous()
        exact = math.exp(-1.5 * tau)
        drawn = heat.draw(start, time, space.noise(start, generator=generator), generator)
        trace = drawn.diagonal(dim1=1, dim2=2).sum(1) / 4
        assert abs(float(trace.mean()) - exact) < 4 * float(trace.std()) / math.sqrt(n)
        weight = (heat.log_density(uniform, one, time)[:, 0] + space.log_volume).exp()
        for values, mean in ((weight, 1.0), (weight * uniform[:, 0, 0], exact)):
            assert abs(float(values.mean()) - mean) < 4 * float(values.std()) / math.sqrt(n)
        there, z = drawn[:40], space.noise(drawn[:40], generator=generator)
        ends = (heat.log_density(space.exp(there, h * z), one, time[:40]) for h in (1e-5, -1e-5))
        slope = torch.stack([*ends])[:, :, 0].diff(dim=0)[0] / -2e-5
        score = heat.score(there, start[:40], time[:40])
        assert torch.allclose(space.inner(there, score, z), slope, atol=1e-6)


def test_noise_without_a_kernel_says_that_its_area_is_no_information() -> None:
    process = Brownian(Rotations(5))
    assert not process.area_exact
    generator = torch.Generator().manual_seed(0)
    rows = process.space.uniform(6, generator=generator)

    class Still(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
            return torch.zeros_like(state)

    curve = measure(Still(), rows, levels=4, generator=generator)
    assert "no information" in curve.label
    assert "no information" in str(curve.leak(curve))
    with pytest.raises(InputError, match="area_exact"):
        entropy(curve)


# --- jumps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 5])
def test_gillespie_works_little_on_coarse_plans(steps: int) -> None:
    ring = RateMatrix(torch.tensor([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, -1.0]]), 3)
    rows = torch.tensor([[0, 1, 2], [2, 2, 1], [0, 0, 0]])
    for process in (UniformNoise(3, 3), Ordinal(3, 3), ring):
        denoiser, calls = Memoriser(process, rows), []
        denoiser.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        sample(denoiser, 20, times, "gillespie", generator=torch.Generator().manual_seed(0))
        assert len(calls) < 300  # over 7,500 with one bound for a whole step


# --- several observations ------------------------------------------------------------------------

NOISE = 0.3


class UnknownSign(Denoiser):
    """The exact denoiser of theta ~ N(0, 1) given x = +- theta + NOISE e, the sign unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.process = EDM(0.002, 80.0)

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        spread = self.process.sigma(t).to(state).reshape(-1, 1).square()
        variance = NOISE**2 / (1 + NOISE**2)
        centre = condition.to(state) / (1 + NOISE**2)
        side = torch.tanh(centre * state / (variance + spread))
        return (variance * state + spread * centre * side) / (variance + spread)


def two_signs() -> Posterior:
    prior = MultivariateNormal(torch.zeros(1).double(), torch.eye(1).double())
    return Posterior(UnknownSign(), Whitened(prior), 1, 1)


def test_mardias_tests_have_their_size_and_see_a_bend() -> None:
    generator = torch.Generator().manual_seed(0)
    values = [normality(torch.randn(1000, 2, generator=generator)) for _ in range(100)]
    low = sum(value < 0.05 for value in values)
    assert stats.binomtest(low, 100, 0.05).pvalue > 0.01
    z = torch.randn(1000, 2, generator=generator)
    assert not are_gaussian(torch.stack([z[:, 0], z[:, 1] + z[:, 0].square()], 1)[None])


def test_observations_of_posteriors_with_two_modes_are_combined() -> None:
    """p(theta | x1, x2) has modes at +-: by quadrature."""
    found, n = two_signs(), 2000
    seen = torch.tensor([[1.0], [1.2]]).double()
    drawn = found.sample(n, seen)[:, 0]
    grid = torch.linspace(-4, 4, 4001).double()
    log = -0.5 * grid.square()
    for x in (1.0, 1.2):
        log = log + torch.logaddexp(
            -0.5 * ((x - grid) / NOISE).square(), -0.5 * ((x + grid) / NOISE).square()
        )
    law = log.softmax(0)
    for power in (2, 4):
        mean = float((law * grid**power).sum())
        spread = math.sqrt(float((law * grid ** (2 * power)).sum()) - mean**2)
        # a third of the proposals or more count, so that errors are less than twice those of n
        assert abs(float((drawn**power).mean()) - mean) < 4 * 2 * spread / math.sqrt(n)
    assert abs(float((drawn > 0).double().mean()) - 0.5) < 4 * 2 * 0.5 / math.sqrt(n)


@pytest.mark.slow
def test_observations_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(InputError, match="agree on too little"):
        two_signs().sample(200, torch.tensor([[0.2], [6.0], [-9.0], [0.1]]).double())


def box() -> Independent:
    return Independent(Uniform(-torch.ones(2).double(), torch.ones(2).double()), 1)


def simulator(theta: Tensor) -> Tensor:
    return theta + 0.1 * torch.randn(theta.shape, dtype=theta.dtype)


def test_a_posterior_comes_back_from_its_folder(tmp_path: Path) -> None:
    found = posterior(simulator, box(), n=300, steps=20, width=16)
    place = found.save(tmp_path / "kept")
    again = Posterior.load(place)
    seen = torch.tensor([[0.2, -0.3]])
    assert torch.allclose(found.sample(50, seen), again.sample(50, seen), atol=1e-4)
    theta = torch.zeros(1, 2).double()
    assert torch.allclose(found.log_prob(theta, seen), again.log_prob(theta, seen), atol=1e-3)
    assert again.checks[-1] == found.checks[-1]
    assert again.curves["train"].area() == pytest.approx(found.curves["train"].area())
    with pytest.raises(InputError, match="not an empty folder"):
        found.save(place)
    with pytest.raises(InputError, match="not one of UnknownSign"):
        two_signs().save(tmp_path / "other")
    (place / "posterior.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match="damaged"):
        Posterior.load(place)
    with pytest.raises(InputError, match="does not exist"):
        Posterior.load(tmp_path / "nowhere")


def test_a_prior_of_its_own_kind_is_needed_again(tmp_path: Path) -> None:
    normal = Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    found = posterior(simulator, normal, n=300, steps=20, width=16)
    found.save(tmp_path / "kept")
    with pytest.raises(InputError, match="load it with prior="):
        Posterior.load(tmp_path / "kept")
    again = Posterior.load(tmp_path / "kept", normal)
    seen = torch.tensor([[0.2, -0.3]])
    assert torch.allclose(found.sample(50, seen), again.sample(50, seen), atol=1e-4)


def test_failed_simulations_are_made_again() -> None:
    def fails_on_the_left(theta: Tensor) -> Tensor:
        x = simulator(theta)
        return x.where(x[:, :1] > -0.5, torch.nan)

    with pytest.warns(UserWarning, match="made again from new draws"):
        found = posterior(fails_on_the_left, box(), n=300, steps=20, width=16)
    assert torch.isfinite(found.sample(20, torch.tensor([[0.2, 0.1]]))).all()
    with pytest.raises(InputError, match="narrow the prior"):
        posterior(lambda theta: simulator(theta) * torch.nan, box(), n=300, steps=20)
