"""Data as people have them: what each reader makes of inputs that were read wrongly once."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import io as sio
from scipy import sparse

from reverie.auditing import audit, audit_split
from reverie.auditing.fairness.alignment import align
from reverie.cli import main
from reverie.data import Reading, Scaler, describe, load, row_codes, save, save_rows
from reverie.errors import InputError
from reverie.forecast import predict

BASE = 1234567890123456000


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def kinds(data):
    return {column.name: column.kind for column in describe(data).columns}


# --- tables of text ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csv", "mixed", "parquet", "npy", "uint64"])
def test_keys_of_19_digits_stay_apart(tmp_path, form):
    rng = np.random.default_rng(0)
    sets = []
    for side in (0, 400):
        keys, other = BASE + side + np.arange(400), rng.integers(0, 3, 400)
        if form in ("csv", "mixed"):
            kind = "abc" if form == "mixed" else "012"
            rows = "".join(f"{a},{kind[b]}\n" for a, b in zip(keys, other, strict=True))
            sets.append(write(tmp_path / f"{side}.csv", "id,kind\n" + rows))
        elif form == "parquet":
            pa = pytest.importorskip("pyarrow", reason="the extra tables is not installed")
            pq = pytest.importorskip("pyarrow.parquet")
            sets.append(tmp_path / f"{side}.parquet")
            pq.write_table(pa.table({"id": keys, "kind": other}), sets[-1])
        else:
            rows = np.column_stack([keys, other])
            sets.append(rows.astype(np.uint64) if form == "uint64" and side else rows)
    report = audit_split(*sets)
    assert (report.shared.sum(), report.distinct) == (0, 800)


def test_groups_by_keys_of_19_digits(tmp_path):
    rng = np.random.default_rng(0)
    sets = [
        write(tmp_path / f"{side}.csv", "person,a\n" + "".join(
            f"{BASE + side + k},{rng.normal():.4f}\n" for k in range(400)))
        for side in (0, 400)
    ]  # fmt: skip
    assert audit_split(*sets, groups="person").groups_on_both == 0


def test_whole_numbers_of_two_widths_are_equal_where_they_are():
    a = np.array([[2**63, 1], [5, 2]], np.uint64)
    b = np.array([[-(2**63), 1], [5, 2]], np.int64)
    first, second = row_codes(a, b)
    assert first[1] == second[1]
    assert first[0] != second[0]


@pytest.mark.parametrize("head", ["0,1,2", "2019,2020,2021", "a,b,c"])
@pytest.mark.parametrize("whole", [False, True])
def test_headers_of_numbers_are_seen(tmp_path, head, whole):
    if head == "0,1,2" and whole:
        return  # three counts that count up may be a row, see below
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 50, (200, 3)) if whole else rng.normal(size=(200, 3)).round(3)
    text = "".join(",".join(map(str, row)) + "\n" for row in rows.tolist())
    data = load(write(tmp_path / "a.csv", f"{head}\n{text}"))
    assert data.columns == tuple(head.split(","))
    assert len(data) == 200


def test_headers_among_text_and_rows_that_are_none(tmp_path):
    body = "".join(f"{'abc'[k % 3]},{k},{k * k % 17}\n" for k in range(60))
    data = load(write(tmp_path / "a.csv", f"country,2019,2020\n{body}"), mixed=True)
    assert data.fields[0].categories == ("a", "b", "c")
    counts = "1,2,3\n2,3,4\n5,1,0\n3,3,3\n4,2,1\n"
    row = load(write(tmp_path / "b.csv", counts))
    assert (row.columns, len(row)) == (None, 5)
    named = load(tmp_path / "b.csv", reading=Reading(header=True))
    assert (named.columns, len(named)) == (("1", "2", "3"), 4)


@pytest.mark.parametrize(
    ("sep", "ending"),
    [(",", "csv"), ("\t", "csv"), ("\t", "tsv"), (";", "csv"), ("|", "csv"), ("  ", "data"),
     (" ", "csv")],
)  # fmt: skip
@pytest.mark.parametrize("header", [True, False])
def test_every_mark_between_cells(tmp_path, sep, ending, header):
    values = np.random.default_rng(0).normal(size=(40, 4)).round(3)
    rows = [sep.join(f"{v:.3f}" for v in row) for row in values]
    head = [sep.join("abcd")] if header else []
    path = write(tmp_path / f"a.{ending}", "\n".join(head + rows) + "\n")
    data = load(path)
    assert np.array_equal(data.values, values)
    assert data.columns == (tuple("abcd") if header else None)
    assert load(save_rows(tmp_path / f"b.{ending}", data)).form.sep == data.form.sep


def test_a_table_of_a_german_hospital(tmp_path):
    rng = np.random.default_rng(0)
    n = 60
    lines = ["Patienten-ID;Aufnahme;Alter;Kreatinin (mg/dl);Kosten €;verstorben;Notiz"]
    cost = np.exp(rng.normal(8, 1, n)).round(2)
    note = '"Verlauf ""stabil"";\nKontrolle"'
    for k in range(n):
        money = f"{cost[k]:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")
        level = "" if k % 7 == 3 else f"{rng.gamma(2):.1f}".replace(".", ",")
        lines.append(
            f"P{100_000 + 37 * k % 99_991:07d};{1 + k % 28:02d}.0{1 + k % 9}.2020;{40 + k % 50};"
            f"{level};{money};{'true' if k % 3 else 'false'};{note if k % 9 == 1 else ''}"
        )
    text = "\n".join(lines) + "\n"
    for encoding in ("utf-8-sig", "cp1252"):
        data = load(write(tmp_path / "a.csv", text.encode(encoding)), mixed=True)
        assert (data.form.sep, data.form.decimal, data.form.encoding) == (";", ",", encoding)
        assert np.allclose(data.values[:, 4], cost)
        assert kinds(data) == {
            "Patienten-ID": "identifier", "Aufnahme": "time", "Alter": "whole number",
            "Kreatinin (mg/dl)": "number", "Kosten €": "number", "verstorben": "yes/no",
            "Notiz": "constant",
        }  # fmt: skip
        assert save_rows(tmp_path / "b.csv", data).read_bytes() == text.encode(encoding)
        assert ("cp1252" in " ".join(data.notes)) == (encoding == "cp1252")
    assert describe(data).columns[3].unit == "mg/dl"


def test_patients_that_come_back_with_a_fresh_id_are_found(tmp_path):
    rng = np.random.default_rng(0)

    def rows(n, start, values):
        return "id;wann;x;y\n" + "".join(
            f"P{start + k};{1 + int(d):02d}.03.2020;{x:.2f};{y:.2f}\n".replace(".", ",").replace(
                ",03,2020", ".03.2020") for k, (d, x, y) in enumerate(values[:n])
        )  # fmt: skip

    table = np.column_stack([rng.integers(0, 27, 900), rng.normal(size=(900, 2))])
    train = write(tmp_path / "t.csv", rows(300, 1000, table))
    held = write(tmp_path / "h.csv", rows(300, 3000, table[300:]))
    drawn = np.concatenate([table[:60], table[600:840]])
    copies = write(tmp_path / "s.csv", rows(300, 7000, drawn))
    verdict = audit(train, held, copies, metrics=False)
    assert verdict.finding == "copies"
    assert any("id (texts that hardly repeat)" in note for note in verdict.notes)


@pytest.mark.parametrize(("texts", "first"), [
    (["03/04/2021", "05/06/2021", "07/08/2021"], "2021-03-04"),
    (["13/04/2021", "05/06/2021", "07/08/2021"], "2021-04-13"),
    (["03.04.2021", "05.06.2021", "07.08.2021"], "2021-04-03"),
    (["2021-04-03T00:00:00Z", "2021-04-04T12:00:00Z"], "2021-04-03"),
    (["03-Apr-2021", "12-May-2021"], "2021-04-03"),
    (["April 3, 2021", "May 12, 2021"], "2021-04-03"),
])  # fmt: skip
def test_dates_of_every_order(tmp_path, texts, first):
    rows = "".join(f'"{text}",{k}\n' for k, text in enumerate(texts * 2))
    data = load(write(tmp_path / "a.csv", f"when,x\n{rows}"))
    assert data.values[0, 0] == np.datetime64(first, "s").astype(np.int64)
    open_order = texts[0].startswith("03/04") or texts[0].startswith("03.04")
    assert any("fits as well" in note for note in data.notes) == open_order
    if open_order:
        other = "%d/%m/%Y" if "/" in texts[0] else "%m.%d.%Y"
        said = load(tmp_path / "a.csv", reading=Reading(time=f"when={other}"))
        assert said.values[0, 0] != data.values[0, 0]


def test_one_set_tells_the_order_of_another(tmp_path):
    """Alone, the first days of months could be months; the held-out rows say that they are not."""
    rows = {"t": [(k % 12 + 1, k % 9 + 1) for k in range(30)],
            "h": [(k % 28 + 1, k % 9 + 1) for k in range(30)]}  # fmt: skip
    sets = [
        load(write(tmp_path / f"{name}.csv", "on,x\n" + "".join(
            f"{day:02d}/{month:02d}/2020,{k}.5\n" for k, (day, month) in enumerate(part))))
        for name, part in rows.items()
    ]  # fmt: skip
    assert sets[0].fields[0].form == "%m/%d/%Y"
    told = align(sets)
    assert [data.fields[0].form for data in told] == ["%d/%m/%Y"] * 2
    for data, part in zip(told, rows.values(), strict=True):
        days = [np.datetime64(f"2020-{m:02d}-{d:02d}", "s").astype(np.int64) for d, m in part]
        assert data.values[:, 0].tolist() == days


def test_a_new_word_beside_truths_is_a_category(tmp_path):
    parts = {"t": "yes no", "h": "no yes", "s": "yes maybe"}
    sets = [
        load(write(tmp_path / f"{name}.csv", "ok,x\n" + "".join(
            f"{words.split()[k % 2]},{k}.5\n" for k in range(30))), mixed=True)
        for name, words in parts.items()
    ]  # fmt: skip
    assert sets[0].fields[0].words == ("no", "yes")
    assert align(sets)[2].fields[0].categories == ("no", "yes", "maybe")


def test_dates_as_text_are_compared_as_their_seconds(tmp_path):
    rng = np.random.default_rng(0)
    start = np.datetime64("2021-01-01T00:00:00")

    def file(name, seconds, cost, form):
        cells = [form(int(s)) for s in seconds]
        rows = "".join(f"{c},{v:.2f}\n" for c, v in zip(cells, cost, strict=True))
        return write(tmp_path / name, "at,cost\n" + rows)

    seconds, cost = rng.integers(0, 10**8, (2, 300)), rng.gamma(2, 50, (2, 300))
    near = seconds[0] + rng.integers(-600, 600, 300), cost[0] + rng.normal(0, 1e-3, 300)
    found = []
    for form in (str, lambda s: str(start + np.timedelta64(s, "s"))):
        sets = [file(f"{k}.csv", *part, form) for k, part in
                enumerate([(seconds[0], cost[0]), (seconds[1], cost[1]), near])]  # fmt: skip
        verdict = audit(*sets, metrics=False)
        found.append((verdict.finding, verdict.p_value))
    assert found[0] == found[1]
    assert found[0][0] == "copies"


@pytest.mark.parametrize("word", ["-1.7976931348623157e+308", "1e200", "-3.4028235e+38", "-9999"])
def test_marks_of_no_data_are_said_and_missing_when_asked(tmp_path, word, capsys):
    values = np.random.default_rng(0).normal(size=(60, 3)).round(4)
    rows = [[str(v) for v in row] for row in values.tolist()]
    rows[7][2] = word
    text = "a,b,c\n" + "".join(",".join(row) + "\n" for row in rows)
    path = str(write(tmp_path / "a.csv", text))
    made = describe(path)
    assert "may stand for a missing cell" in made.columns[2].note
    assert "--missing" in made.line()
    if float(word) != -9999:
        with pytest.raises(InputError, match=r"row 7, column 'c' is .* no measurement"):
            predict(path)
    asked = load(path, mixed=True, reading=Reading(missing=(word,)))
    assert np.isnan(asked.values[7, 2])
    assert save_rows(tmp_path / "b.csv", asked).read_text() == text
    with pytest.raises(SystemExit) as code:
        main(["predict", path, "--missing", word, "--out", str(tmp_path / "p")])
    assert code.value.code == 2
    assert "line 9, column 'c'" in capsys.readouterr().err


def test_words_of_missing_cells_and_of_truths(tmp_path):
    rows = "".join(
        f"{'NA' if k % 5 == 0 else k},{'Yes' if k % 2 else 'No'},-\n" for k in range(30)
    )
    data = load(write(tmp_path / "a.csv", "x,ok,note\n" + rows), mixed=True)
    assert np.isnan(data.values[:, 0]).sum() == 6
    assert data.fields[1].words == ("No", "Yes")
    assert data.fields[2].categories == ("-",)
    more = load(tmp_path / "a.csv", mixed=True, reading=Reading(missing=("-",)))
    assert np.isnan(more.values[:, 2]).all()


def test_codes_with_zeros_in_front_are_text(tmp_path):
    rows = "".join(f"{k % 7:05d},{1 + k % 12:02d},{k}\n" for k in range(40))
    data = load(write(tmp_path / "a.csv", "zip,month,x\n" + rows), mixed=True)
    assert data.fields[0].categories[0] == "00000"
    assert data.fields[1].kind == "numeric"
    assert save_rows(tmp_path / "b.csv", data).read_text() == "zip,month,x\n" + rows


def test_what_is_not_in_the_first_rows_is_seen_as_well(tmp_path):
    """Rows beyond the sample hold a missing word, a fraction, a huge key, a text."""
    rows = [[str(k), str(k), str(k % 5), "1"] for k in range(3000)]
    rows[2500] = ["NA", "7.25", str(2**60 + 1), "word"]
    rows[2600][3] = "other"
    text = "a,b,c,d\n" + "".join(",".join(row) + "\n" for row in rows)
    data = load(write(tmp_path / "a.csv", text), mixed=True,
                reading=Reading(category=("d",)))  # fmt: skip
    assert np.isnan(data.values[2500, 0])
    assert data.values[2500, 1] == 7.25
    assert data.fields[2].categories[-1] == str(2**60 + 1)
    assert set(data.fields[3].categories) == {"1", "word", "other"}


def test_ragged_rows_and_typing_faults_are_named_by_line(tmp_path):
    rows = "".join(f"{k},{k}\n" for k in range(50))
    with pytest.raises(InputError, match="line 52 has 3 cells, the first line 2"):
        load(write(tmp_path / "a.csv", f"x,y\n{rows}1,2,3\n"))
    with pytest.raises(InputError, match="line 52, column 'x' is '1O', not a number"):
        load(write(tmp_path / "a.csv", f"x,y\n{rows}1O,2\n"), mixed=True)


def test_a_key_is_set_apart_where_numbers_are_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    rows = "".join(f"P{k:05d},{rng.normal():.3f},{rng.normal():.3f}\n" for k in range(60))
    path = write(tmp_path / "a.csv", "patient,x,y\n" + rows)
    data = load(path)
    assert data.columns == ("x", "y")
    assert data.reading.ignore == ("patient",)
    assert "set apart" in data.notes[-1]
    assert load(path, reading=data.reading).sha256() == data.sha256()
    assert load(path, mixed=True).columns == ("patient", "x", "y")


def test_a_forecast_of_text_is_refused(tmp_path):
    path = write(tmp_path / "w.txt", "abc\nabd\nbcd\nacd\nabb\n" * 10)
    with pytest.raises(InputError, match="is text: a forecast is of numbers"):
        predict(path)


def test_a_text_file_is_a_table_when_asked(tmp_path):
    path = write(tmp_path / "a.txt", "x y\n1 2\n3 4\n5 7\n")
    assert load(path).kind == "text"
    assert load(path, reading=Reading(sep="blanks")).columns == ("x", "y")


# --- what was understood -------------------------------------------------------------------------


def test_what_was_understood_can_be_overruled_and_given_back(tmp_path, capsys):
    rows = "".join(f"{k},{k % 3},{20210101 + k % 28},{k % 5}.5\n" for k in range(40))
    path = str(write(tmp_path / "a.csv", "n,site,seen,x\n" + rows))
    out = tmp_path / "columns.json"
    with pytest.raises(SystemExit) as code:
        main(["describe", path, "--category", "site", "--ignore", "x", "--out", str(out)])
    assert code.value.code == 0
    said = capsys.readouterr().out
    assert "identifier" in said
    assert kinds(path)["seen"] == "time"
    with pytest.raises(SystemExit):
        main(["describe", path, "--columns", str(out), "--json"])
    assert '"category"' in capsys.readouterr().out
    with pytest.raises(SystemExit) as code:
        main(["describe", path, "--id", "nobody"])
    assert code.value.code == 2
    assert "has no column 'nobody' (--id); it has n, site" in capsys.readouterr().err


def test_runs_remember_how_their_data_were_read(tmp_path):
    from reverie import Run, fit

    rng = np.random.default_rng(0)
    rows = "".join(
        f"K{k:04d};{1 + k % 28:02d}.05.2021;{rng.normal():.2f};{'ja' if k % 3 else 'nein'}\n"
        .replace(".05.2021", "@").replace(".", ",").replace("@", ".05.2021") for k in range(80)
    )  # fmt: skip
    path = write(tmp_path / "a.csv", "key;day;x;ok\n" + rows)
    fit(path, steps=2, width=8, depth=1, holdout=20, out=tmp_path / "run")
    run = Run.load(tmp_path / "run")
    assert run.train.columns == ("day", "x", "ok")
    out = save(tmp_path / "s.csv", run.train.values[:3], run.scaler).read_text().splitlines()
    assert out[0] == "day;x;ok"
    assert out[1].split(";")[0].endswith(".05.2021")


TABLES = {
    "penguins": "species:category island:category bill_length_mm:number bill_depth_mm:number "
                "flipper_length_mm:whole body_mass_g:whole sex:category",
    "titanic": "survived:yes/no pclass:whole sex:category age:number sibsp:whole parch:whole "
               "fare:number embarked:category class:ordered who:category adult_male:yes/no "
               "deck:category embark_town:category alive:yes/no alone:yes/no",
    "tips": "total_bill:number tip:number sex:category smoker:yes/no day:ordered time:category "
            "size:whole",
    "diamonds": "carat:number cut:ordered color:category clarity:ordered depth:number "
                "table:number price:whole x:number y:number z:number",
    "mpg": "mpg:number cylinders:whole displacement:number horsepower:whole weight:whole "
           "acceleration:number model_year:whole origin:category name:text",
    "planets": "method:category number:whole orbital_period:number mass:number distance:number "
               "year:time",
    "taxis": "pickup:time dropoff:time passengers:whole distance:number fare:number tip:number "
             "tolls:number total:number color:category payment:category pickup_zone:category "
             "dropoff_zone:category pickup_borough:category dropoff_borough:category",
    "flights": "year:time month:ordered passengers:whole",
    "dowjones": "Date:time Price:number",
    "seaice": "Date:time Extent:number",
    "exercise": ":identifier id:whole diet:category pulse:whole time:ordered kind:category",
    "attention": ":identifier subject:whole attention:category solutions:whole score:number",
    "fmri": "subject:category timepoint:whole event:category region:category signal:number",
    "dots": "align:category choice:category time:whole coherence:number firing_rate:number",
    "geyser": "duration:number waiting:whole kind:category",
    "glue": "Model:category Year:time Encoder:category Task:category Score:number",
    "healthexp": "Year:time Country:category Spending_USD:number Life_Expectancy:number",
    "iris": "sepal_length:number sepal_width:number petal_length:number petal_width:number "
            "species:category",
    "anscombe": "dataset:category x:whole y:number",
    "car_crashes": "total:number speeding:number alcohol:number not_distracted:number "
                   "no_previous:number ins_premium:number ins_losses:number abbrev:text",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_the_columns_of_public_tables(name):
    """REVERIE_TABLES: a folder of the CSV files of mwaskom/seaborn-data."""
    folder = os.environ.get("REVERIE_TABLES")
    if folder is None:
        pytest.skip("REVERIE_TABLES names no folder")
    expected = dict(pair.rsplit(":", 1) for pair in TABLES[name].split(" "))
    found = kinds(Path(folder) / f"{name}.csv")
    assert found == {k: v.replace("whole", "whole number") for k, v in expected.items()}


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_the_columns_of_scikit_learn(name, tmp_path):
    from sklearn import datasets

    table = getattr(datasets, f"load_{name}")()
    rows = "".join(",".join(map(repr, row)) + "\n" for row in table.data.tolist())
    path = write(tmp_path / "a.csv", ",".join(map(str, table.feature_names)) + "\n" + rows)
    for column, values in zip(describe(path).columns, table.data.T, strict=True):
        distinct = np.unique(values)
        whole = "whole number" if (values == values.round()).all() else "number"
        assert column.kind == ("yes/no" if distinct.tolist() == [0, 1] else whole)


# --- arrays --------------------------------------------------------------------------------------


def test_arrays_of_every_sort():
    masked = np.ma.masked_array(np.arange(6).reshape(3, 2), [[0, 1], [0, 0], [0, 0]])
    assert np.isnan(load(masked).values[0, 1])
    records = np.array([(1.5, 2, "x"), (2.5, 3, "y")], [("a", "f8"), ("b", "i4"), ("c", "U1")])
    table = load(records, mixed=True)
    assert table.columns == ("a", "b", "c")
    assert table.fields[2].categories == ("x", "y")
    assert np.isnan(load([[1, None], [2, 3.5]]).values[0, 1])
    dense = np.eye(30)
    assert np.array_equal(load(sparse.csr_array(dense)).values, dense)
    kept = torch.eye(30, requires_grad=True)
    for tensor in (torch.eye(30).to_sparse(), kept, kept.bfloat16(), kept.half()):
        assert np.array_equal(load(tensor).values, dense)
    for bad, words in (([[1], [1, 2]], "unequal lengths"), ([["a"]], "other things"),
                       (3.5, "a float"),
                       (torch.zeros(2, 2, dtype=torch.cfloat), "complex"),
                       (np.zeros((30, 0)), "no column"), ({1: 2}, "a dict")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            load(bad)


@pytest.mark.parametrize(("shape", "dtype", "layout"), [
    ((50, 4, 4, 3), "u1", "hwc"), ((50, 3, 4, 4), "u1", "chw"), ((50, 3, 8, 3), "u1", "hwc"),
    ((50, 3, 8, 3), "f4", "chw"), ((50, 5, 5, 3), "f4", "hwc"), ((50, 1, 28, 28), "f4", "chw"),
])  # fmt: skip
def test_axes_of_pictures(shape, dtype, layout):
    data = load(np.random.default_rng(0).integers(0, 255, shape).astype(dtype))
    assert data.layout == layout
    assert bool(data.notes) == (shape == (50, 3, 8, 3))


def test_matlab_files_of_the_usual_layouts(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (32, 32, 3, 50)).astype(np.uint8)
    sio.savemat(tmp_path / "svhn.mat", {"X": pictures, "y": np.arange(50)[:, None]})
    data = load(tmp_path / "svhn.mat")
    assert (len(data), data.kind, data.shape) == (50, "images", (3, 32, 32))
    out = np.load(save(tmp_path / "b.npy", data.values, Scaler.fit(data)))
    assert np.array_equal(out, pictures)
    sio.savemat(tmp_path / "sparse.mat", {"X": sparse.csr_array(np.eye(30))})
    assert np.array_equal(load(tmp_path / "sparse.mat").values, np.eye(30))
    many = {"s": rng.normal(size=(4, 3, 2)), "i": np.arange(6, dtype="i2").reshape(2, 3),
            "text": "words", "cell": np.array([1, "a"], object)}  # fmt: skip
    sio.savemat(tmp_path / "many.mat", many, do_compression=True)
    for name in "si":
        assert np.array_equal(load(f"{tmp_path}/many.mat:{name}").values, many[name])
    with pytest.raises(InputError, match="holds 2 arrays of numbers: s, i; name one"):
        load(tmp_path / "many.mat")
    sio.savemat(tmp_path / "labelled.mat", {"X": rng.normal(size=(5, 2)), "y": np.arange(5)})
    assert load(tmp_path / "labelled.mat").shape == (2,)
    assert load(f"{tmp_path}/labelled.mat:y").shape == (5,)
    write(tmp_path / "new.mat", b"MATLAB 7.3 MAT-file, Platform".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError, match=r"MATLAB 7\.3 file .*save it in MATLAB with"):
        load(tmp_path / "new.mat")
    binary = load(write(tmp_path / "b.amat", "0 1 1\n1 0 1\n" * 20))
    assert binary.values.shape == (40, 3)


# --- databases and sheets ------------------------------------------------------------------------


def test_tables_of_a_database_by_query(tmp_path):
    path = tmp_path / "db.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("create table t (id integer, day text, x real, word text)")
    rows = [(2**60 + k, f"2020-01-{1 + k % 28:02d}", k / 4, None if k == 3 else "ab"[k % 2])
            for k in range(30)]  # fmt: skip
    connection.executemany("insert into t values (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    data = load(f"{path}:SELECT * FROM t WHERE x < 5", mixed=True)
    assert len(data) == 20
    assert kinds(data) == {"id": "identifier", "day": "time", "x": "number", "word": "category"}
    assert load(path, mixed=True).fields[0].categories[0] == str(2**60)
    before = path.read_bytes()
    for query, words in (
        ("DROP TABLE t", "readonly|attempt to write"),
        ("SELECT", "syntax|incomplete"),
    ):
        with pytest.raises(InputError, match=words):
            load(f"{path}:{query}")
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="not an SQLite database"):
        load(write(tmp_path / "no.sqlite", "x"))


def test_sheets_of_excel(tmp_path):
    openpyxl = pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    import datetime as dt

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["day", "n", "x", "ok", "word"])
    for k in range(30):
        day = dt.datetime(2020, 1, 1) + dt.timedelta(days=k)
        sheet.append([day, k % 5, k / 4, k % 2 == 0, None if k == 2 else "ab"[k % 2]])
    book.create_sheet("other").append(["x"])
    book.save(tmp_path / "a.xlsx")
    data = load(tmp_path / "a.xlsx", mixed=True)
    assert [f.dtype for f in data.fields] == ["date", "int64", "double", "bool", "string"]
    assert data.values[1, 0] == np.datetime64("2020-01-02", "s").astype(np.int64)
    with pytest.raises(InputError, match="no sheet 'third'; it has Sheet, other"):
        load(f"{tmp_path}/a.xlsx:third")
    with pytest.raises(InputError, match="not an Excel workbook"):
        load(write(tmp_path / "b.xlsx", "x"))


def test_a_sheet_comes_back_as_it_was(tmp_path):
    """Types, categories, days, times, gaps and texts that begin as formulas do."""
    pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    lines = [f"=A{k % 3},{k},{k / 4:.2f},{k % 2 == 0},2020-01-{k + 1:02d},"
             f"2020-01-01T{k % 24:02d}:30:00,{'' if k % 4 == 1 else 7 * k},{k:05d}"
             for k in range(28)]  # fmt: skip
    text = "\n".join(["word,n,x,ok,day,time,gap,code", *lines]) + "\n"
    data = load(write(tmp_path / "a.csv", text), mixed=True)
    back = load(save_rows(tmp_path / "b.xlsx", data), mixed=True)
    assert back.columns == data.columns
    assert [f.dtype for f in back.fields] == [f.dtype for f in data.fields]
    assert [f.categories for f in back.fields] == [f.categories for f in data.fields]
    assert np.array_equal(back.values, data.values, equal_nan=True)


def test_rows_of_duckdb(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="the extra duckdb is not installed")
    path = tmp_path / "a.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT range AS n, range / 4 AS x, range % 2 = 0 AS ok, "
            "DATE '2020-01-01' + CAST(range AS INTEGER) AS day, "
            "CASE WHEN range = 2 THEN NULL ELSE chr(97 + CAST(range % 2 AS INTEGER)) END AS word, "
            "9007199254740993 + range AS key FROM range(30)"
        )
    before = path.read_bytes()
    data = load(f"{path}:SELECT * FROM t ORDER BY n", mixed=True)
    assert [f.dtype for f in data.fields] == [
        "int64",
        "double",
        "bool",
        "date32[day]",
        "string",
        "int64",
    ]
    assert data.fields[4].categories == ("a", "b")
    assert np.isnan(data.values[2, 4])
    assert len(set(data.values[:, 5])) == 30  # keys beyond 2^53 stay apart
    assert data.values[1, 3] == np.datetime64("2020-01-02", "s").astype(np.int64)
    for query, words in (("", "name rows"), (":SELECT * FROM u", "does not exist")):
        with pytest.raises(InputError, match=words):
            load(f"{path}{query}")
    for query in ("DROP TABLE t", f"COPY t TO '{tmp_path}/out.csv'"):
        with pytest.raises(InputError, match=r"a\.duckdb"):
            load(f"{path}:{query}")
    assert not (tmp_path / "out.csv").exists()
    assert path.read_bytes() == before
    with pytest.raises(InputError, match=r"no\.duckdb"):
        load(f"{write(tmp_path / 'no.duckdb', 'x' * 5000)}:SELECT 1")


@pytest.mark.parametrize("quote", ["", '"'])
def test_codes_with_zeros_are_found_beyond_the_first_rows(tmp_path, quote):
    """Whole numbers of many widths for 3,000 rows, then a code: its column is text, no other."""
    cells = [str(k) for k in range(3000)] + ["007"]
    lines = [f"{k},{quote}{cell}{quote},01/02/2015" for k, cell in enumerate(cells)]
    data = load(write(tmp_path / "a.csv", "\n".join(["n,code,day", *lines])), mixed=True)
    assert [f.kind for f in data.fields] == ["numeric", "categorical", "numeric"]
    assert data.fields[1].text(data.values[-1, 1]) == "007"
    assert data.fields[1].text(data.values[7, 1]) == "7"


def test_a_sweep_reads_as_it_is_told(tmp_path, capsys):
    """A marked gap and a column of words, which no fit would take, are said and left out."""
    rng = np.random.default_rng(0)
    lines = [f"{a:.3f};{b:.3f};{'ab'[k % 2]}" for k, (a, b) in enumerate(rng.normal(size=(60, 2)))]
    path = write(tmp_path / "t.csv", "\n".join(["x;y;word", *lines]) + "\n")
    said = ["--over", "n=20", "--steps", "20", "--check-every", "20", "--samples", "10",
            "--width", "8", "--depth", "1", "--holdout", "20", "--quiet"]  # fmt: skip
    for flags, code in ((["--ignore", "word"], 0), (["--ignore", "words"], 2)):
        with pytest.raises(SystemExit) as stop:
            main(["sweep", str(path), "--out", str(tmp_path / "out"), *said, *flags])
        assert stop.value.code == code
    assert "no column" in capsys.readouterr().err
    run = json.loads(next((tmp_path / "out" / "fits").rglob("data.json")).read_text())
    assert run["scaler"]["columns"] == ["x", "y"]
    assert run["reading"]["ignore"] == ["word"]


# --- pictures ------------------------------------------------------------------------------------


def picture_folder(path, **pictures):
    path.mkdir(exist_ok=True)
    for name, image in pictures.items():
        ending = name.rsplit("_", 1)[1]
        image.save(path / f"{name}.{ending}")
    return path


def test_pictures_are_turned_and_laid_over_white(tmp_path):
    from PIL import Image

    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    tag = Image.Exif()
    tag[0x0112] = 3
    folder = picture_folder(tmp_path / "exif", upright_png=Image.fromarray(pixels))
    Image.fromarray(pixels).save(folder / "turned.png", exif=tag)
    data = load(folder)
    assert data.values[0, :, :3].mean() == 0
    assert data.values[1, :, :3].mean() == 255
    assert data.notes == ("1 of 2 pictures are turned as their EXIF tag says",)
    hidden = np.zeros((8, 8, 4), np.uint8)
    hidden[..., 0] = 255
    hidden[:4, :, 3] = 255
    data = load(picture_folder(tmp_path / "alpha", a_png=Image.fromarray(hidden)))
    assert data.values[0, :, 6, 0].tolist() == [255, 255, 255]
    assert data.values[0, :, 0, 0].tolist() == [255, 0, 0]
    assert "laid over white" in data.notes[0]


def test_pictures_of_16_bits_are_exact(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for channels in (1, 3):
        pixels = rng.integers(0, 2**16, (4, 9, 8, channels)).astype(np.uint16)
        data = load(np.moveaxis(pixels, 3, 1))
        out = save(tmp_path / f"out{channels}", data.values, Scaler.fit(data))
        assert np.array_equal(np.moveaxis(load(out).values, 1, 3), pixels)
    grey = Image.fromarray(pixels[0, :, :, 0])
    again = load(picture_folder(tmp_path / "tiff", a_tif=grey)).values
    assert np.array_equal(again[0, 0], pixels[0, :, :, 0])


@pytest.mark.parametrize("rule", range(5))
def test_every_filter_of_a_deep_png(tmp_path, rule):
    """Lines filtered by the definition in the PNG specification, section 9."""
    rng = np.random.default_rng(rule)
    pixels = rng.integers(0, 2**16, (5, 4, 3)).astype(np.uint16)
    lines = pixels.astype(">u2").view(np.uint8).reshape(5, -1).astype(int)
    step, packed = 6, b""
    for y, line in enumerate(lines):
        packed += bytes([rule])
        for x, value in enumerate(line):
            a = line[x - step] if x >= step else 0
            b = lines[y - 1][x] if y else 0
            c = lines[y - 1][x - step] if y and x >= step else 0
            p = a + b - c
            near = sorted([(abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c)])[0][2]
            packed += bytes([(value - (0, a, b, (a + b) // 2, near)[rule]) % 256])

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0))
    raw += chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.png", raw)
    assert np.array_equal(load(tmp_path / "d").values[0], np.moveaxis(pixels, 2, 0))


def test_folders_of_every_format_size_and_mode(tmp_path):
    from PIL import Image

    grey = [Image.new("L", (8, 8), 40 * k) for k in range(5)]
    folder = picture_folder(tmp_path / "all", a_png=grey[0], b_tif=grey[1], c_gif=grey[2],
                            d_bmp=grey[3], e_png=grey[4])  # fmt: skip
    write(folder / "notes.txt", "x")
    data = load(folder)
    assert data.values[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160]
    assert data.notes == ("1 files are no pictures and are left out (notes.txt)",)
    Image.new("RGB", (12, 6), (9, 9, 9)).save(folder / "f.png")
    write(folder / "g.png", "no picture")
    with pytest.raises(InputError, match="--size 64 --mode rgb"):
        load(folder)
    data = load(folder, reading=Reading(size=4, mode="rgb", skip_bad=True))
    assert data.values.shape == (6, 3, 4, 4)
    assert len(data.notes) == 5
    assert data.values[5].tolist() == np.full((3, 4, 4), 9).tolist()


def test_folders_of_classes(tmp_path):
    from PIL import Image

    for name, count in (("cat", 3), ("dog", 2)):
        parts = {f"{k}_png": Image.new("L", (4, 4), k) for k in range(count)}
        (tmp_path / "in").mkdir(exist_ok=True)
        picture_folder(tmp_path / "in" / name, **parts)
    data = load(tmp_path / "in")
    assert data.folders == ("cat", "dog")
    assert data.folder_of.tolist() == [0, 0, 0, 1, 1]
    assert data.take(np.array([0, 4])).folder_of.tolist() == [0, 1]


def test_a_column_without_a_value_and_a_spread_beyond_all(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    pq = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    for name in ("t", "h"):
        table = pa.table({"a": rng.normal(size=60), "empty": pa.nulls(60)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    command = ["audit", "--train", str(tmp_path / "t.parquet"), "--holdout",
               str(tmp_path / "h.parquet"), "--write-clean", str(tmp_path / "clean"), "--out",
               str(tmp_path / "a"), "--quiet"]  # fmt: skip
    with pytest.raises(SystemExit) as code:
        main(command)
    assert code.value.code == 0
    assert (
        str(pq.read_table(tmp_path / "clean" / "train.parquet").schema.field("empty").type)
        == "null"
    )


def test_an_image_in_memory_needs_no_file():
    file = io.BytesIO(b"x")
    with pytest.raises(InputError, match="give an array, tensor, DataFrame or path"):
        load(file)


def test_zeros_in_front_are_sought_in_every_byte_of_a_file(tmp_path, monkeypatch):
    """Against a pattern, in random files of few letters read a few bytes at a time."""
    import re

    from reverie.data import fast_tables
    from reverie.data.dataset import TableForm

    monkeypatch.setattr(fast_tables, "SEARCHED", 5)
    monkeypatch.setattr(fast_tables, "CACHED", 3)
    rng, path, seen = np.random.default_rng(0), tmp_path / "x.csv", set()
    for _ in range(300):
        content = "".join(rng.choice(list('01,x".\n'), int(rng.integers(1, 30))))
        path.write_text(content)
        for first, quoted in ((False, False), (True, False), (True, True)):
            marks = "," + ("\n" if first else "") + ('"' if quoted else "")
            wanted = re.search(f"[{marks}]0[0-9]", ("\n" if first else "") + content) is not None
            found = fast_tables._holds_zeros(path, TableForm(), first, quoted)
            assert found == wanted, (content, first, quoted)
            seen.add(found)
        assert fast_tables._holds_quote(path) == ('"' in content)
    assert seen == {True, False}
