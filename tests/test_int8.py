"""INT8: layout, ops against exact integer arithmetic, the quantised bundle, and the stability of its bytes."""

import math
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import small_config, write_checkpoint
from graph_ops import run_graph
from moembed import Embedder
from moembed.bundle import Bundle
from moembed.cli import main
from moembed.errors import InputError, OutputError, VerificationError
from moembed.export import tolerances as product_tolerances
from moembed.export.parity import observe_graph
from moembed.export.pipeline import export
from moembed.export.tolerances import Tolerance
from moembed.export.writer import write_graph
from moembed.kernels import usable_kernels
from moembed.models.sources import locate
from moembed.probes import probe_ids
from moembed.quantize import sensitivity
from moembed.quantize.calibrate import observed
from moembed.quantize.functions import GELU_MIDDLE
from moembed.quantize.layout import fits, pack, quantize_blocks, quantize_rows, unpack
from moembed.quantize.pipeline import quantize
from moembed.quantize.recipe import load_recipe, recipe_names
from moembed.quantize.rewrite import Rewriter
from moembed.quantize.rounding import rounded
from moembed.quantize.smoothing import factors_of
from moembed.stability import check_stability
from moembed.tokenizer import Tokenizer
from tolerances import INT8_SMALL_MIN_COSINE, OP_MAX_ABS, STEP_RELATIVE

EXECUTIONS = {name: partial(run_graph, kernels=name) for name in usable_kernels()}
every_execution = pytest.mark.parametrize("execution", EXECUTIONS.values(), ids=EXECUTIONS)

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(x):
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def _normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def _product(codes, middle, step, matrix, scale):
    """Exact integer sums, then `(sum * scale) * step` in float32, as the functions say."""
    sums = (codes.astype(np.int64) - middle) @ matrix.astype(np.int64).T
    return (sums.astype(np.float32) * scale) * step


def _symmetric(x):
    step = np.maximum(np.abs(x).max(axis=1, keepdims=True) / np.float32(127), np.finfo(np.float32).tiny)
    return (np.rint(x / step) + 128).astype(np.uint8), step


def _positive(x):
    step = np.maximum(x.max(axis=1, keepdims=True) / np.float32(223), np.float32(0.17 / 32))
    return (np.rint(x / step) + GELU_MIDDLE).astype(np.uint8), step.astype(np.float32)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**16))
def test_the_layout_is_blocks_of_sixteen_channels_and_four_depths(blocks, depth, seed):
    matrix = np.random.default_rng(seed).integers(-127, 128, (16 * blocks, 4 * depth)).astype(np.int8)
    packed = pack(matrix)
    assert packed.shape == (blocks, depth, 16, 4)
    n, k = 16 * blocks - 3, 4 * depth - 2
    assert packed[n // 16, k // 4, n % 16, k % 4] == matrix[n, k]
    assert np.array_equal(unpack(packed), matrix)


@pytest.mark.parametrize(
    ("shape", "whole"), [((16, 4), True), ((48, 30), False), ((30, 48), False), ((16, 4, 1), False)]
)
def test_what_fits(shape, whole):
    assert fits(shape) is whole


@every_execution
@pytest.mark.parametrize("tokens", [0, 1, 15, 17])
def test_quantize(execution, tokens):
    x = _normal(np.random.default_rng(tokens), tokens, 48) * 3
    if tokens > 1:
        x[1] = 0
    codes, step = execution("Quantize", [x], {})
    expected, steps = _symmetric(x) if tokens else (codes, step)
    assert np.array_equal(codes, expected)
    assert np.array_equal(step, steps)
    assert (np.abs((codes.astype(np.float32) - 128) * step - x) <= step * 0.5001).all()
    assert tokens < 2 or (codes[1] == 128).all(), "a row of zeros is the middle"


@every_execution
@pytest.mark.parametrize("middle", [128, GELU_MIDDLE])
@pytest.mark.parametrize(
    ("tokens", "width", "out"), [(0, 8, 16), (1, 48, 32), (15, 4, 16), (17, 80, 48), (97, 772, 80), (513, 64, 16)]
)
def test_linear_is_exact(execution, tokens, width, out, middle):
    rng = np.random.default_rng(tokens)
    codes = rng.integers(0, 256, (tokens, width)).astype(np.uint8)
    step = rng.random((tokens, 1), np.float32)
    matrix = rng.integers(-127, 128, (out, width)).astype(np.int8)
    scale, bias = rng.random(out, np.float32), _normal(rng, out)
    (y,) = execution("Int8Linear", [codes, step, pack(matrix), scale, bias], {"middle": middle})
    assert np.array_equal(y, _product(codes, middle, step, matrix, scale) + bias), "to the bit"


@pytest.mark.parametrize("extreme", [255, 1])
def test_no_saturation_at_the_extremes(extreme):
    """Pairs of largest products overflow 16 bits; the way for CPUs without VNNI gives the same sums."""
    codes = np.full((3, 256), extreme, np.uint8)
    matrix = np.full((16, 256), -127, np.int8)
    arguments = [codes, np.ones((3, 1), np.float32), pack(matrix), np.ones(16, np.float32), np.zeros(16, np.float32)]
    for setting in ((), (("session.x64quantprecision", "1"),)):
        # ONNX Runtime widens constants only.
        (y,) = run_graph("Int8Linear", arguments, {"middle": 128}, setting, constants=("weight",))
        assert (y == (extreme - 128) * -127 * 256).all()


@every_execution
def test_linear_gelu(execution):
    rng = np.random.default_rng(3)
    x = _normal(rng, 20, 48)
    codes, step = _symmetric(x)
    matrix = rng.integers(-127, 128, (32, 48)).astype(np.int8)
    scale, bias = rng.random(32, np.float32) / 50, _normal(rng, 32)
    out, out_step = execution("Int8LinearGelu", [codes, step, pack(matrix), scale, bias], {})
    active = _gelu(_product(codes, 128, step, matrix, scale).astype(np.float64) + bias).astype(np.float32)
    expected, steps = _positive(active)
    assert np.allclose(out_step, steps, rtol=STEP_RELATIVE)
    assert np.abs(out.astype(int) - expected.astype(int)).max() <= 1, (
        "a value on the edge of two codes may fall either way"
    )
    assert np.abs((out.astype(np.float32) - GELU_MIDDLE) * out_step - active).max() <= steps.max()


@every_execution
@pytest.mark.parametrize("choose", ["any", "all on one", "some without tokens"])
@pytest.mark.parametrize("tokens", [0, 1, 33])
def test_experts(execution, tokens, choose):
    rng = np.random.default_rng(tokens)
    hidden, ffn, experts = 48, 32, 5
    allowed = {"any": experts, "all on one": 2, "some without tokens": experts - 2}[choose]
    chosen = np.array([rng.permutation(allowed)[:2] for _ in range(tokens)], np.int64).reshape(tokens, 2)
    weights, bias = rng.random((tokens, 2), np.float32), _normal(rng, hidden)
    x = _normal(rng, tokens, hidden)
    codes, step = _symmetric(x) if tokens else (np.zeros((0, hidden), np.uint8), np.zeros((0, 1), np.float32))
    up = [quantize_rows(_normal(rng, ffn, hidden) / 7) for _ in range(experts)]
    down = [quantize_rows(_normal(rng, hidden, ffn) / 6) for _ in range(experts)]
    scale1, scale2 = np.stack([s for _, s in up]), np.stack([s for _, s in down])
    packed = [pack(m) for m, _ in up + down]
    (y,) = execution("Int8Experts", [codes, step, weights, chosen, bias, scale1, scale2, *packed], {})
    assert y.shape == (tokens, hidden)
    for token in range(tokens):
        expected = bias.astype(np.float64)
        for rank, expert in enumerate(chosen[token]):
            row = slice(token, token + 1)
            inner = _product(codes[row], 128, step[row], up[expert][0], scale1[expert])
            active, active_step = _positive(_gelu(inner.astype(np.float64)).astype(np.float32))
            out = _product(active, GELU_MIDDLE, active_step, down[expert][0], scale2[expert])[0]
            expected = expected + weights[token, rank] * out
        # One code of the inner layer may fall to the other side of an edge.
        assert np.allclose(y[token], expected, atol=0.03)


@every_execution
def test_norms_and_embedding(execution):
    rng = np.random.default_rng(0)
    x, residual = _normal(rng, 9, 48), _normal(rng, 9, 48)
    gamma, beta, smooth = _normal(rng, 48), _normal(rng, 48), rng.random(48, np.float32) + 0.5
    total = (x + residual).astype(np.float64)
    norm = (total - total.mean(1, keepdims=True)) / np.sqrt(total.var(1, keepdims=True) + 1e-5) * gamma + beta
    (plain,) = execution("AddNorm", [x, residual, gamma, beta], {"epsilon": 1e-5})
    y, codes, _ = execution("AddNormQuantize", [x, residual, gamma, beta, smooth], {"epsilon": 1e-5})
    assert np.array_equal(plain, y)
    assert np.allclose(y, norm, atol=OP_MAX_ABS)
    assert np.array_equal(codes, _symmetric(y * smooth)[0])

    table, scale = quantize_rows(_normal(rng, 30, 48))
    ids = np.array([3, 29, 3, 0], np.int64)
    words = (table[ids].astype(np.float32) * scale[ids, None] + residual[0]).astype(np.float64)
    norm = (words - words.mean(1, keepdims=True)) / np.sqrt(words.var(1, keepdims=True) + 1e-5) * gamma + beta
    y, codes, _ = execution("Int8Embedding", [ids, table, scale, residual[0], gamma, beta, smooth], {"epsilon": 1e-5})
    assert np.allclose(y, norm, atol=OP_MAX_ABS)
    assert np.array_equal(codes, _symmetric(y * smooth)[0])

    gamma, beta, token_type, smooth = _normal(rng, 4, 96)
    table4, scale4 = quantize_blocks(_normal(rng, 30, 96))
    words = (_decoded(table4, scale4)[ids] + token_type).astype(np.float64)
    norm = (words - words.mean(1, keepdims=True)) / np.sqrt(words.var(1, keepdims=True) + 1e-5) * gamma + beta
    y, codes, _ = execution("Int4Embedding", [ids, table4, scale4, token_type, gamma, beta, smooth], {"epsilon": 1e-5})
    assert np.allclose(y, norm, atol=OP_MAX_ABS)
    assert np.array_equal(codes, _symmetric(y * smooth)[0])


def _decoded(table, scale):
    """What codes of 4 bits stand for, value by value."""
    codes = np.stack([table & 15, table >> 4], axis=-1).reshape(len(table), -1, 32).astype(np.float32) - 8
    return (codes * scale.astype(np.float32)[..., None]).reshape(len(table), -1)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.02, 1.0, 3000.0]))
@settings(max_examples=60, deadline=None)
def test_blocks_of_4_bits_lose_little_and_nothing_twice(seed, size):
    rng = np.random.default_rng(seed)
    matrix = _normal(rng, 6, 64) * np.float32(size)
    matrix[0, :32], matrix[1] = 0, np.sign(matrix[1]) * np.float32(size)
    decoded = _decoded(*quantize_blocks(matrix))
    assert np.array_equal(_decoded(*quantize_blocks(decoded)), decoded)
    if size > 1e-4:  # whose scales are not subnormal
        peaks = np.abs(matrix).reshape(6, 2, 32).max(2).repeat(32, axis=1)
        assert (np.abs(decoded - matrix) <= peaks * 0.151).all()
        assert np.square(decoded - matrix).sum() <= 0.015 * np.square(matrix).sum()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_codes_of_4_bits_that_came_from_elsewhere_are_found_again(seed):
    rng = np.random.default_rng(seed)
    codes, scale = rng.integers(-8, 8, (40, 2, 32)).astype(np.float32), rng.random((40, 2, 1)).astype(np.float16)
    table = (codes * scale.astype(np.float32)).reshape(40, 64)
    assert np.array_equal(_decoded(*quantize_blocks(table)), table)


@pytest.fixture(scope="module")
def int8_model(int8):
    return Embedder(int8, threads=2)


def test_by_role_and_in_the_layout(int8, network):
    model = onnx.load(int8.graph, load_external_data=False)
    found = {i.name: (i.data_type, tuple(i.dims)) for i in model.graph.initializer}
    int8_type, float_type = onnx.TensorProto.INT8, onnx.TensorProto.FLOAT
    layer = "encoder.layers.1."
    assert found["embeddings.word_embeddings.weight.int8"] == (int8_type, (51200, 48))
    assert found[layer + "attn.Wqkv.weight.int8"] == (int8_type, (9, 12, 16, 4))
    assert found[layer + "attn.out_proj.weight.int8"] == (int8_type, (3, 12, 16, 4))
    assert found[layer + "mlp.experts.mlp.w1.4.int8"] == (int8_type, (5, 12, 16, 4))
    assert found[layer + "mlp.experts.mlp.w2.4.int8"] == (int8_type, (3, 20, 16, 4))
    assert found["encoder.layers.0.mlp.fc2.weight.int8"] == (int8_type, (3, 20, 16, 4))
    for kept in ("mlp.router.layer.weight", "norm1.weight", "attn.Wqkv.bias", "mlp.experts.bias"):
        assert found[layer + kept][0] == float_type
    float_bytes = sum(4 * math.prod(dims) for name, (kind, dims) in found.items() if kind == float_type)
    int8_bytes = sum(math.prod(dims) for name, (kind, dims) in found.items() if kind == int8_type)
    assert float_bytes < 0.15 * int8_bytes, "nothing large is left in float32"
    ops = {node.op_type for node in model.graph.node if node.domain == "moembed"}
    assert ops == {f.name for f in model.functions}
    assert not ops & {"Experts"}
    assert all(o.domain == "" for f in model.functions for o in f.opset_import)


def test_the_bundle_says_what_it_is(int8, bundle):
    manifest = int8.manifest
    assert (manifest.recipe, manifest.graph) == ("int8", "onnx/model_int8.onnx")
    assert manifest.source == bundle.manifest.source
    assert manifest.certificate.reference.kind == "bundle"
    assert manifest.certificate.embedding_mean_cosine >= INT8_SMALL_MIN_COSINE
    weights = "onnx/model{}.onnx_data"
    assert manifest.files[weights.format("_int8")].size < bundle.manifest.files[weights.format("")].size / 3.5
    assert (int8.folder / "modules.json").exists()


def test_it_embeds_like_its_float32_twin(int8, small):
    texts = ["hello", "跟我讲讲嵌入", "a longer text about bridges and rivers " * 9]
    cosine = (Embedder(int8, threads=2).encode_query(texts) * small.encode_query(texts)).sum(axis=1)
    assert (cosine >= INT8_SMALL_MIN_COSINE).all()


def test_its_bytes_are_stable(int8):
    report = check_stability(int8)
    assert report.passed, report


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=200), min_size=1, max_size=9),
    order=st.randoms(use_true_random=False),
    batch_size=st.integers(1, 6),
)
def test_company_order_and_batch_size_do_not_matter(int8_model, texts, order, batch_size):
    model = int8_model
    alone = np.stack([model.encode_query(text) for text in texts])
    positions = list(range(len(texts)))
    order.shuffle(positions)
    shuffled = model.encode_query([texts[i] for i in positions], batch_size=batch_size)
    assert shuffled.tobytes() == alone[positions].tobytes()


def test_a_cpu_without_vnni_gives_the_same_bytes(int8, monkeypatch):
    """ONNX Runtime's way for such CPUs, taken here on purpose; tests/test_emulation.py takes it on such a CPU."""
    from moembed import session

    texts = ["hello", "骆驼很酷", "word " * 300]
    expected = Embedder(int8).encode_query(texts)
    monkeypatch.setattr(session, "saturates", lambda: True)
    assert Embedder(int8).encode_query(texts).tobytes() == expected.tobytes()


def test_quantising_twice_gives_the_same_bytes(int8, bundle, tmp_path):
    assert quantize(bundle, tmp_path / "again").manifest == int8.manifest


def test_calibration_texts_change_the_factors(int8, bundle, tmp_path):
    other = quantize(bundle, tmp_path / "other", calibration=["only this"])
    assert other.manifest.files["onnx/model_int8.onnx_data"] != int8.manifest.files["onnx/model_int8.onnx_data"]


def test_what_cannot_be_quantised(int8, bundle, tmp_path):
    with pytest.raises(InputError, match="only an fp32 bundle"):
        quantize(int8, tmp_path / "out")
    with pytest.raises(InputError, match="no recipe 'int3'; there are int8"):
        quantize(bundle, tmp_path / "out", recipe="int3")
    with pytest.raises(InputError, match="no calibration text"):
        quantize(bundle, tmp_path / "out", calibration=[])
    raw = small_config(n_layer=2, n_embd=30, n_head=3)
    odd = export(locate(write_checkpoint(tmp_path / "odd", raw)), tmp_path / "odd-bundle")
    with pytest.raises(InputError, match="multiples of 4 and 16"):
        quantize(odd, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_too_far_away_is_not_published(bundle, tmp_path, monkeypatch):
    strict = Tolerance(hidden_max_abs=None, embedding_min_cosine=0.99999999, router_max_abs=None, margin=None)
    monkeypatch.setitem(product_tolerances.TOLERANCES, "int8", strict)
    with pytest.raises(VerificationError, match="embedding cosine"):
        quantize(bundle, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_destination_is_safe(bundle, int8, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    with pytest.raises(OutputError, match="not a bundle"):
        quantize(bundle, tmp_path / "mine", force=True)
    copy = shutil.copytree(int8.folder, tmp_path / "copy")
    with pytest.raises(OutputError, match="--force"):
        quantize(bundle, copy)


def test_recipes_are_data():
    assert recipe_names() == ["int8", "int8-table4", "int8-wide"]
    assert load_recipe("int8").attention_smoothing == 1.0
    assert replace(load_recipe("int8-wide"), name="int8", keep=0.0) == load_recipe("int8")
    assert replace(load_recipe("int8-table4"), name="int8", table=8) == load_recipe("int8")


def test_a_table_in_4_bits(tmp_path, bundle):
    checkpoint = write_checkpoint(tmp_path / "of-64", small_config(n_embd=64))
    full = export(locate(checkpoint), tmp_path / "fp32")
    eight, four = (quantize(full, tmp_path / name, recipe=name) for name in ("int8", "int8-table4"))
    rows = small_config()["vocab_size"]
    assert eight.size - four.size == pytest.approx(rows * (64 + 4 - 32 - 4), abs=3000)
    assert four.manifest.recipe == "int8-table4"
    assert check_stability(four).passed
    assert main(["verify", str(four.folder), "--against", str(full.folder)]) == 0
    model = onnx.load(four.graph, load_external_data=False)
    functions = {function.name for function in model.functions}
    assert "Int4Embedding" in functions
    assert "Int8Embedding" not in functions
    with pytest.raises(InputError, match="blocks of 32 values, and its rows have 48; quantize by recipe int8"):
        quantize(bundle, tmp_path / "odd", recipe="int8-table4")
    assert not (tmp_path / "odd").exists()


def test_wide_keeps_the_most_sensitive_layers(bundle, int8, tmp_path, monkeypatch):
    seen = []

    def watched(*arguments):
        seen.append(measured(*arguments))
        return seen[-1]

    measured = sensitivity.sensitivities
    monkeypatch.setattr(sensitivity, "sensitivities", watched)
    wide = quantize(bundle, tmp_path / "wide", recipe="int8-wide")
    model = onnx.load(wide.graph, load_external_data=False)
    kept = {node.input[1] for node in model.graph.node if node.op_type == "Gemm"}
    (sizes,) = seen
    assert len(sizes) == sum(
        node.op_type == "Gemm" for node in onnx.load(bundle.graph, load_external_data=False).graph.node
    )
    assert min(sizes.values()) > 0, "a switch that does nothing"
    assert len(kept) == round(0.3 * len(sizes))
    assert min(sizes[name] for name in kept) >= max(size for name, size in sizes.items() if name not in kept)
    assert wide.manifest.certificate.embedding_mean_cosine > int8.manifest.certificate.embedding_mean_cosine
    assert check_stability(wide).passed


def test_rounding_makes_errors_cancel():
    rng = np.random.default_rng(0)
    inputs = _normal(rng, 400, 12) @ _normal(rng, 12, 64) + 0.1 * _normal(rng, 400, 64)
    other = _normal(rng, 400, 12) @ _normal(rng, 12, 64)
    matrix = _normal(rng, 32, 64)
    codes, scales = rounded(matrix, inputs, 0.01)
    plain, plain_scales = quantize_rows(matrix)
    assert np.array_equal(scales, plain_scales)
    assert np.abs(codes).max() <= 127

    def error(candidate, rows):
        return np.square(rows @ (matrix - candidate * scales[:, None]).T).mean()

    assert error(codes, inputs) < 0.5 * error(plain, inputs)
    assert error(codes, other) < 3 * error(plain, other), "what the inputs do not show does not run away"
    assert np.array_equal(rounded(matrix, inputs[:0], 0.01)[0], plain), "without inputs it is plain rounding"


def test_kept_layers_next_to_a_gelu(bundle, tmp_path):
    """Kept fc1 in front of a quantised fc2, and the other way round."""
    texts = [np.array(ids, np.int32) for ids in probe_ids(Tokenizer(bundle.folder / "tokenizer.json"), 512)[:6]]
    values, recipe = observed(bundle.graph, texts), load_recipe("int8")
    want = [observe_graph(bundle.graph)(ids.tolist()).embedding for ids in texts]
    for name in ("fc1", "fc2"):
        model = onnx_ir.load(bundle.graph)
        factors = factors_of(model, recipe, values)
        model = Rewriter(model, recipe, values, factors, [f"encoder.layers.0.mlp.{name}.weight"]).run()
        write_graph(model, tmp_path / name / "model.onnx", {})
        found = [observe_graph(tmp_path / name / "model.onnx")(ids.tolist()).embedding for ids in texts]
        assert min(float(a @ b) for a, b in zip(want, found, strict=True)) >= INT8_SMALL_MIN_COSINE


def test_the_command(bundle, checkpoint, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("one text\n\nanother text\n")
    out = tmp_path / "out"
    assert main(["quantize", str(bundle.folder), "-o", str(out), "--calibrate", str(tmp_path / "texts.txt")]) == 0
    printed, words = capsys.readouterr()
    assert printed == f"{out}\n"
    assert "watching the model read up to 2 texts" in words
    assert "cosine to fp32 0.99" in words
    assert main(["verify", str(out), "--against", str(checkpoint), "--texts", "3"]) == 0
    assert main(["quantize", str(bundle.folder), "-o", str(out)]) == 2
    assert main(["quantize", str(bundle.folder), "-o", str(tmp_path / "x"), "--calibrate", str(tmp_path)]) == 2
    assert Bundle.open(out).manifest.recipe == "int8"
