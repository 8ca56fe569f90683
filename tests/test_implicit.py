"""A diffusion behind a flow: its bound, its process in data space, its two settings."""

from __future__ import annotations

import math

import pytest
import torch

from reverie import bound
from reverie.denoisers import Linear
from reverie.errors import InputError
from reverie.flows import Flow, Identity, ImplicitDiffusion, couplings, fit_implicit
from reverie.processes import VP


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n=4000, seed=0):
    return math.sqrt(0.4) * torch.randn(n, 2, generator=noise(seed))


class Bent(Flow):
    """x = sinh z, coordinate by coordinate: all derivatives are known."""

    def forward(self, x, told=None):
        return torch.asinh(x), -0.5 * torch.log1p(x.square()).sum(1)

    def inverse(self, z, told=None):
        return torch.sinh(z), torch.cosh(z).log().sum(1)


def test_without_a_flow_it_is_the_plain_bound():
    x = rows(500)
    linear = Linear.fit(VP(), x)
    plain = bound(linear, x, generator=noise(1))
    found = ImplicitDiffusion(Identity(), linear, 2).bound(x, generator=noise(1))
    assert found.nats == plain.nats
    assert (found.each == plain.each).all()


def test_with_the_exact_score_the_bound_is_the_entropy():
    """z ~ N(0, .4 I): .960793 nats a coordinate; the levels of the sum leave about .001."""
    x = rows(8000)
    z = x - x.mean(0)
    model = ImplicitDiffusion(Bent(), Linear.fit(VP(), z), 2)
    found = model.bound(torch.sinh(z), generator=noise(2))
    volume = torch.cosh(z).log().sum(1).mean()  # E log |det DS| = -E log |det DT|
    entropy = 2 * 0.960793 + float(volume)
    assert abs(found.nats - entropy) < 3 * found.stderr + 0.01


def test_the_loss_is_an_unbiased_estimate_of_the_bound():
    x = rows(3000, seed=4)
    model = ImplicitDiffusion(Bent(), Linear.fit(VP(), torch.asinh(x)), 2)
    one = torch.stack([model.losses(x, noise(k)) for k in range(8)]).mean(0)
    found = model.bound(x, generator=noise(3))
    error = float(one.std() / math.sqrt(len(x)))
    assert abs(float(one.mean()) - found.nats) < 3 * math.hypot(error, found.stderr) + 0.01


def test_the_process_in_data_space_by_ito():
    """S = sinh: J = cosh z, S'' = sinh z; f = -beta / 2, g^2 = beta of the VP process."""
    model = ImplicitDiffusion(Bent(), Linear.fit(VP(), rows(100)), 2)
    x = torch.tensor([[0.5, -1.0], [2.0, 0.0]], dtype=torch.float64)
    t = 0.3
    beta, z = 0.1 + 19.9 * t, torch.asinh(x)
    drift, spread = model.drift_and_diffusion(x, t)
    assert torch.allclose(drift, torch.cosh(z) * (-0.5 * beta * z) + 0.5 * beta * torch.sinh(z))
    assert torch.allclose(spread, math.sqrt(beta) * torch.diag_embed(torch.cosh(z)))


def test_small_steps_of_that_process_have_its_moments():
    """From x_t a step of dt by Ito and one through the flow agree to first order in dt."""
    flow = couplings(2, 3, width=16).double()
    with torch.no_grad():
        for weight in flow.parameters():
            weight += 0.3 * torch.randn(weight.shape, dtype=weight.dtype, generator=noise(5))
    model = ImplicitDiffusion(flow, Linear.fit(VP(), rows(100)), 2)
    x, t, dt, n = torch.tensor([[0.4, -0.3]], dtype=torch.float64), 0.3, 1e-4, 100_000
    drift, spread = model.drift_and_diffusion(x, t)
    beta = 0.1 + 19.9 * t
    e = torch.randn(n, 2, dtype=torch.float64, generator=noise(6))
    e = torch.cat([e, -e])
    with torch.no_grad():
        z = flow(x)[0] * (1 - 0.5 * beta * dt) + math.sqrt(beta * dt) * e
        step = flow.inverse(z)[0] - x
    error = step.std(0) * dt / math.sqrt(2 * n) / dt  # antithetic pairs: far less, of the mean
    assert ((step.mean(0) - drift[0] * dt).abs() < error + 1e-5).all()
    cov = step.T @ step / (2 * n)
    assert torch.allclose(cov, spread[0] @ spread[0].T * dt, rtol=0.02, atol=1e-5)


def test_samples_of_an_exact_model_have_its_moments():
    z = rows(4000)
    model = ImplicitDiffusion(Bent(), Linear.fit(VP(), z), 2)
    made = torch.asinh(model.sample(4000, 400, generator=noise(7)))  # few steps narrow the law
    assert torch.allclose(made.mean(0), z.mean(0), atol=0.05)
    assert torch.allclose(made.std(0), z.std(0), rtol=0.06)
    far = torch.asinh(model.corrupt(torch.sinh(z), 1.0, noise(8)))
    assert torch.allclose(far.std(0), torch.ones(2), rtol=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["nll", "fid"])
def test_training_lowers_the_bound_below_the_untrained(setting):
    draw = noise(9)
    turn = 2 * math.pi * torch.rand(1000, 1, generator=draw)
    x = torch.cat([turn.cos(), turn.sin()], 1) + 0.1 * torch.randn(1000, 2, generator=draw)
    bounds = []
    for steps in (1, 60):
        model = fit_implicit(x, setting=setting, steps=steps, width=32, seed=1)
        bounds.append(model.bound(x, generator=noise(10)).nats)
        with torch.no_grad():
            back = model.flow.inverse(model.flow(x)[0])[0]
        assert float((back - x).abs().max()) < 1e-5
    assert bounds[1] < bounds[0] - 0.2


def test_what_cannot_be():
    with pytest.raises(InputError, match="choose nll or fid"):
        fit_implicit(rows(10), setting="elbo")
    with pytest.raises(InputError, match="must be at least 2"):
        fit_implicit(torch.zeros(3))
