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
what the model itself sees: latents where the pipeline has an autoencoder, whose `denoiser.encode`
and `denoiser.decode` lead there and back. A learned variance head is cut.

The guess is the one that the pipeline steps with: guided by `guidance_scale`, then clipped or
thresholded as the scheduler says. So is the curve, and so are the samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.calling import ModuleCall
from reverie.denoisers.wrap import Wrapped
from reverie.diffusers.calling import Preconditioned, StockCall
from reverie.diffusers.latents import PARTS as AUTOENCODERS
from reverie.diffusers.latents import Autoencoder
from reverie.diffusers.limits import limit_of
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


SYMBOLS = {  # schedulers of symbols, by what they noise with
    "AmusedScheduler": "Masking(symbols, sites), predicts='logits', time='none', mask_id=...",
    "BlockRefinementScheduler": "Masking(symbols, sites), predicts='logits', mask_id=...",
    "DiscreteDDIMScheduler": "Uniform(symbols, sites), predicts='logits'",
    "EntropyBoundScheduler": "Uniform(symbols, sites), predicts='logits'",
}


class StockDenoiser(Wrapped):
    """A model of diffusers as its pipeline runs it; made by `from_diffusers`.

    scheduler: the one it was read with. stock: the model's call. `encode` and `decode` are those
    of the pipeline's autoencoder.
    """

    def __init__(
        self, call: ModuleCall, predicts: str, limit: Any, scheduler: Any, stock: StockCall
    ) -> None:
        super().__init__(call, predicts, limit)
        self.scheduler, self.stock = scheduler, stock
        self.autoencoder: Autoencoder | None = None
        self._folder: Path | None = None  # of an autoencoder that was not needed yet

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of images; see `Autoencoder`. InputError where the pipeline has none."""
        return self._coder().encode(images, generator)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents, such as drawn samples. InputError where the pipeline has none."""
        return self._coder().decode(latents)

    def _coder(self) -> Autoencoder:
        if self.autoencoder is None and self._folder is not None:
            self.autoencoder = Autoencoder(_model(self._folder))
        if self.autoencoder is None:
            raise InputError(
                f"no autoencoder came with {type(self.stock.model).__name__}: pass the pipeline, "
                "or vae=; a model without one works on the data themselves"
            )
        return self.autoencoder


def from_diffusers(
    model: Any,
    scheduler: Any = None,
    *,
    prediction: str | None = None,
    condition: Any = None,
    guidance_scale: float = 1.0,
    null: Any = None,
    clip: bool = True,
    vae: Any = None,
) -> StockDenoiser:
    """Make a diffusers model a Denoiser with the process it was trained on.

    model: a pipeline, a pipeline or model folder with safetensors weights, or a model such as
        UNet2DModel, UNet2DConditionModel or DiTTransformer2DModel.
    scheduler: the one it runs with, or its folder; default the pipeline's own.
    prediction: `epsilon`, `sample`, `v_prediction` or `flow`; default what the scheduler says.
    condition: bound to every call that brings none: encoder hidden states (B or 1, L, D), or class
        labels (B or 1,).
    guidance_scale, null: classifier-free guidance inside the guess, 1 = off, and the condition for
        none: hidden states of the empty prompt (1, L, D), or a label (a DiT has one).
    clip: whether the scheduler's `clip_sample` and `thresholding` are part of the guess.
    vae: the autoencoder of a latent model, default the pipeline's own.
    Nothing is downloaded or unpickled. Raises InputError on a folder without safetensors weights,
    a missing scheduler, an unknown prediction type, and models or schedulers of another kind.

    >>> import torch
    >>> from diffusers import DDPMScheduler, UNet2DModel
    >>> from reverie import from_diffusers
    >>> blocks = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    >>> blocks |= {"block_out_channels": [8], "norm_num_groups": 4, "layers_per_block": 1}
    >>> unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **blocks)
    >>> denoiser = from_diffusers(unet, DDPMScheduler())
    >>> denoiser(torch.zeros(2, 1, 8, 8), torch.tensor(0.5)).shape
    torch.Size([2, 1, 8, 8])
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
    for name in SYMBOLS:
        if _is(scheduler, name):
            raise InputError(f"{name} is of symbols: as_denoiser(module, {SYMBOLS[name]})")
    kind = _prediction(scheduler, prediction)
    stock = StockCall(module, condition, guidance_scale, null)
    if _is(scheduler, "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        call, predicts = _edm(stock, scheduler.config, kind)
    elif is_flow(scheduler):
        call, predicts = _flow(stock, scheduler.config, kind)
    else:
        call, predicts = _table(stock, scheduler, kind)
    limit = limit_of(scheduler) if clip else None
    denoiser = StockDenoiser(call, predicts, limit, scheduler, stock)
    coder = _autoencoder(model) if vae is None else vae
    denoiser._folder = coder if isinstance(coder, Path) else None
    denoiser.autoencoder = Autoencoder(coder) if isinstance(coder, nn.Module) else None
    return denoiser


# --- one process for each kind of scheduler ------------------------------------------------------


def _edm(stock: StockCall, config: Any, kind: str) -> tuple[ModuleCall, str]:
    if kind not in ("noise", "v"):
        raise InputError("EDM schedulers know the predictions epsilon and v_prediction only")
    sign = 1.0 if kind == "noise" else -1.0
    module = Preconditioned(stock, float(config.sigma_data), sign)
    process = EDM(config.sigma_min, config.sigma_max, config.rho)
    return ModuleCall(module, process, lambda t: process.clock(t).rsqrt()), "clean"


def _flow(stock: StockCall, config: Any, kind: str) -> tuple[ModuleCall, str]:
    if kind not in ("velocity", "clean", "noise"):
        raise InputError("flow-matching schedulers know the predictions flow, sample and epsilon")
    steps = int(config.num_train_timesteps)
    process = Rectified(1 / steps, 1 - 1 / steps)
    return ModuleCall(stock, process, lambda t: t * steps), kind


def _table(stock: StockCall, scheduler: Any, kind: str) -> tuple[ModuleCall, str]:
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
    whole = stock.takes_whole_levels
    return ModuleCall(stock, process, lambda t: _level(process, t, whole)), kind


def _level(process: Tabulated, t: Tensor, whole: bool) -> Tensor:
    index = process.index(t)
    nearest = index.round()
    if whole:
        return nearest.long()
    return torch.where((index - nearest).abs() < SNAP, nearest, index).to(t.dtype)


def _prediction(scheduler: Any, prediction: str | None) -> str:
    flow = any(kind.__name__.startswith("FlowMatch") for kind in type(scheduler).__mro__)
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


def _autoencoder(model: Any) -> nn.Module | Path | None:
    """The autoencoder of a pipeline, or its folder, which is not read yet."""
    if isinstance(model, str | Path):
        index = Path(model) / "model_index.json"
        named = read_json(index) if index.exists() else {}
        return next(
            (Path(model) / p for p in AUTOENCODERS if isinstance(named.get(p), list)), None
        )
    found = (getattr(model, part, None) for part in AUTOENCODERS)
    return next((part for part in found if isinstance(part, nn.Module)), None)


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
