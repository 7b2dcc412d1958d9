"""`Embedder`: text in, vectors out."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import array, flag, one_text, prompt_text, text_list, text_stream, whole, word
from moembed.bundle.bundle import Bundle
from moembed.bundle.locate import open_bundle
from moembed.errors import InputError, PromptWarning, TruncationWarning, shown, warn
from moembed.inference.batching import pad, plan
from moembed.inference.routing import Routers, Routing
from moembed.inference.session import Session
from moembed.pickling import Options, Picklable
from moembed.precision import PRECISIONS, Precision, cosines, quantize_embeddings, shortened
from moembed.progress import progress
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.truncation import Chunk, Overlong, Window, check_room, merged, policy_of, pooled, windows_of

DEFAULT_BATCH_SIZE = 64
# sentence-transformers' order of looking for the prompt of a document.
_TASKS = {"query": ("query",), "document": ("document", "passage", "corpus")}


@dataclass(frozen=True, slots=True)
class Embedding:
    """One vector and what it stands for, as `Embedder.embed` yields it.

    Attributes:
        index: position of its text in the input.
        vector: `[dim]` in the precision asked for.
        scale: what turns `vector` back into floats; see `moembed.dequantize_embeddings`.
        tokens: tokens that were read for it, prompt and special tokens included.
        start: first character of the text that it covers.
        end: one past the last character that it covers.
        truncated: whether a part of the text, before `start` or behind `end`, was left out.
    """

    index: int
    vector: NDArray[Any]
    scale: float
    tokens: int
    start: int
    end: int
    truncated: bool


class Embedder(Picklable):
    """A bundle, ready to embed. Safe to share between threads; a pickle or a copy of it shares its session.

    The same text gives the same bytes alone, in any batch, in any order and with any number of threads.

    Attributes:
        bundle: the bundle it runs; `bundle.manifest` tells prompts, dims and provenance.
        max_tokens: most tokens of one text, prompt and special tokens included.
        dim: width of a full vector.
        prompts: prompt name -> text put in front.
        providers: ONNX Runtime's execution providers in use.
        threads: threads of one call.
        kernels: which kernels compute the bundle's own operators, `"portable"` for ONNX Runtime's own.
        session: runs token ids, for callers that make batches of their own.
        tokenizer: makes token ids.
        routers: tells where token ids are routed, likewise.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: str | Sequence[str] = "cpu",
        threads: int | None = None,
        spin: bool = True,
    ) -> None:
        if not isinstance(bundle, Bundle):
            raise InputError(
                f"bundle = {shown(bundle)}; expected a Bundle: Embedder.from_pretrained opens a folder or hub name"
            )
        self.bundle = bundle
        self.session = Session(bundle, providers=providers, threads=threads, spin=spin)
        self.tokenizer = Tokenizer(bundle)
        self.max_tokens = bundle.manifest.max_tokens
        self.dim = bundle.manifest.hidden_size
        self.prompts = dict(bundle.manifest.prompts)
        self.providers = tuple(self.session.providers)
        self.threads = self.session.threads
        self.kernels = self.session.kernels
        self.routers = Routers(
            bundle, self.tokenizer, providers=self.providers, threads=self.threads, kernels=self.kernels
        )
        self._options = Options.of(providers, threads, spin)
        self._warn_once = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str] | None = None,
        *,
        revision: str | None = None,
        providers: str | Sequence[str] = "cpu",
        threads: int | None = None,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> "Embedder":
        """Open a bundle.

        Args:
            source: a bundle folder, a hub name `owner/name`, or None for the model inside the package.
            revision: commit, tag or branch of a hub name.
            providers: `"cpu"`, `"cuda"`, or ONNX Runtime provider names in order of preference.
            threads: threads of one call; None for the CPUs this process may use.
            cache_dir: where hub files are kept; None for huggingface_hub's own cache.
            local_files_only: never touch the network.

        Raises:
            InputError: an argument cannot be used.
            SourceError: no such folder or hub name.
            BundleError: the bundle is missing something, altered or not a bundle.
            ProviderError: a provider that was asked for is not available; nothing falls back silently.
        """
        bundle = open_bundle(source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        return cls(bundle, providers=providers, threads=threads)

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        show_progress_bar: bool | None = None,
        precision: Precision = "float32",
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        overlong: Overlong = "error",
    ) -> NDArray[Any]:
        """Embed texts; keywords and prompt names are those of sentence-transformers.

        Args:
            texts: one text, or several in a list, a tuple, a generator, a 1-d NumPy array, a Series of pandas or Polars, an
                Arrow array, or any other ordered iterable of strings.
            prompt_name: which of the model's prompts to put in front; `encode_query` and `encode_document` choose it.
            prompt: a prompt of your own, `""` for none on purpose.
            batch_size: most texts of one call; also limited by a token budget. It changes memory, never a vector.
            show_progress_bar: None shows one on a terminal when the work takes long.
            precision: `"float32"`, `"float16"`, `"int8"`, `"uint8"`, `"binary"` or `"ubinary"`; see
                `moembed.quantize_embeddings` for the codes and `moembed.dequantize_embeddings` for the way back.
            normalize_embeddings: scale to unit length after cutting to `truncate_dim`; False keeps the cut prefix of the
                full unit vector, as sentence-transformers does.
            truncate_dim: keep the first so many dimensions (Matryoshka).
            overlong: for a text of more than `max_tokens`: `"error"`; `"truncate"` or `"truncate_start"`, which leaves out
                its end or its start, with a `TruncationWarning` that lists the texts; `"chunk"` or a `Chunk`, the mean of
                its windows.

        Returns:
            `[dim]` for a string, `[len(texts), dim]` for a sequence, in the precision asked for.

        Raises:
            InputError: a text or an argument cannot be used.
            TextTooLongError: a text is too long under `overlong="error"`; nothing was computed.
        """
        if isinstance(overlong, Chunk) and not overlong.pooled:
            raise InputError("encode returns one row per text; use embed for one vector per window, or pooled=True")
        batch, single = text_list(texts)
        dim, normalize = self._dim(truncate_dim, precision), flag("normalize_embeddings", normalize_embeddings)
        show = None if show_progress_bar is None else flag("show_progress_bar", show_progress_bar)
        todo = self._windows(batch, self._prompt(prompt_name, prompt), overlong)
        if cut := tuple(window.text for window in todo if window.truncated):
            indices = ", ".join(map(str, cut[:8])) + (", ..." if len(cut) > 8 else "")
            message = f"cut to {self.max_tokens} tokens: {len(cut)} of {len(batch)} texts (index {indices})"
            warn(TruncationWarning(message, cut))
        vectors = pooled(todo, self._vectors(todo, batch_size, show), len(batch))
        codes = quantize_embeddings(shortened(vectors, dim, normalize=normalize), precision).codes
        return codes[0] if single else codes

    def encode_query(self, texts: str | Iterable[str], **options: Any) -> NDArray[Any]:
        """`encode` with the model's prompt for queries; same options."""
        return self.encode(texts, **self._with_prompt("query", options))

    def encode_document(self, texts: str | Iterable[str], **options: Any) -> NDArray[Any]:
        """`encode` with the model's prompt for documents (`document`, `passage` or `corpus`); same options."""
        return self.encode(texts, **self._with_prompt("document", options))

    def embed(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        precision: Precision = "float32",
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        overlong: Overlong = "error",
    ) -> Iterator[Embedding]:
        """Embed a stream of any length with one batch of texts in memory; arguments as for `encode`.

        Args:
            texts: any iterable; it is read `batch_size` texts at a time.
            prompt_name: as for `encode`.
            prompt: as for `encode`.
            batch_size: as for `encode`.
            precision: as for `encode`.
            normalize_embeddings: as for `encode`.
            truncate_dim: as for `encode`.
            overlong: as for `encode`; with `Chunk(pooled=False)` every window is yielded.

        Yields:
            An `Embedding` per text, or per window, in the order of the texts.

        Raises:
            InputError: at once if an argument cannot be used, else when a text is reached that cannot.
            TextTooLongError: when such a text is reached under `overlong="error"`.
        """
        if isinstance(texts, str):
            raise InputError("embed takes an iterable of texts; for one text use encode, or embed([text])")
        dim, prefix, policy = self._dim(truncate_dim, precision), self._prompt(prompt_name, prompt), policy_of(overlong)
        check_room(self.tokenizer, prefix, self.max_tokens, policy)
        batch_size, normalize = whole("batch_size", batch_size), flag("normalize_embeddings", normalize_embeddings)
        return self._stream(text_stream(texts), prefix, policy, batch_size, dim, normalize, precision)

    def similarity(self, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
        """Cosine similarity of every vector of `a` `[n, dim]` with every one of `b` `[m, dim]`: `[n, m]` float32.

        A single vector `[dim]` counts as one row.

        Raises:
            InputError: the vectors are not finite floats (see `moembed.dequantize_embeddings`) or their widths differ.
        """
        return cosines(array("a", a), array("b", b))

    def count_tokens(
        self, texts: str | Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> int | list[int]:
        """Tokens of each text as `encode` would count them against `max_tokens`: an int for a string, else a list."""
        batch, single = text_list(texts)
        counts = [len(ids) for ids in self.tokenizer.encode(batch, prefix=self._prompt_or_none(prompt_name, prompt))]
        return counts[0] if single else counts

    def token_embeddings(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """The last hidden state of every token, for late interaction or pooling of your own.

        Returns:
            `[tokens, hidden]` float32 for a string, a list of such arrays for a sequence; prompt and special tokens
            included, not normalized.

        Raises:
            InputError: a text or an argument cannot be used.
            TextTooLongError: a text has more than `max_tokens`.
        """
        batch, single = text_list(texts)
        todo = self._windows(batch, self._prompt(prompt_name, prompt), "error")
        states: list[NDArray[np.float32]] = [np.empty((0, self.dim), np.float32)] * len(todo)
        for indices, output in self._run("token_embeddings", todo, batch_size):
            for row, index in enumerate(indices):
                states[index] = output[row, : len(todo[index].ids)].copy()
        return states[0] if single else states

    def tokens(self, text: str, *, prompt_name: str | None = None, prompt: str | None = None) -> list[str]:
        """The vocabulary pieces of a text, in the order of `token_embeddings`' rows."""
        (ids,) = self.tokenizer.encode([one_text(text)], prefix=self._prompt_or_none(prompt_name, prompt))
        return self.tokenizer.token_strings(ids.tolist())

    def routing(self, text: str, *, prompt_name: str | None = None, prompt: str | None = None) -> Routing:
        """Which experts read each token of a text, in every layer that has experts.

        The first call opens a second session over the bundle's graph; the weights are the same mapped file.

        Raises:
            InputError: the text or an argument cannot be used.
            TextTooLongError: the text has more than `max_tokens`.
            BundleError: the bundle's graph has no routers that could be asked.
        """
        (window,) = self._windows([one_text(text)], self._prompt_or_none(prompt_name, prompt), "error")
        return self.routers.run(window.ids)

    def prompt_for(self, task: str) -> str:
        """The text in front of every text of a task.

        Args:
            task: `"query"`, `"document"` (which a model may call `passage` or `corpus`), or any prompt name of the model.

        Raises:
            InputError: the model has prompts, and none for this task.
        """
        for name in _TASKS.get(task, (task,)) if isinstance(task, str) else ():
            if name in self.prompts:
                return self.prompts[name]
        if isinstance(task, str) and task in _TASKS and not self.prompts:
            return ""
        raise InputError(f"no prompt named {shown(task)}; this model has {', '.join(self.prompts) or 'none'}")

    def _with_prompt(self, task: str, options: dict[str, Any]) -> dict[str, Any]:
        chosen = options.get("prompt_name") is not None or options.get("prompt") is not None
        return options if chosen else options | {"prompt": self.prompt_for(task)}

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        if name is not None and prompt is not None:
            raise InputError(f"prompt_name = {shown(name)} and prompt = {shown(prompt)}: give one of them")
        if prompt is not None:
            return prompt_text(prompt)
        if name is not None:
            return self.prompt_for(name)
        if self.bundle.manifest.prompt_required and self._warn_once.acquire(blocking=False):
            message = (
                f"{self.bundle.manifest.name} was trained with a prompt in front of every text and none was given: use "
                "encode_query for queries and encode_document for passages, or prompt_name=... "
                f"({', '.join(self.prompts)}); prompt='' says that you mean it"
            )
            warn(PromptWarning(message))
        return ""

    def _prompt_or_none(self, name: str | None, prompt: str | None) -> str:
        """As `_prompt`, with none where neither is given, and with room for a text behind it."""
        found = self._prompt(name, "" if name is None and prompt is None else prompt)
        check_room(self.tokenizer, found, self.max_tokens, "error")
        return found

    def _dim(self, truncate_dim: int | None, precision: str) -> int:
        chosen, trained = word("precision", precision, PRECISIONS), ", ".join(map(str, self.bundle.manifest.dims))
        dim = self.dim if truncate_dim is None else truncate_dim
        dim = whole("truncate_dim", dim, f"1 to {self.dim} (trained: {trained})", most=self.dim)
        if chosen.endswith("binary") and dim % 8:
            raise InputError(f"{chosen} packs 8 dimensions to a byte; {dim} is not a multiple of 8")
        return dim

    def _windows(self, texts: Sequence[str], prompt: str, overlong: Overlong, first: int = 0) -> list[Window]:
        limit = self.max_tokens
        return list(windows_of(self.tokenizer, texts, prompt=prompt, limit=limit, overlong=overlong, first=first))

    def _run(
        self, output: str, todo: Sequence[Window], batch_size: int
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        batch_size, pad_id = whole("batch_size", batch_size), self.tokenizer.pad
        for indices in plan([len(window.ids) for window in todo], batch_size=batch_size):
            yield indices, self.session.run(output, *pad([todo[i].ids for i in indices], pad_id))

    def _vectors(self, todo: Sequence[Window], batch_size: int, show: bool | None) -> NDArray[np.float32]:
        vectors = np.empty((len(todo), self.dim), np.float32)
        with progress(len(todo), "text", show=show) as advance:
            for indices, output in self._run("sentence_embedding", todo, batch_size):
                vectors[indices] = output
                advance(len(indices))
        return vectors

    def _stream(
        self,
        texts: Iterator[str],
        prompt: str,
        policy: Overlong,
        batch_size: int,
        dim: int,
        normalize: bool,
        precision: Precision,
    ) -> Iterator[Embedding]:
        first = 0
        while batch := list(islice(texts, batch_size)):
            todo = self._windows(batch, prompt, policy, first)
            vectors = self._vectors(todo, batch_size, False)
            if not isinstance(policy, Chunk) or policy.pooled:
                vectors, todo = pooled(todo, vectors, len(batch)), merged(todo)
            codes, scales = quantize_embeddings(shortened(vectors, dim, normalize=normalize), precision)
            for window, code, scale in zip(todo, codes, scales, strict=True):
                yield Embedding(
                    index=first + window.text,
                    vector=code,
                    scale=float(scale),
                    tokens=len(window.ids),
                    start=window.start,
                    end=window.end,
                    truncated=window.truncated,
                )
            first += len(batch)
