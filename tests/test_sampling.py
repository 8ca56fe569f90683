import itertools

import numpy as np
import pytest
import torch
from torch import nn

from reverie.denoisers import Denoiser, Linear, as_denoiser
from reverie.errors import InputError
from reverie.processes import EDM, VP, Rectified
from reverie.sampling import Churn, sample

C2 = 0.49


def gaussian(process):
    one = torch.ones(1, dtype=torch.float64)
    return Linear(process, 0 * one, C2 * one, torch.eye(1, dtype=torch.float64))


def grid(process, steps, ends=(20.0, 0.05)):
    gamma = torch.logspace(*(-2 * np.log10(ends)), steps + 1, dtype=torch.float64)
    return process.time(gamma)


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
    with pytest.raises(InputError, match="no sampler of Hidden"):
        sample(Model(), 50, torch.linspace(1, 0, 20).double(), "heun", shape=(1,))


def test_what_sample_does_not_take_is_refused():
    """A keyword that is no option, and sigmas in the place of process times."""
    model = Linear.fit(EDM(0.02, 40), torch.randn(50, 2, generator=torch.Generator()))
    times = torch.tensor([1.0, 0.5, 0.0])
    with pytest.raises(InputError, match="takes no 'seed'"):
        sample(model, 5, times, shape=(2,), seed=1)
    with pytest.raises(InputError, match="not sigmas"):
        sample(model, 5, torch.tensor([80.0, 1.0, 0.02]), shape=(2,))
