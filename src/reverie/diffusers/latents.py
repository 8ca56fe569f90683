"""The autoencoder of a latent pipeline: the model's data are latents, people's are images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reverie.errors import InputError

PARTS = ("vae", "vqvae")


class Autoencoder(nn.Module):
    """Images (B, C, H, W) to the latents that a model was trained on, and back.

    Latents are (z - shift_factor) scaling_factor, as the pipelines of diffusers scale them.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae
        config: Any = getattr(vae, "config", None)
        self.scale = float(getattr(config, "scaling_factor", None) or 1.0)
        self.shift = float(getattr(config, "shift_factor", None) or 0.0)

    @torch.no_grad()
    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents (B, c, h, w): a draw of the encoder's law with a generator, its mode without."""
        out = self._tell("encode", images)
        law = getattr(out, "latent_dist", None)
        if law is None:
            z = out.latents if hasattr(out, "latents") else out[0]
        else:
            z = law.mode() if generator is None else law.sample(generator)
        return ((z - self.shift) * self.scale).to(images.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        out = self._tell("decode", latents / self.scale + self.shift)
        return (out.sample if hasattr(out, "sample") else out[0]).to(latents.dtype)

    def _tell(self, what: str, value: Tensor) -> Any:
        method = getattr(self.vae, what, None)
        weight = next(iter(self.vae.parameters()), value)
        if method is None:
            raise InputError(f"{type(self.vae).__name__} has no method {what}: it is no VAE")
        return method(value.to(weight))
