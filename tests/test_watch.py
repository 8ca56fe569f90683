"""Following anybody's loop: it is left as it was, and what is read is what `measure` reads."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import reverie
from reverie.curve import measure
from reverie.data.rows import some_rows
from reverie.denoisers import Denoiser, Memoriser, as_denoiser
from reverie.errors import InputError
from reverie.processes import EDM, Brownian, Masking, Uniform
from reverie.report.watching import write_watch
from reverie.runs.untouched import untouched
from reverie.runs.watch import SHARE, Settings, Watch
from reverie.spaces import Sphere, Torus

QUICK = dict(levels=6, rows=40, samples=16, sampler_steps=4)


def normal(n, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


class Restless(nn.Module):
    """Dropout, running means, a counter in a buffer, and noise of its own from every generator."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(3, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, 2)
        )
        self.body[3].eval()  # a part that is frozen stays so
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, sigma):
        self.calls += 1
        noise = 1e-3 * (torch.rand(()) + np.random.rand())  # noqa: NPY002
        return self.body(torch.cat([x + noise, sigma[:, None].log()], 1))


def loop(steps, watched=None):
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    module, rows = Restless(), normal(80)
    watch = watched(module) if watched else None
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    for step in range(steps):
        x, e = rows[torch.randint(80, (32,))], torch.randn(32, 2)
        sigma = torch.randn(32).exp()
        (module(x + sigma[:, None] * e, sigma) - e).square().mean().backward()
        if watch is not None:
            watch.step(step)  # between backward and step: gradients are live
        optimiser.step()
        optimiser.zero_grad()
    return module, watch


def test_a_loop_with_it_ends_with_the_same_weights_bit_for_bit(tmp_path):
    plain, _ = loop(12)
    followed, watch = loop(
        12,
        lambda m: reverie.watch(
            m, normal(80), normal(60, seed=1), process=EDM(0.05, 20), predicts="noise",
            time="sigma", every=4, out=tmp_path, **QUICK,
        ),
    )  # fmt: skip
    assert [r.step for r in watch.readings] == [4, 8]
    for (name, first), second in zip(
        plain.state_dict().items(), followed.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), name
    assert [m.training for m in plain.modules()] == [m.training for m in followed.modules()]
    assert torch.equal(torch.rand(3), torch.rand(3)) is False  # the generators still run
    kept = json.loads((tmp_path / "watch.json").read_text())
    assert [row["step"] for row in kept["readings"]] == [4, 8]
    page = (tmp_path / "watch.html").read_text()
    assert page.count("<svg") == 2
    assert "followed to step 8" in page


def test_the_curve_is_that_of_measure():
    process, train, held = EDM(0.05, 20), normal(90), normal(70, seed=1)
    model = Memoriser(process, normal(30, seed=2))
    watch = reverie.watch(model, train, held, **QUICK)
    watch.check(1)
    for name, rows in (("train", train), ("holdout", held)):
        generator = torch.Generator().manual_seed(2)
        alone = measure(model, some_rows(rows, 40, 0), 6, generator=generator)
        assert np.array_equal(watch.curves[name].rate, alone.rate)
        assert np.array_equal(watch.curves[name].stderr, alone.stderr)
    leak = watch.curves["train"].leak(watch.curves["holdout"])
    assert watch.readings[0].leak == leak.nats


class Time:
    """A clock that the loop and the checks wind on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_checks_take_at_most_their_share_of_the_time():
    time = Time()

    class Slow(Memoriser):
        def forward(self, state, t, condition=None):
            time.now += 1e-4 * len(state)
            return super().forward(state, t, condition)

    model = Slow(EDM(0.05, 20), normal(20))
    watch = Watch(model, normal(50), normal(50, seed=1), Settings(**QUICK), clock=time)
    for step in range(4000):
        time.now += 0.05
        watch.step(step)
    spent = watch.spent / time.now
    assert SHARE / 2 < spent <= 0.02
    assert len(watch.readings) >= 3
    one = watch.readings[-1].seconds
    assert one == pytest.approx(watch.spent / len(watch.readings), rel=0.4)


def test_it_says_stop_at_the_budget_and_after_the_best_held_out_curve():
    process, train, held = EDM(0.05, 20), normal(60), normal(60, seed=1)
    quick = QUICK | dict(rows=60)
    copy = reverie.watch(Memoriser(process, train), train, held, leak_budget=1.0, every=1, **quick)
    assert copy.step(0) is False  # the first step starts the clock
    assert copy.step(1)
    assert "surely above the budget of 1" in copy.stopped

    class Fading(Denoiser):
        """The best guess of a Gaussian, more wrong at every call of the loop."""

        def __init__(self):
            super().__init__()
            self.process, self.factor = process, 1.0

        def forward(self, state, t, condition=None):
            alpha, sigma = process.scales(t, state)
            return self.factor * state * alpha / (alpha**2 + sigma**2)

    model = Fading()
    watch = reverie.watch(model, train, held, patience=2, **quick)
    for step in range(3):
        model.factor = 1 + step
        watch.check(step)
    assert watch.stale == 2
    assert "best at step 0" in watch.stopped
    assert "no" not in watch.stopped.split(".")[0].split()
    assert abs(watch.readings[0].leak) < 0.5
    assert any("worse than" in s for s in watch.readings[-1].guard)


def test_the_bias_of_the_memoriser_is_half_the_samples():
    process, train, held = EDM(0.05, 20), normal(60), normal(60, seed=1)
    watch = reverie.watch(Memoriser(process, train), train, held, **QUICK | dict(samples=200))
    reading = watch.check(1)
    assert reading.bias == pytest.approx(0.5, abs=0.05)  # all samples, where half are expected
    assert reading.bias_low > 0.2
    fresh = reverie.watch(Memoriser(process, normal(4000, seed=3)), train, held,
                          **QUICK | dict(samples=200))  # fmt: skip
    reading = fresh.check(1)
    assert reading.bias_low < 0 < reading.bias_high


@pytest.mark.parametrize("process", [
    Masking(3, 4), Uniform(3, 4), Brownian(Sphere(2)), Brownian(Torus(2)),
])  # fmt: skip
def test_every_space(process, generator):
    draw = torch.Generator().manual_seed(0)
    if process.space.shape == (4,):
        rows = [torch.randint(3, (n, 4), generator=draw) for n in (30, 20)]
    else:
        rows = [process.space.uniform(n, generator=draw).float() for n in (30, 20)]
    watch = reverie.watch(Memoriser(process, rows[0]), *rows, **QUICK | dict(levels=4))
    reading = watch.check(3)
    assert reading.leak > 0
    assert reading.bias > 0.1


def test_a_guess_that_is_not_finite_stops_the_loop_without_an_error():
    class Broken(nn.Module):
        def forward(self, x, t):
            return x * math.nan

    watch = reverie.watch(Broken(), normal(20), normal(20, seed=1), process=EDM(0.1, 10), every=2,
                          **QUICK)  # fmt: skip
    assert [watch.step(step) for step in range(4)] == [False, False, True, True]
    assert "not finite" in watch.stopped


def test_it_goes_on_in_its_folder_and_refuses_another_ones(tmp_path):
    process, train, held = EDM(0.05, 20), normal(30), normal(20, seed=1)
    first = reverie.watch(Memoriser(process, train), train, held, out=tmp_path, **QUICK)
    first.draw = None
    first.check(5)
    first.check(9)
    again = reverie.watch(Memoriser(process, train), train, held, out=tmp_path, **QUICK)
    again.draw = None
    assert [r.step for r in again.readings] == [5, 9]
    assert again.best.area() == pytest.approx(first.best.area())
    again.check(7)  # the loop went back to an earlier checkpoint
    assert [r.step for r in again.readings] == [5, 7]
    with pytest.raises(InputError, match="other rows or levels"):
        reverie.watch(Memoriser(process, train), train, held[:-1], out=tmp_path, **QUICK)


def test_rows_on_both_sides_are_said(tmp_path):
    train = normal(30)
    watch = reverie.watch(
        Memoriser(EDM(0.05, 20), train), train, train[:10], out=tmp_path, **QUICK
    )
    assert watch.notes
    watch.check(1)
    assert "10 of 10 held-out rows stand in the training set" in write_watch(watch).read_text()


def test_conditions_reach_the_module():
    seen = []

    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x, t, label):
            seen.append(label)
            return self.weight * x

    labels = torch.arange(30) % 3, torch.arange(20) % 3
    watch = reverie.watch(Told(), normal(30), normal(20, seed=1), process=EDM(0.1, 10),
                          conditions=labels, **QUICK)  # fmt: skip
    watch.check(0)
    assert set(torch.cat(seen).tolist()) == {0, 1, 2}


@pytest.mark.parametrize(("options", "words"), [
    (dict(), "give process= and predicts="),
    (dict(process=EDM(0.1, 10), every=0), "every is 0"),
    (dict(process=EDM(0.1, 10), levels=1), "levels is 1"),
    (dict(process=EDM(0.1, 10), colour="red"), "no such option"),
    (dict(process="nothing"), "choose one of"),
])  # fmt: skip
def test_bad_input_is_one_sentence(options, words):
    with pytest.raises(InputError, match=words):
        reverie.watch(nn.Identity(), normal(5), normal(5), **options)


def test_wrappers_are_taken_off():
    module = nn.Linear(2, 2)
    wrapped = nn.DataParallel(module)
    watch = reverie.watch(wrapped, normal(9), normal(9, seed=1), process="edm:sigma_min=0.1,"
                          "sigma_max=10", time="none", **QUICK)  # fmt: skip
    assert watch.denoiser.module is module
    FullyShardedDataParallel = type("FullyShardedDataParallel", (nn.Linear,), {})
    with pytest.raises(InputError, match="in parts"):
        reverie.watch(FullyShardedDataParallel(2, 2), normal(9), normal(9), process=EDM(0.1, 10))


def test_autocast_of_the_loop_does_not_reach_the_curve():
    module = nn.Linear(2, 2)
    denoiser = as_denoiser(module, EDM(0.1, 10), time="none")
    with torch.autocast("cpu", dtype=torch.bfloat16), untouched(denoiser):
        assert module(normal(3)).dtype == torch.float32


def test_a_training_script_of_diffusers():
    """The loop of its unconditional example: a scheduler, a U-Net, the noise guessed."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=100)
    rows = normal(24, 64).reshape(24, 1, 8, 8)
    watch = reverie.watch(model, rows[:16], rows[16:], scheduler=scheduler, every=1,
                          **QUICK | dict(levels=3, samples=4, sampler_steps=2))  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(2):
        noise, t = torch.randn(4, 1, 8, 8), torch.randint(100, (4,))
        loss = (model(scheduler.add_noise(rows[:4], noise, t), t).sample - noise).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        watch.step(step)
    assert len(watch.readings) == 1
    assert model.training
    assert np.isfinite(watch.readings[0].holdout_nats)


@pytest.mark.filterwarnings("ignore")  # of its own use of torch
def test_lightning_obeys_the_stop():
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    from reverie.runs.lightning import watch_callback

    class Lit(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

        def training_step(self, batch, index):
            return (self.net(batch[0]) - batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-2)

    module, rows = Lit(), normal(64)
    watch = reverie.watch(module.net, rows, normal(40, seed=1), process=EDM(0.1, 10), every=2,
                          time="none", **QUICK)  # fmt: skip
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), 8)
    trainer = lightning.Trainer(
        max_steps=5, callbacks=[watch_callback(watch)], logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert [r.step for r in watch.readings] == [2, 4, 5]


SCRIPT = """
import sys, torch, reverie
from accelerate import Accelerator
from reverie.processes import EDM
torch.manual_seed(0)
accelerator = Accelerator(cpu=True)
rows = torch.randn(64, 2)
model = accelerator.prepare(torch.nn.Linear(2, 2))
watch = reverie.watch(model, rows[:40], rows[40:], process=EDM(.1, 10), time="none", every=2,
                      leak_budget=0, levels=3, rows=20, samples=8, sampler_steps=2)
optimiser = torch.optim.SGD(model.parameters(), 1e-2)
for step in range(4):
    loss = (model(rows[:8]) - rows[:8]).square().mean()
    accelerator.backward(loss)
    optimiser.step()
    optimiser.zero_grad()
    if accelerator.is_main_process and step == 3:
        watch.stopped = "enough"
    stop = watch.step(step)
with open(f"{sys.argv[1]}/{accelerator.process_index}.txt", "w") as file:
    print(accelerator.num_processes, len(watch.readings), stop, end="", file=file)
"""


@pytest.mark.slow
def test_accelerate_on_two_processes(tmp_path):
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    import os
    import socket
    import subprocess
    import sys

    (tmp_path / "loop.py").write_text(SCRIPT)
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        free = any_port.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
               "--master_addr=127.0.0.1", f"--master_port={free}",
               str(tmp_path / "loop.py"), str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    said = [path.read_text() for path in sorted(tmp_path.glob("*.txt"))]
    assert said == ["2 1 True", "2 0 True"], done.stderr[-2000:]  # the first measures


def test_the_callback_by_any_lightning(monkeypatch):
    """Its two hooks, on a stand-in of Lightning's base class."""
    import sys
    from types import ModuleType, SimpleNamespace

    from reverie.runs.lightning import watch_callback

    stand_in = ModuleType("lightning.pytorch")
    stand_in.Callback = object
    monkeypatch.setitem(sys.modules, "lightning", ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", stand_in)
    steps, told = [], itertools.cycle([False, True])
    watched = SimpleNamespace(
        step=lambda step: (steps.append(step), next(told))[1], close=steps.append
    )
    callback = watch_callback(watched)
    trainer = SimpleNamespace(global_step=1, should_stop=False)
    callback.on_train_batch_end(trainer, None, None, None, 0)
    assert not trainer.should_stop
    trainer.global_step = 2
    callback.on_train_batch_end(trainer, None, None, None, 1)
    callback.on_train_end(trainer, None)
    assert trainer.should_stop
    assert steps == [1, 2, 2]
