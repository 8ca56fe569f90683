"""First hitting on categories: exact laws and times, and a fitted guess against the exact one."""

from __future__ import annotations

import math

import pytest
import torch

from reverie import InputError
from reverie.bridges import CategoricalFaces, EnumeratedEnds
from reverie.bridges.faces import face_rate, fit_categories
from reverie.bridges.hitting_fit import bridge_states

ROWS = torch.eye(3, dtype=torch.float64)[torch.tensor([[0, 1], [2, 2], [1, 0]])].reshape(3, 6)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dt", [pytest.param(0.1, marks=pytest.mark.slow), 0.5])
def test_the_law_is_exact_at_any_step(dt: float) -> None:
    faces, draw = CategoricalFaces(2, 3, dt), seeded()
    run = faces.sample(EnumeratedEnds(faces, ROWS, WEIGHTS, draw), 8000, generator=draw)
    near = torch.cdist(run.ends, ROWS)
    assert float(near.min(1).values.max()) == 0  # no end without mass
    found = torch.bincount(near.argmin(1), minlength=3) / len(near)
    assert float((found - WEIGHTS).abs().sum()) / 2 < 0.02


@pytest.mark.parametrize("count", [2, 3, 5])
def test_time_to_the_vertex(count: int) -> None:
    faces, draw = CategoricalFaces(1, count, 0.1), seeded()
    ends = EnumeratedEnds(faces, torch.eye(count), None, draw)
    run = faces.sample(ends, 4000, generator=draw)
    want = -2 * (count - 1) * math.log(1 - 1 / count)  # z_i = 1 / count
    error = float(run.time.std()) / math.sqrt(4000)
    assert float(run.time.mean()) == pytest.approx(want, abs=4 * error)


def test_a_step_has_the_mean_and_variance_of_its_bridge() -> None:
    """dz_i = (1 - z_i) dt + noise on the way to i; the others fall by exp(-t) in mean."""
    faces = CategoricalFaces(1, 3, 0.3)
    z = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).expand(100_000, 3)
    goal = torch.tensor([[1.0, 0, 0]], dtype=torch.float64).expand_as(z)
    moved, _ = faces.step(z, goal, seeded())
    want = goal[0] + (z[0] - goal[0]) * math.exp(-0.3)
    assert torch.allclose(moved.mean(0), want, atol=5 * 0.3 / math.sqrt(100_000))
    # the second moment of a share y on its way to 0: d E y^2 = E[-2 y^2 + y (1 - y)] dt
    y = 0.5
    decay, grown = math.exp(-0.9), 0.5 * (math.exp(-0.3) - math.exp(-0.9))
    assert float(moved[:, 1].square().mean()) == pytest.approx(y**2 * decay + y * grown, abs=3e-3)


def test_no_seed_gives_nan_or_an_endless_loop() -> None:
    faces = CategoricalFaces(3, 4, 0.3)
    rows = torch.eye(4, dtype=torch.float64)[torch.tensor([[0, 1, 2], [3, 3, 0]])].reshape(2, 12)
    for seed in range(60):
        draw = seeded(seed)
        run = faces.sample(EnumeratedEnds(faces, rows, None, draw), 3, generator=draw)
        assert bool(torch.isfinite(run.ends).all())
        assert int(run.steps.max()) < 200
        assert float(torch.cdist(run.ends, rows).min(1).values.max()) == 0


@pytest.mark.slow
def test_a_fitted_guess_has_the_path_kl_of_the_exact_one() -> None:
    faces, draw = CategoricalFaces(2, 3, 0.2), seeded()
    rows = ROWS.repeat_interleave((10 * WEIGHTS).round().long(), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        guess = fit_categories(rows, faces, steps=400, width=48, depth=1, generator=draw)
    law = EnumeratedEnds(faces, ROWS, WEIGHTS)
    states, ends = bridge_states(faces, rows.repeat(100, 1), draw)
    with torch.no_grad():
        costs = [
            float(face_rate(one, states, ends).mean())
            for one in (lambda z: law.weights(z) @ ROWS, guess.forward)
        ]
    assert costs[0] <= costs[1] + 0.01  # the exact one is the least, up to the draw
    assert costs[1] == pytest.approx(costs[0], rel=0.06)
    run = faces.sample(guess, 4000, generator=draw)
    near = torch.cdist(run.ends, ROWS)
    found = torch.bincount(near.argmin(1)[near.min(1).values == 0], minlength=3) / 4000
    assert float((found - WEIGHTS).abs().sum()) / 2 < 0.04


def test_bad_input_is_one_sentence() -> None:
    faces = CategoricalFaces(2, 3)
    for wrong in (
        lambda: CategoricalFaces(0, 3),
        lambda: CategoricalFaces(1, 1),
        lambda: CategoricalFaces(1, 2, 0.0),
        lambda: EnumeratedEnds(faces, torch.eye(6)),
        lambda: EnumeratedEnds(faces, torch.ones(1, 6)),
    ):
        with pytest.raises(InputError):
            wrong()
