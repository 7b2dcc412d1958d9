"""Prompts of a model: texts in front of the texts of a task."""

from collections.abc import Mapping

from moembed.errors import InputError, PromptWarning, shown, warn

# Names of a task's prompt, in the order in which sentence-transformers looks for them.
_TASKS = {"query": ("query",), "document": ("document", "passage", "corpus")}


def prompt_of_task(prompts: Mapping[str, str], task: str) -> str:
    """Return the prompt of a task.

    Args:
        prompts: prompt name -> text in front; a model without prompts has "" for queries and documents.
        task: `"query"`, `"document"` (which a model may call `passage` or `corpus`), or any name in `prompts`.

    Raises:
        InputError: there are prompts, but none for this task.
    """
    if isinstance(task, str):
        for name in _TASKS.get(task, (task,)):
            if name in prompts:
                return prompts[name]
        if task in _TASKS and not prompts:
            return ""
    raise InputError(f"no prompt named {shown(task)}; this model has {', '.join(prompts) or 'none'}")


def warn_without_prompt(model: str, prompts: Mapping[str, str]) -> None:
    """Issue the `PromptWarning` of a call without a prompt.

    Args:
        model: name of a model whose prompts are mandatory.
        prompts: its prompts by name.
    """
    message = (
        f"{model} was trained with a prompt in front of every text, and this call has none: use encode_query for queries and "
        f"encode_document for passages, or prompt_name=... ({', '.join(prompts)}); pass prompt='' to opt out"
    )
    warn(PromptWarning(message))
