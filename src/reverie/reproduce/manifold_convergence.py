"""How near samples come to data on a manifold: by the stopping time, the steps, the dimension.

The bounds of De Bortoli 2022 (arXiv 2208.05314, known from its abstract) on the distance W1 of
samples to data on a manifold have a term sqrt(eps) in the stopping time, which is 1 in sigma, and
sqrt(delta) in the step, behind constants exponential in 1 / eps, for which no number is printed.
They are bounds and no rates; here the rates of exact scores are measured beside them.

    stopping at sigma = sqrt(eps)    E dist(state, set) <= W1 <= sigma E|z|
        left: no coupling moves a state by less; right: the coupling of noising itself
    steps, on circles                W1 <= E dist + arcs W1(angles)
    steps, on the torus              W1 >= tube W1(tube angles), a 1-Lipschitz image

The number of steps that a tolerance in nats takes grows with the intrinsic dimension k and not
with the ambient one (Potaptchik, Azangulov, Deligiannidis 2025): for the exact guess the loss
curve of k independent circles is k times that of one, wherever they lie.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.auditing.facts.neighbours import nearest
from reverie.curve import measure
from reverie.denoisers import Denoiser, Memoriser, ResidualMLP
from reverie.plan import plan_steps
from reverie.processes import EDM
from reverie.reproduce.manifold_laws import Circles, RingTorus, quantiles
from reverie.reproduce.networks import build_network, digits, train
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.sampling import sample
from reverie.theory.copying import geometric_times

PROCESS = EDM(5e-3, 10)
KAPPA = 1.0  # of the circles' von Mises law: not uniform, so that steps can get it wrong
ENDS = np.geomspace(0.2, 0.01, 6)  # sigma, radius 1
DIGIT_ENDS = np.geomspace(0.2, 0.01, 6)  # digits lie about 2 apart in 64 coordinates
COUNTS = (4, 6, 9, 13, 19, 28)  # of steps
LONG = 40
DRAWS, DIGIT_DRAWS = 1000, 300
MANY = 40_000  # draws where the steps are counted: angles of fresh draws are off by 1 / sqrt of it
STOP = 0.02
INTRINSIC, AMBIENT = (1, 2, 4, 8, 16), (32, 64, 128, 256)
NATS, MOST = 0.5, 2000
CURVE_LEVELS, CURVE_ROWS = 33, 400
NET_ROWS, WIDTH, STEPS, BATCH, RATE, LEVELS = 4000, 96, 1500, 128, 2e-3, (-2.0, 1.3)
NETS = ((1, 8), (1, 64), (4, 64))  # intrinsic and ambient dimension


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table; `full` draws ten times more and trains four times longer."""
    figure, axes = panels(3)
    more = 10 if full else 1
    rows = _stopping(axes[0], DRAWS * more, seed)
    rows += _stepping(axes[1], MANY * more, seed)
    rows += _dimensions(axes[2], STEPS * (4 if full else 1), seed)
    save_figure(figure, out / "manifold_convergence.png")
    settings = dict(
        draws=DRAWS * more, draws_by_steps=MANY * more, stop=f"sigma = {STOP}",
        tolerance=f"{NATS} nats", kappa=KAPPA,
    )  # fmt: skip
    title = "Convergence under the manifold hypothesis (De Bortoli 2022)"
    return write_table(out, title, rows, seed, settings)


# --- the stopping time ---------------------------------------------------------------------------


def states(
    model: Denoiser, n: int, end: float, steps: int, shape: tuple[int, ...], seed: int
) -> tuple[Tensor, Tensor]:
    """States (n, *shape) where an ancestral reversal ends at sigma = `end`, and their guesses."""
    times = geometric_times(PROCESS, 10, end, steps)
    generator = torch.Generator().manual_seed(seed)
    visits = sample.trajectory(
        model, n, times, "ancestral", shape=shape, generator=generator, dtype=torch.float64
    )
    last = deque(visits, maxlen=1).pop()
    return last.state, last.guess


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of log y on log x by least squares, and its standard error from the residuals."""
    a, b = np.log(x), np.log(y)
    (found, _), covariance = np.polyfit(a, b, 1, cov="unscaled")
    left = b - np.polyval(np.polyfit(a, b, 1), a)
    return float(found), float(math.sqrt(covariance[0, 0] * (left @ left) / (len(a) - 2)))


def _stopping(axis: Any, draws: int, seed: int) -> list[Row]:
    """W1 between its two bounds, for three sets."""
    rows: list[Row] = []
    images = digits(torch.Generator().manual_seed(seed)).double()
    laws = {
        "circle": (Circles(PROCESS, kappa=KAPPA), (2,), ENDS, draws),
        "torus": (RingTorus(PROCESS), (3,), ENDS, draws),
        "digits (the law of the rows)": (
            Memoriser(PROCESS, images), tuple(images.shape[1:]), DIGIT_ENDS, DIGIT_DRAWS
        ),
    }  # fmt: skip
    for name, (law, shape, ends, n) in laws.items():
        least = []
        for end in ends:
            found = states(law, n, float(end), LONG, shape, seed)[0]
            away = (
                law.distance(found).numpy()
                if isinstance(law, Circles | RingTorus)
                else nearest(found.flatten(1).numpy(), images.flatten(1).numpy(), 1)[0][:, 0]
            )
            least.append(float(away.mean()))
        dim = math.prod(shape)
        length = math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
        value, error = slope(ends**2, np.array(least))
        rows.append(
            Row(f"W1 against the stopping time, slope, {name}", value, 0.5, "D", error,
                f"lower bound; at sigma = {ends[-1]:.3g} W1 lies in [{least[-1]:.3g}, "
                f"{length * ends[-1]:.3g}]")
        )  # fmt: skip
        (line,) = axis.loglog(ends**2, least, "o-", ms=3, label=name)
        axis.loglog(ends**2, length * ends, "--", lw=0.8, color=line.get_color())
    axis.set(xlabel="stopping time (sigma squared)", ylabel="W1: bounds from below and above")
    axis.legend(frameon=False, fontsize=8)
    return rows


# --- the step ------------------------------------------------------------------------------------


def arcs(angles: np.ndarray, expected: np.ndarray) -> float:
    """W1 on the circle between as many angles (n,) as quantiles (n,), in radians.

    The area between the two distribution functions, after the shift that makes it least.
    """
    both = np.concatenate([angles, expected]) % (2 * math.pi)
    order = np.argsort(both, kind="stable")
    sign = np.r_[np.ones(len(angles)) / len(angles), -np.ones(len(expected)) / len(expected)]
    gap = np.cumsum(sign[order])
    width = np.diff(both[order], append=both[order[0]] + 2 * math.pi)
    by_gap = np.argsort(gap)
    middle = gap[by_gap][np.searchsorted(np.cumsum(width[by_gap]), math.pi)]
    return float((np.abs(gap - middle) * width).sum())


def expected_angles(law: Circles | RingTorus, n: int) -> np.ndarray:
    """Quantiles (n,) of the law of the circle's angle, or of the tube's."""
    levels = (np.arange(n) + 0.5) / n
    if isinstance(law, Circles):
        return quantiles(levels, law.kappa)
    grid = np.linspace(-math.pi, math.pi, 20_001)
    share = law.tube / law.ring  # density 1 + share cos v
    return np.interp(levels, (grid + math.pi + share * np.sin(grid)) / (2 * math.pi), grid)


def angles_of(law: Circles | RingTorus, points: Tensor) -> np.ndarray:
    """The angles (n,) that `expected_angles` speaks of."""
    if isinstance(law, Circles):
        return law.angles(points)[:, 0].numpy()
    flat = points[:, :2].norm(dim=1) - law.ring
    return torch.atan2(points[:, 2], flat).numpy()


def _stepping(axis: Any, draws: int, seed: int) -> list[Row]:
    """W1 against the step in log sigma, of samples after the last denoise."""
    rows: list[Row] = []
    delta = math.log(10 / STOP) / np.array(COUNTS)
    laws = {
        "circle": Circles(PROCESS, kappa=KAPPA), "torus (a lower bound)": RingTorus(PROCESS),
    }  # fmt: skip
    for name, law in laws.items():
        on_circle = isinstance(law, Circles)
        n = draws if on_circle else draws // 20
        known, fresh = expected_angles(law, n), torch.Generator().manual_seed(seed + 1)
        size = 1.0 if on_circle else law.tube
        chance = size * arcs(angles_of(law, law.draw(n, fresh)), known)
        found = []
        for k in COUNTS:
            guess = states(law, n, STOP, k, (2 if on_circle else 3,), seed)[1]
            off = float(law.distance(guess).mean()) if on_circle else 0.0
            found.append(size * arcs(angles_of(law, guess), known) + off)
        used = np.array(found) > 3 * chance
        rows.append(Row(f"W1 of fresh draws, {name}", chance, note=f"{n:,} of them: chance"))
        if used.sum() >= 3:
            value, error = slope(delta[used], np.array(found)[used])
            rows.append(
                Row(f"W1 against the step, slope, {name}", value, 0.5, "D", error,
                    f"the bound's exponent; {used.sum()} of {len(COUNTS)} counts are above chance")
            )  # fmt: skip
        (line,) = axis.loglog(delta, found, "o-", ms=3, label=name)
        axis.axhline(chance, color=line.get_color(), lw=0.8, ls=":")
    axis.loglog(delta, 0.3 * (delta / delta[0]) ** 0.5, "--", color="grey", lw=0.8,
                label="slope 1/2")  # fmt: skip
    axis.set(xlabel="step in log sigma", ylabel="W1 (dotted: chance)")
    axis.legend(frameon=False, fontsize=8)
    return rows


# --- the dimension -------------------------------------------------------------------------------


def embedded(circles: int, ambient: int, seed: int) -> Circles:
    """k circles, placed isometrically at random in R^`ambient`."""
    draw = torch.Generator().manual_seed(seed)
    square = torch.randn(ambient, 2 * circles, generator=draw, dtype=torch.float64)
    return Circles(PROCESS, circles, KAPPA, torch.linalg.qr(square)[0])


def needed(model: Denoiser, rows: Tensor, seed: int) -> int:
    """Least number of equal steps in log SNR, between two fixed ends, that add at most NATS."""
    ends = geometric_times(PROCESS, 10, STOP, CURVE_LEVELS - 1)
    curve = measure(
        model, rows, PROCESS.clock(ends).reshape(len(ends), -1).mean(1).numpy(),
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    counts = range(1, MOST)
    place = bisect_left(
        counts, -NATS, key=lambda k: -plan_steps(curve, k, method="log-snr", clock="nats").excess
    )
    return counts[place]


def _dimensions(axis: Any, steps: int, seed: int) -> list[Row]:
    """Steps needed against both dimensions, exact and learned."""
    found = {}
    for k in INTRINSIC:
        for ambient in AMBIENT if k == INTRINSIC[1] else AMBIENT[:1]:
            law = embedded(k, ambient, seed)
            drawn = law.draw(CURVE_ROWS, torch.Generator().manual_seed(seed))
            found[k, ambient] = needed(law, drawn, seed)
    first, second = AMBIENT[0], INTRINSIC[1]
    by_k = np.array([found[k, first] for k in INTRINSIC], float)
    by_d = np.array([found[second, d] for d in AMBIENT], float)
    rows = []
    text = "the law states linear dependence; "
    value, error = slope(np.array(INTRINSIC), by_k)
    rows.append(Row(f"steps against the intrinsic dimension, slope, D = {first}", value, 1.0, "D",
                    error, text + ", ".join(f"{int(c)}" for c in by_k)))  # fmt: skip
    value, error = slope(np.array(AMBIENT), by_d)
    rows.append(Row(f"steps against the ambient dimension, slope, k = {second}", value, 0.0, "D",
                    error, ", ".join(f"{int(c)}" for c in by_d)))  # fmt: skip
    axis.loglog(INTRINSIC, by_k, "o-", ms=3, label=f"intrinsic k, D = {first}")
    axis.loglog(AMBIENT, by_d, "s-", ms=3, label=f"ambient D, k = {second}")
    for k, ambient in NETS:
        count = needed(*_learned(k, ambient, steps, seed), seed)
        rows.append(Row(f"steps of a trained network, k = {k}, D = {ambient}", count))
        axis.plot([k], [count], "x", color="C3")
        axis.annotate(f"network, D = {ambient}", (k, count), fontsize=7)
    axis.set(xlabel="dimension", ylabel=f"steps for an excess of {NATS} nats")
    axis.legend(frameon=False, fontsize=8)
    return rows


def _learned(k: int, ambient: int, steps: int, seed: int) -> tuple[Denoiser, Tensor]:
    """A network trained on k circles in R^`ambient`, and held-out rows."""
    law, draw = embedded(k, ambient, seed), torch.Generator().manual_seed(seed)
    rows, held = law.draw(NET_ROWS, draw).float(), law.draw(CURVE_ROWS, draw).float()
    network = build_network(PROCESS, partial(ResidualMLP, (ambient,), WIDTH, 3), rows, seed)
    train(network, rows, steps, generator=draw, batch_size=BATCH, rate=RATE, log_sigma=LEVELS)
    return network, held
