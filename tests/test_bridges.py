"""Bridges against closed forms: Gaussian plans, Markovian fitting, entropic transport."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from reverie import InputError, measure, plan_steps
from reverie.bridges import (
    BrownianMotion,
    GaussianBridge,
    Independent,
    MinibatchSinkhorn,
    NoiseReference,
    OrnsteinUhlenbeck,
    Paired,
    Sinkhorn,
    SinkhornBridge,
    pairs_for,
    reference_named,
    sinkhorn,
)
from reverie.bridges.gaussian import (
    linear_plan_covariance,
    markov_projection,
    path_covariance,
    path_gain,
    plan_covariance,
)
from reverie.processes import EDM, VP


def covariances(d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    a, b = (torch.as_tensor(draw.normal(size=(d, d + 2)) / math.sqrt(d)) for _ in range(2))
    return a @ a.T, b @ b.T


def scalar(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


# --- Gaussian closed forms ----------------------------------------------------------------------


def test_the_plan_between_unit_gaussians_is_the_golden_ratio() -> None:
    assert float(plan_covariance(scalar(1), scalar(1), 1.0)) == pytest.approx(
        (math.sqrt(5) - 1) / 2, abs=1e-14
    )


def test_the_plan_is_the_fixed_point_of_gaussian_sinkhorn() -> None:
    """exp(-x'Ax/2 - y'By/2 + x'y/e), marginals fitted in turn, and optimality matrix I/e."""
    first, second = covariances(4)
    e, eye = 0.7, torch.eye(4, dtype=torch.float64)
    B = eye.clone()
    for _ in range(400):
        A = torch.linalg.inv(first) + torch.linalg.inv(B) / e**2
        B = torch.linalg.inv(second) + torch.linalg.inv(A) / e**2
    joint = torch.linalg.inv(torch.cat([torch.cat([A, -eye / e], 1), torch.cat([-eye / e, B], 1)]))
    found = plan_covariance(first, second, e)
    assert torch.allclose(joint[:4, 4:], found, atol=1e-10)
    whole = torch.cat([torch.cat([first, found], 1), torch.cat([found.T, second], 1)])
    assert torch.allclose(-torch.linalg.inv(whole)[:4, 4:], eye / e, atol=1e-9)


def test_a_singular_end_keeps_its_plan() -> None:
    first = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    found = plan_covariance(first, torch.eye(2, dtype=torch.float64), 1.0)
    want = torch.diag(torch.tensor([(math.sqrt(5) - 1) / 2, 0.0], dtype=torch.float64))
    assert torch.allclose(found, want, atol=1e-12)


def test_drift_and_covariance_agree_along_the_path() -> None:
    """dS/ds = K S + S K' + e, and K is symmetric at the optimum only."""
    first, second = covariances(3)
    e, h = 0.5, 1e-5
    for plan, symmetric in ((plan_covariance(first, second, e), True), (0 * first, False)):
        before, now, after = (
            path_covariance(first, second, plan, e, s) for s in (0.4 - h, 0.4, 0.4 + h)
        )
        K = path_gain(first, second, plan, e, 0.4)
        slope = K @ now + now @ K.T + e * torch.eye(3)
        assert torch.allclose((after - before) / (2 * h), slope, atol=1e-8)
        assert torch.allclose(K, K.T, atol=1e-10) == symmetric


def test_markovian_fitting_follows_its_recursion() -> None:
    """Spec 2.2: variances .36 and 1.69, epsilon .64, from independent ends."""
    plan, seen = scalar(0), []
    for _ in range(5):
        plan = markov_projection(scalar(0.36), scalar(1.69), plan, 0.64)
        seen.append(float(plan))
    assert seen == pytest.approx([0.4654, 0.5180, 0.52265, 0.52305, 0.52309], abs=5e-5)
    assert seen[-1] == pytest.approx(float(plan_covariance(scalar(0.36), scalar(1.69), 0.64)),
                                     abs=1e-5)  # fmt: skip


def test_markovian_fitting_stays_at_the_plan() -> None:
    first, second = covariances(3)
    plan = plan_covariance(first, second, 0.5)
    assert torch.allclose(markov_projection(first, second, plan, 0.5), plan, atol=1e-6)


REFERENCES = [
    BrownianMotion(0.8),
    OrnsteinUhlenbeck(0.8, 0.7),
    NoiseReference(VP(), 0.5),
    NoiseReference(EDM(0.02, 2)),
]


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda r: type(r).__name__)
def test_any_reference_is_a_brownian_one_on_its_clock(reference) -> None:
    """The plan by scale and clock is the plan by whitening; paths keep both marginals."""
    first, second = covariances(3)
    zero = torch.zeros(3, dtype=torch.float64)
    bridge = GaussianBridge(zero, first, zero + 1, second, reference)
    eye, m = torch.eye(3, dtype=torch.float64), reference.last_scale
    whitened = linear_plan_covariance(first, second, m * eye, m * m * reference.epsilon * eye)
    assert torch.allclose(bridge.covariance, whitened, atol=1e-9)
    x0 = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = x0 @ torch.linalg.cholesky(first).T
    x1 = bridge.sample(x0, generator=torch.Generator().manual_seed(1))
    both = torch.cov(torch.cat([x0, x1], 1).T)
    assert torch.allclose(both[3:, 3:], second, atol=0.08)
    assert torch.allclose(both[:3, 3:], bridge.covariance, atol=0.08)
    back = bridge.sample(x1, reverse=True, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(torch.cov(back.T), first, atol=0.08)


def test_paths_end_in_the_plan_as_the_step_falls() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    bridge = GaussianBridge(zero, scalar(0.36), zero, scalar(1.69), BrownianMotion(0.8))
    generator = torch.Generator().manual_seed(0)
    x0 = 0.6 * torch.randn(40_000, 1, generator=generator, dtype=torch.float64)
    path = bridge.path(x0, steps=100, generator=generator)
    assert path.shape == (101, 40_000, 1)
    found = torch.cov(torch.cat([path[0], path[-1]], 1).T)
    assert float(found[0, 1]) == pytest.approx(0.5231, abs=0.02)
    assert float(found[1, 1]) == pytest.approx(1.69, abs=0.05)
    back = bridge.path(path[-1], reverse=True, steps=100, generator=generator)
    assert torch.equal(back[-1], path[-1])
    found = torch.cov(torch.cat([back[0], back[-1]], 1).T)
    assert float(found[0, 1]) == pytest.approx(0.5231, abs=0.03)


# --- the bridge as a process --------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("reference", REFERENCES[:3], ids=lambda r: type(r).__name__)
def test_the_path_kl_is_the_area_and_the_staircase(reference, reverse) -> None:
    """Rate = half the variance of the far end given the state; nats by quadrature, closed form."""
    zero = torch.zeros(1, dtype=torch.float64)
    bridge = GaussianBridge(zero, scalar(0.36), zero, scalar(1.69), reference)
    generator = torch.Generator().manual_seed(0)
    x0 = 0.6 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    x1 = bridge.sample(x0, generator=generator)
    denoiser = bridge.denoiser(reverse=reverse)
    curve = measure(denoiser, pairs_for(x0, x1, reverse=reverse), levels=12)

    def exact(t: float) -> float:
        s = float(denoiser.process.path_share(t))
        cov = path_covariance(bridge.cov0, bridge.cov1, bridge.plan, reference.epsilon, s)
        far = bridge.cov0 if reverse else bridge.cov1
        across = (1 - s) * far + s * bridge.plan if reverse else (1 - s) * bridge.plan + s * far
        return 0.5 * float(far - across**2 / cov)

    assert curve.t is not None
    want = np.array([exact(float(t)) for t in curve.t])
    assert curve.rate == pytest.approx(want, rel=0.05)
    plan = plan_steps(curve, steps=5)
    stairs = sum(
        (after - before) * float(curve(before)[0])
        for before, after in zip(plan.u[:-1], plan.u[1:], strict=True)
    )
    assert plan.excess == pytest.approx(stairs - curve.area(), rel=0.1, abs=0.05)
    assert plan.excess >= -1e-9


def test_a_step_costs_the_kl_of_its_two_kernels() -> None:
    """Between the bridge to the end and the bridge to the guess: two Gaussians of one variance."""
    bridge = GaussianBridge(torch.zeros(2), torch.eye(2), torch.ones(2), torch.eye(2),
                            BrownianMotion(0.7))  # fmt: skip
    denoiser = bridge.denoiser()
    x0, x1 = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs, t, s = pairs_for(x0, x1), 0.8, 0.3
    state = denoiser.process.corrupt(pairs, t, generator=torch.Generator().manual_seed(1))
    charge = denoiser.process.charge(denoiser, pairs, state, t, s)
    guess = denoiser(state, torch.full((6,), t))
    ratio = (0.5) / 0.8
    variance = 0.49 * ratio * 0.3
    kl = 0.5 * (ratio * (guess - x1)).square().sum(1) / variance
    assert torch.allclose(charge, kl)


# --- points and couplings -----------------------------------------------------------------------


def points(n: int, m: int, d: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(3)
    return torch.as_tensor(draw.normal(size=(n, d))), torch.as_tensor(draw.normal(1, 2, (m, d)))


@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_sinkhorn_keeps_its_marginals_and_is_optimal(epsilon) -> None:
    """Both marginals, and log P + c/e is a sum of a row's and a column's numbers."""
    x, y = points(30, 20)
    plan = sinkhorn(x, y, epsilon, tolerance=1e-9, iterations=20_000)
    P = plan.matrix()
    assert torch.allclose(P.sum(0), torch.full((20,), 1 / 20, dtype=P.dtype), atol=1e-12)
    assert float((P.sum(1) - 1 / 30).abs().sum()) < 1e-7
    assert torch.allclose(plan.log_rows().exp() / 30, P, atol=1e-9)


def test_sinkhorn_agrees_with_pot() -> None:
    ot = pytest.importorskip("ot")
    x, y = points(30, 20)
    cost = ot.dist(x.numpy(), y.numpy())
    theirs = ot.sinkhorn([], [], cost, reg=2 * 0.5, stopThr=1e-12, numItermax=10_000)
    assert sinkhorn(x, y, 0.5, tolerance=1e-10).matrix().numpy() == pytest.approx(theirs, abs=1e-9)


def test_the_sinkhorn_bridge_ends_in_its_plan() -> None:
    x, y = points(6, 5)
    bridge = SinkhornBridge(x, y, BrownianMotion(1.0), tolerance=1e-10)
    generator = torch.Generator().manual_seed(0)
    start = x[:1].repeat(4000, 1)
    want = bridge.plan.log_rows()[0].exp()

    def shares(ends: torch.Tensor) -> torch.Tensor:
        assert float(torch.cdist(ends, y).min(1).values.max()) < 1e-6  # points of the set
        return torch.bincount(torch.cdist(ends, y).argmin(1), minlength=5) / len(ends)

    assert float((shares(bridge.sample(start, generator=generator)) - want).abs().sum()) < 0.04
    simulated = bridge.path(start, steps=200, generator=generator)[-1]
    assert float((shares(simulated) - want).abs().sum()) < 0.08


def test_couplings_have_their_marginals() -> None:
    x, y = points(40, 50)
    generator = torch.Generator().manual_seed(0)
    reference = BrownianMotion(0.5)
    for coupling in (
        Independent(x, y),
        Sinkhorn(x, y, reference),
        MinibatchSinkhorn(x, y, reference, batch=64),
    ):
        x0, x1 = coupling.sample(6400, generator=generator)
        assert torch.allclose(x0.mean(0), x.mean(0), atol=0.1)
        assert torch.allclose(x1.mean(0), y.mean(0), atol=0.15)
    x0, x1 = Paired(x, 2 * x).sample(10, generator=generator)
    assert torch.equal(2 * x0, x1)


def test_bad_input_is_one_sentence() -> None:
    x, y = points(5, 6)
    for wrong in (
        lambda: Paired(x, y),
        lambda: Independent(x, y[:, :1]),
        lambda: BrownianMotion(0.0),
        lambda: BrownianMotion(float("nan")),
        lambda: sinkhorn(x, y, 0.0),
        lambda: reference_named("ou:speed=2"),
        lambda: GaussianBridge.fit(x, y[:, :1], BrownianMotion()),
        lambda: GaussianBridge.fit(x, y, BrownianMotion()).sample(x[:, :1]),
    ):
        with pytest.raises(InputError):
            wrong()
