"""Depth of one image by a monocular network of the ``transformers`` library, whose weights lie on this computer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sfdfd.errors import InputError, one_line
from sfdfd.io.images import to_bytes

__all__ = ["monocular_depth", "require_transformers"]


def require_transformers() -> Any:
    """Return the ``transformers`` module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise InputError(
            "prior=transformers:MODEL_ID needs transformers: pip install 'sfdfd[mono]'; or run the model elsewhere and give "
            "its depth map: prior=FILE"
        ) from None
    return transformers


@torch.inference_mode(False)
def monocular_depth(
    model_id: str, image: Float[Tensor, "3 h w"], device: torch.device | str = "cpu"
) -> Float[np.ndarray, "h w"]:
    """Return what a model predicts of an image, resized to it; whether depth or inverse depth depends on the model.

    Nothing is downloaded: the weights have to lie in the folder ``model_id``, or in the cache of Hugging Face.

    Args:
        model_id: such as "depth-anything/Depth-Anything-V2-Small-hf", or a folder.
        image: RGB in [0, 1].
        device: where the model runs.

    Raises:
        InputError: ``transformers`` or the weights are missing, or the model predicts no depth.
    """
    transformers = require_transformers()
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(model_id, local_files_only=True)
        model = transformers.AutoModelForDepthEstimation.from_pretrained(model_id, local_files_only=True)
    except Exception as error:  # the library raises many types
        raise InputError(
            f"prior=transformers:{model_id}: no depth model of that name on this computer ({one_line(error)[:200]}); "
            f"hf download {model_id} fetches one"
        ) from None
    pixels = to_bytes(image.detach().cpu()).permute(1, 2, 0).numpy()
    inputs = processor(images=pixels, return_tensors="pt").to(device)
    with torch.no_grad():
        depth = model.to(device).eval()(**inputs).predicted_depth
    depth = depth.reshape(1, 1, *depth.shape[-2:]).float().cpu()
    return F.interpolate(depth, image.shape[-2:], mode="bilinear", align_corners=False)[0, 0].numpy()
