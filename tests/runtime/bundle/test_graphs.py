"""Graphs that do not match their manifest: a `BundleError` before anything runs."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.errors import BundleError
from moembed.export.vocabulary import VOCABULARY_FILE
from moembed.inference.kernels import VARIABLE, usable_kernels
from support.bundles import edit, open_error, relist

posix = pytest.mark.skipif(os.name != "posix", reason="files of POSIX")


def change_graph(folder, change):
    path = folder / "onnx/model_int8.onnx"
    model = onnx.load(path, load_external_data=False)
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    relist(folder, "onnx/model_int8.onnx")


def _no_output(graph):
    del graph.output[:]


def _other_output(graph):
    next(o for o in graph.output if o.name == "sentence_embedding").name = "vectors"
    for node in graph.node:
        node.output[:] = ["vectors" if name == "sentence_embedding" else name for name in node.output]


def _replaced_output(name, kind, shape, value=None):
    def change(graph):
        output = next(o for o in graph.output if o.name == name)
        output.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
        for node in graph.node:
            node.output[:] = [f"{name}.before" if found == name else found for found in node.output]
        array = numpy_helper.from_array(np.zeros(value, helper.tensor_dtype_to_np_dtype(kind)))
        graph.node.append(helper.make_node("Constant", [], [name], value=array))

    return change


def _third_input(graph):
    graph.input.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["batch", "sequence"]))


def _renamed_input(graph):
    graph.input[0].name = "ids"
    for node in graph.node:
        node.input[:] = ["ids" if name == "input_ids" else name for name in node.input]


def _small_input(graph):
    graph.input[0].type.tensor_type.elem_type = TensorProto.INT32


def _cut(name, rows):
    def change(graph):
        for tensor in graph.initializer:
            if tensor.name in (name, f"{name}.int8"):
                tensor.dims[0] = rows
                for entry in tensor.external_data:
                    if entry.key == "length":
                        entry.value = str(int(entry.value) // 51200 * rows)

    return change


def _vector_of_rows(graph):
    """As many rows as it likes, behind a shape that says nothing."""
    _replaced_output("sentence_embedding", TensorProto.FLOAT, ["batch", "width"], (7, 48))(graph)


def _reads(location):
    def change(graph):
        tensor = helper.make_tensor("more", TensorProto.FLOAT, [0], [])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "0")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        graph.initializer.append(tensor)

    return change


def _reads_in_a_branch(graph):
    inner = helper.make_graph([], "inner", [], [])
    _reads(".fifo")(inner)
    graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


GRAPHS = {
    "no output": (_no_output, "sentence_embedding"),
    "another output": (_other_output, "sentence_embedding"),
    "wider vectors": (_replaced_output("sentence_embedding", TensorProto.FLOAT, ["batch", 64], (1, 64)), "sentence_embedding"),
    "vectors of doubles": (_replaced_output("sentence_embedding", TensorProto.DOUBLE, ["batch", 48], (1, 48)), "double"),
    "vectors of three axes": (_replaced_output("sentence_embedding", TensorProto.FLOAT, [1, 1, 48], (1, 1, 48)), "1, 1, 48"),
    "a number as the vectors": (_replaced_output("sentence_embedding", TensorProto.FLOAT, [], ()), "sentence_embedding"),
    "another number of rows": (_vector_of_rows, "sentence_embedding"),
    "flat tokens": (_replaced_output("token_embeddings", TensorProto.FLOAT, ["tokens", 48], (1, 48)), "token_embeddings"),
    "a third input": (_third_input, "token_type_ids"),
    "a renamed input": (_renamed_input, "input_ids"),
    "ids of 32 bits": (_small_input, "int32"),
    "a table of half the rows": (_cut("embeddings.word_embeddings.weight", 25600), "of 25600 rows, the tokenizer 51200 pieces"),
    "half the positions": (_cut("cos", 256), "max_tokens = 512, but .* has 256 positions"),
    "a FIFO as data": (_reads(".fifo"), "external data '.fifo'"),
    "a FIFO as data of a branch": (_reads_in_a_branch, "external data '.fifo'"),
    "data outside": (_reads("../../../etc/passwd"), "external data"),
    "a listed file as data": (_reads("../config.json"), "external data|cannot load"),
}  # fmt: skip


@posix
@pytest.mark.parametrize("case", GRAPHS)
def test_a_graph_that_is_not_the_manifests(copy, case):
    change, said = GRAPHS[case]
    os.mkfifo(copy / "onnx" / ".fifo")
    change_graph(copy, change)
    with pytest.raises(BundleError, match=said):
        Embedder.from_pretrained(copy, threads=1).encode(["a", "b"], prompt="")
    open_error(copy)


def _last_norm(**values):
    """Fill the last layer's norm: the graph stays what the manifest says."""

    def change(graph):
        for part, value in values.items():
            (tensor,) = [one for one in graph.initializer if one.name == f"encoder.layers.3.norm2.{part}"]
            filled = np.full(tuple(tensor.dims), value, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(filled, tensor.name))

    return change


@pytest.mark.parametrize("kernels", usable_kernels())
@pytest.mark.parametrize(
    ("values", "length"),
    [({"weight": 0, "bias": 0}, "0"), ({"bias": np.nan}, "nan"), ({"bias": np.inf}, "inf")],
    ids=str,
)
def test_what_is_no_vector_of_a_text_is_an_error(copy, values, length, kernels, monkeypatch):
    """M23, M34: zeros, and what is not finite, such as other runtimes gave for rows with many pads."""
    monkeypatch.setenv(VARIABLE, kernels)
    change_graph(copy, _last_norm(**values))
    embedder = Embedder.from_pretrained(copy, threads=1)
    with pytest.raises(BundleError, match=f"row 0 of the batch has a vector of length {length}, expected 1"):
        embedder.encode(["a", "b"], prompt="")
    if length != "0":
        with pytest.raises(BundleError, match="row 0 of the batch has states that are not finite"):
            embedder.token_embeddings("a", prompt="")
    assert embedder.encode([], prompt="").shape == (0, 48)


def test_the_table_is_compared_with_tokenizer_json_where_there_is_no_vocabulary(copy):
    (copy / VOCABULARY_FILE).unlink()
    edit(copy, lambda raw: raw["files"].pop(VOCABULARY_FILE))
    assert Embedder.from_pretrained(copy).encode("x", prompt="").shape == (48,)
    change_graph(copy, _cut("embeddings.word_embeddings.weight", 25600))
    assert "25600 rows, the tokenizer 51200 pieces" in open_error(copy)


def test_what_was_checked_is_checked_again_when_the_manifest_says_something_else(copy):
    Bundle.open(copy)
    edit(copy, lambda raw: raw.update(max_tokens=513))
    for _ in range(2):
        with pytest.raises(BundleError, match="max_tokens = 513"):
            Bundle.open(copy)


def test_a_name_that_is_not_utf8_stays_out_of_stdout(copy, capfd):
    path = copy / "onnx/model_int8.onnx"
    path.write_bytes(path.read_bytes().replace(b"Int8Linear", b"Int8Line\xff\xfe"))
    relist(copy, "onnx/model_int8.onnx")
    open_error(copy)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
