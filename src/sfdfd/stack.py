"""The words that cross rooms: what goes in, what comes out, and what turns the one into the other.

Below this file plain tensors, above it these.

Shapes: B batch, S slice, H height, W width. Images are RGB floats in [0, 1], lengths are metres.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sfdfd.errors import InputError
from sfdfd.optics.blur_model import BlurModel
from sfdfd.optics.camera import Camera
from sfdfd.optics.render import Renderer, defocus_map_px, without_channel

__all__ = ["FocalStack", "Method", "Prediction", "as_images", "full_precision", "renderer_for", "resize_area"]

PIXELWISE = ("images", "covered", "clipped", "depth_m", "aif", "valid")
"""The fields whose last two axes are the image's."""
SLICEWISE = ("images", "focus_distances_m", "slice_mask", "covered", "clipped")
"""The fields whose second axis is the slice."""
SATURATED = 254.5 / 255
"""From here on a value says only "at least so bright"."""
LENGTHS = ("focus_distances_m", "near_m", "far_m", "depth_m")
"""The fields in metres."""


@dataclass(frozen=True, eq=False)
class FocalStack:
    """A batch of focal stacks, with or without truth.

    Attributes:
        images: (B,S,3,H,W) the slices, RGB in [0, 1].
        focus_distances_m: (B,S) focus distance of each slice in metres, beyond the focal length; inf is allowed.
        camera: B cameras, of these pixels.
        near_m: (B,) smallest depth that can occur, in metres.
        far_m: (B,) largest depth that can occur, in metres, > near_m.
        slice_mask: (B,S) true where a slice is real, false where it only pads the batch.
        name: B names, for tables and pictures.
        depth_m: (B,H,W) true depth in metres, if known; never read in training unless a config key says so.
        aif: (B,3,H,W) true all-in-focus image, if known; the same.
        valid: (B,H,W) true where depth_m is known and in range.
        covered: (B,S,H,W) in [0, 1], how far each pixel of a slice shows something (0 where alignment moved its border
            in); None: everywhere. What is not covered counts in no energy, confidence or metric.
        clipped: (B,S,3,H,W) true where a colour of a slice says only "at least so bright", whatever its value is now:
            exposure gains and resampling bring clipped values below white. None: what is at white is clipped, nothing else;
            see :meth:`saturated`.
        size_px: B (height, width) of the real images, which lie at the top left of padded ones; None: nothing is padded.
        optics: B models of how the slices were blurred (:class:`sfdfd.optics.blur_model.BlurModel`), each None where nobody
            knows; None: of no sample. Methods invert this physics, and their renderer's own where it is not known.
        random_key: B numbers in [0, 2^63), of what training draws at random about each sample (crop, flip, light, noise), from
            seed, epoch and sample alone (:mod:`sfdfd.datasets.sampling`); None: nothing was drawn.

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
    ) -> FocalStack:
        """Make a batch of one, checked.

        Args:
            images: (S,3,H,W), or (S,H,W,3), tensor or array: floats in [0, 1], or uint8 or uint16 codes; float32 afterwards.
            focus_distances_m: one per slice in metres.
            camera: of these pixels.
            near_m, far_m: depth range in metres.
            name: for tables and pictures.
            depth_m: (H,W) or (1,H,W) true depth in metres; counts where it is finite and in range, unless ``valid`` says it.
            aif: (3,H,W) or (H,W,3) true all-in-focus image, of any type that ``images`` may have.
            valid: (H,W) true where ``depth_m`` counts.
            covered: (S,H,W) in [0, 1], how far each pixel of a slice shows something.
            optics: how the slices were blurred, by name or as a :class:`sfdfd.optics.blur_model.BlurModel`.
            clipped: (S,3,H,W) true where a colour of a slice says only "at least so bright".

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
        if focus.shape != images.shape[:1]:
            raise InputError(
                f"expected {images.shape[0]} focus distances, one per slice, got {focus.numel()} (focus_distances_m)"
            )
        if not 0 < near_m < far_m:
            raise InputError(f"expected 0 < near_m < far_m, got {near_m} and {far_m} (near_m, far_m)")
        camera.blur_radius_px(1.0, focus)  # refuses focus distances inside the focal length
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

    def check(self) -> FocalStack:
        """Return the stack itself, once its images are known to be images.

        Raises:
            InputError: a pixel of a real slice is not finite, or far outside of [0, 1].
        """
        for name, images in zip(self.name, self.images, strict=True):
            _check_values(images, f"images of {name}" if name else "images")
        return self

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> FocalStack:
        """Sample ``index`` as a batch of one, without its padding slices and pixels; negative ones count from the end.

        Raises:
            IndexError: there is no such sample.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a batch of {len(self)}")
        index %= len(self)
        one = self._chosen([index])._without_unknown_truth()
        if self.size_px is not None:
            one = replace(one.cropped(0, self.size_px[index][0], 0, self.size_px[index][1]), size_px=None)
        real = self.slice_mask[index]
        return one if bool(real.all()) else one._with(SLICEWISE, lambda value: value[:, real])

    if TYPE_CHECKING:  # iteration goes by index; were this there, Lightning would look for batches within a batch

        def __iter__(self) -> Iterator[FocalStack]: ...

    def _with(self, keys: Sequence[str], change) -> FocalStack:
        """The tensors of these fields changed, those that are there."""
        return replace(self, **{key: change(value) for key in keys if (value := getattr(self, key)) is not None})

    def _chosen(self, indices: Sequence[int]) -> FocalStack:
        """These samples, padded as they are."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                value = tuple(value[i] for i in indices)
            values[field.name] = value if value is None or isinstance(value, tuple) else value[list(indices)]
        return FocalStack(**values)

    def _without_unknown_truth(self) -> FocalStack:
        """None in place of truth that is NaN everywhere (:meth:`collate`)."""
        changes: dict[str, Any] = {}
        if self.depth_m is not None and bool(self.depth_m.isnan().all()):
            changes |= {"depth_m": None, "valid": None}
        if self.aif is not None and bool(self.aif.isnan().all()):
            changes["aif"] = None
        return replace(self, **changes)

    @classmethod
    def collate(cls, stacks: Sequence[FocalStack]) -> FocalStack:
        """One batch of many; shorter stacks are padded with masked slices, smaller images at the bottom and the right
        (``size_px`` then says what is real; see :meth:`parts`). Where only some have truth, that of the others is NaN and no
        pixel of it is valid; indexing makes it None again.

        Raises:
            InputError: only some have a ``random_key``.
        """
        if any(stack.size_px is not None for stack in stacks):
            stacks = [one for stack in stacks for one in stack]
        stacks = _truth_for_all(stacks)
        sizes = [(stack.images.shape[-2], stack.images.shape[-1]) for stack in stacks for _ in range(len(stack))]
        size_px: tuple[tuple[int, int], ...] | None = None
        if any(stack.covered is not None for stack in stacks):
            stacks = [replace(stack, covered=stack.coverage()) for stack in stacks]
        if any(stack.clipped is not None for stack in stacks):
            stacks = [replace(stack, clipped=stack.saturated()) for stack in stacks]
        if len(set(sizes)) > 1:
            largest = tuple(max(size[axis] for size in sizes) for axis in (0, 1))
            size_px, stacks = tuple(sizes), [stack._padded(*largest) for stack in stacks]
        longest = max(stack.images.shape[1] for stack in stacks)

        def joined(key: str) -> Tensor | tuple | None:
            values = [getattr(stack, key) for stack in stacks]
            if all(value is None for value in values):
                return None
            if key == "optics":  # of some it may be unknown
                values = [(None,) * len(stack) if stack.optics is None else stack.optics for stack in stacks]
            if any(value is None for value in values):
                raise InputError(f"a batch needs {key} for all of its samples or for none")
            if isinstance(values[0], tuple):
                return tuple(one for value in values for one in value)
            if key in SLICEWISE:
                values = [_with_slices_up_to(longest, value, repeat=key == "focus_distances_m") for value in values]
            return torch.cat(values)

        values: dict[str, Any] = {field.name: joined(field.name) for field in fields(cls) if field.name != "size_px"}
        return cls(**values, size_px=size_px)

    def _padded(self, height: int, width: int) -> FocalStack:
        """Edges repeated down and to the right; depth there is not valid, and nothing is covered or clipped."""
        bottom, right = height - self.images.shape[-2], width - self.images.shape[-1]
        changes: dict[str, Any] = {}
        for key in PIXELWISE:
            value = getattr(self, key)
            if value is not None and key in ("valid", "covered", "clipped"):
                changes[key] = F.pad(value, (0, right, 0, bottom))
            elif value is not None:
                changes[key] = _edges_repeated(value, height, width)
        return replace(self, **changes)

    def parts(self) -> list[tuple[list[int], FocalStack]]:
        """The batch as batches of one image size each, without padding: (indices into this batch, their stacks).

        What is computed part by part is what an unpadded batch would give.
        """
        if self.size_px is None:
            return [(list(range(len(self))), self)]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, size in enumerate(self.size_px):
            groups.setdefault(size, []).append(index)
        return [
            (indices, replace(self._chosen(indices).cropped(0, height, 0, width), size_px=None))
            for (height, width), indices in groups.items()
        ]

    def blur_radii_at_range_px(self) -> Float[Tensor, "b s 2"]:
        """Signed blur radius of every slice at near and at far, in pixels: the extremes of the depth range."""
        ends = torch.stack([self.near_m, self.far_m], 1)[:, None]
        return defocus_map_px(ends, self.focus_distances_m, self.camera)[:, :, 0]

    def coverage(self) -> Float[Tensor, "b s h w"]:
        """:attr:`covered` of the real slices, 0 for padding ones: the weight of every pixel of the stack."""
        mask = self.slice_mask[:, :, None, None].to(self.images)
        if self.covered is None:
            return mask.expand(-1, -1, *self.images.shape[-2:])
        return self.covered * mask

    def saturated(self) -> Bool[Tensor, "b s 3 h w"]:
        """Where a colour of a slice says only "at least so bright": at white, or :attr:`clipped`, and covered."""
        saturated = self.images >= SATURATED
        if self.clipped is not None:
            saturated = saturated | self.clipped
        return saturated if self.covered is None else saturated & (self.covered > 0)[:, :, None]

    def cropped(self, top: int, bottom: int, left: int, right: int) -> FocalStack:
        """Rows top to bottom and columns left to right (the ends excluded) of every image and map; ``size_px`` stays."""
        return self._with(PIXELWISE, lambda value: value[..., top:bottom, left:right])

    def flipped(self, axes: Sequence[int]) -> FocalStack:
        """Every image and map of an unpadded batch turned over, along -2 (rows) or -1 (columns) or both."""
        return self._with(PIXELWISE, lambda value: value.flip(tuple(axes)))

    def scaled(
        self, images: Float[Tensor, "b s 3 y x"], covered: Tensor | None = None, clipped: Tensor | None = None
    ) -> FocalStack:
        """The same scenes in images of another size, without truth: the cameras' pixel pitch follows.

        Args:
            images: (B,S,3,Y,X) the resized slices of an unpadded batch.
            covered: (B,S,Y,X) what they show.
            clipped: (B,S,3,Y,X) where they say only "at least so bright": wherever any pixel did that they are averaged of.
        """
        (height, width), (tall, wide) = self.images.shape[-2:], images.shape[-2:]
        factor = (tall * wide / (height * width)) ** 0.5
        cameras = tuple(camera.resized(factor) for camera in self.camera)
        return replace(self.without_truth(), images=images, covered=covered, clipped=clipped, camera=cameras)

    def resized(self, height: int, width: int) -> FocalStack:
        """The same scenes at another size, averaged over areas; itself where it has that size."""
        if self.images.shape[-2:] == (height, width):
            return self
        covered = None if self.covered is None else resize_area(self.covered, height, width)
        return self.scaled(resize_area(self.images, height, width), covered, self._clipped_at(height, width))

    def _clipped_at(self, height: int, width: int) -> Tensor | None:
        """:meth:`saturated` at another size, where any of the averaged pixels is; None where nothing is."""
        saturated = self.saturated()
        if not saturated.any():
            return None
        return resize_area(saturated.to(self.images), height, width) > 0

    def _mapped(self, function) -> FocalStack:
        tensors = [field.name for field in fields(self) if isinstance(getattr(self, field.name), Tensor)]
        return self._with(tensors, function)

    def to(self, *args, **kwargs) -> FocalStack:
        """The same batch with every tensor moved; takes a device (Lightning calls it). A dtype leaves masks as they are, and
        one of half precision lengths: it has three digits."""

        def moved(value: Tensor) -> Tensor:
            there = value.to(*args, **kwargs)
            return there if value.is_floating_point() else there.bool()

        lengths = {key: value for key in LENGTHS if (value := getattr(self, key)) is not None}
        there = self._mapped(moved)
        halved = {
            key: value.to(getattr(there, key).device) for key, value in lengths.items() if _is_half(getattr(there, key))
        }
        return replace(there, **halved)

    def in_full_precision(self) -> FocalStack:
        """The same batch with half-precision tensors in float32, in which methods, losses and metrics compute; float64
        stays."""
        return self._mapped(full_precision)

    def pin_memory(self) -> FocalStack:
        """The same batch in pinned memory (the DataLoader calls it)."""
        return self._mapped(lambda value: value.pin_memory())

    def with_slices(self, indices: Sequence[int] | Int[Tensor, "b n"]) -> FocalStack:
        """The same batch with these slices of each stack, in this order; (B,N): of each stack its own."""
        chosen = indices if isinstance(indices, Tensor) else torch.tensor(list(indices), dtype=torch.long)
        keep = chosen.to(self.images.device)
        each = torch.arange(len(self), device=keep.device)[:, None]
        return self._with(SLICEWISE, lambda value: value[each, keep])

    def with_camera(self, camera: Camera | None) -> FocalStack:
        """The same batch as a model with a camera of its own takes it; itself where the model has none."""
        return self if camera is None else replace(self, camera=(camera,) * len(self))

    def with_optics(self, known: BlurModel | Mapping[str, Any] | None) -> FocalStack:
        """Return the same batch with what ``known`` says of the blur in place of what the stack says.

        Examples:
            >>> from sfdfd.scenes.example_stack import example_stack
            >>> example_stack().with_optics({"psf": "disc"}).optics[0].psf
            'disc'
        """
        if known is None:
            return self
        before = self.optics or (None,) * len(self)
        return replace(self, optics=tuple((one or BlurModel()).updated(known) for one in before))

    def split_by_optics(self) -> list[tuple[list[int], FocalStack]]:
        """Return the batch as batches that were blurred alike: (indices into this batch, their stacks)."""
        if self.optics is None or len(set(self.optics)) == 1:
            return [(list(range(len(self))), self)]
        groups: dict[BlurModel | None, list[int]] = {}
        for index, one in enumerate(self.optics):
            groups.setdefault(one, []).append(index)
        return [(indices, self._chosen(indices)) for indices in groups.values()]

    def without_truth(self) -> FocalStack:
        """The same batch with no depth, AIF or validity mask: all that training may see."""
        return replace(self, depth_m=None, aif=None, valid=None)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a method says about a batch of stacks.

    Attributes:
        depth_m: (B,H,W) depth in metres, within the stack's [near_m, far_m].
        aif: (B,3,H,W) all-in-focus image, RGB in [0, 1].
        defocus_px: (B,S,H,W) signed blur radius in pixels under that depth; positive behind the focus distance.
        rendered: (B,S,3,H,W) the stack that this depth and AIF would have produced; None where it was not rendered.
        confidence: (B,H,W) in (0, 1], see :mod:`sfdfd.refinement.confidence`; None where nobody asked.
        depth_std_m: (B,H,W) standard deviation of the depth in metres; the same.
        beyond_range: (B,H,W) 1 where a surface lies beyond far_m and -1 where nearer than near_m, sharp in no slice, so that
            its depth is not known; 0 elsewhere. None where nobody asked. See :mod:`sfdfd.inference.out_of_range`.

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

    def __getitem__(self, index: int) -> Prediction:
        """Return one sample as a batch of one."""
        one: dict[str, Any] = {key: None if value is None else value[index][None] for key, value in vars(self).items()}
        return Prediction(**one)

    def to(self, *args, **kwargs) -> Prediction:
        """The same prediction with every tensor moved."""
        moved: dict[str, Any] = {k: None if v is None else v.to(*args, **kwargs) for k, v in vars(self).items()}
        return Prediction(**moved)

    def in_full_precision(self) -> Prediction:
        """The same prediction with half-precision tensors in float32; float64 stays."""
        values: dict[str, Any] = {k: None if v is None else full_precision(v) for k, v in vars(self).items()}
        return Prediction(**values)

    @classmethod
    def collate(cls, predictions: Sequence[Prediction]) -> Prediction:
        """One prediction of many, as :meth:`FocalStack.collate` joins their stacks: edges repeated where one is smaller,
        padding slices 0; a field that one of them lacks is None."""
        height, width = (max(one.depth_m.shape[axis] for one in predictions) for axis in (-2, -1))
        longest = max(one.defocus_px.shape[1] for one in predictions)
        values: dict[str, Any] = {}
        for field in fields(cls):
            pieces = [getattr(one, field.name) for one in predictions]
            if any(piece is None for piece in pieces):
                values[field.name] = None
                continue
            pieces = [_edges_repeated(piece, height, width) for piece in pieces]
            if field.name in ("defocus_px", "rendered"):
                pieces = [_with_slices_up_to(longest, piece) for piece in pieces]
            values[field.name] = torch.cat(pieces)
        return cls(**values)


@runtime_checkable
class Method(Protocol):
    """Whatever turns focal stacks into predictions: a network with a renderer, classical depth from focus, a constant,
    refinement from any of them (:mod:`sfdfd.inference`). Commands, API and benchmarks all call the same objects.

    Examples:
        >>> from sfdfd.inference.methods import NetworkMethod
        >>> from sfdfd.networks import classical_network
        >>> from sfdfd.optics import DefocusRenderer
        >>> isinstance(NetworkMethod(classical_network, DefocusRenderer()), Method)
        True
    """

    def __call__(self, stack: FocalStack) -> Prediction:
        """Predict; truth, where the stack has any, is not looked at."""


def resize_area(values: Float[Tensor, "*n h w"], height: int, width: int) -> Float[Tensor, "*n y x"]:
    """Reduce images by averaging over exact areas: a pixel that straddles two targets counts in both by its share.

    The same as OpenCV's INTER_AREA on floats, on any device and with a gradient. (``F.interpolate(mode="area")`` lets whole
    pixels count in both.)
    """
    for axis, size in ((-2, height), (-1, width)):  # whole rows first: they lie together in memory
        length = values.shape[axis]
        if length == size:
            continue
        edges = np.linspace(0, length, size + 1)
        total: Tensor | float = 0.0
        for offset in range(-(-length // size) + 1):
            index = np.minimum(edges[:-1].astype(int) + offset, length)
            share = (np.minimum(edges[1:], index + 1) - np.maximum(edges[:-1], index)).clip(0) * (size / length)
            share[index == length] = 0
            weight = torch.from_numpy(share.astype(np.float32).reshape((-1, 1) if axis == -2 else -1)).to(values)
            taken = torch.from_numpy(index.clip(max=length - 1)).to(values.device)
            total = total + weight * values.index_select(axis, taken)
        values = cast(Tensor, total)
    return values


def renderer_for(stack: FocalStack, renderer: Renderer) -> Renderer:
    """Return a renderer like this one that blurs as the stack was blurred; itself where the stack does not say.

    Raises:
        InputError: the samples of the batch were blurred differently (:meth:`FocalStack.split_by_optics` parts them).
    """
    models = set(stack.optics or (None,))
    if len(models) > 1:
        raise InputError(
            "optics: the stacks of this batch were blurred differently; predict them apart (split_by_optics)"
        )
    known = models.pop()
    return renderer if known is None else known.applied_to(renderer)


SLACK = 1e-2
"""Renderers and filters overshoot [0, 1] by so much; it is clipped."""


def as_images(values: Tensor | np.ndarray, ndim: int, what: str) -> Tensor:
    """(...,3,H,W) float32 in [0, 1] of images as people have them.

    Raises:
        InputError: another shape or type, or values that are not finite or not in [0, 1].
    """
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(values))
    if not isinstance(values, Tensor):
        raise InputError(f"{what}: expected a tensor or an array, got {type(values).__name__}")
    if values.ndim == ndim and values.shape[-3] != 3 and values.shape[-1] == 3:
        values = values.movedim(-1, -3).contiguous()
    if values.ndim != ndim or values.shape[-3] != 3:
        wanted = "(S,3,H,W)" if ndim == 4 else "(3,H,W)"
        raise InputError(f"{what}: expected RGB of shape {wanted}, got {tuple(values.shape)}")
    scale = {torch.uint8: 255.0, torch.uint16: 65535.0}.get(values.dtype)
    if scale is not None:
        return values.to(torch.float32) / scale
    if not values.is_floating_point():
        raise InputError(f"{what}: expected floats in [0, 1], uint8 or uint16, got {values.dtype}")
    values = values.to(torch.float32)
    _check_values(values, what)
    return (
        values.clamp(0, 1) if float(values.detach().aminmax().max) > 1 or float(values.detach().min()) < 0 else values
    )


def _check_values(images: Tensor, what: str) -> None:
    """Refuse images that are not finite or not in [0, 1]: one NaN would spread over a whole prediction."""
    if not images.numel():
        raise InputError(f"{what}: expected pixels, got shape {tuple(images.shape)}")
    low, high = (float(end) for end in images.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        count = int((~torch.isfinite(images)).sum())
        raise InputError(f"{what}: {count} values are not finite; fill them in, and mark them as not shown (covered)")
    if low < -SLACK or high > 1 + SLACK:
        cure = (
            "; divide by 255, or give uint8"
            if 1.5 < high <= 255
            else "; divide by 65535, or give uint16"
            if high > 255
            else ""
        )
        raise InputError(f"{what}: expected values in [0, 1], got {low:.4g} to {high:.4g}{cure}")


def _truth_for_all(stacks: Sequence[FocalStack]) -> list[FocalStack]:
    """The stacks, each with the fields of truth that one of them has: NaN, and valid nowhere, where it is not known."""
    keys = [key for key in ("depth_m", "aif", "valid") if any(getattr(stack, key) is not None for stack in stacks)]
    alike = []
    for stack in stacks:
        size = (len(stack), *stack.images.shape[-2:])
        changes: dict[str, Any] = {}
        for key in keys:
            if getattr(stack, key) is not None:
                continue
            if key != "valid":
                changes[key] = stack.images.new_full((len(stack), 3, *size[1:]) if key == "aif" else size, torch.nan)
            elif stack.depth_m is None:
                changes[key] = torch.zeros(size, dtype=torch.bool, device=stack.images.device)
            else:  # given without a mask: what is a depth counts
                changes[key] = torch.isfinite(stack.depth_m) & (stack.depth_m > 0)
        alike.append(replace(stack, **changes))
    return alike


def _is_half(value: Tensor) -> bool:
    return value.dtype in (torch.float16, torch.bfloat16)


def full_precision(value: Tensor) -> Tensor:
    """Convert half precision to float32; anything else stays."""
    return value.float() if _is_half(value) else value


def _edges_repeated(values: Tensor, height: int, width: int) -> Tensor:
    """(...,h,w) -> (...,H,W), edges repeated down and to the right."""
    edges = (0, width - values.shape[-1], 0, height - values.shape[-2])
    if not any(edges):
        return values
    flat = values.reshape(1, -1, *values.shape[-2:])
    return F.pad(flat, edges, mode="replicate").reshape(*values.shape[:-2], height, width)


def _with_slices_up_to(number: int, values: Tensor, *, repeat: bool = False) -> Tensor:
    """(B,s,...) -> (B,number,...), the last slice repeated or zeros."""
    missing = number - values.shape[1]
    if not missing:
        return values
    filler = values[:, -1:] if repeat else torch.zeros_like(values[:, -1:])
    return torch.cat([values, *[filler] * missing], dim=1)
