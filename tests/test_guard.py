"""The guard: closed forms of both guesses, no alarm on exact models, mistakes named."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from reverie import as_denoiser, calibrate, guard, measure
from reverie.calibration import reference_of
from reverie.curve import LossCurve
from reverie.denoisers import Denoiser, GaussianMixture, Linear, Moments, convert
from reverie.errors import InputError
from reverie.plan.suspects import _Law, suspects
from reverie.processes import EDM, VP, Brownian, Masking, ModalProcess, Rectified, Tabulated
from reverie.spaces import Sphere

SPECTRUM = torch.tensor([4.0, 1.0, 0.3, 0.3])
MEAN = torch.tensor([2.0, -1.0, 0.0, 0.5])


def gauss(n, generator):
    return MEAN + SPECTRUM.sqrt() * torch.randn(n, 4, generator=generator)


def exact(process):
    return Linear(process, MEAN, SPECTRUM, torch.eye(4))


class Predicts(nn.Module):
    """A module that predicts `kind` of the exact linear model, in the author's conventions."""

    def __init__(self, process, kind, sign=1.0, reverse=False, error=0.0):
        super().__init__()
        self.model, self.kind = exact(process), kind
        self.sign, self.reverse, self.error = sign, reverse, error

    def forward(self, x, t):
        process = self.model.process
        t = t.double()
        if self.reverse:  # it counts from noise to data
            t = sum(process.t_range) - t
        x = x.double()
        value = convert(self.model(x, t), x, t, process, "clean", self.kind)
        return (self.sign * value + self.error).float()


def curve_of(process, rows, generator, kind, **mistake):
    denoiser = as_denoiser(Predicts(process, kind, **mistake), process, predicts=kind)
    return measure(denoiser, rows, levels=32, generator=generator)


def test_guesses_are_closed_forms(generator):
    rows, process = gauss(4000, generator), EDM(0.05, 30.0)
    found = guard(measure(exact(process), rows, levels=12, generator=generator), rows=rows)
    gamma = measure(exact(process), rows[:8], levels=12).u
    variance = float(SPECTRUM.sum())
    linear = 0.5 * (SPECTRUM.numpy() / (1 + gamma[:, None] * SPECTRUM.numpy())).sum(1)
    # 4,000 rows tell a variance to 2.2%
    np.testing.assert_allclose(found.rates["guessing the mean"], variance / 2, rtol=0.09)
    np.testing.assert_allclose(found.rates["the linear guess"], linear, rtol=0.09)
    assert found.ok
    assert "nowhere worse" in str(found)


def test_mean_guess_leaves_each_row_out(generator):
    rows = gauss(12, generator)
    curve = measure(exact(VP()), rows, levels=4, generator=generator)
    own = guard(curve, rows=rows).rates["guessing the mean"][0]
    costs = [
        0.5 * float((rows[i] - rows[torch.arange(12) != i].mean(0)).square().sum())
        for i in range(12)
    ]
    assert own == pytest.approx(np.mean(costs), rel=1e-6)


@pytest.mark.parametrize("process", [VP(), Rectified(), EDM()], ids=["vp", "rectified", "edm"])
def test_no_alarm_on_exact_models(process, generator):
    """Six fits; each may raise a false alarm once in twenty."""
    alarms = 0
    for seed in range(6):
        generator.manual_seed(seed)
        rows = gauss(200, generator)
        curve = measure(exact(process), rows, levels=32, generator=generator)
        alarms += not guard(curve, rows=rows, generator=generator).ok
    assert alarms <= 1


@pytest.mark.slow
def test_rate_of_false_alarms(generator):
    """On a mixture that is not Gaussian, at few rows and many: at most 5% of 200, and 3 s.e."""
    process = VP()
    means = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])
    shared = 0.2 * torch.eye(2).expand(2, 2, 2)
    model = GaussianMixture(process, means, shared, torch.tensor([0.5, 0.5]))
    for n in (40, 400):
        alarms = 0
        for seed in range(200):
            generator.manual_seed(seed)
            kind = torch.randint(2, (n,), generator=generator)
            rows = means[kind] + 0.2**0.5 * torch.randn(n, 2, generator=generator)
            curve = measure(model, rows, levels=24, generator=generator)
            alarms += not guard(curve, rows=rows, generator=generator).ok
        assert alarms <= 10 + 3 * 3.1


def test_amplified_noise_is_placed_and_named(generator):
    """An error e in the noise costs d e^2 / (2 gamma): the crossing with the mean is known."""
    table = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000).double(), 0)
    process = Tabulated(table)
    error = 0.2
    rows = gauss(3000, generator)
    curve = curve_of(process, rows, generator, "noise", error=error)
    found = guard(curve, rows=rows, predicts="noise")
    assert not found.ok
    (worse, *_) = found.findings
    variance = SPECTRUM.numpy()

    def gap(gamma):
        return 0.5 * (variance / (1 + gamma * variance)).sum() + 2 * error**2 / gamma - 2.8

    grid = np.geomspace(curve.u[0], curve.u[-1], 4000)
    crossing = grid[np.argmax(np.array([gap(g) for g in grid]) < 0)]
    last = curve.u[worse.levels[-1]]
    step = curve.u[1] / curve.u[0]
    # a level counts where the excess passes 5% and its errors: at most two levels short of it
    assert crossing / step**3 <= last <= crossing * step
    assert worse.ratio == pytest.approx(1 + 2 * error**2 / curve.u[0] / 2.8, rel=0.1)
    assert [s.name for s in found.suspects] == [
        "an error in the predicted noise, amplified by sigma/alpha"
    ]
    assert f"above sigma = {last**-0.5:.3g} this model is worse than guessing the mean" in str(
        found
    )
    json.dumps(found.to_json(), allow_nan=False)
    rows = rows[:1000]
    better = calibrate(
        as_denoiser(Predicts(process, "noise", error=error), process, "noise"),
        rows,
        generator=generator,
    )
    assert guard(better.calibration.held_out, rows=rows, generator=generator).ok


MISTAKES = {
    "velocity sign": ("velocity", dict(sign=-1.0)),
    "noise sign": ("noise", dict(sign=-1.0)),
    "v sign": ("v", dict(sign=-1.0)),
    "time direction": ("velocity", dict(reverse=True)),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("process", [VP(), Rectified()], ids=["vp", "rectified"])
def test_mistakes_are_named(process, name, generator):
    kind, mistake = MISTAKES[name]
    rows = gauss(400, generator)
    curve = curve_of(process, rows, generator, kind, **mistake)
    for known in (kind, None):
        found = guard(curve, rows=rows, predicts=known, generator=generator)
        assert not found.ok
        assert name in [s.name for s in found.suspects]
        if known:
            assert found.suspects[0].name == name


@pytest.mark.parametrize("kind", ["clean", "noise", "velocity", "score", "v"])
@pytest.mark.parametrize("mistake", [dict(reverse=True), dict(sign=-1.0), {}], ids=str)
def test_curves_of_mistakes_are_exact(kind, mistake, generator):
    """The closed form of a mistake is the curve measured on a model that makes it."""
    process, rows = VP(), gauss(1500, generator)
    denoiser = as_denoiser(Predicts(process, kind, **mistake), process, predicts=kind)
    denoiser = denoiser.double()
    curve = measure(denoiser, rows, levels=6, generator=generator)
    moments = Moments(MEAN.double(), torch.eye(4).double(), SPECTRUM.double(), 0.0)
    law = _Law(process, moments, curve.t)
    told = sum(process.t_range) - law.times if mistake.get("reverse") else law.times
    rate = law.rate(law.misread(kind, told, mistake.get("sign", 1.0)))
    # float32 predictions turned into a guess lose digits where sigma/alpha is large
    rounding = 1e-6 * (1 / curve.u + 1) * 10
    assert (np.abs(curve.rate - rate) < 5 * curve.stderr + rounding + 1e-3 * rate).all()


def test_rows_in_other_units(generator):
    """A model of pictures in [-1, 1] on rows in [0, 255] guesses another mean at every level."""
    rows = gauss(400, generator)
    curve = measure(exact(EDM(0.01, 2000.0)), rows * 127.5 + 127.5, levels=24, generator=generator)
    found = guard(curve, rows=rows * 127.5 + 127.5, generator=generator)
    assert not found.ok
    assert any("rows" in s.name for s in found.suspects)


def test_no_suspects_without_a_mistake(generator):
    rows = gauss(400, generator)
    curve = measure(exact(VP()), rows, generator=generator)
    assert suspects(curve, Moments.fit(rows)) == []


class Flat(Denoiser):
    """Uniform symbols, or the zero score."""

    def __init__(self, process, symbols=None):
        super().__init__()
        self.process, self.symbols = process, symbols

    def forward(self, state, t, condition=None):
        if self.symbols is None:
            return torch.zeros_like(state)
        return torch.full((*state.shape, self.symbols), 1 / self.symbols, dtype=torch.float64)


def test_symbols_and_manifolds(generator):
    process = Masking(5, 6)
    rows = (torch.rand(400, 6, generator=generator) ** 2 * 5).long()
    curve = measure(Flat(process, 5), rows, levels=8, generator=generator)
    found = guard(curve, rows=rows, generator=generator)
    assert not found.ok
    assert "site marginals" in str(found)
    good = measure(reference_of(process, rows), rows, levels=8, generator=generator)
    assert guard(good, rows=rows, generator=generator).ok
    process = Brownian(Sphere(2))
    start = Sphere(2).origin().expand(300, 3).contiguous()
    points = process.spread(start, torch.full((300,), 0.05).double(), generator=generator)
    curve = measure(Flat(process), points, levels=8, generator=generator)
    assert not guard(curve, rows=points, generator=generator).ok


def test_several_clocks(generator):
    process = ModalProcess(EDM(), shape=(4,), speed=[1.0, 0.9, 0.8, 0.8])
    rows = gauss(300, generator)
    good = measure(reference_of(process, gauss(4000, generator)), rows, levels=8)
    assert guard(good, rows=rows, generator=generator).ok

    class Far(Denoiser):
        def forward(self, state, t, condition=None):
            return state + 5

    model = Far()
    model.process = process
    found = guard(measure(model, rows, levels=8), rows=rows, generator=generator)
    assert "u =" in str(found) or "every level" in str(found)


def test_reference_curve_or_denoiser(generator):
    rows, process = gauss(500, generator), VP()
    curve = curve_of(process, rows, generator, "noise", error=0.3)
    other = measure(exact(process), rows, levels=32, generator=generator, label="the exact model")
    assert "worse than the exact model" in str(guard(curve, other))
    assert "worse than the reference" in str(guard(curve, exact(process), rows))
    assert guard(other, other).ok


def test_refusals(generator):
    rows, process = gauss(50, generator), VP()
    curve = measure(exact(process), rows, levels=4, generator=generator)
    with pytest.raises(InputError, match="needs rows"):
        guard(curve)
    with pytest.raises(InputError, match="at least 8 rows"):
        guard(curve, rows=rows[:4])
    with pytest.raises(InputError, match="knows its process"):
        guard(LossCurve(np.array([1.0, 2.0]), np.ones(2)), rows=rows)
    with pytest.raises(InputError, match="same levels"):
        guard(curve, measure(exact(process), rows, levels=5, generator=generator))
