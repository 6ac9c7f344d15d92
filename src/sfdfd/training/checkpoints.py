"""Checkpoints: what a run leaves, read as data.

A checkpoint carries its resolved config and its weights. Its parts are built from the table of our classes
(:mod:`sfdfd.registry`), with plain values for arguments; no dotted path in it is ever followed, no interpolation resolved.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sfdfd.errors import InputError, checked_number
from sfdfd.io.downloads import sha256_of
from sfdfd.io.files import atomic_write
from sfdfd.io.stack_yaml import OPTICS_KEYS
from sfdfd.optics.blur_model import PHOTOGRAPH_BLUR
from sfdfd.optics.camera import Camera
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.registry import parts_of
from sfdfd.training.loop_position import LoopPosition, loop_position_of
from sfdfd.training.module import CONFIG_KEY, DepthFromDefocus
from sfdfd.training.wandb_artifacts import PREFIX, downloaded

__all__ = [
    "DEFAULT_OPTICS",
    "PHOTOGRAPH_OPTICS",
    "PRETRAINED",
    "UNWINDOWED",
    "checked_loop_position",
    "checkpoint_identity",
    "checkpoint_path",
    "load_checkpoint",
    "load_model",
    "load_run",
    "load_weights",
    "model_camera",
    "photograph_optics",
    "resumable",
    "save_weights",
]

PRETRAINED = Path(__file__).resolve().parents[1] / "weights" / "pretrained.ckpt"
"""Weights trained on procedural scenes, in the package (docs/results.md)."""
DEFAULT_OPTICS = {"sigma_scale": 0.5}
UNWINDOWED = {"window_px": None, "smallest_radius_px": 0.0, "copied_radius_px": 0.0}
"""What published renderers do, not done."""
PHOTOGRAPH_OPTICS: dict[str, Any] = {**PHOTOGRAPH_BLUR.known(), **UNWINDOWED}
"""How photographs are blurred, whatever a checkpoint learnt from: light adds, lenses have round apertures, what is in front
covers (``conf/data/recorded.yaml`` says the same). ``sigma_scale`` counts where the PSF is no disc."""
OLD_NAMES = {
    "sfdfd.losses.SelfSupervisedLoss": "sfdfd.measures.losses.SelfSupervisedLoss",
    "sfdfd.networks.attention.FocusAttentionNet": "sfdfd.networks.focus_attention.FocusAttentionNet",
    "sfdfd.networks.sweep.PlaneSweepNet": "sfdfd.networks.plane_sweep.PlaneSweepNet",
}
"""Names of classes in older checkpoints, and today's."""
REMOVED_ARGUMENTS: dict[str, tuple[str, ...]] = {"sfdfd.measures.losses.SelfSupervisedLoss": ("coarse_blur",)}
"""Arguments in older checkpoints that their classes no longer have."""
OURS = f"{DefocusRenderer.__module__}.{DefocusRenderer.__name__}"
PACKAGES = {"network": "sfdfd.networks", "renderer": "sfdfd.optics", "loss": "sfdfd.measures"}


def checkpoint_path(checkpoint: str | Path) -> Path:
    """The file that a user means: a path, "pretrained", or an artifact of W&B (:mod:`sfdfd.training.wandb_artifacts`)."""
    if str(checkpoint).startswith(PREFIX):
        return downloaded(str(checkpoint))
    return PRETRAINED if str(checkpoint) == "pretrained" else Path(str(checkpoint))


def checkpoint_identity(checkpoint: str | Path | None) -> str | None:
    """Return the SHA-256 of a checkpoint's content, which tells weights that were trained anew under the same path; None
    where there is no checkpoint.

    Raises:
        InputError: the file is missing.
    """
    if checkpoint is None:
        return None
    path = checkpoint_path(checkpoint)
    if not path.is_file():
        raise InputError(f"checkpoint={path}: no such file")
    return sha256_of(path)


def save_weights(path: Path, weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
    """Write a checkpoint in half precision without what only training needs.

    Examples:
        >>> import tempfile
        >>> module, _ = load_model("pretrained", {})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(Path(folder, "mine.ckpt"), module.state_dict(), module.run_config)
        ...     again, _ = load_model(Path(folder, "mine.ckpt"), {})
        >>> type(again.network).__name__
        'PlaneSweepNet'
    """
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    with atomic_write(path) as part:
        torch.save({"state_dict": halved, CONFIG_KEY: config}, part)


def load_checkpoint(checkpoint: str | Path, key: str = "checkpoint") -> dict[str, Any]:
    """The content of one of our checkpoints, never unpickling objects; ``key`` is what the user gave it as.

    Raises:
        InputError: the file is missing, not a checkpoint, or not one of ours.
    """
    path = checkpoint_path(checkpoint)
    if not path.is_file():
        raise InputError(f"{key}={path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or foreign file raises
        raise InputError(
            f"{key}={path}: not a readable checkpoint ({(str(error) or repr(error)).splitlines()[0]})"
        ) from None
    if not isinstance(content, dict) or CONFIG_KEY not in content or "state_dict" not in content:
        raise InputError(f"{key}={path}: not a checkpoint of sfdfd (it carries no {CONFIG_KEY})")
    weights = content["state_dict"]
    plain = isinstance(weights, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
        for name, value in weights.items()
    )
    if not plain or not isinstance(content[CONFIG_KEY], dict):
        raise InputError(f"{key}={path}: its state_dict is no table of (dense) tensors, or its config no mapping")
    return content


def _built(node: Any, role: str, where: str) -> Any:
    """The part of a checkpoint that a config node describes, from our table.

    Raises:
        InputError: it names no class of the table, or has arguments that are not plain values or do not fit.
    """
    if not isinstance(node, dict):
        raise InputError(f"{where}: its {role} is no mapping")
    name = node.get("_target_")
    current = OLD_NAMES.get(name, name) if isinstance(name, str) else ""
    cls = parts_of(PACKAGES[role]).get(current)
    if cls is None:
        raise InputError(f"{where}: its config wants to build {name!r}, which is no {role} of sfdfd")
    dropped = ("_target_", *REMOVED_ARGUMENTS.get(current, ()))
    arguments = {key: value for key, value in node.items() if key not in dropped}
    for key, value in arguments.items():
        if not isinstance(key, str) or key.startswith("_") or not _is_plain(value):
            raise InputError(f"{where}: {role}.{key}: expected a plain value, got {str(value)[:80]!r}")
    try:
        inspect.signature(cls).bind(**arguments)
        return cls(**arguments)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{where}: its {role} cannot be built ({str(error)[:200]})") from None


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(one) for one in value)
    if isinstance(value, str):
        return "${" not in value
    return value is None or isinstance(value, (bool, int, float))


def load_run(
    checkpoint: str | Path,
    optics_overrides: Mapping[str, Any] | None = None,
    preferred: Mapping[str, Any] | None = None,
) -> DepthFromDefocus:
    """The trained module from its checkpoint alone: network, the model's optics, camera and loss, in evaluation mode.

    Args:
        checkpoint: the path.
        optics_overrides: options of the renderer that differ from the checkpoint's, e.g. ``{"sigma_scale": 1.0}``.
        preferred: options that a renderer takes in place of the checkpoint's where it knows them.

    Raises:
        InputError: the file is no checkpoint of ours, or does not fit its own config.
    """
    content, where = load_checkpoint(checkpoint), f"checkpoint={checkpoint}"
    config = content[CONFIG_KEY]
    try:
        nodes = {"network": config["network"], "renderer": config["optics"]["renderer"], "loss": config["loss"]}
    except (KeyError, TypeError):
        raise InputError(f"{where}: its config lacks network, optics or loss") from None
    with torch.device("meta"):  # shapes before memory: what does not fit is never allocated
        shapes = {name: value.shape for name, value in _built(nodes["network"], "network", where).state_dict().items()}
    _check_fit(shapes, content["state_dict"], where)
    if isinstance(nodes["renderer"], dict):
        known = {key: value for key, value in (preferred or {}).items() if _knows(nodes["renderer"], key)}
        nodes["renderer"] = {**nodes["renderer"], **known, **(optics_overrides or {})}
    parts = {role: _built(node, role, where) for role, node in nodes.items()}
    module = DepthFromDefocus(**parts, camera=model_camera(config), run_config=config)
    module.load_state_dict(content["state_dict"])
    return module.eval()


def _knows(renderer: Mapping[str, Any], option: str) -> bool:
    """Whether a renderer of a checkpoint takes an option: one that it was made with, or any of ours if it is ours."""
    return option in renderer or (renderer.get("_target_") == OURS and option in RenderOptions.__dataclass_fields__)


def _check_fit(shapes: Mapping[str, torch.Size], weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse weights of another network than this one."""
    found = {name.removeprefix("network."): tuple(value.shape) for name, value in weights.items()}
    for name, shape in shapes.items():
        if found.pop(name, None) != tuple(shape):
            raise InputError(f"{where}: its weights do not fit its network (network.{name})")
    if found:
        raise InputError(f"{where}: its weights do not fit its network ({next(iter(found))} is not part of it)")


def load_weights(module: DepthFromDefocus, weights_path: str) -> None:
    """Give the module the weights of another run.

    Raises:
        InputError: no checkpoint of ours, or of another network.
    """
    weights = load_checkpoint(weights_path, "weights_path")["state_dict"]
    _check_same_network(module, weights, f"weights_path={weights_path}")
    module.load_state_dict(weights)


def resumable(module: DepthFromDefocus, ckpt_path: str | Path) -> LoopPosition:
    """Where a run can be continued from a checkpoint.

    Raises:
        InputError: it holds weights alone, or is of another network.
    """
    where = f"ckpt_path={ckpt_path}"
    content = load_checkpoint(ckpt_path, "ckpt_path")
    if not content.get("optimizer_states") or "loops" not in content:
        raise InputError(f"{where}: it holds weights alone; start a new run from them: weights_path={ckpt_path}")
    _check_same_network(module, content["state_dict"], where)
    return checked_loop_position(content, where)


def checked_loop_position(content: dict[str, Any], where: str) -> LoopPosition:
    """Where the run of a checkpoint is.

    Raises:
        InputError: its loops are not as Lightning writes them.
    """
    try:
        place = loop_position_of(content)
        if all(type(one) is int and one >= 0 for one in place):
            return place
        reason = str(place)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = repr(error)
    raise InputError(f"{where}: expected a run to continue, but its loops are none that Lightning writes ({reason})")


def _check_same_network(module: DepthFromDefocus, weights: Mapping[str, torch.Tensor], where: str) -> None:
    mine = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if mine != {name: tuple(value.shape) for name, value in weights.items()}:
        raise InputError(f"{where}: these weights are of another network")


def model_camera(config: Mapping[str, Any]) -> Camera | None:
    """The model's camera (``optics.camera``) for the images as they come (``data.resize``), where it is not the data's;
    None where the stacks' own cameras hold.

    Raises:
        InputError: it is given in part.
    """
    keys = ("focal_length_m", "f_number", "pixel_pitch_m")
    optics, data = config.get("optics"), config.get("data")
    model = (optics.get("camera") if isinstance(optics, Mapping) else None) or {}
    data = data if isinstance(data, Mapping) else {}
    theirs = data.get("camera") or {}
    given = {key: model.get(key) for key in keys}
    if all(_same(given[key], theirs.get(key)) for key in keys):
        return None
    missing = [key for key, value in given.items() if value is None]
    if missing:
        raise InputError(f"optics.camera: expected all of {', '.join(keys)}, got no {missing[0]}")
    resize = data.get("resize") or 1.0
    checked = {key: checked_number(value, f"optics.camera.{key}") for key, value in given.items()}
    return Camera(**checked).resized(checked_number(resize, "data.resize"))


def _same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    try:
        return math.isclose(float(one), float(other), rel_tol=1e-6)
    except (TypeError, ValueError):
        return False


def load_model(
    checkpoint: str | Path | None, optics: Mapping[str, Any], preferred: Mapping[str, Any] | None = None
) -> tuple[DepthFromDefocus | None, Renderer]:
    """The trained module and its renderer, with what the command line says of the optics; without a checkpoint, none and
    the renderer that the command line names (ours where it names none), with ``DEFAULT_OPTICS``. A network that is told the
    blur (``requires_defocus``) has no renderer of its own: it takes the one that is named, too.

    Args:
        checkpoint: a path, "pretrained" (the weights that the package carries), or None.
        optics: options of the renderer; None says nothing, and of a checkpoint with a renderer of its own ``_target_``
            neither.
        preferred: options in place of the checkpoint's or the default, where the renderer knows them.

    Examples:
        >>> module, renderer = load_model("pretrained", {})
        >>> type(module.network).__name__, renderer.options["sigma_scale"]
        ('PlaneSweepNet', 0.5)
    """
    said = {key: value for key, value in optics.items() if value is not None and key != "_target_"}
    if checkpoint is None:
        return None, _named_renderer({"_target_": OURS, **optics}, said, preferred)
    if optics.get("_target_") is None:
        module = load_run(checkpoint, said, preferred)
        return module, module.renderer
    module = load_run(checkpoint, {}, preferred)
    if getattr(module.network, "requires_defocus", False):
        return module, _named_renderer(optics, said, preferred)
    return load_model(checkpoint, said, preferred)


def _named_renderer(node: Mapping[str, Any], said: Mapping[str, Any], preferred: Mapping[str, Any] | None) -> Renderer:
    name = node["_target_"]
    cls = parts_of(PACKAGES["renderer"]).get(name) if isinstance(name, str) else None
    if cls is None:
        raise InputError(f"optics.renderer: {name!r} is no renderer of sfdfd")
    known = {key: value for key, value in {**DEFAULT_OPTICS, **(preferred or {})}.items() if _knows(node, key)}
    return cls(**{**known, **said})


def photograph_optics(
    said: Mapping[str, Any], described: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """The optics that photographs have unless the command line says otherwise: for :func:`load_model`'s ``preferred``, so
    that ``stack.yaml`` comes before :data:`PHOTOGRAPH_OPTICS`, and these before the checkpoint.

    Args:
        said: options on the command line; None says nothing.
        described: what ``stack.yaml`` says.
        where: what that file is called.

    Returns:
        The options, and for each that photographs decide where its value comes from, in words.
    """
    sources = {}
    for key in OPTICS_KEYS:
        origin = where if key in described else "default for photographs"
        sources[f"optics.{key}"] = origin if said.get(key) is None else "command line"
    return {**PHOTOGRAPH_OPTICS, **described}, sources
