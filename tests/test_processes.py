import math

import numpy as np
import pytest
import torch

from reverie.denoisers import PREDICTIONS, convert
from reverie.errors import InputError
from reverie.processes import (
    EDM,
    PROCESSES,
    VE,
    VP,
    Cosine,
    Custom,
    Rectified,
    SubVP,
    VariancePreserving,
    build,
)

EVERY = [VP(), SubVP(), Cosine(), VE(), EDM(), Rectified()]


def own(t):
    return 1 - 0.9 * t, 0.01 + t


@pytest.mark.parametrize("process", [*EVERY, Custom(lambda t: own(t)[0], lambda t: own(t)[1])])
def test_clock_is_inverted_exactly(process):
    t = torch.linspace(*process.t_range, 257, dtype=torch.float64)
    assert (process.time(process.clock(t)) - t).abs().max() < 1e-12
    ratio = (process.alpha(t) / process.sigma(t)).square() / process.clock(t)
    assert (ratio - 1).abs().max() < 1e-9
    assert (process.clock(t).diff() < 0).all()


def test_rebuilding_from_settings():
    for name in PROCESSES:
        process = build(name)
        again = build(name, **process.settings())
        t = torch.tensor([0.2, 0.7], dtype=torch.float64)
        assert torch.equal(process.clock(t), again.clock(t))


@pytest.mark.parametrize("process", EVERY)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_conversions_round_trip(process, kind, generator):
    clean, noise = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    low, high = process.t_range
    t = torch.linspace(low + 0.2 * (high - low), low + 0.8 * (high - low), 5, dtype=torch.float64)
    state = process.corrupt(clean, t, end=noise)
    value = convert(clean, state, t, process, "clean", kind)
    assert torch.allclose(convert(value, state, t, process, kind, "clean"), clean, atol=1e-6)
    if kind == "noise":
        assert torch.allclose(value, noise, atol=1e-6)
    if kind == "score":
        assert torch.allclose(value, -noise / process.scales(t, state)[1], atol=1e-5)
    if kind == "velocity":
        step = 1e-6
        later, earlier = (process.corrupt(clean, t + d, end=noise) for d in (step, -step))
        assert torch.allclose(value, (later - earlier) / (2 * step), rtol=1e-4, atol=1e-4)


def test_rectified_velocity_is_noise_minus_data(generator):
    process = Rectified()
    clean, noise = torch.randn(2, 4, 3, generator=generator)
    state = process.corrupt(clean, 0.3, end=noise)
    value = convert(clean, state, torch.tensor(0.3), process, "clean", "velocity")
    assert torch.allclose(value, noise - clean, atol=1e-5)


@pytest.mark.parametrize("columns", [False, True])
def test_log_kernel_is_the_gaussian_density(columns, generator):
    process = VP(shape=(3,))
    if columns:
        speed = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
        process = Custom(
            lambda t: torch.exp(-t[:, None] * speed),
            lambda t: 0.1 + t[:, None] * speed,
            shape=(3,),
        )
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    t = torch.full((2,), 0.4)
    state = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    alpha, sigma = process.scales(t, state)
    expected = torch.distributions.Normal(alpha[:, None] * x, sigma[:, None]).log_prob(
        state[:, None]
    )
    assert torch.allclose(process.log_kernel(state, x, t), expected.sum(2))


def test_reverse_with_the_truth_keeps_the_forward_law(generator):
    """x_s drawn from x_t with the true x as guess has the law of x_s given x (4 s.e.)."""
    process, n = VP(), 200_000
    x = torch.full((n, 1), 0.7, dtype=torch.float64)
    state = process.corrupt(x, 0.6, generator=generator)
    moved = process.reverse(x, state, 0.6, 0.3, generator=generator)
    alpha, sigma = process.scales(0.3, x)
    assert abs(moved.mean() - 0.7 * float(alpha)) < 4 * float(sigma) / math.sqrt(n)
    assert abs(moved.std() / float(sigma) - 1) < 4 / math.sqrt(2 * n)


def test_charge_of_a_step_is_clock_time_multiplied_by_the_rate(generator):
    process = EDM()
    x = torch.randn(6, 2, generator=generator)
    state = process.corrupt(x, 0.5, generator=generator)
    charge = process.charge(lambda s, t: 0 * s, x, state, 0.5, 0.4)
    step = float(process.clock(0.4) - process.clock(0.5))
    assert torch.allclose(charge, (0.5 * x.square().sum(1)).double() * step, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: build("nope"), "choose one of"),
        (lambda: VE(2.0, 1.0), "sigma_min < sigma_max"),
        (lambda: EDM(rho=-1), "rho"),
        (lambda: Rectified(t_min=0), "t_min"),
        (lambda: VP(t_min=0.5, t_max=0.1), "t_range"),
        (lambda: Custom(lambda t: t, lambda t: 1 - t), "decrease"),
        (lambda: Custom(lambda t: 1 + 0 * t, lambda t: t.log()), "finite|decrease"),
        (lambda: VP().sample_prior(3), "shape"),
    ],
)
def test_bad_settings_get_one_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_levels_broadcast_over_data_axes():
    process, x = EDM(), torch.zeros(3, 1, 4, 4)
    assert process.scales(0.5, x)[1].shape == (1, 1, 1, 1)
    assert process.scales(torch.tensor([0.1, 0.2, 0.3]), x)[1].shape == (3, 1, 1, 1)
    assert process.corrupt(x, torch.tensor([0.1, 0.2, 0.3])).shape == x.shape


def test_ddim_coefficients_in_the_limits():
    """eta = 0 keeps the noise direction; a step to a much cleaner level returns the guess."""
    process = VP()
    kept, guess, noise = process.step(0.5, 0.2, eta=0.0)
    now, then = process.sigma(torch.tensor([0.5, 0.2], dtype=torch.float64))
    assert np.isclose(float(kept), float(then / now))
    assert float(noise) == 0
    assert np.isclose(
        float(guess),
        float(
            process.alpha(torch.tensor([0.2]).double())
            - kept * process.alpha(torch.tensor([0.5]).double())
        ),
    )


def test_a_log_ratio_is_a_whole_variance_preserving_process():
    """log gamma = -2 logit(t) is that of alpha^2 = (1 - t)^2 / (t^2 + (1 - t)^2)."""

    class Logit(VariancePreserving):
        def log_gamma(self, t):
            return -2 * t.logit()

    process, t = Logit((0.01, 0.99)), torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    size = (t.square() + (1 - t).square()).sqrt()
    torch.testing.assert_close(process.alpha(t), (1 - t) / size)
    torch.testing.assert_close(process.sigma(t), t / size)
    torch.testing.assert_close(process.time(process.clock(t)), t)
    with pytest.raises(TypeError, match="Half lacks log_gamma"):

        class Half(VariancePreserving):
            pass
