"""`reverie.bridge` and `reverie bridge`: fit, move, save, load, and one sentence on bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from reverie import BridgeRun, InputError, bridge, plan_steps
from reverie.cli import main
from reverie.data import Dataset, load
from reverie.report import write_bridge


def ends(n: int = 300, d: int = 2) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(5, 2, (n, d)), draw.normal(-1, 1, (n + 50, d))


FAST = {
    "lightsb": dict(steps=60),
    "dsbm": dict(steps=2, rounds=1),
    "sf2m": dict(steps=2),
    "alpha-dsbm": dict(steps=3),
    "dsb": dict(rounds=1),
}
SOLVERS = [
    "lightsb",
    pytest.param("dsbm", marks=pytest.mark.slow),
    "alpha-dsbm",
    "sf2m",
    "dsb",
    "gaussian",
    "sinkhorn",
]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_folder_gives_the_same_bridge_back(solver, tmp_path) -> None:
    a, b = ends()
    run = bridge(a, b, solver=solver, sigma=1.2, **FAST.get(solver, {}))
    run.save(tmp_path / "run")
    again = BridgeRun.load(tmp_path / "run")
    for reverse, rows in ((False, a), (True, b)):
        moved = run.sample(rows, reverse=reverse, steps=5, seed=3)
        assert moved.shape == rows.shape
        assert np.array_equal(moved, again.sample(rows, reverse=reverse, steps=5, seed=3))
    path = again.path(a[:7], steps=4)
    assert path.shape == (21 if solver == "dsb" else 5, 7, 2)
    assert path[0] == pytest.approx(a[:7])
    assert again.bridge.training is False or solver in ("gaussian", "sinkhorn")


@pytest.mark.parametrize(
    "solver", ["gaussian", "lightsb", "sinkhorn", pytest.param("dsbm", marks=pytest.mark.slow)]
)
def test_moved_rows_have_the_other_ends_moments(solver) -> None:
    a, b = ends(1000)
    settings = {"dsbm": dict(steps=40, rounds=0), "lightsb": dict(steps=100)}.get(solver, {})
    run = bridge(a, b, solver=solver, **settings)
    assert run.sigma == pytest.approx(np.sqrt((4 + 1) / 2), rel=0.1)
    for reverse, near, far in ((False, a, b), (True, b, a)):
        moved = run.sample(near, reverse=reverse)
        assert moved.mean(0) == pytest.approx(far.mean(0), abs=0.25 * far.std())
        assert moved.std(0) == pytest.approx(far.std(0), rel=0.15)


def test_a_table_is_bridged_alike_in_any_units(tmp_path) -> None:
    """Columns of a table are divided by their deviations: metres or kilometres move alike."""
    a, b = (Dataset(rows, "table", "t", columns=("x", "y")) for rows in ends())
    wide = np.array([1.0, 1000.0])
    run = bridge(a, b, solver="gaussian", holdout=0)
    scaled = (d.with_values(d.values * wide, "t") for d in (a, b))
    other = bridge(*scaled, solver="gaussian", holdout=0)
    assert run.sigma == pytest.approx(1, rel=1e-6)
    spread = np.sqrt(0.5 * (a.values.var(0, ddof=1) + b.values.var(0, ddof=1)))
    assert np.allclose(run.units, spread)
    moved = run.sample(a, seed=1)
    assert np.allclose(other.sample(a.values * wide, seed=1), moved * wide)
    run.save(tmp_path / "run")
    assert np.allclose(BridgeRun.load(tmp_path / "run").sample(a, seed=1), moved)
    assert run.path(a, steps=3)[0] == pytest.approx(a.values)
    assert bridge(a.values, b.values, solver="gaussian").units is None


def test_cost_and_plan_are_those_of_the_gaussian_plan() -> None:
    a, b = ends(2000, 1)
    run = bridge(a, b, solver="gaussian", sigma=1.0)
    covariance = (np.sqrt(4 * a.var() * b.var() + 1) - 1) / 2
    want = 0.5 * (a.var() + b.var() - 2 * covariance + (a.mean() - b.mean()) ** 2)
    assert run.transport_cost(a) == pytest.approx(want, rel=0.03)
    plan = run.plan(a[:40], b[:30])
    assert plan.sum(1) == pytest.approx(np.full(40, 1 / 40), abs=1e-6)
    assert (plan * 0.5 * (a[:40] - b[:30].T) ** 2).sum() < 1.3 * want


def test_a_run_has_a_curve_and_steps_planned_on_it() -> None:
    a, b = ends(400)
    run = bridge(a, b, solver="gaussian", sigma=1.0)
    curve = run.curve(a, levels=12)
    plan = plan_steps(curve, steps=4)
    assert plan.excess > 0
    paired = bridge(a, a + 1, paired=True, sigma=1.0, steps=3)
    assert paired.curve(a, a + 1, reverse=True, levels=4).rate.min() >= 0
    with pytest.raises(InputError, match="paired"):
        run.curve(a, b)


def test_integers_and_pictures_keep_their_form(tmp_path) -> None:
    draw = np.random.default_rng(0)
    a = draw.integers(0, 9, (60, 4, 4)).astype(np.uint8)
    run = bridge(a, a[::-1].copy(), solver="gaussian")
    moved = run.sample(a)
    assert moved.dtype == np.uint8
    assert moved.max() <= 8
    page = write_bridge(tmp_path, run, load(a), load(a), "again").read_text()
    assert page.count("data:image/png") == 6 * 5


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return int(stop.value.code or 0)


def test_the_command_fits_and_moves_both_ways(tmp_path: Path, capsys) -> None:
    a, b = ends(200)
    header = "height,weight"
    np.savetxt(tmp_path / "a.csv", a, fmt="%.3f", delimiter=",", header=header, comments="")
    np.savetxt(tmp_path / "b.csv", b, fmt="%.3f", delimiter=",", header=header, comments="")
    out = tmp_path / "run"
    files = tmp_path / "a.csv", tmp_path / "b.csv"
    fit = ["bridge", *files, "--out", out, "--solver", "gaussian", "--json"]
    assert call(*fit) == 0
    assert json.loads(capsys.readouterr().out)["transport_cost"] > 0
    assert "<svg" in (out / "bridge.html").read_text()
    moved = tmp_path / "moved.csv"
    assert call("bridge", out, "--from", files[1], "--reverse", "--out", moved, "--quiet") == 0
    rows = moved.read_text().splitlines()
    assert rows[0] == header
    assert len(rows) == 251
    assert np.loadtxt(rows[1:], delimiter=",").mean(0) == pytest.approx(a.mean(0), abs=0.6)
    assert call(*fit) == 2  # the folder is taken


def refused(capsys, *words: object) -> str:
    assert call("bridge", *words, "--quiet") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "Traceback" not in told
    return told


def test_bad_input_is_one_sentence(tmp_path: Path, capsys) -> None:
    a, b = ends(30)
    for name, rows in (("a", a), ("b", b), ("thin", b[:, :1]), ("nan", a * np.nan)):
        np.save(tmp_path / f"{name}.npy", rows)
    A, B = tmp_path / "a.npy", tmp_path / "b.npy"
    out = ("--out", tmp_path / "run")
    assert "same" in refused(capsys, A, tmp_path / "thin.npy", *out)
    assert "paired" in refused(capsys, A, B, "--paired", *out)
    assert "sigma is 0" in refused(capsys, A, B, "--sigma", 0, *out)
    assert "solver" in refused(capsys, A, B, "--solver", "magic", *out)
    assert "pairs" in refused(capsys, A, A, "--paired", "--solver", "lightsb", *out)
    assert "reference" in refused(capsys, A, B, "--reference", "masking", *out)
    refused(capsys, A, tmp_path / "nan.npy", *out)
    refused(capsys, A, *out)
    assert "not the folder" in refused(capsys, tmp_path, "--from", A, "--out", tmp_path / "m.npy")
    run = bridge(a, b, solver="gaussian")
    run.save(tmp_path / "good")
    thin = tmp_path / "thin.npy"
    assert "shape" in refused(
        capsys, tmp_path / "good", "--from", thin, "--out", tmp_path / "m.npy"
    )
    (tmp_path / "good" / "bridge.safetensors").write_bytes(b"x" * 20)
    assert "damaged" in refused(
        capsys, tmp_path / "good", "--from", A, "--out", tmp_path / "m.npy"
    )
    with pytest.raises(InputError, match="sigma"):
        bridge(a, b, sigma=-1.0)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_page_of_bridges_runs(tmp_path: Path, monkeypatch) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "bridges.md"
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, "bridges.md", "exec"), known)
    assert known["paths"].shape == (21, 10, 2)  # type: ignore[attr-defined]
    assert (tmp_path / "bridge" / "bridge.json").exists()
