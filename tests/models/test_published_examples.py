"""Published examples in the specs: whole, and with the ids of the published tokenizers. Their numbers need the weights."""

import re
from collections import Counter

import pytest

from moembed.models.examples import EmbeddingExample, HiddenStatesExample, PooledExample
from moembed.models.spec import ModelSpec, known_specs
from moembed.tokenizer.tokenizer import Tokenizer
from support.folders import ROOT
from support.token_ids import PUBLISHED

PAGE = ROOT / "docs" / "evaluation.md"
SPECS = {spec.name: spec for spec in known_specs()}
# Of each kind, in the order of `Examples.all`: cosines, pooled vectors, embeddings, hidden states, routers.
COUNTS = {
    "all-MiniLM-L6-v2": (0, 0, 1, 0, 0),
    "gte-multilingual-base": (3, 2, 4, 2, 0),
    "multilingual-e5-large": (0, 1, 0, 0, 0),
    "nomic-embed-text-v1": (0, 1, 0, 0, 0),
    "nomic-embed-text-v1.5": (0, 3, 0, 2, 0),
    "nomic-embed-text-v2-moe": (2, 2, 0, 2, 2),
    "snowflake-arctic-embed-m-v2.0": (4, 2, 0, 2, 0),
}
UNIGRAM = [
    "gte-multilingual-base",
    "multilingual-e5-large",
    "nomic-embed-text-v2-moe",
    "snowflake-arctic-embed-m-v2.0",
]


@pytest.fixture(params=COUNTS)
def spec(request) -> ModelSpec:
    return SPECS[request.param]


def test_no_example_is_lost():
    found = {
        name: (
            len(spec.examples.similarity),
            len(spec.examples.pooled),
            len(spec.examples.embeddings),
            len(spec.examples.hidden_states),
            len(spec.examples.routing),
        )
        for name, spec in SPECS.items()
        if spec.examples.all
    }
    assert found == COUNTS


def test_models_without_a_digest_of_their_weights():
    unpinned = {"multilingual-e5-large", "nomic-embed-text-v1", "snowflake-arctic-embed-l-v2.0"}
    assert {name for name, spec in SPECS.items() if not spec.pins_weights} == unpinned
    assert all(SPECS[name].repo and SPECS[name].revision for name in unpinned), "what they are recognized by"


def test_the_page_about_evaluation_lists_them():
    rows = re.findall(
        r"^\| (\S+) \| .* \| (sha256 of the weights|name and commit) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    recognized = {True: "sha256 of the weights", False: "name and commit"}
    others = [name for name in COUNTS if name != "nomic-embed-text-v2-moe"]  # which has a paragraph
    assert rows == [(name, recognized[SPECS[name].pins_weights]) for name in others]


def test_names_are_unique_and_prompts_are_those_of_the_model(spec):
    assert set(Counter(example.name for example in spec.examples.all).values()) == {1}
    for example in spec.examples.all:
        assert example.source
        assert {text.prompt for text in example.texts} <= {"", *spec.prompts}


def test_shapes_fit_the_vectors(spec):
    width = max(spec.dims)
    for example in spec.examples.all:
        match example:
            case PooledExample():
                assert 1 <= len(example.values) <= -(-width // example.every)
            case EmbeddingExample():
                assert 1 <= len(example.first) + len(example.last) <= width
                assert sum(value**2 for value in (*example.first, *example.last)) < 1
            case HiddenStatesExample():
                assert len(example.first) == len(example.tokens)
                assert len(example.last) in (0, len(example.tokens))
                assert all(-len(example.text.ids) <= token < len(example.text.ids) for token in example.tokens)


def test_only_the_states_of_a_copy_with_an_unknown_config_are_unresolved():
    unresolved = [(name, one) for name, spec in SPECS.items() for one in spec.examples.all if one.unresolved]
    assert {name for name, _ in unresolved} == {"gte-multilingual-base"}
    assert {type(one) for _, one in unresolved} == {HiddenStatesExample}


@pytest.mark.parametrize("name", UNIGRAM)
def test_ids_are_those_of_the_published_tokenizer(name):
    """The tokenizer.json of these models gives the same ids, whatever else it says."""
    if not PUBLISHED.exists():
        pytest.skip("the published tokenizer.json is not here; set MOEMBED_PUBLISHED_TOKENIZER to a copy")
    tokenizer, spec = Tokenizer(PUBLISHED), SPECS[name]
    for text in (text for example in spec.examples.all for text in example.texts):
        (ids,) = tokenizer.encode([text.text], prefix=spec.prompts.get(text.prompt, ""))
        assert tuple(ids.tolist()) == text.ids, text.text
