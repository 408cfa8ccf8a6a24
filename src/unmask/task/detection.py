"""What is where in a picture: boxes of known classes, with their pixels if wanted."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.modality.base import Transform
from unmask.modality.image import Image
from unmask.nn.pyramid import Norm, SimplePyramid
from unmask.nn.window import Windows
from unmask.schema import Batch, Boxes, Label, Mask, Output, Sample
from unmask.task.average_precision import THRESHOLDS, average_precision, match
from unmask.task.base import Record, Task
from unmask.task.box_picture import box_picture
from unmask.task.box_record import coco_objects, records_of, rescaled, truth_of
from unmask.task.box_transform import BoxTransform, Target, pack, unpack

MAPS = 4  # of the pyramid that boxes are looked at in; one more proposes
ANCHOR = 8  # an anchor's side over the stride of its map
RATIOS = (0.5, 1.0, 2.0)  # height over width of anchors


class Judged(dict[str, Any]):
    """A record that knows which of its predictions are right: matching is slow, and scores are taken many times."""

    matches: dict[str, Any]


class Detection(Task):
    """Faster or Mask R-CNN on a plain encoder: ViTDet (arXiv 2203.16527).

    The class token is left out, most blocks look at windows of the grid, and the last map alone makes the pyramid.

    Args:
        backbone: encodes square pictures; its patch is a power of two of pixels.
        classes: their names.
        masks: find the pixels of each object too.
        window: side of the windows that blocks look at, in tokens; None for the whole grid.
        whole_blocks: blocks, counted from 0, that look at the whole grid all the same; None for the last of each of
            four equal parts.
        channels: of the pyramid and of the heads' convolutions.
        convolutions: of the box and mask heads.
        box_width: of the box head's feature.
        proposals: boxes that are looked at in a picture.
        sampled: of these, that training learns from.
        jitter: smallest and largest zoom of training pictures.
        least_score: predictions that are less sure are dropped.
        most: predictions of a picture.

    Raises:
        ConfigError: the backbone cannot make the pyramid, or an option does not go with it.
    """

    decides = "mAP"
    located = True

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        masks: bool = False,
        window: int | None = None,
        whole_blocks: Sequence[int] | None = None,
        channels: int = 256,
        convolutions: int = 4,
        box_width: int = 1024,
        proposals: int = 1000,
        sampled: int = 512,
        jitter: Sequence[float] = (1.0, 1.0),
        least_score: float = 0.05,
        most: int = 100,
    ) -> None:
        super().__init__()
        self.patch, self.side = check_pictures(backbone)
        self.settings = {
            "classes": list(classes), "masks": masks, "window": window,
            "whole_blocks": None if whole_blocks is None else list(whole_blocks), "channels": channels,
            "convolutions": convolutions, "box_width": box_width, "proposals": proposals, "sampled": sampled,
            "jitter": list(jitter), "least_score": least_score, "most": most,
        }  # fmt: skip
        self.backbone, self.classes, self.masks = backbone, tuple(classes), masks
        self.jitter = (float(jitter[0]), float(jitter[1]))
        encoder, (rows, columns) = backbone.encoder, backbone.modality.grid
        whole = last_of_quarters(encoder.depth) if whole_blocks is None else whole_blocks
        if not all(0 <= block < encoder.depth for block in whole):
            raise ConfigError(f"task.whole_blocks={list(whole)}: the encoder has blocks 0 to {encoder.depth - 1}.")
        self.windows = None if window is None else Windows((rows, columns), window, whole)
        backbone.class_token.requires_grad_(False)  # not used
        if encoder.style.norm_first:
            encoder.norm.requires_grad_(False)  # neither
        self.pyramid = SimplePyramid(encoder.width, channels)
        self.proposer = _proposer(self.patch, channels, proposals)
        self.heads = _heads(
            len(classes), masks, channels, convolutions, box_width, sampled, least_score, most
        )  # fmt: skip

    @classmethod
    def fits(cls, backbone: Backbone) -> None:
        """For square pictures whose patches make a pyramid."""
        check_pictures(backbone)

    @classmethod
    def learn(cls, classes: Sequence[str], labels: Sequence[Label | None]) -> dict[str, Any]:
        """The names of the classes."""
        if not any(isinstance(label, Boxes) and label.classes for label in labels):
            raise ConfigError("task=detection: none of the training pictures has a box. Give data with boxes.")
        return {"classes": list(classes)}

    def transform(self, train: bool) -> Transform:
        """Boxes follow what is done to their picture."""
        modality = self.backbone.modality
        assert isinstance(modality, Image)
        fill = (modality.pixel_mean.cpu() * 255).round().to(torch.uint8)
        if not train:
            return BoxTransform(self.side, fill)
        return BoxTransform(self.side, fill, self.jitter, modality.flip)

    def test_views(self, time: int, space: int) -> list[Transform]:
        """The whole picture, once. Raises ConfigError if asked for more: boxes of several crops do not average."""
        if (time, space) != (1, 1):
            raise ConfigError(f"views: task=detection looks at a picture once, not at {time} x {space} views. Set 1.")
        return [self.transform(train=False)]

    def encode_label(self, label: Any) -> Tensor:
        """Boxes as one row; a picture without is one, too."""
        return pack(label) if isinstance(label, Boxes) else torch.zeros(1)

    def name_label(self, label: Any) -> Any:
        """Size and objects of a picture, as JSON types."""
        return truth_of(label, self.classes)

    def forward(self, batch: Batch, mask: Mask | None = None) -> Output:
        """The sum of Faster R-CNN's four losses, and that of masks."""
        assert batch.labels is not None
        targets = [unpack(row, self.side, self.masks) for row in batch.labels]
        _, losses = self.detect(batch, targets)
        return Output(sum(losses.values(), torch.zeros(())), {name: x.detach() for name, x in losses.items()})

    def detect(self, batch: Batch, targets: list[Target] | None = None) -> tuple[list[Target], dict[str, Tensor]]:
        """What is found in each picture, in eval mode; the losses in training. The heads compute in float32."""
        maps = self.maps(batch)
        with torch.autocast(batch.inputs.device.type, enabled=False):
            features = {str(i): one.float() for i, one in enumerate(maps)}
            sizes = [(self.side, self.side)] * len(batch)
            proposals, losses = self.proposer(ImageList(batch.inputs, sizes), features, targets)
            found, more = self.heads(features, proposals, sizes, targets)
        return found, {**losses, **more}

    def maps(self, batch: Batch) -> list[Tensor]:
        """The pyramid: (B, channels, ...) maps whose strides are ¼, ½, 1, 2 and 4 times the patch."""
        prefix = self.backbone.prefix
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens, bias = self.backbone.prepare(batch)
            bias = None if bias is None else bias[:, :, prefix:, prefix:]
            tokens = self.backbone.encoder(tokens[:, prefix:], bias, last_norm=False, windows=self.windows)
        grid = self.backbone.modality.grid
        return self.pyramid(tokens.transpose(1, 2).unflatten(2, grid))

    def predict(self, batch: Batch, views: int = 1) -> list[Record]:
        """How many objects are likelier than not, and all that may be: class, score and box, in the square's pixels."""
        found, _ = self.detect(batch)
        return records_of(found, self.classes, self.side)

    def placed(self, record: Record, sample: Sample) -> Record:
        """In pixels of the picture as it was."""
        return rescaled(record, self.side, *sample.value.shape[1:])

    def compared(self, record: Record) -> Record:
        """In pixels of the picture as it was, and judged."""
        truth = record["label"]
        judged = Judged(rescaled(record, self.side, truth["height"], truth["width"]))
        true, said = (coco_objects(some, self.classes) for some in (truth["objects"], judged["prediction"]))
        judged.matches = {kind: match(true, said, kind) for kind in (("bbox", "segm") if self.masks else ("bbox",))}
        return judged

    def score(self, records: Sequence[Record]) -> dict[str, float]:
        """COCO's mean average precision, over overlaps of .5 to .95, and at .5 and .75; of masks likewise."""
        scores: dict[str, float] = {}
        for kind, before in (("bbox", ""), ("segm", "mask_"))[: 1 + self.masks]:
            curve = average_precision([record.matches[kind] for record in records if isinstance(record, Judged)])
            scores |= {f"{before}mAP": float(curve.mean())}
            scores |= {f"{before}AP{t}": float(curve[np.isclose(THRESHOLDS, t / 100)][0]) for t in (50, 75)}
        return scores

    def pictures(self, records: Sequence[Record], sample: Callable[[int], Sample]) -> dict[str, np.ndarray]:
        """What is true beside what is found."""
        return {"boxes": box_picture(records, sample, self.classes)}


def check_pictures(backbone: Backbone) -> tuple[int, int]:
    """Patch and side of the pictures.

    Raises:
        ConfigError: they are no pictures, or cannot make the pyramid.
    """
    modality = backbone.modality
    if not isinstance(modality, Image):
        kind = type(modality).__name__.lower()
        raise ConfigError(
            f"task=detection is for modality=image, and this backbone is of modality={kind}. Give one of images."
        )
    height, width = modality.image_size
    patch = modality.patch_size
    if height != width:
        raise ConfigError(
            f"task=detection takes square pictures, and these are of {height} x {width} pixels. Set input.image_size="
            f"{max(height, width)}: longer sides are made as long, the rest is filled up."
        )
    if patch < MAPS or patch & (patch - 1):
        raise ConfigError(
            f"task=detection makes maps of strides {patch / 4:g}, {patch / 2:g}, {patch} and {2 * patch} pixels from "
            f"patches of {patch}, and the heads need powers of two. Give a backbone with patches of 4, 8, 16 or 32."
        )
    if height // patch < 2:
        raise ConfigError(
            f"task=detection: pictures of {height} pixels are one patch of {patch}. Set input.image_size={4 * patch} "
            "or more."
        )
    return patch, height


def last_of_quarters(depth: int) -> list[int]:
    """The last block of each of four equal parts, as in ViTDet: 2, 5, 8, 11 of twelve."""
    return sorted({math.ceil(depth * part / 4) - 1 for part in range(1, 5)})


def _proposer(patch: int, channels: int, proposals: int) -> RegionProposalNetwork:
    """Two convolutions and anchors of one size and three shapes on each map; overlaps above .7 are right."""
    strides = [patch // 4 * 2**level for level in range(MAPS + 1)]
    anchors = AnchorGenerator(tuple((ANCHOR * stride,) for stride in strides), (RATIOS,) * len(strides))
    most = {"training": 2 * proposals, "testing": proposals}  # of each map, before overlapping ones are dropped
    return RegionProposalNetwork(
        anchors, RPNHead(channels, len(RATIOS), conv_depth=2), fg_iou_thresh=0.7, bg_iou_thresh=0.3,
        batch_size_per_image=256, positive_fraction=0.5, pre_nms_top_n=most,
        post_nms_top_n=dict.fromkeys(most, proposals), nms_thresh=0.7,
    )  # fmt: skip


def _heads(
    classes: int, masks: bool, channels: int, convolutions: int, box_width: int, sampled: int, least_score: float,
    most: int,
) -> RoIHeads:  # fmt: skip
    """torchvision's; classes count from 1, 0 is nothing."""
    names, layers = [str(level) for level in range(MAPS)], [channels] * convolutions
    heads = RoIHeads(
        MultiScaleRoIAlign(names, 7, sampling_ratio=0), FastRCNNConvFCHead((channels, 7, 7), layers, [box_width], Norm),
        FastRCNNPredictor(box_width, classes + 1), fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=sampled,
        positive_fraction=0.25, bbox_reg_weights=None, score_thresh=least_score, nms_thresh=0.5,
        detections_per_img=most,
    )  # fmt: skip
    if masks:
        heads.mask_roi_pool = MultiScaleRoIAlign(names, 14, sampling_ratio=0)
        heads.mask_head = MaskRCNNHeads(channels, layers, 1, Norm)
        heads.mask_predictor = MaskRCNNPredictor(channels, channels, classes + 1)
    return heads
