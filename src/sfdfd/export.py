"""Export: ``python -m sfdfd.export checkpoint=PATH format=onnx|weights``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.io.run_record import run_record
from sfdfd.runs.command import command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def export(config: DictConfig) -> None:
    """Write a trained network as ONNX, for any number of slices and any image size; or its weights alone in half
    precision."""
    from pathlib import Path

    from sfdfd.errors import InputError, checked_choice
    from sfdfd.io.files import write_json
    from sfdfd.networks.onnx import export_onnx
    from sfdfd.training.checkpoints import load_model, save_weights

    if config.checkpoint is None:
        raise InputError("give the trained run: checkpoint=PATH (or checkpoint=pretrained)")
    checked_choice(config.format, "format", ("onnx", "weights"))
    module, _ = load_model(config.checkpoint, {})
    assert module is not None  # there is a checkpoint
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if config.format == "onnx":
        path = output_dir / "network.onnx"
        export_onnx(module.network, path)
        print("inputs: images (1,S,3,H,W) in [0, 1], focus_distances_m (1,S), near_m (1), far_m (1)")
        print("outputs: depth_m (1,H,W), aif (1,3,H,W)")
    else:
        path = output_dir / "weights.ckpt"
        save_weights(path, module.state_dict(), module.run_config)
        print("read it as checkpoint=PATH")
    write_json(output_dir / "export.json", {"checkpoint": str(config.checkpoint), "run": run_record()})
    print(f"written to {path}")


main = command("export")(export)

if __name__ == "__main__":
    main()
