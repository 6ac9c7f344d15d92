"""A monocular depth model of the ``transformers`` package, on one image of the stack: relative inverse depth.

Its image is the slice focused in the middle, or each pixel of the slice with the largest Laplacian (``--image fused``).
``--random`` makes a tiny model with random weights, to test the adapter without weights.
"""

import cv2
import numpy as np
from common import arguments, fused_by_index, read_stack, write_answer


def fused(images: np.ndarray) -> np.ndarray:
    responses = []
    for image in images:
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        responses.append(cv2.blur(np.abs(cv2.Laplacian(gray, cv2.CV_32F)), (9, 9)))
    return fused_by_index(images, np.argmax(responses, 0))


def tiny_model():
    from transformers import Dinov2Config, DPTConfig, DPTForDepthEstimation

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14,
        reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return DPTForDepthEstimation(
        DPTConfig(backbone_config=backbone, hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8)
    )


def main() -> None:
    options = arguments(
        __doc__,
        model={"default": ""},
        random={"action": "store_true"},
        image={"choices": ("middle", "fused"), "default": "fused"},
    )
    import torch
    from transformers import AutoModelForDepthEstimation

    torch.manual_seed(0)
    images = read_stack(options.input).images
    image = fused(images) if options.image == "fused" else images[len(images) // 2]
    height, width = image.shape[:2]
    model = tiny_model() if options.random else AutoModelForDepthEstimation.from_pretrained(options.model)
    size = [max(14, round(side / 14) * 14) for side in (height, width)]
    pixels = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    pixels = (pixels - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        found = model.eval()(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]).predicted_depth
    inverse = cv2.resize(np.asarray(found.squeeze()), (width, height), interpolation=cv2.INTER_LINEAR)
    write_answer(options.output, depth=inverse, aif=image if options.image == "fused" else None)


if __name__ == "__main__":
    main()
