"""Templates in the package: those of a new trace, and what they hold."""

import json

import onnx
import pytest
from packaging.version import Version

from moembed.export import templates
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.spec import known_specs
from support.checkpoints import published_spec, small_config
from support.folders import DATA

FILES = sorted((file for file in templates.FOLDER.iterdir() if file.name.endswith(".onnx")), key=lambda file: file.name)


def test_every_known_model_has_a_template():
    assert [file.name for file in FILES] == [f"{spec.name}.onnx" for spec in known_specs()]
    content = next(file.read_bytes() for file in FILES if file.name == f"{published_spec().name}.onnx")
    assert templates.config_of(content) == NomicMoeConfig.from_file(DATA / "published_config.json")


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=() if file.name == f"{published_spec().name}.onnx" else pytest.mark.long, id=file.name)
        for file in FILES
    ],
)
def test_a_new_trace_gives_the_template(file):
    content = file.read_bytes()
    assert len(content) < 300_000
    old, new = (
        onnx.ModelProto.FromString(content),
        onnx.ModelProto.FromString(templates.serialized(templates.config_of(content))),
    )
    made_with = [
        json.loads(next(p.value for p in model.metadata_props if p.key == "moembed.made_with")) for model in (old, new)
    ]
    assert made_with[0].keys() == made_with[1].keys() == {"onnx-ir", "onnxscript", "torch"}
    ours, here = ({name: Version(version) for name, version in one.items()} for one in made_with)
    if ours["torch"].public != here["torch"].public or here["onnxscript"] < ours["onnxscript"]:
        pytest.skip(f"the template was made with {made_with[0]}, whose names and order of values are compared")
    for model in (old, new):
        del model.metadata_props[:]
    assert old == new, "run python -m moembed.export.templates"


def test_the_configuration_decides():
    published = json.loads((DATA / "published_config.json").read_text())
    found = templates.find_template(NomicMoeConfig.from_dict(published | {"torch_dtype": "bfloat16"}))
    assert found is not None
    assert not found.metadata_props
    for other in (published | {"moe_top_k": 1}, published | {"rotary_emb_base": 1000}, small_config()):
        assert templates.find_template(NomicMoeConfig.from_dict(other)) is None
