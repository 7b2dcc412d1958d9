"""Configs as transformers writes them: `python tests/support/transformers_configs.py >> tests/data/transformers_configs.jsonl`.

Run it in an environment with the release of transformers to record, and torch. The published model's class is remote code; like
it, the class here extends `GPT2Config` and has the published fields.
"""

import json
import tempfile
from pathlib import Path

from support.folders import DATA

PUBLISHED = json.loads((DATA / "published_config.json").read_text())


def main() -> None:
    """Write one line for each way to save a fine-tuned model."""
    import torch
    import transformers
    from transformers import AutoConfig, GPT2Config, PreTrainedModel

    class NomicBertConfig(GPT2Config):
        model_type = "nomic_bert"

    class NomicBertModel(PreTrainedModel):
        config_class = NomicBertConfig
        base_model_prefix = ""
        _supports_sdpa = True

        def __init__(self, config):
            super().__init__(config)
            self.emb_ln = torch.nn.LayerNorm(4)
            self.post_init()

        def _init_weights(self, module):
            pass

    def config(**changes):
        return NomicBertConfig.from_dict(PUBLISHED | changes)

    def saved(made, dtype=torch.float32):
        with tempfile.TemporaryDirectory() as folder:
            NomicBertModel._from_config(made).to(dtype).save_pretrained(folder)
            return json.loads((Path(folder) / "config.json").read_text())

    # As a program writes it that saves the config of a loaded model instead of the model.
    alone = NomicBertModel._from_config(config()).config
    cases = {
        "config alone": json.loads(alone.to_json_string()),
        "tuned": saved(config()),
        "tuned in bfloat16": saved(config(), torch.bfloat16),
        "tuned, five labels": saved(config(num_labels=5, problem_type="single_label_classification")),
        "every field": json.loads(alone.to_json_string(use_diff=False)),
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({k: v for k, v in PUBLISHED.items() if k != "auto_map"}))
        try:
            native = AutoConfig.from_pretrained(folder)
        except ValueError:  # older releases have no nomic_bert of its own
            native = None
    if native is not None:
        cases["the library's own nomic_bert"] = json.loads(native.to_json_string())
    for case, found in cases.items():
        print(json.dumps({"transformers": transformers.__version__, "case": case, "config": found}, sort_keys=True))


if __name__ == "__main__":
    main()
