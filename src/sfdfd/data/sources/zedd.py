"""ZEDD (Zuo et al., arXiv 2603.26658): 100 real DSLR stacks, nine focus distances, six apertures, LiDAR depth."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from sfdfd.data.fetch import RemoteFile, Report, opened
from sfdfd.data.images import read_photograph
from sfdfd.data.sources.base import DataSource, found_under, only, write_splits, write_stack
from sfdfd.errors import InputError

__all__ = ["SUBMISSION_SHAPE", "ZEDD", "write_submission"]

F_NUMBER = 2.8
"""Of the published figures."""
AIF_F_NUMBER = 16.0
LONGER_PX = 912
"""Half of the 1824 x 1216 of the depth maps."""
SENSOR_WIDTH_M = 0.036
SUBMISSION_SHAPE = (1216, 1824)
NEAR_M, FAR_M = 0.5, 20.0


def read_focus(path: Path) -> dict[str, tuple[str, float]]:
    """``metadata.txt``: lines of run, motor position (hexadecimal) and focus distance in metres, between tabs."""
    found = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            parts = line.split("\t")
            try:
                found[parts[0].strip()] = (parts[1].strip(), float(parts[2]))
            except (IndexError, ValueError):
                raise InputError(
                    f"{path}: expected run, motor position and focus distance between tabs, got {line!r}"
                ) from None
    return found


def convert(paths: Sequence[Path], folder: Path, report: Report) -> int:
    """``{val,test}/SCENE/focus_stack/img_run_K_motor_XXXX_aperture_FN.jpg`` with ``gt/K.txt`` (and ``gt/depth.npy``, val
    only) and ``metadata.txt``. Slices of f/2.8; the AIF is the f/16 picture of the middle run."""
    source = only(paths, "the folder or archive of ZEDD")
    with opened(source, folder / "unpacked", report) as content:
        focus = read_focus(found_under(content, "metadata.txt", "ZEDD's focus distances", source)[0])
        scenes = sorted({file.parent.parent for file in found_under(content, "K.txt", "ZEDD's scenes", source)})
        splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for index, scene in enumerate(scenes):
            slices: dict[float, Path] = {}
            aif = None
            for file in sorted((scene / "focus_stack").glob("img_run_*_aperture_F*.jpg")):
                match = re.fullmatch(r"img_run_(\d+)_motor_\w+_aperture_F([\d.]+)\.jpg", file.name)
                key = None if match is None else f"run_{match[1]}"
                if key not in focus:
                    raise InputError(f"{file}: no focus distance of {key} in metadata.txt")
                if float(match[2]) == F_NUMBER:
                    slices[focus[key][1]] = file
                elif float(match[2]) == AIF_F_NUMBER and key == "run_5":
                    aif = file
            if len(slices) < 2:
                raise InputError(f"{scene}: expected slices of f/{F_NUMBER}, found {len(slices)}")
            matrix = np.loadtxt(scene / "gt" / "K.txt")
            depth_file = scene / "gt" / "depth.npy"
            depth = np.load(depth_file).astype(np.float32) if depth_file.is_file() else None
            full_width = depth.shape[1] if depth is not None else SUBMISSION_SHAPE[1]
            images, size = [], None
            for file in (*(slices[f] for f in sorted(slices)), *([aif] if aif else [])):
                image, _ = read_photograph(file)
                factor = min(1.0, LONGER_PX / max(image.shape))
                size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
                images.append(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
            if depth is not None:
                depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
            focal_m = float(matrix[0, 0]) * SENSOR_WIDTH_M / full_width
            camera = {"focal_length_m": focal_m, "f_number": F_NUMBER, "pixel_pitch_m": SENSOR_WIDTH_M / size[0]}
            write_stack(
                folder, scene.name, images[: len(slices)], camera, sorted(slices), NEAR_M, FAR_M, depth,
                images[-1] if aif else None,
            )  # fmt: skip
            splits["test" if scene.parent.name == "test" else "val"].append(scene.name)
            report(index + 1, len(scenes))
    splits["train"] = splits["test"] or splits["val"]  # no truth is used in training, and the test scenes have none
    write_splits(folder, splits)
    return len(scenes)


def write_submission(path: Path, depths_m: Sequence[np.ndarray]) -> None:
    """The test server's format: a zip of ``zedd_output_0001.npy`` and so on, 50 finite float arrays of 1216 x 1824.

    Raises:
        InputError: another number of maps, or one that is not finite.
    """
    if len(depths_m) != 50:
        raise InputError(f"a ZEDD submission has 50 depth maps, got {len(depths_m)}")
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, depth in enumerate(depths_m):
            depth = cv2.resize(depth.astype(np.float32), SUBMISSION_SHAPE[::-1], interpolation=cv2.INTER_LINEAR)
            if not np.isfinite(depth).all():
                part.unlink(missing_ok=True)
                raise InputError(f"depth map {index + 1} of the submission is not finite everywhere")
            with archive.open(f"zedd_output_{index + 1:04d}.npy", "w") as file:
                np.lib.format.write_array(file, depth)
    part.replace(path)


ZEDD = DataSource(
    name="zedd",
    title="ZEDD: 100 real DSLR stacks with LiDAR depth (50 to validate, 50 to test)",
    citation="Y. Zuo, H. Wen, V. Subramanian, P. Chen, K. Kayan, M. Bijelic, F. Heide, J. Deng: Zero-Shot Depth from "
    "Defocus, arXiv 2603.26658",
    licence="CC BY 4.0",
    home="https://huggingface.co/datasets/venkatsubra/ZEDD and https://zedd.cs.princeton.edu",
    size="tens of GB",
    files=(RemoteFile("ZEDD.zip"),),
    uncertain="the focal length is K's, on a sensor taken to be 36 mm wide; breathing between slices is left as it is",
    layout="stacks",
    convert=convert,
)
