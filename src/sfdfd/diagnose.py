"""Diagnose: ``python -m sfdfd.diagnose stack=DIR`` or ``experiment=NAME``: will it work?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, instantiate, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sfdfd.measures.diagnosis import Diagnosis
    from sfdfd.photographs.capture import Capture


def diagnose_command(config: DictConfig) -> None:
    """Judge a stack, or the camera of an experiment; write ``diagnosis.json`` and ``diagnosis.png``."""
    from pathlib import Path

    import imageio.v3 as iio

    from sfdfd.io.files import readable, write_json
    from sfdfd.report.pictures import diagnosis_figure, to_rgb

    settings = plain(config)
    judged = _of_stack(settings) if settings["stack"] is not None else _of_experiment(config, settings)
    name, found, unit, facts = judged
    _say(found, unit)
    output_dir = Path(settings["output_dir"])
    output_dir.mkdir(parents=True, exist_ok=True)
    iio.imwrite(output_dir / "diagnosis.png", to_rgb(diagnosis_figure(found, readable(name)[-50:], unit)))
    write_json(output_dir / "diagnosis.json", {"of": name, **found.as_dict(), "facts": facts})
    print(f"written to {output_dir}")


Judged = tuple[str, "Diagnosis", str, dict[str, Any]]
"""Name, what was found, the unit of its distances, and facts for ``diagnosis.json``."""


def _of_stack(settings: dict[str, Any]) -> Judged:
    """One's own photographs."""
    from sfdfd.measures.diagnosis import diagnose
    from sfdfd.optics.render import DefocusRenderer
    from sfdfd.photographs.align import AlignSettings
    from sfdfd.photographs.capture import Capture
    from sfdfd.photographs.lookup import find_photographs
    from sfdfd.training.checkpoints import DEFAULT_OPTICS

    sigma_scale = settings["optics"]["sigma_scale"] or DEFAULT_OPTICS["sigma_scale"]
    renderer = DefocusRenderer(sigma_scale=sigma_scale, method="fast")
    photographs = find_photographs(settings["stack"], settings)
    capture = Capture.of(photographs, renderer, align=AlignSettings(exposure=False), calibrate=False)
    stack = capture.stack(1024)
    found = diagnose(capture.camera, capture.focus_distances_m, capture.near_m, capture.far_m, sigma_scale, stack)
    print(capture.statement if capture.camera_source == "known" else _rough(capture))
    motion = float(capture.alignment.motion_px.max())
    print(f"alignment: slices move by up to {motion:.2g} px" + (" (predict aligns them)" if motion > 0.5 else ""))
    for note in capture.notes:
        print(f"note: {note}")
    return str(settings["stack"]), found, "" if capture.relative else "m", capture.facts()


def _of_experiment(config: DictConfig, settings: dict[str, Any]) -> Judged:
    """The camera and distances that an experiment's data module really uses."""
    from sfdfd.errors import InputError
    from sfdfd.measures.diagnosis import diagnose

    datamodule = instantiate(config.data)
    name = settings["experiment_name"] or type(datamodule).__name__
    optics = datamodule.optics_to_judge()
    if optics is None:
        raise InputError(f"{name} has no camera of its own; give one of its stacks: stack=DIR")
    camera, focus, (near_m, far_m), note = optics
    if note:
        print(note)
    sigma_scale = settings["optics"]["sigma_scale"]
    found = diagnose(camera, focus, near_m, far_m, sigma_scale)
    return name, found, "m", {"camera": camera.as_dict(), "sigma_scale": sigma_scale, "note": note}


def _say(found: Diagnosis, unit: str) -> None:
    print(f"{'focus':>10} {'blur radius in pixels over the depth range'}")
    for focus, radius in zip(found.focus_distances_m, found.blur_radius_px, strict=True):
        print(f"{focus:10.4g} {radius.min():6.2f} to {radius.max():6.2f}")
    print(f"range covered by the focus distances: {found.covered_share:.0%} (in inverse depth)")
    for index in (0, len(found.depth_m) // 2, len(found.depth_m) - 1):
        depth, step = found.depth_m[index], found.depth_step_m[index]
        print(f"at {depth:.3g} {unit} one 8-bit level is a depth step of {step:.2g} {unit}")
    print(f"VERDICT: {found.verdict}")
    for reason in found.reasons:
        print(f"  - {reason}")


def _rough(capture: Capture) -> str:
    if capture.relative:
        return capture.statement
    assert capture.blur_scale is not None  # the camera is not known
    return (
        "the camera is not known; its blur scale was only guessed here, to a factor of about two "
        f"(k = {capture.blur_scale.value_px_m:.3g} px m); predict estimates it"
    )


main = command("diagnose")(diagnose_command)

if __name__ == "__main__":
    main()
