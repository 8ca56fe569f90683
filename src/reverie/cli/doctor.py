"""`reverie doctor`: what is installed, what it runs on, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from typing import Any

import torch

from reverie import __version__
from reverie.cli.console import Console
from reverie.cli.doctor_flags import Doctor
from reverie.cli.flags import print_result

META = ("all", "dev")  # extras that name other extras
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?([^;]*)(?:;.*extra == ['\"](\w+)['\"])?")


def doctor(command: Doctor, console: Console) -> int:
    """Print versions, devices and extras."""
    found = report()
    print_result(command, words(found), found)
    return 0


def report() -> dict[str, Any]:
    """Versions, devices, threads and packages, as plain values.

    packages: {extra: {package: version, or None where it is missing}}; the extra "" holds what
    every installation has.
    """
    packages: dict[str, dict[str, str | None]] = {}
    for line in metadata.requires("reverie") or []:
        name, _, extra = REQUIREMENT.match(line).groups()  # type: ignore[union-attr]
        if (extra or "") not in META:
            packages.setdefault(extra or "", {})[name] = _version(name)
    return {
        "reverie": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices(),
        "threads": torch.get_num_threads(),
        "data": os.environ.get("REVERIE_DATA"),
        "packages": packages,
    }


def devices() -> list[str]:
    """Where tensors can live: the CPU, and each accelerator by its name."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [
            f"cuda:{k} ({torch.cuda.get_device_name(k)})" for k in range(torch.cuda.device_count())
        ]
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def words(found: dict[str, Any]) -> str:
    """The report for people, what is missing last."""
    packages = {extra: dict(names) for extra, names in found["packages"].items()}
    core = packages.pop("", {})
    lines = [
        f"reverie {found['reverie']}, Python {found['python']}, {found['platform']}",
        f"devices: {', '.join(found['devices'])}; {found['threads']} threads",
        "data of reproductions: "
        + (found["data"] or "none (REVERIE_DATA names a folder; few need one)"),
        "",
        *_table("needed", core),
    ]
    for extra in sorted(packages):
        lines += _table(extra, packages[extra])
    missing = sorted(extra for extra in packages if None in packages[extra].values())
    absent = sorted(name for name, version in core.items() if version is None)
    if absent:
        lines += ["", f"Missing, and needed: pip install {' '.join(absent)}"]
    if missing:
        lines += ["", f"To get what is missing: pip install 'reverie[{','.join(missing)}]'"]
    return "\n".join(lines)


def _table(title: str, packages: dict[str, str | None]) -> list[str]:
    return [
        f"{title if k == 0 else '':12s}{name:16s}{version or 'missing'}"
        for k, (name, version) in enumerate(packages.items())
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
