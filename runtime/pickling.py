"""Pickles, copies and hashes of an `Embedder`. Its copies share one session per process.

A pickle holds the path or the hub name of the bundle, the options, and a digest of everything that vectors depend on; it
holds no weights. Unpickling opens the bundle, once per process, and refuses a bundle with another digest.

The caches of datasets, joblib and Dask hash an object to find out if its results can be used again. The hash of an `Embedder`
covers what vectors depend on, but neither the place of the bundle nor the number of threads.
"""

import copy
import hashlib
import json
import platform
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from moembed.bundle.bundle import Bundle
from moembed.errors import BundleError, SourceError
from moembed.hub.layout import is_snapshot
from moembed.inference.forks import PerProcess
from moembed.pull.opening import DEFAULT_FOLDER, open_bundle
from moembed.stamps.making import kernel_family

# Attributes that the bundle and the options determine; all others belong to the instance.
_SHARED = frozenset("bundle session tokenizer routers dim providers threads kernels _options _warn_once".split())
# Modules and classes that hash an object by pickling it. Each class has a table `dispatch` of functions by type.
_HASHERS = {"datasets.utils._dill": "Pickler", "joblib.hashing": "Hasher"}


@dataclass(frozen=True)
class Options:
    """Arguments of an `Embedder`."""

    providers: tuple[str, ...]
    threads: int | None
    spin: bool

    @classmethod
    def of(cls, providers: str | Sequence[str], threads: int | None, spin: bool) -> "Options":
        """Normalize arguments so that equal ones compare equal."""
        return cls((providers,) if isinstance(providers, str) else tuple(providers), threads, spin)


@dataclass(frozen=True)
class Place:
    """Part of a pickle that vectors do not depend on, except for the kernels.

    Attributes:
        folder: absolute path; None for the built-in model.
        hub: name and commit, if the bundle came from the hub; used where the folder does not exist.
        options: arguments of the `Embedder`.
        kernels: family of the kernels in use where it was pickled; other kernels may be in use where it is unpickled.
    """

    folder: str | None
    hub: tuple[str, str] | None
    options: Options
    kernels: str


@dataclass(frozen=True)
class Reference:
    """Reference to a bundle and its options, in a pickle.

    Attributes:
        digest: digest of everything that vectors depend on.
        place: where the bundle is, and how it is opened.
    """

    digest: str
    place: Place


P = TypeVar("P", bound="Picklable")


class Picklable:
    """Pickling and copying for `Embedder`: the session is shared, and changed or added attributes are kept."""

    bundle: Bundle
    max_tokens: int
    kernels: str
    providers: tuple[str, ...]
    _options: Options

    def __reduce__(self) -> tuple[Any, ...]:
        built_in = self.bundle.folder == DEFAULT_FOLDER
        folder = None if built_in else str(self.bundle.folder.absolute())
        place = Place(folder, self.bundle.hub, self._options, kernel_family(self))
        reference, own = Reference(_digest(self.bundle), place), self._changed()
        if not own and _embedder_class(type(self)) is type(self):
            _pickled.setdefault(reference, self)
        _register_hashers()
        return _restored, (type(self), reference, own)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return type(self), _digest(self.bundle), kernel_family(self), self._changed()

    def __copy__(self) -> Self:
        return _twin(type(self), self, self._own())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return _twin(type(self), self, copy.deepcopy(self._own(), memo))

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _SHARED}

    def _changed(self) -> dict[str, Any]:
        defaults = {"prompts": self.bundle.manifest.prompts, "max_tokens": self.bundle.manifest.max_tokens}
        return {name: value for name, value in self._own().items() if name not in defaults or defaults[name] != value}


# Instances of this process: pickled ones, for as long as they live, and unpickled ones, for the life of the process.
_pickled: "weakref.WeakValueDictionary[Reference, Picklable]" = weakref.WeakValueDictionary()
_restored_here: dict[Reference, PerProcess[Any]] = {}


def _restored(kind: type[Picklable], reference: Reference, own: dict[str, Any]) -> Any:
    shared = _pickled.get(reference)
    if shared is None:
        # setdefault is atomic: threads that read the same pickle share one instance.
        shared = _restored_here.setdefault(
            reference, PerProcess(partial(_opened, _embedder_class(kind), reference))
        ).get()
    return shared if not own and _embedder_class(kind) is kind else _twin(kind, shared, own)


def _opened(embedder_class: Any, reference: Reference) -> Any:
    place, host = reference.place, platform.node() or "this machine"
    where = f"the bundle {place.folder}" if place.folder else "the built-in model"
    try:
        bundle = _bundle(place)
    except (BundleError, SourceError) as error:
        raise type(error)(
            f"this pickle of an Embedder refers to {where}, which cannot be opened on {host}: {error}. A pickle has no weights: "
            "put the bundle at the same path on all machines, or use its hub name"
        ) from error
    if _digest(bundle) != reference.digest:
        raise BundleError(
            f"this pickle of an Embedder refers to {where}, but another bundle is there on {host} (its graph, weights, "
            "tokenizer, prompts or limit differ): use the same bundle, and the same version of moembed, on both machines"
        )
    options = place.options
    return embedder_class(bundle, providers=options.providers, threads=options.threads, spin=options.spin)


def _bundle(place: Place) -> Bundle:
    folder = Path(place.folder) if place.folder else DEFAULT_FOLDER
    if place.hub is None:
        return Bundle.open(folder, exclusive=not is_snapshot(folder))
    if folder.exists():
        try:
            return Bundle.open(folder, exclusive=not is_snapshot(folder))
        except BundleError:
            if not is_snapshot(folder):
                raise
            # Another process may be downloading into the snapshot.
    name, commit = place.hub
    return open_bundle(name, revision=commit)


def _register_hashers() -> None:
    """Let hashers see only the kernels of a `Place`. This comes in time: they reach the place after `__reduce__`."""
    for module, name in _HASHERS.items():
        dispatch = getattr(getattr(sys.modules.get(module), name, None), "dispatch", None)
        if dispatch is not None:
            dispatch[Place] = _save_kernels


def _save_kernels(hasher: Any, place: Place) -> None:
    hasher.save(place.kernels)


def _twin(kind: type[P], model: Picklable, own: dict[str, Any]) -> P:
    twin = kind.__new__(kind)
    vars(twin).update(vars(model) | own)
    return twin


def _embedder_class(kind: type[Any]) -> type[Any]:
    """Return `Embedder`, the direct subclass of `Picklable`, for it and for subclasses of users."""
    return next(base for base in kind.__mro__ if Picklable in base.__bases__)


def _digest(bundle: Bundle) -> str:
    """Return a hex digest of everything that vectors depend on, prompts included."""
    scales = bundle.manifest.int8.scales if bundle.manifest.int8 else None
    parts = [bundle.fingerprint, bundle.manifest.max_tokens, bundle.manifest.prompts, scales]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
