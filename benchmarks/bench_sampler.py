"""Sampler overhead: a null network, batch 4096 x 2, 64 steps, all libraries in one process.

Must: at most 30 microseconds a step above a bare loop of the same arithmetic; no slower than the
fastest of diffusers, azula and k-diffusion on any shared sampler; outputs equal to 1e-5 where the
algorithm is the same. Peers run on the same network and levels, where they are installed. CPU
time of one thread, in pairs, so that a busy machine disturbs neither side.
"""

import time

import torch
from torch import nn

import peers
from reverie.denoisers import Denoiser
from reverie.processes import VE
from reverie.sampling import sample
from timing import paired

STEPS, BATCH = 64, 4096
ENDS = (0.02, 20.0)
TERMS = {"ddim": 1, "ancestral": 1, "dpm++2m": 2, "sde-dpm++2m": 2}  # guesses in one step's sum
NOISY = ("ancestral", "sde-dpm++2m")


class Model(Denoiser):
    """Ours around a peer's denoise(x, sigma); the null network returns its input."""

    def __init__(self, denoise=None):
        super().__init__()
        self.process, self.denoise = VE(*ENDS), denoise

    def forward(self, state, t, condition=None):
        if self.denoise is None:
            return state
        return self.denoise(state, self.process.sigma(t[0]))


class Null(nn.Module):
    def forward(self, x, sigma):
        return x


def bent(x, sigma):
    """A denoiser that is not linear, for the comparison of outputs."""
    return (0.5 * x + 0.2 * torch.sin(3 * x)) / (0.5 + sigma**2)


def bare(init, terms, noise):
    """The arithmetic of a step with its coefficients at hand: what no library can save."""

    def run():
        state, past = init, init
        for _ in range(STEPS):
            guess = state
            state = state * 0.9
            for value in (guess, past)[:terms]:
                state.add_(value, alpha=0.05)
            if noise:
                state.add_(torch.randn(state.shape), alpha=0.1)
            past = guess
        return state

    return run


def gap(peer, times, sigmas):
    """Largest difference of two samples from the same states and the same noise."""
    torch.manual_seed(1)
    init = 20 * torch.randn(8, 2)
    torch.manual_seed(2)
    theirs = peer.run(bent, init, sigmas.float())
    torch.manual_seed(2)
    return float((sample(Model(bent), 8, times, peer.sampler, init=init) - theirs).abs().max())


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    init, model, null = 20 * torch.randn(BATCH, 2), Model(), Null()
    times = torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)
    sigmas = model.process.sigma(times)
    with torch.no_grad():
        for sampler, terms in TERMS.items():
            pair = paired(
                lambda s=sampler: sample(model, BATCH, times, s, init=init),
                bare(init, terms, sampler in NOISY), repeats=25, warmup=3, clock=time.thread_time,
            )  # fmt: skip
            above = (pair.ours - pair.theirs) / STEPS * 1e6
            print(f"reverie {sampler:<12} {above:6.1f} us a step above a bare loop   {pair}")
        for peer in sorted(peers.installed(), key=lambda peer: peer.sampler):
            pair = paired(
                lambda s=peer.sampler: sample(model, BATCH, times, s, init=init),
                lambda p=peer: p.run(null, init, sigmas.float()),
                repeats=15, warmup=2, clock=time.thread_time,
            )  # fmt: skip
            ours, theirs = (1e6 * seconds / STEPS for seconds in (pair.ours, pair.theirs))
            apart = peer.unlike or f"outputs within {gap(peer, times, sigmas):.0e}"
            print(
                f"{peer.sampler:<12} reverie {ours:6.1f} us a step, {peer.library:<11} "
                f"{theirs:6.1f}: ratio {pair.ratio:.2f} [{pair.low:.2f}, {pair.high:.2f}]   "
                f"{apart}"
            )


if __name__ == "__main__":
    main()
