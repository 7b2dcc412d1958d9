"""What waits for a model, and who is next: deficit round robin over requests, counted in tokens.

Every request with rows left gets the same number of tokens in turn, so that a request of a thousand documents takes no more
of a call than another. A request that has had no turn yet, and whose first row is within one, goes before all that have, for
half of a call: a short query waits for about one call whatever was queued before it, be it one request of a thousand
documents or a thousand requests of one, and the documents get the other half.
(Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", SIGCOMM 1995; the two lists are RFC 8290's.)
"""

from collections import OrderedDict, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moembed.tokenizer.tokenizer import Ids

# Tokens that a request may take in one turn: a short query goes at once, a document of 512 tokens after four turns.
QUANTUM = 128
# A call is full enough when no more than so many tokens fit, or so many requests' next rows did not.
_NEGLIGIBLE = 16
_PASSED_AT_MOST = 256


class Flow:
    """The rows of one request.

    Args:
        rows: token ids, one array for each row.
        output: which output of the graph is wanted.
        started: when it was queued.

    Attributes:
        tokens: tokens of the rows that wait.
        waiting: indices of the rows that wait.
        credit: tokens that it may take before its next turn.
        results: one array for each row that has been computed.
        missing: rows that have not been computed.
    """

    def __init__(self, rows: Sequence[Ids], output: str, started: float = 0.0) -> None:
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
    """Flows in turn. It does no locking of its own.

    Attributes:
        tokens: tokens of all rows that wait.
        texts: rows that wait.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.texts = 0
        self._new: OrderedDict[Flow, None] = OrderedDict()
        self._turns: OrderedDict[Flow, None] = OrderedDict()
        self._owed = False  # the last call had nothing of `_turns`

    def push(self, flow: Flow) -> None:
        """Let a flow, which has rows, wait for its turns."""
        (self._new if flow.next_size <= QUANTUM else self._turns)[flow] = None
        self.texts += len(flow.waiting)
        self.tokens += flow.tokens

    def drop(self, flow: Flow) -> tuple[int, int]:
        """Forget what a flow has waiting; its tokens and rows, 0 if nothing waited."""
        queue = self._new if flow in self._new else self._turns
        if flow not in queue:
            return 0, 0
        del queue[flow]
        self.texts -= len(flow.waiting)
        self.tokens -= flow.tokens
        return flow.tokens, len(flow.waiting)

    def take(self, budget: int) -> list[tuple[Flow, int]]:
        """The rows of the next call, all of one output, of `budget` tokens at most or one row that is longer.

        Returns:
            Pairs of a flow and the index of one of its rows; empty if nothing waits.
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
        """Take rows of a queue's flows in turn; returns their tokens."""
        passed: list[Flow] = []
        left = room
        while queue and len(passed) < _PASSED_AT_MOST and (left > _NEGLIGIBLE or not taken):
            flow, _ = queue.popitem(last=False)
            if taken and (flow.next_size > left or flow.output != taken[0][0].output):
                flow.credit += QUANTUM  # it is a turn all the same
                passed.append(flow)
                continue
            if flow.credit < flow.next_size:
                flow.credit += QUANTUM
            while flow.waiting and flow.next_size <= flow.credit and (flow.next_size <= left or not taken):
                left -= self._take_row(flow, taken)
            if flow.waiting:
                self._turns[flow] = None
        # Those that did not fit keep their place: they are the first of the next call.
        for flow in reversed(passed):
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
