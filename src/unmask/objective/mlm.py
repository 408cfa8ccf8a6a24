"""Masked language modelling: name the hidden tokens (BERT, arXiv 1810.04805, as trained by RoBERTa, 1907.11692)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.masking.select import gather
from unmask.modality.text import Text
from unmask.nn.init import init_normal
from unmask.objective.base import Objective
from unmask.schema import Batch, Mask, Output


class MLM(Objective):
    """Cross-entropy at the hidden tokens, by a head whose last matrix is the embedding's.

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
        width, eps = backbone.encoder.width, backbone.encoder.style.norm_eps
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=eps)).apply(init_normal)
        self.bias = nn.Parameter(torch.zeros(backbone.modality.target_size))

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
        return F.linear(self.head(hidden), modality.tokens.weight, self.bias)
