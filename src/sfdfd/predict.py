"""Predict: ``python -m sfdfd.predict stack=DIR``, or ``stacks=DIR`` for many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, plain, say_where_optics_differ
from sfdfd.runs.record import run_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.capture.capture import Capture
    from sfdfd.capture.left_out import LeftOut
    from sfdfd.data.found import FoundStack
    from sfdfd.data.photographs import Photographs
    from sfdfd.inference.estimator import DefocusEstimator
    from sfdfd.inference.refine import Refinement, Refiner
    from sfdfd.runs.many import Watch as Told
    from sfdfd.stack import FocalStack, Prediction


def predict(config: DictConfig) -> None:
    """Depth, all-in-focus image, confidence and a report of one stack, or of each of many, into the run folder."""
    from pathlib import Path

    from sfdfd.errors import InputError
    from sfdfd.training.device import use_threads

    settings = plain(config)
    use_threads(settings["threads"])
    output_dir = Path(settings["output_dir"])
    if settings["stacks"] is None:
        _predict_stack(settings, output_dir)
    elif settings["stack"] is not None:
        raise InputError("stack is one and stacks are many; give one of them")
    else:
        _predict_stacks(settings, output_dir)


def _predict_stacks(settings: dict[str, Any], output_dir: Path) -> None:
    """Every stack below a folder; exit code 1 where one of them failed."""
    import sys
    from functools import partial
    from pathlib import Path

    from sfdfd import predict as module  # as workers find it: this file may be __main__
    from sfdfd.data.cache import file_identity
    from sfdfd.data.files import readable
    from sfdfd.data.found import stacks_below
    from sfdfd.errors import InputError, checked_number
    from sfdfd.report.index import is_whole, table, write_index
    from sfdfd.runs.cluster import spreading
    from sfdfd.runs.many import Job, run_many

    for key in ("save", "load"):
        if settings["align"][key] is not None:
            raise InputError(f"align.{key}: one file is of one stack; give stack=DIR, not stacks")
    root, gap_s = Path(str(settings["stacks"])), checked_number(settings["burst_gap_s"], "burst_gap_s", least=0)
    found, passed = stacks_below(root, gap_s, [output_dir])
    for words in passed:
        print(f"passed over: {readable(words)}")
    print(f"{len(found)} stacks below {readable(str(root))}")
    apart = ("output_dir", "stacks", "stack", "threads", "device", "burst_gap_s", "cluster")
    same = {key: value for key, value in settings.items() if key not in apart}

    def identity(one: FoundStack) -> list[Any]:
        files = [one.source] if one.source.is_file() else sorted(p for p in one.source.iterdir() if p.is_file())
        known = [file_identity(file) for file in files if one.files is None or file.name in one.files]
        return known if one.sample is None else [*known, one.sample]

    title = f"sfdfd: {readable(root.resolve().name)}"
    with spreading(settings["cluster"]) as spread:
        rows = run_many(
            [Job(readable(one.name), [identity(one), same], one) for one in found],
            output_dir.resolve(),
            partial(module.predict_found, settings),
            lambda rows: write_index(output_dir, title, rows),
            is_whole,
            None if settings["cluster"] is None else spread,
        )
    print(table(rows))
    print(f"written to {output_dir}; open {output_dir / 'index.html'}")
    if any(row["status"] == "stopped" for row in rows):
        sys.exit(130)
    if any(row["status"] == "failed" for row in rows):
        sys.exit(1)


def predict_found(settings: dict[str, Any], one: FoundStack, folder: Path, told: Told | None = None) -> dict[str, Any]:
    """One of many stacks into its folder; what the table says of it."""
    import gc

    from sfdfd.data.images import list_images
    from sfdfd.report.index import facts_of
    from sfdfd.training.device import use_threads

    use_threads(settings["threads"])  # of a worker
    with one.opened() as source:
        files = settings["files"] if one.files is None else list(one.files)
        frames = None if source.is_dir() and list_images(source) else settings["frames"]  # those are of videos
        of_this = {"stack": str(source), "files": files, "frames": frames}
        facts = _predict_stack({**settings, **of_this}, folder, told)
    gc.collect()
    return {} if facts is None else facts_of(facts)


def _predict_stack(settings: dict[str, Any], output_dir: Path, told: Told | None = None) -> dict[str, Any] | None:
    """One stack into a folder; what ``prediction.json`` says of it, or None where only its alignment was wanted.

    ``told`` hears the share of the refinement that is done, in place of a progress bar.
    """
    from pathlib import Path

    from sfdfd.capture.alignments import load_alignment, save_alignment, write_aligned
    from sfdfd.capture.capture import Capture
    from sfdfd.capture.example import named_photographs
    from sfdfd.data.description import OPTICS_KEYS
    from sfdfd.data.images import USUAL_PX, working_px_for
    from sfdfd.inference.estimator import DefocusEstimator
    from sfdfd.inference.refine import Refiner
    from sfdfd.report.outputs import checked_outputs
    from sfdfd.report.prediction import write_prediction
    from sfdfd.report.watch import Watch
    from sfdfd.training.checkpoints import load_model, photograph_optics
    from sfdfd.training.device import pick_device

    refiner, outputs = Refiner(**settings["refine"]), checked_outputs(settings["outputs"])
    photographs = named_photographs(settings["stack"], settings)
    said_optics, described = settings["optics"]["renderer"], f"{settings['stack']}/stack.yaml"
    preferred, optics_sources = photograph_optics(said_optics, photographs.optics, described)
    module, renderer = load_model(settings["checkpoint"], said_optics, preferred={"method": "fast", **preferred})
    network = None if module is None else module.network
    estimator = DefocusEstimator(network, renderer, refiner, settings["working_px"], pick_device(settings["device"]))
    kept, aside = photographs.parted()
    unknown = "" if photographs.known_camera() else ", and estimating the blur scale, which is not known"
    print(f"registering {len(kept.images)} slices{unknown}", flush=True)
    align = _checked_align(settings["align"])
    capture = Capture.of(
        kept,
        renderer,
        align_mode=align["mode"],
        align_model=align["model"],
        exposure=align["exposure"],
        working_px=USUAL_PX if settings["working_px"] == "auto" else settings["working_px"],
        calibrate=not align["only"],
        alignment=None if align["load"] is None else load_alignment(Path(str(align["load"])), kept),
    )
    at_full_size = bool(photographs.left_out)  # what was passed over judges at the working size: there may be many
    described_optics = photographs.optics
    del kept, photographs  # and with them the slices as they were photographed
    _say(capture)
    if align["save"] is not None:
        save_alignment(Path(str(align["save"])), capture)
        print(f"alignment written to {align['save']}")
    if align["only"]:
        print(f"aligned slices written to {write_aligned(output_dir, capture, described_optics)}")
        return None
    optics = {key: renderer.options[key] for key in OPTICS_KEYS if key in renderer.options}
    for origin in dict.fromkeys(optics_sources.values()):
        values = [f"{key} {value}" for key, value in optics.items() if optics_sources[f"optics.{key}"] == origin]
        print(f"optics: {', '.join(values)}: from {origin}")
    if module is not None and capture.camera_source == "known":
        say_where_optics_differ(capture.camera.as_dict(), module.run_config["optics"]["camera"])
    working_px = working_px_for(settings["working_px"], capture.largest_blur_px(), max(capture.photographs.size))
    stack = capture.stack(working_px)
    with _progress(refiner, told) as progress:
        if settings["watch"] is not None:
            progress = Watch(Path(str(settings["watch"])), refiner, progress)
        small, refinement = estimator.solve(stack, progress)
    said = {
        "stack": str(settings["stack"]),
        "start": "plane sweep" if network is None else str(settings["checkpoint"]),
        "run": run_record(),
        "optics": optics,
        "working_px": working_px,
    }
    predicted = _predicted(capture, estimator, stack, small, {**said, **_refined(refinement)})
    predicted.facts["sources"].update(optics_sources)
    size = None if at_full_size else (stack.images.shape[-2], stack.images.shape[-1])
    left_out = _left_out(capture, aside, predicted.full if at_full_size else small, size, estimator, align)
    facts = write_prediction(output_dir, predicted, renderer, left_out, outputs)
    for name, one in facts["outputs"].items():
        if "not_written" in one:
            print(f"{name}: not written: {one['not_written']}")
    _say_means(facts["left_out_mean"])
    if capture.relative:
        print("relative depth from {min:.3g} to {max:.3g}, median {median:.3g}".format(**facts["relative_depth"]))
    else:
        print("depth from {min:.3g} m to {max:.3g} m, median {median:.3g} m".format(**facts["depth_m"]))
    print(f"written to {output_dir}; open {output_dir / 'report.html'}")
    return facts


def _checked_align(align: dict[str, Any]) -> dict[str, Any]:
    """The keys under ``align``, where they do not contradict each other."""
    from sfdfd.errors import InputError, checked_choice

    checked_choice(align["only"], "align.only", (True, False))
    if align["mode"] is False and align["load"] is not None:
        raise InputError("align.load gives an alignment and align.mode=false wants none; give one of them")
    return align


def _say(capture: Capture) -> None:
    """What was found out about the photographs."""
    photographs, alignment = capture.photographs, capture.alignment
    for key, source in photographs.sources.items():
        print(f"{key}: from {source}")
    for key, remedy in photographs.missing.items():
        print(f"{key}: not known; to give it: {remedy}")
    if not capture.aligned:
        largest = alignment.motion_px.max()
        print(f"alignment: not needed (slices move by at most {largest:.2g} px)" if largest <= 0.5 else "")
    else:
        of_each = (alignment.shift_px, alignment.scale, alignment.radial, alignment.residual_px)
        for file, shift, scale, radial, residual in zip(photographs.files, *of_each, strict=True):
            words = f"shift {shift[0]:+.2f} {shift[1]:+.2f} px, scale {scale:.5f}, distortion {radial:+.5f}, "
            words += f"residual {residual:.2g} px"
            print(f"aligned {file.name}: {words}")
    for note in capture.notes:
        print(f"note: {note}")
    print(capture.statement)


def _refined(refinement: Refinement | None) -> dict[str, Any]:
    """What the refinement did, said and as plain values."""
    if refinement is None:
        return {"refinement": None}
    stopped = ", stopped by you" if refinement.interrupted else ""
    print(
        f"refined for {refinement.seconds:.1f} s ({refinement.steps} steps{stopped}): "
        f"energy {refinement.objective_start:.5f} -> {refinement.objective:.5f}"
    )
    keys = ("seconds", "steps", "interrupted", "objective_start", "objective")
    lens = {} if refinement.lens is None else {name: value[0] for name, value in refinement.lens.as_dict().items()}
    std = {name: value[0] for name, value in (refinement.lens_std or {}).items()}
    if "k" in lens:
        print(
            f"lens: the stack asks for {lens['k']:.3f} +- {std['k']:.2g} times the known blur scale k; "
            "depth is that of the stack's own"
        )
    if "shape" in lens:
        print(f"lens: the PSF is {lens['shape']:.2f} +- {std['shape']:.2g} of the way from a disc to a Gaussian")
    if "softness" in lens:
        kind = "blurred even in focus" if lens["softness"] > 0 else "sharpened"
        print(f"lens: slices are {kind} ({lens['softness']:+.3f} +- {std['softness']:.2g} px^2)")
    if "curvature" in lens:
        print(
            f"lens: the surface of focus bends by {lens['curvature']:+.3f} +- {std['curvature']:.2g} of the depth range"
        )
    return {"refinement": {**{key: getattr(refinement, key) for key in keys}, "lens": lens, "lens_std": std}}


def _predicted(
    capture: Capture, estimator: DefocusEstimator, stack: FocalStack, small: Prediction, said: dict[str, Any]
) -> Any:
    """The prediction at the size of the photographs, and all that is to be said about it."""
    import torch

    from sfdfd.data.images import channels_first, to_float
    from sfdfd.inference.upsampling import enlarged, sharpest_slice
    from sfdfd.report.prediction import PredictedStack

    photographs, full = capture.photographs, small
    covered = None if capture.common.all() else capture.covered.mapped(torch.from_numpy)
    if stack.images.shape[-2:] != photographs.size:
        slices = [lambda i=i: to_float(photographs.images[i]) for i in range(len(photographs.images))]
        clipped = None if stack.clipped is None else capture.clipped.mapped(channels_first)
        full = enlarged(small, stack, slices, capture.camera, covered, defocus=False, clipped=clipped)
    return PredictedStack(
        name=photographs.name,
        stack=stack,
        small=small,
        full=full,
        camera=capture.camera,
        covered=torch.from_numpy(capture.common),
        relative=capture.relative,
        aligned=capture.aligned,
        focal_length_px=capture.focal_length_px,
        slice_index=sharpest_slice(full.depth_m[0].cpu(), stack.focus_distances_m[0], capture.camera, covered),
        facts={**said, **capture.facts(), "sigma_scale": estimator.renderer.options.get("sigma_scale")},
    )


def _left_out(
    capture: Capture,
    aside: Photographs,
    prediction: Prediction,
    size: tuple[int, int] | None,
    estimator: DefocusEstimator,
    align: dict[str, Any],
) -> Iterator[LeftOut]:
    """The slices kept aside, judged one by one, each said."""
    from sfdfd.capture.left_out import left_out_slices

    options = {"align_mode": align["mode"], "align_model": align["model"], "exposure": align["exposure"]}
    found = left_out_slices(
        capture, aside, prediction, estimator.renderer, size=size, device=estimator.device, **options
    )
    for one in found:
        print(f"left out {{index}} ({{file}}): {LEFT_OUT}".format(**one.facts))
        yield one


LEFT_OUT = (
    "rendered {psnr_db:.2f} dB, nearest slice {nearest_slice_psnr_db:.2f} dB, "
    "best blend of two {best_blend_psnr_db:.2f} dB"
)


def _say_means(means: dict[str, float] | None) -> None:
    if means is not None:
        print(f"left-out slices, mean: {LEFT_OUT}".format(**means))


def _progress(refiner: Refiner, told: Told | None = None):
    """A progress bar on a terminal, a line every five seconds elsewhere; or what ``told`` makes of the share."""
    import sys
    import time
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def reporting() -> Iterator[Callable[[float, int, float], None] | None]:
        console = Console(stderr=True, force_terminal=sys.stderr.isatty())  # FORCE_COLOR makes no terminal
        if not refiner.enabled:
            yield None
        elif told is not None:
            yield lambda share, step, energy: told(min(share, 0.99))
        elif console.is_terminal:
            columns = (TextColumn("refining (Ctrl-C keeps the best so far)"), BarColumn(), TimeRemainingColumn())
            figures = TextColumn("step {task.fields[step]}, energy {task.fields[energy]:.5f}")
            with Progress(*columns, figures, console=console) as bar:
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


main = command("predict")(predict)

if __name__ == "__main__":
    main()
