"""Which text goes in front of a request's texts."""

import contextlib
from collections.abc import Sequence

from moembed.embedder import Embedder
from moembed.errors import InputError
from moembed.server.errors import InvalidRequestError, clipped, quoted

# Names that other APIs use for the tasks of sentence-transformers' prompts.
_SYNONYMS = {
    "search_query": "query",
    "search_document": "document",
    "classification": "Classification",
    "clustering": "Clustering",
}
NO_PROMPT = "none"


def task_named(input_type: str | None, prompt_name: str | None, suffix: str | None = None) -> str | None:
    """The task that a request names: by one of two fields, else by the suffix of its model's name.

    Raises:
        InvalidRequestError: the two fields contradict each other.
    """
    if input_type is not None and prompt_name is not None and input_type != prompt_name:
        raise InvalidRequestError(
            f"input_type = {quoted(input_type)} and prompt_name = {quoted(prompt_name)}: send one of them",
            param="input_type",
        )
    return next((task for task in (input_type, prompt_name, suffix) if task is not None), None)


def prompt_named(embedder: Embedder, task: str) -> str:
    """The prompt of a task: `query`, `document`, a prompt name of the model, Cohere's names for these, or `none`.

    Raises:
        InvalidRequestError: the model has no such prompt.
    """
    if task == NO_PROMPT:
        return ""
    try:
        # Clipped, so that the error that is thrown away does not quote megabytes.
        return embedder.prompt_for(task if task in embedder.prompts else clipped(_SYNONYMS.get(task, task)))
    except InputError:
        known = ", ".join(dict.fromkeys(["query", "document", *embedder.prompts, NO_PROMPT]))
        raise InvalidRequestError(
            f"no prompt for the task {quoted(task)}; expected one of {known} (none: the texts as they are)"
        ) from None


def suffixes(embedder: Embedder, default: str | None) -> list[str]:
    """What may follow a model's name where a request names no task otherwise; "" where the name alone will do.

    Args:
        embedder: the model.
        default: the server's default task.
    """
    by_prompt: dict[str, str] = {}
    for task in ("query", "document", *embedder.prompts) if embedder.prompts else ():
        with contextlib.suppress(InvalidRequestError):  # a model may have prompts, and none for queries
            by_prompt.setdefault(prompt_named(embedder, task), task)
    alone = default is not None or not embedder.bundle.manifest.prompt_required
    return [*([""] if alone else []), *by_prompt.values()]


def carries_prompt(embedder: Embedder, texts: Sequence[str]) -> bool:
    """Tell whether every text starts with one of the model's prompts."""
    own = tuple(prompt for prompt in embedder.prompts.values() if prompt)
    return bool(own) and all(text.startswith(own) for text in texts)


def prompt_chosen(embedder: Embedder, texts: Sequence[str], task: str | None, default: str | None) -> str:
    """The prompt for a request's texts: of the task it names, else none if its texts carry theirs, else of the default.

    Args:
        embedder: the model.
        texts: the texts.
        task: what the request names, if anything.
        default: what the server was told to take then.

    Raises:
        InvalidRequestError: the model's prompts are mandatory and nothing chooses one, or there is no such prompt.
    """
    if task is not None:
        return prompt_named(embedder, task)
    if carries_prompt(embedder, texts):
        return ""
    if default is not None:
        return prompt_named(embedder, default)
    if not embedder.bundle.manifest.prompt_required:
        return ""
    names, prompts = ", ".join(embedder.prompts), ", ".join(map(repr, filter(None, embedder.prompts.values())))
    raise InvalidRequestError(
        f"{embedder.bundle.manifest.name} was trained with a prompt in front of every text, and the request names no task: ask "
        "for the model 'NAME:query' or 'NAME:document', or send the field input_type or prompt_name (query, document, or "
        f"another of {names}; none for the texts as they are), or put one of {prompts} in front of every text; "
        "`moembed serve --task document` sets a default for every request"
    )
