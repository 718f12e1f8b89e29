"""Random damage to the bytes of a file, as caused by disks, networks and users."""

import numpy as np


def flip_bit(data, at, rng):
    data[at] ^= 1 << rng.integers(8)


def change_byte(data, at, rng):
    data[at] = (data[at] + rng.integers(1, 256)) % 256


def truncate(data, at, rng):
    del data[at:]


def insert(data, at, rng):
    data[at:at] = rng.bytes(rng.integers(1, 65))


def remove(data, at, rng):
    del data[at : at + rng.integers(1, 65)]


def zero_range(data, at, rng):
    stop = min(len(data), at + int(rng.integers(1, 65)))
    data[at:stop] = bytes(stop - at)


def swap_blocks(data, at, rng):
    size = int(rng.integers(1, 33))
    other = int(rng.integers(len(data)))
    low, high = sorted((at, other))
    size = min(size, high - low, len(data) - high)
    data[low : low + size], data[high : high + size] = data[high : high + size], data[low : low + size]


KINDS = (flip_bit, change_byte, truncate, insert, remove, zero_range, swap_blocks)


def damaged(content: bytes, rng: np.random.Generator, start: int = 0, stop: int | None = None) -> bytes:
    """The content with one random damage that begins in ``[start, stop)`` and changes at least one byte."""
    stop = len(content) if stop is None else stop
    while True:
        data = bytearray(content)
        rng.choice(KINDS)(data, int(rng.integers(start, stop)), rng)
        if data != content:
            return bytes(data)
