"""The wheel, with nothing of the checkout in sight."""

import os
import subprocess
import sys
from pathlib import Path

from tests.commands import SMALL, process


def test_the_wheel_works_from_any_folder(photographs_folder, tmp_path):
    """Built, unpacked and run with nothing of the checkout in sight."""
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(Path(__file__).resolve().parents[1]),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], check=True,
        capture_output=True,
    )  # fmt: skip
    env = {"PYTHONPATH": str(site)}
    where = process(
        "predict",
        f"stack='{photographs_folder}'",
        "refine.steps=2",
        "align.mode=false",
        "threads=1",
        "output_dir=p",
        cwd=tmp_path,
        env=env,
    )
    assert (tmp_path / "p" / "depth_m.npy").is_file(), where.stdout
    assert (site / "sfdfd" / "weights" / "pretrained.ckpt").is_file()
    code = "import sfdfd.runs.command as r; print(r.CONF_DIR)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == site / "sfdfd" / "conf"
    process("train", "experiment=procedural", "trainer.max_steps=1", "output_dir=t", *SMALL, cwd=tmp_path, env=env)
    scripts = {path.name for path in (site / "bin").iterdir()}
    assert {"sfdfd-train", "sfdfd-evaluate", "sfdfd-predict", "sfdfd-diagnose", "sfdfd-export"} <= scripts
