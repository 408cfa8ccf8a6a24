"""Randomness is addressed, not consumed: every draw is a pure function of (seed, purpose, position, ...).

So a resumed run, another number of workers, another split over devices or accumulation steps sees the same masks,
crops and order, bit for bit. The hash is splitmix64's finaliser (Steele, Lea and Flood, 2014), applied
once per word of the address; int64 tensors wrap, so every device gives the same bits.
"""

import zlib

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX1, _MIX2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(value: int) -> int:
    """The splitmix64 step on an integer taken modulo 2**64."""
    value = (value + _GOLDEN) & _MASK64
    value = ((value ^ (value >> 30)) * _MIX1) & _MASK64
    value = ((value ^ (value >> 27)) * _MIX2) & _MASK64
    return value ^ (value >> 31)


def address(seed: int, purpose: str, *words: int) -> int:
    """One 64-bit number for (seed, purpose, words...)."""
    state = mix(seed & _MASK64) ^ zlib.crc32(purpose.encode())
    for word in words:
        state = mix(state) ^ (word & _MASK64)
    return mix(state)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own copies the sign bit."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def mix_tensor(value: Tensor) -> Tensor:
    """`mix` on an int64 tensor, bit for bit (unsigned values seen as signed)."""
    value = value + _signed(_GOLDEN)
    value = (value ^ _shift(value, 30)) * _signed(_MIX1)
    value = (value ^ _shift(value, 27)) * _signed(_MIX2)
    return value ^ _shift(value, 31)


def noise(seed: int, purpose: str, positions: Tensor, count: int) -> Tensor:
    """`count` uniform draws in [0, 1) for each sample position.

    Args:
        seed: the run's seed.
        purpose: keeps the draws for one use apart from those for another.
        positions: (B,) int64, sample positions in the training stream.
        count: draws a sample.

    Returns:
        (B, count) float32, multiples of 2**-24.
    """
    start = _signed(mix(seed & _MASK64) ^ zlib.crc32(purpose.encode()))
    rows = mix_tensor(mix_tensor(torch.full_like(positions, start)) ^ positions)
    columns = torch.arange(count, device=positions.device)
    return _shift(mix_tensor(rows[:, None] ^ mix_tensor(columns)), 40).float() * 2.0**-24


class Permutation:
    """A shuffled order of 0..n-1 in constant memory: a Feistel network with cycle walking.

    The network permutes the next power of two; a value outside 0..n-1 is sent through again until it lands inside
    (fewer than two rounds on average), which keeps it a bijection. A billion samples cost what a thousand do.
    """

    def __init__(self, n: int, key: int) -> None:
        bits = max(2, (n - 1).bit_length())
        self.n = n
        self._low_bits = bits // 2
        self._low = (1 << self._low_bits) - 1
        self._high = (1 << (bits - self._low_bits)) - 1
        self._keys = [mix(key ^ round_) for round_ in range(6)]

    def __getitem__(self, i: int) -> int:
        assert 0 <= i < self.n
        while True:
            low, high = i & self._low, i >> self._low_bits
            for even, odd in zip(self._keys[::2], self._keys[1::2], strict=True):
                high ^= mix(low ^ even) & self._high
                low ^= mix(high ^ odd) & self._low
            i = high << self._low_bits | low
            if i < self.n:
                return i


def shuffled_index(seed: int, position: int, n: int) -> int:
    """Which of n samples stands at a position of the endless training stream: each epoch has its own order."""
    epoch, offset = divmod(position, n)
    return Permutation(n, address(seed, "order", epoch))[offset]
