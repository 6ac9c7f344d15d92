"""Predict one stack of photographs, or all stacks below a folder, from the settings of ``python -m sfdfd.predict``."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from sfdfd import __version__
from sfdfd.datasets.discovery import StackSource, find_stacks
from sfdfd.errors import InputError, checked_choice, checked_number
from sfdfd.inference.predict_photographs import (
    AlignSettings,
    PhotographSettings,
    prepare_photographs,
    refinement_seconds,
)
from sfdfd.inference.prior_method import MODEL
from sfdfd.inference.stages import Stages
from sfdfd.io.files import readable
from sfdfd.io.formats.video import VIDEO_SUFFIXES
from sfdfd.io.images import list_images
from sfdfd.io.retouch_file import Retouch
from sfdfd.io.stack_yaml import STACK_KEYS
from sfdfd.refinement.refiner import Refiner
from sfdfd.report.outputs import parse_outputs
from sfdfd.report.prediction_index import is_whole, row_facts, write_index
from sfdfd.report.progress_bar import refinement_progress
from sfdfd.report.progress_files import ProgressFiles
from sfdfd.runs.batch import Job, run_batch
from sfdfd.runs.cluster import spreading
from sfdfd.training.checkpoints import checkpoint_identity
from sfdfd.training.device import use_threads

__all__ = ["predict_found", "predict_stack", "predict_stacks"]

DEFAULT_LIMIT_S = 60.0
"""Time after which a prediction without given times is to be done."""
OnShare = Callable[[float], None]
"""Called with the share of the refinement that is done."""
WITHOUT_EFFECT = ("output_dir", "stacks", "stack", "threads", "device", "burst_gap_s", "cluster", "watch")
"""Settings that do not change the result of a stack: a finished stack is kept when they change."""


def predict_stack(
    settings: dict[str, Any], output_dir: Path, on_share: OnShare | None = None, begun_s: float | None = None
) -> dict[str, Any] | None:
    """Predict one stack into a folder.

    Args:
        settings: the command's, as plain values.
        output_dir: receives the files.
        on_share: replaces the progress bar.
        begun_s: :func:`time.monotonic` at which the time began to count; now by default.

    Returns:
        The content of ``prediction.json``; None where ``align.only`` wants no prediction.
    """
    say = partial(print, flush=True)
    outputs, refine = parse_outputs(settings["outputs"]), dict(settings["refine"])
    seconds = None if settings["seconds"] is None else checked_number(settings["seconds"], "seconds")
    limit_s = DEFAULT_LIMIT_S if seconds is None and refine["seconds"] is None else seconds
    refiner = Refiner(**{**refine, "seconds": refinement_seconds(seconds, refine["seconds"])})
    stages = Stages(say, limit_s, begun_s)
    photograph_settings = PhotographSettings(
        description={key: settings[key] for key in STACK_KEYS},
        holdout=settings["holdout"],
        score_full_size=checked_choice(settings["score_full_size"], "score_full_size", (True, False)),
        slices=settings["slices"],
        checkpoint=settings["checkpoint"],
        optics=settings["optics"]["renderer"],
        refiner=refiner,
        working_px=settings["working_px"],
        align=AlignSettings(**settings["align"]),
        device=settings["device"],
        seconds=limit_s,
        retouch=None if settings["retouch"] is None else Retouch.read(Path(str(settings["retouch"]))),
        prior=settings["prior"],
        prior_kind=settings["prior_kind"],
    )
    align = photograph_settings.align
    if settings["stack"] is None:
        raise InputError("give the folder with the slices, or a video: stack=DIR (or stack=example)")
    prepared = prepare_photographs(str(settings["stack"]), photograph_settings, say, stages)
    if align.save is not None:
        prepared.save_alignment(align.save)
        say(f"alignment written to {align.save}")
    if align.only:
        say(f"aligned slices written to {prepared.write_aligned(output_dir)}")
        return None
    with _progress(refiner, on_share) as progress:
        if settings["watch"] is not None:
            progress = ProgressFiles(Path(str(settings["watch"])), refiner, progress)
        prediction = prepared.predict(say, progress)
    facts = prediction.save(output_dir, list(outputs), say)
    say(f"written to {output_dir} in {stages.elapsed_s():.0f} s; open {output_dir / 'report.html'}")
    return facts


def _progress(refiner: Refiner, on_share: OnShare | None):
    if not refiner.enabled:
        return nullcontext()
    if on_share is None:
        return refinement_progress()
    return nullcontext(lambda share, step, energy: on_share(min(share, 0.99)))


def predict_stacks(settings: dict[str, Any], output_dir: Path) -> list[dict[str, Any]]:
    """Predict every stack below the folder ``settings["stacks"]``; return one row per stack.

    See :func:`sfdfd.runs.batch.run_batch` for the rows. Stacks that an earlier call finished with the same settings are
    skipped.
    """
    for key in ("save", "load"):
        if settings["align"][key] is not None:
            raise InputError(f"align.{key}: one file is of one stack; give stack=DIR, not stacks")
    if settings["retouch"] is not None:
        raise InputError("retouch: one file is of one stack; give stack=DIR, not stacks")
    if settings["prior"] is not None and not str(settings["prior"]).startswith(MODEL):
        raise InputError(
            "prior: one depth map is of one stack; give stack=DIR, or prior=transformers:MODEL_ID for many"
        )
    root, gap_s = Path(str(settings["stacks"])), checked_number(settings["burst_gap_s"], "burst_gap_s", least=0)
    found, ignored = find_stacks(root, gap_s, [output_dir])
    for reason in ignored:
        print(f"passed over: {readable(reason)}")
    print(f"{len(found)} stacks below {readable(str(root))}")
    depends_on = {key: value for key, value in settings.items() if key not in WITHOUT_EFFECT}
    depends_on |= {"weights": checkpoint_identity(settings["checkpoint"]), "sfdfd": __version__}
    title, thumbnails = f"sfdfd: {readable(root.resolve().name)}", dict[str, Any]()
    with spreading(settings["cluster"]) as spread:
        return run_batch(
            [Job(stack.name, [stack.identity(), depends_on], stack) for stack in found],
            output_dir.resolve(),
            partial(predict_found, settings),
            lambda rows: write_index(output_dir, title, rows, thumbnails),
            is_whole,
            None if settings["cluster"] is None else spread,
        )


def predict_found(
    settings: dict[str, Any], stack: StackSource, folder: Path, on_share: OnShare | None = None
) -> dict[str, Any]:
    """Predict one of many stacks into its folder; return the facts of its row."""
    use_threads(settings["threads"])  # the process may be a worker's
    with stack.opened() as source:
        files = settings["files"] if stack.files is None else list(stack.files)
        is_video = source.suffix.lower() in VIDEO_SUFFIXES if source.is_file() else not list_images(source)
        frames = settings["frames"] if is_video else None
        own_settings = {**settings, "stack": str(source), "files": files, "frames": frames}
        facts = predict_stack(own_settings, folder, on_share)
    gc.collect()
    return {} if facts is None else row_facts(facts)
