"""What the runner asks of every objective."""

from abc import ABC, abstractmethod

from torch import Tensor

from unmask.backbone import Learner
from unmask.schema import Batch, Mask, Output


class Objective(Learner, ABC):
    """A backbone, a head, a loss.

    Attributes:
        backbone: what is being pretrained.
        normalize: whether reconstruction targets are normalised token by token.
        masks_per_sample: M; `forward` gets a mask of M rows for each sample of the batch, those of a sample in a row.
    """

    normalize: bool = False
    masks_per_sample: int = 1

    @abstractmethod
    def forward(self, batch: Batch, mask: Mask) -> Output:
        """The loss at hidden tokens."""

    def predict(self, batch: Batch, mask: Mask) -> Tensor | None:
        """(B, H, P) the reconstruction at hidden tokens, in the target's units; None where the input is not rebuilt."""
        return None

    def after_step(self, step: int) -> None:
        """Called after every optimiser step with the number of steps done, this one included."""

    def views(self, batch: Batch) -> dict[str, Tensor]:
        """(B, N, D) features of whole samples by name, to be watched for collapse: always `local` and `student`."""
        local = self.backbone.modality.embed(batch)
        return {"local": local, "student": self.backbone.encode(batch, local=local)[:, self.backbone.prefix :]}
