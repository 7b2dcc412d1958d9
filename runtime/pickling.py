"""Pickles and copies of an `Embedder`: a reference to its bundle, and the session that this process has for it.

A pickle holds where the bundle lies or what it is called on the hub, the options, and a digest of all that a vector depends
on; never weights. Whoever reads it opens the bundle again, once per process, and is refused another bundle.
"""

import copy
import hashlib
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from moembed.bundle.bundle import Bundle
from moembed.bundle.hub import is_snapshot
from moembed.bundle.locate import DEFAULT_FOLDER, open_bundle
from moembed.errors import BundleError, SourceError
from moembed.inference.forks import PerProcess

# Attributes that come with the bundle and the options; all others belong to the instance.
_SHARED = frozenset("bundle session tokenizer routers dim providers threads kernels _options _warn_once".split())


@dataclass(frozen=True)
class Options:
    """Arguments of an `Embedder` as they were given."""

    providers: tuple[str, ...]
    threads: int | None
    spin: bool

    @classmethod
    def of(cls, providers: str | Sequence[str], threads: int | None, spin: bool) -> "Options":
        """The options in a form that can be compared."""
        return cls((providers,) if isinstance(providers, str) else tuple(providers), threads, spin)


@dataclass(frozen=True)
class Reference:
    """What stands for a bundle and its options in a pickle.

    Attributes:
        folder: absolute path; None for the built-in model.
        hub: name and commit, if the bundle came from the hub; for a machine that has not the folder.
        digest: of all that a vector depends on.
        options: of the `Embedder`.
    """

    folder: str | None
    hub: tuple[str, str] | None
    digest: str
    options: Options


P = TypeVar("P", bound="Picklable")


class Picklable:
    """Pickling and copying for `Embedder`; both share the session, and both keep attributes that were set or added."""

    bundle: Bundle
    _options: Options

    def __reduce__(self) -> tuple[Any, ...]:
        built_in = self.bundle.folder == DEFAULT_FOLDER
        folder = None if built_in else str(self.bundle.folder.absolute())
        reference = Reference(folder, self.bundle.hub, _digest(self.bundle), self._options)
        given = {"prompts": self.bundle.manifest.prompts, "max_tokens": self.bundle.manifest.max_tokens}
        own = {name: value for name, value in self._own().items() if name not in given or given[name] != value}
        if not own and _plain(type(self)) is type(self):
            _pickled.setdefault(reference, self)
        return _restored, (type(self), reference, own)

    def __copy__(self) -> Self:
        return _twin(type(self), self, self._own())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return _twin(type(self), self, copy.deepcopy(self._own(), memo))

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _SHARED}


# Of this process: those that were pickled here, for as long as they live, and those that were made from a pickle, for good.
_pickled: "weakref.WeakValueDictionary[Reference, Picklable]" = weakref.WeakValueDictionary()
_restored_here: dict[Reference, PerProcess[Any]] = {}


def _restored(kind: type[Picklable], reference: Reference, own: dict[str, Any]) -> Any:
    shared = _pickled.get(reference)
    if shared is None:
        # setdefault is atomic: threads that read the same pickle get one instance.
        shared = _restored_here.setdefault(reference, PerProcess(partial(_opened, _plain(kind), reference))).get()
    return shared if not own and _plain(kind) is kind else _twin(kind, shared, own)


def _opened(plain: Any, reference: Reference) -> Any:
    where = f"the bundle {reference.folder}" if reference.folder else "the built-in model"
    try:
        bundle = _bundle(reference)
    except (BundleError, SourceError) as error:
        raise type(error)(
            f"this pickle of an Embedder refers to {where}, which cannot be opened here: {error}. A pickle holds no weights: "
            "put the bundle at that path on every machine, or name it by its hub name"
        ) from error
    if _digest(bundle) != reference.digest:
        raise BundleError(
            f"this pickle of an Embedder refers to {where}, and another one is there (its graph, weights, tokenizer, prompts or "
            "limit differ): put the same bundle, and the same version of moembed, on both ends"
        )
    options = reference.options
    return plain(bundle, providers=options.providers, threads=options.threads, spin=options.spin)


def _bundle(reference: Reference) -> Bundle:
    folder = Path(reference.folder) if reference.folder else DEFAULT_FOLDER
    if reference.hub is None or folder.exists():
        return Bundle.open(folder, exclusive=not is_snapshot(folder))
    name, commit = reference.hub
    return open_bundle(name, revision=commit)


def _twin(kind: type[P], model: Picklable, own: dict[str, Any]) -> P:
    twin = kind.__new__(kind)
    vars(twin).update(vars(model) | own)
    return twin


def _plain(kind: type[Any]) -> type[Any]:
    """The class that a user's subclass derives from: the one that has `Picklable` as its own base."""
    return next(base for base in kind.__mro__ if Picklable in base.__bases__)


def _digest(bundle: Bundle) -> str:
    """Hex digest of all that a vector depends on, prompts included."""
    parts = [bundle.fingerprint, bundle.manifest.max_tokens, bundle.manifest.prompts]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
