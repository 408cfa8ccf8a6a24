"""Maps of several resolutions from the one map of a plain encoder."""

from functools import partial

from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

Norm = partial(LayerNorm2d, eps=1e-6)  # over channels, at each place


class SimplePyramid(nn.Module):
    """ViTDet's simple feature pyramid (arXiv 2203.16527): 4, 2, 1 and ½ times the resolution of the encoder's last map.

    Enlarged by transposed convolutions, made smaller by the maximum of two by two; each map then goes through a 1x1 and
    a 3x3 convolution, each with a norm. A last map takes every second place of the coarsest one.

    Args:
        width: D, channels of the encoder's map.
        channels: of each map of the pyramid.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        fourfold = [
            nn.ConvTranspose2d(width, half, 2, stride=2), Norm(half), nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        ]  # fmt: skip
        branches: list[tuple[list[nn.Module], int]] = [
            (fourfold, quarter),
            ([nn.ConvTranspose2d(width, half, 2, stride=2)], half),
            ([], width),
            ([nn.MaxPool2d(2)], width),
        ]
        self.maps = nn.ModuleList(
            nn.Sequential(
                *scale,
                nn.Conv2d(given, channels, 1, bias=False), Norm(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False), Norm(channels),
            )
            for scale, given in branches
        )  # fmt: skip

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, D, H, W) to five maps (B, channels, ...), the finest first."""
        made = [one(x) for one in self.maps]
        return [*made, made[-1][:, :, ::2, ::2]]
