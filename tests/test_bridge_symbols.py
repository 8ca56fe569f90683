"""Bridges of symbols against the exact plan of enumerable sets, and online fits of Gaussians."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reverie import InputError
from reverie.bridges import (
    BrownianMotion,
    FiniteBridge,
    FiniteReference,
    Independent,
    SiteReference,
    SymbolLight,
    fit_online,
    fit_symbol_matching,
)
from reverie.processes import Uniform


def laws(states: int, draw: torch.Generator) -> list[Tensor]:
    raw = [torch.rand(states, generator=draw).double() ** power for power in (2, 4)]
    return [law / law.sum() for law in raw]


def drawn(law: Tensor, symbols: int, sites: int, n: int, draw: torch.Generator) -> Tensor:
    return strings(torch.multinomial(law, n, replacement=True, generator=draw), symbols, sites)


def strings(place: Tensor, symbols: int, sites: int) -> Tensor:
    return torch.stack([place // symbols**d % symbols for d in reversed(range(sites))], 1)


def test_the_light_bridge_finds_the_exact_plan() -> None:
    """3 symbols on 2 sites: total variation under .02, which 20,000 rows of each end allow."""
    draw = torch.Generator().manual_seed(0)
    reference = SiteReference.of_process(Uniform(3, 1), 0.8, 4)
    whole = torch.kron(reference.powers[1], reference.powers[1])
    first, second = laws(9, draw)
    exact = FiniteBridge(first, second, FiniteReference(whole.expand(4, -1, -1)))
    a, b = (drawn(law, 3, 2, 20_000, draw) for law in (first, second))
    found = SymbolLight.fit(a, b, reference, components=10, steps=300, generator=draw)
    every = strings(torch.arange(9), 3, 2)
    for reverse, law, plan in ((False, first, exact.plan), (True, second, exact.plan.T)):
        potential, last = found.potential(reverse), reference.toward(reverse)[-1]
        q = torch.kron(last, last).log()
        with torch.no_grad():
            rows = q + potential.log_v(every) - potential.log_c(every, last)[:, None]
        assert rows.exp().sum(1) == pytest.approx(torch.ones(9).double(), abs=1e-9)
        assert 0.5 * float((rows.exp() * law[:, None] - plan).abs().sum()) < 0.02
        ends = found.ends(every, torch.zeros(9, dtype=torch.long), reverse=reverse)
        marginal = rows.exp().reshape(9, 3, 3)
        assert torch.allclose(ends[:, 0], marginal.sum(2))
        assert torch.allclose(ends[:, 1], marginal.sum(1))


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_networks_find_the_plan_of_one_site(together: bool) -> None:
    """One site: a guess of its end is no projection, so that what is left is the fit. The nats of
    a path are H(far end | near end): nothing else is drawn on the way."""
    draw = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    reference = SiteReference.of_process(Uniform(4, 1), 1.0, 4)
    first, second = laws(4, draw)
    exact = FiniteBridge(first, second, FiniteReference(reference.powers[1].expand(4, -1, -1)))
    a, b = (drawn(law, 4, 1, 5000, draw) for law in (first, second))
    found = fit_symbol_matching(
        Independent(a, b), reference, rounds=3, steps=400 if together else 60, width=32, depth=1,
        together=together, generator=draw,
    )  # fmt: skip
    for reverse, law, plan in ((False, first, exact.plan), (True, second, exact.plan.T)):
        kernel = torch.eye(4).double()
        for k in range(4):
            move = found.moves(
                torch.arange(4)[:, None], torch.full((4,), k), reverse=reverse
            )[:, 0]  # fmt: skip
            kernel = kernel @ (move / move.sum(1, keepdim=True))
        assert 0.5 * float((law[:, None] * kernel - plan).abs().sum()) < 0.06  # independent: .3
    x0, x1 = (ends[:, None] for ends in exact.sample(4000, generator=draw))
    entropy = -float((exact.plan * (exact.plan / first[:, None]).log()).sum())
    assert float(found.path_kl(x0, x1, generator=draw).sum()) == pytest.approx(entropy, rel=0.06)
    path = found.path(a[:50], generator=draw)
    assert path.shape == (5, 50, 1)
    assert torch.equal(path[0], a[:50])


def test_bad_strings_are_one_sentence() -> None:
    reference = SiteReference.of_process(Uniform(3, 1), 1.0, 3)
    rows = torch.zeros(4, 2, dtype=torch.long)
    for bad in (rows + 3, rows.double(), rows - 1):
        with pytest.raises(InputError, match="whole numbers from 0 to 2"):
            SymbolLight.fit(rows, bad, reference)
    with pytest.raises(InputError, match="a law"):
        SiteReference(torch.ones(3, 3), 2)


@pytest.mark.slow
def test_one_network_online_finds_the_gaussian_plan() -> None:
    """Covariance (sqrt(5) - 1) / 2 of unit Gaussians at epsilon 1; the first pairs have 0."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    a, b = torch.randn(2, 5000, 2, generator=draw)
    found = fit_online(Independent(a, b), BrownianMotion(1.0), steps=600, width=64, generator=draw)
    x1 = found.sample(a, steps=40, generator=draw)
    covariance = float(((a - a.mean(0)) * (x1 - x1.mean(0))).mean())
    assert covariance == pytest.approx((5**0.5 - 1) / 2, abs=0.06)
    assert len(list(found.parameters())) == len(list(found.body(True).parameters()))
