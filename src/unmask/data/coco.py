"""Pictures with boxes, as COCO's annotation files list them."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.data.folder import check_split
from unmask.data.images import read_image
from unmask.errors import BrokenSample, ConfigError, nearest
from unmask.schema import Boxes, Sample

PARTS = ("images", "annotations", "categories")
SLACK = 1.0  # pixels that a box may reach beyond its picture, as rounding makes it
BAD_BOXES = ("refuse", "drop")


class CocoImages:
    """Pictures of a folder, with boxes and masks from a JSON file (arXiv 1405.0312).

    Everything that can be known without decoding pictures is checked here. A training picture without a box has no
    label, as published; a test picture without is one in which nothing is to be found.

    Args:
        root: folder that the names below are relative to.
        train_annotations: JSON file of the training pictures.
        train_images: folder of them.
        test_annotations: JSON file of the test pictures.
        test_images: folder of them.
        split: train or test.
        channels: of a picture, 1 or 3.
        masks: read the objects' pixels too.
        bad_boxes: what is done with boxes of no area or outside their picture: refuse or drop.

    Attributes:
        classes: names of the categories, in the order of their numbers.

    Raises:
        ConfigError: a file is missing or not of this kind, or says what cannot be.
    """

    def __init__(
        self,
        root: str | Path,
        train_annotations: str,
        train_images: str,
        test_annotations: str,
        test_images: str,
        split: str = "train",
        channels: int = 3,
        masks: bool = False,
        bad_boxes: str = "refuse",
    ) -> None:
        check_split(split)
        if bad_boxes not in BAD_BOXES:
            raise ConfigError(
                f"data.bad_boxes={bad_boxes}: there is no such option.{nearest(bad_boxes, BAD_BOXES)} "
                f"Choose one of {', '.join(BAD_BOXES)}."
            )
        base = Path(root).expanduser().absolute()
        file, folder = (train_annotations, train_images) if split == "train" else (test_annotations, test_images)
        self._key, self._file, self._folder = f"data.{split}_annotations", base / file, base / folder
        self._channels, self._masks, self._train = channels, masks, split == "train"
        self._drop = bad_boxes == "drop"
        found = self._read()
        self.classes = tuple(one["name"] for one in sorted(found["categories"], key=lambda one: one["id"]))
        self._pictures: list[tuple[str, int, int]] = [
            (one["file_name"], one["height"], one["width"]) for one in found["images"]
        ]
        self._check_files(split)
        self._objects = self._by_picture(found)
        if not any(self._objects.values()):
            raise self._error("annotates no picture")

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Sample:
        """The picture, uint8 (C, H, W), and its boxes. Raises BrokenSample if it is not whole, or of another size."""
        name, height, width = self._pictures[index]
        pixels = read_image(self._folder / name, self._channels)
        if pixels.shape[1:] != (height, width):
            said, real = f"{height} x {width}", " x ".join(map(str, pixels.shape[1:]))
            raise BrokenSample(str(self._folder / name), f"is of {real} pixels, and {self._file.name} says {said}")
        label = self.label(index)
        if label is None or not self._masks:
            return Sample(pixels, label)
        drawn = [_draw(one["segmentation"], height, width) for one in self._objects.get(index, [])]
        masks = torch.stack(drawn) if drawn else torch.zeros(0, height, width, dtype=torch.bool)
        return Sample(pixels, replace(label, masks=masks))

    def label(self, index: int) -> Boxes | None:
        """The boxes, without their masks, which are large, and without reading the picture."""
        _, height, width = self._pictures[index]
        objects = self._objects.get(index, [])
        if self._train and all(one["iscrowd"] for one in objects):
            return None
        corners = torch.tensor([one["corners"] for one in objects]).view(-1, 4)
        crowds = torch.tensor([bool(one["iscrowd"]) for one in objects], dtype=torch.bool)
        return Boxes(height, width, tuple(one["class"] for one in objects), corners, crowds=crowds)

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        try:
            found = json.loads(self._file.read_bytes())
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror}".lower()) from error
        except ValueError as error:
            raise self._error("is not JSON") from error
        missing = [part for part in PARTS if not isinstance(found, dict) or not isinstance(found.get(part), list)]
        if missing:
            raise self._error(f"has no list of {missing[0]}")
        needs = {"images": {"id", "file_name", "height", "width"}, "categories": {"id", "name"},
                 "annotations": {"image_id", "category_id", "bbox"}}  # fmt: skip
        for part, keys in needs.items():
            for one in found[part]:
                if not keys <= one.keys():
                    raise self._error(f"has one of {part} without {min(keys - one.keys())}")
        if self._masks and any("segmentation" not in one for one in found["annotations"]):
            raise self._error("has annotations without segmentation, and task.masks=true wants it")
        return found

    def _check_files(self, split: str) -> None:
        """One listing of the folder, not a look at each of its hundred thousand files."""
        if not self._folder.is_dir():
            raise ConfigError(f"data.{split}_images: there is no folder {self._folder}. Set data.root, or its name.")
        there = {str(path.relative_to(self._folder)) for path in self._folder.rglob("*")}
        missing = [name for name, _, _ in self._pictures if name not in there]
        if missing:
            raise self._error(
                f"names {len(missing)} pictures that are not in {self._folder}, such as {missing[0]}",
                f"Set data.{split}_images.",
            )

    def _by_picture(self, found: dict[str, list[dict[str, Any]]]) -> dict[int, list[dict[str, Any]]]:
        """The objects of each picture, by its index."""
        indices = {one["id"]: i for i, one in enumerate(found["images"])}
        numbers = {number: i for i, number in enumerate(sorted(one["id"] for one in found["categories"]))}
        for kind, known in (("images", indices), ("categories", numbers)):
            if len(known) < len(found[kind]):
                often = Counter(one["id"] for one in found[kind]).most_common(1)[0][0]
                raise self._error(f"has two {kind} with id {often}")
        objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for one in found["annotations"]:
            if one["category_id"] not in numbers:
                raise self._error(f"has an annotation of category_id {one['category_id']}, which is no category")
            if one["image_id"] not in indices:
                raise self._error(f"has an annotation of image_id {one['image_id']}, which is no picture")
            index = indices[one["image_id"]]
            reason = next(self._wrong_with(one["bbox"], *self._pictures[index]), None)
            if reason is None:
                left, top, width, height = one["bbox"]
                kept = {"class": numbers[one["category_id"]], "corners": [left, top, left + width, top + height],
                        "iscrowd": one.get("iscrowd", 0)}  # fmt: skip
                objects[index].append({**kept, "segmentation": one["segmentation"]} if self._masks else kept)
            elif not self._drop:
                raise self._error(reason, "Mend it, or leave such boxes out with data.bad_boxes=drop.")
        return objects

    def _wrong_with(self, box: Any, name: str, high: int, wide: int) -> Iterator[str]:
        numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(x, int | float) for x in box)
        if not numbers:
            yield f"has a bbox {box} on {name}, which is not left, top, width and height"
            return
        left, top, width, height = box
        if not (width > 0 and height > 0):
            yield f"has a bbox {box} of no area on {name}"
        if min(left, top) < -SLACK or left + width > wide + SLACK or top + height > high + SLACK:
            yield f"has a bbox {box} outside {name}, which is {wide} pixels wide and {high} high"

    def _error(self, reason: str, way_out: str = "Give a file of COCO's kind, or mend this one.") -> ConfigError:
        return ConfigError(f"{self._key}: {self._file} {reason}. {way_out}")


def _draw(segmentation: Any, height: int, width: int) -> Tensor:
    """Polygons or run lengths as bool (height, width)."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ConfigError("task.masks=true needs pycocotools. Run `pip install 'unmask[detection]'`.") from error
    if isinstance(segmentation, list):
        runs = mask.merge(mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = mask.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    return torch.from_numpy(mask.decode(runs)).bool()
