"""Mixed tables: read, written back, and brought into one space."""

import gzip
import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from reverie.auditing import audit, common_space
from reverie.auditing.encoding.numbers import are_heavy
from reverie.data import Column, Dataset, load, row_codes, save_rows
from reverie.errors import InputError

TEXT = 'id,height,city,paid\n1,1.50,"Bonn, DE",5\n2,1.75,Ulm,?\n3,2.00,,7\n4,1.25,"say ""hi""",8\n'


def write(path, text):
    path.write_text(text)
    return path


def table(n, seed=0, m=3):
    """Numbers, a category and missing cells, as a Dataset."""
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.standard_normal((n, m)), rng.integers(0, 3, n)])
    values[rng.random(n) < 0.1, 0] = np.nan
    names = (*"abcdefgh"[:m], "kind")
    fields = tuple(Column(name, missing="") for name in names[:m])
    fields += (Column("kind", "categorical", ("x", "y", "z"), "string"),)
    return Dataset(values, "table", "made.csv", columns=names, fields=fields)


def test_a_mixed_csv_comes_back_as_it_was(tmp_path):
    data = load(write(tmp_path / "a.csv", TEXT), mixed=True)
    kinds = [(f.kind, f.decimals, f.has_missing) for f in data.fields]
    assert kinds == [
        ("numeric", 0, False),
        ("numeric", 2, False),
        ("categorical", None, True),
        ("numeric", 0, True),
    ]
    assert data.fields[2].categories == ("Bonn, DE", "Ulm", 'say "hi"')
    assert np.isnan(data.values).sum() == 2
    assert save_rows(tmp_path / "b.csv", data).read_text() == TEXT
    packed = save_rows(tmp_path / "c.csv.gz", data)
    assert gzip.decompress(packed.read_bytes()).decode() == TEXT
    assert np.array_equal(load(packed, mixed=True).values, data.values, equal_nan=True)


@pytest.mark.parametrize("word", ["?", "NA", "n/a", "NaN", "null", ""])
def test_words_for_missing(tmp_path, word):
    data = load(write(tmp_path / "a.csv", f"x,y\n1,2\n{word},4\n"), mixed=True)
    assert np.isnan(data.values[1, 0])
    assert data.fields[0].kind == "numeric"
    with pytest.raises(InputError, match=r"column 'x' is|finite"):
        load(tmp_path / "a.csv").check()


def test_fit_refuses_what_only_an_audit_takes(tmp_path):
    with pytest.raises(
        InputError, match="line 3, column 'paid' is '\\?', not a number; only audits"
    ):
        load(write(tmp_path / "a.csv", "height,paid\n1.5,5\n1.75,?\n"))


def test_a_typing_fault_in_a_column_of_numbers_is_no_category(tmp_path):
    rows = "".join(f"{k},{k}\n" for k in range(100)) + "1O,5\n"
    with pytest.raises(InputError, match="line 102, column 'a' is '1O', not a number like"):
        load(write(tmp_path / "a.csv", "a,b\n" + rows), mixed=True)


def test_a_table_of_text_alone_needs_no_header(tmp_path):
    plain = load(write(tmp_path / "a.csv", "x,u\ny,v\nx,v\ny,u\n"), mixed=True)
    assert plain.columns is None
    assert len(plain) == 4
    headed = load(write(tmp_path / "b.csv", "k,l\nx,u\ny,v\n"), mixed=True)
    assert headed.columns == ("k", "l")


def test_parquet_keeps_every_type(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    pq = pytest.importorskip("pyarrow.parquet")
    first = pa.table(
        {
            "whole": pa.array([1, None, 3], pa.int16()),
            "real": pa.array([0.5, 1.25, None], pa.float32()),
            "flag": pa.array([True, False, True]),
            "word": pa.array(["a", None, "b"]),
            "level": pa.array(["u", "u", "v"]).dictionary_encode(),
        }
    )
    pq.write_table(first, tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet", mixed=True)
    assert [f.kind for f in data.fields] == ["numeric"] * 3 + ["categorical"] * 2
    again = pq.read_table(save_rows(tmp_path / "b.parquet", data))
    assert again.schema.types == first.schema.types
    assert again.to_pydict() == first.to_pydict()
    with pytest.raises(InputError, match="column 'word' holds string, not numbers"):
        load(tmp_path / "a.parquet")
    lists = pa.table({"many": pa.array([[0, 1]])})
    pq.write_table(lists, tmp_path / "d.parquet")
    with pytest.raises(InputError, match="column 'many' holds list"):
        load(tmp_path / "d.parquet", mixed=True)


def test_row_codes_tell_equal_rows_apart():
    a = np.array([[0.0, np.nan], [1, 2], [-0.0, np.nan]])
    b = np.array([[1, 2], [2, 1]], dtype=np.float32)
    first, second = row_codes(a, b)
    assert first[0] == first[2]
    assert second[0] == first[1]
    assert len({*first, *second}) == 3


def test_distances_in_the_common_space_by_hand():
    """Numbers over the pooled deviation, 1 for other categories, 1 for missing against present."""
    train, holdout, samples = table(60), table(50, 1), table(40, 2)
    space = common_space(train, holdout, samples)
    pool = np.concatenate([train.values, holdout.values])
    deviation = np.nanstd(pool[:, :3], 0)
    median = np.nanmedian(pool[:, :3] / deviation, 0)

    def apart(x, y):
        square = float(x[3] != y[3])
        for j in range(3):
            u, v = (median[j] if np.isnan(z[j]) else z[j] / deviation[j] for z in (x, y))
            square += (u - v) ** 2 + (np.isnan(x[j]) != np.isnan(y[j]))
        return math.sqrt(square)

    for i in range(0, 60, 7):
        for k in range(0, 40, 5):
            found = np.linalg.norm(space.members[i] - space.drawn[k])
            assert found == pytest.approx(apart(train.values[i], samples.values[k]))


def test_the_space_is_fitted_on_the_pool_alone():
    train, holdout = table(60), table(50, 1)
    spaces = [common_space(train, holdout, table(40, s)) for s in (2, 3)]
    swapped = common_space(holdout, train, table(40, 2))
    assert np.array_equal(spaces[0].members, spaces[1].members)
    assert np.allclose(swapped.held, spaces[0].members)


def test_heavy_tails_are_ranked():
    """The rule's shares of the variance by quadrature, and normal scores against ranks."""
    for law, share in ((stats.norm, 0.084), (stats.laplace, 0.162)):
        x = law.ppf((np.arange(200_000) + 0.5) / 200_000)
        square = np.sort((x - x.mean()) ** 2)
        assert square[-2000:].sum() / square.sum() == pytest.approx(share, abs=0.005)
        assert not are_heavy(x[:, None])[0]
    rng = np.random.default_rng(0)
    train, holdout = np.exp(2 * rng.standard_normal((2, 300, 2)))
    space = common_space(train, holdout, train[:20])
    pool = np.concatenate([train, holdout])
    expected = ndtri((stats.rankdata(pool, axis=0) - 0.5) / 600)
    assert np.allclose(np.concatenate([space.members, space.held]), expected)
    assert np.allclose(space.drawn, space.members[:20])
    beyond = common_space(train, holdout, np.tile(pool.max(0) * [[1.0], [1.5], [2.0]], (4, 1)))
    steps = np.diff(beyond.drawn[:3], axis=0)
    assert (steps > 0).all()
    assert np.allclose(steps[0], steps[1])
    assert any("heavy tails: columns 0, 1" in note for note in space.notes)


def test_unseen_and_rare_categories(tmp_path):
    rng = np.random.default_rng(0)

    def file(name, words):
        lines = [f"{word},{rng.random():.6f}\n" for _, word in words]
        return write(tmp_path / name, "w,x\n" + "".join(lines))

    t = file("t.csv", [(i, f"w{i % 4}") for i in range(40)])
    h = file("h.csv", [(i, f"w{i % 4}") for i in range(40)])
    g = file("g.csv", [(i, "new" if i == 0 else "w1") for i in range(20)])
    space = common_space(t, h, g)
    words = space.members.shape[1] - 1
    assert words == 5
    gaps = np.linalg.norm(space.members[:, :words] - space.drawn[0, :words], axis=1)
    assert np.allclose(gaps, 1)
    many = [(i, f"u{rng.integers(2000)}") for i in range(900)]
    wide = common_space(file("a.csv", many), file("b.csv", many[::-1][:100] + many[:10]))
    assert wide.members.shape[1] == 130  # a profile of the text, a mark of what is missing, x
    assert any("With over 256 different values" in note for note in wide.notes)


def test_columns_are_matched_by_name_and_kind(tmp_path):
    train, holdout = table(30), table(30, 1)
    turned = table(30, 2).with_columns([3, 1, 0, 2])
    straight, moved = (common_space(train, holdout, g) for g in (table(30, 2), turned))
    assert np.array_equal(straight.drawn, moved.drawn)
    with pytest.raises(InputError, match="samples has no column 'b'"):
        common_space(train, holdout, table(30, 2).with_columns([0, 2, 3]))
    text = write(tmp_path / "g.csv", "a,b,c,kind\n" + "low,1,2,x\nhigh,2,3,y\n" * 8)
    with pytest.raises(InputError, match="samples: column 'a' holds 'high', train holds numbers"):
        common_space(train, holdout, text)
    digits = write(tmp_path / "h.csv", "a,b,c,kind\n" + "1,1,2,0\n2,2,3,1\n" * 8)
    assert len(common_space(train, digits, table(30, 2)).held) == 16  # 0 and 1 are words there


def test_groups_leave_the_space_and_stand_on_one_side():
    def with_person(data, people):
        return Dataset(
            np.column_stack([people, data.values]), "table", "p.csv",
            columns=("person", *data.columns), fields=(Column("person"), *data.fields),
        )  # fmt: skip

    train = with_person(table(30), np.arange(30) // 3)
    holdout = with_person(table(30, 1), 100 + np.arange(30) // 2)
    space = common_space(train, holdout, table(30, 2), groups="person")
    plain = common_space(table(30), table(30, 1), table(30, 2))
    assert np.array_equal(space.members, plain.members)
    assert [len(np.unique(g)) for g in space.group_ids] == [10, 15]
    by_hand = (np.arange(30) // 3, 100 + np.arange(30) // 2)
    same = common_space(table(30), table(30, 1), groups=by_hand)
    assert np.array_equal(same.group_ids[1], space.group_ids[1])
    with pytest.raises(InputError, match="train has no column 'name' to group by; it has person"):
        common_space(train, holdout, groups="name")
    with pytest.raises(InputError, match="10 of 10 groups stand in both"):
        common_space(train, with_person(table(30, 1), np.arange(30) // 3), groups="person")
    with pytest.raises(InputError, match=r"groups of holdout are \(5,\), its rows 30"):
        common_space(table(30), table(30, 1), groups=(np.arange(30), np.arange(5)))


def test_cells_of_a_discrete_table():
    rng = np.random.default_rng(0)
    sets = [rng.integers(0, 4, (n, 3)) for n in (200, 150, 100)]
    cells = common_space(*sets).cells
    rows = [tuple(r) for part in sets for r in part]
    codes = np.concatenate(cells)
    for i, j in rng.integers(0, 450, (300, 2)):
        assert (codes[i] == codes[j]) == (rows[i] == rows[j])
    assert common_space(*(rng.standard_normal((50, 3)) for _ in range(3))).cells is None


def test_features_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    sets = [rng.standard_normal((n, 4, 4)) for n in (30, 20, 25)]

    def means(rows):
        return rows.mean(2)

    space = common_space(*sets, features=means)
    assert space.members.shape == (30, 4)
    named = dict(zip(("train", "holdout", "samples"), map(means, sets), strict=True))
    np.savez(tmp_path / "f.npz", **named)
    assert np.array_equal(common_space(*sets, features=str(tmp_path / "f.npz")).drawn, space.drawn)
    np.savez(tmp_path / "short.npz", **(named | {"samples": named["samples"][:7]}))
    with pytest.raises(InputError, match=r"features of samples are .* one row for each of its 25"):
        common_space(*sets, features=str(tmp_path / "short.npz"))
    for bad, words in (
        ("nowhere.npz", "does not exist"),
        ("plain", "package.module:function"),
        ("math:nothing", "has no function 'nothing'"),
        ("no.such:f", "No module"),
    ):
        with pytest.raises(InputError, match=words):
            common_space(*sets, features=bad)


def test_copies_of_a_mixed_table_are_found():
    train, holdout = table(300, m=6), table(300, 1, m=6)
    assert audit(train, holdout, train).finding == "copies"
    assert audit(train, holdout, table(300, 2, m=6)).finding in ("none", "inconclusive")


def test_adult_and_california_housing(real_data, tmp_path):
    adult = load(real_data("adult/adult.data.gz"), mixed=True)
    assert adult.values.shape == (32_561, 15)
    kinds = [f.kind for f in adult.fields]
    assert [j for j, kind in enumerate(kinds) if kind == "numeric"] == [0, 2, 4, 10, 11, 12]
    assert np.isnan(adult.values).sum() == 4262  # cells that are ?
    lines = gzip.decompress(real_data("adult/adult.data.gz").read_bytes()).decode().split("\n")
    written = save_rows(tmp_path / "a.csv", adult.take(np.arange(500))).read_text().split("\n")
    assert written[:500] == [line.replace(", ", ",") for line in lines[:500]]
    houses = load(real_data("california_housing/housing.csv.gz"), mixed=True)
    assert np.isnan(houses.values).sum(0).tolist() == [0, 0, 0, 0, 207, 0, 0, 0, 0, 0]
    assert len(houses.fields[9].categories) == 5
    raw = gzip.decompress(real_data("california_housing/housing.csv.gz").read_bytes()).decode()
    text = save_rows(tmp_path / "h.csv", houses).read_text()
    assert text == raw
    with pytest.raises(InputError, match="column 'ocean_proximity' is 'NEAR BAY'"):
        load(real_data("california_housing/housing.csv.gz"))


@pytest.mark.slow
def test_copies_of_houses_are_found(real_data):
    """Bootstrap copies of a table with missing cells and a category, and rows held back."""
    houses = load(real_data("california_housing/housing.csv.gz"), mixed=True)
    order = np.random.default_rng(0).permutation(len(houses))
    train, holdout, fresh = (houses.take(order[k : k + 1000]) for k in (0, 1000, 2000))
    assert audit(train, holdout, train.take(np.arange(500))).finding == "copies"
    assert audit(train, holdout, fresh).finding in ("none", "inconclusive")
