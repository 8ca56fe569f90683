"""Pictures of points on manifolds: world maps, Ramachandran plots, angles and axes of rotations.

Points and histograms are drawn as one raster inside the SVG, so that its size does not grow with
the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from reverie.report.figures import svg
from reverie.spaces import Rotations, Sphere, Torus
from reverie.spaces.base import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 4000  # of each kind, at random; more only cover one another
BINS = 72  # of 5 degrees
MOST_PAIRS = 3
RASTER_DPI = 110
COLOURS = {"data": "#111827", "samples": "#b91c1c"}
FEW = 1000  # points, drawn twice as large
DOTS = {"data": 2.2, "samples": 1.4}  # data stay visible behind the samples
Points = np.ndarray | Tensor


def figure_for(space: Space, data: Points, samples: Points) -> str | None:
    """SVG text of data rows beside samples (N, *shape); None where a space has no picture here.

    Sphere(2): maps. Torus(n), n > 1: Ramachandran plots of its first angles in pairs.
    Rotations(3): rotation angles, and the axes on a map.
    """
    if isinstance(space, Sphere) and space.dim == 2:
        return svg(world_map(data, samples))
    if isinstance(space, Torus) and space.dim > 1:
        return svg(ramachandran(data, samples))
    if isinstance(space, Rotations) and space.n == 3:
        return svg(rotation_figure(data, samples))
    return None


def world_map(
    data: Points,
    samples: Points,
    density: Callable[[Tensor], Tensor] | None = None,
    name: str = "data",
) -> Figure:
    """Unit vectors (N, 3) on two maps of equal areas, x_3 to the north, x_1 at longitude 0.

    density: the model's log-density (B,) of unit vectors (B, 3), drawn behind the samples.
    name: what the rows of the first map are.
    """
    figure = _figure(9.6, 2.9)
    left, right = figure.subplots(1, 2, subplot_kw=dict(projection="mollweide"))
    draw_map(left, {"data": data}, title=f"{name}, {len(data):,} rows")
    draw_map(right, {"samples": samples}, density, title=f"samples, {len(samples):,}")
    figure.supxlabel("longitude and latitude in degrees, equal areas", fontsize=7)
    return figure


def ramachandran(data: Points, samples: Points, names: tuple[str, ...] = ()) -> Figure:
    """Histograms (log colours) of consecutive pairs of angles (N, n) in radians, in degrees.

    Data above, samples below, at most three pairs; with an odd n the last pair overlaps. names:
    of the angles, for the axes.
    """
    dim = data.shape[1]
    from matplotlib.colors import LogNorm

    names = names or tuple(f"angle {k + 1}" for k in range(dim))
    pairs = [(k, k + 1) for k in range(0, dim - 1, 2)]
    if dim % 2 and dim > 2:
        pairs.append((dim - 2, dim - 1))
    pairs = pairs[:MOST_PAIRS]
    figure = _figure(2.6 * len(pairs) + 0.4, 5.2)
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for row, (label, points) in zip(axes, (("data", data), ("samples", samples)), strict=True):
        for axis, (i, j) in zip(row, pairs, strict=True):
            x, y = np.rad2deg(_array(points)[:, [i, j]]).T
            edges = np.linspace(-180, 180, BINS + 1)
            count = np.histogram2d(x, y, [edges, edges])[0].T / len(x)
            axis.pcolormesh(
                edges, edges, np.ma.masked_equal(count, 0), cmap="viridis", rasterized=True,
                norm=LogNorm(0.3 / len(x), 1 / BINS),
            )  # fmt: skip
            axis.set(xlim=(-180, 180), ylim=(-180, 180), aspect="equal")
            axis.set(xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))
            axis.set_xlabel(f"{names[i]} (degrees)", fontsize=8)
            axis.set_ylabel(f"{names[j]} (degrees)", fontsize=8)
            axis.set_title(f"{label}, {len(x):,}", fontsize=8)
            axis.tick_params(labelsize=7)
    return figure


def rotation_figure(data: Points, samples: Points) -> Figure:
    """Rotation angles of matrices (N, 3, 3) as histograms, and their axes on a map.

    Uniform rotations have angles of density (1 - cos w) / pi, drawn as a dotted line.
    """
    figure = _figure(9.6, 2.9)
    left = figure.add_subplot(1, 2, 1)
    right = figure.add_subplot(1, 2, 2, projection="mollweide")
    edges, axes = np.linspace(0, 180, 61), {}
    for label, points in (("data", data), ("samples", samples)):
        turns = _turns(points)
        angle = np.linalg.norm(turns, axis=1)
        axes[label] = turns / np.maximum(angle, 1e-12)[:, None]
        left.hist(np.rad2deg(angle), edges.tolist(), density=True, histtype="step", lw=1.4,
                  color=COLOURS[label], label=f"{label}, {len(angle):,}")  # fmt: skip
    grid = np.radians(edges)
    left.plot(edges, (1 - np.cos(grid)) / 180, color="#6b7280", lw=1, ls=":", label="uniform")
    left.set(xlabel="rotation angle (degrees)", ylabel="density per degree", xlim=(0, 180))
    left.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=7, frameon=False)
    draw_map(right, axes, title="axes of rotation, longitude and latitude in degrees")
    return figure


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, outside pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=RASTER_DPI, layout="constrained")


def draw_map(
    axis: Any,
    kinds: dict[str, Points],
    density: Callable[[Tensor], Tensor] | None = None,
    title: str = "",
) -> None:
    """Unit vectors (N, 3) by kind (see COLOURS) on a Mollweide axis, `density` behind them."""
    if density is not None:
        _draw_density(axis, density)
    for kind, points in kinds.items():
        shown = np.random.default_rng(0).permutation(len(points))[:MOST_POINTS]
        x, y, z = _array(points)[np.sort(shown)].T
        longitude, latitude = np.arctan2(y, x), np.arcsin(np.clip(z, -1, 1))
        size = DOTS[kind] * (2 if len(shown) < FEW else 1)
        axis.plot(longitude, latitude, ".", ms=size, mew=0, alpha=0.7, color=COLOURS[kind],
                  rasterized=True)  # fmt: skip
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=5, colors="#6b7280")
    axis.grid(lw=0.3, color="#d1d5db")


def _draw_density(axis: Any, density: Callable[[Tensor], Tensor]) -> None:
    """The log-density in nats over the uniform law, from 0 up, on a grid of two degrees."""
    longitude = np.radians(np.linspace(-180, 180, 181))
    latitude = np.radians(np.linspace(-90, 90, 91))
    middle = np.meshgrid(longitude[:-1] + math.pi / 180, latitude[:-1] + math.pi / 180)
    flat = np.cos(middle[1])
    grid = [flat * np.cos(middle[0]), flat * np.sin(middle[0]), np.sin(middle[1])]
    points = torch.from_numpy(np.stack(grid, -1).reshape(-1, 3))
    values = torch.cat([density(part) for part in points.split(1024)]).detach().double().numpy()
    values = values.reshape(flat.shape) + math.log(4 * math.pi)
    axis.pcolormesh(longitude, latitude, values, cmap="Blues", vmin=0, vmax=8, rasterized=True)


def _turns(points: Points) -> np.ndarray:
    """Rotation vectors (N, 3), angle times axis, of matrices (N, 3, 3)."""
    space = Rotations(3)
    matrices = torch.as_tensor(_array(points))
    turn = space.log(space.origin().expand(len(matrices), 3, 3), space.project(matrices))
    return torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], 1).numpy()


def _array(points: Points) -> np.ndarray:
    return torch.as_tensor(points).detach().cpu().double().numpy()
