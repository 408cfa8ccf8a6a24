"""SimMIM and MaskFeat: an encoder that sees a mask token where something is hidden, and a linear head."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from unmask.backbone import Backbone
from unmask.errors import ConfigError, nearest
from unmask.masking.select import gather
from unmask.modality.base import spread
from unmask.modality.patches import PatchModality
from unmask.nn.init import init_normal
from unmask.objective.base import Objective
from unmask.schema import Batch, Mask, Output

TARGETS = ("pixel", "hog")
LOSSES = ("l1", "l2")


@runtime_checkable
class HasHog(Protocol):
    """A modality that knows histograms of oriented gradients of its tokens."""

    hog_size: int

    def hog_target(self, batch: Batch, mask: Mask) -> Tensor:
        """(B, H, hog_size) float32."""


class SimMIM(Objective):
    """Predict the hidden tokens' pixels (arXiv 2111.09886) or gradient histograms (MaskFeat, arXiv 2112.09133).

    Args:
        backbone: sees all places, with a mask token where hidden.
        target: `pixel`, the modality's input at the hidden tokens, or `hog`, for modalities made of pixels.
        loss: `l1` (SimMIM's) or `l2` (MaskFeat's, squared): mean over the hidden tokens and their values.
        normalize: predict each token's input by its own mean and deviation; of no effect on `hog`.

    Raises:
        ConfigError: there is no such target or loss, or the modality has no patches, or no gradients.
    """

    def __init__(self, backbone: Backbone, target: str, loss: str, normalize: bool) -> None:
        super().__init__()
        for key, value, options in (("target", target, TARGETS), ("loss", loss, LOSSES)):
            if value not in options:
                raise ConfigError(
                    f"objective.{key}={value}: there is no such option.{nearest(value, options)} "
                    f"Choose one of {', '.join(options)}."
                )
        modality = backbone.modality
        if not isinstance(modality, PatchModality):
            raise ConfigError(
                f"objective=simmim predicts patches, and modality={type(modality).__name__.lower()} has none. "
                "Use objective=mae, or for text objective=mlm."
            )
        size = modality.target_size
        if target == "hog":
            if not isinstance(modality, HasHog):
                raise ConfigError(
                    f"objective.target=hog needs the gradients of a picture, and {type(modality).__name__} has none. "
                    "Use objective.target=pixel, or modality=image."
                )
            size = modality.hog_size
        self.backbone, self.target, self.loss, self.normalize = backbone, target, loss, normalize
        self.mask_token = modality.new_mask_token()
        self.head = nn.Linear(backbone.encoder.width, size).apply(init_normal)

    def forward(self, batch: Batch, mask: Mask) -> Output:
        """Loss in float32; the target is a constant."""
        prediction, modality = self._predict(batch, mask), self.backbone.modality
        if self.target == "hog":
            assert isinstance(modality, HasHog)
            target = modality.hog_target(batch, mask)
        else:
            target = modality.target(batch, mask, self.normalize)
        prediction = prediction.float()
        error = (prediction - target).abs() if self.loss == "l1" else (prediction - target).square()
        return Output(
            mask.mean(error), {"target_std": spread(target, mask), "prediction_std": spread(prediction, mask)}
        )

    def predict(self, batch: Batch, mask: Mask) -> Tensor | None:
        """(B, H, P), or None for histograms."""
        return None if self.target == "hog" else self._predict(batch, mask)

    def _predict(self, batch: Batch, mask: Mask) -> Tensor:
        fill = self.backbone.modality.filling(batch, mask, self.mask_token)
        encoded = self.backbone.encode(batch, mask, fill, keep_hidden=True)
        prediction: Tensor = self.head(gather(encoded[:, self.backbone.prefix :], mask.hidden))
        return prediction
