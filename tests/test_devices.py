"""One fit on many processes: the weights of one process, killed, resumed, and told bad input."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reverie import fit
from reverie.errors import InputError
from reverie.runs.ranks import Ranks, launched
from reverie.runs.sharing import shared

WIDE = dict(width=16, depth=1, batch_size=24, precision="float64")  # 24: of 1, 2 and 3 processes
EXACT = 1e-5  # of weights and curves; sums in another order move float64 by 1e-15 or so


def points(n=300):
    return np.random.default_rng(0).normal(size=(n, 3)) @ np.diag([1.0, 2.0, 0.5])


def assert_same_run(first, second, tolerance=EXACT):
    """Weights, averages, moments, the law of levels and every check agree."""
    states = [load_file(folder / "state.safetensors") for folder in (first, second)]
    assert set(states[0]) == set(states[1])
    for name, value in states[0].items():
        if name != "generator":
            torch.testing.assert_close(value, states[1][name], rtol=tolerance, atol=tolerance)
    assert torch.equal(states[0]["generator"], states[1]["generator"])
    rows = [
        np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True)
        for folder in (first, second)
    ]
    for name in rows[0].dtype.names:
        np.testing.assert_allclose(rows[0][name], rows[1][name], rtol=tolerance, atol=tolerance)


# --- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "count"), [(24, 3), (7, 2), (5, 4), (2, 2)])
def test_parts_are_all_rows_once(rows, count):
    parts = [np.arange(rows)[Ranks(k, count).part(rows)] for k in range(count)]
    assert np.array_equal(np.concatenate(parts), np.arange(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


class Together(Ranks):
    """Two processes played one after the other: the first one's answers wait for the second."""

    def whole(self, own, rows):
        SAID.append((self.index, own.detach().clone()))
        full = own.new_zeros((rows, *own.shape[1:]))
        full[self.part(rows)] = own.detach()
        return full


SAID: list[tuple[int, torch.Tensor]] = []


def test_a_call_is_answered_for_own_rows_alone():
    class Twice(torch.nn.Module):
        def forward(self, state, t, condition=None):
            return 2 * state + t[:, None] + (0 if condition is None else condition)

    SAID.clear()
    module, state, t = Twice(), torch.arange(10.0).reshape(5, 2), torch.arange(5.0)
    told = torch.ones(5, 1)
    for index in range(2):
        with shared(module, Together(index, 2)) as calls:
            module(state, t, condition=told)
            module(state[:1], t[:1])  # too few to share: each process answers
        assert (calls.shared, calls.alone) == (1, 1)
    assert [len(piece) for _, piece in SAID] == [2, 3]
    whole = torch.cat([piece for _, piece in SAID])
    assert torch.equal(whole, module(state, t, told))


def test_a_launcher_is_read_off_its_variables(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched() == (0, 1)  # a scheduler's word alone starts nothing
    monkeypatch.setenv("RANK", "3")
    assert launched() == (3, 4)
    monkeypatch.setenv("RANK", "three")
    with pytest.raises(InputError, match="no numbers"):
        launched()


# --- the same weights ----------------------------------------------------------------------------


def test_two_processes_make_the_weights_of_one(tmp_path):
    seen = []
    settings = WIDE | dict(steps=200, check_every=100)
    fit(points(), out=tmp_path / "one", **settings)
    run = fit(points(), out=tmp_path / "two", devices=2, **settings,
              on_event=lambda event, _: seen.append(event.step))  # fmt: skip
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert seen == list(range(1, 201))
    assert (run.step, run.stopped, run.path) == (200, "all steps done", tmp_path / "two")
    kept = json.loads((tmp_path / "two" / "config.json").read_text())
    assert kept == json.loads((tmp_path / "one" / "config.json").read_text())
    assert "devices" not in kept


KINDS = {
    "gap": dict(objective="gap", accumulate=2),
    "told": dict(conditions="labels"),
    "symbols": dict(process="masking"),
    "transformer": dict(process="masking", network="transformer"),
    "sphere": dict(space="sphere"),
    "kernel": dict(space="sphere", network="kernel"),
    "rotations": dict(space="rotations"),
    "table": dict(),
    "damped": dict(process="damped"),
    "functions": dict(process="functions", network="fno"),
    "pictures": dict(network="convolutional", augment="flip,shift"),
    "bias": dict(follow_bias=True),
    "shard": dict(shard_optimiser=True),
    "single": dict(precision="float32", steps=200),
}
SCRIPT = f"""
import sys
import numpy as np
from reverie import fit
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_devices import KINDS, WIDE, rows_of
for name in sys.argv[2:]:
    given = dict(steps=30, check_every=15) | WIDE | KINDS[name]
    if "conditions" in given:
        given["conditions"] = np.arange(120) % 3
    fit(rows_of(name, sys.argv[1]), out=f"{{sys.argv[1]}}/{{sys.argv[2] and name}}", **given)
"""


def rows_of(name, folder):
    rng = np.random.default_rng(1)
    if name in ("symbols", "transformer"):
        return rng.integers(0, 4, size=(120, 5))
    if name in ("sphere", "kernel"):
        rows = rng.normal(size=(120, 3))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if name == "rotations":
        return np.stack([np.linalg.qr(m)[0] * np.array([1, 1, np.linalg.det(np.linalg.qr(m)[0])])
                         for m in rng.normal(size=(60, 3, 3))])  # fmt: skip
    if name == "functions":
        return rng.normal(size=(120, 16)).cumsum(1)
    if name == "pictures":
        return rng.normal(size=(60, 1, 8, 8))
    if name == "table":
        lines = [
            f"{a:.3f},{'xyz'[b]}"
            for a, b in zip(rng.normal(size=120), rng.integers(0, 3, 120), strict=True)
        ]
        path = f"{folder}/table-{os.environ.get('RANK', 0)}.csv"  # each machine has its own copy
        with open(path, "w") as file:
            file.write("\n".join(["number,word", *lines]) + "\n")
        return path
    return rng.normal(size=(120, 3))


def torchrun(count, *words, **options):
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500,
        check=False, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_every_objective_and_space_is_the_same_under_torchrun(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
    done = torchrun(2, str(tmp_path / "script.py"), str(tmp_path / "2"), *KINDS)
    assert done.returncode == 0, done.stderr[-3000:]
    subprocess.run([sys.executable, tmp_path / "script.py", tmp_path / "1", *KINDS], check=True)
    for name in KINDS:
        if name == "single":
            rows = [np.genfromtxt(tmp_path / c / name / "metrics.csv", delimiter=",", names=True)
                    for c in "12"]  # fmt: skip
            for column in ("loss", "train_nats", "holdout_nats"):
                np.testing.assert_allclose(rows[0][column], rows[1][column], rtol=0.01)
        else:
            assert_same_run(tmp_path / "1" / name, tmp_path / "2" / name)


# --- killed, and told to stop --------------------------------------------------------------------

KILLED = WIDE | dict(steps=200, check_every=50)
CHILD = f"""
import sys
import numpy as np
from reverie.runs import driving, fitting
driving.SAVE_SECONDS = 0.0
fitting.fit(np.load(sys.argv[1]), out=sys.argv[2], resume=True, devices=int(sys.argv[3]),
            on_event=lambda event, _: print(event.step, flush=True), **{KILLED!r})
"""


def start_child(tmp_path, count):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, tmp_path / "data.npy", tmp_path / "cut", str(count)],
        stdout=subprocess.PIPE, start_new_session=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(child, step):
    for line in child.stdout:
        if int(line) >= step:
            return
    raise AssertionError("the fit ended too soon")


def everybody_left(session, seconds=60):
    """Whether no process of the session is left after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    return False


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_with_other_processes(tmp_path):
    """SIGKILL of the process that started the others, which then leave by themselves."""
    np.save(tmp_path / "data.npy", points())
    fit(points(), out=tmp_path / "one", **KILLED)
    moments = np.sort(np.random.default_rng(0).integers(10, 190, 3))
    for moment, count in zip(moments, (2, 3, 1), strict=True):
        child = start_child(tmp_path, count)
        wait_for(child, int(moment))
        child.kill()
        child.wait()
        child.stdout.close()
        assert everybody_left(child.pid)
        reached = json.loads((tmp_path / "cut" / "state.json").read_text())["step"]
        assert reached >= moment - 1
    for count in (1, 2, 3):
        folder = tmp_path / f"resumed-{count}"
        subprocess.run(["cp", "-r", tmp_path / "cut", folder], check=True)
        fit(out=folder, resume=True, devices=count)
        assert_same_run(tmp_path / "one", folder)


def others_of(child):
    """Processes that a process started."""
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
        return [int(word) for word in file.read().split()]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_saves(tmp_path):
    np.save(tmp_path / "data.npy", points())
    child = start_child(tmp_path, 2)
    wait_for(child, 20)
    os.kill(others_of(child)[0], signal.SIGTERM)
    last = [int(line) for line in child.stdout][-1]
    assert child.wait(60) != 0
    child.stdout.close()
    assert everybody_left(child.pid)
    assert json.loads((tmp_path / "cut" / "state.json").read_text())["step"] == last < 200
    fit(out=tmp_path / "cut", resume=True)
    fit(points(), out=tmp_path / "one", **KILLED)
    assert_same_run(tmp_path / "one", tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc"), reason="reads the children off /proc")
def test_a_process_that_dies_is_named(tmp_path):
    def kill(event, _):
        if event.step == 20:
            with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
                for other in map(int, file.read().split()):
                    with open(f"/proc/{other}/cmdline") as words:
                        if "reverie.runs.worker" in words.read():
                            os.kill(other, signal.SIGKILL)

    start = time.monotonic()
    with pytest.raises(InputError, match=r"process 1 of this fit ended with code -9.*--resume"):
        fit(points(), out=tmp_path / "run", devices=2, on_event=kill, **KILLED)
    assert time.monotonic() - start < 120
    assert fit(out=tmp_path / "run", resume=True).step == 200


# --- bad input -----------------------------------------------------------------------------------


def test_what_cannot_be_shared_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"batch_size 10 does not divide over 4 .* multiple of 4"):
        fit(points(), out=tmp_path / "run", devices=4, batch_size=10)
    with pytest.raises(InputError, match=r"3 processes and 2 parts each: .* multiple of 6"):
        fit(points(), out=tmp_path / "run", devices=3, batch_size=10, accumulate=2)
    with pytest.raises(InputError, match="devices is 0"):
        fit(points(), out=tmp_path / "run", devices=0)
    with pytest.raises(InputError, match="torchrun --nproc-per-node 2"):
        fit(points(), out=tmp_path / "run", devices=2, network=torch.nn.Linear(3, 3))
    assert not (tmp_path / "run").exists()


def by_hand(tmp_path, *words, count=2, limit=120):
    """Start `reverie fit ...` as a launcher would; codes and what each said. @ is the index."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            "OMP_NUM_THREADS": 1}  # fmt: skip
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "reverie", "fit", *(w.replace("@", str(k)) for w in words)],
            env=os.environ | {a: str(b) for a, b in told.items()} | {"RANK": str(k)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        )
        for k in range(count)
    ]  # fmt: skip
    said = [child.communicate(timeout=limit) for child in children]
    return [child.returncode for child in children], said


@pytest.mark.slow
def test_processes_that_were_given_other_things_all_say_so(tmp_path):
    for k in range(2):
        np.save(tmp_path / f"rows-{k}.npy", points() + k)
    small = ["--out", "run", "--steps", "20", "--width", "8", "--quiet"]
    for words, sentence in [
        (["rows-@.npy", *small], "process 1 of 2 has rows other than process 0"),
        (["rows-0.npy", *small, "--seed", "@"], "process 1 of 2 has settings other than"),
        (["rows-0.npy", *small, "--batch-size", "9"], "does not divide over 2 processes"),
        (["rows-@.npy".replace("@", "@@"), *small], "rows-00.npy"),
    ]:
        codes, said = by_hand(tmp_path, *words)
        assert codes == [2, 2]
        assert sentence in said[0][1]
        assert said[0][1].count("\n") == 1
        assert "Traceback" not in said[1][1]
        assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_process_that_never_comes_is_waited_for_no_longer_than_said(tmp_path, monkeypatch):
    np.save(tmp_path / "rows.npy", points())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in dict(RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                            MASTER_PORT=port).items():  # fmt: skip
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-m", "reverie", "fit", "rows.npy", "--wait", "3", "--quiet"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "did not meet the others within 3 s" in done.stderr


@pytest.mark.slow
def test_the_command_line_starts_processes_and_speaks_once(tmp_path):
    np.save(tmp_path / "rows.npy", points())
    words = [sys.executable, "-m", "reverie", "fit", "rows.npy", "--steps", "40", "--width", "16",
             "--check-every", "20", "--precision", "float64", "--json"]  # fmt: skip
    said = []
    for count in (1, 2):
        given = [*words, "--out", f"run-{count}", "--devices", str(count)]
        done = subprocess.run(given, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
    assert said[0]["leak"] == pytest.approx(said[1]["leak"], abs=1e-5)
    assert_same_run(tmp_path / "run-1", tmp_path / "run-2")
    curves = [json.loads((tmp_path / f"run-{c}" / "curves.json").read_text()) for c in (1, 2)]
    for name, curve in curves[0].items():
        np.testing.assert_allclose(curve["rate"], curves[1][name]["rate"], rtol=1e-4, atol=1e-6)


def test_import_is_light():
    code = "import sys, reverie; print([m for m in ('accelerate', 'ray') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
