"""The training stream: every number of workers, every split over ranks and accumulation, sees the same samples."""

import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from unmask.data.digits import Digits
from unmask.data.stream import Stream, StreamSampler, Subset, collate
from unmask.errors import BrokenSample, ConfigError
from unmask.modality.base import Transform
from unmask.modality.image import Image
from unmask.schema import Sample


class Bare(Transform):
    """The value as it is."""

    def __call__(self, sample: Sample) -> torch.Tensor:
        return sample.value


def first_positions(count: int, **arguments) -> list[int]:
    sampler = StreamSampler(**arguments)
    return [p for batch in itertools.islice(sampler, count) for p in batch]


def test_step_s_covers_positions_s_times_g():
    assert first_positions(3, start_step=0, global_batch=4, micro_batch=4) == list(range(12))
    assert first_positions(2, start_step=5, global_batch=4, micro_batch=4) == list(range(20, 28))


def test_accumulation_and_ranks_cover_the_same_positions():
    whole = first_positions(2, start_step=3, global_batch=12, micro_batch=12)
    assert first_positions(8, start_step=3, global_batch=12, micro_batch=3) == whole
    for micro in (2, 3, 6):
        steps = 2 * 12 // (2 * micro)
        ranks = [
            first_positions(steps, start_step=3, global_batch=12, micro_batch=micro, rank=r, world=2) for r in (0, 1)
        ]
        assert sorted(ranks[0] + ranks[1]) == whole


@pytest.fixture(scope="module")
def stream() -> Stream:
    image = Image(16, 8, 2, 1, [0.3], [0.3], crop_scale=0.5, flip=True)
    return Stream(Subset(Digits(), 50, seed=0), image.transform(train=True), seed=1)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_batches(stream: Stream, workers: int):
    def batches(num_workers: int) -> list:
        sampler = StreamSampler(0, 16, 16)
        loader = DataLoader(stream, batch_sampler=sampler, collate_fn=collate, num_workers=num_workers)
        return list(itertools.islice(loader, 6))

    for ours, theirs in zip(batches(0), batches(workers), strict=True):
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.positions, theirs.positions)
        assert torch.equal(ours.labels, theirs.labels)


def test_an_epoch_shows_every_sample_once_and_the_next_one_another_way(stream: Stream):
    first = sorted(stream.source[i].label for i in range(50))
    epochs = [[stream[p] for p in range(e * 50, (e + 1) * 50)] for e in (0, 1)]
    for items in epochs:
        assert sorted(item.label for item in items) == first
    assert [i.label for i in epochs[0]] != [i.label for i in epochs[1]]


def test_augmentation_leaves_the_global_generator_alone(stream: Stream):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    stream[0]
    assert torch.equal(torch.rand(3), expected)


def test_the_same_position_is_augmented_the_same_way_and_another_one_otherwise():
    class One:
        classes = ()

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Sample(torch.arange(400, dtype=torch.uint8).view(1, 20, 20) % 251, None)

    image = Image(16, 8, 2, 1, [0.3], [0.3], crop_scale=0.2)
    stream = Stream(One(), image.transform(train=True), seed=0)
    views = [stream[p].value for p in range(10)]
    assert all(torch.equal(stream[p].value, views[p]) for p in range(10))
    assert len({v.numpy().tobytes() for v in views}) == 10
    assert collate([stream[0], stream[1]]).labels is None


class HalfBroken:
    classes = ()

    def __init__(self, good: int) -> None:
        self.good = good

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Sample:
        if index >= self.good:
            raise BrokenSample(f"file{index}.jpg", "the file is empty")
        return Sample(torch.full((1, 2, 2), index, dtype=torch.uint8), None)


def test_a_broken_sample_is_replaced_the_same_way_each_time_and_named():
    stream = Stream(HalfBroken(20), Bare(), seed=0)
    items = [stream[p] for p in range(40)]
    assert all(item.value.max() < 20 for item in items)
    named = {line for item in items for line in item.broken}
    assert len(named) == 20
    assert "file39.jpg: the file is empty" in named
    assert [stream[p].value[0, 0, 0] for p in range(40)] == [item.value[0, 0, 0] for item in items]
    assert set(collate(items).broken) == named


def test_a_source_of_nothing_but_broken_samples_is_an_error():
    stream = Stream(HalfBroken(0), Bare(), seed=0)
    with pytest.raises(ConfigError, match="100 samples in a row cannot be read"):
        stream[0]


def test_digits_are_split_without_overlap():
    train, test = Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1437, 360)
    sample = train[0]
    assert sample.value.shape == (1, 8, 8)
    assert sample.value.dtype == torch.uint8
    assert sample.value.max() > 200


class Counted:
    """Ten numbers; keeps what was asked for."""

    classes = ()

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Sample:
        self.asked.append(index)
        return Sample(torch.tensor([float(index)]), None)


class Jitter(Transform):
    """Adds noise when read, and other noise each time it is seen."""

    def read(self, sample: Sample) -> Sample:
        return Sample(torch.cat([sample.value, torch.rand(1)]), sample.label)

    def __call__(self, sample: Sample) -> torch.Tensor:
        return torch.cat([sample.value, torch.rand(1)])


def test_repeats_read_a_sample_once_and_see_it_several_times():
    source = Counted()
    stream = Stream(source, Jitter(), seed=0, repeats=3)
    index, read, seen = torch.stack([stream[p].value for p in range(30)]).T
    assert len(source.asked) == 10
    assert sorted(source.asked) == list(range(10))
    assert (index.view(10, 3) == index.view(10, 3)[:, :1]).all()
    assert (read.view(10, 3) == read.view(10, 3)[:, :1]).all()
    assert len(set(read.tolist())) == 10
    assert len(set(seen.tolist())) == 30
    # An address, not a history: any order of asking gives the same.
    again = Stream(Counted(), Jitter(), seed=0, repeats=3)
    assert [again[p].value.tolist() for p in (29, 0, 14)] == [[index[p], read[p], seen[p]] for p in (29, 0, 14)]
