"""What islands remember, long runs and their R-hat, posteriors by hand, gradients and memory."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from reverie.errors import InputError
from reverie.targets import (
    SMC,
    Annealing,
    CoxProcess,
    Gaussian,
    GaussianStart,
    LogisticRegression,
    Mixture,
    Target,
    anneal,
    learned_pair,
    log_z_of_islands,
    long_run,
)
from reverie.targets.chains import r_hat
from reverie.targets.smc import Population

NEAR = Gaussian([1.0, 0.0], [[0.25, 0.1], [0.1, 1.0]])


@pytest.fixture(scope="module")
def path():
    draw = torch.Generator().manual_seed(0)
    return anneal(Target(NEAR, 2), start=GaussianStart.of(2, 0.0, 2.0), n=256, generator=draw)


def test_moves_that_move_nothing_leave_everything(path):
    """Steps of 1e-9 keep every rank, and then no interval is given; of 8 usual moves few are left.

    .2: Spearman's correlation of 512 independent pairs, in 16 islands, has a deviation of .05."""
    still = Annealing(
        path.start, path.kernel, path.temperatures, [b.stepped(1e-9) for b in path.baths],
        path.curve, path.plan,
    )  # fmt: skip
    draw, target = torch.Generator().manual_seed(1), Target(NEAR, 2)
    found = [SMC(target, p, size=32, moves=8).islands(16, draw) for p in (still, path)]
    assert found[0].memory > 0.99
    assert found[1].memory < 0.2
    told = [log_z_of_islands(f.log_z.numpy(), ess=1.0, n=16, memory=f.memory) for f in found]
    assert [t.told for t in told] == [False, True]
    assert "order of log densities" in str(told[0])
    assert math.isfinite(told[0].stderr)


def test_the_correlation_is_spearmans():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(40, generator=rng, dtype=torch.float64) for _ in range(2))
    crowd = Population(Target(NEAR, 2).at(torch.zeros(40, 2).double()), 2)
    found = crowd.correlation(a, a + b)
    for k in range(2):
        part = slice(20 * k, 20 * k + 20)
        known = stats.spearmanr(a[part], (a + b)[part]).statistic
        assert float(found[k]) == pytest.approx(known, abs=1e-9)


def test_r_hat_sees_chains_that_differ():
    """Of equal chains 1 within .01; shifted by half a deviation, or of two widths, above 1.01."""
    draws = torch.randn(16, 400, 3, generator=torch.Generator().manual_seed(0)).double()
    assert np.abs(r_hat(draws) - 1).max() < 0.01
    draws[:8, :, 1] += 0.5
    draws[:8, :, 2] *= 2
    found = r_hat(draws)
    assert found[0] < 1.01
    assert (found[1:] > 1.02).all()


def test_a_long_run_draws_from_a_gaussian(path):
    found = long_run(
        Target(NEAR, 2), path, chains=16, moves=200, generator=torch.Generator().manual_seed(0)
    )
    assert found.r_hat.max() < 1.1
    assert found.points.mean(0).numpy() == pytest.approx([1.0, 0.0], abs=0.2)
    with pytest.raises(InputError, match="two chains"):
        long_run(Target(NEAR, 2), path, chains=1)


def test_a_cox_process_by_hand():
    """The Poisson law of every cell, without factorials, at a field of the exponential kernel."""
    counts = np.array([[2.0, 0], [1, 3]])
    law = CoxProcess(counts, variance=0.7, length=0.4)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    place = np.array([[0, 0], [0, 0.5], [0.5, 0], [0.5, 0.5]])
    cov = 0.7 * np.exp(-np.linalg.norm(place[:, None] - place, axis=2) / 0.4)
    field = math.log(6) - 0.35 + x.numpy() @ np.linalg.cholesky(cov).T
    cells = counts.reshape(-1)
    known = stats.poisson.logpmf(cells, np.exp(field) / 4)
    known = (known + cells * math.log(4) + np.array([math.lgamma(c + 1) for c in cells])).sum(1)
    known = known + stats.norm.logpdf(x.numpy()).sum(1)
    assert law(x).numpy() == pytest.approx(known)
    with pytest.raises(InputError, match="square"):
        CoxProcess(np.ones((2, 3)))


def test_a_regression_whose_columns_are_not_centred():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(3, 2, size=(30, 2)), rng.random(30) < 0.4
    law = LogisticRegression(rows, labels, 10.0, centred=False)
    w = rng.normal(size=3)
    score = w[0] + rows / rows.std(0) @ w[1:]
    known = stats.bernoulli.logpmf(labels, 1 / (1 + np.exp(-score))).sum()
    known += stats.norm.logpdf(w, scale=10).sum()
    assert float(law(torch.tensor(w)[None])) == pytest.approx(known)


@pytest.mark.parametrize("name", ["mcd", "cmcd", "dbs", "dds", "dis", "pis", "uha"])
def test_a_learned_step_costs_one_gradient(name):
    """Of K layers at most K + 1 points a path: each remembers its gradient."""
    target = Target(Mixture([[-1.0], [1.0]], 0.5), 1)
    pair = learned_pair(name, target, GaussianStart.of(1), steps=6, width=8)
    before = target.gradients
    pair.rollout(50, generator=torch.Generator().manual_seed(0))
    assert 0 < target.gradients - before <= 50 * 7


MILLION = """
import resource, torch
from reverie.targets import Gaussian, sample
torch.set_num_threads(1)
law = Gaussian([1.0, 0.0], [[0.25, 0.1], [0.1, 1.0]])
more = dict(method={method!r}, start=2.0, steps=4, moves={moves})
sample(law, n=4096, **more)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run = sample(law, n=10**6, **more)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024, len(run.samples), run.log_z.value)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="ru_maxrss has other units there")
@pytest.mark.parametrize(("method", "kernel"), [("smc", "hmc"), ("ais", "ula")])
def test_a_million_particles_take_bounded_memory(method, kernel):
    """10^6 particles in the plane are 16 MB a copy, of which samples, draws, weights and indices
    are a few; paths and islands move a part at a time: 400 MB more than 4,096 of them is ample,
    where all of them at once through 4 steps of autograd would take more."""
    code = MILLION.format(method=method, moves=1)
    code = code.replace("moves=1", f"moves=1, kernel={kernel!r}")
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    ).stdout.split()
    assert float(out[0]) < 400
    assert int(out[1]) == 10**6
    assert abs(float(out[2])) < 0.02
