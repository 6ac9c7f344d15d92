"""The demonstration: ``python -m sfdfd.demo`` trains for minutes and writes a page of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfdfd.runs.command import as_plain_dict, command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from omegaconf import DictConfig

    from sfdfd.optics.render import Renderer
    from sfdfd.stack import Method, Prediction

FIRST_UNSEEN = 2_000_012
"""Number of the first procedural scene on the page; from 2,000,000 on no training sees them. This one has much in it."""
EXPLANATIONS = {
    "classical": "At each pixel, take the distance of the photograph that is sharpest there. Nothing is learned.",
    "trained": "A small network that this demonstration has just trained, from focal stacks alone.",
    "pretrained": "The weights in the package: a larger network, trained on other scenes by many cameras.",
    "refined": "No network: for up to {seconds:g} s a scene, change depth and sharp image until the photographs that they "
    "would give match the input.",
}
"""What each method does, in a sentence."""


def demo(config: DictConfig) -> None:
    """Train, predict unseen scenes by several methods, write ``index.html``, and open it where there is a desktop."""
    from pathlib import Path

    from sfdfd.errors import InputError, checked_choice, checked_int
    from sfdfd.training.device import use_threads

    settings = as_plain_dict(config)
    checked_int(settings["scenes"], "scenes", 1)
    opens = checked_choice(str(settings["open"]).lower(), "open", ("auto", "true", "false"))
    use_threads(settings["threads"])
    output_dir = Path(settings["output_dir"])
    training = output_dir / "training"
    _train(training, [str(override) for override in settings["train"]])
    checkpoint = training / "checkpoints" / "best.ckpt"
    if not checkpoint.is_file():
        raise InputError(f"{training}: no checkpoint; the training was stopped before it wrote one")
    page = _predict_and_write(output_dir, checkpoint, settings["scenes"], settings["refine"])
    print(f"\nThe page: {page}")
    if opens == "true" or (opens == "auto" and _has_desktop()):
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _train(folder: Path, overrides: list[str]) -> None:
    """Run ``python -m sfdfd.train experiment=procedural`` as a user would.

    Raises:
        InputError: the training failed.
    """
    import subprocess
    import sys

    from sfdfd.errors import InputError

    arguments = [sys.executable, "-m", "sfdfd.train", "experiment=procedural", f"output_dir={folder}", *overrides]
    print("python", *arguments[1:], flush=True)
    if code := subprocess.run(arguments, check=False).returncode:
        raise InputError(f"the training ended with exit code {code}; see its output above")


def _methods(checkpoint: Path, refine: Mapping[str, Any]) -> tuple[dict[str, Method], Renderer]:
    """Return the methods that the page compares, from plain to best, and the renderer of the training."""
    from sfdfd.inference.methods import NetworkMethod, RefinedMethod, SweepMethod
    from sfdfd.networks.classical import classical_network
    from sfdfd.refinement.refiner import Refiner
    from sfdfd.training.checkpoints import load_model

    trained, renderer = load_model(checkpoint, {})
    pretrained, _ = load_model("pretrained", {})
    assert trained is not None and pretrained is not None
    return {
        "classical": NetworkMethod(classical_network, renderer),
        "trained": NetworkMethod(trained.network, renderer),
        "pretrained": NetworkMethod(pretrained.network, renderer),
        "refined": RefinedMethod(SweepMethod(renderer), Refiner(**refine), renderer),
    }, renderer


def _predict_and_write(output_dir: Path, checkpoint: Path, scenes: int, refine: Mapping[str, Any]) -> Path:
    """Predict unseen scenes by every method; return the path of the page."""
    from sfdfd.report.demo_page import write_demo_page
    from sfdfd.scenes.example_stack import example_stack

    methods, renderer = _methods(checkpoint, refine)
    stacks = [example_stack(FIRST_UNSEEN + index, 240, 320) for index in range(scenes)]
    predictions: dict[str, list[Prediction]] = {}
    for name, method in methods.items():
        print(f"{name}: {scenes} unseen scenes", flush=True)
        predictions[name] = [method(stack.without_truth()) for stack in stacks]
    page = output_dir / "index.html"
    explanations = {name: text.format(**refine) for name, text in EXPLANATIONS.items()}
    write_demo_page(page, stacks, predictions, explanations, renderer, checkpoint.parents[1])
    return page


def _has_desktop() -> bool:
    import os
    import sys

    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


main = command("demo")(demo)

if __name__ == "__main__":
    main()
