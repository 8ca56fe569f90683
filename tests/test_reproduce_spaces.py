"""Reproductions on finite sets and the simplex: parts by closed forms, and whole tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from reverie.denoisers import Memoriser
from reverie.plan import plan_at
from reverie.processes import Masking
from reverie.reproduce import discrete_mnist, discrete_names, g_and_k, reproduce, wright_fisher

POINTS = torch.tensor(list(itertools.product(range(3), repeat=3)))
COUNTS = torch.arange(1, 28) % 7 + 1
LAW = COUNTS.double() / COUNTS.sum()


def test_the_measured_sampler_costs_the_staircase(generator):
    """K-step unmasking with the exact conditionals, against the sum over all states."""
    process = Masking(3, 3)
    denoiser = Memoriser(process, POINTS.repeat_interleave(COUNTS, 0))
    u = np.array([0.0, 0.35, 0.8, 1.0])
    states = torch.tensor(list(itertools.product(range(4), repeat=3)))
    staircase = 0.0
    for now, then in itertools.pairwise(u):
        t = torch.full((len(states),), 1 - now, dtype=torch.float64)
        guess = denoiser(states, t)
        kernel = process.kernel(1 - now)[0]
        joint = torch.einsum("ai,bj,ck->abcijk", kernel, kernel, kernel).reshape(27, 64)
        for point, row, share in zip(POINTS, joint, LAW, strict=True):
            seen = row > 0
            both = point.expand(int(seen.sum()), 3)
            nats = process.reconstruction(guess[seen], both, states[seen])
            staircase += float(share * (row[seen] @ nats)) * (then - now) / (1 - now)
    curve = discrete_names.LossCurve(u, np.array([3.0, 2.0, 1.0, 1.0]), process=process)
    n = 6000
    rows = POINTS[torch.multinomial(LAW, n, replacement=True, generator=generator)]
    reveal = torch.rand(rows.shape, generator=generator, dtype=torch.float64)
    nats = discrete_names._measured(denoiser, rows, plan_at(curve, u, "own"), reveal)
    assert abs(nats.mean() - staircase) < 4 * nats.std() / math.sqrt(n)


def test_the_density_of_g_and_k(generator):
    """phi(z) / Q'(z) with the derivative of the quantile function by autograd."""
    theta = torch.tensor([[3.0, 1.0, 2.0, 0.5]], dtype=torch.float64)
    z = torch.randn((1, 40), generator=generator, dtype=torch.float64).requires_grad_()
    value = g_and_k.quantile(theta, z)
    (slope,) = torch.autograd.grad(value.sum(), z)
    want = (-0.5 * z.square() - slope.log()).sum()
    found = g_and_k.log_likelihood(theta[0].numpy(), value.detach()[0].numpy())
    assert found == pytest.approx(float(want.detach()), abs=0.01)
    # quantiles of the law are what Rayner & MacGillivray 2002 define it by
    exponential = (1 - math.exp(-2.0)) / (1 + math.exp(-2.0))
    want = 3 + (1 + 0.8 * exponential) * math.sqrt(2)
    one = torch.ones((1, 1), dtype=torch.float64)
    assert float(g_and_k.quantile(theta, one)) == pytest.approx(want, abs=1e-12)


def test_the_chain_covers_the_truth(generator):
    """It stays in the prior's support, about the truth, and where the likelihood is high."""
    truth = torch.tensor([[3.0, 1.0, 2.0, 0.5]], dtype=torch.float64)
    seen = g_and_k.simulate(truth, generator)[0].numpy()
    chain = g_and_k.metropolis(seen, 1500, np.random.default_rng(0))
    assert ((chain > 0) & (chain < 10)).all()
    ranks = (chain < truth.numpy()).mean(0)
    assert ((ranks > 1e-3) & (ranks < 1 - 1e-3)).all()
    # twice the drop of the log-likelihood is about chi-squared with 4 degrees of freedom
    levels = [g_and_k.log_likelihood(row, seen) for row in chain[::10]]
    assert 0.5 < max(levels) - np.mean(levels) < 6


def test_the_true_density_of_the_mixture_integrates_to_one(generator):
    truth = wright_fisher.mixture(3)
    x = torch.rand((40_000, 2), generator=generator, dtype=torch.float64)
    inside = x.sum(1) < 1
    shares = torch.cat([x, 1 - x.sum(1, keepdim=True)], 1)[inside]
    density = torch.zeros(len(x), dtype=torch.float64)
    density[inside] = wright_fisher.true_density(truth, shares).exp()
    error = float(density.std()) / math.sqrt(len(x))
    assert abs(float(density.mean()) - 1) < 4 * error


def test_blocks_of_pixels_are_majorities(real_data):
    real_data("binmnist/binarized_mnist_test.amat")
    fine, coarse = (discrete_mnist._images("test", side, 0) for side in (28, 14))
    assert fine.shape == (10_000, 28, 28)
    corner = fine[:, 10:12, 12:14].sum((1, 2))
    torch.testing.assert_close(coarse[:, 5, 6], (corner >= 2).long())
    assert set(coarse.unique().tolist()) == {0, 1}


def value(table, name):
    (row,) = [row for row in table["rows"] if row["quantity"] == name]
    return row["ours"], row["stderr"], row["reference"]


@pytest.mark.slow
def test_the_adaptive_plan_is_cheaper_on_real_names(real_data, tmp_path):
    """Predicted and measured path KL agree; cosine steps are dearer, even ones no cheaper."""
    real_data("text/names.txt")
    table = reproduce("discrete-names", tmp_path)
    for steps, rival in itertools.product((2, 4, 8, 16), ("loss-adaptive", "linear", "cosine")):
        nats, error, predicted = value(table, f"K = {steps}, {rival}: path KL measured, nats")
        assert abs(nats - predicted) < 4 * error + 0.05 * predicted
    for steps in (2, 4, 8, 16):
        gap, error, _ = value(table, f"K = {steps}: nats that cosine costs beyond loss-adaptive")
        assert gap > 3 * error
        gap, error, _ = value(table, f"K = {steps}: nats that linear costs beyond loss-adaptive")
        assert gap > -3 * error
    assert (tmp_path / "discrete_names.png").exists()


@pytest.mark.slow
def test_networks_on_the_simplex_near_the_truth(tmp_path):
    table = reproduce("wright-fisher", tmp_path)
    for name in ("implicit", "lineages"):
        nats, error, _ = value(table, f"3 parts, {name}: KL from the truth at that level, nats")
        assert -4 * error < nats < 0.15 + 4 * error


@pytest.mark.slow
def test_digits_are_bounded_below_independent_pixels(real_data, tmp_path):
    real_data("binmnist/binarized_mnist_test.amat")
    table = reproduce("discrete-mnist", tmp_path)
    alone, _, _ = value(table, "14 x 14: independent pixels, bits per image")
    for name in ("masking", "uniform"):
        bits, error, _ = value(table, f"{name}, held out: bound in bits per image")
        assert bits + 4 * error < 0.8 * alone


@pytest.mark.slow
def test_the_posterior_of_g_and_k_is_that_of_the_chain(tmp_path):
    table = reproduce("g-and-k", tmp_path)
    for name in g_and_k.NAMES:
        mean, _, known = value(table, f"{name}, denoiser: posterior mean")
        _, _, spread = value(table, f"{name}, denoiser: posterior deviation")
        assert abs(mean - known) < 1.5 * spread
