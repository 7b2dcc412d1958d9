"""One ONNX Runtime session over a bundle's graph."""

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
from moembed.inference.cpu import available_cpus, saturates
from moembed.inference.forks import PerProcess
from moembed.inference.kernels import PORTABLE, Kernels, choose_kernels
from moembed.inference.native_calls import CALLS
from moembed.inference.telemetry import warn_if_started

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CUDA_HELP = (
    "CUDA needs onnxruntime-gpu in place of onnxruntime in this environment, and an NVIDIA driver with CUDA and cuDNN: "
    'pip uninstall -y onnxruntime && pip install "moembed[gpu]"'
)
_MOST_THREADS = 1024
MINIMUM_ONNXRUNTIME = (1, 24)
_INPUTS = ("input_ids", "attention_mask")
_INTEGERS, _FLOATS = "tensor(int64)", "tensor(float)"
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_GRAPH, _OUTPUT, _NAME = 7, 12, 1  # fields of ONNX's ModelProto, GraphProto and ValueInfoProto


class Output(StrEnum):
    """Outputs of a bundle's graph."""

    EMBEDDING = "sentence_embedding"
    TOKENS = "token_embeddings"


_AXES = {Output.EMBEDDING: ("batch",), Output.TOKENS: ("batch", "sequence")}  # of each output, before `hidden`


class Session:
    """Runs the graph of a bundle; safe to share between threads, and usable in a forked child, which opens it anew.

    Args:
        bundle: a checked bundle.
        providers: `"cpu"`, `"cuda"`, full ONNX Runtime provider names, or a sequence of them in order of preference.
            Every one that is named must be there: nothing falls back silently.
        threads: threads of one call; None for the CPUs this process may use.
        spin: whether threads that have nothing to do spin for a while, which is fastest on CPUs of one's own, and takes
            them from everything else.

    Attributes:
        kernels: which kernels compute the bundle's own operators; see `moembed.inference.kernels`.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ProviderError: a provider, or kernels, that were asked for are not available.
        BundleError: ONNX Runtime refuses the graph.
        InputError: `threads` is not a positive integer.
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
        expected = f"an integer from 1 to {_MOST_THREADS}, or None for the CPUs available"
        self.threads = available_cpus() if threads is None else whole("threads", threads, expected, most=_MOST_THREADS)
        self.providers = _resolve(providers, ort.get_available_providers())
        # On another provider than the CPU's, kernels would fetch every tensor back.
        chosen = choose_kernels(PORTABLE if self.providers != [_PROVIDERS["cpu"]] else None)
        self.kernels = chosen.name
        self._graph, self._hidden = bundle.graph, bundle.manifest.hidden_size
        arguments = bundle, chosen, tuple(self.providers), self.threads, flag("spin", spin)
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
            InputError: `ids` or `mask` has another shape, type or values.
            BundleError: the graph cannot be computed for these ids.
        """
        _check_batch(ids, mask)
        shape = (len(ids), self._hidden) if output == Output.EMBEDDING else (*ids.shape, self._hidden)
        if not mask.any():
            return np.zeros(shape, np.float32)
        (result,) = run(self._session.get(), [output], ids, mask, str(self._graph))
        if result.shape != shape:
            raise BundleError(
                f"{self._graph}: {output} came out as {list(result.shape)}, expected {list(shape)}: "
                "copy or export the bundle again"
            )
        return np.asarray(result, dtype=np.float32)


def run(session: Any, outputs: Sequence[str], ids: NDArray[np.int64], mask: NDArray[np.int64], name: str) -> Any:
    """Run an ONNX Runtime session of a bundle's graph; every run goes through here.

    Args:
        session: from ONNX Runtime.
        outputs: names of the values to put out.
        ids: `[batch, sequence]`.
        mask: `[batch, sequence]`.
        name: what to call the graph in an error.

    Raises:
        BundleError: the graph cannot be computed for these ids.
    """
    feed = dict(zip(_INPUTS, (ids, mask), strict=True))
    options = CALLS.run_options(import_onnxruntime())
    with CALLS:
        try:
            return session.run(outputs, feed, options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            raise BundleError(f"{name}: ONNX Runtime cannot run it: {error}") from error


def _open(bundle: Bundle, kernels: Kernels, providers: tuple[str, ...], threads: int, spin: bool) -> Any:
    options = session_options(kernels)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    session = _opened(_source(bundle.graph, options), str(bundle.graph), options, providers)
    _return_freed_memory()
    _check_interface(session, bundle)
    active = session.get_providers()
    if lost := [name for name in providers if name not in active]:
        raise ProviderError(f"asked for {lost[0]}, ONNX Runtime started only {active}. {_CUDA_HELP}")
    return session


def _reopen(bundle: Bundle, *arguments: Any) -> Any:
    if Bundle.open(bundle.folder, exclusive=False).fingerprint != bundle.fingerprint:
        raise BundleError(
            f"{bundle.folder} holds another bundle now than when the process that this one was forked from opened it: "
            "start that process again"
        )
    return _open(bundle, *arguments)


def session_options(kernels: Kernels | None = None) -> Any:
    """ONNX Runtime's options on which a vector's value depends: every session over a bundle's graph starts from them.

    Args:
        kernels: what computes the bundle's own operators; None for what `Session` takes on the CPU.
    """
    options = import_onnxruntime().SessionOptions()
    (kernels or choose_kernels()).register(options)
    options.log_severity_level = 4  # errors come as exceptions; the log would say them again
    # The INT8 functions quantize on purpose; ONNX Runtime's rewriting of such operators as pairs stays off.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def session_with_outputs(
    graph: bytes, folder: Path, values: Sequence[str], options: Any, providers: Sequence[str] = (_PROVIDERS["cpu"],)
) -> Any:
    """Open a session over a graph in memory with more outputs than the graph declares.

    Args:
        graph: the bytes of a model. Its weights are mapped, not copied.
        folder: where the files of its weights lie.
        values: names of values of the graph to add to its outputs.
        options: from `session_options`.
        providers: names of ONNX Runtime's execution providers.

    Raises:
        BundleError: ONNX Runtime refuses the graph.
    """
    if has_links(folder):
        graph, folder = follow_links(graph, folder)
    options.add_session_config_entry(_WEIGHTS_FOLDER, os.fspath(folder))
    # Serialized protobuf messages merge when they are concatenated: model.graph.output grows by a ValueInfoProto with a name.
    outputs = b"".join(encoded(_OUTPUT, encoded(_NAME, name.encode())) for name in values)
    return _opened(graph + encoded(_GRAPH, outputs), f"the graph of {folder}", options, providers)


def _opened(model: str | bytes, name: str, options: Any, providers: Sequence[str]) -> Any:
    ort = import_onnxruntime()
    try:
        with CALLS:
            # Falling back would open the graph a second time, on other providers, and say so on stdout.
            return ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise BundleError(f"ONNX Runtime {ort.__version__} cannot load {name}: {error}") from error


def _check_interface(session: Any, bundle: Bundle) -> None:
    """Compare the graph's inputs and outputs with the manifest."""
    hidden = bundle.manifest.hidden_size
    try:
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = {node.name: node for node in session.get_outputs()}
    except UnicodeDecodeError as error:
        raise BundleError(f"{bundle.graph} has an input or output whose name is not UTF-8: {error}") from None
    if set(inputs) != set(_INPUTS):
        raise BundleError(f"{bundle.graph} has the inputs {shown(sorted(inputs))}, expected {sorted(_INPUTS)}")
    expected: list[tuple[Any, str, tuple[str | int, ...]]]
    expected = [(inputs[name], _INTEGERS, ("batch", "sequence")) for name in _INPUTS]
    for name, axes in _AXES.items():
        if name not in outputs:
            raise BundleError(f"{bundle.graph} has the outputs {shown(sorted(outputs))}; {name} is not among them")
        expected.append((outputs[name], _FLOATS, (*axes, hidden)))
    for node, kind, shape in expected:
        # An axis that the graph leaves open is checked when a batch has run.
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
            f"ids are {ids.dtype} {list(ids.shape)} and the mask {mask.dtype} {list(mask.shape)}; expected int64 "
            "[batch, sequence] of both"
        )
    if mask.size and (mask.min() < 0 or mask.max() > 1):
        raise InputError(f"the mask has values from {mask.min()} to {mask.max()}; expected 1 for tokens, 0 for padding")
    if ids.size and ids.min() < 0:
        raise InputError(f"ids has {ids.min()}; token ids are at least 0")


def _source(graph: Path, options: Any) -> str | bytes:
    """What ONNX Runtime is to load for a graph: its path or, where links are in the way, its bytes and an option."""
    if not has_links(graph.parent):
        return os.fspath(graph)
    content, folder = read_graph(graph)
    options.add_session_config_entry(_WEIGHTS_FOLDER, os.fspath(folder))
    return content


def _return_freed_memory() -> None:
    # Loading unpacks weights through buffers that glibc keeps for itself: half of the process, for the published size.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime; its telemetry is off since moembed was imported, see `moembed.inference.telemetry`.

    Raises:
        MissingExtraError: it is not installed.
        ProviderError: it cannot be imported, or is too old to keep a graph's external data inside the bundle.
    """
    try:
        # A plain statement, which the analysis of packagers such as PyInstaller sees.
        import onnxruntime
    except Exception as error:  # of any class: onnxruntime raises again what its native module raised
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise MissingExtraError("onnxruntime", "cpu", "Running a model") from None
        raise ProviderError(
            f"onnxruntime is installed and cannot be imported: {error}. Install it again (pip install --force-reinstall "
            "onnxruntime); in a frozen app, collect all files of the package onnxruntime"
        ) from error
    text = getattr(onnxruntime, "__version__", "0.0")
    version = tuple(int(part) for part in text.split(".")[:2])
    if version < MINIMUM_ONNXRUNTIME:
        raise ProviderError(
            f"onnxruntime {text} is installed; moembed needs {'.'.join(map(str, MINIMUM_ONNXRUNTIME))} or newer: "
            'pip install -U "moembed[cpu]"'
        )
    warn_if_started(version)
    return onnxruntime  # type: ignore[no-any-return]


def _resolve(providers: str | Sequence[str], available: Sequence[str]) -> list[str]:
    names = [providers] if isinstance(providers, str) else providers
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"providers = {shown(providers)}; expected 'cpu', 'cuda', or a list of ONNX Runtime's provider names"
        )
    if not names:
        raise InputError("providers is empty; name at least one, for example 'cpu'")
    resolved = [_PROVIDERS.get(name.lower(), name) for name in names]
    for name in resolved:
        if name not in available:
            help_text = _CUDA_HELP if name == _PROVIDERS["cuda"] else "see `moembed doctor`"
            raise ProviderError(f"asked for {name}, this onnxruntime has only {list(available)}. {help_text}")
    return resolved
