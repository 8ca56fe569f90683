"""Any process fits: those of `own_processes` and shipped ones without a name, on every verb."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from own_processes import Potts, Whirl, Windy
from reverie import InputError, Run, fit, sample
from reverie.cli import main
from reverie.denoisers import network_for
from reverie.denoisers.networks.plain import PlainNetwork
from reverie.processes import (
    EDM,
    Custom,
    GaussianProcess,
    LogRatios,
    Process,
    WrightFisher,
    register,
)
from reverie.processes.registry import ENTRIES, process_typed
from reverie.runs.readings import audit_run, sampling_plan, standard_curves

RNG = np.random.default_rng(0)
SMALL = dict(steps=6, check_every=3, width=16, depth=1, holdout=40, batch_size=32)


class Slow(GaussianProcess):
    """A subclass of GaussianProcess that nobody registered."""

    def __init__(self):
        super().__init__((0.01, 0.99))

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t.sqrt()


def shares(n):
    return RNG.dirichlet([2.0, 3.0, 4.0], n)


CASES = {
    "whirl": (lambda: Whirl(), RNG.normal(size=(100, 2))),
    "potts": (lambda: Potts(), RNG.integers(0, 5, (100, 4))),
    "windy": (lambda: Windy(), RNG.normal(size=(100, 1)) % 6),
    "custom": (lambda: Custom(torch.cos, torch.sin), RNG.normal(size=(100, 2))),
    "gaussian": (lambda: Slow(), RNG.normal(size=(100, 2))),
    "wright-fisher": (lambda: WrightFisher([2.0, 2.0, 2.0], 0.05), shares(100)),
    "log-ratios": (lambda: LogRatios(3), shares(100)),
}


COSTLY = ("potts", "wright-fisher")


@pytest.mark.parametrize(
    "name", [pytest.param(c, marks=pytest.mark.slow) if c in COSTLY else c for c in CASES]
)
def test_every_verb_works_on_a_process_of_ones_own(name: str, tmp_path: Path) -> None:
    make, data = CASES[name]
    few = name == "wright-fisher"  # its kernel is a series
    small = SMALL | (dict(steps=2, check_every=2, holdout=20, batch_size=8) if few else {})
    data = data[:40] if few else data
    run = fit(data, process=make(), out=tmp_path / "run", **small)
    again = Run.load(tmp_path / "run", process=make())
    x = run.holdout_points()[:4]
    t = torch.full((4,), 0.5)
    state = run.process.corrupt(x, t, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run.denoiser(state, t), again.denoiser(state, t))
    standard_curves(again, levels=4 if few else 8)
    assert np.isfinite(again.curves["holdout"].area())
    plan = sampling_plan(again, 4)
    points = sample(again.denoiser, 5, plan, shape=run.scaler.point_shape)
    again.process.space.check(points)
    count = 30 if few else 60
    verdict, drawn = audit_run(again, count, sampling_steps=3)
    assert drawn.shape == (count, *data.shape[1:])
    assert verdict.finding


def test_a_killed_fit_of_ones_own_resumes_to_the_same_weights(tmp_path: Path) -> None:
    data = RNG.normal(size=(100, 2))
    whole = fit(data, process=Whirl(), out=tmp_path / "whole", **SMALL)

    def stop(event, trainer):
        if event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, process=Whirl(), out=tmp_path / "cut", on_event=stop, **SMALL)
    with pytest.raises(InputError, match="a process of your own, own_processes:Whirl"):
        fit(out=tmp_path / "cut", resume=True)
    cut = fit(out=tmp_path / "cut", resume=True, process=Whirl())
    for a, b in zip(whole.denoiser.parameters(), cut.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_needs_the_process_it_was_fitted_with(tmp_path: Path) -> None:
    fit(RNG.normal(size=(100, 2)), process=Whirl(), out=tmp_path / "run", **SMALL)
    with pytest.raises(InputError, match=r"own_processes:Whirl: name it, --process"):
        Run.load(tmp_path / "run")
    with pytest.raises(InputError, match="fitted with the process own_processes:Whirl, not with"):
        Run.load(tmp_path / "run", process=EDM())


def test_a_run_folder_never_imports_what_it_names(tmp_path: Path, monkeypatch, capsys) -> None:
    """The module that a run's config names leaves a mark when it is imported."""
    (tmp_path / "marked.py").write_text(
        "from own_processes import Whirl\nopen('imported', 'a').close()\n"
    )
    np.save(tmp_path / "data.npy", RNG.normal(size=(100, 2)).astype(np.float32))
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()]
    monkeypatch.chdir(tmp_path)

    def reverie(*words, code=0):
        sys.modules.pop("marked", None)
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        said = "".join(capsys.readouterr())
        assert left.value.code == code, said
        return said

    typed = "marked:Whirl[speed=1.5]"
    reverie("fit", "data.npy", "--process", typed, "--out", "run", *flags)
    assert (tmp_path / "imported").exists()
    (tmp_path / "imported").unlink()
    said = reverie("sample", "run", "--n", 5, code=2)
    assert "marked:Whirl[speed=1.5]" in said
    assert "--process" in said
    reverie("plan", "run", code=2)
    reverie("audit", "run", code=2)
    reverie("fit", "--out", "run", "--resume", code=2)
    assert not (tmp_path / "imported").exists()
    reverie("sample", "run", "--n", 5, "--steps", 3, "--process", typed, "--out", "new.npy")
    reverie("plan", "run", "--steps", 3, "--process", typed)
    reverie("audit", "run", "--n", 60, "--steps", 3, "--process", typed)
    assert np.load(tmp_path / "new.npy").shape == (5, 2)


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("nowhere_at_all:Whirl", "no module can be imported by that name"),
        ("own_processes:Whorl", "own_processes has no class 'Whorl'"),
        ("own_processes:Whirl[sped=1]", r"got an unexpected keyword argument 'sped'"),
        ("math:sqrt", "sqrt is no Process"),
    ],
)
def test_what_is_typed_wrong_gets_a_sentence(typed: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        process_typed(typed)


def test_registered_names_win_and_settings_are_read() -> None:
    assert process_typed("edm:sigma_min") is None
    assert process_typed("vp") is None
    typed = process_typed("own_processes:Windy[c=1,lo=1e-2]")
    assert isinstance(typed, Windy)
    assert (typed.c, typed.lo) == (1, 0.01)


def test_a_registered_process_needs_no_object(tmp_path: Path) -> None:
    register("windy", space=type(Windy().space))(Windy)
    try:
        data = RNG.normal(size=(100, 1)) % 6
        fit(data, process="windy:c=2", space="Torus(1)", out=tmp_path / "run", **SMALL)
        assert Run.load(tmp_path / "run").process.c == 2
        with pytest.raises(InputError, match="windy has no setting d, only c, lo, hi"):
            fit(data, process="windy:d=2", space="Torus(1)", **SMALL)
        with pytest.raises(InputError, match="is that of Windy"):
            register("windy")(Potts)
    finally:
        ENTRIES.pop("windy")


def test_what_is_missing_is_said_where_the_class_is_written() -> None:
    with pytest.raises(TypeError, match=r"Half lacks clock, corrupt, rate, reverse, .*target"):

        class Half(Process):
            pass

    class Base(Process, abstract=True):
        pass

    assert issubclass(Base, Process)


def test_the_default_network_needs_points_and_no_condition() -> None:
    with pytest.raises(InputError, match="reads its units off training points"):
        network_for(Whirl(), (2,))
    network = network_for(Whirl(), (2,), train=torch.randn(50, 2))
    assert isinstance(network, PlainNetwork)
    with pytest.raises(InputError, match="takes no condition"):
        network(torch.zeros(2, 2), torch.ones(2), torch.zeros(2))
