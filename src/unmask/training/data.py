"""The training stream, and a few labelled samples to judge features by."""

import signal

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader

from unmask.address import Permutation, address
from unmask.data.source import Source
from unmask.data.stream import Item, Stream, StreamSampler, collate
from unmask.errors import BrokenSample
from unmask.modality.base import Modality
from unmask.schema import Batch


class PretrainData(L.LightningDataModule):
    """Batches of the stream from the step the trainer stands at.

    Args:
        train: what is trained on.
        test: held-out samples for probes and pictures.
        modality: makes the transforms.
        seed: the run's.
        global_batch: samples an optimiser step over all devices and accumulation.
        micro_batch: samples a device holds at once.
        num_workers: loader processes; the run is the same for any number.
    """

    def __init__(
        self,
        train: Source,
        test: Source,
        modality: Modality,
        seed: int,
        global_batch: int,
        micro_batch: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.train, self.test, self.seed = train, test, seed
        self.global_batch, self.micro_batch, self.num_workers = global_batch, micro_batch, num_workers
        self.stream = Stream(train, modality.transform(train=True), seed)
        self.still = modality.transform(train=False)

    def train_dataloader(self) -> DataLoader[Item]:
        """An endless loader; Lightning asks for it after a checkpoint is restored."""
        trainer = self.trainer
        assert trainer is not None
        sampler = StreamSampler(
            trainer.global_step, self.global_batch, self.micro_batch, trainer.global_rank, trainer.world_size
        )
        return DataLoader(
            self.stream,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            worker_init_fn=_leave_signals_to_the_trainer,
            pin_memory=torch.cuda.is_available(),
        )

    def samples(self, split: str, count: int) -> Batch | None:
        """Up to `count` unaugmented samples of `train` or `test`, picked by the seed; None if there are none."""
        source = self.train if split == "train" else self.test
        order = Permutation(len(source), address(self.seed, f"pick {split}"))
        items = []
        for position in range(len(source)):
            try:
                sample = source[order[position]]
            except BrokenSample:
                continue  # probes do with fewer; in training they are counted and named
            items.append(Item(self.still(sample), position, sample.label, ()))
            if len(items) == count:
                break
        return collate(items) if items else None


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C reaches the whole process group: workers must go on until the trainer has saved and lets them go."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
