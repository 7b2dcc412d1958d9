"""The teacher's file, against torch's own encoder and a second implementation of the blocks."""

import numpy as np
import pytest
import torch

from moembed.errors import CheckpointError, MissingExtraError
from moembed.train.convert import teacher as teachers
from moembed.train.convert.teacher import Teacher, dequantize
from support.teachers import FFN, HEADS, HIDDEN, pieces, write_teacher


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.bin")


@pytest.fixture(scope="module")
def teacher(path):
    return Teacher(path)


def test_low_nibbles_come_first(teacher):
    block = teacher._blocks("emb.word")[7]
    expected = [((byte & 15) - 8) * float(block["scale"]) for byte in block["quantized"].tolist()]
    expected += [((byte >> 4) - 8) * float(block["scale"]) for byte in block["quantized"].tolist()]
    assert dequantize(block).tolist() == pytest.approx(expected)


def test_rows_of_the_table_are_found_by_id(teacher):
    table = dequantize(teacher._blocks("emb.word")).reshape(-1, HIDDEN)
    ids = torch.tensor([[3, len(table) - 1], [0, 12]])
    np.testing.assert_array_equal(teacher.words(ids).numpy(), table[ids.numpy()])


def test_the_vocabulary_is_read_with_its_scores(teacher):
    assert [piece for piece, _ in teacher.pieces] == [piece for piece, _ in pieces()]
    assert [score for _, score in teacher.pieces] == pytest.approx([score for _, score in pieces()])


def test_a_layer_matches_torch(teacher):
    own = teacher.layers[1]
    layer = torch.nn.TransformerEncoderLayer(
        HIDDEN, HEADS, FFN, dropout=0.0, activation="gelu", layer_norm_eps=teacher.eps, batch_first=True
    )
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([own.q_weight, own.k_weight, own.v_weight]),
            "self_attn.in_proj_bias": torch.cat([own.q_bias, own.k_bias, own.v_bias]),
            "self_attn.out_proj.weight": own.out_weight,
            "self_attn.out_proj.bias": own.out_bias,
            "linear1.weight": own.up_weight,
            "linear1.bias": own.up_bias,
            "linear2.weight": own.down_weight,
            "linear2.bias": own.down_bias,
            "norm1.weight": own.norm1_weight,
            "norm1.bias": own.norm1_bias,
            "norm2.weight": own.norm2_weight,
            "norm2.bias": own.norm2_bias,
        }
    )
    x = teacher.embed(torch.tensor([[0, 100, 2000, 30, 2], [0, 5, 6, 7, 2]]))
    with torch.no_grad():
        torch.testing.assert_close(teacher.run_layer(1, x).out, layer(x), rtol=1e-4, atol=1e-5)


def test_positions_matter(teacher):
    states = teacher.encode(torch.tensor([[0, 9, 9, 9, 2]]))
    assert not torch.allclose(states[0, 1], states[0, 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"GGUF" + data[4:], "starts with b'GGUF'"),
        (lambda data: data[:3000], "damaged"),
        (lambda data: data[:40] + b"\x10" + data[41:], "damaged"),
        (lambda data: data[:-100], "damaged"),
        (lambda data: b"", "cannot read"),
    ],
)
def test_other_files_are_refused(path, tmp_path, damage, message):
    other = tmp_path / "other.bin"
    other.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        Teacher(other)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.bin"):
        Teacher(tmp_path / "nowhere.bin")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(teachers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"moembed\[train\]"):
        teachers.teacher_path()
