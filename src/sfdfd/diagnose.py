"""Diagnose: ``python -m sfdfd.diagnose stack=DIR`` or ``experiment=NAME``: will it work?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs import command, instantiate, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def diagnose_command(config: DictConfig) -> None:
    """Judge a stack, or the camera of an experiment; write ``diagnosis.json`` and ``diagnosis.png``."""
    from pathlib import Path

    import imageio.v3 as iio

    from sfdfd.diagnosis import diagnose, diagnosis_figure
    from sfdfd.report import write_json
    from sfdfd.runs import DEFAULT_OPTICS
    from sfdfd.visualize import to_rgb

    unit, facts = "m", {}
    settings = plain(config)
    if config.stack is not None:
        from sfdfd.capture import Capture, example_photographs
        from sfdfd.data.recorded import STACK_KEYS, read_photographs
        from sfdfd.optics.render import DefocusRenderer

        sigma_scale = settings["optics"]["sigma_scale"] or DEFAULT_OPTICS["sigma_scale"]
        name = str(config.stack)
        photographs = (
            example_photographs()
            if name == "example"
            else read_photographs(name, {key: settings[key] for key in STACK_KEYS})
        )
        renderer = DefocusRenderer(sigma_scale=sigma_scale, method="fast")
        capture = Capture.prepare(photographs, renderer, exposure=False, calibrate=False)
        unit = "" if capture.relative else "m"
        stack, _ = capture.stack(1024)
        found = diagnose(capture.camera, capture.focus_distances_m, capture.near_m, capture.far_m, sigma_scale, stack)
        facts = capture.facts()
        print(capture.statement if capture.camera_source == "known" else _rough(capture))
        motion = float(capture.alignment.motion_px.max())
        print(f"alignment: slices move by up to {motion:.2g} px" + (" (predict aligns them)" if motion > 0.5 else ""))
        for note in capture.notes:
            print(f"note: {note}")
    else:
        name = config.experiment_name or settings["data"]["_target_"].rsplit(".", 1)[-1]
        data = settings["data"]
        if data.get("focus_distances_m") is None or data["camera"].get("focal_length_m") is None:
            from sfdfd.errors import InputError

            raise InputError(f"{name} has no camera of its own; give one of its stacks: stack=DIR")
        camera = instantiate({**data["camera"], "_target_": "sfdfd.optics.camera.Camera"})
        sigma_scale = settings["optics"]["sigma_scale"]
        found = diagnose(camera, data["focus_distances_m"], data["near_m"], data["far_m"], sigma_scale)
        facts = {"camera": camera.as_dict(), "sigma_scale": sigma_scale}
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
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    iio.imwrite(output_dir / "diagnosis.png", to_rgb(diagnosis_figure(found, name[-50:], unit)))
    write_json(output_dir / "diagnosis.json", {"of": name, **found.as_dict(), "facts": facts})
    print(f"written to {output_dir}")


def _rough(capture) -> str:
    if capture.relative:
        return capture.statement
    return (
        "the camera is not known; its blur scale was only guessed here, to a factor of about two "
        f"(k = {capture.blur_scale.value_px_m:.3g} px m); predict estimates it"
    )


main = command("diagnose")(diagnose_command)

if __name__ == "__main__":
    main()
