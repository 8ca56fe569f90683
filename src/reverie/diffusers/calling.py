"""Calling a model of diffusers: (state, timestep, condition) -> its prediction, guided if asked.

Pipelines guide what the model predicts and clip the clean guess that follows; so does this, in
that order, so that the guess is the one that is sampled with.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from reverie.denoisers.calling import null_rows
from reverie.denoisers.networks.conditions import NO_LABEL
from reverie.errors import InputError


class StockCall(nn.Module):
    """The model as (state, timestep, condition) -> prediction of the state's shape.

    bound: the condition of calls that bring none. null: of classifier-free guidance by
    `guidance_scale`, free + scale (conditional - free); also the label in the place of -1.
    """

    casts_itself = True

    def __init__(
        self, model: nn.Module, bound: Any = None, guidance_scale: float = 1.0, null: Any = None
    ) -> None:
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
        self.guidance_scale, self.null = float(guidance_scale), null
        if null is None and self.guidance_scale != 1.0 and self.keyword == "class_labels":
            # the label after the last class of a DiT
            self.null = getattr(getattr(model, "config", None), "num_embeds_ada_norm", None)
        if self.guidance_scale != 1.0 and self.keyword is None:
            raise InputError(f"{type(model).__name__} takes no condition to guide it towards")
        if self.guidance_scale != 1.0 and self.null is None:
            what = "the encoder states of the empty prompt, (1, L, D)"
            what = what if self.keyword == "encoder_hidden_states" else "the label for no class"
            raise InputError(f"guidance needs the condition for none: pass null= {what}")

    @property
    def takes_whole_levels(self) -> bool:
        config = getattr(self.model, "config", None)
        return getattr(config, "time_embedding_type", None) == "learned"

    def forward(self, state: Tensor, timestep: Tensor, condition: Any = None) -> Tensor:
        condition = self.bound if condition is None else condition
        if self.guidance_scale == 1.0 or condition is None:
            return self._ask(state, timestep, self.null if condition is None else condition)
        free = self._ask(state, timestep, self.null)
        return free + self.guidance_scale * (self._ask(state, timestep, condition) - free)

    def _ask(self, state: Tensor, timestep: Tensor, condition: Any) -> Tensor:
        weight = next((p for p in self.model.parameters() if p.is_floating_point()), state)
        self._check_channels(state)
        kind, keyword = type(self.model).__name__, self.keyword
        if condition is not None and keyword is None:
            raise InputError(f"{kind} takes no condition")
        if condition is None and keyword is not None:
            raise InputError(f"{kind} needs a condition ({keyword}): pass condition=")
        extra = {} if keyword is None else {keyword: self._rows(condition, state, weight)}
        seen = state.to(weight.dtype)
        out = self.model(seen, timestep=timestep, return_dict=False, **extra)[0]
        return out[:, : state.shape[1]].to(state.dtype)  # the rest is a learned variance

    def _rows(self, condition: Any, state: Tensor, weight: Tensor) -> Tensor:
        """One condition for each state, in the model's type."""
        value = torch.as_tensor(condition, device=state.device)
        if self.keyword == "encoder_hidden_states":
            value = value.to(weight.dtype)
        value = value.reshape(1) if value.ndim == 0 else value
        value = value.expand(len(state), *value.shape[1:])
        if self.keyword == "class_labels" and isinstance(self.null, int):
            return torch.where(value == NO_LABEL, null_rows(self.null, state), value)
        return value

    def _check_channels(self, state: Tensor) -> None:
        seen = getattr(getattr(self.model, "config", None), "in_channels", None)
        if isinstance(seen, int) and state.ndim == 4 and state.shape[1] != seen:
            raise InputError(
                f"{type(self.model).__name__} sees {seen} channels, but the data have "
                f"{state.shape[1]}: a latent model is given latents, denoiser.encode(images)"
            )


class Preconditioned(nn.Module):
    """EDM preconditioning (Karras et al. 2022, table 1); diffusers' v_prediction flips c_out."""

    casts_itself = True

    def __init__(self, call: StockCall, data_std: float, sign: float) -> None:
        super().__init__()
        self.call, self.data_std, self.sign = call, data_std, sign

    def forward(self, state: Tensor, sigma: Tensor, condition: Any = None) -> Tensor:
        skip, out, total = self.scales(sigma, state)
        raw = self.call(state / total, 0.25 * sigma.log(), condition)
        return skip * state + out * raw

    def scales(self, sigma: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c_skip, c_out with its sign, 1 / c_in) at sigma (B,), to broadcast against states."""
        level = sigma.to(like).reshape(-1, *(1,) * (like.ndim - 1))
        total = (level.square() + self.data_std**2).sqrt()
        out = self.sign * level * self.data_std / total
        return (self.data_std / total).square(), out, total


def _condition_keyword(model: nn.Module, names: set[str]) -> str | None:
    if "encoder_hidden_states" in names:
        return "encoder_hidden_states"
    if "class_labels" in names and getattr(model, "class_embedding", model) is not None:
        return "class_labels"
    return None
