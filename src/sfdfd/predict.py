"""Predict: ``python -m sfdfd.predict stack=DIR``, or ``stacks=DIR`` for many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs.command import as_plain_dict, command

if TYPE_CHECKING:
    from omegaconf import DictConfig


def predict(config: DictConfig) -> None:
    """Write depth, all-in-focus image, confidence and a report of one stack, or of each of many; exit with 1 if any
    failed."""
    import sys
    import time
    from pathlib import Path

    from sfdfd.runs.process_age import command_age_s

    begun_s = time.monotonic() - command_age_s(main)
    source = config.stack if config.stacks is None else config.stacks
    print(f"sfdfd predict: {source}; loading torch", flush=True)

    from sfdfd.errors import InputError
    from sfdfd.report.prediction_index import table
    from sfdfd.runs.predict_stacks import predict_stack, predict_stacks
    from sfdfd.training.device import use_threads

    settings = as_plain_dict(config)
    use_threads(settings["threads"])
    output_dir = Path(settings["output_dir"])
    if settings["stacks"] is None:
        predict_stack(settings, output_dir, begun_s=begun_s)
        return
    if settings["stack"] is not None:
        raise InputError("stack is one and stacks are many; give one of them")
    rows = predict_stacks(settings, output_dir)
    print(table(rows))
    print(f"written to {output_dir}; open {output_dir / 'index.html'}")
    statuses = {row["status"] for row in rows}
    if "stopped" in statuses:
        sys.exit(130)
    if "failed" in statuses:
        sys.exit(1)


main = command("predict")(predict)

if __name__ == "__main__":
    main()
