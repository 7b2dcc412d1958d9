"""Queue of a model: deficit round robin over requests, counted in tokens.

Requests take turns, and each turn grants the same number of tokens: a request of a thousand documents gets no larger share of
a call than any other. A new request whose first row fits into one turn goes first, for up to half of a call. So a short query
waits for about one call, whatever was queued before it (one request of a thousand documents, or a thousand requests of one),
and the documents get the other half.
(Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995; the two lists are RFC 8290's.)
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from moembed.tokenizer.tokenizer import Ids

# Tokens per turn: a short query runs at once, a document of 512 tokens after four turns.
QUANTUM = 128
# A call is full enough if at most this many tokens are left, or the next rows of this many requests did not fit.
_NEGLIGIBLE = 16
_MAX_SKIPPED = 256


class RowOutput(Enum):
    """Result that is computed for a row. All rows of a model call have the same one."""

    EMBEDDING = auto()
    TOKENS = auto()
    POOLED = auto()
    ROUTING = auto()


class Flow:
    """Rows of one request.

    Args:
        rows: token ids, one array per row.
        output: result to compute for each row.
        started: time at which the request was queued.

    Attributes:
        tokens: tokens of the waiting rows.
        waiting: indices of the waiting rows.
        credit: tokens that the request may take before its next turn (its deficit counter).
        results: one array per computed row.
        missing: rows that are not computed yet.
    """

    def __init__(self, rows: Sequence[Ids], output: RowOutput, started: float = 0.0) -> None:
        self.rows, self.output, self.started = rows, output, started
        self.tokens = sum(len(row) for row in rows)
        self.waiting = deque(range(len(rows)))
        self.credit = 0
        self.results: list[NDArray[np.float32] | None] = [None] * len(rows)
        self.missing = len(rows)

    @property
    def next_size(self) -> int:
        """Tokens of the next row."""
        return len(self.rows[self.waiting[0]])


class FairQueue:
    """Flows that take turns. Not thread-safe.

    Attributes:
        tokens: tokens of all waiting rows.
        texts: waiting rows.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.texts = 0
        self._new: OrderedDict[Flow, None] = OrderedDict()
        self._turns: OrderedDict[Flow, None] = OrderedDict()
        self._owed = False  # whether `_turns` got nothing of the last call

    def push(self, flow: Flow) -> None:
        """Queue a flow, which must have rows."""
        (self._new if flow.next_size <= QUANTUM else self._turns)[flow] = None
        self.texts += len(flow.waiting)
        self.tokens += flow.tokens

    def drop(self, flow: Flow) -> tuple[int, int]:
        """Remove a flow's waiting rows; return their tokens and number, zeros if none were waiting."""
        queue = self._new if flow in self._new else self._turns
        if flow not in queue:
            return 0, 0
        del queue[flow]
        self.texts -= len(flow.waiting)
        self.tokens -= flow.tokens
        return flow.tokens, len(flow.waiting)

    def take(self, budget: int) -> list[tuple[Flow, int]]:
        """Take the rows of the next call, all with the same output: at most `budget` tokens, or one longer row.

        Returns:
            Pairs of a flow and the index of one of its rows; empty if no rows are waiting.
        """
        taken: list[tuple[Flow, int]] = []
        room = budget
        if not self._owed:
            room -= self._fill(taken, self._new, budget // 2 if self._turns else budget)
        before = len(taken)
        room -= self._fill(taken, self._turns, room)
        self._owed = len(taken) == before and bool(self._turns)
        self._fill(taken, self._new, room)
        return taken

    def _fill(self, taken: list[tuple[Flow, int]], queue: "OrderedDict[Flow, None]", room: int) -> int:
        """Take rows of a queue's flows in turn; return their tokens."""
        skipped: list[Flow] = []
        left = room
        while queue and len(skipped) < _MAX_SKIPPED and (left > _NEGLIGIBLE or not taken):
            flow, _ = queue.popitem(last=False)
            if taken and (flow.next_size > left or flow.output != taken[0][0].output):
                flow.credit += QUANTUM  # counts as a turn
                skipped.append(flow)
                continue
            if flow.credit < flow.next_size:
                flow.credit += QUANTUM
            while flow.waiting and flow.next_size <= flow.credit and (flow.next_size <= left or not taken):
                left -= self._take_row(flow, taken)
            if flow.waiting:
                self._turns[flow] = None
        # Skipped flows keep their place: they go first in the next call.
        for flow in reversed(skipped):
            queue[flow] = None
            queue.move_to_end(flow, last=False)
        return room - left

    def _take_row(self, flow: Flow, taken: list[tuple[Flow, int]]) -> int:
        size = flow.next_size
        taken.append((flow, flow.waiting.popleft()))
        flow.credit -= size
        flow.tokens -= size
        self.tokens -= size
        self.texts -= 1
        return size
