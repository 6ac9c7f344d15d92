"""Export: ``python -m sfdfd.export checkpoint=PATH format=onnx``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs import command, load_model, run_record

if TYPE_CHECKING:
    from omegaconf import DictConfig


def export(config: DictConfig) -> None:
    """Write a trained network as ONNX, with any number of slices and any image size."""
    from pathlib import Path

    from sfdfd.errors import InputError
    from sfdfd.evaluation import write_json
    from sfdfd.onnx import export_onnx

    if config.checkpoint is None:
        raise InputError("give the trained run: checkpoint=PATH (or checkpoint=pretrained)")
    if config.format != "onnx":
        raise InputError(f"format: expected onnx, got {config.format!r}")
    module, _ = load_model(config.checkpoint, {})
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "network.onnx"
    export_onnx(module.network, path)
    write_json(output_dir / "export.json", {"checkpoint": str(config.checkpoint), "run": run_record()})
    print(f"inputs: images (1,S,3,H,W) in [0, 1], focus_distances_m (1,S), near_m (1), far_m (1)\n"
          f"outputs: depth_m (1,H,W), aif (1,3,H,W)\nwritten to {path}")  # fmt: skip


main = command("export")(export)

if __name__ == "__main__":
    main()
