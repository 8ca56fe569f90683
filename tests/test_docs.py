"""The pages under docs/: their code runs, their links lead somewhere, their claims hold."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from reverie.processes import VP, Cosine, Rectified, Uniform
from reverie.processes.times import clock_speed

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def test_the_tutorial_of_an_own_process_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "own-process.md").read_text(), re.DOTALL)
    written = [line for line in block.splitlines() if line.strip()]
    assert len(written) <= 40
    space: dict = {"__name__": "own_process"}
    torch.manual_seed(0)
    exec(compile(block, "own-process.md", "exec"), space)
    process, points = space["process"], space["points"]
    bound = torch.from_numpy(space["nats"])
    assert float(space["gaps"].max() - space["gaps"].min()) < 1e-12
    # Kimura 1980: the share of symbols that still agree
    sigma = float(process.sigma(0.7))
    agree = 0.25 + 0.25 * math.exp(-sigma) + 0.5 * math.exp(-2 * (1 + 0.25) * sigma)
    assert float(process.kernel(0.7)[0, 2, 2]) == pytest.approx(agree, abs=1e-12)
    error = float(bound.std()) / math.sqrt(len(bound))
    assert math.log(64) - 4 * error < float(bound.mean()) < 0.75 * 6 * math.log(4)
    assert space["copying"].area() < space["curve"].area()
    process.space.check(points)


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
