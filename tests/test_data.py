import numpy as np
import pytest
import torch

from reverie import data, files, fit, predict
from reverie.data import Dataset, Scaler, load, save, shared_rows, split
from reverie.errors import InputError
from reverie.runs import Run


def table(n=30, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(5, 2, n), rng.integers(0, 9, n)])


def test_built_in_digits_are_the_real_ones():
    digits = load("digits")
    assert digits.values.shape == (1797, 1, 8, 8)
    assert digits.values.dtype == np.uint8
    assert digits.values.max() == 16
    assert digits.kind == "images"


def test_csv_round_trip_keeps_header_and_integer_columns(tmp_path):
    path = tmp_path / "a.csv"
    rows = table()
    lines = ['"height, cm",count'] + [f"{a!r},{int(b)}" for a, b in rows.tolist()]
    path.write_text("\n".join(lines) + "\n")
    loaded = load(path)
    assert loaded.columns == ("height, cm", "count")
    assert np.array_equal(loaded.values, rows)
    scaler = Scaler.fit(loaded)
    back = scaler.to_user(scaler.to_model(loaded.values) + 0.01)
    assert np.array_equal(back[:, 1], np.round(back[:, 1]))
    out = save(tmp_path / "b.csv", back, scaler)
    text = out.read_text().splitlines()
    assert text[0] == '"height, cm",count'
    assert "." not in text[1].rsplit(",", 1)[1]
    assert np.allclose(load(out).values, back)


def test_csv_without_header(tmp_path):
    path = tmp_path / "a.csv"
    np.savetxt(path, table(), delimiter=",")
    assert load(path).columns is None
    assert len(load(path)) == 30


def test_parquet_round_trip(tmp_path):
    pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    first = Dataset(table(), "table", "x", columns=("a", "b"))
    path = save(tmp_path / "a.parquet", first.values, Scaler.fit(first))
    again = load(path)
    assert again.columns == ("a", "b")
    assert np.allclose(again.values, first.values)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "inner"),
    [
        ((20, 5), np.float32, "vectors", (5,)),
        ((20,), np.int64, "vectors", (1,)),
        ((20, 6, 7), np.uint8, "images", (1, 6, 7)),
        ((20, 6, 7, 3), np.uint8, "images", (3, 6, 7)),
        ((20, 3, 6, 7), np.float32, "images", (3, 6, 7)),
        ((20, 6, 7), np.float32, "vectors", (6, 7)),
    ],
)
def test_arrays_come_back_in_their_own_shape_and_type(shape, dtype, kind, inner, tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 255, shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    loaded = load(tmp_path / "a.npy")
    assert (loaded.kind, loaded.shape) == (kind, inner)
    scaler = Scaler.fit(loaded)
    back = scaler.to_user(scaler.to_model(loaded.values))
    written = np.load(save(tmp_path / "b.npy", back, scaler))
    assert written.dtype == dtype
    assert written.shape == array.shape
    assert np.allclose(written.reshape(array.shape), array, atol=1e-3)


def test_image_folder_round_trip(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for k in range(6):
        pixels = rng.integers(0, 256, (5, 4, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{k}.png")
    loaded = load(tmp_path / "in")
    assert loaded.shape == (3, 5, 4)
    scaler = Scaler.fit(loaded)
    out = save(tmp_path / "out", scaler.to_user(scaler.to_model(loaded.values)), scaler)
    assert np.array_equal(load(out).values, loaded.values)


def test_idx_files_of_images(tmp_path):
    import gzip

    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 5)).astype(np.uint8)
    head = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
    path = tmp_path / "some-ubyte.gz"
    path.write_bytes(gzip.compress(head + pixels.tobytes()))
    assert np.array_equal(load(path).values[:, 0], pixels)
    path.write_bytes(gzip.compress(head + pixels.tobytes()[:-1]))
    with pytest.raises(InputError, match="its header says 180"):
        load(path)
    path.write_bytes(b"not gzip")
    with pytest.raises(InputError, match="is damaged"):
        load(path)


def test_fashion_mnist_is_verified():
    if not data.FASHION.exists():
        with pytest.raises(InputError, match="is not here"):
            load("fashion-mnist")
        pytest.skip("Fashion-MNIST is not installed")
    assert load("fashion-mnist").values.shape == (60_000, 1, 28, 28)


def test_npz_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=table(), two=table(5))
    assert len(load(f"{tmp_path}/a.npz:two")) == 5
    with pytest.raises(InputError, match="one, two"):
        load(tmp_path / "a.npz")
    with pytest.raises(InputError, match="no array"):
        load(f"{tmp_path}/a.npz:three")


def test_split_is_disjoint_seeded_and_counts_shared_rows():
    values = table(300)
    values[200:] = values[:100]
    dataset = Dataset(values, "table", "x")
    train, held, shared = split(dataset, None, 150, seed=1)
    assert not set(train) & set(held)
    assert len(held) == 150
    assert shared == shared_rows(values[held], values[train]).sum() > 0
    assert np.array_equal(split(dataset, None, 150, seed=1)[0], train)
    assert len(split(dataset, 40, None, seed=1)[0]) == 40


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


BAD_FILES = [
    ("a.csv", b"", "is empty"),
    ("a.csv", b"x,y\n", "no rows"),
    ("a.csv", b"x,y\n1,2\n3,hello\n", "line 3, column 'y' is 'hello', not a number"),
    ("a.csv", b"x,y\n1,2\n3\n", "line 3 has 1 cells"),
    ("a.csv", b"x,y\n1,2\n,4\n", "line 3, column 'x' is empty"),
    ("a.csv", b"\xff\x01\x00", "not UTF-8"),
    ("a.npy", b"not numpy at all", "not a plain NumPy array"),
    ("a.npz", b"PK not a zip", "not a NumPy archive"),
    ("a.parquet", b"nope", "not a parquet file"),
    ("a.doc", b"1 2 3", "unknown ending"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD_FILES)
def test_bad_files_get_one_sentence(tmp_path, name, content, words):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="the extra tables is not installed")
    with pytest.raises(InputError, match=words):
        load(write(tmp_path, name, content))


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="plain NumPy array"):
        load(tmp_path / "a.npy")


def test_bad_values_name_their_place():
    bad = table()
    bad[7, 1] = np.nan
    with pytest.raises(InputError, match="row 7, column 'b' is not a finite"):
        Dataset(bad, "table", "x", columns=("a", "b")).check()
    flat = table()
    flat[:, 0] = 3
    with pytest.raises(InputError, match="column 0 is constant"):
        Dataset(flat, "table", "x").check()
    with pytest.raises(InputError, match="1 row"):
        Dataset(table(1), "table", "x").check()
    with pytest.raises(InputError, match="does not exist"):
        load("nowhere.npy")
    with pytest.raises(InputError, match="not numbers"):
        load(np.array(["a", "b"]))
    with pytest.raises(InputError, match="fitted on"):
        Scaler.fit(load(table())).to_model(np.zeros((2, 3)))
    with pytest.raises(InputError, match="cannot hold out"):
        split(load(table()), 20, 20, 0)
    with pytest.raises(InputError, match="N is 1 to 29"):
        split(load(table()), 30, None, 0)


def test_folders_with_odd_images_are_refused(tmp_path):
    from PIL import Image

    with pytest.raises(InputError, match="holds no images"):
        load(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (5, 4)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="resize all images"):
        load(tmp_path)
    (tmp_path / "b.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match="is not an image"):
        load(tmp_path)


def test_unwritable_places_are_named(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("x")
    scaler = Scaler.fit(load(table()))
    with pytest.raises(InputError, match="cannot write"):
        save(blocker / "a.npy", table(), scaler)
    with pytest.raises(InputError, match="written as"):
        save(tmp_path / "a.xls", table(), scaler)
    with pytest.raises(InputError, match="only images"):
        save(tmp_path / "folder", table(), scaler)


def test_writing_is_atomic(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        files.write_bytes(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_are_data_too():
    assert len(load(torch.randn(12, 3))) == 12


def test_headers_are_not_guessed_at(tmp_path):
    with pytest.raises(InputError, match="line 1, column 1 is empty"):
        load(write(tmp_path, "a.csv", b"1.0,\n2,3\n4,5\n"))
    assert len(load(write(tmp_path, "b.csv", b"\xef\xbb\xbf1,2\n3,4\n"))) == 2
    assert len(load(write(tmp_path, "c.csv", b'"1","2"\n"3","4"\n'))) == 2
    noted = write(tmp_path, "e.csv", b"# source, licence\n# more\nlat,lon\n1,2\n3,4\n")
    assert load(noted).columns == ("lat", "lon")
    assert len(load(write(tmp_path, "f.csv", b"# source\n1,2\n3,4\n"))) == 2
    with pytest.raises(InputError, match="line 3 has 2 cells, the first line 1"):
        load(write(tmp_path, "g.csv", b"# note\nx\n1,2\n3,4\n"))
    assert load(write(tmp_path, "d.csv", b"a;b\n1;2\n")).columns == ("a", "b")


def test_dark_images_come_back_dark(tmp_path):
    dark = np.random.default_rng(0).integers(9, 76, (5, 4, 4)).astype(np.uint8)
    loaded = load(dark)
    out = save(tmp_path / "out", loaded.values, Scaler.fit(loaded))
    assert np.array_equal(load(out).values[:, :1], loaded.values)


def test_a_matlab_file_of_one_array_is_read(tmp_path):
    from scipy.io import savemat

    values = np.random.default_rng(0).integers(0, 2, (20, 6)).astype(np.uint8)
    savemat(tmp_path / "x.mat", {"X": values})
    assert (load(tmp_path / "x.mat").values == values).all()
    savemat(tmp_path / "two.mat", {"X": values, "Y": values})
    with pytest.raises(InputError, match="holds 2 arrays"):
        load(tmp_path / "two.mat")
    (tmp_path / "bad.mat").write_bytes(b"not a file of matlab's at all" * 9)
    with pytest.raises(InputError, match="not a MATLAB 5 file"):
        load(tmp_path / "bad.mat")


def test_columns_of_one_value_are_set_apart_and_come_back(tmp_path):
    rng = np.random.default_rng(0)
    moving = rng.normal(size=(80, 2))
    values = np.stack([moving[:, 0], np.full(80, 7.0), moving[:, 1], np.zeros(80)], 1)
    run = fit(values, out=tmp_path / "run", steps=4, width=8, depth=1)
    alone = fit(moving, steps=4, width=8, depth=1)
    assert run.scaler.point_shape == (2,)
    assert run.curves is not None
    assert torch.equal(run.scaler.to_model(run.train.values),
                       alone.scaler.to_model(alone.train.values))  # fmt: skip
    drawn = Run.load(tmp_path / "run").sample(5, seed=1)
    assert np.array_equal(drawn[:, [0, 2]], alone.sample(5, seed=1))
    assert (drawn[:, 1] == 7).all()
    assert (drawn[:, 3] == 0).all()
    back = run.scaler.to_user(run.scaler.to_model(values[:9]))
    assert np.allclose(back, values[:9], atol=1e-5)
    other = values[:3].copy()
    other[2, 1] = 8
    with pytest.raises(InputError, match="row 2, column 1 is 8; this run was fitted where it is"):
        run.scaler.to_model(other)
    assert predict(values).to_json() == predict(moving).to_json()
    with pytest.raises(InputError, match="is constant"):
        fit(np.ones((50, 2)), steps=2)
