"""Selection of the prompt that is put in front of a request's texts."""

import contextlib
from collections.abc import Sequence

from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.server.errors import InvalidRequestError, clipped, quoted

# Names in other APIs for the prompt names of sentence-transformers.
_SYNONYMS = {
    "search_query": "query",
    "search_document": "document",
    "classification": "Classification",
    "clustering": "Clustering",
}
NO_PROMPT = "none"


def requested_task(input_type: str | None, prompt_name: str | None, suffix: str | None = None) -> str | None:
    """Return the task that a request names: in one of two fields, else in the suffix of its model name.

    Raises:
        InvalidRequestError: the two fields contradict each other.
    """
    if input_type is not None and prompt_name is not None and input_type != prompt_name:
        raise InvalidRequestError(
            f"input_type = {quoted(input_type)} and prompt_name = {quoted(prompt_name)}: send one of them",
            param="input_type",
        )
    return next((task for task in (input_type, prompt_name, suffix) if task is not None), None)


def prompt_for_task(embedder: Embedder, task: str) -> str:
    """Return the prompt of a task: `query`, `document`, a prompt name of the model, Cohere's name for one, or `none`.

    Raises:
        InvalidRequestError: the model has no prompt for the task.
    """
    if task == NO_PROMPT:
        return ""
    try:
        # Clipped, so that the discarded error does not quote megabytes.
        return embedder.prompt_for(task if task in embedder.prompts else clipped(_SYNONYMS.get(task, task)))
    except InputError:
        known = ", ".join(dict.fromkeys(["query", "document", *embedder.prompts, NO_PROMPT]))
        raise InvalidRequestError(
            f"no prompt for the task {quoted(task)}; expected one of {known} (none: no prompt)"
        ) from None


def task_suffixes(embedder: Embedder, default: str | None) -> list[str]:
    """Return the suffixes of a model's name that select its prompts; with "" if the plain name works too.

    Args:
        embedder: the model.
        default: the server's default task.
    """
    by_prompt: dict[str, str] = {}
    for task in ("query", "document", *embedder.prompts) if embedder.prompts else ():
        with contextlib.suppress(InvalidRequestError):  # a model may have prompts but none for queries
            by_prompt.setdefault(prompt_for_task(embedder, task), task)
    optional = default is not None or not embedder.bundle.manifest.prompt_required
    return [*([""] if optional else []), *by_prompt.values()]


def start_with_prompt(embedder: Embedder, texts: Sequence[str]) -> bool:
    """Return whether every text starts with one of the model's prompts."""
    prompts = tuple(prompt for prompt in embedder.prompts.values() if prompt)
    return bool(prompts) and all(text.startswith(prompts) for text in texts)


def select_prompt(embedder: Embedder, texts: Sequence[str], task: str | None, default: str | None) -> str:
    """Select the prompt for a request's texts: of its task; else none if the texts have a prompt; else of the default task.

    Args:
        embedder: the model.
        texts: the texts.
        task: the request's task, if any.
        default: the server's default task, if any.

    Raises:
        InvalidRequestError: the model requires a prompt and none is selected, or it has no prompt for the task.
    """
    if task is not None:
        return prompt_for_task(embedder, task)
    if start_with_prompt(embedder, texts):
        return ""
    if default is not None:
        return prompt_for_task(embedder, default)
    if not embedder.bundle.manifest.prompt_required:
        return ""
    names, prompts = ", ".join(embedder.prompts), ", ".join(map(repr, filter(None, embedder.prompts.values())))
    raise InvalidRequestError(
        f"{embedder.bundle.manifest.name} requires a prompt in front of every text, and the request names no task: use the model "
        "name 'NAME:query' or 'NAME:document', or send the field input_type or prompt_name (query, document, or another of "
        f"{names}; none for no prompt), or put one of {prompts} in front of every text; `moembed serve --task document` sets a "
        "default for all requests"
    )
