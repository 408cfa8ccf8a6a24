"""Masked language modelling: name the hidden tokens (BERT, arXiv 1810.04805, as trained by RoBERTa, 1907.11692)."""

from torch import Tensor

from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.modality.text import Text
from unmask.nn.word_head import WordHead
from unmask.objective.base import Objective
from unmask.schema import Batch, Mask, Output


class MLM(Objective):
    """Cross-entropy at the hidden tokens, by a head tied to the embedding.

    Args:
        backbone: sees all places, with the modality's filling where hidden.

    Raises:
        ConfigError: the modality has no vocabulary.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        if not isinstance(backbone.modality, Text):
            raise ConfigError(
                f"objective=mlm predicts words, and modality={type(backbone.modality).__name__.lower()} has none. "
                "Use objective=mae."
            )
        self.backbone = backbone
        encoder = backbone.encoder
        self.head = WordHead(encoder.width, backbone.modality.tokens, encoder.style.norm_eps)

    def forward(self, batch: Batch, mask: Mask) -> Output:
        """Loss in float32."""
        return self.backbone.modality.reconstruction_loss(self.predict(batch, mask), batch, mask, self.normalize)

    def predict(self, batch: Batch, mask: Mask) -> Tensor:
        """(B, H, P) logits."""
        modality = self.backbone.modality
        assert isinstance(modality, Text)
        fill = modality.filling(batch, mask, None)
        encoded = self.backbone.encode(batch, mask, fill, keep_hidden=True)
        hidden = gather(encoded[:, self.backbone.prefix :], mask.hidden)
        logits: Tensor = self.head(hidden)
        return logits
