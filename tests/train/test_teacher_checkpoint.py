"""The teacher written as a checkpoint: the family's network computes what the teacher's own code does."""

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from moembed.models.checkpoint import load_network
from moembed.models.locate import locate
from moembed.models.oracle import Oracle
from moembed.train.convert.teacher import Teacher
from moembed.train.convert.teacher_checkpoint import write_teacher_checkpoint
from support.teachers import write_teacher
from support.tolerances import REFERENCE


def test_the_checkpoint_is_the_teacher(tmp_path):
    teacher = Teacher(write_teacher(tmp_path / "teacher.bin"))
    write_teacher_checkpoint(teacher, tmp_path / "checkpoint")
    checkpoint = locate(tmp_path / "checkpoint")
    assert (checkpoint.spec.max_tokens, checkpoint.spec.prompt_required) == (512, True)
    assert checkpoint.spec.prompts == {"query": "query: ", "passage": "passage: "}
    network, oracle = load_network(checkpoint.folder), Oracle(checkpoint.folder)
    for length in (2, 37, 512):
        ids = torch.randint(4, 40_000, (1, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            states = teacher.encode(ids)
            embedding, found = network(ids, torch.ones_like(ids))
        assert (found - states).abs().max() < REFERENCE.hidden_max_abs
        assert (embedding - F.normalize(states.mean(1), dim=-1)).abs().max() < REFERENCE.hidden_max_abs
        if length < 512:
            assert (
                np.abs(oracle.run(ids[0].tolist()).hidden_states[-1] - states[0].numpy()).max()
                < REFERENCE.hidden_max_abs
            )
    oracle.close()
