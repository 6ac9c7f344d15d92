"""Predict: ``python -m sfdfd.predict stack=DIR checkpoint=PATH``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs import command, load_model, pick_device, plain, run_record, say_where_optics_differ

if TYPE_CHECKING:
    from omegaconf import DictConfig


def predict(config: DictConfig) -> None:
    """Depth and all-in-focus image of one recorded stack, into the run folder."""
    from pathlib import Path

    import imageio.v3 as iio
    import numpy as np
    import torch

    from sfdfd.data.images import write_image
    from sfdfd.data.recorded import read_stack
    from sfdfd.errors import InputError
    from sfdfd.evaluation import classical_network, write_json
    from sfdfd.metrics import psnr
    from sfdfd.module import predict_stack
    from sfdfd.visualize import defocus_figure, depth_figure, to_rgb

    if config.stack is None:
        raise InputError("give the folder with the slices: stack=DIR")
    if config.threads:
        torch.set_num_threads(int(config.threads))
    device = pick_device(config.device)
    module, renderer = load_model(config.checkpoint, config.optics)
    network = classical_network if module is None else module.to(device).network
    settings = plain(config)
    given = ("camera", "focus_distances_m", "focus_distance_unit_m", "near_m", "far_m", "files", "crop")
    stack = read_stack(config.stack, {key: settings[key] for key in given}).to(device)
    if module is not None:
        say_where_optics_differ(stack.camera[0].as_dict(), module.run_config["optics"]["camera"])
    with torch.inference_mode():
        prediction = predict_stack(network, renderer, stack)
    depth_m = prediction.depth_m[0].float().cpu()
    defocus_px = prediction.defocus_px[0].float().cpu()

    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    np.save(output_dir / "depth_m.npy", depth_m.numpy().astype(np.float32))
    millimetres = (depth_m * 1000).round().clamp(0, 65535).numpy().astype(np.uint16)
    iio.imwrite(output_dir / "depth_mm.png", millimetres)
    iio.imwrite(output_dir / "depth.png", to_rgb(depth_figure(depth_m, f"{stack.name[0]}: depth")))
    write_image(output_dir / "aif.png", prediction.aif[0])
    np.save(output_dir / "defocus_px.npy", defocus_px.numpy().astype(np.float32))
    focus = stack.focus_distances_m[0].tolist()
    iio.imwrite(output_dir / "defocus.png", to_rgb(defocus_figure(defocus_px, focus)))
    write_json(
        output_dir / "prediction.json",
        {
            "stack": str(config.stack),
            "method": "classical depth from focus" if module is None else str(config.checkpoint),
            "camera": stack.camera[0].as_dict(),
            "focus_distances_m": focus,
            "depth_range_m": [float(stack.near_m[0]), float(stack.far_m[0])],
            "sigma_scale": renderer.sigma_scale,
            "depth_m": {
                "min": float(depth_m.min()),
                "median": float(depth_m.median()),
                "max": float(depth_m.max()),
            },
            "largest_blur_radius_px": float(defocus_px.abs().max()),
            "stack_psnr_db": float(psnr(prediction.rendered, stack.images)[0]),
            "depth_mm_saturated": bool((depth_m > 65.535).any()),
            "run": run_record(),
        },
    )
    nearest, median, farthest = (float(value) for value in (depth_m.min(), depth_m.median(), depth_m.max()))
    print(f"depth from {nearest:.3g} m to {farthest:.3g} m, median {median:.3g} m")
    print(f"written to {output_dir}")


main = command("predict")(predict)

if __name__ == "__main__":
    main()
