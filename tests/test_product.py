"""Products of processes: their laws, and likelihoods against enumeration and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from reverie import InputError, bound, measure, sample
from reverie.calibration.references import reference_of
from reverie.denoisers import Memoriser, MixedMixture
from reverie.plan.guard import guard
from reverie.processes import EDM, VP, Brownian, Masking, ModalProcess, ProductProcess, Uniform
from reverie.spaces import Euclidean, FiniteSet, Mixed, Sphere
from reverie.testing import check_process

SYMBOLS = torch.tensor([[0, 1], [1, 2], [1, 0], [0, 2], [0, 0]])
NUMBERS = torch.tensor([[0.0], [1.0], [-1.0], [1.0], [2.0]]).double()
WEIGHTS = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=torch.float64)
ATOMS = torch.cat([NUMBERS, SYMBOLS.double()], 1)


def product(sigma_max: float = 1e5) -> ProductProcess:
    return ProductProcess(EDM(0.05, sigma_max, shape=(1,)), Masking(3, 2, sizes=[2, 3]))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the laws of the contract --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "points"),
    [
        ((EDM(0.02, 40, shape=(1,)), Masking(3, 2, sizes=[2, 3])), ATOMS.float()),
        ((Masking(4, 3),), torch.tensor([[0.0, 1, 3], [2, 2, 0], [1, 0, 3]])),
        ((VP(shape=(2,)), EDM(0.05, 10, shape=(1,))), torch.randn(5, 3, generator=seeded())),
        ((Masking(2, 1), VP(shape=(1,)), Masking(3, 1)), ATOMS[:, [1, 0, 2]].float()),
        ((EDM(0.1, 10, shape=(1,)), Uniform(3, 2)), ATOMS.float()),
    ],
)
def test_products_keep_the_laws_of_a_process(parts: tuple, points: torch.Tensor) -> None:
    check_process(ProductProcess(*parts), points)


def test_flags_are_those_that_all_parts_have() -> None:
    exact, chain = product(), ProductProcess(EDM(shape=(1,)), Uniform(3, 2))
    assert (exact.area_exact, exact.steps_exact, exact.monotone) == (True, True, True)
    assert (chain.steps_exact, chain.monotone) == (False, False)
    assert exact.gaussian is None


def test_parts_need_a_shape_and_one_clock() -> None:
    with pytest.raises(InputError, match="has no fixed shape"):
        ProductProcess(EDM(), Masking(2, 1))
    with pytest.raises(InputError, match="ModalProcess has several clocks"):
        ProductProcess(
            ModalProcess(VP(), shape=(2,), basis="identity", speed=torch.tensor([1.0, 0.5]))
        )
    with pytest.raises(InputError, match="at least one part"):
        ProductProcess()


def test_a_manifold_can_be_a_part() -> None:
    mixed = ProductProcess(Brownian(Sphere(2)), Masking(2, 1))
    x = torch.tensor([[0.0, 0, 1, 1], [1, 0, 0, 0]])
    state = mixed.corrupt(x, 0.5, generator=seeded())
    assert torch.allclose(state[:, :3].norm(dim=1), torch.ones(2), atol=1e-5)
    assert mixed.clock(torch.tensor([0.2, 0.8])).shape == (2, 2)


def test_the_space_checks_every_part() -> None:
    space = Mixed(Euclidean((1,)), FiniteSet(3, 2, [2, 3]))
    assert space.shape == (3,)
    pieces = space.split(ATOMS)
    assert [piece.dtype for piece in pieces] == [torch.float64, torch.int64]
    assert torch.equal(space.join(pieces, ATOMS), ATOMS)
    with pytest.raises(InputError, match="row 1 holds the symbol 2; the 2 symbols"):
        space.check(torch.tensor([[0.0, 1, 2], [0, 2, 2]]))
    with pytest.raises(InputError, match="row 0 holds a value that is not finite"):
        space.check(torch.tensor([[math.nan, 1, 2]]))
    with pytest.raises(InputError, match="a site has 1 to 3 symbols"):
        FiniteSet(3, 2, [2, 4])


def test_a_symbol_that_a_site_lacks_has_probability_exactly_0() -> None:
    masking = Masking(5, 3, sizes=[2, 5, 3])
    logits = 50 * torch.randn(200, 3, 5, generator=seeded())
    hidden = torch.full((200, 3), masking.mask)
    law = masking.clean_law(logits, hidden, 0.5)
    assert (law[:, 0, 2:] == 0).all()
    assert (law[:, 2, 3:] == 0).all()
    assert torch.allclose(law.sum(-1), torch.ones(200, 3))
    drawn = masking.finish(law, hidden, 0.5, generator=seeded())
    masking.space.check(drawn)


# --- likelihood ----------------------------------------------------------------------------------


def expected(law: MixedMixture, t: float, cost, hide: float | None = None, nodes: int = 201):
    """Mean over X_t given each atom of cost(states, atoms), (K, ...): every mask, and the
    trapezoid rule over the noise, whose error is below rounding."""
    process = law.process
    times = process.part_times(t)
    hide = float(times[1]) if hide is None else hide
    alpha, sigma = process.parts[0].scales(times[0], NUMBERS)  # type: ignore[operator]
    noise = torch.linspace(-7.5, 7.5, nodes, dtype=torch.float64)
    weight = (-0.5 * noise.square()).exp() / (-0.5 * noise.square()).exp().sum()
    hidden = torch.tensor(list(itertools.product([False, True], repeat=2)))
    chance = torch.where(hidden, torch.tensor(hide, dtype=torch.float64), 1 - hide).prod(1)
    shape = (len(ATOMS), len(hidden), nodes)
    shown = torch.where(hidden, 3.0, ATOMS[:, None, 1:])[:, :, None].expand(*shape, 2)
    number = (alpha * NUMBERS + sigma * noise)[:, None, :, None].expand(*shape, 1)
    states = torch.cat([number, shown], 3).reshape(-1, 3)
    atoms = ATOMS.repeat_interleave(len(hidden) * nodes, 0)
    each = cost(states, atoms).reshape(*shape, -1)
    return torch.einsum("m,n,kmnj->kj", chance, weight, each)


def area(law: MixedMixture, low: float, high: float, nodes: int = 72) -> torch.Tensor:
    """Nats (K,) under both clocks between two times, by Gauss-Legendre in logit t."""
    process = law.process

    def rates(states, atoms):
        guess = law(states, torch.tensor(t, dtype=torch.float64).expand(len(states)))
        return process.rate(guess, atoms, states, t)

    ends = [math.log(t / (1 - t)) for t in (low, high)]
    place, weight = np.polynomial.legendre.leggauss(nodes)
    total = torch.zeros(len(ATOMS)).double()
    for z, w in zip(0.5 * (ends[0] + ends[1] + (ends[1] - ends[0]) * place), weight, strict=True):
        t = 1 / (1 + math.exp(-z))
        at = torch.tensor([t], dtype=torch.float64)
        speed = -torch.func.jvp(process.clock, (at,), (torch.ones_like(at),))[1]
        step = 0.5 * (ends[1] - ends[0]) * w * t * (1 - t)
        total += step * (expected(law, t, rates) * speed).sum(1)
    return total


def test_the_bound_of_the_exact_denoiser_is_minus_log_p_of_every_atom() -> None:
    """Area of both clocks, first revelations and last denoise: -log p(x) to 1e-8, by quadrature.

    The noisiest ratio is 1e-10, so that the prior costs at most 2e-10 nats.
    """
    process = product()
    law = MixedMixture(process, WEIGHTS, SYMBOLS, NUMBERS)
    low, high = process.t_range
    masking = process.parts[1]

    def masked_rate(states, atoms):
        guess = process.split(
            law(states, torch.tensor(high, dtype=torch.float64).expand(len(states)))
        )[1]
        return masking.rate(guess, atoms[:, 1:].long(), states[:, 1:].long(), hide)

    opening = torch.zeros(len(ATOMS)).double()
    for place, weight in zip(*np.polynomial.legendre.leggauss(4), strict=True):
        share = 0.5 * (place + 1) * low  # u from 0 to its first level
        hide = 1 - share
        opening += 0.5 * low * weight * expected(law, high, masked_rate, hide)[:, 0]

    def last(states, atoms):
        guess = process.split(
            law(states, torch.tensor(low, dtype=torch.float64).expand(len(states)))
        )[1]
        return masking.reconstruction(guess, atoms[:, 1:].long(), states[:, 1:].long())

    nats = process.prior_kl(ATOMS) + opening + area(law, low, high)
    nats = nats + expected(law, low, last)[:, 0]  # numbers lie 20 deviations apart there
    assert float((nats + WEIGHTS.log()).abs().max()) < 1e-8


def test_bound_and_entropy_estimate_the_same() -> None:
    process = product(1e3)
    law = MixedMixture(process, WEIGHTS, SYMBOLS, NUMBERS)
    rows = torch.multinomial(WEIGHTS, 1000, True, generator=seeded())
    grid = NUMBERS.unique()
    found = bound(law, ATOMS[rows], values=grid, draws=32, generator=seeded(1))
    gap = found.each + WEIGHTS[rows].log().numpy()
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))
    curve = measure(law, ATOMS[rows], 64, generator=seeded(2))
    assert curve.u.shape == (64, 2)
    entropy = float(-(WEIGHTS * WEIGHTS.log()).sum())
    spread = float(WEIGHTS[rows].log().std()) / math.sqrt(len(rows))
    error = math.hypot(curve.area_stderr() or 0.0, spread)
    assert abs(curve.entropy() - entropy) < 4 * error


def test_the_area_between_two_levels_is_the_information_gained() -> None:
    """Numbers of Gaussian law given the symbols: differences of exact information densities."""
    process = product(50.0)
    spread = torch.tensor([0.3, 1.0, 0.5, 0.2, 2.0]).double().reshape(-1, 1, 1)
    law = MixedMixture(process, WEIGHTS, SYMBOLS, NUMBERS, spread)
    generator, n = seeded(), 4000
    rows = torch.multinomial(WEIGHTS, n, True, generator=generator)
    number = (
        NUMBERS[rows] + spread[rows, 0].sqrt() * torch.randn(n, 1, generator=generator).double()
    )
    x = torch.cat([number, SYMBOLS[rows].double()], 1)
    curve = measure(law, x, 64, generator=generator, batch_size=n)
    gained = []
    for t in process.t_range:
        state = process.corrupt(x, t, generator=generator)
        pairs = zip(state.split(100), x.split(100), strict=True)
        own = torch.cat([process.log_kernel(s, y, t).diagonal() for s, y in pairs])
        gained.append(own - law.log_density(state, t))
    gap = gained[0] - gained[1]
    error = math.hypot(curve.area_stderr() or 0.0, float(gap.std()) / math.sqrt(n))
    assert abs(curve.area() - float(gap.mean())) < 4 * error


def test_the_mixture_of_rows_is_their_memoriser() -> None:
    process = product(50.0)
    rows = ATOMS[[0, 1, 1, 3, 4]]
    equal = torch.full((5,), 0.2).double()
    law = MixedMixture(process, equal, rows[:, 1:].long(), rows[:, :1])
    state, t = (
        process.corrupt(rows.repeat(20, 1), 0.4, generator=seeded()),
        torch.full((100,), 0.4),
    )
    assert torch.allclose(
        law(state, t.double()), Memoriser(process, rows)(state, t.double()), atol=1e-9
    )


# --- the reversal --------------------------------------------------------------------------------


def test_many_small_steps_end_in_the_law() -> None:
    """Symbols and numbers of 4,000 draws against the weights, jointly."""
    process = product(50.0)
    law = MixedMixture(process, WEIGHTS, SYMBOLS, NUMBERS)
    n, generator = 4000, seeded()
    times = process.time(measure(law, ATOMS, 81, generator=seeded()).u)
    state = process.sample_prior(n, t=float(times[0]), dtype=torch.float64, generator=generator)
    assert (state[:, 1:] == 3).all()
    for t, s in itertools.pairwise(times):
        state = process.reverse(law(state, t.expand(n)), state, t, s, generator=generator)
    low = times[-1]
    ended = process.finish(law(state, low.expand(n)), state, low, generator=generator)
    near = (ended[:, None, :1] - NUMBERS).abs()[..., 0] < 0.3
    same = (ended[:, None, 1:] == SYMBOLS).all(2) & near
    share = same.double().mean(0)
    error = (WEIGHTS * (1 - WEIGHTS) / n).sqrt()
    assert ((share - WEIGHTS).abs() < 4 * error + 0.01).all()


@pytest.mark.parametrize(("sampler", "steps"), [("ancestral", 80), ("ddim", 80), ("heun", 40)])
def test_samplers_draw_the_joint_law(sampler: str, steps: int) -> None:
    """Symbols by their shares, numbers given the symbols by mean and variance."""
    process = product(50.0)
    spread = torch.tensor([0.3, 1.0, 0.5, 0.2, 2.0]).double().reshape(-1, 1, 1)
    law = MixedMixture(process, WEIGHTS, SYMBOLS, NUMBERS, spread)
    n, low = 3000, process.t_range[0]
    ends = [math.log(t / (1 - t)) for t in (1 - low, low)]
    times = torch.linspace(*ends, steps + 1, dtype=torch.float64).sigmoid()
    drawn = sample(law, n, times, sampler, generator=seeded(), dtype=torch.float64)
    same = (drawn[:, None, 1:] == SYMBOLS).all(2)
    assert same.any(1).double().mean() > 0.99
    share = same.double().mean(0)
    error = (WEIGHTS * (1 - WEIGHTS) / n).sqrt()
    assert ((share - WEIGHTS).abs() < 4 * error + 0.01).all()
    for k in range(len(WEIGHTS)):
        own = drawn[same[:, k], 0]
        deviation = float(spread[k].sqrt())
        assert abs(float(own.mean() - NUMBERS[k])) < 4 * deviation / math.sqrt(len(own)) + 0.06
        assert abs(float(own.std()) / deviation - 1) < 4 / math.sqrt(2 * len(own)) + 0.06


def test_a_step_back_has_the_law_of_the_parts_steps_and_no_other_dependence() -> None:
    """Bayes' rule by hand: a bridge for the number, a share of revelations for each symbol."""
    process, n = product(50.0), 20_000
    t, s = torch.tensor(0.7).double(), torch.tensor(0.4).double()
    law = torch.tensor([[0.3, 0.7, 0.0], [0.2, 0.5, 0.3]]).double()
    guess = torch.cat([torch.tensor([0.8]).double(), law.flatten()]).expand(n, -1)
    state = torch.tensor([1.5, 3, 3]).double().expand(n, -1)
    after = process.reverse(guess, state, t, s, generator=seeded())
    # symbols: shown with chance (u_s - u_t) / (1 - u_t) = 3/7, then by the guess
    each = torch.cat([3 / 7 * law, torch.full((2, 1), 4 / 7).double()], 1)
    joint = torch.einsum("a,b->ab", each[0], each[1]).flatten()
    code = (4 * after[:, 1] + after[:, 2]).long()
    share = torch.bincount(code, minlength=16) / n
    assert (share[joint == 0] == 0).all()
    assert ((share - joint).abs() <= 4.5 * (joint * (1 - joint) / n).sqrt()).all()
    # the number: alpha = 1, so x_s | x_t, x has precision gamma_s on top of x and of x_t - x_s
    far, near = (1 / process.clock(at)[0, 0] for at in (t, s))  # variances of the noise
    mean = 0.8 + near / far * (1.5 - 0.8)
    spread = (near * (far - near) / far).sqrt()
    assert abs(float(after[:, 0].mean() - mean)) < 4.5 * float(spread) / math.sqrt(n)
    assert abs(float(after[:, 0].std() / spread) - 1) < 4.5 / math.sqrt(2 * n)
    both = torch.stack([after[:, 0], after[:, 1], after[:, 2]])
    assert (torch.corrcoef(both) - torch.eye(3)).abs().max() < 4.5 / math.sqrt(n)


def test_symbols_shown_from_the_start_are_conditions() -> None:
    """The other columns follow the exact conditional law, not the marginal one."""
    process = product(50.0)
    law = MixedMixture(process, WEIGHTS, SYMBOLS, NUMBERS)
    n, generator = 3000, seeded()
    ends = [math.log(t / (1 - t)) for t in process.t_range[::-1]]
    times = torch.linspace(*ends, 61, dtype=torch.float64).sigmoid()
    start = process.sample_prior(n, dtype=torch.float64, generator=generator)
    start[:, 1] = 1
    drawn = sample(law, n, times, init=start, generator=generator)
    assert (drawn[:, 1] == 1).all()
    exact = WEIGHTS[1] / (WEIGHTS[1] + WEIGHTS[2])
    share = (drawn[:, 2] == 2).double().mean()
    assert abs(float(share - exact)) < 4 * math.sqrt(float(exact * (1 - exact)) / n)
    assert float((drawn[:, 0] - torch.where(drawn[:, 2] == 2, 1.0, -1.0)).abs().max()) < 0.3


def test_a_charge_is_the_sum_of_the_parts_and_clock_time_times_rate() -> None:
    process = product(50.0)
    law = MixedMixture(process, WEIGHTS, SYMBOLS, NUMBERS)
    t, s = torch.tensor(0.6).double(), torch.tensor(0.3).double()
    x = ATOMS.repeat(50, 1)
    state = process.corrupt(x, t, generator=seeded())
    guess = law(state, t.expand(len(x)))
    rate = process.rate(guess, x, state, t)
    steps = process.clock(s) - process.clock(t)
    assert torch.allclose(process.charge(law, x, state, t, s), (steps * rate).sum(1), rtol=1e-5)
    number = 0.5 * (x[:, :1] - guess[:, :1]).square()
    assert torch.allclose(rate[:, :1], number)


# --- what other rooms know of products -----------------------------------------------------------


def test_the_reference_takes_parts_as_independent_and_is_exact_where_they_are() -> None:
    process = product(50.0)
    generator = seeded()
    rows = torch.multinomial(WEIGHTS, 4000, True, generator=generator)
    number = torch.randn(4000, 1, generator=generator).double()
    x = torch.cat([number, SYMBOLS[rows].double()], 1)
    reference = reference_of(process, x)
    again = type(reference).from_tensors(process, reference.tensors())
    state, t = process.corrupt(x[:50], 0.5, generator=generator), torch.tensor(0.5).double()
    guess = reference(state, t)
    assert torch.equal(guess, again(state, t))
    gamma = process.clock(t)[0, 0]
    assert torch.allclose(guess[:, 0], state[:, 0] * gamma / (1 + gamma), atol=0.06)
    hidden = state[:, 1] == 3
    share = x[:, 1].mean()
    first = process.split(guess)[1][hidden, 0]
    wanted = torch.stack([1 - share, share, torch.zeros(())]).expand_as(first)
    assert torch.allclose(first, wanted, atol=2e-3)
    curve = measure(reference, x[:200], 16, generator=generator)
    assert guard(curve, rows=x[:200]).ok
