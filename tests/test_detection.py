"""task=detection: pyramid, windows, boxes that follow their picture, COCO's precision, runs that resume, bad input."""

import contextlib
import copy
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.torch import load_file

from unmask.backbone import Backbone
from unmask.data.coco import CocoImages
from unmask.data.stream import Item, collate
from unmask.modality.image import Image
from unmask.nn.block import Block, Style
from unmask.nn.encoder import Encoder
from unmask.nn.position_bias import RelativeBias
from unmask.nn.pyramid import SimplePyramid
from unmask.nn.window import Windows
from unmask.predict import main as predict
from unmask.schema import Boxes, Sample
from unmask.task.average_precision import average_precision, match
from unmask.task.box_record import rescaled, run_lengths
from unmask.task.box_transform import BoxTransform, pack, unpack
from unmask.task.detection import Detection, last_of_quarters

Run = Callable[..., Path]
TOY = (
    "task=detection", "backbone=scratch", "model.width=16", "model.depth=2", "model.heads=2", "data=coco",
    "input.image_size=40", "data.patch_size=8", "task.window=3", "task.whole_blocks=[1]", "task.channels=8",
    "task.convolutions=1", "task.box_width=16", "task.proposals=20", "task.sampled=8", "task.least_score=0.0",
    "task.most=10", "data.validation=0.25", "data.global_batch_size=2", "data.num_workers=0", "trainer.max_steps=5",
    "scheduler.warmup=1 steps", "callbacks.evaluation.every=2 steps", "callbacks.metrics.every=1 steps", "logger=csv",
    "callbacks.evaluation.batch_size=1", "precision=fp32",
)  # fmt: skip


def make_detection(side: int = 32, patch: int = 8, style: Style | None = None, **how: Any) -> Detection:
    image = Image(16, side, patch, 3, [0.5] * 3, [0.25] * 3, absolute_positions=style is None)
    small = {"channels": 8, "convolutions": 1, "box_width": 16, "proposals": 20, "sampled": 8}
    return Detection(Backbone(image, Encoder(16, 4, 2, style=style)), ["cat", "dog"], **{**small, **how})


# Shapes and windows


@pytest.mark.parametrize(("patch", "strides"), [(16, [4, 8, 16, 32, 64]), (8, [2, 4, 8, 16, 32])])
def test_the_pyramid_has_the_papers_strides(patch: int, strides: list[int]):
    side = 16 * patch
    maps = SimplePyramid(16, 8)(torch.randn(2, 16, side // patch, side // patch))
    assert [tuple(one.shape) for one in maps] == [(2, 8, side // stride, side // stride) for stride in strides]


def test_whole_blocks_are_vitdets():
    assert last_of_quarters(12) == [2, 5, 8, 11]
    assert last_of_quarters(24) == [5, 11, 17, 23]
    assert last_of_quarters(32) == [7, 15, 23, 31]
    assert last_of_quarters(2) == [0, 1]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("grid", [(6, 6), (5, 7), (2, 4)])
def test_windowed_attention_is_a_loop_over_windows_without_padding(grid: tuple[int, int], relative: bool):
    rows, columns, side = *grid, 3
    torch.manual_seed(0)
    block, x = Block(16, 2), torch.randn(2, rows * columns, 16)
    bias = None
    if relative:
        table = RelativeBias(grid, 0, 2)
        torch.nn.init.normal_(table.table)
        bias = table(rows * columns, None)
    expected = torch.empty_like(x)
    for top in range(0, rows, side):
        for left in range(0, columns, side):
            inside = [
                row * columns + column
                for row in range(top, min(top + side, rows))
                for column in range(left, min(left + side, columns))
            ]
            part = None if bias is None else bias[:, :, inside][..., inside]
            expected[:, inside] = block(x[:, inside], bias=part)[0]
    tokens, feed_forward = Windows(grid, side, []).inside(block, x, bias)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)
    assert feed_forward.shape == x.shape


def test_a_window_as_large_as_the_grid_changes_nothing_and_a_smaller_one_does():
    torch.manual_seed(0)
    tasks = {window: make_detection(window=window, whole_blocks=[3]).eval() for window in (None, 4, 2)}
    batch = collate([Item(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), 0, None, ())])
    for task in tasks.values():
        task.load_state_dict(tasks[None].state_dict())
    whole, same, other = (task.maps(batch) for task in tasks.values())
    torch.testing.assert_close(whole, same, atol=1e-5, rtol=0)
    assert (whole[0] - other[0]).abs().max() > 1e-3


def test_relative_positions_reach_the_pyramid_in_windows_and_whole_blocks():
    task = make_detection(style=Style(position_bias="relative"), window=3, whole_blocks=[1])
    assert isinstance(task.backbone.position_bias, RelativeBias)
    batch = collate([Item(torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8), 0, None, ())])
    task.maps(batch)[0].square().sum().backward()
    gradient = task.backbone.position_bias.table.grad
    assert gradient is not None
    assert gradient[:-3].abs().max() > 0
    assert gradient[-3:].abs().max() == 0  # the class token's


# Boxes


def thing(height: int = 40, width: int = 60) -> Sample:
    """A white rectangle on black, its box and mask."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    pixels[:, 10:30, 20:45] = 255
    corners = torch.tensor([[20.0, 10.0, 45.0, 30.0]])
    return Sample(pixels, Boxes(height, width, (1,), corners, pixels[:1] > 0))


@pytest.mark.parametrize("seed", range(20))
def test_boxes_and_masks_follow_their_picture(seed: int):
    torch.manual_seed(seed)
    moved = BoxTransform(48, torch.zeros(3, 1, 1, dtype=torch.uint8), (0.5, 2.0), flip=True).read(thing())
    white = moved.value[0] > 127
    assert moved.value.shape == (3, 48, 48)
    if not white.any():
        assert len(moved.label.corners) == 0
        return
    rows, columns = (white.any(axis).nonzero()[:, 0] for axis in (1, 0))
    seen = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
    assert (moved.label.corners[0] - seen).abs().max() <= 1.5
    assert (moved.label.masks[0] ^ white).sum() <= 0.1 * white.sum() + 8
    assert moved.label.classes == (1,)


def test_a_letterbox_is_undone():
    square = BoxTransform(48, torch.zeros(3, 1, 1, dtype=torch.uint8)).read(thing())
    said = {"prediction": [{"box": square.label.corners[0].tolist(), "mask": run_lengths(square.label.masks[0])}]}
    [found] = rescaled(said, 48, 40, 60)["prediction"]
    assert found["box"] == pytest.approx([20, 10, 45, 30], abs=1e-4)
    assert found["mask"]["size"] == [40, 60]


def test_a_row_of_numbers_holds_boxes_and_masks():
    torch.manual_seed(0)
    masks = torch.rand(3, 8, 8) > 0.5
    masks[0, 0, 0], masks[1, 0, 0], masks[2] = True, False, False
    boxes = Boxes(8, 8, (2, 0, 1), torch.rand(3, 4), masks)
    row = torch.cat([pack(boxes), torch.zeros(5)])
    target = unpack(row, 8, masks=True)
    assert target["labels"].tolist() == [3, 1, 2]
    assert torch.equal(target["boxes"], boxes.corners)
    assert torch.equal(target["masks"].bool(), masks)
    assert unpack(torch.zeros(4), 8, masks=True)["masks"].shape == (0, 8, 8)


# Precision


def objects(rng: np.random.Generator, count: int, score: bool) -> list[dict[str, Any]]:
    made = []
    for _ in range(count):
        left, top, width, height = (float(x) for x in rng.integers([0, 0, 8, 8], [12, 12, 20, 20]))
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[int(top) : int(top + height), int(left) : int(left + width)] = True
        one = {"class": int(rng.integers(3)), "bbox": [left, top, width, height], "segmentation": run_lengths(mask)}
        made.append(one | ({"score": float(rng.random())} if score else {"iscrowd": int(rng.random() < 0.15)}))
    return made


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_precision_equals_pycocotools(kind: str):
    rng = np.random.default_rng(0)
    pictures = [(objects(rng, int(rng.integers(5)), False), objects(rng, int(rng.integers(9)), True)) for _ in range(9)]
    pictures.append(pictures[0])  # one that is drawn twice counts twice
    truth, said = COCO(), []
    images = [{"id": i, "height": 32, "width": 32} for i in range(10)]
    truth.dataset = {"images": images, "categories": [{"id": i} for i in range(3)], "annotations": []}
    for i, (true, found) in enumerate(pictures):
        for one in true:
            place = {"image_id": i, "category_id": one["class"], "area": 100.0}
            truth.dataset["annotations"].append({**one, **place, "id": len(truth.dataset["annotations"]) + 1})
        said += [{**one, "image_id": i, "category_id": one["class"]} for one in found]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        if kind == "segm":
            said = [{k: v for k, v in one.items() if k != "bbox"} for one in said]
        judge = COCOeval(truth, truth.loadRes(copy.deepcopy(said)), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    ours = average_precision([match(true, found, kind) for true, found in copy.deepcopy(pictures)])
    assert 0 < judge.stats[0] < 1
    assert ours.mean() == pytest.approx(judge.stats[0], abs=1e-9)
    assert ours[[0, 5]] == pytest.approx(judge.stats[1:3], abs=1e-9)


def test_precision_of_a_case_done_by_hand():
    true = [{"class": 0, "bbox": [0.0, 0.0, 100.0, 10.0], "iscrowd": 0}]
    close = {"class": 0, "bbox": [0.0, 0.0, 62.0, 10.0], "score": 0.9}  # overlaps by .62: right at .5, .55 and .6
    assert average_precision([match(true, [close], "bbox")]).tolist() == [1.0] * 3 + [0.0] * 7
    surer = {"class": 0, "bbox": [200.0, 0.0, 9.0, 9.0], "score": 0.95}  # wrong, and before the right one
    assert average_precision([match(true, [close, surer], "bbox")])[0] == pytest.approx(0.5)
    assert average_precision([match([], [close], "bbox")]).tolist() == [0.0] * 10


# Runs


def annotated(folder: Path, split: str, count: int, seed: int) -> dict[str, Any]:
    """Grey noise with one or two coloured rectangles a picture; categories have numbers 7 and 3."""
    rng = np.random.default_rng(seed)
    names = ("a", "b")
    said: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "red"},
                                                                            {"id": 3, "name": "blue"}]}  # fmt: skip
    (folder / split).mkdir(parents=True)
    for i in range(count):
        pixels = rng.integers(90, 160, (36, 48, 3), dtype=np.uint8)
        for j in range(1 + i % 2):
            left, top, width, height = (int(x) for x in rng.integers([0, 0, 12, 12], [24, 18, 20, 18]))
            which = int(rng.integers(2))
            pixels[top : top + height, left : left + width] = ((255, 0, 0), (0, 0, 255))[which]
            right, bottom = left + width, top + height
            said["annotations"].append({
                "id": 10 * i + j, "image_id": 100 + i, "category_id": (7, 3)[which], "iscrowd": 0,
                "bbox": [left, top, width, height],
                "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            })  # fmt: skip
        name = f"{names[i % 2]}{i}.png"
        PILImage.fromarray(pixels).save(folder / split / name)
        said["images"].append({"id": 100 + i, "file_name": name, "height": 36, "width": 48})
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(said))
    return said


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    folder = tmp_path / "coco"
    annotated(folder, "train2017", 8, 0)
    annotated(folder, "val2017", 3, 1)
    return folder


def source(folder: Path, split: str = "train", **how: Any) -> CocoImages:
    names = [f"annotations/instances_{name}.json" for name in ("train2017", "val2017")]
    return CocoImages(folder, names[0], "train2017", names[1], "val2017", split, **how)


def test_cocos_files_are_read(coco: Path):
    file = coco / "annotations" / "instances_train2017.json"
    said = json.loads(file.read_text())
    said["images"].append({"id": 1, "file_name": "sub/empty.png", "height": 8, "width": 8})
    (coco / "train2017" / "sub").mkdir()
    PILImage.new("RGB", (8, 8)).save(coco / "train2017" / "sub" / "empty.png")
    crowd = {"counts": [0, 36 * 24, 36 * 24], "size": [36, 48]}  # the left half, as columns run
    said["annotations"].append(
        {"image_id": 100, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 24, 36], "segmentation": crowd}
    )
    file.write_text(json.dumps(said))
    pictures = source(coco, masks=True)
    assert pictures.classes == ("blue", "red")  # in the order of their numbers
    assert len(pictures) == 9
    assert pictures.label(8) is None  # of no box
    first = pictures[0]
    left, top, width, height = said["annotations"][0]["bbox"]
    assert first.value.shape == (3, 36, 48)
    assert first.label.corners[0].tolist() == [left, top, left + width, top + height]
    assert first.label.classes[0] == (0 if said["annotations"][0]["category_id"] == 3 else 1)
    assert first.label.masks[0].sum() == width * height
    assert first.label.crowds.tolist() == [False, True]
    assert first.label.masks[1, :, :24].all()
    assert not first.label.masks[1, :, 24:].any()
    assert (
        BoxTransform(40, torch.zeros(3, 1, 1, dtype=torch.uint8)).read(first).label.classes == first.label.classes[:1]
    )


def test_a_stopped_run_resumes_to_the_same_predictions_and_reads_files(
    coco: Path, finetune: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from unmask.training.finetune import FinetuneModule

    words = (*TOY, f"data.root={coco}", "task.masks=true", "encoder.drop_path=0.1")
    whole = finetune(*words, folder="whole")
    original, seen = FinetuneModule.training_step, []

    def step(module, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneModule, "training_step", step)
        with pytest.raises(SystemExit):
            finetune(*words, folder="stopped")
    finetune(f"resume={whole.parent / 'stopped'}")
    for name in ("predictions.jsonl", "results.json", "model/model.safetensors"):
        assert (whole / name).read_bytes() == (whole.parent / "stopped" / name).read_bytes(), name

    results = json.loads((whole / "results.json").read_text())
    low, high = results["interval"]
    assert results["decides"] == "mAP"
    assert low <= results["scores"]["mAP"] <= high
    assert {"AP50", "AP75", "mask_mAP"} <= results["scores"].keys()
    assert PILImage.open(whole / "boxes.png").size[0] > 400

    capsys.readouterr()
    predict([str(whole), str(coco / "val2017" / "a0.png")])
    said = json.loads(capsys.readouterr().out)
    [written] = [json.loads(line) for line in (whole / "predictions.jsonl").read_text().splitlines()][:1]
    assert len(said["prediction"]) == len(written["prediction"]) == 10
    assert said["prediction"] == written["prediction"]
    for one in said["prediction"]:
        assert min(one["box"]) >= 0
        assert one["box"][2] <= 48
        assert one["mask"]["size"] == [36, 48]


def test_only_what_is_not_frozen_learns_and_scratch_is_compared(coco: Path, finetune: Run, train: Run):
    small = ("data.image_size=40", "data.patch_size=8", "model.width=16", "model.depth=2", "model.heads=2",
             "model.decoder.width=16")  # fmt: skip
    pretrained = train(
        "data=coco", f"data.root={coco}", *small, "trainer.max_steps=2", "scheduler.warmup=1 steps",
        "data.global_batch_size=4", "data.num_workers=0", "callbacks.probes=null", "callbacks.pictures=null",
        "callbacks.collapse=null", "logger=csv", "precision=fp32", folder="pretrained",
    )  # fmt: skip
    own = ("backbone=", "data=", "input.", "data.patch_size", "model.")
    words = [word for word in TOY if not word.startswith(own)]
    run = finetune(*words, f"backbone={pretrained}", "freeze=all", "compare=scratch", "data.labels=50%")
    before = load_file(pretrained / "backbone" / "model.safetensors")
    after = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(after[f"backbone.{name}"], value) for name, value in before.items())
    assert set(json.loads((run / "comparison.json").read_text())) == {str(pretrained), "scratch"}


def test_it_learns_where_coloured_rectangles_are():
    """A few steps on four pictures, by heart: each loss falls and the boxes are found."""
    torch.manual_seed(0)
    task = make_detection(32, 8, channels=16)
    boxes = [
        torch.tensor([[x, y, x + 14.0, y + 12.0]]) for x, y in ((2.0, 3.0), (15.0, 4.0), (4.0, 17.0), (16.0, 18.0))
    ]
    items = []
    for i, corners in enumerate(boxes):
        pixels = torch.full((3, 32, 32), 128, dtype=torch.uint8)
        left, top, right, bottom = corners[0].int().tolist()
        pixels[:, top:bottom, left:right] = torch.tensor(((255, 0, 0), (0, 0, 255))[i % 2])[:, None, None]
        items.append(Item(pixels, i, pack(Boxes(32, 32, (i % 2,), corners)), ()))
    batch = collate(items)
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task(batch).loss.backward()
        optimizer.step()
    with torch.inference_mode():
        records = task.eval().predict(batch)
    judged = [
        task.compared({**record, "label": task.name_label(Boxes(32, 32, (i % 2,), corners))})
        for i, (record, corners) in enumerate(zip(records, boxes, strict=True))
    ]
    assert task.score(judged)["AP50"] > 0.9


# Bad input


def broken(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change what the training file says."""

    def apply(folder: Path) -> None:
        file = folder / "annotations" / "instances_train2017.json"
        said = json.loads(file.read_text())
        change(said)
        file.write_text(json.dumps(said))

    return apply


def first_box(*box: Any) -> Callable[[Path], None]:
    return broken(lambda said: said["annotations"][0].update(bbox=list(box)))


def nothing(folder: Path) -> None:
    """Leave all as it is."""


@pytest.mark.parametrize(
    ("spoil", "words", "expected"),
    [
        (first_box(40, 0, 20, 9), (), "has a bbox [40, 0, 20, 9] outside a0.png, which is 48 pixels wide and 36 high"),
        (first_box(4, 4, 0, 10), (), "has a bbox [4, 4, 0, 10] of no area on a0.png. Mend it, or leave such boxes out"),
        (first_box(4, 4, 10), (), "which is not left, top, width and height"),
        (broken(lambda x: x["images"][0].update(file_name="gone.png")), (), "names 1 pictures that are not in"),
        (broken(lambda x: x["annotations"][0].update(category_id=9)), (), "of category_id 9, which is no category"),
        (broken(lambda x: x["annotations"][0].update(image_id=9)), (), "of image_id 9, which is no picture"),
        (broken(lambda x: x.update(annotations=[])), (), "annotates no picture"),
        (broken(lambda x: x.pop("categories")), (), "has no list of categories"),
        (broken(lambda x: x["images"][0].pop("width")), (), "has one of images without width"),
        (broken(lambda x: x["annotations"][0].pop("segmentation")), ("task.masks=true",), "without segmentation"),
        (broken(lambda x: x["images"][1].update(id=100)), (), "has two images with id 100"),
        (lambda f: (f / "annotations/instances_train2017.json").write_text("{"), (), "is not JSON"),
        (lambda f: (f / "annotations/instances_train2017.json").unlink(), (), "cannot be read: no such file"),
        (nothing, ("data.train_images=nowhere",), "data.train_images: there is no folder"),
        (nothing, ("data.bad_boxes=dorp",), "data.bad_boxes=dorp is not possible. It must be one of refuse, drop"),
        (nothing, ("data.patch_size=10",), "makes maps of strides 2.5, 5, 10 and 20 pixels from patches of 10"),
        (nothing, ("input.image_size=[40,48]",), "takes square pictures, and these are of 40 x 48 pixels"),
        (nothing, ("task.whole_blocks=[2]",), "task.whole_blocks=[2]: the encoder has blocks 0 to 1"),
        (nothing, ("views.space=3",), "task=detection looks at a picture once"),
        (nothing, ("augment.rand_augment=9",), "their boxes would not follow"),
        (nothing, ("data.labels=1/class",), "samples are of several classes. Give a number of samples, or 1%"),
        (nothing, ("task=classification",), "is labelled with boxes, and task=classification wants none"),
        (nothing, ("task=knn",), "is labelled with boxes, and task=knn wants none"),
        (nothing, ("data=digits", "data.patch_size=4", "input.image_size=8"), "learns boxes, and data=digits has none"),
        (nothing, ("modality=audio", "data=spoken_words"), "modality=image, and this backbone is of modality=audio"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence_before_training(
    coco: Path, finetune: Run, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], Any], words: tuple[str, ...],
    expected: str,
):  # fmt: skip
    spoil(coco)
    keys = {word.split("=")[0] for word in words}
    left_out = {"data", "input.image_size", "data.patch_size"} if "modality" in keys else set()
    toy = [word for word in (*TOY, f"data.root={coco}") if word.split("=")[0] not in keys | left_out]
    if keys & {"task", "data", "modality"}:
        toy = [word for word in toy if not word.startswith(("task.", "data.root") if "task" in keys else "data.root")]
        toy += [f"data.root={coco}"] if "task" in keys else []
    with pytest.raises(SystemExit) as exit_:
        finetune(*toy, *words)
    captured = capsys.readouterr()
    assert exit_.value.code == 2
    assert expected in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "million parameters learn" not in captured.out
