import itertools

import numpy as np
import pytest
import torch
from torch import nn

from reverie.denoisers import Denoiser, Linear, as_denoiser
from reverie.errors import InputError
from reverie.processes import EDM, VE, VP, Custom, Rectified
from reverie.sampling import Churn, sample

C2 = 0.49


def gaussian(process):
    one = torch.ones(1, dtype=torch.float64)
    return Linear(process, 0 * one, C2 * one, torch.eye(1, dtype=torch.float64))


def grid(process, steps, ends=(20.0, 0.05)):
    gamma = torch.logspace(*(-2 * np.log10(ends)), steps + 1, dtype=torch.float64)
    return process.time(gamma)


def factor(sampler, process, steps):
    """The linear map that a deterministic solver applies to a Gaussian's state."""
    state = torch.ones(1, 1, dtype=torch.float64)
    times = grid(process, steps)
    states = list(sample.states(gaussian(process), 1, times, sampler, init=state))
    alpha, sigma = (level(times[[0, -1]]) for level in (process.alpha, process.sigma))
    deviation = (alpha**2 * C2 + sigma**2).sqrt()
    return float(states[-2]), float(deviation[1] / deviation[0])


@pytest.mark.parametrize("process", [VE(0.05, 20), VP(t_min=1e-3), Rectified()])
@pytest.mark.parametrize(
    ("sampler", "low", "high"), [("ddim", 0.9, 1.1), ("heun", 1.9, 2.1), ("dpm++2m", 1.9, 2.1)]
)
def test_order_of_deterministic_solvers(sampler, low, high, process):
    """Slope of log error from K = 64 to 256 on N(0, .49), sigma 20 -> .05 (spec section 3)."""
    errors = [abs(np.subtract(*factor(sampler, process, k))) for k in (64, 256)]
    assert low < np.log(errors[0] / errors[1]) / np.log(4) < high


@pytest.mark.parametrize(
    ("sampler", "errors"),
    [
        ("ddim", (8.9e-2, 2.3e-2, 5.8e-3)),
        ("heun", (1.9e-2, 1.1e-3, 6.9e-5)),
        ("dpm++2m", (7.7e-3, 5.3e-4, 3.3e-5)),
    ],
)
def test_relative_errors_equal_the_published_ones(sampler, errors):
    for steps, figure in zip((16, 64, 256), errors, strict=True):
        ours, exact = factor(sampler, VE(0.05, 20), steps)
        assert abs(abs(ours / exact - 1) / figure - 1) < 0.05


def test_ancestral_is_first_order_in_variance():
    """Exact covariance recursion of the linear map, no Monte Carlo (spec section 3)."""
    process = VE(0.05, 20)
    errors = []
    for steps in (64, 256):
        times = grid(process, steps)
        kept, guess, noise = process.step(times[:-1], times[1:])
        variance = float(C2 + process.sigma(times[:1]) ** 2)
        for k in range(steps):
            sigma2 = float(process.sigma(times[k : k + 1]) ** 2)
            gain = float(kept[k]) + float(guess[k]) * C2 / (C2 + sigma2)
            variance = gain**2 * variance + float(noise[k]) ** 2
        errors.append(abs(variance - (C2 + float(process.sigma(times[-1:])) ** 2)))
    assert 0.9 < np.log(errors[0] / errors[1]) / np.log(4) < 1.1


def test_ancestral_is_ddim_with_eta_one_and_the_process_reverse(generator):
    process, n = VP(), 6
    model = gaussian(process)
    init = torch.randn(n, 1, dtype=torch.float64, generator=generator)
    times = grid(process, 5, (10, 0.1))

    def seeded():
        return torch.Generator().manual_seed(3)

    one = sample(model, n, times, "ancestral", init=init, generator=seeded())
    two = sample(model, n, times, "ddim", eta=1.0, init=init, generator=seeded())
    state, noise = init, seeded()
    for t, s in itertools.pairwise(times):
        state = process.reverse(model(state, t), state, t, s, generator=noise)
    three = model(state, times[-1])
    assert torch.equal(one, two)
    assert torch.allclose(one, three)


def test_deterministic_samplers_draw_no_noise(generator):
    before = generator.get_state()
    sample(
        gaussian(VP()),
        2,
        grid(VP(), 4, (10, 0.1)),
        "ddim",
        init=torch.ones(2, 1),
        generator=generator,
    )
    assert torch.equal(before, generator.get_state())


def test_samplers_reach_the_same_law_on_every_process(generator):
    """Deviation of 20,000 samples: 5 standard errors plus the first-order bias at K = 200."""
    for process in (EDM(0.02, 50), VP(t_min=1e-3), Rectified()):
        for sampler in ("ancestral", "ddim", "heun", "dpm++2m"):
            drawn = sample(
                gaussian(process),
                20_000,
                torch.linspace(*process.t_range[::-1], 201).double(),
                sampler,
                shape=(1,),
                generator=generator,
                dtype=torch.float64,
            )
            assert abs(float(drawn.std()) / C2**0.5 - 1) < 5 / 200 + 0.03, (process, sampler)


def test_churn_keeps_the_law(generator):
    drawn = sample(
        gaussian(EDM(0.02, 20)),
        20_000,
        grid(EDM(0.02, 20), 80),
        "heun",
        shape=(1,),
        churn=Churn(20.0),
        generator=generator,
        dtype=torch.float64,
    )
    assert abs(float(drawn.std()) / C2**0.5 - 1) < 0.03


def test_states_come_one_by_one_and_evaluations_are_counted(generator):
    calls = []

    class Count(nn.Module):
        def forward(self, x, t):
            calls.append(len(x))
            return 0 * x

    model = as_denoiser(Count(), EDM())
    states = list(sample.states(model, 3, torch.linspace(1, 0, 6).double(), shape=(2,)))
    assert len(states) == 6
    assert len(calls) == 6
    calls.clear()
    sample(model, 3, torch.linspace(1, 0, 6).double(), "heun", shape=(2,))
    assert len(calls) == 2 * 5 + 1


def test_coordinates_noised_at_own_speeds(generator):
    """Two speeds on correlated Gaussians: the ancestral sampler reaches the covariance."""
    process = Custom(
        lambda t: torch.ones(len(t), 2, dtype=torch.float64),
        lambda t: torch.stack([20 * t**2, 20 * t], 1),
        t_range=(0.002, 1),
        shape=(2,),
    )
    cov = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    spectrum, basis = torch.linalg.eigh(cov)
    model = Linear(process, torch.zeros(2, dtype=torch.float64), spectrum, basis)
    gamma = torch.logspace(np.log10(1 / 400), 5, 400, dtype=torch.float64)
    for sampler in ("ancestral", "ddim", "dpm++2m", "heun"):
        drawn = sample(
            model, 20_000, process.time(gamma), sampler, generator=generator, dtype=torch.float64
        )
        assert (drawn.T.cov() - cov).abs().max() < 0.08, sampler


def test_seeds_reproduce_samples():
    def draw(seed):
        return sample(
            gaussian(EDM()),
            4,
            torch.linspace(1, 0, 9).double(),
            shape=(1,),
            generator=torch.Generator().manual_seed(seed),
        )

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(sampler="euler"), "choose"),
        (dict(plan=torch.tensor([0.1, 0.5])), "decreasing"),
        (dict(shape=None), "shape"),
    ],
)
def test_bad_calls_get_one_sentence(kwargs, words):
    call = dict(plan=torch.tensor([0.9, 0.1]), sampler="ddim", shape=(1,)) | kwargs
    with pytest.raises(InputError, match=words):
        sample(gaussian(EDM()), 2, **call)


def test_a_process_of_ones_own_samples_through_reverse(generator):
    """Any Process works with the ancestral loop: here one that hides being Gaussian."""

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = EDM()

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("inner"), name)

    class Model(Denoiser):
        def __init__(self):
            super().__init__()
            self.process = Hidden()

        def forward(self, state, t, condition=None):
            return gaussian(EDM())(state, t)

    drawn = sample(Model(), 50, torch.linspace(1, 0, 20).double(), shape=(1,), generator=generator)
    assert torch.isfinite(drawn).all()
    with pytest.raises(InputError, match="Gaussian"):
        sample(Model(), 50, torch.linspace(1, 0, 20).double(), "heun", shape=(1,))
