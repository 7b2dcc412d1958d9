"""Contrastive training and its pairs, against plain computations."""

import copy
import json

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from moembed.errors import InputError
from moembed.train.convert import student
from moembed.train.convert.teacher_targets import TeacherTarget
from moembed.train.data import corpus, pairs
from moembed.train.recipe import Prompts
from moembed.train.steps import contrastive, losses

PROMPTS = Prompts(query="query: ", passage="passage: ")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def _unit(*shape, generator):
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def _texts(lengths, hidden, generator):
    return [
        TeacherTarget(
            torch.randint(4, 40_000, (length,), generator=generator),
            torch.zeros(length, dtype=torch.int64),
            torch.zeros(1, hidden),
            _unit(hidden, generator=generator),
        )
        for length in lengths
    ]


# --- pairs


def test_pairs_with_a_held_out_text_are_held_out(tmp_path):
    lines = [{"q": f"question {n}", "d": f"answer {n // 2}"} for n in range(400)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, *lines[:9]]))
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"t": line["d"], "l": "en", "k": "d"}) + "\n" for line in lines)
    )
    train, validation = pairs.read_pairs([tmp_path / "p.jsonl"], PROMPTS, 0.1)
    assert len(train) + len(validation) == 400
    train_texts, validation_texts = corpus.read_texts([tmp_path / "t.jsonl"], PROMPTS, 0.1)
    assert {pair.document for pair in train} <= {text.text for text in train_texts}
    assert {text.text for text in validation_texts} <= {pair.document for pair in validation}
    assert all(pair.query.startswith("query: ") and pair.document.startswith("passage: ") for pair in train)


def test_a_pair_is_read_once_with_its_first_kind(tmp_path):
    lines = [{"q": "a", "d": "b", "k": "question"}, {"q": "a", "d": "b", "k": "heading"}, {"q": "a", "d": "c"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train, _ = pairs.read_pairs([tmp_path / "p.jsonl"], PROMPTS, 0.0)
    assert train == [("query: a", "passage: b", "question"), ("query: a", "passage: c", "")]


def test_pairs_are_sampled_by_the_weight_of_their_kind():
    known = [pairs.Pair(str(n), "", "question" if n % 10 == 0 else "translation") for n in range(2000)]
    drawn = pairs.sample(known, 600, {"question": 9.0}, 1)
    assert len(set(drawn)) == 600
    assert sum(pair.kind == "question" for pair in pairs.sample(known, 300, {"question": 9.0}, 1)) == pytest.approx(
        150, abs=9
    )
    assert pairs.sample(known, 300, {"question": 9.0}, 1) == drawn[:300]
    assert pairs.sample(known, 300, {"question": 9.0}, 2) != drawn[:300]
    assert sum(pair.kind == "question" for pair in pairs.sample(known, 300, {}, 1)) == pytest.approx(30, abs=9)
    assert sorted(pairs.sample(known, 9999, {"question": 9.0}, 1)) == sorted(known)


@pytest.mark.parametrize("line", ['{"q": "a"}', '{"q": "a", "d": 1}', '{"q": "a", "d": "b", "k": 1}', "[]", "{"])
def test_bad_pairs_are_refused(tmp_path, line):
    (tmp_path / "p.jsonl").write_text('{"q": "a", "d": "b"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"p\.jsonl"):
        pairs.read_pairs([tmp_path / "p.jsonl"], PROMPTS, 0.1)


@pytest.mark.parametrize("rank", [1, 3])
def test_consistent_pairs_are_ranked_high_by_the_teacher(generator, rank):
    documents = _unit(40, 8, generator=generator)
    documents[1] = documents[0]  # equal documents count once
    queries = F.normalize(documents + 0.4 * _unit(40, 8, generator=generator), dim=-1)
    queries[7] = documents[11]
    expected = []
    for query, own in zip(queries, documents, strict=True):
        better = {tuple(d.tolist()) for d in documents if float(query @ d) > float(query @ own) + 1e-6}
        expected.append(len(better) < rank)
    assert pairs.consistent(queries, documents, rank).tolist() == expected
    assert not expected[7]
    assert any(expected)


def test_hard_negatives_are_near_but_wrong(generator):
    documents = _unit(30, 8, generator=generator)
    queries = F.normalize(documents + 0.5 * _unit(30, 8, generator=generator), dim=-1)
    similar = queries @ documents.T
    for query, found in enumerate(pairs.hard_negatives(queries, documents, 4, 0.1).tolist()):
        wrong = [i for i in range(30) if similar[query, i] < similar[query, query] - 0.1]
        assert found == sorted(wrong, key=lambda i: -similar[query, i])[:4] + [-1] * (4 - len(wrong))


def test_equally_good_documents_are_no_negatives():
    alike = F.normalize(torch.ones(3, 8), dim=-1)
    assert pairs.hard_negatives(alike, alike, 2, 0.1).tolist() == [[-1, -1]] * 3


def test_recall_at_1_of_truncated_vectors():
    queries = torch.tensor([[1.0, 0, 9], [0, 1, 0], [3, 0, 0], [1, 1, 0]])
    documents = torch.tensor([[2.0, 0, 0], [0, 5, 0], [1, 0, 0], [-1, 1, 0]])
    # Two documents of one direction are equally good; the last query finds the document of another.
    assert pairs.recall_at_1(queries, documents, [3, 2]) == {"recall_at_1": 0.75, "recall_at_1_2": 0.75}
    documents[0, 2] = -9
    assert pairs.recall_at_1(queries, documents, [3, 2]) == {"recall_at_1": 0.5, "recall_at_1_2": 0.75}


# --- the loss


def test_info_nce_matches_its_formula(generator):
    queries, candidates = torch.randn(4, 8, generator=generator), torch.randn(6, 8, generator=generator)
    wanted = _unit(4, 8, generator=generator), _unit(6, 8, generator=generator)
    total = 0.0
    for i in range(4):
        own = F.cosine_similarity(queries[i], candidates[i], dim=0) / 0.1
        limit = wanted[0][i] @ wanted[1][i] - 0.05
        wrong = [j for j in range(6) if j != i and wanted[0][i] @ wanted[1][j] < limit]
        logits = [own, *(F.cosine_similarity(queries[i], candidates[j], dim=0) / 0.1 for j in wrong)]
        total += float(torch.logsumexp(torch.stack(logits), 0) - own) / 4
    assert float(losses.info_nce((queries, candidates), wanted, 0.1, 0.05)) == pytest.approx(total, rel=1e-5)


def test_parts_of_a_batch_have_one_length_and_keep_the_last_token(generator):
    texts = _texts([5, 9, 16, 17, 23, 9, 10], 8, generator)
    made = contrastive.split_batch(texts, max_tokens=24, multiple=8)
    assert sorted(row for rows, _ in made for row in rows) == list(range(7))
    for rows, ids in made:
        assert ids.numel() <= 24 or len(rows) == 1
        for row, own in zip(rows, ids, strict=True):
            text = texts[row].ids
            assert len(own) == (len(text) if len(text) < 8 else len(text) // 8 * 8)
            assert own.tolist() == [*text[: len(own) - 1].tolist(), int(text[-1])]


def test_the_gradient_in_parts_is_the_gradient_of_the_whole(network, generator):
    network = copy.deepcopy(network).requires_grad_(True)
    parts = contrastive.split_batch(_texts([8, 9, 16, 17, 8, 16, 12, 8], 8, generator), max_tokens=16, multiple=8)
    assert len(parts) > 3

    def encode(ids):
        states, routings = student.encode(network, ids)
        extra = torch.stack([routing.probabilities.square().mean() for routing in routings]).mean()
        return states[-1].mean(1), extra

    def loss(pooled):
        unit = F.normalize(pooled, dim=-1)
        total = F.cross_entropy(unit[:4] @ unit[4:].T / 0.05, torch.arange(4))
        return total, {"pairs": float(total.detach())}

    found = contrastive.backward_in_parts(parts, encode, loss)
    in_parts = [parameter.grad.clone() for parameter in network.parameters()]
    pooled, extra = [torch.empty(0)] * 8, torch.zeros(())
    for rows, ids in parts:
        vectors, own = encode(ids)
        extra = extra + own * len(rows) / 8
        for row, vector in zip(rows, vectors, strict=True):
            pooled[row] = vector
    total, described = loss(torch.stack(pooled))
    whole = torch.autograd.grad(total + extra, list(network.parameters()))
    assert found["pairs"] == pytest.approx(described["pairs"], rel=1e-4)
    assert found["balance"] == pytest.approx(float(extra.detach()), rel=1e-4)
    for mine, theirs in zip(in_parts, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * max(1.0, float(theirs.abs().max())))
