"""Model behind a scheduler: turns the texts and the task of a request into vectors."""

import asyncio
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.manifest import MEAN
from moembed.embedder import Embedder
from moembed.errors import InputError, TextTooLongError
from moembed.inference.batching import pad
from moembed.inference.routing import Routing
from moembed.inference.session import Output, Session
from moembed.precision import layer_normalized
from moembed.server.engine.queue import RowOutput
from moembed.server.engine.scheduler import Observer, Scheduler, Vectors
from moembed.server.engine.tasks import select_prompt, start_with_prompt
from moembed.server.errors import InvalidRequestError, TooLargeError, TooLongError, TooManyTextsError
from moembed.server.settings import Settings
from moembed.stamps.making import overlong_name, stamp_of
from moembed.stamps.stamp import Stamp
from moembed.tokenizer.tokenizer import Ids
from moembed.truncation import Overlong, Window, check_room, finish, windows_of

_T = TypeVar("_T")
# Fewer characters are tokenized on the event loop: waking another thread would take longer.
_INLINE_CHARACTERS = 4096
# Numbers in a response of token vectors: 32 MB, and about 100 MB of JSON, which is encoded text by text.
_MAX_NUMBERS = 2**23


@dataclass(frozen=True)
class Result:
    """Result of a request.

    Attributes:
        vectors: `[texts, dim]` float32.
        tokens: tokens processed per text, including prompt and special tokens.
        truncated: indices of the texts that were truncated.
        stamp: stamp of the vectors; None for means of hidden states.
    """

    vectors: NDArray[np.float32]
    tokens: list[int]
    truncated: list[int]
    stamp: Stamp | None


class Engine:
    """Loaded model behind a scheduler. Belongs to one event loop.

    Args:
        name: name of the model in requests.
        embedder: the model.
        settings: limits and defaults.
        observer: receives the state of the queue and the model calls.
        lanes: sessions for calls that run at the same time; none for one call at a time.

    Attributes:
        scheduler: queue and threads of the model.
    """

    def __init__(
        self, name: str, embedder: Embedder, settings: Settings, observer: Observer, lanes: Sequence[Session] = ()
    ) -> None:
        self.name, self.embedder, self._settings, self._lanes = name, embedder, settings, lanes
        stamp = stamp_of(embedder, "")

        @functools.lru_cache(maxsize=256)
        def stamp_with(prompt: str, width: int, overlong: str, max_tokens: int) -> Stamp:
            return replace(stamp, prompt=prompt, width=width, overlong=overlong, max_tokens=max_tokens)

        self._stamp_with = stamp_with
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"moembed-tokens-{name}")
        self.scheduler = Scheduler(
            self._run,
            lanes=max(len(lanes), 1),
            call_tokens=settings.call_tokens,
            queue_tokens=settings.queue_tokens,
            queue_texts=settings.queue_texts,
            observer=observer,
            name=name,
        )

    async def embed(
        self,
        texts: Sequence[str],
        *,
        task: str | None = None,
        overlong: Overlong | None = None,
        dim: int | None = None,
        limit: int | None = None,
        normalize: bool = True,
    ) -> Result:
        """Embed texts.

        Args:
            texts: the texts.
            task: the request's task; None for the default of the settings.
            overlong: policy for over-long texts; None for the default of the settings.
            dim: dimensions of a vector, None for all.
            limit: tokens per text, if fewer than the model's limit.
            normalize: return unit vectors; otherwise the pooled last hidden states, which cannot be combined with windows.

        Raises:
            ApiError: the request is invalid, or the server is overloaded.
        """
        dim = self.resolve_dim(dim)
        policy = self._policy(overlong, windows=normalize)
        prompt = select_prompt(self.embedder, texts, task, self._settings.task)
        windows = await self.tokenize(texts, task=task, overlong=policy, limit=limit)
        stamp = self.stamp(prompt, dim, policy, limit) if normalize else None
        return await self._embed(
            windows, len(texts), dim, RowOutput.EMBEDDING if normalize else RowOutput.POOLED, stamp
        )

    async def embed_ids(self, rows: Sequence[Sequence[int]], *, task: str | None, dim: int | None = None) -> Result:
        """Embed texts given as token ids of this model, with or without its special tokens around them.

        Raises:
            ApiError: as for `embed`; also if an id is not in the vocabulary.
        """
        dim = self.resolve_dim(dim)
        tokenizer, limit = self.embedder.tokenizer, self.embedder.max_tokens
        prompt = select_prompt(self.embedder, [""], task, self._settings.task)

        def to_windows() -> list[Window]:
            try:
                check_room(tokenizer, prompt, limit, "error")
            except InputError as error:
                raise InvalidRequestError(str(error)) from None
            (head,) = tokenizer.encode([""], prefix=prompt)
            known: set[int] = set()
            windows = []
            for index, row in enumerate(rows):
                framed = len(row) > 1 and (row[0], row[-1]) == (tokenizer.bos, tokenizer.eos)
                body = row[1:-1] if framed else row
                if len(head) + len(body) > limit:
                    raise TooLongError(
                        f"text {index} has {len(head) + len(body)} tokens, including prompt and special tokens; the model's "
                        f"limit is {limit}: send shorter arrays",
                        param="input",
                    )
                new = set(body) - known
                if not all(0 <= token < 2**31 for token in new) or "" in tokenizer.token_strings(list(new)):
                    raise InvalidRequestError(
                        f"text {index} has a token id that is not in the vocabulary of {self.name}", param="input"
                    )
                known |= new
                windows.append(Window(index, np.array([*head[:-1], *body, head[-1]], np.int32), 0, 0))
            return windows

        windows = await self.offload(rows, to_windows)
        return await self._embed(windows, len(rows), dim, RowOutput.EMBEDDING, self.stamp(prompt, dim, "error"))

    def stamp(self, prompt: str, dim: int, overlong: Overlong, limit: int | None = None) -> Stamp:
        """Return the stamp of float32 vectors.

        Args:
            prompt: text in front of every text.
            dim: dimensions of a vector.
            overlong: policy for over-long texts.
            limit: tokens per text, if fewer than the model's limit.
        """
        max_tokens = min(limit or self.embedder.max_tokens, self.embedder.max_tokens)
        return self._stamp_with(prompt, dim, overlong_name(overlong), max_tokens)

    async def token_embeddings(
        self, texts: Sequence[str], *, task: str | None, overlong: Overlong | None
    ) -> tuple[Vectors, list[Window]]:
        """Return the last hidden states of every text's tokens, `[tokens, hidden]` each, and the windows.

        Raises:
            ApiError: as for `embed`; also if the response would be too large.
        """
        policy = self._policy(overlong, windows=False)
        windows = await self.tokenize(texts, task=task, overlong=policy)
        numbers = sum(len(window.ids) for window in windows) * self.embedder.dim
        if numbers > _MAX_NUMBERS:
            raise TooLargeError(
                f"the response would have {numbers} numbers; the limit is {_MAX_NUMBERS}: send fewer texts at a time"
            )
        return await self.scheduler.submit([window.ids for window in windows], RowOutput.TOKENS), windows

    async def routing(self, text: str, *, task: str | None) -> Routing:
        """Return the expert routing of a text's tokens.

        Raises:
            ApiError: as for `embed`; also if the text is too long.
        """
        if not self.embedder.bundle.manifest.routers:
            raise InvalidRequestError(f"{self.name} has no MoE layers, so it has no routing")
        windows = await self.tokenize([text], task=task, overlong="error")
        await asyncio.to_thread(self.embedder.routers.open)
        results: list[Any] = await self.scheduler.submit([window.ids for window in windows], RowOutput.ROUTING)
        routing: Routing = results[0]
        return routing

    async def tokenize(
        self, texts: Sequence[str], *, task: str | None, overlong: Overlong, limit: int | None = None
    ) -> list[Window]:
        """Check a request's texts against the limits and tokenize them, off the event loop unless they are short.

        Raises:
            ApiError: as for `embed`.
        """
        prompt = select_prompt(self.embedder, texts, task, self._settings.task)
        max_tokens = min(limit or self.embedder.max_tokens, self.embedder.max_tokens)
        max_windows = self._settings.max_inputs

        def tokenize() -> list[Window]:
            windows: list[Window] = []
            # One window beyond the limit shows that the limit is exceeded.
            for window in windows_of(
                self.embedder.tokenizer,
                texts,
                prompt=prompt,
                limit=max_tokens,
                overlong=overlong,
                windows=max_windows + 1,
            ):
                if len(windows) == max_windows:
                    raise TooManyTextsError(
                        f"the texts have more than {max_windows} windows of {max_tokens} tokens; the limit is {max_windows} "
                        "texts or windows per request: send less at a time"
                    )
                windows.append(window)
            return windows

        try:
            return await self.offload(texts, tokenize)
        except TextTooLongError as error:
            raise TooLongError(
                f"text {error.index} has {error.counted}, including prompt and special tokens; the model's limit is "
                f"{error.limit}: send a shorter text, or allow truncation or windows (by the API's own field, or with `moembed "
                "serve --overlong`)",
            ) from None
        except InputError as error:
            raise InvalidRequestError(str(error)) from None

    def default_task(self, texts: Sequence[str], task: str | None) -> str | None:
        """Return the server's default task if it applies: the request names no task, and its texts have no prompt."""
        return None if task is not None or start_with_prompt(self.embedder, texts) else self._settings.task

    async def offload(self, texts: Sequence[Sequence[object]], work: Callable[[], _T]) -> _T:
        """Check a request's texts against the limits, then run work on them, off the event loop unless they are short.

        Raises:
            ApiError: the texts exceed a limit of a request, or do not fit into the queue.
        """
        characters = sum(map(len, texts))
        self._check(texts, characters)
        if characters <= _INLINE_CHARACTERS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    async def close(self) -> None:
        """Compute the queued rows, then stop the threads."""
        await self.scheduler.close()
        self._tokenizing.shutdown()

    def _run(self, lane: int | None, output: RowOutput, rows: list[Ids]) -> Sequence[Any]:
        if output is RowOutput.ROUTING:
            return [self.embedder.routers.run(row) for row in rows]
        session = self.embedder.session if lane is None else self._lanes[lane]
        batch = pad(rows, self.embedder.tokenizer.pad)
        if output is RowOutput.EMBEDDING:
            return list(session.run(Output.EMBEDDING, *batch))
        padded = session.run(Output.TOKENS, *batch)
        states = [row_states[: len(row)] for row_states, row in zip(padded, rows, strict=True)]
        if output is RowOutput.POOLED:
            manifest = self.embedder.bundle.manifest
            first = manifest.pooling != MEAN
            pooled = [row[0] if first else row.mean(axis=0, dtype=np.float32) for row in states]
            return [layer_normalized(row) for row in pooled] if manifest.pooled_layer_norm else pooled
        return [row_states.copy() for row_states in states]

    def _check(self, texts: Sequence[object], characters: int) -> None:
        max_texts, max_characters = self._settings.max_inputs, self._settings.max_characters
        if len(texts) > max_texts:
            raise TooManyTextsError(
                f"the request has {len(texts)} texts; the limit is {max_texts}: send fewer at a time"
            )
        if characters > max_characters:
            raise TooLargeError(
                f"the request has {characters} characters; the limit is {max_characters}: send less at a time"
            )
        self.scheduler.check_capacity(len(texts))

    def resolve_dim(self, dim: int | None) -> int:
        """Return the dimensions of a request's vectors: `dim`, or all if it is None.

        Raises:
            InvalidRequestError: the model does not have that many dimensions.
        """
        if dim is not None and not 1 <= dim <= self.embedder.dim:
            trained = ", ".join(map(str, self.embedder.bundle.manifest.dims))
            raise InvalidRequestError(
                f"dimensions = {dim}; {self.name} supports 1 to {self.embedder.dim} (trained for {trained})",
                param="dimensions",
            )
        return dim or self.embedder.dim

    def _policy(self, overlong: Overlong | None, *, windows: bool) -> Overlong:
        policy = overlong or self._settings.overlong
        return "error" if policy == "mean" and not windows else policy

    async def _embed(
        self, windows: list[Window], count: int, dim: int, output: RowOutput, stamp: Stamp | None
    ) -> Result:
        rows = await self.scheduler.submit([window.ids for window in windows], output)
        vectors = np.stack(rows) if rows else np.empty((0, self.embedder.dim), np.float32)
        tokens = [0] * count
        for window in windows:
            tokens[window.text] += len(window.ids)
        truncated = [window.text for window in windows if window.truncated]
        embeddings = finish(windows, vectors, count, dim, normalize=output is RowOutput.EMBEDDING)
        return Result(embeddings, tokens, truncated, stamp)
