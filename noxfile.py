"""Sessions of development: `nox -l` lists them, `nox -s lint types` runs some, `nox -s test -- -k tokenizer` passes arguments on.

They run in the environment that nox itself is installed in (`pip install -e ".[dev]"`), except those that need another one.
"""

import os
import runpy
import shutil
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

ROOT = Path(__file__).parent
NATIVE = ROOT / "runtime" / "native"
DIST = ROOT / "build" / "dist"
# The extras whose lower bounds are tested, and what their tests need besides.
OLDEST_EXTRAS = "data,export,eval,serve"
# Without pandas, which pyarrow may import where we do not ask for it.
OLDEST_TOOLS = (
    "axe-playwright-python",
    "cloudpickle",
    "duckdb",
    "hypothesis",
    "joblib",
    "markdown",
    "platformdirs",
    "polars",
    "pytest",
    "pytest-cov",
    "pytest-xdist",
    "regex",
)
OLDEST_TESTS = ("tests/export", "tests/models", "tests/quantize", "tests/runtime")

nox.options.sessions = ["lint", "types", "package", "docs", "test"]
nox.options.default_venv_backend = "none"
nox.options.error_on_external_run = False
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@nox.session
def lint(session: nox.Session) -> None:
    """Check formats, style and workflows, as .pre-commit-config.yaml says."""
    session.run("pre-commit", "run", "--all-files", "--show-diff-on-failure")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package as it is installed."""
    session.chdir(sys.prefix)  # outside the tree, whose folders have other names than the packages
    session.run("mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "moembed")


@nox.session
def test(session: nox.Session) -> None:
    """Run the default tests."""
    session.run("pytest", *session.posargs)


@nox.session
def doctests(session: nox.Session) -> None:
    """Run the examples in docstrings of the package as it is installed."""
    options = ("--doctest-modules", "--pyargs", "moembed", "-p", "no:cacheprovider", "--rootdir", ".")
    session.run("pytest", "-q", *options, *session.posargs)


@nox.session
def kernels(session: nox.Session) -> None:
    """Check the C++ with clang-tidy and run its tests with sanitizers (needs g++ or clang++)."""
    tidy(session)
    session.run("pytest", "-m", "sanitize", "tests/native", *session.posargs)


@nox.session
def tidy(session: nox.Session) -> None:
    """Check the C++ sources of this machine with clang-tidy."""
    native = runpy.run_path(str(NATIVE / "build.py"))
    recipe = tomllib.loads((NATIVE / "sources.toml").read_text("utf-8"))
    flags = {
        str(source): ["-x", "c++", *recipe["compile"]["gnu"], *group.get("gnu", []), "-Wno-unknown-warning-option"]
        for source, group in native["sources_of"](recipe, native["Target"].of().machine)
    }

    def check(source: str) -> None:
        session.run("clang-tidy", "--quiet", source, "--", *flags[source], silent=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check, flags))


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist and this machine's wheel, check their metadata and content, and install both without a compiler."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # setuptools would pack what was deleted
    session.run("python", "-m", "build", "-q", "-o", str(DIST))
    (sdist,), (wheel,) = map(sorted, (DIST.glob("*.tar.gz"), DIST.glob("*.whl")))
    session.run("twine", "check", "--strict", str(sdist), str(wheel))
    session.run("check-wheel-contents", str(wheel))
    session.run("pyroma", "-n", "10", str(sdist))
    session.run("python", ".ci/smoke.py", str(wheel), "--native")
    session.run("python", ".ci/smoke.py", str(sdist), "--no-native")


@nox.session
def wheels(session: nox.Session) -> None:
    """Build the wheels of all platforms with zig (Linux and macOS)."""
    session.run("python", ".ci/wheels.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link or a page that no menu names is an error."""
    session.run("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(ROOT / "build" / "site"))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the built-in model: `nox -s bench -- FP32_BUNDLE`."""
    session.run("python", "tests/benchmarks/table.py", *session.posargs)


@nox.session(venv_backend="uv")
def oldest(session: nox.Session) -> None:
    """Run the core tests with the oldest release that each bound in pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", f".[{OLDEST_EXTRAS}]")
    session.install(*OLDEST_TOOLS)
    session.run("pytest", "-q", *OLDEST_TESTS, *session.posargs)


@nox.session
def interop(session: nox.Session) -> None:
    """Open our bundles in other programs, each in an environment of its own."""
    session.run("pytest", "-m", "interop", *session.posargs)


@nox.session
def long(session: nox.Session) -> None:
    """Run the slow tests, and those that try edges many times."""
    session.run("pytest", "-m", "long", *session.posargs)


@nox.session(venv_backend="uv")
def engines(session: nox.Session) -> None:
    """Run the tests on Ray and Spark (needs Java 17)."""
    session.install("-e", ".[dev,ray,spark]")
    session.run("pytest", "-n0", "-m", "engines", "tests/runtime/integrations", *session.posargs)
