"""What calibration costs a call, and what it brings to noise-predicting models.

The models are trained here by a plain PyTorch loop, as their authors would: an MLP that predicts
noise on a table of 1,000 betas, linear (Ho et al. 2020) or cosine (Nichol & Dhariwal 2021).
Each is wrapped by `as_denoiser(..., predicts="noise", time="index")` and sampled with and without
calibration. Energy distances are to rows that nothing was fitted on; columns: K = 5, 10, 20, each
ancestral and ddim. The linear guess alone stands beside them, since an energy distance sees little
beyond two moments.
"""

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.preprocessing import QuantileTransformer
from torch import nn

from reverie import as_denoiser, calibrate, guard, measure, plan_steps, sample
from reverie.auditing.metrics.fidelity import energy_distance
from reverie.processes import VP, Tabulated
from timing import paired

STEPS = 1000
DRAWS = 1000


# --- the cost of a call --------------------------------------------------------------------------


def cost():
    """A small U-Net at 3 x 32 x 32 with 64 modes, against itself alone."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(512, 3, 32, 32, generator=generator)
    network = UNet().eval()
    model = as_denoiser(network, VP(), predicts="noise")
    calibrated = calibrate(model, rows[:64], linear_rows=rows, levels=4, generator=generator)
    half = torch.linspace(0, 1, calibrated.table.numel(), dtype=torch.float64)
    calibrated.table = half.reshape(calibrated.table.shape)
    states, t = rows[:32], torch.full((32,), 0.5)
    with torch.no_grad():
        pair = paired(
            lambda: calibrated(states, t),
            lambda: model(states, t),
            repeats=25,
            clock=time.thread_time,
        )
    print(f"calibrated U-Net, batch 32 of 3 x 32 x 32   {pair}")


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x):
        return x + self.body(x)


class UNet(nn.Module):
    """Two resolutions of 32 and 64 channels, 0.2 million weights: small beside any in use."""

    def __init__(self):
        super().__init__()
        self.start = nn.Conv2d(3, 32, 3, padding=1)
        self.high, self.low, self.end = Block(32), nn.Sequential(Block(64), Block(64)), Block(32)
        self.down = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.out = nn.Conv2d(32, 3, 3, padding=1)

    def forward(self, x, t):
        high = self.high(self.start(x))
        return self.out(self.end(high + self.up(self.low(self.down(high)))))


# --- models as outsiders make them ---------------------------------------------------------------


class Noise(nn.Module):
    """An MLP of width `width` that is told the index of the level by sines and cosines."""

    def __init__(self, dim, width=256):
        super().__init__()
        self.register_buffer("waves", torch.exp(-math.log(1e4) * torch.arange(32) / 32))
        self.net = nn.Sequential(
            nn.Linear(dim + 64, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, dim),
        )  # fmt: skip

    def forward(self, x, index):
        angle = index.float()[:, None] * self.waves
        return self.net(torch.cat([x, angle.sin(), angle.cos()], 1))


def table(kind):
    """alphas_cumprod (1000,) in float64."""
    if kind == "linear":
        betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    else:
        t = torch.arange(STEPS + 1, dtype=torch.float64) / STEPS
        bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2).square()
        betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    return torch.cumprod(1 - betas, 0)


def train(rows, alphas, iterations, seed=0):
    """The loop of every tutorial: a uniform index, the mean squared error of the noise."""
    torch.manual_seed(seed)
    model = Noise(rows.shape[1])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    bar = alphas.float()
    for _ in range(iterations):
        x = rows[torch.randint(len(rows), (256,))]
        index = torch.randint(STEPS, (256,))
        noise = torch.randn_like(x)
        a = bar[index][:, None]
        loss = (model(a.sqrt() * x + (1 - a).sqrt() * noise, index) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    return model.eval()


@torch.no_grad()
def own_sampler(model, alphas, dim, n, seed=0):
    """Their ancestral loop over all 1,000 levels."""
    torch.manual_seed(seed)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1]])
    x = torch.randn(n, dim)
    for i in reversed(range(STEPS)):
        beta = 1 - alphas[i] / before[i]
        noise = model(x, torch.full((n,), i))
        x = (x - float(beta / (1 - alphas[i]).sqrt()) * noise) / float((1 - beta).sqrt())
        if i:
            spread = float((beta * (1 - before[i]) / (1 - alphas[i])).sqrt())
            x = x + spread * torch.randn_like(x)
    return x


def housing():
    """Nine numeric columns of California housing, normalised by quantiles as in TabDDPM."""
    place = Path(os.environ["REVERIE_DATA"]) / "california_housing" / "housing.csv.gz"
    text = np.genfromtxt(place, delimiter=",", skip_header=1, usecols=range(9))
    text = text[np.isfinite(text).all(1)]
    order = np.random.default_rng(0).permutation(len(text))[:8000]
    scaler = QuantileTransformer(n_quantiles=1000, output_distribution="normal", random_state=0)
    scaler.fit(text[order[:5000]])
    return split(torch.tensor(scaler.transform(text[order]), dtype=torch.float32), 5000, 6500)


def digits():
    rows = torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return split(rows[order], 1000, 1400)


def split(rows, first, second):
    return rows[:first], rows[first:second], rows[second:]


def outsiders(iterations):
    sets = {"digits": digits}
    if "REVERIE_DATA" in os.environ:
        sets["housing"] = housing
    for name, load in sets.items():
        training, holdout, fresh = load()
        print(f"\n{name}: real rows {energy(training, fresh):.4f}")
        for kind in ("linear", "cosine"):
            alphas = table(kind)
            model = train(training, alphas, iterations)
            theirs = own_sampler(model, alphas, training.shape[1], DRAWS)
            print(f"{name} {kind}: own sampler, 1,000 steps {energy(theirs, fresh):.4f}")
            denoiser = as_denoiser(model, Tabulated(alphas), "noise", "index", STEPS)
            compare(denoiser, training, holdout, fresh)


def energy(x, fresh):
    if not torch.isfinite(x).all():
        return math.inf
    return energy_distance(x[:DRAWS].double().numpy(), fresh.double().numpy())


def compare(denoiser, training, holdout, fresh):
    """Guard, calibration, and the energy distance of each plan and sampler."""
    seed = torch.Generator().manual_seed(1)
    curve = measure(denoiser, holdout, generator=seed)
    print("  guard:", guard(curve, rows=holdout, predicts="noise", generator=seed))
    models = {"as it is": (denoiser, curve)}
    for per in ("level", "mode"):
        better = calibrate(denoiser, holdout, per=per, linear_rows=training, generator=seed)
        print(f"  {per}: {better.calibration}")
        models[f"calibrated per {per}"] = (better, better.calibration.after)
        # what an energy distance does not see of a model: Gaussian samples
        models["linear guess alone"] = (better.reference, better.calibration.reference)
    for name, (model, own) in models.items():
        for clock in ("nats", "samples"):
            cells = []
            for steps in (5, 10, 20):
                plan = plan_steps(own, steps, clock=clock)
                for sampler in ("ancestral", "ddim"):
                    noise = torch.Generator().manual_seed(2)
                    x = sample(
                        model, DRAWS, plan, sampler, shape=training.shape[1:], generator=noise
                    )
                    cells.append(f"{energy(x, fresh):9.4g}")
            print(f"  {name:22} {clock:8}", *cells)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--outsiders", action="store_true", help="train models too: minutes")
    parser.add_argument("--iterations", type=int, default=6000)
    chosen = parser.parse_args()
    cost()
    if chosen.outsiders:
        outsiders(chosen.iterations)
