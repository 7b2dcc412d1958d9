"""The documents that the built-in model and MiniLM are compared on."""

import json

import minilm
import pytest
from common import texts_of_file


def test_documents_of_abstracts(tmp_path):
    lines = [json.dumps({"t": f"passage {i} of some words", "l": "en" if i % 2 else "de"}) for i in range(4000)]
    (tmp_path / "texts").write_text("\n".join(lines))
    texts = list(texts_of_file(tmp_path / "texts", language="en"))
    assert len(texts) == 2000
    assert len(list(texts_of_file(tmp_path / "texts"))) == 4000
    made = minilm.documents(texts, 20, 1340)
    assert 1100 < sum(map(len, made)) / len(made) < 1600
    assert min(map(len, made)) < 1000 < 1700 < max(map(len, made))
    with pytest.raises(ValueError, match="not for 100"):
        minilm.documents(texts, 100, 1340)
