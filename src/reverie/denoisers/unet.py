"""`diffusers.UNet2DModel` as the body of a Network (the extra `diffusers`)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from reverie.errors import InputError

# the network embeds times of about 0 to 1000; c_noise = log(sigma)/4 lies within +-2
TIME_SCALE, TIME_SHIFT = 250.0, 2.0


class UNet(nn.Module):
    """UNet2DModel on images (C, H, W); sides are padded to what its halvings need."""

    def __init__(self, shape: tuple[int, ...], width: int = 64) -> None:
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
        self.model = UNet2DModel(
            sample_size=self.size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(width * min(k + 1, 2) for k in range(depth)),
            down_block_types=tuple(down for down, _ in kinds),
            up_block_types=tuple(up for _, up in reversed(kinds)),
            layers_per_block=2,
            norm_num_groups=math.gcd(32, width),
        )
        nn.init.zeros_(self.model.conv_out.weight)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        height, width = x.shape[2:]
        padded = nn.functional.pad(x, (0, self.size[1] - width, 0, self.size[0] - height))
        out = self.model(padded, TIME_SCALE * (level + TIME_SHIFT)).sample
        return out[:, :, :height, :width]
