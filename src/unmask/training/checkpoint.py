"""Checkpoints that survive a kill at any moment."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from unmask.files import written_whole

FOLDER, SUFFIX = "checkpoints", ".ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write aside, flush, rename. Read tensors and plain types only: a checkpoint never executes anything."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Whole or not at all."""
        with written_whole(Path(path)) as aside:
            torch.save(checkpoint, aside)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """Always with `weights_only`."""
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def newest_checkpoint(run: Path, before: int | None = None) -> Path | None:
    """A run folder's checkpoint of the latest step (before another), or None. Half-written files end otherwise."""
    found = (run / FOLDER).glob(f"step=*{SUFFIX}")
    return max((path for path in found if before is None or step_of(path) < before), default=None)


def step_of(checkpoint: Path | None) -> int:
    """The optimiser step that a checkpoint was saved after; 0 for none."""
    return 0 if checkpoint is None else int(checkpoint.stem.partition("=")[2])
