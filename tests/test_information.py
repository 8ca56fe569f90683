import math

import numpy as np
import pytest
import torch

from conftest import TwoPoint
from reverie.curve import LossCurve, measure
from reverie.denoisers import Denoiser, Linear
from reverie.errors import InputError
from reverie.information import (
    entropy,
    guess_gap,
    kl_divergence,
    log_density,
    log_mass,
    mutual_information,
)
from reverie.processes import EDM, VP

WIDE = EDM(0.002, 500.0)


def gaussian(variance, mean=0.0, process=WIDE):
    return Linear(
        process,
        torch.tensor([mean], dtype=torch.float64),
        torch.tensor([variance]),
        torch.eye(1, dtype=torch.float64),
    )


class Skewed(Denoiser):
    """The exact denoiser of P(1) = p, P(-1) = 1 - p."""

    def __init__(self, p, process=WIDE):
        super().__init__()
        self.process, self.p = process, p

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        odds = 0.5 * math.log(self.p / (1 - self.p))
        return torch.tanh(alpha * state / sigma**2 + odds)


class Shifted(Denoiser):
    """The exact denoiser of x | c ~ N(rho c, 1 - rho^2); without a condition of N(0, 1)."""

    def __init__(self, rho, process=WIDE):
        super().__init__()
        self.process, self.rho = process, rho

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        centre = 0.0 if condition is None else self.rho * condition
        variance = 1.0 if condition is None else 1 - self.rho**2
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return centre + gain * (state - alpha * centre)


def within(estimate, truth, slack=1e-3):
    """4 standard errors, and the quadrature of the levels."""
    return bool(np.all(np.abs(estimate.nats - truth) <= 4 * estimate.stderr + slack))


@pytest.mark.parametrize("process", [WIDE, VP()])
def test_density_of_a_gaussian(process, generator):
    """-log p(.9) = 1.422488 for N(0, 1.7), with a reference of other mean and variance."""
    model = gaussian(1.7, process=process)
    points = torch.tensor([[0.9], [-2.0]], dtype=torch.float64)
    reference = gaussian(1.2, 0.3, process)
    found = log_density(model, points, reference, draws=24, generator=generator)
    exact = -0.5 * np.log(2 * np.pi * 1.7) - points.numpy()[:, 0] ** 2 / 3.4
    assert abs(exact[0] + 1.422488) < 1e-6
    assert within(found, exact, slack=4e-3)  # the noisiest level of VP is gamma = 4e-5, of x^2
    assert (found.stderr < 0.1).all()


def test_the_reference_alone_is_exact(generator):
    """Where model and reference agree the shared noise cancels to rounding."""
    points = torch.tensor([[0.9]], dtype=torch.float64)
    found = log_density(gaussian(1.7), points, gaussian(1.7), draws=2, generator=generator)
    assert abs(found.nats[0] + 1.422488) < 1e-6
    assert found.stderr[0] < 1e-9


def test_density_of_a_mixture(generator):
    """Two Gaussians in one dimension, whose density is known."""
    modes, width = np.array([-1.0, 1.0]), 0.1

    class Mixture(Denoiser):
        process = WIDE

        def forward(self, state, t, condition=None):
            _, sigma = WIDE.scales(t, state)
            noisy = width**2 + sigma**2
            odds = torch.tanh(state / noisy)
            return (width**2 * state + sigma**2 * odds) / noisy

    points = torch.tensor([[0.9], [0.0]], dtype=torch.float64)
    model = Mixture()
    found = log_density(model, points, gaussian(1 + width**2), draws=64, generator=generator)
    x = points.numpy()
    exact = np.log(
        np.mean(np.exp(-((x - modes) ** 2) / (2 * width**2)), axis=1)
        / math.sqrt(2 * math.pi * width**2)
    )
    assert within(found, exact, slack=0.02)


def test_mass_and_entropy_of_discrete_data(generator):
    """P = (.7, .3): .356675 and 1.203973 nats; their mean is the entropy."""
    model = Skewed(0.7)
    points = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    found = log_mass(model, points, draws=64, generator=generator)
    assert within(found, [-0.356675, -1.203973])
    assert (found.stderr < 0.06).all()
    rows = torch.tensor([[1.0]] * 700 + [[-1.0]] * 300, dtype=torch.float64)
    measured = entropy(measure(model, rows, 96, generator=generator))
    assert within(measured, -(0.7 * math.log(0.7) + 0.3 * math.log(0.3)))


def test_entropy_of_a_density(generator):
    rows = math.sqrt(1.7) * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    found = entropy(measure(gaussian(1.7), rows, 96, generator=generator), np.array([1.7]))
    assert within(found, 0.5 * math.log(2 * math.pi * math.e * 1.7))
    assert math.isnan(entropy(LossCurve([1.0, 2.0], [1.0, 0.5])).stderr)


def test_mutual_information_in_both_forms(generator):
    """Correlation .8: .510826 nats."""
    c = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    x, model = 0.8 * c + 0.6 * noise, Shifted(0.8)
    second = guess_gap(model, model, x, conditions=(None, c), generator=generator)
    assert within(second, 0.510826)
    curves = [
        measure(
            model, x, 64, condition=condition, keep_samples=True,
            generator=torch.Generator().manual_seed(3),
        )
        for condition in (None, c)
    ]  # fmt: skip
    first = mutual_information(*curves)
    assert within(first, 0.510826)
    assert second.stderr < 0.05


def test_kl_between_two_models_in_both_forms(generator):
    """N(0, 1.7) against N(0, .6): .395940 nats."""
    p, q = gaussian(1.7), gaussian(0.6)
    x = math.sqrt(1.7) * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    assert within(guess_gap(p, q, x, generator=generator), 0.395940)
    curves = [
        measure(d, x, 64, keep_samples=True, generator=torch.Generator().manual_seed(3))
        for d in (p, q)
    ]
    assert within(kl_divergence(*curves), 0.395940)
    assert guess_gap(p, p, x, generator=generator).nats == 0


def test_error_bars_cover(generator):
    """95% intervals of 60 independent estimates: at least 48 hold the truth (p < 1e-4)."""
    p, q = gaussian(1.7), gaussian(0.6)
    hits = 0
    for _ in range(60):
        x = math.sqrt(1.7) * torch.randn(300, 1, generator=generator, dtype=torch.float64)
        found = guess_gap(p, q, x, levels=48, generator=generator)
        hits += found.low <= 0.395940 <= found.high
    assert hits >= 48


def test_bad_input_gets_one_sentence(generator):
    x = torch.zeros(4, 1, dtype=torch.float64)
    with pytest.raises(InputError, match="one process"):
        guess_gap(gaussian(1.0), gaussian(1.0, process=VP()), x)
    with pytest.raises(InputError, match="Linear denoiser"):
        log_density(TwoPoint(WIDE), x, TwoPoint(WIDE))
    with pytest.raises(InputError, match="at least two"):
        log_mass(TwoPoint(WIDE), x, draws=1)
    with pytest.raises(InputError, match="two rows"):
        guess_gap(gaussian(1.0), gaussian(2.0), x[:1])


def test_two_denoisers_are_of_one_process(generator):
    """Also where only the inside of the clock differs, and arrays are taken as tensors are."""
    x = torch.randn(200, 2, generator=generator)
    model = Linear.fit(EDM(0.02, 40), x)
    for other in (Linear.fit(EDM(0.02, 40, 3.0), x), Linear.fit(VP(), x)):
        with pytest.raises(InputError, match="on one process"):
            log_density(model, x, other)
        with pytest.raises(InputError, match="on one process"):
            guess_gap(model, other, x)
    assert guess_gap(model, model, x.double().numpy(), generator=generator).nats == 0
    with pytest.raises(InputError, match="at least one row"):
        guess_gap(model, model, x[:0])
