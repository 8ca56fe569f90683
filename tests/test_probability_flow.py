"""The adaptive probability-flow ODE and its likelihood, against closed forms."""

import math
import sys

import pytest
import torch

from reverie.denoisers import Memoriser
from reverie.errors import InputError
from reverie.information.flow import flow_density
from reverie.processes import EDM, VE, VP, Rectified
from reverie.sampling import sample
from solver_laws import Mixture, gaussian, grid, variances


@pytest.mark.parametrize("process", [VE(0.05, 20), VP(t_min=1e-3), Rectified(0.03, 0.95)])
def test_the_adaptive_ode_follows_the_exact_flow(process):
    pytest.importorskip("torchdiffeq")
    times = torch.tensor(process.t_range[::-1], dtype=torch.float64)
    init = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    first, last = sample.trajectory(gaussian(process), 5, times, "ode", init=init)
    start, end = variances(process, times).tolist()
    assert torch.allclose(last.state, init * math.sqrt(end / start), rtol=1e-4)
    assert first.t == times[0]


def test_likelihood_of_a_gaussian_is_its_closed_form(generator):
    """The flow maps N(0, s_T^2) to N(0, s_T^2 (lam + s_0^2) / (lam + s_T^2)) on each axis."""
    pytest.importorskip("torchdiffeq")
    for process in (EDM(0.01, 40), VP(t_min=1e-3)):
        mix = torch.tensor([[1.0, 0.6, 0.0], [0.6, 2.0, 0.3], [0.0, 0.3, 0.5]]).double()
        x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
        low, high = (float(1 / process.clock(t)) for t in process.t_range)
        eye = torch.eye(3, dtype=torch.float64)
        law = high * (mix + low * eye) @ torch.linalg.inv(mix + high * eye)
        exact = torch.distributions.MultivariateNormal(eye[0] * 0, law).log_prob(x)
        found = flow_density(gaussian(process, mix), x, probes=None, tolerance=1e-6)
        assert torch.allclose(found.nats, exact, atol=1e-4)
        assert (found.stderr == 0).all()


def test_likelihood_by_probes_is_unbiased_with_its_standard_error(generator):
    """60 probes against the exact trace, within 4 of the standard errors it reports."""
    pytest.importorskip("torchdiffeq")
    process, mix = EDM(0.05, 20), torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    exact = flow_density(gaussian(process, mix), x, probes=None)
    found = flow_density(gaussian(process, mix), x, probes=60, generator=generator)
    assert (found.stderr > 0).all()
    assert ((found.nats - exact.nats).abs() < 4 * found.stderr).all()
    one = flow_density(gaussian(process, mix), x, probes=1, generator=generator)
    assert one.stderr.isnan().all()


def test_likelihood_of_a_mixture_by_quadrature():
    """The flow keeps quantiles in one dimension: p(x) = prior(F_T^-1(F_0(x))) F'(x), by the two
    noised mixtures' own distribution functions; 2e-4 for the integrator's tolerance."""
    pytest.importorskip("torchdiffeq")
    process, width = VE(0.05, 10.0), 0.3
    x = torch.tensor([-1.4, -1.0, -0.4, 0.1, 0.9, 1.3], dtype=torch.float64)

    def spread(sigma):
        return math.sqrt(width**2 + sigma**2)

    def cdf(y, sigma):
        return 0.5 * sum(torch.special.ndtr((y - m) / spread(sigma)) for m in (-1, 1))

    def log_density(y, sigma):
        each = [torch.distributions.Normal(m, spread(sigma)).log_prob(y) for m in (-1.0, 1.0)]
        return torch.stack(each).logsumexp(0) - math.log(2)

    low, high = torch.full_like(x, -60), torch.full_like(x, 60)
    for _ in range(80):  # where the flow has taken x at the noisy end
        middle = 0.5 * (low + high)
        above = cdf(middle, 10.0) > cdf(x, 0.05)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    prior = torch.distributions.Normal(0.0, 10.0)
    exact = prior.log_prob(low) + log_density(x, 0.05) - log_density(low, 10.0)
    found = flow_density(Mixture(process, width), x[:, None], probes=None, tolerance=1e-7)
    assert torch.allclose(found.nats, exact, atol=2e-4)


def test_single_precision_is_as_good():
    """float32 states from sigma 80 to .002: the path itself is kept in double precision."""
    pytest.importorskip("torchdiffeq")
    process = EDM()
    times, init = torch.tensor([1.0, 0.0]).double(), torch.linspace(-80, 80, 5)[:, None]
    _, last = sample.trajectory(gaussian(process), 5, times, "ode", init=init)
    start, end = variances(process, times).tolist()
    assert last.state.dtype == torch.float32
    assert torch.allclose(last.state, init * math.sqrt(end / start), rtol=1e-3)
    found = flow_density(gaussian(process), torch.ones(2, 1), probes=None)
    law = torch.distributions.Normal(0.0, 80 * math.sqrt(end / start))
    assert torch.allclose(found.nats, law.log_prob(torch.ones(2)).double(), atol=1e-3)


def test_likelihood_of_the_memoriser_is_a_narrow_mixtures():
    """One training row: the flow maps N(0, s_T^2) to N(x (1 - s_0/s_T), s_0^2)."""
    pytest.importorskip("torchdiffeq")
    process, row = EDM(0.1, 20), torch.tensor([[0.7, -0.3]], dtype=torch.float64)
    x = row + torch.tensor([[0.0, 0.0], [0.05, -0.1]], dtype=torch.float64)
    exact = torch.distributions.Normal(row * (1 - 0.1 / 20), 0.1).log_prob(x).sum(1)
    found = flow_density(Memoriser(process, row), x, probes=2, tolerance=1e-6)
    assert torch.allclose(found.nats, exact, atol=1e-4)


def test_probability_flow_refusals(monkeypatch):
    model, x = gaussian(EDM()), torch.zeros(2, 1)
    with pytest.raises(InputError, match="at least one"):
        flow_density(model, x, probes=0)
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    for call in (
        lambda: flow_density(model, x),
        lambda: sample(model, 2, grid(EDM(), 4), "ode", shape=(1,)),
    ):
        with pytest.raises(InputError, match=r"torchdiffeq: pip install 'reverie\[flows\]'"):
            call()
