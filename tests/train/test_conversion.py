"""Parts of the conversion and of the losses, against independent computations."""

import json
from collections import Counter

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from moembed.errors import InputError
from moembed.models.nomic_bert_moe.network import MoeMlp
from moembed.models.text_encoder import Attention
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.train import precision
from moembed.train.convert import experts, rotary, student, teacher_targets, vocabulary
from moembed.train.convert.conversion import position_component
from moembed.train.convert.regression import NormalEquations, ridge
from moembed.train.convert.teacher import Teacher
from moembed.train.data import corpus
from moembed.train.recipe import AttentionRecipe, Prompts
from moembed.train.steps import losses, muon
from moembed.train.steps.distillation import agreement
from moembed.verify.probes import probe_texts
from support.teachers import HEADS, HIDDEN, write_teacher

PROMPTS = Prompts(query="query: ", passage="passage: ")
TEMPLATE = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return Teacher(write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.bin"))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


# --- the student


def test_states_match_the_network(network):
    ids = torch.randint(4, 40_000, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states, routings = student.encode(network, ids)
        embeddings, tokens = network(ids, torch.ones_like(ids))
    torch.testing.assert_close(states[-1], tokens, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(F.normalize(states[-1].mean(1), dim=-1), embeddings, rtol=1e-4, atol=1e-5)
    assert len(routings) == len(network.config.moe_layers)


def test_every_parameter_gets_a_gradient(network):
    ids = torch.randint(4, 40_000, (8, 33), generator=torch.Generator().manual_seed(2))
    network.requires_grad_(True)
    try:
        states, _ = student.encode(network, ids)
        grads = torch.autograd.grad(states[-1].square().mean(), list(network.parameters()))
    finally:
        network.requires_grad_(False)
    assert all(bool(grad.abs().sum() > 0) for grad in grads)


# --- positions


def test_another_basis_gives_the_same_scores(teacher, generator):
    layer = teacher.layers[0]
    x = torch.randn(500, HIDDEN, generator=generator)
    q, q_bias, k, k_bias = rotary.principal_basis(layer, HEADS, rotary.second_moments(x))
    for head in range(HEADS):
        rows = slice(head * HIDDEN // HEADS, (head + 1) * HIDDEN // HEADS)
        expected = (
            F.linear(x, layer.q_weight[rows], layer.q_bias[rows])
            @ F.linear(x, layer.k_weight[rows], layer.k_bias[rows]).T
        )
        found = F.linear(x, q[rows], q_bias[rows]) @ F.linear(x, k[rows], k_bias[rows]).T
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_the_weakest_directions_turn_fastest(teacher, generator):
    x = torch.randn(2000, HIDDEN, generator=generator)
    q, q_bias, k, k_bias = rotary.principal_basis(teacher.layers[0], HEADS, rotary.second_moments(x))
    rows = slice(0, HIDDEN // HEADS)
    strength = F.linear(x, q[rows], q_bias[rows]).square().mean(0) * F.linear(x, k[rows], k_bias[rows]).square().mean(0)
    pairs = strength.view(2, -1).sum(0)
    assert pairs.tolist() == sorted(pairs.tolist())


def test_tuning_fits_attention_and_keeps_values(network, generator):
    config = network.config
    attn = Attention(config).requires_grad_(False)
    x = torch.randn(4, 24, config.hidden_size, generator=generator)
    near = -(torch.arange(24)[:, None] - torch.arange(24)[None, :]).abs().float()
    wanted = torch.softmax(near, -1).expand(4, config.num_heads, 24, 24)  # depends on positions alone
    values = attn.Wqkv.weight[2 * config.hidden_size :].clone()
    tuner = rotary.AttentionTuner(attn, AttentionRecipe(learning_rate=3e-3, bias_learning_rate=0.1, epochs=1), 60)
    found = [tuner.step(x, wanted, network.cos, network.sin) for _ in range(60)]
    assert found[-1] < 0.2 * found[0]
    assert torch.equal(attn.Wqkv.weight[2 * config.hidden_size :], values)
    assert not attn.Wqkv.weight.requires_grad


def test_the_position_component_is_found(generator):
    component = torch.randn(40, 8, generator=generator)
    component -= component[5:].mean(0)
    states = [torch.randn(300, length, 8, generator=generator) + 3 + component[:length] for length in (40, 24, 40)]
    for batch in states:
        batch[:, -1] += 1000  # the closing token does not depend on its position
    found = position_component(states, 64)
    torch.testing.assert_close(found[5:39], component[5:39], rtol=0.1, atol=0.3)
    assert not found[:5].any()  # the prompt does not depend on its position
    assert not found[39:].any()


# --- regression


def test_the_error_from_sums_is_the_error_of_the_rows(generator):
    x, y, weight = (torch.randn(300, width, generator=generator) for width in (7, 3, 1))
    equations = NormalEquations(7, 3)
    for rows in torch.arange(300).split(64):
        equations.add(x[rows], y[rows], weight[rows].abs())
    solution = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    rows = (x @ solution[:-1].float() + solution[-1].float() - y) * weight
    assert equations.error(solution) == pytest.approx(float(rows.square().mean()), rel=1e-4)


def test_an_exact_line_is_found_and_noise_selects_a_stronger_penalty(generator):
    truth = torch.randn(20, 2, generator=generator)
    for noise, strength in ((0.0, 1e-4), (30.0, 1e2)):
        sides = []
        for rows in (40, 4000):
            x = torch.randn(rows, 20, generator=generator)
            equations = NormalEquations(20, 2)
            equations.add(x, x @ truth + 5 + noise * torch.randn(rows, 2, generator=generator), torch.ones(rows, 1))
            sides.append(equations)
        fit = ridge(*sides, truth + 0.01, [1e-4, 1e-2, 1.0, 1e2])
        assert fit.strength == strength
        if not noise:
            torch.testing.assert_close(fit.weight, truth, rtol=1e-2, atol=1e-2)
            torch.testing.assert_close(fit.bias, torch.full((2,), 5.0), rtol=1e-2, atol=1e-2)


# --- experts


def test_experts_are_solved_for_jointly(network, teacher, generator):
    config = network.config
    mlp = MoeMlp(config).requires_grad_(False)
    scale = torch.randn(HIDDEN, config.hidden_size, generator=generator)
    layer = teacher.layers[0]
    fields = {name: getattr(layer, name) for name in layer.__dataclass_fields__}
    fields |= {"up_weight": layer.up_weight @ scale, "down_weight": layer.down_weight[: config.hidden_size]}
    h = torch.randn(3000, config.hidden_size, generator=generator) + 1.0
    experts.split_dense(mlp, type(layer)(**fields), h, 0.8, generator)
    assert student.route(mlp, h).weights.sum(-1).mean() == pytest.approx(0.8, abs=0.01)

    inner = F.gelu(F.linear(h, fields["up_weight"], fields["up_bias"]))
    wanted = inner @ fields["down_weight"].T
    rows = [experts.MlpRows(h[part], wanted[part], torch.ones(len(part), 1)) for part in torch.arange(3000).split(1500)]
    before = (student.run_experts(mlp, h, student.route(mlp, h)) - wanted).square().mean()
    fit = experts.solve_outer_weights(mlp, rows, rows, [1e-4, 1e-2])
    after = (student.run_experts(mlp, h, student.route(mlp, h)) - wanted).square().mean()
    assert fit.error == pytest.approx(float(after), rel=1e-2)  # from the sums alone, for what the mixture computes
    assert after < 0.7 * before


# --- text


def test_the_split_depends_on_the_text_alone(tmp_path):
    rows = [{"l": "xx", "t": f"text {n}", "k": "qd"[n % 2]} for n in range(400)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows + rows)))
    train, validation = corpus.read_texts([tmp_path / "a.jsonl"], PROMPTS, 0.1)
    train_again, validation_again = corpus.read_texts([tmp_path / "b.jsonl", tmp_path / "a.jsonl"], PROMPTS, 0.1)
    assert set(validation) == set(validation_again)
    assert set(train) == set(train_again)
    assert len(train) + len(validation) == 400
    assert 15 < len(validation) < 75
    assert {text.text.split(" text")[0] for text in train} == {"query:", "passage:"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"l": "en", "t": "x", "k": "z"}', r'a\.jsonl:1: expected "l", "t" and "k"'),
        ('{"l": "en", "t": 5, "k": "q"}', r"a\.jsonl:1"),
        ("[]", "expected a JSON object, found list"),
        ("{", r"a\.jsonl:1: not JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        corpus.read_texts([tmp_path / "a.jsonl"], PROMPTS, 0.1)


def test_a_larger_sample_begins_with_the_smaller_one():
    tokenizer = vocabulary.build_tokenizer(TEMPLATE, 64)
    texts = [corpus.Text("en", f"passage: the {n}th of them") for n in range(900)]
    texts += [corpus.Text("lo", f"passage: number {n}") for n in range(9)]
    samples = {n: corpus.sample(texts, tokenizer, tokens=n, alpha=0.5, weights={}, seed=1) for n in (300, 1200)}
    assert samples[1200][: len(samples[300])] == samples[300]
    assert 300 <= sum(len(text.ids) for text in samples[300]) < 330
    languages = Counter("lo" if "number" in text.text else "en" for text in samples[1200])
    assert languages["lo"] > 0.05 * languages["en"]  # one in a hundred texts, one in ten sampled texts
    sampled = corpus.sample(texts, tokenizer, tokens=1200, alpha=0.5, weights={"lo": 0.3}, seed=1)
    assert 0 < sum("number" in text.text for text in sampled) < 0.5 * languages["lo"]
    assert len({text.text for text in samples[1200]}) == len(samples[1200])


def test_batches_hold_texts_of_one_length():
    texts = [corpus.Encoded("", [0, *range(10, 10 + n), 2]) for n in (3, 9, 14, 14, 15, 30)]
    made = corpus.batches(texts, 32, 8)
    assert [tuple(batch.shape) for batch in made] == [(1, 5), (1, 8), (2, 16), (1, 16), (1, 32)]
    assert all(bool((batch[:, 0] == 0).all()) and bool((batch[:, -1] == 2).all()) for batch in made)


# --- vocabulary and spans


def test_the_most_useful_pieces_are_kept():
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [
        ("▁", -3.0),
        ("▁word", -9.0),
        ("▁rare", -9.0),
        ("w", -12.0),
        ("é", -12.0),
        ("▁café", -9.0),
        ("<mask>", 0.0),
    ]
    counts = {"en": Counter({5: 1000, 4: 10}), "fr": Counter({9: 900})}
    kept = vocabulary.select(pieces, counts, 9, prior_weight=0.0, spelling_weight=0.0, weights={})
    assert [pieces[i][0] for i in kept] == ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁word", "▁rare", "▁café", "<mask>"]
    spelled = vocabulary.select(pieces, counts, 10, prior_weight=0.0, spelling_weight=0.5, weights={})
    assert {"w", "é"} <= {pieces[i][0] for i in spelled}
    assert "▁rare" not in {pieces[i][0] for i in spelled}
    for weights, first in (({"fr": 2.0}, "▁café"), ({"en": 2.0}, "▁word")):
        (piece,) = vocabulary.select(pieces, counts, 6, prior_weight=0.0, spelling_weight=0.0, weights=weights)[4:-1]
        assert pieces[piece][0] == first


def test_spans_end_at_common_boundaries():
    few = vocabulary.select(list(map(tuple, TEMPLATE["model"]["vocab"])), {}, 3000, 1.0, 0.0, {})
    pieces = [tuple(TEMPLATE["model"]["vocab"][i]) for i in few]
    small = vocabulary.build_tokenizer(vocabulary.tokenizer_json(TEMPLATE, pieces), 48)
    large = vocabulary.build_tokenizer(TEMPLATE, 48)
    for text in [*probe_texts(), "", "Donaudampfschifffahrt und Elektrizitätswirtschaft " * 9]:
        mine, theirs = small.encode("passage: " + text), large.encode("passage: " + text)
        spans = teacher_targets.aligned_spans(mine, theirs)
        for encoding, own in zip((mine, theirs), spans, strict=True):
            assert len(own) == len(encoding.ids)
            assert own == sorted(own)
        assert spans[0][-1] == spans[1][-1]
        # A span has the same characters on either side, except the last one, where one side may be truncated.
        ends = [
            {span: end for span, (_, end) in zip(own, encoding.offsets, strict=True)}
            for encoding, own in zip((mine, theirs), spans, strict=True)
        ]
        for span in range(1, spans[0][-1]):
            assert ends[0][span] == ends[1][span]
    same = teacher_targets.aligned_spans(large.encode("passage: the same"), large.encode("passage: the same"))
    assert same[0] == same[1] == list(range(len(same[0])))


def test_span_means():
    states = torch.tensor([[1.0], [3.0], [5.0]])
    assert teacher_targets.span_means(states, torch.tensor([0, 2, 2]), 4).squeeze(1).tolist() == [1.0, 0.0, 4.0, 0.0]


# --- losses


def test_losses_have_their_minimum_where_expected(generator):
    wanted = F.normalize(torch.randn(6, 32, generator=generator), dim=-1)
    assert float(losses.neighbour_loss(3 * wanted, wanted, 0.05)) == pytest.approx(0, abs=1e-5)
    assert float(losses.neighbour_loss(torch.randn(6, 32, generator=generator), wanted, 0.05)) > 0.1
    # With a common component, the cosines are closer to each other and in the same order.
    shared = F.normalize(F.pad(wanted, (0, 1), value=2.0), dim=-1)
    assert float(losses.neighbour_loss(wanted, shared, 0.02)) == pytest.approx(0, abs=1e-5)
    assert float(losses.neighbour_loss(shared, wanted, 0.02)) == pytest.approx(0, abs=1e-5)
    texts = F.normalize(torch.randn(40, 32, generator=generator), dim=-1)
    assert float(losses.bank_loss(3 * wanted, wanted, texts, 0.01)) == pytest.approx(0, abs=1e-5)
    # The text itself in the bank is masked.
    moved = wanted + 0.3 * torch.randn(6, 32, generator=generator)
    expected = float(losses.bank_loss(moved, wanted, texts, 0.05))
    assert expected > 0.1
    assert float(losses.bank_loss(moved, wanted, torch.cat([texts, wanted[:1]]), 0.05)) == pytest.approx(
        float(losses.bank_loss(moved[1:], wanted[1:], torch.cat([texts, wanted[:1]]), 0.05)) * 5 / 6
        + float(losses.bank_loss(moved[:1], wanted[:1], texts, 0.05)) / 6,
        rel=1e-4,
    )
    assert agreement(wanted, wanted) == {"cosine": 1.0, "neighbour_overlap": 1.0}
    even = torch.full((8, 4), 0.25)
    expert_indices = torch.arange(16).view(8, 2) % 4
    assert float(losses.load_balancing_loss(student.Routing(even, even[:, :2], expert_indices))) == pytest.approx(1.0)
    one = F.one_hot(torch.zeros(8, dtype=torch.int64), 4).float()
    assert (
        float(losses.load_balancing_loss(student.Routing(one, one[:, :2], torch.zeros(8, 2, dtype=torch.int64)))) == 4.0
    )


# --- precision and optimizer


@pytest.mark.parametrize(
    ("found", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_products_are_in_bfloat16_if_the_processor_supports_it(monkeypatch, found, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    precision.has_bfloat16.cache_clear()
    with precision.reduced_precision():
        assert F.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == dtype
    precision.has_bfloat16.cache_clear()


@pytest.mark.parametrize("reduced", [True, False])
def test_muon_matches_torch(monkeypatch, generator, reduced):
    monkeypatch.setattr(precision, "has_bfloat16", lambda: reduced)
    shapes = ((24, 8), (8, 24), (16, 16))
    sides = [[torch.nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2)]
    optimizers = (
        muon.Muon(sides[0], 0.1, 0.01),
        torch.optim.Muon(sides[1], 0.1, 0.01, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(*sides, strict=True):
            one.grad = other.grad = torch.randn(one.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(*sides, strict=True):
        assert not torch.equal(one, torch.ones(one.shape))
        torch.testing.assert_close(one, other, rtol=0, atol=0 if reduced else 0.01)
    values = torch.linalg.svdvals(muon.orthogonalize(torch.randn(24, 8, generator=generator)))
    assert values.min() > 0.6
    assert values.max() < 1.3
