"""Which class a sample is of, or which classes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, confusion_matrix, f1_score
from torch import Tensor, nn

from unmask.backbone import Backbone
from unmask.errors import ConfigError, nearest
from unmask.modality.text import Text
from unmask.schema import Batch, Label, Mask, Output, Sample
from unmask.task.base import Record, Task
from unmask.task.confusion import confusion_picture
from unmask.task.mixing import cutmix, mixup

POOLS = ("mean", "first", "class", "linear_softmax")
NORMS = ("layer", "batch", "none")
TOP = 5


class Classification(Task):
    """One feature of a sample, a norm, a linear layer; cross-entropy, or for several classes a sample binary.

    Args:
        backbone: encodes samples.
        classes: their names.
        pool: `mean` of the grid tokens (MAE's fine-tuning: without the norm after pre-norm blocks), the `first` of
            them, the `class` token, or `linear_softmax`: each class by Σp²/Σp of its probabilities p at the tokens
            (data2vec on AudioSet).
        norm: of the feature: `layer`, `batch` (without parameters, as in linear probes of MAE) or none.
        multi_label: a sample may be of several classes or of none.
        smoothing: share of a label that is spread over all classes.
        mixup: α of Beta(α, α); 0 for none.
        cutmix: likewise; where both are given each step takes one of them.
        mix_share: share of steps that mix.
        dropout: share of the feature that training drops.
        head_std: deviation of the linear layer's first weights.

    Raises:
        ConfigError: an option does not exist, or does not go with the backbone.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: Sequence[str],
        pool: str = "mean",
        norm: str = "layer",
        multi_label: bool = False,
        smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_share: float = 1.0,
        dropout: float = 0.0,
        head_std: float = 2e-5,
    ) -> None:
        super().__init__()
        for key, value, options in (("pool", pool, POOLS), ("norm", norm, NORMS)):
            if value not in options:
                raise ConfigError(
                    f"task.{key}={value}: there is no such option.{nearest(value, options)} "
                    f"Choose one of {', '.join(options)}."
                )
        if pool == "class" and not backbone.prefix:
            raise ConfigError("task.pool=class needs a class token, and this backbone has none. Use task.pool=mean.")
        if (mixup or cutmix) and isinstance(backbone.modality, Text):
            raise ConfigError("task.mixup and task.cutmix mix pixels or sounds, and this modality has words.")
        if cutmix and len(backbone.modality.grid) < 2:
            raise ConfigError("task.cutmix cuts rectangles, and these samples have one axis. Use task.mixup.")
        if (mixup or cutmix) and pool == "linear_softmax":
            raise ConfigError("task.pool=linear_softmax does not go with mixed samples. Set both to 0.")
        self.settings = {
            "classes": list(classes), "pool": pool, "norm": norm, "multi_label": multi_label, "smoothing": smoothing,
            "mixup": mixup, "cutmix": cutmix, "mix_share": mix_share, "dropout": dropout, "head_std": head_std,
        }  # fmt: skip
        self.backbone, self.classes = backbone, tuple(classes)
        self.pool, self.multi_label, self.smoothing = pool, multi_label, smoothing
        self.mixup, self.cutmix, self.mix_share = mixup, cutmix, mix_share
        self.decides = "mAP" if multi_label else "accuracy"
        width = backbone.encoder.width
        self.last_norm = pool in ("class", "first") or not backbone.encoder.style.norm_first
        if not self.last_norm:
            backbone.encoder.norm.requires_grad_(False)  # not used
        norms = {"layer": nn.LayerNorm(width, eps=backbone.encoder.style.norm_eps), "none": nn.Identity()}
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if norm == "batch" else norms[norm]
        self.dropout = nn.Dropout(dropout)
        self.head = self._new_head(width, head_std)

    @classmethod
    def learn(cls, classes: Sequence[str], labels: Sequence[Label | None]) -> dict[str, Any]:
        """The names of the classes."""
        if not classes:
            raise ConfigError("task=classification needs classes, and this data has none. Give one with class folders.")
        if len(classes) < 2:
            raise ConfigError(f"task=classification: all samples are of one class, {classes[0]}. Give two or more.")
        return {"classes": list(classes)}

    def encode_label(self, label: Any) -> int | float | Tensor | None:
        """A class, or zeros and ones for several."""
        if not self.multi_label:
            return label if isinstance(label, int) else None
        chosen = torch.zeros(len(self.classes))
        chosen[list(label if isinstance(label, tuple) else (label,))] = 1
        return chosen

    def name_label(self, label: Any) -> Any:
        """The class's name; several behind each other."""
        return "|".join(self.classes[i] for i in label) if isinstance(label, tuple) else self.classes[label]

    def forward(self, batch: Batch, mask: Mask | None = None) -> Output:
        """Cross-entropy of shares of classes, a mean over samples; binary, over classes too."""
        assert batch.labels is not None
        shares = batch.labels
        if not self.multi_label:
            shares = F.one_hot(shares, len(self.classes)).float()
        if self.training and (self.mixup or self.cutmix) and (self.mix_share == 1 or torch.rand(()) < self.mix_share):
            batch, shares = self._mixed(batch, shares)
        logits = self.logits(batch, mask)
        right = (logits.detach().argmax(1) == shares.argmax(1)).float().mean()
        if self.multi_label:
            return Output(F.binary_cross_entropy_with_logits(logits, shares))
        return Output(F.cross_entropy(logits, shares, label_smoothing=self.smoothing), {"accuracy": right})

    def logits(self, batch: Batch, mask: Mask | None = None) -> Tensor:
        """(B, C) float32."""
        tokens, prefix = self.tokens(batch, mask, last_norm=self.last_norm), self.backbone.prefix
        if self.pool == "class":
            return self._head(tokens[:, 0])
        if self.pool == "first":  # never hidden where it is <s>
            return self._head(tokens[:, prefix])
        grid, real = tokens[:, prefix:], self.backbone.modality.real(batch)
        weight = torch.ones_like(grid[..., :1]) if real is None else real[..., None].to(grid.dtype)
        if mask is not None and real is not None:
            weight = weight.gather(1, mask.visible[..., None])
        if self.pool == "mean":
            return self._head((grid * weight).sum(1) / weight.sum(1))
        log_p = F.logsigmoid(self._head(grid.flatten(0, 1)).view(*grid.shape[:2], -1))
        log_p = log_p.masked_fill(weight == 0, float("-inf"))
        share = (2 * log_p).logsumexp(1) - log_p.logsumexp(1)  # log Σp²/Σp
        return share - torch.log1p(-share.exp().clamp(max=1 - 1e-6))  # as logits

    def predict(self, batch: Batch, views: int = 1) -> list[Record]:
        """Class, confidence and the probability of every class; views are averaged."""
        logits = self.logits(batch)
        shares = (logits.sigmoid() if self.multi_label else logits.softmax(1)).view(-1, views, len(self.classes))
        best, which = shares.mean(1).max(1)
        return [
            {"prediction": self.classes[i], "confidence": float(p), "probabilities": row}
            for i, p, row in zip(which.tolist(), best.tolist(), shares.mean(1).tolist(), strict=True)
        ]

    def score(self, records: Sequence[Record]) -> dict[str, float]:
        """Accuracy (top 1 and 5) and macro F1.

        Of several classes a sample mean average precision over classes, and how often the likeliest is one of them.
        """
        table = np.array([record["probabilities"] for record in records])
        if self.multi_label:
            truth = np.array([[name in str(r["label"]).split("|") for name in self.classes] for r in records])
            there = truth.any(0)
            precision = float(average_precision_score(truth[:, there], table[:, there])) if there.any() else 0.0
            return {"mAP": precision, "top1": float(truth[np.arange(len(truth)), table.argmax(1)].mean())}
        index = {name: i for i, name in enumerate(self.classes)}
        truth = np.array([index[record["label"]] for record in records])
        best = table.argmax(1)
        scores = {"accuracy": float((best == truth).mean()), "macro_f1": float(f1_score(truth, best, average="macro"))}
        if len(self.classes) > TOP:
            top = np.argpartition(-table, TOP - 1, axis=1)[:, :TOP]
            scores["top5_accuracy"] = float((top == truth[:, None]).any(1).mean())
        return scores

    def pictures(self, records: Sequence[Record], sample: Callable[[int], Sample]) -> dict[str, np.ndarray]:
        """The confusion matrix; rows are what is true."""
        if self.multi_label:
            return {}
        truth, said = ([record[key] for record in records] for key in ("label", "prediction"))
        matrix = confusion_matrix(truth, said, labels=list(self.classes))
        return {"confusion": confusion_picture(matrix, self.classes)}

    def _new_head(self, width: int, std: float) -> nn.Module:
        head = nn.Linear(width, len(self.classes))
        nn.init.normal_(head.weight, std=std)
        nn.init.zeros_(head.bias)
        return head

    def _head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.norm(features))).float()
        return logits

    def _mixed(self, batch: Batch, shares: Tensor) -> tuple[Batch, Tensor]:
        cut = self.cutmix > 0 and (self.mixup == 0 or bool(torch.rand(()) < 0.5))
        mix, alpha = (cutmix, self.cutmix) if cut else (mixup, self.mixup)
        inputs, shares = mix(batch.inputs, shares, alpha)
        return replace(batch, inputs=inputs), shares
