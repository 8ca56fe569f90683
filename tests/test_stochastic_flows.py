"""Stochastic normalizing flows: every layer is normalised, trained from data or a density."""

from __future__ import annotations

import math

import pytest
import torch

from reverie.errors import InputError
from reverie.flows import FlowDensity, couplings, flow_named
from reverie.targets import (
    Chain,
    ConditionalTarget,
    FlowLayer,
    Gaussian,
    GaussianStart,
    Mixture,
    Target,
    stochastic_flow,
    train,
)
from reverie.testing import BrokenLaw, check_flow, check_pair

TWO = Mixture([[-1.0, 0.0], [1.5, 1.0]], [0.8, 1.0], [1, 2])
SHIFT = 2.5
START = (2, 0.3, 1.3)


ROOT = math.sqrt(2 * math.pi)


def shifted(x):
    return TWO(x) + SHIFT


def exact(n=8000, seed=9):
    return TWO.sample(n, torch.Generator().manual_seed(seed))


def moved(module, size=0.05, seed=1):
    """Random weights about the start of a training: nothing is trained here."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += size * torch.randn(weight.shape, dtype=weight.dtype, generator=draw)
    return module


# --- E exp(log w) = Z --------------------------------------------------------------------------

CHAINS = (
    "flow*3", "mala@0.5*2 mala*2", "langevin*4", "vae*2", "diffusion*6",
    "flow mala flow langevin vae diffusion*3",
)  # fmt: skip


@pytest.mark.parametrize("layers", CHAINS)
def test_every_layer_is_normalised_at_random_parameters(layers):
    """Forward and backward, within 3 standard errors (`check_pair`); the seed is fixed."""
    pair = stochastic_flow(
        Target(shifted, 2), layers, start=GaussianStart.of(*START), deviation=1.2, width=16
    )
    check_pair(moved(pair), SHIFT, exact=exact(), n=8000, seed=1)


def test_a_gaussian_layer_without_its_forward_noise_breaks_the_law():
    """The trap of public code: constant in training, wrong in weights."""
    pair = moved(stochastic_flow(Target(shifted, 2), "vae*2", width=16))
    for layer in pair.layers:
        layer._ratio = lambda there, here: -0.5 * there.square().sum(1)
    with pytest.raises(BrokenLaw, match="not 1"):
        check_pair(pair, SHIFT)


@pytest.mark.parametrize("from_target", [False, True])
def test_a_flow_of_zuko_is_a_layer(from_target):
    pytest.importorskip("zuko", reason="flows by name are zuko's")
    """To a Gaussian near the start, where the squares of the weights have a mean."""
    wide = 1.2

    def near(x):
        return -0.5 * (x / wide).square().sum(1) - 2 * math.log(wide * ROOT) + SHIFT

    flow = moved(flow_named("maf", 2, width=8).double())
    layer = FlowLayer(flow, from_target=from_target)
    drawn = wide * torch.randn(
        8000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )
    chain = Chain(Target(near, 2), GaussianStart.of(2), [layer])
    check_pair(chain, SHIFT, exact=drawn)


# --- what is told ------------------------------------------------------------------------------


def posterior(x, y):
    """x ~ N(0, I) and y = x_1 + x_2 + noise of variance .25; its evidence is N(0, 2.25)."""
    off = (y[:, 0] - x.sum(1)) / 0.5
    prior = -0.5 * x.square().sum(1) - math.log(2 * math.pi)
    return prior - 0.5 * off.square() - 0.5 * math.log(2 * math.pi * 0.25)


def joint(n, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, dtype=torch.float64, generator=draw)
    noise = torch.randn(n, 1, dtype=torch.float64, generator=draw)
    return x, x.sum(1, keepdim=True) + 0.5 * noise


@pytest.mark.parametrize("layers", CHAINS)
def test_conditional_pairs_are_normalised(layers):
    pair = moved(
        stochastic_flow(
            ConditionalTarget(posterior, 2), layers, deviation=0.4, told=1, width=16, seed=2
        )
    )
    for y in (-1.0, 2.0):
        evidence = -0.5 * y**2 / 2.25 - 0.5 * math.log(2 * math.pi * 2.25)
        check_pair(pair.given(torch.tensor([y], dtype=torch.float64)), evidence, n=8000, seed=3)


def test_one_model_for_every_condition():
    """Trained from joint draws: mean 4 y / 9 in each coordinate, and a bound near the entropy."""
    x, y = joint(4000)
    pair = stochastic_flow(ConditionalTarget(posterior, 2), "flow*2 mala", told=1, width=32)
    draw = torch.Generator().manual_seed(0)
    train(pair, loss="forward-kl", data=x, condition=y, steps=300, generator=draw)
    for at in (-1.5, 0.0, 2.0):
        made = pair.draw(4000, torch.full((1, 1), at, dtype=torch.float64), draw)
        # deviation .67 of a coordinate: .01 of noise in a mean, the rest is the training's
        assert torch.allclose(made.mean(0), torch.full((2,), 4 * at / 9).double(), atol=0.08)
    rows, told = joint(2000, seed=5)
    found = pair.rollout(2000, direction="backward", ends=rows, condition=told, generator=draw)
    entropy_gap = found.log_weight.mean() - _evidence(told).mean()
    assert -0.02 < float(entropy_gap.detach()) < 0.05  # 0 at the truth


def _evidence(y):
    return -0.5 * y[:, 0].square() / 2.25 - 0.5 * math.log(2 * math.pi * 2.25)


def test_what_is_told_goes_with_a_conditional_target():
    with pytest.raises(InputError, match="conditional: ask"):
        ConditionalTarget(posterior, 2)(torch.zeros(1, 2))
    with pytest.raises(InputError, match="told nothing"):
        Target(shifted, 2).conditioned(torch.zeros(1))


# --- training ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_chain_of_gaussians_trained_on_data_reaches_the_entropy():
    """No density is known: -E log w bounds the likelihood, here of N(1, .5^2), .7258 nats."""
    draw = torch.Generator().manual_seed(0)
    x = 1 + 0.5 * torch.randn(4000, 1, dtype=torch.float64, generator=draw)
    nothing = Target(lambda x: 0 * x[:, 0], 1)
    for layers, room in (("flow*2", 0.02), ("vae*2", 0.06), ("diffusion*4", 0.1)):
        pair = stochastic_flow(nothing, layers, width=32)
        train(pair, loss="forward-kl", data=x, steps=250, rate=1e-2, generator=draw)
        nats = pair.rollout(4000, direction="backward", ends=x, generator=draw).log_weight.mean()
        entropy = 0.5 * math.log(2 * math.pi * math.e * 0.25)
        assert -0.03 < float(nats.detach()) - entropy < room  # .011 is the mean's own error


def test_a_share_of_guesses_has_the_same_mean():
    """Log ratios of some rows, divided by their share: the sum is right on average."""
    pair = moved(stochastic_flow(Target(shifted, 2), "diffusion*4", width=16))
    ends = exact(1000)
    with torch.no_grad():
        whole = pair.rollout(1000, direction="backward", ends=ends, generator=noise(0))
        for layer in pair.layers:
            layer.share = 0.25
        part = pair.rollout(1000, direction="backward", ends=ends, generator=noise(0))
    error = part.log_weight.std() / math.sqrt(1000)
    gap = (part.log_weight.mean() - whole.log_weight.mean()).abs()
    assert float(gap) < 3 * float(error)
    train(pair, loss="forward-kl", data=ends, steps=1, share=0.25)
    assert {layer.share for layer in pair.layers} == {1.0}  # weights are whole again


def noise(seed):
    return torch.Generator().manual_seed(seed)


def test_a_pair_trained_on_its_density_gains():
    target = Target(Gaussian([2.0, 0.0], [[0.3, 0.1], [0.1, 0.5]]), 2)
    pair = stochastic_flow(target, "flow*2 mala flow*2 mala", deviation=0.6, width=16)
    losses = train(
        pair, loss="reverse-kl", steps=200, batch=128, rate=1e-2,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert losses[0] > 1
    assert -0.05 < sum(losses[-20:]) / 20 < 0.15  # 0 where exact


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ("flow*2 inn", "no layer is called 'inn'"),
        ("flow@0.5", "take a temperature"),
        ("mala@1.5", "take a temperature"),
        ("mala@0", "take a temperature"),
        ("mala@1.2.3", "take a temperature"),
        ("flow*0", "once to 1,000"),
        ("", "needs layers"),
    ],
)
def test_words_that_are_no_layers(layers, sentence):
    with pytest.raises(InputError, match=sentence.replace("*", r"\*")):
        stochastic_flow(Target(shifted, 2), layers)


def test_losses_that_do_not_go_with_flows_or_data():
    pair = stochastic_flow(Target(shifted, 2), "flow", width=8)
    with pytest.raises(InputError, match="moves with its weights"):
        train(pair, loss="log-variance", steps=1)
    with pytest.raises(InputError, match="loss of data"):
        train(pair, loss="forward-kl", steps=1)
    with pytest.raises(InputError, match="do not match"):
        train(pair, loss="forward-kl", data=exact(10), condition=torch.zeros(9, 1), steps=1)


# --- inverse and Jacobian ----------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("told", [0, 3])
def test_couplings_keep_the_laws_of_a_flow(dim, told):
    draw = torch.Generator().manual_seed(dim)
    flow = moved(couplings(dim, 3, width=16, told=told), 0.3)
    given = torch.randn(32, told, generator=draw) if told else None
    check_flow(flow, torch.randn(32, dim, generator=draw), given)
    check_flow(
        flow.double(), torch.randn(32, dim, generator=draw).double(),
        None if given is None else given.double(),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["nsf", "maf", "realnvp", "nice"])
@pytest.mark.parametrize("told", [0, 2])
def test_flows_by_name_keep_the_laws_of_a_flow(name, told):
    pytest.importorskip("zuko", reason="flows by name are zuko's")
    draw = torch.Generator().manual_seed(0)
    flow = moved(flow_named(name, 4, told=told, width=16).double(), 0.1)
    given = torch.randn(32, told, generator=draw).double() if told else None
    check_flow(flow, torch.randn(32, 4, generator=draw).double(), given)


def test_a_flow_integrates_to_one():
    """A random flow's density on a grid; tails past 12 and steps of .05 lose below 1%."""
    flow = moved(couplings(2, 4, width=16), 0.3)
    grid = torch.linspace(-12, 12, 481)
    x = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        mass = FlowDensity(flow, 2).log_prob(x).exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(float(mass) - 1) < 1e-2
