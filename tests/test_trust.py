"""Samples of a run come from its model, or from the calibrated one where a guess is better."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from reverie import fit, sample
from reverie.auditing.metrics.fidelity import energy_distance
from reverie.cli.entry import main
from reverie.denoisers import linear_of
from reverie.runs import trust
from reverie.runs.readings import audit_run, sampling_plan, standard_curves
from reverie.runs.run import Run

ROWS, KEPT = 400, 200


def correlated(seed: int = 0) -> np.ndarray:
    """Gaussian rows in 6-D whose columns depend on each other: the linear guess is exact."""
    mixing = np.random.default_rng(100).standard_normal((6, 6))
    return np.random.default_rng(seed).standard_normal((ROWS, 6)) @ mixing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one step: its network still guesses as if the columns were independent."""
    place = tmp_path_factory.mktemp("trust") / "run"
    run = fit(correlated(), out=place, n=KEPT, holdout=KEPT, steps=1)
    standard_curves(run, levels=24)
    return place


def test_a_run_worse_than_the_linear_guess_is_calibrated_once(folder, monkeypatch):
    run = Run.load(folder)
    drawn = run.sample(300, 10)
    known = run.trusted.calibration
    assert known is not None
    assert known.drop > 5 * known.drop_stderr > 0
    assert "calibrated" in run.trusted.drawn_from()
    own = run.sample(300, 10, calibrate=False)
    # fresh rows of the same law: .06 against .14 at 2,000 samples and 20 steps, chance about .01
    fresh = correlated(1)
    near, far = (run.sample(2000, 20, calibrate=c) for c in (True, False))
    assert energy_distance(near, fresh) < 0.7 * energy_distance(far, fresh)
    # without calibration it is the model itself, on its own curve
    plan = sampling_plan(run, 10, calibrate=False)
    noise = torch.Generator().manual_seed(0)
    points = sample(run.denoiser, 300, plan, shape=(6,), generator=noise)
    np.testing.assert_array_equal(own, run.scaler.to_user(points))

    # what is kept is used as it is, to the bit, and nothing is fitted again
    monkeypatch.setattr(trust, "trusted_run", None)
    again = Run.load(folder)
    np.testing.assert_array_equal(again.sample(300, 10), drawn)
    assert again.trusted.drawn_from() == run.trusted.drawn_from()


@pytest.mark.parametrize("damage", ["weights", "guard", "calibration"])
def test_what_is_kept_is_of_these_weights_or_made_again(folder, damage):
    run = Run.load(folder)
    first = run.sample(50, 5)
    if damage == "weights":
        with torch.no_grad():
            for weight in run.denoiser.parameters():
                weight.add_(0.05)
        before = json.loads((folder / trust.GUARD).read_text())["of"]
        run.sample(50, 5)
        assert json.loads((folder / trust.GUARD).read_text())["of"] != before
        return
    place = folder / (
        trust.GUARD if damage == "guard" else f"{trust.CALIBRATION}/calibration.safetensors"
    )
    place.write_bytes(place.read_bytes()[:40])
    np.testing.assert_array_equal(Run.load(folder).sample(50, 5), first)
    assert len(place.read_bytes()) > 40


def test_an_exact_model_is_left_alone_and_nothing_is_drawn_otherwise(folder):
    run = Run.load(folder)
    exact = linear_of(run.process, torch.cat([run.train_points(), run.holdout_points()]))
    assert exact is not None
    run.denoiser, run.curves, run.path = exact, {}, None
    assert run.trusted.calibrated is None
    assert run.trusted.drawn_from() == ""
    np.testing.assert_array_equal(run.sample(50, 5), run.sample(50, 5, calibrate=False))


def test_without_held_out_rows_it_is_said_and_left_alone(tmp_path):
    run = fit(correlated()[:60], holdout=0, steps=1)
    standard_curves(run, levels=24)
    assert run.trusted.calibrated is None
    assert "rows it was not trained on" in run.trusted.drawn_from()


def test_an_audit_is_of_the_model_itself(folder):
    run = Run.load(folder)
    verdict, drawn = audit_run(run, 60, sampling_steps=5)
    np.testing.assert_array_equal(drawn, run.sample(60, 5, calibrate=False))
    assert not any("calibrated" in note for note in verdict.notes)


@pytest.mark.slow
def test_an_audit_of_the_calibrated_model_says_so(folder):
    run = Run.load(folder)
    verdict, drawn = audit_run(run, 60, sampling_steps=5, calibrate=True)
    np.testing.assert_array_equal(drawn, run.sample(60, 5))
    assert any("calibrated" in note for note in verdict.notes)


def test_the_command_line_says_what_it_draws_from(folder, tmp_path, capsys):
    words = ["sample", str(folder), "--n", "20", "--steps", "5", "--quiet"]
    for extra, calibrated in (([], True), (["--no-calibrate"], False)):
        out = tmp_path / "rows.npy"
        with pytest.raises(SystemExit) as ended:
            main([*words, "--out", str(out), *extra])
        assert ended.value.code == 0
        assert ("calibrated" in capsys.readouterr().out) is calibrated
        want = Run.load(folder).sample(20, 5, calibrate=calibrated)
        np.testing.assert_array_equal(np.load(out), want)
