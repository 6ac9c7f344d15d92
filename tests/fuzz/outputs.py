"""Changed copies of what commands leave: checkpoints, run folders, predictions."""

import json
import shutil

import numpy as np
import torch
import yaml

from tests.commands import SMALL
from tests.fuzz.command_lines import TINY
from tests.fuzz.mutations import ODD, mutate_file, mutated_tree, quoted


def mutated_checkpoint(path, random_):
    """A checkpoint with bytes, config, tensors or keys changed."""
    choice = random_.randrange(10)
    if choice < 3:
        mutate_file(path, random_)
        return
    content = torch.load(path, weights_only=True)
    if choice < 6:
        config = content["sfdfd_config"]
        section = random_.choice(["network", "optics", "loss", "data", None])
        if section is None or section not in config:
            mutated_tree(config, random_, times=random_.choice([1, 3]))
        else:
            mutated_tree(config[section], random_, times=random_.choice([1, 1, 3]))
            if random_.random() < 0.1:
                config[section] = random_.choice(ODD)
    elif choice == 6:
        weights = content["state_dict"]
        key = random_.choice(list(weights))
        weights[key] = random_.choice([
            weights[key][..., :1], weights[key][None], torch.zeros(0), weights[key].long(), weights[key].to(torch.complex64),
            torch.full_like(weights[key], float("nan")), weights[key].to_sparse(), None, 3, weights[key].double(),
        ])  # fmt: skip
    elif choice == 7:
        weights = content["state_dict"]
        if random_.random() < 0.5:
            weights.pop(random_.choice(list(weights)))
        else:
            weights[random_.choice(["x", "network.x", "", "ä"])] = torch.zeros(2)
    elif choice == 8:
        content.pop(random_.choice(list(content)))
    else:
        key = random_.choice(["loops", "global_step", "epoch", "optimizer_states", "lr_schedulers", "callbacks"])
        if isinstance(content.get(key), (dict, list)) and content[key] and random_.random() < 0.7:
            mutated_tree(content[key], random_, times=random_.choice([1, 5]))
        else:
            content[key] = random_.choice([*ODD, "long", 10**12])
    try:
        torch.save(content, path)
    except Exception:
        mutate_file(path, random_)


CONTINUED = ["experiment=procedural", *TINY, "trainer.max_steps=2", "output_dir=o"]


def checkpoint_arguments(random_):
    return random_.choice([
        ("evaluate", ["checkpoint=c.ckpt", *SMALL[:5], "pictures=0", "threads=1", "output_dir=o"]),
        ("export", ["checkpoint=c.ckpt", "format=weights", "output_dir=o"]),
        ("export", ["checkpoint=c.ckpt", "format=weights", "output_dir=o"]),
        ("predict", ["checkpoint=c.ckpt", "stack=THINGS/stack", "refine.steps=0", "threads=1", "output_dir=o"]),
        ("train", ["resume=c.ckpt", *CONTINUED]),
        ("train", ["resume=c.ckpt", *CONTINUED]),
        ("train", ["checkpoint=c.ckpt", *CONTINUED]),
    ])  # fmt: skip


def mutated_record(path, random_):
    """A file that a command left, changed as its format or as bytes."""
    if path.suffix in (".json", ".yaml") and random_.random() < 0.7:
        read, write = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
        content = read(path.read_text())
        content = (
            mutated_tree(content, random_, times=random_.choice([1, 1, 3]))
            if random_.random() < 0.9
            else random_.choice(ODD)
        )
        path.write_text(write(content), "utf-8", "surrogatepass")
    elif path.suffix == ".csv" and random_.random() < 0.7:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        line = random_.choice(lines)
        line[random_.randrange(len(line))] = random_.choice(
            ["", "x", "nan", "inf", "-1", "1e400", "ä", '"', "step", "\0"]
        )
        if random_.random() < 0.3:
            line.pop() if random_.random() < 0.5 else line.append("9")
        path.write_text("\n".join(",".join(line) for line in lines))
    elif path.suffix == ".npy" and random_.random() < 0.6:
        values = np.load(path)
        np.save(path, random_.choice([
            values[:5], values[None], values.astype(np.float64), values.astype(np.complex64), np.full_like(values, np.nan),
            np.zeros_like(values), -values, values.astype(int), np.array([[{}]]), np.array("x"), values * 1e30,
        ]), allow_pickle=True)  # fmt: skip
    elif random_.random() < 0.1:
        path.unlink()
        if random_.random() < 0.5:
            path.mkdir()
    else:
        mutate_file(path, random_)


FOLDERS = {
    "compare run": (["metrics.json", "csv/metrics.csv", ".hydra/overrides.yaml", "pictures/*.png"], 40),
    "compare sweep": (["0/metrics.json", "0/csv/metrics.csv", "0/.hydra/overrides.yaml", "multirun.yaml"], 30),
    "dashboard run": (["csv/metrics.csv", "metrics.csv", "pictures/*.png", "wandb/*/*.wandb", "wandb/*/*.wandb"], 40),
    "refocus": (["prediction.json", "prediction.json", "depth_m.npy", "aif.png"], 75),
    "predict stacks": (["index.json", "index.json", "one/prediction.json", "one/*.png"], 40),
    "train last": (["checkpoints/*.ckpt", "csv/metrics.csv", "csv/hparams.yaml", "wandb/*/*.wandb", "config.yaml"], 40),
    "sweep resume": (["0/config.yaml", "0/metrics.json", "multirun.yaml", "0/checkpoints/*.ckpt"], 35),
}
"""What is read of what was left, and how many cases."""


def folder_case(kind, folder, things, random_):
    """A changed copy of what a command left, and the command that reads it."""
    copied = {
        "refocus": "prediction",
        "predict stacks": "predictions",
        "compare sweep": "sweep",
        "sweep resume": "sweep",
    }
    shutil.copytree(things / copied.get(kind, "run"), folder / "o", symlinks=True)
    patterns, _ = FOLDERS[kind]
    for _ in range(random_.choice([1, 1, 2])):
        found = [file for file in sorted((folder / "o").glob(random_.choice(patterns))) if file.is_file()]
        if found and kind != "no log":
            mutated_record(random_.choice(found), random_)
    if kind == "dashboard run" and random_.random() < 0.5:
        shutil.rmtree(folder / "o" / "wandb")
    if kind == "train last" and random_.random() < 0.5:
        shutil.copy(things / "run" / "checkpoints" / "last.ckpt", folder / "o" / "checkpoints" / "other.ckpt")
        last = folder / "o" / "checkpoints" / "last.ckpt"
        if last.is_dir():
            last.rmdir()
        shutil.copy(things / "run" / "checkpoints" / "last.ckpt", last)
        mutated_checkpoint(last, random_)
    if kind == "sweep resume" and random_.random() < 0.5:
        (folder / "o" / "0" / "metrics.json").unlink(missing_ok=True)
    return {
        "compare run": ("compare", ["o"]),
        "compare sweep": ("compare", ["o"]),
        "dashboard run": ("dashboard", ["run=o", "output_dir=d"]),
        "refocus": ("refocus", ["prediction=o", "focus_m=2", "aperture=1", "output_dir=r"]),
        "predict stacks": (
            "predict",
            [f"stacks={quoted(things / 'many')}", "refine.steps=0", "threads=1", "output_dir=o"],
        ),
        "train last": ("train", ["resume=last", *CONTINUED, "logger=[csv,wandb]"]),
        "sweep resume": ("train", ["-m", "seed=1", "experiment=procedural", *TINY, "sweep.resume=o"]),
    }[kind]
