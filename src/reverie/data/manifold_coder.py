"""Rows that are points of a manifold: as its coordinates, as places on the sphere, or as angles.

What columns mean is told by their headers, by their range, or by the user (`--angles`): longitude
may stand first, angles may be in degrees or radians and go around more than once. Where neither
tells, rows are refused with the question. Rotations of space may be quaternions, angles or
rotation vectors where their headers say which (`rotation_forms`); without headers they are refused
by name, with what makes matrices of them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.data.dataset import Dataset
from reverie.data.places import form_of_rotation, is_longitude_first, unit_of
from reverie.data.rotation_forms import RotationForm, rotation_form
from reverie.data.scaler import Scaler, form_of
from reverie.errors import InputError
from reverie.spaces import Manifold, Rotations, Sphere, Torus, space_named
from reverie.spaces.sphere import from_degrees, to_degrees

OFF = 1e-3  # by how much rounded rows may miss the manifold before they are put on it
FULL_TURN = 2 * math.pi * 1.001  # angles that leave it are in degrees, or go around
SLIGHT = 45.0  # degrees: angles that stay within may be radians that go around
MANY = 20  # rows, of which not one leaves a range by chance
ROTATIONS = "rotations"
SHORT_NAMES = {"sphere": "Sphere", "torus": "Torus", ROTATIONS: "Rotations",
               "hyperbolic": "Hyperbolic"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ManifoldCoder(Scaler):
    """Rows on the manifold of the name `manifold`, in `units`: points, degrees or radians.

    Angles on Sphere(2) are latitude and longitude, or the other way round if `longitude_first`;
    on a torus every column is an angle. Points are ambient coordinates. rotation: the fields of a
    `RotationForm`, of rotations that are no matrices.

    >>> import numpy as np
    >>> from reverie.data import ManifoldCoder, load
    >>> places = load(np.array([[90.0, 0.0], [0.0, 0.0], [-30.0, 120.0], [51.5, -0.1]]))
    >>> coder = ManifoldCoder.fit(places, "sphere")
    >>> coder.units, coder.to_model(places.values)[1].round(decimals=6)
    ('degrees', tensor([1., 0., 0.]))
    """

    manifold: str
    units: str
    longitude_first: bool = False
    rotation: dict[str, Any] | None = None

    @classmethod
    def fit(cls, data: Dataset, space: str) -> ManifoldCoder:
        """Read the dimension and the units off the rows; InputError where they do not fit."""
        width = math.prod(data.shape)
        manifold = _named(space, data, width)
        first = isinstance(manifold, Sphere) and bool(is_longitude_first(data.columns))
        form = _rotation(data) if space == ROTATIONS else None
        units = "points" if form is not None else _units(manifold, data, width)
        coder = cls(**form_of(data), manifold=repr(manifold), units=units, longitude_first=first,
                    rotation=None if form is None else asdict(form))  # fmt: skip
        coder.to_model(data.values, data.source)
        return coder

    @property
    def space(self) -> Manifold:
        return space_named(self.manifold)

    @property
    def point_shape(self) -> tuple[int, ...]:
        return self.space.shape

    def to_model(self, values: np.ndarray, source: str = "the data") -> Tensor:
        """Points (n, *point_shape); InputError names the first row that is not on the manifold."""
        self._check_shape(values, source)
        space, rows = self.space, torch.from_numpy(values.astype(np.float64))
        if self.of_places:
            return self._unit_vectors(rows, source).float()
        if self.units == "degrees":
            rows = rows.deg2rad()
        if self._form is not None:
            rows = torch.from_numpy(self._form.to_matrices(rows.numpy(), source))
        points = rows.reshape(len(rows), *space.shape)
        if isinstance(space, Torus):  # any angle is one
            return space.project(points).float()
        off = space.residual(points)
        if not (off <= OFF).all():
            row = int((~(off <= OFF)).nonzero()[0, 0])
            raise InputError(
                f"{source}: row {row} is not on {space}: {space.rule} fails by "
                f"{float(off[row]):.2g}"
            )
        return space.project(points).float()

    def to_user(self, points: Tensor) -> np.ndarray:
        """Back to the user's units and shape; angles in the range that the data keep."""
        rows = points.detach().cpu().double()
        if self.of_places:
            rows = to_degrees(rows) if self.units == "degrees" else to_degrees(rows).deg2rad()
            rows = rows.flip(1) if self.longitude_first else rows
        elif self.units == "degrees":
            rows = rows.rad2deg()
        if self._form is not None:
            return self._as_given(self._form.from_matrices(rows.numpy()))
        raw = rows.reshape(len(rows), *self.shape).numpy()
        if self.units != "points":
            turn = 2 * math.pi if self.units == "radians" else 360.0
            around = self._around
            start = 0.0 if min(np.asarray(self.low)[around]) >= 0 else -turn / 2
            raw[:, around] = start + np.mod(raw[:, around] - start, turn)
        return self._as_given(raw)

    @property
    def of_places(self) -> bool:
        """Whether rows are latitude and longitude."""
        return self.units != "points" and isinstance(self.space, Sphere)

    @cached_property
    def _form(self) -> RotationForm | None:
        """How rotations are written that are no matrices."""
        if self.rotation is None:
            return None
        fields: dict[str, Any] = {**self.rotation, "order": tuple(self.rotation["order"])}
        return RotationForm(**fields)

    @property
    def _around(self) -> slice:
        """The columns whose values go around."""
        if not self.of_places:
            return slice(None)
        return slice(0, 1) if self.longitude_first else slice(1, 2)

    def _unit_vectors(self, places: Tensor, source: str) -> Tensor:
        """Points (n, 3) of the sphere from places (n, 2) in the units and order of the data."""
        turn = 360.0 if self.units == "degrees" else FULL_TURN
        for column in (0, 1):
            is_latitude = (column == 0) != self.longitude_first
            most = turn / 4 if is_latitude else turn
            odd = ~(places[:, column].abs() <= most)
            if odd.any():
                row = int(odd.nonzero()[0, 0])
                name = "latitude" if is_latitude else "longitude"
                raise InputError(
                    f"{source}: row {row} has {float(places[row, column]):g} in column {column}, "
                    f"which is the {name} in {self.units}, at most {most:g} in size; columns "
                    "named longitude and latitude may stand in that order"
                )
        ordered = places.flip(1) if self.longitude_first else places
        return from_degrees(ordered if self.units == "degrees" else ordered.rad2deg())

    def embed(self, values: np.ndarray) -> np.ndarray:
        """Features (n, F): distances rank as geodesic ones on spheres and rotations, and do so
        nearby on tori, where a circle's chord stands for its arc."""
        points = self.to_model(values).double()
        return self.space.features(points).flatten(1).numpy()

    @property
    def distances(self) -> str:
        """What `embed` compares, for the reader."""
        space = self.space
        if isinstance(space, Sphere | Rotations):
            return f"Rows are compared by their distance on {space}.{self._read_as()}"
        return f"Rows are compared by their distance on {space}, exact for near rows only."

    def _read_as(self) -> str:
        """In which order and units places are read, or in which form rotations are."""
        if self._form is not None:
            return f" {self._form.sentence()}"
        if not self.of_places:
            return ""
        names = ["longitude", "latitude"] if self.longitude_first else ["latitude", "longitude"]
        told = is_longitude_first(self.columns) is not None
        why = "by their headers" if told else "for no header says otherwise"
        return f" Columns are {names[0]} and {names[1]} in {self.units}, {why}."


def _named(space: str, data: Dataset, width: int) -> Manifold:
    """The manifold of a short name, with the dimension that rows of `width` numbers have."""
    if space not in SHORT_NAMES:
        return space_named(space)
    if space == ROTATIONS:
        if rotation_form(data.columns) is not None:
            return space_named("Rotations(3)")
        _refuse_other_rotations(data, width)
        dim = math.isqrt(width)
        if dim * dim != width or dim < 2:
            raise InputError(
                f"{data.source} has points of shape {data.shape}; rotations are matrices (n, n)"
            )
        return space_named(f"Rotations({dim})")
    angles = space == "torus" or (space == "sphere" and width == 2)
    dim = 2 if space == "sphere" and width == 2 else width - (not angles)
    return space_named(f"{SHORT_NAMES[space]}({dim})")


def _rotation(data: Dataset) -> RotationForm | None:
    """The form of rotations that headers name; InputError where the unit of angles is unclear."""
    found = rotation_form(data.columns)
    if found is None:
        return None
    form = RotationForm(*found)
    if not form.has_angles:
        return form
    angles = data if form.kind == "euler" else data.with_columns(form.order[3:])
    most = float(np.abs(angles.values).max())
    if not _said(data) and most <= FULL_TURN:
        raise InputError(
            f"{data.source} has angles up to {most:.3g}: radians, or degrees of small turns; say "
            "--angles degrees or --angles radians"
        )
    return replace(form, degrees=(_said(data) or "degrees") == "degrees")


def _refuse_other_rotations(data: Dataset, width: int) -> None:
    """InputError that names rows of 3 or 4 numbers which are rotations, but no matrices."""
    if width not in (3, 4):
        return
    what = form_of_rotation(data.columns, data.values.reshape(len(data), -1))
    what = what or ("Euler angles or rotation vectors" if width == 3 else "")
    if not what:
        return
    make = {
        "quaternions": "from_quat(rows, scalar_first=True)",
        "Euler angles": "from_euler('xyz', rows)",
        "rotation vectors": "from_rotvec(rows)",
    }
    how = make.get(what, "from_euler('xyz', rows) or from_rotvec(rows)")
    raise InputError(
        f"{data.source} holds {width} numbers a row: {what}, not matrices (n, 3, 3), and no "
        "headers that say in which order (qw, qx, qy, qz; roll, pitch, yaw; rx, ry, rz); name the "
        f"columns so, or make matrices with scipy.spatial.transform.Rotation.{how}.as_matrix()"
    )


def _units(space: Manifold, data: Dataset, width: int) -> str:
    if isinstance(space, Sphere) and space.dim == 2 and width == 2:
        return _of_places(data)
    if isinstance(space, Torus):
        return _of_angles(data)
    if math.prod(space.shape) != width:
        raise InputError(
            f"{data.source} has points of shape {data.shape}; those of {space} have {space.shape}"
        )
    return "points"


def _of_places(data: Dataset) -> str:
    """Degrees, unless a header or the user says radians; InputError where the range does."""
    said = _said(data)
    first = bool(is_longitude_first(data.columns))
    values = np.abs(data.values.reshape(len(data), 2))
    latitude, longitude = values[:, int(first)].max(), values[:, 1 - int(first)].max()
    within = latitude <= FULL_TURN / 4 and longitude <= FULL_TURN
    if not said and within and len(data) >= MANY and longitude > 1:
        raise InputError(
            f"{data.source}: no place leaves {latitude:.3g} and {longitude:.3g}, as radians have "
            "it; say --angles radians, or --angles degrees if they are so near to one another"
        )
    return said or "degrees"


def _of_angles(data: Dataset) -> str:
    """Degrees or radians, by header, by what the user says, or by range; InputError if unclear."""
    said = _said(data)
    most = float(np.abs(data.values).max())
    if said:
        return said
    if most <= FULL_TURN:
        return "radians"
    if most <= SLIGHT or most > 360 * 1.001:
        raise InputError(
            f"{data.source} has angles up to {most:.4g}: degrees, or radians that go around more "
            "than once; say --angles degrees or --angles radians"
        )
    return "degrees"


def _said(data: Dataset) -> str:
    """The unit that the user or the headers say, else nothing."""
    said = None if data.reading is None else data.reading.angles
    return said or unit_of(data.columns)
