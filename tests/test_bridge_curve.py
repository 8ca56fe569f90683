"""The curve, the plan, the leak and the audit of a bridge, against closed forms and quadrature."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from reverie import BridgeRun, InputError, LossCurve, bridge, measure, plan_steps
from reverie.auditing.bridged import audit_bridge
from reverie.bridges import BridgeProcess, BrownianMotion, GaussianBridge, pairs_for, sinkhorn
from reverie.bridges.readings import bridge_curves
from reverie.cli import main
from reverie.denoisers import Memoriser

EPSILON, FIRST, SECOND = 0.64, 0.36, 1.69
PLAN = (np.sqrt(4 * FIRST * SECOND + EPSILON**2) - EPSILON) / 2


def gaussian() -> GaussianBridge:
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return GaussianBridge(zero, FIRST * one, zero, SECOND * one, BrownianMotion(EPSILON**0.5))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_exact_curve_is_that_of_the_far_end_seen_through_noise(reverse: bool) -> None:
    """Given its start the far end is Gaussian of variance v: rate v / (2 (1 + u v)), area
    log(1 + u v) / 2. Tolerance: four standard errors of 4,000 rows."""
    draw = torch.Generator().manual_seed(0)
    found = gaussian()
    x0 = FIRST**0.5 * torch.randn(4000, 1, generator=draw, dtype=torch.float64)
    x1 = found.sample(x0, generator=draw)
    curve = measure(
        found.denoiser(reverse=reverse, markov=True), pairs_for(x0, x1, reverse=reverse), 40,
        generator=draw,
    )  # fmt: skip
    near, far = (SECOND, FIRST) if reverse else (FIRST, SECOND)
    v = far - PLAN**2 / near
    assert curve.process is not None
    assert curve.stderr is not None
    assert curve.process.monotone
    assert (abs(curve.rate - 0.5 * v / (1 + curve.u * v)) <= 4 * curve.stderr + 1e-9).all()
    want = 0.5 * np.log1p(curve.u * v)
    error = curve.area_stderr()
    assert error is not None
    assert curve.area() == pytest.approx(want[-1] - want[0], abs=4 * error)


def between(s: float, t: float) -> float:
    """Cov(y_s, y_t) of the exact bridge, s <= t."""
    ends = (1 - s) * (1 - t) * FIRST + s * t * SECOND
    return ends + ((1 - s) * t + s * (1 - t)) * PLAN + EPSILON * s * (1 - t)


def gain(s: float) -> float:
    """E[y_1 | y_s] = gain y_s."""
    return ((1 - s) * PLAN + s * SECOND) / between(s, s)


@pytest.mark.parametrize("method", ["loss-adaptive", "log-snr"])
def test_the_excess_of_a_plan_is_the_path_kl_of_its_steps(method: str) -> None:
    """Girsanov: drifts (g(y_s) - y_s) / (1 - s) and (g(y_k) - y_s) / (1 - s), by quadrature."""
    process = BridgeProcess(BrownianMotion(EPSILON**0.5), 1, markov=True)
    v = SECOND - PLAN**2 / FIRST
    u = np.geomspace(1e-4, 500, 400)
    curve = LossCurve(
        u, 0.5 * v / (1 + u * v), process=process, t=process.time(torch.from_numpy(u)).numpy()
    )
    plan = plan_steps(curve, 5, method)
    share = EPSILON * plan.u / (1 + EPSILON * plan.u)
    total, chain = 0.0, between(share[0], share[0])
    for start, stop in pairwise(share):

        def rate(s: float, k: float = start) -> float:
            far, kept = gain(s), gain(k)
            off = far**2 * between(s, s) + kept**2 * between(k, k)
            off -= 2 * far * kept * between(k, s)
            return off / (2 * EPSILON * (1 - s) ** 2)

        total += quad(rate, start, stop, epsabs=1e-10)[0]
        ratio = (stop - start) / (1 - start)
        chain = (1 + ratio * (gain(start) - 1)) ** 2 * chain + EPSILON * ratio * (1 - stop)
    assert plan.excess == pytest.approx(total, rel=2e-3)  # the interpolant of 400 levels
    true = between(share[-1], share[-1])
    assert 0.5 * (true / chain - 1 - np.log(true / chain)) < total  # of the last marginal alone
    assert plan_steps(curve, 5).excess <= plan.excess


def test_the_memoriser_is_the_mixture_of_bridges() -> None:
    """Against the sum over pairs, written out; its weights are those of the density of y."""
    draw = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 30, 2, generator=draw, dtype=torch.float64)
    process = BridgeProcess(BrownianMotion(0.7), 2)
    y, t = torch.randn(9, 2, generator=draw, dtype=torch.float64), 0.4
    found = Memoriser(process, pairs_for(x0, x1))(y, torch.tensor(t))
    s, rows = 1 - t, []
    for state in y:
        off = (state - (1 - s) * x0 - s * x1).square().sum(1)
        rows.append((-off / (2 * 0.49 * s * (1 - s))).softmax(0) @ x1)
    assert torch.allclose(found, torch.stack(rows))


def sets(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(0, 1, (n, 2)), draw.normal(1, 2, (n, 2))


def test_the_area_of_a_memoriser_is_what_its_plan_leaves_open() -> None:
    """H(far row | start) of the entropic plan of the training rows, to the error of 240 rows."""
    a, b = sets()
    run = bridge(a, b, solver="sinkhorn", sigma=1.0)
    curves = bridge_curves(run, levels=64)
    x, y = (torch.as_tensor(end.train.values) for end in run.known_rows())
    log = sinkhorn(x, y, 1.0).log_rows()
    entropy = float(-(log.exp() * log).sum(1).mean())
    error = curves["train"].area_stderr()
    assert error is not None
    assert curves["train"].area() == pytest.approx(entropy, abs=4 * error)
    assert curves["memoriser on train"].area() == pytest.approx(entropy, abs=4 * error)
    assert curves["train"].leak(curves["holdout"]).low > 3


@pytest.mark.slow
def test_only_the_bridge_that_memorises_copies() -> None:
    a, b = sets()
    found = {}
    for solver in ("sinkhorn", "gaussian"):
        run = bridge(a, b, solver=solver, sigma=1.0)
        for reverse in (False, True):
            verdict, made = audit_bridge(
                run, 300, reverse=reverse, curves=bridge_curves(run, reverse=reverse),
                metrics=False, power=False,
            )  # fmt: skip
            found[solver, reverse] = verdict.finding
            assert made.shape == (300, 2)
            assert verdict.leak is not None
            assert (verdict.leak.low > 3) == (solver == "sinkhorn")
    assert {found["sinkhorn", r] for r in (False, True)} == {"copies"}
    assert not {found["gaussian", r] for r in (False, True)} & {"copies", "exposes"}


def test_paired_ends_hold_out_pairs_and_are_told_their_start() -> None:
    a, _ = sets(200)
    b = a + 1 + 0.1 * np.random.default_rng(1).normal(size=a.shape)
    run = bridge(a, b, paired=True, sigma=1.0, steps=20)
    first, second = run.known_rows()
    assert np.array_equal(first.holdout_rows, second.holdout_rows)
    assert len(first.holdout_rows) == 40
    curves = bridge_curves(run, levels=12)
    assert curves["memoriser on train"].area() < curves["memoriser on holdout"].area()
    assert set(curves) == {"train", "holdout", "memoriser on train", "memoriser on holdout"}


@pytest.mark.slow
def test_a_plan_walks_at_its_levels() -> None:
    a, b = sets()
    run = bridge(a, b, solver="dsbm", steps=3, rounds=0)
    for reverse in (False, True):
        plan = run.plan_steps(4, reverse=reverse)
        times = run.times(plan, reverse=reverse)
        assert times[[0, -1]].tolist() == [0, 1]
        assert len(times) == 6
        share = times[1:-1] if not reverse else 1 - times[1:-1].flip(0)
        clock = share / (run.sigma**2 * (1 - share))
        assert clock.numpy() == pytest.approx(plan.u[1:], rel=1e-6)
        assert run.sample(b if reverse else a, reverse=reverse, plan=plan).shape == a.shape
    with pytest.raises(InputError, match="own times"):
        bridge(a, b, solver="dsb", rounds=1).sample(a, plan=plan)


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_the_commands_read_the_folder_of_a_bridge(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, rows in zip("ab", sets(100), strict=True):
        np.save(f"{name}.npy", rows)
    fit = ("bridge", "a.npy", "b.npy", "--sigma", 1, "--json", "--solver")
    assert call(*fit, "sinkhorn", "--out", "run") == 0
    assert json.loads(capsys.readouterr().out)["rows"]["first"] == {"train": 80, "holdout": 20}
    assert call("audit", "run", "--n", 40, "--json", "--fail-on", "copies") == 1
    models = json.loads(capsys.readouterr().out)["models"]
    assert [model["finding"] for model in models] == ["copies", "copies"]
    assert models[0]["leak"] > 0
    assert "second to first" in (tmp_path / "run" / "audit.html").read_text()
    assert call("plan", "run", "--steps", "3,6", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["forward"]["plans"][0]["excess_nats"] > told["forward"]["plans"][1]["excess_nats"]
    assert (tmp_path / "run" / "reverse" / "plan-6.txt").exists()
    move = ("bridge", "run", "--from", "a.npy", "--out", "m.npy", "--plan", "loss-adaptive")
    assert call(*move, "--quiet") == 2  # one exact step
    assert "no plan" in capsys.readouterr().err
    assert call(*fit, "gaussian", "--out", "all", "--holdout", 0) == 0
    assert call("audit", "all", "--quiet") == 2
    assert "held out no rows" in capsys.readouterr().err
    np.save("a.npy", sets(100)[0] + 1)
    assert call("audit", "run", "--quiet") == 2
    assert "has changed" in capsys.readouterr().err
    assert len(BridgeRun.load("run").sample(sets(10)[0])) == 10  # moving rows needs no data
