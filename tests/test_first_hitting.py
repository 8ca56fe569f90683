"""First hitting bridges and bridges into domains: exact laws, times, and every sample inside."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from reverie import InputError
from reverie.bridges import (
    Ball,
    BooleanCube,
    Box,
    CategoricalFaces,
    DomainBridge,
    EnumeratedEnds,
    Points,
    Product,
    Simplex,
    data_bridge,
    fit_domain_bridge,
)
from reverie.bridges.first_hitting import FirstHitting
from reverie.bridges.hitting_fit import bridge_states, fit_boolean, path_rate


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(found: torch.Tensor, points: torch.Tensor, weights: torch.Tensor) -> float:
    """Total variation of samples from a law on points; samples elsewhere count in full."""
    near = torch.cdist(found.double(), points.double())
    hit = near.min(1).values < 1e-6
    share = torch.bincount(near.argmin(1)[hit], minlength=len(points)) / len(found)
    return 0.5 * float((share - weights).abs().sum() + (~hit).double().mean())


CORNERS = torch.tensor([[1.0, 1, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("dt", [0.01, 0.1])
def test_the_boolean_law_is_exact_at_any_step(dt) -> None:
    cube, draw = BooleanCube(3, dt), seeded()
    run = cube.sample(EnumeratedEnds(cube, CORNERS, WEIGHTS, draw), 10_000, generator=draw)
    assert bool(cube.stopped(run.ends).all())
    assert distance(run.ends, CORNERS, WEIGHTS) < 0.02  # and no corner without mass
    assert run.steps.min() >= 1


def test_time_of_a_bit_is_a_quarter() -> None:
    """z (1 - z) from z = 1/2, whichever end is hit."""
    cube, draw = BooleanCube(1, 0.005), seeded()
    both = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    run = cube.sample(EnumeratedEnds(cube, both, None, draw), 20_000, generator=draw)
    error = float(run.time.std()) / math.sqrt(20_000)
    for rows in (run.ends[:, 0] == 0, run.ends[:, 0] == 1):
        assert float(run.time[rows].mean()) == pytest.approx(0.25, abs=5 * error)


def test_the_mixtures_drift_is_the_bits_odds() -> None:
    cube = BooleanCube(3)
    ends = EnumeratedEnds(cube, CORNERS, WEIGHTS)
    z = torch.rand(50, 3, generator=seeded(), dtype=torch.float64)
    mass = WEIGHTS * (z[:, None] ** CORNERS * (1 - z[:, None]) ** (1 - CORNERS)).prod(2)
    share = mass / mass.sum(1, keepdim=True)
    q = share @ CORNERS
    assert torch.allclose(ends.weights(z), share)
    assert torch.allclose(ends.drift(z), q / z - (1 - q) / (1 - z))


def wild(kind: str, seed: int) -> tuple[FirstHitting, torch.Tensor, torch.Tensor]:
    """A process of random size, start and step, a few ends, and weights of which one is nought."""
    rng = np.random.default_rng(seed)
    n, size = rng.integers(2, 6), rng.integers(1, 6)
    weights = rng.random(n) ** 20
    weights[0] = 0.0
    if kind == "cube":
        process: FirstHitting = BooleanCube(int(size), rng.uniform(0.05, 0.95))
        ends = rng.random((n, size)) < 0.5
    elif kind == "ball":
        size = 1 + size % 3
        away = rng.normal(size=size + 1)
        away *= 0.999 * rng.random() ** 0.2 / np.linalg.norm(away)
        process = Ball(int(size) + 1, torch.from_numpy(away), reach=10 ** rng.uniform(-2.5, -1))
        ends = rng.normal(size=(n, size + 1))
        ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    else:
        process = CategoricalFaces(int(size), 3, 10 ** rng.uniform(-2, 0.5))
        ends = np.eye(3)[rng.integers(0, 3, (n, size))].reshape(n, -1)
    return process, torch.from_numpy(ends * 1.0), torch.from_numpy(weights / weights.sum())


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        *[("cube", 300), ("ball", 10), ("faces", 15)],
        *[pytest.param(kind, 1000, marks=pytest.mark.slow) for kind in ("cube", "ball", "faces")],
    ],
)
def test_no_seed_gives_nan_or_an_endless_loop(kind: str, seeds: int) -> None:
    """Long steps, starts near the edge, ends of tiny mass, and one of none that is never met."""
    for seed in range(seeds):
        process, points, weights = wild(kind, seed)
        ends = EnumeratedEnds(process, points, weights, seeded(seed))
        run = process.sample(ends, 3, generator=ends.generator)
        assert bool(process.stopped(run.ends).all())
        assert bool((torch.isfinite(run.time) & (run.time > 0)).all())
        assert bool(torch.isfinite(ends.drift(run.ends)).all())
        assert bool((torch.cdist(run.ends, points[weights > 0]).min(1).values < 1e-12).all())


def test_one_corner_of_tiny_mass_does_no_harm() -> None:
    cube = BooleanCube(3, 0.3)
    rare = torch.tensor([0.5, 0.5 - 1e-9, 1e-9], dtype=torch.float64)
    for seed in range(200):
        draw = seeded(seed)
        run = cube.sample(EnumeratedEnds(cube, CORNERS, rare, draw), 3, generator=draw)
        assert bool((torch.cdist(run.ends, CORNERS).min(1).values == 0).all())


@pytest.mark.parametrize(("d", "r"), [(2, 0.5), (3, 0.8)])
def test_from_inside_the_ball_the_mean_time_is_that_of_brownian_motion(d: int, r: float) -> None:
    """(1 - r^2) / d where ends have the exit law of the start; the runs' own error, five times."""
    draw, n = seeded(), 600
    origin = torch.zeros(d, dtype=torch.float64)
    origin[0] = r
    angle = torch.arange(200, dtype=torch.float64)
    if d == 2:
        angle = 2 * math.pi * angle / 200
        points = torch.stack([angle.cos(), angle.sin()], 1)
    else:  # evenly spread on a spiral
        height = 1 - (2 * angle + 1) / 200
        turn = math.pi * (1 + math.sqrt(5)) * angle
        side = (1 - height.square()).sqrt()
        points = torch.stack([height, side * turn.cos(), side * turn.sin()], 1)
    ball = Ball(d, origin)
    weights = ball.log_h(origin[None], points)[0].softmax(0)
    run = ball.sample(EnumeratedEnds(ball, points, weights, draw), n, generator=draw)
    error = float(run.time.std()) / math.sqrt(n)
    assert float(run.time.mean()) == pytest.approx((1 - r * r) / d, abs=5 * error)


def test_ends_that_contradict_the_state_still_stop() -> None:
    cube, draw = BooleanCube(2, 0.1), seeded()
    run = cube.sample(lambda z: torch.rand(z.shape, generator=draw).round().double(), 100,
                      generator=draw)  # fmt: skip
    assert bool(((run.ends == 0) | (run.ends == 1)).all())


@pytest.mark.slow
def test_a_fitted_guess_has_the_path_kl_of_the_exact_one() -> None:
    draw = seeded()
    data = CORNERS[torch.multinomial(WEIGHTS, 5000, replacement=True, generator=draw)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        guess = fit_boolean(data, steps=200, width=32, generator=draw)
    cube = BooleanCube(3, 0.01)
    ends = EnumeratedEnds(cube, CORNERS, WEIGHTS)
    states, goals = bridge_states(cube, data[:300], draw)
    inside = ((states > 0.05) & (states < 0.95) | (states == 0) | (states == 1)).all(1)
    states, goals = states[inside], goals[inside]
    with torch.no_grad():
        fitted = float(path_rate(guess.forward, states, goals).mean())
    exact = float(path_rate(lambda z: ends.weights(z) @ CORNERS, states, goals).mean())
    blind = float(path_rate(lambda z: z, states, goals).mean())
    assert exact * 0.97 < fitted < exact + 0.15 * (blind - exact)
    run = cube.sample(guess, 4000, generator=draw)
    assert distance(run.ends, CORNERS, WEIGHTS) < 0.08


@pytest.mark.parametrize(
    ("d", "n", "apart"),
    [
        (2, 4000, 0.02),
        pytest.param(3, 1000, 0.06, marks=pytest.mark.slow),
        pytest.param(8, 300, 0.1, marks=pytest.mark.slow),
    ],
)
def test_the_ball_stops_on_the_sphere_in_its_mean_time(d, n, apart) -> None:
    """E tau = (1 - r^2) / d, and ends of their own law, from inside too."""
    points = torch.as_tensor(np.random.default_rng(d).normal(size=(4, d)))
    points = points / points.norm(dim=1, keepdim=True)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    origin = torch.zeros(d, dtype=torch.float64)
    origin[0] = 0.3
    ball, draw = Ball(d, reach=1e-3), seeded()
    run = ball.sample(EnumeratedEnds(ball, points, weights, draw), n, generator=draw)
    assert torch.allclose(run.ends.norm(dim=1), torch.ones(n, dtype=torch.float64))
    cosine = (run.ends @ points.T).max(1).values
    assert float(cosine.mean()) > 0.99
    assert distance(points[(run.ends @ points.T).argmax(1)], points, weights) < apart
    error = float(run.time.std()) / math.sqrt(n)
    assert float(run.time.mean()) == pytest.approx(1 / d, abs=4 * error + 2e-3)
    away = Ball(d, origin)
    run = away.sample(EnumeratedEnds(away, points, weights, draw), 500, generator=draw)
    assert distance(points[(run.ends @ points.T).argmax(1)], points, weights) < 0.08


def test_drift_is_the_gradient_of_log_h() -> None:
    draw = seeded()
    for process, ends in (
        (BooleanCube(3), CORNERS),
        (Ball(3), torch.eye(3, dtype=torch.float64)),
    ):
        z = 0.3 + 0.2 * torch.rand(3, 3, generator=draw, dtype=torch.float64)
        z.requires_grad_()
        h = process.log_h(z, ends).diagonal().sum()
        (slope,) = torch.autograd.grad(h, z)
        assert torch.allclose(process.drift(z, ends), slope)


# --- domains ------------------------------------------------------------------------------------


def test_the_two_point_set_has_its_tanh() -> None:
    bridge = DomainBridge(Points(torch.tensor([[-1.0], [1.0]])), sigma=0.8)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for s in (0.0, 0.5, 0.9):
        v = 0.64 * (1 - s)
        share = torch.full((9,), s, dtype=torch.float64)
        want = 0.64 * ((z / v).tanh() - z) / v
        assert torch.allclose(bridge.drift(z, share), want)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, math.inf), (-math.inf, math.inf)])
def test_the_intervals_drift_is_the_gradient_of_its_mass(low, high) -> None:
    """v d/dz log P(N(z, v) in [low, high]), tails included, by quadrature."""
    box = Box([low], [high])
    for z, v in ((0.3, 0.5), (-3.0, 0.2), (4.0, 0.3), (1.9, 1e-3)):
        found = float(box.mean(torch.tensor([[z]], dtype=torch.float64), torch.tensor([v])))
        d = math.sqrt(v)
        centre = min(max(z, low), high)
        ends = max(low, centre - 12 * d), min(high, centre + 12 * d)
        best = (centre - z) ** 2 / (2 * v)

        def mass(x, z=z, v=v, best=best):
            return math.exp(best - (x - z) ** 2 / (2 * v))

        total = quad(mass, *ends, limit=200)[0]
        want = quad(lambda x, mass=mass: x * mass(x), *ends, limit=200)[0] / total
        assert found == pytest.approx(want, abs=1e-6)


def test_cut_gaussians_far_in_the_tail_are_drawn_inside() -> None:
    box, n = Box([2.0], [3.0]), 20_000
    for z in (-60.0, 1.0, 2.5, 90.0):
        at = torch.full((n, 1), z, dtype=torch.float64)
        x = box.draw(at, torch.full((n,), 0.5), seeded())
        assert bool(box.contains(x).all())
        want = float(box.mean(at[:1], torch.tensor([0.5])))
        assert float(x.mean()) == pytest.approx(want, abs=0.01)


MIXED = Product([Points(torch.eye(3)), Box([0.0], [math.inf]), Box([-1.0], [1.0])])


def test_all_samples_are_inside() -> None:
    bridge = DomainBridge(MIXED, sigma=1.0)
    for steps in (1, 3):
        x = bridge.generate(100_000, steps=steps, generator=seeded(steps))
        assert bool(MIXED.contains(x).all())


DOMAINS = {
    "box": Box([-1.0, 2.0], [1.0, 2.5]),
    "half-lines": Box([0.0, -math.inf, 5.0], [math.inf, -3.0, math.inf]),
    "finite set": Points(torch.tensor([[0.0, 0], [1, 3], [-2, 7], [1e3, 0]])),
    "vertices": Points(torch.eye(5)),
    "simplex": Simplex(3),
    "product": MIXED,
}


@pytest.mark.parametrize("n", [3000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DOMAINS)
def test_a_million_samples_are_inside(name: str, n: int) -> None:
    """Also where the motion is far too small or too large for the domain."""
    domain = DOMAINS[name]
    for sigma in (1.0, 0.01, 100.0):
        x = DomainBridge(domain, sigma).generate(n, steps=2, generator=seeded())
        assert bool(domain.contains(x).all())
        assert bool(torch.isfinite(x).all())


@pytest.mark.parametrize(("z", "v"), [((0.3, 0.1), 0.2), ((4.0, -3.0), 0.5), ((0.5, 0.5), 30.0)])
def test_on_a_segment_the_simplex_has_the_cut_normal(z: tuple[float, float], v: float) -> None:
    """The first share is normal of mean (1 + z1 - z2) / 2 and variance v / 2, cut to [0, 1]."""
    domain, n = Simplex(2), 5000
    at = torch.tensor(z, dtype=torch.float64).expand(n, 2)
    x = domain.draw(at, torch.full((n,), v), seeded())[:, 0].numpy()
    middle, spread = (1 + z[0] - z[1]) / 2, math.sqrt(v / 2)
    law = stats.truncnorm(-middle / spread, (1 - middle) / spread, middle, spread)
    assert stats.kstest(x, law.cdf).pvalue > 1e-3
    found = float(domain.mean(at[:1], torch.tensor([v]))[0, 0])
    assert found == pytest.approx(law.mean(), abs=0.1 * law.std())


def test_with_much_noise_the_simplex_has_the_uniform_law() -> None:
    """A share of four is beta (1, 3); the gradient of the mean is the covariance by variance."""
    domain = Simplex(4)
    x = domain.draw(torch.zeros(4000, 4).double(), torch.full((4000,), 1e4), seeded())
    assert stats.kstest(x[:, 3].numpy(), stats.beta(1, 3).cdf).pvalue > 1e-3
    z = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    domain.mean(z, torch.tensor([10.0]))[0, 0].backward()
    assert z.grad is not None
    assert float(z.grad[0, 0]) == pytest.approx(stats.beta(1, 3).var() / 10, rel=0.2)


def test_the_exact_mixture_has_the_law_of_the_data() -> None:
    grid = torch.tensor([[0.0, 0], [1, 0], [0, 2], [3, 3]], dtype=torch.float64)
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    bridge = data_bridge(grid, weights, sigma=1.5, origin=torch.tensor([1.0, 1.0]))
    for steps in (1, 20):
        x = bridge.generate(20_000, steps=steps, generator=seeded(steps))
        assert distance(x, grid, weights) < 0.02


def test_a_learned_bridge_stays_inside_and_learns() -> None:
    draw = seeded()
    kind = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 2000, replacement=True, generator=draw)
    size = torch.rand(2000, 1, generator=draw) * (1 + kind[:, None])
    data = torch.cat([torch.eye(3)[kind], size, 2 * torch.rand(2000, 1, generator=draw) - 1], 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bridge = fit_domain_bridge(data, MIXED, steps=200, width=32, generator=draw)
    x = bridge.generate(2000, steps=30, generator=draw)
    assert bool(MIXED.contains(x).all())
    assert torch.allclose(x[:, :3].mean(0), data[:, :3].mean(0).double(), atol=0.08)
    assert float(x[:, 3].mean()) == pytest.approx(float(data[:, 3].mean()), abs=0.12)


def test_bad_input_is_one_sentence() -> None:
    for wrong in (
        lambda: EnumeratedEnds(BooleanCube(2), torch.tensor([[0.5, 1.0]])),
        lambda: EnumeratedEnds(Ball(2), torch.tensor([[0.5, 0.5]])),
        lambda: BooleanCube(2, 0.0),
        lambda: Ball(2, torch.tensor([1.0, 0.5])),
        lambda: Box([1.0], [0.0]),
        lambda: Simplex(1),
        lambda: DomainBridge(Box([0.0], [1.0]), sigma=0.0),
        lambda: fit_domain_bridge(torch.tensor([[2.0]]), Box([0.0], [1.0])),
        lambda: DomainBridge(Box([0.0], [1.0])).sample(torch.zeros(3, 1), reverse=True),
    ):
        with pytest.raises(InputError):
            wrong()
