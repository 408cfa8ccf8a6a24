"""Augmentation of fine-tuning: how strong, how often, where."""

import pytest
import torch

from unmask.task import augment
from unmask.task.augment import Erase, RandAugment, Stripes


def test_changes_are_as_strong_and_as_many_as_told(monkeypatch: pytest.MonkeyPatch):
    drawn: list[float] = []

    def change(count: int, magnitude: int, num_magnitude_bins: int):
        drawn.append(10 * magnitude / (num_magnitude_bins - 1))
        return lambda pixels: pixels

    monkeypatch.setattr(augment.v2, "RandAugment", change)
    torch.manual_seed(0)
    for _ in range(2000):
        RandAugment(9, 0.5)(torch.zeros(3, 8, 8))
    strength = torch.tensor(drawn)
    assert len(drawn) == pytest.approx(2000, rel=0.05)  # two, each for half of the samples
    assert float(strength.mean()) == pytest.approx(9, abs=0.05)
    assert float(strength.std()) == pytest.approx(0.5, abs=0.05)
    assert float(strength.max()) <= 10


@pytest.mark.parametrize("shape", [(3, 24, 20), (1, 24, 20), (4, 3, 24, 20)])
def test_changed_pixels_are_still_pixels_and_a_full_magnitude_changes_more(shape: tuple[int, ...]):
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)

    def change(magnitude: float) -> float:
        made = [RandAugment(magnitude)(pixels) for _ in range(60)]
        assert all(one.shape == shape and one.dtype == torch.uint8 for one in made)
        return sum(float((one.float() - pixels.float()).abs().mean()) for one in made)

    assert change(10) > 1.3 * change(1)


def test_one_rectangle_becomes_noise_the_same_in_all_frames():
    pixels = torch.full((5, 3, 60, 40), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    for _ in range(30):
        changed = (Erase(1.0)(pixels) != pixels).any(1)  # a channel of the noise may be 255 itself
        rows, columns = changed.any(0).any(1), changed.any(0).any(0)
        box = rows[:, None] & columns
        assert torch.equal(changed, box.expand(5, 60, 40)) or float(changed.float().sum()) > 0.99 * 5 * int(box.sum())
        assert 0.015 < float(box.float().mean()) < 0.36
    assert bool((pixels == 255).all())


def test_the_share_of_erased_samples_is_kept():
    pixels = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    erased = sum(not torch.equal(Erase(0.25)(pixels), pixels) for _ in range(1000))
    assert erased == pytest.approx(250, abs=45)


def test_stripes_are_zero_everywhere_else_nothing_changes():
    torch.manual_seed(0)
    energies = torch.rand(64, 16) + 1
    times, bands = set(), set()
    for _ in range(400):
        changed = Stripes(20, 6)(energies) == 0
        rows, columns = changed.all(1), changed.all(0)
        assert torch.equal(changed, rows[:, None] | columns)
        for lines, widths in ((rows, times), (columns, bands)):
            where = lines.nonzero().flatten().tolist()
            assert where == list(range(where[0], where[-1] + 1)) if where else True
            widths.add(len(where))
    assert times == set(range(21))
    assert bands == set(range(7))
    assert bool((energies > 0).all())


def test_a_stripe_wider_than_the_clip_is_at_most_the_clip():
    torch.manual_seed(0)
    assert all(Stripes(100, 0)(torch.ones(8, 4)).shape == (8, 4) for _ in range(50))
