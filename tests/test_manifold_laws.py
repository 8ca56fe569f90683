"""Exact guesses on manifolds against brute force, and what the reproductions read off them."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import vonmises, wasserstein_distance

from reverie.auditing.model.dimension import dimension_curve
from reverie.denoisers import Memoriser
from reverie.processes import EDM
from reverie.reproduce import detected_manifolds, manifold_convergence
from reverie.reproduce.manifold_laws import Circles, RingTorus, quantiles
from reverie.theory.manifold import sphere_dimension, sphere_guess

PROCESS = EDM(5e-3, 10)


def at(sigma):
    return PROCESS.time(torch.tensor([sigma**-2.0]).double())[0]


def rotation(ambient, circles, seed=0):
    draw = torch.Generator().manual_seed(seed)
    square = torch.randn(ambient, 2 * circles, generator=draw, dtype=torch.float64)
    return torch.linalg.qr(square)[0]


# --- the guesses ---------------------------------------------------------------------------------


def test_circles_by_quadrature():
    """Two von Mises angles in R^5: the posterior mean of each on 4,000 angles."""
    law = Circles(PROCESS, 2, 1.3, rotation(5, 2))
    y = law.draw(6, torch.Generator().manual_seed(1))
    y = y + 0.4 * torch.randn(6, 5, generator=torch.Generator().manual_seed(2)).double()
    theta = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[:-1]
    points = torch.stack([theta.cos(), theta.sin()], 1)
    pairs = (y @ law.basis).reshape(6, 2, 2)
    expected = torch.empty(6, 2, 2, dtype=torch.float64)
    for k in range(2):
        log = -torch.cdist(pairs[:, k], points).square() / (2 * 0.4**2) + 1.3 * theta.cos()
        expected[:, k] = log.softmax(1) @ points
    found = law(y, at(0.4).expand(6))
    assert torch.allclose(found, expected.flatten(1) @ law.basis.T, atol=1e-9)


def test_the_uniform_circle_is_that_of_the_theory():
    y = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).double()
    found = Circles(PROCESS)(y, at(0.3).expand(20))
    assert np.allclose(found.numpy(), sphere_guess(y.numpy(), 0.3), atol=1e-9)


@pytest.mark.parametrize("sigma", [0.02, 0.3])
def test_the_torus_by_brute_force(sigma):
    """The posterior mean over a 3,000 x 600 grid of both angles, weighted by area."""
    law = RingTorus(PROCESS)
    draw = torch.Generator().manual_seed(3)
    y = law.draw(4, draw) + sigma * torch.randn(4, 3, generator=draw, dtype=torch.float64)
    u, v = (2 * math.pi * torch.arange(n).double() / n for n in (3000, 600))
    rho = (1 + 0.5 * v.cos())[:, None]
    grid = torch.stack(
        [rho * u.cos(), rho * u.sin(), (0.5 * v.sin())[:, None].expand(600, 3000)], -1
    ).reshape(-1, 3)
    area = rho.expand(600, 3000).reshape(-1).log()
    for k in range(4):
        log = area - (grid - y[k]).square().sum(1) / (2 * sigma**2)
        expected = log.softmax(0) @ grid
        found = law(y[k : k + 1], at(sigma).expand(1))[0]
        assert torch.allclose(found, expected, atol=1e-8)


def test_draws_lie_on_their_sets_with_their_laws(generator):
    circle, torus = Circles(PROCESS, 2, 1.5, rotation(7, 2)), RingTorus(PROCESS)
    x, z = circle.draw(4000, generator), torus.draw(4000, generator)
    assert float(circle.distance(x).max()) < 1e-9
    assert float(torus.distance(z).max()) < 1e-12
    angles = circle.angles(x).numpy()
    assert np.cos(angles).mean() == pytest.approx(
        float(torch.special.i1(torch.tensor(1.5)) / torch.special.i0(torch.tensor(1.5))), abs=0.03
    )  # four deviations of 8,000 cosines
    assert abs(np.corrcoef(angles.T)[0, 1]) < 4 / math.sqrt(4000)
    height = z[:, 2].numpy()
    rho = z[:, :2].norm(dim=1)
    assert float(rho.mean()) == pytest.approx(
        1 + 0.5**2 / 2, abs=0.03
    )  # E rho = R + r^2 / 2R by area
    assert abs(height.mean()) < 0.03


def test_quantiles_are_those_of_scipy():
    levels = np.array([0.01, 0.3, 0.5, 0.9])
    assert quantiles(levels, 2.0) == pytest.approx(vonmises.ppf(levels, 2.0), abs=1e-6)


# --- dimensions ----------------------------------------------------------------------------------


def test_dimension_one_on_a_circle_two_on_a_torus_none_for_the_memoriser(generator):
    for case in detected_manifolds.cases(EDM(*detected_manifolds.SIGMAS)):
        rows = case.law.draw(300, generator)
        exact = dimension_curve(case.law, rows, levels=9, rows=200)
        found, error = detected_manifolds.at_level(exact, 0.05, "train")
        assert abs(found - case.dim) < 0.2 - error
        few = Memoriser(case.law.process, rows[:10])
        stored = dimension_curve(few, rows[:10], levels=9, rows=10)
        assert detected_manifolds.at_level(stored, 0.02, "train")[0] < 0.2
    circle = dimension_curve(Circles(PROCESS), Circles(PROCESS).draw(2000, generator), levels=7,
                             rows=2000)  # fmt: skip
    for spread, value, error in zip(
        circle.spread, circle.trace["train"], circle.stderr["train"], strict=True
    ):
        assert value == pytest.approx(sphere_dimension(float(spread), 2), abs=4 * error + 1e-3)


def test_planes_see_what_lies_off_the_set(generator):
    """A plane fitted to 12 of 4,000 rows is off a circle by about (their width)^2 / 8."""
    law = Circles(PROCESS)
    rows, held = law.draw(4000, generator), law.draw(500, generator)
    assert detected_manifolds.off_planes(held, rows, 1).max() < 1e-3
    pushed = held * 1.05
    off = detected_manifolds.off_planes(pushed, rows, 1)
    assert off == pytest.approx(0.05, abs=2e-3)
    assert detected_manifolds.off_support(pushed, rows, held, 1)[0] == 1
    assert detected_manifolds.off_support(held, rows, held, 1)[0] == 0
    noise = torch.randn(held.shape, generator=generator, dtype=held.dtype)
    near = held + detected_manifolds.SIGMAS[0] * noise  # as a reversal ends: 1% are farther off
    share = detected_manifolds.off_support(near, rows, held, 1)[0]
    assert share == pytest.approx(0.01, abs=0.015)  # 5 of 500, and of the 99% that 500 rows show


def test_a_clipped_score_is_cut_and_no_other():
    law = Circles(PROCESS)
    clipped = detected_manifolds.Clipped(law, PROCESS, 10.0)
    y = torch.tensor([[3.0, 0.0], [1.001, 0.0]], dtype=torch.float64)
    t = at(0.1).expand(2)
    score = (clipped(y, t) - y) / 0.1**2
    assert float(score[0].norm()) == pytest.approx(10)
    assert torch.allclose(clipped(y, t)[1], law(y, t)[1])


# --- distances -----------------------------------------------------------------------------------


def test_arcs_are_the_least_of_all_cuts():
    """Against scipy on the line, cut at each of 360 places: the least is the circle's."""
    rng = np.random.default_rng(0)
    a, b = rng.vonmises(2.5, 2.0, 200), rng.vonmises(-2.8, 1.0, 200)
    cuts = np.linspace(-math.pi, math.pi, 360, endpoint=False)
    line = [wasserstein_distance((a - c) % (2 * math.pi), (b - c) % (2 * math.pi)) for c in cuts]
    found = manifold_convergence.arcs(a, b)
    assert found <= min(line) + 1e-9
    assert found == pytest.approx(min(line), rel=0.02)
    assert manifold_convergence.arcs(a, a) == pytest.approx(0, abs=1e-12)
    narrow = rng.vonmises(3.1, 50.0, 200)  # a wide law turned by .3 may cost less: mass flows over
    assert manifold_convergence.arcs(narrow, narrow + 0.3) == pytest.approx(0.3, abs=1e-9)


def test_slopes_and_expected_angles(generator):
    x = np.array([1.0, 2.0, 4.0, 8.0])
    found, error = manifold_convergence.slope(x, 3 * x**0.5)
    assert found == pytest.approx(0.5)
    assert error < 1e-9
    torus = RingTorus(PROCESS)
    tube = manifold_convergence.angles_of(torus, torus.draw(4000, generator))
    known = manifold_convergence.expected_angles(torus, 4000)
    assert manifold_convergence.arcs(tube, known) < 0.1  # 2,000 draws: about .02


def test_steps_do_not_see_the_ambient_dimension():
    """The curve of k circles is k times that of one, wherever they lie, so that the count of steps
    is the same up to the noise of 200 rows."""
    counts = {}
    for k, ambient in ((1, 8), (1, 64), (4, 64)):
        law = manifold_convergence.embedded(k, ambient, 0)
        rows = law.draw(200, torch.Generator().manual_seed(0))
        counts[k, ambient] = manifold_convergence.needed(law, rows, 0)
    assert counts[1, 64] == pytest.approx(counts[1, 8], rel=0.1)
    assert counts[4, 64] / counts[1, 64] == pytest.approx(4, rel=0.15)


@pytest.mark.slow
def test_detected_manifolds(tmp_path):
    table = detected_manifolds.run(tmp_path)
    rows = {row["quantity"]: row for row in table["rows"]}
    for name, dim in (("circle", 1), ("torus", 2)):
        few, many = detected_manifolds.FEW, detected_manifolds.ROWS
        assert rows[f"dimension, {name}, exact"]["ours"] == pytest.approx(dim, abs=0.2)
        assert rows[f"dimension, {name}, network, {many} rows"]["ours"] == pytest.approx(
            dim, abs=0.2
        )
        assert rows[f"dimension, {name}, memoriser of {few} rows"]["ours"] < 0.2
    slope = "distance to the circle against the last sigma, slope, exact score"
    assert rows[slope]["ours"] == pytest.approx(1, abs=0.1)
    assert (tmp_path / "detected_manifolds.png").stat().st_size > 10_000


@pytest.mark.slow
def test_manifold_convergence(tmp_path):
    table = manifold_convergence.run(tmp_path)
    rows = {row["quantity"]: row["ours"] for row in table["rows"]}
    for name, value in rows.items():
        if name.startswith("W1 against the stopping time"):
            assert value == pytest.approx(0.5, abs=0.15), name
        if name.startswith("W1 against the step"):
            assert value > 0.5 - 0.15, name
        if "against the ambient dimension" in name:
            assert abs(value) < 0.1
        if "against the intrinsic dimension" in name:
            assert value == pytest.approx(1, abs=0.2)
