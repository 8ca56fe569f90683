"""Ranking checkpoints: curves of known laws, every way that weights are stored in, the page."""

import json
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from reverie.cli import main
from reverie.curve import measure
from reverie.denoisers import Memoriser, as_denoiser
from reverie.errors import InputError
from reverie.processes import EDM
from reverie.runs.ranking import checkpoint_files, rank

LOW, HIGH = 0.1, 10.0
BUILDER = """
import torch
from torch import nn

class Net(nn.Module):
    '''The best guess of N(0, I) times a factor, or the mean of its own rows by their weights.'''

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.share = nn.Parameter(torch.zeros(()))
        self.register_buffer("rows", torch.zeros(60, 2))

    def forward(self, x, sigma):
        s2 = sigma[:, None] ** 2
        near = (-torch.cdist(x, self.rows) ** 2 / (2 * s2)).softmax(1) @ self.rows
        return self.factor * ((1 - self.share) * x / (1 + s2) + self.share * near)
"""


def normal(n, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def build(tmp_path, monkeypatch):
    (tmp_path / "their_net.py").write_text(BUILDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("their_net", None)
    import their_net  # pyright: ignore

    return their_net.Net


def weights(build, factor=1.0, share=0.0, rows=None):
    net = build()
    net.factor.data.fill_(factor)
    net.share.data.fill_(share)
    net.rows.copy_(torch.zeros(60, 2) if rows is None else rows)
    return net.state_dict()


def as_model(module):
    return as_denoiser(module, EDM(LOW, HIGH), time="sigma")


def test_areas_leaks_and_the_choice_are_those_of_the_laws(build, tmp_path):
    train, held = normal(60), normal(400, 1)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    save_file(weights(build, 1.3), folder / "step2.safetensors")
    torch.save({"state_dict": weights(build), "epoch": 3}, folder / "step10.ckpt")
    copying = {f"module.{k}": v for k, v in weights(build, share=1.0, rows=train).items()}
    torch.save({"ema": copying}, folder / "step30.pt")
    ranking = rank(folder, build, as_model, train, held)
    names = [one.name for one in ranking.checkpoints]
    assert names == ["step2.safetensors", "step10.ckpt:state_dict", "step30.pt:ema"]
    assert ranking.keep is ranking.best is ranking.checkpoints[1]
    wrong, exact, copy = ranking.checkpoints
    # E|x - 1.3 xhat|^2 - E|x - xhat|^2 = .09 E|xhat|^2, and E|xhat|^2 = d u / (1 + u)
    u = np.geomspace(HIGH**-2, LOW**-2, 20001)
    extra = np.trapezoid(0.5 * 0.09 * 2 * u / (1 + u), u)
    assert wrong.behind.nats == pytest.approx(extra, abs=3 * wrong.behind.stderr + 0.02 * extra)
    assert wrong.behind.low > 0
    assert not wrong.tied
    assert abs(exact.leak.nats) < 3 * exact.leak.stderr
    assert not exact.leaks
    memoriser = Memoriser(EDM(LOW, HIGH), train)
    alone = [
        measure(memoriser, rows, 32, generator=torch.Generator().manual_seed(0))
        for rows in (train, held)
    ]
    assert copy.leak.nats == pytest.approx(alone[0].leak(alone[1]).nats, rel=1e-3)
    assert copy.leaks
    assert ranking.sentences()[1] == "surely leak more than 0 nats: step30.pt:ema"


def test_among_ties_the_one_that_leaks_least_is_kept(build, tmp_path):
    train, held = normal(60), normal(50, 1)
    save_file(weights(build), tmp_path / "a.safetensors")
    save_file(weights(build, share=0.05, rows=train), tmp_path / "b.safetensors")
    ranking = rank(tmp_path, build, as_model, train, held, leak_budget=1000.0)
    tied = [one for one in ranking.checkpoints if one.tied]
    assert ranking.keep.leak.nats == min(one.leak.nats for one in tied)
    assert ranking.sentences()[1] == "none would surely leak more than 1000 nats"


class Opens:
    """A pickle that would run code."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_what_does_not_fit_is_left_out_with_its_reason(build, tmp_path):
    (tmp_path / "deep" / "unet").mkdir(parents=True)
    save_file(weights(build), tmp_path / "deep" / "unet" / "good.safetensors")
    (tmp_path / "bad.pt").write_bytes(pickle.dumps(Opens()))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_file(weights(build) | {"rows": torch.zeros(7, 2)}, tmp_path / "shape.safetensors")
    save_file(weights(build, math.nan), tmp_path / "nan.safetensors")
    ranking = rank(tmp_path, build, as_model, normal(60), normal(20, 1))
    assert [one.name for one in ranking.checkpoints] == ["deep/unet/good.safetensors"]
    why = ranking.skipped
    assert "nothing is unpickled" in why["bad.pt"]
    assert "cannot be read" in why["cut.safetensors"]
    assert "lacks factor, rows, share" in why["other.safetensors"]
    assert "size mismatch" in why["shape.safetensors"]
    assert "not finite" in why["nan.safetensors"]


def test_bad_input_is_one_sentence(build, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        checkpoint_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        checkpoint_files(tmp_path / "empty")
    save_file({"other": torch.zeros(3)}, tmp_path / "empty" / "a.safetensors")
    with pytest.raises(InputError, match=r"could be measured; a\.safetensors: its weights"):
        rank(tmp_path / "empty", build, as_model, normal(9))
    with pytest.raises(InputError, match="must return a module"):
        rank(tmp_path / "empty", lambda: 3, as_model, normal(9))


def test_the_command(build, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    train = normal(60)
    for name, values in (("1", weights(build)), ("2", weights(build, share=1.0, rows=train))):
        save_file(values, folder / f"{name}.safetensors")
    np.save(tmp_path / "train.npy", train.numpy())
    np.save(tmp_path / "fresh.npy", normal(100, 1).numpy())
    command = ["rank", str(folder), "--model", "their_net:Net", "--data", "train.npy",
               "--process", f"edm:sigma_min={LOW},sigma_max={HIGH}", "--time", "sigma",
               "--out", str(tmp_path / "out"), "--quiet"]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main([*command, "--holdout", "fresh.npy"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "keep 1.safetensors" in out
    page = (tmp_path / "out" / "rank.html").read_text()
    assert page.count("<svg") == 2
    kept = json.loads((tmp_path / "out" / "rank.json").read_text())
    assert [one["leaks"] for one in kept["checkpoints"]] == [False, True]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert "no leak is known" in capsys.readouterr().out
    for changed, words in (("their_net:None_", "has no function"), ("nowhere:f", "No module")):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--model", changed])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_a_file_never_names_the_module(build, tmp_path):
    """A checkpoint that holds a whole module is refused, though its class could be imported."""
    torch.save(build(), tmp_path / "whole.pt")
    with pytest.raises(InputError, match="nothing is unpickled"):
        rank(tmp_path, build, as_model, normal(9))
    assert isinstance(build(), nn.Module)
