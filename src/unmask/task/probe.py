"""Judge frozen features: nearest neighbours, a linear classifier, and how many directions they use."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from unmask.schema import Batch

NEIGHBOURS = 10
CHUNK = 128  # samples encoded at once
INVERSE_REGULARISATION = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def encode_all(encode: Callable[[Batch], Tensor], batch: Batch, device: torch.device) -> np.ndarray:
    """(B, D) float32 features of a batch of any size, without gradients."""
    with torch.inference_mode():
        parts = [
            encode(Batch(inputs, positions).to(device)).float().cpu()
            for inputs, positions in zip(
                torch.split(batch.inputs, CHUNK), torch.split(batch.positions, CHUNK), strict=True
            )
        ]
    return torch.cat(parts).numpy()


def knn_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of test samples that the majority of the ten nearest (cosine) training samples gets right."""
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine", weights="distance")
    return float(neighbours.fit(train, train_labels).score(test, test_labels))


def linear_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Test accuracy of logistic regression on standardised features, regularised as cross-validation likes best."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = max(2, min(5, np.bincount(train_labels).min()))
    search = GridSearchCV(classifier, {"logisticregression__C": INVERSE_REGULARISATION}, cv=folds)
    return float(search.fit(train, train_labels).score(test, test_labels))


def effective_rank(features: np.ndarray) -> float:
    """exp(entropy of the normalised singular values) of centred features (B, D): 1 when collapsed, at most D."""
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = values / max(values.sum(), np.finfo(np.float32).tiny)
    return float(np.exp(-(share * np.log(np.maximum(share, np.finfo(np.float32).tiny))).sum()))
