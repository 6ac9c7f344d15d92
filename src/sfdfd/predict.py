"""Predict: ``python -m sfdfd.predict stack=DIR``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfdfd.runs import command, load_model, pick_device, plain, run_record, say_where_optics_differ, use_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.capture import Capture
    from sfdfd.estimator import DefocusEstimator
    from sfdfd.refine import Refinement
    from sfdfd.stack import FocalStack, Prediction


def predict(config: DictConfig) -> None:
    """Depth, all-in-focus image, confidence and a report of one stack, into the run folder."""
    from pathlib import Path

    from sfdfd.capture import Capture, example_photographs
    from sfdfd.data.recorded import STACK_KEYS, read_photographs
    from sfdfd.errors import InputError
    from sfdfd.estimator import DefocusEstimator
    from sfdfd.networks import classical_network
    from sfdfd.refine import Refiner

    if config.stack is None:
        raise InputError("give the folder with the slices: stack=DIR (or stack=example)")
    use_threads(config.threads)
    settings = plain(config)
    refiner = Refiner(**settings["refine"])
    optics = {**settings["optics"]["renderer"], "method": settings["optics"]["renderer"]["method"] or "fast"}
    module, renderer = load_model(config.checkpoint, optics)
    network = classical_network if module is None else module.network
    estimator = DefocusEstimator(network, renderer, refiner, config.working_px, pick_device(config.device))
    if config.stack == "example":
        photographs = example_photographs()
    else:
        photographs = read_photographs(config.stack, {key: settings[key] for key in STACK_KEYS})
    for key, source in photographs.sources.items():
        print(f"{key}: from {source}")
    for key, remedy in photographs.missing.items():
        print(f"{key}: not known; to give it: {remedy}")
    capture = Capture.prepare(
        photographs, renderer, align_mode=config.align.mode, align_model=config.align.model,
        exposure=config.align.exposure, working_px=config.working_px,
    )  # fmt: skip
    _say_alignment(capture)
    for note in capture.notes:
        print(f"note: {note}")
    print(capture.statement)
    if module is not None and capture.camera_source == "known":
        say_where_optics_differ(capture.camera.as_dict(), module.run_config["optics"]["camera"])
    stack, weight = capture.stack(config.working_px)
    with _progress(refiner) as progress:
        small, refinement = estimator.solve(stack, weight, progress)
    if refinement is not None:
        stopped = ", stopped by you" if refinement.interrupted else ""
        print(
            f"refined for {refinement.seconds:.1f} s ({refinement.steps} steps{stopped}): "
            f"energy {refinement.objective_start:.5f} -> {refinement.objective:.5f}"
        )
    start = "classical depth from focus" if module is None else str(config.checkpoint)
    output_dir = Path(config.output_dir)
    _write(output_dir, str(config.stack), start, capture, estimator, stack, small, refinement)
    print(f"written to {output_dir}; open {output_dir / 'report.html'}")


def _say_alignment(capture: Capture) -> None:
    motion = capture.alignment.motion_px
    if not capture.aligned:
        print(f"alignment: not needed (slices move by at most {motion.max():.2g} px)" if motion.max() <= 0.5 else "")
        return
    for file, shift, scale, residual in zip(
        capture.photographs.files, capture.alignment.shift_px, capture.alignment.scale, capture.alignment.residual_px,
        strict=True,
    ):  # fmt: skip
        print(
            f"aligned {file.name}: shift {shift[0]:+.2f} {shift[1]:+.2f} px, scale {scale:.5f}, residual {residual:.2g} px"
        )


def _progress(refiner):
    """A progress bar on a terminal, a line every five seconds elsewhere."""
    import time
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def reporting() -> Iterator[Callable[[float, int, float], None] | None]:
        console = Console(stderr=True)
        if not refiner.enabled:
            yield None
        elif console.is_terminal:
            columns = (TextColumn("refining (Ctrl-C keeps the best so far)"), BarColumn(), TimeRemainingColumn())
            with Progress(*columns, TextColumn("step {task.fields[step]}, energy {task.fields[energy]:.5f}"),
                          console=console) as bar:  # fmt: skip
                task = bar.add_task("", total=1.0, step=0, energy=float("nan"))
                yield lambda share, step, energy: bar.update(task, completed=share, step=step, energy=energy)
        else:
            last = [time.monotonic()]

            def line(share: float, step: int, energy: float) -> None:
                if time.monotonic() - last[0] >= 5:
                    last[0] = time.monotonic()
                    print(f"refining: {share:.0%}, step {step}, energy {energy:.5f}")

            yield line

    return reporting()


def _write(
    output_dir: Path, name: str, start: str, capture: Capture, estimator: DefocusEstimator, stack: FocalStack,
    small: Prediction, refinement: Refinement | None,
) -> None:  # fmt: skip
    """Everything at full size, written aside first, so that nothing half-made is left."""
    import shutil
    import tempfile
    from pathlib import Path

    import imageio.v3 as iio
    import numpy as np
    import torch

    from sfdfd.data.images import to_float, write_image
    from sfdfd.metrics import psnr
    from sfdfd.report import write_json, write_point_cloud
    from sfdfd.visualize import defocus_figure, depth_figure, map_figure, to_rgb

    photographs, focus = capture.photographs, torch.tensor(capture.focus_distances_m)
    if stack.images.shape[-2:] == photographs.size:
        full = small
    else:
        reach = None if capture.reach.all() else [torch.from_numpy(one) for one in capture.reach]
        slices = [lambda image=image: to_float(image) for image in photographs.images]
        full = estimator.enlarged(small, stack, slices, capture.camera, reach, defocus=False)
    depth_m, aif, confidence = full.depth_m[0].cpu(), full.aif[0].cpu(), full.confidence[0].cpu()
    covered = torch.from_numpy(capture.reach.all(0))

    output_dir.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".part-", dir=output_dir))
    try:
        facts = {
            "stack": name, "start": start, **capture.facts(), "sigma_scale": estimator.renderer.sigma_scale,
            "working_size": list(stack.images.shape[-2:]), "size": list(depth_m.shape),
            "largest_blur_radius_px": float(small.defocus_px.abs().max())
            * capture.camera.blur_scale_px_m / stack.camera[0].blur_scale_px_m,
            "stack_psnr_db": float(psnr(small.rendered, stack.images)[0]),
            "confidence": {"mean": float(confidence.mean()), "share_above_half": float((confidence > 0.5).float().mean())},
            "valid_share": float(covered.float().mean()),
            "refinement": None if refinement is None else {
                "seconds": refinement.seconds, "steps": refinement.steps, "interrupted": refinement.interrupted,
                "objective_start": refinement.objective_start, "objective": refinement.objective,
            },
        }  # fmt: skip
        if capture.relative:
            position = ((1 / focus[0] - 1 / depth_m) / (1 / focus[0] - 1 / focus[-1])).float()
            np.save(aside / "relative_depth.npy", position.numpy().astype(np.float32))
            title = f"{photographs.name}: relative depth (0 first slice, 1 last)"
            iio.imwrite(aside / "depth.png", to_rgb(map_figure(_at_most(position), title)))
            facts["relative_depth"] = _summary(position)
            facts["pointcloud"] = "not written: relative depth has no shape"
        else:
            np.save(aside / "depth_m.npy", depth_m.numpy().astype(np.float32))
            millimetres = (depth_m * 1000).round().clamp(0, 65535).numpy().astype(np.uint16)
            iio.imwrite(aside / "depth_mm.png", millimetres)
            iio.imwrite(aside / "depth.png", to_rgb(depth_figure(_at_most(depth_m), f"{photographs.name}: depth")))
            facts["depth_m"] = _summary(depth_m)
            facts["depth_mm_saturated"] = bool((depth_m > 65.535).any())
            focal_px, how = _focal_length_px(capture)
            points = write_point_cloud(aside / "pointcloud.ply", depth_m, aif, focal_px, keep=covered, comment=how)
            facts["pointcloud"] = {"points": points, "focal_length_px": focal_px, "focal_length": how}
        write_image(aside / "aif.png", aif)
        np.save(aside / "confidence.npy", confidence.numpy().astype(np.float32))
        iio.imwrite(aside / "confidence.png", (confidence * 255).round().to(torch.uint8).numpy())
        iio.imwrite(aside / "valid.png", covered.to(torch.uint8).numpy() * 255)
        maps = np.lib.format.open_memmap(aside / "defocus_px.npy", "w+", np.float32, (len(focus), *depth_m.shape))
        for index, distance in enumerate(focus):
            maps[index] = capture.camera.blur_radius_px(depth_m, distance, signed=True).numpy()
        maps.flush()
        del maps
        titles = [f"slice {i + 1}" for i in range(len(focus))] if capture.relative else None
        figure = defocus_figure(small.defocus_px[0].cpu(), focus.tolist(), titles)
        iio.imwrite(aside / "defocus.png", to_rgb(figure))
        facts["run"] = run_record()
        write_json(aside / "prediction.json", facts)
        _report(aside / "report.html", capture, estimator, stack, small, facts)
        for stale in ("depth_m.npy", "depth_mm.png", "pointcloud.ply", "relative_depth.npy"):
            (output_dir / stale).unlink(missing_ok=True)
        for file in aside.iterdir():
            file.replace(output_dir / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if capture.relative:
        print("relative depth from {min:.3g} to {max:.3g}, median {median:.3g}".format(**facts["relative_depth"]))
    else:
        print("depth from {min:.3g} m to {max:.3g} m, median {median:.3g} m".format(**facts["depth_m"]))


def _at_most(values, largest: int = 1200):
    """A map thinned out for a picture."""
    stride = -(-max(values.shape) // largest)
    return values[::stride, ::stride]


def _summary(values) -> dict[str, float]:
    return {"min": float(values.min()), "median": float(values.median()), "max": float(values.max())}


def _focal_length_px(capture: Capture) -> tuple[float, str]:
    """Focal length in pixels, and how it is known."""
    import math

    known = capture.photographs.camera
    if known["focal_length_m"] is not None and (known["pixel_pitch_m"] is not None or known["f_number"] is not None):
        origin = "known" if known["pixel_pitch_m"] is not None else "from the estimated blur scale"
        return capture.camera.focal_length_m / capture.camera.pixel_pitch_m, f"focal length {origin}"
    return 28 / math.hypot(36, 24) * math.hypot(*capture.photographs.size), "field of view assumed: 28 mm on 35 mm film"


def _report(
    path: Path, capture: Capture, estimator: DefocusEstimator, stack: FocalStack, small: Prediction, facts
) -> None:
    from sfdfd.report import Section, gallery, viewer, write_page

    unit = "" if capture.relative else "m"
    camera = {key: value for key, value in facts["camera"].items()}
    pairs = [(key, "not known" if value is None else f"{value:g}") for key, value in camera.items()]
    if not capture.relative:
        pairs.append(("focus distances", ", ".join(f"{value:.4g} m" for value in capture.focus_distances_m)))
        pairs.append(("depth range", f"{capture.near_m:.4g} to {capture.far_m:.4g} m"))
        pairs.append(("k = f\u00b2/(2Np)", f"{facts['blur_scale_px_m']:.4g} px m"))
    pairs += [(f"{key} from", value) for key, value in facts["sources"].items()]
    pairs += [(f"{key} is missing", f"give {value}") for key, value in facts["missing"].items()]
    pairs += [
        ("sigma_scale", f"{facts['sigma_scale']:g}"), ("started from", facts["start"]),
        ("size, worked at", "{1} x {0}, {3} x {2}".format(*facts["size"], *facts["working_size"])),
        ("re-rendered stack", f"{facts['stack_psnr_db']:.1f} dB PSNR"),
    ]  # fmt: skip
    if facts["refinement"]:
        pairs.append(("refinement", "{seconds:.1f} s, {steps} steps, energy {objective_start:.5f} to {objective:.5f}".format(
            **facts["refinement"])))  # fmt: skip
    header = ["slice", "shift px", "scale", "motion px", "residual px", "gain"]
    table = [
        [one["file"], "{:+.2f} {:+.2f}".format(*one["shift_px"]), f"{one['scale']:.5f}", one["motion_px"],
         one["residual_px"], " ".join(f"{g:.3f}" for g in gains)]
        for one, gains in zip(facts["alignment"]["slices"], facts["exposure_gains"], strict=True)
    ]  # fmt: skip
    sections = [
        Section(
            title="Refocus",
            text=[capture.statement, "Click into the picture to focus there; the sliders set focus and aperture."],
            viewer=viewer(stack, small, estimator.renderer, unit=unit),
        ),
        Section(title="Pictures", rows=gallery(stack, small, unit)),
        Section(title="Camera and method", facts=pairs, text=capture.notes),
        Section(
            title="Alignment and exposure",
            text=["Applied." if capture.aligned else "Estimated; not applied."],
            table={"header": header, "rows": table},
        ),
    ]
    write_page(path, f"sfdfd: {capture.photographs.name}", sections)


main = command("predict")(predict)

if __name__ == "__main__":
    main()
