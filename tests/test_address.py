"""Addressed randomness: bijective orders, equal hashes, uniform noise."""

import numpy as np
import pytest
import torch

from unmask.address import Permutation, address, mix, mix_tensor, noise, shuffled_index


def test_mix_is_the_published_splitmix64():
    # The first outputs for seed 1234567, as published with the algorithm (state advances by the golden ratio).
    golden = 0x9E3779B97F4A7C15
    outputs = [mix((1234567 + i * golden) % 2**64) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_tensors_hash_as_integers_do():
    values = [0, 1, 2, 12345, 2**31, 2**62, 2**63 - 1]
    hashed = mix_tensor(torch.tensor(values)).tolist()
    assert [h % 2**64 for h in hashed] == [mix(v) for v in values]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 65, 1000, 1797, 4096, 60_000])
def test_a_permutation_visits_everything_once(n: int):
    order = Permutation(n, key=99)
    assert sorted(order[i] for i in range(n)) == list(range(n))


@pytest.mark.parametrize("n", [10**6, 10**9, 2**33 + 1])
def test_a_large_permutation_repeats_nothing_in_a_sample(n: int):
    order = Permutation(n, key=5)
    start = n // 3
    seen = [order[i] for i in range(start, start + 20_000)]
    assert len(set(seen)) == len(seen)
    assert 0 <= min(seen) < max(seen) < n


def test_a_permutation_spreads_evenly():
    order = Permutation(1000, key=1)
    where = np.array([order[i] for i in range(1000)])
    assert abs(np.corrcoef(where, np.arange(1000))[0, 1]) < 0.1
    halves = [(where[:500] < 500).sum(), (where[500:] < 500).sum()]
    assert all(200 < half < 300 for half in halves)


def test_each_epoch_has_its_own_order_over_the_same_samples():
    first = [shuffled_index(0, p, 50) for p in range(50)]
    second = [shuffled_index(0, p, 50) for p in range(50, 100)]
    other_seed = [shuffled_index(1, p, 50) for p in range(50)]
    assert sorted(first) == sorted(second) == sorted(other_seed) == list(range(50))
    assert first != second
    assert first != other_seed


def test_noise_depends_on_the_position_and_not_on_the_batch_it_comes_in():
    whole = noise(3, "mask", torch.arange(100), 49)
    assert torch.equal(whole[40:60], noise(3, "mask", torch.arange(40, 60), 49))
    assert not torch.equal(whole, noise(3, "blocks", torch.arange(100), 49))
    assert not torch.equal(whole, noise(4, "mask", torch.arange(100), 49))


def test_noise_is_uniform_and_uncorrelated():
    draws = noise(0, "mask", torch.arange(4000), 50).double()
    counts = torch.histc(draws.flatten(), bins=100, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum().item()
    assert chi_square < 150  # 99 degrees of freedom: 0.1 % beyond 149
    assert draws.min() >= 0
    assert draws.max() < 1
    correlation = np.corrcoef(draws.T.numpy()) - np.eye(50)
    assert np.abs(correlation).max() < 0.09  # five standard errors of 1 / sqrt(4000)
    neighbours = np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]
    assert abs(neighbours) < 0.08


def test_addresses_differ_in_every_word():
    seen = {address(s, p, a, b) for s in range(10) for p in ("x", "y") for a in range(10) for b in range(10)}
    assert len(seen) == 2000
