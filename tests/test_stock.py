"""What the pipeline runs: diffusers' own guesses, loops and pipelines are the oracle."""

import inspect

import numpy as np
import pytest
import torch

import reverie
from reverie.curve import LossCurve
from reverie.diffusers.limits import limit_of
from reverie.errors import InputError
from reverie.plan import plan_steps
from reverie.processes import Rectified, Tabulated

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def unet(channels=1, seed=0, **settings):
    torch.manual_seed(seed)
    return diffusers.UNet2DModel(
        **dict(
            sample_size=8, in_channels=channels, out_channels=channels, block_out_channels=(8, 16),
            layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        ) | settings
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return unet()


def exact_plan(process, steps=10, ends=None):
    times = torch.linspace(*process.t_range[::-1], 400, dtype=torch.float64)
    u = process.clock(times).numpy()
    curve = LossCurve(u, 0.98 / (1 + 0.49 * u), process=process, dim=4)
    return plan_steps(curve, steps, "log-snr", ends=ends)


# --- clipping and thresholding are part of the guess ---------------------------------------------

CLIP = dict(clip_sample=True, clip_sample_range=0.8)
THRESHOLD = dict(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=2.0)
LIMITED = [
    *[(name, dict(settings, prediction_type=kind))
      for name in ("DDPMScheduler", "DDIMScheduler", "LCMScheduler")
      for settings in ({}, CLIP, CLIP | THRESHOLD)
      for kind in ("epsilon", "v_prediction")],
    ("HeunDiscreteScheduler", CLIP),
    *[(name, THRESHOLD) for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler",
                                     "DPMSolverSinglestepScheduler", "DEISMultistepScheduler")],
    ("EulerDiscreteScheduler", {}),
]  # fmt: skip


def schedulers_guess(scheduler, model, state, level):
    """The clean guess that a scheduler steps with, from a variance-preserving state."""
    t = scheduler.timesteps[(scheduler.timesteps - level).abs().argmin()]
    with torch.no_grad():
        if hasattr(scheduler, "convert_model_output"):
            scheduler._step_index = int((scheduler.timesteps - t).abs().argmin())
            out = model(state, t).sample
            value = scheduler.convert_model_output(out, sample=state)
            if type(scheduler).__name__.startswith("DEIS"):  # which keeps noise
                signal = scheduler.alphas_cumprod[int(t)]
                value = (state - (1 - signal).sqrt() * value) / signal.sqrt()
            return t, value
        out = model(state, t).sample
        signal = scheduler.alphas_cumprod[int(t)]
        seen = state / signal.sqrt() if hasattr(scheduler, "sigmas") else state
        step = scheduler.step(out, t, seen)
        found = getattr(step, "pred_original_sample", None)
        return t, step.denoised if found is None else found


@pytest.mark.parametrize(("name", "settings"), LIMITED)
def test_the_guess_is_clipped_as_the_scheduler_clips(name, settings, model):
    scheduler = getattr(diffusers, name)(**settings)
    denoiser = reverie.from_diffusers(model, scheduler)
    assert (denoiser.limit is None) == (name == "EulerDiscreteScheduler"
                                        or (name == "LCMScheduler" and not settings.keys()
                                            & {"clip_sample", "thresholding"}))  # fmt: skip
    state = 1.5 * torch.randn(3, 1, 8, 8, generator=seeded())
    for level in (60, 300, 800):
        scheduler.set_timesteps(50) if name == "LCMScheduler" else scheduler.set_timesteps(1000)
        t, guess = schedulers_guess(scheduler, model, state, level)
        with torch.no_grad():
            ours = denoiser(state, (t.double() + 1) / 1000)
        if name == "LCMScheduler":  # denoised = c_out guess + c_skip state
            skip, out = scheduler.get_scalings_for_boundary_condition_discrete(t)
            guess = (guess - skip * state) / out
        scale = 1e-4 * max(1.0, float(guess.abs().max()))
        assert (ours - guess).abs().max() < scale
    bare = reverie.from_diffusers(model, scheduler, clip=False)
    assert bare.limit is None


def test_settings_of_another_class_do_not_count(model):
    ddpm = diffusers.DDPMScheduler(**CLIP | THRESHOLD)
    euler = diffusers.EulerDiscreteScheduler.from_config(ddpm.config)
    assert euler.config.clip_sample  # carried along, never used
    assert limit_of(euler) is None
    assert limit_of(diffusers.DPMSolverMultistepScheduler.from_config(ddpm.config)) is not None


def test_the_curve_is_bounded_by_the_clip(model):
    """|x - xhat| <= 2 a coordinate, where the network alone is off by sigma/alpha = 158 errors."""
    rows = torch.rand(16, 1, 8, 8, generator=seeded()) * 2 - 1
    kept, bare = (
        reverie.measure(reverie.from_diffusers(model, diffusers.DDPMScheduler(), clip=clip), rows,
                        levels=6, generator=seeded(1))
        for clip in (True, False)
    )  # fmt: skip
    assert kept.rate.max() <= 0.5 * 4 * 64
    assert bare.rate[0] > 100 * kept.rate[0]


# --- loops of stock schedulers, clipping on ------------------------------------------------------

LOOPS = [
    ("DDPMScheduler", dict(variance_type="fixed_small", **CLIP), "ancestral"),
    ("DDPMScheduler", dict(variance_type="fixed_small", **THRESHOLD), "ancestral"),
    ("DDIMScheduler", CLIP | dict(timestep_spacing="trailing"), "ddim"),
    ("DPMSolverMultistepScheduler", THRESHOLD, "dpm++2m"),
    ("DPMSolverMultistepScheduler",
     dict(THRESHOLD, algorithm_type="sde-dpmsolver++", solver_order=1), "ancestral"),
    ("EulerDiscreteScheduler", {}, "ddim"),
    ("HeunDiscreteScheduler", CLIP, "heun"),
]  # fmt: skip
INNER = (12.0**-2, 0.05**-2)


@pytest.mark.parametrize(("name", "settings", "sampler"), LOOPS)
def test_a_stock_loop_is_our_sampler(name, settings, sampler, model):
    """The pipelines' loop, a scheduler's own numbers, the plan handed over (DDIM: its stride)."""
    scheduler = getattr(diffusers, name)(beta_schedule="scaled_linear", **settings)
    denoiser = reverie.from_diffusers(model, scheduler)
    process = denoiser.process
    if name == "DDIMScheduler":
        scheduler.set_timesteps(10)
        times = (scheduler.timesteps.double() + 1) / 1000
    else:
        ends = (max(float(process.clock(process.t_range[1])), INNER[0]), INNER[1])
        handed = exact_plan(process, 10, ends).to_diffusers(scheduler)
        times = process.time(handed.spreads**-2.0)
    start = torch.randn(6, 1, 8, 8, generator=seeded())
    ours = reverie.sample(denoiser, 6, times, sampler, init=start, generator=seeded(7))
    state, noise = start, seeded(7)
    alpha, _ = process.scales(times[0], start)
    if name.startswith(("Euler", "Heun")):
        state = start / alpha
    takes = inspect.signature(scheduler.step).parameters
    extra = {"generator": noise} if "generator" in takes else {}
    if name == "DDIMScheduler":  # without it the direction is that of the guess before the clip
        extra["use_clipped_model_output"] = True
    with torch.no_grad():
        for t in scheduler.timesteps:
            out = model(scheduler.scale_model_input(state, t), t).sample
            state = scheduler.step(out, t, state, **extra).prev_sample
    assert float((ours - state).square().mean().sqrt()) < 3e-5


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize("settings", [CLIP, THRESHOLD], ids=["clip", "threshold"])
def test_a_stock_ddim_pipeline_steps_along_the_noise_before_the_limit(settings, eta, model):
    """DDIMPipeline as it comes: without use_clipped_model_output, at its own stride."""
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing", **settings)
    pipe = diffusers.DDIMPipeline(model, scheduler)
    pipe.set_progress_bar_config(disable=True)
    denoiser = reverie.from_diffusers(pipe)
    images = pipe(
        4, generator=seeded(3), eta=eta, num_inference_steps=10, output_type="pt"
    ).images  # fmt: skip
    times = (pipe.scheduler.timesteps.double() + 1) / 1000
    generator = seeded(3)
    start = torch.randn(4, 1, 8, 8, generator=generator)
    options = dict(init=start, generator=generator, eta=eta)
    ours = reverie.sample(denoiser, 4, times, "ddim", unlimited_noise=True, **options)
    stock = images * 2 - 1
    inside = stock.abs() < 1  # a pipeline clamps its pictures
    assert float((stock - ours)[inside].square().mean().sqrt()) < 3e-5
    # it matters: along the noise of the limited guess one ends elsewhere
    generator = seeded(3)
    torch.randn(4, 1, 8, 8, generator=generator)
    other = reverie.sample(denoiser, 4, times, "ddim", **(options | {"generator": generator}))
    assert float((stock - other)[inside].square().mean().sqrt()) > 1e-3


def test_a_pipeline_with_the_default_clip_is_our_sampler(model):
    """diffusers' own default, clip_sample=True, through a whole pipeline."""
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_small")
    pipe = diffusers.DDPMPipeline(model, scheduler)
    pipe.set_progress_bar_config(disable=True)
    denoiser = reverie.from_diffusers(pipe)
    with exact_plan(denoiser.process, 12).to_diffusers(pipe.scheduler) as handed:
        images = pipe(4, generator=seeded(3), output_type="pt").images
    generator = seeded(3)
    start = torch.randn(4, 1, 8, 8, generator=generator)
    times = denoiser.process.time(handed.spreads**-2.0).clamp(*denoiser.process.t_range)
    ours = reverie.sample(denoiser, 4, times, init=start, generator=generator)
    assert float((images - (ours / 2 + 0.5).clamp(0, 1)).square().mean().sqrt()) < 3e-5


def test_stochastic_flow_matching_steps_with_our_guess(model):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    denoiser = reverie.from_diffusers(model, scheduler)
    handed = exact_plan(Rectified(), 6, INNER).to_diffusers(scheduler)
    state, ours = torch.randn(2, 4, 1, 8, 8, generator=seeded())[0].repeat(2, 1, 1, 1).chunk(2)
    theirs, fresh = seeded(1), seeded(1)
    share = torch.tensor(handed.spreads / (1 + handed.spreads))
    with torch.no_grad():
        for k, t in enumerate(scheduler.timesteps):
            state = scheduler.step(model(state, t).sample, t, state, generator=theirs).prev_sample
            guess = denoiser(ours, share[k])
            after = float(share[k + 1]) if k + 1 < len(share) else 0.0
            noise = torch.randn(ours.shape, generator=fresh)
            ours = (1 - after) * guess + after * noise
    assert (state - ours).abs().max() < 1e-4


# --- tables --------------------------------------------------------------------------------------

ZERO = ("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler",
        "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler")  # fmt: skip


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid",
                                   "laplace"])  # fmt: skip
def test_zero_terminal_snr_is_read_alike_by_every_scheduler(betas):
    """The last level has no signal; four schedulers write 2^-24 there, and mean 0."""
    tables = {}
    for name in ZERO:
        kind = getattr(diffusers, name)
        try:
            scheduler = kind(beta_schedule=betas, rescale_betas_zero_snr=True)
        except NotImplementedError:
            continue  # it has no such table
        tables[name] = Tabulated(scheduler.alphas_cumprod)
    first = tables["DDPMScheduler"]
    for process in tables.values():
        assert process.signal[-1] == 0
        assert process.t_range == first.t_range
        assert process.t_range[1] == 0.999
        assert torch.equal(process.table, first.table)
        middle = torch.linspace(*process.t_range, 99, dtype=torch.float64)
        assert torch.allclose(process.time(process.clock(middle)), middle, atol=1e-9)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", ZERO[2:])
@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_a_plan_goes_to_zero_terminal_snr_schedulers(spacing, name, betas):
    kept = dict(beta_schedule=betas, rescale_betas_zero_snr=True, timestep_spacing=spacing)
    process = Tabulated(diffusers.DDPMScheduler(**kept).alphas_cumprod)
    scheduler = getattr(diffusers, name)(prediction_type="v_prediction", **kept)
    plan = exact_plan(process, 9)
    handed = plan.to_diffusers(scheduler, force=True)
    held = scheduler.sigmas[:-1].double().numpy()
    assert np.allclose(held, handed.spreads, rtol=1e-3)
    assert np.abs(np.log(plan.levels * held**2)).max() <= handed.rounding + 2e-3


OTHER = [
    (dict(beta_schedule="squaredcos_cap_v2"), "another table of noise levels than the model's"),
    (dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012), "another table"),
    (dict(num_train_timesteps=500), "trained on 1000 noise levels, but EulerDiscrete.* has 500"),
    (dict(rescale_betas_zero_snr=True), "another table"),
]


@pytest.mark.parametrize(("settings", "sentence"), OTHER)
def test_a_scheduler_of_another_table_is_refused(settings, sentence):
    process = Tabulated(diffusers.DDPMScheduler().alphas_cumprod)
    plan = exact_plan(process, 8, INNER)
    with pytest.raises(InputError, match=sentence):
        plan.to_diffusers(diffusers.EulerDiscreteScheduler(**settings))
    plan.to_diffusers(diffusers.EulerDiscreteScheduler())
