"""Diagnose: ``python -m sfdfd.diagnose stack=DIR`` or ``experiment=NAME`` tells whether depth from defocus can work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sfdfd.runs.command import as_plain_dict, command, instantiate

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

    settings = as_plain_dict(config)
    result = _diagnose_stack(settings) if settings["stack"] is not None else _diagnose_experiment(config, settings)
    _print(result.diagnosis, result.unit)
    output_dir = Path(settings["output_dir"])
    output_dir.mkdir(parents=True, exist_ok=True)
    figure = diagnosis_figure(result.diagnosis, readable(result.name)[-50:], result.unit)
    iio.imwrite(output_dir / "diagnosis.png", to_rgb(figure))
    write_json(output_dir / "diagnosis.json", {"of": result.name, **result.diagnosis.as_dict(), "facts": result.facts})
    print(f"written to {output_dir}")


class Diagnosed(NamedTuple):
    """A diagnosis, the unit of its distances, and facts for ``diagnosis.json``."""

    name: str
    diagnosis: Diagnosis
    unit: str
    facts: dict[str, Any]


def _diagnose_stack(settings: dict[str, Any]) -> Diagnosed:
    """Diagnose the user's photographs, and print what was found out about them."""
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
    diagnosis = diagnose(capture.camera, capture.focus_distances_m, capture.near_m, capture.far_m, sigma_scale, stack)
    print(capture.statement if capture.camera_source == "known" else _unknown_camera(capture))
    motion = float(capture.alignment.motion_px.max())
    print(f"alignment: slices move by up to {motion:.2g} px" + (" (predict aligns them)" if motion > 0.5 else ""))
    for note in capture.notes:
        print(f"note: {note}")
    return Diagnosed(str(settings["stack"]), diagnosis, "" if capture.relative else "m", capture.facts())


def _unknown_camera(capture: Capture) -> str:
    if capture.relative:
        return capture.statement
    assert capture.blur_scale is not None  # the camera is not known
    return (
        "the camera is not known; its blur scale was only guessed here, to a factor of about two "
        f"(k = {capture.blur_scale.value_px_m:.3g} px m); predict estimates it"
    )


def _diagnose_experiment(config: DictConfig, settings: dict[str, Any]) -> Diagnosed:
    """Diagnose the optics that an experiment's data module uses."""
    from sfdfd.errors import InputError
    from sfdfd.measures.diagnosis import diagnose

    datamodule = instantiate(config.data)
    name = settings["experiment_name"] or type(datamodule).__name__
    optics = datamodule.nominal_acquisition()
    if optics is None:
        raise InputError(f"{name} has no camera of its own; give one of its stacks: stack=DIR")
    camera, focus, (near_m, far_m), note = optics
    if note:
        print(note)
    sigma_scale = settings["optics"]["sigma_scale"]
    diagnosis = diagnose(camera, focus, near_m, far_m, sigma_scale)
    return Diagnosed(name, diagnosis, "m", {"camera": camera.as_dict(), "sigma_scale": sigma_scale, "note": note})


def _print(diagnosis: Diagnosis, unit: str) -> None:
    print(f"{'focus':>10} {'blur radius in pixels over the depth range'}")
    for index, (focus, radius) in enumerate(zip(diagnosis.focus_distances_m, diagnosis.blur_radius_px, strict=True)):
        aperture = "" if diagnosis.f_numbers is None else f"  at f/{diagnosis.f_numbers[index]:.3g}"
        print(f"{focus:10.4g} {radius.min():6.2f} to {radius.max():6.2f}{aperture}")
    print(f"range covered by the focus distances: {diagnosis.covered_share:.0%} (in inverse depth)")
    for index in (0, len(diagnosis.depth_m) // 2, len(diagnosis.depth_m) - 1):
        depth, step = diagnosis.depth_m[index], diagnosis.depth_step_m[index]
        print(f"at {depth:.3g} {unit} one 8-bit level is a depth step of {step:.2g} {unit}")
    print(f"VERDICT: {diagnosis.verdict}")
    for reason in diagnosis.reasons:
        print(f"  - {reason}")


main = command("diagnose")(diagnose_command)

if __name__ == "__main__":
    main()
