"""Error messages for the command line, with options in place of Python's keywords."""

import re

from moembed.errors import InputError, TextTooLongError

_OPTIONS = {
    "cache_dir": "--cache-dir",
    "keep": "--keep",
    "nice": "--nice",
    "precision": "--precision",
    "prompt": "--prompt",
    "prompt_name": "--task",
    "provider": "--provider",
    "providers": "--provider",
    "recipe": "--recipe",
    "revision": "--revision",
    "shard_rows": "--shard-rows",
    "template": "--template",
    "threads": "--threads",
    "tokens": "--window-tokens",
    "truncate_dim": "--dim",
    "workers": "--workers",
}
_KEYWORD = re.compile(rf"({'|'.join(_OPTIONS)})(?: = | is |: )")
_SETTING = re.compile(r"(\w+) = (\S+) in the command line")
_TOO_LONG = {"embed": "pass --overlong truncate to cut it off, chunk for one vector per window, or mean for their mean"}


def in_options(error: InputError, command: str) -> str:
    """Return the message of an error, rewritten for the options of a command.

    Args:
        error: an error whose message starts with a keyword, or a `TextTooLongError`.
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
