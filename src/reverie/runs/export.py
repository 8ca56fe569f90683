"""A run as a pipeline folder of diffusers, and the model card that carries its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reverie.diffusers.handover import Handover
from reverie.diffusers.loading import library
from reverie.diffusers.stock import as_stock
from reverie.errors import InputError
from reverie.files import new_folder, read_json, write_json, write_text
from reverie.plan import Plan
from reverie.runs.folder import Fitted
from reverie.runs.readings import sampling_plan

HEADER = """---
license: {license}
library_name: diffusers
pipeline_tag: unconditional-image-generation
tags:
- diffusers
- unconditional-image-generation
- reverie
---
"""
USE = """
```python
import torch
from diffusers import DDPMPipeline

pipe = DDPMPipeline.from_pretrained({folder!r})
pipe.scheduler.set_timesteps(timesteps={timesteps})
x = torch.randn(16, {shape})
with torch.no_grad():
    for t in pipe.scheduler.timesteps:
        x = pipe.scheduler.step(pipe.unet(x, t).sample, t, x).prev_sample
images = x * {std!r} + {mean!r}  # in the data's own units
```

The model works on (pixel - {mean:.6g}) / {std:.6g}. Calling the pipeline itself, as
`pipe(num_inference_steps=50)`, shows standardised values from -1 to 1 as black to white and clips
the rest. `reverie.from_diffusers({folder!r})` reads the folder back.
"""


SCALER = "scaler.json"  # beside the pipeline: from the data's units to the model's


def export(run: Fitted, folder: Path, license: str = "unknown") -> Path:
    """Write `run` as a pipeline into the new `folder`, in one rename; see `Run.to_diffusers`."""
    if not license.strip() or "\n" in license:
        raise InputError(f"license is {license!r}; it must be one line, as mit or cc-by-4.0")
    unet, scheduler = as_stock(run.gaussian_network("export"))
    plan = sampling_plan(run, calibrate=False)  # the pipeline holds the model itself
    assert isinstance(plan, Plan)  # Gaussian noise is planned on its curve
    handed = plan.to_diffusers(scheduler)
    card = model_card(run, plan, handed, folder.name, license.strip())
    with new_folder(folder) as place:
        pipeline = library().DDPMPipeline(unet, scheduler)
        pipeline.save_pretrained(place, safe_serialization=True)
        write_text(place / "README.md", card)
        write_json(place / SCALER, run.scaler.to_json())  # so that rows can be measured on it
    return folder


def model_card(run: Fitted, plan: Plan, handed: Handover, name: str, license: str) -> str:
    """The card: header, verdict, use, plan and training data, as Markdown."""
    shape = ", ".join(map(str, run.scaler.point_shape))
    use = USE.format(
        folder=name, timesteps=handed.timesteps, shape=shape, std=run.scaler.std[0],
        mean=run.scaler.mean[0],
    )  # fmt: skip
    sections = {
        "Does it copy its training data?": _verdict(run),
        "How to use it": use.strip(),
        "Steps": _plan(plan, handed),
        "Training": _training(run),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in sections.items())
    return f"{HEADER.format(license=license)}\n# {name}\n\n{_about(run)}\n\n{text}\n"


def _about(run: Fitted) -> str:
    shape = " x ".join(map(str, run.scaler.point_shape))
    return (
        f"A diffusion model of {shape} images (U-Net, v-prediction), fitted on {_source(run)} "
        "with reverie."
    )


def _verdict(run: Fitted) -> str:
    """The audit in words, or that there is none of these weights."""
    verdict = _audit(run)
    if verdict is None:
        return "These weights have not been audited."
    leak = verdict.get("leak")
    lines = [
        f"- finding: **{verdict['finding']}**",
        f"- p-value: {verdict['p_joint']:.3g} (least of all tests, corrected jointly)",
    ]
    if leak is not None:
        lines.append(
            f"- leak: {leak['nats']:.3g} nats (95%: {leak['low']:.3g} to {leak['high']:.3g}) up "
            f"to a signal-to-noise ratio of {leak['level']:.3g}"
        )
    said = "\n\n".join(verdict["sentences"])
    blind = "\n".join(f"- {line}" for line in verdict["cannot_see"])
    return "\n".join(lines) + f"\n\n{said}\n\nWhat this cannot see:\n\n{blind}"


def _audit(run: Fitted) -> dict[str, Any] | None:
    """The verdict in the run's audit.json, unless it is older than the weights."""
    if run.path is None or not (run.path / "audit.json").exists():
        return None
    path = run.path / "audit.json"
    if path.stat().st_mtime < (run.path / "ema.safetensors").stat().st_mtime:
        return None
    try:
        return read_json(path)["models"][0]["verdict"]
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"{path} is damaged: make it again with reverie audit") from error


def _plan(plan: Plan, handed: Handover) -> str:
    levels = zip(handed.spreads, handed.timesteps or [], strict=True)
    rows = [f"| {k} | {sigma:.4g} | {timestep} |" for k, (sigma, timestep) in enumerate(levels)]
    head = (
        f"The {plan.name} plan of {plan.steps} steps ({plan.steps + 1} evaluations) for the "
        f"ancestral sampler, read off the model's loss curve; it costs {plan.excess:.3g} nats "
        "more than infinitely many steps. Sigma is that of x + sigma e in standardised units; "
        f"whole timesteps moved log-SNR by at most {handed.rounding:.2g}."
    )
    return "\n".join([head, "", "| level | sigma | timestep |", "|---|---|---|", *rows])


def _training(run: Fitted) -> str:
    config, low, high = run.config, min(run.scaler.low), max(run.scaler.high)
    return "\n".join([
        f"- data: {_source(run)}, {len(run.train):,} training and {len(run.holdout):,} held-out "
        f"rows, values from {low:g} to {high:g}",
        f"- standardised by mean {run.scaler.mean[0]:.6g} and deviation {run.scaler.std[0]:.6g}",
        f"- noise: {config.process}",
        f"- {run.step:,} steps of {config.batch_size} rows, averaged weights, seed {config.seed}",
    ])  # fmt: skip


def _source(run: Fitted) -> str:
    """The data's name without the folders it lay in."""
    return Path(run.train.source).name or "an array"
