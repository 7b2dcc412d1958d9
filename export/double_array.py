"""Double-array trie of a set of byte strings: a look-up takes two reads per byte and needs no unpacking."""

from collections import deque
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

_ENDS = 1 << 23
_TAIL = 1 << 22
_HINT_COUNT = 9
_GROWTH = 4096
_MAX_TRIES = 16  # after which the search for a place starts further on the next time


def double_array(strings: Sequence[bytes]) -> NDArray[np.uint32]:
    """Build the trie that `moembed.export.vocabulary` describes; a string's id is its index.

    Args:
        strings: distinct strings, not empty, without NUL, at most 2**20.

    Returns:
        `[m]` units; equal strings in equal order give equal units.
    """
    order = sorted(range(len(strings)), key=strings.__getitem__)
    slots = _Slots()
    units = slots.units
    queue = deque([(0, 0, len(strings), 0)])
    while queue:
        node, first, last, depth = queue.popleft()
        if last - first == 1:
            units[node] |= _TAIL | order[first]
            continue
        labels, id_of_end = [], None
        if len(strings[order[first]]) == depth:
            labels, id_of_end, first = [0], order[first], first + 1
        children = [
            (byte, list(group)) for byte, group in groupby(range(first, last), key=lambda i: strings[order[i]][depth])
        ]
        base = slots.take([*labels, *(byte for byte, _ in children)])
        units[node] |= base
        if id_of_end is not None:
            units[node] |= _ENDS
            units[base] = id_of_end
        for byte, group in children:
            units[base + byte] = byte << 24
            queue.append((base + byte, group[0], group[-1] + 1, depth + 1))
    return np.array(units[: slots.last + 1], np.uint32)


class _Slots:
    """Free slots of the array, as a linked ring whose anchor is slot 0, the root's.

    Attributes:
        units: the array, 0 where free.
        last: the last slot in use.
    """

    def __init__(self) -> None:
        self.units = [0]
        self.last = 0
        self._taken = bytearray([1])
        self._after, self._before = [0], [0]
        self._bases: set[int] = set()
        # First slot to try, by the number of children: a gap too narrow for many children is left to nodes of few.
        self._hints = [0] * _HINT_COUNT

    def take(self, labels: Sequence[int]) -> int:
        """Take the slots of a node's children, and return their base, which no other node has."""
        size = min(len(labels), _HINT_COUNT - 1)
        slot, tries = self._hints[size] or self._after[0], 0
        while True:
            tries += 1
            if slot == 0:
                slot = self._grow()
            base = slot - labels[0]
            if base > 0 and base not in self._bases and all(self._is_free(base + label) for label in labels):
                break
            slot = self._after[slot]
        if tries > _MAX_TRIES:
            self._hints[size] = slot
        self._bases.add(base)
        for label in labels:
            self._remove(base + label)
        return base

    def _is_free(self, slot: int) -> bool:
        while slot >= len(self.units):
            self._grow()
        return not self._taken[slot]

    def _grow(self) -> int:
        first, count = len(self.units), len(self.units) + _GROWTH
        self.units += [0] * _GROWTH
        self._taken += bytes(_GROWTH)
        self._after += [*range(first + 1, count), 0]
        self._before += [self._before[0], *range(first, count - 1)]
        self._after[self._before[0]] = first
        self._before[0] = count - 1
        return first

    def _remove(self, slot: int) -> None:
        after, before = self._after[slot], self._before[slot]
        self._after[before], self._before[after] = after, before
        if slot in self._hints:
            self._hints = [after if hint == slot else hint for hint in self._hints]
        self._taken[slot] = 1
        self.last = max(self.last, slot)
