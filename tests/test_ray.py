"""Ray, on a cluster of two nodes of one core: the same table, also when a node dies on the way."""

import json
import threading
import time

import numpy as np
import pytest
import torch

from reverie.auditing import nearest, nearest_many
from reverie.denoisers import Memoriser
from reverie.errors import InputError
from reverie.processes import VP
from reverie.runs.config import FitConfig
from reverie.runs.sweeps import sweep
from reverie.sampling import sample_many
from reverie.workers import Workers

pytest.importorskip("ray", reason="Ray is an extra")
pytestmark = pytest.mark.slow  # seconds of start-up for every worker

CONFIG = FitConfig(width=8, depth=1, steps=60, check_every=30, batch_size=16, holdout=60)
OVER = {"n": [10, 20, 30, 40], "seed": [0, 1]}
RAY = Workers(on="ray")
FILES = ("sweep.csv", "sweep.json")


def rows():
    return np.random.default_rng(0).normal(size=(160, 2)).round(2)


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    sweep(rows(), folder, OVER, config=CONFIG, samples=20, workers=Workers(threads=1))
    return folder


@pytest.fixture(scope="module")
def nodes():
    """A head and another machine, a core each, at RAY_ADDRESS."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, other
    patch.undo()
    ray.shutdown()
    cluster.shutdown()


def swept(folder, **more):
    return sweep(rows(), folder, OVER, config=CONFIG, samples=20, workers=RAY, **more)


def test_a_sweep_of_eight_fits_is_that_of_one_process(nodes, serial, tmp_path):
    told = []
    table = swept(tmp_path, progress=lambda *word: told.append(word))
    assert len(table.rows) == 8
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (serial / name).read_bytes()
    assert told[-1] == (480, 480)
    assert json.loads((tmp_path / "sweep.json").read_text())["threads"] == 1
    assert not list(tmp_path.glob(".shared-*"))


def test_samples_and_neighbours_are_those_of_one_process(nodes):
    denoiser = Memoriser(VP(shape=(2,)), torch.from_numpy(rows()).float())
    times = torch.linspace(1, 0.01, 9)
    ours = [sample_many(denoiser, 30, times, block=10, workers=w, seed=1)
            for w in (Workers(), Workers(on="ray", threads=1))]  # fmt: skip
    assert torch.equal(*ours)
    points = np.random.default_rng(1).normal(size=(3000, 4))
    for one, two in zip(
        nearest(points, points, 2, skip_self=True),
        nearest_many(points, points, 2, skip_self=True, workers=RAY), strict=True,
    ):  # fmt: skip
        assert np.array_equal(one, two)
    with pytest.raises(InputError, match=r"no machine of the Ray cluster has 64 CPU"):
        sample_many(denoiser, 3, times, workers=Workers(on="ray", threads=64))


def test_a_machine_that_dies_loses_nothing(nodes, serial, tmp_path):
    """Killed while a fit is under way there; Ray repeats it, and it goes on from its folder."""
    cluster, other = nodes
    begun = lambda: len(list(tmp_path.glob("fits/*/state.safetensors")))  # noqa: E731

    def kill():
        while begun() < 3:  # one is done at least, and both machines are at work
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    swept(tmp_path)
    thread.join(30)
    assert not thread.is_alive()
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (serial / name).read_bytes()
