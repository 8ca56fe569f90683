"""Handing a plan to a scheduler of diffusers: set by its own API, then verified.

    with plan.to_diffusers(pipe.scheduler):                   # any pipeline
        images = pipe(batch_size=16).images                   # DDPMPipeline, DiTPipeline, ...
    pipe("a cat", **plan.to_diffusers(pipe.scheduler).call)   # those that take timesteps= or
                                                              # sigmas=: Stable Diffusion, ...

A pipeline sets the timesteps anew in every call; inside the `with` block the scheduler answers
with the plan, whatever number of steps it is asked for. K steps are K + 1 model evaluations: the
scheduler's step to sigma = 0 is the last denoise.

Noise levels are s = sigma / alpha = gamma^(-1/2). What each scheduler is given:

    DDPM, DPMSolverMultistep, DPMSolverSinglestep, LCM, TCD, CMStochasticIterative: whole training
        levels, the distinct ones nearest in log gamma; `rounding` says how far that moved the plan
    EulerDiscrete: s with a 0 at the end; HeunDiscrete: fractional timesteps
    FlowMatchEulerDiscrete, FlowMatchLCM, UniPC with use_flow_sigmas: s / (1 + s), with the
        scheduler's `shift` undone beforehand
    EDMEuler (whose list is a ramp, not sigmas), EDMDPMSolverMultistep, UniPC, DPM with
        use_flow_sigmas: no usable list, so their arrays are written; these need the `with` block

The others are refused: DDIM and PNDM step by a fixed stride and would be silently wrong on any
other grid; KDPM2 and DPMSolverSDE interpolate levels of their own; DEIS has no step to sigma = 0.
EulerAncestral and LMS take no list, but read their arrays in every step: `force` writes those.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from reverie.denoisers.diffusers import is_flow
from reverie.errors import InputError

TOLERANCE = 1e-3  # relative, of every noise level the scheduler holds

WHOLE = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler")
BY_FORCE = ("EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler")
STRIDE = "steps by a fixed stride of the training timesteps"
BETWEEN = "interpolates levels of its own between those it is given"
REFUSED = {
    "DDIMScheduler": STRIDE,
    "DDIMParallelScheduler": STRIDE,
    "DDIMInverseScheduler": STRIDE,
    "PNDMScheduler": STRIDE,
    "KDPM2DiscreteScheduler": BETWEEN,
    "KDPM2AncestralDiscreteScheduler": BETWEEN,
    "DPMSolverSDEScheduler": BETWEEN,
    "DEISMultistepScheduler": "has no last step to sigma = 0",
}


@dataclass(frozen=True, eq=False)
class Order:
    """What a scheduler is asked for, and what it must hold afterwards.

    arguments: of `set_timesteps`; empty where the arrays are written instead. sigmas, timesteps:
    (K + 1,) in the scheduler's own units. rounding: most that log gamma moved. last: the final
    sigma. twice: whether all levels but the first are held twice (Heun).
    """

    arguments: dict[str, Any]
    sigmas: np.ndarray
    timesteps: np.ndarray
    rounding: float = 0.0
    last: float = 0.0
    twice: bool = False


@dataclass(frozen=True, eq=False)
class Handover:
    """A plan that a scheduler holds; a `with` block keeps it through the pipeline's own calls.

    levels: (K + 1,) noise levels s = sigma / alpha that are held, noisiest first. rounding: the
    most by which whole timesteps moved log gamma (0 where levels are continuous).
    """

    scheduler: Any
    levels: np.ndarray
    _order: Order = field(repr=False)

    @property
    def steps(self) -> int:
        """Model evaluations of a first-order sampler: what to pass as num_inference_steps."""
        return len(self.levels)

    @property
    def rounding(self) -> float:
        return self._order.rounding

    @property
    def timesteps(self) -> list[Any] | None:
        """For `pipe(timesteps=...)`, or None where the scheduler takes sigmas."""
        return self._order.arguments.get("timesteps")

    @property
    def sigmas(self) -> np.ndarray | None:
        """For `pipe(sigmas=...)`, or None where the scheduler takes timesteps."""
        return self._order.arguments.get("sigmas")

    @property
    def call(self) -> dict[str, Any]:
        """Keyword for the pipeline's call; InputError where only the `with` block can do it."""
        if not self._order.arguments:
            raise InputError(
                f"{type(self.scheduler).__name__} takes no list of levels: call the pipeline "
                "inside `with plan.to_diffusers(pipe.scheduler):`"
            )
        return dict(self._order.arguments)

    def apply(self, device: Any = None) -> None:
        """Set the levels again, as after another use of the scheduler."""
        _set(self.scheduler, self._order, device)

    def __enter__(self) -> Handover:
        def pinned(
            num_inference_steps: int | None = None,
            device: Any = None,
            timesteps: Any = None,
            sigmas: Any = None,
            **others: Any,
        ) -> None:
            del self.scheduler.set_timesteps  # the class's own, for the length of this call
            try:
                self.apply(device)
            finally:
                self.scheduler.set_timesteps = pinned

        self.scheduler.set_timesteps = pinned
        return self

    def __exit__(self, *_: object) -> None:
        del self.scheduler.set_timesteps


def hand_over(scheduler: Any, gamma: np.ndarray, *, force: bool = False) -> Handover:
    """Make `scheduler` hold the signal-to-noise ratios `gamma` (K + 1,), increasing.

    force: write the arrays of schedulers that take no list, or whose settings would distort one.
    Raises InputError on schedulers that cannot hold the levels, levels beyond the scheduler's own,
    and when what it holds afterwards differs by more than 1e-3.
    """
    levels = np.asarray(gamma, dtype=np.float64) ** -0.5
    names = [kind.__name__ for kind in type(scheduler).__mro__]
    if not hasattr(scheduler, "set_timesteps") or not hasattr(scheduler, "config"):
        raise InputError(f"to_diffusers takes a scheduler of diffusers, not {names[0]}")
    order = _order(scheduler, names, levels, force)
    _set(scheduler, order, None)
    _verify(scheduler, order)
    return Handover(scheduler, _from_own(scheduler, order.sigmas), order)


def _order(scheduler: Any, names: list[str], levels: np.ndarray, force: bool) -> Order:
    for name in names:
        if name in REFUSED:
            raise InputError(
                f"{name} {REFUSED[name]}, so it would silently distort the plan: use "
                "DPMSolverMultistepScheduler, EulerDiscreteScheduler or DDPMScheduler with "
                "from_config(pipe.scheduler.config)"
            )
        if name in EDM:
            return _edm_order(scheduler, levels, force)
        if name in FLOW or (name in ("UniPCMultistepScheduler", *WHOLE) and is_flow(scheduler)):
            return _flow_order(scheduler, levels, force)
        if name in WHOLE:
            order = _whole_order(scheduler, levels)
            if name.startswith("DDPM") and not force:
                _check_variance(scheduler, order)
            return order
        if name == "EulerDiscreteScheduler":
            _forbid(scheduler, timestep_type="continuous")
            order = _table_order(scheduler, levels)
            return _listed(order, np.append(order.sigmas, 0.0))
        if name == "HeunDiscreteScheduler":
            return _heun_order(scheduler, levels)
        if name == "CMStochasticIterativeScheduler":
            return _consistency_order(scheduler, levels)
        if name == "UniPCMultistepScheduler" or (name in BY_FORCE and force):
            return _table_order(scheduler, levels)
        if name in BY_FORCE:
            raise InputError(f"{name} takes no list of levels; force=True writes its arrays")
    raise InputError(
        f"{names[0]} is not known to hold a custom list of levels: use "
        "DPMSolverMultistepScheduler, EulerDiscreteScheduler, DDPMScheduler or "
        "FlowMatchEulerDiscreteScheduler"
    )


# --- what each family is asked for ---------------------------------------------------------------


def _table(scheduler: Any, levels: np.ndarray) -> np.ndarray:
    """Noise levels (T,) of the training timesteps, increasing; infinite without any signal.

    InputError when the plan goes beyond them.
    """
    signal = scheduler.alphas_cumprod.detach().cpu().double().numpy()
    with np.errstate(divide="ignore"):
        table = np.sqrt((1 - signal) / signal)
    _inside(levels, table[0], table[np.isfinite(table)].max(), scheduler)
    return table


def _inside(levels: np.ndarray, low: float, high: float, scheduler: Any) -> None:
    if levels[0] > high * (1 + TOLERANCE) or levels[-1] < low * (1 - TOLERANCE):
        raise InputError(
            f"the plan runs from sigma {levels[0]:.4g} to {levels[-1]:.4g}, but "
            f"{type(scheduler).__name__} knows {high:.4g} to {low:.4g} only: plan with "
            f"ends=({high**-2:.4g}, {low**-2:.4g}) or narrower"
        )


def _whole_order(scheduler: Any, levels: np.ndarray) -> Order:
    _forbid(scheduler, final_sigmas_type="sigma_min")
    table = _table(scheduler, levels)
    index = nearest_distinct(np.log(levels), np.log(table))
    chosen, told = table[index], index.astype(float)
    return Order({"timesteps": index.tolist()}, chosen, told, _moved(chosen, levels))


def _check_variance(scheduler: Any, order: Order) -> None:
    kind, last = scheduler.config.variance_type, int(order.timesteps[-1])
    if last > 0 and not kind.startswith("fixed_small"):
        raise InputError(
            f"DDPMScheduler with variance_type={kind!r} adds noise after the last denoise unless "
            f"the plan ends at timestep 0 (it ends at {last}): use variance_type='fixed_small'"
        )


def _consistency_order(scheduler: Any, levels: np.ndarray) -> Order:
    """Whole places on the Karras ramp; the scheduler reads its list from the end."""
    config, count = scheduler.config, scheduler.config.num_train_timesteps
    high, low = (v ** (1 / config.rho) for v in (config.sigma_max, config.sigma_min))
    ramp = np.linspace(high, low, count) ** config.rho
    _inside(levels, config.sigma_min, config.sigma_max, scheduler)
    place = nearest_distinct(-np.log(levels[::-1]), -np.log(ramp))[::-1]
    chosen = ramp[place]
    told = 1000 * 0.25 * np.log(chosen)
    return Order(
        {"timesteps": place[::-1].tolist()}, chosen, told, _moved(chosen, levels), config.sigma_min
    )


def _table_order(scheduler: Any, levels: np.ndarray) -> Order:
    """The levels themselves, and fractional timesteps at which log s is linear."""
    table = _table(scheduler, levels)
    return Order({}, levels, np.interp(np.log(levels), np.log(table), np.arange(len(table))))


def _heun_order(scheduler: Any, levels: np.ndarray) -> Order:
    """Heun's scheduler takes timesteps and reads s linearly between them."""
    table = _table(scheduler, levels)
    told = np.interp(levels, table, np.arange(len(table)))
    return Order({"timesteps": told.tolist()}, levels, told, twice=True)


def _edm_order(scheduler: Any, levels: np.ndarray, force: bool) -> Order:
    start = float(scheduler.config.sigma_max)
    if abs(levels[0] / start - 1) > 0.01 and not force:
        raise InputError(
            f"the plan starts at sigma {levels[0]:.4g}, but the pipeline starts its noise at the "
            f"scheduler's sigma_max = {start:.4g}: set sigma_max={levels[0]:.4g} in its config"
        )
    return Order({}, levels, 0.25 * np.log(levels))


def _flow_order(scheduler: Any, levels: np.ndarray, force: bool) -> Order:
    config = scheduler.config
    sigmas = levels / (1 + levels)
    order = Order({}, sigmas, sigmas * config.num_train_timesteps)
    if force:
        return order
    _forbid(
        scheduler, use_dynamic_shifting=True, invert_sigmas=True, use_karras_sigmas=True,
        use_exponential_sigmas=True, use_beta_sigmas=True, final_sigmas_type="sigma_min",
    )  # fmt: skip
    if getattr(config, "shift_terminal", None):
        raise InputError("shift_terminal would stretch the plan: force=True writes the arrays")
    if "sigmas" not in inspect.signature(scheduler.set_timesteps).parameters:
        return order  # DPM with use_flow_sigmas takes no list then
    shift = float(getattr(scheduler, "shift", getattr(config, "flow_shift", 1.0)))
    return _listed(order, sigmas / (shift - (shift - 1) * sigmas))


def _listed(order: Order, sigmas: np.ndarray) -> Order:
    return Order({"sigmas": sigmas}, order.sigmas, order.timesteps)


def _forbid(scheduler: Any, **settings: Any) -> None:
    for name, value in settings.items():
        if getattr(scheduler.config, name, None) == value:
            raise InputError(
                f"{type(scheduler).__name__} with {name}={value!r} would distort the plan: "
                f"make it anew by from_config(scheduler.config, {name}=...) with another setting"
            )


def nearest_distinct(goal: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Decreasing distinct indices (n,) into increasing `table` nearest to decreasing `goal`.

    Least squares, exactly, by dynamic programming. InputError when the table is too short.
    """
    count = len(goal)
    if count > np.isfinite(table).sum():
        raise InputError(
            f"the plan has {count} levels, more than the scheduler's {len(table)} timesteps"
        )
    miss = np.where(np.isfinite(table), (goal[:, None] - table) ** 2, np.inf)
    best, back = miss[0], []
    for row in miss[1:]:
        # for every index, the best of all larger ones so far, and where it is
        least = np.minimum.accumulate(best[::-1])[::-1]
        place = np.where(best <= least, np.arange(len(table)), len(table))
        place = np.minimum.accumulate(place[::-1])[::-1]
        back.append(np.append(place[1:], 0))
        best = row + np.append(least[1:], np.inf)
    chosen = [int(best.argmin())]
    for place in reversed(back):
        chosen.append(int(place[chosen[-1]]))
    return np.array(chosen[::-1])


def _moved(chosen: np.ndarray, levels: np.ndarray) -> float:
    return float(np.abs(2 * np.log(chosen / levels)).max())


# --- setting and verifying -----------------------------------------------------------------------


def _set(scheduler: Any, order: Order, device: Any) -> None:
    if order.arguments:
        try:
            scheduler.set_timesteps(device=device, **order.arguments)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{type(scheduler).__name__} refuses the plan: {error}") from error
        return
    settings = {"mu": 0.0} if getattr(scheduler.config, "use_dynamic_shifting", False) else {}
    scheduler.set_timesteps(len(order.sigmas), device=device, **settings)  # resets its memory
    scheduler.sigmas = torch.tensor([*order.sigmas, order.last], dtype=torch.float32)
    scheduler.timesteps = torch.tensor(order.timesteps, dtype=torch.float32, device=device)


def _verify(scheduler: Any, order: Order) -> None:
    """Compare what the scheduler holds with what was asked; InputError names the distortion."""
    name = type(scheduler).__name__
    told = _once(scheduler.timesteps, order.twice)
    if told.shape != order.timesteps.shape:
        raise InputError(
            f"{name} holds {len(told)} timesteps where the plan has {len(order.timesteps)} levels"
        )
    # UniPC cuts the fraction off every time it tells, in its own calls too
    cut = not torch.is_floating_point(scheduler.timesteps) and bool((order.timesteps % 1).any())
    if not np.allclose(told, order.timesteps, rtol=0, atol=1.0 if cut else 5 * TOLERANCE):
        worst = int(np.abs(told - order.timesteps).argmax())
        raise InputError(
            f"{name} distorts the plan: at level {worst} it tells the model time "
            f"{told[worst]:.6g} where {order.timesteps[worst]:.6g} was asked"
        )
    if hasattr(scheduler, "previous_timestep") or not hasattr(scheduler, "sigmas"):
        return  # its levels are read off the timesteps
    held = _once(scheduler.sigmas, order.twice)
    off = np.abs(held[:-1] / order.sigmas - 1) if len(held) == len(told) + 1 else np.ones(1)
    if off.max() > TOLERANCE or abs(held[-1] - order.last) > TOLERANCE * order.sigmas[-1]:
        worst = int(off.argmax())
        raise InputError(
            f"{name} distorts the plan: at level {worst} it holds sigma {held[worst]:.6g} where "
            f"{order.sigmas[worst]:.6g} was asked, and it ends at {held[-1]:.3g}"
        )


def _once(values: Any, twice: bool) -> np.ndarray:
    """A held list as an array; of values held twice, one each."""
    held = torch.as_tensor(values).detach().cpu().double().numpy()
    return np.concatenate([held[:1], held[1::2]]) if twice else held


def _from_own(scheduler: Any, sigmas: np.ndarray) -> np.ndarray:
    return sigmas / (1 - sigmas) if is_flow(scheduler) else sigmas
