"""Retrainings and sweeps: information against closed forms, identities, resuming."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from reverie.auditing.metrics.memorisation import effective_memorisation, memorised_rows
from reverie.auditing.nulls.rank_tests import wilson
from reverie.auditing.retrained.agreement import Likeness, memorised, reproducibility
from reverie.auditing.retrained.information import information_bound
from reverie.cli import main
from reverie.data import Scaler, load
from reverie.denoisers import Memoriser
from reverie.errors import InputError
from reverie.processes import EDM
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit
from reverie.runs.readings import draw_paired
from reverie.runs.retraining import retrain, retrain_rows, retrain_run
from reverie.runs.sweeps import sweep

SMALL = FitConfig(width=16, depth=1, steps=40, check_every=40, batch_size=16, holdout=60)


def ring(n=300, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * math.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) * 3 + rng.normal(0, 0.1, (n, 2))


# --- I(sample; training set) ---------------------------------------------------------------------


def gaussian_mean(rng, models, samples, n=1, d=1):
    """Honest model: x ~ N(mean of S, I) for S of n standard normals; I = d/2 log(1 + 1/n)."""
    sets = rng.standard_normal((models, n, d))
    return sets, sets.mean(1)[:, None] + rng.standard_normal((models, samples, d))


def copies(rng, models, samples, n, s):
    """Memorising model: a random training point plus N(0, s^2)."""
    sets = rng.standard_normal((models, n, 1))
    picks = np.stack([rows[rng.integers(n, size=samples)] for rows in sets])
    return sets, picks + s * rng.standard_normal(picks.shape)


def exact_gains(log_density):
    """log R + log p(b | x), (R, m), from log densities (R, m, R) of x under every model."""
    own = np.stack([log_density[b, :, b] for b in range(len(log_density))])
    return math.log(len(own)) + own - special.logsumexp(log_density, axis=2)


def gaussian_logs(sets, x):
    return -0.5 * ((x[:, :, None] - sets.mean(1)) ** 2).sum(-1)


def copies_logs(sets, x, s):
    square = (x[:, :, None, None, 0] - sets[None, None, :, :, 0]) ** 2
    return special.logsumexp(-0.5 * square / s**2, axis=3)


@pytest.mark.parametrize(
    ("models", "n", "d", "published"),
    [
        (2, 1, 1, 0.165),
        (8, 1, 1, 0.302),
        pytest.param(32, 1, 1, 0.335, marks=pytest.mark.slow),
        (2, 20, 8, 0.084),
        (8, 20, 8, 0.169),
    ],
)
def test_gaussian_mean_oracle(models, n, d, published):
    """E JSD_R of the Gaussian-mean model: simulated here, and as the specification has it; the
    bound is below the information by more than nothing and above most of JSD_R."""
    rng = np.random.default_rng(models)
    truth = 0.5 * d * math.log1p(1 / n)
    exact = []
    for _ in range(3000 // models):
        sets, x = gaussian_mean(rng, models, 60, n, d)
        exact.append(exact_gains(gaussian_logs(sets, x)).mean())
    error = np.std(exact) / math.sqrt(len(exact))
    assert abs(np.mean(exact) - published) < 3 * error + 0.002
    differences, values = [], []
    for _ in range({2: 24, 8: 8, 32: 2}[models]):
        sets, x = gaussian_mean(rng, models, 240, n, d)
        found = information_bound(sets, x)
        fresh = exact_gains(gaussian_logs(sets, x)).mean()
        values.append(found.value)
        differences.append(found.value - fresh)
        assert found.most == math.log(models)
    spread = np.std(values, ddof=1) / math.sqrt(len(values)) if models < 32 else 0.05
    assert np.mean(values) < truth + 2 * spread
    assert abs(np.mean(differences)) < 0.05  # little is lost to the classifier


@pytest.mark.parametrize(("n", "s"), [(1, 0.1), (2, 0.1), (5, 0.03), (20, 0.03)])
def test_memorising_model_oracle(n, s):
    """The classifier loses little against the exact posterior, and never exceeds log R."""
    rng = np.random.default_rng(n)
    sets, x = copies(rng, 8, 400, n, s)
    exact = exact_gains(copies_logs(sets, x, s))
    found = information_bound(sets, x)
    error = exact.std() / math.sqrt(exact.size / 2)  # the bound's fresh half
    assert found.value < exact.mean() + 3 * error
    assert found.value > 0.9 * exact.mean() - 3 * error
    assert found.p_value < 1e-6
    assert found.interval[0] < found.value < found.interval[1] <= found.most
    assert found.lower is not None
    # truths of the specification (a Monte-Carlo of the mutual information, to .005)
    truth = {1: 0.5 * math.log1p(1 / s**2), 2: 1.698, 5: 1.999, 20: 0.932}[n]
    assert found.lower < truth


def test_lower_bound_covers_over_retrainings():
    """At most 5% + 2 standard errors of the bounds exceed I, over fresh training sets."""
    rng = np.random.default_rng(5)
    truth, above, count = 0.5 * math.log(2), 0, 40
    for _ in range(count):
        found = information_bound(*gaussian_mean(rng, 4, 60))
        assert found.lower is not None
        above += found.lower > truth
    assert above <= count * 0.05 + 2 * math.sqrt(count * 0.05 * 0.95)


@pytest.mark.slow
def test_models_that_forgot_their_data():
    """Samples of the population: the test has its size, and the value is about 0."""
    rng = np.random.default_rng(6)
    found = [information_bound(rng.standard_normal((3, 20, 2)), rng.standard_normal((3, 64, 2)))
             for _ in range(40)]  # fmt: skip
    rejected = sum(b.p_value <= 0.05 for b in found)
    assert rejected <= stats.binom.ppf(0.99, 40, 0.05)
    assert np.mean([b.value for b in found]) < 0.01
    two = information_bound(rng.standard_normal((2, 20, 2)), rng.standard_normal((2, 64, 2)))
    assert two.lower is None
    json.dumps(two.to_json())


@pytest.mark.parametrize(
    ("sets", "samples", "words"),
    [
        ([np.zeros((3, 2))], [np.zeros((20, 2))], "two or more"),
        ([np.zeros((3, 2))] * 2, [np.zeros((20, 2)), np.zeros((30, 2))], "same number"),
        ([np.zeros((3, 2))] * 2, [np.zeros((5, 2))] * 2, "at least 16"),
    ],
)
def test_bad_retrainings_are_named(sets, samples, words):
    with pytest.raises(InputError, match=words):
        information_bound(sets, samples)


# --- reproducibility -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def memorisers():
    """Two memorisers of one training set, and one of disjoint rows, drawn from one noise."""
    rows = ring(400)
    scaler = Scaler.fit(load(rows))
    process = EDM(0.02, 20)

    def drawn(part):
        memoriser = Memoriser(process, scaler.to_model(part))
        return scaler.to_user(draw_paired(memoriser, (2,), 300))

    return rows, drawn(rows[:30]), drawn(rows[:30].copy()), drawn(rows[30:60])


@pytest.mark.parametrize("similarity", ["distance", "correlation"])
def test_reproducibility_identities(memorisers, similarity):
    rows, first, again, other = memorisers
    likeness = Likeness(rows[100:], similarity=similarity)
    assert reproducibility(first, first, likeness).value == 1
    same = reproducibility(first, again, likeness)
    assert same.value == 1
    assert same.interval[0] > 0.98
    assert reproducibility(first, other, likeness).value < 0.5  # the noise decides the place


def test_unrelated_points_agree_at_the_null_rate():
    """Independent points of the population are alike in 1% of pairs, as the threshold was set."""
    rng = np.random.default_rng(3)
    likeness = Likeness(rng.standard_normal((2000, 5)))
    share = reproducibility(rng.standard_normal((4000, 5)), rng.standard_normal((4000, 5)),
                            likeness)  # fmt: skip
    assert abs(share.value - 0.01) < 3 * math.sqrt(0.01 / 4000) + 0.002  # and of the threshold
    assert abs(share.null - 0.01) < 0.003
    fresh = memorised(rng.standard_normal((2000, 5)), rng.standard_normal((300, 5)), likeness)
    assert fresh.value < 0.03
    train = rng.standard_normal((300, 5))
    assert memorised(train, train, likeness).value == 1
    json.dumps(fresh.to_json())


def test_bad_pairs_are_named():
    with pytest.raises(InputError, match="at least 20"):
        Likeness(np.zeros((3, 2)))
    with pytest.raises(InputError, match="choose distance"):
        Likeness(np.zeros((30, 2)), similarity="taste")
    likeness = Likeness(np.random.default_rng(0).standard_normal((30, 2)))
    with pytest.raises(InputError, match="same noises"):
        reproducibility(np.zeros((4, 2)), np.zeros((5, 2)), likeness)


# --- retraining ----------------------------------------------------------------------------------


def test_retrainings_are_runs_on_disjoint_rows_and_resume(tmp_path):
    whole = retrain(ring(), 3, tmp_path / "whole", config=SMALL, samples=64)
    splits = [json.loads((tmp_path / f"whole/model-{b}/data.json").read_text()) for b in range(3)]
    seen = [set(s["train"]) for s in splits]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 240
    assert not set(splits[0]["holdout"]) & set.union(*seen)
    assert len({tuple(s["holdout"]) for s in splits}) == 1

    def stop_in_second(name, config):
        def hook(event, trainer):
            if name == "model-1" and event.step == 15:
                raise KeyboardInterrupt

        return hook

    with pytest.raises(KeyboardInterrupt):
        retrain(ring(), 3, tmp_path / "cut", config=SMALL, samples=64, hooks=stop_in_second)
    again = retrain(ring(), 3, tmp_path / "cut", config=SMALL, samples=64)
    for kind in ("independent", "paired", "copied"):
        for a, b in zip(getattr(whole, kind), getattr(again, kind), strict=True):
            assert np.array_equal(a, b)
    with pytest.raises(InputError, match="other sha256"):
        retrain(ring(seed=1), 3, tmp_path / "cut", config=SMALL, samples=64)
    rows = retrain_rows(again)
    assert [row.statistic.split()[0] for row in rows] == [
        "information", "reproducibility,", "reproducibility,", "samples",
    ]  # fmt: skip
    assert all(row.detail and row.null for row in rows)
    assert rows[0].p_value is not None


def test_retraining_a_run_keeps_its_held_out_rows(tmp_path):
    run = fit(ring(), out=tmp_path / "run", n=100, config=SMALL)
    found = retrain_run(run, 2, tmp_path / "again", samples=32)
    assert [len(r.train) for r in found.runs] == [100, 100]
    assert np.array_equal(found.runs[0].holdout.values, run.holdout.values)
    in_memory = fit(ring(), n=100, config=SMALL)
    assert len(retrain_run(in_memory, 2, tmp_path / "third", samples=32).runs[0].train) == 50


@pytest.mark.parametrize(
    ("count", "config", "words"),
    [
        (1, SMALL, "at least two"),
        (3, FitConfig(n=100, holdout=60), "3 models of 100 rows need 300 rows; the array has 240"),
    ],
)
def test_bad_retraining_writes_nothing(tmp_path, count, config, words):
    with pytest.raises(InputError, match=words):
        retrain(ring(), count, tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()


# --- memorised share and sweeps ------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
def test_ratio_rule_has_the_null_of_its_dimension(d):
    """P(d1 / d2 < c) = c^d for a perfect generator, inside the bulk of many rows."""
    rng = np.random.default_rng(d)
    points, rows = rng.uniform(0.2, 0.8, (4000, d)), rng.uniform(0, 1, (20_000, d))
    share = 3.0**-d
    assert abs(memorised_rows(points, rows) / 4000 - share) < 4 * math.sqrt(share / 4000)
    assert memorised_rows(rows[:100], rows) == 100


def test_emm_by_hand():
    found = effective_memorisation([100, 200, 400], [1.0, 0.95, 0.45])
    assert (found.n, found.relation) == (pytest.approx(220), "=")  # a tenth of the way down
    assert str(found) == "220"
    assert str(effective_memorisation([100, 200], [0.5, 0.1])) == "below 100"
    assert str(effective_memorisation([1000, 2000], [1.0, 0.9])) == "at least 2,000"
    # the largest size that still reaches it, even after a dip
    assert effective_memorisation([1, 2, 3, 4], [0.95, 0.8, 0.9, 0.0]).n == pytest.approx(3)
    # Gu et al. 2023, figure 2: about one thousand images of 32 x 32
    published = effective_memorisation([500, 1000, 2000, 3000], [0.99, 0.92, 0.61, 0.345])
    assert 1000 < published.n < 1100
    with pytest.raises(InputError, match="increasing"):
        effective_memorisation([2, 1], [1.0, 1.0])


def test_sweep_resumes_and_extends(tmp_path):
    over, config = {"n": [10, 40], "width": [8, 16]}, replace(SMALL, check_every=20)
    whole = sweep(ring(), tmp_path / "whole", over, config=config, samples=40)

    def stop_in_third(name, config):
        def hook(event, trainer):
            if name == "n=40,width=8" and event.step == 25:
                raise KeyboardInterrupt

        return hook

    with pytest.raises(KeyboardInterrupt):
        sweep(ring(), tmp_path / "cut", over, config=config, samples=40, hooks=stop_in_third)
    done = (tmp_path / "cut/sweep.csv").read_text().splitlines()
    assert [line.split(",")[0].strip('"') for line in done] == ["fit", "n=10", "n=10"]
    fitted: list[str] = []
    again = sweep(ring(), tmp_path / "cut", over, config=config, samples=40,
                  hooks=lambda name, config: fitted.append(name))  # fmt: skip
    assert fitted == ["n=40,width=8", "n=40,width=16"]
    assert again.rows == whole.rows
    for name in ("sweep.csv", "sweep.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    wider = sweep(ring(), tmp_path / "cut", {"n": [10, 20], "width": [8]}, config=config,
                  samples=40)  # fmt: skip
    assert wider.rows[0] == whole.rows[0]
    assert len(json.loads((tmp_path / "cut/sweep.json").read_text())["rows"]) == 5
    for row in whole.rows:
        assert (row["low"], row["high"]) == wilson(row["hits"], 40)
        assert row["best_hits"] >= row["hits"]
        assert row["null_count"] == 60
        assert row["epochs"] == 40 * 16 / row["n"]
    held = {json.dumps(json.loads(p.read_text())["holdout"])
            for p in (tmp_path / "whole/fits").glob("*/data.json")}  # fmt: skip
    assert len(held) == 1
    with pytest.raises(InputError, match="other samples"):
        sweep(ring(), tmp_path / "cut", over, config=config, samples=41)


def test_sweep_pools_seeds_and_reads_epochs(tmp_path):
    table = sweep(ring(), tmp_path / "s", {"n": [8, 16], "epochs": [4], "seed": [0, 1]},
                  config=SMALL, samples=20)  # fmt: skip
    assert [row["steps"] for row in table.rows] == [2, 2, 4, 4]  # 4 N / 16
    (line,) = table.lines()
    assert line.samples == [40, 40]
    assert line.label == "epochs 4"
    json.dumps(table.to_json())


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({}, "needs settings"),
        ({"n": [10.5]}, "whole number"),
        ({"holdout": [10]}, "cannot sweep over 'holdout'"),
        ({"process": [1]}, "cannot sweep over 'process'"),
        ({"n": [10, 10]}, "must be different"),
        ({"n": [1000]}, "N is 1 to 299"),
        ({"n": [10, 280]}, "cannot hold out"),
        ({"steps": [1], "epochs": [1]}, "not both"),
        ({"epochs": [-1]}, "must be positive"),
        ({"width": [0]}, "width is 0"),
    ],
)
def test_bad_sweeps_fit_nothing(tmp_path, over, words):
    with pytest.raises(InputError, match=words):
        sweep(ring(), tmp_path / "out", over, config=SMALL)
    assert not (tmp_path / "out").exists()


def test_a_stopped_sweep_says_how_to_continue(monkeypatch, tmp_path, capsys):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("reverie.cli.commands.run_sweep", stop)
    arguments = ["sweep", "digits", "--over", "n=10,20", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 130
    assert "continue with: reverie " + " ".join(arguments) in capsys.readouterr().err


def test_sweep_command(tmp_path, capsys):
    np.save(tmp_path / "ring.npy", ring())
    small = "--width 8 --depth 1 --steps 20 --check-every 20 --holdout 60 --samples 20 --quiet"

    def call(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["sweep", str(tmp_path / "ring.npy"), "--out", str(tmp_path / "s"),
                  *arguments, *small.split()])  # fmt: skip
        return stop.value.code or 0

    assert call("--over", "n=10,20", "--over", "lr=0.001,0.01") == 0
    text = capsys.readouterr().out
    assert "n=10,lr=0.001" in text
    assert "largest N memorised to 90%" in text
    page = (tmp_path / "s/sweep.html").read_text()
    assert "<svg" in page
    assert "lr 0.01" in page
    assert len((tmp_path / "s/sweep.csv").read_text().splitlines()) == 5
    for bad, words in (("n", "give a setting"), ("n=a", "give a setting"), ("n=", "give a")):
        assert call("--over", bad) == 2
        assert words in capsys.readouterr().err
    assert call("--over", "n=10", "--over", "n=20") == 2
    assert "given twice" in capsys.readouterr().err
