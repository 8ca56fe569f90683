"""Rows that stay on disk: the same fit as in memory, in pieces with hashes, and bad input."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie import Run, fit, measure
from reverie.cli import main
from reverie.data import Reading, Scaler, StoredPoints, StoredRows, load, split
from reverie.data.stored import dataset as stored_dataset
from reverie.data.stored import rows as stored_rows
from reverie.errors import InputError

SMALL = dict(steps=30, width=16, depth=1, batch_size=32, check_every=15, network="mlp")


def numbers(n: int = 900, d: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 3


def pictures(n: int = 300, side: int = 6) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, raw in members:
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def write_shards(folder: Path, images: np.ndarray, each: int = 100, *, raw=png, ending="png"):
    folder.mkdir()
    for start in range(0, len(images), each):
        members = []
        for k in range(start, min(start + each, len(images))):
            members.append((f"{k:06d}.{ending}", raw(images[k])))
            members.append((f"{k:06d}.cls", str(k % 3).encode()))
        write_tar(folder / f"{start // each:06d}.tar", members)


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.denoiser.parameters()])


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks so small that these sets take many of them."""
    monkeypatch.setattr(stored_rows, "BLOCK", 2**9)


# --- the rows ------------------------------------------------------------------------------------


def tables(folder: Path, values: np.ndarray) -> dict[str, Path]:
    """The same numbers in every form that is read by rows."""
    pa = pytest.importorskip("pyarrow", reason="the extra tables")
    from pyarrow import feather, parquet

    table = pa.table({f"x{j}": values[:, j] for j in range(values.shape[1])})
    paths = {name: folder / f"rows.{name}" for name in ("npy", "parquet", "feather")}
    np.save(paths["npy"], values)
    parquet.write_table(table, paths["parquet"], row_group_size=130)
    feather.write_feather(table, paths["feather"], chunksize=170)
    return paths


@pytest.mark.parametrize("name", ["npy", "parquet", "feather", "zarr"])
def test_rows_are_those_of_the_file(tmp_path, name, small_blocks):
    values = numbers()
    if name == "zarr":
        zarr = pytest.importorskip("zarr", reason="the extra zarr")
        path = tmp_path / "rows.zarr"
        array = zarr.open(str(path), mode="w", shape=values.shape, chunks=(128, 5), dtype="f8")
        array[:] = values
    else:
        path = tables(tmp_path, values)[name]
    data = load(path, stored=True)
    rows = np.array([[7, 899, 7], [0, 130, 131]])
    assert data.is_stored
    assert isinstance(data.values, StoredRows)
    assert np.array_equal(data.values[rows], values[rows])
    assert np.array_equal(data.values[100:300:7], values[100:300:7])
    assert np.array_equal(data.values[-1], values[-1])
    assert np.array_equal(np.concatenate(list(data.values.blocks())), values)
    view = data.take(np.array([5, 3, 800]))
    assert np.array_equal(view.values[np.array([2, 0])], values[[800, 5]])
    plain = data.unpacked(tmp_path / "plain.npy")
    assert np.array_equal(plain.values[:], values)
    with pytest.raises(InputError, match="needs all rows in memory"):
        np.asarray(data.values)
    with pytest.raises(InputError, match="needs all rows in memory"):
        data.values.reshape(-1)


@pytest.mark.parametrize("shape", [(7,), (7, 4, 4), (7, 4, 4, 3), (7, 3, 4, 4), (7, 2, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool, ">i2"])
def test_an_array_is_read_as_in_memory(tmp_path, shape, dtype):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    stored, plain = (load(tmp_path / "a.npy", stored=on) for on in (True, False))
    assert (stored.kind, stored.layout) == (plain.kind, plain.layout)
    assert stored.values.dtype == plain.values.dtype
    assert np.array_equal(stored.values[:], plain.values)


def test_statistics_and_duplicates_are_those_in_memory_to_the_bit(tmp_path, small_blocks):
    values = numbers()
    values[10:20] = values[500:510]
    np.save(tmp_path / "a.npy", values)
    stored, plain = (load(tmp_path / "a.npy", stored=on) for on in (True, False))
    assert Scaler.fit(stored).to_json() == Scaler.fit(plain).to_json()
    # against NumPy, whose order of sums is another: a few units in the last place
    np.testing.assert_allclose(Scaler.fit(stored).mean, values.mean(0), rtol=1e-13)
    np.testing.assert_allclose(Scaler.fit(stored).std, values.std(0), rtol=1e-13)
    for a, b in zip(split(stored, None, 300, 0), split(plain, None, 300, 0), strict=True):
        assert np.array_equal(a, b)


def test_a_batch_that_was_foreseen_is_the_batch(tmp_path):
    np.save(tmp_path / "a.npy", numbers())
    data = load(tmp_path / "a.npy", stored=True)
    scaler = Scaler.fit(data)
    points, all_of = StoredPoints(data.rows, scaler), scaler.to_model(data.rows[:])
    rows = torch.tensor([5, 5, 880])
    points.expect(rows)
    assert torch.equal(points[rows], all_of[rows])
    points.expect(rows)
    assert torch.equal(points[torch.tensor([1])], all_of[[1]])
    assert torch.equal(points[3:6], all_of[3:6])


# --- fits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["npy", "parquet", "feather"])
def test_a_fit_from_disk_is_the_fit_in_memory_bit_for_bit(tmp_path, name, small_blocks):
    path = tables(tmp_path, numbers())[name]
    plain = fit(load(path, stored=False), **SMALL)
    stored = fit(load(path, stored=True), out=tmp_path / "run", **SMALL)
    assert torch.equal(weights(plain), weights(stored))
    assert stored.config.process == plain.config.process
    assert np.array_equal(stored.train_values, plain.train_values)
    again = Run.load(tmp_path / "run")
    assert torch.equal(weights(again), weights(stored))
    assert again.sample(4, steps=3).shape == (4, 5)
    assert (tmp_path / "run/rows.npy").exists() == (name != "npy")


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize("form", ["folder", "png shards", "npy shards"])
def test_pictures_from_disk_too(tmp_path, monkeypatch, form, lazily, small_blocks):
    images = pictures()
    if lazily:  # as where they are too many to be unpacked: decoded by workers, batch by batch
        monkeypatch.setattr(stored_dataset, "UNPACKED", 0)
    folder = tmp_path / "data"
    if form == "folder":
        folder.mkdir()
        for k, image in enumerate(images):
            (folder / f"{k:05d}.png").write_bytes(png(image))
    elif form == "png shards":
        write_shards(folder, images)
    else:
        write_shards(folder, images, raw=npy, ending="npy")
    plain = fit(images, **SMALL)
    run = fit(load(folder, stored=True), out=tmp_path / "run", **SMALL)
    assert torch.equal(weights(plain), weights(run))
    assert run.train.kind == "images"
    assert (tmp_path / "run/rows.npy").exists() == (form != "npy shards" and not lazily)
    assert torch.equal(weights(Run.load(tmp_path / "run")), weights(run))
    assert np.array_equal(load(folder, stored=False).values, np.moveaxis(images, 3, 1))


def test_kill_and_resume_end_at_the_same_weights(tmp_path, small_blocks):
    write_shards(tmp_path / "data", pictures())
    source = str(tmp_path / "data/{000000..000002}.tar")

    def stop(event, trainer):
        if event.step == 11:
            raise KeyboardInterrupt

    whole = fit(source, out=tmp_path / "a", **SMALL)
    with pytest.raises(KeyboardInterrupt):
        fit(source, out=tmp_path / "b", on_event=stop, **SMALL)
    assert torch.equal(weights(fit(out=tmp_path / "b", resume=True)), weights(whole))


def test_labels_of_shards_are_a_condition(tmp_path):
    write_shards(tmp_path / "data", pictures())
    run = fit(tmp_path / "data", conditions="cls", **SMALL)
    assert run.train.labels == ("0", "1", "2")
    assert run.sample(5, steps=3, given="2").shape == (5, 3, 6, 6)


def test_a_curve_is_measured_on_rows_on_disk(tmp_path):
    np.save(tmp_path / "a.npy", numbers())
    run = fit(load(tmp_path / "a.npy", stored=True), **SMALL)
    data = load(tmp_path / "a.npy", stored=True)
    points = StoredPoints(data.rows, run.scaler)
    one, two = (
        measure(run.denoiser, rows, 8, generator=torch.Generator().manual_seed(0), batch_size=100)
        for rows in (points, points[:])
    )
    assert np.array_equal(one.rate, two.rate)
    assert one.variance == pytest.approx(two.variance, rel=1e-5)  # float32 sums in other orders


# --- bad input -----------------------------------------------------------------------------------


def test_a_changed_piece_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_rows, "PIECE", 4096)
    path = tmp_path / "a.npy"
    np.save(path, numbers())
    fit(load(path, stored=True), out=tmp_path / "run", **SMALL)
    raw = bytearray(path.read_bytes())
    raw[10_000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"has changed .*: a.npy, bytes 8,192 to 12,288"):
        Run.load(tmp_path / "run")


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path / "data", pictures())
    (tmp_path / "data/000001.tar").unlink()
    for source in (tmp_path / "data", tmp_path / "data/{000000..000002}.tar"):
        with pytest.raises(InputError, match=r"000001.tar is missing"):
            load(source)


@pytest.mark.parametrize(("left", "match"), [(0.5, "cut short"), (0.0, "cut short")])
def test_a_cut_tar_is_named(tmp_path, left, match):
    write_shards(tmp_path / "data", pictures())
    path = tmp_path / "data/000001.tar"
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size) + 100])
    with pytest.raises(InputError, match=match):
        load(tmp_path / "data")


def test_a_tar_without_its_end_is_cut_short(tmp_path):
    write_shards(tmp_path / "data", pictures(100))
    path = tmp_path / "data/000000.tar"
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    path.write_bytes(path.read_bytes()[: last.offset_data + 512])
    with pytest.raises(InputError, match="no end"):
        load(tmp_path / "data")


def test_noise_is_no_tar(tmp_path):
    (tmp_path / "a.tar").write_bytes(os.urandom(4096))
    with pytest.raises(InputError, match="no tar archive"):
        load(tmp_path / "a.tar")


@pytest.mark.parametrize("fmt", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_every_kind_of_tar(tmp_path, fmt):
    """Against Python's own reader, with names too long for a header, folders and links."""
    from reverie.data.stored.archives import members

    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=fmt) as archive:
        for name, size in (("short.npy", 0), (f"{'a' * 90}/{'b' * 60}.png", 700), ("é.cls", 513)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    with tarfile.open(path) as archive:
        known = [(m.name, m.offset_data, m.size) for m in archive.getmembers() if m.isfile()]
    assert list(members(path)) == known


def test_an_unreadable_picture_is_named_or_left_out(tmp_path, small_blocks):
    write_shards(tmp_path / "data", pictures())
    path = tmp_path / "data/000001.tar"
    with tarfile.open(path) as archive:
        bad = archive.getmember("000150.png")
    raw = bytearray(path.read_bytes())
    raw[bad.offset_data : bad.offset_data + bad.size] = bytes(bad.size)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"000001.tar.* is not an image"):
        fit(tmp_path / "data", **SMALL)
    data = load(tmp_path / "data", reading=Reading(skip_bad=True))
    run = fit(data, out=tmp_path / "run", **SMALL)
    assert len(run.train) + len(run.holdout) == 299
    assert 150 not in run.rows[0]
    again = Run.load(tmp_path / "run")
    assert np.array_equal(again.train_values, run.train_values)


def test_a_file_that_is_cut_or_changed_while_it_is_read(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, numbers())
    data = load(path, stored=True)
    os.truncate(path, 5000)
    with pytest.raises(InputError, match="cut short while it was read"):
        data.values[np.array([800])]
    np.save(path, numbers())
    data = load(path, stored=True)
    with path.open("r+b") as file:
        file.seek(500)
        file.write(b"changed")
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed while it was read"):
        data.values[np.array([800])]


def test_tables_of_texts_and_others_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the extra tables")
    from pyarrow import parquet

    table = pa.table({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "z"], "c": [1, None, 3]})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"column 'b' holds string.*--ignore=b"):
        load(tmp_path / "t.parquet", stored=True)
    said = Reading(ignore=("b",), stored=True)
    with pytest.raises(InputError, match="row 1, column 'c' is not a finite number"):
        load(tmp_path / "t.parquet", reading=said).check()
    assert load(tmp_path / "t.parquet", reading=Reading(ignore=("b", "c"), stored=True)).columns
    np.save(tmp_path / "f.npy", np.asfortranarray(numbers()))
    with pytest.raises(InputError, match="ascontiguousarray"):
        load(tmp_path / "f.npy", stored=True)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(InputError, match="cannot be read from disk in pieces"):
        load(tmp_path / "a.csv", stored=True)
    np.save(tmp_path / "c.npy", np.ones((50, 2)) * np.arange(50)[:, None] ** [0, 1])
    with pytest.raises(InputError, match="constant"):
        load(tmp_path / "c.npy", stored=True).check()


def test_a_column_of_one_value_is_set_apart_as_in_memory(tmp_path, small_blocks):
    rows = numbers()
    rows[:, 1] = 7
    np.save(tmp_path / "a.npy", rows)
    stored, held = (fit(load(tmp_path / "a.npy", stored=on), **SMALL) for on in (True, False))
    assert stored.scaler.still == held.scaler.still == [1]
    for a, b in zip(stored.denoiser.parameters(), held.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (stored.sample(5, steps=3)[:, 1] == 7).all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (dict(objective="gap-fixed"), "gap-fixed needs all rows"),
        (dict(follow_bias=True), "follow_bias needs all rows"),
        (dict(space="symbols"), "no symbols"),
    ],
)
def test_what_needs_all_rows_says_so(tmp_path, settings, match):
    np.save(tmp_path / "a.npy", numbers())
    with pytest.raises(InputError, match=match):
        fit(load(tmp_path / "a.npy", stored=True), **SMALL | settings)


def test_a_worker_that_dies_is_told(tmp_path):
    write_shards(tmp_path / "data", pictures())
    rows = load(tmp_path / "data").values
    rows.start_workers(1)
    assert rows[np.arange(20)].shape == (20, 3, 6, 6)
    os.kill(rows.workers.processes[0].pid, signal.SIGKILL)
    with pytest.raises(InputError, match="has died"):
        rows[np.arange(20)]


# --- the command line, and its memory ------------------------------------------------------------


def run_command(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code or 0


def test_the_command_line_says_what_it_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data", pictures())
    small = ("--steps", 5, "--width", 16, "--depth", 1)
    assert run_command("fit", "data", "--out", "run", *small) == 0
    assert "read from disk in pieces" in capsys.readouterr().err
    (tmp_path / "data/000001.tar").unlink()
    assert run_command("fit", "--out", "run", "--resume") == 2
    assert "000001.tar is missing" in capsys.readouterr().err


MEASURED = """
import resource, sys
import reverie
from reverie.data import load
run = reverie.fit(load(sys.argv[1], stored=True), steps=20, width=16, depth=1, batch_size=64)
print(len(run.whole), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path):
    """A file of 1.2 GB takes less than half of that; the interpreter with torch takes 0.3."""
    path = tmp_path / "big.npy"
    rng = np.random.default_rng(0)
    big = np.lib.format.open_memmap(path, "w+", np.float32, (300_000, 1024))
    for start in range(0, len(big), 20_000):
        big[start : start + 20_000] = rng.standard_normal((20_000, 1024), np.float32)
    big.flush()
    del big
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    rows, peak = map(int, ran.stdout.split())
    assert rows == 290_000
    assert peak * 1024 < 1.1e9


def test_import_is_light():
    code = (
        "import sys, reverie, reverie.data; "
        "print([m for m in ('zarr', 'pyarrow', 'faiss') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# --- audits --------------------------------------------------------------------------------------


def audited(tmp_path, monkeypatch, copied: int, noise: float = 0.0):
    """Sets of an audit, of whose training rows the tests compare 300 only."""
    from reverie.auditing.facts import all_rows

    monkeypatch.setattr(all_rows, "TESTED", 300)
    rng = np.random.default_rng(0)
    train, holdout, samples = (rng.normal(size=(n, 6)) for n in (3000, 400, 400))
    samples[:copied] = train[1000 : 1000 + copied] + noise * rng.normal(size=(copied, 6))
    for name, rows in (("train", train), ("holdout", holdout), ("samples", samples)):
        np.save(tmp_path / f"{name}.npy", rows)
    return train, holdout, samples


@pytest.mark.parametrize(("copied", "noise"), [(0, 0.0), (20, 0.0), (30, 0.01)])
def test_an_audit_seeks_copies_among_all_rows_on_disk(tmp_path, monkeypatch, copied, noise):
    from reverie import audit
    from reverie.auditing.facts.all_rows import search_all

    train, holdout, samples = audited(tmp_path, monkeypatch, copied, noise)
    data = load(tmp_path / "train.npy", stored=True)
    found = search_all(data, load(holdout), load(samples))
    # by brute force: nearest training row, and that row's nearest other
    scale = np.concatenate(
        [train[np.sort(np.random.default_rng(0).choice(3000, 300, replace=False))], holdout]
    ).std(0)
    gaps = np.linalg.norm((samples[:, None] - train[None]) / scale, axis=2)
    place = gaps.argmin(1)
    spacing = np.array(
        [np.sort(np.linalg.norm((train[p] - train) / scale, axis=1))[1] for p in place]
    )
    near = gaps.min(1) < spacing / 3
    assert found.near[0].queries == near.sum()
    assert found.near[0].rows == len(np.unique(place[near]))
    assert found.verbatim[0].queries == (copied if noise == 0 else 0)
    assert found.beyond == (copied > 0)
    assert {match.train_row for match in found.records} >= (
        set(range(1000, 1000 + copied)) if noise == 0 else set()
    )
    verdict = audit(data, holdout, samples, metrics=False, power=False)
    assert (verdict.finding == "copies") == (copied > 0)
    assert verdict.sizes["train"] == 300
    assert any("all 3,000 training rows" in note for note in verdict.notes)


def test_the_command_audits_rows_on_disk(tmp_path, monkeypatch, capsys):
    audited(tmp_path, monkeypatch, 20)
    monkeypatch.chdir(tmp_path)
    sets = [
        part for name in ("train", "holdout", "samples") for part in (f"--{name}", f"{name}.npy")
    ]
    assert run_command("audit", "--stored", "--fail-on", "copies", *sets) == 1
    assert "among all 3,000 training rows" in capsys.readouterr().err
    assert "read in pieces" in (tmp_path / "audit/audit.json").read_text()
    (tmp_path / "samples.npy").write_bytes((tmp_path / "samples.npy").read_bytes()[:900])
    assert run_command("audit", "--stored", *sets) == 2
    assert "cut short" in capsys.readouterr().err


def test_an_audit_of_a_run_seeks_copies_among_all_its_rows_on_disk(tmp_path, monkeypatch):
    """A model that hands out training rows which the tests do not hold."""
    from reverie.runs import readings

    np.save(tmp_path / "train.npy", np.random.default_rng(0).normal(size=(3000, 6)))
    some = np.sort(np.random.default_rng(1).choice(2400, 300, replace=False))
    monkeypatch.setattr(stored_dataset, "few_places", lambda shape: some[some < shape[0]])
    run = fit(load(tmp_path / "train.npy", stored=True), steps=3, width=8, depth=1, holdout=600)
    assert run.whole is not None
    rows = run.whole.in_full().values
    unseen = np.setdiff1d(np.arange(len(rows)), some)[:40]
    honest = run.holdout.values[:160] + 0.5 * np.random.default_rng(2).normal(size=(160, 6))
    monkeypatch.setattr(
        readings,
        "draw_told",
        lambda *_, **__: (np.concatenate([rows[unseen], honest]), None, None),
    )
    verdict = run.audit(200)
    assert verdict.finding == "copies"
    assert set(range(40)) <= set(verdict.flagged_samples)
    assert any("all 2,400 training rows" in note for note in verdict.notes)
