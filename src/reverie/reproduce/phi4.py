"""The phi^4 field: its critical point from our own chains, and a learned cascade against them.

Binder's cumulants of two lattice sizes cross at the critical beta, about .68 (Guth, Coste,
De Bortoli & Mallat 2022, whose field at .68 is critical). A wavelet cascade is then trained on
fields drawn there, and its samples' energies are held against fresh ones: the energy is a fourth
power of every site, and so looks at the finest scale and at single-site laws at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from reverie.cascade.wavelets import Cascade, fit_cascade
from reverie.curve import measure
from reverie.denoisers import Network
from reverie.denoisers.networks.convolution import Convolutional
from reverie.plan import plan_steps
from reverie.processes import EDM
from reverie.reproduce.tables import Row, panels, save_figure, write_table
from reverie.theory.phi4 import Chains, binder, energy

BETAS, SIDES, CRITICAL = (0.66, 0.68, 0.70), (8, 16), 0.68
KNOWN = {(8, 0.66): 0.552, (16, 0.66): 0.517, (8, 0.68): 0.599, (16, 0.68): 0.603,
         (8, 0.70): 0.624, (16, 0.70): 0.642}  # fmt: skip
WARM, APART, GROUPS = 40, 4, 16  # rounds before and between readings; groups of chains for errors
STEPS = 32  # of the sampler, at every scale


def binder_curve(side: int, chains: int, readings: int, seed: int) -> np.ndarray:
    """Cumulants (betas, 1 + GROUPS): of all chains, and of every group left out (jackknife)."""
    found = []
    for place, beta in enumerate(BETAS):
        walk = Chains(chains, side, beta, seed + 100 * place + side)
        walk.advance(WARM)
        seen = []
        for _ in range(readings):
            walk.advance(APART)
            seen.append(walk.fields.mean((1, 2)))
        groups = np.array(seen).T.reshape(GROUPS, -1)
        left_out = [np.delete(groups, g, 0).ravel() for g in range(GROUPS)]
        found.append([binder(groups.ravel()), *map(binder, left_out)])
    return np.array(found)


def crossing(small: np.ndarray, large: np.ndarray) -> float:
    """Beta at which the cumulants (betas,) of two sizes meet: a parabola through their gap."""
    roots = np.roots(np.polyfit(np.array(BETAS) - CRITICAL, large - small, 2))
    real = roots[np.abs(roots.imag) < 1e-9].real
    return CRITICAL + float(real[np.abs(real).argmin()]) if len(real) else float("nan")


def jackknife(values: np.ndarray) -> float:
    """Standard error of a statistic from its values with one group left out."""
    return float(np.sqrt((len(values) - 1) * values.var()))


def run(out: Path, seed: int = 0, full: bool = False) -> dict[str, Any]:
    """Write the figure and the table. Default: L = 16 and small networks; full: L = 32, larger."""
    chains, readings = (1024, 400) if full else (256, 60)
    curves = [binder_curve(side, chains, readings, seed) for side in SIDES]
    beta = crossing(curves[0][:, 0], curves[1][:, 0])
    each = [crossing(curves[0][:, g], curves[1][:, g]) for g in range(1, GROUPS + 1)]
    rows = [
        Row("critical beta, where L = 8 and 16 cross", beta, 0.68, "V", jackknife(np.array(each)))
    ]
    for side, curve in zip(SIDES, curves, strict=True):
        for place, at in enumerate(BETAS):
            known = KNOWN.get((side, at))
            tag = "" if known is None else "D"
            error = jackknife(curve[place, 1:])
            rows.append(
                Row(
                    f"Binder cumulant, L = {side}, beta = {at}", curve[place, 0], known, tag, error
                )
            )
    side, steps, width, n = (32, 6000, 48, 8192) if full else (16, 1000, 24, 4096)
    train, fresh = (draws(side, n, seed + k) for k in (1, 2))
    samples = learned(train, steps, width, n // 4, seed)
    fields = {"chains": fresh, "chains, again": train, "cascade": samples}
    energies = {name: energy(values, CRITICAL) / side**2 for name, values in fields.items()}
    rows += _energy_rows(energies, fields)
    figure = _draw(curves, beta, energies, fields, side)
    save_figure(figure, out / "phi4.png")
    settings = dict(chains=chains, readings=readings, side=side, training_steps=steps, width=width,
                    fields=n, samples=n // 4, sampler_steps=STEPS)  # fmt: skip
    return write_table(out, "The phi^4 field and a learned wavelet cascade", rows, seed, settings)


def draws(side: int, n: int, seed: int) -> np.ndarray:
    """Nearly independent critical fields (n, side, side)."""
    walk = Chains(512, side, CRITICAL, seed)
    walk.advance(2 * WARM)
    found = []
    for _ in range(n // 512):
        walk.advance(2 * APART)
        found.append(walk.fields.copy())
    return np.concatenate(found)


def learned(train: np.ndarray, steps: int, width: int, n: int, seed: int) -> np.ndarray:
    """Samples (n, L, L) of a cascade trained on fields, down to averages of 4 x 4."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.from_numpy(train)[:, None]
    levels = int(np.log2(train.shape[1] // 4))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        cascade = Cascade(
            images, EDM(0.02, 30.0), "haar", levels,
            lambda channels, given: Convolutional(
                channels, condition=given, width=width, depth=2, periodic=True
            ),
        )  # fmt: skip
    for _ in fit_cascade(cascade, images, steps, batch_size=128, lr=4e-3, generator=generator):
        pass
    plans = []
    for network, scale in zip(cascade.networks, cascade.scales(images[:256]), strict=True):
        assert isinstance(network, Network)
        curve = measure(network, scale.data, 16, condition=scale.condition, generator=generator)
        plans.append(plan_steps(curve, STEPS, clock="nats"))
    return cascade.sample(n, plans, generator=generator)[:, 0].numpy()


def largest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Kolmogorov and Smirnov's distance of two samples."""
    places = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(v), places, "right") / len(v) for v in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _energy_rows(energies: dict[str, np.ndarray], fields: dict[str, np.ndarray]) -> list[Row]:
    truth, rows = energies["chains"], []
    for name, values in energies.items():
        error = float(values.std() / np.sqrt(len(values)))
        rows.append(Row(f"energy per site, {name}: mean", values.mean(), truth.mean(), "D", error))
        spread = float(values.std() / np.sqrt(2 * len(values)))
        rows.append(
            Row(f"energy per site, {name}: deviation", values.std(), truth.std(), "D", spread)
        )
        size = np.abs(fields[name].mean((1, 2)))
        known = np.abs(fields["chains"].mean((1, 2))).mean()
        error = float(size.std() / np.sqrt(len(size)))
        rows.append(Row(f"|magnetisation|, {name}", size.mean(), known, "D", error))
    for name in ("chains, again", "cascade"):
        gap = largest_gap(energies[name], truth)
        note = "largest gap of the distribution functions"
        rows.append(Row(f"energies, {name} against chains", gap, None, "", None, note))
    return rows


def _draw(
    curves: list[np.ndarray],
    beta: float,
    energies: dict[str, np.ndarray],
    fields: dict[str, np.ndarray],
    side: int,
) -> Any:
    figure, axes = panels(4, 3.6, 3.4)
    for size, curve in zip(SIDES, curves, strict=True):
        errors = [jackknife(row[1:]) for row in curve]
        axes[0].errorbar(BETAS, curve[:, 0], errors, marker="o", capsize=2, label=f"L = {size}")
    axes[0].axvline(beta, color="0.6", linewidth=1)
    axes[0].set_xlabel("inverse temperature beta")
    axes[0].set_ylabel("Binder cumulant")
    axes[0].legend()
    low, high = np.quantile(energies["chains"], [0.0005, 0.9995])
    bins = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), 40)
    for name, style in (
        ("chains", dict(color="0.75")),
        ("cascade", dict(histtype="step", color="C1")),
    ):
        axes[1].hist(energies[name], bins, density=True, label=name, **style)
    axes[1].set_xlabel(f"energy per site, L = {side}")
    axes[1].set_ylabel("density")
    axes[1].legend()
    largest = float(np.abs(fields["chains"]).max())
    for place, name in ((2, "chains"), (3, "cascade")):
        tiles = np.block(
            [[fields[name][3 * row + column] for column in range(3)] for row in range(3)]
        )
        axes[place].imshow(tiles, cmap="RdBu", vmin=-largest, vmax=largest)
        axes[place].set_title(f"nine fields of the {name}")
        axes[place].set_xticks([])
        axes[place].set_yticks([])
    return figure
