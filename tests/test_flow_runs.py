"""Runs of a flow: the verbs of a run, without a denoiser, and the same weights after a stop."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
import torch

from reverie import Run, fit
from reverie.cli import main
from reverie.errors import InputError
from reverie.runs import FlowRun
from reverie.runs.flows import likelihood_leak

pytest.importorskip("zuko", reason="flows by name are zuko's (the extra flows)")
SMALL = dict(network="flow", width=16, depth=2, check_every=30)


def points(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ [[2.0, 0.5], [0.0, 0.3]] + [3.0, -1.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(points(), out=tmp_path_factory.mktemp("flow") / "run", steps=300, **SMALL)


def test_its_density_is_near_the_law_in_the_units_of_the_data(run):
    """A Gaussian of known entropy; a fit to 150 rows of it loses some tenths of a nat."""
    fresh = points(2000, seed=1)
    entropy = math.log(2 * math.pi * math.e) + math.log(2.0 * 0.3)
    assert -0.1 < -run.log_density(fresh).mean() - entropy < 0.5
    made = run.sample(2000)
    assert made.shape == (2000, 2)
    assert np.abs(made.mean(0) - [3, -1]).max() < 0.4  # 2 / sqrt(150) of the rows themselves


def test_its_density_integrates_to_one_in_the_units_of_the_data(run):
    x, y = np.linspace(-9, 15, 400), np.linspace(-5, 3, 300)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(run.log_density(grid)).sum() * (x[1] - x[0]) * (y[1] - y[0])
    assert abs(mass - 1) < 0.01


def test_other_units_shift_the_density_and_nothing_else():
    small, large = (fit(points() * c, steps=30, **SMALL) for c in (1.0, 10.0))
    shift = small.log_density(points()) - large.log_density(10 * points())
    assert np.allclose(shift, 2 * math.log(10), atol=1e-3)
    assert math.isclose(small.leak().nats, large.leak().nats, abs_tol=1e-3)


def test_the_leak_is_the_gap_of_mean_log_densities(run):
    leak = run.leak()
    gap = run.log_density(run.train).mean() - run.log_density(run.holdout).mean()
    assert math.isclose(leak.nats, gap)
    assert leak.low < leak.nats < leak.high
    assert leak.level is None
    assert "of exact log densities" in str(leak)
    known, fresh = np.random.default_rng(0).normal([[1.0], [0.0]], 1.0, (2, 4000))
    found = likelihood_leak(known, fresh)
    assert abs(found.nats - 1) < 3 * found.stderr
    assert math.isclose(found.stderr, math.sqrt(2 / 4000), rel_tol=0.05)


def test_a_flow_that_has_seen_few_rows_for_long_leaks():
    run = fit(points(60), n=30, holdout=30, steps=120, lr=1e-2, **SMALL)
    assert run.leak().low > 0
    verdict = run.audit(60, metrics=False, power=False)
    assert verdict.leak is not None
    assert any("no loss curve" in note for note in verdict.notes)
    assert {"membership by log density (AUC)", "leak (nats)"} <= {
        r.statistic for r in verdict.table
    }
    json.dumps(verdict.to_json(), allow_nan=False)


def test_a_saved_run_is_the_same_run(run):
    again = FlowRun.load(run.path)
    assert np.array_equal(again.log_density(points()), run.log_density(points()))
    assert np.array_equal(again.sample(7, seed=3), run.sample(7, seed=3))
    assert again.step == 300
    assert [row["step"] for row in again.checks] == list(range(30, 301, 30))
    assert "mean log density" in str(again.card().rows)


def test_stopped_and_resumed_is_the_same_weights_bit_for_bit(tmp_path):
    whole = fit(points(), out=tmp_path / "whole", steps=60, **SMALL)

    def stop(event, trainer):
        if event.step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(points(), out=tmp_path / "cut", steps=60, on_event=stop, **SMALL)
    again = fit(out=tmp_path / "cut", resume=True)
    assert again.step == 60
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    metrics = [(tmp_path / n / "metrics.csv").read_text() for n in ("whole", "cut")]
    assert metrics[0] == metrics[1]
    assert fit(out=tmp_path / "cut", resume=True).step == 60  # finished: nothing more


def test_the_leak_stops_it():
    run = fit(points(60), n=30, holdout=30, steps=3000, lr=5e-3, leak_budget=0.5, **SMALL)
    assert run.stopped.startswith("leak above")
    assert run.step < 3000


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (dict(network="flow:made-up"), "choose one of nsf"),
        (dict(process="vp"), "process goes with a denoiser"),
        (dict(space="torus"), "space goes with a denoiser"),
        (dict(follow_bias=True), "follow_bias goes with a denoiser"),
        (dict(conditions=np.zeros(300, int)), "told nothing"),
    ],
)
def test_what_a_flow_has_not(more, sentence):
    with pytest.raises(InputError, match=sentence):
        fit(points(), **(SMALL | dict(steps=2) | more))


def test_categories_are_no_numbers(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n" + "\n".join(f"{k / 7},{'xy'[k % 2]}" for k in range(50)))
    with pytest.raises(InputError, match="holds categories"):
        fit(file, steps=2, **SMALL)


def test_without_zuko_one_sentence_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(InputError, match=r"pip install 'reverie\[flows\]'"):
        fit(points(), out=tmp_path / "none", steps=2, **SMALL)
    assert not (tmp_path / "none").exists()


def test_each_loader_names_the_other(run, tmp_path):
    with pytest.raises(InputError, match="run of a flow"):
        Run.load(run.path)
    fit(points(), out=tmp_path / "run", steps=2, width=8, depth=1)
    with pytest.raises(InputError, match=r"Run\.load opens it"):
        FlowRun.load(tmp_path / "run")


def code_of(words):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    return ended.value.code


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", points())
    fitted = "fit rows.npy --out run --network flow:maf --steps 40 --width 16 --quiet"
    assert code_of(fitted) == 0
    said = capsys.readouterr().out
    assert "leak:" in said
    assert "no loss curve" in said
    assert code_of("sample run --n 12 --out made.npy --quiet") == 0
    assert np.load("made.npy").shape == (12, 2)
    assert code_of("audit run --n 60 --quiet") == 0
    assert json.loads((tmp_path / "run/audit.json").read_text())["models"][0]["leak_level"] is None
    assert "no loss curve" in (tmp_path / "run/audit.html").read_text()
    capsys.readouterr()
    refused = ("plan run", "sample run --reject-copies", "audit run --cycles 2", fitted)
    for words in refused:
        assert code_of(words.removesuffix(" --quiet") + " --quiet") == 2, words
        assert "Traceback" not in capsys.readouterr().err
