"""Templates: traced and finished graphs of known models without their weights, from which bundles are made without torch.

    python -m moembed.export.templates

writes those in `templates/` again, from the same `trace` and `finish` as `moembed export`. A graph depends on the network's
configuration alone, so a template serves every checkpoint of it. It holds the configuration and the versions that made it.
"""

import argparse
import json
from dataclasses import asdict
from functools import cache
from importlib import metadata, resources
from pathlib import Path

import onnx
import onnx_ir as ir

from moembed.errors import extra
from moembed.export.weights import WITHOUT_WEIGHTS, is_weight
from moembed.models.config import NetworkConfig
from moembed.models.families import family_named, family_of, read_config

FOLDER = resources.files("moembed.export") / "templates"
_FAMILY, _CONFIG, _MADE_WITH = "moembed.family", "moembed.config", "moembed.made_with"
_MAKERS = ("onnx-ir", "onnxscript", "torch")


def find_template(config: NetworkConfig) -> ir.Model | None:
    """Read the template of a network; None if there is none of this configuration."""
    for file in FOLDER.iterdir():
        if file.name.endswith(".onnx"):
            content = file.read_bytes()
            if _facts(config_of(content)) == _facts(config):
                model = ir.serde.deserialize_model(onnx.ModelProto.FromString(content))
                model.metadata_props.clear()
                return model
    return None


def config_of(template: bytes) -> NetworkConfig:
    """Return the configuration that a template was made for."""
    properties = {entry.key: entry.value for entry in onnx.ModelProto.FromString(template).metadata_props}
    return family_named(properties[_FAMILY]).config.from_fields(json.loads(properties[_CONFIG]))


def make_template(config: NetworkConfig) -> ir.Model:
    """Return a model like that of a template, traced in this process.

    Raises:
        MissingExtraError: torch or onnxscript is not installed.
    """
    return ir.serde.deserialize_model(onnx.ModelProto.FromString(_traced(config)))


@cache
def _traced(config: NetworkConfig) -> bytes:
    """Trace a network of a configuration, whose weights take no memory; its graph has the initializers without their content."""
    from moembed.export.graph import finish

    with extra("export", "Tracing a network"):
        import torch

        from moembed.export.trace import trace
    family = family_of(config)
    with torch.device("meta"):
        network = family.network(config)
    # One number of its own stands for all of a tensor's: the exporter merges equal tensors and drops biases of zeros.
    numbers = {
        one.name: torch.full([1] * len(one.shape), 1 + index / 1024).expand(one.shape)
        for index, one in enumerate(family.parameters(config))
    }
    network.load_state_dict(numbers, strict=True, assign=True)
    model = finish(trace(network.rebuild_rotary().eval().requires_grad_(False)), config)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if is_weight(value) and tensor is not None:
            value.const_value = ir.ExternalTensor(
                WITHOUT_WEIGHTS, None, None, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=str(value.name)
            )
    return _bytes(model)


def serialized(config: NetworkConfig) -> bytes:
    """Return the bytes of a new template."""
    model = make_template(config)
    versions = {name: metadata.version(name) for name in _MAKERS}
    facts = {_FAMILY: family_of(config).name, _CONFIG: json.dumps(asdict(config)), _MADE_WITH: json.dumps(versions)}
    model.metadata_props.update(facts)
    return _bytes(model)


def _bytes(model: ir.Model) -> bytes:
    content: bytes = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    return content


def _facts(config: NetworkConfig) -> dict[str, object]:
    """Return what the graph depends on."""
    fields = {name: value for name, value in asdict(config).items() if name not in config.not_in_graph}
    return fields | {"family": family_of(config).name}


def main() -> None:
    """Write templates from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", nargs=2, metavar=("NAME", "FOLDER"), help="also that of a checkpoint")
    arguments = parser.parse_args()
    folder = Path(str(FOLDER))
    configs = {path.stem: config_of(path.read_bytes()) for path in sorted(folder.glob("*.onnx"))}
    if arguments.add:
        configs[arguments.add[0]] = read_config(Path(arguments.add[1]))
    for name, config in configs.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(serialized(config))
        print(f"{path}: {path.stat().st_size} bytes")  # noqa: T201


if __name__ == "__main__":
    main()
