"""Opening of the bundle that a user names.

The order of the lookup: an existing folder, which is a bundle or a checkpoint; a kept bundle; a known model, in any capitals; a
bundle on the hub; a checkpoint on the hub. Checkpoints are converted, and the bundle is kept.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.arguments import flag, optional_string, path, source_name
from moembed.bundle.bundle import Bundle, read_manifest
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import InputError, SourceError
from moembed.hub.layout import is_snapshot

# Everything about conversion is imported when it is needed: most programs open the built-in model or a folder.
if TYPE_CHECKING:
    from moembed.pull.model import Model
    from moembed.pull.report import Reporter
    from moembed.pull.request import Request

DEFAULT_FOLDER = Path(__file__).parents[1] / "default"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def open_bundle(
    source: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    rehash: bool = False,
    reporter: "Reporter | None" = None,
) -> Bundle:
    """Find a bundle, or make it: download and convert a checkpoint that is not converted yet.

    Args:
        source: a folder, a hub name `owner/name`, or None for the built-in model. An existing folder takes precedence.
        revision: commit, tag or branch of a hub name; that of a known model is pinned when this is None.
        cache_dir: cache folder of hub files; None for huggingface_hub's default.
        local_files_only: do not use the network.
        rehash: hash all files, even those that have not changed since they were hashed.
        reporter: receives notes and progress; None for stderr.

    Raises:
        InputError: an argument has the wrong type.
        SourceError: no such folder, and the hub name cannot be fetched.
        BundleError: the bundle is incomplete, altered, or not a bundle.
        CheckpointError: the checkpoint is not one that moembed implements, or not the pinned one.
        OutputError: a converted bundle cannot be kept.
        VerificationError: a converted bundle does not compute what its checkpoint does.
        MissingExtraError: the checkpoint has to be converted, and the extra `convert` is not installed.
    """
    revision, cache = optional_string("revision", revision), path("cache_dir", cache_dir)
    local_files_only = flag("local_files_only", local_files_only)
    if source is None:
        return Bundle.open(DEFAULT_FOLDER, rehash=rehash)
    model = model_of(source, revision)
    if model is None:
        folder = Path(source)
        return Bundle.open(folder, rehash=rehash, exclusive=not is_snapshot(folder))
    from moembed.hub.access import offline
    from moembed.pull.model import look_up
    from moembed.pull.report import default_reporter

    reporter = reporter or default_reporter()
    kept = look_up(model, None, reporter, rehash=rehash)
    if kept.bundle is not None:
        return kept.bundle
    local_files_only = local_files_only or offline() is not None
    if (found := hub_bundle(model, cache, reporter, local_files_only=local_files_only, rehash=rehash)) is not None:
        return found
    from moembed.pull.keeping import convert_model
    from moembed.pull.request import Request

    return convert_model(model, Request(offline=local_files_only, cache_dir=cache), reporter, kept.problem)


def pull(source: str | os.PathLike[str], revision: str | None, request: "Request", reporter: "Reporter") -> Bundle:
    """Make sure that a model's bundle is kept, or write it to a folder.

    A branch or tag of a repository is looked up on the hub again, unless the request forbids the network.

    Args:
        source: hub name, or checkpoint folder.
        revision: commit, tag or branch of a hub name.
        request: options.
        reporter: receives notes and progress.

    Raises:
        MoembedError: as `open_bundle`.
    """
    from moembed.hub.access import offline
    from moembed.pull.keeping import convert_model, copy_bundle
    from moembed.pull.model import DEFAULT_RECIPE, look_up
    from moembed.quantize.recipe import load_recipe

    recipe = request.recipe or DEFAULT_RECIPE
    load_recipe(recipe)  # raises if it is unknown, before anything is downloaded
    request = replace(request, recipe=recipe, offline=request.offline or offline() is not None)
    model = model_of(source, revision)
    if model is None:
        raise InputError(f"{source} is a bundle or a folder without a checkpoint: open a bundle with -m {source}")
    request = replace(request, refresh=model.may_move and not request.offline)
    if request.refresh:
        model = replace(model, revision=None)
    kept = look_up(model, recipe, reporter, current=True)
    bundle = kept.bundle
    if bundle is None:
        bundle = hub_bundle(model, request.cache_dir, reporter, local_files_only=request.offline)
    if bundle is None:
        return convert_model(model, request, reporter, kept.problem)
    return bundle if request.out is None else copy_bundle(bundle, request, reporter)


def to_convert(
    source: str | os.PathLike[str] | None, reporter: "Reporter", *, local_files_only: bool = False
) -> "Model | None":
    """Return the model that opening a source would convert; None if there is a bundle already.

    Raises:
        MoembedError: as `open_bundle`; also if the conversion cannot begin: offline, or without the extra `convert`.
    """
    model = None if source is None else model_of(source, None)
    if model is None:
        return None
    from moembed.hub.access import offline
    from moembed.pull.model import look_up
    from moembed.pull.report import Reporter

    if look_up(model, None, Reporter()).bundle is not None:
        return None
    local_files_only = local_files_only or offline() is not None
    if hub_bundle(model, None, reporter, local_files_only=local_files_only) is not None:
        return None
    from moembed.pull.keeping import check_convertible
    from moembed.pull.request import Request

    check_convertible(model, Request(offline=local_files_only))
    return model


def model_of(source: str | os.PathLike[str], revision: str | None) -> "Model | None":
    """Return the model that a user names; None for an existing folder that is not a checkpoint.

    Raises:
        InputError: the source has the wrong type.
        SourceError: there is no such folder, and it is not a valid hub name.
    """
    source = source_name(source)
    if os.path.exists(source):  # noqa: PTH110  (Path.exists raises if a name is too long or a folder is not readable)
        folder = Path(source)
        if (folder / MANIFEST_FILE).exists() or not any((folder / name).is_file() for name in _WEIGHTS):
            return None
        from moembed.pull.model import folder_model

        return folder_model(folder)
    from moembed.pull.model import hub_model

    model = None if isinstance(source, Path) else hub_model(source, revision)
    if model is None:
        raise SourceError(f"no folder {source}, and it is not a hub name of the form owner/name")
    return model


def hub_bundle(
    model: "Model", cache: Path | None, reporter: "Reporter", *, local_files_only: bool = False, rehash: bool = False
) -> Bundle | None:
    """Open a bundle on the hub, from the hub's cache; None if the model is known or its repository is not a bundle.

    Raises:
        SourceError: a file cannot be fetched.
        BundleError: the bundle is incomplete or altered.
    """
    if model.spec is not None or model.checkpoint is not None:
        return None
    from moembed.hub.client import AbsentError
    from moembed.hub.fetch import Reporter as HubReporter
    from moembed.hub.fetch import fetch

    where: dict[str, Any] = {
        "cache_dir": cache,
        "local_files_only": local_files_only,
        "reporter": HubReporter(log=reporter.note),
    }
    repo, revision = model.name, model.requested or None
    try:
        first = fetch(repo, [MANIFEST_FILE], revision=revision, **where)
    except AbsentError:
        return None  # it may be a checkpoint
    files = read_manifest(first.folder).files
    try:
        whole = fetch(repo, files, revision=first.commit, **where)
    except AbsentError as error:
        raise SourceError(f"{repo} is an incomplete bundle: {error}") from error
    # Other programs share the snapshot, and may have fetched more files of the repository.
    return replace(Bundle.open(whole.folder, rehash=rehash, exclusive=False), hub=(repo, whole.commit))
