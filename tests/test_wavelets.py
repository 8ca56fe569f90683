"""Wavelets, cascades and multiscale slots: PyWavelets, exact Gaussians, quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from reverie.cascade.wavelets import Cascade, fit_cascade, fit_multiscale
from reverie.curve import measure
from reverie.denoisers import Denoiser, Linear
from reverie.denoisers.networks.convolution import Convolutional
from reverie.denoisers.networks.multiscale import (
    Multiscale,
    averages,
    multiscale_process,
    slot_process,
)
from reverie.errors import InputError
from reverie.plan import plan_steps
from reverie.processes import EDM, VP, LogLinear
from reverie.reproduce import phi4, wavelet_steps
from reverie.sampling import sample
from reverie.spaces import Wavelet, basis_named
from reverie.spaces.filters import level_matrix, low_pass
from reverie.theory.phi4 import Chains, binder, energy
from reverie.theory.step_counts import euler_error, kl_per_mode, least_steps, outcome

KIND = torch.float64


# --- filters and transforms -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["haar", *(f"db{p}" for p in range(1, 13))])
def test_daubechies_filters_are_orthonormal_with_vanishing_moments(name):
    taps = low_pass(name)
    overlaps = np.correlate(taps, taps, "full")[len(taps) - 1 :: 2]
    assert np.allclose(overlaps, np.eye(1, len(overlaps)), atol=1e-12)
    assert taps.sum() == pytest.approx(math.sqrt(2))
    details = taps * (-1.0) ** np.arange(len(taps))
    place = np.arange(len(taps)) / len(taps)
    for power in range(len(taps) // 2):
        assert abs((details * place**power).sum()) < 1e-9


@pytest.mark.parametrize("name", ["haar", "db2", "db4", "sym5", "coif2"])
def test_transforms_are_pywavelets(name):
    pywt = pytest.importorskip("pywt")
    x = np.random.default_rng(0).standard_normal((3, 32, 64))
    averages, (vertical, horizontal, diagonal) = pywt.dwt2(x, name, mode="periodization")
    modes = Wavelet((3, 32, 64), name, 1).to_modes(torch.from_numpy(x)[None])[0].numpy()
    assert np.allclose(modes[:, :16, :32], averages)
    assert np.allclose(modes[:, 16:, :32], vertical)
    assert np.allclose(modes[:, :16, 32:], horizontal)
    assert np.allclose(modes[:, 16:, 32:], diagonal)
    line = np.random.default_rng(1).standard_normal(128)
    expected = np.concatenate(pywt.wavedec(line, name, mode="periodization", level=2))
    assert np.allclose(
        basis_named(f"{name}/2", (128,)).to_modes(torch.from_numpy(line)[None]), expected
    )


def test_wavelets_that_are_not_orthonormal_are_refused(monkeypatch):
    pytest.importorskip("pywt")
    for name in ("bior2.2", "dmey", "nonsense"):
        with pytest.raises(InputError, match="no orthonormal wavelet"):
            low_pass(name)
    with pytest.raises(InputError, match="odd"):
        level_matrix(low_pass("haar"), 5)


def test_other_wavelets_name_their_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(InputError, match=r"reverie\[wavelets\]"):
        low_pass("sym5")


# --- multiscale -------------------------------------------------------------------------------


def test_log_linear_reaches_its_ends_and_inverts():
    process = LogLinear()
    t = torch.tensor([1e-3, 0.5005, 1.0], dtype=KIND)
    assert torch.allclose(process.clock(t).log(), torch.tensor([10.0, 0, -10], dtype=KIND))
    assert torch.allclose(process.time(process.clock(t)), t)
    assert torch.allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, torch.ones(3).double())


def test_every_scale_reaches_noise_at_the_end_of_its_slot():
    """Log-SNR of scale k from 10 at t = .001 to -10 at k / K (Batzolis et al. 2022)."""
    process = multiscale_process((1, 8, 8), 4)
    bands = process.basis.bands.flatten()
    for band in range(4):
        t = torch.tensor([1e-3, (4 - band) / 4], dtype=KIND)
        level = process.gamma(t).flatten(1)[:, bands == band].log()
        assert torch.allclose(level, torch.tensor([[10.0], [-10.0]], dtype=KIND).expand_as(level))


class Counting(Denoiser):
    """Counts the coordinates that its denoiser sees."""

    def __init__(self, denoiser):
        super().__init__()
        self.process, self.denoiser, self.seen = denoiser.process, denoiser, 0

    def forward(self, state, t, condition=None):
        self.seen += state.numel()
        return self.denoiser(state, t, condition)


def test_slots_with_exact_denoisers_sample_the_law_at_a_third_of_the_cost(generator):
    """Exact on a Gaussian up to e^-10 of the dropped scales; pixels 3.01 times fewer for K = 4."""
    shape, scales, n = (1, 8, 8), 4, 3000
    x = torch.randn(n, *shape, dtype=KIND, generator=generator)
    x = x + 0.7 * x.roll(1, 2) + 0.7 * x.roll(1, 3)
    process = multiscale_process(shape, scales)
    slots = [
        Counting(
            Linear.fit(slot_process(shape, scales, k + 1), averages(process, x, k))
        )
        for k in range(scales)
    ]  # fmt: skip
    model = Multiscale(process, slots)
    times = torch.linspace(1, 1e-3, 81, dtype=KIND)[:-1]
    times = torch.cat([times, times.new_tensor([1e-3])])
    drawn = sample(model, 1000, times, "dpm++2m", generator=generator, dtype=KIND)
    expected, found = (v.flatten(1).T.cov() for v in (x, drawn))
    scale = expected.diag()
    # 5 standard errors of 1000 draws, and the bias of 80 steps
    allowed = 5 * torch.sqrt((torch.outer(scale, scale) + expected**2) / 1000)
    assert (torch.abs(found - expected) < allowed + 0.05 * scale.max()).all()
    plain = 81 * 1000 * 64
    assert plain / sum(slot.seen for slot in slots) == pytest.approx(3.01, rel=0.03)


def test_slots_train_and_have_a_curve(generator):
    images = torch.randn(64, 1, 8, 8, generator=generator)
    model = Multiscale.build(images, 2, lambda shape: Convolutional(1, width=8, depth=1))
    before = [p.clone() for p in model.parameters()]
    seen = list(fit_multiscale(model, images, 3, batch_size=16, generator=generator))
    assert seen == [(slot, step) for slot in (1, 2) for step in range(3)]
    changed = [(a != b).any() for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(map(int, changed)) > len(before) / 2
    curve = measure(model, images, 8, generator=generator)
    assert curve.u.shape == (8, 2)
    assert plan_steps(curve, 5).excess > 0


def test_multiscale_refusals():
    with pytest.raises(InputError, match="at least two scales"):
        multiscale_process((1, 8, 8), 1)
    slot = Linear(
        slot_process((1, 8, 8), 2, 1), torch.zeros(1, 8, 8), torch.ones(64), torch.eye(64)
    )
    with pytest.raises(InputError, match="slot 2"):
        Multiscale(multiscale_process((1, 8, 8), 2), [slot, slot])


# --- cascade ----------------------------------------------------------------------------------


class Exact(nn.Module):
    """A body that makes a Network the exact denoiser of a Gaussian given a linear condition."""

    def __init__(self, data, told):
        super().__init__()
        flat = data.flatten(1)
        inputs = flat.new_zeros(len(flat), 1) if told is None else told.flatten(1)
        self.weight = torch.linalg.lstsq(inputs, flat).solution if told is not None else None
        rest = flat if told is None else flat - inputs @ self.weight
        self.covariance = rest.T @ rest / len(rest)

    def forward(self, x, level, told=None):
        spread = (4 * level[0]).exp()  # sigma / alpha
        total = (spread**2 + 1).sqrt()
        view = (x * total).flatten(1)
        mean = 0 if told is None else told.flatten(1) @ self.weight
        noised = self.covariance + spread**2 * torch.eye(view.shape[1], dtype=KIND)
        clean = mean + (view - mean) @ torch.linalg.solve(noised, self.covariance)
        raw = (clean - view / total**2) * total / spread
        return raw.reshape(x.shape)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_an_exact_cascade_samples_the_joint_law(wavelet, generator):
    """Gaussian images: conditionals that are exact give the whole covariance back."""
    n = 4000
    x = torch.randn(n, 1, 8, 8, dtype=KIND, generator=generator)
    x = x + 0.7 * x.roll(1, 2) + 0.7 * x.roll(1, 3)
    x = x - x.mean(0)
    cascade = Cascade(x, EDM(0.02, 40), wavelet, 2).double()
    for network, scale in zip(cascade.networks, cascade.scales(x), strict=True):
        network.body = Exact(scale.data, scale.condition)
    times = torch.linspace(1, 0, 61, dtype=KIND)
    drawn = cascade.sample(1500, times, "dpm++2m", generator=generator, dtype=KIND)
    assert drawn.shape == (1500, 1, 8, 8)
    expected, found = (v.flatten(1).T.cov() for v in (x, drawn))
    scale = expected.diag()
    allowed = 5 * torch.sqrt((torch.outer(scale, scale) + expected**2) / 1500)
    assert (torch.abs(found - expected) < allowed + 0.02 * scale.max()).all()


def test_scales_are_standardised_and_carry_all_the_energy(generator):
    x = torch.randn(50, 2, 8, 8, dtype=KIND, generator=generator).cumsum(3)
    cascade = Cascade(x, EDM(), "db2", 2).double()
    scales = cascade.scales(x)
    assert [tuple(s.data.shape[1:]) for s in scales] == [(2, 2, 2), (6, 2, 2), (6, 4, 4)]
    for scale in scales:
        assert torch.allclose(scale.data.std((0, 2, 3)), torch.ones(scale.data.shape[1]).double())
    assert torch.equal(scales[0].data, scales[1].condition)
    total = sum(
        (s.data * d.deviation + d.mean).square().sum()
        for s, d in zip(scales, [cascade.averages[0], *cascade.details], strict=True)
    )
    assert total == pytest.approx(float(x.square().sum()))


def test_a_cascade_learns_to_use_what_it_is_told(generator):
    """Details that are a function of the averages: told others, it does worse."""
    coarse = torch.randn(400, 1, 4, 4, generator=generator)
    x = Wavelet((1, 8, 8), "haar", 1).from_modes(torch.cat([
        torch.cat([coarse, coarse.abs()], 3), torch.cat([-coarse, coarse.cos()], 3)], 2,
    ))  # fmt: skip
    cascade = Cascade(
        x,
        EDM(0.05, 20),
        "haar",
        1,
        lambda c, given: Convolutional(c, condition=given, width=16, depth=1),
    )
    for _ in fit_cascade(cascade, x, 200, batch_size=64, lr=1e-2, generator=generator):
        pass
    scale, network = cascade.scales(x)[1], cascade.networks[1]
    state = torch.randn(400, 3, 4, 4, generator=generator) * 20
    told, mistold = (
        (network(state, torch.tensor(1.0), c).detach() - scale.data).square().mean()
        for c in (scale.condition, scale.condition.roll(1, 0))
    )
    assert told < 0.6 * mistold
    curve = measure(network, scale.data, 12, condition=scale.condition, generator=generator)
    assert plan_steps(curve, 4).excess > 0


def test_cascade_refusals(generator):
    x = torch.randn(10, 1, 8, 8, generator=generator)
    with pytest.raises(InputError, match="images"):
        Cascade(x[:, 0], EDM())
    with pytest.raises(InputError, match="halves 3 times"):
        Cascade(x, EDM(), depth=4)
    with pytest.raises(InputError, match="constant"):
        Cascade(torch.zeros(4, 1, 4, 4), EDM())
    cascade = Cascade(x, EDM())
    with pytest.raises(InputError, match="for 2 scales"):
        cascade.sample(3, [torch.linspace(1, 0, 3)], generator=generator)
    with pytest.raises(InputError, match="condition of 1 channels"):
        cascade.networks[1](torch.zeros(2, 3, 4, 4), torch.tensor(0.5))


def test_a_periodic_network_commutes_with_shifts(generator):
    body = Convolutional(2, condition=1, width=8, depth=2, periodic=True)
    for parameter in body.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    x, told = (torch.randn(3, c, 8, 8, generator=generator) for c in (2, 1))
    level = torch.randn(3, generator=generator)
    moved = body(x.roll((3, 2), (2, 3)), level, told.roll((3, 2), (2, 3)))
    assert torch.allclose(moved, body(x, level, told).roll((3, 2), (2, 3)), atol=1e-4)


# --- steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["euler", "ancestral"])
def test_outcome_is_the_recursion_and_the_ancestral_one_the_samplers(sampler, generator):
    """Step by step in scalars; the ancestral steps also against the package's own coefficients."""
    times, lam, mu = np.array([2.0, 1.1, 0.5, 0.2, 0.0]), 0.4, 0.7
    variance, mean = 1.0, 0.0
    process = VP(4.0, 4.0, 1e-4, 1.0)  # alpha = e^(-2 t): an OU time of 2 is t = 1
    for t, s in itertools.pairwise(times):
        alpha, noised = math.exp(-t), 1 + math.exp(-2 * t) * (lam - 1)
        if sampler == "euler":
            d = t - s
            kept, moved, noise = 1 + d * (1 - 2 / noised), 2 * d * alpha * mu / noised, 2 * d
        else:
            if s > 0:
                a, b, c = (float(v) for v in process.step(t / 2, s / 2))
            else:
                a, b, c = 0.0, 1.0, 0.0
            gain = alpha * lam / noised
            kept, moved, noise = a + b * gain, b * (mu - gain * alpha * mu), c**2
        variance, mean = kept**2 * variance + noise, kept * mean + moved
    found = outcome(np.array([lam]), times, sampler)
    assert found.variance[0] == pytest.approx(variance, rel=1e-9)
    assert mu * found.mean[0] == pytest.approx(mean, rel=1e-9)


def test_kl_is_the_gaussian_one():
    lam, v, c, mu = 0.5, 0.8, 0.9, 1.3
    data, drawn = (
        torch.distributions.Normal(torch.tensor(m).double(), torch.tensor(s).double().sqrt())
        for m, s in ((mu, lam), (c * mu, v))
    )
    expected = torch.distributions.kl_divergence(data, drawn)
    found = outcome(np.array([lam]), np.array([1.0, 0.0]))._replace(
        variance=np.array([v]), mean=np.array([c])
    )
    assert kl_per_mode(np.array([lam]), found, mu**2) == pytest.approx(float(expected))


def test_the_first_order_error_of_euler():
    """Against 40,000 steps over T = 12, and the formula's values."""
    lam = np.array([0.1, 0.5, 2.0, 10.0])
    assert np.allclose(euler_error(lam), [0.98721, 0.82671, -0.38629, -11.7921], atol=1e-4)
    assert euler_error(np.array([1.0])) == pytest.approx(0.5)
    times = 12 * np.arange(40_000, -1, -1) / 40_000
    measured = (outcome(lam, times).variance - lam) * 40_000 / 12
    assert np.allclose(measured, euler_error(lam), rtol=3e-3)


def test_least_steps_is_the_least():
    assert least_steps(lambda n: 1 / n, 0.1) == 10
    assert least_steps(lambda n: 0.0, 0.1) == 2
    with pytest.raises(InputError, match="no number"):
        least_steps(lambda n: 1.0, 0.1)


def test_uniform_steps_of_the_plain_model_are_the_known_ones():
    """431, 861, 1722, 3444 and 45, 64, 91, 128, counted before on a grid of powers of 2^(1/8)."""
    for side, slow, quick in zip((32, 64, 128, 256), *_known(), strict=True):
        law = wavelet_steps.models_of(side)["plain"][0]
        assert law.variance.max() / law.variance.min() == pytest.approx(1 + (side / 2) ** 2)
        for make, known in ((wavelet_steps.uniform, slow), (wavelet_steps.quadratic, quick)):
            found = wavelet_steps.steps_for(law, make, "euler")
            assert wavelet_steps.on_grid(found) == known
            assert found == pytest.approx(known, rel=0.05)


def _known():
    return wavelet_steps.PLAIN, wavelet_steps.QUADRATIC


def test_wavelet_steps_do_not_grow_and_are_the_known_ones():
    """38 to 45 for the details, whose condition number is 4; 128 and 108 for the averages."""
    for wavelet, coarsest in wavelet_steps.COARSEST.items():
        coarse, details = wavelet_steps.wavelet_laws(128, wavelet)
        conditions = [law.variance.max() / law.variance.min() for law in details]
        assert max(conditions) == pytest.approx(4.0, abs=0.02)
        worst = max(wavelet_steps.steps_for(d, wavelet_steps.uniform, "euler") for d in details)
        assert 38 <= worst <= 45
        found = wavelet_steps.steps_for(coarse, wavelet_steps.uniform, "euler")
        assert wavelet_steps.on_grid(found) == coarsest


def test_loss_adaptive_steps_of_the_plain_model_hardly_grow():
    counts = []
    for side in (32, 128):
        law = wavelet_steps.models_of(side)["plain"][0]
        counts.append(wavelet_steps.steps_for(law, wavelet_steps.adaptive(law), "ancestral"))
    assert counts[1] < 1.3 * counts[0] < 60


# --- the field --------------------------------------------------------------------------------


def test_chains_have_the_moments_of_a_four_site_lattice():
    """2 x 2 sites by quadrature over all four; 5 standard errors from independent chains."""
    beta, nodes = 0.6, np.linspace(-2.6, 2.6, 27)
    grid = np.stack(np.meshgrid(*[nodes] * 4, indexing="ij")).reshape(2, 2, -1).transpose(2, 0, 1)
    energies = energy(grid, beta)
    weight = np.exp(-(energies - energies.min()))
    weight /= weight.sum()
    chains = Chains(20_000, 2, beta, seed=1)
    chains.advance(15)
    for quantity in (
        lambda f: (f**2).mean((1, 2)),
        lambda f: f[:, 0, 0] * f[:, 0, 1],
        lambda f: f[:, 0, 0] * f[:, 1, 1],
        lambda f: energy(f, beta),
    ):
        drawn = quantity(chains.fields.astype(float))
        error = drawn.std() / math.sqrt(len(drawn))
        assert abs(drawn.mean() - (weight * quantity(grid)).sum()) < 5 * error


def test_metropolis_alone_agrees_with_clusters():
    """Mean square and energy at 4 x 4 with and without flips, 5 standard errors."""
    both = []
    for flips in (True, False):
        chains = Chains(4000, 4, 0.5, seed=2)
        for _ in range(30 if flips else 120):
            if flips:
                chains.advance(1)
            else:
                chains.sweep()
        both.append(energy(chains.fields, 0.5))
    gap = both[0].mean() - both[1].mean()
    assert abs(gap) < 5 * math.sqrt(sum(e.var() / len(e) for e in both))


def test_binder_and_refusals(generator):
    normal = torch.randn(200_000, generator=generator).numpy()
    assert abs(binder(normal)) < 0.02
    assert binder(np.sign(normal)) == pytest.approx(2 / 3)
    for side in (3, 0):
        with pytest.raises(InputError, match="even"):
            Chains(2, side, 0.5)


@pytest.mark.slow
def test_binder_cumulants_cross_at_the_critical_point():
    """.68 +- .01 for sides 8 and 16, and the cumulants of independent chains there."""
    small, large = (phi4.binder_curve(side, 256, 60, seed=0) for side in phi4.SIDES)
    found = phi4.crossing(small[:, 0], large[:, 0])
    error = phi4.jackknife(
        np.array([phi4.crossing(small[:, g], large[:, g]) for g in range(1, small.shape[1])])
    )
    assert abs(found - 0.68) < 0.01
    assert error < 0.005
    for curve, known in ((small, 0.599), (large, 0.603)):
        assert abs(curve[1, 0] - known) < 4 * phi4.jackknife(curve[1, 1:]) + 0.003


def test_crossing_and_jackknife_in_closed_form(generator):
    betas = np.array(phi4.BETAS)
    assert phi4.crossing(0 * betas, (betas - 0.683) * (1 + betas)) == pytest.approx(0.683)
    x = torch.randn(16, generator=generator).double().numpy()
    means = np.array([np.delete(x, k).mean() for k in range(16)])
    assert phi4.jackknife(means) == pytest.approx(x.std(ddof=1) / 4)
    gap = phi4.largest_gap(np.array([1.0, 2.0, 3.0]), np.array([2.5, 4.0]))
    assert gap == pytest.approx(2 / 3)
