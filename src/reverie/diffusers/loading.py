"""Models of the library `diffusers` as denoisers: `from_diffusers(pipeline_or_folder)`.

    denoiser = reverie.from_diffusers("my-pipeline")       # a folder, a pipeline, or a model
    plan = reverie.plan_steps(reverie.measure(denoiser, data), steps=20)
    with plan.to_diffusers(pipe.scheduler):                # any pipeline; see `handover`
        images = pipe(batch_size=16).images

The scheduler says what the model was trained on:

    beta tables     x_t = sqrt(a_i) x + sqrt(1 - a_i) e   told the level i    processes.Tabulated
    EDM             x + sigma e, preconditioned           told log(sigma)/4   processes.EDM
    flow matching   (1 - sigma) x + sigma e               told T sigma        processes.Rectified

Between two levels of a table log gamma is linear, and a model that embeds its time by sines is
told the fractional level; one with a learned embedding per level is told the nearest. Data are
what the model itself sees: latents where the pipeline has an autoencoder. A learned variance head
is cut.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.base import Denoiser
from reverie.denoisers.wrap import as_denoiser
from reverie.errors import InputError
from reverie.files import read_json
from reverie.processes import EDM, Rectified, Tabulated

PREDICTION_TYPES = {
    "epsilon": "noise",
    "sample": "clean",
    "v_prediction": "v",
    "flow_prediction": "velocity",
    "flow": "velocity",
}
PARTS = ("unet", "transformer")
SNAP = 1e-3  # float32 process time loses this much of a level at most


def from_diffusers(
    model: Any, scheduler: Any = None, *, prediction: str | None = None, condition: Any = None
) -> Denoiser:
    """Make a diffusers model a Denoiser with the process it was trained on.

    model: a pipeline, a pipeline or model folder with safetensors weights, or a model such as
        UNet2DModel, UNet2DConditionModel or DiTTransformer2DModel.
    scheduler: the one it was trained with, or its folder; default the pipeline's own.
    prediction: `epsilon`, `sample`, `v_prediction` or `flow`; default what the scheduler says.
    condition: bound to every call that brings none: encoder hidden states (B or 1, L, D), or class
        labels (B or 1,).
    Nothing is downloaded or unpickled. Raises InputError on a folder without safetensors weights,
    a missing scheduler, an unknown prediction type, and models or schedulers of another kind.
    """
    if isinstance(model, str | Path):
        module, own = _open(Path(model))
    else:
        module, own = _parts(model)
    if isinstance(scheduler, str | Path):
        scheduler = _scheduler(Path(scheduler))
    scheduler = own if scheduler is None else scheduler
    if not hasattr(scheduler, "config"):
        raise InputError(
            "from_diffusers needs the scheduler the model was trained with: "
            "pass a pipeline, or scheduler=DDPMScheduler(...)"
        )
    kind = _prediction(scheduler, prediction)
    call = _Call(module, condition)
    if _is(scheduler, "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        return _edm(call, scheduler.config, kind)
    if is_flow(scheduler):
        return _flow(call, scheduler.config, kind)
    return _table(call, scheduler, kind)


# --- one process for each kind of scheduler ------------------------------------------------------


def _edm(call: _Call, config: Any, kind: str) -> Denoiser:
    if kind not in ("noise", "v"):
        raise InputError("EDM schedulers know the predictions epsilon and v_prediction only")
    sign = 1.0 if kind == "noise" else -1.0
    module = _Preconditioned(call, float(config.sigma_data), sign)
    process = EDM(config.sigma_min, config.sigma_max, config.rho)
    return as_denoiser(module, process, "clean", time="sigma")


def _flow(call: _Call, config: Any, kind: str) -> Denoiser:
    if kind not in ("velocity", "clean", "noise"):
        raise InputError("flow-matching schedulers know the predictions flow, sample and epsilon")
    steps = int(config.num_train_timesteps)
    process = Rectified(1 / steps, 1 - 1 / steps)
    return as_denoiser(_Told(call, lambda t: t * steps), process, kind, time="t")


def _table(call: _Call, scheduler: Any, kind: str) -> Denoiser:
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise InputError(
            f"{type(scheduler).__name__} has no table of noise levels: use a DDPM-like, EDM or "
            "flow-matching scheduler, or as_denoiser(module, process)"
        )
    if getattr(scheduler.config, "timestep_type", "discrete") != "discrete":
        raise InputError("a scheduler with timestep_type='continuous' is not supported here")
    if kind == "velocity":
        raise InputError(
            f"prediction='flow' does not go with {type(scheduler).__name__}: "
            "pass a flow-matching scheduler"
        )
    process = Tabulated(table)
    whole = call.takes_whole_levels
    return as_denoiser(_Told(call, lambda t: _level(process, t, whole)), process, kind, time="t")


def _level(process: Tabulated, t: Tensor, whole: bool) -> Tensor:
    index = process.index(t)
    nearest = index.round()
    if whole:
        return nearest.long()
    return torch.where((index - nearest).abs() < SNAP, nearest, index).to(t.dtype)


def _prediction(scheduler: Any, prediction: str | None) -> str:
    flow = _is(scheduler, "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
    default = "flow" if flow else getattr(scheduler.config, "prediction_type", None)
    name = default if prediction is None else prediction
    if name not in PREDICTION_TYPES:
        raise InputError(
            f"the prediction type is {name!r}; pass prediction= epsilon, sample, v_prediction "
            "or flow"
        )
    return PREDICTION_TYPES[name]


def is_flow(scheduler: Any) -> bool:
    """Whether the scheduler's noise levels are those of x_t = (1 - sigma) x + sigma e."""
    named = any(kind.__name__.startswith("FlowMatch") for kind in type(scheduler).__mro__)
    return named or bool(getattr(scheduler.config, "use_flow_sigmas", False))


def _is(scheduler: Any, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(scheduler).__mro__)


# --- calling the model ---------------------------------------------------------------------------


class _Call(nn.Module):
    """The model as (state, timestep, condition) -> prediction of the state's shape."""

    def __init__(self, model: nn.Module, bound: Any) -> None:
        super().__init__()
        self.model, self.bound = model, bound
        parameters = list(inspect.signature(model.forward).parameters.values())
        known = {"timestep", "encoder_hidden_states", "class_labels"}
        missing = [p.name for p in parameters[1:] if p.default is p.empty and p.name not in known]
        names = {p.name for p in parameters}
        if "timestep" not in names or missing:
            raise InputError(
                f"{type(model).__name__} is not called as (state, timestep, condition): "
                "wrap it in a module of your own and use as_denoiser"
            )
        self.keyword = _condition_keyword(model, names)

    @property
    def takes_whole_levels(self) -> bool:
        config = getattr(self.model, "config", None)
        return getattr(config, "time_embedding_type", None) == "learned"

    def forward(self, state: Tensor, timestep: Tensor, condition: Any = None) -> Tensor:
        condition = self.bound if condition is None else condition
        extra = {}
        if condition is not None:
            if self.keyword is None:
                raise InputError(f"{type(self.model).__name__} takes no condition")
            value = torch.as_tensor(condition, device=state.device)
            if self.keyword == "encoder_hidden_states":
                value = value.to(state.dtype)
            extra[self.keyword] = value.expand(len(state), *value.shape[1:])
        elif self.keyword is not None:
            raise InputError(
                f"{type(self.model).__name__} needs a condition ({self.keyword}): pass condition="
            )
        out = self.model(state, timestep=timestep, return_dict=False, **extra)[0]
        return out[:, : state.shape[1]]  # the rest is a learned variance


def _condition_keyword(model: nn.Module, names: set[str]) -> str | None:
    if "encoder_hidden_states" in names:
        return "encoder_hidden_states"
    if "class_labels" in names and getattr(model, "class_embedding", model) is not None:
        return "class_labels"
    return None


class _Told(nn.Module):
    """A model that is told `told(t)` where the process has time t."""

    def __init__(self, call: _Call, told: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call, self.told = call, told

    def forward(self, state: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        return self.call(state, self.told(t).to(state.device), condition)


class _Preconditioned(nn.Module):
    """EDM preconditioning (Karras et al. 2022, table 1); diffusers' v_prediction flips c_out."""

    def __init__(self, call: _Call, data_std: float, sign: float) -> None:
        super().__init__()
        self.call, self.data_std, self.sign = call, data_std, sign

    def forward(self, state: Tensor, sigma: Tensor, condition: Any = None) -> Tensor:
        level = sigma.reshape(-1, *(1,) * (state.ndim - 1))
        total = (level.square() + self.data_std**2).sqrt()
        raw = self.call(state / total, 0.25 * sigma.log(), condition)
        skip, out = (self.data_std / total).square(), level * self.data_std / total
        return skip * state + self.sign * out * raw


# --- opening folders -----------------------------------------------------------------------------


def library() -> Any:
    """The module diffusers, or one sentence on how to get it."""
    try:
        import diffusers
    except ImportError as error:
        raise InputError(
            "models of diffusers need the extra: pip install 'reverie[diffusers]'"
        ) from error
    return diffusers


def _parts(model: Any) -> tuple[nn.Module, Any]:
    """The network and the scheduler (or None) of a pipeline or a bare model."""
    if isinstance(model, nn.Module):
        return model, None
    for part in PARTS:
        if isinstance(getattr(model, part, None), nn.Module):
            return getattr(model, part), getattr(model, "scheduler", None)
    raise InputError(
        f"from_diffusers takes a pipeline with a unet or a transformer, a model or a folder, "
        f"not {type(model).__name__}"
    )


def _open(folder: Path) -> tuple[nn.Module, Any]:
    """Load a pipeline folder (model_index.json) or a model folder (config.json)."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder: from_diffusers downloads nothing, so fetch the model first"
        )
    if not (folder / "model_index.json").exists():
        return _model(folder), None
    index = read_json(folder / "model_index.json")
    part = next((p for p in PARTS if isinstance(index.get(p), list)), None)
    if part is None:
        raise InputError(f"{folder / 'model_index.json'} names neither a unet nor a transformer")
    if not (folder / "scheduler").is_dir():
        return _model(folder / part), None
    return _model(folder / part), _scheduler(folder)


def _model(folder: Path) -> nn.Module:
    kind = _class(folder / "config.json", "ModelMixin")
    if not list(folder.glob("*.safetensors")):
        pickled = list(folder.glob("*.bin")) + list(folder.glob("*.pt"))
        reason = "only pickled weights, which could run code" if pickled else "no weights"
        raise InputError(f"{folder} holds {reason}: it needs a .safetensors file")
    return _loaded(kind, folder, use_safetensors=True, low_cpu_mem_usage=False).eval()


def _scheduler(folder: Path) -> Any:
    inner = folder / "scheduler"
    folder = inner if inner.is_dir() else folder
    return _loaded(_class(folder / "scheduler_config.json", "SchedulerMixin"), folder)


def _class(path: Path, base: str) -> Any:
    """The diffusers class that a configuration file names; no other code is ever run."""
    if not path.exists():
        raise InputError(f"{path.parent} is no diffusers folder: it has no {path.name}")
    values = read_json(path)
    name = values.get("_class_name") if isinstance(values, dict) else None
    kind = getattr(library(), str(name), None)
    if not isinstance(kind, type) or base not in {k.__name__ for k in kind.__mro__}:
        raise InputError(f"{path} names {name!r}, which is no such class of diffusers")
    return kind


def _loaded(kind: Any, folder: Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{folder} cannot be read as {kind.__name__}: {reason[0]}") from error
