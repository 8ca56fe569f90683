"""A fit followed by its bias: two halves and one noise; budgets, and what the page shows."""

import json
import math

import numpy as np
import pytest
import torch

from reverie.denoisers import Linear, Memoriser
from reverie.errors import InputError
from reverie.processes import EDM, Brownian, Masking
from reverie.report.page import ModelReport, write_report
from reverie.runs import FitConfig, Run, fit
from reverie.runs.following import bias_between, extracted, paired_samples, split_halves
from reverie.spaces import Sphere

SMALL = dict(n=40, holdout=60, width=24, depth=1, batch_size=16, check_every=20, lr=3e-3)


def normal(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def rows(n=160, d=3):
    return np.random.default_rng(0).normal(size=(n, d))


# --- the statistic -------------------------------------------------------------------------------


def test_halves_are_disjoint_and_of_one_size():
    first, second = split_halves(11, 3)
    assert len(first) == len(second) == 5
    assert not set(first.tolist()) & set(second.tolist())


def test_copies_lean_by_half_and_the_same_samples_not_at_all():
    process, halves = EDM(0.05, 20), (normal(30), normal(30, seed=1))
    own = tuple(Memoriser(process, half) for half in halves)
    drawn = tuple(paired_samples(model, (3,), 200, seed=5) for model in own)
    found = bias_between(own[0], drawn, halves)
    assert found.value == pytest.approx(0.5)
    assert found.apart > 0.3
    same = bias_between(own[0], (drawn[0], drawn[0]), halves)
    assert (same.value, same.apart) == (0, 0)
    assert same.low < 0 < same.high


def test_the_bias_by_hand_and_its_coverage():
    """Samples that know nothing of the halves: the interval holds 0 in 95% of 200 draws (binomial
    deviation 1.5 points), and the value is the mean over nearest rows, by brute force."""
    halves, inside = (normal(20), normal(20, seed=1)), 0
    model = Linear.fit(EDM(0.1, 10), halves[0])
    for seed in range(200):
        drawn = normal(100, seed=2 * seed + 10), normal(100, seed=2 * seed + 11)
        found = bias_between(model, drawn, halves)
        inside += found.low < 0 < found.high
        if seed == 0:
            gap = [torch.cdist(d, torch.cat(halves)).argmin(1) < 20 for d in drawn]
            by_hand = float(0.5 * (gap[0].double() - gap[1].double()).mean())
            assert found.value == pytest.approx(by_hand)
    assert 0.89 <= inside / 200 <= 0.995


@pytest.mark.parametrize("process", [Masking(3, 6), Brownian(Sphere(2))])
def test_samples_depend_on_the_noise_alone_on_any_space(process):
    draw = torch.Generator().manual_seed(0)
    if process.space.shape == (6,):
        data = torch.randint(3, (20, 6), generator=draw)
    else:
        data = process.space.uniform(20, generator=draw)
    shape = tuple(data.shape[1:])
    first, again, other = (
        paired_samples(Memoriser(process, data), shape, 8, steps=5, seed=s) for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert extracted(Memoriser(process, data), data, data[:4]) == {}


def test_what_a_memoriser_gives_away():
    """The exact memoriser shows every sample as a row, at once and after cycling; a guess that
    knows two moments shows none."""
    process, train, held = EDM(0.02, 20), normal(60, 6, seed=7), normal(60, 6, seed=8)
    assert extracted(Memoriser(process, train), train, held) == {"copied": 1, "extracted": 1}
    assert extracted(Linear.fit(process, train), train, held) == {"copied": 0, "extracted": 0}


# --- the fit -------------------------------------------------------------------------------------


def test_following_leaves_the_model_as_it_is_and_resumes_bit_for_bit(tmp_path):
    plain = fit(rows(), steps=40, **SMALL)
    whole = fit(rows(), steps=40, out=tmp_path / "whole", follow_bias=True, **SMALL)
    for a, b in zip(plain.denoiser.parameters(), whole.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)

    def kill(event, _):
        if event.step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(rows(), steps=40, out=tmp_path / "cut", follow_bias=True, on_event=kill, **SMALL)
    again = fit(out=tmp_path / "cut", resume=True)
    assert again.checks == whole.checks
    assert {"bias", "bias_low", "bias_high", "apart", "copied", "extracted"} <= set(
        again.checks[0]
    )
    kept = Run.load(tmp_path / "cut").checks
    assert [check["step"] for check in kept] == [20, 40]
    assert kept[-1]["bias"] == pytest.approx(whole.checks[-1]["bias"], rel=1e-6)


def test_a_bias_budget_stops_and_keeps_the_best_average_within_it():
    run = fit(rows(), steps=4000, bias_budget=0.02, **SMALL | dict(width=48, check_every=100))
    assert run.stopped == "bias above 0.02 of the samples"
    assert run.step < 4000
    assert run.checks[-1]["bias_low"] > 0.02
    assert all(check["bias_low"] <= 0.02 for check in run.checks[:-1])


@pytest.mark.slow
def test_a_leak_budget_needs_no_other_flag():
    run = fit(rows(d=8), steps=3000, leak_budget=0.5, **SMALL | dict(width=64, check_every=200))
    assert run.stopped == "leak above 0.5 nats"
    assert run.checks[-1]["leak_low"] > 0.5
    free = fit(rows(d=8), steps=60, leak_budget=50.0, **SMALL)
    assert free.stopped == "all steps done"


@pytest.mark.slow
def test_the_page_and_its_data_show_the_training(tmp_path):
    run = fit(rows(), steps=60, follow_bias=True, **SMALL)
    report = ModelReport("x", checks=run.checks)
    page, data = write_report(tmp_path, "a", "A", [report], [])
    text = page.read_text()
    assert "Along the training" in text
    assert "no promise of privacy" in " ".join(text.split())
    checks = json.loads(data.read_text())["models"][0]["checks"]
    assert [check["step"] for check in checks] == [20, 40, 60]
    assert math.isfinite(checks[-1]["bias"])


def test_bad_settings_are_one_sentence():
    with pytest.raises(InputError, match="must not be negative"):
        FitConfig(bias_budget=-1).check()
    with pytest.raises(InputError, match="at least 4 training rows"):
        fit(rows(), follow_bias=True, steps=5, **SMALL | dict(n=3))
    saved = FitConfig(leak_budget=2.0).to_json()
    assert saved["bias_budget"] is None
    assert FitConfig.from_json(saved) == FitConfig(leak_budget=2.0)
