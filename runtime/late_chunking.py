"""Late chunking: the model reads a whole text, and its token states are averaged span by span afterwards.

A span's vector so knows what stands around it. A text that is too long for one pass is read in several that share some tokens;
each token is averaged once, from the pass in which it stands further from the edge. The prompt stands in front of every pass,
and neither it nor the special tokens are part of a span.
"""

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.errors import InputError, shown
from moembed.graphemes import is_boundary
from moembed.inference.float_mode import DEFAULT_FLOAT_MODE
from moembed.precision import layer_normalized, normalized
from moembed.tokenizer.tokenizer import Ids, Tokenizer
from moembed.truncation import Chunk, Window, room_of

# Runs passes, and yields the indices of each batch with the token states `[batch, tokens, hidden]` float32.
Run = Callable[[Sequence["Pass"]], Iterable[tuple[list[int], NDArray[np.float32]]]]


@dataclass(frozen=True, slots=True)
class Pass:
    """Row of a model call.

    Attributes:
        text: index of its text.
        ids: token ids, prompt and special tokens included.
        skipped: number of ids before the first token of the text.
        first: index of that token in the text.
        begin: index of the first token of the text that counts here.
        end: index after the last one.
    """

    text: int
    ids: Ids
    skipped: int
    first: int
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Part:
    """States of a window in one pass: rows `first` to `last`. `order` is the number of the pass in its text."""

    window: int
    order: int
    first: int
    last: int


@DEFAULT_FLOAT_MODE
def late_windows(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    prompt: str,
    limit: int,
    policy: Chunk,
    run: Run,
    first: int = 0,
    layer_norm: bool = False,
) -> tuple[list[Window], NDArray[np.float32]]:
    """Embed the spans of texts.

    Args:
        tokenizer: tokenizer of the model.
        texts: the texts.
        prompt: text in front of every pass.
        limit: maximum number of tokens of a pass.
        policy: with `late=True`.
        run: runs passes.
        first: index of the first text in errors.
        layer_norm: the model's `pooled_layer_norm`, by its manifest.

    Returns:
        The spans of all texts in order, as windows with the ids of their own tokens; and their vectors `[spans, hidden]` float32
        of unit length. A text without tokens has one span, with the vector of prompt and special tokens alone.

    Raises:
        InputError: the prompt leaves no room, or `policy.spans` returns spans that are none.
    """
    passes: list[Pass] = []
    parts: list[list[Part]] = []  # of each pass
    windows: list[Window] = []
    counts: list[int] = []  # of the states that each window averages
    for index, text in enumerate(texts):
        ids, offsets = tokenizer.encode_with_offsets(text, prefix=prompt, index=first + index)
        head = int(np.searchsorted(offsets[:, 0], len(prompt))) if prompt else 0
        body, starts = ids[head:], offsets[head:, 0] - len(prompt)
        room = room_of(head, limit, policy)
        own = list(_passes(tokenizer, index, ids[:head], body, room, policy.overlap))
        found: list[list[Part]] = [[] for _ in own]
        for start, end in _spans(text, starts, policy, first + index):
            begin, stop = (int(token) for token in np.searchsorted(starts, (start, end)))
            for order, one in enumerate(own):
                low, high = max(begin, one.begin), min(stop, one.end)
                shift = one.skipped - one.first
                if low < high:
                    found[order].append(Part(len(windows), order, low + shift, high + shift))
            if not len(body):
                found[0].append(Part(len(windows), 0, 0, len(own[0].ids)))
            windows.append(Window(index, body[begin:stop], start, end))
            counts.append(stop - begin or len(own[0].ids))
        passes += own
        parts += found
    means = _means(passes, parts, counts, run)
    return windows, normalized(layer_normalized(means) if layer_norm else means)


def _passes(tokenizer: Tokenizer, text: int, head: Ids, body: Ids, room: int, overlap: int) -> Iterator[Pass]:
    """Yield the passes over a text of index `text`; each token of the body counts in one of them."""
    stride, begin = room - overlap, 0
    for first in range(0, max(len(body) - overlap, 1), stride):
        last = min(first + room, len(body))
        end = last if last == len(body) else last - overlap // 2
        ids = np.concatenate([[tokenizer.bos], head, body[first:last], [tokenizer.eos]]).astype(np.int32)
        yield Pass(text, ids, 1 + len(head), first, begin, end)
        begin = end


def _means(
    passes: Sequence[Pass], parts: Sequence[Sequence[Part]], counts: Sequence[int], run: Run
) -> NDArray[np.float32]:
    """Average the token states of each span. Sums are in float64 and in the order of the passes, whatever the batches."""
    sums: list[dict[int, NDArray[np.float64]]] = [{} for _ in counts]
    width = 0
    for indices, states in run(passes):
        width = states.shape[-1]
        for row, index in enumerate(indices):
            for part in parts[index]:
                total = states[row, part.first : part.last].sum(axis=0, dtype=np.float64)
                sums[part.window][part.order] = total
    means = np.empty((len(counts), width), np.float32)
    for span, (found, count) in enumerate(zip(sums, counts, strict=True)):
        means[span] = sum(found[order] for order in sorted(found)) / count
    return means


def _spans(text: str, starts: NDArray[np.int64], policy: Chunk, index: int) -> list[tuple[int, int]]:
    """Return the spans of a text, each with at least one token, if the text has any."""
    if not len(starts):
        return [(0, len(text))]
    if policy.spans is not None:
        return _checked(policy.spans(text), text, starts, index)
    return list(pairwise([0, *_cuts(text, starts, policy.tokens), len(text)]))


def _cuts(text: str, starts: NDArray[np.int64], most: int) -> Iterator[int]:
    """Yield the characters at which a text is divided into windows of about equal size, of at most `most` tokens.

    Windows begin at words where one begins in the second half of the window before, else at characters as people read them. So
    a window has more than `most` tokens only if one such character has.
    """
    count = len(starts)
    size = -(-count // -(-count // most))
    distinct = (token for token in range(1, count) if starts[token] > starts[token - 1])
    allowed = [token for token in distinct if is_boundary(text, int(starts[token]))]
    begin = 0
    while count - begin > size:
        behind = bisect_right(allowed, begin + size)
        inside = allowed[bisect_right(allowed, begin) : behind]
        words = [token for token in inside if 2 * (token - begin) > size and text[starts[token] - 1].isspace()]
        # The last of these; or, in the middle of a character with many tokens, the first behind it.
        begin = (words or inside or allowed[behind : behind + 1] or [count])[-1]
        if begin < count:
            yield int(starts[begin])


def _checked(spans: Any, text: str, starts: NDArray[np.int64], index: int) -> list[tuple[int, int]]:
    """Check spans that a caller gave.

    Raises:
        InputError: they are no pairs of integers in order, overlap, leave the text, divide a character, or have no token.
    """
    found: list[tuple[int, int]] = []
    where = f"spans of text {index}"
    try:
        pairs = [tuple(map(operator.index, span)) for span in spans]
    except TypeError as error:
        raise InputError(f"{where}: {shown(spans)}; expected (start, end) pairs of character positions") from error
    if not pairs:
        raise InputError(f"{where}: there is none; return at least one, such as (0, len(text))")
    for pair in pairs:
        if len(pair) != 2:
            raise InputError(f"{where}: {shown(pair)}; expected a pair (start, end) of character positions")
        start, end = pair
        if not 0 <= start < end <= len(text):
            raise InputError(f"{where}: {pair} is empty or not inside the text, which has {len(text)} characters")
        if found and start < found[-1][1]:
            raise InputError(f"{where}: {pair} begins before {found[-1]} ends: spans are in order and share no token")
        for position in pair:
            if not is_boundary(text, position):
                around = text[max(position - 4, 0) : position + 4]
                raise InputError(f"{where}: {pair} divides a character at {position}, in {around!r}: move it")
        if np.searchsorted(starts, start) == np.searchsorted(starts, end):
            raise InputError(
                f"{where}: no token begins in {pair}, {shown(text[start:end])}: join it with its neighbour"
            )
        found.append((start, end))
    return found
