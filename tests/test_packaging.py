"""What is said in several places about the package is the same, and the package is whole."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import reverie
from reverie import testing

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version():
    said = {
        PROJECT["version"],
        reverie.__version__,
        re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1],
        re.search(r'version = "(.*?)"', (ROOT / "packaging/conda/meta.yaml").read_text())[1],
        re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1],
    }
    assert len(said) == 1, said


def test_conda_asks_for_what_pip_asks_for():
    run = (ROOT / "packaging/conda/meta.yaml").read_text().split("  run:\n")[1].split("test:")[0]
    named = dict(re.findall(r"- (\S+) (>=\S+)", run))
    other = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    asked = dict(re.match(r"([\w-]+)(.*)", line).groups() for line in PROJECT["dependencies"])
    assert {other.get(name, name): least for name, least in asked.items()} | {
        "python": PROJECT["requires-python"]
    } == named


def test_contributing_names_checks_that_exist():
    named = set(re.findall(r"reverie\.testing\.(\w+)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert named
    assert named <= set(dir(testing))


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_template(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    kinds = ("*.py", "*.html", "*.css", "py.typed")
    needed = {p.relative_to(source).as_posix() for kind in kinds for p in source.rglob(kind)}
    assert needed <= held


@pytest.mark.slow
def test_ten_minutes_from_a_clone_to_three_answers(tmp_path):
    """A fresh environment, the README word for word; with the network, about two minutes."""
    began = time.monotonic()
    venv.create(tmp_path / "env", with_pip=True)
    python, work = tmp_path / "env/bin/python", tmp_path / "work"
    work.mkdir()
    install = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "torch"], check=True)
    subprocess.run([*install, ROOT], check=True)
    page = [python, ROOT / "tests/run_pages.py", ROOT / "README.md"]
    said = subprocess.run(page, cwd=work, check=True, capture_output=True, text=True).stdout
    assert "copies" in said
    assert {"audit", "forecast"} <= {path.name for path in work.iterdir()}
    assert time.monotonic() - began < 600
