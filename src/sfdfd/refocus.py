"""Refocus: ``python -m sfdfd.refocus prediction=DIR focus_m=1.2 aperture=2.0``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import as_plain_dict, command

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sfdfd.report.refocus import FinishedPrediction


def refocus(config: DictConfig) -> None:
    """Render a finished prediction at another focus distance and aperture, at full size."""
    from pathlib import Path

    from sfdfd.errors import InputError
    from sfdfd.io.files import atomic_write
    from sfdfd.io.images import write_image
    from sfdfd.report.refocus import FinishedPrediction
    from sfdfd.training.device import use_threads

    settings = as_plain_dict(config)
    use_threads(settings["threads"])
    if settings["prediction"] is None:
        raise InputError("give the folder that predict wrote: prediction=DIR")
    finished = FinishedPrediction.read(Path(str(settings["prediction"])))
    focus = _focus(finished, settings["focus_m"], settings["focus"])
    picture = finished.refocused(focus, settings["aperture"])
    output_dir = Path(settings["output_dir"])
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "refocused.png"
    with atomic_write(path) as part:
        write_image(part, picture)
    print(f"written to {path}")


def _focus(finished: FinishedPrediction, focus_m: Any, relative_focus: Any) -> float:
    """Return the focus distance in the prediction's own unit."""
    from sfdfd.errors import InputError, checked_number

    if finished.relative:
        if relative_focus is None or focus_m is not None:
            raise InputError(
                "this prediction is relative and has no metres; give focus=X instead of focus_m, from 0 (in focus in the "
                "first slice) to 1 (in the last)"
            )
        return finished.distance_at(checked_number(relative_focus, "focus", least=0, most=1))
    if focus_m is None or relative_focus is not None:
        raise InputError("give the focus distance in metres: focus_m=X (focus=X is for relative predictions only)")
    return checked_number(focus_m, "focus_m", infinite=True)


main = command("refocus")(refocus)

if __name__ == "__main__":
    main()
