"""Images side by side with a caption, as one array of pixels."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from torch import Tensor

GAP, CAPTION, LEAST_SIDE = 4, 24, 112  # pixels


def contact_sheet(columns: Sequence[Tensor], caption: str) -> np.ndarray:
    """One row a sample, one column a view; small images are enlarged without smoothing.

    Args:
        columns: uint8 tensors (B, C, H, W), C 1 or 3, all of one shape.
        caption: one line above the pictures.

    Returns:
        (height, width, 3) uint8.

    """
    views = torch.stack([view.expand(-1, 3, -1, -1).cpu() for view in columns], dim=1)
    zoom = max(1, LEAST_SIDE // min(views.shape[-2:]))
    views = views.repeat_interleave(zoom, -2).repeat_interleave(zoom, -1)
    padded = F.pad(views, (0, GAP, 0, GAP), value=255)
    rows, cells, _, height, width = padded.shape
    body = padded.permute(0, 3, 1, 4, 2).reshape(rows * height, cells * width, 3).numpy()
    font = ImageFont.load_default(12)
    sheet = PILImage.new(
        "RGB", (max(body.shape[1], int(font.getlength(caption)) + 2 * GAP), body.shape[0] + CAPTION), "white"
    )
    ImageDraw.Draw(sheet).text((GAP, GAP), caption, fill="black", font=font)
    sheet.paste(PILImage.fromarray(body), (0, CAPTION))
    return np.asarray(sheet)
