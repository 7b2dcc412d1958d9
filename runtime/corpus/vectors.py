"""Vectors of a block of texts: each distinct text is computed once, and each vector is checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import one_of, whole
from moembed.embedder import DEFAULT_BATCH_SIZE, Embedder
from moembed.errors import BundleError, InputError
from moembed.inference.batching import pad, plan
from moembed.inference.session import Output
from moembed.late_chunking import Pass, late_windows
from moembed.precision import PRECISIONS, Precision, quantize_embeddings
from moembed.stamps.making import stamp_of
from moembed.stamps.stamp import Stamp
from moembed.truncation import Chunk, Overlong, Window, check_room, finish, merged, policy_of, windows_of

_TOLERANCE = 1e-3  # of the length of a vector
_COUNTED = 8  # times the limit, up to which the tokens of a text are counted


@dataclass(frozen=True)
class Vectors:
    """Vectors of the texts of a block. Arrays have one item per vector.

    Attributes:
        rows: `[n]` int64, positions of the texts in the block, ascending.
        codes: `[n, width]` in the requested precision.
        scales: `[n]` float32.
        tokens: `[n]` int32.
        truncated: `[n]` bool.
        windows: `[n]` int32, number of the window in its text.
        starts: `[n]` int64, first character of the text that the vector covers.
        ends: `[n]` int64, the character after the last.
        reasons: position in the block -> why the text has no vector.
        computed: number of tokens that were computed.
    """

    rows: NDArray[np.int64]
    codes: NDArray[Any]
    scales: NDArray[np.float32]
    tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    windows: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    reasons: dict[int, str]
    computed: int


class Encoder:
    """Computes the vectors of blocks with one model and one set of options.

    Attributes:
        embedder: the model.
        stamp: stamp of its vectors.
        dtype: dtype of a vector.
        stored: number of items of a stored vector, which is less than the width for bits.
    """

    def __init__(
        self, embedder: Embedder, *, prompt: str, dim: int | None, precision: Precision, overlong: Overlong
    ) -> None:
        one_of("precision", precision, PRECISIONS)
        width = embedder.dim if dim is None else whole("truncate_dim", dim, f"1 to {embedder.dim}", most=embedder.dim)
        empty = embedder.encode([], prompt="", precision=precision, truncate_dim=width)
        self.embedder, self._width, self._precision, self._prompt = embedder, width, precision, prompt
        self._policy = policy_of(overlong)
        if isinstance(self._policy, Chunk) and self._policy.spans is not None:
            raise InputError(
                "spans is a function, which neither goes to other processes nor into the record of a run: pass tokens, or use "
                "Embedder.embed"
            )
        check_room(embedder.tokenizer, prompt, embedder.max_tokens, self._policy, embedder.bundle.manifest.pooling)
        self.stamp: Stamp = stamp_of(embedder, prompt, width, precision, overlong)
        self.dtype, self.stored = empty.dtype, empty.shape[1]

    @property
    def has_windows(self) -> bool:
        """True if a text may have several vectors."""
        return isinstance(self._policy, Chunk) and not self._policy.pooled

    def compute(self, texts: Sequence[str | None]) -> Vectors:
        """Return the vectors of texts, in order; a text that is None has none.

        Raises:
            BundleError: the model computes nothing.
        """
        numbers = {text: number for number, text in enumerate(dict.fromkeys(t for t in texts if t is not None))}
        windows, outputs, reasons, computed = self._computed(list(numbers))
        _check_lengths(windows, outputs, reasons)
        rows, codes, scales = self._finished(windows, outputs, reasons)
        # Rows of each distinct text, and then of each text.
        of_text: list[list[int]] = [[] for _ in numbers]
        for position, row in enumerate(rows):
            of_text[row.text].append(position)
        order: list[int] = []
        positions: list[int] = []
        counts: list[int] = []
        for position, text in enumerate(texts):
            own = of_text[numbers[text]] if text is not None else []
            order += own
            positions += [position] * len(own)
            counts += range(len(own))
        index = np.array(order, np.int64)

        def column(values: list[Any], dtype: Any) -> NDArray[Any]:
            return np.array(values, dtype)[index] if values else np.empty(0, dtype)

        return Vectors(
            rows=np.array(positions, np.int64),
            codes=codes[index],
            scales=scales[index],
            tokens=column([len(row.ids) for row in rows], np.int32),
            truncated=column([row.truncated for row in rows], np.bool_),
            windows=np.array(counts, np.int32),
            starts=column([row.start for row in rows], np.int64),
            ends=column([row.end for row in rows], np.int64),
            reasons={
                at: reasons[numbers[text]]
                for at, text in enumerate(texts)
                if text is not None and numbers[text] in reasons
            },
            computed=computed,
        )

    def _computed(self, texts: list[str]) -> tuple[list[Window], NDArray[np.float32], dict[int, str], int]:
        """Return windows, the model's vector of each, reasons of texts that have none, and the number of computed tokens."""
        model, policy, computed = self.embedder, self._policy, 0
        if not isinstance(policy, Chunk) or not policy.late:
            windows, reasons = self._windows(texts)
            outputs = np.zeros((len(windows), model.dim), np.float32)
            for indices, found in self._batches(Output.EMBEDDING, windows, reasons):
                outputs[indices] = found
            return windows, outputs, reasons, sum(len(window.ids) for window in windows)
        reasons = {}

        def run(passes: Sequence[Pass]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
            nonlocal computed
            computed = sum(len(one.ids) for one in passes)
            yield from self._batches(Output.TOKENS, passes, reasons)

        windows, outputs = late_windows(
            model.tokenizer,
            texts,
            prompt=self._prompt,
            limit=model.max_tokens,
            policy=policy,
            run=run,
            layer_norm=model.bundle.manifest.pooled_layer_norm,
        )
        return windows, outputs, reasons, computed

    def _windows(self, texts: list[str]) -> tuple[list[Window], dict[int, str]]:
        model = self.embedder
        # Under "error", what would be cut is rejected, and the others go on.
        policy: Overlong = "truncate" if self._policy == "error" else self._policy
        limit = model.max_tokens
        windows = list(windows_of(model.tokenizer, texts, prompt=self._prompt, limit=limit, overlong=policy))
        if self._policy != "error":
            return windows, {}
        reasons = {window.text: self._too_long(texts[window.text]) for window in windows if window.truncated}
        return [window for window in windows if not window.truncated], reasons

    def _too_long(self, text: str) -> str:
        limit = self.embedder.max_tokens
        (ids,) = self.embedder.tokenizer.encode([text], prefix=self._prompt, max_tokens=_COUNTED * limit)
        counted = f"{len(ids)}" if len(ids) <= _COUNTED * limit else f"more than {_COUNTED * limit}"
        return (
            f"the text has {counted} tokens; the model's limit is {limit}: pass --overlong truncate to cut it off, chunk for one "
            "vector per window, or mean for their mean"
        )

    def _batches(
        self, output: Output, rows: Sequence[Window | Pass], failed: dict[int, str]
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Yield the indices of each batch of rows with the model's output; zeros for a row on which the model fails.

        Args:
            output: what the model returns.
            rows: rows of model calls.
            failed: takes the reasons of texts on which the model fails.

        Raises:
            BundleError: the model fails on all rows of a batch.
        """
        for indices in plan([len(row.ids) for row in rows], batch_size=DEFAULT_BATCH_SIZE):
            batch = [rows[i] for i in indices]
            try:
                found = self._run(output, batch)
            except BundleError:
                found = self._one_by_one(output, batch, failed)
            yield indices, found

    def _one_by_one(
        self, output: Output, batch: Sequence[Window | Pass], failed: dict[int, str]
    ) -> NDArray[np.float32]:
        """Return the output of a batch on which the model failed: one text must not cost the others theirs."""
        dim, longest, errors = self.embedder.dim, max(len(row.ids) for row in batch), list[BundleError]()
        outputs = np.zeros((len(batch), longest, dim) if output is Output.TOKENS else (len(batch), dim), np.float32)
        for row, place in zip(batch, outputs, strict=True):
            try:
                (found,) = self._run(output, [row])
            except BundleError as error:
                errors.append(error)
                failed[row.text] = f"the model failed on the text: {error}"
            else:
                place[: len(found)] = found
        if len(errors) == len(batch):
            raise errors[-1]
        return outputs

    def _run(self, output: Output, rows: Sequence[Window | Pass]) -> NDArray[np.float32]:
        ids, mask = pad([row.ids for row in rows], self.embedder.tokenizer.pad)
        return self.embedder.session.run(output, ids, mask)

    def _finished(
        self, windows: list[Window], outputs: NDArray[np.float32], reasons: dict[int, str]
    ) -> tuple[list[Window], NDArray[Any], NDArray[np.float32]]:
        """Return rows, codes and scales, of texts that have no reason; adds reasons for shortened vectors of length 0."""
        good = [position for position, window in enumerate(windows) if window.text not in reasons]
        left = [windows[position] for position in good]
        rows = left if self.has_windows else merged(left)
        texts = {row.text: number for number, row in enumerate(rows)}
        numbered = left if self.has_windows else [replace(window, text=texts[window.text]) for window in left]
        vectors = outputs[good] if len(good) < len(windows) else outputs
        made = finish(numbered, vectors, len(rows), self._width, normalize=True)
        lengths = np.sqrt(np.square(made, dtype=np.float64).sum(axis=1))
        sound = np.abs(lengths - 1) <= _TOLERANCE
        for i in np.flatnonzero(~sound).tolist():
            reasons[rows[i].text] = (
                f"the first {self._width} components of the vector have the length {lengths[i]:.4g}; expected 1"
            )
        if not sound.all():
            kept = [i for i, row in enumerate(rows) if row.text not in reasons]
            rows, made = [rows[i] for i in kept], made[kept]
        if not len(made):
            return [], np.empty((0, self.stored), self.dtype), np.empty(0, np.float32)
        try:
            codes, scales = quantize_embeddings(made, self._precision, scale=self.stamp.scale)
        except InputError as error:  # all are finite and of length 1
            raise BundleError(f"the model's vectors cannot be stored as {self._precision}: {error}") from error
        return rows, codes, scales


def _check_lengths(windows: list[Window], outputs: NDArray[np.float32], reasons: dict[int, str]) -> None:
    """Add a reason for each text with a vector `[hidden]` that has not the length 1."""
    lengths = np.sqrt(np.square(outputs, dtype=np.float64).sum(axis=1))
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(lengths - 1) <= _TOLERANCE)
    for i in np.flatnonzero(wrong).tolist():
        reasons.setdefault(windows[i].text, f"the model's vector has the length {lengths[i]:.4g}; expected 1")
