"""Conditional models: what a network is told, masks, and the estimators of a Gaussian pair."""

import itertools
import math

import numpy as np
import pytest
import torch

from reverie.auditing import audit
from reverie.auditing.model.scores import score
from reverie.curve import measure
from reverie.denoisers import (
    ClassifierFreeGuidance,
    JointConditional,
    Labels,
    Linear,
    MaskedNetwork,
    Network,
    ResidualMLP,
    Values,
    annealed_level,
    build_condition,
    condition_of,
    condition_rows,
    drop_conditions,
    network_for,
    speed_to,
)
from reverie.errors import InputError
from reverie.information import guess_gap, mutual_information
from reverie.objectives import Conditional, Masked, Standard, build_objective
from reverie.objectives.base import DenoisingFit
from reverie.objectives.noise_law import NoiseLaw
from reverie.plan import plan_steps
from reverie.processes import VE, VP, Masking, ModalProcess
from reverie.reproduce import conditional_bias as bias
from reverie.sampling import sample

NAN = float("nan")


# --- what a network is told ----------------------------------------------------------------------


def test_labels_have_a_place_for_none():
    labels = Labels(3)
    like = torch.zeros(4, 2)
    assert labels(torch.tensor([0, 2, -1, 1]), like).tolist() == [0, 2, 3, 1]
    assert labels(None, like).tolist() == [3, 3, 3, 3]
    with pytest.raises(InputError, match="labels run from 0 to 2"):
        labels(torch.tensor([0, 3, 1, 1]), like)
    with pytest.raises(InputError, match="one integer label per row"):
        labels(torch.tensor([0.5, 1, 1, 1]), like)
    with pytest.raises(InputError, match="at least one"):
        Labels(0)


def test_values_are_standardised_and_what_is_missing_is_marked(generator):
    y = 3 + 2 * torch.randn(500, 2, generator=generator)
    holes = torch.rand(500, 2, generator=generator) < 0.3
    encoder = condition_of(y.masked_fill(holes, NAN))
    assert isinstance(encoder, Values)
    seen = y[~holes[:, 0], 0]
    assert float(encoder.mean[0]) == pytest.approx(float(seen.mean()), rel=1e-5)
    assert float(encoder.std[0]) == pytest.approx(float(seen.std(correction=0)), rel=1e-4)
    values, marks = encoder(torch.tensor([[5.0, NAN]]), torch.zeros(1, 7))
    assert marks.tolist() == [[1, 0]]
    assert values[0, 1] == 0
    assert float(values[0, 0]) == pytest.approx((5 - float(seen.mean())) / float(seen.std()), 1e-2)
    assert all(part.abs().sum() == 0 for part in encoder(None, torch.zeros(3, 7)))
    with pytest.raises(InputError, match="shape"):
        encoder(torch.zeros(1, 3), torch.zeros(1, 7))


def test_images_are_standardised_by_channel():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    encoder = condition_of(images)
    assert encoder.mean.shape == (3, 1, 1)
    assert encoder.mean.flatten().tolist() == images.mean((0, 2, 3)).tolist()


def test_an_encoder_is_rebuilt_from_its_settings_and_weights():
    for encoder in (condition_of(torch.tensor([0, 4, 2])), condition_of(torch.randn(9, 3))):
        again = build_condition(**encoder.settings())
        again.load_state_dict(encoder.state_dict())
        assert type(again) is type(encoder)
        assert again.settings() == encoder.settings()
    with pytest.raises(InputError, match="either labels"):
        build_condition()
    with pytest.raises(InputError, match="shape \\(n, 1\\)"):
        condition_of(torch.randn(5))
    with pytest.raises(InputError, match="infinite"):
        condition_of(torch.tensor([[math.inf]]))
    with pytest.raises(InputError, match="count from 0"):
        condition_of(torch.tensor([-2, 1]))


def test_dropping_takes_whole_rows_at_the_given_share(generator):
    lost = drop_conditions(torch.ones(20_000, 3), 0.1, generator).isnan()
    assert (lost.all(1) == lost.any(1)).all()
    assert float(lost[:, 0].float().mean()) == pytest.approx(0.1, abs=4 * 0.3 / 141)
    labels = drop_conditions(torch.zeros(50, dtype=torch.long), 0.5, generator)
    assert set(labels.tolist()) == {-1, 0}
    counts = drop_conditions(torch.ones(50, 2, dtype=torch.long), 0.5, generator)
    assert set(counts.isnan().sum(1).tolist()) == {0, 2}


def test_one_condition_serves_all_rows_and_other_counts_are_refused():
    like = torch.zeros(4, 2, dtype=torch.float64)
    rows = condition_rows(np.ones((1, 3), np.float32), 4, like)
    assert rows.shape == (4, 3)
    assert rows.dtype == torch.float64
    assert condition_rows("a prompt", 4, like) == "a prompt"
    assert condition_rows(None, 4, like) is None
    with pytest.raises(InputError, match="3 conditions for 4 rows"):
        condition_rows(torch.zeros(3), 4, like)


@pytest.mark.parametrize("encoder", [Labels(3), Values((2,))])
def test_a_row_without_its_condition_is_the_unconditional_model(encoder, generator):
    network = Network(VP(), ResidualMLP((2,), 16, 1, condition=encoder))
    for parameter in network.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    told = torch.tensor([0, 1, 2]) if isinstance(encoder, Labels) else torch.randn(3, 2)
    state, t = torch.randn(3, 2, generator=generator), torch.full((3,), 0.5)
    free = network(state, t)
    assert torch.equal(network(state, t, drop_conditions(told, 1.0)), free)
    assert (network(state, t, told) != free).any()
    # the field's convention: 1 is the conditional model, 0 the other
    for scale, expected in ((1.0, network(state, t, told)), (0.0, free)):
        guided = ClassifierFreeGuidance(network, scale)
        assert torch.allclose(guided(state, t, told), expected, atol=1e-6)


def test_a_network_that_is_told_nothing_says_so():
    network = Network(VP(), ResidualMLP((2,), 8, 1))
    with pytest.raises(InputError, match="takes no condition"):
        network(torch.zeros(1, 2), torch.tensor([0.5]), torch.zeros(1, 2))


@pytest.mark.parametrize("condition", [Labels(3), Values((2,)), Values((1, 6, 6))])
def test_the_unet_is_told_labels_vectors_and_images(condition, generator):
    pytest.importorskip("diffusers")
    from reverie.denoisers.networks.unet import UNet

    body = UNet((1, 6, 6), 8, condition)
    for parameter in body.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    x, level = torch.randn(2, 1, 6, 6, generator=generator), torch.zeros(2)
    told = (
        torch.tensor([0, 2])
        if isinstance(condition, Labels)
        else torch.randn(2, *condition.shape, generator=generator)
    )
    free, given = body(x, level), body(x, level, told)
    assert given.shape == x.shape
    assert (given != free).any()
    assert torch.allclose(body(x, level, drop_conditions(told, 1.0)), free, atol=1e-5)
    with pytest.raises(InputError, match="is told vectors, or images of 6 x 6"):
        UNet((1, 6, 6), 8, Values((1, 5, 6)))


# --- the readings of a conditional model ---------------------------------------------------------


def test_curves_with_and_without_the_condition_differ_by_the_mutual_information(generator):
    """I(x; y) = -1/2 log(1 - rho^2) = .830 nats of the pair, with exact denoisers."""
    x, y = bias.pairs(2000, generator)
    exact = -0.5 * math.log(1 - bias.RHO**2)
    free = Linear(bias.schedule(), torch.zeros(1), torch.ones(1), torch.eye(1))
    curves = [
        measure(
            model,
            x,
            64,
            condition=given,
            keep_samples=True,
            generator=torch.Generator().manual_seed(0),
        )
        for model, given in ((free, None), (bias.ExactGiven(), y))
    ]
    found = mutual_information(*curves)
    assert found.nats == pytest.approx(exact, abs=4 * found.stderr + 0.005)
    gap = guess_gap(bias.ExactGiven(), free, x, conditions=(y, None), generator=generator)
    assert gap.nats == pytest.approx(exact, abs=4 * gap.stderr + 0.005)
    with pytest.raises(InputError, match="7 conditions for 2000 rows"):
        measure(bias.ExactGiven(), x, condition=y[:7])


def test_a_conditional_model_is_planned_and_sampled_with_one_condition_for_all(generator):
    x, y = bias.pairs(1000, generator)
    model = bias.ExactGiven()
    plan = plan_steps(measure(model, x, 32, condition=y, generator=generator), steps=200)
    drawn = sample(
        model, 20_000, plan, shape=(1,), condition=np.array([[1.5]]), generator=generator
    )
    mean, std = bias.TRUTH
    error = std / math.sqrt(len(drawn))
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * error + 0.002)
    assert float(drawn.std()) == pytest.approx(std, rel=0.04)  # 200 steps are 2% too narrow


def test_a_conditional_model_is_audited_with_its_conditions(generator):
    """Rows, and what the model is told about them, stay together through scores and leak."""
    x, y = bias.pairs(400, generator)
    model = bias.ExactGiven()
    sides = (x[:200], y[:200]), (x[200:], y[200:])
    drawn = sample(
        model, 300, torch.linspace(1, 0, 40), shape=(1,), condition=y[:300], generator=generator
    )
    told = (sides[0][1], sides[1][1])
    verdict = audit(x[:200], x[200:], drawn, model, conditions=told, metrics=False)
    leaks = [
        measure(model, a, condition=b, generator=torch.Generator().manual_seed(0))
        for a, b in sides
    ]
    assert verdict.leak.nats == pytest.approx(leaks[0].leak(leaks[1]).nats, rel=1e-6)
    row = verdict.row("membership by loss (AUC)")
    assert row.interval[0] < 0.5 < row.interval[1]
    noise = [torch.Generator().manual_seed(0) for _ in range(2)]
    one = score("SimA", model, x, 0.3, noise[0], condition=y)
    other = score("SimA", model, x.flip(0), 0.3, noise[1], condition=y.flip(0))
    assert torch.allclose(one, other.flip(0))


# --- masks ---------------------------------------------------------------------------------------


def masked(shape=(4,), seed=0):
    torch.manual_seed(seed)
    network = MaskedNetwork(VP(), ResidualMLP(shape, 32, 1, condition=Values(shape)))
    for parameter in network.parameters():
        parameter.data.normal_(std=0.3)
    return network


def test_observed_coordinates_are_returned_and_their_noise_is_never_seen(generator):
    network = masked()
    x = torch.randn(5, 4, generator=generator)
    seen = torch.tensor([True, False, True, False])
    told = x.masked_fill(~seen, NAN)
    t = torch.full((5,), 0.4)
    state = network.process.corrupt(x, t, generator=generator)
    guess = network(state, t, told)
    assert torch.equal(guess[:, seen], x[:, seen])
    other = torch.where(seen, torch.randn(5, 4, generator=generator), state)
    assert torch.equal(network(other, t, told), guess)
    rate = network.process.rate(guess, x, state, t)
    missed = 0.5 * (guess - x)[:, ~seen].square().sum(1)
    assert torch.allclose(rate, missed)
    # a curve is then of the unobserved alone, and so is a sample
    drawn = sample(network, 5, torch.linspace(0.9, 0.1, 4), shape=(4,), condition=told)
    assert torch.equal(drawn[:, seen], x[:, seen])
    with pytest.raises(InputError, match="the shape of its points"):
        network(state, t, told[:, :2])


def test_masks_are_drawn_of_all_kinds(generator):
    x = torch.randn(20_000, 4, generator=generator)
    asked = torch.tensor([True, True, False, False])
    law = Masked(Standard(VP()), asked)
    observed = law.observed(x, generator)
    kinds = {"joint": ~observed.any(1), "posterior": (observed == ~asked).all(1),
             "likelihood": (observed == asked).all(1)}  # fmt: skip
    # .2 of the rows are of each kind, and Bernoulli rows fall on it by chance
    chance = {"joint": 0.7**4 + 0.3**4, "posterior": 2 * 0.09 * 0.49, "likelihood": 2 * 0.0441}
    for name, found in kinds.items():
        expected = 0.2 + 0.2 * chance[name]
        assert float(found.float().mean()) == pytest.approx(expected, abs=4 * 0.45 / 141)
    drawn = law.draw(torch.arange(3), x[:3], torch.full((3,), 0.5), generator)
    assert torch.equal(drawn.condition.nan_to_num(), drawn.condition.isnan().logical_not() * x[:3])
    with pytest.raises(InputError, match="some coordinates, and not all"):
        Masked(Standard(VP()), torch.ones(4, dtype=torch.bool))


@pytest.mark.slow
def test_one_masked_network_knows_every_conditional_of_a_gaussian(generator):
    """Mean and deviation of each coordinate given the other, and of both, from one network."""
    x, y = bias.pairs(20_000, generator)
    data = torch.cat([x, y], 1)
    torch.manual_seed(0)
    network = MaskedNetwork(VE(0.01, 30), ResidualMLP((2,), 64, 2, condition=Values((2,))))
    fitting, law = DenoisingFit(network, 2e-3), Masked(Standard(network.process))
    for step in range(1500):
        fitting.optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / 1500)
        rows = torch.randint(len(data), (512,), generator=generator)
        fitting.step(data[rows], generator, law.tell(data[rows], generator))
    network.eval()
    times = network.process.time(torch.logspace(-2.9, 3.9, 200, dtype=torch.float64))

    def draw(told):
        given = None if told is None else torch.tensor([told])
        return sample(
            network, 10_000, times, "heun", shape=(2,), condition=given, generator=generator
        )

    for told, place in (((NAN, 1.5), 0), ((1.5, NAN), 1)):
        drawn = draw(told)[:, place]
        assert float(drawn.mean()) == pytest.approx(1.35, abs=0.08)
        assert float(drawn.std()) == pytest.approx(0.436, abs=0.05)
    both = torch.corrcoef(draw(None).T)
    assert float(both[0, 1]) == pytest.approx(0.9, abs=0.03)


# --- conditions that are noised too --------------------------------------------------------------


@pytest.mark.parametrize("level", list(bias.SIMULATED))
def test_means_and_deviations_of_the_estimators_with_exact_scores(level):
    """Our sampler against the recursion, and that against 200,000 draws in 2,000 steps."""
    steps, n = 200, 20_000
    generator = torch.Generator().manual_seed(0)
    drawn = bias.sampled_law(bias.exact(level, generator), n, steps, generator)
    closed = bias.exact_law(level, steps)
    error = closed.std / math.sqrt(n)
    assert drawn.mean == pytest.approx(closed.mean, abs=4 * error)
    assert drawn.std == pytest.approx(closed.std, abs=4 * error / math.sqrt(2))
    fine, simulated = bias.exact_law(level, 2000), bias.SIMULATED[level]
    theirs = fine.std / math.sqrt(bias.SIMULATED_DRAWS)
    assert fine.mean == pytest.approx(simulated[0], abs=4 * theirs + 5e-4)  # and its rounding
    assert fine.std == pytest.approx(simulated[1], abs=4 * theirs / math.sqrt(2) + 5e-4)


def test_the_bias_falls_with_the_noise_of_the_condition():
    means = [bias.exact_law(level, 1000).mean for level in (50.0, 5.0, 1.0, 0.5, 0.1, 0.0)]
    assert all(a < b for a, b in itertools.pairwise(means))
    assert means[-1] == pytest.approx(1.35, abs=1e-3)


def test_equal_speeds_are_the_standard_model(generator):
    """The same network and states on one speed for all and on the schedule: equal to 1e-12."""
    schedule = bias.schedule()
    modes = ModalProcess(schedule, shape=(2,), speed=[1.0, 1.0])
    body = ResidualMLP((2,), 16, 1).double()
    for parameter in body.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    x = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    t = torch.linspace(0.2, 0.9, 6, dtype=torch.float64)
    end = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    guesses = []
    for process in (schedule, modes):
        network = Network(process, body)
        state = process.corrupt(x, t, end=end)
        guess = network(state, t)
        guesses.append((state, guess, network.loss_weight(t, x) * (x - guess) ** 2))
        guesses[-1] += (process.rate(guess, x, state, t),)
    for one, other in zip(*guesses, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    # CDiffE is CMDE whose y is as fast as x
    assert speed_to(schedule, bias.HIGH) == pytest.approx(1.0, abs=1e-12)


def test_a_joint_model_asks_for_its_condition_and_for_one_noise_of_x():
    model = bias.exact(0.5, torch.Generator().manual_seed(0))
    assert isinstance(model, JointConditional)
    with pytest.raises(InputError, match="pass condition=y"):
        model(torch.zeros(1, 1), torch.tensor([0.5]))
    with pytest.raises(InputError, match="otherwise than the joint process"):
        JointConditional(model.joint, VE(5e-3, 10))
    with pytest.raises(InputError, match="cleanest level"):
        speed_to(VE(0.1, 10), 0.05)


def test_the_curve_of_a_joint_model_is_the_posterior_variance_in_closed_form(generator):
    """1/2 Var[x | x_t, y_t] of the Gaussian pair, with y noised up to 5."""
    x, y = bias.pairs(2000, generator)
    noise = torch.Generator().manual_seed(1)
    curve = measure(bias.exact(5.0, noise), x, 12, condition=y, generator=generator)
    process, speed = bias.schedule(), speed_to(bias.schedule(), 5.0)
    t = process.time(torch.as_tensor(curve.u))
    var_x, var_y = (process.sigma(s * t).numpy() ** 2 for s in (1.0, speed))
    one, other = 1 + var_x, 1 + var_y
    left = 1 - (other + bias.RHO**2 * (one - 2)) / (one * other - bias.RHO**2)
    assert (np.abs(curve.rate - 0.5 * left) < 4.5 * curve.stderr).all()


def test_the_annealed_level_is_linear_in_its_inverse():
    inverse = [1 / annealed_level(step, 50.0, 0.5, 100) for step in range(0, 201, 25)]
    expected = [0.02 + (2 - 0.02) * min(step / 100, 1) for step in range(0, 201, 25)]
    assert inverse == pytest.approx(expected)
    with pytest.raises(InputError, match="falls from start"):
        annealed_level(3, 0.5, 1.0, 10)


# --- training ------------------------------------------------------------------------------------


def test_a_conditional_fit_learns_the_conditional_denoiser(generator):
    """Its guesses come near the exact ones, and are far from those of a model that is not told."""
    x, y = bias.pairs(5000, generator)
    torch.manual_seed(0)
    network = Network(bias.schedule(), ResidualMLP((1,), 32, 1, condition=condition_of(y)))
    fitting, told = DenoisingFit(network, 5e-3), Conditional(Standard(network.process), y)
    for _ in range(250):
        rows = torch.randint(len(x), (256,), generator=generator)
        fitting.step(x[rows], generator, told.tell(rows, generator))
    x, y = bias.pairs(1000, generator)
    t = network.process.time(torch.tensor(1.0)).expand(1000)  # sigma = 1
    state = network.process.corrupt(x, t, generator=generator)
    exact = bias.ExactGiven()(state, t, y)
    with torch.no_grad():
        missed = (network.eval()(state, t, y) - exact).square().mean().sqrt()
    untold = (state / 2 - exact).square().mean().sqrt()  # E[x | x_t] at sigma = 1
    assert float(missed) < 0.15
    assert float(untold) > 0.4
    with pytest.raises(InputError, match=r"must lie in \[0, 1\)"):
        Conditional(Standard(network.process), y, dropped=1.0)


def test_what_fit_builds_tells_a_network_its_condition(generator):
    """The same loss from the parts and from the objective that a fit is given."""
    x, y = bias.pairs(64, generator)
    network = network_for(VP(), (1,), width=16, depth=1, condition=condition_of(y))
    for parameter in network.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    objective = build_objective("standard", network, x, 0, conditions=y)
    rows = torch.arange(64)
    losses = objective.losses(rows, x, torch.Generator().manual_seed(3))
    noise = torch.Generator().manual_seed(3)
    t, weight, _ = NoiseLaw(network.process).draw(64, noise)
    state = network.process.corrupt(x, t, generator=noise)
    told = drop_conditions(y, 0.1, noise)
    missed = network(state, t.float(), told) - x
    expected = (network.loss_weight(t, x) * missed.square()).mean(1) * weight
    assert torch.allclose(losses, expected.float(), rtol=1e-5)
    masked = network_for(VP(), (2,), width=16, depth=1, masked=True)
    assert isinstance(masked, MaskedNetwork)
    assert isinstance(build_objective("standard", masked, x, 0).noising, Masked)
    with pytest.raises(InputError, match="no loss weight"):
        build_objective("standard", network, x, 0, weight="flat")
    symbols = Masking(2, (3,))
    with pytest.raises(InputError, match="told a condition"):
        network_for(symbols, (3,), condition=Labels(2))
    with pytest.raises(InputError, match="networks of Gaussian noise"):
        build_objective("standard", network_for(symbols, (3,)), x, 0, conditions=y)


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_the_elbo_weight_makes_the_loss_of_a_fit_the_area_of_the_curve(shape, generator):
    """In nats, up to the mean over coordinates; the network is an untrained one."""
    network = network_for(VP(), shape, width=16, depth=1)
    x = torch.randn(4000, *shape, generator=generator)
    objective = build_objective("standard", network, x, 0, weight="elbo")
    with torch.no_grad():
        losses = objective.losses(torch.arange(4000), x, generator) * math.prod(shape)
    area = measure(network, x, 64, generator=generator)
    error = math.hypot(float(losses.std()) / math.sqrt(4000), area.area_stderr())
    assert float(losses.mean()) == pytest.approx(area.area(), abs=4 * error)


def test_a_run_keeps_its_conditions(tmp_path):
    """Labels of digits: fit, load, curves, samples of one class, audit."""
    from reverie import Run, fit
    from reverie.errors import InputError
    from reverie.runs.config import FitConfig
    from reverie.runs.readings import audit_run, draw, standard_curves

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    rows = rng.normal(size=(400, 2)) * 0.1 + np.where(labels == 0, -1.0, 1.0)[:, None]
    config = FitConfig(steps=300, check_every=300, width=32, depth=1, holdout=100, lr=3e-3)
    fit(rows, conditions=labels, config=config, out=tmp_path / "run")
    run = Run.load(tmp_path / "run")
    standard_curves(run, levels=12, rows=60)
    for label in (0, 1):
        drawn, _ = draw(run, 50, 8, condition=torch.tensor([label]))
        assert ((drawn.mean(1) > 0) == bool(label)).mean() > 0.95
    both, _ = draw(run, 200, 8)  # conditions of random training rows: both classes
    assert 0.3 < (both.mean(1) > 0).mean() < 0.7
    verdict, _ = audit_run(run, 50, sampling_steps=5)
    assert verdict.leak is not None
    with pytest.raises(InputError, match="one row for each of the 400"):
        fit(rows, conditions=labels[:-1], config=config)
    with pytest.raises(InputError, match="only networks of Gaussian noise"):
        fit(rows > 0, conditions=labels, config=config, space="symbols")
