"""What README alone has: its search finds the answer, its table lists every command, it is short. The rest is in test_pages."""

import re
import shlex

from moembed.cli import main, parser
from support.folders import ROOT
from support.pages import page

README = page("README.md")


def test_searches_answer_sensibly(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    first_screen = next(line for line in README.text.splitlines() if "moembed search" in line).split("/moembed ")[1]
    for command, answer in (
        (first_screen, "too long"),
        ('search docs/usage.md "how do I run it on a GPU?"', "onnxruntime-gpu"),
    ):
        assert main([*shlex.split(command), "-k", "1"]) == 0
        assert answer in capsys.readouterr().out


def test_every_command_is_in_the_table():
    listed = re.findall(r"^\| `moembed (\w+)` \|", README.text, re.MULTILINE)
    (commands,) = (action.choices for action in parser()._subparsers._group_actions)
    assert listed == list(commands)


def test_it_is_short_and_leads_to_every_page():
    assert len(README.text.splitlines()) <= 130
    linked = {target.partition("#")[0] for target in README.links()}
    missing = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - linked - {"docs/index.md"}
    assert not missing


def test_the_two_first_commands_set_up_all_they_need():
    """`.ci/run` takes the line with pytest as it is."""
    lines = [line for line in README.text.splitlines() if line.startswith("python3 -m venv .venv")]
    assert [line.split(" && ")[-1].split()[0] for line in lines] == [".venv/bin/moembed", ".venv/bin/pytest"]
    assert next(line for line in README.text.splitlines() if "pytest" in line) == lines[1]
