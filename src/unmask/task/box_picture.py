"""Boxes drawn on their pictures."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import resize
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from unmask.schema import Sample
from unmask.task.box_record import LIKELY, Object, mask_of

COLOURS = (
    "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe", "#008080"
)  # fmt: skip
ACROSS, DOWN = 2, 6  # pairs of what is true and what is found
CELL, GAP = 240, 6  # pixels


def box_picture(
    records: Sequence[dict[str, Any]], sample: Callable[[int], Sample], classes: Sequence[str]
) -> np.ndarray:
    """(height, width, 3) uint8: pairs of one picture, left with what is true, right with what is likelier than not."""
    chosen = records[: ACROSS * DOWN]
    rows = [chosen[i : i + ACROSS] for i in range(0, len(chosen), ACROSS)]
    width, height = 2 * ACROSS * (CELL + GAP) + GAP, len(rows) * (CELL + GAP) + GAP
    sheet = torch.full((3, height, width), 255, dtype=torch.uint8)
    for i, row in enumerate(rows):
        for j, record in enumerate(row):
            pixels = sample(record["index"]).value
            likely = [thing for thing in record["prediction"] if thing["score"] >= LIKELY]
            for k, objects in enumerate((record["label"]["objects"], likely)):
                cell = _drawn(pixels.expand(3, -1, -1), objects, classes)
                top, left = GAP + i * (CELL + GAP), GAP + (2 * j + k) * (CELL + GAP)
                sheet[:, top : top + cell.shape[1], left : left + cell.shape[2]] = cell
    return sheet.permute(1, 2, 0).numpy()


def _drawn(pixels: Tensor, objects: Sequence[Object], classes: Sequence[str]) -> Tensor:
    """uint8 (3, h, w) whose longer side is CELL."""
    zoom = CELL / max(pixels.shape[1:])
    cell = resize(pixels, [max(1, round(side * zoom)) for side in pixels.shape[1:]])
    if not objects:
        return cell
    colours = [COLOURS[classes.index(thing["class"]) % len(COLOURS)] for thing in objects]
    if "mask" in objects[0]:
        masks = torch.stack([mask_of(thing["mask"]) for thing in objects])
        masks = resize(masks.to(torch.uint8), list(cell.shape[1:])) > 0
        cell = draw_segmentation_masks(cell, masks, alpha=0.4, colors=colours)
    names = [f"{x['class']} {x['score']:.2f}" if "score" in x else x["class"] for x in objects]
    corners = torch.tensor([thing["box"] for thing in objects]) * zoom
    return draw_bounding_boxes(cell, corners, names, colours, width=2, label_colors="black", fill_labels=True)
