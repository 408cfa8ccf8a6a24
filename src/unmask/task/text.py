"""What a sentence, or a pair of sentences, is: a class or a number."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor, nn

from unmask.backbone import Backbone
from unmask.errors import ConfigError, nearest
from unmask.nn.init import TOKEN_STD
from unmask.schema import Batch, Label, Mask, Output, Sample
from unmask.task.base import Record
from unmask.task.classification import Classification

ERRORS = ("rmse",)  # scores that are better small


class Sentences(Classification):
    """RoBERTa's head on one feature of a text: dropout, dense, tanh, dropout, linear (arXiv 1907.11692).

    Numbers are learned by squared error, less the mean of the training labels and over their deviation.

    Args:
        backbone: encodes texts.
        classes: their names; none for numbers.
        center: mean of the training labels, where they are numbers.
        scale: their deviation.
        pool: the `first` token, which is `<s>`, as in RoBERTa; the `mean` of all; or the `class` token.
        regression: labels are numbers.
        metric: the score that decides; None for accuracy, or for numbers Pearson's correlation.
        smoothing: share of a label that is spread over all classes.
        dropout: share of values that training drops, before each linear layer.

    Raises:
        ConfigError: an option does not exist, or does not go with the labels.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        center: float = 0.0,
        scale: float = 1.0,
        pool: str = "first",
        regression: bool = False,
        metric: str | None = None,
        smoothing: float = 0.0,
        dropout: float = 0.1,
    ) -> None:
        if regression and classes:
            raise ConfigError(
                f"task.regression=true learns numbers, and these labels are classes, such as {classes[0]}."
            )
        if not regression and not classes:
            raise ConfigError("task=text: the labels of this data are no classes. Numbers want task.regression=true.")
        super().__init__(
            backbone, classes or ("",), pool, norm="none", smoothing=smoothing, dropout=dropout, head_std=TOKEN_STD
        )
        self.settings = {
            "classes": list(classes), "center": center, "scale": scale, "pool": pool, "regression": regression,
            "metric": metric, "smoothing": smoothing, "dropout": dropout,
        }  # fmt: skip
        self.regression, self.center, self.scale = regression, center, scale
        self.decides = self._deciding(metric)
        self.larger_is_better = self.decides not in ERRORS
        self.last_norm = True  # the head has none of its own
        backbone.encoder.norm.requires_grad_(True)

    @classmethod
    def learn(cls, classes: Sequence[str], labels: Sequence[Label | None]) -> dict[str, Any]:
        """The names of the classes, or what numbers are like."""
        if classes or not all(isinstance(label, float) for label in labels):
            return super().learn(classes, labels)
        numbers = np.array(labels, dtype=float)
        return {"classes": [], "center": float(numbers.mean()), "scale": float(numbers.std())}

    def encode_label(self, label: Any) -> int | float | Tensor | None:
        """A class or number."""
        return float(label) if self.regression else super().encode_label(label)

    def name_label(self, label: Any) -> Any:
        """The class's name, or the number."""
        return label if self.regression else super().name_label(label)

    def forward(self, batch: Batch, mask: Mask | None = None) -> Output:
        """Cross-entropy, or the squared error of numbers."""
        if not self.regression:
            return super().forward(batch, mask)
        assert batch.labels is not None
        return Output(F.mse_loss(self.logits(batch, mask)[:, 0], (batch.labels - self.center) / self.scale))

    def predict(self, batch: Batch, views: int = 1) -> list[Record]:
        """Class, confidence and probabilities, or a number."""
        if not self.regression:
            return super().predict(batch, views)
        numbers = self.logits(batch).view(-1, views).mean(1) * self.scale + self.center
        return [{"prediction": number} for number in numbers.tolist()]

    def score(self, records: Sequence[Record]) -> dict[str, float]:
        """Accuracy, macro F1 and Matthews' correlation, of two classes also F1 of the last; or correlations of numbers.

        A correlation with what is always the same is 0.
        """
        truth, said = ([record[key] for record in records] for key in ("label", "prediction"))
        if not self.regression:
            one = len({*truth, *said}) == 1  # which sklearn warns of
            scores = super().score(records) | {"matthews": 0.0 if one else float(matthews_corrcoef(truth, said))}
            if len(self.classes) == 2:
                scores["f1"] = float(f1_score(truth, said, pos_label=self.classes[1], zero_division=0.0))
            return scores
        errors = np.subtract(truth, said)
        return {
            "pearson": _correlation(truth, said),
            "spearman": _correlation(_ranks(truth), _ranks(said)),
            "rmse": math.sqrt(float((errors**2).mean())),
        }

    def pictures(self, records: Sequence[Record], sample: Callable[[int], Sample]) -> dict[str, np.ndarray]:
        """The confusion matrix of classes."""
        return {} if self.regression else super().pictures(records, sample)

    def _new_head(self, width: int, std: float) -> nn.Module:
        dense = nn.Linear(width, width)
        nn.init.normal_(dense.weight, std=std)
        nn.init.zeros_(dense.bias)
        return nn.Sequential(dense, nn.Tanh(), nn.Dropout(self.dropout.p), super()._new_head(width, std))

    def _deciding(self, metric: str | None) -> str:
        known = ["pearson", "spearman", *ERRORS] if self.regression else ["accuracy", "macro_f1", "matthews"]
        if len(self.classes) == 2:
            known.append("f1")
        if metric is not None and metric not in known:
            raise ConfigError(
                f"task.metric={metric}: there is no such score of {'numbers' if self.regression else 'these classes'}."
                f"{nearest(metric, known)} Choose one of {', '.join(known)}."
            )
        return metric or known[0]


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(set(a)) > 1 and len(set(b)) > 1 else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: list[float] = (np.cumsum(counts) - (counts - 1) / 2)[which].tolist()
    return ranks
