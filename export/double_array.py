"""A set of byte strings as a double-array trie: two reads per byte of a look-up, and nothing to unpack."""

from collections import deque
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

_ENDS = 1 << 23
_TAIL = 1 << 22
_CLASSES = 9
_GROWTH = 4096
_PATIENCE = 16


def double_array(strings: Sequence[bytes]) -> NDArray[np.uint32]:
    """The trie that `moembed.export.vocabulary` describes; a string's id is its index.

    Args:
        strings: distinct, not empty, without NUL, at most 2**20.

    Returns:
        `[m]` units; equal strings in equal order give equal units.
    """
    order = sorted(range(len(strings)), key=strings.__getitem__)
    places = _Places()
    units = places.units
    queue = deque([(0, 0, len(strings), 0)])
    while queue:
        place, first, last, depth = queue.popleft()
        if last - first == 1:
            units[place] |= _TAIL | order[first]
            continue
        ends = len(strings[order[first]]) == depth
        children = groupby(range(first + ends, last), key=lambda i: strings[order[i]][depth])
        ranges = [(byte, list(group)) for byte, group in children]
        base = places.take([0] * ends + [byte for byte, _ in ranges])
        units[place] |= base
        if ends:
            units[place] |= _ENDS
            units[base] = order[first]
        for byte, group in ranges:
            units[base + byte] = byte << 24
            queue.append((base + byte, group[0], group[-1] + 1, depth + 1))
    return np.array(units[: places.last + 1], np.uint32)


class _Places:
    """Which places of the array are free, as a ring; place 0, the root's, is its anchor.

    Attributes:
        units: the array, 0 where free.
        last: the last place in use.
    """

    def __init__(self) -> None:
        self.units = [0]
        self.last = 0
        self._taken = bytearray([1])
        self._after, self._before = [0], [0]
        self._bases: set[int] = set()
        # Where nodes of so many children are tried first: what was too narrow for one is left to those of fewer.
        self._hints = [0] * _CLASSES

    def take(self, labels: Sequence[int]) -> int:
        """Take the places of a node's children, and return the base that no other node has."""
        size = min(len(labels), _CLASSES - 1)
        place, tried = self._hints[size] or self._after[0], 0
        while True:
            tried += 1
            if place == 0:
                place = self._grow()
            base = place - labels[0]
            if base > 0 and base not in self._bases and all(self._is_free(base + label) for label in labels):
                break
            place = self._after[place]
        if tried > _PATIENCE:
            self._hints[size] = place
        self._bases.add(base)
        for label in labels:
            self._remove(base + label)
        return base

    def _is_free(self, place: int) -> bool:
        while place >= len(self.units):
            self._grow()
        return not self._taken[place]

    def _grow(self) -> int:
        first, count = len(self.units), len(self.units) + _GROWTH
        self.units += [0] * _GROWTH
        self._taken += bytes(_GROWTH)
        self._after += [*range(first + 1, count), 0]
        self._before += [self._before[0], *range(first, count - 1)]
        self._after[self._before[0]] = first
        self._before[0] = count - 1
        return first

    def _remove(self, place: int) -> None:
        after, before = self._after[place], self._before[place]
        self._after[before], self._before[after] = after, before
        if place in self._hints:
            self._hints = [after if hint == place else hint for hint in self._hints]
        self._taken[place] = 1
        self.last = max(self.last, place)
