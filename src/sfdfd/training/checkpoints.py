"""Checkpoints, read as data.

A checkpoint carries its resolved config and its weights. Its parts are built from the table of our classes
(:mod:`sfdfd.registry`) with plain values as arguments. No dotted path in it is followed, no interpolation resolved.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sfdfd.errors import InputError, checked_number
from sfdfd.io.downloads import sha256_of
from sfdfd.io.files import atomic_write
from sfdfd.io.stack_yaml import OPTICS_KEYS
from sfdfd.networks.interface import predict_stack
from sfdfd.optics.blur_model import PHOTOGRAPH_BLUR
from sfdfd.optics.camera import Camera
from sfdfd.optics.options import RenderOptions
from sfdfd.optics.render import DefocusRenderer, Renderer
from sfdfd.registry import parts_of
from sfdfd.stack import FocalStack, Prediction
from sfdfd.training.loop_position import LoopPosition, loop_position_of
from sfdfd.training.wandb_artifacts import PREFIX, downloaded

__all__ = [
    "CONFIG_KEY",
    "DEFAULT_OPTICS",
    "NO_RENDERER_SHORTCUTS",
    "PHOTOGRAPH_OPTICS",
    "PRETRAINED",
    "TrainedModel",
    "checkpoint_identity",
    "checkpoint_path",
    "load_checkpoint",
    "load_model",
    "load_run",
    "load_weights",
    "loop_position_or_error",
    "model_camera",
    "photograph_optics",
    "resume_position",
    "save_weights",
]

CONFIG_KEY = "sfdfd_config"
"""Key of the resolved config in a checkpoint."""
PRETRAINED = Path(__file__).resolve().parents[1] / "weights" / "pretrained.ckpt"
"""Weights trained on procedural scenes, in the package (docs/reference/results.md)."""
DEFAULT_OPTICS = {"sigma_scale": 0.5}
NO_RENDERER_SHORTCUTS = {"window_px": None, "smallest_radius_px": 0.0, "copied_radius_px": 0.0}
"""Options that switch off the shortcuts of published renderers."""
PHOTOGRAPH_OPTICS: dict[str, Any] = {**PHOTOGRAPH_BLUR.known(), **NO_RENDERER_SHORTCUTS}
"""How photographs are blurred, whatever a checkpoint was trained on (as in ``conf/data/recorded.yaml``): disc, linear light,
occlusion. ``sigma_scale`` counts where the PSF is no disc."""
OLD_NAMES = {
    "sfdfd.losses.SelfSupervisedLoss": "sfdfd.measures.losses.SelfSupervisedLoss",
    "sfdfd.networks.attention.FocusAttentionNet": "sfdfd.networks.focus_attention.FocusAttentionNet",
    "sfdfd.networks.sweep.PlaneSweepNet": "sfdfd.networks.plane_sweep.PlaneSweepNet",
}
"""Class names in older checkpoints -> current names."""
REMOVED_ARGUMENTS: dict[str, tuple[str, ...]] = {"sfdfd.measures.losses.SelfSupervisedLoss": ("coarse_blur",)}
"""Arguments in older checkpoints that their classes no longer have."""
DEFAULT_RENDERER = f"{DefocusRenderer.__module__}.{DefocusRenderer.__name__}"
PACKAGES = {"network": "sfdfd.networks", "renderer": "sfdfd.optics", "loss": "sfdfd.measures"}


def checkpoint_path(checkpoint: str | Path) -> Path:
    """Return the file of a path, "pretrained", or a W&B artifact (:mod:`sfdfd.training.wandb_artifacts`)."""
    if str(checkpoint).startswith(PREFIX):
        return downloaded(str(checkpoint))
    return PRETRAINED if str(checkpoint) == "pretrained" else Path(str(checkpoint))


def checkpoint_identity(checkpoint: str | Path | None) -> str | None:
    """Return the SHA-256 of a checkpoint's content, which changes if weights are retrained under the same path; None
    for None.

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
    """Write the weights in half precision, without optimizer and loops.

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
    """Read one of our checkpoints without unpickling objects; ``key`` is the config key that names it in errors.

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
    is_tensor_table = isinstance(weights, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
        for name, value in weights.items()
    )
    if not is_tensor_table or not isinstance(content[CONFIG_KEY], dict):
        raise InputError(f"{key}={path}: its state_dict is no table of (dense) tensors, or its config no mapping")
    return content


def _build_part(node: Any, role: str, where: str) -> Any:
    """Build the part that a checkpoint's config node describes, from our table.

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
        return all(_is_plain(element) for element in value)
    if isinstance(value, str):
        return "${" not in value
    return value is None or isinstance(value, (bool, int, float))


class TrainedModel(nn.Module):
    """A network with the optics, the camera and the config that it was trained with.

    Args:
        network: stack -> depth and AIF.
        renderer: the model's optics.
        camera: the model's camera, where it is not that of the stacks.
        run_config: the resolved config of its run.
    """

    network: Any  # an nn.Module that is a Network

    def __init__(
        self, network: nn.Module, renderer: Renderer, camera: Camera | None, run_config: dict[str, Any]
    ) -> None:
        super().__init__()
        # convolutions are about twice as fast on CPUs
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in torch's stubs
        self.renderer, self.camera, self.run_config = renderer, camera, run_config

    def forward(self, stack: FocalStack) -> Prediction:
        return predict_stack(self.network, self.renderer, stack.with_camera(self.camera))


def load_run(
    checkpoint: str | Path,
    optics_overrides: Mapping[str, Any] | None = None,
    preferred: Mapping[str, Any] | None = None,
) -> TrainedModel:
    """Rebuild the trained model from its checkpoint, in evaluation mode.

    Args:
        checkpoint: the path.
        optics_overrides: options of the renderer that replace the checkpoint's, e.g. ``{"sigma_scale": 1.0}``.
        preferred: options that replace the checkpoint's if the renderer has them.

    Raises:
        InputError: the file is no checkpoint of ours, or does not fit its own config.
    """
    content, where = load_checkpoint(checkpoint), f"checkpoint={checkpoint}"
    config = content[CONFIG_KEY]
    try:
        nodes = {"network": config["network"], "renderer": config["optics"]["renderer"]}
    except (KeyError, TypeError):
        raise InputError(f"{where}: its config lacks network or optics") from None
    with torch.device("meta"):  # compares shapes before any memory is allocated
        expected = _build_part(nodes["network"], "network", where).state_dict()
    _check_fit({name: value.shape for name, value in expected.items()}, content["state_dict"], where)
    if isinstance(nodes["renderer"], dict):
        accepted = {key: value for key, value in (preferred or {}).items() if _has_option(nodes["renderer"], key)}
        nodes["renderer"] = {**nodes["renderer"], **accepted, **(optics_overrides or {})}
    parts = {role: _build_part(node, role, where) for role, node in nodes.items()}
    model = TrainedModel(**parts, camera=model_camera(config), run_config=config)
    model.load_state_dict(content["state_dict"])
    return model.eval()


def _has_option(renderer: Mapping[str, Any], option: str) -> bool:
    """Return whether the renderer of a config node was built with an option or, for our own renderer, accepts it."""
    return option in renderer or (
        renderer.get("_target_") == DEFAULT_RENDERER and option in RenderOptions.__dataclass_fields__
    )


def _check_fit(shapes: Mapping[str, torch.Size], weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Refuse weights of another network than this one."""
    remaining = {name.removeprefix("network."): tuple(value.shape) for name, value in weights.items()}
    for name, shape in shapes.items():
        if remaining.pop(name, None) != tuple(shape):
            raise InputError(f"{where}: its weights do not fit its network (network.{name})")
    if remaining:
        raise InputError(f"{where}: its weights do not fit its network ({next(iter(remaining))} is not part of it)")


def load_weights(module: nn.Module, checkpoint: str) -> None:
    """Load the weights of another run into the module.

    Raises:
        InputError: the file is no checkpoint of ours, or of another network.
    """
    weights = load_checkpoint(checkpoint, "checkpoint")["state_dict"]
    _check_same_network(module, weights, f"checkpoint={checkpoint}")
    module.load_state_dict(weights)


def resume_position(module: nn.Module, resume: str | Path) -> LoopPosition:
    """Return the position from which a checkpoint's run can continue.

    Raises:
        InputError: it holds weights alone, or is of another network.
    """
    where = f"resume={resume}"
    content = load_checkpoint(resume, "resume")
    if not content.get("optimizer_states") or "loops" not in content:
        raise InputError(f"{where}: it holds weights alone; start a new run from them: checkpoint={resume}")
    _check_same_network(module, content["state_dict"], where)
    return loop_position_or_error(content, where)


def loop_position_or_error(content: dict[str, Any], where: str) -> LoopPosition:
    """Return the position of a checkpoint's run.

    Raises:
        InputError: its loops are not as Lightning writes them.
    """
    try:
        position = loop_position_of(content)
        if all(type(count) is int and count >= 0 for count in position):
            return position
        reason = str(position)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = repr(error)
    raise InputError(f"{where}: expected a run to continue, but its loops are none that Lightning writes ({reason})")


def _check_same_network(module: nn.Module, weights: Mapping[str, torch.Tensor], where: str) -> None:
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if expected != {name: tuple(value.shape) for name, value in weights.items()}:
        raise InputError(f"{where}: these weights are of another network")


def model_camera(config: Mapping[str, Any]) -> Camera | None:
    """Return the model's camera (``optics.camera``) if it differs from the data's, scaled to the images (``data.resize``).

    None means that the stacks' own cameras hold.

    Raises:
        InputError: only a part of it is given.
    """
    keys = ("focal_length_m", "f_number", "pixel_pitch_m")
    optics, data = config.get("optics"), config.get("data")
    model = (optics.get("camera") if isinstance(optics, Mapping) else None) or {}
    data = data if isinstance(data, Mapping) else {}
    data_camera = data.get("camera") or {}
    values = {key: model.get(key) for key in keys}
    if all(_is_same_number(values[key], data_camera.get(key)) for key in keys):
        return None
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise InputError(f"optics.camera: expected all of {', '.join(keys)}, got no {missing[0]}")
    resize = data.get("resize") or 1.0
    checked = {key: checked_number(value, f"optics.camera.{key}") for key, value in values.items()}
    return Camera(**checked).resized(checked_number(resize, "data.resize"))


def _is_same_number(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-6)
    except (TypeError, ValueError):
        return False


def load_model(
    checkpoint: str | Path | None, optics: Mapping[str, Any], preferred: Mapping[str, Any] | None = None
) -> tuple[TrainedModel | None, Renderer]:
    """Return the trained model and its renderer; without a checkpoint, None and the renderer that ``optics`` names.

    A network with ``requires_defocus`` learns no optics: it uses the renderer that ``optics`` names, too.

    Args:
        checkpoint: a path, "pretrained" (the weights in the package), or None.
        optics: options of the renderer, with its class as ``_target_`` (ours if None). An option that is None is not
            given. Of a checkpoint with a renderer of its own, ``_target_`` is ignored.
        preferred: options that replace the checkpoint's, or the default, if the renderer has them.

    Examples:
        >>> module, renderer = load_model("pretrained", {})
        >>> type(module.network).__name__, renderer.sigma_scale
        ('PlaneSweepNet', 0.5)
    """
    overrides = {key: value for key, value in optics.items() if value is not None and key != "_target_"}
    if checkpoint is None:
        return None, _named_renderer({"_target_": DEFAULT_RENDERER, **optics}, overrides, preferred)
    if optics.get("_target_") is None:
        module = load_run(checkpoint, overrides, preferred)
        return module, module.renderer
    module = load_run(checkpoint, {}, preferred)
    if module.network.requires_defocus:
        return module, _named_renderer(optics, overrides, preferred)
    return load_model(checkpoint, overrides, preferred)


def _named_renderer(
    node: Mapping[str, Any], overrides: Mapping[str, Any], preferred: Mapping[str, Any] | None
) -> Renderer:
    name = node["_target_"]
    cls = parts_of(PACKAGES["renderer"]).get(name) if isinstance(name, str) else None
    if cls is None:
        raise InputError(f"optics.renderer: {name!r} is no renderer of sfdfd")
    defaults = {key: value for key, value in {**DEFAULT_OPTICS, **(preferred or {})}.items() if _has_option(node, key)}
    return cls(**{**defaults, **overrides})


def photograph_optics(
    overrides: Mapping[str, Any], described: Mapping[str, Any], file_name: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the optics of photographs for :func:`load_model`'s ``preferred``, and the source of each option.

    The command line comes first, then ``stack.yaml``, then :data:`PHOTOGRAPH_OPTICS`, then the checkpoint.

    Args:
        overrides: options on the command line; None is not given.
        described: options in ``stack.yaml``.
        file_name: of ``stack.yaml``, for the sources.
    """
    sources = {}
    for key in OPTICS_KEYS:
        origin = file_name if key in described else "default for photographs"
        sources[f"optics.{key}"] = origin if overrides.get(key) is None else "command line"
    return {**PHOTOGRAPH_OPTICS, **described}, sources
