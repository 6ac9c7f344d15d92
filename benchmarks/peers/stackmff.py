"""StackMFF V2 and V4 (github.com/Xinzhe99, MIT): a fused image and the index of the slice in focus.

V4 is part of OpenFocus; V2 has a checkout of its own. Needs torch, torchvision, einops, opencv-python.
"""

from pathlib import Path

import cv2
import numpy as np
from common import arguments, fused_by_index, read_stack, without_downloads, write_answer


def main() -> None:
    options = arguments(__doc__, version={"choices": ("2", "4"), "default": "4"}, checkpoint={"type": Path})
    import torch

    if options.version == "4":
        without_downloads()
    import network  # of the checkout

    weights = {"2": "model.pth", "4": "weights/stackmffv4.pth"}[options.version]
    model = getattr(network, f"StackMFF_V{options.version}")()
    state = torch.load(options.checkpoint or options.repository / weights, map_location="cpu", weights_only=True)
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    model.eval()
    images = read_stack(options.input).images
    gray = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images])
    height, width = gray.shape[1:]
    padded = torch.nn.functional.interpolate(
        torch.from_numpy(gray.astype(np.float32) / 255)[None],
        size=(-(-height // 32) * 32, -(-width // 32) * 32),
        mode="bilinear",
        align_corners=False,
    )
    with torch.no_grad():
        *_, index = model(padded)  # V2 returns a normalized depth before it
    index = np.asarray(index.squeeze(), np.float32)
    index = cv2.resize(index, (width, height), interpolation=cv2.INTER_NEAREST)
    write_answer(options.output, depth=index, aif=fused_by_index(images, index))


if __name__ == "__main__":
    main()
