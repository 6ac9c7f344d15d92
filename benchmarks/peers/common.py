"""What the adapters of peers share: read the stack that the benchmark wrote, write the answer.

The adapters run in the peer's environment and import nothing of this package: numpy, PyYAML, OpenCV and what the peer needs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml


@dataclass
class Stack:
    """Slices (S,H,W,3) uint8 RGB, and what ``stack.yaml`` says."""

    images: np.ndarray
    focus_distances_m: np.ndarray
    near_m: float
    far_m: float
    focal_length_m: float
    f_number: float
    pixel_pitch_m: float


def arguments(description: str, **options: dict) -> argparse.Namespace:
    """Parse ``INPUT OUTPUT`` and an adapter's own options; the peer's checkout becomes importable."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--repository", type=Path, help="checkout of the peer")
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    parsed = parser.parse_args()
    if parsed.repository is not None:
        sys.path.insert(0, str(parsed.repository.resolve()))
    return parsed


def without_downloads() -> None:
    """Let torchvision's networks begin with random weights: a checkpoint that holds all weights replaces them."""
    from torchvision import models

    for name in ("mobilenet_v3_large", "resnet18", "resnet50"):
        plain = getattr(models, name)
        setattr(models, name, lambda *_, plain=plain, pretrained=False, weights=None, **options: plain(**options))


def read_stack(folder: Path) -> Stack:
    described = yaml.safe_load((folder / "stack.yaml").read_text())
    images = [cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB) for name in described["files"]]
    focus = np.array([float(value) for value in described["focus_distances_m"]])
    return Stack(np.stack(images), focus, described["near_m"], described["far_m"], **described["camera"])


def write_answer(folder: Path, depth: np.ndarray | None = None, aif: np.ndarray | None = None) -> None:
    """Write depth (H,W) and all-in-focus image (H,W,3) uint8 RGB."""
    if depth is not None:
        np.save(folder / "depth.npy", np.asarray(depth, np.float32))
    if aif is not None:
        cv2.imwrite(str(folder / "aif.png"), cv2.cvtColor(np.ascontiguousarray(aif), cv2.COLOR_RGB2BGR))


def fused_by_index(images: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Take each pixel from the slice of its index."""
    index = np.clip(np.round(index).astype(int), 0, len(images) - 1)
    return np.take_along_axis(images, index[None, ..., None], 0)[0]
