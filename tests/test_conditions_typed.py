"""Conditions by name: a column or a file for `fit`, a value for `sample`, classes in the audit."""

import json

import numpy as np
import pytest

from reverie import Run, audit, fit
from reverie.auditing.classes import Classes, within_classes
from reverie.auditing.common_space import common_space
from reverie.auditing.facts.closeness import closeness
from reverie.cli import main
from reverie.data import Dataset, load
from reverie.data.conditions import NO_LABEL, with_condition, with_taken, without_column
from reverie.errors import InputError
from reverie.runs.given import condition_given

SMALL = ["--width", "16", "--depth", "1", "--steps", "300", "--check-every", "300",
         "--lr", "3e-3", "--quiet"]  # fmt: skip


def call(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return stop.value.code or 0


def table(path, rows=240, seed=0):
    """Two classes on either side of 0, in a column of words between two of numbers."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["benign", "malign"], rows)
    middle = np.where(kinds == "benign", -1.0, 1.0)
    x, y = rng.normal(middle, 0.1), rng.normal(middle, 0.1)
    lines = [f"{a:.3f},{kind},{b:.3f}" for a, kind, b in zip(x, kinds, y, strict=True)]
    path.write_text("\n".join(["x,kind,y", *lines]) + "\n")
    return path, kinds


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run that was told a column."""
    folder = tmp_path_factory.mktemp("told")
    data, kinds = table(folder / "t.csv")
    assert call("fit", data, "--condition", "kind", "--out", folder / "run", *SMALL) == 0
    return folder, kinds


def test_a_column_is_taken_out_and_its_names_are_kept(told):
    folder, kinds = told
    run = Run.load(folder / "run")
    assert run.train.columns == ("x", "y")
    assert run.train.labels == ("benign", "malign")
    assert run.train.condition == "kind"
    names = np.array(run.train.labels)
    assert (names[run.train.conditions] == kinds[run.rows[0]]).all()
    assert (names[run.holdout.conditions] == kinds[run.rows[1]]).all()
    note = json.loads((folder / "run" / "data.json").read_text())["condition"]
    assert (note["name"], note["labels"]) == ("kind", ["benign", "malign"])
    assert (note["taken"]["column"]["name"], note["taken"]["after"]) == ("kind", ["x"])


@pytest.mark.parametrize(("given", "sign"), [("benign", -1), ("kind=malign", 1), ("MALIGN", 1)])
def test_samples_are_of_the_label_that_is_given(told, given, sign):
    folder, _ = told
    out = folder / "s.csv"
    assert call("sample", folder / "run", "--given", given, "--n", "20", "--steps", "8",
                "--out", out, "--quiet") == 0  # fmt: skip
    drawn = load(out, mixed=True)
    assert drawn.columns == ("x", "kind", "y")
    assert set(out.read_text().splitlines()[0].split(",")) == {"x", "kind", "y"}
    names = {line.split(",")[1] for line in out.read_text().splitlines()[1:]}
    assert names == {"benign" if sign < 0 else "malign"}
    numbers = drawn.values[:, [0, 2]]
    assert (np.sign(numbers.mean(1)) == sign).mean() > 0.9
    run = Run.load(folder / "run")
    same = run.sample(20, 8, given=given)
    assert np.allclose(same, numbers, atol=6e-4)  # written with three decimals
    assert np.array_equal(run.sample_table(20, 8, given=given).values[:, [0, 2]], same)


@pytest.mark.parametrize("refusing", [(), ("--reject-copies",)])
def test_the_column_that_was_told_is_drawn_as_often_as_in_the_training_rows(
    told, capsys, refusing
):
    """Every sample lies on the side of the class that stands beside it."""
    folder, kinds = told
    out = folder / "drawn.csv"
    assert call("sample", folder / "run", "--n", "200", "--steps", "8", "--out", out, "--quiet",
                *refusing) == 0  # fmt: skip
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    side = np.array([float(x) + float(y) > 0 for x, _, y in rows])
    malign = np.array([kind == "malign" for _, kind, _ in rows])
    assert (side == malign).mean() > 0.95
    share = (kinds == "malign").mean()
    assert abs(malign.mean() - share) < 4 * np.sqrt(share * (1 - share) / 200) + 0.05
    assert "column 'kind' was drawn as often as in the training rows (" in capsys.readouterr().out


def test_a_column_goes_back_where_it_stood(tmp_path):
    """Words, whole numbers, truths, decimals and missing cells, past a column that is no more."""
    path = tmp_path / "t.csv"
    lines = [f"{k},{'' if k == 3 else 'ab'[k % 2]},{k % 2 + 3},{k / 7:.2f},{bool(k % 2)}"
             for k in range(40)]  # fmt: skip
    path.write_text("\n".join(["id,word,few,real,truth", *lines]) + "\n")
    data = load(path, mixed=True, keys=True)
    for name in ("word", "few", "real", "truth"):
        rest = with_condition(data, name)
        assert name not in rest.columns
        back = with_taken(rest, rest.conditions)
        assert (back.columns, back.fields) == (data.columns, data.fields)
        assert np.array_equal(back.values, data.values, equal_nan=True)
        fewer = with_taken(without_column(rest, "id"), rest.conditions)
        assert fewer.columns == data.columns[1:]


def test_an_unknown_label_names_those_that_are_known(told, capsys):
    folder, _ = told
    assert call("sample", folder / "run", "--given", "maligne", "--quiet") == 2
    assert "it knows benign, malign" in capsys.readouterr().err


def test_a_run_resumes_with_its_condition(told):
    folder, _ = told
    assert call("fit", "--out", folder / "run", "--resume", "--quiet") == 0


def test_a_run_with_labels_is_audited_within_its_classes(told, capsys):
    folder, _ = told
    assert call("audit", folder / "run", "--n", "40", "--steps", "4", "--quiet",
                "--out", folder / "audit") == 0  # fmt: skip
    assert "their own class alone (2 classes of kind)" in capsys.readouterr().out
    found = json.loads((folder / "audit" / "audit.json").read_text())
    assert "own class alone" in json.dumps(found)


def test_classes_are_compared_each_by_itself(generator):
    """Distances to the nearest sample and row of the class, by brute force over each class."""
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(n, 3)) for n in (60, 50, 70)]
    labels = [rng.integers(0, 3, len(rows)) for rows in sets]
    plain = common_space(*sets)
    space = within_classes(plain, Classes(tuple(labels), "kind"))
    close = closeness(space)
    pool, of_pool = np.concatenate([plain.members, plain.held]), np.concatenate(labels[:2])
    counts = np.zeros(len(pool))
    for label in range(3):
        rows, drawn = np.flatnonzero(of_pool == label), plain.drawn[labels[2] == label]
        gaps = np.linalg.norm(pool[rows][:, None] - drawn, axis=2)
        assert np.allclose(close.to_samples[rows], gaps.min(1))
        np.add.at(counts, rows[gaps.argmin(0)], 1)
        between = np.linalg.norm(pool[rows][:, None] - pool[rows], axis=2)
        assert np.allclose(close.spacing[rows], np.sort(between, 1)[:, 1:6])
    assert np.array_equal(close.counts, counts)
    assert within_classes(plain, Classes((labels[0] * 0, labels[1] * 0, labels[2] * 0))) is plain
    with pytest.raises(InputError, match="classes are needed for"):
        within_classes(plain, Classes((labels[0], labels[1], labels[1])))


def test_copies_in_the_wrong_class_do_not_count_as_closeness():
    """Samples that copy training rows of the other class lean in the plain audit alone."""
    rng = np.random.default_rng(1)
    train, held = rng.normal(size=(2, 80, 2))
    labels = np.arange(80) % 2
    drawn = train[labels == 0] + 1e-3 * rng.normal(size=(40, 2))
    classes = Classes((labels, labels, np.ones(40, int)))
    quick = dict(metrics=False, power=False, seed=0)
    plain = audit(train, held, drawn, **quick).row("share")
    inside = audit(train, held, drawn, classes=classes, **quick).row("share")
    assert plain.p_value < 1e-6
    assert inside.p_value > 1e-3


# --- what is told --------------------------------------------------------------------------------


def test_whole_numbers_of_few_values_are_labels_and_others_are_values(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=60), rng.integers(3, 6, 60), rng.normal(size=60)])
    path = tmp_path / "n.csv"
    np.savetxt(path, rows, "%.4g", ",", header="a,class,b", comments="")
    data = with_condition(load(path), "class")
    assert data.labels == ("3", "4", "5")
    assert np.array_equal(data.conditions + 3, load(path).values[:, 1])
    data = with_condition(load(path), "b")
    assert data.labels == ()
    assert data.conditions.shape == (60, 1)
    assert data.columns == ("a", "class")


def test_a_missing_label_is_no_label(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("x,kind\n1.5,a\n2.5,\n3.5,b\n4.5,a\n")
    data = with_condition(load(path, mixed=True), "kind")
    assert data.conditions.tolist() == [0, NO_LABEL, 1, 0]


def test_a_file_beside_the_rows(tmp_path):
    rows = np.random.default_rng(0).normal(size=(30, 2))
    labels, values = np.arange(30) % 3, rows.astype(np.float32) * 2
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "values.npy", values)
    (tmp_path / "words.csv").write_text("kind\n" + "\n".join("abc"[k] for k in labels) + "\n")
    data = Dataset(rows, "vectors", "rows")
    assert with_condition(data, tmp_path / "labels.npy").labels == ("0", "1", "2")
    words = with_condition(data, str(tmp_path / "words.csv"))
    assert words.labels == ("a", "b", "c")
    assert np.array_equal(words.conditions, labels)
    assert np.array_equal(with_condition(data, tmp_path / "values.npy").conditions, values)


def test_labels_that_a_reader_found_are_asked_for_by_name():
    pictures = Dataset(np.zeros((4, 1, 2, 2)), "images", "pictures/")
    pictures = pictures.told(np.array([0, 1, 1, 0]), ("cat", "dog"), "folder")
    assert with_condition(pictures, "folder") is pictures
    with pytest.raises(InputError, match="has no columns, and there is no file"):
        with_condition(pictures, "animal")


def test_bad_conditions_say_what_is_wrong(tmp_path):
    path, _ = table(tmp_path / "t.csv", 20)
    with pytest.raises(InputError, match=r"no column 'sort' \(it has x, kind, y\), and there is"):
        fit(str(path), conditions="sort")
    with pytest.raises(InputError, match="column 'kind' holds categories"):
        fit(str(path), conditions="x")
    np.save(tmp_path / "few.npy", np.zeros(7, int))
    with pytest.raises(InputError, match="one row for each of the 20"):
        with_condition(load(path, mixed=True), tmp_path / "few.npy")
    (tmp_path / "one.csv").write_text("kind\na\nb\na\n")
    with pytest.raises(InputError, match="nothing to fit"):
        with_condition(load(tmp_path / "one.csv", mixed=True), "kind")


def test_numbers_that_are_given(tmp_path):
    rng = np.random.default_rng(0)
    rows, told = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    run = fit(rows, conditions=told, steps=1, width=8, depth=1, holdout=20)
    assert condition_given(run, "0.5, -1").tolist() == [[0.5, -1.0]]
    assert np.isnan(condition_given(run, "0.5,").numpy()).tolist() == [[False, True]]
    with pytest.raises(InputError, match=r"is 1 number\(s\); this run is told 2"):
        condition_given(run, "3")
    with pytest.raises(InputError, match="'blue' is no number"):
        condition_given(run, "blue,2")
    labelled = fit(rows, conditions=np.arange(60) % 3, steps=1, width=8, depth=1, holdout=20)
    assert condition_given(labelled, "2").tolist() == [2]
    assert condition_given(labelled, "none").tolist() == [NO_LABEL]
    untold = fit(rows, steps=1, width=8, depth=1, holdout=20)
    with pytest.raises(InputError, match="without a condition"):
        untold.sample(3, given="2")
