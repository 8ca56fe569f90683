"""Models of diffusers in and out: guidance, precision, latents, calibrated models, symbols."""

import pytest
import torch

import reverie
from reverie import as_denoiser
from reverie.calibration import calibrate
from reverie.denoisers import ClassifierFreeGuidance
from reverie.diffusers import to_diffusers
from reverie.errors import InputError
from reverie.processes import Uniform

diffusers = pytest.importorskip("diffusers")
diffusers.utils.logging.set_verbosity_error()


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def unet(channels=1, **settings):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        **dict(
            sample_size=8, in_channels=channels, out_channels=channels, block_out_channels=(8, 16),
            layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
        ) | settings
    ).eval()  # fmt: skip


def dit(seed=4):
    torch.manual_seed(seed)
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=2, num_layers=1,
        sample_size=8, patch_size=2, norm_num_groups=1, num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().images[:200, None] / 8 - 1, dtype=torch.float32)


# --- guidance inside the guess -------------------------------------------------------------------


def test_guidance_is_the_pipelines(digits):
    """As DiTPipeline: eps of label and of the null label, combined, then the scheduler's clip."""
    model, scheduler = dit(), diffusers.DDIMScheduler(clip_sample=True)
    scheduler.set_timesteps(1000)
    state, label = torch.randn(2, 1, 8, 8, generator=seeded()), torch.tensor([3, 7])
    with torch.no_grad():
        both, labels = torch.cat([state, state]), torch.cat([label, torch.tensor([10, 10])])
        out = model(both, timestep=torch.full((4,), 500), class_labels=labels).sample[:, :1]
        towards, free = out.chunk(2)
        guided = free + 4.0 * (towards - free)
        guess = scheduler.step(guided, 500, state).pred_original_sample
        denoiser = reverie.from_diffusers(model, scheduler, guidance_scale=4.0)
        t = torch.tensor(0.501)
        assert torch.allclose(denoiser(state, t, label), guess, atol=1e-4)
        # a denoiser around the plain one, clipped after, is the same
        plain = reverie.from_diffusers(model, scheduler, null=10)
        around = ClassifierFreeGuidance(plain, 4.0)
        assert torch.allclose(around(state, t, label), guess, atol=1e-4)
    rows, labels = digits[:8], torch.arange(8)
    curves = [
        reverie.measure(d, rows, levels=4, condition=labels, generator=seeded(1))
        for d in (denoiser, plain)
    ]
    assert not (abs(curves[0].rate - curves[1].rate) < 1e-6).all()


def test_guidance_needs_a_null():
    model = unet(class_embed_type=None, num_class_embeds=4)
    with pytest.raises(InputError, match="pass null= the label for no class"):
        reverie.from_diffusers(model, diffusers.DDPMScheduler(), guidance_scale=2.0)
    guided = reverie.from_diffusers(model, diffusers.DDPMScheduler(), guidance_scale=2.0, null=3)
    assert guided(torch.zeros(2, 1, 8, 8), torch.tensor(0.5), torch.tensor([0, -1])).shape[0] == 2
    with pytest.raises(InputError, match="no condition to guide"):
        reverie.from_diffusers(unet(), diffusers.DDPMScheduler(), guidance_scale=2.0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_model_loaded_in_half_precision(kind, digits):
    scheduler = diffusers.DDPMScheduler()
    curves = [
        reverie.measure(reverie.from_diffusers(m, scheduler), digits[:8], levels=4,
                        generator=seeded())
        for m in (unet(), unet().to(kind))
    ]  # fmt: skip
    assert curves[1].rate == pytest.approx(curves[0].rate, rel=0.02)
    denoiser = reverie.from_diffusers(unet().to(kind), scheduler)
    drawn = reverie.sample(denoiser, 2, torch.linspace(1, 0.001, 5).double(), shape=(1, 8, 8))
    assert drawn.dtype == torch.float32
    assert torch.isfinite(drawn).all()


# --- latents -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latent_parts():
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4, sample_size=16, scaling_factor=0.7, shift_factor=0.2,
    ).eval()  # fmt: skip
    return unet(channels=4), vae


def test_a_latent_model_brings_its_decoder(latent_parts, tmp_path):
    model, vae = latent_parts
    pipe = diffusers.DiTPipeline(transformer=dit(), vae=vae, scheduler=diffusers.DDIMScheduler())
    images = torch.rand(2, 3, 16, 16, generator=seeded()) * 2 - 1
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    for denoiser in (
        reverie.from_diffusers(model, scheduler, vae=vae),
        reverie.from_diffusers(pipe, condition=torch.tensor([1])),
    ):
        latents = denoiser.encode(images)
        with torch.no_grad():
            mode = vae.encode(images).latent_dist.mode()
            assert torch.allclose(latents, (mode - 0.2) * 0.7)
            expected = vae.decode(latents / 0.7 + 0.2).sample
        assert torch.allclose(denoiser.decode(latents), expected, atol=1e-6)
        one, two = (denoiser.encode(images, generator=seeded(k)) for k in (0, 1))
        assert not torch.equal(one, two)
    latent = reverie.from_diffusers(model, scheduler, vae=vae)
    assert reverie.measure(latent, latent.encode(images), levels=3).rate.shape == (3,)
    with pytest.raises(
        InputError, match=r"sees 4 channels, but the data have 3.*encode\(images\)"
    ):
        reverie.measure(latent, images, levels=3)
    pipe.save_pretrained(tmp_path / "pipe")  # from a folder it is read when it is needed
    folder = reverie.from_diffusers(tmp_path / "pipe")
    assert folder.autoencoder is None
    assert torch.allclose(folder.decode(latents), denoiser.decode(latents), atol=1e-6)
    with pytest.raises(InputError, match="no autoencoder came with UNet2DModel"):
        reverie.from_diffusers(model, scheduler).decode(latents)


# --- a calibrated model, back in a stock pipeline ------------------------------------------------

ZERO = dict(
    prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
)  # whose loop starts at the level without signal
SERVED = [
    ("DDPMScheduler", {}, {}),
    ("DDPMScheduler", dict(beta_schedule="squaredcos_cap_v2"), {}),
    ("DDIMScheduler", dict(prediction_type="sample"), {}),
    ("EulerDiscreteScheduler", {}, {}),
    ("HeunDiscreteScheduler", dict(clip_sample=True), {}),
    ("DPMSolverMultistepScheduler", dict(thresholding=True), {}),
    ("DDPMScheduler", ZERO, {}),
    ("EulerDiscreteScheduler", ZERO, {}),
    ("FlowMatchEulerDiscreteScheduler", dict(shift=3.0), dict(flow=True)),
    ("EDMEulerScheduler", dict(prediction_type="epsilon"), dict(edm=True)),
    ("EDMEulerScheduler", dict(prediction_type="v_prediction"), dict(edm=True)),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "settings", "family"), SERVED)
def test_a_calibrated_model_runs_in_a_stock_loop(name, settings, family, digits):
    """The scheduler's clean guess is the calibrated guess, at noisy, middle and clean levels."""
    stock = getattr(diffusers, name)(**settings)
    calibrated = calibrate(
        reverie.from_diffusers(unet(), stock), digits[:60], levels=6, generator=seeded()
    )
    model, scheduler = to_diffusers(calibrated)
    scheduler.set_timesteps(20)
    process = calibrated.process
    state = torch.randn(3, 1, 8, 8, generator=seeded(2))
    if "EDM" in name or name.startswith(("Euler", "Heun")):
        state = state * scheduler.init_noise_sigma
    spread = scheduler.sigmas if hasattr(scheduler, "sigmas") else None
    for k, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(state, t) if not family.get("flow") else state
        out = model(seen, t).sample
        step = scheduler.step(out, t, state)
        guess = getattr(step, "pred_original_sample", None)
        if family.get("flow"):
            share = float(scheduler.sigmas[k])
            guess, when = state - share * out, torch.tensor(share).clamp(*process.t_range)
            ours = calibrated(state, when)
        elif family.get("edm"):
            when = process.time(float(spread[k]) ** -2.0).clamp(*process.t_range)
            ours = calibrated(state, when)
        else:
            when = (t.double() + 1) / 1000
            ours = calibrated(seen, when.clamp(*process.t_range))
            if guess is None or name == "HeunDiscreteScheduler":  # from v itself
                signal = scheduler.alphas_cumprod[int(t)] if t == t.round() else None
                if signal is None:
                    alpha, sigma = process.scales(when, seen)
                else:
                    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
                guess = alpha * seen - sigma * out
        scale = max(1.0, float(ours.abs().max()), float(seen.abs().max()))
        assert (guess - ours).abs().max() < 1e-5 * scale, t
        state = step.prev_sample
    assert torch.isfinite(state).all()


def test_a_calibrated_pipeline_draws_our_samples(digits):
    pipe = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler(variance_type="fixed_small"))
    pipe.set_progress_bar_config(disable=True)
    calibrated = calibrate(reverie.from_diffusers(pipe), digits[:60], levels=6, generator=seeded())
    plan = reverie.plan_steps(reverie.measure(calibrated, digits[60:90], levels=8), 6, "log-snr")
    pipe.unet, pipe.scheduler = to_diffusers(calibrated)
    with plan.to_diffusers(pipe.scheduler) as handed:
        images = pipe(4, generator=seeded(3), output_type="pt").images
    generator = seeded(3)
    start = torch.randn(4, 1, 8, 8, generator=generator)
    times = calibrated.process.time(handed.spreads**-2.0).clamp(*calibrated.process.t_range)
    ours = reverie.sample(calibrated, 4, times, init=start, generator=generator)
    assert float((images - (ours / 2 + 0.5).clamp(0, 1)).square().mean().sqrt()) < 3e-5


def test_what_cannot_be_served(digits):
    plain = as_denoiser(torch.nn.Identity(), reverie.processes.VP())
    with pytest.raises(InputError, match="with a model of diffusers inside"):
        to_diffusers(plain)
    denoiser = reverie.from_diffusers(unet(), diffusers.DDPMScheduler())
    with pytest.raises(InputError, match="another family of noise"):
        to_diffusers(denoiser, diffusers.FlowMatchEulerDiscreteScheduler())
    model, _ = to_diffusers(denoiser, diffusers.EulerDiscreteScheduler())
    with pytest.raises(InputError, match="takes no added_cond_kwargs"):
        model(digits[:2], 3, added_cond_kwargs={})


# --- symbols -------------------------------------------------------------------------------------


def test_discrete_ddim_steps_by_the_law_of_uniform_noise():
    """Its step draws x0, then the exact posterior: together our `step_law` (4 s.e. of 40,000)."""
    symbols, steps, k, n = 4, 8, 3, 40_000
    process = Uniform(symbols, 1)
    logits = torch.randn(symbols, generator=seeded(1))
    denoiser = as_denoiser(lambda x, t: logits.expand(*x.shape, symbols), process, "logits")
    state = torch.full((n, 1), 2)
    survive = torch.tensor([k / steps, (k + 1) / steps], dtype=torch.float64)
    t, s = process.time(1 / torch.expm1(-survive.log()))  # e^-sigma is what survives
    law = process.step_law(denoiser(state[:1], t), state[:1], t, s)[0, 0]
    scheduler = diffusers.DiscreteDDIMScheduler(num_inference_steps=steps)
    scheduler.set_timesteps(steps)
    out = scheduler.step(
        logits.expand(n, 1, symbols), k, state, temperature=1.0, generator=seeded(2)
    )
    share = torch.bincount(out.prev_sample.flatten(), minlength=symbols) / n
    assert ((share - law).abs() < 4 * (law * (1 - law) / n).sqrt()).all()


@pytest.mark.parametrize(("name", "settings"), [
    ("AmusedScheduler", dict(mask_token_id=5)), ("BlockRefinementScheduler", {}),
    ("DiscreteDDIMScheduler", {}), ("EntropyBoundScheduler", {}),
])  # fmt: skip
def test_schedulers_of_symbols_are_sent_to_the_wrapper(name, settings):
    with pytest.raises(InputError, match=f"{name} is of symbols: as_denoiser"):
        reverie.from_diffusers(unet(), getattr(diffusers, name)(**settings))
