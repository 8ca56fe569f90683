"""What scores point at: closed forms on spheres, and dimensions 0, k and d."""

import numpy as np
import pytest
import torch

from reverie.auditing.model.dimension import dimension_curve
from reverie.curve import measure
from reverie.denoisers import Denoiser, Linear, Memoriser
from reverie.errors import InputError
from reverie.processes import EDM, Masking
from reverie.theory.manifold import (
    bessel_ratio,
    jacobian_bound,
    score_bound,
    sphere_dimension,
    sphere_guess,
    sphere_spectrum,
)


def circle(n, seed=0, dim=2):
    draw = np.random.default_rng(seed).normal(size=(n, dim))
    return torch.tensor(draw / np.linalg.norm(draw, axis=1, keepdims=True)).float()


def by_quadrature(y, spread):
    """The posterior mean on the unit circle, over a fine grid of angles."""
    angle = np.linspace(0, 2 * np.pi, 20_000, endpoint=False)
    points = np.stack([np.cos(angle), np.sin(angle)], 1)
    logs = y @ points.T / spread**2
    weights = np.exp(logs - logs.max(1, keepdims=True))
    return weights @ points / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("spread", [0.05, 0.3, 1.5])
def test_the_guess_on_a_circle_and_its_jacobian(spread):
    y = np.array([[1.1, 0.0], [0.3, 0.4], [-0.2, 0.9]])
    assert sphere_guess(y, spread) == pytest.approx(by_quadrature(y, spread), abs=1e-9)
    step, radius = 1e-5, 1.1
    across, along = (
        (by_quadrature(np.array([[radius, 0.0]]) + d, spread)
         - by_quadrature(np.array([[radius, 0.0]]) - d, spread))[0, k] / (2 * step)
        for k, d in enumerate(([step, 0.0], [0.0, step]))
    )  # fmt: skip
    found = sphere_spectrum(radius, spread, 2)
    assert found.across == pytest.approx(across, abs=1e-5)
    assert found.along == pytest.approx(along, abs=1e-5)
    assert found.trace <= 2 * jacobian_bound(1, spread) + 1e-9
    score = (sphere_guess(y, spread) - y) / spread**2
    assert (
        np.linalg.norm(score, axis=1) <= score_bound(np.linalg.norm(y, axis=1), 1, spread)
    ).all()


def test_the_number_of_kept_directions_is_the_dimension_of_the_sphere():
    """-s^2 Hessian = 1 - J: (normal, tangent) (.9999, 1e-4) at s^2 = 1e-4, as published checks."""
    for dim in (2, 3, 6):
        found = sphere_spectrum(1.0, 0.01, dim)
        assert found.rank == dim - 1
        assert found.along == pytest.approx(1, abs=1e-3)
        assert found.across == pytest.approx(0, abs=1e-3)
    assert bessel_ratio(0.0, 3) == 0
    assert bessel_ratio(4.0, 3) == pytest.approx(1 / np.tanh(4) - 1 / 4)  # Langevin's function
    with pytest.raises(InputError, match="at least one"):
        bessel_ratio(1.0, 0)


class OnSphere(Denoiser):
    """The exact guess of the uniform law on the unit sphere, differentiable in R^3: Langevin's."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        y = state.double() / alpha
        radius = y.norm(dim=1, keepdim=True)
        k = radius / (sigma / alpha) ** 2
        return ((1 / torch.tanh(k) - 1 / k) * y / radius).to(state.dtype)


def test_the_dimension_is_the_loss_curve_itself():
    """tr J = 2 u rate = d - |ehat|^2, in the mean: three readings of one number."""
    process, rows = EDM(0.05, 2), circle(3000, dim=3)
    model = OnSphere(process)
    found = dimension_curve(model, rows, levels=6, rows=3000)
    curve = measure(model, rows, 6, generator=torch.Generator().manual_seed(1))
    exact = np.array([sphere_dimension(s, 3) for s in found.spread])
    assert found.trace["train"] == pytest.approx(exact, abs=0.05)
    assert found.norm["train"] == pytest.approx(exact, abs=0.12)
    assert 2 * curve.u * curve.rate == pytest.approx(exact, abs=0.12)
    assert found.trace["train"][-1] == pytest.approx(2, abs=0.05)
    assert found.rank["train"][-1] == pytest.approx(2, abs=0.05)


def test_points_a_manifold_and_the_space():
    process, rows = EDM(0.02, 5), circle(400)
    angle = 0.5 * torch.arange(12)
    few = torch.stack([angle.cos(), angle.sin()], 1)
    points = dimension_curve(Memoriser(process, few), few, rows, levels=8)
    assert points.trace["train"][-1] == pytest.approx(0, abs=0.05)
    dense = circle(20_000, 1)
    line = dimension_curve(Memoriser(process, dense), circle(100, 2), levels=6)
    assert line.trace["train"][-1] == pytest.approx(1, abs=0.2)
    assert line.rank["train"][-1] == pytest.approx(1, abs=0.2)
    cloud = torch.randn(500, 24, generator=torch.Generator().manual_seed(0))
    space = dimension_curve(Linear.fit(process, cloud), cloud, levels=5, rows=30)
    assert space.rank is None  # 24 coordinates: the trace is estimated
    assert space.trace["train"][-1] == pytest.approx(24, rel=0.05)
    assert space.trace["train"][0] < 8


def test_it_has_a_figure_and_refuses_symbols():
    process, rows = EDM(0.1, 5), circle(20)
    found = dimension_curve(Memoriser(process, rows), rows, rows, levels=3)
    assert len(found.figure().axes) == 1
    assert set(found.to_json()) == {"spread", "dim", "trace", "stderr", "norm", "rank"}
    symbols = torch.zeros(4, 3, dtype=torch.long)
    model = Memoriser(Masking(3, 3), symbols)
    with pytest.raises(InputError, match="Gaussian"):
        dimension_curve(model, symbols)
