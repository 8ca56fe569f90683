"""Pictures of points on manifolds: what is drawn, where, and how large it is."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from reverie.report.manifold_figures import (
    draw_map,
    figure_for,
    ramachandran,
    rotation_figure,
    world_map,
)
from reverie.spaces import Flat, Hyperbolic, Product, Rotations, Sphere, Torus

PICTURED = [Sphere(2), Torus(2), Torus(7), Rotations(3)]


@pytest.mark.parametrize("space", PICTURED, ids=repr)
def test_pictures_are_small_whole_and_alike_every_time(space, generator):
    data = space.uniform(20000, generator=generator).float()
    samples = space.uniform(300, generator=generator).numpy()
    text = figure_for(space, data, samples)
    assert text is not None
    ET.fromstring(text)
    assert len(text) < 300_000
    assert "samples" not in text or "<script" not in text
    assert figure_for(space, data, samples) == text


@pytest.mark.parametrize(
    "space", [Sphere(3), Torus(1), Rotations(4), Hyperbolic(2), Flat(2), Product(Sphere(2))]
)
def test_other_spaces_have_no_picture(space):
    rows = space.origin()[None]
    assert figure_for(space, rows, rows) is None


def test_map_puts_places_where_they_are():
    figure = world_map(torch.eye(3).double(), -torch.eye(3).double())
    left, right = figure.axes
    x, y = left.lines[0].get_data()
    np.testing.assert_allclose(x[:2], [0, math.pi / 2], atol=1e-12)  # x_1, x_2 on the equator
    np.testing.assert_allclose(y, [0, 0, math.pi / 2], atol=1e-12)  # x_3 the north pole
    assert right.lines[0].get_data()[1][2] == pytest.approx(-math.pi / 2)


def test_many_points_are_thinned_at_random(generator):
    """Tables are often sorted: the first rows alone would leave half the world empty."""
    rows = Sphere(2).uniform(20000, generator=generator)
    figure = world_map(rows[rows[:, 2].argsort()], rows[:5])
    latitude = figure.axes[0].lines[0].get_data()[1]
    assert len(latitude) == 4000
    # sin(latitude) is uniform on [-1, 1]
    assert abs(float(np.sin(latitude).mean())) < 4 / math.sqrt(3 * 4000)


def test_density_behind_a_map_is_nats_over_the_uniform_law():
    from matplotlib.figure import Figure

    axis = Figure().add_subplot(projection="mollweide")
    north = torch.tensor([0, 0, 1.0]).double()
    draw_map(axis, {}, lambda x: x @ north - math.log(4 * math.pi))
    values = np.asarray(axis.collections[0].get_array()).reshape(90, 180)
    middle = np.radians(np.arange(-89, 90, 2))
    np.testing.assert_allclose(values, np.sin(middle)[:, None].repeat(180, 1), atol=1e-12)


def test_ramachandran_counts_pairs_in_degrees():
    angles = torch.deg2rad(torch.tensor([[-57.5, -47.5, 62.5], [-57.5, -47.5, 2.5]]))
    figure = ramachandran(angles, angles[:1], ("phi", "psi", "chi"))
    assert len(figure.axes) == 4
    names = [(axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes[:2]]
    assert names == [("phi (degrees)", "psi (degrees)"), ("psi (degrees)", "chi (degrees)")]
    share = np.ma.filled(figure.axes[0].collections[0].get_array().reshape(72, 72), 0)
    row, column = np.argwhere(share)[0]
    assert share[row, column] == 1.0
    assert (5 * column - 177.5, 5 * row - 177.5) == (-57.5, -47.5)


def test_rotation_angles_and_axes():
    from scipy.spatial.transform import Rotation

    turns = np.radians([[30.0, 0, 0], [0, 0, 120.0]])
    figure = rotation_figure(Rotation.from_rotvec(turns).as_matrix(), np.eye(3)[None])
    heights = figure.axes[0].patches[0].get_xy()
    inside = heights[:, 1] > 0
    assert {30.0, 120.0} <= set(np.round(heights[inside, 0], 6))
    _, latitude = figure.axes[1].lines[0].get_data()
    np.testing.assert_allclose(latitude, [0, math.pi / 2], atol=1e-9)
