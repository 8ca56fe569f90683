"""How many steps are enough: certificates for what discretisation costs, sharp to loose.

All concern the ancestral (first-order stochastic) sampler and, unless said otherwise, the part of
the path KL that K steps add between the two ends of the plan, in nats: not the network's error,
not the initialisation. Those that are read off the curve hold for the curve as it is, the others
for the ideal denoiser of the data. Each names what it assumes and where it comes from. `derived`
ones were derived for this library and checked numerically; of published bounds whose constants
are unnamed only the order is computed.

A KL bound is called vacuous when it is not below the path KL of a single step between the same
ends: every grid with these ends is at least as good as that. A bound on total variation is vacuous
at 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reverie.curve import LossCurve
from reverie.errors import InputError
from reverie.plan import plan_steps, steps_needed

NODES = 4001
RENYI_CONSTANT = 3.2  # the most that S^2 / (4 H^2) was on two-point laws (2.8 to 3.2)
NO_CERTIFICATE = (
    "no KL certificate for {}: deterministic samplers have none (their path measures are singular "
    "to the true one), and of the stochastic ones the identity covers the ancestral step only; "
    "test the samples themselves"
)


@dataclass(frozen=True)
class Facts:
    """What is known of the data beside the curve; each unlocks the bounds that need it.

    second_moment: E|x|^2. entropy: Shannon entropy of discrete data, nats. renyi: its
    Renyi entropy of order 1/2, 2 log sum sqrt(p). lipschitz: of the score at every level. fisher:
    relative Fisher information to N(0, 1). intrinsic_dim: of the support.

    >>> from reverie.theory import Facts
    >>> facts = Facts(second_moment=784.0, intrinsic_dim=12.0)
    >>> facts.entropy is None  # bounds that need it stay without a value
    True
    """

    second_moment: float | None = None
    entropy: float | None = None
    renyi: float | None = None
    lipschitz: float | None = None
    fisher: float | None = None
    intrinsic_dim: float | None = None


@dataclass(frozen=True)
class Certificate:
    """One bound: on K steps (`value`) and the steps it asks for a budget (`steps`), or None.

    value is in nats, or a total variation where `kind` is "TV". tag: measured, derived, limit,
    numerical or order (constants unnamed).

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.theory import Certificate, certificates
    >>> u = np.geomspace(0.01, 100, 65)
    >>> bound = certificates(LossCurve(u, 0.5 / (1 + u)), steps=10)[0]  # N(0, 1)
    >>> isinstance(bound, Certificate), bound.name, round(bound.value, 3)
    (True, 'measured', 0.622)
    """

    name: str
    statement: str
    assumption: str
    source: str
    tag: str
    value: float | None = None
    steps: int | None = None
    kind: str = "KL"
    ceiling: float = math.inf  # a value at or above it says nothing

    @property
    def vacuous(self) -> bool:
        """Whether it says no more than a single step would; see the module."""
        return self.value is not None and not self.value < self.ceiling

    @property
    def informative(self) -> bool:
        """Whether it has a value that says something."""
        return self.value is not None and not self.vacuous

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        data = asdict(self) | {"vacuous": self.vacuous}
        data["ceiling"] = self.ceiling if math.isfinite(self.ceiling) else None
        return data


def certificates(
    curve: LossCurve,
    steps: int,
    budget: float | None = None,
    facts: Facts | None = None,
    sampler: str = "ancestral",
) -> list[Certificate]:
    """Every bound on the excess of `steps` steps between the ends of `curve`, sharp to loose.

    budget: nats; then each also tells how many steps it asks for. Returns an empty list for other
    samplers than "ancestral" (see `NO_CERTIFICATE`). Raises InputError where the curve has several
    clocks or the budget is not positive.

    >>> import numpy as np
    >>> from reverie import LossCurve
    >>> from reverie.theory import certificates
    >>> u = np.geomspace(0.01, 100, 33)
    >>> bounds = certificates(LossCurve(u, 0.5 / (1 + u)), steps=20)  # N(0, 1)
    >>> [(b.name, round(b.value, 2)) for b in bounds if b.informative]
    [('measured', 0.29), ('many-step limit', 0.27), ('geometric grid, information', 1.35)]
    """
    if budget is not None and not 0 < budget < math.inf:
        raise InputError(f"the budget is {budget} nats; it must be a positive number")
    if curve.columns > 1 or not curve.is_log:
        raise InputError("certificates need a curve with one positive clock")
    if sampler != "ancestral":
        return []
    bounds = _Bounds(curve, steps, budget, facts or Facts())
    return [*bounds.measured(), *bounds.derived(), *bounds.published()]


def geometric_bound(steps: int, log_ratio: float, information: float) -> float:
    """T1: kappa I, with 1 + kappa the ratio of the geometric grid; any law with E|x|^2 finite."""
    return math.expm1(log_ratio / steps) * information


def geometric_steps(budget: float, log_ratio: float, information: float) -> int:
    """T1 solved for K: log(gamma_K / gamma_0) / log(1 + budget / I)."""
    return max(math.ceil(log_ratio / math.log1p(budget / information) - 1e-9), 1)


def information_bound(curve: LossCurve) -> float:
    """gamma_0 rate(gamma_0) + area, nats: at most I(gamma_K) when the curve is the ideal one."""
    return float(curve.u[0] * curve.monotone().rate[0]) + curve.monotone().area()


def roughness(curve: LossCurve) -> float:
    """S = int sqrt(-mmse') dgamma, nats^(1/2); the best K steps cost S^2 / (4 K) in the limit."""
    axis = np.linspace(curve.axis[0], curve.axis[-1], NODES)
    u, rate = (a[:, 0] for a in curve.monotone().at(axis))
    return float(np.sqrt(np.maximum(-2 * np.diff(rate), 0) * np.diff(u)).sum())


def initial_bound(
    gamma: float, second_moment: float, dim: int | None = None, alpha: float | None = None
) -> float:
    """T4: what starting from the prior costs at most, in nats; exact once I(gamma) is subtracted.

    gamma: the noisiest level. N(0, sigma^2): gamma E|x|^2 / 2. With `alpha` and `dim` the prior is
    N(0, 1) of a variance-preserving process: (alpha^2 (E|x|^2 - d) - d log(1 - alpha^2)) / 2.
    """
    if alpha is None or dim is None:
        return 0.5 * gamma * second_moment
    return 0.5 * (alpha**2 * (second_moment - dim) - dim * math.log1p(-(alpha**2)))


class _Bounds:
    """The bounds of one curve, number of steps and budget."""

    def __init__(self, curve: LossCurve, steps: int, budget: float | None, facts: Facts) -> None:
        self.curve, self.steps, self.budget, self.facts = curve, steps, budget, facts
        self.log_ratio = float(curve.axis[-1] - curve.axis[0])
        self.ceiling = plan_steps(curve, 1, "log-snr").excess

    def measured(self) -> Iterator[Certificate]:
        needed = None if self.budget is None else steps_needed(self.curve, [self.budget])[0]
        yield self._kl(
            "measured",
            "sum (u_{k+1} - u_k) rate(u_k) - area on the loss-adaptive grid",
            "the curve itself; covers the schedule, not the network's error",
            "exact identity, reconstructed after Aghapour, Bayraktar & Zhang 2026",
            "measured",
            plan_steps(self.curve, self.steps, clock="nats").excess,
            needed,
        )
        limit = roughness(self.curve) ** 2 / 4
        yield self._kl(
            "many-step limit",
            "S^2 / (4 K), S = int sqrt(-mmse') dgamma",
            "K large; not a bound at small K",
            "derived here",
            "limit",
            limit / self.steps,
            None,
        )

    def derived(self) -> Iterator[Certificate]:
        choices = [("information", information_bound(self.curve), "the area under the curve")]
        if self.facts.entropy is not None:
            choices.append(
                ("entropy", self.facts.entropy, "discrete data of known entropy, ideal denoiser")
            )
        if self.facts.second_moment is not None and self.curve.dim:
            signal = float(self.curve.u[-1]) * self.facts.second_moment / self.curve.dim
            capacity = 0.5 * self.curve.dim * math.log1p(signal)
            choices.append(
                ("second moment", capacity, "any law with this second moment, ideal denoiser")
            )
        for word, nats, assumption in choices:
            yield self._kl(
                f"geometric grid, {word}",
                "kappa I, 1 + kappa = (u_K / u_0)^(1/K)",
                f"{assumption}; explicit constant",
                "derived here (T1)",
                "derived",
                geometric_bound(self.steps, self.log_ratio, nats),
                None if self.budget is None
                else geometric_steps(self.budget, self.log_ratio, nats),
            )  # fmt: skip
        renyi = self.facts.renyi
        yield self._order(
            "Renyi entropy of order 1/2",
            "about 3.2 H_{1/2}^2 / K",
            "discrete data of known Renyi-1/2 entropy, ideal denoiser, K large",
            "form of arXiv 2601.21943 v2; the constant was read off examples here, no theorem",
            None if renyi is None else RENYI_CONSTANT * renyi**2,
            tag="numerical",
        )

    def published(self) -> Iterator[Certificate]:
        facts, dim = self.facts, self.curve.dim
        if dim is not None:
            signal = float(self.curve.u[-1]) * 2 * float(self.curve.rate[0]) / dim
            log_end = math.log(max(signal, 1.0))
            yield self._order(
                "Benton et al. 2024", "d log^2(1/delta) / K",
                "Cov(x) = 1, steps at most kappa min(1, T - t)", "arXiv 2308.03686",
                dim * log_end**2,
            )  # fmt: skip
        horizon = 0.5 * math.log1p(1 / float(self.curve.u[0]))  # T of dx = -x dt + sqrt(2) dB
        smooth = None
        if facts.lipschitz is not None and dim is not None:
            smooth = facts.lipschitz * horizon * math.sqrt(dim / self.steps)
        yield Certificate(
            "Chen et al. 2023", "TV of order L T sqrt(d / K)",
            "score L-Lipschitz at every level", "arXiv 2209.11215", "order",
            smooth, None, "TV", 1.0,  # an unnamed constant gives no number of steps
        )  # fmt: skip
        yield self._order(
            "Conforti, Durmus & Silveri 2023", "T J / K",
            "finite relative Fisher information J, constant step (recalled, not checked)",
            "arXiv 2308.12240", None if facts.fisher is None else horizon * facts.fisher,
        )  # fmt: skip
        yield self._order(
            "low intrinsic dimension", "k / K up to logarithms",
            "support of intrinsic dimension k, DDPM coefficients", "arXiv 2410.18784, 2410.09046",
            facts.intrinsic_dim,
        )  # fmt: skip
        yield self._order(
            "De Bortoli 2022", "exponential in diam^2 / epsilon: always vacuous",
            "compact support", "arXiv 2208.05314", None,
        )  # fmt: skip

    def _order(
        self,
        name: str,
        statement: str,
        assumption: str,
        source: str,
        scale: float | None,
        tag: str = "order",
    ) -> Certificate:
        """A bound scale / K."""
        value = None if scale is None else scale / self.steps
        needed = None
        if scale is not None and self.budget is not None:
            needed = max(math.ceil(scale / self.budget), 1)
        return self._kl(name, statement, assumption, source, tag, value, needed)

    def _kl(
        self,
        name: str,
        statement: str,
        assumption: str,
        source: str,
        tag: str,
        value: float | None,
        steps: int | None,
    ) -> Certificate:
        # the exact figure is never vacuous, and an unnamed constant gives no number of steps
        ceiling = math.inf if tag == "measured" else self.ceiling
        steps = None if tag == "order" else steps
        return Certificate(name, statement, assumption, source, tag, value, steps, ceiling=ceiling)
