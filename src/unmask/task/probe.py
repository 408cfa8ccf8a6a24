"""Judge frozen features: nearest neighbours, a linear classifier, and how many directions they use."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from unmask.schema import Batch

NEIGHBOURS = 10
CHUNK, CHUNK_VALUES = 128, 2_000_000  # samples encoded at once, and values of them: eight clips of 15 seconds
INVERSE_REGULARISATION = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def encode_all(encode: Callable[[Batch], Tensor], batch: Batch, device: torch.device) -> np.ndarray:
    """(B, D) float32 features of a batch of any size, without gradients."""
    rows = min(CHUNK, max(1, CHUNK_VALUES // batch.inputs[0].numel()))
    with torch.inference_mode():
        parts = [
            encode(batch.rows(start, start + rows).to(device)).float().cpu() for start in range(0, len(batch), rows)
        ]
    return torch.cat(parts).numpy()


def knn_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of test samples that `nearest_neighbours` names right."""
    return float((nearest_neighbours(train, train_labels, test) == test_labels).mean())


def linear_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of test samples that `linear_classifier` names right."""
    return float((linear_classifier(train, train_labels, test) == test_labels).mean())


def nearest_neighbours(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Classes of test samples by a vote of the ten nearest (cosine) training samples, the nearer the weightier."""
    neighbours = KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine", weights="distance")
    predicted: np.ndarray = neighbours.fit(train, labels).predict(test)
    return predicted


def linear_classifier(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class of each test sample by logistic regression, regularised as cross-validation likes best.

    Features are standardised one by one; where there are more of them than samples, as a bag of words has, by one
    number for all: else words that occur once would be as loud as those that occur everywhere.
    """
    scaler: StandardScaler | str = StandardScaler()
    if train.shape[1] > len(train):
        # The classifier only sees directions that the training samples span, so fewer numbers say the same.
        components = PCA().fit(train)
        train, test = components.transform(train), components.transform(test)
        scaler, unit = "passthrough", max(float(train.std(0).max()), np.finfo(np.float32).tiny)
        train, test = train / unit, test / unit
    classifier = make_pipeline(scaler, LogisticRegression(max_iter=1000))
    fewest = np.unique(labels, return_counts=True)[1].min()
    if fewest >= 2:  # else there is nothing to validate on
        classifier = GridSearchCV(
            classifier, {"logisticregression__C": INVERSE_REGULARISATION}, cv=StratifiedKFold(min(5, fewest))
        )
    predicted: np.ndarray = classifier.fit(train, labels).predict(test)
    return predicted


def effective_rank(features: np.ndarray) -> float:
    """exp(entropy of the normalised singular values) of centred features (B, D): how many directions they use.

    From 1 (all on a line) to D. Features that are all but equal differ by noise in every direction, so look at their
    deviation too.
    """
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = values / max(values.sum(), np.finfo(np.float32).tiny)
    return float(np.exp(-(share * np.log(np.maximum(share, np.finfo(np.float32).tiny))).sum()))
