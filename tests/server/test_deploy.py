"""Deployment files, checked without systemd and a container engine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from ruamel.yaml import YAML

from moembed.cli import parser
from moembed.server.settings import PREFIX, Settings, load_settings
from support.folders import ROOT
from support.serving import serving

DEPLOY = ROOT / "runtime" / "server" / "deploy"
BIN = Path(sys.executable).parent


def run(*command, **environ):
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=60, env=os.environ | environ, check=False
    )


@pytest.fixture(scope="module")
def instructions():
    parsed = DockerfileParser(fileobj=(DEPLOY / "Dockerfile").open("rb")).structure
    return [(each["instruction"], each["value"]) for each in parsed if each["instruction"] != "COMMENT"]


def values(instructions, name):
    return [value for instruction, value in instructions if instruction == name]


def last_stage(instructions):
    start = max(index for index, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[start:]


def test_dockerfile_passes_hadolint():
    found = run(BIN / "hadolint", DEPLOY / "Dockerfile")
    assert (found.returncode, found.stdout) == (0, "")


def test_dockerfile_has_two_stages_and_no_root(instructions):
    assert len(values(instructions, "FROM")) == 2
    assert all(":" in base and ":latest" not in base for base in values(instructions, "FROM"))
    last = last_stage(instructions)
    assert values(last, "USER") == ["10001:10001"]
    assert values(last, "EXPOSE") == [str(Settings().port)]
    assert not values(last, "COPY"), "the image contains the installed package only, not the source"
    assert "g++" not in " ".join(values(last, "RUN"))
    (entry,) = values(last, "ENTRYPOINT")
    assert parser().parse_args(json.loads(entry)[1:]).command == "serve"


def test_dockerfile_environment_has_settings_and_no_secrets(instructions):
    (line,) = values(last_stage(instructions), "ENV")
    environ = dict(part.split("=", 1) for part in line.split())
    settings = load_settings({}, environ=environ)
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)
    assert not settings.keys
    assert not any(
        word in name for _, value in instructions for name in [value.lower()] for word in ("password", "token=")
    )


def test_dockerfile_healthcheck_reports_readiness(instructions):
    (check,) = values(last_stage(instructions), "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    with serving(api_keys=("k",)) as server:
        here = [part.replace(":8080/", f":{server.port}/") for part in command]
        assert here != command
        assert run(sys.executable, *here[1:]).returncode == 0
    assert run(sys.executable, *here[1:]).returncode != 0


def test_build_context_builds_the_package():
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    folders = {folder.parts[0] for folder in map(Path, _package_folders())}
    assert folders | {"pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"} == set(kept)


def _package_folders():
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"].values()


def test_compose_file_matches_its_schema_and_the_dockerfile(instructions):
    file = DEPLOY / "compose.yaml"
    found = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert found.returncode == 0, found.stdout
    compose = YAML(typ="safe").load(file)
    service = compose["services"]["moembed"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert float(service["stop_grace_period"].rstrip("s")) > Settings().drain_timeout
    environ = {name: value for name, value in service["environment"].items() if name.startswith(PREFIX)}
    settings = load_settings({}, environ=environ)
    assert settings.offline
    assert settings.api_keys_file == f"/run/secrets/{service['secrets'][0]}"
    assert set(compose["secrets"]) == set(service["secrets"])


def unit():
    found = {}
    for line in (DEPLOY / "moembed.service").read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_unit_command_and_environment_are_valid():
    lines = unit()
    (command,) = lines["ExecStart"]
    assert parser().parse_args(command.split()[1:]).command == "serve"
    environ = dict(value.split("=", 1) for value in lines["Environment"])
    assert load_settings({"offline": True}, environ=environ).api_keys_file == "%d/keys"
    assert float(lines["TimeoutStopSec"][0]) > Settings().drain_timeout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_unit_passes_systemd_analyze(tmp_path):
    copy = tmp_path / "moembed.service"
    copy.write_text((DEPLOY / "moembed.service").read_text().replace("/opt/moembed/bin/moembed", str(BIN / "moembed")))
    found = run("systemd-analyze", "verify", "--man=no", copy)
    assert (found.returncode, found.stderr) == (0, "")
    # Exposure in points of 100: up to 20 is "OK", and most of the rest is network access, which the server needs.
    found = run("systemd-analyze", "security", "--offline=true", "--threshold=20", copy)
    assert found.returncode == 0, found.stdout[-300:]
