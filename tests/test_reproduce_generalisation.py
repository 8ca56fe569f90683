"""Claims about generalisation and memorising, each against what is known about it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from reverie.denoisers import Memoriser
from reverie.processes import EDM
from reverie.reproduce import (
    bias_potential,
    constrained,
    distillation,
    dominance,
    empirical_optimum,
    gap_objective,
    interpolating_classifiers,
    memorised_share,
    minimax_rate,
    modes_shift,
)
from reverie.reproduce.networks import digits


def rows_of(table):
    return {row["quantity"]: row for row in table["rows"]}


# --- the empirical optimum -----------------------------------------------------------------------


def test_the_empirical_optimum_copies(tmp_path):
    rows = rows_of(empirical_optimum.run(tmp_path))
    assert (tmp_path / "empirical_optimum.png").stat().st_size > 0
    for name in ("ddim", "ancestral"):
        assert rows[f"copied share, {name}, 200 steps"]["ours"] == 1
        assert rows[f"median distance to the nearest row, {name}"]["ours"] < 1e-12
    fresh = rows["copied share of fresh points"]
    assert abs(fresh["ours"] - 2e-4) < 4 * fresh["stderr"]
    assert rows["largest distance of a guess from the hull"]["ours"] < 1e-9


def test_distance_from_a_hull():
    square = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    assert empirical_optimum.outside_hull(np.array([[0.3, 0.9]]), square) < 1e-9
    assert empirical_optimum.outside_hull(np.array([[0.5, 1.5]]), square) == pytest.approx(
        0.5, abs=1e-3
    )  # the equation that the weights sum to 1 has a finite weight


def test_information_bound_of_a_gaussian_channel():
    clean = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)) * 2
    known = 1.5 * math.log(1 + 4 / 0.25)
    assert empirical_optimum.information_bound(clean, 0.5) == pytest.approx(known, rel=5e-3)


# --- memorised share -----------------------------------------------------------------------------


def test_effective_memorisation_is_interpolated():
    assert memorised_share.effective_memorisation((10, 100), [1.0, 0.8]) == pytest.approx(
        math.sqrt(1000)
    )
    assert math.isnan(memorised_share.effective_memorisation((10, 100), [0.5, 0.1]))
    assert math.isnan(memorised_share.effective_memorisation((10, 100), [1.0, 0.95]))


@pytest.mark.slow
def test_memorised_share_falls_with_n():
    """The smallest set is memorised as EMM defines it; with eight times as much, less is."""
    data = digits(torch.Generator().manual_seed(0))
    few, many = (
        memorised_share.memorised(data, size, memorised_share.STEPS, 0) for size in (12, 100)
    )
    error = math.sqrt((few * (1 - few) + many * (1 - many)) / memorised_share.DRAWS)
    assert few >= memorised_share.EDGE
    assert few - many > 4 * error


# --- gap objective -------------------------------------------------------------------------------


def test_distance_to_itself_is_zero_and_is_in_units_of_noise(generator):
    process, data = EDM(0.1, 10), torch.randn(6, 2, generator=generator)
    copy, other = Memoriser(process, data), Memoriser(process, data + 0.3)
    t = float(process.time(4.0))  # sigma = .5
    states = process.corrupt(data, t, generator=generator)
    assert gap_objective.distance(copy, copy, process, states, t) == 0
    by_hand = (copy(states, torch.tensor(t)) - other(states, torch.tensor(t))).square().mean()
    found = gap_objective.distance(copy, other, process, states, t)
    assert found == pytest.approx(float(by_hand) / 0.25, rel=1e-5)


@pytest.mark.slow
def test_fresh_gaps_still_lead_to_the_memoriser(tmp_path):
    """Standard and gap share their minimiser on training states; fixed noise has another one."""
    rows = rows_of(gap_objective.run(tmp_path))

    def delta(kind, name):
        return rows[f"Delta on {kind} states, {name}, sigma = 0.1"]["ours"]

    for name in ("standard", "gap"):
        assert delta("training", name) < 0.1 * delta("held-out", name)
        early = rows[f"memorised share at step {gap_objective.EVERY}, {name}"]["ours"]
        end = rows[f"memorised share at the end, {name}"]
        assert end["ours"] - early > 4 * end["stderr"]
    assert delta("training", "gap-fixed") > delta("training", "standard")


# --- modes shift ---------------------------------------------------------------------------------


def test_density_of_the_exact_score_is_the_mixture():
    """The probability flow with the mixture's own score gives its density back."""
    process = modes_shift.VP()

    class Exact(torch.nn.Module):
        def forward(self, x, t):
            alpha, sigma = process.scales(t, x)
            return sigma * (3 * alpha * torch.tanh(3 * alpha * x) - x)

    x = torch.linspace(-8, 8, 1601)
    found = modes_shift.model_density(Exact(), process, x, steps=400)
    assert float((found - modes_shift.mixture(x, 6.0)).abs().max()) < 2e-3  # second-order steps
    assert modes_shift.divergence(Exact(), process, 6.0) < 2e-3


@pytest.mark.slow
def test_modes_shift(tmp_path):
    rows = rows_of(modes_shift.run(tmp_path))
    best = rows["best epoch at distance 6, median of seeds"]["ours"]
    assert 200 <= best <= 1500
    assert rows["least KL(30) > least KL(6)"]["ours"] == 1


# --- bias potential ------------------------------------------------------------------------------


def test_bias_potential(tmp_path):
    table = rows_of(bias_potential.run(tmp_path))
    assert table["share of seeds with U-shaped KL"]["ours"] == 1
    assert table["share of seeds with falling training loss"]["ours"] == 1
    assert table["largest gap of feature means"]["ours"] < 1e-9
    assert table["gradient less its differences"]["ours"] < 1e-6


# --- interpolating classifiers -------------------------------------------------------------------


@pytest.mark.slow
def test_typical_error_of_interpolating_classifiers(tmp_path):
    rows = rows_of(interpolating_classifiers.run(tmp_path))
    for n, typical in {5: 0.398, 10: 0.330, 15: 0.280}.items():
        assert rows[f"typical error, n = {n}"]["ours"] == pytest.approx(typical, abs=5e-4)
        exact = rows[f"annealed mean by quadrature, n = {n}"]["ours"]
        found = rows[f"mean by rejection, n = {n}"]
        assert abs(found["ours"] - exact) < 4 * found["stderr"]
        # the reference has a standard error of its own, of about ours
        assert abs(found["ours"] - found["reference"]) < 4 * math.sqrt(2) * found["stderr"]


def test_an_interpolator_errs_by_its_angle():
    errors = interpolating_classifiers.interpolators(0, 3, np.random.default_rng(0))
    assert len(errors) == interpolating_classifiers.TRIES
    # cos(pi e) of a random direction in space is uniform on (-1, 1)
    assert stats.kstest(np.cos(np.pi * errors), stats.uniform(-1, 2).cdf).pvalue > 1e-3


# --- dominance -----------------------------------------------------------------------------------


def test_dominance_and_its_interval():
    right = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 0, 0]], dtype=bool)
    assert np.allclose(dominance.dominance(right), [[0, 0.2], [0.2, 0]])
    assert dominance.excess_agreement(right)[0, 1] == pytest.approx(0.6 - 0.36 - 0.16)
    low, high = dominance.clopper_pearson(3, 20)
    assert stats.binom.sf(2, 20, low) == pytest.approx(0.025, rel=1e-6)
    assert stats.binom.cdf(3, 20, high) == pytest.approx(0.025, rel=1e-6)
    nested = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], dtype=bool)
    assert dominance.dominance(nested)[0, 1] == 0  # the better is right wherever the worse is
    before, z = np.array([0.6, 0.8, 0.95]), stats.norm
    line = dominance.probit_line(before, z.cdf(0.5 * z.ppf(before) - 0.2))
    assert line == pytest.approx((0.5, -0.2, 1))


def test_dominance_of_real_classifiers(tmp_path):
    rows = rows_of(dominance.run(tmp_path))
    assert rows["largest error of acc_j - acc_i = P(j, not i) - zeta"]["ours"] < 1e-12
    assert rows["r^2 on probit axes"]["ours"] > 0.5
    assert rows["median dominance of a pair"]["ours"] < 0.05


# --- minimax rate --------------------------------------------------------------------------------


def test_minimax_rate(tmp_path):
    rows = rows_of(minimax_rate.run(tmp_path))
    assert rows["slope of ln TV in ln n"]["ours"] == pytest.approx(-0.4, abs=0.04)
    assert rows["share of its samples on a training point, n = 100"]["ours"] == 1


def test_stopped_density_is_a_kernel_estimate():
    points = minimax_rate.draw(50, np.random.default_rng(0))
    found = minimax_rate.stopped_density(points, 0.2)
    by_hand = stats.norm.pdf(minimax_rate.CELLS[:, None], points, 0.2).mean(1)
    assert np.abs(found - by_hand).max() < 5e-3 * by_hand.max()  # points move by half a cell
    assert minimax_rate.total_variation(minimax_rate.truth()) == 0


# --- constrained training and distillation -------------------------------------------------------


def test_dual_ascent_of_the_runner_reaches_the_exact_weight():
    assert constrained.ascent(400)[-1] == pytest.approx(0.756814, abs=5e-7)


def test_rare_digits_are_split_without_overlap():
    data, group, held, rare = constrained.split_digits(0)
    assert len(data) == 800 + constrained.SCARCE
    assert len(held) == len(rare)
    assert float(torch.cdist(group, held[rare]).min()) > 0


@pytest.mark.slow
def test_a_rare_class_at_its_price(tmp_path):
    rows = rows_of(constrained.run(tmp_path))
    free, held = (
        rows[f"share of it among samples, {name}"]["ours"] for name in ("free", "constrained")
    )
    assert held > 1.5 * free
    bound = rows["loss of the rare class on its rows (nats), constrained"]
    assert bound["ours"] == pytest.approx(bound["reference"], rel=0.1)
    assert rows["multiplier at a price of 2 nats"]["ours"] == 0


def test_gradient_of_the_runner_is_exact():
    found, known = distillation.gradient()
    assert found == pytest.approx(known, rel=1e-9)


def test_teacher_of_groups_is_exact():
    """Against the memoriser of a fine sample of the same law."""
    process = EDM(0.1, 10)
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randint(len(distillation.CENTRES), (200_000,), generator=generator)
    noise = torch.randn(len(kinds), 2, generator=generator)
    sample = distillation.CENTRES[kinds] + distillation.SPREAD * noise
    states, t = torch.randn(20, 2, generator=generator), process.time(1.0).float()
    exact = distillation.Groups(process, distillation.CENTRES, distillation.SPREAD)(states, t)
    assert torch.allclose(exact, Memoriser(process, sample)(states, t), atol=0.05)


@pytest.mark.slow
def test_students_of_a_law_and_of_a_copier(tmp_path):
    """The copier's student crowds around the centres more than the smooth law; the other not."""
    rows = rows_of(distillation.run(tmp_path, seed=2))
    smooth, copier = (
        rows[f"share within 0.2 of a centre, student of {name}"]
        for name in ("two groups", "the memoriser")
    )
    law = smooth["reference"]
    error = math.sqrt(law * (1 - law) / distillation.DRAWS)
    assert copier["ours"] > law + 3 * error
    assert smooth["ours"] < law + 3 * error
    for name in ("two groups", "the memoriser"):
        assert rows[f"least share of a group, student of {name}"]["ours"] > 0.4
