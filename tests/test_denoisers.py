import math

import numpy as np
import pytest
import torch
from torch import nn

from reverie.curve import measure
from reverie.denoisers import Linear, Memoriser, Network, ResidualMLP, as_denoiser, convert
from reverie.errors import InputError
from reverie.plan import plan_steps
from reverie.processes import EDM, VP, Custom, Rectified
from reverie.sampling import sample


def brute_force(process, data, state, t):
    weights = torch.softmax(process.log_kernel(state.double(), data.double(), t), 1)
    return (weights @ data.double().flatten(1)).reshape(state.shape)


@pytest.mark.parametrize("t", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("process", [EDM(), VP(), Rectified()])
def test_memoriser_equals_brute_force_softmax(process, t, generator):
    data = torch.randn(333, 2, 5, generator=generator) + 3
    state = process.corrupt(data[:40], t, generator=generator)
    guess = Memoriser(process, data, chunk=64)(state, torch.tensor(t))
    assert torch.allclose(guess.double(), brute_force(process, data, state, t), atol=2e-3)


def test_memoriser_stays_exact_at_the_least_noise():
    """At sigma = .002 float32 products would be off by whole nats; the guess is still exact."""
    torch.manual_seed(0)
    data = torch.randn(500, 64) + 10
    data[1] = data[0] + 1e-3  # two candidates within the noise
    state = data[:2] + 0.002 * torch.randn(2, 64)
    guess = Memoriser(EDM(), data)(state, torch.tensor(0.0))
    expected = brute_force(EDM(), data, state, torch.tensor(0.0))
    assert (guess - expected).abs().max() < 2e-6


def test_memoriser_of_several_speeds_uses_the_same_formula(generator):
    speed = torch.tensor([1.0, 3.0], dtype=torch.float64)
    process = Custom(
        lambda t: 1 - 0.5 * t[:, None] * speed / 3, lambda t: 0.1 + t[:, None] * speed, shape=(2,)
    )
    data = torch.randn(50, 2, generator=generator)
    state = process.corrupt(data[:7], 0.4, generator=generator)
    guess = Memoriser(process, data, chunk=16)(state, torch.tensor(0.4))
    assert torch.allclose(guess.double(), brute_force(process, data, state, 0.4), atol=1e-5)


def test_memoriser_log_density_is_the_mixture(generator):
    process, data = VP(), torch.randn(70, 3, generator=generator)
    state = process.corrupt(data[:9], 0.5, generator=generator)
    expected = torch.logsumexp(
        process.log_kernel(state.double(), data.double(), 0.5), 1
    ) - math.log(70)
    ours = Memoriser(process, data, chunk=32).log_density(state, 0.5)
    assert torch.allclose(ours.double(), expected, atol=1e-4)


def test_memoriser_under_ddim_returns_training_points(generator):
    """n = 200, d = 8: every sample of the deterministic sampler is a training point (spec 1.3)."""
    process = EDM(0.002, 80)
    data = torch.randn(200, 8, generator=generator)
    times = torch.linspace(1, 0, 201, dtype=torch.float64)
    for sampler in ("ddim", "ancestral"):
        drawn = sample(
            Memoriser(process, data), 300, times, sampler, shape=(8,), generator=generator
        )
        gap = torch.cdist(drawn, data, compute_mode="donot_use_mm_for_euclid_dist").min(1).values
        assert gap.max() < 1e-4


def test_memoriser_leak_grows_by_the_dimension_as_noise_falls(generator):
    """Once weights collapse the memoriser's held-out rate is E d1^2 / 2 per unit of gamma:
    its leak up to gamma grows like gamma E d1^2 / 2, which measure() must reproduce (4 s.e.)."""
    process = EDM(0.02, 80)
    train, fresh = torch.randn(2, 400, 4, generator=generator)
    memoriser = Memoriser(process, train)
    levels = np.geomspace(2e4, 2.4e4, 3)
    curve = measure(memoriser, fresh, levels, generator=generator)
    nearest = torch.cdist(fresh, train).min(1).values.square()
    assert np.allclose(curve.rate, 0.5 * nearest.mean(), rtol=0.02)
    own = measure(memoriser, train, levels, generator=generator)
    leak = own.leak(curve)
    gap = (levels[-1] - levels[0]) * 0.5 * float(nearest.mean())
    assert abs(leak.nats - gap) < 4 * leak.stderr


def test_linear_on_its_own_law_matches_every_closed_form(generator):
    """Curve, area and sampled covariance of N(mu, Sigma) (spec schedules 1.5 and 4)."""
    spectrum = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    linear = Linear(EDM(0.01, 50), mean, spectrum, basis)
    n = 20_000
    data = (
        mean
        + torch.randn(n, 3, dtype=torch.float64, generator=generator) * spectrum.sqrt() @ basis.T
    )
    curve = measure(linear, data, 96, generator=generator)
    exact = linear.exact_rate(curve.u)
    assert np.allclose(exact, 0.5 * sum(v / (1 + curve.u * v) for v in spectrum.tolist()))
    assert (np.abs(curve.rate - exact) < 5 * curve.stderr).all()  # 96 levels: 5 s.e.
    information = linear.information(curve.u[[0, -1]])
    assert abs(curve.area() - np.diff(information)[0]) < 4 * curve.area_stderr()
    ends = 0.5 * np.log1p(curve.u[[0, -1], None] * spectrum.numpy()).sum(1)
    assert np.isclose(np.diff(information)[0], ends[1] - ends[0])
    drawn = sample(
        linear,
        n,
        torch.linspace(1, 0, 400).double(),
        "ancestral",
        shape=(3,),
        generator=generator,
        dtype=torch.float64,
    )
    assert torch.allclose(drawn.T.cov(), linear.covariance(), atol=4 * 4 * math.sqrt(2 / n) + 0.03)


def test_linear_rate_on_other_data_is_exact(generator):
    data = torch.randn(60, 4, generator=generator) * torch.tensor([2.0, 1.0, 0.5, 0.1])
    other = torch.randn(20_000, 4, generator=generator)
    linear = Linear.fit(EDM(0.05, 20), data)
    exact_of = other.double().mean(0), other.double().T.cov(correction=0)
    curve = measure(linear, other, 24, generator=generator)
    exact = linear.exact_rate(curve.u, *exact_of)
    assert (np.abs(curve.rate - exact) < 4.5 * curve.stderr).all()  # 24 levels: 4.5 s.e.


def test_linear_with_fewer_rows_than_dimensions(generator):
    data = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    linear = Linear.fit(EDM(), data)
    assert linear.basis.shape == (12, 4)
    centred = data - data.mean(0)
    assert torch.allclose(linear.covariance(), centred.T @ centred / 5)


def test_linear_with_own_speeds_solves_the_normal_equations(generator):
    speed = torch.tensor([1.0, 3.0], dtype=torch.float64)
    process = Custom(
        lambda t: 1 - 0.2 * t[:, None] * speed / 3, lambda t: 0.1 + t[:, None] * speed, shape=(2,)
    )
    cov = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    spectrum, basis = torch.linalg.eigh(cov)
    linear = Linear(process, torch.zeros(2, dtype=torch.float64), spectrum, basis)
    state = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    alpha, sigma = process.scales(torch.tensor(0.5), state)
    a = torch.diag(alpha[0])
    gain = cov @ a @ torch.linalg.inv(a @ cov @ a + torch.diag(sigma[0] ** 2))
    assert torch.allclose(linear(state, torch.tensor(0.5)), state @ gain.T)


@pytest.mark.parametrize("predicts", ["clean", "noise", "velocity", "score", "v"])
@pytest.mark.parametrize("time", ["t", "sigma", "log-snr", "index"])
def test_one_line_makes_a_module_a_denoiser(predicts, time, generator):
    """A module that answers exactly, in any dialect, has the exact linear curve."""
    process = VP()
    exact = Linear(process, torch.zeros(2), torch.ones(2), torch.eye(2))

    class Answer(nn.Module):
        def forward(self, x, told):
            assert told.shape == (len(x),)
            t = self.t.expand(len(x))
            return convert(exact(x, t), x, t, process, "clean", predicts)

    module = Answer()
    denoiser = as_denoiser(module, process, predicts=predicts, time=time)
    state = torch.randn(6, 2, generator=generator)
    module.t = torch.tensor(0.4)
    assert torch.allclose(denoiser(state, module.t), exact(state, module.t), atol=1e-5)


def test_wrapping_refuses_unknown_words_and_wrong_shapes():
    with pytest.raises(InputError, match="choose one of"):
        as_denoiser(nn.Identity(), VP(), predicts="x0")
    with pytest.raises(InputError, match="choose one of"):
        as_denoiser(nn.Identity(), VP(), time="tau")

    class Wrong(nn.Module):
        def forward(self, x, t):
            return x[:, :1]

    with pytest.raises(InputError, match="returned shape"):
        as_denoiser(Wrong(), VP())(torch.zeros(2, 3), torch.tensor(0.5))


def test_network_preconditioning_returns_the_linear_optimum_at_start():
    """A zero body leaves c_skip y: the Wiener guess of isotropic data, on every process."""
    for process in (EDM(), VP(), Rectified()):
        network = Network(process, ResidualMLP((3,), 16, 1), data_std=0.7)
        exact = Linear(process, torch.zeros(3), 0.49 * torch.ones(3), torch.eye(3))
        state = torch.randn(5, 3)
        t = torch.tensor(0.5)
        assert torch.allclose(network(state, t), exact(state, t), atol=1e-5)


def test_unet_keeps_odd_image_sizes():
    pytest.importorskip("diffusers", reason="the extra diffusers is not installed")
    from reverie.denoisers.networks.unet import UNet

    torch.manual_seed(0)
    body = UNet((1, 10, 9), width=8)
    assert body(torch.zeros(2, 1, 10, 9), torch.zeros(2)).shape == (2, 1, 10, 9)
    with pytest.raises(InputError, match="images"):
        UNet((5,))


def test_curve_then_plan_of_a_users_module(generator):
    class Shrink(nn.Module):
        def forward(self, x, sigma):
            return x / (1 + sigma[:, None] ** 2)

    denoiser = as_denoiser(Shrink(), EDM(0.1, 20), predicts="clean", time="sigma")
    curve = measure(denoiser, torch.randn(500, 3, generator=generator), generator=generator)
    plan = plan_steps(curve, steps=8)
    assert sample(denoiser, 5, plan, shape=(3,), generator=generator).shape == (5, 3)


def test_the_memoriser_has_the_gradient_of_its_posterior(generator):
    """d xhat / d x_t = alpha / sigma^2 Cov(x | x_t), with the covariance by brute force."""
    process, data = VP(t_min=1e-3), torch.randn(40, 3, generator=generator)
    memoriser, t = Memoriser(process, data), torch.tensor(0.3)
    state = process.corrupt(data[:1], t, generator=generator)
    found = torch.autograd.functional.jacobian(lambda x: memoriser(x, t), state)[0, :, 0]
    alpha, sigma = process.scales(t, state)
    weights = process.log_kernel(state.double(), data.double(), t).softmax(1)[0]
    offset = data.double() - weights @ data.double()
    exact = (alpha / sigma**2).double() * (offset.T * weights) @ offset
    assert torch.allclose(found.double(), exact, atol=1e-5)
    assert torch.allclose(memoriser(state.requires_grad_(), t), memoriser(state.detach(), t))
