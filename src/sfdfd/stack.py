"""The types that all packages share: focal stacks (input), predictions (output), and methods that map one to the other.

Shapes: B batch, S slice, H height, W width. Images are RGB floats in [0, 1], lengths are metres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.image_tensors import (
    as_images,
    check_image_values,
    full_precision,
    is_half,
    pad_edges,
    pad_slices,
    resize_area,
)
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.optics.depth import one_sided_range
from sfdfd.optics.render import Renderer, defocus_map_px, without_channel

__all__ = ["FocalStack", "Method", "Prediction", "as_images", "full_precision", "renderer_for", "resize_area"]

PIXELWISE = ("images", "covered", "clipped", "depth_m", "aif", "valid")
"""The fields whose last two axes are the image's."""
SLICEWISE = ("images", "focus_distances_m", "slice_mask", "covered", "clipped")
"""The tensors whose second axis is the slice; cameras may have an f-number per slice, too."""
LENGTHS = ("focus_distances_m", "near_m", "far_m", "depth_m")
"""The fields in metres."""
SATURATED = 254.5 / 255
"""Values from here on are lower bounds of the brightness."""
Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class FocalStack:
    """A batch of focal stacks, with or without ground truth.

    Attributes:
        images: (B,S,3,H,W) the slices, RGB in [0, 1].
        focus_distances_m: (B,S) focus distance of each slice in metres, beyond the focal length; inf is allowed.
        camera: B cameras, of these pixels; where slices differ in aperture, with an f-number per slice (padding included).
        near_m: (B,) smallest depth that can occur, in metres.
        far_m: (B,) largest depth that can occur, in metres, > near_m.
        slice_mask: (B,S) true where a slice is real, false where it pads the batch.
        name: B names, for tables and pictures.
        depth_m: (B,H,W) true depth in metres, if known. Training reads it only where a config key says so.
        aif: (B,3,H,W) true all-in-focus image, if known; the same.
        valid: (B,H,W) true where depth_m is known and in range.
        covered: (B,S,H,W) in [0, 1], how far each pixel of a slice shows the scene (0 where alignment moved its border in);
            None: everywhere. Uncovered pixels count in no energy, confidence or metric.
        clipped: (B,S,3,H,W) true where a colour is a lower bound of the brightness, whatever its value: exposure gains and
            resampling move clipped values below white. None: only values at white are clipped; see :meth:`saturated`.
        size_px: B (height, width) of the real images, which lie at the top left of padded ones; None: nothing is padded.
        optics: B models of how the slices were blurred (:class:`sfdfd.optics.blur_model.BlurModel`), each None where
            unknown; None: unknown for all. Methods invert this physics, and their renderer's own where it is unknown.
        random_key: B numbers in [0, 2^63) that seed training's random choices for each sample (crop, flip, light, noise),
            from seed, epoch and sample (:mod:`sfdfd.datasets.sampling`); None: nothing is random.

    Examples:
        >>> camera = Camera(focal_length_m=0.05, f_number=8.0, pixel_pitch_m=1.2e-5)
        >>> stack = FocalStack.single(torch.rand(3, 3, 24, 32), [1.0, 2.0, 4.0], camera, near_m=0.5, far_m=10.0)
        >>> len(stack), stack.images.shape
        (1, torch.Size([1, 3, 3, 24, 32]))
        >>> len(FocalStack.collate([stack, stack]))
        2
    """

    images: Float[Tensor, "b s 3 h w"]
    focus_distances_m: Float[Tensor, "b s"]
    camera: tuple[Camera, ...]
    near_m: Float[Tensor, "b"]
    far_m: Float[Tensor, "b"]
    slice_mask: Bool[Tensor, "b s"]
    name: tuple[str, ...]
    depth_m: Float[Tensor, "b h w"] | None = None
    aif: Float[Tensor, "b 3 h w"] | None = None
    valid: Bool[Tensor, "b h w"] | None = None
    covered: Float[Tensor, "b s h w"] | None = None
    clipped: Bool[Tensor, "b s 3 h w"] | None = None
    size_px: tuple[tuple[int, int], ...] | None = None
    random_key: tuple[int, ...] | None = None
    optics: tuple[BlurModel | None, ...] | None = None

    @classmethod
    def single(
        cls,
        images: Tensor | np.ndarray,
        focus_distances_m: Sequence[float] | Tensor,
        camera: Camera,
        near_m: float,
        far_m: float,
        *,
        name: str = "",
        depth_m: Float[Tensor, "h w"] | Float[Tensor, "1 h w"] | None = None,
        aif: Tensor | np.ndarray | None = None,
        valid: Bool[Tensor, "h w"] | None = None,
        covered: Float[Tensor, "s h w"] | None = None,
        optics: BlurModel | Mapping[str, Any] | None = None,
        clipped: Bool[Tensor, "s 3 h w"] | None = None,
        side: str | None = None,
    ) -> FocalStack:
        """Return a checked batch of one.

        A stack whose slices differ in aperture alone does not tell the side of focus: its depth range is cut there.

        Args:
            images: (S,3,H,W) or (S,H,W,3), tensor or array, floats in [0, 1] or uint8 or uint16 codes; stored as float32.
            focus_distances_m: one per slice in metres.
            camera: of these pixels.
            near_m, far_m: depth range in metres.
            name: for tables and pictures.
            depth_m: (H,W) or (1,H,W) true depth in metres; without ``valid`` it counts where it is finite and in range.
            aif: (3,H,W) or (H,W,3) true all-in-focus image, of the types of ``images``.
            valid: (H,W) true where ``depth_m`` counts.
            covered: (S,H,W) in [0, 1], how far each pixel of a slice shows the scene.
            optics: how the slices were blurred, by name or as a :class:`sfdfd.optics.blur_model.BlurModel`.
            clipped: (S,3,H,W) true where a colour is a lower bound of the brightness.
            side: of the focus distance on which the scene lies if slices differ in aperture alone: "behind", "before", or
                None (:func:`sfdfd.optics.depth.one_sided_range`).

        Raises:
            InputError: an image has another shape, a value is not finite or not in [0, 1], the number of distances is not
                the number of slices, a distance lies inside the focal length, or near and far are not 0 < near < far.
        """
        images = as_images(images, 4, "images")
        aif = None if aif is None else as_images(aif, 3, "aif")
        depth_m = None if depth_m is None else without_channel(depth_m[None])[0].float()
        if optics is not None and not isinstance(optics, BlurModel):
            optics = BlurModel().updated(optics)
        focus = torch.as_tensor(focus_distances_m, dtype=torch.float32)
        _check_geometry(len(images), focus, camera, near_m, far_m)
        if camera.brackets_aperture and bool((focus == focus[0]).all()):
            near_m, far_m, _ = one_sided_range(near_m, far_m, float(focus[0]), side)
        if depth_m is not None and valid is None:
            valid = torch.isfinite(depth_m) & (depth_m >= near_m) & (depth_m <= far_m)
        return cls(
            images=images[None],
            focus_distances_m=focus[None],
            camera=(camera,),
            near_m=torch.tensor([near_m], dtype=torch.float32),
            far_m=torch.tensor([far_m], dtype=torch.float32),
            slice_mask=torch.ones(1, len(focus), dtype=torch.bool),
            name=(name,),
            depth_m=None if depth_m is None else depth_m[None],
            aif=None if aif is None else aif[None],
            valid=None if valid is None else valid[None],
            covered=None if covered is None else covered[None],
            optics=None if optics is None else (optics,),
            clipped=None if clipped is None else clipped[None],
        )

    @classmethod
    def collate(cls, stacks: Sequence[FocalStack]) -> FocalStack:
        """Join stacks to one batch.

        Shorter stacks are padded with masked slices, smaller images at the bottom and the right (see :meth:`split_by_size`).
        Where only some have truth, that of the others is NaN and valid nowhere; indexing makes it None again.

        Raises:
            InputError: only some have a ``random_key``.
        """
        if any(stack.size_px is not None for stack in stacks):
            stacks = [sample for stack in stacks for sample in stack]
        stacks, size_px = _pad_to_largest(_with_equal_masks(_with_equal_truth(stacks)))
        longest = max(stack.images.shape[1] for stack in stacks)
        names = [field.name for field in fields(cls) if field.name != "size_px"]
        values: dict[str, Any] = {name: _join_field(name, stacks, longest) for name in names}
        return cls(**values, size_px=size_px)

    def check(self) -> FocalStack:
        """Return the stack itself after checking its images.

        Raises:
            InputError: a pixel of a real slice is not finite, or far outside of [0, 1].
        """
        for name, images in zip(self.name, self.images, strict=True):
            check_image_values(images, f"images of {name}" if name else "images")
        return self

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> FocalStack:
        """Return sample ``index`` as a batch of one, without padding slices and pixels; negative indices count from the end.

        Raises:
            IndexError: there is no such sample.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a batch of {len(self)}")
        index %= len(self)
        sample = self._select([index])._without_unknown_truth()
        if self.size_px is not None:
            height, width = self.size_px[index]
            sample = replace(sample.cropped(0, height, 0, width), size_px=None)
        is_real = self.slice_mask[index]
        return sample if bool(is_real.all()) else sample.with_slices(is_real.nonzero()[:, 0].tolist())

    if (
        TYPE_CHECKING
    ):  # iteration uses __getitem__; with a real __iter__, Lightning would look for batches within a batch

        def __iter__(self) -> Iterator[FocalStack]: ...

    def _map(self, change: Callable[[Tensor], Tensor], names: Sequence[str] | None = None) -> FocalStack:
        """Return a copy with the tensors of these fields changed; of all fields by default."""
        names = [field.name for field in fields(self)] if names is None else names
        values = {name: getattr(self, name) for name in names}
        changes: dict[str, Any] = {key: change(value) for key, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changes)

    def _select(self, indices: Sequence[int]) -> FocalStack:
        """Return these samples, with their padding."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = tuple(value[i] for i in indices)
            values[field.name] = value if value is None or isinstance(value, tuple) else value[list(indices)]
        return FocalStack(**values)

    def _without_unknown_truth(self) -> FocalStack:
        """Replace truth that is NaN everywhere by None; :meth:`collate` fills unknown truth with NaN."""
        changes: dict[str, Any] = {}
        if self.depth_m is not None and bool(self.depth_m.isnan().all()):
            changes |= {"depth_m": None, "valid": None}
        if self.aif is not None and bool(self.aif.isnan().all()):
            changes["aif"] = None
        return replace(self, **changes)

    def split_by_size(self) -> list[tuple[list[int], FocalStack]]:
        """Return batches of one image size each, without padding: (indices into this batch, their stacks).

        What is computed on them equals that of an unpadded batch.
        """
        if self.size_px is None:
            return [(list(range(len(self))), self)]
        return [
            (indices, replace(self._select(indices).cropped(0, height, 0, width), size_px=None))
            for (height, width), indices in _indices_by_value(self.size_px).items()
        ]

    def split_by_optics(self) -> list[tuple[list[int], FocalStack]]:
        """Return batches that were blurred alike: (indices into this batch, their stacks)."""
        if self.optics is None or len(set(self.optics)) == 1:
            return [(list(range(len(self))), self)]
        return [(indices, self._select(indices)) for indices in _indices_by_value(self.optics).values()]

    def blur_radii_at_range_px(self) -> Float[Tensor, "b s 2"]:
        """Return the signed blur radius of every slice at near and at far in pixels, the extremes of the depth range."""
        ends = torch.stack([self.near_m, self.far_m], 1)[:, None]
        return defocus_map_px(ends, self.focus_distances_m, self.camera)[:, :, 0]

    def f_numbers(self) -> Float[Tensor, "b s"]:
        """Return the f-number of every slice."""
        count = self.images.shape[1]
        return self.focus_distances_m.new_tensor([camera.f_numbers(count) for camera in self.camera])

    def coverage(self) -> Float[Tensor, "b s h w"]:
        """Return the weight of every pixel of the stack: :attr:`covered` of real slices, 0 of padding slices."""
        mask = self.slice_mask[:, :, None, None].to(self.images)
        if self.covered is None:
            return mask.expand(-1, -1, *self.images.shape[-2:])
        return self.covered * mask

    def saturated(self) -> Bool[Tensor, "b s 3 h w"]:
        """Return where a colour is a lower bound of the brightness: at white or :attr:`clipped`, and covered."""
        saturated = self.images >= SATURATED
        if self.clipped is not None:
            saturated = saturated | self.clipped
        return saturated if self.covered is None else saturated & (self.covered > 0)[:, :, None]

    def cropped(self, top: int, bottom: int, left: int, right: int) -> FocalStack:
        """Crop every image and map to rows top to bottom and columns left to right, ends excluded; ``size_px`` stays."""
        return self._map(lambda value: value[..., top:bottom, left:right], PIXELWISE)

    def flipped(self, axes: Sequence[int]) -> FocalStack:
        """Flip every image and map of an unpadded batch along -2 (rows) or -1 (columns) or both."""
        return self._map(lambda value: value.flip(tuple(axes)), PIXELWISE)

    def with_resized_images(
        self, images: Float[Tensor, "b s 3 y x"], covered: Tensor | None = None, clipped: Tensor | None = None
    ) -> FocalStack:
        """Return the same scenes with images of another size and without truth; the cameras' pixel pitch follows.

        Args:
            images: (B,S,3,Y,X) the resized slices of an unpadded batch.
            covered: (B,S,Y,X) how far they show the scene.
            clipped: (B,S,3,Y,X) true where any of the averaged pixels was a lower bound of the brightness.
        """
        (height, width), (new_height, new_width) = self.images.shape[-2:], images.shape[-2:]
        factor = (new_height * new_width / (height * width)) ** 0.5
        cameras = tuple(camera.resized(factor) for camera in self.camera)
        return replace(self.without_truth(), images=images, covered=covered, clipped=clipped, camera=cameras)

    def resized(self, height: int, width: int) -> FocalStack:
        """Return the same scenes at another size, averaged over areas; the stack itself where it has that size."""
        if self.images.shape[-2:] == (height, width):
            return self
        covered = None if self.covered is None else resize_area(self.covered, height, width)
        saturated = self.saturated()
        clipped = resize_area(saturated.to(self.images), height, width) > 0 if saturated.any() else None
        return self.with_resized_images(resize_area(self.images, height, width), covered, clipped)

    def to(self, *args, **kwargs) -> FocalStack:
        """Move or convert every tensor, as :meth:`torch.Tensor.to` does (Lightning calls it with a device).

        Masks keep their type. Lengths are not converted to half precision, which has three digits.
        """

        def moved(value: Tensor) -> Tensor:
            converted = value.to(*args, **kwargs)
            return converted if value.is_floating_point() else converted.bool()

        stack = self._map(moved)
        lengths: dict[str, Any] = {}
        for key in LENGTHS:
            value, converted = getattr(self, key), getattr(stack, key)
            if value is not None and is_half(converted):
                lengths[key] = value.to(converted.device)
        return replace(stack, **lengths)

    def in_full_precision(self) -> FocalStack:
        """Convert half-precision tensors to float32, in which methods, losses and metrics compute; float64 stays."""
        return self._map(full_precision)

    def pin_memory(self) -> FocalStack:
        """Return the same batch in pinned memory (the DataLoader calls it)."""
        return self._map(lambda value: value.pin_memory())

    def with_slices(self, indices: Sequence[int] | Int[Tensor, "b n"]) -> FocalStack:
        """Return the batch with these slices, in this order; the same for every stack, or (B,N) for each its own."""
        as_tensor = indices if isinstance(indices, Tensor) else torch.tensor(list(indices), dtype=torch.long)
        slice_index = as_tensor.to(self.images.device)
        sample_index = torch.arange(len(self), device=slice_index.device)[:, None]
        stack = self._map(lambda value: value[sample_index, slice_index], SLICEWISE)
        if not any(camera.brackets_aperture for camera in self.camera):
            return stack
        rows = as_tensor.expand(len(self), -1).tolist()
        return replace(stack, camera=tuple(one.with_slices(row) for one, row in zip(self.camera, rows, strict=True)))

    def with_camera(self, camera: Camera | None) -> FocalStack:
        """Return the batch with a model's own camera; the batch itself where the model has none.

        Raises:
            InputError: the slices differ in aperture, and the model's camera has one.
        """
        if camera is not None and not camera.brackets_aperture and any(one.brackets_aperture for one in self.camera):
            raise InputError(
                "the slices differ in f-number, and this model works with one camera; checkpoint=pretrained works with any"
            )
        return self if camera is None else replace(self, camera=(camera,) * len(self))

    def with_optics(self, known: BlurModel | Mapping[str, Any] | None) -> FocalStack:
        """Return the batch with the blur that ``known`` describes in place of what the stack says.

        Examples:
            >>> from sfdfd.scenes.example_stack import example_stack
            >>> example_stack().with_optics({"psf": "disc"}).optics[0].psf
            'disc'
        """
        if known is None:
            return self
        optics = self.optics or (None,) * len(self)
        return replace(self, optics=tuple((model or BlurModel()).updated(known) for model in optics))

    def without_truth(self) -> FocalStack:
        """Return the batch without depth, AIF and validity mask, as training may see it."""
        return replace(self, depth_m=None, aif=None, valid=None)


def _check_geometry(slices: int, focus_distances_m: Tensor, camera: Camera, near_m: float, far_m: float) -> None:
    """Raise an InputError if focus distances and depth range do not fit the slices and the camera."""
    if focus_distances_m.shape != (slices,):
        raise InputError(
            f"expected {slices} focus distances, one per slice, got {focus_distances_m.numel()} (focus_distances_m)"
        )
    if not 0 < near_m < far_m:
        raise InputError(f"expected 0 < near_m < far_m, got {near_m} and {far_m} (near_m, far_m)")
    camera.blur_radius_px(1.0, focus_distances_m)  # refuses focus distances inside the focal length


def _indices_by_value(values: Sequence[Key]) -> dict[Key, list[int]]:
    """Return, for each distinct value, the indices at which it stands."""
    groups: dict[Key, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return groups


def _with_equal_truth(stacks: Sequence[FocalStack]) -> list[FocalStack]:
    """Give each stack the fields of truth that any of them has: NaN, and valid nowhere, where it is unknown."""
    keys = [key for key in ("depth_m", "aif", "valid") if any(getattr(stack, key) is not None for stack in stacks)]
    filled = []
    for stack in stacks:
        changes: dict[str, Any] = {key: _unknown_truth(stack, key) for key in keys if getattr(stack, key) is None}
        filled.append(replace(stack, **changes))
    return filled


def _unknown_truth(stack: FocalStack, key: str) -> Tensor:
    batch, height, width = len(stack), *stack.images.shape[-2:]
    if key == "valid" and stack.depth_m is not None:  # depth without a mask counts wherever it is a depth
        return torch.isfinite(stack.depth_m) & (stack.depth_m > 0)
    if key == "valid":
        return torch.zeros(batch, height, width, dtype=torch.bool, device=stack.images.device)
    shape = (batch, 3, height, width) if key == "aif" else (batch, height, width)
    return stack.images.new_full(shape, torch.nan)


def _with_equal_masks(stacks: Sequence[FocalStack]) -> list[FocalStack]:
    """Give each stack ``covered`` and ``clipped`` if any of them has it."""
    if any(stack.covered is not None for stack in stacks):
        stacks = [replace(stack, covered=stack.coverage()) for stack in stacks]
    if any(stack.clipped is not None for stack in stacks):
        stacks = [replace(stack, clipped=stack.saturated()) for stack in stacks]
    return list(stacks)


def _pad_to_largest(stacks: list[FocalStack]) -> tuple[list[FocalStack], tuple[tuple[int, int], ...] | None]:
    """Pad all stacks to the largest height and width; return them and their ``size_px``, None if all sizes are equal."""
    sizes = tuple((stack.images.shape[-2], stack.images.shape[-1]) for stack in stacks for _ in range(len(stack)))
    if len(set(sizes)) == 1:
        return stacks, None
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    return [_pad_images(stack, height, width) for stack in stacks], sizes


def _pad_images(stack: FocalStack, height: int, width: int) -> FocalStack:
    """Pad at the bottom and the right: masks with false, other maps with their edges."""
    padding = (0, width - stack.images.shape[-1], 0, height - stack.images.shape[-2])
    changes: dict[str, Any] = {}
    for key in PIXELWISE:
        value = getattr(stack, key)
        if value is not None:
            is_mask = key in ("valid", "covered", "clipped")
            changes[key] = F.pad(value, padding) if is_mask else pad_edges(value, height, width)
    return replace(stack, **changes)


def _padded_cameras(stacks: Sequence[FocalStack], slices: int) -> tuple[Camera, ...]:
    """Return the cameras of all stacks; a padding slice has the f-number of the last real one."""
    cameras: list[Camera] = []
    for stack in stacks:
        indices = [min(index, stack.images.shape[1] - 1) for index in range(slices)]
        cameras += [camera.with_slices(indices) for camera in stack.camera]
    return tuple(cameras)


def _join_field(key: str, stacks: Sequence[FocalStack], slices: int) -> Tensor | tuple | None:
    """Concatenate a field of all stacks along the batch, padded to a number of slices."""
    values = [getattr(stack, key) for stack in stacks]
    if all(value is None for value in values):
        return None
    if key == "camera":
        return _padded_cameras(stacks, slices)
    if key == "optics":  # may be unknown for some
        values = [(None,) * len(stack) if stack.optics is None else stack.optics for stack in stacks]
    if any(value is None for value in values):
        raise InputError(f"a batch needs {key} for all of its samples or for none")
    if isinstance(values[0], tuple):
        return tuple(item for value in values for item in value)
    if key in SLICEWISE:
        values = [pad_slices(value, slices, repeat_last=key == "focus_distances_m") for value in values]
    return torch.cat(values)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method predicts for a batch of stacks.

    Attributes:
        depth_m: (B,H,W) depth in metres, within the stack's [near_m, far_m].
        aif: (B,3,H,W) all-in-focus image, RGB in [0, 1].
        defocus_px: (B,S,H,W) signed blur radius in pixels under that depth; positive behind the focus distance.
        rendered: (B,S,3,H,W) the stack rendered from this depth and AIF; None where it was not rendered.
        confidence: (B,H,W) in (0, 1], see :mod:`sfdfd.refinement.confidence`; None where it was not computed.
        depth_std_m: (B,H,W) standard deviation of the depth in metres; None where it was not computed.
        beyond_range: (B,H,W) 1 where a surface lies beyond far_m and -1 where nearer than near_m, sharp in no slice and
            so of unknown depth; 0 elsewhere. None where it was not computed. See :mod:`sfdfd.inference.out_of_range`.

    Examples:
        >>> from sfdfd.scenes.example_stack import example_stack
        >>> stack = example_stack()
        >>> from sfdfd.inference.methods import SweepMethod
        >>> from sfdfd.optics import DefocusRenderer
        >>> prediction = SweepMethod(DefocusRenderer(sigma_scale=0.5))(stack)
        >>> prediction.depth_m.shape, prediction.defocus_px.shape
        (torch.Size([1, 48, 64]), torch.Size([1, 5, 48, 64]))
    """

    depth_m: Float[Tensor, "b h w"]
    aif: Float[Tensor, "b 3 h w"]
    defocus_px: Float[Tensor, "b s h w"]
    rendered: Float[Tensor, "b s 3 h w"] | None
    confidence: Float[Tensor, "b h w"] | None = None
    depth_std_m: Float[Tensor, "b h w"] | None = None
    beyond_range: Float[Tensor, "b h w"] | None = None

    def _map(self, change: Callable[[Tensor], Tensor]) -> Prediction:
        values: dict[str, Any] = {key: None if value is None else change(value) for key, value in vars(self).items()}
        return Prediction(**values)

    def __getitem__(self, index: int) -> Prediction:
        """Return one sample as a batch of one."""
        return self._map(lambda value: value[index][None])

    def to(self, *args, **kwargs) -> Prediction:
        """Move or convert every tensor, as :meth:`torch.Tensor.to` does."""
        return self._map(lambda value: value.to(*args, **kwargs))

    def in_full_precision(self) -> Prediction:
        """Convert half-precision tensors to float32; float64 stays."""
        return self._map(full_precision)

    @classmethod
    def collate(cls, predictions: Sequence[Prediction]) -> Prediction:
        """Join predictions as :meth:`FocalStack.collate` joins their stacks: edges are repeated, padding slices are 0.

        A field that one of them lacks is None.
        """
        height, width = (max(one.depth_m.shape[axis] for one in predictions) for axis in (-2, -1))
        longest = max(one.defocus_px.shape[1] for one in predictions)
        values: dict[str, Any] = {}
        for field in fields(cls):
            maps = [getattr(one, field.name) for one in predictions]
            if any(value is None for value in maps):
                values[field.name] = None
                continue
            maps = [pad_edges(value, height, width) for value in maps]
            if field.name in ("defocus_px", "rendered"):
                maps = [pad_slices(value, longest) for value in maps]
            values[field.name] = torch.cat(maps)
        return cls(**values)


@runtime_checkable
class Method(Protocol):
    """A method turns focal stacks into predictions: a network, depth from focus, a constant, refinement of another method.

    Commands, API and benchmarks all call these objects (:mod:`sfdfd.inference`).

    Examples:
        >>> from sfdfd.inference.methods import NetworkMethod
        >>> from sfdfd.networks import classical_network
        >>> from sfdfd.optics import DefocusRenderer
        >>> isinstance(NetworkMethod(classical_network, DefocusRenderer()), Method)
        True
    """

    def __call__(self, stack: FocalStack) -> Prediction:
        """Predict without reading the stack's truth."""


def renderer_for(stack: FocalStack, renderer: Renderer) -> Renderer:
    """Return a renderer like this one that blurs as the stack was blurred; itself where that is unknown.

    Raises:
        InputError: the samples of the batch were blurred differently (:meth:`FocalStack.split_by_optics` separates them).
    """
    models = set(stack.optics or (None,))
    if len(models) > 1:
        raise InputError(
            "optics: the stacks of this batch were blurred differently; predict them apart (split_by_optics)"
        )
    model = models.pop()
    return renderer if model is None else model.applied_to(renderer)
