"""Predict: ``python -m sfdfd.predict stack=DIR``, or ``stacks=DIR`` for many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.datasets.discovery import FoundStack
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.runs.batch import Watch as Told


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

    from sfdfd import __version__
    from sfdfd import predict as module  # as workers find it: this file may be __main__
    from sfdfd.datasets.discovery import stacks_below
    from sfdfd.errors import InputError, checked_number
    from sfdfd.io.files import readable
    from sfdfd.report.prediction_index import is_whole, table, write_index
    from sfdfd.runs.batch import Job, run_many
    from sfdfd.runs.cluster import spreading
    from sfdfd.training.checkpoints import checkpoint_identity

    for key in ("save", "load"):
        if settings["align"][key] is not None:
            raise InputError(f"align.{key}: one file is of one stack; give stack=DIR, not stacks")
    root, gap_s = Path(str(settings["stacks"])), checked_number(settings["burst_gap_s"], "burst_gap_s", least=0)
    found, passed = stacks_below(root, gap_s, [output_dir])
    for words in passed:
        print(f"passed over: {readable(words)}")
    print(f"{len(found)} stacks below {readable(str(root))}")
    apart = ("output_dir", "stacks", "stack", "threads", "device", "burst_gap_s", "cluster", "watch")
    same = {key: value for key, value in settings.items() if key not in apart}
    same |= {"weights": checkpoint_identity(settings["checkpoint"]), "sfdfd": __version__}
    title, thumbnails = f"sfdfd: {readable(root.resolve().name)}", dict[str, Any]()
    with spreading(settings["cluster"]) as spread:
        rows = run_many(
            [Job(one.name, [one.identity(), same], one) for one in found],
            output_dir.resolve(),
            partial(module.predict_found, settings),
            lambda rows: write_index(output_dir, title, rows, thumbnails),
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

    from sfdfd.io.formats.video import VIDEO_SUFFIXES
    from sfdfd.io.images import list_images
    from sfdfd.report.prediction_index import facts_of
    from sfdfd.training.device import use_threads

    use_threads(settings["threads"])  # of a worker
    with one.opened() as source:
        files = settings["files"] if one.files is None else list(one.files)
        is_video = source.suffix.lower() in VIDEO_SUFFIXES if source.is_file() else not list_images(source)
        frames = settings["frames"] if is_video else None
        of_this = {"stack": str(source), "files": files, "frames": frames}
        facts = _predict_stack({**settings, **of_this}, folder, told)
    gc.collect()
    return {} if facts is None else facts_of(facts)


def _predict_stack(settings: dict[str, Any], output_dir: Path, told: Told | None = None) -> dict[str, Any] | None:
    """One stack into a folder; what ``prediction.json`` says of it, or None where only its alignment was wanted.

    ``told`` hears the share of the refinement that is done, in place of a progress bar.
    """
    from functools import partial
    from pathlib import Path

    from sfdfd.errors import InputError
    from sfdfd.inference.photographs import AlignSettings, PhotographSettings, prepare_photographs
    from sfdfd.io.stack_yaml import STACK_KEYS
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.report.outputs import checked_outputs
    from sfdfd.report.progress_files import Watch

    say = partial(print, flush=True)
    refiner, outputs = Refiner(**settings["refine"]), checked_outputs(settings["outputs"])
    chosen = PhotographSettings(
        told={key: settings[key] for key in STACK_KEYS},
        holdout=settings["holdout"],
        slices=settings["slices"],
        checkpoint=settings["checkpoint"],
        optics=settings["optics"]["renderer"],
        refiner=refiner,
        working_px=settings["working_px"],
        align=AlignSettings(**settings["align"]),
        device=settings["device"],
    )
    stack = settings["stack"]
    if stack is None:
        raise InputError("give the folder with the slices, or a video: stack=DIR (or stack=example)")
    prepared = prepare_photographs(str(stack), chosen, say)
    if chosen.align.save is not None:
        prepared.save_alignment(chosen.align.save)
        say(f"alignment written to {chosen.align.save}")
    if chosen.align.only:
        say(f"aligned slices written to {prepared.write_aligned(output_dir)}")
        return None
    with _progress(refiner, told) as progress:
        if settings["watch"] is not None:
            progress = Watch(Path(str(settings["watch"])), refiner, progress)
        prediction = prepared.predict(say, progress)
    facts = prediction.save(output_dir, list(outputs), say)
    say(f"written to {output_dir}; open {output_dir / 'report.html'}")
    return facts


def _progress(refiner: Refiner, told: Told | None = None):
    """A progress bar on a terminal, a line every five seconds elsewhere; or what ``told`` makes of the share."""
    import math
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
            with Progress(*columns, TextColumn("{task.fields[figures]}"), console=console) as bar:
                task = bar.add_task("", total=1.0, figures="")  # there is no energy before the first step
                yield lambda share, step, energy: bar.update(
                    task, completed=share, figures=f"step {step}, energy {energy:.5f}" if math.isfinite(energy) else ""
                )
        else:
            last = [time.monotonic()]

            def line(share: float, step: int, energy: float) -> None:
                if time.monotonic() - last[0] >= 5:
                    last[0] = time.monotonic()
                    figures = f", step {step}, energy {energy:.5f}" if math.isfinite(energy) else ""
                    print(f"refining: {share:.0%}{figures}", flush=True)

            yield line

    return reporting()


main = command("predict")(predict)

if __name__ == "__main__":
    main()
