"""ONNX Runtime session over a bundle's graph."""

import ctypes
import os
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.arguments import flag, whole
from moembed.bundle.bundle import Bundle
from moembed.bundle.external_data import follow_links, has_links, read_graph
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.bundle.protobuf import encoded
from moembed.errors import BundleError, InputError, MissingExtraError, ProviderError, shown
from moembed.inference.batching import TOKENS_PER_CALL
from moembed.inference.cpu import available_cpus, saturates
from moembed.inference.float_mode import DEFAULT_FLOAT_MODE
from moembed.inference.forks import PerProcess
from moembed.inference.kernels import PORTABLE, Kernels, choose_kernels
from moembed.inference.native_calls import CALLS
from moembed.inference.telemetry import warn_if_started
from moembed.inference.wheels import GPU, MINIMUM, installed_wheels, listed, no_wheel, preferred, repair_command

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_MAX_THREADS = 1024
_LENGTH_ERROR = 1e-3  # of a vector that is to have length 1
_INPUTS = ("input_ids", "attention_mask")
_INTEGERS, _FLOATS = "tensor(int64)", "tensor(float)"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
# ONNX Runtime 1.32 reads this entry; older versions ignore it, and spin for tens of milliseconds. The steps of a call follow each
# other within microseconds. Longer spinning helps only calls with a pause before them, and takes a CPU from others.
_SPIN_DURATION = "session.intra_op.spin_duration_us"
_SPIN_MICROSECONDS = {True: 200, False: 50}  # by `spin`: the CPUs are ours alone, or shared
_GRAPH, _OUTPUT, _NAME = 7, 12, 1  # fields of ONNX's ModelProto, GraphProto and ValueInfoProto


class Output(StrEnum):
    """Outputs of a bundle's graph."""

    EMBEDDING = "sentence_embedding"
    TOKENS = "token_embeddings"


_AXES = {Output.EMBEDDING: ("batch",), Output.TOKENS: ("batch", "sequence")}  # of each output, before `hidden`


class Session:
    """Session over the graph of a bundle. Safe to share between threads; a forked child opens it again.

    Args:
        bundle: a checked bundle.
        providers: `"cpu"`, `"cuda"`, ONNX Runtime provider names, or a sequence of these in order of preference. All must be
            available: there is no silent fallback.
        threads: threads per call; None for the number of CPUs available to this process.
        spin: let idle threads spin briefly between calls: fastest on dedicated CPUs, but takes CPU time from other work.

    Attributes:
        kernels: name of the kernels of the bundle's custom operators; see `moembed.inference.kernels`.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ProviderError: requested providers or kernels are not available.
        BundleError: ONNX Runtime cannot load the graph.
        InputError: an argument cannot be used.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: str | Sequence[str] = "cpu",
        threads: int | None = None,
        spin: bool = True,
    ) -> None:
        ort = import_onnxruntime()
        expected = f"an integer from 1 to {_MAX_THREADS}, or None for the CPUs available"
        self.threads = available_cpus() if threads is None else whole("threads", threads, expected, most=_MAX_THREADS)
        self.providers = _resolve(providers, ort.get_available_providers())
        # Custom kernels run on the CPU: on another provider they would copy every tensor back.
        kernels = choose_kernels(PORTABLE if self.providers != [_PROVIDERS["cpu"]] else None)
        self.kernels = kernels.name
        self._graph, self._hidden = bundle.graph, bundle.manifest.hidden_size
        arguments = bundle, kernels, tuple(self.providers), self.threads, flag("spin", spin)
        self._session = PerProcess(partial(_reopen, *arguments), _open(*arguments))

    def run(self, output: Output, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run one padded batch.

        Args:
            output: the output to compute.
            ids: `[batch, sequence]`, at least 0.
            mask: `[batch, sequence]`, 1 for tokens and 0 for padding.

        Returns:
            `[batch, hidden]` or `[batch, sequence, hidden]` float32; zeros for a row without tokens.

        Raises:
            InputError: `ids` or `mask` has a wrong shape, type or value.
            BundleError: ONNX Runtime failed on these ids, or gave what is no vector of a text.
        """
        _check_batch(ids, mask)
        rows = len(ids)
        if self.kernels != PORTABLE and ids.shape[1]:
            # Beyond that, activations leave the cache; no row depends on the others.
            rows = max(TOKENS_PER_CALL // ids.shape[1], 1)
        if rows >= len(ids):
            return self._run(output, ids, mask)
        parts = range(0, len(ids), rows)
        return np.concatenate([self._run(output, ids[i : i + rows], mask[i : i + rows]) for i in parts])

    def _run(self, output: Output, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        shape = (len(ids), self._hidden) if output == Output.EMBEDDING else (*ids.shape, self._hidden)
        if not mask.any():
            return np.zeros(shape, np.float32)
        (result,) = run(self._session.get(), [output], ids, mask, str(self._graph))
        if result.shape != shape:
            raise BundleError(
                f"{self._graph}: {output} has the shape {list(result.shape)}, expected {list(shape)}: "
                "copy or export the bundle again"
            )
        vectors = np.asarray(result, dtype=np.float32)
        _check_vectors(vectors, mask, output, str(self._graph))
        return vectors


def _check_vectors(vectors: NDArray[np.float32], mask: NDArray[np.int64], output: Output, name: str) -> None:
    """Refuse what no text can have: values that are not finite, and embeddings of another length than 1.

    Raises:
        BundleError: there is such a row.
    """
    if output == Output.EMBEDDING:
        with np.errstate(over="ignore"):
            lengths = np.sqrt((vectors * vectors).sum(axis=1))
        wrong = ~(np.abs(lengths - 1) <= _LENGTH_ERROR) & mask.any(axis=1)  # NaN compares with nothing
    else:
        wrong = ~np.isfinite(vectors).all(axis=(1, 2))
    if wrong.any():
        row = int(wrong.argmax())
        found = "states that are not finite"
        if output == Output.EMBEDDING:
            found = f"a vector of length {lengths[row]:.6g}, expected 1"
        raise BundleError(
            f"{name}: row {row} of the batch has {found}: the weights or the machine are faulty. Run `moembed verify` on the "
            "bundle, and copy or export it again"
        )


def run(session: Any, outputs: Sequence[str], ids: NDArray[np.int64], mask: NDArray[np.int64], name: str) -> Any:
    """Run an ONNX Runtime session over a bundle's graph. All runs go through this function.

    Args:
        session: the `InferenceSession`.
        outputs: names of the outputs.
        ids: `[batch, sequence]`.
        mask: `[batch, sequence]`.
        name: name of the graph in errors.

    Raises:
        BundleError: ONNX Runtime failed on these ids.
    """
    feed = dict(zip(_INPUTS, (ids, mask), strict=True))
    options = CALLS.run_options(import_onnxruntime())
    with CALLS, DEFAULT_FLOAT_MODE:
        try:
            return session.run(outputs, feed, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise BundleError(f"{name}: ONNX Runtime cannot run it: {error}") from error


def _open(bundle: Bundle, kernels: Kernels, providers: tuple[str, ...], threads: int, spin: bool) -> Any:
    options = session_options(kernels, threads, spin)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Without `spin`, threads still spin between the steps of a call: waking them up for each takes half of a short call.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", str(int(not spin)))
    session = open_graph(_source(bundle.graph, options), str(bundle.graph), options, providers)
    _return_freed_memory()
    _check_interface(session, bundle)
    active = session.get_providers()
    if lost := [name for name in providers if name not in active]:
        raise ProviderError(f"provider {lost[0]} was requested, but ONNX Runtime started only {active}. {_cuda_help()}")
    return session


def _reopen(bundle: Bundle, *arguments: Any) -> Any:
    if Bundle.open(bundle.folder, exclusive=False).fingerprint != bundle.fingerprint:
        raise BundleError(
            f"{bundle.folder} has another bundle than when the parent of this forked process opened it: restart the parent "
            "process"
        )
    return _open(bundle, *arguments)


def session_options(kernels: Kernels | None = None, threads: int | None = None, spin: bool = True) -> Any:
    """Create session options with everything that affects vectors. All sessions over a bundle's graph start from them.

    Args:
        kernels: kernels of the bundle's custom operators; None for the default of `Session` on the CPU.
        threads: threads that the kernels divide their work for, at most as many as the session has; None for the number of CPUs.
        spin: as of `Session`.
    """
    options = import_onnxruntime().SessionOptions()
    (kernels or choose_kernels()).register(options, threads)
    options.log_severity_level = 4  # errors come as exceptions; the log would repeat them
    # ONNX Runtime must not rewrite the quantize and dequantize operators of the INT8 functions.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry(_SPIN_DURATION, str(_SPIN_MICROSECONDS[spin]))
    if saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def session_with_outputs(
    graph: bytes, folder: Path, values: Sequence[str], options: Any, providers: Sequence[str] = (_PROVIDERS["cpu"],)
) -> Any:
    """Open a session over a graph in memory with more outputs than the graph declares.

    Args:
        graph: bytes of the model. Its weights are mapped, not copied.
        folder: folder of the weight files.
        values: names of values of the graph to add as outputs.
        options: from `session_options`.
        providers: names of ONNX Runtime's execution providers.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
    """
    if has_links(folder):
        graph, folder = follow_links(graph, folder)
    options.add_session_config_entry(_WEIGHTS_FOLDER, os.fspath(folder))
    # Concatenated protobuf messages merge: this appends a ValueInfoProto with a name to model.graph.output for each value.
    outputs = b"".join(encoded(_OUTPUT, encoded(_NAME, name.encode())) for name in values)
    return open_graph(graph + encoded(_GRAPH, outputs), f"the graph of {folder}", options, providers)


def open_graph(model: str | bytes, name: str, options: Any, providers: Sequence[str] = (_PROVIDERS["cpu"],)) -> Any:
    """Open a session.

    Args:
        model: path of the graph, or its bytes.
        name: name of the graph in errors.
        options: from `session_options`.
        providers: names of ONNX Runtime's execution providers.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
    """
    ort = import_onnxruntime()
    try:
        with CALLS, DEFAULT_FLOAT_MODE:  # the session's threads inherit it
            # The fallback would load the graph again with other providers, and print to stdout.
            return ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {name}: {error}") from error


def _check_interface(session: Any, bundle: Bundle) -> None:
    """Compare the graph's inputs and outputs with the manifest."""
    hidden = bundle.manifest.hidden_size
    try:
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = {node.name: node for node in session.get_outputs()}
    except UnicodeDecodeError as error:
        raise BundleError(f"{bundle.graph} has an input or output with a name that is not UTF-8: {error}") from None
    if set(inputs) != set(_INPUTS):
        raise BundleError(f"{bundle.graph} has the inputs {shown(sorted(inputs))}, expected {sorted(_INPUTS)}")
    expected: list[tuple[Any, str, tuple[str | int, ...]]]
    expected = [(inputs[name], _INTEGERS, ("batch", "sequence")) for name in _INPUTS]
    for name, axes in _AXES.items():
        if name not in outputs:
            raise BundleError(f"{bundle.graph} has the outputs {shown(sorted(outputs))}, but not {name}")
        expected.append((outputs[name], _FLOATS, (*axes, hidden)))
    for node, kind, shape in expected:
        # A dynamic axis is checked after each run.
        fits = len(node.shape) == len(shape) and (
            shape[-1] != hidden or node.shape[-1] == hidden or not isinstance(node.shape[-1], int)
        )
        if node.type != kind or not fits:
            raise BundleError(
                f"{bundle.graph}: {node.name} is {node.type} {shown(list(node.shape))}, expected {kind} {list(shape)} "
                f"({MANIFEST_FILE}: hidden_size = {hidden}): copy or export the bundle again"
            )


def _check_batch(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> None:
    if not (ids.dtype == mask.dtype == np.int64 and ids.ndim == 2 and ids.shape == mask.shape):
        raise InputError(
            f"ids are {ids.dtype} {list(ids.shape)} and the mask is {mask.dtype} {list(mask.shape)}; expected int64 "
            "[batch, sequence] for both"
        )
    if mask.size and (mask.min() < 0 or mask.max() > 1):
        raise InputError(
            f"the mask has values from {mask.min()} to {mask.max()}; expected 1 for tokens and 0 for padding"
        )
    if ids.size and ids.min() < 0:
        raise InputError(f"ids has the value {ids.min()}; token ids are at least 0")


def _source(graph: Path, options: Any) -> str | bytes:
    """Return the path of a graph; if its folder has links, return its bytes and set an option for its weights."""
    if not has_links(graph.parent):
        return os.fspath(graph)
    content, folder = read_graph(graph)
    options.add_session_config_entry(_WEIGHTS_FOLDER, os.fspath(folder))
    return content


def _return_freed_memory() -> None:
    # Loading unpacks weights through buffers that glibc keeps after freeing: half of the memory, at the published size.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime. Importing moembed has turned off its telemetry, see `moembed.inference.telemetry`.

    Raises:
        MissingExtraError: it is not installed.
        ProviderError: it cannot be imported, its folder is incomplete, or it is too old to restrict external data to the folder
            of the graph.
    """
    try:
        # A plain import statement, which packagers such as PyInstaller find.
        import onnxruntime
    except Exception as error:  # of any class: onnxruntime re-raises the error of its native module
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise MissingExtraError("onnxruntime", "Running a model", remedy=no_wheel()) from None
        wheels = installed_wheels()
        raise ProviderError(
            f"onnxruntime is installed, but cannot be imported: {error}. Found: {listed(wheels)}. Install it again "
            f"({repair_command(preferred(wheels), wheels)}); in a frozen app, collect all files of the package onnxruntime"
        ) from error
    if not hasattr(onnxruntime, "__version__"):
        wheels = installed_wheels()
        raise ProviderError(
            f"the folder of onnxruntime has lost files, as when one of two packages that unpack into it is uninstalled. Found: "
            f"{listed(wheels)}. Install one again: {repair_command(preferred(wheels), wheels)}"
        )
    text = onnxruntime.__version__
    version = tuple(int(part) for part in text.split(".")[:2])
    if version < MINIMUM:
        wheels = installed_wheels()
        raise ProviderError(
            f"onnxruntime {text} is installed, but moembed needs {'.'.join(map(str, MINIMUM))} or newer: "
            f"{repair_command(preferred(wheels), wheels)}"
        )
    warn_if_started(version)
    return onnxruntime  # type: ignore[no-any-return]


def _cuda_help() -> str:
    wheels = installed_wheels()
    return (
        f"CUDA needs onnxruntime-gpu alone (found: {listed(wheels)}), and an NVIDIA driver with CUDA and cuDNN: "
        f"{repair_command(GPU, wheels)}"
    )


def _resolve(providers: str | Sequence[str], available: Sequence[str]) -> list[str]:
    names = [providers] if isinstance(providers, str) else providers
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"providers = {shown(providers)}; expected 'cpu', 'cuda', or a list of ONNX Runtime provider names"
        )
    if not names:
        raise InputError("providers is empty; pass at least one, for example 'cpu'")
    resolved = [_PROVIDERS.get(name.lower(), name) for name in names]
    for name in resolved:
        if name not in available:
            help_text = _cuda_help() if name == _PROVIDERS["cuda"] else "see `moembed doctor`"
            raise ProviderError(
                f"provider {name} was requested, but this onnxruntime has only {list(available)}. {help_text}"
            )
    return resolved
