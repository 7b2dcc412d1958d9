"""Vectors of a block of texts: each distinct text is computed once, and each vector is checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import one_of, whole
from moembed.embedder import DEFAULT_BATCH_SIZE, Embedder
from moembed.errors import BundleError, InputError
from moembed.inference.batching import pad, plan
from moembed.inference.session import Output
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
        windows, reasons = self._windows(list(numbers))
        outputs, failed = self._outputs(windows)
        reasons |= failed
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
            computed=sum(len(window.ids) for window in windows),
        )

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

    def _outputs(self, windows: list[Window]) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Return the model's vectors of windows, and the reasons of texts for which it has none."""
        model = self.embedder
        outputs = np.zeros((len(windows), model.dim), np.float32)
        failed: dict[int, str] = {}
        for indices in plan([len(window.ids) for window in windows], batch_size=DEFAULT_BATCH_SIZE):
            try:
                outputs[indices] = self._run([windows[i] for i in indices])
            except BundleError:
                problems = {}
                for i in indices:  # one text must not cost the others theirs
                    try:
                        outputs[i] = self._run([windows[i]])[0]
                    except BundleError as error:
                        problems[windows[i].text] = f"the model failed on the text: {error}"
                if len(problems) == len(indices):
                    raise
                failed |= problems
        lengths = np.sqrt(np.square(outputs, dtype=np.float64).sum(axis=1))
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(lengths - 1) <= _TOLERANCE)
        for i in np.flatnonzero(wrong).tolist():
            failed.setdefault(windows[i].text, f"the model's vector has the length {lengths[i]:.4g}; expected 1")
        return outputs, failed

    def _run(self, windows: list[Window]) -> NDArray[np.float32]:
        ids, mask = pad([window.ids for window in windows], self.embedder.tokenizer.pad)
        return self.embedder.session.run(Output.EMBEDDING, ids, mask)

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
