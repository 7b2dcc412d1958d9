"""Published examples of models with and without a pinned digest: who has the weights reproduces them, or is told why not.

The networks are tiny ones of random weights. Their examples are what torch computes.
"""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from moembed.cli import main
from moembed.convert.conversion import convert
from moembed.errors import VerificationError
from moembed.export.pipeline import export
from moembed.models import locate as locate_module
from moembed.models import spec as spec_module
from moembed.models.checkpoint import load_network
from moembed.models.examples import (
    EmbeddingExample,
    Examples,
    ExampleText,
    HiddenStatesExample,
    PooledExample,
    SimilarityExample,
)
from moembed.models.locate import locate
from moembed.models.spec import ModelSpec
from moembed.quantize.pipeline import quantize
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify import stability
from moembed.verify.examples import run_examples
from moembed.verify.parity import network_runner
from moembed.verify.tolerances import FP32
from support.tiny_networks import NETWORKS, tensors_of, write_tiny

REPO, COMMIT = "acme/known", "0123456789abcdef0123456789abcdef01234567"
NAMES = ["cosine", "pooled", "unit", "states"]
OTHER_NUMBERS = {
    "cosine": lambda example: {"cosine": example.cosine - 1e-3},
    "pooled": lambda example: {"values": (*example.values[:-1], example.values[-1] + 1e-3)},
    "unit": lambda example: {"last": (*example.last[:-1], example.last[-1] + 1e-3)},
    "states": lambda example: {"first": (example.first[1], example.first[0])},
}
UNPINNED = "whose weights are not pinned: no digest of them is known"


@pytest.fixture(scope="module", params=["xlm_roberta", "new"])
def network(request) -> str:
    """One network of each pooling."""
    return request.param


@pytest.fixture(scope="module")
def weights(network, once) -> Path:
    return once(f"known {network}", lambda path: write_tiny(path, network))


@pytest.fixture(scope="module")
def examples(network, weights) -> Examples:
    tokenizer, run = Tokenizer(weights / "tokenizer.json"), network_runner(load_network(weights))
    first, second = (
        ExampleText(text=text, ids=tuple(next(iter(tokenizer.encode([text]))).tolist())) for text in ("abc", "hello x")
    )
    a, b = (run(list(text.ids)) for text in (first, second))
    pooling, states = NETWORKS[network]["pooling"], b.hidden_states[-1]
    pooled = states.mean(axis=0) if pooling == "mean" else states[0]
    head = {"source": "torch", "tolerance": 2e-5, "margin": 1e-5}
    return Examples(
        similarity=(
            SimilarityExample(
                name="cosine", first=first, second=second, cosine=float(a.embedding @ b.embedding), **head
            ),
        ),
        pooled=(
            PooledExample(
                name="pooled", text=second, pooling=pooling, every=1, values=tuple(pooled[:5].tolist()), **head
            ),
        ),
        embeddings=(
            EmbeddingExample(
                name="unit",
                text=first,
                first=tuple(a.embedding[:3].tolist()),
                last=tuple(a.embedding[-3:].tolist()),
                **head,
            ),
        ),
        hidden_states=(
            HiddenStatesExample(
                name="states",
                text=second,
                tokens=(1, -1),
                skipped=1,
                first=tuple(map(tuple, states[[1, -1], 1:4].tolist())),
                **head,
            ),
        ),
    )


@pytest.fixture
def know(hub, weights, monkeypatch):
    """Make the weights those of a known model, in a repository; `pinned` by their digest or told by its name."""

    def make(examples: Examples, *, pinned: bool) -> ModelSpec:
        spec = ModelSpec(
            name="known",
            max_tokens=32,
            dims=(64,),
            prompts={},
            prompt_required=False,
            repo=REPO,
            revision=COMMIT,
            sha256={"model.safetensors": locate(weights).weights_sha256} if pinned else {},
            examples=examples,
        )
        hub.add(REPO, weights, commit=COMMIT)
        for module in (spec_module, locate_module):
            monkeypatch.setattr(module, "known_specs", lambda: (spec,))
        return spec

    monkeypatch.setattr(stability, "check_stability", partial(stability.check_stability, quick=True))
    return make


def altered(examples: Examples, name: str, **fields) -> Examples:
    """Return the examples with other fields in the one of a name: by default with other numbers."""

    def changed(example):
        if example.name != name:
            return example
        return replace(example, **(fields or OTHER_NUMBERS[name](example)))

    kinds = ("similarity", "pooled", "embeddings", "hidden_states")
    return Examples(**{kind: tuple(map(changed, getattr(examples, kind))) for kind in kinds})


@pytest.mark.parametrize("pinned", [True, False])
def test_the_weights_reproduce_the_examples(pinned, know, examples, tmp_path, capsys):
    know(examples, pinned=pinned)
    fp32 = export(locate(REPO), tmp_path / "fp32")
    int8 = quantize(fp32, tmp_path / "int8")
    for bundle in (fp32, int8):
        assert list(bundle.manifest.certificate.examples) == sorted(NAMES)
        assert all(one.error <= one.allowed for one in bundle.manifest.certificate.examples.values())
        assert main(["verify", str(bundle.folder)]) == 0
        out = capsys.readouterr().out
        assert "published examples: pass: 4 of 4 reproduced" in out
        assert ("recognized by name and commit: the weights are not pinned" in out) is not pinned


@pytest.mark.parametrize("name", NAMES)
def test_other_numbers_of_each_kind_are_noticed(name, examples, weights):
    runner, tokenizer = network_runner(load_network(weights)), Tokenizer(weights / "tokenizer.json")
    results = run_examples(altered(examples, name), {}, tokenizer, runner, FP32)
    assert [result.example.name for result in results if not result.passed] == [name]


@pytest.mark.parametrize("pinned", [True, False])
def test_other_numbers_are_refused_for_what_may_be_wrong(pinned, know, examples, tmp_path):
    know(altered(examples, "unit"), pinned=pinned)
    with pytest.raises(VerificationError, match="does not reproduce 1 of its 4 published examples") as caught:
        export(locate(REPO), tmp_path / "out")
    assert re.search(r"unit: expected .*, found .* \(error .*, allowed 2e-05\); source: torch", str(caught.value))
    by_name = f"the model is {REPO} by its name and commit, {UNPINNED}"
    assert str(caught.value).startswith("the weights are those of a known model" if pinned else by_name)
    assert ("Either these are not the published weights" in str(caught.value)) is not pinned
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pinned", [True, False])
def test_a_conversion_is_held_to_them_too(pinned, know, examples, tmp_path):
    know(examples, pinned=pinned)
    converted = convert(locate(REPO), tmp_path / "converted")
    assert list(converted.manifest.certificate.examples) == sorted(NAMES)
    # INT8 resolves no thousandth of a component; what it is compared with does.
    know(altered(examples, "unit"), pinned=pinned)
    with pytest.raises(
        VerificationError, match=r"the checkpoint \(numpy float64\) does not reproduce 1 of its 4"
    ) as caught:
        convert(locate(REPO), tmp_path / "out")
    assert (UNPINNED in str(caught.value)) is not pinned


@pytest.mark.parametrize("pinned", [True, False])
def test_verify_compares_a_bundle_that_was_made_before_there_were_examples(pinned, know, examples, tmp_path, capsys):
    know(Examples(), pinned=pinned)
    bundle = export(locate(REPO), tmp_path / "out")
    assert bundle.manifest.certificate.examples is None
    know(altered(examples, "pooled"), pinned=pinned)
    assert main(["verify", str(bundle.folder)]) == 1
    out = capsys.readouterr().out
    assert "published examples: FAIL: 3 of 4 reproduced" in out
    assert "FAIL pooled: expected" in out
    assert ("so an example can also fail because they are others" in out) is not pinned
    assert main(["verify", "--json", str(bundle.folder)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["weights_pinned"] is pinned
    assert [one["name"] for one in report["examples"] if not one["passed"]] == ["pooled"]


def test_other_weights_under_the_name_of_an_unpinned_model_are_refused(know, examples, network, hub, tmp_path):
    know(examples, pinned=False)
    tensors = {name: 2 * value if value.ndim == 2 else value for name, value in tensors_of(network).items()}
    other = write_tiny(tmp_path / "other", network, tensors=tensors)
    hub.add(REPO, other, commit=COMMIT)
    with pytest.raises(VerificationError, match="Either these are not the published weights"):
        export(locate(REPO), tmp_path / "out")
    folder = export(locate(other), tmp_path / "folder")
    assert folder.manifest.certificate.examples is None


@pytest.mark.parametrize("where", ["folder", "another name", "another commit"])
def test_only_the_name_at_its_commit_stands_for_unpinned_weights(where, know, examples, weights, hub, tmp_path):
    source, revision = {
        "folder": (weights, None),
        "another name": ("acme/other", None),
        "another commit": (REPO, COMMIT[::-1]),
    }[where]
    for pinned in (True, False):
        know(altered(examples, "unit"), pinned=pinned)
        if where != "folder":
            hub.add(source, weights, commit=revision or COMMIT)
        checkpoint = locate(source, revision=revision)
        if pinned:
            with pytest.raises(VerificationError, match="the weights are those of a known model"):
                export(checkpoint, tmp_path / "out")
        else:
            assert export(checkpoint, tmp_path / "out").manifest.certificate.examples is None


@pytest.mark.parametrize("differs", [True, False])
def test_an_unresolved_example_is_shown_and_not_judged(differs, know, examples, tmp_path, capsys):
    shown = altered(examples, "states") if differs else examples
    know(altered(shown, "states", unresolved="of a copy that may be scaled otherwise"), pinned=True)
    said: list[str] = []
    bundle = export(locate(REPO), tmp_path / "out", log=said.append)
    assert list(bundle.manifest.certificate.examples) == sorted(set(NAMES) - {"states"})
    (line,) = (line for line in said if line.startswith("states: expected"))
    assert line.endswith("; source: torch; not judged: of a copy that may be scaled otherwise")
    assert main(["verify", str(bundle.folder)]) == 0
    out = capsys.readouterr().out
    assert "published examples: pass: 3 of 3 reproduced" in out
    assert f"  {line}" in out
    assert main(["verify", "--json", str(bundle.folder)]) == 0
    (one,) = (one for one in json.loads(capsys.readouterr().out)["examples"] if one["unresolved"])
    assert (one["error"] > one["allowed"]) is differs
