"""Every type comes back as it was, through CSV, Parquet and DataFrames."""

from __future__ import annotations

import datetime as dt
import decimal
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reverie.data import Scaler, load, save, save_rows
from reverie.data.stamps import read_times, write_times

FEW = settings(
    max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
GAPS = st.sampled_from(["", "NA", "N/A", "NaN", "null", "None", "?", "<NA>", "#N/A"])
WORDS = st.sampled_from(["red", "grün", "dark blue", 'say "hi"', "a;b|c", "Bonn, DE", "'"])
TRUTHS = st.sampled_from(
    [("False", "True"), ("false", "true"), ("FALSE", "TRUE"), ("no", "yes"), ("N", "Y"),
     ("nein", "ja"), ("off", "on")]
)  # fmt: skip
FORMS = ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%-d/%-m/%Y", "%d-%b-%Y", "%B %-d, %Y", "%d.%m.%y",
         "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S.%3f", "%Y-%m-%dT%H:%M:%SZ",
         "%d.%m.%Y %H:%M:%S+02:00", "%-m/%-d/%Y %-I:%M %p", "%H:%M:%S",
         "%D days %H:%M:%S"]  # fmt: skip


@st.composite
def number(draw):
    """A function from a random generator to cells of numbers in one way of writing."""
    decimals = draw(st.integers(0, 6))
    size = draw(st.sampled_from([1.0, 1e3, 1e6]))
    return lambda rng, n: [
        f"{round(v, decimals) + 0.0:.{decimals}f}" for v in size * rng.standard_normal(n)
    ]


@st.composite
def time(draw):
    form = draw(st.sampled_from(FORMS))

    def cells(rng, n):
        low, high = (0, 5e5) if "%Y" not in form and "%y" not in form else (-1e8, 1.9e9)
        return write_times(rng.integers(low, high, n).tolist(), form)

    return cells


@st.composite
def choice(draw):
    known = draw(st.one_of(TRUTHS, st.lists(WORDS, min_size=2, max_size=5, unique=True)))
    return lambda rng, n: [known[k] for k in rng.integers(0, len(known), n)]


@st.composite
def code(draw):
    start = draw(st.sampled_from([2**53 + 1, 10**18, 1234567890123456000]))
    return lambda rng, n: [str(start + int(k)) for k in rng.permutation(n)]


def text_of(cells, sep):
    def quoted(cell):
        odd = sep in cell or '"' in cell or "\n" in cell
        return '"' + cell.replace('"', '""') + '"' if odd else cell

    return "".join(sep.join(map(quoted, row)) + "\n" for row in cells)


@FEW
@given(
    makers=st.lists(st.one_of(number(), time(), choice(), code()), min_size=2, max_size=5),
    sep=st.sampled_from([",", "\t", ";", "|"]), gap=GAPS, seed=st.integers(0, 99),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
)  # fmt: skip
def test_every_cell_of_a_text_table_comes_back(tmp_path, makers, sep, gap, seed, encoding):
    rng = np.random.default_rng(seed)
    columns = [make(rng, 40) for make in makers]
    for j, column in enumerate(columns[1:]):  # the first keeps a row from being empty
        for k in rng.permutation(40)[: 3 * (j % 2)]:
            column[k] = gap
    head = [f"c{j}" for j in range(len(columns))]
    written = text_of([head, *zip(*columns, strict=True)], sep)
    path = tmp_path / "a.csv"
    path.write_bytes(written.encode(encoding))
    data = load(path, mixed=True)
    assert data.columns == tuple(head)
    again = save_rows(tmp_path / "b.csv", data)
    assert again.read_bytes().decode(encoding) == written


@FEW
@given(st.sampled_from(FORMS), st.integers(0, 99))
def test_times_agree_with_the_standard_library(form, seed):
    rng = np.random.default_rng(seed)
    if "%D" in form or re.search("%[Yy]", form) is None:
        return
    seconds = rng.integers(0, 1_900_000_000, 30).tolist()
    texts = write_times(seconds, form)
    plain = form.replace("%-", "%").replace("%3f", "%f").replace("+02:00", "%z")
    plain = plain.replace("SZ", "S%z")
    for text, found in zip(texts, read_times(texts, form).seconds, strict=True):
        moment = dt.datetime.strptime(text, plain)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        assert moment.timestamp() == found


def arrow_table(rng, n=30):
    pa = pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    days = rng.integers(-5000, 20_000, n).tolist()
    stamps = rng.integers(-(10**14), 10**15, n).tolist()
    gap = rng.random(n) < 0.2

    def column(values, kind):
        return pa.array([None if g else v for v, g in zip(values, gap, strict=True)], kind)

    levels = pa.array(rng.integers(0, 3, n).astype(np.int8))
    return pa.table(
        {
            "i8": column(rng.integers(-9, 9, n).tolist(), pa.int8()),
            "i64": column(rng.integers(-(2**52), 2**52, n).tolist(), pa.int64()),
            "keys": pa.array([2**60 + int(k) for k in rng.permutation(n)], pa.int64()),
            "u64": pa.array([2**63 + int(k) for k in rng.permutation(n)], pa.uint64()),
            "f32": column(rng.standard_normal(n).astype("f4").tolist(), pa.float32()),
            "f64": column(rng.standard_normal(n).tolist(), pa.float64()),
            "flag": column((rng.random(n) < 0.5).tolist(), pa.bool_()),
            "text": column([f"t{k}" for k in rng.integers(0, 5, n)], pa.string()),
            "large": column([f"t{k}" for k in rng.integers(0, 5, n)], pa.large_string()),
            "level": pa.DictionaryArray.from_arrays(levels, ["lo", "mid", "hi"], ordered=True),
            "day": column(days, pa.int32()).cast(pa.date32()),
            "s": column(stamps, pa.int64()).cast(pa.timestamp("us")),
            "ms": column([k // 1000 for k in stamps], pa.int64()).cast(pa.timestamp("ms")),
            "ns": column([k * 1000 + 7 for k in stamps], pa.int64()).cast(pa.timestamp("ns")),
            "utc": column(stamps, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "gap": column([abs(k) % 10**12 for k in stamps], pa.int64()).cast(pa.duration("us")),
            "clock": column([abs(k) % 86_400 for k in days], pa.int32()).cast(pa.time32("ms")),
            "money": pa.array([decimal.Decimal(int(k)) / 100 for k in rng.integers(0, 9999, n)],
                              pa.decimal128(9, 2)),
            "empty": pa.nulls(n),
        }
    )  # fmt: skip


@pytest.mark.parametrize("ending", [".parquet", ".feather"])
@pytest.mark.parametrize("seed", range(3))
def test_every_arrow_type_comes_back(tmp_path, ending, seed):
    table = arrow_table(np.random.default_rng(seed))
    data = load(table, mixed=True)
    again = load(save_rows(tmp_path / f"a{ending}", data), mixed=True)
    kinds = [str(kind) for kind in table.schema.types]
    kinds = ["dictionary<string>" if "dictionary" in kind else kind for kind in kinds]
    assert [f.dtype for f in again.fields] == kinds
    assert np.array_equal(again.values, data.values, equal_nan=True)
    import pyarrow.feather
    import pyarrow.parquet

    read = pyarrow.parquet.read_table if ending == ".parquet" else pyarrow.feather.read_table
    assert read(tmp_path / f"a{ending}").to_pydict() == table.to_pydict()


def test_arrow_and_its_csv_say_the_same(tmp_path):
    table = arrow_table(np.random.default_rng(0)).drop_columns(["ns", "empty"])
    data = load(table, mixed=True)
    text = load(save_rows(tmp_path / "a.csv", data), mixed=True)
    for j, field in enumerate(data.fields):
        mine, theirs = field.texts(data.values[:, j]), text.fields[j].texts(text.values[:, j])
        if field.dtype in ("float", "double"):
            assert np.array_equal(data.values[:, j], text.values[:, j], equal_nan=True), field.name
        else:
            assert mine == theirs, field.name


def frames(rng, n=40):
    values = {
        "whole": rng.integers(0, 9, n).tolist(),
        "real": rng.standard_normal(n).tolist(),
        "word": [f"w{k}" for k in rng.integers(0, 4, n)],
        "flag": (rng.random(n) < 0.5).tolist(),
        "day": [
            dt.datetime(2020, 1, 1) + dt.timedelta(hours=int(k)) for k in rng.integers(0, 9999, n)
        ],
    }
    values["whole"][3] = values["word"][4] = values["day"][5] = None
    return values


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_of_every_library_are_one(library):
    module = pytest.importorskip(library)
    pytest.importorskip("pyarrow")
    values = frames(np.random.default_rng(0))
    if library == "pandas":
        frame = module.DataFrame(values).astype({"whole": "Int64", "word": "category"})
        frame.index += 100  # labels of rows are no column
    else:
        frame = module.DataFrame(values) if library == "polars" else module.table(values)
    data = load(frame, mixed=True)
    assert data.columns == tuple(values)
    assert [f.kind for f in data.fields] == [
        "numeric",
        "numeric",
        "categorical",
        "numeric",
        "numeric",
    ]
    assert np.isnan(data.values).sum(0).tolist() == [1, 0, 1, 0, 1]
    days = [np.nan if d is None else d.replace(tzinfo=dt.UTC).timestamp() for d in values["day"]]
    assert np.array_equal(data.values[:, 4], days, equal_nan=True)
    assert data.fields[2].texts(data.values[:, 2])[:3] == values["word"][:3]


def test_samples_of_a_run_are_written_as_the_table_was(tmp_path):
    """Through the scaler alone, as `reverie sample` has it."""
    lines = ["tag;betrag;ok"]
    for k in range(40):
        money = f"{1000 + 37.5 * k:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")
        day = f"{1 + k % 28:02d}.{1 + k % 12:02d}.2021"
        lines.append(f"{day};{money};{'ja' if k % 3 else 'nein'}")
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    data = load(path)
    assert [f.dtype for f in data.fields] == ["date", "double", "bool"]
    scaler = Scaler.fit(data)
    scaler = Scaler(**scaler.to_json())
    back = scaler.to_user(scaler.to_model(data.values).double())
    again = save(tmp_path / "b.csv", back, scaler).read_text().splitlines()
    assert again[0] == lines[0]
    for mine, theirs in zip(again, lines, strict=True):
        assert [mine.split(";")[k] for k in (0, 2)] == [theirs.split(";")[k] for k in (0, 2)]
    assert load(tmp_path / "b.csv").form == data.form
