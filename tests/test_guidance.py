"""Guidance on a mixture of two Gaussians, where every conditional score is known."""

import math

import pytest
import torch

from reverie.denoisers import ClassifierFreeGuidance, ClassifierGuidance, Denoiser, convert
from reverie.errors import InputError
from reverie.information.flow import flow_density
from reverie.processes import EDM, VP, Custom, Rectified
from reverie.sampling import sample

CENTRES = torch.tensor([[-1.0, 0.5], [1.5, 0.0]], dtype=torch.float64)
WIDTH, ODDS = 0.4, torch.tensor([0.3, 0.7], dtype=torch.float64)
PROCESSES = [EDM(), VP(t_min=1e-3), Rectified()]


def joint(process, state, t):
    """log p(x_t, class), (B, 2)."""
    alpha, sigma = process.scales(t, state)
    variance = alpha**2 * WIDTH**2 + sigma**2
    gap = state[:, None] - alpha[:, None] * CENTRES
    square = gap.square().sum(2) / variance
    return ODDS.log() - 0.5 * square - (2 * math.pi * variance).log()


class Mixture(Denoiser):
    """Exact denoiser of the mixture, or of the class given by index, by Tweedie's formula."""

    def __init__(self, process):
        super().__init__()
        self.process, self.calls = process, 0

    def forward(self, state, t, condition=None):
        self.calls += 1
        with torch.enable_grad():
            x = state if state.requires_grad else state.detach().requires_grad_()
            both = joint(self.process, x, t)
            log_p = both.logsumexp(1) if condition is None else both[:, condition]
            (score,) = torch.autograd.grad(log_p.sum(), x, create_graph=True)
        alpha, sigma = self.process.scales(t, state)
        clean = (state + sigma**2 * score) / alpha
        return clean if state.requires_grad else clean.detach()


def log_class(process):
    return lambda state, t, condition: joint(process, state, t).log_softmax(1)[:, condition]


def points(generator, process, time):
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    return process.corrupt(x, time, generator=generator), torch.full((7,), time).double()


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_classifier_guidance_by_the_exact_posterior_is_the_conditional_denoiser(
    generator, process, time
):
    model = Mixture(process)
    state, t = points(generator, process, time)
    guided = ClassifierGuidance(model, log_class(process))
    for label in (0, 1):
        assert torch.allclose(guided(state, t, label), model(state, t, label), atol=1e-8)
    assert torch.equal(guided(state, t), model(state, t))


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_both_guidances_are_the_published_combination_of_scores(generator, process, scale):
    """(1 - g) grad log p(x) + g grad log p(x | class), with the two scores in closed form."""
    model = Mixture(process)
    state, t = points(generator, process, 0.4)
    alpha, sigma = process.scales(t, state)
    variance = alpha**2 * WIDTH**2 + sigma**2
    each = -(state[:, None] - alpha[:, None] * CENTRES) / variance[:, None]
    share = joint(process, state, t).softmax(1)
    wanted = (1 - scale) * (share[:, :, None] * each).sum(1) + scale * each[:, 1]
    free = ClassifierFreeGuidance(model, scale)
    by_class = ClassifierGuidance(model, log_class(process), scale)
    for guided in (free, by_class):
        score = convert(guided(state, t, 1), state, t, process, "clean", "score")
        assert torch.allclose(score, wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["noise", "score", "v", "velocity"])
def test_the_space_of_the_prediction_does_not_matter(generator, kind):
    process = VP(t_min=1e-3)
    model = Mixture(process)
    state, t = points(generator, process, 0.4)
    free, cond = (convert(model(state, t, c), state, t, process, "clean", kind) for c in (None, 0))
    w = 1.7  # Ho & Salimans' weight
    theirs = convert((1 + w) * cond - w * free, state, t, process, kind, "clean")
    assert torch.allclose(ClassifierFreeGuidance(model, 1 + w)(state, t, 0), theirs)


def test_an_interval_guides_only_inside_it(generator):
    process = VP(t_min=1e-3)
    model = Mixture(process)
    guided = ClassifierFreeGuidance(model, 3.0, interval=(0.3, 2.0))
    everywhere = ClassifierFreeGuidance(model, 3.0)
    t = process.time(torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64) ** -2)
    state = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    found, plain, full = (m(state, t, 0) for m in (guided, model, everywhere))
    assert torch.allclose(found[[0, 2]], plain[[0, 2]])
    assert torch.allclose(found[1], full[1])
    assert not torch.allclose(found[1], plain[1])


def test_calls_are_counted_and_null_is_passed_on(generator):
    model = Mixture(EDM())
    state, t = points(generator, model.process, 0.5)
    ClassifierFreeGuidance(model, 2.0)(state, t, 1)
    assert model.calls == 2
    null_is_class_0 = ClassifierFreeGuidance(model, 2.0, null=0)
    wanted = 2 * model(state, t, 1) - model(state, t, 0)
    assert torch.allclose(null_is_class_0(state, t, 1), wanted)
    assert torch.equal(null_is_class_0(state, t), model(state, t, 0))


@pytest.mark.parametrize("guidance", ["classifier", "classifier-free"])
def test_guided_samples_follow_the_class(generator, guidance):
    """At Bayes's weight the samples are the class's: its mean within 5 standard errors, and its
    deviation within 5 and the 2 % that 60 second-order steps leave."""
    process, n = EDM(0.01, 40), 2000
    if guidance == "classifier":
        model = ClassifierGuidance(Mixture(process), log_class(process))
    else:
        model = ClassifierFreeGuidance(Mixture(process), 1.0)
    times = torch.linspace(1, 0, 61, dtype=torch.float64)
    drawn = sample(
        model, n, times, "dpm++2m", shape=(2,), generator=generator, dtype=torch.float64,
        condition=0,
    )  # fmt: skip
    assert ((drawn.mean(0) - CENTRES[0]).abs() < 5 * WIDTH / math.sqrt(n) + 0.01).all()
    assert ((drawn.std(0) / WIDTH - 1).abs() < 5 / math.sqrt(2 * n) + 0.02).all()


def test_likelihoods_differentiate_through_classifier_guidance():
    """Guided by Bayes's rule the likelihood is the class's own, here against the same class."""
    pytest.importorskip("torchdiffeq")
    process, x = EDM(0.05, 20), CENTRES + 0.2
    guided = ClassifierGuidance(Mixture(process), log_class(process))
    one = flow_density(guided, x, probes=None, condition=1, tolerance=1e-6)
    two = flow_density(Mixture(process), x, probes=None, condition=1, tolerance=1e-6)
    low, high = 0.05**2, 20.0**2
    start = CENTRES[1] * (1 - math.sqrt((WIDTH**2 + low) / (WIDTH**2 + high)))
    deviation = math.sqrt(high * (WIDTH**2 + low) / (WIDTH**2 + high))
    exact = torch.distributions.Normal(start, deviation).log_prob(x).sum(1)
    assert torch.allclose(one.nats, exact, atol=1e-4)
    assert torch.allclose(two.nats, exact, atol=1e-4)


def test_bad_guidance_gets_one_sentence():
    model = Mixture(EDM())
    with pytest.raises(InputError, match="0 <= low < high"):
        ClassifierFreeGuidance(model, 2.0, interval=(1.0, 0.5))
    bad = ClassifierGuidance(model, lambda state, t, condition: state)
    with pytest.raises(InputError, match="one log-probability for each"):
        bad(torch.zeros(3, 2).double(), torch.tensor(0.5), 1)
    columns = Custom(
        lambda t: torch.ones(len(t), 2, dtype=torch.float64),
        lambda t: torch.stack([t, 2 * t], 1),
        shape=(2,),
    )
    with pytest.raises(InputError, match="one noise level"):
        ClassifierFreeGuidance(Mixture(columns), 2.0, interval=(0.1, 1.0))
