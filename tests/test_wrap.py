"""Other people's modules in one line: every convention gives the guess of the plain one."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from reverie import as_denoiser, measure, sample
from reverie.denoisers import ClassifierFreeGuidance, Linear
from reverie.errors import InputError
from reverie.processes import EDM, VP, Brownian, CriticallyDamped, Masking, Rectified, Tabulated
from reverie.processes import Uniform as UniformNoise
from reverie.spaces import Sphere

KINDS = ("clean", "noise", "velocity", "v", "score")


def seeded(number=0):
    return torch.Generator().manual_seed(number)


class Dense(nn.Module):
    """Weights that do not depend on the settings of the test."""

    def __init__(self, inplace=False, kind=torch.float32):
        super().__init__()
        self.act = nn.LeakyReLU(0.2, inplace=inplace)
        self.out = nn.Linear(3, 3)
        with torch.no_grad():
            self.out.weight.copy_(0.3 * torch.randn(3, 3, generator=seeded(4)))
            self.out.bias.copy_(0.1 * torch.randn(3, generator=seeded(5)))
        self.to(kind)

    def forward(self, x, t):
        return self.out(self.act(x))


@pytest.fixture(scope="module")
def rows():
    return torch.randn(60, 3, generator=seeded(1))


# --- who touches what ----------------------------------------------------------------------------


@pytest.mark.parametrize("predicts", KINDS)
def test_a_module_that_works_in_place_gets_a_copy(predicts, rows):
    plain, inplace = (
        as_denoiser(Dense(flag), EDM(0.02, 40), predicts=predicts, time="sigma")
        for flag in (False, True)
    )
    areas = [measure(d, rows, levels=6, generator=seeded()).area() for d in (plain, inplace)]
    assert areas[0] == areas[1]
    times = torch.linspace(1, 0, 5, dtype=torch.float64)
    drawn = [sample(d, 8, times, shape=(3,), generator=seeded()) for d in (plain, inplace)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("sampler", ["ancestral", "dpm++2m"])
def test_a_module_works_in_its_precision_and_states_stay_wide(kind, sampler, rows):
    class Typed(Dense):
        def forward(self, x, t):
            assert x.dtype == t.dtype == kind
            return super().forward(x, t)

    exact = as_denoiser(Dense(), EDM(0.02, 40), predicts="noise", time="sigma")
    typed = as_denoiser(Typed(kind=kind), EDM(0.02, 40), predicts="noise", time="sigma")
    wide = torch.float64 if kind == torch.float64 else torch.float32
    times = torch.linspace(1, 0, 5, dtype=torch.float64)
    start = 40 * torch.randn(8, 3, generator=seeded())
    ours = sample(typed, 8, times, sampler, shape=(3,), init=start, generator=seeded())
    other = sample(exact, 8, times, sampler, shape=(3,), init=start, generator=seeded())
    # bfloat16 keeps 8 bits of a prediction: .4% an entry, over 5 calls
    assert (ours - other).abs().max() < 5 * 2**-8 * other.abs().max()
    assert sample(typed, 2, times, sampler, shape=(3,)).dtype == wide
    areas = [
        measure(d, rows.to(wide), levels=6, generator=seeded(2)).area() for d in (exact, typed)
    ]
    if kind != torch.float64:  # whose noise is another draw
        assert areas[1] == pytest.approx(areas[0], rel=0.02)
    assert typed(rows, torch.tensor(0.5)).dtype == torch.float32


def test_the_tensor_is_taken_out_of_what_a_module_returns():
    state, t = torch.randn(4, 3), torch.tensor(0.5)
    exact = as_denoiser(Dense(), VP(), predicts="noise")(state, t)
    forms = (
        lambda y: (y, None),
        lambda y: [y],
        lambda y: SimpleNamespace(sample=y),
        lambda y: SimpleNamespace(logits=y, loss=None),
        lambda y: {"sample": y, "other": 1},
        lambda y: {"anything": y},
    )
    for form in forms:

        class Wraps(Dense):
            def forward(self, x, t, form=form):
                return form(super().forward(x, t))

        assert torch.equal(as_denoiser(Wraps(), VP(), predicts="noise")(state, t), exact)

    class Empty(nn.Module):
        def forward(self, x, t):
            return SimpleNamespace(loss=1.0)

    with pytest.raises(InputError, match="Empty returned SimpleNamespace, in which no tensor"):
        as_denoiser(Empty(), VP())(state, t)


# --- what a module is told -----------------------------------------------------------------------


class FromNoise(nn.Module):
    """Exact velocity of x_s = s x + (1 - s) e for x of N(m, v): data at s = 1."""

    mean, variance, scale = 2.0, 0.49, 1.0

    def forward(self, x, s):
        s = (s / self.scale).reshape(-1, 1)
        spread = s**2 * self.variance + (1 - s) ** 2
        off = (x - s * self.mean) / spread
        clean, noise = self.mean + s * self.variance * off, (1 - s) * off
        return clean - noise


class InThousands(FromNoise):
    scale = 1000.0


def test_a_time_with_data_at_one(rows):
    """The flag flips the time and turns the velocity round: the exact linear guess."""
    process = Rectified()
    exact = Linear(process, 2 * torch.ones(3), 0.49 * torch.ones(3), torch.eye(3))
    flipped = as_denoiser(FromNoise(), process, "velocity", data_at=1)
    scaled = as_denoiser(
        InThousands(), process, "velocity", time=lambda t: 1000 * (1 - t), data_at=1
    )
    for t in (0.05, 0.4, 0.9):
        for denoiser in (flipped, scaled):
            gap = denoiser(rows, torch.tensor(t)) - exact(rows, torch.tensor(t))
            assert gap.abs().max() < 1e-5
    index = as_denoiser(lambda x, i: i[:, None].float().expand(x.shape), process, time="index",
                        steps=10, data_at=1)  # fmt: skip
    assert index(rows, torch.tensor(0.3))[0, 0] == 6
    with pytest.raises(InputError, match="data_at=2"):
        as_denoiser(FromNoise(), process, "velocity", data_at=2)


def test_one_scalar_time_for_a_batch(rows):
    class Scalar(nn.Module):
        def forward(self, x, t):
            assert t.ndim == 0
            return x * t

    class Batch(nn.Module):
        def forward(self, x, t):
            return x * t[:, None]

    one = as_denoiser(Scalar(), VP(), "noise", scalar_time=True)
    many = as_denoiser(Batch(), VP(), "noise")
    t = torch.tensor([0.2, 0.5, 0.9]).repeat(20)
    assert torch.allclose(one(rows, t), many(rows, t))
    areas = [measure(d, rows, levels=4, generator=seeded()).area() for d in (one, many)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-6)
    untold = as_denoiser(lambda x: 0.5 * x, VP(), time="none")
    assert torch.equal(untold(rows, t), 0.5 * rows)


@pytest.mark.parametrize("null", [-1, 10, torch.tensor([10])])
def test_a_null_label_that_is_a_number(null, rows):
    class Labelled(nn.Module):
        def forward(self, x, t, label):
            assert label.shape == (len(x),)
            return x * 0 + label[:, None]

    number = int(torch.as_tensor(null))
    denoiser = as_denoiser(Labelled(), VP(), null=null)
    t = torch.tensor(0.5)
    assert (denoiser(rows, t) == number).all()
    label = torch.arange(60) % 3 - 1  # -1 is a row without a label
    assert torch.equal(
        denoiser(rows, t, label)[:, 0], label.masked_fill(label < 0, number).float()
    )
    guided = ClassifierFreeGuidance(denoiser, 3.0)
    assert torch.allclose(guided(rows, t, label.clamp(min=0))[0],
                          torch.tensor(number + 3.0 * (0 - number)))  # fmt: skip
    bare = ClassifierFreeGuidance(as_denoiser(Labelled(), VP()), 3.0, null=number)
    assert (bare(rows, t) == number).all()


def test_guidance_comes_before_the_limit(rows):
    class Labelled(nn.Module):
        def forward(self, x, t, label):
            return x + label[:, None]

    ones = torch.ones(60)
    denoiser = as_denoiser(Labelled(), VP(), limit=(-1.0, 1.0))
    guided = ClassifierFreeGuidance(denoiser, 2.5, null=0.0)
    found = guided(rows, torch.tensor(0.5), ones)
    assert torch.allclose(found, (rows + 2.5).clamp(-1, 1))
    curve = measure(guided, rows, levels=4, condition=ones, generator=seeded())
    assert (curve.rate <= 0.5 * (rows.abs() + 1).square().sum(1).mean().item()).all()


# --- symbols -------------------------------------------------------------------------------------

S, SITES = 4, 6


class Vocabulary(nn.Module):
    """Logits that depend on the state at every site, in the module's own numbers."""

    def __init__(self, mask, columns, first=False):
        super().__init__()
        self.mask, self.columns, self.first = mask, columns, first
        self.table = nn.Parameter(torch.randn(S + 1, SITES, S, generator=seeded(9)))

    def forward(self, x, t):
        kept = [i for i in range(S + 1) if i != self.mask][:S]
        own = torch.stack([(x == number).long() for number in (*kept, self.mask)])
        assert (own.sum(0) == 1).all()
        ours = own.argmax(0)  # 0..S-1, and S for the mask
        logits = self.table[ours].sum(1) * t[:, None, None]
        if self.columns > S:
            place = self.mask if 0 <= self.mask <= S else S
            junk = torch.full((*x.shape, 1), 50.0)
            logits = torch.cat([logits[..., :place], junk, logits[..., place:]], -1)
        return logits.movedim(-1, 1) if self.first else logits


@pytest.mark.parametrize(("mask", "columns", "first"), [
    *itertools.product((0, 2, S, -1), (S, S + 1), (False, True)), (S + 3, S, False),
])  # fmt: skip
def test_logits_wherever_the_mask_stands(mask, columns, first):
    process = Masking(S, SITES)
    truth = as_denoiser(Vocabulary(S, S), process, predicts="logits")
    module = Vocabulary(mask, columns, first)
    if mask > S:
        module.mask = mask
    denoiser = as_denoiser(module, process, predicts="logits", mask_id=mask)
    x = torch.randint(S, (30, SITES), generator=seeded())
    state = process.corrupt(x, 0.5, generator=seeded(1))
    expected = module.table[state].sum(1) * 0.5
    law = expected.softmax(-1)
    hidden = state == S
    found = denoiser(state, torch.tensor(0.5))
    assert torch.allclose(found[hidden], law[hidden], atol=1e-6)
    shown = torch.nn.functional.one_hot(state.clamp(max=S - 1), S).float()
    assert torch.equal(found[~hidden], shown[~hidden])
    areas = [measure(d, x, levels=4, generator=seeded()).area() for d in (truth, denoiser)]
    assert areas[0] == pytest.approx(areas[1], rel=1e-6)
    drawn = sample(denoiser, 6, torch.linspace(1, 0, 4).double(), generator=seeded())
    assert drawn.shape == (6, SITES)
    assert int(drawn.max()) < S


def test_logits_of_other_noise_are_the_posterior_itself():
    """`logits` is the law of x given all of x_t; `leave-one-out` adds the site's own state."""
    process, logits = UniformNoise(S, SITES), torch.randn(7, SITES, S, generator=seeded())
    state, t = torch.randint(S, (7, SITES), generator=seeded(1)), torch.tensor(0.6)
    module = nn.Module()
    module.forward = lambda x, t: logits
    assert torch.allclose(as_denoiser(module, process, "logits")(state, t), logits.softmax(-1))
    kernel = process.kernel(0.6)[0].T[state]  # p(x_t | x)
    law = logits.softmax(-1) * kernel
    out = as_denoiser(module, process, "leave-one-out")(state, t)
    assert torch.allclose(out, (law / law.sum(-1, keepdim=True)).float(), atol=1e-6)


def test_symbol_models_are_told_their_own_time():
    told = {}
    process = Masking(S, SITES)
    state = torch.zeros(2, SITES, dtype=torch.long)
    for time in ("t", "sigma", "index", "none"):

        def module(x, *t, time=time):
            told[time] = t
            return torch.zeros(*x.shape, S)

        as_denoiser(module, process, "logits", time=time)(state, torch.tensor(0.75))
    assert told["none"] == ()
    assert told["index"][0].tolist() == [749, 749]
    # the total noise -log(1 - t) of Sahoo et al. 2024
    assert torch.allclose(told["sigma"][0], torch.tensor(4.0).log().expand(2))


# --- refusals ------------------------------------------------------------------------------------

REFUSED = [
    (dict(process=Masking(5, 8)), "predicts='clean' is no law of symbols, which Masking needs"),
    (dict(process=Masking(5, 8), predicts="noise"), "choose one of logits, leave-one-out"),
    (dict(process=Masking(5, 8), predicts="logits", time="log-snr"), "time='log-snr' needs Gauss"),
    (dict(process=UniformNoise(5, 8), predicts="logits", mask_id=0), "Uniform hides no symbols"),
    (dict(process=Masking(5, 8), predicts="logits", limit=(-1, 1)), "limit is for numbers"),
    (dict(process=VP(), predicts="logits"), "predicts='logits' is for symbols, but VP noises"),
    (dict(process=VP(), mask_id=0), "mask_id=0 is for symbols, but VP noises"),
    (dict(process=VP(), predicts="epsilon"), "velocity, score, v .epsilon is 'noise' here"),
    (dict(process=VP(), time="timestep"), "choose one of t, sigma, log-snr, index, none"),
    (dict(process=Tabulated(torch.linspace(0.99, 0.01, 50)), time="index", steps=100),
     "steps=100, but Tabulated has 50 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "sentence"), REFUSED)
def test_what_does_not_fit_is_named(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        as_denoiser(Dense(), **settings)


@pytest.mark.parametrize("process", [Brownian(Sphere(2)), CriticallyDamped()])
def test_a_process_that_the_wrapper_cannot_read_is_named(process):
    with pytest.raises(InputError, match=f"for {type(process).__name__} write a subclass"):
        as_denoiser(Dense(), process)


def test_logits_of_another_shape_are_named():
    module = nn.Module()
    module.forward = lambda x, t: torch.zeros(*x.shape, 9)
    denoiser = as_denoiser(module, Masking(5, 8), predicts="logits")
    with pytest.raises(InputError, match=r"\(2, 8, 9\) for states of 5 symbols; it should be "
                       r"\(2, 8, 5\) or \(2, 8, 6\)"):  # fmt: skip
        denoiser(torch.zeros(2, 8, dtype=torch.long), torch.tensor(0.5))
