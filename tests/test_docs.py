"""The pages under docs/: their code runs, their links lead somewhere, their claims hold."""

from __future__ import annotations

import importlib
import math
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import reverie
from reverie.cli import main
from reverie.processes import VP, Cosine, Rectified, Uniform
from reverie.processes.times import clock_speed
from reverie.reproduce import RESULTS

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)


BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)


def own_process_page(folder):
    """Write the page's python blocks to the files they name; (files that it runs, lines typed)."""
    scripts, typed = [], []
    for language, text in BLOCK.findall((DOCS / "own-process.md").read_text()):
        if language == "sh":
            typed += text.splitlines()
            continue
        name = re.match(r"# (\w+\.py)\n", text)[1]
        (folder / name).write_text(text)
        scripts += [name] if name != "kimura.py" else []
    return scripts, typed


def check_own_process_page(folder, said):
    """What the page promises: symbols are drawn, pages written, palindromes learned."""
    symbols = np.load(folder / "new.npy")
    assert symbols.shape == (200, 6)
    assert set(np.unique(symbols)) <= {0, 1, 2, 3}
    for name in ("plan.html", "audit.html"):
        assert (folder / "run" / name).exists()
    nats = float(re.search(r"bound: ([\d.]+)", said)[1])
    assert math.log(64) - 0.5 < nats < 0.75 * 6 * math.log(4)  # rows held out are 200
    area, copied = map(float, re.search(r"area ([\d.]+) against ([\d.]+)", said).groups())
    assert copied < area
    assert int(re.search(r"paired: (\d+)%", said)[1]) > 40  # a quarter by chance


@pytest.mark.slow
def test_the_page_of_an_own_process_runs(tmp_path, monkeypatch, capsys):
    """Word for word, in one interpreter; the sibling below types it in a shell."""
    scripts, typed = own_process_page(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kimura", raising=False)
    for name in scripts:
        runpy.run_path(name, run_name="__main__")
    for line in typed:
        word, *words = shlex.split(line)
        assert word == "reverie"
        with pytest.raises(SystemExit) as left:
            main([*words, "--quiet"])
        assert left.value.code == 0, line
    check_own_process_page(tmp_path, capsys.readouterr().out)
    # Kimura 1980: the share of symbols that still agree
    process = sys.modules.pop("kimura").Kimura(6)
    sigma = float(process.sigma(0.7))
    agree = 0.25 + 0.25 * math.exp(-sigma) + 0.5 * math.exp(-2 * (1 + 0.25) * sigma)
    assert float(process.kernel(0.7)[0, 2, 2]) == pytest.approx(agree, abs=1e-12)


@pytest.mark.slow
def test_the_page_of_an_own_process_runs_in_a_shell(tmp_path):
    scripts, typed = own_process_page(tmp_path)
    python = shlex.quote(sys.executable)
    lines = ["set -e", f'reverie() {{ {python} -m reverie "$@"; }}']
    lines += [*(f"{python} {name}" for name in scripts), *typed]
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check_own_process_page(tmp_path, done.stdout)


# a name in code: `reverie.plan.measure_steps`, or a file as `reverie/processes/base.py`
NAME = re.compile(r"(?<![\w./-])reverie((?:\.[A-Za-z_]\w*)+|(?:/\w+)+\.py)")
TEXTS = [*PAGES, DOCS.parent / "README.md"]


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_names_on_the_pages_exist(page):
    """Every `reverie.x.y` and `reverie/x/y.py`, and every name that a block imports from there."""
    text = page.read_text()
    for name in NAME.findall(text):
        if name.startswith("/"):
            assert (Path(reverie.__file__).parent / name[1:]).exists(), name
        else:
            resolve(f"reverie{name}")
    for module, names in re.findall(r"from (reverie[\w.]*) import ([\w, ]+)", text):
        for name in names.split(","):
            resolve(f"{module}.{name.strip()}")


def test_the_gallery_names_every_reproduction():
    text = (DOCS / "reproductions.md").read_text()
    assert [name for name in RESULTS if f"`{name}`" not in text] == []


def resolve(dotted):
    """What a dotted name says: a module, or attributes of one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            assert hasattr(found, name), dotted
            found = getattr(found, name)
        return found
    raise AssertionError(dotted)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_headings_that_are_linked_exist(page):
    for target, anchor in re.findall(r"\]\(([^)#:]+)#([^)]*)\)", page.read_text()):
        headings = re.findall(r"^#+ (.*)$", (page.parent / target).read_text(), re.MULTILINE)
        assert anchor in {h.lower().replace(",", "").replace(" ", "-") for h in headings}


@pytest.mark.parametrize("process", [VP(), Cosine(), Rectified()], ids=lambda p: type(p).__name__)
def test_the_gaussian_rate_is_phi_per_unit_of_clock(process, generator):
    """g^2 / 2 |score given x - score of xhat|^2 = 1/2 |x - xhat|^2 |du/dt| (framework.md)."""
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    log_alpha, variance = process.alpha(t[None]).log(), process.sigma(t[None]).square()
    (pull,) = torch.autograd.grad(log_alpha.sum(), t, retain_graph=True)
    (growth,) = torch.autograd.grad(variance.sum(), t)
    square = growth - 2 * pull * variance
    x, guess = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    off = process.alpha(t[None]) * (x - guess) / variance
    phi = 0.5 * square * off.square().sum(1)
    rate = process.rate(guess, x, x, 0.4) * clock_speed(process, t.detach())
    torch.testing.assert_close(phi.detach(), rate.detach())


def test_the_ratios_of_uniform_noise():
    """(1 - a) / (1 - a + a S) at the clean symbol, and its inverse or 1 elsewhere."""
    process, t, size = Uniform(5, 1), 0.5, 5
    a = math.exp(-float(process.sigma(t)))
    known = torch.zeros(2, 1, size, dtype=torch.float64)
    known[:, :, 2] = 1
    ratio = (1 - a) / (1 - a + a * size)
    found = process.ratios(known, torch.tensor([[2], [4]]), t)[:, 0]
    at_clean = torch.full((size,), ratio, dtype=torch.float64)
    at_clean[2] = 1
    elsewhere = torch.ones(size, dtype=torch.float64)
    elsewhere[2] = 1 / ratio
    torch.testing.assert_close(found, torch.stack([at_clean, elsewhere]))
