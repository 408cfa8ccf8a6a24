"""Pictures that are drawn with boxes: handwritten digits scattered over black, and stamps pasted on photos."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor
from torchvision.transforms.functional import resize

from tests.conftest import QUICK
from unmask.data.digits import Digits
from unmask.data.drawn_boxes import MOST, OVERLAP, DrawnBoxes, Placed
from unmask.data.scattered_digits import INK, ScatteredDigits
from unmask.data.stamps import Stamps
from unmask.errors import ConfigError
from unmask.schema import Boxes

SIDE = 48
SPLITS = ("train", "test")
COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def covered(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """Of two boxes the pixels that both have, over those of the smaller one, counted one by one."""
    first, second = (
        {(x, y) for x in range(left, right) for y in range(top, bottom)} for left, top, right, bottom in (a, b)
    )
    return len(first & second) / min(len(first), len(second))


class Nothing(DrawnBoxes):
    """Layouts of three things, the first two of one class."""

    classes, share = ("low", "square"), (0.2, 0.5)
    sizes, labels = ((8, 4), (5, 8), (8, 8)), (0, 0, 1)

    def draw(self, index: int, places: Sequence[Placed]) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, SIDE, SIDE, dtype=torch.uint8), torch.zeros(len(places), SIDE, SIDE, dtype=torch.bool)


def test_things_lie_inside_and_cover_little_of_each_other():
    here, again, there = (Nothing(name, "train", 200, SIDE, False) for name in ("here", "here", "there"))
    counts, seen = set(), set()
    for index in range(len(here)):
        placed = here.layout(index)
        counts.add(len(placed))
        for i, (thing, (left, top, right, bottom), _) in enumerate(placed):
            seen.add(thing)
            assert 0 <= left < right <= SIDE
            assert 0 <= top < bottom <= SIDE
            assert 0.2 * SIDE - 0.5 <= max(right - left, bottom - top) <= 0.5 * SIDE + 0.5
            height, width = here.sizes[thing]
            assert (bottom - top) / (right - left) == pytest.approx(height / width, rel=0.15)
            assert all(covered(placed[i].box, other.box) <= OVERLAP for other in placed[:i])
        assert here.label(index).classes == tuple(here.labels[place.thing] for place in placed)
        assert again.layout(index) == placed
    assert counts == set(range(1, MOST + 1))
    assert seen == {0, 1, 2}
    assert [there.layout(index) for index in range(9)] != [here.layout(index) for index in range(9)]


@pytest.mark.parametrize("split", SPLITS)
def test_a_box_holds_a_digit_of_its_split_and_class_and_nothing_lies_outside(split: str):
    source, digits = ScatteredDigits(split, test_pictures=40), Digits(split)
    alone = 0
    for index in range(40):
        pixels, boxes = source[index]
        outside = pixels[0].clone()
        for left, top, right, bottom in boxes.corners.int().tolist():
            outside[top:bottom, left:right] = 0
        assert not outside.any()
        assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, SIDE, SIDE))
        if len(boxes.classes) == 1:
            alone += 1
            left, top, right, bottom = boxes.corners[0].int().tolist()
            found = pixels[:, top:bottom, left:right]
            drawn = [
                resize(trimmed(image), list(found.shape[1:]))
                for image, label in zip(digits.images, digits.labels, strict=True)
                if label == boxes.classes[0]
            ]
            assert any(torch.equal(one, found) for one in drawn)
    assert alone > 3


def trimmed(image: torch.Tensor) -> torch.Tensor:
    """One row or column after the other is taken off while it has no ink."""
    while (image[:, 0] < INK).all():
        image = image[:, 1:]
    while (image[:, -1] < INK).all():
        image = image[:, :-1]
    while (image[:, :, 0] < INK).all():
        image = image[:, :, 1:]
    while (image[:, :, -1] < INK).all():
        image = image[:, :, :-1]
    return image


def test_masks_are_the_ink_and_the_nearer_digit_hides_the_farther():
    source, plain = ScatteredDigits(masks=True), ScatteredDigits()
    overlaps = 0
    for index in range(60):
        pixels, boxes = source[index]
        assert torch.equal(boxes.masks.any(0), pixels[0] >= INK)
        assert boxes.masks.sum(0).max() == 1
        assert torch.equal(plain[index].value, pixels)
        assert plain[index].label.masks is None
        assert torch.equal(source.label(index).corners, boxes.corners)
        assert source.label(index).classes == boxes.classes
        overlaps += sum(covered(tuple(a), tuple(b)) > 0 for a, b in pairs(boxes))
    assert overlaps


def pairs(boxes: Boxes) -> list[tuple[list[int], list[int]]]:
    corners = boxes.corners.int().tolist()
    return [(a, b) for i, a in enumerate(corners) for b in corners[:i]]


def test_digits_are_as_large_as_they_say():
    longer = [
        max(right - left, bottom - top)
        for index in range(100)
        for left, top, right, bottom in ScatteredDigits(side=100).label(index).corners.tolist()
    ]
    assert 100 * ScatteredDigits.share[0] - 0.5 <= min(longer) < 25
    assert 40 < max(longer) <= 100 * ScatteredDigits.share[1] + 0.5


def stamps(folder: Path, things: int = 6, photos: int = 3) -> Path:
    """Class folders of squares in the colour of the class, each with an empty margin, and grey photos."""
    for name, colour in COLOURS.items():
        (folder / "stamps" / name).mkdir(parents=True)
        for i in range(things):
            pixels = np.zeros((40, 40, 4), dtype=np.uint8)
            pixels[5 : 30 + i, 8:28] = (*colour, 255)
            PILImage.fromarray(pixels).save(folder / "stamps" / name / f"{name}{chr(97 + i)}x{i}.png")
    (folder / "photos").mkdir()
    for i in range(photos):
        PILImage.fromarray(np.full((256, 384, 3), 100 + i, dtype=np.uint8)).save(folder / "photos" / f"{i}.png")
    return folder


def test_stamps_lie_in_their_boxes_on_photos_of_their_split(tmp_path: Path):
    folder = stamps(tmp_path)
    grounds = []
    for split in SPLITS:
        source = Stamps(folder / "stamps", folder / "photos", tmp_path / "cache", split, side=SIDE, masks=True)
        assert source.classes == ("blue", "red")
        for index in range(20):
            pixels, boxes = source[index]
            grounds.append((split, int(pixels[0][~boxes.masks.any(0)].mode().values)))
            for label, mask, (left, top, right, bottom) in zip(
                boxes.classes, boxes.masks, boxes.corners.int().tolist(), strict=True
            ):
                colour = torch.tensor(list(COLOURS.values())[label])[:, None]
                assert (pixels[:, mask].int() - colour).abs().max() <= 1
                mask[top:bottom, left:right] = False
                assert not mask.any()
    assert not {grey for split, grey in grounds if split == "train"} & {g for split, g in grounds if split == "test"}


def test_no_stamp_is_in_both_splits(tmp_path: Path):
    folder = stamps(tmp_path)
    train, test = (Stamps(folder / "stamps", folder / "photos", tmp_path / "cache", split) for split in SPLITS)
    # Of a class every stamp has a height of its own.
    shapes = [{(label, tuple(source.sizes[i])) for i, label in enumerate(source.labels)} for source in (train, test)]
    assert not shapes[0] & shapes[1]
    assert [len(some) for some in shapes] == [8, 4]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: ScatteredDigits(side=8), "data.image_size=8: these pictures are square."),
        (lambda folder: Stamps(folder / "none", folder, folder), "Run `make data-stamps`, or set data.root"),
        (lambda folder: one_thing(folder), "holds one stamp, and the test set needs another"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(tmp_path: Path, make: Callable[[Path], object], expected: str):
    with pytest.raises(ConfigError, match=expected):
        make(tmp_path)


def one_thing(folder: Path) -> Stamps:
    stamps(folder, things=1)
    return Stamps(folder / "stamps", folder / "photos", folder / "cache")


def test_digits_are_pretrained_on_and_found_again(
    train: Callable[..., Path], finetune: Callable[..., Path], tmp_path: Path
):
    small = ("data.train_pictures=40", "data.test_pictures=12")
    run = train(*QUICK, "data=scattered_digits", *small, "trainer.max_steps=2", "scheduler.warmup=1 steps")
    tuned = finetune(
        f"backbone={run}", *small, "task=detection", "task.masks=true", "data.labels=30", "data.validation=0",
        "task.channels=8", "task.convolutions=1", "task.box_width=16", "task.proposals=20", "trainer.max_steps=2",
        "scheduler.warmup=1 steps", "data.num_workers=0", "logger=csv",
    )  # fmt: skip
    predictions = (tuned / "predictions.jsonl").read_text().splitlines()
    labels = [json.loads(line)["label"]["objects"] for line in predictions]
    test = ScatteredDigits("test")
    assert [[int(thing["class"]) for thing in objects] for objects in labels] == [
        list(test.label(i).classes) for i in range(12)
    ]
    assert {"mAP", "mask_mAP"} <= set(json.loads((tuned / "results.json").read_text())["scores"])
    assert (tuned / "boxes.png").exists()
