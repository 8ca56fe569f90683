"""Rotations of space as people write them, and as matrices: rows of columns named after what they
hold.

    qw, qx, qy, qz      quaternions, in the order of the names; q0 to q3 begin with the scalar
    roll, pitch, yaw    turns about the fixed x, then y, then z axis, that is about the body's own
                        z, y, x; heading is yaw
    rx, ry, rz          rotation vectors: the axis, as long as the angle in radians
    axis_x, axis_y, axis_z, angle

A matrix turns column vectors (v -> R v). What other names mean differs between fields (alpha,
beta, gamma; phi, theta, psi), and columns without names do not say where the scalar stands: those
are no form here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reverie.errors import InputError

NAMES = {
    "quaternion": (("w", "x", "y", "z"), ("qw", "qx", "qy", "qz"), ("q_w", "q_x", "q_y", "q_z"),
                   ("q0", "q1", "q2", "q3")),
    "euler": (("roll", "pitch", "yaw"), ("roll", "pitch", "heading")),
    "vector": (("rx", "ry", "rz"), ("rvec_x", "rvec_y", "rvec_z"),
               ("omega_x", "omega_y", "omega_z")),
    "axis": (("axis_x", "axis_y", "axis_z", "angle"),),
}  # fmt: skip
CALLED = {"quaternion": "quaternions", "euler": "angles about fixed x, y, z",
          "vector": "rotation vectors in radians", "axis": "axes with an angle"}  # fmt: skip
UNIT = re.compile(r"\W*[\[(]?(deg|rad)[a-z]*[\])]?$|_(deg|rad)[a-z]*$")
OFF = 1e-2  # by how much a written quaternion or axis may miss length 1
LEAST = 1e-12


@dataclass(frozen=True)
class RotationForm:
    """kind: a key of `NAMES`; order: the columns in the order of its names; degrees: of angles."""

    kind: str
    order: tuple[int, ...]
    degrees: bool = False

    @property
    def has_angles(self) -> bool:
        """Whether some numbers are angles, in degrees or in radians."""
        return self.kind in ("euler", "axis")

    def sentence(self) -> str:
        """What the columns are taken for."""
        unit = (" in degrees" if self.degrees else " in radians") if self.has_angles else ""
        return f"Columns are {CALLED[self.kind]}{unit}, by their headers."

    def to_matrices(self, rows: np.ndarray, source: str = "the data") -> np.ndarray:
        """Matrices (n, 3, 3) of rows (n, d); InputError names the first that is no rotation."""
        from scipy.spatial.transform import Rotation

        parts = rows.astype(np.float64)[:, self.order]
        if self.kind == "quaternion":
            return Rotation.from_quat(_unit(parts, source), scalar_first=True).as_matrix()
        if self.kind == "euler":
            return Rotation.from_euler("xyz", parts, degrees=self.degrees).as_matrix()
        if self.kind == "axis":
            angle = np.deg2rad(parts[:, 3:]) if self.degrees else parts[:, 3:]
            parts = _unit(parts[:, :3], source) * angle
        return Rotation.from_rotvec(parts).as_matrix()

    def from_matrices(self, matrices: np.ndarray) -> np.ndarray:
        """Rows (n, d) in the columns' order; of both quaternions that of scalar above 0."""
        from scipy.spatial.transform import Rotation

        turn = Rotation.from_matrix(matrices)
        if self.kind == "quaternion":
            parts = turn.as_quat(canonical=True, scalar_first=True)
        elif self.kind == "euler":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a pitch of 90 degrees leaves roll and yaw open
                parts = turn.as_euler("xyz", degrees=self.degrees)
        else:
            parts = turn.as_rotvec()
            if self.kind == "axis":
                angle = np.linalg.norm(parts, axis=1, keepdims=True)
                axis = np.where(angle > LEAST, parts / np.maximum(angle, LEAST), [0.0, 0.0, 1.0])
                parts = np.hstack([axis, np.rad2deg(angle) if self.degrees else angle])
        rows = np.empty_like(parts)
        rows[:, self.order] = parts
        return rows


def rotation_form(names: Sequence[str] | None) -> tuple[str, tuple[int, ...]] | None:
    """Kind, and the columns in its order, of columns that are named as rotations; else None."""
    plain = [UNIT.sub("", name.strip().lower()) for name in names or ()]
    for kind, choices in NAMES.items():
        for wanted in choices:
            if sorted(plain) == sorted(wanted):
                return kind, tuple(plain.index(name) for name in wanted)
    return None


def _unit(parts: np.ndarray, source: str) -> np.ndarray:
    """Rows brought to length 1; InputError on the first that is far from it."""
    length = np.linalg.norm(parts, axis=1, keepdims=True)
    bad = ~(np.abs(length[:, 0] - 1) <= OFF)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{source}: row {row} has length {length[row, 0]:.4g}; the quaternion or axis of a "
            "rotation has length 1"
        )
    return parts / length
