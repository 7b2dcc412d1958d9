"""Protobuf's wire format: any bytes are parsed or refused, and encoded fields are read back."""

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moembed.bundle.protobuf import encoded, fields, numbers, strings, submessages
from moembed.errors import BundleError
from moembed.pull.opening import DEFAULT_FOLDER

GRAPH = (DEFAULT_FOLDER / "onnx" / "model_int8.onnx").read_bytes()


@pytest.mark.parametrize(
    ("read", "message", "words"),
    [
        (fields, b"\x3a", "an invalid number at byte 1"),
        (fields, b"\x3a\x05a", "ends inside a field of 5 bytes"),
        (fields, b"\x3b", "field of wire type 3"),
        (fields, b"\xff" * 40, "an invalid number at byte 0"),
        (fields, GRAPH[: len(GRAPH) // 2], "ends inside a field"),
        (lambda message: submessages(message, 7), b"\x38\x01", "field 7 is a number"),
        (lambda message: strings(message, 4), encoded(4, b"\xff"), "not UTF-8"),
    ],
)
def test_damaged_messages_are_refused(read, message, words):
    with pytest.raises(BundleError) as caught:
        list(read(memoryview(message)))
    assert words in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.tuples(st.integers(0, len(GRAPH) - 400), st.integers(1, 400)).map(lambda s: GRAPH[s[0] :][: s[1]])
)
def test_any_bytes_are_a_message_or_refused(data):
    message = memoryview(data)
    for read in (fields, lambda m: submessages(m, 1), lambda m: strings(m, 1), lambda m: numbers(m, 1)):
        try:
            found = list(read(message))
        except BundleError:
            continue
        assert len(found) <= len(data)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**28), st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_reads_what_it_writes_and_what_protobuf_writes(number, value, integer):
    assert [(n, bytes(v)) for n, v in fields(memoryview(encoded(number, value)))] == [(number, value)]
    tensor = onnx.TensorProto(name="a", dims=[integer >> 1, 3])
    assert list(numbers(memoryview(tensor.SerializeToString()), 1)) == [integer >> 1, 3]
    packed = encoded(1, b"\x80\x01\x05")
    assert list(numbers(memoryview(packed), 1)) == [128, 5]
    assert strings(memoryview(tensor.SerializeToString()), 8) == ["a"]
