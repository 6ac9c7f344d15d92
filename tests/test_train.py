"""Training as a user runs it, and its files."""

import csv
import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from sfdfd.optics.camera import Camera
from sfdfd.training.checkpoints import load_run
from tests.commands import SMALL, inside, one_line, process


def test_a_run_writes_all_its_files(trained):
    folder, done = trained
    for name in ("config.yaml", "run.json", "metrics.json", "metrics.csv", "csv/metrics.csv", "checkpoints/best.ckpt",
                 "checkpoints/last.ckpt", ".hydra/overrides.yaml"):  # fmt: skip
        assert (folder / name).is_file(), name
    assert list((folder / "pictures").glob("step_*.png")) and list((folder / "pictures").glob("network_*.png"))
    record = json.loads((folder / "run.json").read_text())
    assert record["versions"]["torch"] == torch.__version__ and record["git_sha"]
    assert "left" in done.stderr and "depth/abs_rel" in done.stdout and "classical" in done.stdout
    with (folder / "csv" / "metrics.csv").open() as file:
        columns = csv.DictReader(file).fieldnames
    assert {"train/reconstruction", "val/reconstruction", "health/depth_std", "truth/depth_abs_rel"} <= set(columns)


def test_metrics_are_flat_strict_json_with_protocol_and_baselines(trained):
    metrics = json.loads((trained[0] / "metrics.json").read_text(), parse_constant=pytest.fail)
    keys = ["abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "delta1", "delta2", "delta3"]
    for prefix in ("", "pooled/", "baselines/constant/", "baselines/classical/", "baselines/untrained/"):
        assert all(isinstance(metrics[f"{prefix}depth/{key}"], float) for key in keys), prefix
    assert all(isinstance(metrics[key], float) for key in ("aif/psnr", "aif/ssim", "stack/psnr", "stack/ssim"))
    assert metrics["samples"] == 2
    protocol = metrics["protocol"]
    assert protocol["camera"] == {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-05}
    assert protocol["focus_distances_m"] == [1.0, 1.5, 2.5, 4.0, 6.0] and protocol["resolution"] == [[32, 40]]
    assert protocol["synthesis_sigma_scale"] == protocol["model_sigma_scale"] == 0.5
    assert protocol["round_to_8_bits"] is True and protocol["depth_range_m"] == [0.5, 10.0] and protocol["mask"]


def test_checkpoints_hold_their_config_and_no_pickled_objects(trained):
    content = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["sfdfd_config"]["optics"]["renderer"]["sigma_scale"] == 0.5
    module = load_run(trained[0] / "checkpoints" / "last.ckpt")
    weights = torch.cat([p.flatten() for p in module.parameters()])
    assert bool(torch.isfinite(weights).all()) and not module.training


def test_a_run_continues_and_a_new_one_starts_from_weights(trained, tmp_path):
    last = trained[0] / "checkpoints" / "last.ckpt"
    common = ["experiment=procedural", "trainer.val_check_interval=2", *SMALL]
    inside("train", *common, "trainer.max_steps=8", f"resume='{last}'", "output_dir=on", cwd=tmp_path)
    assert torch.load(tmp_path / "on/checkpoints/last.ckpt", weights_only=True)["global_step"] == 8
    inside("train", *common, "trainer.max_steps=2", f"checkpoint='{last}'", "output_dir=new", cwd=tmp_path)
    assert torch.load(tmp_path / "new/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("broken", [
    {"config.yaml": b"a: ["}, {"config.yaml": b"\xff\xfe\xfd"}, {"config.yaml": b"[1]"}, {"config.yaml": b"a: ${b}"},
    {"config.yaml": b"a: 1", "metrics.json": b"{"}, {"config.yaml": b"a: 1", "metrics.json": b"[1]"},
])  # fmt: skip
def test_a_sweep_is_not_resumed_from_broken_records(broken, tmp_path):
    (tmp_path / "o" / "0").mkdir(parents=True)
    for name, content in broken.items():
        (tmp_path / "o" / "0" / name).write_bytes(content)
    done = inside("train", "-m", "seed=1", "experiment=procedural", "sweep.resume=o", cwd=tmp_path, expect=1)
    assert "config.yaml or metrics.json is broken" in done.stderr and "sweep.resume" in done.stderr
    assert json.loads((tmp_path / "o" / "0" / "error.json").read_text())["bug"] is None


@pytest.mark.slow
def test_compiled_networks_train(tmp_path):
    # a process of its own: the compiler cannot trace the shape checks that the tests add
    process("train", "experiment=procedural", "module.compile=true", "trainer.max_steps=2", "output_dir=r", *SMALL,
        cwd=tmp_path)  # fmt: skip
    assert load_run(tmp_path / "r" / "checkpoints" / "last.ckpt") is not None


def test_captured_stacks_train(photographs_folder, tmp_path):
    """Training on focal stacks alone, with nothing else there is to know."""
    small = [a for a in SMALL if not a.startswith("data.")]
    inside("train", "data=recorded", f"data.root='{photographs_folder}'", "trainer.max_steps=2", "output_dir=r",
        "logger=tensorboard", *small, cwd=tmp_path)  # fmt: skip
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["stack/psnr"] > 0 and "depth/abs_rel" not in metrics
    assert len(list((tmp_path / "r" / "pictures").glob("step_000002_*.png"))) == 1


def test_forced_colours_do_not_enable_live_bars(photographs_folder, tmp_path, monkeypatch):
    """A notebook's kernel sets FORCE_COLOR, and so do some CI systems: what is no terminal gets lines, not a live bar."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = inside("train", "experiment=procedural", "trainer.max_steps=2", "output_dir=r", *SMALL, cwd=tmp_path)
    assert "step 2/2" in done.stderr and "\x1b[2K" not in done.stderr
    done = inside("predict", f"stack='{photographs_folder}'", "refine.steps=2", "output_dir=p", cwd=tmp_path)
    assert "\x1b[2K" not in done.stderr


def test_a_multirun_ends_with_a_comparison_table(tmp_path):
    done = inside("train", "-m", "experiment=procedural", "optics.sigma_scale=0.5,1.0", "trainer.max_steps=1",
                  "output_dir=sweep", *SMALL, cwd=tmp_path)  # fmt: skip
    with (tmp_path / "sweep" / "comparison.csv").open() as file:
        assert [row["optics.sigma_scale"] for row in csv.DictReader(file)] == ["0.5", "1.0"]
    assert "2 runs" in done.stdout


@pytest.mark.slow
def test_each_job_of_a_multirun_is_its_own_wandb_run(tmp_path):
    done = process("train", "-m", "experiment=procedural", "optics.sigma_scale=0.5,1.0", "trainer.max_steps=1",
               "output_dir=sweep", "logger=[csv,wandb]", *SMALL, cwd=tmp_path)  # fmt: skip
    with (tmp_path / "sweep" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["optics.sigma_scale"] for row in rows] == ["0.5", "1.0"]
    assert all(float(row["depth/abs_rel"]) > 0 for row in rows) and "2 runs" in done.stdout
    runs = [list((tmp_path / "sweep" / str(job) / "wandb").glob("offline-run-*")) for job in range(2)]
    assert all(len(found) == 1 for found in runs) and len({found[0].name.rsplit("-", 1)[1] for found in runs}) == 2


@pytest.mark.slow
def test_data_sets_can_be_swept(rgbd_folder, tmp_path):
    inside("train", "-m", "experiment=procedural", "data=procedural,rgbd", f"data.root='{rgbd_folder}'",
        "trainer.max_steps=2", "network.width=8", "network.depth=2", "pictures=1", "module.augmentation.crop=32",
        "data.batch_size=2", "output_dir=sweep", cwd=tmp_path)  # fmt: skip
    with (tmp_path / "sweep" / "comparison.csv").open() as file:
        assert [row["data"] for row in csv.DictReader(file)] == ["procedural", "rgbd"]


def wandb_records(file):
    """The records of a .wandb file: LevelDB's log format, 32 KiB blocks of (checksum, length, type, payload)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = file.read_bytes(), 7, []
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or last part
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def test_wandb_offline_and_tensorboard_files_are_written(tmp_path):
    process("train", "experiment=procedural", "logger=[wandb,tensorboard]", "trainer.max_steps=2", "output_dir=r",
        *SMALL, cwd=tmp_path, env={"WANDB_API_KEY": "", "WANDB_MODE": None})  # fmt: skip
    (file,) = (tmp_path / "r" / "wandb").glob("offline-run-*/run-*.wandb")
    logged, config = set(), set()
    for record in wandb_records(file):
        logged |= {item.key or "/".join(item.nested_key) for item in record.history.item}
        config |= {update.key or "/".join(update.nested_key) for update in record.config.update}
    assert {"val/reconstruction", "test/depth/abs_rel"} <= logged, logged
    assert any("optics.sigma_scale" in key for key in config), config
    assert list((tmp_path / "r" / "tensorboard").glob("events.*"))


@pytest.mark.slow
def test_two_processes_train_an_epoch_into_one_run_folder(tmp_path):
    process("train", "experiment=procedural", "trainer=ddp_cpu", "trainer.max_steps=1", *SMALL, "data.test_length=3",
            cwd=tmp_path)  # fmt: skip
    folders = list((tmp_path / "outputs" / "train").iterdir())
    assert len(folders) == 1 and (folders[0] / "metrics.json").is_file()
    assert len(list(folders[0].rglob("last.ckpt"))) == 1
    shared = json.loads((folders[0] / "metrics.json").read_text())
    assert shared["samples"] == 3 and shared["protocol"]["processes"] == 2
    data = [one for one in SMALL if one.startswith("data.") and "train" not in one and "batch" not in one]
    inside("evaluate", f"checkpoint='{folders[0]}/checkpoints/best.ckpt'", "output_dir=e", *data, "data.test_length=3",
           "pictures=0", cwd=tmp_path)  # fmt: skip
    alone = json.loads((tmp_path / "e" / "metrics.json").read_text())
    for key in ("depth/abs_rel", "pooled/depth/rmse", "aif/ssim", "stack/psnr", "baselines/classical/depth/abs_rel"):
        assert shared[key] == pytest.approx(alone[key], rel=1e-5), key


@pytest.mark.slow
def test_trainers_can_be_swept(tmp_path):
    process("train", "-m", "experiment=procedural", "trainer=cpu,ddp_spawn_cpu", "trainer.max_steps=1",
        "output_dir=sweep", *SMALL, cwd=tmp_path)  # fmt: skip
    with (tmp_path / "sweep" / "comparison.csv").open() as file:
        assert [row["trainer"] for row in csv.DictReader(file)] == ["cpu", "ddp_spawn_cpu"]


@pytest.mark.slow
def test_one_failed_job_does_not_end_a_sweep(tmp_path):
    """It stands in the table with its error, and the sweep's command says so; resumed, only what is missing is run."""
    sweep = ["-m", "experiment=procedural", "module.warmup_steps=0,1", "trainer.max_steps=1", *SMALL]
    sweep[2:2] = ["optics.weighting=both,source"]
    done = inside("train", *sweep, "output_dir=sweep", cwd=tmp_path, expect=1)
    assert "job 0 failed: " in done.stderr and "optics.weighting" in done.stderr and "Traceback" not in done.stderr
    with (tmp_path / "sweep" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in rows] == [True, True, False, False]
    assert [row["optics.weighting"] for row in rows] == ["both", "both", "source", "source"]
    assert all(float(row["depth/abs_rel"]) > 0 for row in rows[2:])
    page = (tmp_path / "sweep" / "comparison.html").read_text()
    assert "optics.weighting" in page and "train/total" in page and "<img" in page
    assert (tmp_path / "sweep" / "0" / "error.json").is_file()
    shutil.rmtree(tmp_path / "sweep" / "3")
    kept = (tmp_path / "sweep" / "2" / "metrics.json").stat().st_mtime_ns
    done = inside("train", *sweep, "sweep.resume=sweep", cwd=tmp_path, expect=1)
    assert "2: done already" in done.stderr and (tmp_path / "sweep" / "2" / "metrics.json").stat().st_mtime_ns == kept
    assert (tmp_path / "sweep" / "3" / "metrics.json").is_file()


@pytest.mark.slow
def test_trainers_launched_as_scripts_can_be_swept(tmp_path):
    process("train", "-m", "experiment=procedural", "trainer=cpu,ddp_cpu", "trainer.max_steps=1", "output_dir=sweep", *SMALL,
        cwd=tmp_path)  # fmt: skip
    with (tmp_path / "sweep" / "comparison.csv").open() as file:
        assert [(row["trainer"], row["samples"]) for row in csv.DictReader(file)] == [("cpu", "2"), ("ddp_cpu", "2")]


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    common = ["experiment=procedural", "trainer.max_steps=3", "trainer.val_check_interval=3", *SMALL, "data.train_length=9",
              "data.val_length=3"]  # fmt: skip
    process("train", *common, "data.batch_size=4", "output_dir=one", cwd=tmp_path)
    process("train", *common, "data.batch_size=2", "trainer=ddp_spawn_cpu", "output_dir=two", cwd=tmp_path)
    one, two = (torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("one", "two"))
    for key, value in one["state_dict"].items():
        if key == "network.slice_head.1.bias":
            continue  # of logits of a softmax over slices: its gradient is rounding alone, of which AdamW makes whole steps
        torch.testing.assert_close(two["state_dict"][key], value, atol=2e-5, rtol=1e-3, msg=key)
    scores = [
        next(value for key, value in content["callbacks"].items() if key.startswith("ModelCheckpoint"))[
            "best_model_score"
        ]
        for content in (one, two)
    ]
    torch.testing.assert_close(scores[1], scores[0], atol=1e-5, rtol=1e-4)  # validation over two shards


def test_resume_last_continues_the_run_folder(tmp_path):
    common = ["experiment=procedural", "trainer.val_check_interval=2", "output_dir=r", "resume=last", *SMALL]
    done = inside("train", *common, "trainer.max_steps=2", cwd=tmp_path)
    assert "starts from the beginning (resume=last)" in done.stderr
    (tmp_path / "r" / "metrics.json").unlink()  # killed in the final test
    done = inside("train", *common, "trainer.max_steps=2", cwd=tmp_path)
    assert "last.ckpt, step 2" in done.stderr and (tmp_path / "r" / "metrics.json").is_file()
    done = inside("train", *common, "trainer.max_steps=3", cwd=tmp_path)
    assert torch.load(tmp_path / "r/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def csv_rows(folder):
    with (folder / "csv" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_that_continues_in_its_folder_keeps_its_curve(tmp_path):
    common = [
        "experiment=procedural",
        "trainer.val_check_interval=2",
        "trainer.log_every_n_steps=1",
        "output_dir=r",
        *SMALL,
    ]
    inside("train", *common, "trainer.max_steps=4", cwd=tmp_path)
    before = csv_rows(tmp_path / "r")
    inside("train", *common, "trainer.max_steps=6", "resume=r/checkpoints/last.ckpt", cwd=tmp_path)
    after = csv_rows(tmp_path / "r")
    steps = [row["step"] for row in after if row["train/total"]]
    assert steps == ["0", "1", "2", "3", "4", "5"]
    kept = [row["train/total"] for row in before if row["train/total"]]
    assert [row["train/total"] for row in after if row["train/total"]][:4] == kept
    assert len([row for row in after if row["test/depth/abs_rel"]]) == 1


def test_a_run_continued_elsewhere_keeps_its_best_checkpoint(trained, tmp_path):
    """A learning rate that ruins everything: the best stays that of the run before."""
    last, best = (trained[0] / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    inside(
        "train", "experiment=procedural", "trainer.val_check_interval=3", "trainer.max_steps=12", f"resume='{last}'",
        "output_dir=on", *SMALL, cwd=tmp_path,
    )  # fmt: skip
    content = torch.load(tmp_path / "on" / "checkpoints" / "last.ckpt", weights_only=True)
    state = next(value for key, value in content["callbacks"].items() if key.startswith("ModelCheckpoint"))
    earlier = next(
        value
        for key, value in torch.load(best, weights_only=True)["callbacks"].items()
        if key.startswith("ModelCheckpoint")
    )
    assert state["best_model_score"] <= earlier["best_model_score"]
    assert Path(state["best_model_path"]) == (tmp_path / "on" / "checkpoints" / "best.ckpt").resolve()
    assert json.loads((tmp_path / "on" / "metrics.json").read_text())["protocol"]["checkpoint"].startswith(
        str(tmp_path)
    )


def test_the_last_checkpoint_is_the_last_step_and_not_the_last_validated_one(tmp_path):
    inside("train", "experiment=procedural", "trainer.val_check_interval=4", "trainer.max_steps=6", "output_dir=r", *SMALL,
           cwd=tmp_path)  # fmt: skip
    assert torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch")  # wherever it was
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_by_a_signal_saves_its_step_and_can_continue(number, tmp_path):
    command = [sys.executable, "-u", "-m", "sfdfd.train", "experiment=procedural", "output_dir=r",
               "trainer.max_steps=100000", "trainer.val_check_interval=50000", *SMALL]  # fmt: skip
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores Ctrl-C
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as running:
        deadline = time.monotonic() + 120
        log = tmp_path / "r" / "csv" / "metrics.csv"
        while not (log.is_file() and log.stat().st_size > 500) and time.monotonic() < deadline:
            time.sleep(0.2)
        running.send_signal(number)
        err = running.stderr.read()
    assert running.returncode == 128 + number, err
    step = torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step > 0 and f"stopped by {number.name} after step {step}; continue with resume=" in err
    assert not (tmp_path / "r" / "metrics.json").exists()
    inside("train", "experiment=procedural", f"trainer.max_steps={step + 2}", "resume=r/checkpoints/last.ckpt",
           "output_dir=on", *SMALL, cwd=tmp_path)  # fmt: skip


@pytest.mark.slow
def test_the_models_camera_is_used_in_the_test_in_evaluate_and_after_loading(tmp_path):
    """A model that believes in twice the blur renders it wherever it is judged."""
    done = inside("train", "experiment=procedural", "optics.camera.f_number=4", "trainer.max_steps=2", "output_dir=r",
                  *SMALL, cwd=tmp_path)  # fmt: skip
    assert "f_number 8 in the data (the model's is 4)" in done.stderr
    tested = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert tested["protocol"]["optics"]["f_number"] == 4.0 and tested["protocol"]["camera"]["f_number"] == 8.0
    data = [one for one in SMALL if one.startswith("data.") and "train" not in one and "batch" not in one]
    best = tmp_path / "r" / "checkpoints" / "best.ckpt"
    inside("evaluate", "checkpoint=r/checkpoints/best.ckpt", "output_dir=e", "pictures=0", *data, cwd=tmp_path)
    evaluated = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert evaluated["stack/psnr"] == pytest.approx(tested["stack/psnr"], abs=1e-3)
    assert load_run(best).camera == Camera(0.05, 4.0, 1.2e-5)
    content = torch.load(best, weights_only=True)
    content["sfdfd_config"]["optics"]["camera"]["f_number"] = 8.0  # the same weights, the data's camera
    torch.save(content, tmp_path / "data.ckpt")
    inside("evaluate", "checkpoint=data.ckpt", "output_dir=d", "pictures=0", *data, cwd=tmp_path)
    assert json.loads((tmp_path / "d" / "metrics.json").read_text())["stack/psnr"] > evaluated["stack/psnr"] + 0.5


@pytest.mark.slow
def test_a_few_stacks_train_on_two_processes(tmp_path):
    """Two stacks are one for each process, a batch of two or not; and the steps of spawned processes are told."""
    done = process("train", "experiment=procedural", "trainer=ddp_spawn_cpu", "trainer.max_steps=2", "output_dir=r", *SMALL,
                   "data.train_length=2", cwd=tmp_path)  # fmt: skip
    assert "after 2 steps" in done.stdout
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["protocol"]["steps"] == 2
    assert torch.load(tmp_path / "r" / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 2


def test_a_fit_that_takes_no_step_is_an_error(tmp_path):
    done = inside("train", "experiment=procedural", "trainer.max_time=00:00:00:00", "output_dir=r", *SMALL, cwd=tmp_path,
                  expect=2)  # fmt: skip
    assert "took no step" in one_line(done.stderr) and not (tmp_path / "r" / "metrics.json").exists()


def test_time_alone_can_end_a_run(tmp_path):
    done = inside("train", "experiment=procedural", "trainer.max_steps=-1", "trainer.max_time=00:00:00:03",
                  "module.warmup_steps=0", "output_dir=r",
                  *SMALL, cwd=tmp_path)  # fmt: skip
    content = torch.load(tmp_path / "r" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] > 1 and f"after {content['global_step']} steps" in done.stdout
    rate = content["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate < 3e-4  # the cosine has come down with the time


def test_lightnings_checkpoint_callback_also_selects_the_best(tmp_path):
    inside(
        "train",
        "experiment=procedural",
        *SMALL,
        "trainer.max_steps=2",
        "callbacks.checkpoint._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        "callbacks.checkpoint.filename=its",
        "output_dir=r",
        cwd=tmp_path,
    )
    protocol = json.loads((tmp_path / "r" / "metrics.json").read_text())["protocol"]
    assert Path(protocol["checkpoint"]).name == "its.ckpt" and protocol["selection"] == "best val/reconstruction"


def test_a_run_without_loggers(tmp_path):
    inside("train", "experiment=procedural", "logger=none", "trainer.max_steps=1", "output_dir=r", *SMALL, cwd=tmp_path)
    assert (tmp_path / "r" / "metrics.json").is_file() and not (tmp_path / "r" / "csv").exists()
