"""Learned noise schedules, loss weights and the evidence bound, on laws in closed form."""

import math

import numpy as np
import pytest
import torch

from reverie.curve import LossCurve, level_times, measure
from reverie.denoisers import Denoiser, Linear, Network, ResidualMLP
from reverie.errors import InputError
from reverie.information import bound as evidence_bound
from reverie.objectives import VariationalFit
from reverie.objectives.noise_law import NoiseLaw
from reverie.objectives.weights import WEIGHTS, loss_weight
from reverie.plan import plan_steps
from reverie.processes import VE, VP, Cosine, Custom, Learned
from reverie.sampling import sample

VARIANCE, CLEAN, NOISY = 0.3, 13.3, -5.0


def gaussian(process, variance=VARIANCE):
    """The exact denoiser of N(0, variance)."""
    spectrum = torch.tensor([variance], dtype=torch.float64)
    return Linear(process, torch.zeros(1), spectrum, torch.eye(1))


GRID = torch.tensor([-1.0, 1.0])


class Coin(Denoiser):
    """The exact denoiser of one fair coin, +-1, written on four coordinates."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        return torch.tanh((alpha * state / sigma**2).sum(1, keepdim=True)).expand_as(state)


def coins(n, generator):
    return (torch.randint(2, (n, 1), generator=generator).float() * 2 - 1).repeat(1, 4)


def information(log_snr, variance=VARIANCE):
    """I(x; x_t) in nats of a scalar Gaussian at log gamma."""
    return 0.5 * np.log1p(variance * np.exp(log_snr))


def scrambled(seed=0, width=8):
    """A schedule between the same ends whose interior is far from linear."""
    process = Learned(NOISY, CLEAN, width)
    noise = torch.Generator().manual_seed(seed)
    for parameter in (process.heights, process.steepness):
        parameter.data += torch.randn(parameter.shape, generator=noise)
    process.slope.data -= 3.0
    return process


def polynomial(power):
    """log gamma a power of t between the same ends."""

    def log_gamma(t):
        return CLEAN + (NOISY - CLEAN) * t**power

    return Custom(
        lambda t: log_gamma(t).sigmoid().sqrt(),
        lambda t: (-log_gamma(t)).sigmoid().sqrt(),
        (0.0, 1.0),
    )


# --- the process ---------------------------------------------------------------------------------


def test_a_learned_schedule_is_monotone_between_its_ends_and_inverts():
    process = scrambled()
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    log_gamma = process.clock(t).log()
    assert (log_gamma.diff() < 0).all()
    assert log_gamma[[0, -1]].tolist() == pytest.approx([CLEAN, NOISY], abs=1e-6)
    assert (log_gamma - torch.linspace(CLEAN, NOISY, 201)).abs().max() > 0.5
    assert process.time(process.clock(t)).sub(t).abs().max() < 1e-9
    assert (process.alpha(t).square() + process.sigma(t).square()).sub(1).abs().max() < 1e-12
    assert not any(p.requires_grad for p in process.parameters())


def test_ends_out_of_order_are_refused():
    with pytest.raises(InputError, match="noisy < clean"):
        Learned(5.0, -5.0)


def test_curve_plan_and_sample_run_on_a_learned_schedule(generator):
    process = scrambled()
    x = math.sqrt(VARIANCE) * torch.randn(4000, 1, generator=generator)
    model = gaussian(process)
    curve = measure(model, x, 33, generator=generator)
    assert curve.area() == pytest.approx(
        information(CLEAN) - information(NOISY), abs=4 * curve.area_stderr() + 0.02
    )
    drawn = sample(model, 4000, plan_steps(curve, steps=400), shape=(1,), generator=generator)
    # 4 standard errors of a variance of 4000 draws are 9%; 400 steps leave a bias of 2%
    assert float(drawn.var()) == pytest.approx(VARIANCE, rel=0.11)


# --- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "process", [Learned(NOISY, CLEAN), scrambled(), polynomial(2.0), polynomial(3.0)]
)
def test_the_continuous_bound_is_the_same_for_every_schedule(process):
    """6.047007 nats for variance .3 between log ratios 13.3 and -5; times from the schedule."""
    times = level_times(process, 2001)
    clock = process.clock(torch.as_tensor(times)).numpy()
    curve = LossCurve(clock, gaussian(process).exact_rate(clock), process=process)
    exact = information(CLEAN) - information(NOISY)
    assert exact == pytest.approx(6.047007, abs=5e-7)
    assert curve.area() == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(("steps", "nats"), [(10, 15.99), (100, 6.586), (1000, 6.098)])
def test_the_discrete_bound_of_a_linear_schedule(steps, nats):
    process = Learned(NOISY, CLEAN)
    process.heights.data.fill_(-60)  # exactly linear
    clock = process.clock(torch.linspace(1, 0, steps + 1, dtype=torch.float64)).numpy()
    rate = gaussian(process).exact_rate(clock)
    assert (np.diff(clock) * rate[:-1]).sum() == pytest.approx(nats, rel=2e-4)


def test_the_bound_of_a_density_is_its_entropy_between_wide_ends(generator):
    process = Learned(-12.0, 14.0)
    x = math.sqrt(VARIANCE) * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    bound = evidence_bound(gaussian(process), x, levels=96, generator=generator)
    entropy = 0.5 * math.log(2 * math.pi * math.e * VARIANCE)
    assert bound.nats == pytest.approx(entropy, abs=4 * bound.stderr + 0.01)
    assert bound.nats == bound.prior + bound.diffusion + bound.reconstruction
    assert bound.bits_per_dim == pytest.approx(bound.nats / math.log(2))


def test_the_bound_in_steps_falls_to_the_continuous_one(generator):
    process = Learned(NOISY, CLEAN)
    x = math.sqrt(VARIANCE) * torch.randn(2000, 1, generator=generator)
    few, many, limit = (
        evidence_bound(
            gaussian(process), x, steps=steps, generator=torch.Generator().manual_seed(1)
        ).diffusion
        for steps in (10, 100, None)
    )
    assert few > many > limit


def test_discrete_data_have_a_mass_and_its_bound_is_the_entropy(generator):
    """One coin on four coordinates: ln 2 nats, 1/4 bit per dimension, between wide ends."""
    process = Learned(-10.0, 5.0)
    x = coins(1000, generator)
    bound = evidence_bound(Coin(process), x, values=GRID, generator=generator)
    assert bound.reconstruction < 1e-6
    error = bound.stderr / (4 * math.log(2))
    assert bound.bits_per_dim == pytest.approx(0.25, abs=4 * error + 0.002)
    with pytest.raises(InputError, match="not among the 2 of the grid"):
        evidence_bound(Coin(process), x + 0.3, values=GRID, generator=generator)


def test_reconstruction_is_the_decoders_softmax_by_quadrature():
    """E[-log p(v | z_0)] on a grid of 3 values, against numerical integration over the noise."""
    process = Learned(-5.0, 1.0)
    grid = np.array([-1.0, 0.0, 1.0])
    spread = math.exp(-0.5)
    z = np.linspace(-9, 9, 4001)
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    logits = -0.5 * ((1.0 + spread * z)[:, None] - grid) ** 2 / spread**2
    exact = np.trapezoid(density * -(logits[:, 2] - np.log(np.exp(logits).sum(1))), z)
    x = torch.ones(200_000, 1, dtype=torch.float64)
    each = process.reconstruction(
        x, torch.tensor(grid), generator=torch.Generator().manual_seed(0)
    )
    assert float(each.mean()) == pytest.approx(
        exact, abs=4 * float(each.std()) / math.sqrt(len(each))
    )


def test_the_prior_term_is_a_divergence_of_normal_laws():
    process = VP()
    x = torch.tensor([[1.5, -0.5]], dtype=torch.float64)
    alpha, sigma = (float(v) for v in process.scales(1.0, x[:1, :1]))
    law = torch.distributions.Normal(alpha * x, sigma)
    prior = torch.distributions.Normal(torch.zeros_like(x), sigma)
    exact = torch.distributions.kl_divergence(law, prior).sum()
    assert float(process.prior_kl(x)) == pytest.approx(float(exact), rel=1e-9)


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [VP(), VE(0.01, 20), Cosine(), scrambled()])
def test_weights_are_those_of_the_other_targets(process):
    """Errors of the same guess in noise, score and v, times their own weights."""
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    like = torch.zeros(9, 3, dtype=torch.float64)
    alpha, sigma = process.scales(t, like)
    gamma = (alpha / sigma) ** 2
    step = 1e-6  # of a central difference
    slope = (process.gamma(t + step) - process.gamma(t - step))[:, None] / (2 * step)
    weight = {name: loss_weight(name, process, t, like) for name in WEIGHTS}
    assert torch.allclose(weight["elbo"], -0.5 * slope, rtol=1e-5)
    assert torch.allclose(weight["simple"], (alpha / sigma) ** 2)
    # g^2 = d sigma^2/dt - 2 sigma^2 dlog alpha/dt, and the score's error is alpha/sigma^2 of x's
    ends = process.scales(t + step, like), process.scales(t - step, like)
    rise = (ends[0][1] ** 2 - ends[1][1] ** 2) / (2 * step)
    drift = (ends[0][0] / ends[1][0]).log() / (2 * step)
    g2 = rise - 2 * sigma**2 * drift
    assert torch.allclose(weight["g2"], g2 * (alpha / sigma**2) ** 2, rtol=1e-4)
    assert torch.allclose(weight["min-snr"], gamma.clamp(max=5))
    assert torch.allclose(weight["sigmoid"], weight["elbo"] * torch.sigmoid(2 - gamma.log()))
    assert torch.allclose(
        weight["edm"], Network(process, torch.nn.Identity()).loss_weight(t, like)
    )


def test_an_unknown_weight_is_refused():
    with pytest.raises(InputError, match="no loss weight is called 'flat'"):
        loss_weight("flat", VP(), torch.tensor([0.5]), torch.zeros(1, 1))


def test_a_loss_of_uniform_times_is_estimated_from_any_law_of_times(generator):
    """int_0^1 w(t) E (x - xhat)^2 dt by quadrature, and from the draws of a NoiseLaw."""
    process = polynomial(2.0)
    law = NoiseLaw(process, math.sqrt(VARIANCE))
    t, weight, _ = law.draw(4000, generator)

    def integrand(t):
        gamma = process.gamma(t)
        w = loss_weight("sigmoid", process, t, torch.zeros(len(t), 1, dtype=torch.float64))[:, 0]
        return w * VARIANCE / (1 + gamma * VARIANCE)

    fine = torch.linspace(0, 1, 20_001, dtype=torch.float64)
    exact = float(torch.trapezoid(integrand(fine), fine))
    values = weight * integrand(t) / law.density(t)
    assert float(values.mean()) == pytest.approx(exact, rel=2e-3)  # 4000 strata
    assert float(torch.trapezoid(law.density(fine), fine)) == pytest.approx(1.0, abs=2e-3)


# --- learning ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_learned_interior_is_even_in_information_for_a_gaussian(generator):
    """The loss per unit of log gamma is v(gamma) chi^2, so that its root mean square is the rate
    of information: the schedule of least variance spends time in proportion to it."""
    process = Learned(NOISY, CLEAN, 16)
    fitting = VariationalFit(gaussian(process), schedule_lr=0.03, learn_ends=False)
    x = math.sqrt(VARIANCE) * torch.randn(20_000, 1, generator=generator)

    def spread():
        drawn = fitting.diffusion(x, torch.Generator().manual_seed(1))
        return float(drawn.var() / drawn.mean() ** 2)

    before = spread()
    for rate in (0.03,) * 100 + (0.005,) * 60:
        fitting.optimiser.param_groups[0]["lr"] = rate
        rows = torch.randint(len(x), (400,), generator=generator)
        fitting.step(x[rows], generator)
    t = torch.linspace(0, 1, 21, dtype=torch.float64)
    nats = information(process.clock(t).log().numpy())
    share = (nats - nats[-1]) / (nats[0] - nats[-1])
    assert np.abs(share - np.linspace(1, 0, 21)).max() < 0.06
    # the variance of chi^2 over its squared mean is 2 at the optimum; 3.2 to begin with
    assert before > 2.8
    assert spread() < 2.25


def test_learned_ends_lower_the_bound_to_the_entropy(generator):
    """A decoder that treats coordinates apart costs nats where the clean end is noisy."""
    process, x = Learned(-3.0, -1.0, 8), coins(1000, generator)
    model = Coin(process)

    def total():
        noise = torch.Generator().manual_seed(1)
        return evidence_bound(model, x, values=GRID, levels=32, generator=noise)

    before = total()
    fitting = VariationalFit(model, values=GRID, schedule_lr=0.1)
    for _ in range(100):
        rows = torch.randint(len(x), (128,), generator=generator)
        fitting.step(x[rows], generator)
    after = total()
    assert before.nats > 1.2 * math.log(2)
    assert float(process.noisy) < -3.5
    assert float(process.clean) > 0.5
    assert after.nats == pytest.approx(math.log(2), abs=4 * after.stderr + 0.05)
    assert not any(p.requires_grad for p in process.parameters())


def test_a_network_learns_with_its_schedule(generator):
    """Its own weights move, and no gradient is left on the schedule for other loops."""
    process = Learned(-5.0, 3.0, 4)
    network = Network(process, ResidualMLP((4,), 16, 1))
    x = coins(64, generator)
    before = [p.clone() for p in network.parameters()]
    VariationalFit(network, values=GRID).step(x, generator)
    moved = [bool((p != q).any()) for p, q in zip(network.parameters(), before, strict=True)]
    theirs = {id(p) for p in process.parameters()}
    flags = [m for m, p in zip(moved, network.parameters(), strict=True) if id(p) in theirs]
    assert all(flags)
    assert sum(moved) > len(flags)
    assert not any(p.requires_grad for p in process.parameters())


def test_another_process_has_no_schedule_to_learn():
    with pytest.raises(InputError, match="only a Learned process"):
        VariationalFit(gaussian(VP()))
