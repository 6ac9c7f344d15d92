"""Odd input of every kind, to every command: it ends well, or with one line that says what is wrong; never with a traceback.

The cases are made anew in the same way every time; ``SFDFD_FUZZ=5`` makes five times as many, and ``SFDFD_FUZZ_LOG=FILE``
writes down what came of each. ``tests/fuzzing.py`` says what has to hold.
"""

import copy
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from types import SimpleNamespace

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import ExifTags, Image, TiffImagePlugin

from sfdfd.runs.command import CONF_DIR
from tests.commands import QUIET, SMALL
from tests.fuzzing import (
    LONGEST_S,
    MOST_GROWN_BYTES,
    ODD,
    Bench,
    mutate_file,
    mutated_bytes,
    mutated_tree,
    quoted,
    seeded,
)

pytestmark = pytest.mark.slow

SCALE = float(os.environ.get("SFDFD_FUZZ", "1"))
LEAST, LEAST_PROCESSES = 2000, 50
TINY = [*SMALL, "trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.limit_val_batches=1"]
DISTIL = [
    "data=procedural", "data.height=48", "data.width=56", "data.train_length=1", "teacher.procedural=0", "fresh=1",
    "teacher.refine.steps=1", "size=40", "crop=32", "batch_size=1", "network.width=8", "network.planes=6", "steps=1",
    "threads=1",
]  # fmt: skip


def cases(number):
    """So many examples, the same every time."""
    return settings(
        max_examples=max(1, round(number * SCALE)), derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("fuzz"))
    yield bench
    bench.worker.stop()


def settled(failures):
    assert not failures, f"{len(failures)} cases went wrong\n\n" + "\n\n".join(failures[:20])


def made(bench, command, *arguments, cwd):
    """What later cases begin from: a command that ends well."""
    done, _ = bench.worker.run(command, list(arguments), cwd)
    assert done.code == 0, f"{done.crash}\n{done.stderr}"


# ---------------------------------------------------------------- what cases begin from


def pixels(index=0, height=24, width=32, channels=3, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(index).integers(0, top, (height, width, channels), dtype=dtype)


STACK = {
    "camera": {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5},
    "focus_distances_m": [1, 2, 4],
    "near_m": 0.8,
    "far_m": 5,
}
MORE = {
    "files": ["0.png", "1.png", "2.png"], "crop": [0, 0, 4, 0], "focus_distances_std": [0.1, 0.1, 0.2],
    "focus_unit": "metre", "focus_distance_unit_m": 1, "frames": None, "truth": None,
    "optics": {"psf": "disc", "linear_light": True, "weighting": "occlusion", "sigma_scale": 0.5},
}  # fmt: skip


def write_slices(folder, described=None):
    """Three slices of noise, and what is said of them."""
    folder.mkdir(parents=True)
    for index in range(3):
        iio.imwrite(folder / f"{index}.png", pixels(index))
    if described is not None:
        (folder / "stack.yaml").write_text(yaml.safe_dump(described))
    return folder


@pytest.fixture(scope="module")
def things(bench):
    """A stack, a trained run, a multirun, and predictions, in one folder."""
    folder = bench.folder / "things"
    folder.mkdir()
    write_slices(folder / "stack", STACK)
    write_slices(folder / "many" / "one", STACK)
    made(
        bench, "train", "experiment=procedural", *TINY, "pictures=1", "logger=[csv,wandb]", "output_dir=run", cwd=folder
    )
    made(bench, "train", "-m", "seed=1", "experiment=procedural", *TINY, "output_dir=sweep", cwd=folder)
    made(bench, "predict", "stack=stack", "refine.steps=0", "threads=1", "output_dir=prediction", cwd=folder)
    made(bench, "predict", "stacks=many", "refine.steps=0", "threads=1", "output_dir=predictions", cwd=folder)
    return folder


# ---------------------------------------------------------------- 1: stack.yaml


ENDINGS = [":", " [", " {", " &a *a", " !!python/object:os.system x", " '", ' "', "\t"]
LINES = [
    "&a a: *a",
    "<<: *x",
    "? [1, 2]\n: x",
    "---",
    "...",
    "%YAML 9",
    "1: 2",
    "[]: 1",
    "null: x",
    "x: &x {y: &y [*y]}",
]
SCALARS = [
    "0x10", "1_0", "1:30", "2020-01-01", "2020-01-01 10:00:00", "2020-13-45", "!!binary aGk=", ".inf", "-.inf", "1e400",
    "!!set {1}", "~", "9" * 5000, f"0x{'9' * 5000}", "${near_m}", "${oc.env:HOME}", "&a [1, *a]", "[" * 3, "[" * 3000,
    "[" + ", ".join(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else '1'}]" for i in range(12)) + "]",
]  # fmt: skip
WHOLE = ["", "null", "[]", "5", "x", "- 1\n- 2", "{}", "!!str", "a: b: c", "\0", "\ufeffnear_m: 1"]


def broken_yaml(text, random_):
    """YAML that is changed as text."""
    lines = text.splitlines()
    what, line = random_.randrange(8), random_.randrange(len(lines))
    if what == 0:
        lines[line] += random_.choice(ENDINGS)
    elif what == 1:
        lines.insert(line, random_.choice(LINES))
    elif what <= 4:
        lines.append(f"{random_.choice(list(STACK))}: {random_.choice(SCALARS)}")  # the last of a key counts
    elif what == 5:
        return mutated_bytes(text.encode(), random_)
    elif what == 6:
        del lines[line]
    else:
        return random_.choice(WHOLE).encode()
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def test_stack_yaml(bench):
    failures = []

    @cases(420)
    @given(st.data())
    def one(data):
        folder, random_ = bench.case("stack"), seeded(data.draw, st)
        described = json.loads(json.dumps({**STACK, **{k: v for k, v in MORE.items() if random_.random() < 0.3}}))
        write_slices(folder / "s")
        if random_.random() < 0.65:
            described = mutated_tree(described, random_, times=random_.choice([1, 1, 2, 4]))
            if random_.random() < 0.3:
                described[random_.choice([*MORE, *STACK, "nonsense", "ä"])] = copy.deepcopy(random_.choice(ODD))
            content = yaml.safe_dump(described, allow_unicode=True).encode("utf-8", "surrogatepass")
        else:
            content = broken_yaml(yaml.safe_dump(described), random_)
        (folder / "s" / "stack.yaml").write_bytes(content)
        if random_.random() < 0.6:
            command, arguments = "diagnose", ["stack=s", "output_dir=o"]
        else:
            command, arguments = "predict", ["stack=s", "refine.steps=0", "threads=1", "output_dir=o"]
        bench.tried("stack", folder, command, arguments, failures)

    one()
    settled(failures)


# ---------------------------------------------------------------- 2: overrides


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


@pytest.mark.parametrize("command", BASES)
def test_overrides(bench, things, command):
    failures = []
    base, number = BASES[command]
    base = [argument.replace("THINGS", str(things)) for argument in base]
    keys = [] if command == "compare" else keys_of(command, base)

    @cases(number)
    @given(st.data())
    def one(data):
        folder = bench.case(f"overrides of {command}")
        arguments = given_arguments(command, base, keys, seeded(data.draw, st))
        bench.tried(f"overrides of {command}", folder, command, arguments, failures)

    one()
    settled(failures)


def test_broken_command_lines(bench):
    failures = []
    for broken in BROKEN:
        bench.tried(
            "broken command line", bench.case("broken command line"), "export", ["checkpoint=no", broken], failures
        )
    settled(failures)


# ---------------------------------------------------------------- 3: image files and EXIF


def exif_bytes(random_, odd):
    """EXIF of a photograph; odd values where ``odd``."""
    rational = TiffImagePlugin.IFDRational
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Nobody"
    ifd = exif.get_ifd(ExifTags.IFD.Exif)
    usual = {
        ExifTags.Base.FocalLength: rational(50, 1), ExifTags.Base.FNumber: rational(8, 1),
        ExifTags.Base.SubjectDistance: rational(3, 2), ExifTags.Base.FocalPlaneXResolution: rational(83333, 100),
        ExifTags.Base.FocalPlaneResolutionUnit: 3, ExifTags.Base.ExifImageWidth: 32,
        ExifTags.Base.DateTimeOriginal: "2024:01:01 10:00:00", ExifTags.Base.FocalLengthIn35mmFilm: 75,
        ExifTags.Base.SubsecTimeOriginal: "12", ExifTags.Base.MakerNote: b"Nikon\0\2\x10\0\0MM\0*\0\0\0\x08\0\0",
    }  # fmt: skip
    strange = [
        rational(0, 1),
        rational(1, 0),
        rational(0, 0),
        rational(2**32 - 1, 1),
        rational(1, 2**32 - 1),
        "x",
        "",
        b"\xff",
        0,
        65535,
    ]
    for tag, value in usual.items():
        if random_.random() < 0.8:
            ifd[tag] = random_.choice(strange) if odd and random_.random() < 0.4 else value
    if odd and random_.random() < 0.5:
        exif[ExifTags.Base.Orientation] = random_.choice([0, 3, 9, 255, "x", 65535])
    try:
        return exif.tobytes()
    except Exception:  # Pillow writes no such thing
        return b"Exif\0\0II*\0\x08\0\0\0\xff\xff"


def image_file(path, random_):
    """A slice as one of many encoders writes it, 24 x 32 unless it is odd."""
    kind = random_.randrange(16)
    exif = exif_bytes(random_, odd=random_.random() < 0.6)
    picture = Image.fromarray(pixels(random_.randrange(100)))
    if kind <= 3:
        picture.save(path.with_suffix(".jpg"), "JPEG", exif=exif, quality=80, progressive=kind == 0)
        return path.with_suffix(".jpg")
    if kind <= 5:
        picture.save(path.with_suffix(".png"), "PNG", exif=exif)
        return path.with_suffix(".png")
    if kind <= 7:
        compression = random_.choice([None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
        picture.save(path.with_suffix(".tif"), "TIFF", compression=compression)
        return path.with_suffix(".tif")
    if kind == 8:
        picture.save(path.with_suffix(".jpg"), "WEBP", exif=exif)  # of a suffix that is not its own
        return path.with_suffix(".jpg")
    path = path.with_suffix(random_.choice([".png", ".png", ".tif"]))
    if kind == 9:
        iio.imwrite(
            path,
            pixels(1, dtype=np.uint16)
            if path.suffix == ".tif"
            else pixels(1, channels=3)[..., 0].astype(np.uint16) * 256,
        )
    elif kind == 10:
        picture.convert(
            random_.choice(["L", "LA", "RGBA", "P", "1"] if path.suffix == ".png" else ["L", "RGBA", "P", "1"])
        ).save(path)
    elif kind == 11:
        frames = [Image.fromarray(pixels(i)) for i in range(3)]
        frames[0].save(path, random_.choice(["PNG", "GIF", "WEBP", "TIFF"]), save_all=True, append_images=frames[1:])
    elif kind == 12:
        Image.fromarray(pixels(0, *random_.choice([(1, 1), (1, 3000), (16, 16), (15, 32)]))).save(path)
    elif kind == 13:
        values = np.random.default_rng(0).random((24, 32, 3)).astype(random_.choice(["f4", "f8", "f2", "i4", "u4"]))
        values[0, 0] = random_.choice([0, 2, -1, np.nan]) if values.dtype.kind == "f" else 7
        path = path.with_suffix(".tif")
        iio.imwrite(path, values, extension=".tif")
    elif kind == 14:
        path.write_bytes(
            random_.choice([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"II*\0", b"GIF89a", b"x" * 500, bytes(24)])
        )
    else:
        path.mkdir()
    return path


def test_images(bench):
    failures = []

    @cases(300)
    @given(st.data())
    def one(data):
        folder, random_ = bench.case("image"), seeded(data.draw, st)
        stack = folder / "s"
        stack.mkdir()
        same = random_.random() < 0.5
        state = random_.getstate()
        for index in range(3):
            if same:
                random_.setstate(state)
            file = image_file(stack / f"{index}", random_)
            if file.is_file() and not same and random_.random() < 0.6:
                mutate_file(file, random_)
        if same and file.is_file() and random_.random() < 0.8:
            mutate_file(file, random_)
        if random_.random() < 0.5:
            (stack / "stack.yaml").write_text(yaml.safe_dump(STACK))
        name = random_.choice(["stack=s", "stack=s", "stacks=."])
        if name == "stack=s" and random_.random() < 0.6:
            command, arguments = "diagnose", [name, "output_dir=o"]
        else:
            command, arguments = "predict", [name, "refine.steps=0", "threads=1", "output_dir=o"]
        bench.tried("image", folder, command, arguments, failures)

    one()
    settled(failures)


# ---------------------------------------------------------------- 4: archives and published data


def write_pfm(path, values):
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1\n".encode() + values[::-1].astype("<f4").tobytes())


def nyu(folder):
    import h5py

    with h5py.File(folder / "labeled.mat", "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 6), dtype=np.uint8)
        file["depths"] = file["rawDepths"] = np.full((2, 8, 6), 2.0, np.float32)


def ddff12(folder):
    import h5py

    with h5py.File(folder / "my_ddff_trainVal.h5", "w") as file:
        for split in ("train", "val"):
            file[f"stack_{split}"] = np.random.default_rng(0).uniform(0, 255, (1, 3, 8, 12, 3)).astype(np.float32)
            file[f"disp_{split}"] = np.full((1, 8, 12), 0.1, np.float32)


def mobile_depth(folder):
    aligned, calibration = folder / "Aligned" / "Figure6" / "metals", folder / "calibration" / "metal"
    aligned.mkdir(parents=True)
    calibration.mkdir(parents=True)
    for index in range(3):
        iio.imwrite(aligned / f"a{index:02d}.jpg", pixels(index))
        iio.imwrite(aligned / f"{index:02d}.jpg", pixels(index))
    (calibration / "calibrated.txt").write_text("10.0 1.1\n20.0 1.1\n40000.0 1.1\n1200.5\n")


def middlebury(folder):
    scene = folder / "Motorcycle-perfect"
    scene.mkdir(parents=True)
    iio.imwrite(scene / "im0.png", pixels())
    write_pfm(scene / "disp0.pfm", np.random.default_rng(0).uniform(20, 200, (24, 32)))
    (scene / "calib.txt").write_text(
        "cam0=[3979.911 0 1244.772; 0 3979.911 1019.507; 0 0 1]\ncam1=[3979.911 0 1369.115; 0 3979.911 1019.507; 0 0 1]\n"
        "doffs=124.343\nbaseline=193.001\nwidth=2964\nheight=2000\n"
    )


def zedd(folder):
    motors = {1: ("6D3E", 0.82), 2: ("4EA8", 1.2), 5: ("2371", 3.0)}
    (folder / "metadata.txt").write_text(
        "# run\tmotor\tfocus\n" + "".join(f"run_{k}\t{m}\t{f}\n" for k, (m, f) in motors.items())
    )
    scene = folder / "val" / "val_0001"
    (scene / "focus_stack").mkdir(parents=True)
    (scene / "gt").mkdir()
    for run, (motor, _) in motors.items():
        for stop in ("2.8", "16.0"):
            iio.imwrite(scene / "focus_stack" / f"img_run_{run}_motor_{motor}_aperture_F{stop}.jpg", pixels(run))
    np.savetxt(scene / "gt" / "K.txt", np.array([[125.0, 0, 16], [0, 125.0, 12], [0, 0, 1]]))
    np.save(scene / "gt" / "depth.npy", np.full((24, 32), 2, np.float32))


def defocusnet(folder):
    import OpenEXR

    for number in (0, 1):
        for index in range(5):
            Image.fromarray(pixels(index)).save(folder / f"{number:06d}_{index:02d}All.tif")
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, dict.fromkeys("RGB", np.full((24, 32), 1, np.float16))) as file:
            file.write(str(folder / f"{number:06d}Dpt.exr"))


def lightfield(folder):
    scene = folder / "training" / "cotton"
    scene.mkdir(parents=True)
    for index in range(81):
        iio.imwrite(scene / f"input_Cam{index:03d}.png", pixels(index, 16, 16))
    (scene / "parameters.cfg").write_text(
        "[intrinsics]\nfocal_length_mm = 100.0\nsensor_size_mm = 5.0\nfstop = 100.0\n[extrinsics]\nbaseline_mm = 50.0\n"
        "focus_distance_m = 3.0\n[meta]\nscene = cotton\ncategory = training\ndisp_min = -1.0\ndisp_max = 1.0\n"
    )
    write_pfm(scene / "gt_disp_lowres.pfm", np.zeros((16, 16)))


PUBLISHED = (nyu, ddff12, mobile_depth, middlebury, zedd, defocusnet, lightfield)


def mutated_text(content, random_):
    """Numbers of a text file made odd."""
    words = content.decode("utf-8", "replace").split(" ")
    words[random_.randrange(len(words))] = random_.choice(
        ["nan", "inf", "-1", "0", "1e999", "", "x", "9" * 5000, "\0", "ä", "1,5"]
    )
    return " ".join(words).encode()


def archive_of(folder, path, random_):
    """A zip or tar file of a folder, with members that should not be there at times."""
    members = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    bad = [
        "../x",
        "/x",
        "a/../../x",
        "C:\\x",
        "..\\x",
        "",
        ".",
        "x" * 300,
        "ä\u202e",
        "a\nb",
        "con",
        "a/./b",
        "x\0y",
        "-x",
        "\udc80",
    ]
    for _ in range(random_.choice([0, 0, 1, 2])):
        members[random_.choice(bad)] = b"x"
    if random_.random() < 0.5:
        with zipfile.ZipFile(
            path.with_suffix(".zip"), "w", random_.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        ) as archive:
            for name, content in members.items():
                try:
                    archive.writestr(name, content)
                except (ValueError, IndexError):
                    continue
        return path.with_suffix(".zip")
    mode = random_.choice(["", "gz", "bz2", "xz"])
    path = path.with_name(f"{path.name}.tar{'.' * bool(mode)}{mode}")
    with tarfile.open(path, f"w:{mode}") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if random_.random() < 0.05:
                entry.type = random_.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"?"])
                entry.linkname = random_.choice(["/etc/passwd", "../../x", name])
            try:
                archive.addfile(entry, io.BytesIO(content))
            except (ValueError, IndexError):
                continue
    return path


def absurd_sizes(path, random_):
    """The sizes that the headers of an archive say, made huge."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".zip":
        place = content.rfind(b"PK\x01\x02")
        spot = place + random_.choice([16, 20, 24, 28, 42])
        content[spot : spot + 4] = random_.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0"])
    elif path.suffix == ".tar":
        content[124:136] = random_.choice(
            [b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", b"xxxxxxxxxxx\0"]
        )
        content[148:156] = b"        "
        content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    path.write_bytes(bytes(content))


@pytest.fixture(scope="module")
def published(bench):
    """Each data set as its authors write it, small."""
    pytest.importorskip("h5py")
    pytest.importorskip("OpenEXR")
    for write in PUBLISHED:
        folder = bench.folder / "published" / write.__name__
        folder.mkdir(parents=True)
        write(folder)
    return bench.folder / "published"


def test_archives_and_published_data(bench, published):
    failures = []

    @cases(330)
    @given(st.data())
    def one(data):
        folder, random_ = bench.case("archive"), seeded(data.draw, st)
        name = random_.choice(PUBLISHED).__name__
        shutil.copytree(published / name, folder / "src")
        files = sorted(file for file in (folder / "src").rglob("*") if file.is_file())
        told = [file for file in files if file.suffix in (".txt", ".cfg", ".pfm", ".npy", ".exr", ".mat", ".h5")]
        source, what = folder / "src", random_.randrange(10)
        if what < 6:
            file = random_.choice(told or files) if random_.random() < 0.75 else random_.choice(files)
            if file.suffix in (".txt", ".cfg") and random_.random() < 0.6:
                file.write_bytes(mutated_text(file.read_bytes(), random_))
            else:
                mutate_file(file, random_)
            if random_.random() < 0.1:
                random_.choice(files).unlink(missing_ok=True)
            if len(files) == 1 and random_.random() < 0.5:
                source = files[0]
        if what >= 5:
            source = archive_of(folder / "src", folder / "packed", random_)
            if random_.random() < 0.6:
                (absurd_sizes if random_.random() < 0.4 else mutate_file)(source, random_)
        arguments = [f"data={name}", "data.root=set", f"source={quoted(source)}"]
        bench.tried("archive", folder, "prepare", arguments, failures)

    one()
    settled(failures)


# ---------------------------------------------------------------- 5: checkpoints


def mutated_checkpoint(path, random_):
    """A checkpoint with bytes, config, tensors or keys changed."""
    what = random_.randrange(10)
    if what < 3:
        mutate_file(path, random_)
        return
    content = torch.load(path, weights_only=True)
    if what < 6:
        config = content["sfdfd_config"]
        room = random_.choice(["network", "optics", "loss", "data", None])
        if room is None or room not in config:
            mutated_tree(config, random_, times=random_.choice([1, 3]))
        else:
            mutated_tree(config[room], random_, times=random_.choice([1, 1, 3]))
            if random_.random() < 0.1:
                config[room] = random_.choice(ODD)
    elif what == 6:
        weights = content["state_dict"]
        key = random_.choice(list(weights))
        weights[key] = random_.choice([
            weights[key][..., :1], weights[key][None], torch.zeros(0), weights[key].long(), weights[key].to(torch.complex64),
            torch.full_like(weights[key], float("nan")), weights[key].to_sparse(), None, 3, weights[key].double(),
        ])  # fmt: skip
    elif what == 7:
        weights = content["state_dict"]
        if random_.random() < 0.5:
            weights.pop(random_.choice(list(weights)))
        else:
            weights[random_.choice(["x", "network.x", "", "ä"])] = torch.zeros(2)
    elif what == 8:
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


def test_checkpoints(bench, things):
    failures = []

    @cases(200)
    @given(st.data())
    def one(data):
        folder, random_ = bench.case("checkpoint"), seeded(data.draw, st)
        shutil.copy(things / "run" / "checkpoints" / "last.ckpt", folder / "c.ckpt")
        mutated_checkpoint(folder / "c.ckpt", random_)
        command, arguments = checkpoint_arguments(random_)
        arguments = [argument.replace("THINGS", str(things)) for argument in arguments]
        bench.tried("checkpoint", folder, command, arguments, failures)

    one()
    settled(failures)


# ---------------------------------------------------------------- 6: folders of runs and predictions


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


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(bench, things, kind):
    failures = []

    @cases(FOLDERS[kind][1])
    @given(st.data())
    def one(data):
        folder, random_ = bench.case(kind), seeded(data.draw, st)
        command, arguments = folder_case(kind, folder, things, random_)
        bench.tried(kind, folder, command, arguments, failures)

    one()
    settled(failures)


# ---------------------------------------------------------------- real processes


def as_process(command, arguments, cwd):
    started = time.monotonic()
    line = [sys.executable, "-m", f"sfdfd.{command}", *(argument.replace("\0", "") for argument in arguments)]
    try:
        done = subprocess.run(
            line,
            cwd=cwd,
            capture_output=True,
            env={**os.environ, **QUIET},
            timeout=LONGEST_S + 20,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return SimpleNamespace(code=None, stdout="", stderr="", crash="it hung", seconds=LONGEST_S + 20.0)
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    return SimpleNamespace(code=done.returncode, stdout=out, stderr=err, crash="", seconds=time.monotonic() - started)


def test_real_processes(bench, things, published):
    """Some of each kind, as a user starts them."""
    failures = []

    @cases(LEAST_PROCESSES)
    @given(st.data())
    def one(data):
        folder, random_ = bench.case("process"), seeded(data.draw, st)
        kind = bench.counts["process"] % 5
        if kind == 0:
            write_slices(folder / "s", mutated_tree(json.loads(json.dumps(STACK)), random_))
            command, arguments = "diagnose", ["stack=s", "output_dir=o"]
        elif kind == 1:
            command = random_.choice([name for name in BASES if name not in ("tune", "distil")])
            base = [argument.replace("THINGS", str(things)) for argument in BASES[command][0]]
            arguments = given_arguments(command, base, [] if command == "compare" else keys_of(command, base), random_)
        elif kind == 2:
            write_slices(folder / "s", STACK)
            mutate_file(folder / "s" / "1.png", random_)
            command, arguments = "predict", ["stack=s", "refine.steps=0", "threads=1", "output_dir=o"]
        elif kind == 3:
            shutil.copy(things / "run" / "checkpoints" / "last.ckpt", folder / "c.ckpt")
            mutated_checkpoint(folder / "c.ckpt", random_)
            command, arguments = "export", ["checkpoint=c.ckpt", "format=weights", "output_dir=o"]
        else:
            command, arguments = folder_case(random_.choice(["compare run", "refocus"]), folder, things, random_)
        bench.tried("process", folder, command, arguments, failures, as_process)

    one()
    settled(failures)


# ---------------------------------------------------------------- what was run


def test_so_many_were_run_and_memory_stayed(bench, request):
    counts = dict(bench.counts)
    lines = [
        f"{kind}: {number} in {bench.seconds[kind]:.0f} s, exit codes {bench.codes[kind]}"
        for kind, number in counts.items()
    ]
    print("\n".join(lines))
    if bench.first_peak is not None:
        grown = bench.peak - bench.first_peak
        print(f"peak memory grew by {grown / 2**20:.0f} MiB to {bench.peak / 2**20:.0f} MiB")
        assert grown < MOST_GROWN_BYTES
    here = [item for item in request.session.items if item.path == request.path]
    if len({item.originalname for item in here}) < 9:
        pytest.skip("not the whole file was run")
    processes = counts.pop("process")
    assert processes >= LEAST_PROCESSES * min(1, SCALE) and sum(counts.values()) >= LEAST * min(1, SCALE)
