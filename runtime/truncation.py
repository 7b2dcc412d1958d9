"""What happens to a text that has more tokens than the model reads: an error, a cut, or windows. Never silence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import flag, whole
from moembed.errors import InputError, TextTooLongError, shown
from moembed.precision import normalized
from moembed.tokenizer.tokenizer import Ids, Tokenizer


@dataclass(frozen=True)
class Chunk:
    """The policy that reads an over-long text through windows of the model's full length.

    Attributes:
        overlap: tokens that a window shares with the one before.
        pooled: whether the windows' vectors are averaged, weighted by their tokens, into one vector per text
            (`encode` needs that); otherwise every window keeps its own.

    Raises:
        InputError: `overlap` is no integer of at least 0, or `pooled` no boolean.
    """

    overlap: int = 64
    pooled: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "overlap", whole("overlap", self.overlap, "an integer of at least 0", least=0))
        object.__setattr__(self, "pooled", flag("pooled", self.pooled))


_Policy = Literal["error", "truncate", "truncate_start"]
_POLICIES: tuple[_Policy, ...] = ("error", "truncate", "truncate_start")
# Tokens of a text that is too long are counted to so many times the limit.
COUNTED = 8
Overlong = Literal["error", "truncate", "truncate_start", "chunk"] | Chunk


@dataclass(frozen=True, slots=True)
class Window:
    """What is computed as one row: a text, or a window of one.

    Attributes:
        text: index of the text it belongs to.
        ids: token ids, prompt and special tokens included.
        start: first character of the text that it covers.
        end: one past the last character of the text that it covers.
        truncated: whether a part of the text was left out, unread.
    """

    text: int
    ids: Ids
    start: int
    end: int
    truncated: bool = False


def policy_of(overlong: Overlong) -> _Policy | Chunk:
    """Check a policy and give `"chunk"` its defaults.

    Raises:
        InputError: it is none of the policies.
    """
    if isinstance(overlong, Chunk):
        return overlong
    for policy in _POLICIES if isinstance(overlong, str) else ():
        if policy == overlong:
            return policy
    if isinstance(overlong, str) and overlong == "chunk":
        return Chunk()
    raise InputError(
        f"overlong = {shown(overlong)}; expected 'error', 'truncate', 'truncate_start', 'chunk' or a Chunk(overlap, pooled)"
    )


def check_room(tokenizer: Tokenizer, prompt: str, limit: int, policy: _Policy | Chunk) -> None:
    """Make sure that a prompt leaves room for a text, and for more of it than two windows share.

    Args:
        tokenizer: the model's.
        prompt: put in front of every text and of every window.
        limit: most tokens of a text.
        policy: from `policy_of`.

    Raises:
        InputError: it does not.
    """
    (framed,) = tokenizer.encode([""], prefix=prompt)
    _room(len(framed) - 2, limit, policy)


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
    """Tokenize texts and apply the policy; every text gives one window, over-long ones more under `Chunk`.

    No more of a text is read than its windows need.

    Args:
        tokenizer: the model's.
        texts: the texts.
        prompt: put in front of every text and of every window.
        limit: most tokens of a window.
        overlong: the policy.
        first: what to call the first text's index in an error.
        windows: leave a text at so many windows; None reads all of it.

    Raises:
        TextTooLongError: a text is too long under `"error"`; its tokens are counted to `COUNTED` times the limit.
        InputError: the policy is unknown, or leaves no room for a text.
    """
    policy = policy_of(overlong)
    check_room(tokenizer, prompt, limit, policy)
    most = (COUNTED if policy == "error" else 1) * limit
    for index, ids in enumerate(tokenizer.encode(texts, prefix=prompt, first=first, most=most)):
        text = texts[index]
        if len(ids) <= limit:
            yield Window(index, ids, 0, len(text))
        elif policy == "error":
            counted = f"{len(ids)} tokens" if len(ids) <= most else f"more than {most} tokens"
            raise TextTooLongError(
                f"text {first + index} has {counted}, prompt and special tokens included; the model reads {limit}. "
                "Pass overlong='truncate' to cut it, or overlong='chunk' to read all of it in windows",
                index=first + index,
                tokens=len(ids),
                limit=limit,
                counted=counted,
            )
        else:
            yield from _split(tokenizer, text, index, prompt, limit, policy, windows)


def _split(
    tokenizer: Tokenizer,
    text: str,
    index: int,
    prompt: str,
    limit: int,
    policy: Literal["truncate", "truncate_start"] | Chunk,
    windows: int | None,
) -> Iterator[Window]:
    most = limit * (windows or 1) if windows is not None or not isinstance(policy, Chunk) else None
    ids, offsets = tokenizer.encode_with_offsets(text, prefix=prompt, most=most)
    # Characters before the text belong to the prompt; a token that starts there is repeated in every window.
    head = int(np.searchsorted(offsets[:, 0], len(prompt))) if prompt else 0
    # A prompt may have a token less or more where it joins a text than it has alone, as `check_room` looks at it.
    room = _room(head, limit, policy)
    overlap = policy.overlap if isinstance(policy, Chunk) else 0
    body, spans = ids[head:], offsets[head:] - len(prompt)
    if isinstance(policy, Chunk):
        starts = range(0, max(len(body) - overlap, 1), room - overlap)[:windows]
    else:
        starts = range(1)
        if policy == "truncate_start":
            body, spans = tokenizer.encode_end(prompt + text, room)
            spans -= len(prompt)
    for first in starts:
        last = min(first + room, len(body))
        framed = np.concatenate([[tokenizer.bos], ids[:head], body[first:last], [tokenizer.eos]]).astype(np.int32)
        start = max(int(spans[first, 0]), 0)
        yield Window(index, framed, start, int(spans[last - 1, 1]), truncated=not isinstance(policy, Chunk))


def _room(prompt_tokens: int, limit: int, policy: _Policy | Chunk) -> int:
    room = limit - 2 - prompt_tokens
    if room < 1:
        raise InputError(
            f"the prompt has {prompt_tokens} tokens and the model reads {limit}, 2 of them special tokens: nothing remains "
            "for the text; use a shorter prompt"
        )
    if isinstance(policy, Chunk) and policy.overlap >= room:
        raise InputError(
            f"windows of {limit} tokens leave {room} for the text beside the prompt and the special tokens; an overlap of "
            f"{policy.overlap} does not fit: pass a Chunk with a smaller overlap"
        )
    return room


def pooled(todo: Sequence[Window], vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """One vector per text: its own, or the mean of its windows weighted by their tokens and scaled to unit length.

    Args:
        todo: the windows of `count` texts, in order.
        vectors: `[len(todo), hidden]`, one per window.
        count: texts.

    Returns:
        `[count, hidden]` float32.
    """
    if len(todo) == count:
        return vectors
    rows = []
    windows: list[list[int]] = [[] for _ in range(count)]
    for row, window in enumerate(todo):
        windows[window.text].append(row)
    for own in windows:
        weights = np.array([len(todo[row].ids) for row in own], np.float32)
        rows.append(vectors[own[0]] if len(own) == 1 else normalized((vectors[own] * weights[:, None]).sum(axis=0)))
    return np.stack(rows)


def merged(todo: Sequence[Window]) -> list[Window]:
    """One window per text: from its first window's start to its last one's end, with the ids of all."""
    texts: dict[int, Window] = {}
    for window in todo:
        one = texts.get(window.text)
        ids = window.ids if one is None else np.concatenate([one.ids, window.ids])
        start = window.start if one is None else one.start
        texts[window.text] = Window(window.text, ids, start, window.end, window.truncated)
    return list(texts.values())
