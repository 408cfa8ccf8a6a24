"""Rows of images with captions, as one array of pixels."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from torch import Tensor

GAP, CAPTION, LEAST_SIDE = 4, 22, 96  # pixels


def contact_sheet(views: Sequence[Tensor], captions: Sequence[str]) -> np.ndarray:
    """One row a view with its caption above, one column a sample; small images are enlarged without smoothing.

    Args:
        views: uint8 tensors (B, C, H, W), C 1 or 3, all of one shape.
        captions: one line for each view.

    Returns:
        (height, width, 3) uint8.
    """
    font = ImageFont.load_default(13)
    zoom = max(1, LEAST_SIDE // min(views[0].shape[-2:]))
    strips = []
    for view in views:
        large = view.expand(-1, 3, -1, -1).cpu().repeat_interleave(zoom, -2).repeat_interleave(zoom, -1)
        padded = F.pad(large, (0, GAP, 0, GAP), value=255)
        strips.append(PILImage.fromarray(torch.cat(list(padded), dim=-1).permute(1, 2, 0).contiguous().numpy()))
    width = max(strips[0].width, *(int(font.getlength(caption)) + 2 * GAP for caption in captions))
    height = strips[0].height + CAPTION
    sheet = PILImage.new("RGB", (width, height * len(strips)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (strip, caption) in enumerate(zip(strips, captions, strict=True)):
        draw.text((GAP, row * height + GAP), caption, fill="black", font=font)
        sheet.paste(strip, (0, row * height + CAPTION))
    return np.asarray(sheet)
