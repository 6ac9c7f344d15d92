"""What photographs cost, in the forms in which people have them: ``python benchmarks/photographs.py [--only NAME ...]``.

The stacks of ``$SFDFD_REAL_DATA/stacks`` are written anew in other forms (HEIC, DNG, video, TIFF, distances in dioptres) by
the encoders of the tests, and a long one is made: 50 JPEG of 12 megapixels of a procedural scene, handheld (each moved and
scaled a little). ``python -m sfdfd.predict`` answers each in a process of its own, as it comes (but ``outputs=all``), then
``python -m sfdfd.refocus`` makes one picture of the long one. Seconds and peak memory of those processes go to
``results/photographs.json``, and the table to standard output. Files lie in --folder and stay there: look at them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import imageio.v3 as iio
import numpy as np
import torch
from PIL import Image

from sfdfd.io.files import write_json
from sfdfd.optics import Camera, DefocusRenderer
from sfdfd.scenes.procedural import make_scene

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.io.formats.encoders import exif_with, linear, write_dng, write_heic, write_video  # noqa: E402

CHILD = """
import atexit, runpy, sys
from pathlib import Path
from sfdfd.training.device import peak_memory_gib
told, sys.argv = Path(sys.argv[1]), sys.argv[2:]
atexit.register(lambda: told.write_text(str(peak_memory_gib())))
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
LONG = Camera(focal_length_m=0.025, f_number=2.8, pixel_pitch_m=3.3e-6)


def long(source: Path, folder: Path) -> None:
    """50 slices of 4000 x 3000; there is no source."""
    aif, depth_m = make_scene(0, 5, 750, 1000, 0.4, 4.0)
    image, depth = torch.from_numpy(aif).permute(2, 0, 1)[None], torch.from_numpy(depth_m)[None]
    renderer = DefocusRenderer(psf="disc", linear_light=True, weighting="occlusion")
    camera = Camera(LONG.focal_length_m, LONG.f_number, 4 * LONG.pixel_pitch_m)
    generator = np.random.default_rng(0)
    exif = exif_with(x920A=1000 * LONG.focal_length_m, x829D=LONG.f_number)
    for number, dioptre in enumerate(np.linspace(2.6, 0.22, 50)):
        with torch.no_grad():
            codes = renderer(image, depth, torch.tensor([1 / dioptre]).float(), camera)[0, 0]
        small = codes.clamp(0, 1).permute(1, 2, 0).numpy()
        scale = 4 * (1 + 0.0002 * number)
        move = np.array([[scale, 0, generator.normal(0, 6)], [0, scale, generator.normal(0, 6)]])
        large = cv2.warpAffine(small, move, (4000, 3000), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        large = large + generator.normal(0, 0.01, (3000, 4000, 1))
        codes8 = (255 * large.clip(0, 1)).round().astype(np.uint8)
        Image.fromarray(codes8).save(folder / f"{number:02d}_{dioptre:.3f}dpt.jpg", quality=92, exif=exif)


def galaxy_house(source: Path, folder: Path) -> None:
    for file in [*source.glob("*.jpg"), source / "dioptres.txt"]:
        shutil.copy(file, folder)


def phone_room(source: Path, folder: Path) -> None:
    for file in source.glob("*.jpg"):
        with Image.open(file) as image:
            exif = image.getexif()
            write_heic(folder / f"{file.stem}.heic", np.asarray(image.convert("RGB")), exif=exif, quality=90)


def balls(source: Path, folder: Path) -> None:
    write_video(folder / "sweep.mp4", [iio.imread(file) for file in sorted(source.glob("*.jpg"))])
    shutil.copy(source / "focus_distance.txt", folder)
    (folder / "stack.yaml").write_text(f"focus_distance_unit_m: 0.0254\nframes: {list(range(10))}\n")


def breakfast(source: Path, folder: Path) -> None:
    for name, dioptre in (("near", 1 / 0.529), ("far", 1 / 0.869)):
        grey = iio.imread(source / f"breakfast_{name}.png")[:, :-4]
        grey = (grey if grey.ndim == 3 else grey[..., None].repeat(3, 2))[..., :3]
        write_dng(folder / f"{name}_{dioptre:.4f}dpt.dng", linear(grey / 255))
    (folder / "stack.yaml").write_text(
        "camera: {focal_length_m: 0.025, f_number: 8.3, pixel_pitch_m: 2.5e-5}\nnear_m: 0.5\nfar_m: 0.9\n"
    )


def pcb(source: Path, folder: Path) -> None:
    for file in source.glob("*.jpg"):
        iio.imwrite(folder / f"{file.stem}.tif", iio.imread(file).astype(np.uint16) * 257)


FORMS = {
    "galaxy_house": (galaxy_house, "10 JPEG of 6.0 MP, dioptres.txt alone"),
    "phone_room": (phone_room, "5 HEIC of 12.5 MP with EXIF, metres in the names"),
    "balls": (balls, "a video of 10 frames of 0.9 MP, focus_distance.txt in inches"),
    "breakfast": (breakfast, "2 DNG of 0.3 MP, dioptres in the names"),
    "pcb": (pcb, "7 TIFF of 3.1 MP and 16 bits, nothing known"),
    "long": (long, "50 JPEG of 12 MP, dioptres in the names"),
}


def measured(module: str, *words: str) -> dict[str, object]:
    """Seconds and peak memory of a command in a process of its own."""
    told, begun = Path(words[-1].split("=", 1)[1]) / "peak.txt", time.perf_counter()
    line = [sys.executable, "-c", CHILD, str(told), module, *words]
    done = subprocess.run(line, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(line[4:])} ended with {done.returncode}:\n{done.stderr}")
    (told.parent / "said.txt").write_text(done.stdout)
    return {"seconds": round(seconds, 1), "peak_gib": round(float(told.read_text()), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=FORMS, default=list(FORMS))
    parser.add_argument("--folder", type=Path, default=Path("outputs/photographs"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "photographs.json")
    arguments = parser.parse_args()
    real = Path(os.environ.get("SFDFD_REAL_DATA", "real data")) / "stacks"
    rows: list[dict] = json.loads(arguments.out.read_text())["rows"] if arguments.out.is_file() else []
    for name in arguments.only:
        make, form = FORMS[name]
        folder, output = arguments.folder / "stacks" / name, arguments.folder / "predictions" / name
        if name != "long" and not (real / name).is_dir():
            print(f"{name} is not in {real}: passed over")
            continue
        if not folder.is_dir():
            folder.mkdir(parents=True)
            make(real / name, folder)
        found = measured("sfdfd.predict", f"stack={folder}", "outputs=all", f"output_dir={output}")
        made = [{"name": name, "form": form, "command": "predict", **found}]
        if name == "long":
            again = arguments.folder / "predictions" / "long_refocused"
            again.mkdir(exist_ok=True)
            words = (f"prediction={output}", "focus_m=0.8", "aperture=2.0", f"output_dir={again}")
            made.append(
                {"name": name, "form": "12 MP, blur_factor=2", "command": "refocus"} | measured("sfdfd.refocus", *words)
            )
        rows = [row for row in rows if row["name"] != name] + made
        print(*made, sep="\n", flush=True)
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        write_json(arguments.out, {"machine": machine, "load_after": os.getloadavg(), "rows": rows})
    print("\n| stack | form | command | seconds | peak memory GiB |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['name']} | {row['form']} | `{row['command']}` | {row['seconds']:g} | {row['peak_gib']:g} |")


if __name__ == "__main__":
    main()
