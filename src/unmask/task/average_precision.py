"""COCO's average precision, of the same matches for any choice of pictures."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from unmask.errors import ConfigError

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the overlap (intersection over union) from which a box is right
RECALLS = np.linspace(0, 1, 101)  # where precision is read
MOST = 100  # boxes of a class and picture that count, the surest
ANY_AREA = (0.0, 1e10)

Matches = dict[int, Any]  # by class, of one picture: what COCO's own `evaluateImg` says


def match(truth: Sequence[dict[str, Any]], said: Sequence[dict[str, Any]], kind: str) -> Matches:
    """Which predictions of one picture are right, at each threshold, by pycocotools.

    Args:
        truth: objects with `class` (a number), `bbox` (left, top, width, height) or `segmentation` (run lengths), and
            `iscrowd`.
        said: the same with `score`.
        kind: `bbox` or `segm`.

    Raises:
        ConfigError: pycocotools is missing.
    """
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ConfigError("task=detection needs pycocotools. Run `pip install 'unmask[detection]'`.") from error
    judge = COCOeval(iouType=kind)
    judge._gts, judge._dts, judge.ious = defaultdict(list), defaultdict(list), {}
    for number, one in enumerate(truth, 1):  # COCO takes a match with number 0 for none
        judge._gts[0, one["class"]].append({**one, "id": number, "ignore": one["iscrowd"], "area": 1.0})
    for number, one in enumerate(said, 1):
        judge._dts[0, one["class"]].append({**one, "id": number, "area": 1.0})
    classes = sorted({one["class"] for one in (*truth, *said)})
    for name in classes:
        judge.ious[0, name] = judge.computeIoU(0, name)
    return {name: judge.evaluateImg(0, name, ANY_AREA, MOST) for name in classes}


def average_precision(pictures: Sequence[Matches]) -> np.ndarray:
    """(thresholds,) mean over classes that occur; a picture may come twice. Zeros where no class does."""
    by_class: dict[int, list[Any]] = defaultdict(list)
    for matches in pictures:
        for name, one in matches.items():
            by_class[name].append(one)
    curves = [_of_class(found) for found in by_class.values()]
    known = [curve for curve in curves if curve is not None]
    return np.mean(known, axis=0) if known else np.zeros(len(THRESHOLDS))


def _of_class(found: Sequence[Any]) -> np.ndarray | None:
    """(thresholds,) the mean over recalls of the best precision there or beyond; None where nothing is to be found."""
    count = sum(int((one["gtIgnore"] == 0).sum()) for one in found)
    if not count:
        return None
    order = np.argsort(-np.concatenate([one["dtScores"] for one in found]), kind="stable")
    matched, ignored = (
        np.concatenate([one[key] for one in found], axis=1)[:, order].astype(bool) for key in ("dtMatches", "dtIgnore")
    )
    right, wrong = (np.cumsum(which & ~ignored, axis=1) for which in (matched, ~matched))
    precision = right / np.maximum(right + wrong, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)  # recalls that are not reached
    places = [np.searchsorted(recall, RECALLS, side="left") for recall in right / count]
    return np.array([row[place].mean() for row, place in zip(best, places, strict=True)])
