"""Going round: returns against brute force and bounds on every space; memories, and basins."""

import json
import math

import numpy as np
import pytest
import torch

from reverie.auditing.finding import exposures
from reverie.auditing.judging import Judging
from reverie.auditing.model.cyclic import EXTRACTED, cyclic_probe, cyclic_states, probe_cost
from reverie.auditing.model.returning import (
    affinities,
    lonely,
    probe_levels,
    reach_bound,
    transitions,
)
from reverie.auditing.nulls.rank_tests import Effect
from reverie.denoisers import Denoiser, Linear, Memoriser
from reverie.errors import InputError
from reverie.processes import EDM, Brownian, Masking, Uniform
from reverie.spaces import Sphere, Torus


def normal(n, d=8, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def at(process, variance):
    """The level of additive noise of that variance."""
    return float(process.time(torch.tensor([1 / variance]))[0])


def drawn_on(process, n, seed=0):
    draw = torch.Generator().manual_seed(seed)
    if process.space.shape is not None and hasattr(process, "symbols"):
        return torch.unique(torch.randint(process.symbols, (n, 5), generator=draw), dim=0)
    return process.space.uniform(n, generator=draw)


# --- returns -------------------------------------------------------------------------------------


def test_two_points_by_quadrature(generator):
    process, x, variance = EDM(0.01, 20), torch.tensor([[-1.0], [1.0]]), 0.5
    t = at(process, variance)
    z = np.linspace(-10, 10, 4001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    y = 1 + math.sqrt(variance) * z
    exact = np.trapezoid(density / (1 + np.exp(-2 * y / variance)), z)
    found = transitions(process, x, t, draws=20_000, generator=generator)
    assert found.diagonal().numpy() == pytest.approx(exact, abs=0.006)  # 3 standard errors
    assert found.sum(1).numpy() == pytest.approx(1)
    assert affinities(process, x, t)[0, 1] == pytest.approx(math.exp(-4 / (8 * variance)))
    assert lonely(process, x, t).numpy() == pytest.approx(reach_bound(x, variance).numpy())


def test_the_table_of_normal_points(generator):
    """512 points of N(0, I_8): (variance, the bound, the return), from two other programs."""
    process, x = EDM(0.01, 20), normal(512)
    for variance, bound, returned in (
        (0.02, 0.9995, 1.0), (0.05, 0.983, 0.993), (0.1, 0.806, 0.943), (0.2, 0.209, 0.729)
    ):  # fmt: skip
        t = at(process, variance)
        found = transitions(process, x, t, draws=8, generator=generator).diagonal()
        assert float(found.mean()) == pytest.approx(returned, abs=0.03)
        assert 1 - float(lonely(process, x, t).mean()) == pytest.approx(bound, abs=0.04)


def test_affinities_of_symbols_in_closed_form(generator):
    x = drawn_on(Masking(3, 5), 12)
    apart = (x[:, None] != x[None]).sum(-1)
    masking, uniform = Masking(3, 5), Uniform(3, 5)
    hidden = 1 - float(masking.clock(0.4).reshape(-1)[0])  # the clock is the share revealed
    found = affinities(masking, x, 0.4, draws=4000, generator=generator)
    assert (found - hidden**apart).abs().max() < 0.03
    kernel = uniform.kernel(torch.tensor(0.4)).double().reshape(3, 3)
    site = kernel.sqrt() @ kernel.sqrt().T
    exact = site[0, 0] ** (5 - apart) * site[0, 1] ** apart
    found = affinities(uniform, x, 0.4, draws=4000, generator=generator)
    assert (found - exact).abs().max() < 0.03


SPACES = [Masking(3, 5), Uniform(3, 5), Brownian(Sphere(2)), Brownian(Torus(2))]


@pytest.mark.parametrize("process", SPACES)
@pytest.mark.parametrize("t", [0.25, 0.45, 0.65])
def test_the_bound_holds_on_every_space(process, t, generator):
    x, draws = drawn_on(process, 8), 200
    returned = transitions(process, x, t, draws=draws, generator=generator).diagonal()
    bound = 1 - lonely(process, x, t, draws=draws, generator=generator)
    assert (returned > bound - 4 * 0.5 / math.sqrt(draws)).all()


def test_the_flat_form_fails_on_the_sphere_and_the_general_one_does_not(generator):
    """Antipodes under strong noise: chords are no distances there."""
    process, x = Brownian(Sphere(2)), torch.tensor([[0.0, 0, 1], [0, 0, -1]]).double()
    t = float(process.time(torch.tensor([1 / 3.0]))[0])  # the time of heat is 3
    returned = transitions(process, x, t, draws=400, generator=generator).diagonal().mean()
    assert returned > 1 - lonely(process, x, t, draws=400, generator=generator).mean() - 0.05


def rows_of(points, rows):
    """Which row each point is, -1 for none."""
    gap = (points.double().flatten(1)[:, None] - rows.double().flatten(1)[None]).abs().amax(-1)
    return torch.where(gap.min(1).values < 0.2, gap.argmin(1), -1)


@pytest.mark.parametrize(("process", "level", "sampler", "steps"), [
    (EDM(0.01, 20), 0.3, "ancestral", 40),
    (Masking(3, 5), 0.5, "first-hitting", 10),
    (Uniform(3, 5), 0.55, "ancestral", 40),
    (Brownian(Torus(2)), 0.6, "ancestral", 60),
])  # fmt: skip
def test_cycles_of_the_exact_memoriser_return_as_the_chain_says(process, level, sampler, steps):
    """One cycle and three, from every row, within the error of the simulation."""
    generator = torch.Generator().manual_seed(1)
    flat = process.gaussian is not None
    x = normal(10, 3) if flat else drawn_on(process, 10)
    t = at(process, level) if flat else level
    exact = transitions(process, x, t, draws=3000, generator=generator)
    copies = 30
    start = x.repeat_interleave(copies, 0)
    origin = torch.arange(len(x)).repeat_interleave(copies)
    walk = cyclic_states(
        Memoriser(process, x), start, t, steps=steps, sampler=sampler, generator=generator
    )
    for cycle in range(1, 4):
        found = rows_of(next(walk), x)
        if cycle in (1, 3):
            share = float((found == origin).double().mean())
            chain = float(torch.linalg.matrix_power(exact, cycle).diagonal().mean())
            error = math.sqrt(chain * (1 - chain) / len(start))
            assert abs(share - chain) < 3.5 * error + 0.01  # and the steps' own
            least = float((exact.diagonal() ** cycle).mean())
            assert chain >= least - 1e-9


def test_probe_levels_are_where_rows_are_told_apart(generator):
    process, x = EDM(0.01, 20), normal(100, 4)
    for share, t in zip((0.9, 0.5), probe_levels(process, x, (0.9, 0.5)), strict=True):
        own = transitions(process, x, t, draws=64, generator=generator).diagonal().mean()
        assert float(own) == pytest.approx(share, abs=0.06)
    assert reach_bound(x, 0.01, 0.01).mean() >= reach_bound(x, 0.01).mean()
    with pytest.raises(InputError, match="below a quarter"):
        reach_bound(x, 0.01, 3.0)


# --- the probe -----------------------------------------------------------------------------------


class Basins(Denoiser):
    """The guess of N(0, I), but for basins around points: whoever comes near is drawn in."""

    def __init__(self, process, points, reach):
        super().__init__()
        self.process, self.points, self.reach = process, points, reach

    def forward(self, state, t, condition=None):
        alpha, sigma = self.process.scales(t, state)
        clean = state / alpha / (1 + (sigma / alpha) ** 2)
        distance, nearest = torch.cdist(clean, self.points.to(clean)).min(1)
        inside = (distance < self.reach) & ((sigma / alpha).reshape(-1) < 1)
        return torch.where(inside[:, None], self.points[nearest].to(clean), clean)


def test_stored_rows_come_out_that_samples_do_not_show():
    process, train, held = EDM(0.01, 20), normal(200, 4), normal(200, 4, 1)
    model = Basins(process, train[:12], 0.45)
    samples = normal(150, 4, 2)  # what one shot shows: the law
    ticks = []
    probe = cyclic_probe(model, samples, train.numpy(), held.numpy(), cycles=60,
                         progress=lambda *at: ticks.append(at))  # fmt: skip
    assert probe.looks[0].copies == 0
    assert probe.extracts
    assert set(probe.rows) <= set(range(12))
    assert len(probe.rows) >= 6
    assert probe.looks[-1].copies > probe.looks[1].copies
    for trajectory, row, cycle in probe.records:
        assert row in probe.rows
        assert 0 <= trajectory < 150
        assert cycle in {look.cycle for look in probe.looks}
    assert ticks[-1] == (60, 60)
    assert probe.evaluations == probe_cost(150, 60)
    assert "extraction tool" in probe.sentences()[0]
    json.dumps(probe.to_json())
    line = probe.line()
    told = exposures([line], Effect(0, 0, 0, 0.05, 0), None, Judging())
    assert line.statistic == EXTRACTED
    assert f"{len(probe.rows)} training rows come out" in told[0]


def test_basins_that_are_no_rows_are_no_memories():
    process, train, held = EDM(0.01, 20), normal(200, 4), normal(200, 4, 1)
    model = Basins(process, torch.zeros(1, 4), 0.9)
    levels = probe_levels(process, torch.cat([train, held]), (0.9, 0.7, 0.5))
    probe = cyclic_probe(model, normal(100, 4, 2), train.numpy(), held.numpy(), cycles=80,
                         levels=levels)  # fmt: skip
    assert not probe.extracts
    assert probe.degenerate >= 5
    assert probe.attractors == 1
    assert "prove no memory" in probe.sentences()[-1]


def test_the_fresh_control_extracts_nothing_in_twenty_seeds():
    process = EDM(0.01, 20)
    for seed in range(20):
        train, held = normal(50, 4, 3 * seed), normal(50, 4, 3 * seed + 1)
        model = Linear.fit(process, train)
        probe = cyclic_probe(model, normal(60, 4, 3 * seed + 2), train.numpy(), held.numpy(),
                             cycles=5, steps=3, seed=seed)  # fmt: skip
        assert not probe.extracts
        assert probe.rows == []


@pytest.mark.parametrize(("process", "space"), [
    (Masking(3, 8), "symbols"), (Brownian(Sphere(2)), "Sphere(2)"), (Brownian(Torus(2)), "torus"),
])  # fmt: skip
def test_it_goes_round_on_every_space(process, space):
    draw = torch.Generator().manual_seed(0)
    if space == "symbols":
        rows = torch.unique(torch.randint(3, (60, 8), generator=draw), dim=0)
        rows = rows[torch.randperm(len(rows), generator=draw)]
    else:
        rows = process.space.uniform(60, generator=draw)
    train, held = rows[:30], rows[30:]
    probe = cyclic_probe(
        Memoriser(process, train), held[:20], train.numpy(), held.numpy(), cycles=3, space=space,
        levels=[0.7, 0.5],
    )  # fmt: skip
    last = probe.looks[-1]
    assert probe.extracts
    assert last.copies >= 15
    assert last.held_rows <= 2


def test_bad_input_is_one_sentence():
    process, rows = EDM(0.01, 20), normal(20, 2)
    model, held = Linear.fit(process, rows), normal(20, 2, 1).numpy()
    with pytest.raises(InputError, match="at least one cycle"):
        cyclic_probe(model, rows, rows.numpy(), held, cycles=0)
    with pytest.raises(InputError, match="outside the process's"):
        cyclic_probe(model, rows, rows.numpy(), held, cycles=1, levels=[7.0])


def test_cycles_need_a_run(capsys):
    from reverie.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["audit", "--cycles", "5", "--train", "a.npy", "--holdout", "b.npy"])
    assert ended.value.code == 2
    assert "--cycles needs a run" in capsys.readouterr().err


@pytest.mark.slow
def test_the_audit_of_a_run_says_it(tmp_path):
    from reverie.report import describe, write_report
    from reverie.runs import FitConfig, fit

    rng = np.random.default_rng(0)
    run = fit(rng.normal(size=(120, 2)), config=FitConfig(n=60, holdout=60, steps=20, width=16))
    quick = Judging(power=False, metrics=False)
    report = describe(run, "small", samples=60, cycles=3, judging=quick)
    probe = report.verdict.cyclic
    assert probe.trajectories == 60
    assert probe.sentences()[0] in report.verdict.sentences()
    assert report.verdict.row(EXTRACTED) is not None
    page, data = write_report(tmp_path, "audit", "Audit", [report], [])
    assert "The cyclic probe: an extraction tool" in page.read_text()
    kept = json.loads(data.read_text())["models"][0]
    assert kept["verdict"]["cyclic_probe"]["cycles"] == 3
    assert [check["step"] for check in kept["checks"]] == [20]


class EnoughError(Exception):
    """The checkpoint that was wanted."""


@pytest.mark.slow
def test_a_network_holds_rows_before_its_samples_show_them():
    """Two Gaussians in 8 dimensions: early 0 and 0; later one shot under 10%, cycled over 15%."""
    from reverie.runs import FitConfig, fit
    from reverie.runs.readings import draw_paired

    rng = np.random.default_rng(0)
    train, held = (
        rng.normal(size=(n, 8)) * 0.5 + np.where(rng.random((n, 1)) < 0.5, 1.0, -1.0)
        for n in (128, 200)
    )
    found = {}

    def look(event, trainer):
        if event.step in (750, 2625):
            with trainer.averaged() as network:
                samples = draw_paired(network, (8,), 300, seed=1)
                sets = trainer.train.numpy(), trainer.holdout.numpy()
                found[event.step] = cyclic_probe(network, samples, *sets, cycles=60)
        if event.step == 2625:
            raise EnoughError

    config = FitConfig(n=128, holdout=200, steps=6000, width=128, check_every=375)
    with pytest.raises(EnoughError):
        fit(np.concatenate([train, held]), config=config, on_event=look)
    early, late = found[750], found[2625]
    assert not early.extracts
    assert early.looks[0].copies == 0
    assert late.looks[0].copies < 0.1 * 300
    assert late.looks[-1].copies > 0.15 * 300
    assert late.looks[-1].held_rows <= 3  # of 200; training rows: over 20 of 128
    assert len(late.rows) >= 20
