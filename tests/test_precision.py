"""How a step is worked out: half and double precision, compiled, channels last, and tracked."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reverie import Run, fit
from reverie.denoisers import Network
from reverie.errors import InputError
from reverie.runs.config import FitConfig
from reverie.runs.lowering import half_of
from reverie.runs.tracking import EVERY, trackers_of

SMALL = dict(width=16, depth=1, batch_size=16, steps=40, check_every=20)


def points(n=200):
    return np.random.default_rng(0).normal(size=(n, 3)) * [1.0, 2.0, 0.5]


def pictures(n=40):
    return np.random.default_rng(0).normal(size=(n, 1, 8, 8))


# --- precision -----------------------------------------------------------------------------------


def kinds_asked(monkeypatch, **settings):
    """The types that products were made in, in training and while a curve was measured."""
    seen = {True: set(), False: set()}
    forward = Network.forward

    def watch(self, state, t, condition=None):
        product = torch.nn.functional.linear(state.flatten(1), state.flatten(1)[:1])
        seen[torch.is_grad_enabled()].add(product.dtype)
        return forward(self, state, t, condition)

    monkeypatch.setattr(Network, "forward", watch)
    run = fit(points(), **SMALL, **settings)
    return seen[True], seen[False], run


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("bf16", torch.bfloat16), ("fp16", torch.float16), ("float32", torch.float32),
     ("auto", torch.float32), ("float64", torch.float64)],
)  # fmt: skip
def test_steps_are_rounded_and_curves_are_not(monkeypatch, precision, kind):
    training, measuring, run = kinds_asked(monkeypatch, precision=precision)
    assert training == {kind}
    assert measuring == {torch.promote_types(kind, torch.float32)}
    assert {p.dtype for p in run.denoiser.parameters()} == {torch.float32}
    assert np.isfinite([list(row.values()) for row in run.checks]).all()


@pytest.mark.slow
def test_half_precision_trains_to_the_same_loss():
    """bf16 keeps 8 bits: a loss of about 1 is known to a percent or so after averaging."""
    losses = [
        fit(points(), **SMALL | dict(steps=300, check_every=300), precision=precision)
        .checks[-1]["loss"]
        for precision in ("float32", "bf16", "fp16")
    ]  # fmt: skip
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=0.03)


def test_auto_is_bf16_on_cuda_alone():
    assert half_of(FitConfig(device="cuda")) == half_of(FitConfig(device="cuda:1"))
    assert half_of(FitConfig(device="cuda")) is torch.bfloat16
    assert half_of(FitConfig(device="cuda", precision="float32")) is None
    assert half_of(FitConfig(device="mps")) is None


def test_double_precision_is_kept_in_the_state_and_used_in_single(tmp_path):
    run = fit(points(), out=tmp_path / "run", precision="float64", **SMALL)
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert {v.dtype for k, v in state.items() if k.startswith("average")} == {torch.float64}
    loaded = Run.load(tmp_path / "run")
    for a, b in zip(run.denoiser.parameters(), loaded.denoiser.parameters(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_a_fit_in_fp16_resumes_with_its_scale_to_the_same_weights(tmp_path):
    def interrupt(event, _):
        if event.step == 25:
            raise KeyboardInterrupt

    given = SMALL | dict(precision="fp16")
    fit(points(), out=tmp_path / "whole", **given)
    with pytest.raises(KeyboardInterrupt):
        fit(points(), out=tmp_path / "cut", on_event=interrupt, **given)
    fit(out=tmp_path / "cut", resume=True)
    states = [load_file(tmp_path / name / "state.safetensors") for name in ("whole", "cut")]
    assert "scaler.scale" in states[0]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.parametrize("setting", [dict(precision="half"), dict(channels_last=True)])
def test_what_makes_no_sense_is_said(setting):
    with pytest.raises(InputError, match=r"choose one of auto|for pictures and volumes"):
        fit(points(), **SMALL, **setting)


# --- layout and compilation ----------------------------------------------------------------------


@pytest.mark.slow
def test_channels_last_changes_no_more_than_the_last_bits():
    given = SMALL | dict(network="convolutional", precision="float64")
    plain = fit(pictures(), **given)
    last = fit(pictures(), channels_last=True, **given)
    for a, b in zip(plain.checks, last.checks, strict=True):
        assert a == pytest.approx(b, rel=1e-8)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_steps_make_the_same_weights():
    """Fused sums round in another order: float64 differs in the last bits alone."""
    given = SMALL | dict(precision="float64", steps=20)
    plain = fit(points(), **given)
    try:
        compiled = fit(points(), compile=True, **given)
    except InputError as error:
        pytest.skip(str(error))
    for a, b in zip(plain.checks, compiled.checks, strict=True):
        assert a == pytest.approx(b, rel=1e-8)


def test_what_cannot_be_compiled_is_said(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no compiler\nand more lines")

    monkeypatch.setattr(torch, "compile", lambda forward: broken)
    with pytest.raises(InputError, match=r"cannot compile this fit here \(no compiler\): leave"):
        fit(points(), compile=True, **SMALL)


# --- trackers ------------------------------------------------------------------------------------


def fake_tracker():
    pytest.importorskip("accelerate", reason="trackers are accelerate's")
    from accelerate.tracking import GeneralTracker

    class Fake(GeneralTracker):
        name, requires_logging_directory = "fake", False

        def __init__(self, project="none"):
            super().__init__()
            self.project, self.config, self.told, self.closed = project, {}, [], False

        @property
        def tracker(self):
            return self.told

        def store_init_configuration(self, values):
            self.config = values

        def log(self, values, step=None, **_):
            self.told.append((step, values))

        def finish(self):
            self.closed = True

    return Fake


def test_a_tracker_is_told_losses_and_checks():
    tracker, steps = fake_tracker()(), []
    run = fit(points(), track=tracker, on_event=lambda event, _: steps.append(event.step), **SMALL)
    assert steps == list(range(1, 41))
    assert [step for step, _ in tracker.told] == [EVERY, 2 * EVERY]
    for (_, told), row in zip(tracker.told, run.checks, strict=True):
        assert told == {k: v for k, v in row.items() if k != "step"}
    assert tracker.closed
    assert tracker.config["width"] == 16
    assert None not in tracker.config.values()


def test_a_tracker_is_known_by_its_name(monkeypatch):
    kind = fake_tracker()
    from accelerate import tracking

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "fake", kind)
    assert trackers_of("fake") == [kind]
    assert fit(points(), track="fake", **SMALL).step == 40


def test_a_tracker_that_is_absent_is_named(monkeypatch, tmp_path):
    pytest.importorskip("accelerate", reason="trackers are accelerate's")
    from accelerate import tracking

    with pytest.raises(
        InputError, match="no tracker is called 'paper': choose tensorboard, wandb"
    ):
        fit(points(), track="paper", out=tmp_path / "run", **SMALL)
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(InputError, match="pip install wandb"):
        fit(points(), track="wandb", out=tmp_path / "run", **SMALL)
    monkeypatch.setitem(sys.modules, "accelerate.tracking", None)
    with pytest.raises(InputError, match=r"pip install 'reverie\[cluster\]'"):
        fit(points(), track="tensorboard", out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()
    assert trackers_of(None) == []
