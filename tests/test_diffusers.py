"""diffusers is the oracle: its schedulers' own predictions, steps and pipelines."""

import inspect
import json
import os
import re
import sys

import numpy as np
import pytest
import torch

import reverie
from reverie.cli import main
from reverie.curve import LossCurve
from reverie.diffusers.handover import hand_over
from reverie.diffusers.orders import nearest_distinct
from reverie.errors import InputError
from reverie.plan import plan_steps
from reverie.processes import EDM, VP, Rectified, Tabulated

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()
VARIANCE = 0.49


def unet(**settings):
    return diffusers.UNet2DModel(
        **dict(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16),
            layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        ) | settings
    ).eval()  # fmt: skip


def on_table(name, **settings):
    """A scheduler on the betas of `table`: those of Heun, LCM and others are not by default."""
    kind = getattr(diffusers, name)
    taken = inspect.signature(kind.__init__).parameters
    betas = dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    return kind(**{k: v for k, v in betas.items() if k in taken} | settings)


def gaussian_plan(process, steps=10, ends=None, method="log-snr"):
    """A plan on the exact curve of N(0, .49) in four dimensions."""
    times = torch.linspace(*process.t_range[::-1], 400, dtype=torch.float64)
    u = process.clock(times).numpy()
    curve = LossCurve(u, 2 * VARIANCE / (1 + u * VARIANCE), process=process, dim=4)
    return plan_steps(curve, steps, method, ends=ends)


@pytest.fixture(scope="module")
def table():
    return Tabulated(diffusers.DDPMScheduler().alphas_cumprod)


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().images[:, None] / 8 - 1, dtype=torch.float32)


@pytest.fixture(scope="module")
def trained(digits):
    """A pipeline whose U-Net was trained here, on digits, by diffusers' own recipe."""
    torch.manual_seed(0)
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_small", clip_sample=False)
    model = unet().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(120):
        x = digits[torch.randint(1500, (32,))]
        noise, level = torch.randn_like(x), torch.randint(1000, (32,))
        guess = model(scheduler.add_noise(x, noise, level), level).sample
        loss = (guess - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pipe = diffusers.DDPMPipeline(model.eval(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- the process a table stands for --------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_a_table_is_the_schedulers_own_noise(schedule):
    scheduler = diffusers.DDPMScheduler(beta_schedule=schedule)
    process = Tabulated(scheduler.alphas_cumprod)
    level = torch.tensor([0, 1, 17, 500, 998])
    x, noise = torch.randn(2, 5, 3)
    state = process.corrupt(x, (level + 1) / 1000, end=noise)
    assert torch.allclose(state, scheduler.add_noise(x, noise, level), atol=1e-6)
    between = torch.linspace(*process.t_range, 333, dtype=torch.float64)
    assert torch.allclose(process.time(process.clock(between)), between, atol=1e-12)


def test_levels_without_signal_or_without_a_difference_are_left_out():
    scheduler = diffusers.DDPMScheduler(rescale_betas_zero_snr=True)
    assert scheduler.alphas_cumprod[-1] == 0
    assert Tabulated(scheduler.alphas_cumprod).t_range == (0.001, 0.999)
    assert Tabulated(torch.tensor([1.0, 0.9, 0.9, 0.5, 0.1])).t_range == (0.6, 1.0)
    with pytest.raises(InputError, match="at least two"):
        Tabulated(torch.tensor([1.0, 1.0, 0.0]))


# --- predictions: the scheduler's own guess of the clean data is the oracle ----------------------

BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
TABLES = [
    ("DDPMScheduler", dict(clip_sample=False), kind)
    for kind in ("epsilon", "sample", "v_prediction")
] + [
    ("DDIMScheduler", BETAS | dict(clip_sample=False), "epsilon"),
    ("DDPMScheduler", dict(beta_schedule="squaredcos_cap_v2", clip_sample=False), "epsilon"),
    ("DDIMScheduler", dict(rescale_betas_zero_snr=True, clip_sample=False), "v_prediction"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "kind"), TABLES)
def test_predictions_equal_the_schedulers(name, settings, kind):
    torch.manual_seed(1)
    scheduler = getattr(diffusers, name)(prediction_type=kind, **settings)
    model, state = unet(), torch.randn(2, 1, 8, 8)
    denoiser = reverie.from_diffusers(model, scheduler)
    scheduler.set_timesteps(1000)
    for level in (3, 400, 900):
        with torch.no_grad():
            guess = scheduler.step(model(state, level).sample, level, state).pred_original_sample
            ours = denoiser(state, torch.tensor((level + 1) / 1000))
        assert torch.allclose(ours, guess, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_predictions_equal_the_schedulers(kind):
    torch.manual_seed(2)
    scheduler = diffusers.EDMEulerScheduler(prediction_type=kind, sigma_data=0.7)
    scheduler.set_timesteps(5)
    model, state = unet(), torch.randn(2, 1, 8, 8)
    denoiser = reverie.from_diffusers(model, scheduler)
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        with torch.no_grad():
            out = model(scheduler.scale_model_input(state, t), t).sample
            guess = scheduler.step(out, t, state).pred_original_sample
            ours = denoiser(state, denoiser.process.time(float(sigma) ** -2))
        assert torch.allclose(ours, guess, atol=1e-4)


def test_flow_predictions_are_velocities():
    torch.manual_seed(3)
    model, state = unet(), torch.randn(2, 1, 8, 8)
    denoiser = reverie.from_diffusers(model, diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert isinstance(denoiser.process, Rectified)
    with torch.no_grad():
        for t in (0.1, 0.75):
            guess = state - t * model(state, torch.tensor(1000 * t)).sample
            assert torch.allclose(denoiser(state, torch.tensor(t)), guess, atol=1e-5)
    assert np.isfinite(reverie.measure(denoiser, state, 4).rate).all()


def test_the_curve_is_the_training_loss(trained, digits):
    """rate = L_eps / (2 gamma), with the same antithetic noise: equal up to rounding."""
    denoiser = reverie.from_diffusers(trained)
    scheduler, model = trained.scheduler, trained.unet
    signal = scheduler.alphas_cumprod[[900, 500, 100]].double()
    gamma = (signal / (1 - signal)).numpy()
    x = digits[1500:1564]
    curve = reverie.measure(denoiser, x, gamma, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    for place, level in enumerate((900, 500, 100)):
        noise, at = torch.randn(x.shape, generator=generator), torch.full((64,), level)
        losses = []
        for e in (noise, -noise):
            with torch.no_grad():
                guess = model(scheduler.add_noise(x, e, at), at).sample
            losses.append((guess - e).square().flatten(1).sum(1).mean())
        expected = float(torch.stack(losses).mean()) / (2 * gamma[place])
        assert curve.rate[place] == pytest.approx(expected, rel=1e-4)


# --- conditions, variance heads, time embeddings -------------------------------------------------


def test_a_transformer_with_labels_and_a_variance_head():
    torch.manual_seed(4)
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=2, num_layers=1,
        sample_size=8, patch_size=2, norm_num_groups=1, num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(1000)
    state, label = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    denoiser = reverie.from_diffusers(model, scheduler)
    with torch.no_grad():
        out = model(state, timestep=torch.tensor([500, 500]), class_labels=label).sample[:, :1]
        guess = scheduler.step(out, 500, state).pred_original_sample
        ours = denoiser(state, torch.tensor(0.501), label)
        assert torch.allclose(ours, guess, atol=1e-5)
        bound = reverie.from_diffusers(model, scheduler, condition=torch.tensor([3]))
        assert torch.allclose(bound(state, torch.tensor(0.501))[0], ours[0], atol=1e-5)
    with pytest.raises(InputError, match=r"needs a condition \(class_labels\)"):
        denoiser(state, torch.tensor(0.5))


def test_a_text_conditioned_unet():
    torch.manual_seed(5)
    model = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    scheduler.set_timesteps(1000)
    state, text = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 8)
    denoiser = reverie.from_diffusers(model, scheduler)
    with torch.no_grad():
        guess = scheduler.step(model(state, 250, text).sample, 250, state).pred_original_sample
        assert torch.allclose(denoiser(state, torch.tensor(0.251), text), guess, atol=1e-5)
    curve = reverie.measure(denoiser, state, 4, condition=text)
    assert np.isfinite(curve.rate).all()


class Told(torch.nn.Module):
    """Records the times it is told."""

    def forward(self, sample, timestep, return_dict=True):
        self.told = timestep
        return (sample,)


def test_fractional_times_unless_the_embedding_is_one_per_level():
    scheduler, state = diffusers.DDPMScheduler(), torch.zeros(1, 1, 2, 2)
    model = Told()
    reverie.from_diffusers(model, scheduler)(state, torch.tensor(0.50025))
    assert model.told.item() == pytest.approx(499.25, abs=1e-3)
    model.config = type("Config", (), {"time_embedding_type": "learned"})
    reverie.from_diffusers(model, scheduler)(state, torch.tensor(0.50025))
    assert model.told.dtype == torch.long
    assert model.told.item() == 499


# --- handing plans over --------------------------------------------------------------------------

INNER = (12.0**-2, 0.05**-2)  # ends that every scheduler of the table knows
HELD = [
    ("DDPMScheduler", dict(variance_type="fixed_small"), False),
    ("DDPMParallelScheduler", {}, False),
    ("DPMSolverMultistepScheduler", dict(algorithm_type="sde-dpmsolver++", solver_order=1), False),
    ("DPMSolverMultistepScheduler", {}, False),
    ("DPMSolverMultistepScheduler",
     dict(use_flow_sigmas=True, prediction_type="flow_prediction"), False),
    ("DPMSolverSinglestepScheduler", {}, False),
    ("LCMScheduler", {}, False),
    ("TCDScheduler", {}, False),
    ("CMStochasticIterativeScheduler", {}, False),
    ("EulerDiscreteScheduler", {}, False),
    ("EulerDiscreteScheduler", dict(use_karras_sigmas=True), False),
    ("HeunDiscreteScheduler", {}, False),
    ("FlowMatchEulerDiscreteScheduler", {}, False),
    ("FlowMatchEulerDiscreteScheduler", dict(shift=3.0), False),
    ("FlowMatchEulerDiscreteScheduler", dict(use_dynamic_shifting=True), True),
    ("FlowMatchLCMScheduler", dict(shift=3.0), False),
    ("EDMEulerScheduler", dict(sigma_max=12.0), False),
    ("EDMEulerScheduler", {}, True),
    ("EDMDPMSolverMultistepScheduler", dict(sigma_max=12.0), False),
    ("UniPCMultistepScheduler", {}, False),
    ("UniPCMultistepScheduler",
     dict(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0), False),
    ("EulerAncestralDiscreteScheduler", {}, True),
    ("LMSDiscreteScheduler", {}, True),
]  # fmt: skip


def held_levels(scheduler):
    """sigma / alpha that the scheduler will use, read off it without our code."""
    if not hasattr(scheduler, "sigmas") or type(scheduler).__name__.startswith("DDPM"):
        signal = scheduler.alphas_cumprod[scheduler.timesteps].double()
        return ((1 - signal) / signal).sqrt().numpy()
    sigmas = scheduler.sigmas.double().numpy()
    if type(scheduler).__name__ == "HeunDiscreteScheduler":
        assert np.array_equal(sigmas[1:-1:2], sigmas[2:-1:2])
        sigmas = np.concatenate([sigmas[:1], sigmas[1::2]])
    if type(scheduler).__name__ != "CMStochasticIterativeScheduler":
        assert sigmas[-1] == 0
    flow = type(scheduler).__name__.startswith("FlowMatch")
    if flow or getattr(scheduler.config, "use_flow_sigmas", False):
        assert np.allclose(scheduler.timesteps, 1000 * sigmas[:-1], atol=1)  # UniPC: whole
        sigmas = sigmas / (1 - sigmas)
    return sigmas[:-1]


@pytest.mark.parametrize(("name", "settings", "force"), HELD)
def test_the_scheduler_holds_the_grid(name, settings, force, table):
    plan = gaussian_plan(table, 8, INNER)
    scheduler = on_table(name, **settings)
    handed = plan.to_diffusers(scheduler, force=force)
    held = held_levels(scheduler)
    moved = np.abs(np.log(plan.u * held**2))
    assert moved.max() <= handed.rounding + 2e-3
    assert np.allclose(handed.spreads, held, rtol=1e-3)
    assert handed.steps == 9
    if name == "CMStochasticIterativeScheduler":  # forty levels in all
        assert 0 < handed.rounding < 0.5
    elif handed.timesteps is not None and name != "HeunDiscreteScheduler":
        assert all(isinstance(t, int) for t in handed.timesteps)
        assert 0 < handed.rounding < 0.05
    else:
        assert handed.rounding == 0


TABLE_REFUSALS = [
    *[(name, {}, "fixed stride") for name in ("DDIMScheduler", "DDIMParallelScheduler",
                                              "PNDMScheduler")],
    *[(name, {}, "levels of its own") for name in ("KDPM2DiscreteScheduler",
                                                   "KDPM2AncestralDiscreteScheduler")],
    *[(name, {}, "force=True") for name in ("LMSDiscreteScheduler",
                                            "EulerAncestralDiscreteScheduler")],
    ("DEISMultistepScheduler", {}, "no last step to sigma = 0"),
    ("EDMEulerScheduler", {}, "sigma_max=12"),
    ("FlowMatchEulerDiscreteScheduler", dict(use_dynamic_shifting=True), "dynamic_shifting"),
    ("FlowMatchEulerDiscreteScheduler", dict(shift_terminal=0.1), "shift_terminal"),
    ("FlowMatchEulerDiscreteScheduler", dict(invert_sigmas=True), "invert_sigmas"),
    ("FlowMatchHeunDiscreteScheduler", {}, "not known to hold"),
    ("DPMSolverMultistepScheduler", dict(use_karras_sigmas=True), "use_karras_sigmas"),
    ("DPMSolverMultistepScheduler", dict(use_lu_lambdas=True), "use_lu_lambdas"),
    ("DPMSolverMultistepScheduler", dict(final_sigmas_type="sigma_min"), "final_sigmas_type"),
    ("DDPMScheduler", dict(variance_type="fixed_large"), "noise after the last denoise"),
    ("EulerDiscreteScheduler", dict(timestep_type="continuous"), "continuous"),
]  # fmt: skip


OLD_NUMPY = pytest.mark.filterwarnings("ignore:__array_wrap__")  # KDPM2's own __init__


@OLD_NUMPY
@pytest.mark.parametrize(("name", "settings", "message"), TABLE_REFUSALS)
def test_schedulers_that_would_distort_are_refused(name, settings, message, table):
    plan = gaussian_plan(table, 8, INNER)
    with pytest.raises(InputError, match=message):
        plan.to_diffusers(getattr(diffusers, name)(**settings))


@OLD_NUMPY
def test_strides_and_inner_levels_are_refused_even_by_force(table):
    plan = gaussian_plan(table, 8, INNER)
    for kind in (diffusers.DDIMScheduler, diffusers.KDPM2DiscreteScheduler):
        with pytest.raises(InputError, match="silently"):
            plan.to_diffusers(kind(), force=True)


def test_the_traps_are_there_and_caught(table):
    """What a plain call would do, and that verification sees it."""
    ramp = diffusers.EDMEulerScheduler()
    ramp.set_timesteps(sigmas=torch.tensor([80.0, 10.0, 1.0]))
    assert not torch.allclose(ramp.sigmas[:3], torch.tensor([80.0, 10.0, 1.0]))
    shifted = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    shifted.set_timesteps(sigmas=[1.0, 0.5, 0.1])
    assert torch.allclose(shifted.sigmas, torch.tensor([1, 0.75, 0.25, 0]))

    class Bent(diffusers.EulerDiscreteScheduler):
        def set_timesteps(self, device=None, **given):
            super().set_timesteps(device=device, **given)
            self.sigmas[3] *= 1.01

    with pytest.raises(InputError, match="at level 3 it holds sigma"):
        gaussian_plan(table, 8, INNER).to_diffusers(Bent())


def test_nearest_distinct_is_the_best_assignment():
    from itertools import combinations

    generator = np.random.default_rng(0)
    for _ in range(20):
        goal = np.sort(generator.normal(size=4))[::-1]
        held = np.sort(generator.normal(size=8))
        ours = nearest_distinct(goal, held)
        assert (np.diff(ours) < 0).all()
        least = min(((goal - held[list(c)[::-1]]) ** 2).sum() for c in combinations(range(8), 4))
        assert ((goal - held[ours]) ** 2).sum() == pytest.approx(least)
    with pytest.raises(InputError, match="more than the scheduler's 3"):
        nearest_distinct(goal, held[:3])


# --- stepping: the same algorithm on the same grid gives the same samples ------------------------


class Gaussian(reverie.Denoiser):
    """The exact denoiser of N(0, .49)."""

    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        return state * alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)


def simulate(scheduler, handed, state, generator):
    """The loop of every pipeline, with the exact Gaussian model in the scheduler's own terms."""
    told = list(dict.fromkeys(scheduler.timesteps.tolist()))
    takes = inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if "generator" in takes else {}
    flow, edm = (type(scheduler).__name__.startswith(n) for n in ("FlowMatch", "EDM"))
    for t in scheduler.timesteps:
        s = torch.tensor(handed.spreads[told.index(t.item())])  # float64
        # y = x + s e, whatever the state the model sees
        if flow:
            seen, y = state, state * (1 + s)
        else:
            seen = scheduler.scale_model_input(state, t)
            y = state if edm or hasattr(scheduler, "is_scale_input_called") else None
            y = seen * (1 + s**2).sqrt() if y is None else y
        if type(scheduler).__name__ == "HeunDiscreteScheduler":
            y = state
        clean = y * VARIANCE / (VARIANCE + s**2)
        noise = (y - clean) / s
        out = noise - clean if flow else noise
        if edm:
            total = VARIANCE + s**2
            out = (clean - y * VARIANCE / total) / (s * VARIANCE**0.5 / total.sqrt())
        state = scheduler.step(out, t, state, **extra).prev_sample
    return state


STEPS = [
    ("DDPMScheduler", dict(variance_type="fixed_small", clip_sample=False), "ancestral", 1e-6),
    ("DPMSolverMultistepScheduler",
     dict(algorithm_type="sde-dpmsolver++", solver_order=1), "ancestral", 1e-6),
    ("EulerAncestralDiscreteScheduler", {}, "ancestral", 1e-5),
    ("EulerDiscreteScheduler", {}, "ddim", 1e-5),
    ("HeunDiscreteScheduler", {}, "heun", 1e-5),
    ("DPMSolverMultistepScheduler", {}, "dpm++2m", 1e-5),
    ("FlowMatchEulerDiscreteScheduler", dict(shift=3.0), "ddim", 1e-5),
    ("EDMEulerScheduler", dict(sigma_max=12.0, sigma_data=VARIANCE**0.5), "ddim", 1e-5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "sampler", "tolerance"), STEPS)
def test_steps_equal_our_sampler(name, settings, sampler, tolerance, table):
    flow, edm = name.startswith("FlowMatch"), name.startswith("EDM")
    process = Rectified() if flow else EDM(0.05, 12) if edm else table
    scheduler = on_table(name, **settings)
    handed = gaussian_plan(table, 12, INNER).to_diffusers(scheduler, force="Ancestral" in name)
    times = process.time(handed.spreads**-2.0)
    if name == "DDPMScheduler":  # its coefficients cancel digits of a table in float32
        scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    start = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    alpha, _ = process.scales(times[0], start)
    ours = reverie.sample(
        Gaussian(process), 64, times, sampler, init=start,
        generator=torch.Generator().manual_seed(7),
    )  # fmt: skip
    exploding = name.startswith(("Euler", "Heun"))
    init = start / alpha if exploding else start
    theirs = simulate(scheduler, handed, init, torch.Generator().manual_seed(7))
    assert (ours - theirs).abs().max() < tolerance


WRITTEN = ["UniPCMultistepScheduler", "EDMDPMSolverMultistepScheduler", "LMSDiscreteScheduler"]


@pytest.mark.parametrize("name", WRITTEN)
def test_written_arrays_step_as_the_schedulers_own(name):
    """Its own grid, read off one scheduler and handed to another: the same samples."""
    results = []
    for handing in (False, True):
        scheduler = getattr(diffusers, name)()
        scheduler.set_timesteps(8)
        if handing:
            hand_over(scheduler, scheduler.sigmas[:-1].double().numpy() ** -2.0, force=True)
        state = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            seen = scheduler.scale_model_input(state, t)
            state = scheduler.step(seen.tanh(), t, state).prev_sample
        results.append(state)
    assert torch.isfinite(results[0]).all()
    assert torch.allclose(*results, atol=1e-5)


# --- whole pipelines -----------------------------------------------------------------------------


def test_a_pipeline_runs_on_the_plan(trained, digits):
    denoiser = reverie.from_diffusers(trained)
    curve = reverie.measure(denoiser, digits[1500:1564], 16)
    plan = plan_steps(curve, 6, "rescaled-entropic")
    calls = []
    hook = trained.unet.register_forward_pre_hook(lambda module, given: calls.extend(given[1:]))
    with plan.to_diffusers(trained.scheduler) as handed:
        images = trained(
            4, generator=torch.Generator().manual_seed(3), output_type="pt"
        ).images  # fmt: skip
        with pytest.raises(InputError, match="keeps a plan already"):
            plan.to_diffusers(trained.scheduler)
    assert [int(t) for t in calls] == handed.timesteps
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(4, 1, 8, 8, generator=generator)
    times = denoiser.process.time(handed.spreads**-2.0)
    ours = reverie.sample(denoiser, 4, times, init=start, generator=generator)
    assert torch.allclose(images, (ours / 2 + 0.5).clamp(0, 1), atol=1e-4)
    calls.clear()
    trained(1, num_inference_steps=3)  # outside the block the scheduler is its own again
    hook.remove()
    assert len(calls) == 3


def test_the_call_goes_to_pipelines_that_take_a_list(table):
    plan = gaussian_plan(table, 8, INNER)
    for name in ("DPMSolverMultistepScheduler", "EulerDiscreteScheduler",
                 "HeunDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"):  # fmt: skip
        scheduler, fresh = on_table(name), on_table(name)
        call = plan.to_diffusers(scheduler).call
        fresh.set_timesteps(device="cpu", **call)  # as their retrieve_timesteps does
        assert torch.equal(fresh.timesteps, scheduler.timesteps)
        assert torch.equal(fresh.sigmas, scheduler.sigmas)
    with pytest.raises(InputError, match="inside `with"):
        _ = plan.to_diffusers(diffusers.UniPCMultistepScheduler()).call


# --- out: a run as a pipeline folder -------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A U-Net run with an uneven network, so that equal predictions mean something."""
    path = tmp_path_factory.mktemp("diffusers") / "run"
    run = reverie.fit("digits", network="unet", width=4, steps=2, n=30, holdout=30, out=path)
    torch.manual_seed(6)
    with torch.no_grad():
        for parameter in run.denoiser.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    from reverie.runs.folder import save_tensors

    save_tensors(path / "ema.safetensors", run.denoiser.state_dict(), {})
    for name, points in (("train", run.train_points()), ("holdout", run.holdout_points())):
        run.curves[name] = reverie.measure(run.denoiser, points, 12)
    run.save_curves()
    return run


def test_the_exported_pipeline_predicts_as_the_run(run, tmp_path):
    folder = run.to_diffusers(tmp_path / "pipe")
    theirs = reverie.from_diffusers(folder)
    low, high = run.process.clock(torch.tensor(run.process.t_range)).log().flip(0).tolist()
    y = torch.randn(8, 1, 8, 8)
    for log_gamma in np.linspace(low, high, 7):
        gamma = float(np.exp(log_gamma))
        state = y * (1 + 1 / gamma) ** 0.5
        t = theirs.process.time(gamma)
        with torch.no_grad():
            ours = run.denoiser(state, run.process.time(gamma))
            alpha, _ = theirs.process.scales(t, state)
            assert torch.allclose(ours, theirs(state * alpha, t), atol=1e-5)
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_the_model_card_runs_and_carries_the_verdict(run, tmp_path, monkeypatch):
    bare = run.to_diffusers(tmp_path / "bare", license="mit")
    card = (bare / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\nlibrary_name: diffusers\n")
    assert "have not been audited" in card
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(re.search(r"```python\n(.*?)```", card, re.S).group(1), scope)
    assert scope["images"].shape == (16, 1, 8, 8)
    assert torch.isfinite(scope["images"]).all()

    verdict = dict(
        finding="none", p_value=0.4321, p_joint=0.4321,
        sentences=["No evidence.", "The power sentence."],
        leak=dict(nats=1.5, low=1.0, high=2.0, level=2500.0), cannot_see=["Moved copies."],
    )  # fmt: skip
    audit = run.path / "audit.json"
    audit.write_text(json.dumps({"models": [{"verdict": verdict}]}))
    text = (run.to_diffusers(tmp_path / "audited") / "README.md").read_text()
    for part in ("finding: **none**", "0.432", "1.5 nats", "The power sentence.", "Moved copies."):
        assert part in text
    assert "| 20 |" in text
    assert "30 training and 30 held-out" in text
    os.utime(audit, (0, 0))  # older than the weights: not theirs
    text = (run.to_diffusers(tmp_path / "stale") / "README.md").read_text()
    assert "have not been audited" in text
    audit.unlink()


def test_export_command(run, tmp_path, capsys):
    out = tmp_path / "pipe"
    out.mkdir()  # empty: it may be filled
    words = ["export", str(run.path), "--out", str(out)]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert not stop.value.code
    assert (out / "model_index.json").exists()
    assert "from_diffusers" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pipe"]


def test_runs_that_diffusers_has_no_model_for(run, tmp_path):
    table = reverie.fit("wine", steps=1, width=4, depth=1)
    with pytest.raises(InputError, match="only runs of the network 'unet'"):
        table.to_diffusers(tmp_path / "pipe")
    odd = np.random.default_rng(0).integers(0, 9, (20, 7, 7, 1)).astype(np.uint8)
    padded = reverie.fit(odd, network="unet", width=4, steps=1, holdout=5)
    with pytest.raises(InputError, match="padded to 8 x 8"):
        padded.to_diffusers(tmp_path / "pipe")
    with pytest.raises(InputError, match="one line"):
        run.to_diffusers(tmp_path / "pipe", license="")
    assert not list(tmp_path.iterdir())


# --- bad input -----------------------------------------------------------------------------------


def test_folders_that_are_none(tmp_path, trained):
    with pytest.raises(InputError, match="downloads nothing"):
        reverie.from_diffusers("google/ddpm-cat-256")
    with pytest.raises(InputError, match=r"has no config\.json"):
        reverie.from_diffusers(tmp_path)
    with pytest.raises(InputError, match="takes a pipeline"):
        reverie.from_diffusers(3)
    folder = tmp_path / "pipe"
    trained.save_pretrained(folder)
    read = reverie.from_diffusers(folder)
    state = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = reverie.from_diffusers(trained)(state, torch.tensor(0.5))
        assert torch.equal(read(state, torch.tensor(0.5)), expected)
        alone = reverie.from_diffusers(folder / "unet", folder / "scheduler")
        assert torch.equal(alone(state, torch.tensor(0.5)), expected)
    with pytest.raises(InputError, match="needs the scheduler"):
        reverie.from_diffusers(folder / "unet")
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        reverie.from_diffusers(folder)
    weights.rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="pickled"):
        reverie.from_diffusers(folder)
    (folder / "unet" / "config.json").write_text('{"_class_name": "subprocess"}')
    with pytest.raises(InputError, match="no such class of diffusers"):
        reverie.from_diffusers(folder)


def test_schedulers_and_predictions_that_do_not_fit():
    model = unet()
    with pytest.raises(InputError, match="needs the scheduler"):
        reverie.from_diffusers(model)
    with pytest.raises(InputError, match="the prediction type is 'score'"):
        reverie.from_diffusers(model, diffusers.DDPMScheduler(), prediction="score")
    with pytest.raises(InputError, match="does not go with DDPMScheduler"):
        reverie.from_diffusers(model, diffusers.DDPMScheduler(), prediction="flow")
    with pytest.raises(InputError, match="epsilon and v_prediction only"):
        reverie.from_diffusers(model, diffusers.EDMEulerScheduler(), prediction="sample")
    with pytest.raises(InputError, match="no table of noise levels"):
        reverie.from_diffusers(model, diffusers.IPNDMScheduler(), prediction="epsilon")
    with pytest.raises(InputError, match="not called as"):
        reverie.from_diffusers(torch.nn.Linear(2, 2), diffusers.DDPMScheduler())
    with pytest.raises(InputError, match="takes no condition"):
        reverie.from_diffusers(model, diffusers.DDPMScheduler(), condition=torch.tensor([1]))(
            torch.zeros(1, 1, 8, 8), torch.tensor(0.5)
        )


def test_plans_that_cannot_go(table, two_point_curve):
    bare = LossCurve(two_point_curve.u, two_point_curve.rate)
    with pytest.raises(InputError, match="measured on a process"):
        plan_steps(bare, 5).to_diffusers(diffusers.DDPMScheduler())
    with pytest.raises(InputError, match="takes a scheduler of diffusers, not int"):
        gaussian_plan(table).to_diffusers(3)
    with pytest.raises(InputError, match=r"knows .* only: plan with ends"):
        gaussian_plan(VP(t_min=1e-6)).to_diffusers(diffusers.EulerDiscreteScheduler())


def test_without_diffusers(monkeypatch, trained, tmp_path):
    trained.save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'reverie\[diffusers\]'"):
        reverie.from_diffusers(tmp_path)
