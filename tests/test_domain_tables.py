"""Bridges into a domain as a process: numbers with ends beside symbols, through every verb."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from reverie import InputError, Run, audit, bound, fit, measure, sample
from reverie.cli import main
from reverie.curve import level_times
from reverie.data import Column, Dataset, DomainCoder, coder_from_json, load, save
from reverie.denoisers import Memoriser, network_for
from reverie.processes import BrownianBridge, DomainBridges, name_of, process_on
from reverie.runs.readings import standard_curves
from reverie.spaces import Bounded, FiniteSet, Intervals, Mixed

INF = math.inf
SMALL = dict(steps=60, check_every=60, width=32, depth=1, holdout=60, batch_size=64)
HEADER = ["kind", "age", "income", "share", "gap", "change"]
SPACE = Bounded(Intervals([0.0, -INF], [INF, 1.0]), FiniteSet(4, 2, [2, 4]))


def rows_of(n: int, seed: int = 0) -> list[list[str]]:
    """Categories, whole numbers, skewed ones with zeros, shares, gaps, and heavy tails."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(list("ABC"), n, p=[0.5, 0.3, 0.2])
    income = np.where(rng.random(n) < 0.5, 0, np.exp(1.5 * rng.normal(size=n) + 3).round(1) + 0.1)
    share = rng.beta(0.5, 0.5, n)
    gap = [f"{v:.2f}" if v < 2 else "" for v in rng.exponential(size=n)]
    change = rng.standard_t(2, n)
    columns = (
        kind, rng.integers(18, 90, n), [f"{v:.1f}" for v in income], [f"{v:.3f}" for v in share],
        gap, [f"{v:.3f}" for v in change],
    )  # fmt: skip
    return [list(map(str, row)) for row in zip(*columns, strict=True)]


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("domain") / "table.csv", rows_of(240))


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("run") / "run"
    run = fit(table, process="bridge", bounds="share=0:1,age=0:120", out=out, **SMALL)
    standard_curves(run, levels=8, rows=60)
    return run


# --- the coder -----------------------------------------------------------------------------------


def test_a_column_has_the_ends_that_are_said_or_seen(table: Path) -> None:
    coder = DomainCoder.fit(load(table, mixed=True), bounds="share=0:1")
    ends = {plan.name: (plan.low, plan.high) for plan in coder.columns_read if plan.is_number}
    assert ends == {
        "age": (0, INF), "income": (0, INF), "share": (0, 1), "gap": (0, INF),
        "change": (-INF, INF),
    }  # fmt: skip
    assert {p.name: p.bend for p in coder.columns_read}["income"] == "up"
    assert isinstance(coder.space, Bounded)
    assert isinstance(coder.space.parts[0], Intervals)


def test_a_table_goes_into_the_model_and_comes_back_as_it_was(table: Path, tmp_path: Path) -> None:
    data = load(table, mixed=True)
    made = DomainCoder.fit(data, bounds="share=0:1")
    coder = coder_from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)))
    assert type(coder) is DomainCoder
    points = coder.to_model(data.values)
    coder.space.check(points)
    written = save(tmp_path / "again.csv", coder.to_user(points), coder)
    assert written.read_text() == table.read_text().replace("\r\n", "\n")


@given(
    st.lists(st.floats(0, 1e6), min_size=30, max_size=60, unique=True),
    st.sampled_from(["", "0=0:", "0=:2e6", "0=-1:2e6", "0=:"]),
)
@settings(max_examples=60, deadline=None)
def test_numbers_come_back_and_stay_inside(values: list[float], bounds: str) -> None:
    rows = np.array(values)[:, None]
    coder = DomainCoder.fit(Dataset(rows, "vectors", "made"), bounds=bounds)
    points = coder.to_model(rows)
    coder.space.check(points)
    back = coder.to_user(points)
    assert np.abs(back - rows).max() <= 1e-4 * np.ptp(rows)
    (plan,) = coder.columns_read
    far = coder.to_user(torch.tensor([[-1e4], [1e4], [0.0]]))
    assert ((far >= plan.low) & (far <= plan.high)).all()


@pytest.mark.parametrize(
    ("bounds", "sentence"),
    [
        ("n=0:1", "5 cells of column 'n' lie outside its bounds 0:1, the first 2"),
        ("w=0:1", "column 'w' holds categories: it has no bounds"),
        ("m=0:1", "has no column 'm', only n, w"),
        ("n=1", "bounds 'n=1': write COLUMN=LOW:HIGH, as age=0:120 or income=0:"),
        ("n=2:1", "write COLUMN=LOW:HIGH"),
        ("n=a:b", "write COLUMN=LOW:HIGH"),
    ],
)
def test_bounds_that_do_not_fit_get_a_sentence(bounds: str, sentence: str) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.random(50), rng.integers(0, 2, 50)], 1)
    rows[:5, 0] = 2.0
    fields = (Column("n"), Column("w", "categorical", ("a", "b"), "string"))
    data = Dataset(rows, "table", "made", columns=("n", "w"), fields=fields)
    with pytest.raises(InputError, match=sentence):
        DomainCoder.fit(data, bounds=bounds)


def test_a_cell_outside_is_named() -> None:
    rows = np.random.default_rng(0).random((50, 1))
    coder = DomainCoder.fit(Dataset(rows, "vectors", "made"))
    with pytest.raises(InputError, match="row 1 holds -3 in column '0', outside 0:inf"):
        coder.to_model(np.array([[0.5], [-3.0]]), "other.csv")


def test_spaces_are_checked() -> None:
    for wrong in (
        lambda: Intervals([1.0], [0.0]),
        lambda: Intervals([0.0], [1.0, 2.0]),
        lambda: Bounded(FiniteSet(2, 1), FiniteSet(2, 1)),
        lambda: Intervals([0.0], [1.0]).check(torch.tensor([[1.5]])),
        lambda: DomainBridges(SPACE, sigma=0.0),
        lambda: process_on(SPACE, "bridge:sigma=-1"),
        lambda: process_on(SPACE, "bridge:speed=1"),
        lambda: process_on(Mixed(FiniteSet(2, 1)), "bridge"),
    ):
        with pytest.raises(InputError):
            wrong()


# --- the process ---------------------------------------------------------------------------------


def test_of_two_symbols_the_cut_law_is_a_tanh() -> None:
    """On the line between two corners, p - q = tanh((y_1 - y_2) / (2 v))."""
    process = DomainBridges(Bounded(FiniteSet(2, 1)), sigma=0.8)
    y = torch.linspace(-1, 1, 7, dtype=torch.float64)
    for t in (1.0, 0.4, 0.02):
        v = process.left(t)
        law = process.cut(torch.stack([y, -y], 1), v.expand(7))
        assert torch.allclose(law[:, 0] - law[:, 1], (y / v).tanh())


def test_of_numbers_the_cut_law_is_the_truncated_normals() -> None:
    process = DomainBridges(SPACE)
    y, v = (
        torch.tensor([[-0.7, 1.9, 0, 0, 0, 0, 0, 0]], dtype=torch.float64),
        torch.tensor([0.3], dtype=torch.float64),
    )
    found = process.cut(y, v)[0, :2]
    d = math.sqrt(0.3)
    want = [
        stats.truncnorm.mean(0.7 / d, INF, loc=-0.7, scale=d),
        stats.truncnorm.mean(-INF, -0.9 / d, loc=1.9, scale=d),
    ]
    assert found.tolist() == pytest.approx(want, abs=1e-10)


def test_the_noise_is_the_brownian_bridge_from_nought() -> None:
    noise, draw = BrownianBridge(1.5), torch.Generator().manual_seed(0)
    x, t = torch.full((40_000, 1), 2.0, dtype=torch.float64), 0.3
    motion = 1.5 * torch.randn(2, 40_000, 1, generator=draw, dtype=torch.float64)
    half = math.sqrt(1 - t) * motion[0]  # at s = .7, and then to s = 1
    end = half + math.sqrt(t) * motion[1]
    pinned = half + (1 - t) * (x - end)  # conditioned on its end
    found = noise.corrupt(x, t, generator=draw)
    for moment in (torch.mean, torch.var):
        # the deviation is about .7: five standard errors
        assert float(moment(found)) == pytest.approx(float(moment(pinned)), abs=0.02)


LAW = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
ROWS = torch.tensor([[0.0, 0.5, 0, 3], [2.0, -1.0, 1, 0], [0.25, 1.0, 1, 2]]).double()


def weighted() -> tuple[DomainBridges, torch.Tensor]:
    return DomainBridges(SPACE), ROWS.repeat_interleave((10 * LAW).round().long(), 0)


def test_the_area_of_the_memoriser_is_the_entropy() -> None:
    process, rows = weighted()
    many = rows.repeat(30, 1)
    model = Memoriser(process, rows)
    curve = measure(model, many, 64, generator=torch.Generator().manual_seed(0))
    assert process.area_exact
    assert process.steps_exact
    entropy = -float((LAW * LAW.log()).sum())
    assert curve.area() == pytest.approx(entropy, abs=0.03)  # 300 rows, two draws a level


def test_of_symbols_the_bound_is_tight_for_the_memoriser() -> None:
    process = DomainBridges(Bounded(FiniteSet(4, 2, [2, 4])))
    rows = weighted()[1][:, 2:]
    found = bound(
        Memoriser(process, rows), rows.repeat(40, 1), draws=128,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    entropy = -float((LAW * LAW.log()).sum())
    assert found.nats == pytest.approx(entropy, abs=0.05)


@pytest.mark.parametrize(("sampler", "steps"), [("heun", 24), ("ancestral", 60)])
def test_samples_have_an_enumerated_law(sampler: str, steps: int) -> None:
    process, rows = weighted()
    times = torch.as_tensor(level_times(process, steps + 1))
    draw = torch.Generator().manual_seed(0)
    drawn = sample(
        Memoriser(process, rows.float()), 20_000, times, sampler, generator=draw
    ).double()
    near = torch.cdist(drawn, ROWS)
    found = torch.bincount(near.argmin(1), minlength=3) / len(drawn)
    assert float((found - LAW).abs().sum()) / 2 < 0.02
    assert float(near.min(1).values.max()) < 0.2  # of a number's deviation, the last noise is .02
    assert torch.equal(drawn[:, 2:], ROWS[near.argmin(1), 2:])


class Wild(nn.Module):
    """A body that says anything at all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.unit = dim, nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return 300 * torch.sin(1e3 * x[:, : self.dim]) * self.unit


@pytest.mark.parametrize("n", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_every_sample_is_inside_whatever_the_network_says(n: int) -> None:
    process = DomainBridges(SPACE)
    network = network_for(process, (4,), body=Wild(process.dim))
    times = torch.as_tensor(level_times(process, 4))
    for sampler in ("heun", "ancestral"):
        draw = torch.Generator().manual_seed(0)
        drawn = sample(network, n, times, sampler, generator=draw)
        assert torch.isfinite(drawn).all()
        SPACE.check(drawn)


def test_the_text_of_a_process_makes_it_again() -> None:
    assert name_of(process_on(SPACE, "bridge")) == "bridge:sigma=1.0"
    assert process_on(SPACE, "bridge:sigma=2").settings() == {"sigma": 2.0}


# --- every verb ----------------------------------------------------------------------------------


def test_samples_have_the_tables_types_and_lie_inside(run: Run, tmp_path: Path) -> None:
    assert (run.config.space, run.config.process) == ("domain", "bridge")
    drawn = run.sample(500, 6)
    path = save(tmp_path / "new.csv", drawn, run.scaler)
    head, *rows = list(csv.reader(path.read_text().splitlines()))
    assert head == HEADER
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    assert set(columns["kind"]) <= set("ABC")
    assert all(cell.isdigit() and int(cell) <= 120 for cell in columns["age"])
    assert all(0 <= float(cell) <= 1 for cell in columns["share"])
    assert all(float(cell) >= 0 for cell in columns["income"])
    assert all(float(cell) >= 0 for cell in columns["gap"] if cell)
    assert any(cell == "" for cell in columns["gap"])
    assert any(float(cell) < 0 for cell in columns["change"])


def test_curves_leak_plan_bound_and_audit(run: Run) -> None:
    curves = run.curves
    assert set(curves) == {"train", "holdout", "memoriser on train", "memoriser on holdout"}
    assert curves["train"].u.shape == (8,)
    assert math.isfinite(curves["train"].leak(curves["holdout"]).nats)
    assert curves["memoriser on train"].area() < curves["train"].area()
    plan = run.plan(6)
    assert (np.diff(plan.u) > 0).all()
    assert run.audit(150).finding in ("none", "inconclusive", "leans")


def test_a_model_that_copies_is_caught(run: Run) -> None:
    copying = Memoriser(run.process, run.train_points())
    times = torch.as_tensor(level_times(run.process, 17))
    points = sample(copying, 150, times, "heun", generator=torch.Generator().manual_seed(0))
    drawn = run.train.with_values(run.scaler.to_user(points), "samples")
    assert audit(run.train, run.holdout, drawn, space=run.scaler, power=False).finding == "copies"


def test_a_run_loads_and_a_cut_one_resumes(run: Run, table: Path, tmp_path: Path) -> None:
    again = Run.load(run.path or "")
    assert np.array_equal(run.sample(20, 4), again.sample(20, 4), equal_nan=True)

    def stop(event, trainer):
        if event.step == 30:
            raise KeyboardInterrupt

    more = dict(process="bridge", bounds="share=0:1,age=0:120")
    with pytest.raises(KeyboardInterrupt):
        fit(table, out=tmp_path / "cut", on_event=stop, **more, **SMALL)
    cut = fit(out=tmp_path / "cut", resume=True)
    for a, b in zip(run.denoiser.parameters(), cut.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_vectors_in_a_box_fit_too() -> None:
    rows = np.random.default_rng(0).beta(0.5, 0.5, (200, 2))
    drawn = fit(rows, process="bridge", bounds="0=0:1,1=0:1", **SMALL).sample(300, 5)
    assert ((drawn >= 0) & (drawn <= 1)).all()


def test_what_a_bridge_is_not_for_gets_a_sentence(run: Run, table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cells are given to runs of masking"):
        run.sample(2, 2, given={"kind": "A"})
    for more, sentence in (
        (dict(process="product", bounds="age=0:99"), "bounds are of bridges into a domain"),
        (dict(process="bridge", bounds="age=0:30"), "cells of column 'age' lie outside"),
        (dict(process="bridge", network="transformer"), "use mlp"),
    ):
        with pytest.raises(InputError, match=sentence):
            fit(table, out=tmp_path / "no", **more, **SMALL)
    assert not (tmp_path / "no").exists()


def test_the_command_line(table: Path, tmp_path: Path, capsys) -> None:
    def reverie(*words: object) -> int:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        return left.value.code or 0

    out = tmp_path / "run"
    fitted = ("fit", table, "--process", "bridge", "--bounds", "share=0:1", "--out", out)
    small = ("--steps", 20, "--width", 16, "--depth", 1, "--quiet")
    assert reverie(*fitted, *small) == 0
    assert reverie("sample", out, "--n", 30, "--out", tmp_path / "new.csv", "--quiet") == 0
    head, *rows = csv.reader((tmp_path / "new.csv").read_text().splitlines())
    shares = [float(row[head.index("share")]) for row in rows]
    assert len(shares) == 30
    assert 0 <= min(shares) <= max(shares) <= 1
    assert reverie("fit", table, "--process", "bridge:sigma=0", "--out", tmp_path / "b") == 2
    assert "needs a positive deviation" in capsys.readouterr().err
