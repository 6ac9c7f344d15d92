"""Supervised networks, by a checkout and a checkpoint that you have: DFV, AiFDepthNet, and any other by a loader.

* ``--model dfv``: github.com/fuy34/DFV, DFFNet. Normalized inputs; depth in the unit of the
  focus distances.
* ``--model aifdepthnet``: github.com/albert100121/AiFDepthNet, ``net.module.inference``.
* ``--model FILE.py:function``: for DDFS, FOSSA and others. Your function gets (images (S,H,W,3) float RGB in [0, 1], focus
  distances (S,), the stack of common.py, the path of the checkpoint) and returns depth and AIF, either of them None.

None of these was run here: their weights are not within reach. The last form is tested with a stub.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from common import Stack, arguments, read_stack, without_downloads, write_answer

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def padded(images: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Pad slices (S,H,W,3) at the bottom and the right to multiples of 32."""
    height, width = images.shape[1:3]
    return np.pad(images, ((0, 0), (0, -height % 32), (0, -width % 32), (0, 0)), mode="edge"), (height, width)


def dfv(images: np.ndarray, focus_m: np.ndarray, stack: Stack, checkpoint: Path):
    import torch

    without_downloads()
    from models import DFFNet

    model = torch.nn.DataParallel(DFFNet(clean=False, level=4, use_diff=int("DFV" in checkpoint.stem.upper())))
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]
    model.load_state_dict({key: value for key, value in state.items() if "disp" not in key}, strict=False)
    inputs, (height, width) = padded((images - MEAN) / STD)
    order = np.argsort(focus_m)
    tensor = torch.from_numpy(inputs[order]).float().permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        depth, *_ = model.eval()(tensor, torch.from_numpy(focus_m[order]).float()[None])
    return np.asarray(depth.squeeze())[:height, :width], None


def aifdepthnet(images: np.ndarray, focus_m: np.ndarray, stack: Stack, checkpoint: Path):
    import torch
    import utils  # of the checkout

    net, settings, _ = utils.load_trained_model(str(checkpoint))
    inputs, (height, width) = padded(images)
    tensors = {
        "stack_rgb_img": torch.from_numpy(inputs).float().permute(3, 0, 1, 2)[None],
        "focus_position": torch.from_numpy(focus_m).float().view(1, 1, -1),
    }
    from argparse import Namespace

    with torch.no_grad():
        found = net.eval().module.inference(tensors, Namespace(**settings))
    aif = np.asarray(found["pred_AiF_img"][0].permute(1, 2, 0))[:height, :width]
    return np.asarray(found["pred_depth"][0, 0])[:height, :width], np.clip(255 * aif, 0, 255).astype(np.uint8)


def loader_of(model: str):
    if model in ("dfv", "aifdepthnet"):
        return globals()[model]
    path, _, function = model.rpartition(":")
    spec = importlib.util.spec_from_file_location("loader", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function)


def main() -> None:
    options = arguments(__doc__, model={"required": True}, checkpoint={"type": Path, "required": True})
    stack = read_stack(options.input)
    answer = loader_of(options.model)(stack.images / 255.0, stack.focus_distances_m, stack, options.checkpoint)
    write_answer(options.output, *answer)


if __name__ == "__main__":
    main()
