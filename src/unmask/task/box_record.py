"""Boxes as records: JSON types, in pixels of the picture as it was."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from unmask.errors import ConfigError
from unmask.schema import Boxes
from unmask.task.box_transform import Target, fit_zoom

Object = dict[str, Any]  # class, box (left, top, right, bottom), and where known score, mask, crowd
LIKELY = 0.5  # scores from which an object is counted, and drawn


def records_of(found: Sequence[Target], classes: Sequence[str], side: int) -> list[dict[str, Any]]:
    """What torchvision's heads found in squares of `side` pixels."""
    records = []
    for one in found:
        masks: list[Object] = []
        if "masks" in one:
            pasted = paste_masks_in_image(one["masks"], one["boxes"], (side, side))[:, 0] > 0.5
            masks = [{"mask": run_lengths(mask)} for mask in pasted]
        rows = zip(one["labels"].tolist(), one["scores"].tolist(), one["boxes"].tolist(), strict=True)
        objects = [{"class": classes[label - 1], "score": score, "box": box} for label, score, box in rows]
        objects = [{**thing, **mask} for thing, mask in zip(objects, masks or [{}] * len(objects), strict=True)]
        records.append({"objects": sum(thing["score"] >= LIKELY for thing in objects), "prediction": objects})
    return records


def truth_of(label: Boxes, classes: Sequence[str]) -> dict[str, Any]:
    """The same of what is true."""
    objects: list[Object] = []
    for i, (number, box) in enumerate(zip(label.classes, label.corners.tolist(), strict=True)):
        thing: Object = {"class": classes[number], "box": box}
        if label.masks is not None:
            thing["mask"] = run_lengths(label.masks[i])
        if label.crowds is not None and bool(label.crowds[i]):
            thing["crowd"] = True
        objects.append(thing)
    return {"height": label.height, "width": label.width, "objects": objects}


def rescaled(record: dict[str, Any], side: int, height: int, width: int) -> dict[str, Any]:
    """Predictions in a square that a picture of `height` x `width` pixels was fitted into, in the picture's pixels."""
    zoom = fit_zoom(side, height, width)
    tall, wide = max(1, round(height * zoom)), max(1, round(width * zoom))
    scale = [width / wide, height / tall] * 2
    objects = []
    for thing in record["prediction"]:
        edges = (width, height) * 2
        moved = {**thing, "box": [min(x * s, edge) for x, s, edge in zip(thing["box"], scale, edges, strict=True)]}
        if "mask" in thing:
            seen = mask_of(thing["mask"])[:tall, :wide]
            moved["mask"] = run_lengths(
                F.interpolate(seen[None, None].float(), (height, width), mode="nearest-exact")[0, 0] > 0.5
            )
        objects.append(moved)
    return {**record, "prediction": objects}


def coco_objects(objects: Sequence[Object], classes: Sequence[str]) -> list[Object]:
    """As pycocotools takes them."""
    made = []
    for thing in objects:
        left, top, right, bottom = thing["box"]
        one: Object = {
            "class": classes.index(thing["class"]),
            "bbox": [left, top, right - left, bottom - top],
            "iscrowd": int(thing.get("crowd", False)),
        }
        if "score" in thing:
            one["score"] = thing["score"]
        if "mask" in thing:
            one["segmentation"] = thing["mask"]
        made.append(one)
    return made


def run_lengths(mask: Tensor) -> dict[str, Any]:
    """A bool (height, width) as COCO's compressed run lengths: what other tools read."""
    runs = _pycocotools().encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
    return {"size": [int(n) for n in runs["size"]], "counts": runs["counts"].decode()}


def mask_of(runs: dict[str, Any]) -> Tensor:
    """The inverse."""
    return torch.from_numpy(_pycocotools().decode(runs)).bool()


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ConfigError("task.masks=true needs pycocotools. Run `pip install 'unmask[detection]'`.") from error
    return mask
