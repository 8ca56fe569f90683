"""Sampler overhead: a null network, batch 4096 x 2, 64 steps; microseconds a step above a bare
loop of the same arithmetic with its coefficients in a list. Must: at most 30 microseconds. Peers
run on the same network and grid when they are installed."""

import numpy as np
import torch

from reverie.denoisers import Denoiser
from reverie.processes import EDM
from reverie.sampling import sample
from timing import paired

STEPS, BATCH = 64, 4096


class Null(Denoiser):
    def __init__(self):
        super().__init__()
        self.process = EDM()

    def forward(self, state, t, condition=None):
        return state


def bare(init, noise, parts=2):
    """parts: terms of a step beside the state (the guess, an earlier guess, the noise)."""

    def run():
        state = init
        for _ in range(STEPS):
            guess = state
            state = torch.add(state * 0.9, guess, alpha=0.1)
            if parts > 2:
                state = torch.add(state, guess, alpha=0.01)
            if noise:
                state = torch.add(state, torch.randn(state.shape), alpha=0.1)
        return state

    return run


def diffusers_loop(init, kind):
    import diffusers

    made = {
        "Euler": lambda: diffusers.EulerDiscreteScheduler(),
        "DDIM": lambda: diffusers.DDIMScheduler(),
        "DPM++ 2M": lambda: diffusers.DPMSolverMultistepScheduler(),
    }[kind]()
    made.set_timesteps(STEPS)

    def run():
        state = init
        made.set_timesteps(STEPS)
        for t in made.timesteps:
            scaled = made.scale_model_input(state, t)
            state = made.step(scaled, t, state).prev_sample
        return state

    return run


def main():
    torch.manual_seed(0)
    init, times = torch.randn(BATCH, 2), torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)
    model = Null()
    with torch.no_grad():
        for sampler, noise, parts in (
            ("ddim", False, 2),
            ("dpm++2m", False, 3),
            ("ancestral", True, 2),
        ):
            pair = paired(
                lambda s=sampler: sample(model, BATCH, times, s, init=init),
                bare(init, noise, parts), repeats=25, warmup=3,
            )  # fmt: skip
            above = (pair.ours - pair.theirs) / STEPS * 1e6
            print(f"reverie {sampler:<10} {above:7.1f} us a step above a bare loop   {pair}")
        try:
            import diffusers  # noqa: F401
        except ImportError:
            print("diffusers is not installed: no peer rows")
            return
        for kind in ("Euler", "DDIM", "DPM++ 2M"):
            loop = bare(init, False)
            pair = paired(diffusers_loop(init, kind), loop, repeats=15, warmup=2)
            above = (pair.ours - pair.theirs) / STEPS * 1e6
            print(f"diffusers {kind:<8} {above:7.1f} us a step above a bare loop")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
