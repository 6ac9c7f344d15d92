"""Odd overrides of every command."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sfdfd.runs.command import CONF_DIR
from tests.commands import SMALL

TINY = [*SMALL, "trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.limit_val_batches=1"]
DISTIL = [
    "data=procedural", "data.height=48", "data.width=56", "data.train_length=1", "teacher.procedural=0", "fresh=1",
    "teacher.refine.steps=1", "size=40", "crop=32", "batch_size=1", "network.width=8", "network.planes=6", "steps=1",
    "threads=1",
]  # fmt: skip


VALUES = [
    "null", "''", "[]", "{}", "-1", "0", "0.5", "nan", "inf", "1e30", "x", "true", "'${nonsense}'", "long" * 800, "ä漢字",
    "'\u202e\U0001f4f7'", "'${oc.env:NONSENSE}'", "[[1],{a:b}]", "3", "-0.5", "'a b'",
]  # fmt: skip
BROKEN = [
    "=", "a", "a=", "+", "~", "~x", "=x", "a==b", "a=[", "a={", "a='", "a=b=c", "--nonsense", "-x", "a.b.c=1",
    "+a.b.c=1", "++a=1", "a=1,2", "a=range(1,3)", "@x=1", "a@b=c", "ä=1", "a=${", "a=$", "'a'=1", "a =1", "\u202e=1",
    "a.=1", ".a=1", "hydra=x", "hydra.run.dir=", "hydra.run.dir=null", "hydra.job.num=x", "hydra/launcher=nonsense",
    "hydra.sweep.dir=1", "experiment=''", "data=[a,b]", "optics=5", "+data=x", "~data", "seed=glob(*)", "+nonsense=1",
    "--cfg", "--config-name=x", "--config-dir=x", "output_dir=", "output_dir=null", "output_dir=[]", "output_dir=''",
    "--info", "a=" + "[" * 300,
]  # fmt: skip
BASES = {
    "train": (["experiment=procedural", *TINY], 120),
    "predict": (["stack=THINGS/stack", "refine.steps=0", "threads=1"], 95),
    "evaluate": ([*SMALL[:5], "pictures=0", "threads=1"], 90),
    "diagnose": (["stack=THINGS/stack"], 50),
    "distil": (DISTIL, 60),
    "export": (["checkpoint=THINGS/run/checkpoints/last.ckpt", "format=weights"], 40),
    "prepare": (["data=nyu", "data.root=set", "source=THINGS/stack"], 50),
    "refocus": (["prediction=THINGS/prediction", "focus_m=2"], 40),
    "dashboard": (["run=THINGS/stack"], 25),
    "compare": (["THINGS/sweep"], 10),
    "tune": (['train=["optics.nonsense=1"]', "trials=1"], 20),
}
"""Arguments that make a case small that turns out to be valid; how many cases."""
LEFT_OUT = {
    "train": {
        "trainer.num_nodes": "waits for machines that do not come, as it was told to",
    },
    "predict": {"refine.steps": "null leaves the ten seconds of refine.seconds", "watch": "writes where it is told to"},
    "distil": {"teacher.procedural": "true work of its own size"},
    "prepare": {"source": "null would download", "data": "a choice"},
    "dashboard": {"workspace": "asks W&B's server"},
    "tune": {"train": "an empty list is a whole training", "jobs": "processes at a time"},
}
"""Keys that are not varied, and why."""


def flat_keys(node, prefix=""):
    """Every key of a config, those of mappings too."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{key}.")


def keys_of(command, base):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose(
            command, overrides=["output_dir=unused", *(["experiment_name=x"] if command == "diagnose" else []), *base]
        )
    return [key for key in flat_keys(OmegaConf.to_container(config)) if key not in LEFT_OUT.get(command, {})]


def given_arguments(command, base, keys, random_):
    """Base arguments, and one or two odd ones."""
    if command == "compare":
        odd = ["", "nowhere", "-m", "--nonsense", "ä", "\u202e", ".", "/dev/null", "long" * 800, "x=1"]
        return [*(base if random_.random() < 0.5 else []), *random_.choices(odd, k=random_.choice([0, 1, 2]))]
    arguments = list(base)
    for _ in range(random_.choice([1, 1, 1, 2])):
        chance = random_.random()
        if chance < 0.84:
            arguments.append(f"{random_.choice(keys)}={random_.choice(VALUES)}")
        elif chance < 0.88:
            arguments.append(f"~{random_.choice(keys)}")
        elif chance < 0.92:
            arguments.append(f"+{random_.choice(keys)}.nonsense={random_.choice(VALUES)}")
        else:
            arguments.append(random_.choice(BROKEN))
    return arguments
