"""A picture and its boxes, made a square of fixed size; and boxes as one row of numbers, as batches hold them."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from unmask.modality.base import Transform
from unmask.schema import Boxes, Sample

Target = dict[str, Tensor]  # boxes (n, 4), labels (n,) from 1, masks (n, side, side): torchvision's


class BoxTransform(Transform):
    """Resize until the longer side fits times a random zoom, cut out a square at random, fill up at right and bottom.

    That is large-scale jitter (arXiv 2012.07177) and a flip; without jitter and flip a letterbox.

    Args:
        side: of the square, in pixels.
        fill: uint8 (C, 1, 1), the colour of what is not picture.
        jitter: smallest and largest zoom.
        flip: mirror half of the pictures.
    """

    def __init__(self, side: int, fill: Tensor, jitter: tuple[float, float] = (1.0, 1.0), flip: bool = False) -> None:
        self.side, self.fill, self.jitter, self.flip = side, fill, jitter, flip

    def read(self, sample: Sample) -> Sample:
        """All that is done: the label has to follow. (Where a sample is seen several times in a row, alike.)"""
        pixels, low, high = sample.value, *self.jitter
        zoom = fit_zoom(self.side, *pixels.shape[1:]) * (low + (high - low) * float(torch.rand(())))
        mirrored = self.flip and bool(torch.rand(()) < 0.5)
        height, width = (max(1, round(length * zoom)) for length in pixels.shape[1:])
        top, left = (int(torch.randint(max(length - self.side, 0) + 1, ())) for length in (height, width))
        pixels = v2.functional.resize(pixels, [height, width], InterpolationMode.BICUBIC)
        square = self.fill.expand(-1, self.side, self.side).clone()
        seen = pixels[:, top : top + self.side, left : left + self.side]
        seen = seen.flip(-1) if mirrored else seen
        square[:, : seen.shape[1], : seen.shape[2]] = seen
        label = sample.label
        if isinstance(label, Boxes):
            label = self._moved(label, (height, width), (top, left), (seen.shape[1], seen.shape[2]), mirrored)
        return Sample(square, label)

    def __call__(self, sample: Sample) -> Tensor:
        """uint8 (C, side, side)."""
        square: Tensor = sample.value
        return square

    def _moved(
        self, boxes: Boxes, size: tuple[int, int], start: tuple[int, int], seen: tuple[int, int], mirrored: bool
    ) -> Boxes:
        """The boxes where the pixels went, cut off at the edges; without crowds and what is not a pixel large."""
        (height, width), (top, left) = size, start
        scale = torch.tensor([width / boxes.width, height / boxes.height] * 2)
        corners = boxes.corners * scale - torch.tensor([left, top] * 2)
        if mirrored:
            corners = torch.stack([seen[1] - corners[:, 2], corners[:, 1], seen[1] - corners[:, 0], corners[:, 3]], 1)
        corners = torch.minimum(corners.clamp(min=0), torch.tensor([seen[1], seen[0]] * 2))
        kept = (corners[:, 2:] - corners[:, :2] >= 1).all(1)
        if boxes.crowds is not None:
            kept &= ~boxes.crowds
        masks = None
        if boxes.masks is not None:
            small = F.interpolate(boxes.masks[kept][:, None].float(), size, mode="nearest-exact")[:, 0] > 0.5
            small = small[:, top : top + self.side, left : left + self.side]
            small = small.flip(-1) if mirrored else small
            masks = F.pad(small, (0, self.side - seen[1], 0, self.side - seen[0]))
        classes = tuple(c for c, keep in zip(boxes.classes, kept.tolist(), strict=True) if keep)
        return Boxes(self.side, self.side, classes, corners[kept], masks)


def fit_zoom(side: int, height: int, width: int) -> float:
    """What makes a picture's longer side as long as the square's."""
    return side / max(height, width)


def pack(boxes: Boxes) -> Tensor:
    """One row of float32 numbers: how many, then class and corners of each, then the runs of each mask.

    Runs, of False and True in turn, are as short as a mask is simple: 20 masks of 1024² pixels take no megabytes.
    """
    rows = torch.cat([torch.tensor(boxes.classes, dtype=torch.float32)[:, None], boxes.corners.view(-1, 4)], dim=1)
    parts = [torch.tensor([float(len(rows))]), rows.flatten()]
    for mask in boxes.masks if boxes.masks is not None else ():
        padded = F.pad(mask.flatten().int(), (1, 0))  # the first run is of False, and may be of none
        ends = padded.diff().nonzero()[:, 0]
        runs = torch.cat([ends, torch.tensor([mask.numel()])]).diff(prepend=torch.tensor([0]))
        parts += [torch.tensor([float(len(runs))]), runs.float()]
    return torch.cat(parts)


def unpack(row: Tensor, side: int, masks: bool) -> Target:
    """The inverse, as torchvision's heads want it: classes from 1 on, masks uint8. Zeros after the row do no harm."""
    count = int(row[0])
    boxes = row[1 : 1 + 5 * count].view(count, 5)
    target = {"labels": boxes[:, 0].long() + 1, "boxes": boxes[:, 1:]}
    if not masks:
        return target
    drawn = torch.zeros(count, side * side, dtype=torch.uint8, device=row.device)
    start = 1 + 5 * count
    for mask in drawn:
        length = int(row[start])
        runs = row[start + 1 : start + 1 + length].long()
        mask[:] = torch.repeat_interleave(torch.arange(length, device=row.device) % 2, runs).to(torch.uint8)
        start += 1 + length
    return target | {"masks": drawn.view(count, side, side)}
