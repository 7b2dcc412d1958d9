"""Commands and runs over small corpora, with the built-in model."""

import shutil

import pyarrow.parquet as pq
import pytest

from moembed.cli import main
from moembed.corpus import Options, Selection, Template, embed_files
from support.corpora import content, write_jsonl


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def embed(here, capsys, opened_once):
    """`moembed embed` with 8 dimensions; gives (exit code, stderr)."""

    def run(*argv):
        code = main(["embed", "--dim", "8", "-q", *map(str, argv)])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def rows(embed):
    """Rows of a Parquet folder that a command writes to `out/`; asserts that it succeeds, or ends with the given code."""

    def run(*argv, code=0):
        found, err = embed(*argv, "-o", "out/")
        assert found == code, err
        return pq.read_table("out").to_pylist()

    return run


@pytest.fixture
def refused(embed, here):
    """The one sentence of a command that is refused, which leaves nothing behind."""

    def run(*argv):
        code, err = embed(*argv, "-o", "refused/")
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith("moembed: error: ")
        assert not (here / "refused").exists()
        return err

    return run


@pytest.fixture
def run(model, here):
    """Run into a folder; keywords are those of `Options` and `Selection`."""

    def embedded(inputs, output="out", *, log=None, **options):
        template = options.pop("template", None)
        names = ("field", "id", "id_required", "keep", "keep_all")
        chosen = {name: options.pop(name) for name in names if name in options}
        selection = Selection(**chosen, template=Template.parse(template) if template else None)
        options = {"prompt": "", "dim": 8, "shard_rows": 10} | options
        messages = [] if log is None else log
        return embed_files(
            [inputs] if isinstance(inputs, str) else inputs,
            output,
            model,
            Options(selection=selection, **options),
            log=messages.append,
            show=False,
        )

    return embedded


@pytest.fixture
def corpus(here):
    """60 rows, of which row 17 has no text and row 30 too long a one."""
    records = [{"id": f"k{number}", "text": f"text {number} of a corpus", "n": number} for number in range(60)]
    records[17]["text"] = None
    records[30]["text"] = "word " * 600
    write_jsonl(here / "d.jsonl", records)
    return "d.jsonl"


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    """Place of the first run of the corpus, which the tests copy."""
    return tmp_path_factory.mktemp("first") / "out"


@pytest.fixture
def whole(run, corpus, here, first_run):
    """Run of the corpus into `out`; gives what it wrote."""
    if not first_run.exists():
        assert run(corpus, on_error="skip").made == tuple(range(6))
        shutil.copytree("out", first_run)
    shutil.copytree(first_run, "out", dirs_exist_ok=True)
    return content(here / "out")
