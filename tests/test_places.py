"""Angles and places: which column is what, in which unit, said or refused, never swapped."""

import json
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from reverie.auditing import common_space
from reverie.data import Dataset, Reading, coder_for, coder_from_json, describe, load, save
from reverie.errors import InputError


def table(values, *names, **said):
    reading = Reading(**said) if said else None
    return Dataset(np.asarray(values), "table", "made.csv", columns=names or None, reading=reading)


def places(n=40, seed=0):
    """Latitude and longitude in degrees, over the whole sphere."""
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [np.degrees(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)]
    )


def points(rows):
    latitude, longitude = np.radians(rows).T
    flat = np.cos(latitude)
    return np.column_stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)])


@pytest.mark.parametrize("names", [
    ("lon", "lat"), ("longitude", "latitude"), ("Lng", "Lat"), ("pickup_lon", "pickup_lat"),
    ("long", "lat"), ("Longitude (deg)", "Latitude (deg)"),
])  # fmt: skip
def test_longitude_may_stand_first_by_its_name(names):
    rows = places()
    data = table(rows[:, ::-1], *names)
    coder = coder_for("sphere", data)
    assert np.allclose(coder.to_model(data.values), points(rows), atol=1e-6)
    again = coder_from_json(coder.to_json())
    assert np.allclose(again.to_user(coder.to_model(data.values)), data.values, atol=1e-4)
    assert "longitude and latitude in degrees, by their headers" in coder.distances


def test_near_the_equator_the_order_is_said_not_guessed(tmp_path):
    rows = places() / 4
    coder = coder_for("sphere", table(rows))
    assert np.allclose(coder.to_model(rows), points(rows), atol=1e-6)
    assert "latitude and longitude in degrees, for no header says otherwise" in coder.distances
    named = table(rows[:, ::-1], "lon", "lat")
    spaces = [common_space(data, data.with_values(data.values + 0.01, "h"), space="sphere")
              for data in (table(rows, "lat", "lon"), named)]  # fmt: skip
    assert np.allclose(spaces[0].members, spaces[1].members)
    path = tmp_path / "a.csv"
    np.savetxt(path, rows, delimiter=",", header="lon,lat", comments="")
    assert "lon, lat are places (longitude, latitude)" in describe(path).line()
    with pytest.raises(InputError, match="which is the latitude in degrees, at most 90 in size"):
        coder_for("sphere", table(places()[:, ::-1]))


def test_places_in_radians_are_asked_about_or_read():
    rows = places()
    turned = np.radians(rows)
    with pytest.raises(InputError, match="as radians have it; say --angles radians, or"):
        coder_for("sphere", table(turned))
    for data in (table(turned, angles="radians"), table(turned, "lat_rad", "lon_rad")):
        coder = coder_for("sphere", data)
        assert np.allclose(coder.to_model(data.values), points(rows), atol=1e-6)
        assert np.allclose(coder.to_user(coder.to_model(data.values)), turned, atol=1e-6)
    near = coder_for("sphere", table(turned, angles="degrees"))
    assert np.allclose(near.to_model(turned), points(turned), atol=1e-6)


def test_longitudes_from_0_to_360_come_back_so():
    rows = places()
    rows[:, 1] %= 360
    coder = coder_for("sphere", table(rows))
    assert np.allclose(coder.to_user(coder.to_model(rows)), rows, atol=1e-4)
    first = coder_for("sphere", table(rows[:, ::-1], "lon", "lat"))
    assert np.allclose(first.to_user(first.to_model(rows[:, ::-1])), rows[:, ::-1], atol=1e-4)


def test_angles_that_go_around_are_asked_about():
    walk = np.cumsum(np.random.default_rng(0).normal(0, 1, (60, 2)), 0)
    for scale in (12, 400):
        rows = walk / np.abs(walk).max() * scale
        with pytest.raises(InputError, match="go around more than once; say --angles degrees or"):
            coder_for("torus", table(rows))
        coder = coder_for("torus", table(rows, angles="radians"))
        turned = np.exp(1j * coder.to_model(rows).double().numpy())
        assert np.allclose(turned, np.exp(1j * rows), atol=1e-4)
    rows = walk / np.abs(walk).max()
    assert coder_for("torus", table(180 * rows)).units == "degrees"
    assert coder_for("torus", table(math.pi * rows)).units == "radians"
    assert coder_for("torus", table(3 * rows, "a_deg", "b_deg")).units == "degrees"


ROTATIONS = Rotation.from_rotvec(np.random.default_rng(0).normal(size=(40, 3)))


@pytest.mark.parametrize(("rows", "names", "words"), [
    (ROTATIONS.as_quat(), (), "4 numbers a row: quaternions, not matrices .*from_quat"),
    (ROTATIONS.as_quat(), ("a", "b", "c", "d"), "no headers that say in which order"),
    (ROTATIONS.as_euler("xyz"), ("phi", "theta", "psi"), "Euler angles, not .*from_euler"),
    (ROTATIONS.as_euler("xyz"), ("roll", "pitch", "yaw"), "angles up to .* say --angles"),
    (ROTATIONS.as_rotvec(), (), "3 numbers a row: Euler angles or rotation vectors"),
])  # fmt: skip
def test_other_forms_of_rotations_are_named(rows, names, words):
    with pytest.raises(InputError, match=words):
        coder_for("rotations", table(rows, *names))


def test_matrices_are_rotations_still():
    matrices = ROTATIONS.as_matrix()
    assert np.allclose(
        coder_for("rotations", load(matrices)).to_model(matrices), matrices, atol=1e-6
    )


# --- rotations as people write them --------------------------------------------------------------


def random_turns(n: int, seed: int = 0):
    return Rotation.random(n, rng=np.random.default_rng(seed))


def written_turns(kind: str, turns) -> tuple[list[str], np.ndarray]:
    """Columns of one form of the same rotations, by SciPy."""
    if kind == "scalar last":
        return ["qx", "qy", "qz", "qw"], turns.as_quat()
    if kind == "scalar first":
        return ["q0", "q1", "q2", "q3"], turns.as_quat(scalar_first=True)
    if kind == "degrees":  # about the body's own z, y, x, which is how yaw, pitch, roll are meant
        return ["yaw", "pitch", "roll"], turns.as_euler("ZYX", degrees=True)
    if kind == "radians":
        return ["roll_rad", "pitch_rad", "yaw_rad"], turns.as_euler("xyz")
    if kind == "vector":
        return ["rx", "ry", "rz"], turns.as_rotvec()
    vector = turns.as_rotvec()
    angle = np.linalg.norm(vector, axis=1, keepdims=True)
    return ["angle_deg", "axis_x", "axis_y", "axis_z"], np.hstack(
        [np.rad2deg(angle), vector / angle]
    )


@pytest.mark.parametrize(
    "kind", ["scalar last", "scalar first", "degrees", "radians", "vector", "axis"]
)
def test_rotations_named_by_headers_become_matrices_and_come_back(kind: str, tmp_path) -> None:
    """The same matrices as SciPy's in every form; back, the same turns in the same columns."""
    turns = random_turns(60)
    names, rows = written_turns(kind, turns)
    path = tmp_path / "turns.csv"
    path.write_text("\n".join([",".join(names), *(",".join(f"{v:.9f}" for v in r) for r in rows)]))
    coder = coder_for("rotations", load(path))
    points = coder.to_model(load(path).values)
    assert points.shape == (60, 3, 3)
    assert np.abs(points.double().numpy() - turns.as_matrix()).max() < 1e-6
    assert "by their headers" in coder.distances
    again = coder_from_json(json.loads(json.dumps(coder.to_json())))
    back = again.to_user(points)
    sign = np.ones((60, 1))
    if kind.startswith("scalar"):  # q and -q are one turn
        sign = np.sign((back * rows).sum(1, keepdims=True))
    assert np.abs(back - sign * rows).max() < (2e-3 if kind in ("degrees", "axis") else 2e-5)
    assert save(tmp_path / "out.csv", back, again).read_text().startswith(",".join(names))


def test_rotations_without_a_convention_are_refused(tmp_path) -> None:
    turns = random_turns(30, seed=1)
    for names, rows, said in (
        (["alpha", "beta", "gamma"], turns.as_euler("ZXZ"), "Euler angles"),
        (["a", "b", "c", "d"], turns.as_quat(), "quaternions"),
        (["qw", "qx", "qy", "qz"], 2 * turns.as_quat(), "row 0 has length 2"),
    ):
        path = tmp_path / "turns.csv"
        lines = [",".join(f"{v:.6f}" for v in row) for row in rows]
        path.write_text("\n".join([",".join(names), *lines]))
        with pytest.raises(InputError, match=said):
            coder_for("rotations", load(path))
