"""Distil: a teacher's predictions, samples made of them, weights that every command reads."""

import json

import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.io.images import write_image
from sfdfd.scenes.example_stack import example_stack
from sfdfd.training.checkpoints import CONFIG_KEY, load_run
from sfdfd.training.distillation import Distillation
from tests.commands import inside, one_line

SMALL = [
    "data=procedural", "data.height=48", "data.width=56", "data.train_length=2", "teacher.procedural=0", "memory=3",
    "teacher.refine.steps=1", "size=40", "crop=32", "batch_size=2", "network.width=4", "network.planes=8", "steps=2",
]  # fmt: skip


@pytest.mark.slow
def test_distilled_weights_are_saved_and_loaded_and_predictions_are_kept(tmp_path):
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
def test_a_continued_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch):
    steps = [*SMALL[:-1], "steps=5", "save_every=2"]
    inside("distil", *steps, "output_dir=whole", cwd=tmp_path)
    step_of = Distillation.training_step

    def stopped(module, sample, index):
        if index == 3:
            raise InputError("stopped")
        return step_of(module, sample, index)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "training_step", stopped)
        inside("distil", *steps, "output_dir=parts", cwd=tmp_path, expect=2)
    inside("distil", *steps, "output_dir=parts", cwd=tmp_path)
    whole, parts = (torch.load(tmp_path / name / "weights.ckpt")["state_dict"] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.fixture
def distil_without_work(tmp_path, monkeypatch):
    """Call distil with a teacher that only creates its files and a training that only saves its plan; returns the names of
    the stacks that the teacher was given, the files that the training was given, and the ended command."""
    stacks, given = [], []

    def predict_task(config_yaml, folder, task):
        stacks.append(task.name.split("-")[0])
        (folder / f"{task.name}.pt").touch()

    def train_network(network, optimizer, files, settings, run_config, output_dir):
        given.append([file.name for file in files])
        torch.save({"state_dict": {}, CONFIG_KEY: {"distil": run_config["distil"]}}, output_dir / "last.ckpt")
        return output_dir / "weights.ckpt"

    monkeypatch.setattr("sfdfd.distil.predict_task", predict_task)
    monkeypatch.setattr("sfdfd.training.distil.train_network", train_network)

    def call(*overrides, expect=0):
        stacks.clear()
        small = SMALL if "data=stacks" not in overrides else [one for one in SMALL if not one.startswith("data")]
        done = inside("distil", *small, "teacher.procedural=1", *overrides, "output_dir=d", cwd=tmp_path, expect=expect)
        return list(stacks), given[-1], done

    return call


ALL = ["stack00000", "stack00001", "procedural00000"]


@pytest.mark.parametrize("override", [
    "teacher.refine.steps=2", "optics.sigma_scale=0.7", "network.planes=16", "data.seed=5", "data.width=64",
])  # fmt: skip
def test_predictions_of_another_configuration_are_not_used(distil_without_work, override, tmp_path):
    """They are kept, and a training on them does not continue with others."""
    stacks, files, _ = distil_without_work()
    assert stacks == ALL and distil_without_work("data.batch_size=3", "steps=5", "threads=1")[:2] == ([], files)
    record = (tmp_path / "d" / "run.json").read_text()
    _, _, done = distil_without_work(override, expect=2)
    assert "give the same, or another output_dir" in one_line(done.stderr)
    assert (tmp_path / "d" / "run.json").read_text() == record
    (tmp_path / "d" / "last.ckpt").unlink()
    stacks, others, _ = distil_without_work(override)
    of_photographs = ["procedural00000"] if override.startswith(("optics", "data")) else []
    assert stacks == [name for name in ALL if name not in of_photographs] and set(others) - set(files)
    (tmp_path / "d" / "last.ckpt").unlink()
    assert distil_without_work()[:2] == ([], files)


def test_a_training_continues_only_with_its_own_configuration(distil_without_work, tmp_path):
    distil_without_work()
    for override, key in (
        ("optimizer.lr=0.5", "optimizer"),
        ("weights.aif=3", "weights"),
        ("crop=24", "crop=32, not 24"),
    ):
        assert key in one_line(distil_without_work(override, expect=2)[2].stderr)
    assert distil_without_work("steps=9", "save_every=3", "workers=1")[0] == []
    (tmp_path / "d" / "last.ckpt").unlink()
    assert distil_without_work("optimizer.lr=0.5")[0] == []  # the predictions serve any training


def test_a_corrected_stack_is_predicted_again(distil_without_work, tmp_path):
    for index in range(2):
        stack = example_stack(index, 48, 64)
        folder = tmp_path / "in" / f"s{index}"
        folder.mkdir(parents=True)
        for number, image in enumerate(stack.images[0]):
            write_image(folder / f"{number}.png", image)
        camera = {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5}
        description = {"camera": camera, "focus_distances_m": stack.focus_distances_m[0].tolist()}
        (folder / "stack.yaml").write_text(json.dumps(description))
    data = ("data=stacks", "data.root=in")
    assert distil_without_work(*data)[0] == ALL
    (tmp_path / "d" / "last.ckpt").unlink()
    described = tmp_path / "in" / "s1" / "stack.yaml"
    described.write_text(described.read_text().replace("8.0", "2.0"))
    assert distil_without_work(*data)[0] == ["stack00001"]


@pytest.mark.slow
def test_a_bank_replaces_the_teacher_and_new_layers_alone_are_trained(tmp_path, assets_folder):
    bank = ["data=assets", f"data.assets={assets_folder}", "data.root=bank", "data.height=48", "data.width=64"]
    lengths = ["data.train_length=2", "data.val_length=0", "data.test_length=0"]
    inside("prepare", *bank, *lengths, cwd=tmp_path)
    small = ["size=40", "crop=32", "batch_size=2", "memory=3", "steps=2", "network.learned_blend=true"]
    of_bank = ["bank=bank", "teacher.stacks=0", "teacher.procedural=0", *small]
    inside("distil", *of_bank, "checkpoint=pretrained", "layers=new", "output_dir=d", cwd=tmp_path)
    before, after = (
        load_run("pretrained").network.state_dict(),
        load_run(tmp_path / "d/weights.ckpt").network.state_dict(),
    )
    assert all(torch.equal(after[name], value) for name, value in before.items())
    new = [name for name in after if name not in before]
    assert any(bool(after[name].any()) for name in new if name.startswith("blend.last"))
    for overrides, message in (
        (["checkpoint=null", "layers=new", "network.learned_blend=false"], "network.learned_blend=true"),
        (["checkpoint=pretrained", "network.width=8"], "another network"),
        (["bank=none"], "prepare data=assets"),
        (["bank=null"], "expected scenes"),
        (["micro_batch_size=3"], "divisor of batch_size=2"),
        (["fresh=0"], "a bank makes new stacks"),
    ):
        done = inside("distil", *of_bank, *overrides, "output_dir=e", cwd=tmp_path, expect=2)
        assert message in one_line(done.stderr)
