"""A model that is served: from texts and a task to vectors, through the scheduler."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from moembed.embedder import Embedder
from moembed.errors import InputError, TextTooLongError
from moembed.inference.batching import pad
from moembed.inference.routing import Routing
from moembed.inference.session import Output
from moembed.server.engine.scheduler import Observer, Scheduler, Vectors
from moembed.server.engine.tasks import carries_prompt, prompt_chosen
from moembed.server.errors import InvalidRequestError, TooLargeError, TooLongError, TooManyTextsError
from moembed.server.settings import Settings
from moembed.tokenizer.tokenizer import Ids
from moembed.truncation import Overlong, Window, check_room, finish, windows_of

_T = TypeVar("_T")
# The graph's outputs, what is made of the second, and what its routers decide.
EMBEDDING, TOKENS, MEANS, ROUTING = Output.EMBEDDING, Output.TOKENS, "means", "routing"
# Fewer characters are tokenized sooner than another thread is woken for them.
_INLINE_CHARACTERS = 4096
# Numbers of an answer of token vectors: 32 MB, and about 100 MB of JSON, which is written text by text.
_NUMBERS_AT_MOST = 2**23


@dataclass(frozen=True)
class Result:
    """What came of a request.

    Attributes:
        vectors: `[texts, dim]` float32.
        tokens: tokens read for each text, prompt and special tokens included.
        truncated: indices of the texts of which a part was left out.
    """

    vectors: NDArray[np.float32]
    tokens: list[int]
    truncated: list[int]


class Engine:
    """A loaded model behind a scheduler; belongs to one event loop.

    Args:
        name: what clients call it.
        embedder: the model.
        settings: limits and defaults.
        observer: is told of the queue and of calls.

    Attributes:
        scheduler: its queue and thread.
    """

    def __init__(self, name: str, embedder: Embedder, settings: Settings, observer: Observer) -> None:
        self.name, self.embedder, self._settings = name, embedder, settings
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix=f"moembed-tokens-{name}")
        self.scheduler = Scheduler(
            self._run,
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
            task: what the request names; None leaves it to the settings.
            overlong: the policy for texts that are too long; None leaves it to the settings.
            dim: components of a vector, None for all.
            limit: most tokens of a text, where it is less than the model's.
            normalize: give vectors of unit length, else the means of the tokens' last hidden states; then no text is read
                in windows.

        Raises:
            ApiError: the request cannot be met, or not now.
        """
        width = self.width(dim)
        policy = self._policy(overlong, windows=normalize)
        todo = await self.windows(texts, task=task, overlong=policy, limit=limit)
        return await self._embed(todo, len(texts), width, EMBEDDING if normalize else MEANS)

    async def embed_ids(self, rows: Sequence[Sequence[int]], *, task: str | None, dim: int | None = None) -> Result:
        """Embed texts that are token ids of this model, with or without its special tokens around them.

        Raises:
            ApiError: as for `embed`; also if an id is none of the vocabulary.
        """
        width = self.width(dim)
        tokenizer, limit = self.embedder.tokenizer, self.embedder.max_tokens
        prompt = prompt_chosen(self.embedder, [""], task, self._settings.task)

        def checked() -> list[Window]:
            try:
                check_room(tokenizer, prompt, limit, "error")
            except InputError as error:
                raise InvalidRequestError(str(error)) from None
            (head,) = tokenizer.encode([""], prefix=prompt)
            known: set[int] = set()
            todo = []
            for index, row in enumerate(rows):
                framed = len(row) > 1 and (row[0], row[-1]) == (tokenizer.bos, tokenizer.eos)
                body = row[1:-1] if framed else row
                if len(head) + len(body) > limit:
                    raise TooLongError(
                        f"text {index} has {len(head) + len(body)} tokens, prompt and special tokens included; the model reads "
                        f"{limit}: send shorter arrays",
                        param="input",
                    )
                new = set(body) - known
                if not all(0 <= token < 2**31 for token in new) or "" in tokenizer.token_strings(list(new)):
                    raise InvalidRequestError(f"text {index} holds a token id that {self.name} has not", param="input")
                known |= new
                todo.append(Window(index, np.array([*head[:-1], *body, head[-1]], np.int32), 0, 0))
            return todo

        return await self._embed(await self.aside(rows, checked), len(rows), width, EMBEDDING)

    async def token_embeddings(
        self, texts: Sequence[str], *, task: str | None, overlong: Overlong | None
    ) -> tuple[Vectors, list[Window]]:
        """The last hidden state of every token of every text, `[tokens, hidden]` each, and what was read.

        Raises:
            ApiError: as for `embed`; also if they are too many numbers for one answer.
        """
        policy = self._policy(overlong, windows=False)
        todo = await self.windows(texts, task=task, overlong=policy)
        numbers = sum(len(window.ids) for window in todo) * self.embedder.dim
        if numbers > _NUMBERS_AT_MOST:
            raise TooLargeError(
                f"the answer would hold {numbers} numbers, {_NUMBERS_AT_MOST} are the most: send fewer texts at a time"
            )
        return await self.scheduler.submit([window.ids for window in todo], TOKENS), todo

    async def routing(self, text: str, *, task: str | None) -> Routing:
        """Where the tokens of a text are routed.

        Raises:
            ApiError: as for `embed`; also if the text is too long.
        """
        todo = await self.windows([text], task=task, overlong="error")
        await asyncio.to_thread(self.embedder.routers.open)
        routed: list[Any] = await self.scheduler.submit([window.ids for window in todo], ROUTING)
        found: Routing = routed[0]
        return found

    async def windows(
        self, texts: Sequence[str], *, task: str | None, overlong: Overlong, limit: int | None = None
    ) -> list[Window]:
        """Check a request's texts against the limits and tokenize them, off the event loop unless they are few.

        Raises:
            ApiError: as for `embed`.
        """
        prompt = prompt_chosen(self.embedder, texts, task, self._settings.task)
        most = min(limit or self.embedder.max_tokens, self.embedder.max_tokens)
        most_texts = self._settings.max_inputs

        def tokenized() -> list[Window]:
            todo: list[Window] = []
            # One window more than a request may have tells that there are more.
            for window in windows_of(
                self.embedder.tokenizer, texts, prompt=prompt, limit=most, overlong=overlong, windows=most_texts + 1
            ):
                if len(todo) == most_texts:
                    raise TooManyTextsError(
                        f"the texts are more than {most_texts} windows of {most} tokens; this server takes {most_texts} texts or "
                        "windows at most: send less at a time"
                    )
                todo.append(window)
            return todo

        try:
            return await self.aside(texts, tokenized)
        except TextTooLongError as error:
            raise TooLongError(
                f"text {error.index} has {error.counted}, prompt and special tokens included; the model reads "
                f"{error.limit}: send less, or let it be cut or read in windows (see the API's own field for that, or "
                "`moembed serve --overlong`)",
            ) from None
        except InputError as error:
            raise InvalidRequestError(str(error)) from None

    def default_task(self, texts: Sequence[str], task: str | None) -> str | None:
        """The server's default task, if texts for which a request names `task` get its prompt."""
        return None if task is not None or carries_prompt(self.embedder, texts) else self._settings.task

    async def aside(self, texts: Sequence[Sequence[object]], work: Callable[[], _T]) -> _T:
        """Check a request's texts against the limits, then work on them: beside the event loop, unless they are few.

        Raises:
            ApiError: they are more than a request may have, or than the queue has room for.
        """
        characters = sum(map(len, texts))
        self._check(texts, characters)
        if characters <= _INLINE_CHARACTERS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    async def close(self) -> None:
        """Compute what waits, then end the threads."""
        await self.scheduler.close()
        self._tokenizing.shutdown()

    def _run(self, output: str, rows: list[Ids]) -> Sequence[Any]:
        if output == ROUTING:
            return [self.embedder.routers.run(row) for row in rows]
        found = self.embedder.session.run(
            EMBEDDING if output == EMBEDDING else TOKENS, *pad(rows, self.embedder.tokenizer.pad)
        )
        if output == EMBEDDING:
            return list(found)
        states = [padded[: len(row)] for padded, row in zip(found, rows, strict=True)]
        return [state.mean(axis=0, dtype=np.float32) if output == MEANS else state.copy() for state in states]

    def _check(self, texts: Sequence[object], characters: int) -> None:
        most_texts, most_characters = self._settings.max_inputs, self._settings.max_characters
        if len(texts) > most_texts:
            raise TooManyTextsError(
                f"{len(texts)} texts in one request; this server takes {most_texts} at most: send fewer at a time"
            )
        if characters > most_characters:
            raise TooLargeError(
                f"{characters} characters in one request; this server takes {most_characters} at most: send less at a time"
            )
        self.scheduler.admit(len(texts))

    def width(self, dim: int | None) -> int:
        """Components of a vector of which `dim` were asked for, None for all.

        Raises:
            InvalidRequestError: it has not so many.
        """
        if dim is not None and not 1 <= dim <= self.embedder.dim:
            trained = ", ".join(map(str, self.embedder.bundle.manifest.dims))
            raise InvalidRequestError(
                f"{dim} dimensions; {self.name} has 1 to {self.embedder.dim} (trained: {trained})", param="dimensions"
            )
        return dim or self.embedder.dim

    def _policy(self, overlong: Overlong | None, *, windows: bool) -> Overlong:
        policy = overlong or self._settings.overlong
        return "error" if policy == "mean" and not windows else policy

    async def _embed(self, todo: list[Window], count: int, width: int, output: str) -> Result:
        found = await self.scheduler.submit([window.ids for window in todo], output)
        vectors = np.stack(found) if found else np.empty((0, self.embedder.dim), np.float32)
        tokens = [0] * count
        for window in todo:
            tokens[window.text] += len(window.ids)
        truncated = [window.text for window in todo if window.truncated]
        return Result(finish(todo, vectors, count, width, normalize=output == EMBEDDING), tokens, truncated)
