"""Solvers against closed forms on N(0, .49) and their papers' steps; limits and settings."""

import itertools
import math

import numpy as np
import pytest
import torch

from reverie.denoisers import as_denoiser
from reverie.errors import InputError
from reverie.processes import EDM, VE, VP, Custom, Rectified
from reverie.sampling import SAMPLERS, Churn, sample
from reverie.sampling.scales import Scales, combine
from solver_laws import C2, Mixture, gaussian, grid, seed_after_the_start, variances, visits_of

ON_A_PLAN = [name for name in SAMPLERS if name != "ode"]
# Langevin steps are scaled by their own batch's norms, so that they are not linear in the state
LINEAR = [name for name in ON_A_PLAN if name != "predictor-corrector"]


def needs(sampler):
    if sampler == "ode":
        pytest.importorskip("torchdiffeq")


def linear_map(monkeypatch, model, times, sampler, dim=1, **options):
    """The whole run as one matrix (dim, dim + dim * draws): of the initial state and each noise.

    A linear denoiser makes a run linear in both, so a batch of unit vectors reads it off exactly.
    """
    rows = dim * len(times)
    eye = torch.eye(rows, dtype=torch.float64)
    drawn = itertools.count(1)

    def unit_noise(levels, state):
        columns = slice(dim * (k := next(drawn)), dim * (k + 1))
        return eye[:, columns].reshape(state.shape)

    monkeypatch.setattr(Scales, "noise", unit_noise)
    *_, last = sample.trajectory(
        model, rows, times, sampler, init=eye[:, :dim].contiguous(), **options
    )
    monkeypatch.undo()
    return last.state.T


def flow_error(monkeypatch, process, steps, sampler, **options):
    """Relative error of a deterministic solver's factor, exactly sqrt(var_end / var_start)."""
    times = grid(process, steps)
    factor = float(linear_map(monkeypatch, gaussian(process), times, sampler, **options)[0, 0])
    start, end = variances(process, times[[0, -1]]).tolist()
    return abs(factor / math.sqrt(end / start) - 1)


def variance_error(monkeypatch, process, steps, sampler, **options):
    """Relative error of the variance at the last level: the exact covariance recursion."""
    times = grid(process, steps)
    row = linear_map(monkeypatch, gaussian(process), times, sampler, **options)[0]
    start, end = variances(process, times[[0, -1]]).tolist()
    return abs(float(row[0] ** 2 * start + row[1:].square().sum()) / end - 1)


PUBLISHED = [  # solver, which error, errors at K = 16, 64, 256, slope of K = 64 to 256
    ("ddim", flow_error, (8.9e-2, 2.3e-2, 5.8e-3), (0.9, 1.1)),
    ("heun", flow_error, (1.9e-2, 1.1e-3, 6.9e-5), (1.9, 2.1)),
    ("dpm++2m", flow_error, (7.7e-3, 5.3e-4, 3.3e-5), (1.9, 2.1)),
    ("dpm++2s", flow_error, (8.1e-3, 5.4e-4, 3.4e-5), (1.9, 2.1)),
    ("unipc-2", flow_error, (3.9e-3, 6.6e-5, 1.0e-6), (2.8, 3.2)),
    ("ancestral", variance_error, (0.295, 8.8e-2, 2.3e-2), (0.9, 1.1)),
    ("sde-dpm++2m", variance_error, (3.8e-2, 2.8e-3, 1.8e-4), (1.9, 2.1)),
    ("exponential-euler", variance_error, (2.8e-2, 1.9e-3, 1.9e-4), (0.9, 1.8)),
]
FURTHER = [  # no published errors: the slope alone
    ("unipc-1", {}, flow_error, (1.9, 2.1)),
    ("unipc-3", {}, flow_error, (3.6, 4.2)),
    ("er-sde-1", dict(phi="ode"), flow_error, (0.9, 1.1)),
    ("er-sde-2", dict(phi="ode"), flow_error, (1.9, 2.1)),
    ("er-sde-3", dict(phi="ode"), flow_error, (1.9, 2.2)),
    ("er-sde-1", {}, variance_error, (0.9, 1.1)),
    ("er-sde-2", {}, variance_error, (1.9, 2.1)),
    ("er-sde-3", {}, variance_error, (1.9, 2.2)),
]


@pytest.mark.parametrize(("sampler", "error", "figures", "slope"), PUBLISHED)
@pytest.mark.parametrize("process", [VE(0.05, 20), VP(t_min=1e-3), Rectified()])
def test_errors_and_orders_are_the_published_ones(
    monkeypatch, sampler, error, figures, slope, process
):
    """Two digits of the table (3.5 %), the same on every process: the flow is the same."""
    found = [error(monkeypatch, process, k, sampler) for k in (16, 64, 256)]
    assert np.allclose(found, figures, rtol=0.035)
    assert slope[0] < math.log(found[1] / found[2], 4) < slope[1]


@pytest.mark.parametrize(("sampler", "options", "error", "slope"), FURTHER)
def test_orders_of_the_further_solvers(monkeypatch, sampler, options, error, slope):
    found = [error(monkeypatch, VP(t_min=1e-3), k, sampler, **options) for k in (64, 256)]
    assert slope[0] < math.log(found[0] / found[1], 4) < slope[1]


@pytest.mark.parametrize("sampler", LINEAR)
def test_halving_every_step_lowers_the_error(monkeypatch, sampler):
    process = EDM(0.05, 20)
    assert torch.allclose(grid(process, 32)[::2], grid(process, 16), rtol=1e-12)
    found = [variance_error(monkeypatch, process, k, sampler) for k in (16, 32, 64, 128)]
    assert all(fine < 0.7 * coarse for coarse, fine in itertools.pairwise(found))


def two_speeds():
    """A process with two speeds, correlated Gaussian data, and 120 steps."""
    process = Custom(
        lambda t: torch.ones(len(t), 2, dtype=torch.float64),
        lambda t: torch.stack([20 * t**2, 20 * t], 1),
        t_range=(0.002, 1),
        shape=(2,),
    )
    cov = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    return process, cov, process.time(torch.logspace(math.log10(1 / 400), 5, 121).double())


@pytest.mark.parametrize("sampler", LINEAR)
def test_coordinates_noised_at_own_speeds(monkeypatch, sampler):
    """Two speeds on correlated Gaussians: the exact covariance, to what 120 steps leave of it."""
    process, cov, times = two_speeds()
    matrix = linear_map(monkeypatch, gaussian(process, cov), times, sampler, dim=2)
    start, end = (cov + torch.diag(s**2) for s in process.sigma(times[[0, -1]]))
    reached = matrix[:, :2] @ start @ matrix[:, :2].T + matrix[:, 2:] @ matrix[:, 2:].T
    first_order = sampler in ("ancestral", "ddim", "er-sde-1")
    assert (reached - end).abs().max() < (0.1 if first_order else 0.005)


def test_langevin_steps_at_own_speeds(generator):
    """Covariance of 2,000 samples: 5 standard errors and the bias of its ancestral steps."""
    process, cov, times = two_speeds()
    drawn = sample(
        gaussian(process, cov), 2000, times, "predictor-corrector",
        generator=generator, dtype=torch.float64,
    )  # fmt: skip
    assert (drawn.T.cov() - cov).abs().max() < 5 * math.sqrt(2 / 2000) + 0.1


@pytest.mark.parametrize("order", [1, 2, 3])
def test_er_sde_is_its_paper_term_by_term(order):
    """The update rules written out, their integrals by a fine trapezoid."""
    process, phi = VP(t_min=1e-3), lambda s: s * (np.exp(s**0.3) + 10)
    times = grid(process, 8, (15.0, 0.1))
    ours = visits_of(process, times, f"er-sde-{order}")
    seed = seed_after_the_start()
    alpha = process.alpha(times).tolist()
    s = [float(v) / a for v, a in zip(process.sigma(times), alpha, strict=True)]
    y = ours[0].state / alpha[0]
    guesses, slopes = [], [None]
    for k in range(8):
        now, new, clean = s[k], s[k + 1], ours[k].guess
        guesses.append(clean)
        ratio = phi(new) / phi(now)
        z = torch.randn(5, 3, generator=seed, dtype=torch.float64)
        moved = ratio * y + (1 - ratio) * clean + math.sqrt(new**2 - now**2 * ratio**2) * z
        eta = np.linspace(new, now, 20_001)
        if order > 1 and k > 0:
            slopes.append((clean - guesses[-2]) / (now - s[k - 1]))
            moved += (new - now + np.trapezoid(1 / phi(eta), eta) * phi(new)) * slopes[-1]
        if order > 2 and k > 1:
            bend = 2 * (slopes[-1] - slopes[-2]) / (now - s[k - 2])
            inside = np.trapezoid((eta - now) / phi(eta), eta) * phi(new)
            moved += (0.5 * (new - now) ** 2 + inside) * bend
        y = moved
        assert torch.allclose(alpha[k + 1] * y, ours[k + 1].state, atol=1e-6)


# --- limits and settings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "options", "other"),
    [
        ("sde-dpm++2m", dict(eta=0.0), "dpm++2m"),
        ("er-sde-1", dict(phi="ode"), "ddim"),
        ("er-sde-1", dict(phi="sde"), "ancestral"),
        ("ddim", dict(eta=1.0), "ancestral"),
    ],
)
def test_limits_are_other_solvers(one, options, other):
    process = VP(t_min=1e-3)
    times = grid(process, 9)
    a, b = visits_of(process, times, one, **options), visits_of(process, times, other)
    assert all(torch.allclose(v.state, w.state, atol=1e-9) for v, w in zip(a, b, strict=True))


@pytest.mark.parametrize("sampler", ON_A_PLAN)
@pytest.mark.parametrize("steps", [1, 2])
def test_one_step_and_two_are_enough_to_run(sampler, steps):
    process = VP(t_min=1e-3)
    visits = visits_of(process, grid(process, steps), sampler)
    assert len(visits) == steps + 1
    assert torch.isfinite(visits[-1].guess).all()


@pytest.mark.parametrize("sampler", ["ddim", "sde-dpm++2m"])
def test_noise_fades_with_eta(sampler):
    process = VP(t_min=1e-3)
    times = grid(process, 9)
    quiet = visits_of(process, times, sampler, eta=0.0)[-1].state
    gaps = [
        float((visits_of(process, times, sampler, eta=eta)[-1].state - quiet).abs().max())
        for eta in (1e-2, 1e-4, 1e-6)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-2


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "unipc-1", "er-sde-1", "dpm++2m"])
def test_a_step_to_no_noise_returns_the_guess(sampler):
    """One step to sigma = 1e-9; every sampler ends with the exact one, the readout of a guess."""
    process = VE(1e-9, 15)
    times = process.time(torch.tensor([15.0, 1e-9], dtype=torch.float64) ** -2)
    visits = visits_of(process, times, sampler)
    reached = visits[1].state if sampler != "unipc-1" else visits[1].guess
    expected = visits[0].guess if sampler != "unipc-1" else Mixture(process)(reached, times[1])
    assert torch.allclose(reached, expected, atol=1e-7)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_reaches_the_law_and_repeats_its_seed(sampler):
    """Deviation of 4,000 samples: 5 standard errors and the bias of 60 first-order steps."""
    needs(sampler)
    process = EDM(0.02, 20)

    def draw(seed, n=4000):
        return sample(
            gaussian(process), n, grid(process, 60, (20, 0.02)), sampler, shape=(1,),
            generator=torch.Generator().manual_seed(seed), dtype=torch.float64,
        )  # fmt: skip

    drawn = draw(0)
    assert abs(float(drawn.std()) / math.sqrt(C2) - 1) < 5 / math.sqrt(8000) + 0.06
    assert torch.equal(draw(1, 50), draw(1, 50))
    assert not torch.equal(draw(1, 50), draw(2, 50))


@pytest.mark.parametrize(
    ("sampler", "options", "words"),
    [
        ("heun", dict(eta=1.0), "heun takes no eta; it belongs to ddim, sde-dpm"),
        ("ancestral", dict(churn=Churn(1.0)), "belongs to heun"),
        ("ddim", dict(eta=1.5), "eta is 1.5"),
        ("sde-dpm++2m", dict(eta=-1.0), "negative"),
        ("er-sde-2", dict(phi="cubic"), "choose ode, sde, default"),
        ("er-sde-2", dict(phi=torch.sqrt), "must not decrease"),
        ("predictor-corrector", dict(snr=0.0), "snr > 0"),
        ("ode", dict(tolerance=0.0), "tolerance"),
    ],
)
def test_bad_settings_get_one_sentence(sampler, options, words):
    with pytest.raises(InputError, match=words):
        sample(gaussian(EDM()), 2, grid(EDM(), 4), sampler, shape=(1,), **options)


def test_an_unknown_sampler_is_told_all_names():
    with pytest.raises(InputError) as error:
        sample(gaussian(EDM()), 2, grid(EDM(), 4), "euler", shape=(1,))
    assert all(name in str(error.value) for name in SAMPLERS)


def test_langevin_steps_are_those_of_the_paper():
    """One level of two corrections by hand, then the ancestral step."""
    process = VP(t_min=1e-3)
    times = grid(process, 1, (2.0, 0.5))
    ours = visits_of(process, times, "predictor-corrector", snr=0.2, corrections=2)
    seed = torch.Generator().manual_seed(7)
    x = process.sigma(times[:1]) * torch.randn(5, 3, generator=seed, dtype=torch.float64)
    alpha, sigma = process.scales(times[:1], x)
    for _ in range(2):
        score = (alpha * Mixture(process)(x, times[0]) - x) / sigma**2
        z = torch.randn(5, 3, generator=seed, dtype=torch.float64)
        ratio = z.norm(dim=1).mean() / score.norm(dim=1).mean()
        step = 2 * (0.2 * ratio) ** 2
        x = x + step * score + torch.sqrt(2 * step) * z
    assert torch.allclose(x, ours[0].state)
    assert torch.allclose(ours[0].guess, Mixture(process)(x, times[0]))


def test_corrections_bring_a_coarse_plan_nearer_the_law(generator):
    """8 steps on N(0, .49): the ancestral sampler's spread is 9 % too small, by its recursion."""
    process = VE(0.05, 20)
    gaps = []
    for sampler, options in (("ancestral", {}), ("predictor-corrector", dict(corrections=3))):
        drawn = sample(
            gaussian(process), 20_000, grid(process, 8), sampler, shape=(1,),
            generator=generator, dtype=torch.float64, **options,
        )  # fmt: skip
        gaps.append(abs(float(drawn.std()) / math.sqrt(C2) - 1))
    assert gaps[1] < 0.5 * gaps[0]


def test_heun_with_churn_is_the_paper_step_by_step():
    process = EDM(0.02, 20)
    times, churn = grid(process, 6, (20, 0.02)), Churn(3.0, 0.05, 10.0, 1.01)
    ours = visits_of(process, times, "heun", churn=churn)
    seed = seed_after_the_start()
    sigmas, x, model = process.sigma(times).tolist(), ours[0].state, Mixture(process)
    for k in range(6):
        grow = min(3.0 / 6, math.sqrt(2) - 1) if 0.05 <= sigmas[k] <= 10 else 0.0
        here = sigmas[k] * (1 + grow)
        if grow:
            z = torch.randn(5, 3, generator=seed, dtype=torch.float64)
            x = x + 1.01 * math.sqrt(here**2 - sigmas[k] ** 2) * z
        level = torch.tensor([here], dtype=torch.float64)
        slope = (x - model(x, process.time(level**-2))) / here
        ahead = x + (sigmas[k + 1] - here) * slope
        second = (ahead - model(ahead, times[k + 1])) / sigmas[k + 1]
        x = x + (sigmas[k + 1] - here) * 0.5 * (slope + second)
        assert torch.allclose(x, ours[k + 1].state, atol=1e-9)


# --- trajectories ------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trajectories_hold_state_guess_and_level(sampler):
    needs(sampler)
    process = VP(t_min=1e-3)
    times, model = grid(process, 6, (15, 0.05)), Mixture(process)
    visits = visits_of(process, times, sampler)
    ends = times[[0, -1]] if sampler == "ode" else times
    assert [v.t for v in visits] == ends.tolist()
    if not sampler.startswith("unipc"):  # its guess is the predicted state's
        for visit in visits:
            assert torch.allclose(visit.guess, model(visit.state, torch.tensor(visit.t)))

    def again(call):
        seed = torch.Generator().manual_seed(7)
        init = process.sigma(times[:1]) * torch.randn(5, 3, generator=seed, dtype=torch.float64)
        return call(model, 5, times, sampler, init=init, generator=seed)

    states = list(again(sample.states))
    assert torch.equal(again(sample), visits[-1].guess)
    assert torch.equal(states[-1], visits[-1].guess)
    assert all(torch.equal(a, b.state) for a, b in zip(states[:-1], visits[1:], strict=True))


@pytest.mark.parametrize("sampler", ON_A_PLAN)
def test_evaluations_are_as_told(sampler):
    calls = []

    class Count(torch.nn.Module):
        def forward(self, x, t):
            calls.append(len(x))
            return 0 * x

    model = as_denoiser(Count(), EDM())
    sample(model, 3, grid(EDM(), 6), sampler, shape=(2,))
    expected = {"heun": 13, "dpm++2s": 13, "predictor-corrector": 14}
    assert len(calls) == expected.get(sampler, 7)


# --- compilation -------------------------------------------------------------------------------


def test_a_compiled_network_is_traced_once_for_all_levels():
    """fullgraph forbids breaks, and levels come as tensors: one graph serves every level."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(3, 3).double()

        def forward(self, x, t):
            return self.inner(x) / (1 + t[:, None])

    model = as_denoiser(Net(), VE(0.05, 15), "noise", "sigma")
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    times = grid(model.process, 5, (15.0, 0.05))
    init = torch.ones(4, 3, dtype=torch.float64)
    for sampler in ("dpm++2m", "unipc-2"):
        one = sample(compiled, 4, times, sampler, init=init)
        assert torch.allclose(one, sample(model, 4, times, sampler, init=init))
    assert len(graphs) == 1


def test_a_step_compiles_without_a_break():
    torch._dynamo.reset()
    step = torch.compile(combine, backend="eager", fullgraph=True)
    state, guess, noise = torch.ones(3, 2), torch.full((3, 2), 2.0), torch.full((3, 2), 3.0)
    found = step(state, 0.5, (guess, 0.25), (noise, 0.1))
    assert torch.allclose(found, torch.full((3, 2), 1.3))
