"""`moembed serve`."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from moembed.cli.common import Subparsers
from moembed.errors import extra


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Add the command, with a flag for every setting of the server."""
    from moembed.server.settings import Settings

    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="serve the embedding APIs of OpenAI, TEI, Cohere and Ollama",
        description="Serve models over HTTP. Every option can also be set by an environment variable (MOEMBED_SERVE_QUEUE_TOKENS "
        "for --queue-tokens) or by a line of a TOML file (queue_tokens = ...). Options override environment variables, which "
        "override the file.",
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="TOML file with settings")
    for setting in fields(Settings):
        if setting.metadata["flag"]:
            flag = f"--{setting.name.replace('_', '-')}"
            default = setting.default
            text = setting.metadata["help"].replace("%", "%%")
            if "(default" not in text and default not in (None, (), False):
                text += f" (default: {default})"
            options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
            if isinstance(default, bool):
                options |= {"action": argparse.BooleanOptionalAction}
            elif default == ():
                options |= {"action": "append", "metavar": "TEXT"}
            elif choices := [choice for choice in get_args(setting.type) if isinstance(choice, str)]:
                options |= {"choices": choices}
            else:
                is_number = {int, float} & {setting.type, *get_args(setting.type)}
                options |= {"metavar": "N" if is_number else "TEXT"}
            parser.add_argument(flag, **options)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    flags = {name: value for name, value in vars(arguments).items() if name not in ("command", "run", "config")}
    with extra("serve", "moembed serve"):
        from moembed.server.process.run import serve
        from moembed.server.settings import load_settings
    serve(load_settings(flags, file=arguments.config))
    return 0
