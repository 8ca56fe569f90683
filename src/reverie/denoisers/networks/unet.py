"""`diffusers.UNet2DModel` as the body of a Network (the extra `diffusers`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reverie.denoisers.networks.conditions import Encoder, Labels, Values
from reverie.errors import InputError

# the network embeds times of about 0 to 1000; c_noise = log(sigma)/4 lies within +-2
TIME_SCALE, TIME_SHIFT = 250.0, 2.0


class UNet(nn.Module):
    """UNet2DModel on images (C, H, W); sides are padded to what its halvings need.

    condition: what it is told; labels are embedded beside the level, values are further channels
    (images of the same height and width, or vectors held constant over the image).
    """

    def __init__(
        self, shape: tuple[int, ...], width: int = 64, condition: Encoder | None = None
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise InputError(f"the U-Net takes images (C, H, W), not points of shape {shape}")
        try:
            from diffusers import UNet2DModel  # type: ignore[attr-defined]
        except ImportError as error:
            raise InputError(
                "the U-Net needs the extra: pip install 'reverie[diffusers]'"
            ) from error
        self.shape = tuple(shape)
        channels, height, width_px = shape
        depth = 2 if min(height, width_px) < 16 else 3
        unit = 2 ** (depth - 1)
        self.size = (math.ceil(height / unit) * unit, math.ceil(width_px / unit) * unit)
        plain, attended = ("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D")
        kinds = [plain] * (depth - 1) + [attended]
        self.condition = condition
        told = 2 * condition.shape[0] if isinstance(condition, Values) else 0
        if isinstance(condition, Values) and condition.shape[1:] not in ((), (height, width_px)):
            raise InputError(
                f"the U-Net is told vectors, or images of {height} x {width_px}, not values of "
                f"shape {condition.shape}"
            )
        classes = condition.classes + 1 if isinstance(condition, Labels) else None
        self.model = UNet2DModel(
            sample_size=self.size,
            in_channels=channels + told,
            num_class_embeds=classes,
            out_channels=channels,
            block_out_channels=tuple(width * min(k + 1, 2) for k in range(depth)),
            down_block_types=tuple(down for down, _ in kinds),
            up_block_types=tuple(up for _, up in reversed(kinds)),
            layers_per_block=2,
            norm_num_groups=math.gcd(32, width),
        )
        nn.init.zeros_(self.model.conv_out.weight)

    def forward(self, x: Tensor, level: Tensor, condition: Tensor | None = None) -> Tensor:
        height, width = x.shape[2:]
        labels = None
        if isinstance(self.condition, Labels):
            labels = self.condition(condition, x)
        elif isinstance(self.condition, Values):
            told = [
                v.reshape(*v.shape[:2], *(v.shape[2:] or (1, 1)))
                for v in self.condition(condition, x)
            ]
            x = torch.cat([x, *(v.expand(-1, -1, height, width) for v in told)], 1)
        elif condition is not None:
            raise InputError("this network takes no condition")
        padded = nn.functional.pad(x, (0, self.size[1] - width, 0, self.size[0] - height))
        out = self.model(padded, TIME_SCALE * (level + TIME_SHIFT), class_labels=labels).sample
        return out[:, :, :height, :width]
