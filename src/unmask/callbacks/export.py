"""The part that is used afterwards, in a folder of its own."""

from pathlib import Path

import lightning.pytorch as L

from unmask.training.module import PretrainModule


class ExportBackbone(L.Callback):
    """Write `backbone/` as safetensors and JSON at the end of training, early or not."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Rank 0 writes."""
        assert isinstance(pl_module, PretrainModule)
        with pl_module.judged() as objective:
            if trainer.is_global_zero:
                objective.backbone.save(Path(trainer.default_root_dir) / "backbone")
