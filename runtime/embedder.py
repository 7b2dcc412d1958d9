"""`Embedder`: text in, vectors out."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from os import PathLike
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import array, flag, one_of, one_text, prompt_text, text_list, text_stream, whole
from moembed.bundle.bundle import Bundle
from moembed.bundle.int8 import scale_for
from moembed.embedding import Embedding, EncodeOptions
from moembed.errors import InputError, shown
from moembed.inference.batching import pad, plan
from moembed.inference.routing import Routers, Routing
from moembed.inference.session import Output, Session
from moembed.late_chunking import Pass, late_windows
from moembed.pickling import Options, Picklable
from moembed.precision import PRECISIONS, Precision, QuantizedEmbeddings, cosines, quantize_embeddings, shares_scale
from moembed.progress import progress
from moembed.prompts import prompt_of_task, warn_without_prompt
from moembed.pull.opening import open_bundle
from moembed.stamps.stamped import StampedVectors, check_model
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.truncation import (
    Chunk,
    Overlong,
    Window,
    check_room,
    finish,
    merged,
    policy_of,
    warn_if_truncated,
    windows_of,
)

DEFAULT_BATCH_SIZE = 64


class Embedder(Picklable):
    """Embedding model over a bundle. Safe to share between threads; pickles and copies share its session.

    Batch-invariant: a text gets the same bytes alone, in any batch, in any order and with any number of threads. Arguments and
    errors are those of `from_pretrained`, but for the bundle, which is open already.

    Attributes:
        bundle: the bundle; `bundle.manifest` has its prompts, dims and provenance.
        max_tokens: maximum number of tokens of a text, prompt and special tokens included.
        dim: width of a full vector.
        prompts: prompt name -> text in front.
        providers: ONNX Runtime execution providers in use.
        threads: threads per call.
        kernels: name of the kernels that compute the bundle's custom operators; `"portable"` means ONNX Runtime's own.
        session: runs token ids, for callers that build their own batches.
        tokenizer: turns texts into token ids.
        routers: returns the expert routing of token ids.
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
        spin: bool = True,
        cache_dir: str | PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> "Embedder":
        """Open a bundle. A checkpoint that is not converted yet is downloaded, converted and kept in the data folder first.

        Args:
            source: a hub name `owner/name`, the folder of a bundle or a checkpoint, or None for the built-in model.
            revision: commit, tag or branch of a hub name; that of a known model is pinned when this is None.
            providers: `"cpu"`, `"cuda"`, or ONNX Runtime provider names in order of preference.
            threads: threads per call; None for the number of CPUs available to this process.
            spin: let idle threads spin briefly between calls: fastest on dedicated CPUs, but takes CPU time from other work.
            cache_dir: cache folder of hub files; None for huggingface_hub's default.
            local_files_only: do not use the network.

        Raises:
            InputError: an argument cannot be used.
            SourceError: no such folder or hub name.
            BundleError: the bundle is incomplete, altered, or not a bundle.
            CheckpointError: the checkpoint is not one that moembed implements, or not the pinned one.
            OutputError: a converted bundle cannot be kept.
            VerificationError: a converted bundle does not compute what its checkpoint does.
            MissingExtraError: a checkpoint has to be converted, and the extra `convert` is not installed.
            ProviderError: a requested provider is not available; there is no silent fallback.
        """
        bundle = open_bundle(source, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
        return cls(bundle, providers=providers, threads=threads, spin=spin)

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
        """Embed texts. Keywords and prompt names are those of sentence-transformers.

        Args:
            texts: one text, or several in a list, a tuple, a generator, a 1-d NumPy array, a Series of pandas or Polars, an
                Arrow array, or any other ordered iterable of strings.
            prompt_name: name of one of the model's prompts; `encode_query` and `encode_document` choose it for you.
            prompt: text in front of every text, instead of a named prompt; `""` for no prompt.
            batch_size: maximum number of texts per model call, which a token budget limits too. It affects memory, never vectors.
            show_progress_bar: None shows one on a terminal if the work takes long.
            precision: `"float32"`, `"float16"`, `"int8"`, `"int8-per-vector"`, `"uint8"`, `"binary"` or `"ubinary"`; see
                `moembed.quantize_embeddings` for the formats and `moembed.dequantize_embeddings` for the way back. The scale of
                int8 and uint8 is `int8_scale`.
            normalize_embeddings: scale to unit length after truncation to `truncate_dim`; False keeps the prefix of the full
                unit vector, as sentence-transformers does.
            truncate_dim: keep this many leading dimensions (Matryoshka).
            overlong: policy for texts of more than `max_tokens`: `"error"`; `"truncate"` or `"truncate_start"`, which cut off
                the end or the start and issue a `TruncationWarning` with the texts' indices; `"mean"`, or a `Chunk` with
                `pooled=True`, the mean over windows.

        Returns:
            `[dim]` for a string, `[len(texts), dim]` for a sequence, in the requested precision.

        Raises:
            InputError: a text or an argument cannot be used.
            TextTooLongError: a text is too long under `overlong="error"`; nothing was computed.
        """
        policy = policy_of(overlong)
        if isinstance(policy, Chunk) and not policy.pooled:
            raise InputError(
                "encode returns one vector per text: pass overlong='mean' to average a text's windows (or a Chunk with "
                "pooled=True), or get one vector per window from embed"
            )
        batch, single = text_list(texts)
        dim, normalize = self._dim(truncate_dim, precision), flag("normalize_embeddings", normalize_embeddings)
        show = None if show_progress_bar is None else flag("show_progress_bar", show_progress_bar)
        windows = self._windows(batch, self._prompt(prompt_name, prompt), policy)
        warn_if_truncated(windows, len(batch), self.max_tokens)
        vectors = finish(windows, self._vectors(windows, batch_size, show), len(batch), dim, normalize=normalize)
        codes = self._quantized(vectors, precision, normalize=normalize).codes
        return codes[0] if single else codes

    def encode_query(self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]) -> NDArray[Any]:
        """Embed queries: `encode` with the model's prompt for queries, unless the options choose another."""
        return self.encode(texts, **self._with_prompt("query", options))

    def encode_document(self, texts: str | Iterable[str], **options: Unpack[EncodeOptions]) -> NDArray[Any]:
        """Embed documents: `encode` with the model's prompt for documents, unless the options choose another.

        That is the first of its prompts `document`, `passage` and `corpus`.
        """
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
        """Embed a stream of any length, with one batch of texts in memory at a time.

        Args:
            texts: any iterable; it is read `batch_size` texts at a time.
            prompt_name: as for `encode`.
            prompt: as for `encode`.
            batch_size: as for `encode`.
            precision: as for `encode`.
            normalize_embeddings: as for `encode`.
            truncate_dim: as for `encode`.
            overlong: as for `encode`; also `"chunk"`, or a `Chunk` with `pooled=False`, which yield one vector per window, of
                over-long texts or, with `late=True`, of all. Their `tokens` are then those of the window alone.

        Yields:
            An `Embedding` per text, or per window, in the order of the texts.

        Raises:
            InputError: an argument cannot be used (raised by the call itself), or a text (when the iteration reaches it).
            TextTooLongError: the iteration reached a text that is too long under `overlong="error"`.
        """
        if isinstance(texts, str):
            raise InputError("embed takes an iterable of texts; for one text use encode, or embed([text])")
        dim, prefix, policy = self._dim(truncate_dim, precision), self._prompt(prompt_name, prompt), policy_of(overlong)
        check_room(self.tokenizer, prefix, self.max_tokens, policy, self.bundle.manifest.pooling)
        batch_size, normalize = whole("batch_size", batch_size), flag("normalize_embeddings", normalize_embeddings)

        def stream(remaining: Iterator[str]) -> Iterator[Embedding]:
            first, run = 0, partial(self._run, Output.TOKENS, batch_size=batch_size)
            norm = self.bundle.manifest.pooled_layer_norm
            late = partial(late_windows, self.tokenizer, prompt=prefix, limit=self.max_tokens, run=run, layer_norm=norm)
            while batch := list(islice(remaining, batch_size)):
                if isinstance(policy, Chunk) and policy.late:
                    windows, found = late(batch, policy=policy, first=first)
                    rows = windows
                else:
                    windows = self._windows(batch, prefix, policy, first)
                    # One row per window, unless the windows of a text are averaged.
                    rows = windows if isinstance(policy, Chunk) and not policy.pooled else merged(windows)
                    found = self._vectors(windows, batch_size, False)
                vectors = finish(windows, found, len(rows), dim, normalize=normalize)
                codes, scales = self._quantized(vectors, precision, normalize=normalize)
                for row, code, scale in zip(rows, codes, scales, strict=True):
                    yield Embedding(
                        index=first + row.text,
                        text=batch[row.text],
                        vector=code,
                        scale=float(scale),
                        tokens=len(row.ids),
                        start=row.start,
                        end=row.end,
                        truncated=row.truncated,
                    )
                first += len(batch)

        return stream(text_stream(texts))

    def similarity(self, a: NDArray[Any] | StampedVectors, b: NDArray[Any] | StampedVectors) -> NDArray[np.float32]:
        """Return the cosine similarity of each vector of `a` `[n, dim]` with each of `b` `[m, dim]`: `[n, m]` float32.

        A single vector `[dim]` counts as one row. Vectors with a stamp, from `moembed.load_vectors`, have to be of this model.
        Arrays are taken to be.

        Raises:
            InputError: the vectors are not finite floats (see `moembed.dequantize_embeddings`), their widths differ, or a stamp
                is that of another model.
        """
        check_model(self.bundle.fingerprint, self.bundle.manifest.name, {"a": a, "b": b})
        return cosines(array("a", a), array("b", b))

    def int8_scale(self, truncate_dim: int | None = None, *, normalize_embeddings: bool = True) -> float:
        """Return the scale of int8 and uint8 codes: the bundle's for that width, see `moembed.bundle.int8`.

        Args:
            truncate_dim: as for `encode`.
            normalize_embeddings: as for `encode`; a prefix that is not scaled to unit length has the scale of the full width.

        Raises:
            InputError: an argument cannot be used.
        """
        dim, normalize = self._dim(truncate_dim, "int8"), flag("normalize_embeddings", normalize_embeddings)
        return scale_for(self.bundle.manifest.int8, dim if normalize else self.dim)

    def count_tokens(
        self, texts: str | Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> int | list[int]:
        """Count the tokens of each text, as `encode` compares them with `max_tokens`: an int for a string, else a list."""
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
        """Return the last hidden state of every token, for late interaction or custom pooling.

        Returns:
            `[tokens, hidden]` float32 for a string, a list of such arrays for a sequence; prompt and special tokens
            included, not normalized.

        Raises:
            InputError: a text or an argument cannot be used.
            TextTooLongError: a text has more than `max_tokens`.
        """
        batch, single = text_list(texts)
        windows = self._windows(batch, self._prompt(prompt_name, prompt), "error")
        states: list[NDArray[np.float32]] = [np.empty((0, self.dim), np.float32)] * len(windows)
        for indices, output in self._run(Output.TOKENS, windows, batch_size):
            for row, index in enumerate(indices):
                states[index] = output[row, : len(windows[index].ids)].copy()
        return states[0] if single else states

    def tokens(self, text: str, *, prompt_name: str | None = None, prompt: str | None = None) -> list[str]:
        """Return the vocabulary pieces of a text, in the order of the rows of `token_embeddings`."""
        (ids,) = self.tokenizer.encode([one_text(text)], prefix=self._prompt_or_none(prompt_name, prompt))
        return self.tokenizer.token_strings(ids.tolist())

    def routing(self, text: str, *, prompt_name: str | None = None, prompt: str | None = None) -> Routing:
        """Return the expert routing of a text: the experts of each token in every MoE layer.

        The first call opens a second session over the bundle's graph; the weights are the same mapped file.

        Raises:
            InputError: the text or an argument cannot be used.
            TextTooLongError: the text has more than `max_tokens`.
            BundleError: the bundle's graph has no routers.
        """
        (window,) = self._windows([one_text(text)], self._prompt_or_none(prompt_name, prompt), "error")
        return self.routers.run(window.ids)

    def prompt_for(self, task: str) -> str:
        """Return the prompt of a task.

        Args:
            task: `"query"`, `"document"` (which a model may call `passage` or `corpus`), or any prompt name of the model.

        Raises:
            InputError: the model has prompts, but none for this task.
        """
        return prompt_of_task(self.prompts, task)

    def _with_prompt(self, task: str, options: EncodeOptions) -> EncodeOptions:
        if options.get("prompt_name") is None and options.get("prompt") is None:
            options["prompt"] = self.prompt_for(task)
        return options

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        if name is not None and prompt is not None:
            raise InputError(f"prompt_name = {shown(name)} and prompt = {shown(prompt)}: pass only one of them")
        if prompt is not None:
            return prompt_text(prompt)
        if name is not None:
            return self.prompt_for(name)
        if self.bundle.manifest.prompt_required and self._warn_once.acquire(blocking=False):
            warn_without_prompt(self.bundle.manifest.name, self.prompts)
        return ""

    def _prompt_or_none(self, name: str | None, prompt: str | None) -> str:
        """Return the prompt as `_prompt` does, but without a warning, and check that it leaves room for a text."""
        found = self._prompt(name, "" if name is None and prompt is None else prompt)
        check_room(self.tokenizer, found, self.max_tokens, "error")
        return found

    def _dim(self, truncate_dim: int | None, precision: str) -> int:
        checked, trained = one_of("precision", precision, PRECISIONS), ", ".join(map(str, self.bundle.manifest.dims))
        dim = self.dim if truncate_dim is None else truncate_dim
        dim = whole("truncate_dim", dim, f"1 to {self.dim} (trained: {trained})", most=self.dim)
        if checked.endswith("binary") and dim % 8:
            raise InputError(f"{checked} packs 8 dimensions into a byte; {dim} is not a multiple of 8")
        return dim

    def _quantized(self, vectors: NDArray[np.float32], precision: Precision, *, normalize: bool) -> QuantizedEmbeddings:
        shared = shares_scale(precision)
        scale = self.int8_scale(vectors.shape[-1], normalize_embeddings=normalize) if shared else None
        return quantize_embeddings(vectors, precision, scale=scale)

    def _windows(self, texts: Sequence[str], prompt: str, overlong: Overlong, first: int = 0) -> list[Window]:
        limit = self.max_tokens
        return list(windows_of(self.tokenizer, texts, prompt=prompt, limit=limit, overlong=overlong, first=first))

    def _run(
        self, output: Output, windows: Sequence[Window | Pass], batch_size: int
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        batch_size, pad_id = whole("batch_size", batch_size), self.tokenizer.pad
        for indices in plan([len(window.ids) for window in windows], batch_size=batch_size):
            yield indices, self.session.run(output, *pad([windows[i].ids for i in indices], pad_id))

    def _vectors(self, windows: Sequence[Window], batch_size: int, show: bool | None) -> NDArray[np.float32]:
        vectors = np.empty((len(windows), self.dim), np.float32)
        with progress(len(windows), "text", show=show) as advance:
            for indices, output in self._run(Output.EMBEDDING, windows, batch_size):
                vectors[indices] = output
                advance(len(indices))
        return vectors
