"""The project's own files agree: workflows, nox sessions, .ci/run, pyproject.toml, README and CONTRIBUTING."""

import ast
import re
import tomllib

import pytest
from ruamel.yaml import YAML

from support.folders import ROOT, TESTS
from support.longest import LONGEST, WAITING

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
CI_RUN = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
PYTHONS = [
    classifier.rsplit(" ", 1)[1]
    for classifier in PYPROJECT["project"]["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", classifier)
]


@pytest.fixture(scope="module")
def jobs():
    return YAML(typ="safe").load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]


def names_in_table(name):
    """The first column of the table between the comments `name` and `end of name`."""
    (table,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", CONTRIBUTING, re.DOTALL)
    return re.findall(r"^\| `(\S+)`", table, re.MULTILINE)


def sessions():
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]


def test_contributing_lists_the_test_marks():
    marks = [marker.split(":")[0] for marker in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    assert names_in_table("marks") == sorted(marks)


def test_the_default_tests_leave_out_every_mark():
    addopts = PYPROJECT["tool"]["pytest"]["ini_options"]["addopts"]
    assert sorted(re.findall(r"not (\w+)", addopts)) == names_in_table("marks")


def test_the_files_that_come_first_are_there():
    assert [name for name in (*LONGEST, *WAITING) if not (TESTS / name).is_file()] == []


def test_contributing_lists_the_sessions():
    assert sorted(names_in_table("sessions")) == sorted(sessions())


def test_ci_run_runs_the_command_of_the_readme():
    (command,) = re.findall(r"^python3 -m venv .*pytest.*$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    parts = command.split(" && ")
    assert [line for line in CI_RUN if line in parts] == parts


def test_ci_run_and_the_workflow_name_sessions_that_there_are(jobs):
    commands = [*CI_RUN, *(step.get("run", "") for job in jobs.values() for step in job["steps"])]
    named = {
        name for command in commands for found in re.findall(r"nox -s ([\w ]+)", command) for name in found.split()
    }
    assert named - set(sessions()) == set()
    assert {"lint", "types", "tidy", "docs", "package", "oldest", "interop", "kernels"} <= named


def test_the_tested_pythons_are_the_supported_ones(jobs):
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    assert PYPROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert python_of(jobs["oldest"]) == PYTHONS[0]
    assert python_of(jobs["run"]) == PYTHONS[-1]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + PYTHONS[0].replace(".", "")


def test_the_job_run_and_the_matrix_are_every_combination(jobs):
    job = jobs["run"]
    assert jobs["test"]["strategy"]["matrix"]["exclude"] == [{"os": job["runs-on"], "python": python_of(job)}]


def test_every_wheel_is_installed_on_its_platform(jobs):
    tags = re.findall(r'Platform\("(\w+)"', (ROOT / ".ci" / "wheels.py").read_text("utf-8"))
    matrix = jobs["install"]["strategy"]["matrix"]
    wheels = [entry for entry in matrix["include"] if entry["artifact"].endswith(".whl")]
    assert [entry["artifact"] for entry in wheels] == [f"*-{tag}.whl" for tag in tags]
    assert sorted(entry["os"] for entry in wheels) == sorted(matrix["os"])
    assert matrix["python"] == [PYTHONS[0], PYTHONS[-1]]


def python_of(job):
    (version,) = (step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {}))
    return version
