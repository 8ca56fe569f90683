"""Other people's samplers as plain calls: states -> samples, on sigmas from noisy to clean.

Each `Peer` runs one denoiser xhat(x, sigma) on alpha = 1 and ends with a last denoise, as reverie
does. A library that is not installed gives no peers.
"""

import importlib.util
import sys
import types
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Peer:
    library: str
    sampler: str  # reverie's name of the same algorithm
    run: object  # (denoise, init, sigmas) -> sample
    unlike: str = ""  # why outputs need not agree; empty where the arithmetic is the same


def installed():
    return [*_diffusers(), *_azula(), *_k_diffusion()]


def _diffusers():
    if importlib.util.find_spec("diffusers") is None:
        return
    import diffusers

    in_sigma = (diffusers.EulerDiscreteScheduler, diffusers.HeunDiscreteScheduler)

    def loop(kind, stages=1, midpoints=False, **settings):
        scheduler = kind(prediction_type="sample", **settings)

        def run(denoise, init, sigmas):
            levels = _with_midpoints(sigmas) if midpoints else sigmas
            inner = levels[1:].repeat_interleave(stages)
            count = len(inner) + 1
            scheduler.set_timesteps(len(levels))
            scheduler.sigmas = torch.cat([levels[:1], inner, torch.zeros(1)])
            scheduler.timesteps = torch.arange(count, 0, -1).double()
            scheduler.set_begin_index(0)
            scheduler.is_scale_input_called = True
            if midpoints:
                scheduler.order_list = [1, 2] * (len(sigmas) - 1) + [1]
            asked = levels[[(k + stages - 1) // stages for k in range(count)]]
            # Euler and Heun work on alpha = 1, the others on alpha = 1 / sqrt(1 + sigma^2)
            alphas = torch.ones(count) if kind in in_sigma else (1 + asked**2).rsqrt()
            state = init * alphas[0]
            for t, sigma, alpha in zip(
                scheduler.timesteps, asked.tolist(), alphas.tolist(), strict=True
            ):
                guess = denoise(state if kind in in_sigma else state / alpha, sigma)
                state = scheduler.step(guess, t, state).prev_sample
            return state

        return run

    matching = diffusers.FlowMatchEulerDiscreteScheduler()

    def flow(velocity, init, sigmas):
        matching.set_timesteps(sigmas=(sigmas / (1 + sigmas)).tolist())
        state = init
        for t in matching.timesteps:
            state = matching.step(velocity(state, t), t, state).prev_sample
        return state

    yield Peer("diffusers", "ddim", flow, "its flow matching, in velocities")
    multistep = diffusers.DPMSolverMultistepScheduler
    singlestep = diffusers.DPMSolverSinglestepScheduler
    yield Peer("diffusers", "ddim", loop(in_sigma[0]))
    yield Peer("diffusers", "heun", loop(in_sigma[1], stages=2))
    yield Peer("diffusers", "dpm++2m", loop(multistep))
    sde = dict(algorithm_type="sde-dpmsolver++")
    yield Peer("diffusers", "ancestral", loop(multistep, solver_order=1, **sde))
    yield Peer("diffusers", "sde-dpm++2m", loop(multistep, **sde))
    yield Peer("diffusers", "dpm++2s", loop(singlestep, midpoints=True, lower_order_final=True))
    for order in (1, 2):
        unipc = loop(diffusers.UniPCMultistepScheduler, solver_order=order)
        yield Peer("diffusers", f"unipc-{order}", unipc)


def _with_midpoints(sigmas):
    middle = (sigmas[1:] * sigmas[:-1]).sqrt()
    return torch.cat([torch.stack([sigmas[:-1], middle], 1).flatten(), sigmas[-1:]])


def _azula():
    if importlib.util.find_spec("azula") is None:
        return
    from azula.denoise import Denoiser, DiracPosterior
    from azula.noise import VESchedule
    from azula.sample import DDPMSampler, EulerSampler, HeunSampler, xEABSampler

    class Model(Denoiser):
        def __init__(self, denoise, ends):
            super().__init__()
            self.denoise, self.schedule = denoise, VESchedule(*ends)

        def forward(self, x_t, t, **kwargs):
            return DiracPosterior(self.denoise(x_t, self.schedule.sigma(t)))

    def call(kind, **settings):
        def run(denoise, init, sigmas):  # sigmas must be geometric: azula has no free plans
            model = Model(denoise, (float(sigmas[-1]), float(sigmas[0])))
            sampler = kind(model, steps=len(sigmas) - 1, silent=True, **settings)
            return denoise(sampler(init), sigmas[-1])

        return run

    yield Peer("azula", "ddim", call(EulerSampler))
    yield Peer("azula", "ancestral", call(DDPMSampler))
    yield Peer("azula", "heun", call(HeunSampler))
    yield Peer("azula", "dpm++2m", call(xEABSampler, order=2), "exact integrals of the line")


def _k_diffusion():
    sampling = _k_sampling()
    if sampling is None:
        return

    def call(name, **settings):
        def run(denoise, init, sigmas):
            def model(x, sigma):
                return denoise(x, sigma[0])

            noise = dict(noise_sampler=lambda a, b: torch.randn_like(init))
            extra = noise if settings.get("eta") or name.endswith("sde") else {}
            every = torch.cat([sigmas, torch.zeros(1)])
            return getattr(sampling, name)(model, init, every, disable=True, **settings, **extra)

        return run

    yield Peer("k-diffusion", "ddim", call("sample_euler"))
    yield Peer("k-diffusion", "ancestral", call("sample_euler_ancestral", eta=1.0))
    yield Peer("k-diffusion", "heun", call("sample_heun"))
    yield Peer("k-diffusion", "dpm++2m", call("sample_dpmpp_2m"))
    yield Peer("k-diffusion", "sde-dpm++2m", call("sample_dpmpp_2m_sde"))
    yield Peer("k-diffusion", "dpm++2s", call("sample_dpmpp_2s_ancestral", eta=0.0))


def _k_sampling():
    """k_diffusion.sampling alone: its package pulls in image models that no sampler needs."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or importlib.util.find_spec("torchsde") is None:
        return None
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__ = list(spec.submodule_search_locations or [])
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    package.utils = utils
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    return importlib.import_module("k_diffusion.sampling")
