"""The same algorithms as the field's own implementations: equal to 1e-5 on the same noise."""

import pytest
import torch

from reverie.processes import VE, VP
from solver_laws import Mixture, grid, seed_after_the_start, visits_of

DIFFUSERS = [  # ours, their scheduler, its settings
    ("ancestral", "DPMSolverMultistep", dict(algorithm_type="sde-dpmsolver++", solver_order=1)),
    ("dpm++2m", "DPMSolverMultistep", dict(algorithm_type="dpmsolver++", solver_order=2)),
    ("sde-dpm++2m", "DPMSolverMultistep", dict(algorithm_type="sde-dpmsolver++", solver_order=2)),
    (
        "exponential-euler",
        "DPMSolverMultistep",
        dict(algorithm_type="sde-dpmsolver", solver_order=1, final_sigmas_type="sigma_min"),
    ),
    ("unipc-1", "UniPCMultistep", dict(solver_order=1)),
    ("unipc-2", "UniPCMultistep", dict(solver_order=2)),
    ("unipc-3", "UniPCMultistep", dict(solver_order=3)),
]


@pytest.mark.filterwarnings("ignore:.*sde-dpmsolver.*deprecated")
@pytest.mark.parametrize(("sampler", "name", "settings"), DIFFUSERS)
def test_equal_to_diffusers(sampler, name, settings):
    """Same plan, same noise, every guess on the way, in float64."""
    diffusers = pytest.importorskip("diffusers")
    process, steps = VP(t_min=1e-3), 12
    times = grid(process, steps, (15.0, 0.05))
    ours = visits_of(process, times, sampler)
    theirs = getattr(diffusers, name + "Scheduler")(
        prediction_type="sample", lower_order_final=False, **settings
    )
    _hand_over(theirs, process, times)
    state, seed = ours[0].state, seed_after_the_start()
    for k, visit in enumerate(ours):
        guess = Mixture(process)(state, times[k])
        assert torch.allclose(guess, visit.guess, atol=1e-5)
        if k < steps:
            drawn = {}
            if "sde" in settings.get("algorithm_type", ""):
                drawn["variance_noise"] = torch.randn(5, 3, generator=seed, dtype=torch.float64)
            state = theirs.step(guess, theirs.timesteps[k], state, **drawn).prev_sample
            assert state.dtype == torch.float64


def _hand_over(scheduler, process, times):
    """Levels of ours and the last 0, set where every scheduler reads them."""
    scheduler.set_timesteps(len(times))
    spread = process.sigma(times) / process.alpha(times)
    scheduler.sigmas = torch.cat([spread, torch.zeros(1, dtype=torch.float64)])
    scheduler.timesteps = torch.arange(len(times), 0, -1).double()
    scheduler.set_begin_index(0)


def test_dpm_2s_is_diffusers_singlestep_on_the_plan_with_its_midpoints():
    diffusers = pytest.importorskip("diffusers")
    process = VP(t_min=1e-3)
    fine = grid(process, 20, (15.0, 0.05))
    ours = visits_of(process, fine[::2], "dpm++2s")
    theirs = diffusers.DPMSolverSinglestepScheduler(
        solver_order=2, prediction_type="sample", lower_order_final=True
    )
    _hand_over(theirs, process, fine)
    theirs.order_list = [1, 2] * 10 + [1]
    state = ours[0].state
    for k in range(20):
        guess = Mixture(process)(state, fine[k])
        state = theirs.step(guess, theirs.timesteps[k], state).prev_sample
        if k % 2:
            assert torch.allclose(state, ours[(k + 1) // 2].state, atol=1e-5)


@pytest.mark.parametrize(("sampler", "name"), [("ddim", "Euler"), ("heun", "Heun")])
def test_equal_to_diffusers_in_sigma(sampler, name):
    """Their Euler and Heun work on x / alpha, and in single precision: 1e-5 of the scale."""
    diffusers = pytest.importorskip("diffusers")
    process, steps = VE(0.05, 15), 12
    times = grid(process, steps, (15.0, 0.05))
    ours = visits_of(process, times, sampler)
    theirs = getattr(diffusers, name + "DiscreteScheduler")(prediction_type="sample")
    theirs.set_timesteps(steps + 1)
    sigmas = process.sigma(times)
    stages = 1 + (name == "Heun")
    inner = sigmas[1:].repeat_interleave(stages)
    theirs.sigmas = torch.cat([sigmas[:1], inner, torch.zeros(1, dtype=torch.float64)])
    theirs.timesteps = torch.arange(len(inner) + 1, 0, -1).double()
    theirs.set_begin_index(0)
    state = ours[0].state
    for k in range(len(inner)):
        level = sigmas[(k + stages - 1) // stages if name == "Heun" else k]
        guess = Mixture(process)(state, process.time(level**-2))
        state = theirs.step(guess, theirs.timesteps[k], state).prev_sample.double()
        if (k + 1) % stages == 0:
            assert torch.allclose(state, ours[(k + 1) // stages].state, atol=2e-5)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "heun"])
def test_equal_to_azula(sampler):
    pytest.importorskip("azula")
    from azula.denoise import Denoiser as TheirDenoiser
    from azula.denoise import DiracPosterior
    from azula.noise import VESchedule
    from azula.sample import DDPMSampler, EulerSampler, HeunSampler

    process, steps = VE(0.05, 15), 12
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    class Theirs(TheirDenoiser):
        def __init__(self):
            super().__init__()
            self.schedule = VESchedule(0.05, 15)

        def forward(self, x_t, t, **kwargs):
            return DiracPosterior(Mixture(process)(x_t, t))

    kind = {"ancestral": DDPMSampler, "ddim": EulerSampler, "heun": HeunSampler}[sampler]
    ours = visits_of(process, times, sampler)
    with torch.random.fork_rng():
        torch.set_rng_state(seed_after_the_start().get_state())
        theirs = kind(Theirs(), steps=steps, silent=True, dtype=torch.float64)(ours[0].state)
    assert torch.allclose(theirs, ours[-1].state, atol=1e-5)
