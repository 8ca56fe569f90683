import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reverie import Run, audit, fit, measure, plan_steps, sample
from reverie.data import some_rows
from reverie.errors import InputError
from reverie.objectives.noise_law import NoiseLaw
from reverie.processes import EDM, VP, Custom
from reverie.runs.config import FitConfig
from reverie.runs.readings import draw, standard_curves
from reverie.runs.trainer import CHECK_LEVELS, CHECK_ROWS, Trainer
from reverie.sampling.ends import choose_ends

SMALL = dict(width=16, depth=1, steps=40, check_every=20, batch_size=16)


def points(n=120, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * math.pi, n)
    noise = rng.normal(0, 0.1, (n, 2))
    return np.column_stack([np.cos(angle), np.sin(angle)]) * 3 + noise


def test_edm_alone_takes_its_levels_from_the_rows(tmp_path):
    """Rows on a grid of step 1/4 of a deviation or so; what is chosen is kept, and resumed."""
    rows = np.random.default_rng(0).integers(0, 12, (400, 3)).astype(float)
    run = fit(rows, process="edm", out=tmp_path / "run", steps=3, width=8, holdout=50, seed=1)
    ends = choose_ends(run.train_points())
    low, high = run.process.scales(torch.tensor([0.0, 1.0]), torch.zeros(2, 3))[1].flatten()
    assert float(low) == pytest.approx(ends.sigma_min, rel=1e-3)
    assert float(high) == pytest.approx(ends.sigma_max, rel=1e-3)
    assert run.config.bump == (ends.p_mean, ends.p_std)
    assert ends.sigma_min == pytest.approx(1 / rows.std() / math.sqrt(12), rel=0.1)
    again = Run.load(tmp_path / "run")
    assert again.config == run.config
    given = fit(rows, process="edm:sigma_max=9", steps=3, width=8, holdout=50).config
    assert (given.process, given.bump) == ("edm:sigma_max=9", (-0.5, 1.2))


def weights(path):
    return load_file(path / "ema.safetensors")


def same(first, second):
    return all(torch.equal(first[k], second[k]) for k in first)


def test_ten_lines_of_python(tmp_path):
    """The contract of the library, end to end on a ring in the plane."""
    run = fit(points(600), process="edm:sigma_min=0.02,sigma_max=20", out=tmp_path / "run",
              n=300, width=64, depth=2, steps=600, check_every=300)  # fmt: skip
    held = run.holdout_points()
    curve = measure(run.denoiser, held, generator=torch.Generator().manual_seed(0))
    plan = plan_steps(curve, steps=10)
    drawn = sample(run.denoiser, 400, plan, shape=(2,))
    verdict = audit(run.train_points(), held, drawn, denoiser=run.denoiser)
    assert verdict.finding in ("none", "leans", "exposes", "inconclusive")
    radius = torch.as_tensor(run.scaler.to_user(drawn)).norm(dim=1)
    assert abs(float(radius.median()) - 3) < 0.3
    assert curve.area() < measure(run.denoiser, 3 * held).area()


def test_a_run_speaks_in_the_units_of_the_data():
    """Whole numbers of thousands go in, and come out of every array that a run gives."""
    data = (np.random.default_rng(0).normal(size=(120, 2)) * [50, 900] + [7000, -20000]).round()
    data = data.astype(np.int32)
    run = fit(data, rows=(np.arange(80), np.arange(80, 120)), **SMALL)
    assert np.array_equal(run.train_values, data[:80])
    assert np.array_equal(run.holdout_values, data[80:])
    drawn = run.sample(30, 5)
    assert drawn.dtype == np.int32
    assert (np.abs(drawn.mean(0) - data.mean(0)) < 2 * data.std(0)).all()
    assert np.array_equal(run.scaler.to_user(run.train_points()), run.train_values)
    verdict = run.audit(30, sampling_steps=5)
    assert verdict.sizes == {"train": 80, "holdout": 40, "samples": 30}
    same = audit(run.train_values, run.holdout_values, drawn, metrics=False, power=False)
    assert same.row("share").value == verdict.row("share").value  # the same thirty samples


def test_run_directory_holds_what_the_design_says(tmp_path):
    fit(points(), out=tmp_path / "run", **SMALL)
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"config.json", "data.json", "model.safetensors", "ema.safetensors"} <= names
    assert {"state.safetensors", "state.json", "metrics.csv", "previews"} <= names
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert rows[0].startswith("step,loss,train_nats,holdout_nats,leak")
    assert len(rows) == 3
    run = Run.load(tmp_path / "run")
    assert run.step == 40
    assert set(standard_curves(run, levels=6)) >= {"train", "holdout", "memoriser on holdout"}
    assert set(Run.load(tmp_path / "run").curves) == set(run.curves)
    first, _ = draw(run, 5, 4, seed=1)
    again, _ = draw(Run.load(tmp_path / "run"), 5, 4, seed=1)
    assert np.array_equal(first, again)


def test_same_seed_same_weights_other_seed_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(points(), out=tmp_path / name, seed=seed, **SMALL)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert same(a, b)
    assert not same(a, c)


def test_ctrl_c_saves_and_resumes_bit_for_bit(tmp_path):
    def interrupt(event, trainer):
        if event.step == 23:
            raise KeyboardInterrupt

    fit(points(), out=tmp_path / "whole", **SMALL)
    with pytest.raises(KeyboardInterrupt):
        fit(points(), out=tmp_path / "cut", on_event=interrupt, **SMALL)
    run = fit(out=tmp_path / "cut", resume=True)
    assert run.step == 40
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    metrics = [(tmp_path / n / "metrics.csv").read_text() for n in ("whole", "cut")]
    assert metrics[0] == metrics[1]


KILLED = dict(width=16, depth=1, check_every=50, batch_size=16, stop_on_leak=True, patience=100)
CHILD = f"""
import sys
import numpy as np
from reverie.runs import driving, fitting
driving.SAVE_SECONDS = 0.0
data = np.load(sys.argv[1])
fitting.fit(data, width=4, depth=1, steps=1)  # loads all there is to load
print("ready", flush=True)
fitting.fit(data, out=sys.argv[2], resume=True, steps=int(sys.argv[3]), **{KILLED!r})
"""


@pytest.mark.parametrize(
    ("kills", "steps"),
    [
        (2, 40),
        pytest.param(3, 60, marks=pytest.mark.slow),
        pytest.param(10, 300, marks=pytest.mark.slow),
    ],
)
def test_kill_at_random_moments_ends_with_identical_weights(tmp_path, monkeypatch, kills, steps):
    """SIGKILL at random moments of a fit that saves after every step, then let it finish."""
    np.save(tmp_path / "data.npy", points())
    monkeypatch.setattr("reverie.runs.driving.SAVE_SECONDS", 0.0)
    start = time.monotonic()
    fit(points(), out=tmp_path / "whole", steps=steps, **KILLED)
    whole = time.monotonic() - start
    rng, cut, reached = np.random.default_rng(0), tmp_path / "cut", []
    command = [sys.executable, "-c", CHILD, tmp_path / "data.npy", cut, str(steps)]
    for _ in range(kills):
        child = subprocess.Popen(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.2, 1.6) / kills * whole)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if (cut / "state.json").exists():
            reached.append(json.loads((cut / "state.json").read_text())["step"])
    fit(points(), out=cut, resume=True, steps=steps, **KILLED)
    assert len(set(reached)) >= {2: 1, 3: 2, 10: 3}[kills], reached  # at different steps
    assert same(weights(tmp_path / "whole"), weights(cut))
    metrics = [(tmp_path / n / "metrics.csv").read_text() for n in ("whole", "cut")]
    assert metrics[0] == metrics[1]


def test_resume_of_finished_and_empty_runs(tmp_path):
    with pytest.raises(InputError, match="needs data"):
        fit(out=tmp_path / "none", resume=True)
    fit(points(), out=tmp_path / "run", resume=True, **SMALL)  # an empty run starts at 0
    before = weights(tmp_path / "run")
    fit(out=tmp_path / "run", resume=True)
    assert same(before, weights(tmp_path / "run"))
    with pytest.raises(InputError, match="already holds a run"):
        fit(points(), out=tmp_path / "run", **SMALL)


@pytest.mark.parametrize("name", ["state.safetensors", "ema.safetensors", "data.json"])
def test_corrupted_files_are_named(tmp_path, name):
    fit(points(), out=tmp_path / "run", **SMALL)
    path = tmp_path / "run" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    reopen = Run.load
    if name == "state.safetensors":
        reopen = lambda run: fit(out=run, resume=True)  # noqa: E731
    for content in (raw, raw[: len(raw) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=name):
            reopen(tmp_path / "run")


def test_changed_data_are_noticed(tmp_path):
    np.save(tmp_path / "d.npy", points())
    fit(str(tmp_path / "d.npy"), out=tmp_path / "run", **SMALL)
    np.save(tmp_path / "d.npy", points(seed=5))
    with pytest.raises(InputError, match="has changed"):
        Run.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("data", "settings", "words"),
    [
        (np.zeros((1, 2)), {}, "1 row"),
        (np.ones((50, 2)), {}, "constant"),
        (np.full((50, 2), np.nan), {}, "not a finite"),
        (points(), dict(process="nope"), "choose one of"),
        (points(), dict(process="edm:rho=x"), "key=number"),
        (points(), dict(process="vp:rho=3"), "no setting rho"),
        (points(), dict(network="perceptron"), "choose one of"),
        (points(), dict(network="transformer"), "is not for vectors and images"),
        (points(), dict(steps=0), "steps is 0"),
        (points(), dict(holdout=0.3), "holdout is 0.3; it must be a number of rows"),
        (points(), dict(batch_size=32.0), "batch_size is 32.0; it must be a whole number"),
        (points(), dict(lr="fast"), "lr is 'fast'; it must be a number"),
        (points(), dict(lr=-1.0), "lr"),
        (points(), dict(augment="rotate"), "augment"),
        (points(), dict(augment="flip"), "images"),
        (points(), dict(batch_size=10, accumulate=3), "multiple"),
        (points(), dict(device="cuda:9"), "not available"),
        (points(), dict(init="nowhere"), "not a finished run"),
        (points(), dict(learning=3), "no setting learning"),
        (points(), dict(network="unet"), "images|extra"),
    ],
)
def test_bad_fits_say_why_and_write_nothing(tmp_path, data, settings, words):
    with pytest.raises(InputError, match=words):
        fit(data, out=tmp_path / "run", **(SMALL | settings))
    assert not (tmp_path / "run").exists()


def test_settings_may_be_numbers_of_numpy(tmp_path):
    numbers = {k: np.int64(v) for k, v in SMALL.items()}
    run = fit(points(), out=tmp_path / "run", lr=np.float32(0.25), **numbers)
    assert Run.load(tmp_path / "run").config.lr == 0.25
    assert run.step == SMALL["steps"]


def test_custom_processes_fit_and_are_named_by_their_class():
    process = Custom(lambda t: 1 - t, lambda t: t)
    run = fit(points(), process=process, **SMALL)
    assert run.config.process == "own reverie.processes.schedules:Custom"
    assert run.process is process


def test_an_own_module_trains_and_reloads(tmp_path):
    class Body(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(3, 2)

        def forward(self, x, level):
            return self.net(torch.cat([x, level[:, None]], 1))

    fit(points(), network=Body(), out=tmp_path / "run", process=VP(), **SMALL)
    with pytest.raises(InputError, match="module of your own"):
        Run.load(tmp_path / "run")
    assert Run.load(tmp_path / "run", body=Body()).step == 40


def test_fine_tuning_starts_from_the_other_run(tmp_path):
    fit(points(), out=tmp_path / "a", **SMALL)
    still = SMALL | dict(steps=1, lr=1e-12, ema=0.0)
    fit(points(), out=tmp_path / "b", init=str(tmp_path / "a"), **still)
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in a)
    other = SMALL | dict(width=24)
    with pytest.raises(InputError, match="another network"):
        fit(points(), out=tmp_path / "c", init=str(tmp_path / "a"), **other)


def test_stop_on_leak_keeps_the_best_average():
    rng = np.random.default_rng(0)
    run = fit(rng.normal(size=(160, 8)), n=20, width=128, depth=2, steps=3000, check_every=50,
              batch_size=20, stop_on_leak=True, patience=2, lr=3e-3)  # fmt: skip
    assert run.step < 3000
    assert "best at step" in run.stopped


def test_a_leak_budget_keeps_the_best_average_within_it():
    """On digits the held-out curve still improves where the leak passes 1 nat: the check before
    that one is kept. The curve is measured anew with the noise of the checks (float32)."""
    checks = []

    def keep(event, _):
        checks.extend([event.row] if event.row else [])

    run = fit("digits", n=300, holdout=300, width=64, depth=1, steps=1000, check_every=50,
              stop_on_leak=True, patience=99, leak_budget=1.0, lr=3e-3, ema=0.95,
              on_event=keep)  # fmt: skip
    assert run.stopped == "leak above 1 nats"
    within = [row["holdout_nats"] for row in checks if row["leak_low"] <= 1]
    assert checks[-1]["holdout_nats"] < min(within)
    held = some_rows(run.holdout_points(), CHECK_ROWS, 0)
    noise = torch.Generator().manual_seed(1)
    curve = measure(run.denoiser, held, CHECK_LEVELS, generator=noise)
    assert curve.area() == pytest.approx(min(within), rel=1e-4)


@pytest.mark.slow
def test_accumulation_gives_the_same_gradient_in_expectation():
    """Halved batches: both fits learn the same map; their held-out curves agree to 5%."""
    areas = []
    for accumulate in (1, 4):
        run = fit(points(400), n=200, width=32, depth=1, steps=400, check_every=400,
                  batch_size=64, accumulate=accumulate)  # fmt: skip
        curve = measure(run.denoiser, run.holdout_points(), 16,
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
        areas.append(curve.area())
    assert abs(areas[0] / areas[1] - 1) < 0.05


def test_augmentation_moves_images_only_by_symmetries(generator):
    from reverie.denoisers import Network, ResidualMLP

    body = ResidualMLP((1, 4, 4), 8, 1)
    config = FitConfig(augment="flip,shift")
    trainer = Trainer(Network(EDM(), body), torch.randn(5, 1, 4, 4), None, config)
    x = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(64, 1, 1, 1)
    moved = trainer._augment(x)
    assert moved.shape == x.shape
    assert set(moved.unique().tolist()) <= set(x.unique().tolist())


def test_noise_law_is_unbiased_and_learns(generator):
    """Weights bring the drawn levels back to the target: E[w f(t)] is unchanged (1% at 1e5)."""
    law = NoiseLaw(EDM(0.02, 40))
    level = lambda t: torch.as_tensor(EDM(0.02, 40).clock(t)).log()  # noqa: E731
    t, weight, _ = law.draw(100_000, generator)
    plain = (weight * level(t)).mean()
    law.square[:8] = 400.0
    t, weight, bins = law.draw(100_000, generator)
    assert abs((weight * level(t)).mean() - plain) < 0.01 * plain.abs() + 0.02
    assert (bins < 8).double().mean() > 0.05
    assert abs(weight.mean() - 1) < 1e-2
    law.learn(torch.tensor([3, 3]), torch.tensor([2.0, 4.0]))
    assert float(law.square[3]) == pytest.approx(0.99 * 400 + 0.01 * 10)


def test_a_lost_loss_says_so():
    with pytest.raises(InputError, match="not finite"):
        fit(points(), **(SMALL | dict(lr=1e30, clip=1e30, warmup=0, steps=200)))
