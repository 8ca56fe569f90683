"""Densities without data: normalised weights, known constants, honest intervals."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.cli import main
from reverie.errors import InputError
from reverie.targets import (
    SMC,
    Chain,
    Funnel,
    Gaussian,
    GaussianStart,
    LogisticRegression,
    ManyWell,
    Mixture,
    ReversibleLayer,
    StudentMixture,
    Target,
    ULALayer,
    anneal,
    forty_gaussians,
    learned_pair,
    log_z_of_islands,
    log_z_of_weights,
    mode_coverage,
    mode_shares,
    sample,
)
from reverie.targets.controlled import Resampled
from reverie.targets.kernels import Bath
from reverie.targets.learned import LEARNED, AnnealedLayer, DampedLayer
from reverie.targets.training import train
from reverie.testing import BrokenLaw, check_pair

DOCS = Path(__file__).resolve().parents[1] / "docs"
TWO = Mixture([[-1.0, 0.0], [1.5, 1.0]], [0.8, 1.0], [1, 2])
SHIFT = 2.5  # log Z of the shifted mixture


def shifted(x):
    return TWO(x) + SHIFT


def exact(n=20_000, seed=9):
    return TWO.sample(n, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def path():
    target = Target(shifted, 2)
    start = GaussianStart.of(2, 0.3, 1.5)
    draw = torch.Generator().manual_seed(0)
    return {
        kernel: anneal(target, start=start, kernel=kernel, steps=6, n=256, generator=draw)
        for kernel in ("hmc", "mala", "ula", "random-walk")
    }


# --- E exp(log w) = Z ------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["hmc", "mala", "ula", "random-walk"])
def test_annealed_pairs_are_normalised(path, kernel):
    """Forward and backward, within 3 standard errors (`check_pair`); the seed is fixed."""
    found = path[kernel]
    layers = [
        ULALayer(bath) if kernel == "ula" else ReversibleLayer(kernel, bath)
        for bath in found.baths
    ]
    check_pair(Chain(Target(shifted, 2), found.start, layers), SHIFT, exact=exact(8000), n=8000)


@pytest.mark.parametrize("name", LEARNED)
def test_learned_pairs_are_normalised_at_random_parameters(name):
    """No network is trained; weights are moved by .02, which keeps the weights' variance small."""
    pair = learned_pair(name, Target(shifted, 2), GaussianStart.of(2, 0.3, 1.3), steps=6, width=16)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in pair.parameters():
            weight += 0.02 * torch.randn(weight.shape, dtype=weight.dtype, generator=draw)
    check_pair(pair, SHIFT, exact=exact(8000), n=8000, seed=1)


def test_islands_are_normalised(path):
    pair = SMC(Target(shifted, 2), path["hmc"], size=32)
    check_pair(pair, SHIFT, n=400)
    with pytest.raises(InputError, match="no backward chain"):
        pair.rollout(3, direction="backward", ends=exact(3))


def test_resampled_learned_islands_are_normalised():
    pair = learned_pair("cmcd", Target(shifted, 2), GaussianStart.of(2, 0.3, 3.0), steps=6)
    found = Resampled(pair, size=32).islands(1000, torch.Generator().manual_seed(0))
    z = (found.log_z - SHIFT).exp()
    assert found.resamplings > 0
    assert abs(float(z.mean()) - 1) < 3 * float(z.std()) / math.sqrt(1000)


def test_a_pair_that_is_not_normalised_breaks_the_law(path):
    class Forgetful(ULALayer):  # drops the forward noise
        def _ratio(self, there, here):
            return -0.5 * there.square().sum(1)

    found = path["ula"]
    with pytest.raises(BrokenLaw, match="not 1"):
        check_pair(
            Chain(Target(shifted, 2), found.start, [Forgetful(b) for b in found.baths]), SHIFT
        )


def test_clipped_noise_is_marked_and_has_no_interval(path):
    found = path["ula"]
    layers = [ULALayer(bath, clip=0.5) for bath in found.baths]
    part = Chain(Target(shifted, 2), found.start, layers).rollout(
        5000, generator=torch.Generator().manual_seed(0)
    )
    assert not part.valid
    told = log_z_of_weights(part.log_weight.numpy(), valid=part.valid)
    assert not told.told
    assert "clipped" in str(told)
    with pytest.raises(BrokenLaw, match="invalid"):
        check_pair(Chain(Target(shifted, 2), found.start, layers), SHIFT)


def test_detached_paths_weigh_the_same():
    for name in ("cmcd", "uha", "dds"):
        pair = learned_pair(name, Target(shifted, 2), GaussianStart.of(2, 0.3, 1.5), steps=4)
        plain, cut = (
            pair.rollout(50, generator=torch.Generator().manual_seed(3), detach=d).log_weight
            for d in (False, True)
        )
        torch.testing.assert_close(plain, cut)


# --- closed forms ----------------------------------------------------------------------------


MEAN, DEVIATION, LOG_Z, K = 1.5, 0.3, 1.308, 32


def oracle(x):
    return LOG_Z + Gaussian([MEAN], [[DEVIATION**2]])(x)


class Exact(torch.nn.Module):
    """u at step k from the marginal N(mean, cov) of the proposal there."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, k, x, slope):
        return self.answer(k, x, slope)


def bound(layers, momentum=False, n=20_000):
    chain = Chain(Target(oracle, 1), GaussianStart.of(1), layers, momentum=momentum)
    with torch.no_grad():
        logs = chain.rollout(n, generator=torch.Generator().manual_seed(0)).log_weight
    weight = torch.softmax(logs, 0)
    return float(logs.mean()), float(1 / weight.square().sum()) / n


def along(step):
    """Mean and variance of ULA's marginals from N(0, 1), K linear temperatures."""
    mean, variance, found = 0.0, 1.0, []
    for k in range(1, K + 1):
        b = k / K
        keep = 1 - step * (1 - b + b / DEVIATION**2)
        mean = keep * mean + step * b * MEAN / DEVIATION**2
        variance = keep**2 * variance + 2 * step
        found.append((mean, variance))
    return found


def test_oracles_of_the_damped_and_the_plain_chain():
    """N(1.5, .3^2), K = 32: ELBO -3.14 (ESS .22) with the same kernel back, 1.21 (.84) with the
    exact score. The published setting fits start N(0, 1), linear temperatures, h = .02, which the
    same numbers by an independent NumPy script agree with. Tolerance: four standard errors."""
    step, log_step = 0.02, torch.full((K,), math.log(0.02), dtype=torch.float64)
    start, unit = GaussianStart.of(1), torch.eye(1, dtype=torch.float64)
    plain = [ULALayer(Bath(start, k / K, step, unit)) for k in range(1, K + 1)]
    elbo, ess = bound(plain)
    assert elbo == pytest.approx(-3.14, abs=0.12)
    assert ess == pytest.approx(0.22, abs=0.03)
    marginals = along(step)

    def answer(k, x, slope):  # 2 (grad log gamma_k - grad log q_k)
        b = (k + 1) / K
        mean, variance = marginals[k]
        return 2 * (b * slope - (1 - b) * x + (x - mean) / variance)

    scored = [
        AnnealedLayer(k, (k + 1) / K, log_step, None, Exact(answer))  # type: ignore[arg-type]
        for k in range(K)
    ]
    elbo, ess = bound(scored)
    assert elbo == pytest.approx(1.21, abs=0.02)
    assert ess == pytest.approx(0.84, abs=0.03)


def test_the_exact_reversal_loses_only_the_last_marginal():
    """ELBO = log Z - KL(q_K | target), pathwise 1.29, ESS .97."""
    step, marginals = 0.02, [(0.0, 1.0), *along(0.02)]
    start, unit = GaussianStart.of(1), torch.eye(1, dtype=torch.float64)

    class Reversed(ULALayer):
        def __init__(self, k, bath):
            super().__init__(bath)
            keep = 1 - step * (1 - bath.b + bath.b / DEVIATION**2)
            (mean, variance), after = marginals[k], marginals[k + 1]
            self.gain = variance * keep / after[1]
            self.before, self.after = mean, after[0]
            self.noise_back = math.sqrt(variance - self.gain * keep * variance)

        def mean_back(self, point):
            return self.before + self.gain * (point.x - self.after)

    elbo, ess = bound([Reversed(k, Bath(start, (k + 1) / K, step, unit)) for k in range(K)])
    mean, variance = marginals[-1]
    ratio = variance / DEVIATION**2
    kl = 0.5 * (ratio - 1 - math.log(ratio) + ((mean - MEAN) / DEVIATION) ** 2)
    assert elbo == pytest.approx(LOG_Z - kl, abs=0.004)
    assert elbo == pytest.approx(1.29, abs=0.005)
    assert ess == pytest.approx(0.97, abs=0.01)


def test_the_damped_chain_gains_from_its_exact_score():
    """UHA -1.03 -> 1.08 with u = v + grad_v log q. Step and friction are not published; .15 and
    .9 come near both (an independent NumPy script: -1.2 and 1.07)."""
    step, keep = 0.15, 0.9
    log_step = torch.full((K,), math.log(step), dtype=torch.float64)
    share = torch.tensor(math.log(keep / (1 - keep)), dtype=torch.float64)
    mean, cov, laws = np.zeros(2), np.eye(2), []
    for k in range(1, K + 1):
        b = k / K
        pull, push = 1 - b + b / DEVIATION**2, b * MEAN / DEVIATION**2
        fresh = np.diag([1, keep])
        mean, cov = fresh @ mean, fresh @ cov @ fresh + np.diag([0, 1 - keep**2])
        laws.append((mean[1], mean[0], np.linalg.inv(cov)))
        kick, drift = np.array([[1, 0], [-0.5 * step * pull, 1]]), np.array([[1, step], [0, 1]])
        half = np.array([0, 0.5 * step * push])
        mean = kick @ (drift @ (kick @ mean + half)) + half
        cov = (kick @ drift @ kick) @ cov @ (kick @ drift @ kick).T

    def answer(k, joined, slope):
        speed, place, inverse = laws[k]
        x, v = joined[:, :1], joined[:, 1:]
        return v - inverse[1, 0] * (x - place) - inverse[1, 1] * (v - speed)

    found = []
    for control in (lambda k, joined, slope: torch.zeros_like(slope), answer):
        layers = [
            DampedLayer(k, (k + 1) / K, log_step, share, Exact(control))  # type: ignore[arg-type]
            for k in range(K)
        ]
        found.append(bound(layers, momentum=True)[0])
    assert found[0] == pytest.approx(-1.2, abs=0.12)
    assert found[1] == pytest.approx(1.08, abs=0.03)


def test_the_excess_of_a_plan_is_the_loss_of_annealing():
    """Gaussian start and target: E_b U is a closed form, log Z - ELBO of perfect kernels too."""
    target, wide = Target(Gaussian([0.0], [[0.04]]), 1), GaussianStart.of(1, 0.0, 1.0)
    path = anneal(target, start=wide, steps=8, generator=torch.Generator().manual_seed(0), n=4096)
    b = path.temperatures
    variance = 1 / ((1 - b) + b * 25)
    mean = math.log(5) - 0.5 * (25 - 1) * variance  # of U under gamma_b
    loss = 0.0 - float(np.diff(b) @ mean[:-1])  # log Z = 0
    assert path.plan.excess == pytest.approx(loss, rel=0.05)
    assert np.all(np.diff(b) > 0)
    assert (b[0], b[-1]) == (0.0, 1.0)
    even = np.linspace(0, 1, 9)
    naive = math.log(5) - 12 / ((1 - even[:-1]) + even[:-1] * 25)
    assert loss < 0.5 * -float(np.diff(even) @ naive)


@pytest.mark.parametrize("dim", [2, 8])
def test_known_constants(dim):
    assert ManyWell(dim).log_z == pytest.approx(dim / 2 * 10.29348, abs=1e-4)
    assert ManyWell(2).wells == 1


@pytest.mark.parametrize(
    "law",
    [TWO, Gaussian([1.0, 2.0], [[2.0, 0.5], [0.5, 1.0]]), Funnel(2),
     StudentMixture([[0.0, 0.0], [4.0, 4.0]])],
    ids=["mixture", "gaussian", "funnel", "student"],
)  # fmt: skip
def test_normalised_targets_integrate_to_one(law):
    """Brute force on a grid, which the tails of the funnel and of Student's law leave by 2%."""
    wide = torch.linspace(-60, 60, 1001, dtype=torch.float64)
    grid = torch.cartesian_prod(wide, wide)
    mass = float(law(grid).exp().sum()) * 0.12**2
    assert mass == pytest.approx(1, abs=0.03)
    assert law.sample(5, torch.Generator().manual_seed(0)).shape == (5, 2)


def test_many_well_draws_have_its_shares():
    law = ManyWell(4)
    x = law.sample(20_000, torch.Generator().manual_seed(0))
    right = float((x[:, 0] > 0).double().mean())
    assert right == pytest.approx(law.right(), abs=4 * math.sqrt(0.2 / 20_000))


# --- estimates -------------------------------------------------------------------------------


def test_intervals_of_lognormal_weights_cover():
    """Weights exp(N(-s^2/2, s^2)) have Z = 1. 400 sets of 2,000, s = .8: 90% cover, of all told;
    344 to 376 is within two standard deviations and more of 360."""
    rng = np.random.default_rng(0)
    told = [log_z_of_weights(0.8 * rng.normal(size=2000) - 0.32) for _ in range(400)]
    assert all(one.told for one in told)
    assert 344 <= sum(one.low <= 0 <= one.high for one in told) <= 376


def test_intervals_of_islands_cover():
    rng = np.random.default_rng(1)
    told = [log_z_of_islands(0.4 * rng.normal(size=16) - 0.08, ess=1.0, n=16) for _ in range(400)]
    assert 344 <= sum(one.low <= 0 <= one.high for one in told) <= 376


@pytest.mark.parametrize(
    ("logs", "why"),
    [
        (np.r_[np.zeros(999), 50.0], "count"),
        (2.2 * np.random.default_rng(0).normal(size=40_000), "heavy"),
        (np.full(50, -np.inf), "no draw"),
    ],
)
def test_no_interval_where_the_weights_cannot_tell(logs, why):
    told = log_z_of_weights(logs)
    assert not told.told
    assert why in str(told)
    assert told.to_json()["low"] is None


def test_islands_that_differ_tell_nothing():
    told = log_z_of_islands([0.0, 4.0, -3.0, 1.0], ess=1.0, n=4)
    assert "differ" in told.reason
    assert "died" in log_z_of_islands([0.0, -np.inf, 0.0, 0.0], ess=1.0, n=4).reason


# --- the verb --------------------------------------------------------------------------------


@pytest.mark.slow
def test_sample_finds_a_mixture():
    run = sample(shifted, 2, start=(0.3, 2.0), n=1024, modes=TWO.means)
    assert run.log_z.told
    assert abs(run.log_z.value - SHIFT) < 4 * run.log_z.stderr
    assert run.samples.shape == (1024, 2)
    assert run.modes == pytest.approx(mode_shares(exact(), TWO.means), abs=0.06)
    assert run.elbo <= run.log_z.high
    again = sample(shifted, 2, start=(0.3, 2.0), n=1024)
    assert torch.equal(run.samples, again.samples)
    assert "None of this sees a mode" in run.sentences()[-1]
    assert run.to_json()["log_z"]["value"] == run.log_z.value


def test_annealing_by_ula_costs_one_gradient_a_step():
    run = sample(
        shifted,
        2,
        method="ais",
        kernel="ula",
        start=(0.3, 1.5),
        n=4096,
        steps=20,
        exact=exact(500),
    )
    pilot = sample(
        shifted,
        2,
        method="ais",
        kernel="ula",
        start=(0.3, 1.5),
        n=2048,
        steps=20,
        exact=exact(500),
    )
    # the difference is 2,048 paths of 20 steps: 21 gradients each
    assert run.gradients - pilot.gradients == 2048 * 21
    assert run.elbo - 3 * run.elbo_stderr < SHIFT < run.eubo + 3 * run.eubo_stderr


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["reverse-kl", "log-variance"])
def test_training_tightens_both_bounds(loss):
    pair = learned_pair("cmcd", Target(shifted, 2), GaussianStart.of(2, 0.3, 1.5), steps=4)
    draw = torch.Generator().manual_seed(0)
    rows = exact(4000)

    def gap():
        with torch.no_grad():
            low = pair.rollout(4000, generator=draw).log_weight.mean()
            high = pair.rollout(4000, direction="backward", ends=rows, generator=draw)
        return float(high.log_weight.mean() - low)

    before = gap()
    train(pair, loss=loss, steps=60, batch=128, generator=draw)
    assert gap() < 0.7 * before


@pytest.mark.slow
def test_a_posterior_agrees_with_quadrature():
    """Two coefficients: the evidence on a grid."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 1))
    law = LogisticRegression(rows, rng.random(40) < 1 / (1 + np.exp(-2 * rows[:, 0])))
    wide = torch.linspace(-8, 8, 801, dtype=torch.float64)
    truth = float(torch.logsumexp(law(torch.cartesian_prod(wide, wide)), 0)) + 2 * math.log(0.02)
    run = sample(law, n=1024)
    assert run.log_z.low - 0.02 < truth < run.log_z.high + 0.02


def test_a_density_with_a_boundary_and_no_gradient():
    """Uniform on a quarter disc, in NumPy: log Z = log(pi / 4)."""

    def log_density(x):
        inside = (x.numpy() > 0).all(1) & (np.square(x.numpy()).sum(1) < 1)
        return torch.from_numpy(np.where(inside, 0.0, -np.inf))

    run = sample(log_density, 2, kernel="random-walk", start=(0.5, 0.5), n=2048)
    assert run.log_z.told
    assert abs(run.log_z.value - math.log(math.pi / 4)) < 4 * run.log_z.stderr
    assert (run.samples > 0).all()


def test_forty_modes():
    law = forty_gaussians()
    shares = mode_shares(law.sample(4000, torch.Generator().manual_seed(0)), law.means)
    assert mode_coverage(shares) > 0.98
    assert mode_coverage(np.r_[1.0, np.zeros(39)]) == 0


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: sample(shifted), "give dim"),
        (lambda: sample(shifted, 2, method="magic"), "choose smc"),
        (lambda: sample(shifted, 2, kernel="ula"), "reversible"),
        (lambda: sample(shifted, 2, method="dds", kernel="hmc"), "learned methods take none"),
        (lambda: sample(shifted, 2, n=3), "at least 64"),
        (lambda: sample(shifted, 2, start=-1.0), "positive"),
        (lambda: sample(lambda x: x, 2), "must be a tensor"),
        (lambda: sample(lambda x: x.sum(1) * 0 + torch.inf, 2), r"\+inf"),
        (lambda: sample(lambda x: x.sum(1) * 0 - torch.inf, 2), "every draw of the start"),
        (lambda: sample(lambda x: torch.from_numpy(x.detach().numpy().sum(1)), 2), "autograd"),
    ],
)
def test_bad_input_gets_one_sentence(call, why):
    with pytest.raises(InputError, match=why):
        call()


# --- the command line and the page of docs ---------------------------------------------------


@pytest.mark.slow
def test_the_page_of_targets_runs(tmp_path, monkeypatch, capsys):
    """Word for word; log Z of a double well is 10.2935 by quadrature."""
    text = (DOCS / "targets.md").read_text()
    code, typed = re.findall(r"```(?:python|sh)\n(.*?)```", text, re.DOTALL)[:2]
    (tmp_path / "double_well.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "double_well", raising=False)
    with pytest.raises(SystemExit) as left:
        main([*shlex.split(typed)[1:], "--quiet", "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert abs(told["log_z"]["value"] - 10.29348) < 4 * told["log_z"]["stderr"]
    assert np.load(tmp_path / "well" / "samples.npy").shape == (1024, 2)
    assert "None of this sees a mode" in (tmp_path / "well" / "target.html").read_text()
    flow = re.search(r"```sh\n(reverie target .*--method snf.*?)\n```", text)
    with pytest.raises(SystemExit) as left:
        main([*shlex.split(flow[1])[1:], "--quiet", "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["layers"] == "flow mala"
    assert abs(told["elbo"] - 10.29348) < 1  # one of two wells alone is log 2 below
    sys.modules.pop("double_well")


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("target mine:broken --dim 1", "broken fails on points"),
        ("target mine:gone --dim 1", "no function"),
        ("target mine:fine", "give dim"),
        ("target mine:fine --dim 1 --start wide", "deviation"),
        ("maxcut gone.txt", "cannot read"),
        ("maxcut loop.txt", "no edges"),
        ("maxcut odd.txt", "no number"),
    ],
)
def test_the_commands_refuse_in_one_sentence(tmp_path, monkeypatch, capsys, typed, why):
    (tmp_path / "mine.py").write_text(
        "def broken(x):\n    raise KeyError('no')\ndef fine(x):\n    return -x.square().sum(1)\n"
    )
    (tmp_path / "loop.txt").write_text("a a\n")
    (tmp_path / "odd.txt").write_text("a b heavy\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(SystemExit) as left:
        main([*typed.split(), "--quiet"])
    assert left.value.code == 2
    assert why in capsys.readouterr().err
    sys.modules.pop("mine", None)
