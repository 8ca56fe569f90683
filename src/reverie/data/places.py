"""Angles and places: what headers and ranges say of columns that hold them.

Latitude and longitude are told by their headers; quaternions, Euler angles and rotation vectors
by header, or by their length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from reverie.data.dataset import Dataset

LATITUDE = re.compile(r"(?:.*[_ .-])?lat(itude)?s?(?:[_ .(\[-].*)?|breite|y_wgs84", re.IGNORECASE)
LONGITUDE = re.compile(
    r"(?:.*[_ .-])?(lon|lng|long)(gitude)?s?(?:itude)?(?:[_ .(\[-].*)?|l(ä|ae)nge|x_wgs84",
    re.IGNORECASE,
)
QUATERNION = ({"w", "x", "y", "z"}, {"qw", "qx", "qy", "qz"}, {"q0", "q1", "q2", "q3"},
              {"q_w", "q_x", "q_y", "q_z"})  # fmt: skip
EULER = ({"roll", "pitch", "yaw"}, {"phi", "theta", "psi"}, {"alpha", "beta", "gamma"},
         {"heading", "pitch", "roll"}, {"rot_x", "rot_y", "rot_z"})  # fmt: skip
VECTOR = ({"rx", "ry", "rz"}, {"rvec_x", "rvec_y", "rvec_z"}, {"omega_x", "omega_y", "omega_z"},
          {"axis_x", "axis_y", "axis_z", "angle"})  # fmt: skip
FULL_TURN = 2 * math.pi * 1.001
UNIT_LENGTH = 1e-3
DEGREES = re.compile(r"(^|[_ .(\[-])(deg|degrees?)[)\]]?$|°", re.IGNORECASE)
RADIANS = re.compile(r"(^|[_ .(\[-])(rad|radians?)[)\]]?$", re.IGNORECASE)


def is_longitude_first(names: Sequence[str] | None) -> bool | None:
    """Whether longitude stands before latitude by the names; None where they do not say."""
    if names is None or len(names) != 2:
        return None
    first, second = names
    if LATITUDE.fullmatch(first) and LONGITUDE.fullmatch(second):
        return False
    if LONGITUDE.fullmatch(first) and LATITUDE.fullmatch(second):
        return True
    return None


def form_of_rotation(names: Sequence[str] | None, values: np.ndarray) -> str:
    """`quaternions`, `Euler angles` or `rotation vectors`, where rows (n, d) are such; else "".

    Quaternions are told by their length too; three numbers only by their names.
    """
    known = {re.sub(r"\W*\(?(deg|rad)[a-z]*\)?$", "", n.strip().lower()) for n in names or ()}
    width = values.shape[1]
    if width == 4:
        length = np.linalg.norm(values.astype(np.float64), axis=1)
        if known in QUATERNION or bool((np.abs(length - 1) < UNIT_LENGTH).all()):
            return "quaternions"
    if width in (3, 4) and known in VECTOR:
        return "rotation vectors"
    return "Euler angles" if width == 3 and known in EULER else ""


def unit_of(names: Sequence[str] | None) -> str:
    """`degrees` or `radians` where the headers say so, all of them alike; else nothing."""
    found = {
        unit
        for name in names or ()
        for unit, ending in (("degrees", DEGREES), ("radians", RADIANS))
        if ending.search(name)
    }
    return found.pop() if len(found) == 1 else ""


def place_notes(data: Dataset) -> tuple[str, ...]:
    """What a reader should know of columns that hold places or rotations."""
    names = data.columns
    if names is None or data.values.ndim != 2:
        return ()
    notes = []
    pairs = [(j, j + 1) for j in range(len(names) - 1)]
    for j, k in pairs:
        first = is_longitude_first((names[j], names[k]))
        if first is None:
            continue
        order = "longitude, latitude" if first else "latitude, longitude"
        pair = data.values[:, [j, k]].astype(np.float64)
        radians = bool(np.nanmax(np.abs(pair), initial=0) <= FULL_TURN / 2)
        unit = ", in radians by their range" if radians and len(data) > 20 else ""
        notes.append(f"{names[j]}, {names[k]} are places ({order}{unit})")
    width = len(names)
    for size in (3, 4):
        for j in range(width - size + 1):
            part = names[j : j + size]
            kind = form_of_rotation(part, np.zeros((1, size)))
            if kind:
                notes.append(f"{', '.join(part)} are {kind}")
    return tuple(notes)
