"""Double-array trie of a set of byte strings: a look-up takes two reads per byte and needs no unpacking."""

from collections import deque
from collections.abc import Sequence

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
    texts = [strings[number] for number in order]
    slots = _Slots()
    units = slots.units
    queue = deque([(0, 0, len(strings), 0)])
    while queue:
        node, first, last, depth = queue.popleft()
        if last - first == 1:
            units[node] |= _TAIL | order[first]
            continue
        labels, starts, id_of_end = [], [], None
        if len(texts[first]) == depth:
            labels, starts, id_of_end = [0], [first], order[first]
            first += 1
        before = 0
        for number in range(first, last):
            byte = texts[number][depth]
            if byte != before:
                labels.append(byte)
                starts.append(number)
                before = byte
        base = slots.take(labels)
        units[node] |= base
        ends = [*starts[1:], last]
        if id_of_end is not None:
            units[node] |= _ENDS
            units[base] = id_of_end
        for byte, start, end in zip(labels, starts, ends, strict=True):
            if byte:
                units[base + byte] = byte << 24
                queue.append((base + byte, start, end, depth + 1))
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
        lowest, others = labels[0], labels[1:]
        while True:
            tries += 1
            if slot == 0:
                slot = self._grow()
            base = slot - lowest  # the slot is free: it is in the ring
            if base > 0 and base not in self._bases and self._are_free(base, others):
                break
            slot = self._after[slot]
        if tries > _MAX_TRIES:
            self._hints[size] = slot
        self._bases.add(base)
        for label in labels:
            self._remove(base + label)
        self.last = max(self.last, base + labels[-1])
        return base

    def _are_free(self, base: int, labels: Sequence[int]) -> bool:
        taken = self._taken
        for label in labels:
            while base + label >= len(taken):
                self._grow()
            if taken[base + label]:
                return False
        return True

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
