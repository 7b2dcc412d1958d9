"""Policies for texts with more tokens than the model reads: an error, truncation, or windows.

| `overlong` | result for such a text |
|---|---|
| `"error"` | `TextTooLongError` (the default) |
| `"truncate"` | one vector; the end of the text is cut off |
| `"truncate_start"` | one vector; the start of the text is cut off |
| `"chunk"` | one vector per window; windows overlap by 64 tokens |
| `"mean"` | one vector: the mean of the windows' vectors, weighted by tokens |
| `Chunk(overlap, pooled)` | `"chunk"`, or with `pooled=True` `"mean"`, with another overlap |
| `"late"` | late chunking: one vector per window of any text, averaged from the states of one pass |
| `Chunk(late=True, tokens, spans)` | `"late"`, with other windows |

The words mean the same in Python, on the command line and over HTTP. Interfaces that return one vector per text
(`Embedder.encode` and the HTTP APIs) do not offer `"chunk"` and `"late"`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import flag, whole
from moembed.bundle.manifest import MEAN
from moembed.errors import InputError, TextTooLongError, TruncationWarning, shown, warn
from moembed.inference.float_mode import DEFAULT_FLOAT_MODE
from moembed.precision import normalized, shortened
from moembed.tokenizer.tokenizer import Ids, Tokenizer

LATE_TOKENS = 128


@dataclass(frozen=True)
class Chunk:
    """Policy that reads an over-long text in windows of the model's full length, or any text by late chunking.

    Attributes:
        overlap: tokens that a window shares with the previous one; with `late`, that a pass of the model shares with it.
        pooled: whether the windows' vectors are averaged, weighted by tokens, into one vector per text; otherwise every
            window keeps its own.
        late: whether the model reads up to its full length at once, and the states of its tokens are averaged in windows
            afterwards, also those of short texts.
        tokens: maximum number of tokens of a window with `late`. Windows begin at words, or else between characters as people
            read them, and have about equal sizes.
        spans: with `late`, a function from a text to its windows, in place of `tokens`: (start, end) pairs of character
            positions, in order and without overlap. They need not cover the text. A token belongs to the window in which it
            begins. Only `Embedder.embed` takes it.

    Raises:
        InputError: a number is not an integer or too small, a flag is not a boolean, `spans` is no function, `late` comes with
            `pooled`, or `tokens` or `spans` without `late`.
    """

    overlap: int = 64
    pooled: bool = False
    late: bool = False
    tokens: int = LATE_TOKENS
    spans: Callable[[str], Iterable[tuple[int, int]]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "overlap", whole("overlap", self.overlap, "an integer of at least 0", least=0))
        object.__setattr__(self, "tokens", whole("tokens", self.tokens))
        object.__setattr__(self, "pooled", flag("pooled", self.pooled))
        object.__setattr__(self, "late", flag("late", self.late))
        if self.spans is not None and not callable(self.spans):
            raise InputError(
                f"spans = {shown(self.spans)}; expected a function from a text to (start, end) pairs, such as lambda text: ..."
            )
        if self.late and self.pooled:
            raise InputError("late=True gives a vector per window, pooled=True one per text: pass only one of them")
        if not self.late and (self.spans is not None or self.tokens != LATE_TOKENS):
            raise InputError("tokens and spans are those of late chunking: pass late=True with them")


OverlongName = Literal["error", "truncate", "truncate_start", "chunk", "mean", "late"]
Overlong = OverlongName | Chunk
OVERLONG_NAMES: tuple[OverlongName, ...] = get_args(OverlongName)
_Policy = Literal["error", "truncate", "truncate_start"] | Chunk
_POLICIES: dict[str, _Policy] = {
    "error": "error",
    "truncate": "truncate",
    "truncate_start": "truncate_start",
    "chunk": Chunk(),
    "mean": Chunk(pooled=True),
    "late": Chunk(late=True),
}
# The tokens of a text that is too long are counted up to this many times the limit.
_COUNTED = 8
_MAX_LISTED = 8  # indices in a warning


@dataclass(frozen=True, slots=True)
class Window:
    """One row of a model call: a text or a part of one.

    Attributes:
        text: index of its text.
        ids: token ids, prompt and special tokens included.
        start: index of the first character of the text that it covers.
        end: index after the last character of the text that it covers.
        truncated: whether a part of the text was cut off.
    """

    text: int
    ids: Ids
    start: int
    end: int
    truncated: bool = False


def policy_of(overlong: Overlong) -> _Policy:
    """Return the policy for a value of `overlong`: itself, or a `Chunk` for `"chunk"`, `"mean"` and `"late"`.

    Raises:
        InputError: unknown policy.
    """
    if isinstance(overlong, Chunk):
        return overlong
    if isinstance(overlong, str) and overlong in _POLICIES:
        return _POLICIES[overlong]
    names = ", ".join(map(repr, OVERLONG_NAMES))
    raise InputError(f"overlong = {shown(overlong)}; expected {names} or a Chunk(overlap, pooled)")


def policy_name(policy: _Policy) -> OverlongName:
    """Return the name of a policy, whatever its numbers are."""
    if not isinstance(policy, Chunk):
        return policy
    return "late" if policy.late else "mean" if policy.pooled else "chunk"


def check_room(tokenizer: Tokenizer, prompt: str, limit: int, policy: _Policy, pooling: str = MEAN) -> None:
    """Check that a prompt leaves room for a text, and for more of it than windows overlap; and that the model can be chunked so.

    Args:
        tokenizer: tokenizer of the model.
        prompt: text in front of every text and every window.
        limit: maximum number of tokens of a window.
        policy: from `policy_of`.
        pooling: the model's, by its manifest.

    Raises:
        InputError: the prompt is too long, or the policy averages states of tokens and the model does not.
    """
    if pooling != MEAN and isinstance(policy, Chunk) and policy.late:
        raise InputError(
            "overlong = Chunk(late=True) averages the states of a chunk's tokens, but this model's vector is the state of the "
            "first token of a text: use Chunk(late=False)"
        )
    room_of(tokenizer.count_prefix(prompt), limit, policy)


def windows_of(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    prompt: str,
    limit: int,
    overlong: Overlong,
    first: int = 0,
    windows: int | None = None,
) -> Iterator[Window]:
    """Tokenize texts: one window per text, more for over-long texts under a `Chunk`.

    Reads no more of a text than its windows need.

    Args:
        tokenizer: tokenizer of the model.
        texts: the texts.
        prompt: text in front of every text and every window.
        limit: maximum number of tokens of a window.
        overlong: the policy for over-long texts.
        first: index of the first text in errors.
        windows: maximum number of windows per text; None for no limit.

    Raises:
        TextTooLongError: a text is too long under `"error"`; its tokens are counted up to `_COUNTED` times the limit.
        InputError: unknown policy, or the prompt leaves no room for a text.
    """
    policy = policy_of(overlong)
    check_room(tokenizer, prompt, limit, policy)
    most = (_COUNTED if policy == "error" else 1) * limit
    for index, ids in enumerate(tokenizer.encode(texts, prefix=prompt, first=first, max_tokens=most)):
        text = texts[index]
        if len(ids) <= limit:
            yield Window(index, ids, 0, len(text))
        elif policy == "error":
            counted = f"{len(ids)} tokens" if len(ids) <= most else f"more than {most} tokens"
            raise TextTooLongError(
                f"text {first + index} has {counted}, including prompt and special tokens; the model's limit is {limit}. "
                "Pass overlong='truncate' to cut it off, or overlong='mean' to average windows over all of it",
                index=first + index,
                tokens=len(ids),
                limit=limit,
                counted=counted,
            )
        elif isinstance(policy, Chunk):
            yield from _chunks(tokenizer, text, index, prompt, limit, policy, windows)
        else:
            yield _truncated(tokenizer, text, index, prompt, limit, from_start=policy == "truncate_start")


def warn_if_truncated(windows: Sequence[Window], count: int, limit: int) -> None:
    """Issue a `TruncationWarning` that lists the truncated texts, if there are any.

    Args:
        windows: the windows of the texts.
        count: number of texts.
        limit: maximum number of tokens of a text.
    """
    cut = tuple(window.text for window in windows if window.truncated)
    if cut:
        indices = ", ".join(map(str, cut[:_MAX_LISTED])) + (", ..." if len(cut) > _MAX_LISTED else "")
        warn(TruncationWarning(f"cut to {limit} tokens: {len(cut)} of {count} texts (index {indices})", cut))


@DEFAULT_FLOAT_MODE
def finish(
    windows: Sequence[Window], vectors: NDArray[np.float32], count: int, dim: int, *, normalize: bool
) -> NDArray[np.float32]:
    """Turn the model's vectors into embeddings: pool the windows of each text, then shorten to `dim`.

    Args:
        windows: windows of `count` texts, in order.
        vectors: `[len(windows), hidden]`, unit vectors.
        count: number of texts; the number of windows to keep one vector per window.
        dim: dimensions to keep.
        normalize: scale shortened vectors to unit length.

    Returns:
        `[count, dim]` float32.
    """
    return shortened(pooled(windows, vectors, count), dim, normalize=normalize)


def pooled(windows: Sequence[Window], vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Average the windows of each text, weighted by tokens, and scale to unit length; single windows stay as they are.

    Args:
        windows: windows of `count` texts, in order.
        vectors: `[len(windows), hidden]`, one per window.
        count: number of texts.

    Returns:
        `[count, hidden]` float32.
    """
    if len(windows) == count:
        return vectors
    rows: list[list[int]] = [[] for _ in range(count)]
    for row, window in enumerate(windows):
        rows[window.text].append(row)
    means = []
    for own in rows:
        if len(own) == 1:
            means.append(vectors[own[0]])
            continue
        weights = np.array([len(windows[row].ids) for row in own], np.float32)
        means.append(normalized((vectors[own] * weights[:, None]).sum(axis=0)))
    return np.stack(means)


def merged(windows: Sequence[Window]) -> list[Window]:
    """Merge the windows of each text into one, from the first one's start to the last one's end, with all ids."""
    texts: dict[int, Window] = {}
    for window in windows:
        first = texts.get(window.text)
        if first is not None:
            ids = np.concatenate([first.ids, window.ids])
            window = Window(window.text, ids, first.start, window.end, window.truncated)
        texts[window.text] = window
    return list(texts.values())


def _truncated(tokenizer: Tokenizer, text: str, index: int, prompt: str, limit: int, *, from_start: bool) -> Window:
    """Return the window at the end of an over-long text if its start is cut off, else the window at its start."""
    ids, offsets = tokenizer.encode_with_offsets(text, prefix=prompt, max_tokens=limit)
    head = _prompt_tokens(offsets, prompt)
    room = room_of(head, limit, "truncate")
    if from_start:
        body, spans = tokenizer.encode_end(prompt + text, room)
    else:
        body, spans = ids[head : head + room], offsets[head : head + room]
    return _window(tokenizer, index, ids[:head], body, spans - len(prompt), truncated=True)


def _chunks(
    tokenizer: Tokenizer, text: str, index: int, prompt: str, limit: int, policy: Chunk, windows: int | None
) -> Iterator[Window]:
    """Yield the windows of an over-long text, at most `windows`."""
    most = None if windows is None else limit * windows
    ids, offsets = tokenizer.encode_with_offsets(text, prefix=prompt, max_tokens=most)
    head = _prompt_tokens(offsets, prompt)
    room = room_of(head, limit, policy)
    body, spans = ids[head:], offsets[head:]
    spans -= len(prompt)
    for first in range(0, max(len(body) - policy.overlap, 1), room - policy.overlap)[:windows]:
        part = slice(first, min(first + room, len(body)))
        yield _window(tokenizer, index, ids[:head], body[part], spans[part], truncated=False)


def _prompt_tokens(offsets: NDArray[np.int64], prompt: str) -> int:
    """Count the tokens that start inside the prompt; every window repeats them.

    Where the prompt joins the text, this can be one token more or less than the prompt alone has.
    """
    return int(np.searchsorted(offsets[:, 0], len(prompt))) if prompt else 0


def _window(
    tokenizer: Tokenizer, index: int, head: Ids, body: Ids, spans: NDArray[np.int64], *, truncated: bool
) -> Window:
    ids = np.concatenate([[tokenizer.bos], head, body, [tokenizer.eos]]).astype(np.int32)
    return Window(index, ids, max(int(spans[0, 0]), 0), int(spans[-1, 1]), truncated)


def room_of(prompt_tokens: int, limit: int, policy: _Policy) -> int:
    """Return the number of tokens that a prompt leaves for the text of a window.

    Raises:
        InputError: it leaves none, or not more than windows overlap.
    """
    room = limit - 2 - prompt_tokens
    if room < 1:
        raise InputError(
            f"the prompt has {prompt_tokens} tokens; the model's limit is {limit}, including 2 special tokens, so no room is "
            "left for a text: use a shorter prompt"
        )
    if isinstance(policy, Chunk) and policy.overlap >= room:
        raise InputError(
            f"windows of {limit} tokens have room for {room} tokens of the text, after the prompt and the special tokens; an "
            f"overlap of {policy.overlap} does not fit: pass a Chunk with a smaller overlap"
        )
    return room
