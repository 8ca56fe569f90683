"""A learned posterior on disk: safetensors and JSON in a folder that appears at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from reverie.curve import LossCurve
from reverie.denoisers import Denoiser
from reverie.errors import InputError
from reverie.files import new_folder, read_json, write_bytes, write_json
from reverie.processes import EDM
from reverie.simulation.coordinates import (
    Boxed,
    Coordinates,
    Standardised,
    Whitened,
    coordinates,
)
from reverie.simulation.fitting import Check
from reverie.simulation.network import LinearGuess, PairBody, PairNetwork

FORMAT = 1
WEIGHTS, CONFIG = "posterior.safetensors", "posterior.json"


def write_posterior(
    folder: Path,
    denoiser: Denoiser,
    space: Coordinates,
    checks: list[Check],
    curves: dict[str, LossCurve],
) -> None:
    """Write what rebuilds a posterior; InputError on a denoiser of one's own, or a full folder."""
    if not isinstance(denoiser, PairNetwork):
        raise InputError(f"only a fitted posterior is saved, not one of {type(denoiser).__name__}")
    process, body = denoiser.process, denoiser.body
    kind = type(space).__name__
    own = {f"coordinates.{k}": v for k, v in vars(space).items() if isinstance(v, Tensor)}
    tensors = {f"network.{k}": v for k, v in denoiser.state_dict().items()} | own
    known = dict(
        format=FORMAT,
        coordinates=kind,
        prior=getattr(space, "prior", None) is not None,
        noise=[float(process.sigma(torch.tensor(t))) for t in process.t_range],  # type: ignore
        width=body.enter.out_features,
        depth=len(body.blocks),
        checks=[asdict(check) | {"loss": repr(check.loss)} for check in checks],
        curves={name: curve.to_json() for name, curve in curves.items()},
    )
    flat = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with new_folder(folder) as place:
        write_bytes(place / WEIGHTS, lambda file: file.write(save(flat)))
        write_json(place / CONFIG, known)


def read_posterior(
    folder: Path, prior: Any
) -> tuple[PairNetwork, Coordinates, list[Check], dict[str, LossCurve]]:
    """What `write_posterior` wrote. Raises InputError on a damaged folder or a missing prior."""
    known = read_json(folder / CONFIG)
    try:
        tensors = load((folder / WEIGHTS).read_bytes())
        network = _network(known, tensors)
        space = _coordinates(known, tensors, prior)
        checks = [Check(**c | {"loss": float(c["loss"])}) for c in known["checks"]]
        curves = {k: LossCurve.from_json(c, network.process) for k, c in known["curves"].items()}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is damaged ({error}): save the posterior again") from error
    return network, space, checks, curves


def _network(known: dict[str, Any], tensors: dict[str, Tensor]) -> PairNetwork:
    state = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    dim, observed = state["linear.slope"].shape
    bounds = state.get("bounds")
    inputs = observed + dim * (1 if bounds is None else 2)
    network = PairNetwork(
        EDM(*known["noise"]),
        LinearGuess.blank(dim, observed),
        PairBody(inputs, dim, known["width"], known["depth"]),
        state["x_mean"],
        state["x_std"],
        bounds,
    )
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _coordinates(known: dict[str, Any], tensors: dict[str, Tensor], prior: Any) -> Coordinates:
    kind = known["coordinates"]
    own = {k.removeprefix("coordinates."): v for k, v in tensors.items() if "coordinates." in k}
    if kind == "Boxed":
        return Boxed(own["low"], own["high"])
    if kind == "Whitened":
        return Whitened.of(own["mean"], own["root"])
    if known["prior"] and prior is None:
        raise InputError("this posterior has a prior of its own kind: load it with prior=")
    if kind == "Normalised":
        width = tensors["network.linear.slope"].shape[0]
        return coordinates(torch.as_tensor(prior.sample((2,))).reshape(2, width), prior)
    if kind != "Standardised":
        raise InputError(f"no coordinates are called {kind!r}")
    return Standardised.of(own["mean"], own["std"], prior)
