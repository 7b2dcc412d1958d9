"""Errors in the words of the command line: options in place of Python's keywords."""

import re

from moembed.errors import InputError, TextTooLongError

_OPTIONS = {
    "cache_dir": "--cache-dir",
    "precision": "--precision",
    "prompt": "--prompt",
    "prompt_name": "--task",
    "provider": "--provider",
    "providers": "--provider",
    "recipe": "--recipe",
    "revision": "--revision",
    "threads": "--threads",
    "truncate_dim": "--dim",
}
_KEYWORD = re.compile(rf"({'|'.join(_OPTIONS)})(?: = | is |: )")
_SETTING = re.compile(r"(\w+) = (\S+) in the command line")
_TOO_LONG = {
    "embed": "--overlong truncate cuts it, --overlong chunk gives a vector for each of its windows, --overlong mean their mean"
}


def in_options(error: InputError, command: str) -> str:
    """The message of an error, for who gave options to a command.

    Args:
        error: its message starts with the keyword that cannot be used, or it is about a text that is too long.
        command: name of the command.
    """
    message = str(error)
    if isinstance(error, TextTooLongError):
        return f"{message.partition('. Pass ')[0]}: {_TOO_LONG.get(command, 'shorten it')}"
    if command == "serve" and (found := _SETTING.match(message)):
        return f"--{found[1].replace('_', '-')} {found[2]}{message[found.end() :]}"
    if found := _KEYWORD.match(message):
        rest = message[found.end() :].replace(", or None for", "; without the option,")
        separator = found[0][len(found[1]) :].replace(" = ", " ")
        return f"{_OPTIONS[found[1]]}{separator}{rest}"
    return message
