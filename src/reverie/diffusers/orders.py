"""What each scheduler of diffusers must be asked for, so that it holds given noise levels.

The facts about their APIs were read in and run against diffusers 0.42; `handover` verifies the
outcome, so a version that behaves otherwise is caught.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from reverie.diffusers.loading import is_flow
from reverie.errors import InputError
from reverie.processes import Tabulated

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


def order_for(scheduler: Any, levels: np.ndarray, force: bool) -> Order:
    """The order by which `scheduler` holds noise levels s (K + 1,), decreasing.

    Subclasses are treated as the class they come from. InputError where it would distort them.
    """
    names = [kind.__name__ for kind in type(scheduler).__mro__]
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
    signal = Tabulated(scheduler.alphas_cumprod).signal.numpy()
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
