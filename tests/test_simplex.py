"""The simplex: series against quadrature, identities of the framework, draws within errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import roots_jacobi

from reverie import InputError, measure, plan_steps, sample
from reverie.denoisers import (
    DirichletMixture,
    InLogRatios,
    Linear,
    Memoriser,
    SharesNetwork,
)
from reverie.objectives.shares import implicit_shares_loss, lineage_loss
from reverie.processes import VP, LogRatios, WrightFisher
from reverie.processes.generator import DiffusionGenerator
from reverie.processes.lineages import draw_lineages, lineage_law
from reverie.spaces import Simplex

PAIR = WrightFisher([1.5, 2.5], tau_min=0.02)
TRIPLE = WrightFisher([2.0, 1.5, 2.5], tau_min=0.05)
DATA = torch.tensor([[0.2, 0.8], [0.65, 0.35], [1.0, 0.0]], dtype=torch.float64)


def jacobi(process, count=80):
    """Nodes (count, 2) on the simplex of two types and weights of a mean under Dirichlet(a)."""
    a, b = process.mutation.tolist()
    nodes, weights = roots_jacobi(count, b - 1, a - 1)
    y = torch.as_tensor((nodes + 1) / 2)
    return torch.stack([y, 1 - y], 1), torch.as_tensor(weights / weights.sum())


def ratios(process, states, x, t):
    """p(x_t | x) / pi(x_t), (B, N)."""
    return (process.log_kernel(states, x, t) - process.log_prior(states)[:, None]).exp()


def random_network(process, seed):
    torch.manual_seed(seed)
    network = SharesNetwork(process, width=16, depth=1).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


# --- the space ---------------------------------------------------------------------------------


def test_points_off_the_simplex_are_named():
    space = Simplex(3)
    good = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    assert space.check(good) is good
    for row, message in (
        ([0.6, 0.6, -0.2], "row 2 holds the share -0.2; shares are at least 0"),
        ([0.6, 0.6, 0.1], "row 2 sums to 1.3; shares must sum to 1"),
        ([0.6, math.nan, 0.1], "row 2 holds a value that is not finite"),
    ):
        with pytest.raises(InputError, match=message):
            space.check(torch.cat([good, torch.tensor([row])]))
    with pytest.raises(InputError, match=r"shape \(2,\)"):
        space.check(good[:, :2])
    with pytest.raises(InputError, match="two parts or more"):
        Simplex(1)
    with pytest.raises(InputError, match="row 1 holds a share of 0"):
        space.log_ratios(good)


def test_distances_are_angles_between_roots():
    x = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    expected = math.pi * torch.tensor([[0, 0.5, 1], [0.5, 0, 0.5], [1, 0.5, 0]])
    torch.testing.assert_close(Simplex(2).distances(x, x), expected.double(), atol=1e-7, rtol=0)


def test_log_ratios_and_back(generator):
    x = torch.rand(20, 4, generator=generator).double()
    x = x / x.sum(1, keepdim=True)
    space = Simplex(4)
    torch.testing.assert_close(space.from_log_ratios(space.log_ratios(x)), x)


@pytest.mark.parametrize(
    ("mutation", "message"),
    [
        ([1.0, -0.5, 2.0], "rate to type 1 is -0.5; it must be positive"),
        ([1.0, 0.0], "rate to type 1 is 0"),
        ([math.nan, 1.0], "rate to type 0 is nan"),
        ([1.0], r"shape \(1,\)"),
    ],
)
def test_rates_that_are_no_rates_are_named(mutation, message):
    with pytest.raises(InputError, match=message):
        WrightFisher(mutation)


def test_durations_are_checked():
    again = WrightFisher(**TRIPLE.settings())
    assert (again.mutation == TRIPLE.mutation).all()
    assert (again.tau_min, again.tau_max) == (TRIPLE.tau_min, TRIPLE.tau_max)
    with pytest.raises(InputError, match="need 0 < tau_min < tau_max"):
        WrightFisher([1.0, 1.0], tau_min=2.0, tau_max=1.0)


# --- lineages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theta", "tau"), [(6.0, 2.0), (6.0, 0.1), (6.0, 0.02), (0.4, 0.5), (1.0, 0.3), (40.0, 0.1)]
)
def test_the_law_of_lineages(theta, tau, generator):
    """E[A / (A + theta)] = e^(-theta tau / 2), the decay of a mean; draws pass Pearson's test."""
    law = lineage_law(theta, tau)
    n = torch.arange(len(law)).double()
    assert abs(float(law.sum()) - 1) < 1e-14
    assert abs(float((law * n / (n + theta)).sum()) - math.exp(-theta * tau / 2)) < 1e-14
    count = 8000
    drawn = draw_lineages(
        torch.full((count,), theta).double(), torch.full((count,), tau).double(),
        generator=generator,
    )  # fmt: skip
    seen = torch.bincount(drawn.long(), minlength=len(law)).double()
    keep = law * count > 5
    observed = torch.cat([seen[keep], seen[~keep].sum()[None]]).numpy()
    expected = torch.cat([law[keep], law[~keep].sum()[None]]).numpy() * count
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


# --- the process -------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.9, 0.5, 0.0])
def test_the_kernel_is_a_law_with_the_right_moments(t):
    """Mass 1 and mean a/|a| + (x - a/|a|) e^(-|a| tau / 2), and detailed balance."""
    states, weights = jacobi(PAIR)
    kernel = ratios(PAIR, states, DATA, t)
    decay = math.exp(-PAIR.total * float(PAIR.tau(t)) / 2)
    rest = PAIR.mutation[0] / PAIR.total
    torch.testing.assert_close(weights @ kernel, torch.ones(3).double(), atol=1e-10, rtol=0)
    mean = (weights * states[:, 0]) @ kernel
    torch.testing.assert_close(mean, rest + (DATA[:, 0] - rest) * decay, atol=1e-10, rtol=0)
    inner = DATA[:2]
    back = ratios(PAIR, inner, inner, t)
    torch.testing.assert_close(back, back.T)


def test_pairs_far_apart_at_short_times_stay_finite():
    process = WrightFisher([2.0, 2.0], tau_min=0.005)
    ends = torch.tensor([[1.0, 0.0], [1e-9, 1 - 1e-9], [0.5, 0.5]], dtype=torch.float64)
    log = process.log_kernel(ends[1:], ends, 0.0)
    assert torch.isfinite(log).all()
    assert (log.argmax(1) == torch.tensor([1, 2])).all()
    assert torch.isfinite(Memoriser(process, ends)(ends[1:], torch.tensor(0.0))).all()


def test_kernels_follow_one_another():
    """p(tau + tau') = integral of p(tau) p(tau') (Chapman & Kolmogorov)."""
    states, weights = jacobi(PAIR)
    first, second = 0.3, 0.5
    both = float(PAIR.time(1 / (PAIR.tau(first) + PAIR.tau(second))))
    goal = DATA[:2]
    through = ratios(PAIR, states, DATA, first).T @ (
        weights[:, None] * ratios(PAIR, states, goal, second)
    )
    torch.testing.assert_close(through, ratios(PAIR, goal, DATA, both).T)


def test_kernels_solve_the_forward_equation():
    """d/dtau of p / pi is the generator on it, for three types."""
    x0, y = torch.tensor([[0.5, 0.2, 0.3]]).double(), torch.tensor([[0.3, 0.3, 0.4]]).double()
    tau, step = 0.3, 1e-4

    def kernel(points, tau):
        return ratios(TRIPLE, points, x0, float(TRIPLE.time(1 / tau)))[:, 0]

    speed = (kernel(y, tau + step) - kernel(y, tau - step)) / (2 * step)
    # its slopes by the prediction, its curvature by differences of them
    size = 1e-4

    def gradient(point):
        t = float(TRIPLE.time(1 / tau))
        pull = (TRIPLE.target(point, x0, t) - point) / tau
        return kernel(point, tau)[:, None] * pull / point  # d/dx_i up to a multiple of 1

    frame = torch.tensor([[1.0, -1, 0], [1, 1, -2]]).double()
    frame = frame / frame.norm(dim=1, keepdim=True)
    bend = torch.zeros(2, 2).double()
    for i, along in enumerate(frame):
        change = gradient(y + size * along) - gradient(y - size * along)
        bend[i] = (change @ frame.T)[0] / (2 * size)
    square = y[0].diag() - y.T @ y
    flow = 0.5 * (TRIPLE.mutation - TRIPLE.total * y)[0]
    want = flow @ gradient(y)[0] + 0.5 * (frame @ square @ frame.T * bend).sum()
    torch.testing.assert_close(speed, want[None], rtol=1e-4, atol=1e-5)


def test_noised_shares_have_the_kernels_law(generator):
    for t in (0.0, 0.6):
        x = DATA[1:2].expand(2000, 2)
        drawn = PAIR.corrupt(x, t, generator=generator)
        assert (drawn > 0).all()
        grid = torch.linspace(1e-6, 1 - 1e-6, 1501, dtype=torch.float64)
        states = torch.stack([grid, 1 - grid], 1)
        density = PAIR.log_kernel(states, DATA[1:2], t)[:, 0].exp().numpy()
        running = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
        running /= running[-1]
        places = np.interp(drawn[:, 0].numpy(), grid.numpy(), running)
        assert stats.kstest(places, "uniform").pvalue > 1e-3


def test_three_objectives_differ_by_constants():
    """Explicit, denoising and implicit, over random networks, by quadrature: to 1e-5."""
    states, weights = jacobi(PAIR, 120)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    t = 0.45
    kernel, tau = ratios(PAIR, states, DATA, t), float(PAIR.tau(t))
    memoriser = Memoriser(PAIR, DATA.repeat_interleave(torch.tensor([5, 3, 2]), 0))
    level = torch.full((len(states),), t, dtype=torch.float64)
    best = memoriser(states, level)
    gaps = []
    for seed in range(8):
        network = random_network(PAIR, seed)
        guess = network(states, level)
        law = weights * (kernel @ shares)
        explicit = law @ PAIR.cost(guess, best, states) / tau**2
        implicit = law @ PAIR.implicit(network, states, t)
        denoising = sum(
            share * (weights * kernel[:, j]) @ PAIR.rate(guess, row.expand_as(states), states, t)
            for j, (share, row) in enumerate(zip(shares, DATA, strict=True))
        )
        assert explicit > 1e-3
        gaps.append(torch.stack([explicit - implicit, explicit - denoising / tau**2]))
    assert (torch.stack(gaps) - gaps[0]).abs().max() < 1e-5


def test_the_cost_is_the_score_matching_operator():
    """Phi(f) of the generator = 1/2 |grad log f|^2 in the noise's metric, at f = q / beta."""
    a = PAIR.mutation

    def noise(x):
        # the first share alone: dx = 1/2 (a - |a| x) dtau + sqrt(x (1 - x)) dW
        return (x * (1 - x)).sqrt()[:, None]

    line = DiffusionGenerator(lambda x: 0.5 * (a[0] - PAIR.total * x), noise)
    f = lambda x: (1 + x[:, 0].square() + 0.3 * torch.sin(3 * x[:, 0])).double()  # noqa: E731
    x = torch.tensor([[0.1], [0.4], [0.8]], dtype=torch.float64)
    slope = torch.func.vmap(torch.func.grad(lambda y: f(y[None])[0].log()))(x)[:, 0]
    pull = slope * x[:, 0] * (1 - x[:, 0])
    states = torch.cat([x, 1 - x], 1)
    off = torch.stack([pull, -pull], 1)
    torch.testing.assert_close(line.phi(f)(x), PAIR.cost(states + off, states, states))


def test_the_implicit_objective_is_the_generators():
    """(L* beta) / beta + L log beta, less the same number for every beta of one state."""
    a = PAIR.mutation
    line = DiffusionGenerator(
        lambda x: 0.5 * (a[0] - PAIR.total * x), lambda x: (x * (1 - x)).sqrt()[:, None]
    )
    x, t = torch.tensor([[0.15], [0.4], [0.8]], dtype=torch.float64), 0.4
    states, tau = torch.cat([x, 1 - x], 1), float(PAIR.tau(t))
    found = []
    for power in (0.3, 1.1):

        def beta(x, power=power):
            pair = torch.cat([x, 1 - x], 1)
            return (PAIR.log_prior(pair) + (1 + power * x[:, 0].square()).log()).exp()

        def guess(state, t, power=power):
            slope = 2 * power * state[:, 0] / (1 + power * state[:, 0].square())
            pull = tau * slope * state[:, 0] * state[:, 1]
            return state + torch.stack([pull, -pull], 1)

        # relative to pi: L* beta / beta in Lebesgue measure is L h / h; L log pi is what is left
        log_prior = lambda x: PAIR.log_prior(torch.cat([x, 1 - x], 1))  # noqa: E731
        want = line.implicit(beta)(x) - line.apply(log_prior)(x)
        torch.testing.assert_close(PAIR.implicit(guess, states, t), want)
        found.append(want)
    assert (found[0] - found[1]).abs().max() > 1e-2


def test_drawn_lineages_average_to_the_target(generator):
    """E[l | x_t, x] against counts: the regression of l on the target has slope 1."""
    x = DATA[:1].expand(10_000, 2)
    state, types = PAIR.with_types(x, 0.4, generator=generator)
    tau = PAIR.tau(0.4).expand(len(x))
    target = PAIR.target(state, x, 0.4)
    off = (PAIR.guess(types, state, tau) - target)[:, 0]
    for weight in (torch.ones(len(x)), state[:, 0], state[:, 0].square()):
        gap = off * weight
        assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(len(x))


# --- the exact denoiser, the curve and the sampler ---------------------------------------------


PARAMETERS = torch.tensor([[12.0, 3.0, 3.0], [2.0, 9.0, 4.0]], dtype=torch.float64)
SHARES = torch.tensor([0.4, 0.6], dtype=torch.float64)


def test_noised_dirichlet_laws_are_averages_of_kernels():
    """Against quadrature over the clean shares, density and prediction."""
    exact = DirichletMixture(PAIR, torch.tensor([[5.0, 2.0], [2.0, 6.0]]), SHARES)
    nodes, weights = np.polynomial.legendre.leggauss(120)
    clean = torch.as_tensor((nodes + 1) / 2)
    x = torch.stack([clean, 1 - clean], 1)
    law = sum(
        s * torch.as_tensor(stats.beta.pdf(clean, *p.tolist()))
        for s, p in zip(SHARES, exact.components, strict=True)
    )
    law = law * torch.as_tensor(weights / 2)
    states = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.97, 0.03]], dtype=torch.float64)
    for t in (0.0, 0.5):
        kernel = PAIR.log_kernel(states, x, t).exp()
        torch.testing.assert_close(exact.log_density(states, t), (kernel @ law).log())
        posterior = kernel * law / (kernel @ law)[:, None]
        torch.testing.assert_close(
            exact(states, torch.tensor(t)), PAIR.average_target(posterior, states, x, t)
        )


def test_measure_plan_and_sample_work(generator):
    """The area is the entropy lost, and samples keep the law's moments and the simplex."""
    exact = DirichletMixture(TRIPLE, PARAMETERS, SHARES)
    data = exact.draw(100, generator)
    curve = measure(exact, data, levels=16, generator=generator)
    # I(x; x_tau) = h(x_tau) - h(x_tau | x), both known
    clean = TRIPLE.corrupt(data, 0.0, generator=generator)
    own = TRIPLE.log_kernel(clean, data, 0.0).diagonal()
    gain = own - exact.log_density(clean, 0.0)
    error = math.hypot(float(gain.std()) / math.sqrt(len(gain)), curve.area_stderr())
    assert abs(curve.area() - float(gain.mean())) < 4 * error + 0.03 * curve.area()
    plan = plan_steps(curve, 24, "log-snr")
    drawn = sample(exact, 400, plan, generator=generator)
    assert (drawn >= 0).all()
    assert (drawn.sum(1) - 1).abs().max() < 1e-6
    many = exact.draw(20_000, generator)
    spread = many.std(0)
    assert ((drawn.mean(0) - many.mean(0)).abs() < 4 * spread / math.sqrt(400) + 0.01).all()


def test_every_step_stays_on_the_simplex(generator):
    exact = DirichletMixture(TRIPLE, PARAMETERS, SHARES)
    for state in sample.states(
        exact, 50, torch.linspace(1, 0, 9, dtype=torch.float64), generator=generator
    ):
        assert (state.sum(1) - 1).abs().max() < 1e-6
        assert (state >= 0).all()
        TRIPLE.space.check(state)


def test_the_memoriser_recalls_its_rows(generator):
    rows = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], dtype=torch.float64)
    memoriser = Memoriser(TRIPLE, rows)
    times = torch.linspace(1, 0, 17, dtype=torch.float64)
    drawn = sample(memoriser, 100, times, generator=generator, dtype=torch.float64)
    near = TRIPLE.space.distances(drawn, rows)
    # within a few deviations sqrt(tau_min) of a row, half of them at each
    assert near.amin(1).quantile(0.9) < 3 * math.sqrt(TRIPLE.tau_min)
    assert abs(float((near.argmin(1) == 0).double().mean()) - 0.5) < 0.2


@pytest.mark.parametrize(
    "loss", [lineage_loss, pytest.param(implicit_shares_loss, marks=pytest.mark.slow)]
)
def test_both_losses_train_a_network(loss, generator):
    """It closes most of the gap between the prior's guess and the exact denoiser."""
    exact = DirichletMixture(TRIPLE, PARAMETERS, SHARES)
    torch.manual_seed(0)
    network = SharesNetwork(TRIPLE, width=32, depth=1)
    before = network(exact.draw(5, generator).float(), torch.tensor(0.5))
    data = exact.draw(4000, generator).float()
    fresh = exact.draw(100, generator).float()
    assert torch.isfinite(before).all()

    def cost(denoiser):
        noise = torch.Generator().manual_seed(1)
        return measure(denoiser, fresh, levels=8, generator=noise).area()

    start, best = cost(network), cost(exact)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(100):
        rows = data[torch.randint(len(data), (128,), generator=generator)]
        t = (torch.rand(1, generator=generator) + torch.arange(128) / 128) % 1
        value = loss(network, rows, t.double(), generator=generator).mean()
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    assert cost(network) - best < 0.5 * (start - best)
    with pytest.raises(InputError, match="needs a Wright-Fisher process"):
        loss(Linear.fit(VP(), data), data[:2], torch.rand(2))


def test_wrong_parameters_are_named():
    with pytest.raises(InputError, match=r"shape \(1, 2\), not \(C, 3\)"):
        DirichletMixture(TRIPLE, torch.ones(1, 2), torch.ones(1))
    with pytest.raises(InputError, match="row 1 of the parameters"):
        DirichletMixture(TRIPLE, torch.tensor([[1.0, 1, 1], [1, 0, 1]]), torch.ones(2))
    with pytest.raises(InputError, match="one per row"):
        DirichletMixture(TRIPLE, torch.ones(2, 3), torch.ones(1))


# --- softmax coordinates -----------------------------------------------------------------------


def test_log_ratios_are_gaussian_noise_on_coordinates(generator):
    """Curve and samples are those of the base process on the coordinates, bit for bit."""
    exact = DirichletMixture(TRIPLE, PARAMETERS, SHARES)
    data = exact.draw(200, generator).float()
    process = LogRatios(3)
    z = process.space.log_ratios(data)
    inner = Linear.fit(process.base, z)
    ours, base = (
        measure(d, rows, levels=9, generator=torch.Generator().manual_seed(0))
        for d, rows in ((InLogRatios(process, inner), data), (inner, z))
    )
    np.testing.assert_array_equal(ours.rate, base.rate)
    times = torch.linspace(1, 0.001, 20, dtype=torch.float64)
    drawn = sample(InLogRatios(process, inner), 50, times, generator=generator)
    assert (drawn > 0).all()
    assert (drawn.sum(1) - 1).abs().max() < 1e-6
    copies = sample(Memoriser(process, data[:5]), 50, times, generator=generator)
    assert process.space.distances(copies, data[:5]).amin(1).max() < 0.05
    plan = plan_steps(ours, 6)
    assert sample(InLogRatios(process, inner), 4, plan, generator=generator).shape == (4, 3)
