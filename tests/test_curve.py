import json
import math

import numpy as np
import pytest
import torch

from conftest import TwoPoint, two_point_mmse
from reverie.curve import LossCurve, measure
from reverie.denoisers import Linear
from reverie.errors import InputError
from reverie.processes import EDM, Custom


def gaussian_curve(spectrum, u):
    lam = np.asarray(spectrum)
    return LossCurve(u, 0.5 * (lam / (1 + u[:, None] * lam)).sum(1), dim=len(lam))


def test_half_the_area_of_the_two_point_mmse_is_log_two():
    u = np.geomspace(1e-6, 200, 600)
    curve = LossCurve(u, 0.5 * two_point_mmse(u))
    assert abs(curve.entropy() - math.log(2)) < 1e-6


def test_area_is_the_gaussian_information():
    u = np.geomspace(1e-3, 1e4, 200)
    curve = gaussian_curve([3.0, 0.5], u)
    exact = 0.5 * np.log1p(u[[0, -1], None] * [3.0, 0.5]).sum(1)
    assert abs(curve.area() - np.diff(exact)[0]) < 1e-5
    middle = 0.5 * np.log1p(np.array([[0.1], [10.0]]) * [3.0, 0.5]).sum(1)
    assert abs(curve.area(0.1, 10.0) - np.diff(middle)[0]) < 1e-5
    assert np.isclose(curve.area(10.0, 0.1), -curve.area(0.1, 10.0))


def test_cross_entropy_of_a_gaussian_point():
    """-log p of N(0, 1.7) at x = .9 is 1.422488 (spec schedules 4.1): pointwise I-MMSE."""
    u, var, x = np.geomspace(1e-7, 1e8, 1500), 1.7, 0.9
    gain = u * var / (1 + u * var)
    rate = 0.5 * ((1 - gain) ** 2 * x**2 + gain**2 / u)
    assert abs(LossCurve(u, rate).cross_entropy(np.array([1.0])) - 1.422488) < 2e-5


def test_area_between_two_models_is_their_kl():
    """KL(N(0,1.7) || N(0,.6)) = .395940 as a difference of two loss curves (spec 4.4)."""
    u = np.geomspace(1e-7, 1e8, 1500)
    one = torch.ones(1, dtype=torch.float64)
    law, model = (Linear(EDM(), 0 * one, v * one, torch.eye(1).double()) for v in (1.7, 0.6))
    right = LossCurve(u, law.exact_rate(u))
    wrong = LossCurve(u, model.exact_rate(u, 0 * one, 1.7 * torch.eye(1).double()))
    assert abs(wrong.area() - right.area() - 0.395940) < 1e-5


def test_measured_curve_of_the_exact_denoiser(generator):
    data = torch.randint(0, 2, (4000, 1), generator=generator).float() * 2 - 1
    curve = measure(TwoPoint(EDM(0.2, 20)), data, 40, generator=generator)
    exact = 0.5 * two_point_mmse(curve.u)
    usual = exact > 0.01  # below, errors are too rare in 4000 rows for a Gaussian interval
    assert (np.abs(curve.rate - exact)[usual] < 5 * curve.stderr[usual]).all()  # 40 levels
    assert curve.count == 4000
    assert curve.dim == 1


def test_measuring_in_blocks_changes_nothing(generator):
    data = torch.randn(50, 3, generator=generator)
    linear = Linear.fit(EDM(), data)
    whole = measure(linear, data, 8, generator=torch.Generator().manual_seed(1), keep_samples=True)
    assert whole.per_sample is not None
    assert whole.per_sample.shape == (50, 8)
    assert np.allclose(whole.per_sample.mean(0), whole.rate, rtol=1e-4)
    scatter = np.cov((whole.per_sample * whole.weights).T) / 50
    assert np.allclose(whole.covariance, scatter, rtol=1e-3, atol=1e-3 * np.abs(scatter).max())
    assert np.allclose(whole.stderr, whole.per_sample.std(0, ddof=1) / math.sqrt(50), rtol=1e-4)
    parts = measure(linear, data, 8, generator=torch.Generator().manual_seed(1), batch_size=7)
    assert (np.abs(parts.rate - whole.rate) < 5 * whole.stderr).all()


def test_leak_of_the_gaussian_mean_model(generator):
    """Model N(mean of n points, I) on N(0, I): the leak is d/n nats in expectation (DESIGN 1).

    Given the training set it is half the difference of mean square distances, exactly.
    """
    n, d = 40, 5
    train = torch.randn(n, d, dtype=torch.float64, generator=generator)
    fresh = torch.randn(20_000, d, dtype=torch.float64, generator=generator)
    model = Linear(EDM(1e-3, 1e3), train.mean(0), torch.ones(d).double(), torch.eye(d).double())
    kwargs = dict(levels=160, generator=generator)
    leak = measure(model, train, **kwargs).leak(measure(model, fresh, **kwargs))
    square = [(a - train.mean(0)).square().sum(1).mean() for a in (fresh, train)]
    assert abs(leak.nats - 0.5 * float(square[0] - square[1])) < 4 * leak.stderr
    assert leak.low < leak.nats < leak.high
    expected = np.mean(
        [
            0.5
            * float(
                ((x := torch.randn(n, d)) - x.mean(0)).square().sum(1).mean() * -1
                + d
                + x.mean(0).square().sum()
            )
            for _ in range(2000)
        ]
    )
    assert abs(expected - d / n) < 4 * math.sqrt(d / (2 * n)) / math.sqrt(2000)


def test_paired_leak_uses_the_rows(generator):
    data = torch.randn(200, 3, generator=generator)
    good = Linear(EDM(), torch.zeros(3), torch.ones(3), torch.eye(3))
    bad = Linear(EDM(), torch.zeros(3), 0.9 * torch.ones(3), torch.eye(3))
    curves = [
        measure(m, data, 12, generator=torch.Generator().manual_seed(3), keep_samples=True)
        for m in (good, bad)
    ]
    paired = curves[0].leak(curves[1])
    assert paired.stderr < 0.5 * curves[0].area_stderr()


def test_monotone_repair_only_lowers_and_keeps_monotone_curves():
    u = np.geomspace(0.1, 10, 30)
    smooth = gaussian_curve([1.0], u)
    assert np.allclose(smooth.monotone().rate, smooth.rate)
    bumpy = LossCurve(u, smooth.rate + 0.05 * (-1.0) ** np.arange(30), np.full(30, 0.05))
    fixed = bumpy.monotone()
    assert (np.diff(fixed.rate) <= 1e-12).all()


def test_json_round_trip(generator):
    curve = measure(TwoPoint(EDM(0.2, 20)), torch.ones(20, 1), 6, generator=generator, label="a")
    again = LossCurve.from_json(json.dumps(curve.to_json()))
    assert np.array_equal(again.u, curve.u)
    assert np.array_equal(again.rate, curve.rate)
    assert np.allclose(again.covariance, curve.covariance, rtol=1e-5)
    assert again.label == "a"


def test_several_clocks_give_one_column_each(generator):
    """Independent coordinates noised at two speeds: each column is its own Gaussian rate and the
    area is the sum of two informations."""
    process = Custom(
        lambda t: torch.ones(len(t), 2, dtype=torch.float64),
        lambda t: torch.stack([0.1 + 5 * t, 0.05 + 3 * t], 1),
        shape=(2,),
        t_range=(0, 1),
    )
    linear = Linear(
        process, torch.zeros(2).double(), torch.tensor([1.0, 4.0]).double(), torch.eye(2).double()
    )
    data = torch.randn(3000, 2, dtype=torch.float64, generator=generator) * torch.tensor(
        [1.0, 2.0]
    )
    curve = measure(linear, data, 80, generator=generator)
    assert curve.u.shape == curve.rate.shape == (80, 2)
    variance = np.array([1.0, 4.0])
    exact = 0.5 * variance / (1 + curve.u * variance)
    assert (np.abs(curve.rate - exact) < 5 * curve.stderr).all()
    information = 0.5 * np.log1p(curve.u[[0, -1]] * variance).sum(1)
    area = LossCurve(curve.u, exact).area()
    assert abs(area - (information[1] - information[0])) < 2e-3
    assert abs(curve.area() - area) < 4 * curve.area_stderr() + 2e-3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LossCurve([1, 2], [1]), "one shape"),
        (lambda: LossCurve([1, 2], [1, np.nan]), "rate is not finite at level 1"),
        (lambda: LossCurve([2, 1], [1, 1]), "increase"),
        (lambda: LossCurve([1, 2], [1, 1]).leak(LossCurve([1, 3], [1, 1])), "same levels"),
        (lambda: measure(TwoPoint(EDM()), torch.zeros(0, 1)), "at least one row"),
        (lambda: measure(TwoPoint(EDM()), torch.tensor([[0.0], [math.nan]])), "row 1"),
        (lambda: measure(TwoPoint(EDM(), math.nan), torch.ones(2, 1)), "not finite"),
    ],
)
def test_bad_curves_get_one_sentence(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_plot_has_labels_and_units(two_point_curve):
    ax = two_point_curve.plot(label="two points")
    assert "clock" in ax.get_xlabel()
    assert "nats" in ax.get_ylabel()
    import matplotlib.pyplot as plt

    plt.close("all")


def test_measure_takes_arrays_bytes_and_doubles_and_switches_dropout_off():
    from torch import nn

    from reverie.denoisers import as_denoiser

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.drop = nn.Dropout(0.5)

        def forward(self, x, t):
            return self.drop(self.scale * x)

    module = Noisy().train()
    denoiser = as_denoiser(module, EDM(0.1, 1))
    data = np.random.default_rng(0).integers(0, 9, (30, 2)).astype(np.uint8)
    seeded = [torch.Generator().manual_seed(0) for _ in range(2)]
    first = measure(denoiser, data, 4, generator=seeded[0])
    again = measure(denoiser, torch.as_tensor(data).double(), 4, generator=seeded[1])
    assert np.allclose(first.rate, again.rate)
    assert module.training
    assert module.drop.training
