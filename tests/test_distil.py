"""Distil: a teacher's answers, stacks made of them, weights that every command reads."""

import json

import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.training.checkpoints import load_run
from sfdfd.training.distillation import Distillation
from tests.commands import inside

SMALL = [
    "data=procedural", "data.height=48", "data.width=56", "data.train_length=2", "teacher.procedural=0", "memory=3",
    "teacher.refine.steps=1", "size=40", "crop=32", "batch_size=2", "network.width=4", "network.planes=8", "steps=2",
]  # fmt: skip


@pytest.mark.slow
def test_weights_are_distilled_kept_and_read(tmp_path):
    inside("distil", *SMALL, "output_dir=d", cwd=tmp_path)
    run = tmp_path / "d"
    answers = sorted((run / "answers").glob("*.pt"))
    assert len(answers) == 2
    network = load_run(run / "weights.ckpt").network
    assert network.planes == 8 and all(bool(p.isfinite().all()) for p in network.parameters())
    assert {v.dtype for v in torch.load(run / "weights.ckpt")["state_dict"].values()} == {torch.float16}
    before = [path.stat().st_mtime_ns for path in answers]
    inside("distil", *SMALL[:-1], "steps=3", "output_dir=d", cwd=tmp_path)  # goes on
    assert [path.stat().st_mtime_ns for path in answers] == before
    changed = load_run(run / "weights.ckpt").network
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), changed.parameters(), strict=True))
    inside("predict", "stack=example", "checkpoint=d/weights.ckpt", "refine.seconds=0", "output_dir=p", cwd=tmp_path)
    facts = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert facts["refinement"] is None and (tmp_path / "p" / "confidence.npy").is_file()


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_to_the_very_weights(tmp_path, monkeypatch):
    steps = [*SMALL[:-1], "steps=5", "save_every=2"]
    inside("distil", *steps, "output_dir=whole", cwd=tmp_path)
    step_of = Distillation.training_step

    def stopped(module, lesson, index):
        if index == 3:
            raise InputError("stopped")
        return step_of(module, lesson, index)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "training_step", stopped)
        inside("distil", *steps, "output_dir=parts", cwd=tmp_path, expect=2)
    inside("distil", *steps, "output_dir=parts", cwd=tmp_path)
    whole, parts = (torch.load(tmp_path / name / "weights.ckpt")["state_dict"] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
