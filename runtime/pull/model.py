"""Models that a bundle can be converted for: a repository on a hub, or a checkpoint folder."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path

from moembed.bundle.bundle import Bundle
from moembed.bundle.manifest import FORMAT
from moembed.errors import BundleError
from moembed.hub.names import is_commit, parse
from moembed.models.spec import ModelSpec, known_specs
from moembed.models.weights import find_weights
from moembed.pull.report import Reporter
from moembed.store.kept import candidates, indexed_revision, model_folder, parts_of

DEFAULT_RECIPE = "int8"
# To be increased when the same checkpoint and recipe give another bundle; tests/runtime/pull/test_version.py notices that.
_CONVERSION = 4
_VERSION_DIGITS = 8
_FOLDER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "1_Pooling/config.json",
)


@dataclass(frozen=True)
class Model:
    """Model whose converted bundle has a place in the data folder.

    Attributes:
        name: `owner/name`, or the path of a checkpoint folder.
        kept_as: name of its folder in the data folder, before normalization.
        requested: requested revision of a repository, "" for the default one; digest of the files' identity for a folder.
        revision: commit, if it is known without asking the hub; digest of the weights of a folder, if that is known.
        checkpoint: the checkpoint folder; None for a repository.
        spec: facts of a known model at its pinned revision; None for any other.
    """

    name: str
    kept_as: str
    requested: str
    revision: str | None
    checkpoint: Path | None = None
    spec: ModelSpec | None = None

    @property
    def folder(self) -> Path | None:
        """Folder of the model in the data folder, which may not exist; None without a data folder."""
        return model_folder(self.kept_as)

    @property
    def may_move(self) -> bool:
        """True for a branch or tag of a repository, which may lead to another commit by now."""
        return self.spec is None and self.checkpoint is None and not is_commit(self.requested)

    @property
    def title(self) -> str:
        """The model in messages, with its revision if one was requested."""
        return self.name if self.checkpoint or not self.requested else f"{self.name} at revision {self.requested}"


@dataclass(frozen=True)
class Lookup:
    """Result of a lookup in the data folder.

    Attributes:
        bundle: the kept bundle; None if there is none that can be opened.
        problem: why a kept one cannot be opened; empty if there is none.
    """

    bundle: Bundle | None = None
    problem: str = ""


def hub_model(source: str, revision: str | None) -> Model | None:
    """Return the model that a user names by `owner/name` or an address; None if the text has another form.

    Raises:
        SourceError: the name or the revision is invalid.
    """
    known = {spec.repo: spec for spec in known_specs() if spec.repo}
    name = parse(source, revision, known=known)
    if name is None:
        return None
    spec = known.get(name.repo)
    if spec is not None and name.revision in (None, spec.revision):
        return Model(name.repo, name.repo, name.revision or "", spec.revision, spec=spec)
    model = Model(name.repo, name.repo, name.revision or "", name.revision if is_commit(name.revision) else None)
    return model if model.revision else with_indexed_revision(model)


def folder_model(folder: Path) -> Model:
    """Return the model of a checkpoint folder. A folder that changes becomes another revision of the model."""
    real = folder.resolve()
    digest = hashlib.sha256(str(real).encode("utf-8", "surrogateescape")).hexdigest()
    kept_as = f"+folder/{real.name[:40]}-{digest[:_VERSION_DIGITS]}"
    return with_indexed_revision(Model(str(folder), kept_as, _identity(real), None, checkpoint=folder))


def with_indexed_revision(model: Model) -> Model:
    """Fill in the revision that the requested one led to when the model was converted."""
    folder = model.folder
    return model if folder is None else replace(model, revision=indexed_revision(folder, model.requested))


def look_up(
    model: Model, recipe: str | None, reporter: Reporter, *, current: bool = False, rehash: bool = False
) -> Lookup:
    """Open the kept bundle of a model. Needs neither the network nor the right to write.

    Args:
        model: the model.
        recipe: recipe of the bundle; None for the default one, or another one if only that is kept.
        reporter: is told if the bundle is not one that this version of moembed would make.
        current: open only a bundle that this version of moembed would make.
        rehash: hash all files.

    Raises:
        OutputError: the data folder's variable is invalid.
    """
    folder, problem = model.folder, ""
    if folder is None or model.revision is None:
        return Lookup()
    for path in candidates(folder, model.revision, recipe or DEFAULT_RECIPE, version_of):
        found, version = parts_of(path)
        if recipe not in (None, found) or (current and version != version_of(found)):
            continue
        try:
            # A file manager or a scanner may have put files of its own into the folder.
            bundle = Bundle.open(path, rehash=rehash, exclusive=False)
        except BundleError as error:
            problem = problem or str(error)
            continue
        if version != version_of(found):
            writer = bundle.manifest.made_with.get("moembed", "another version")
            reporter.note(
                f"{model.name}: opening the bundle that moembed {writer} made; this version would make another one, with other "
                f"vectors: moembed pull {model.name}"
            )
        elif found != (recipe or DEFAULT_RECIPE):
            reporter.note(f"{model.name}: opening the bundle with recipe {found}, the only one that is kept")
        return Lookup(bundle if model.checkpoint else replace(bundle, hub=(model.name, model.revision)))
    return Lookup(problem=problem)


@cache
def version_of(recipe: str) -> str:
    """Return a digest of what a recipe's bundles depend on beside the checkpoint, in this version of moembed."""
    file = resources.files("moembed.quantize") / "recipes" / f"{recipe}.toml"
    try:
        content = file.read_bytes()
    except OSError:
        content = b""  # a recipe of another version of moembed
    return hashlib.sha256(b"%d %d\n%s" % (FORMAT, _CONVERSION, content)).hexdigest()[:_VERSION_DIGITS]


def _identity(folder: Path) -> str:
    """Return a digest of names, sizes and times of a checkpoint's files, which change when it is trained again."""
    weights = find_weights(folder)
    paths = [*(weights.paths if weights else ()), *(folder / name for name in _FOLDER_FILES)]
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append([path.name, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()
