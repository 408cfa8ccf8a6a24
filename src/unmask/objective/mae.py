"""Masked autoencoder: encode what is visible, reconstruct what is hidden (arXiv 2111.06377)."""

from collections.abc import Sequence

from torch import Tensor

from unmask.backbone import Backbone
from unmask.errors import ConfigError
from unmask.nn.decoder import TransformerDecoder
from unmask.nn.local_decoder import LocalDecoder
from unmask.objective.base import Objective
from unmask.schema import Batch, Mask, Output


class MAE(Objective):
    """The modality's reconstruction loss (squared error; cross-entropy for text) over the hidden tokens of the batch.

    Args:
        backbone: sees the visible tokens only.
        decoder_width: W, divisible by four.
        decoder_depth: blocks.
        decoder_heads: attention heads.
        decoder_window: tokens along each axis of the grid that a decoder's token looks at (Audio-MAE); None for all.
        decoder_shift: by how many tokens the windows of every second block are shifted.
        decoder_class_token: the decoder looks at a class token of its own, and not at the encoder's (mae_st).
        normalize: predict each patch by its own mean and deviation (the paper's norm_pix_loss).

    Raises:
        ConfigError: the decoder cannot have a class token of its own.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
        normalize: bool,
        decoder_window: Sequence[int] | None = None,
        decoder_shift: Sequence[int] = (2, 0),
        decoder_class_token: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalize = normalize
        modality = backbone.modality
        shape = (
            backbone.encoder.width,
            decoder_width,
            modality.position(decoder_width),
            backbone.prefix,
            decoder_depth,
            decoder_heads,
            modality.head,
        )
        if decoder_class_token and (decoder_window is not None or not backbone.prefix):
            why = f"objective.decoder_window={decoder_window}" if backbone.prefix else "model.class_token=false"
            raise ConfigError(
                f"objective.decoder_class_token=true: with {why} no class token is in the decoder. Set it to false."
            )
        self.decoder = (
            TransformerDecoder(*shape, decoder_class_token, modality.class_position)
            if decoder_window is None
            else LocalDecoder(*shape, modality.grid, decoder_window, decoder_shift)
        )

    def forward(self, batch: Batch, mask: Mask) -> Output:
        """Loss in float32; the target is a constant."""
        modality = self.backbone.modality
        mask = modality.keep(batch, mask)
        return modality.reconstruction_loss(self.predict(batch, mask), batch, mask, self.normalize)

    def predict(self, batch: Batch, mask: Mask) -> Tensor:
        """(B, H, P)."""
        return self.decoder(self.backbone.encode(batch, mask), mask, self.backbone.modality.real(batch))
