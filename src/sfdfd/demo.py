"""The demonstration: ``python -m sfdfd.demo``, minutes of training from nothing, and a page that shows what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import command, plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from omegaconf import DictConfig

    from sfdfd.optics.render import Renderer
    from sfdfd.stack import FocalStack, Method, Prediction

FIRST_UNSEEN = 2_000_000
"""Number of the first procedural scene that no training sees."""


def demo(config: DictConfig) -> None:
    """Train, predict unseen scenes by several methods, write ``index.html``, open it where there is a desktop."""
    from pathlib import Path

    from sfdfd.errors import InputError, checked_choice, checked_whole
    from sfdfd.training.device import use_threads

    settings = plain(config)
    checked_whole(settings["scenes"], "scenes", 1)
    wanted = checked_choice(str(settings["open"]).lower(), "open", ("auto", "true", "false"))
    use_threads(settings["threads"])
    output_dir = Path(settings["output_dir"])
    training = output_dir / "training"
    _train(training, [str(one) for one in settings["train"]])
    checkpoint = training / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise InputError(f"{training}: no checkpoint; the training was stopped before it had one")
    page = _write(output_dir, checkpoint, settings["scenes"], settings["refine"])
    print(f"\nThe page: {page}")
    if wanted == "true" or (wanted == "auto" and _has_desktop()):
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _train(folder: Path, overrides: list[str]) -> None:
    """``python -m sfdfd.train experiment=procedural`` as a user would, with its own progress.

    Raises:
        InputError: it failed.
    """
    import subprocess
    import sys

    from sfdfd.errors import InputError

    line = [sys.executable, "-m", "sfdfd.train", "experiment=procedural", f"output_dir={folder}", *overrides]
    print("python", *line[1:], flush=True)
    if code := subprocess.run(line, check=False).returncode:
        raise InputError(f"the training ended with exit code {code}; its own words stand above")


def _methods(checkpoint: Path, refine: Mapping[str, Any]) -> tuple[dict[str, Method], Renderer]:
    """What the page compares, from plain to best."""
    from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod
    from sfdfd.networks.classical import classical_network
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.training.checkpoints import load_model

    fresh, renderer = load_model(checkpoint, {})
    shipped, _ = load_model("pretrained", {})
    assert fresh is not None and shipped is not None
    seconds = refine.get("seconds", 0)
    return {
        "classical depth from focus": NetworkMethod(classical_network, renderer),
        "the network, trained just now": NetworkMethod(fresh.network, renderer),
        "the weights in the package": NetworkMethod(shipped.network, renderer),
        f"refinement, {seconds:g} s, no network": RefinedMethod(SweepMethod(renderer), Refiner(**refine), renderer),
    }, renderer


def _write(output_dir: Path, checkpoint: Path, scenes: int, refine: Mapping[str, Any]) -> Path:
    """``index.html``: a scene that refocuses, depth by every method, figures, and how the training went."""
    from sfdfd.measures.metrics import image_metrics
    from sfdfd.report.html import Section, viewer, write_page
    from sfdfd.scenes.example_stack import example_stack

    methods, renderer = _methods(checkpoint, refine)
    stacks = [example_stack(FIRST_UNSEEN + index, 240, 320) for index in range(scenes)]
    found: dict[str, list[Prediction]] = {}
    for name, method in methods.items():
        print(f"{name}: {scenes} unseen scenes", flush=True)
        found[name] = [method(stack.without_truth()) for stack in stacks]
    best = found[list(methods)[-1]]
    header = ["method", "AbsRel", "RMSE m", "delta1", "AIF dB"]
    keys = ("depth/abs_rel", "depth/rmse", "depth/delta1", "aif/psnr")
    rows = []
    for name, predictions in found.items():
        each = [image_metrics(one, stack).as_dicts()[0] for one, stack in zip(predictions, stacks, strict=True)]
        rows.append([name, *(f"{sum(one[key] for one in each) / len(each):.3f}" for key in keys)])
    loop = "Five photographs of a scene, each focused elsewhere, went in, and nothing else: no depth, no all-in-focus image."
    shown = [_row(stack, {name: each[i] for name, each in found.items()}) for i, stack in enumerate(stacks)]
    sections = [
        Section(
            title="Click to refocus", viewer=viewer(stacks[0], best[0], renderer),
            text=[f"{loop} What moves here was rendered from the depth and the sharp image that came out."],
        ),
        Section(title="Depth, by method", rows=shown),
        Section(
            title="How good", table={"header": header, "rows": rows},
            text=[f"Means over the {scenes} unseen scenes above. Their slices were made by the renderer that explains them: "
                  "such figures compare methods, and say nothing about photographs (docs/reference/results.md has those)."],
        ),
        Section(title="How the training went", rows=[{"title": "", "pictures": _curves(checkpoint.parents[1])}]),
    ]  # fmt: skip
    page = output_dir / "index.html"
    write_page(page, "sfdfd: depth from defocus, learned from focal stacks alone", sections)
    return page


def _row(stack: FocalStack, found: Mapping[str, Prediction]) -> dict[str, Any]:
    """The sharp image, and every method's depth on the truth's scale."""
    from sfdfd.report.html import picture

    assert stack.depth_m is not None
    near_m, far_m = float(stack.depth_m.min()), float(stack.depth_m.max())
    best = found[list(found)[-1]]
    pictures = [picture("the photograph focused nearest", stack.images[0, 0]), picture("all in focus", best.aif[0])]
    pictures += [_depth(name, one.depth_m[0], near_m, far_m) for name, one in reversed(list(found.items()))]
    pictures.append(_depth("the truth, which nobody saw", stack.depth_m[0], near_m, far_m))
    return {"title": f"{near_m:.2g} m (bright) to {far_m:.2g} m (dark), linear in inverse depth", "pictures": pictures}


def _depth(title: str, depth_m: torch.Tensor, near_m: float, far_m: float) -> dict[str, str]:
    from sfdfd.report.html import picture
    from sfdfd.report.pictures import colour_depth

    return picture(title, colour_depth(depth_m.cpu().numpy(), near_m, far_m))


def _curves(run: Path) -> list[dict[str, str]]:
    """The reconstruction error, which trained it, and the depth error, which nothing looked at."""
    from matplotlib.figure import Figure

    from sfdfd.io.run_record import logged
    from sfdfd.report.html import picture
    from sfdfd.report.pictures import to_rgb

    pictures = []
    for key, said in (
        ("val/reconstruction", "reconstruction error of unseen stacks: the only teacher"),
        ("truth/depth_abs_rel", "relative depth error: logged, never looked at"),
    ):
        points = [(step + 1, value) for step, value in logged(run, key)]
        if not points:
            continue
        figure = Figure(figsize=(6, 3.2), dpi=110, layout="constrained")
        axis = figure.subplots()
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, color="#2b6cb0")
        axis.set(xlabel="training step", ylim=(0, None))
        axis.grid(alpha=0.3)
        pictures.append(picture(said, to_rgb(figure)))
    return pictures


def _has_desktop() -> bool:
    import os
    import sys

    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


main = command("demo")(demo)

if __name__ == "__main__":
    main()
