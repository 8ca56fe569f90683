"""Finite sets: every law by enumeration, against scipy or counts within their standard error."""

from __future__ import annotations

import functools
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import expm
from scipy.special import rel_entr

from reverie import InputError, LossCurve, measure, plan_steps, sample
from reverie.denoisers import (
    Denoiser,
    Memoriser,
    PosteriorHead,
    RatioHead,
    TokenMLP,
    TokenTransformer,
)
from reverie.information import bound as bound_on
from reverie.plan import MeasuredPlan, Plan, measure_steps
from reverie.plan.step_charges import cheapest_path
from reverie.processes import Masking, Ordinal, RateMatrix, Uniform
from reverie.processes.generator import (
    ChainGenerator,
    DiffusionGenerator,
    chain_bound,
    denoising,
    explicit,
    implicit,
    tabulate,
)
from reverie.processes.times import bound_rate, low_discrepancy
from reverie.spaces import Euclidean, FiniteSet

# p(x) of {0, 1, 2}^3 in two-hundredths, last site fastest
TABLE = torch.tensor(
    [15, 26, 17, 13, 1, 2, 3, 2, 4, 1, 15, 1, 5, 13, 1, 10, 3, 4, 6, 11, 7, 8, 11, 1, 7, 11, 2]
)
LAW = TABLE.double() / TABLE.sum()
ENTROPY = float(-(LAW * LAW.log()).sum())
USER_RATES = torch.tensor([[-3.0, 2.0, 1.0], [0.5, -0.7, 0.2], [0.3, 1.2, -1.5]])


def words(symbols, sites):
    """All states (symbols^sites, sites), last site fastest."""
    return torch.tensor(list(itertools.product(range(symbols), repeat=sites)))


def exact(process):
    """The exact denoiser of TABLE: a memoriser of each point as often as the table counts it."""
    return Memoriser(process, words(3, 3).repeat_interleave(TABLE, 0))


def number(points, symbols):
    """Row of `words` in which each point stands."""
    return (points * symbols ** torch.arange(points.shape[1] - 1, -1, -1)).sum(1)


def joint_kernel(process, t):
    """p(x_t | x) of all points and all states of three sites: (27, M^3)."""
    kernel = process.kernel(t)[0]
    return torch.kron(torch.kron(kernel, kernel), kernel)


def joint_step(process, denoiser, t, s):
    """The sampler's law (M^3, M^3) from every state at t to every state at s."""
    states = words(process.states, 3)
    law = process.step_law(denoiser(states, torch.full((len(states),), t)), states, t, s)
    return (law[:, 0, :, None, None] * law[:, 1, None, :, None] * law[:, 2, None, None]).flatten(1)


def exact_rate(process, denoiser, t, reading=None):
    """E rate of every point (27,) at t, by the sum over all states."""
    reading = reading or process.rate
    states, points = words(process.states, 3), words(3, 3)
    kernel = joint_kernel(process, t)
    guess = denoiser(states, torch.full((len(states),), t))
    out = []
    for row, x in zip(kernel, points, strict=True):
        seen = row > 0
        rate = reading(guess[seen], x.expand(int(seen.sum()), 3), states[seen], t)
        out.append(row[seen] @ rate)
    return torch.stack(out)


def gauss(low, high, count):
    """Gauss-Legendre nodes and weights on [low, high]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return 0.5 * (low + high) + 0.5 * (high - low) * nodes, 0.5 * (high - low) * weights


@functools.cache
def masked_curve(count=101):
    """The exact curve of TABLE under masking on 0 <= u <= 1; the last u just falls short of 1."""
    process = Masking(3, 3)
    denoiser = exact(process)
    u = np.linspace(0, 1 - 1e-9, count)
    rate = [float(LAW @ exact_rate(process, denoiser, 1 - v)) for v in u]
    return LossCurve(u, np.array(rate), process=process)


def levels(process, steps):
    """Times (K + 1,) between the ends of the clock, even in its logarithm."""
    low, high = (float(process.clock(t).log()) for t in (1.0, 0.0))
    times = process.time(torch.linspace(low, high, steps + 1, dtype=torch.float64).exp())
    return times.clamp(0, 1)


def fits(points, symbols, law, level=1e-3):
    """Whether counts of points pass Pearson's test of `law` at this level."""
    counts = torch.bincount(number(points, symbols), minlength=len(law)).numpy()
    return stats.chisquare(counts, law.numpy() * len(points)).pvalue > level


ALL = [
    Masking(3, 3),
    Uniform(3, 3),
    Ordinal(3, 3),
    RateMatrix(USER_RATES, 3),
]
NAMES = [type(p).__name__ for p in ALL]


# --- spaces ------------------------------------------------------------------------------------


def test_points_outside_a_finite_set_are_named():
    space = FiniteSet(4, (2, 3))
    points = torch.zeros(5, 2, 3, dtype=torch.int32)
    assert space.check(points).dtype == torch.int64
    points[3, 1, 2] = 7
    with pytest.raises(InputError, match="row 3 holds the symbol 7; the 4 symbols"):
        space.check(points)
    with pytest.raises(InputError, match=r"shape \(3, 2\)"):
        space.check(points.mT)
    with pytest.raises(InputError, match=r"row 1 holds 0\.5; a symbol is a whole number"):
        FiniteSet(2, 2).check(torch.tensor([[0.0, 1.0], [1.0, 0.5]]))
    assert space.dim == 6
    with pytest.raises(InputError, match="no fixed shape"):
        _ = Euclidean().dim


def test_words_are_read_and_written():
    space = FiniteSet(".abc", 4)
    points = space.encode(["ab", "", "cccc"], pad=".")
    assert points.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 3, 3, 3]]
    assert space.decode(points) == ["ab..", "....", "cccc"]
    with pytest.raises(InputError, match="row 1, 'axb', holds 'x'"):
        space.encode(["ab", "axb"], pad=".")
    with pytest.raises(InputError, match="row 0, 'abcab', is longer than 4"):
        space.encode(["abcab"], pad=".")
    with pytest.raises(InputError, match="twice"):
        FiniteSet("aba", 4)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ([[-1.0, 1.0], [1.0, -0.9]], "row 1 of the rate matrix sums to 0.1;"),
        (
            [[-1.0, 1.0, 0.0], [2.0, -1.5, -0.5], [0, 1, -1]],
            "row 1 .* negative rate -0.5 to state",
        ),
        ([[-1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0, 0, 0]], "has 2 stationary laws"),
        ([[0.0, 0.0], [0.0, 0.0]], "every rate"),
        ([[-1.0, 1.0]], r"square, at least 2 by 2, not \(1, 2\)"),
        ([[-math.inf, math.inf], [1.0, -1.0]], "row 0 .* not finite"),
    ],
)
def test_matrices_that_are_no_generators_are_named(rates, message):
    with pytest.raises(InputError, match=message):
        RateMatrix(torch.tensor(rates), 2)


# --- processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [*ALL, Ordinal(40, 1)], ids=[*NAMES, "Ordinal40"])
def test_transitions_are_the_matrix_exponential(process):
    rates = process.rates.numpy()
    for t in (0.05, 0.4, 0.9):
        sigma = float(process.sigma(t))
        closed = process.kernel(t)[0].numpy()
        np.testing.assert_allclose(closed, expm(sigma * rates)[: process.symbols], atol=1e-12)
    step = process.between(0.3, 0.7)[0].numpy()
    span = float(process.sigma(0.7) - process.sigma(0.3))
    np.testing.assert_allclose(step, expm(span * rates), atol=1e-12)
    law = process.stationary.numpy()
    np.testing.assert_allclose(law @ rates, 0, atol=1e-12)


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_the_clock_and_its_inverse(process):
    t = torch.linspace(*process.t_range, 7, dtype=torch.float64)
    u = process.clock(t)
    assert (u.diff() < 0).all()
    torch.testing.assert_close(process.time(u), t, atol=1e-10, rtol=0)


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_noised_states_have_the_kernels_law(process, generator):
    n = 20_000
    x = torch.tensor([[0, 1, 2]]).expand(n, 3)
    pair = process.corrupt_pair(x, torch.full((n,), 0.6), generator=generator)
    for state in (process.corrupt(x, 0.6, generator=generator), *pair):
        for site in range(3):
            law = process.kernel(0.6)[0, site]
            counts = torch.bincount(state[:, site], minlength=process.states).double()
            spread = (law * (1 - law) / n).sqrt()
            assert ((counts / n - law).abs() <= 5 * spread + 1e-12).all()


def test_masking_is_the_rate_matrix_of_masking(generator):
    closed = Masking(3, 2)
    general = RateMatrix(closed.rates, 2, symbols=3)
    sigma = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(closed.transition(sigma), general.transition(sigma))
    # the same noise stands at different times; a step between equal levels has one law
    t, s = 0.7, 0.4
    tau, kappa = (general.time(1 / torch.expm1(closed.sigma(v))) for v in (t, s))
    state = words(4, 2)
    guess = torch.rand(16, 2, 3, generator=generator, dtype=torch.float64)
    kept = torch.nn.functional.one_hot(state, 4)[..., :3].double()
    guess = torch.where((state == 3)[..., None], guess / guess.sum(-1, keepdim=True), kept)
    torch.testing.assert_close(
        closed.step_law(guess, state, t, s), general.step_law(guess, state, tau, kappa)
    )
    torch.testing.assert_close(closed.ratios(guess, state, t), general.ratios(guess, state, tau))


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_a_step_back_is_bayes_rule(process):
    """With one site the exact posterior gives the exact p(x_s | x_t)."""
    law = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    t, s = 0.8, 0.5
    now, then = law @ process.kernel(t)[0], law @ process.kernel(s)[0]
    bayes = then[:, None] * process.between(s, t)[0] / now  # [y, z]
    posterior = (law[:, None] * process.kernel(t)[0] / now).T
    states = torch.arange(process.states)[:, None]
    got = process.step_law(posterior[:, None], states, t, s)[:, 0]
    torch.testing.assert_close(got, bayes.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_ratios_and_posteriors_are_one_another(process, generator):
    law = torch.rand(27, generator=generator, dtype=torch.float64)
    now = (law / law.sum()) @ joint_kernel(process, 0.5)
    states = words(process.states, 3)
    guess = Memoriser(process, words(3, 3))(states, torch.full((len(states),), 0.5))
    ratios = process.ratios(guess, states, 0.5)
    torch.testing.assert_close(process.posterior(ratios, states, 0.5), guess)
    # for the exact denoiser they are ratios of marginals
    table = Memoriser(process, words(3, 3).repeat_interleave(TABLE, 0))
    ratios = process.ratios(table(states, torch.full((len(states),), 0.5)), states, 0.5)
    now = LAW @ joint_kernel(process, 0.5)
    moved = states.clone()
    moved[:, 1] = 0
    want = now[number(moved, process.states)] / now
    if isinstance(process, Masking):  # its reversal asks at masks only
        here = states[:, 1] == process.mask
        ratios, want = ratios[here], want[here]
    torch.testing.assert_close(ratios[:, 1, 0], want)


def test_the_memoriser_falls_back_on_the_fewest_contradictions():
    rows = torch.tensor([[0, 0, 0], [0, 0, 1], [2, 2, 2]])
    guess = Memoriser(Masking(3, 3), rows)(torch.tensor([[0, 1, 3]]), torch.tensor(0.5))
    torch.testing.assert_close(guess[0, 2], torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))


def test_a_memoriser_in_chunks_is_the_same():
    process, rows = Uniform(3, 3), words(3, 3)
    state, t = words(3, 3)[::2], torch.full((14,), 0.6)
    torch.testing.assert_close(
        Memoriser(process, rows, chunk=4)(state, t), Memoriser(process, rows)(state, t)
    )


# --- the framework -----------------------------------------------------------------------------


def random_chain(generator, states=4):
    rates = torch.rand(states, states, generator=generator, dtype=torch.float64)
    return ChainGenerator(rates - rates.sum(1).diag())


def test_three_objectives_differ_by_constants(generator):
    chain = random_chain(generator)
    first = torch.rand(4, generator=generator, dtype=torch.float64)
    first = first / first.sum()
    kernel = torch.linalg.matrix_exp(0.4 * chain.rates)
    law = first @ kernel
    gaps = []
    for _ in range(20):
        beta = torch.rand(4, generator=generator, dtype=torch.float64) + 0.01
        e, i = explicit(chain, beta, law), implicit(chain, beta, law)
        d = denoising(chain, beta, first, kernel)
        assert e >= 0
        gaps.append(torch.stack([e - i, e - d]))
    assert (torch.stack(gaps) - gaps[0]).abs().max() < 1e-10
    assert abs(float(explicit(chain, 3 * law, law))) < 1e-12  # beta is known up to a factor


def test_phi_of_a_chain_and_of_a_diffusion(generator):
    chain = random_chain(generator)
    f = torch.rand(4, generator=generator, dtype=torch.float64) + 0.1
    r = f[None] / f[:, None]
    bregman = (chain.rates * (r - 1 - r.log())).sum(1)
    torch.testing.assert_close(chain.phi(tabulate(f))(chain.all), bregman)

    root = torch.tensor([[1.0, 0.3], [0.0, 0.7]], dtype=torch.float64)
    diffusion = DiffusionGenerator(
        lambda x: -x.sin(), lambda x: root * (1 + x.square().sum(1))[:, None, None]
    )
    positive = lambda x: 2 + x[:, 0].sin() * x[:, 1].cos()  # noqa: E731
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    score = torch.func.vmap(torch.func.grad(lambda y: positive(y[None])[0].log()))(x)
    noise = diffusion.noise(x)
    half_square = 0.5 * (noise.mT @ score[..., None]).square().sum((1, 2))
    torch.testing.assert_close(diffusion.phi(positive)(x), half_square)


def test_the_implicit_objective_of_a_diffusion_is_score_matching(generator):
    """L* beta / beta + L log beta = g^2 (|s|^2 / 2 + div s) - div b (Hyvarinen 2005)."""
    diffusion = DiffusionGenerator(
        lambda x: -x, lambda x: 1.3 * torch.eye(2, dtype=x.dtype).expand(len(x), 2, 2)
    )
    beta = lambda x: (-x.pow(4).sum(1) / 4).exp()  # noqa: E731
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    score, divergence = -x.pow(3), -3 * x.square().sum(1)
    want = 1.3**2 * (0.5 * score.square().sum(1) + divergence) + 2
    torch.testing.assert_close(diffusion.implicit(beta)(x), want)


def test_the_reversal_of_a_chain(generator):
    chain = random_chain(generator)
    law = torch.rand(4, generator=generator, dtype=torch.float64)
    rates = chain.rates.T * law[None] / law[:, None]
    rates = rates - rates.diagonal().diag()
    rates = rates - rates.sum(1).diag()
    f = torch.rand(4, generator=generator, dtype=torch.float64)
    got = chain.reversal(tabulate(law), tabulate(f))(chain.all)
    torch.testing.assert_close(got, rates @ f)


def test_the_bound_at_the_truth_is_the_entropy(generator):
    """Averaged over data: H(p_0) + KL(noise || reference), and above -log p pointwise."""
    chain = random_chain(generator)
    first = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    reference = torch.full((4,), 0.25, dtype=torch.float64)
    times, weights = (torch.as_tensor(a) for a in gauss(0, 2.0, 60))
    betas = [first @ torch.linalg.matrix_exp(t * chain.rates) for t in times]
    bound = chain_bound(chain, betas, times, weights, reference, 2.0)
    end = first @ torch.linalg.matrix_exp(2.0 * chain.rates)
    want = -(first * first.log()).sum() + (end * (end / reference).log()).sum()
    assert abs(float(first @ bound - want)) < 1e-10
    assert (bound > -first.log() - 1e-3).all()


# --- the bound and the loss curve ----------------------------------------------------------------


def test_the_masked_bound_is_the_likelihood_of_every_point():
    """The exact conditionals make int rate du = -log p(x); the rate is a polynomial of u."""
    process = Masking(3, 3)
    denoiser = exact(process)
    nodes, weights = gauss(0, 1, 4)
    total = sum(
        w * exact_rate(process, denoiser, 1 - u) for u, w in zip(nodes, weights, strict=True)
    )
    assert (total + LAW.log()).abs().max() < 1e-10


def test_score_entropy_of_masking_is_the_masked_bound():
    """Over dsigma = du / u, with the ratios u / (1 - u) p (Lou, Meng & Ermon 2024)."""
    process = Masking(3, 3)
    denoiser = exact(process)

    def entropy(guess, x, state, t):
        ratios = process.ratios(guess, state, t)
        return process.score_entropy(ratios, x, state, t) / (1 - t)

    for t in (0.1, 0.5, 0.9):
        gap = exact_rate(process, denoiser, t, entropy) - exact_rate(process, denoiser, t)
        assert gap.abs().max() < 1e-10


@pytest.mark.parametrize("process", ALL[1:], ids=NAMES[1:])
def test_the_area_of_the_ideal_curve_is_information(process):
    """Between two levels, by enumeration: I(x; x_low) - I(x; x_high)."""
    denoiser = exact(process)

    def information(t):
        kernel = joint_kernel(process, t)
        marginal = LAW @ kernel
        return float((LAW[:, None] * torch.xlogy(kernel, kernel / marginal)).sum())

    low, high = np.log(process.clock(torch.tensor([0.8, 0.35], dtype=torch.float64)).numpy())
    nodes, weights = gauss(low, high, 24)
    area = 0.0
    for place, weight in zip(nodes, weights, strict=True):
        t = float(process.time(math.exp(place)))
        area += weight * math.exp(place) * float(LAW @ exact_rate(process, denoiser, t))
    assert abs(area - (information(0.35) - information(0.8))) < 1e-9


@pytest.mark.parametrize("process", [Uniform(3, 1), RateMatrix(USER_RATES, 1)])
def test_the_continuous_bound_of_one_site(process):
    """prior KL + area + last denoise = H(p_0) + KL(noise || reference), averaged over data."""
    law = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    points = torch.arange(3)[:, None]
    denoiser = Memoriser(process, points.repeat_interleave(torch.tensor([6, 3, 1]), 0))
    low, high = np.log(process.clock(torch.tensor([1.0, 0.0])).numpy())
    nodes, weights = gauss(low, high, 60)
    total = float(law @ process.prior_kl(points))
    for place, weight in zip(nodes, weights, strict=True):
        t = float(process.time(math.exp(place)))
        kernel = process.kernel(t)[0]
        guess = denoiser(points, torch.full((3,), t))
        for x in range(3):
            rate = process.rate(guess, points[x].expand(3, 1), points, t)
            total += weight * math.exp(place) * float(law[x] * (kernel[x] @ rate))
    kernel, guess = process.kernel(0.0)[0], denoiser(points, torch.zeros(3))
    for x in range(3):
        last = process.reconstruction(guess, points[x].expand(3, 1), points)
        total += float(law[x] * (kernel[x] @ last))
    end = law @ process.kernel(1.0)[0]
    want = -(law * law.log()).sum() + (end * (end / process.stationary).log()).sum()
    assert abs(total - float(want)) < 1e-8


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_the_estimated_bound_is_above_the_likelihood(process, generator):
    """Equal to it for masking and, with exact conditionals, near it for the others' mean."""
    n = 2000
    rows = torch.multinomial(LAW, n, replacement=True, generator=generator)
    found = bound_on(exact(process), words(3, 3)[rows], draws=16, generator=generator)
    bound = torch.from_numpy(found.each)
    gap = bound + LAW[rows].log()
    error = float(gap.std()) / math.sqrt(n)
    slack = 0 if isinstance(process, Masking) else 0.02  # the last denoise is site by site
    assert -4 * error < float(gap.mean()) < 4 * error + slack


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_the_charge_of_a_step(process):
    """KL of the exact step from the model's; of a short step, the rate times the clock."""
    states, x = words(process.states, 3)[::3], torch.tensor([2, 0, 1])
    kernel = joint_kernel(process, 0.6)[int(number(x[None], 3))][::3]
    states = states[kernel > 0]
    both = x.expand(len(states), 3)
    denoiser = exact(process)
    charge = process.charge(denoiser, both, states, 0.6, 0.4)
    want = process.step_law(process.target(states, both, 0.6), states, 0.6, 0.4)
    model = process.step_law(denoiser(states, torch.full((len(states),), 0.6)), states, 0.6, 0.4)
    brute = torch.as_tensor(rel_entr(want.numpy(), model.numpy())).sum((1, 2))
    torch.testing.assert_close(charge, brute)
    short = process.charge(denoiser, both, states, 0.6, 0.6 - 1e-6)
    rate = process.rate(denoiser(states, torch.full((len(states),), 0.6)), both, states, 0.6)
    step = process.clock(0.6 - 1e-6) - process.clock(0.6)
    torch.testing.assert_close(short / step, rate, rtol=1e-4, atol=1e-6)


def test_steps_of_masking_cost_the_staircase_exactly():
    """Path KL of parallel unmasking by brute force over all states = staircase - entropy."""
    process = Masking(3, 3)
    denoiser = exact(process)
    curve = masked_curve()
    plan = plan_steps(curve, 4)
    brute = path_kl(process, denoiser, [1.0, *plan.times[1:-1], 0.0])
    assert abs(plan.path_kl(curve) - brute) < 2e-4 * brute
    assert abs(plan.excess - brute) < 2e-4 * brute


def test_the_adaptive_plan_is_never_worse():
    curve = masked_curve()
    for steps in (1, 2, 3, 5, 9):
        rivals = plan_steps(curve, steps).compare()
        assert set(rivals) == {"loss-adaptive", "linear", "cosine", "entropic", "density"}
        best = rivals["loss-adaptive"].excess
        assert best <= min(plan.excess for plan in rivals.values()) + 1e-9
    with pytest.raises(InputError, match="choose one of loss-adaptive, linear, cosine"):
        plan_steps(curve, 4, "karras")


def test_total_variation_of_ancestral_sampling_falls_as_one_over_steps():
    process = Masking(3, 3)
    denoiser = exact(process)
    symbols = (words(4, 3) < 3).all(1)
    found = []
    for steps in (1, 2, 4, 8, 16):
        law = torch.zeros(64, dtype=torch.float64)
        law[-1] = 1
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
        for t, s in itertools.pairwise(times):
            law = law @ joint_step(process, denoiser, t, s)
        found.append(0.5 * float((law[symbols] - LAW).abs().sum()))
    np.testing.assert_allclose(found, [0.254, 0.132, 0.068, 0.035, 0.017], atol=5e-4)


def test_measure_plan_and_sample_work_on_masking(generator):
    process = Masking(3, 3)
    denoiser = exact(process)
    rows = torch.multinomial(LAW, 1500, replacement=True, generator=generator)
    curve = measure(denoiser, words(3, 3)[rows], levels=33, generator=generator)
    assert (curve.u[0], curve.u[-1]) == (0, 1)
    want = float((-LAW[rows].log()).mean())  # the bound of these very rows
    truth = masked_curve(33)
    assert abs(curve.entropy() - want) < 4 * curve.area_stderr()
    assert (np.abs(curve.rate - truth.rate) < 5 * curve.stderr).all()
    plan = plan_steps(curve, 6)
    drawn = sample(denoiser, 4000, plan, "ancestral", generator=generator)
    assert drawn.dtype == torch.int64
    counts = torch.bincount(number(drawn, 3), minlength=27)
    # total variation: at most what the path KL allows (Pinsker) and the counts' own noise
    noise = float((LAW * (1 - LAW) / 4000).sqrt().sum()) / 2
    allowed = math.sqrt(plan.path_kl(truth) / 2) + 2 * noise
    assert 0.5 * float((counts / 4000 - LAW).abs().sum()) < allowed


@pytest.mark.parametrize("process", ALL[1:], ids=NAMES[1:])
def test_measure_and_sample_work_on_other_chains(process, generator):
    denoiser = exact(process)
    rows = torch.multinomial(LAW, 500, replacement=True, generator=generator)
    curve = measure(denoiser, words(3, 3)[rows], levels=24, generator=generator)
    # all that is to know of the data lies between the ends, but for the last denoise
    assert abs(curve.area() - ENTROPY) < 5 * curve.area_stderr() + 0.05
    drawn = sample(denoiser, 2000, levels(process, 60), generator=generator)
    counts = torch.bincount(number(drawn, 3), minlength=27)
    noise = float((LAW * (1 - LAW) / 2000).sqrt().sum()) / 2
    assert 0.5 * float((counts / 2000 - LAW).abs().sum()) < 2 * noise + 0.03


# --- measured steps ----------------------------------------------------------------------------


def path_kl(process, denoiser, times):
    """Path KL of a plan by brute force over all states, from the true law of the noisy end."""
    total = 0.0
    for t, s in itertools.pairwise(times):
        now, then = LAW @ joint_kernel(process, t), LAW @ joint_kernel(process, s)
        step = process.between(s, t)[0]
        forward = torch.kron(torch.kron(step, step), step)  # [y, z]
        truth = (then[:, None] * forward / now.where(now > 0, 1.0)).T
        model = joint_step(process, denoiser, t, s)
        total += float(now.numpy() @ rel_entr(truth.numpy(), model.numpy()).sum(1))
    return total


def test_the_cheapest_path_is_the_best_of_all(generator):
    cost = torch.rand(8, 8, generator=generator).numpy()
    for steps in (1, 3, 6):
        every = [(0, *inner, 7) for inner in itertools.combinations(range(1, 7), steps - 1)]
        price = [sum(cost[i, j] for i, j in itertools.pairwise(knots)) for knots in every]
        assert tuple(cheapest_path(cost, steps)) == every[int(np.argmin(price))]


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_charges_over_drawn_symbols_have_the_mean_of_charges(process):
    """For the exact denoiser, by the sum over all states and points."""
    denoiser, t, s = exact(process), 0.6, 0.45
    states, kernel = words(process.states, 3), joint_kernel(process, t)
    guess = denoiser(states, torch.full((len(states),), t, dtype=torch.float64))
    drawn = float((LAW @ kernel) @ process.expected_charge(guess, states, t, s))
    own = 0.0
    for share, row, x in zip(LAW, kernel, words(3, 3), strict=True):
        seen = row > 0
        both = x.expand(int(seen.sum()), 3)
        own += float(share * (row[seen] @ process.charge(denoiser, both, states[seen], t, s)))
    assert abs(drawn - own) < 1e-10


def test_measured_steps_cost_the_path_kl(generator):
    process = Uniform(3, 3)
    denoiser = exact(process)
    rows = torch.multinomial(LAW, 800, replacement=True, generator=generator)
    charges = measure_steps(denoiser, words(3, 3)[rows], 25, generator=generator)
    plans = charges.plan(5).compare()
    brute = {name: path_kl(process, denoiser, plan.times) for name, plan in plans.items()}
    for name, plan in plans.items():
        assert plan.steps == 5
        assert isinstance(plan, MeasuredPlan)
        # the extrapolated limit is known to a tenth of the excess it is read against
        assert abs(plan.excess - brute[name]) < 4 * plan.stderr + 0.1 * brute[name]
    assert brute["loss-adaptive"] < 0.75 * brute["log-snr"]
    drawn = sample(denoiser, 10, plans["loss-adaptive"], generator=generator)
    assert drawn.shape == (10, 3)
    with pytest.raises(InputError, match="allow 1 to 24"):
        charges.plan(25)
    assert not isinstance(plans["entropic"], Plan)  # it has no curve to be charged on


# --- samplers ----------------------------------------------------------------------------------


def test_first_hitting_is_exact_in_law(generator):
    drawn = sample(
        exact(Masking(3, 3)), 6000, levels(Masking(3, 3), 2), "first-hitting", generator=generator
    )
    assert fits(drawn, 3, LAW)
    with pytest.raises(InputError, match="ancestral"):
        sample(exact(Uniform(3, 3)), 5, levels(Uniform(3, 3), 2), "first-hitting")


@pytest.mark.parametrize("process", [Uniform(3, 3), RateMatrix(USER_RATES, 3)])
def test_gillespie_is_exact_in_law(process, generator):
    drawn = sample(exact(process), 1500, levels(process, 40), "gillespie", generator=generator)
    assert fits(drawn, 3, LAW)


def test_corrector_moves_keep_the_law_of_a_level():
    """q (forward rates + backward rates) = 0 on all states."""
    for process in ALL:
        t = 0.5
        states = words(process.states, 3)
        law = LAW @ joint_kernel(process, t)
        guess = exact(process)(states, torch.full((len(states),), t))
        both = process.reverse_rates(guess, states, t) + process.forward_rates(states)
        flow = torch.zeros(len(states), dtype=torch.float64)
        for site, symbol in itertools.product(range(3), range(process.states)):
            goal = states.clone()
            goal[:, site] = symbol
            moved = law * both[:, site, symbol]
            moved = moved.where(law > 0, 0.0)
            flow.index_add_(0, number(goal, process.states), moved)
            flow -= moved
        assert flow.abs().max() < 1e-12


def total_variation(drawn):
    counts = torch.bincount(number(drawn, 3), minlength=27)
    return 0.5 * float((counts / len(drawn) - LAW).abs().sum())


@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_tau_leaping_nears_the_law(process, generator):
    n = 1500
    noise = float((LAW * (1 - LAW) / n).sqrt().sum()) / 2
    if isinstance(process, Masking):
        times = torch.linspace(1, 0, 33, dtype=torch.float64)
    else:
        times = levels(process, 64)
    drawn = sample(exact(process), n, times, "tau-leaping", generator=generator)
    assert total_variation(drawn) < 2 * noise + 0.05
    few = times[:: max(len(times) // 6, 1)]
    rough = sample(exact(process), n, few, "tau-leaping", generator=generator)
    mended = sample(exact(process), n, few, "tau-leaping", correctors=4, generator=generator)
    assert total_variation(mended) < total_variation(rough) + 2 * noise


# --- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [TokenMLP, TokenTransformer])
@pytest.mark.parametrize("process", ALL, ids=NAMES)
def test_heads_give_posteriors(process, body, generator):
    torch.manual_seed(0)
    x = torch.randint(3, (6, 3), generator=generator)
    state = process.corrupt(x, 0.5, generator=generator)
    t = torch.full((6,), 0.5, dtype=torch.float64)
    for head, columns in ((PosteriorHead, 3), (RatioHead, process.states)):
        network = body(process.states, (3,), columns, 32, 1)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=generator)
        denoiser = head(process, network)
        guess = denoiser(state, t)
        torch.testing.assert_close(guess.sum(-1), torch.ones_like(guess[..., 0]))
        if isinstance(process, Masking):  # carry-over
            shown = state != process.mask
            assert (guess[shown].argmax(-1) == state[shown]).all()
            assert (guess[shown].max(-1).values == 1).all()
        bound_rate(process, denoiser, x, t, generator=generator).mean().backward()
        assert all(
            torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None
        )


def train(denoiser, data, steps, batch, generator, lr=3e-3):
    """The bound's own gradient at low-discrepancy times."""
    process = denoiser.process
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = data[torch.randint(len(data), (batch,), generator=generator)]
        t = low_discrepancy(batch, process.t_range, generator)
        loss = bound_rate(process, denoiser, rows, t, generator=generator).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("process", [Masking(3, 3), Uniform(3, 3)])
def test_a_network_learns_the_table(process, generator):
    torch.manual_seed(0)
    body = TokenMLP(process.states, (3,), 3, 64, 2)
    denoiser = PosteriorHead(process, body)
    points = words(3, 3).repeat_interleave(TABLE, 0)
    train(denoiser, points, 200, 128, generator)
    found = bound_on(denoiser, points.repeat(10, 1), draws=16, generator=generator)
    bound = torch.from_numpy(found.each)
    error = float(bound.std()) / math.sqrt(len(bound))
    independent = sum(
        float(-torch.xlogy(m, m).sum())
        for m in (LAW.reshape(3, 3, 3).sum(axes) for axes in ((1, 2), (0, 2), (0, 1)))
    )
    # it lies above the entropy and closes half of the gap to independent sites
    assert ENTROPY - 4 * error < float(bound.mean()) < ENTROPY + 0.5 * (independent - ENTROPY)


LETTERS = ".abcdefghijklmnopqrstuvwxyz"


def names_of(path, generator):
    """All names of the file as points (32033, 16), shuffled."""
    points = FiniteSet(LETTERS, 16).encode(path.read_text().split(), pad=".")
    return points[torch.randperm(len(points), generator=generator)]


def dearer(curve, plan, best):
    """Nats by which the staircase of `plan` passes that of `best`: mean and stderr over rows."""
    charge = [
        np.stack([np.interp(p.u[:-1], curve.u, row) for row in curve.per_sample]) @ np.diff(p.u)
        for p in (plan, best)
    ]
    gap = charge[0] - charge[1]
    return float(gap.mean()), float(gap.std() / math.sqrt(len(gap)))


@pytest.mark.slow
def test_the_adaptive_plan_saves_nats_on_names(real_data, generator):
    """The exact denoiser of 4000 names; chosen on half of the rows, priced on the others."""
    law = names_of(real_data("text/names.txt"), generator)[:4000]
    denoiser = Memoriser(Masking(LETTERS, 16), law)
    chosen = measure(denoiser, law[:2000], levels=17, generator=generator)
    priced = measure(denoiser, law[2000:], levels=17, generator=generator, keep_samples=True)
    assert abs(priced.entropy() - math.log(4000)) < 0.1
    for steps in (4, 8, 16):
        plans = plan_steps(chosen, steps).compare()
        assert next(iter(plans)) == "loss-adaptive"
        nats, stderr = dearer(priced, plans["cosine"], plans["loss-adaptive"])
        assert nats > 3 * stderr
    # even steps come close; with 16 of them the difference is measured well
    nats, stderr = dearer(priced, plans["linear"], plans["loss-adaptive"])
    assert nats > 3 * stderr


@pytest.mark.slow
def test_a_transformer_on_names_generalises_where_the_memoriser_cannot(real_data, generator):
    points = names_of(real_data("text/names.txt"), generator)
    fitted, fresh = points[:-2000], points[-2000:]
    process = Masking(LETTERS, 16)
    torch.manual_seed(0)
    denoiser = PosteriorHead(process, TokenTransformer(28, (16,), 27, 64, 2))
    train(denoiser, fitted, 1500, 64, generator)
    seen = measure(denoiser, fitted[:4000], levels=13, generator=generator)
    held = measure(denoiser, fresh, levels=13, generator=generator, keep_samples=True)
    copies = measure(Memoriser(process, fitted), fitted[:200], levels=9, generator=generator)
    # letters drawn by their own frequencies, site by site
    share = torch.stack([(fitted == s).double().mean(0) for s in range(27)])
    unigram = -torch.log(share.clamp(min=1e-9))[fresh, torch.arange(16)].sum(1).mean()
    assert held.area() < float(unigram) - 1.0
    assert copies.area() < math.log(len(fitted)) + 4 * copies.area_stderr()
    assert copies.area() < seen.area() - 4 * (copies.area_stderr() + seen.area_stderr())
    assert abs(seen.leak(held).nats) < 1.0
    # this curve is nearly a line, which even steps suit; cosine steps do not
    plans = plan_steps(seen, 8).compare()
    nats, stderr = dearer(held, plans["cosine"], plans["loss-adaptive"])
    assert nats > 2 * stderr
    drawn = sample(denoiser, 20, plan_steps(seen, 16), generator=generator)
    assert len(set(process.space.decode(drawn))) > 15


# --- the documentation -------------------------------------------------------------------------


def test_the_tutorial_runs():
    page = Path(__file__).resolve().parents[1] / "docs" / "processes.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(blocks) == 1
    assert blocks[0].count("\n") <= 40
    space: dict = {}
    exec(compile(blocks[0], str(page), "exec"), space)
    assert isinstance(space["run"].denoiser, Denoiser)
    space["process"].space.check(space["points"])
    nats = torch.from_numpy(space["nats"])
    error = float(nats.std()) / math.sqrt(len(nats))
    assert math.log(10) - 4 * error < float(nats.mean()) < 6 * math.log(5)
    assert space["copying"].area() < space["curve"].area()
