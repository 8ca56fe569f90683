"""Tables of mixed columns: into a model and back, and through every verb."""

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

from reverie import InputError, Run, audit, fit, sample
from reverie.cli import main
from reverie.curve import level_times
from reverie.data import (
    Column,
    Dataset,
    TableCoder,
    coder_from_json,
    load,
    save,
)
from reverie.data.table_columns import plan_of
from reverie.denoisers import Memoriser, network_for
from reverie.processes import Brownian, Masking, ProductProcess, name_of, process_on
from reverie.runs.readings import standard_curves
from reverie.spaces import Euclidean, FiniteSet, Mixed, Sphere

SMALL = dict(steps=60, check_every=60, width=32, depth=1, holdout=60, batch_size=64)
HEADER = ["grp", "x", "income", "age", "day", "lab", "flag", "site"]


def mixed_rows(n: int, seed: int = 0) -> list[list[str]]:
    """Rows of a category, numbers with decimals, zeros, ages, dates, gaps, truths, a constant."""
    rng = np.random.default_rng(seed)
    group = rng.choice(list("ABC"), n, p=[0.5, 0.3, 0.2])
    x = rng.normal(size=n) + 9 + 3 * (group == "B")
    income = np.where(rng.random(n) < 0.6, 0, np.exp(1.5 * rng.normal(size=n) + 3).astype(int) + 1)
    day = np.datetime64("2020-01-01") + rng.integers(0, 700, n)
    lab = [
        f"{v + 9:.1f}" if seen else ""
        for v, seen in zip(rng.normal(size=n), rng.random(n) < 0.8, strict=True)
    ]
    flag = rng.random(n) < 0.3
    columns = (
        group, [f"{v:.2f}" for v in x], income, rng.integers(18, 90, n),
        [str(d) for d in day], lab, ["True" if f else "False" for f in flag], ["north"] * n,
    )  # fmt: skip
    return [list(map(str, row)) for row in zip(*columns, strict=True)]


def write(path: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("mixed") / "mixed.csv", mixed_rows(240))


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory) -> Run:
    run = fit(table, out=tmp_path_factory.mktemp("run") / "run", **SMALL)
    standard_curves(run, levels=8, rows=60)
    return run


# --- the coder -----------------------------------------------------------------------------------


def test_what_is_made_of_each_column(table: Path) -> None:
    coder = TableCoder.fit(load(table, mixed=True))
    made = {plan.name: (plan.kind, plan.sites, plan.owned) for plan in coder.columns_read}
    assert made["grp"] == ("category", 3, False)
    assert made["income"] == ("number", 2, True) or made["income"] == ("number", 2, False)
    assert made["age"][:2] == ("number", 0)
    assert made["lab"][:2] == ("number", 2)
    assert made["flag"][:2] == ("category", 2)
    assert made["site"] == ("constant", 0, False)
    assert coder.point_shape == (9,)
    assert isinstance(coder.space, Mixed)
    assert [len(p.shape) for p in coder.space.parts] == [1, 1]


def test_a_table_goes_into_the_model_and_comes_back_as_it_was(table: Path, tmp_path: Path) -> None:
    data = load(table, mixed=True)
    coder = coder_from_json(json.loads(json.dumps(TableCoder.fit(data).to_json())))
    points = coder.to_model(data.values)
    coder.space.check(points)
    written = save(tmp_path / "again.csv", coder.to_user(points), coder)
    assert written.read_text() == table.read_text().replace("\r\n", "\n")


@given(
    st.lists(st.one_of(st.integers(-(10**6), 10**6), st.none()), min_size=2, max_size=60),
    st.lists(st.sampled_from(["a", "b", "c,d", '"', "é"]), min_size=2, max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_whole_numbers_and_categories_come_back(numbers: list, words: list) -> None:
    n = min(len(numbers), len(words))
    letters = tuple(sorted(set(words[:n])))
    pairs = zip(numbers[:n], words[:n], strict=True)
    values = np.array([[np.nan if a is None else a, letters.index(b)] for a, b in pairs], float)
    fields = (
        Column("n", dtype="int64", decimals=0, missing=""),
        Column("w", "categorical", letters, "string"),
    )
    data = Dataset(values, "table", "made", columns=("n", "w"), fields=fields)
    if len(letters) < 2 and len(np.unique(values[:, 0])) < 2:
        with pytest.raises(InputError, match="every column is constant"):
            TableCoder.fit(data)
        return
    coder = TableCoder.fit(data)
    back = coder.to_user(coder.to_model(values))
    assert np.array_equal(back, values, equal_nan=True)


@given(st.lists(st.floats(-1e6, 1e6), min_size=30, max_size=80, unique=True))
@settings(max_examples=40, deadline=None)
def test_scores_rise_and_lead_back_into_the_range(values: list[float]) -> None:
    rows = np.sort(np.array(values))[:, None]
    data = Dataset(rows, "vectors", "made")
    coder = TableCoder.fit(data)
    points = coder.to_model(rows)
    assert (points.diff(dim=0) >= 0).all()
    back = coder.to_user(points)
    spread = rows.max() - rows.min()
    assert np.abs(back - rows).max() <= 1e-5 * spread
    far = coder.to_user(torch.tensor([[-9.0], [9.0]]))
    assert far[:, 0].tolist() == [rows.min(), rows.max()]


def test_repeated_values_have_normal_scores_and_keep_their_law() -> None:
    rng = np.random.default_rng(0)
    ages = rng.poisson(40, 4000).astype(float)[:, None]
    coder = TableCoder.fit(Dataset(ages, "vectors", "made"))
    points = coder.to_model(ages)
    assert stats.kstest(points[:, 0], "norm").pvalue > 1e-3
    assert torch.equal(points, coder.to_model(ages))
    drawn = coder.to_user(torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)))
    both = [np.bincount(a[:, 0].astype(int), minlength=100) / len(a) for a in (ages, drawn)]
    assert np.abs(both[0] - both[1]).sum() / 2 < 0.05
    assert set(np.unique(drawn)) <= set(np.unique(ages))


def test_atoms_and_gaps_share_the_site_of_their_column() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=600), np.zeros(300), np.full(90, 99_999.0)])
    values = np.append(values, np.full(10, np.nan))[:, None]
    coder = TableCoder.fit(Dataset(values, "vectors", "made"))
    (plan,) = coder.columns_read
    assert (plan.symbols, plan.missing, plan.sites) == ([0.0, 99_999.0], True, 4)
    points = coder.to_model(values)
    assert (points[600:, 0] == 0).all()
    assert points[[0, 650, 950, 995], 1].tolist() == [0, 1, 2, 3]
    assert max(plan.values) < 10
    back = coder.to_user(points)
    assert np.array_equal(back[600:], values[600:], equal_nan=True)


def test_scales_are_those_of_the_training_rows() -> None:
    values = np.random.default_rng(0).normal(size=(200, 1))
    data = Dataset(values, "vectors", "made")
    coder = TableCoder.fit(data, data.take(np.arange(100)))
    assert coder.columns_read[0].values[-1] == values[:100].max()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([[0.5, 2.0]], "row 0 holds 'category 2' in column 'w', which no row of this run holds"),
        ([[np.nan, 0.0]], "row 0 lacks 'n', which no row of this run lacks"),
        ([[1.0]], "was fitted on"),
    ],
)
def test_what_a_run_does_not_know_gets_a_sentence(values: list, sentence: str) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(size=50), rng.integers(0, 2, 50)], 1)
    fields = (Column("n"), Column("w", "categorical", ("a", "b"), "string"))
    coder = TableCoder.fit(Dataset(rows, "table", "made", columns=("n", "w"), fields=fields))
    with pytest.raises(InputError, match=sentence):
        coder.to_model(np.array(values), "other.csv")


def test_a_column_of_many_texts_is_refused_by_name(tmp_path: Path) -> None:
    rows = [[f"name {i}", str(i % 7)] for i in range(400)]
    path = write(tmp_path / "names.csv", rows, ["name", "k"])
    with pytest.raises(InputError, match="column 'name' holds 400 different texts"):
        fit(path, **SMALL)


# --- dates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        ("2021-03-04", "2020-12-31", "2019-02-28"),
        ("3/4/2021", "12/31/2020", "7/9/2019"),
        ("31.12.2020", "04.03.2021", "01.01.2019"),
        ("2021-03-04T05:06:07Z", "2020-12-31T23:59:59Z", "2019-01-01T00:00:00Z"),
        ("2021-03-04 05:06", "2020-12-31 23:59", "2019-01-01 00:00"),
        ("5 Mar 2021", "31 Dec 2020", "1 Jan 2019"),
        ("05:06", "23:59", "00:00"),
    ],
)
def test_dates_of_a_table_come_back_in_their_form(texts: tuple[str, ...], tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", [[text, str(k)] for k, text in enumerate(texts)], ["t", "k"])
    data = load(table, mixed=True)
    coder = TableCoder.fit(data)
    assert data.fields[0].is_time
    assert [row[0] for row in map(data.text, coder.to_user(coder.to_model(data.values)))] == [
        *texts
    ]


# --- fit and every verb --------------------------------------------------------------------------


def test_a_mixed_table_fits_by_itself_and_samples_have_its_types(run: Run, tmp_path: Path) -> None:
    assert (run.config.space, run.config.process) == ("table", "product")
    assert isinstance(run.process, ProductProcess)
    drawn = run.sample(200, 8)
    data = run.train.with_values(drawn, "the samples")
    path = save(tmp_path / "new.csv", drawn, run.scaler)
    head, *rows = list(csv.reader(path.read_text().splitlines()))
    assert head == HEADER
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    assert set(columns["grp"]) <= set("ABC")
    assert set(columns["flag"]) <= {"True", "False"}
    assert set(columns["site"]) == {"north"}
    assert all(cell.isdigit() and 18 <= int(cell) < 90 for cell in columns["age"])
    assert all(cell.isdigit() for cell in columns["income"])
    assert 0.3 < np.mean([cell == "0" for cell in columns["income"]]) < 0.9
    assert 0 < np.mean([cell == "" for cell in columns["lab"]]) < 0.6
    assert all(len(cell.partition(".")[2]) == 1 for cell in columns["lab"] if cell)
    days = [np.datetime64(cell) for cell in columns["day"]]
    assert min(days) >= np.datetime64("2020-01-01")
    assert max(days) < np.datetime64("2022-01-01")
    again = load(path, mixed=True)
    assert again.fields[0].categories == data.fields[0].categories
    assert [f.decimals for f in again.fields] == [f.decimals for f in data.fields]


def test_samples_have_the_cells_that_are_given(run: Run) -> None:
    drawn = run.sample(50, 4, given={"grp": "B", "income": 0, "lab": "", "flag": "True"})
    text = [run.train.with_values(drawn, "drawn").text(row) for row in drawn]
    for row in text:
        cells = dict(zip(HEADER, row, strict=True))
        assert [cells[k] for k in ("grp", "income", "lab", "flag")] == ["B", "0", "", "True"]
    for wrong, sentence in (
        ({"group": "B"}, "no column is called 'group'; there are grp, x"),
        ({"grp": "D"}, "'D' is no value of column 'grp' to condition on: A, B, C"),
        ({"x": 1.0}, "column 'x' holds numbers that vary"),
        ({"site": "north"}, "column 'site' is constant"),
    ):
        with pytest.raises(InputError, match=sentence):
            run.sample(2, 2, given=wrong)


def test_parquet_keeps_types(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    drawn = run.sample(20, 3)
    again = load(save(tmp_path / "new.parquet", drawn, run.scaler), mixed=True)
    kinds = dict(zip(HEADER, (field.dtype for field in again.fields), strict=True))
    assert kinds["age"] == "int64"
    assert kinds["grp"] == "string"
    assert kinds["day"] == "date32[day]"
    assert kinds["x"] == "double"


def test_curves_leak_memoriser_plan_and_audit(run: Run) -> None:
    curves = run.curves
    assert set(curves) == {"train", "holdout", "memoriser on train", "memoriser on holdout"}
    assert curves["train"].u.shape == (8, 2)
    assert math.isfinite(curves["train"].leak(curves["holdout"]).nats)
    assert curves["memoriser on train"].area() < curves["train"].area()
    for plan in (run.plan(6), run.plan(6, method="log-snr")):
        assert plan.u.shape == (7, 2)
        assert (np.diff(plan.u, axis=0) > 0).all()
    verdict = run.audit(150)
    assert verdict.finding in ("none", "inconclusive", "leans", "unfair")


def test_a_model_that_copies_is_caught(run: Run) -> None:
    """The memoriser, a product of kernels, in the model's place."""
    copying = Memoriser(run.process, run.train_points())
    times = torch.as_tensor(level_times(run.process, 9))
    points = sample(copying, 150, times, "heun", generator=torch.Generator().manual_seed(0))
    drawn = run.train.with_values(run.scaler.to_user(points), "samples")
    verdict = audit(run.train, run.holdout, drawn, space=run.scaler, power=False)
    assert verdict.finding == "copies"


def test_a_run_loads_and_a_cut_one_resumes_to_the_same_weights(
    run: Run, table: Path, tmp_path: Path
) -> None:
    again = Run.load(run.path or "")
    points = run.holdout_points()
    assert torch.equal(points, again.holdout_points())
    t = torch.full((len(points),), 0.4)
    state = run.process.corrupt(points, 0.4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run.denoiser(state, t), again.denoiser(state, t))

    def stop(event, trainer):
        if event.step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(table, out=tmp_path / "cut", on_event=stop, **SMALL)
    cut = fit(out=tmp_path / "cut", resume=True)
    for a, b in zip(run.denoiser.parameters(), cut.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_command_line_takes_a_mixed_table(
    run: Run, table: Path, tmp_path: Path, capsys
) -> None:
    def reverie(*words: object) -> str:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        said = "".join(capsys.readouterr())
        assert left.value.code == 0, said
        return said

    small = ("--steps", 2, "--n", 60, "--holdout", 40, "--width", 16, "--depth", 1)
    said = reverie("fit", table, "--out", tmp_path / "made", "--quiet", *small)
    assert "60 training and 40 held-out rows" in said
    reverie("sample", run.path, "--n", 20, "--steps", 4, "--out", tmp_path / "s.csv", "--quiet")
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 21
    given = ("--given", "grp=B", "flag=False")
    reverie("sample", run.path, "--n", 9, "--steps", 3, "--out", tmp_path / "b.csv", *given)
    rows = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert {(row["grp"], row["flag"]) for row in rows} == {("B", "False")}
    said = reverie("plan", run.path, "--steps", "4", "--out", tmp_path / "plan", "--quiet")
    assert "loss-adaptive" in said
    reverie("audit", run.path, "--n", 100, "--steps", 4, "--out", tmp_path / "audit", "--quiet")
    assert (tmp_path / "audit" / "audit.json").exists()


def test_tables_of_numbers_alone_stay_vectors_unless_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [[f"{v:.3f}" for v in row] for row in rng.normal(size=(200, 2))]
    path = write(tmp_path / "numbers.csv", rows, ["a", "b"])
    few = SMALL | dict(steps=2, check_every=2, holdout=50)
    assert fit(path, **few).config.space == "euclidean"
    asked = fit(path, space="table", process="product:schedule=vp", **few)
    assert asked.config.space == "table"
    assert asked.process.clock(0.5).shape == (1, 1)
    assert asked.sample(3, 3).shape == (3, 2)


def test_a_table_of_categories_alone_can_be_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [[f"k{a}", f"m{b}"] for a, b in rng.integers(0, 3, (200, 2))]
    path = write(tmp_path / "words.csv", rows, ["a", "b"])
    found = fit(path, **(SMALL | dict(steps=2, check_every=2, holdout=50)))
    assert found.config.space == "table"
    assert found.sample(4, 3).shape == (4, 2)


def test_product_is_written_and_read() -> None:
    space = Mixed(Euclidean((2,)), FiniteSet(3, 2, [3, 2]))
    process = process_on(space, "product:schedule=vp")
    assert name_of(process_on(space, name_of(process))) == name_of(process)
    with pytest.raises(InputError, match="no process on tables is called"):
        process_on(space, "brownian")


def test_a_network_takes_numbers_and_symbols_alone() -> None:
    odd = ProductProcess(Brownian(Sphere(2)), Masking(2, 1))
    with pytest.raises(InputError, match="takes Gaussian noise and noise on symbols"):
        network_for(odd, (4,))


# --- numbers that are symbols --------------------------------------------------------------------


def plan_of_numbers(values: np.ndarray):
    column = Column("c", dtype="int64", decimals=0)
    return plan_of(column, values, values, "made")


def test_values_that_stand_far_apart_are_symbols_and_smooth_ones_are_none() -> None:
    """Amounts that a rule sets, as capital gains are, beside ages, prices and a rare amount."""
    rng = np.random.default_rng(0)
    amounts = rng.choice(100_000, 60, replace=False) + 1
    gains = np.where(rng.random(8000) < 0.9, 0, rng.choice(amounts, 8000)).astype(float)
    gains[:2] = [200_001, 200_002]  # one row each
    plan = plan_of_numbers(gains)
    assert plan.kind == "number"
    assert set(plan.symbols) == {0.0, *np.unique(gains[2:]).tolist()}
    codes = plan.codes(gains)
    assert (codes[:2] == 0).all()
    assert (codes[2:] > 0).all()
    assert np.array_equal(plan.cells(codes, plan.scores(gains, np.full(8000, 0.5))), gains)
    assert plan_of_numbers(rng.integers(18, 90, 8000).astype(float)).symbols == []
    assert plan_of_numbers((10 * rng.integers(1, 100, 8000)).astype(float)).symbols == []
    assert plan_of_numbers(rng.choice(amounts, 400).astype(float)).symbols == []  # too few of each
    assert plan_of_numbers(np.exp(rng.normal(size=8000))).symbols == []
