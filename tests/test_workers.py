"""Pieces of work on processes: what one process gives, and nothing lost by a kill or Ctrl-C."""

import json
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist

from labour import labour, refuse
from reverie.auditing import nearest_many
from reverie.auditing.facts import neighbours
from reverie.cli import main
from reverie.denoisers import Memoriser
from reverie.errors import InputError
from reverie.processes import VP
from reverie.reproduce import reproduce
from reverie.reproduce.parts import Parts
from reverie.runs.config import FitConfig
from reverie.runs.fitting import fit
from reverie.runs.retraining import retrain
from reverie.runs.sweeps import sweep
from reverie.sampling import sample, sample_many
from reverie.sampling.blocks import block_seed
from reverie.workers import Piece, Workers, spread

SMALL = FitConfig(width=8, depth=1, steps=40, check_every=20, batch_size=16, holdout=60)
TWO = Workers(jobs=2, threads=1)
OVER = {"n": [10, 20, 40]}


def ring(n=200, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * math.pi, n)
    return np.column_stack([np.cos(angle), np.sin(angle)]) * 3 + rng.normal(0, 0.1, (n, 2))


# --- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        (Workers(jobs=0), "jobs is 0"),
        (Workers(threads=0), "threads is 0"),
        (Workers(on="moon"), "choose local or ray"),
    ],
)
def test_bad_workers_are_named(workers, words):
    with pytest.raises(InputError, match=words):
        list(spread(labour, [Piece("a", 1)], workers=workers, shared="."))


def test_one_bad_piece_does_not_stop_the_others():
    done = {}
    with pytest.raises(InputError, match=r"^b: its loss is not finite; the other 2 are done"):
        done.update(spread(refuse, [Piece("a", 0), Piece("b", 1), Piece("c", 0)]))
    assert list(done) == ["a", "c"]
    with pytest.raises(InputError, match=r"2 of 3 failed: a: .*; c: .*; the other 1"):
        list(spread(refuse, [Piece("a", 1), Piece("b", 0), Piece("c", 1)]))
    with pytest.raises(InputError, match=r"^its loss is not finite$"):  # of no piece in particular
        list(spread(refuse, [Piece("a", 1), Piece("b", 1)]))


@pytest.mark.slow
def test_processes_outlive_kills_and_faults(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("reverie.workers.local.ATTEMPTS", 2)
    words = ["plain", "bad", "killed once", "faulty", "last"]
    told, done = [], {}
    pieces = [Piece(word, word, size=2) for word in words]
    found = spread(
        labour, pieces, workers=TWO, shared=str(tmp_path), progress=lambda *a: told.append(a)
    )
    with pytest.raises(RuntimeError, match="faulty: ZeroDivisionError"):
        done.update(found)
    assert "in labour" in capfd.readouterr().err  # where the fault lies
    assert set(done) == {"plain", "killed once", "last"}
    assert all(value[0] != os.getpid() and value[1] == 1 for value in done.values())
    assert all(torch.equal(value[2], torch.ones(2) * len(name)) for name, value in done.items())
    assert told[-1] == (10, 10)
    assert [a for a, _ in told] == sorted(a for a, _ in told)
    assert multiprocessing.active_children() == []
    with pytest.raises(InputError, match=r"ended 2 times \(signal 9\); the machine may lack memo"):
        list(
            spread(
                labour,
                [Piece("k", "killed always")],
                workers=Workers(jobs=2),
                shared=str(tmp_path),
            )
        )


# --- sweeps and retrainings ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    sweep(ring(), folder, OVER, config=SMALL, samples=20, workers=Workers(threads=1))
    return folder


def assert_same(first, second):
    """Tables byte for byte, weights bit for bit (the header of their file has no order)."""
    for name in ("sweep.csv", "sweep.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    for n in OVER["n"]:
        ours, theirs = (
            load_file(folder / f"fits/n={n}/ema.safetensors") for folder in (first, second)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in (*ours, *theirs))


@pytest.mark.slow
def test_a_worker_killed_and_the_sweep_stopped_lose_nothing(tmp_path, serial):
    """Killed with a fit in its hands; then Ctrl-C; then the same command, to the same bits."""
    killed, told = [], []

    def progress(done, total):
        told.append((done, total))
        if done >= 20 and not killed:
            child = multiprocessing.active_children()[0]
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        elif done >= 70:
            raise KeyboardInterrupt

    def go_on(**more):
        return sweep(ring(), tmp_path / "s", OVER, config=SMALL, samples=20, workers=TWO, **more)

    with pytest.raises(KeyboardInterrupt):
        go_on(progress=progress)
    assert killed
    assert told[-1][1] == 120
    assert multiprocessing.active_children() == []
    assert len(json.loads((tmp_path / "s/sweep.json").read_text())["rows"]) < 3
    go_on()
    assert_same(tmp_path / "s", serial)
    with pytest.raises(InputError, match="was begun with 1 thread"):
        sweep(ring(), tmp_path / "s", OVER, config=SMALL, samples=20, workers=Workers(threads=2))


@pytest.mark.slow
def test_ctrl_c_on_the_command_line_saves_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    """The signal as a terminal sends it: to this process and to its workers."""
    np.save(tmp_path / "ring.npy", ring())
    words = ["sweep", str(tmp_path / "ring.npy"), "--over", "n=10,20", "--out",
             str(tmp_path / "s"), "--jobs", "2", "--threads", "1", "--steps", "4000",
             "--width", "8", "--depth", "1", "--check-every", "4000", "--holdout", "60",
             "--samples", "10", "--quiet"]  # fmt: skip

    def interrupt():
        files = [tmp_path / f"s/fits/n={n}/state.safetensors" for n in (10, 20)]
        while not all(file.exists() for file in files):
            time.sleep(0.05)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 130
    assert "stopped and saved; continue with: reverie sweep" in capsys.readouterr().err
    assert multiprocessing.active_children() == []
    steps = [json.loads((tmp_path / f"s/fits/n={n}/state.json").read_text())["step"]
             for n in (10, 20)]  # fmt: skip
    assert all(0 <= step < 4000 for step in steps)


@pytest.mark.slow
def test_retrainings_on_processes_are_those_of_one(tmp_path):
    config = replace(SMALL, steps=20)
    here = retrain(ring(), 2, tmp_path / "a", config=config, samples=16,
                   workers=Workers(threads=1))  # fmt: skip
    there = retrain(ring(), 2, tmp_path / "b", config=config, samples=16, workers=TWO)
    for kind in ("independent", "paired", "copied"):
        for a, b in zip(getattr(here, kind), getattr(there, kind), strict=True):
            assert np.array_equal(a, b)
    for a, b in zip(here.runs, there.runs, strict=True):
        assert np.array_equal(a.train.values, b.train.values)
    assert json.loads((tmp_path / "b/retrain.json").read_text())["threads"] == 1


# --- reproductions -------------------------------------------------------------------------------


def test_parts_are_kept_until_the_table_is_written(tmp_path):
    pieces = [Piece("a", 0), Piece("b", 1)]
    with pytest.raises(InputError, match="b: its loss"):
        Parts(tmp_path, {"seed": 0}).made(refuse, pieces)
    assert json.loads((tmp_path / "parts/a.json").read_text()) == "0"
    again = Parts(tmp_path, {"seed": 0})
    (tmp_path / "parts/b.json").write_text('"Infinity"')
    assert again.made(refuse, pieces) == [0, math.inf]
    with pytest.raises(InputError, match="parts of other settings"):
        Parts(tmp_path, {"seed": 1})
    again.done()
    assert not (tmp_path / "parts").exists()


def test_what_shares_nothing_out_says_so(tmp_path):
    with pytest.raises(InputError, match=r"one thing after another.*risk, step-schedules"):
        reproduce("dominance", tmp_path, workers=TWO)


# --- samples and queries -------------------------------------------------------------------------


@pytest.mark.slow
def test_samples_do_not_depend_on_who_draws_them(tmp_path):
    denoiser = Memoriser(
        VP(shape=(2,)), torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    )
    times = torch.linspace(1, 0.01, 9)
    whole = sample_many(denoiser, 10, times, block=4, seed=3)
    first = sample(denoiser, 4, times, generator=torch.Generator().manual_seed(3))
    third = sample(denoiser, 2, times, generator=torch.Generator().manual_seed(block_seed(3, 2)))
    assert torch.equal(whole[:4], first)  # as ever
    assert torch.equal(whole[8:], third)  # a block knows its seed and place alone
    assert len({block_seed(s, b) for s in range(50) for b in range(50)}) > 2400
    assert torch.equal(whole, sample_many(denoiser, 10, times, block=4, seed=3, workers=TWO))
    with pytest.raises(InputError, match="takes no 'init'"):
        sample_many(denoiser, 10, times, init=first)
    with pytest.raises(InputError, match="device 'moon' is not available"):
        sample_many(denoiser, 10, times, device="moon")
    with pytest.raises(InputError, match="no sampler is called"):
        sample_many(denoiser, 10, times, "nobody", block=4)


@pytest.mark.slow
def test_samples_of_a_run_on_the_command_line(tmp_path, capsys):
    """With a condition, which is drawn before the noise of the first block."""
    rows = ring(120)
    run = fit(rows, conditions=(rows[:, 0] > 0).astype(int), config=SMALL, out=tmp_path / "run")
    words = ["sample", str(tmp_path / "run"), "--n", "50", "--steps", "4", "--quiet"]
    for name, more in (("a", []), ("b", ["--batch-size", "20"]),
                       ("c", ["--batch-size", "20", "--jobs", "2"])):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main([*words, "--out", str(tmp_path / f"{name}.npy"), *more])
        assert not end.value.code, capsys.readouterr().err
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert np.array_equal(b, c)
    assert np.allclose(a[:20], b[:20], atol=1e-5) or not np.array_equal(a[20:], b[20:])
    assert np.array_equal(a, run.sample(50, 4).astype(a.dtype))
    with pytest.raises(SystemExit) as end:
        main([*words, "--batch-size", "0"])
    assert end.value.code == 2


@pytest.mark.slow
def test_neighbours_of_many_queries_are_those_of_one_process(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2300, 3)).round(1)  # with duplicates, so that ties matter
    points[:6] = points[0]
    np.save(tmp_path / "points.npy", points)
    held = np.load(tmp_path / "points.npy", mmap_mode="r")
    one = neighbours.nearest(points, points, 3, skip_self=True)
    two = nearest_many(held, held, 3, skip_self=True, workers=TWO, folder=tmp_path / "f")
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])
    assert not (tmp_path / "f").exists()  # the points' own file was read
    square = cdist(points[:50], points)
    np.fill_diagonal(square, np.inf)
    assert np.allclose(two[0][:50], np.sort(square, axis=1)[:, :3])
    with pytest.raises(InputError, match="backend is 'x'"):
        nearest_many(points, points, backend="x", workers=TWO)


def test_faiss_takes_the_gpus_that_it_sees(monkeypatch):
    """A faiss with GPUs is played by the CPU's: which index is asked, and when not."""
    faiss = pytest.importorskip("faiss", reason="faiss is an extra")
    asked = []

    def to_gpus(flat):
        def search(near, k):
            asked.append(k)
            return flat.search(near, k)

        return SimpleNamespace(search=search)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", to_gpus, raising=False)
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(3000, 4)), rng.normal(size=(20, 4))
    for k in (2, 2500):  # more than a GPU finds
        found = neighbours.nearest(queries, points, k, backend="faiss")
        own = neighbours.nearest(queries, points, k)
        assert np.array_equal(found[0], own[0])
        assert np.array_equal(found[1], own[1])
    assert asked == [4]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")  # products would be coarser than certified
    neighbours.nearest(queries, points, backend="faiss")
    assert asked == [4]


# --- Ray that is not there -----------------------------------------------------------------------


def test_a_dead_cluster_is_one_sentence_within_seconds(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray", reason="Ray is an extra")
    np.save(tmp_path / "ring.npy", ring())
    with socket.socket() as deaf:  # it listens, and is no Ray
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dead = f"127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        for address, words in (
            (dead, "Connection refused"),
            (f"127.0.0.1:{deaf.getsockname()[1]}", "timed out"),
            (f"ray://{dead}", "Connection refused"),
            ("nonsense", "HOST:PORT"),
        ):
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(SystemExit) as end:
                main(["sweep", str(tmp_path / "ring.npy"), "--over", "n=10", "--on", "ray",
                      "--out", str(tmp_path / "s"), "--quiet"])  # fmt: skip
            said = capsys.readouterr()
            assert end.value.code == 2, said
            assert said.err.startswith(f"reverie: no Ray cluster answers at RAY_ADDRESS={address}")
            assert words in said.err
            assert len(said.err.splitlines()) == 1
        assert time.monotonic() - began < 20  # seconds, most of them of a busy machine
    assert not list((tmp_path / "s").glob(".*"))


def test_ray_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'reverie\[cluster\]'"):
        list(spread(refuse, [Piece("a", 0)], workers=Workers(on="ray")))
