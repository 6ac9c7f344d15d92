"""Random surface textures in linear light, as functions of surface coordinates in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import hsv_to_rgb

__all__ = ["FLAT", "GROUND", "OBJECT", "SurfaceTexture", "linear_to_srgb", "linear_weights", "srgb_to_linear"]

Array = np.ndarray
_PERIOD = 64
OBJECT = (
    "marble", "speckle", "wood", "bricks", "tiles", "fabric", "text", "books", "leaves", "poster", "gradient", "plain",
)  # fmt: skip
GROUND = ("marble", "speckle", "wood", "bricks", "tiles", "fabric", "speckle", "wood", "plain")
FLAT = ("plain", "plain", "gradient")


def srgb_to_linear(code: Array) -> Array:
    """Convert sRGB codes in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    code = np.asarray(code)
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Array) -> Array:
    """Convert linear light, from 0, to sRGB codes."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def linear_weights(positions: Array, count: int) -> Array:
    """Return the matrix (len(positions), count) that interpolates ``count`` samples linearly at fractional indices."""
    return np.clip(1 - np.abs(positions[:, None] - np.arange(count)[None]), 0, 1)


def _spline_weights(positions: Array) -> Array:
    """Return the matrix (len(positions), 64) of the periodic cubic B-spline on a lattice of period 64."""
    first, t = np.floor(positions).astype(int), positions - np.floor(positions)
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights, rows = np.zeros((len(positions), _PERIOD), np.float32), np.arange(len(positions))
    for k, part in enumerate(parts):
        weights[rows, (first + k - 1) % _PERIOD] = part / 6
    return weights


def _noise(u: Array, v: Array, rng: np.random.Generator) -> Array:
    """Return smooth noise (len(v), len(u)) of unit spacing, zero mean, unit variance."""
    spline_std = np.float32(0.479)  # of unit noise after the spline
    lattice = rng.standard_normal((_PERIOD, _PERIOD), np.float32) / spline_std
    return _spline_weights(v) @ lattice @ _spline_weights(u).T


def _fractal(u: Array, v: Array, rng: np.random.Generator, finest: float, gain: float) -> Array:
    """Sum octaves of noise from unit spacing down to ``finest``, each ``gain`` times the one before; unit variance."""
    total, size, amplitude = np.zeros((len(v), len(u)), np.float32), 1.0, 1.0
    for _ in range(8):
        if size < finest:
            break
        total += np.float32(amplitude) * _noise(u / size, v / size, rng)
        size, amplitude = size / 2, amplitude * gain
    return total * np.float32(np.sqrt(1 - gain**2))


def _line(positions: Array, width: float) -> Array:
    """Return 1 on grid lines (integers) of the given width, else 0."""
    return (np.abs(positions - np.round(positions)) < width / 2).astype(float)


@dataclass(frozen=True)
class SurfaceTexture:
    """A texture: reflectance as a function of two surface coordinates.

    Attributes:
        kind: one of ``OBJECT``.
        palette: (3,3) colours in linear light.
        scale_m: size of the main features.
        gain: amplitude of each octave of noise over that of the coarser one.
        contrast: of the noise.
        salt: seed of the random numbers.
    """

    kind: str
    palette: Array
    scale_m: float
    gain: float
    contrast: float
    salt: int

    @classmethod
    def random(cls, rng: np.random.Generator, kinds: tuple[str, ...], pixel_m: float) -> SurfaceTexture:
        """Draw a texture for a surface on which a pixel measures about ``pixel_m``."""
        hue = (
            rng.random()
            if rng.random() < 0.3
            else rng.choice((0.04, 0.08, 0.11, 0.3, 0.57, 0.62)) + rng.normal(0, 0.02)
        )
        saturation, value = rng.beta(1.2, 2.8), rng.uniform(0.35, 0.95)
        shift = rng.normal(0, (0.04, 0.3))
        colours = [
            (hue % 1, saturation, value),
            ((hue + shift[0]) % 1, saturation * rng.uniform(0.5, 1.2), value * rng.uniform(0.25, 0.75)),
            ((hue + shift[1]) % 1, rng.beta(2, 2), rng.uniform(0.15, 1.0)),
        ]
        return cls(
            kind=str(rng.choice(kinds)),
            palette=srgb_to_linear(hsv_to_rgb(np.clip(colours, 0, 1))),
            scale_m=float(pixel_m * np.exp(rng.uniform(np.log(9), np.log(60)))),
            gain=float(rng.uniform(0.5, 0.8)),
            contrast=float(np.exp(rng.uniform(np.log(0.35), np.log(1.2)))),
            salt=int(rng.integers(1 << 30)),
        )

    @property
    def oversampling(self) -> int:
        """Samples per texel and axis; sharp edges need two."""
        return 1 if self.kind in ("plain", "gradient", "marble", "speckle", "leaves") else 2

    def bake(self, u_m: Array, v_m: Array, texel_m: float) -> Array:
        """Return reflectance (V,U,3) in linear light in [0.01, 0.95] at sorted coordinates u_m (U,), v_m (V,), in metres."""
        rng = np.random.default_rng(self.salt)
        u, v, finest = u_m / self.scale_m, v_m / self.scale_m, 1.5 * texel_m / self.scale_m
        colour = getattr(self, f"_{self.kind}")(u, v, finest, rng)
        stain = 1 + 0.1 * _noise(u / 7.3, v / 5.1, rng)
        return np.clip(colour * stain[..., None], 0.01, 0.95)

    def _mix(self, amount: Array) -> Array:
        """Map an amount in [0, 1] to a colour between the palette's first two, with some of the third at the end."""
        stops = np.stack([self.palette[0], self.palette[1], 0.5 * (self.palette[1] + self.palette[2])])
        return np.stack([np.interp(amount, (0, 0.7, 1.3), stop) for stop in stops.T], -1)

    def _grain(self, colour: Array, u: Array, v: Array, finest: float, rng: np.random.Generator, amount=0.12) -> Array:
        grain = _fractal(u * 4, v * 4, rng, 4 * finest, 0.8)
        return colour * np.exp(amount * self.contrast * grain)[..., None]

    def _plain(self, u, v, finest, rng):
        faint = np.exp(rng.uniform(np.log(0.002), np.log(0.03)))
        return self.palette[0] * np.exp(faint * _fractal(u * 3, v * 3, rng, 3 * finest, 0.85))[..., None]

    def _gradient(self, u, v, finest, rng):
        wave = np.sin(0.35 * _noise(u / 9, v / 9, rng) + (u[None] * rng.normal() + v[:, None] * rng.normal()) / 9)
        return self._grain(self._mix(0.5 + 0.5 * wave), u, v, finest, rng, 0.02)

    def _marble(self, u, v, finest, rng):
        cloud = _fractal(u, v, rng, finest, self.gain)
        vein = np.exp(-6 * np.abs(_fractal(u / 1.7, v / 1.7, rng, finest, 0.6)))
        return self._mix(0.45 + 0.35 * self.contrast * cloud + 0.6 * vein)

    def _speckle(self, u, v, finest, rng):
        return self._mix(0.5 + 0.45 * self.contrast * _fractal(u * 5, v * 5, rng, 5 * finest, 0.95))

    def _wood(self, u, v, finest, rng):
        tone, plank = rng.random(_PERIOD), np.floor(v / 2).astype(int) % _PERIOD
        rings = np.sin(2 * np.pi * (v[:, None] * 1.3 + 0.45 * _noise(u / 5, v / 1.5, rng)) + 40 * tone[plank][:, None])
        grain = _fractal(u / 3, v * 6, rng, 4 * finest, 0.85)
        amount = 0.15 + 0.4 * tone[plank][:, None] + self.contrast * (0.12 * rings + 0.2 * grain)
        return self._mix(amount) * (1 - 0.6 * _line(v / 2, 0.03))[:, None, None]

    def _bricks(self, u, v, finest, rng):
        row = np.floor(v).astype(int)
        shifted = u[None] / 2 + 0.5 * (row % 2)[:, None]
        tone = rng.random((_PERIOD, _PERIOD))[row[:, None] % _PERIOD, np.floor(shifted).astype(int) % _PERIOD]
        rough = _fractal(u * 2, v * 2, rng, 2 * finest, 0.8)
        mortar = np.maximum(_line(shifted, 0.06), _line(v, 0.12)[:, None])[..., None]
        colour = self._mix(0.8 * tone + 0.2 * self.contrast * rough)
        return (1 - mortar) * colour + mortar * (0.2 + 0.5 * self.palette.mean()) * np.exp(0.15 * rough)[..., None]

    def _tiles(self, u, v, finest, rng):
        table = rng.random((_PERIOD, _PERIOD))
        i, j = np.floor(v / 2).astype(int), np.floor(u / 2).astype(int)
        tone = table[i[:, None] % _PERIOD, j[None] % _PERIOD]
        checker = (i[:, None] + j[None]) % 2 if rng.random() < 0.5 else np.zeros((1, 1))
        grout = np.maximum(_line(u / 2, 0.05)[None], _line(v / 2, 0.05)[:, None])[..., None]
        cloud = 0.12 * self.contrast * _fractal(u, v, rng, finest, 0.8)
        return self._mix(0.65 * checker + 0.3 * tone + cloud) * (1 - 0.55 * grout)

    def _fabric(self, u, v, finest, rng):
        bands = rng.random((2, _PERIOD)) ** 2
        across, down = (np.floor(2 * axis).astype(int) % _PERIOD for axis in (u, v))
        plaid = bands[0, across][None] + bands[1, down][:, None]
        thread = 2 * np.pi * min(6.0, 0.35 / finest)  # no finer than the texels
        weave = np.sin(thread * (u[None] + v[:, None])) * np.sin(thread * (u[None] - v[:, None]))
        fuzz = _fractal(u * 3, v * 3, rng, 3 * finest, 0.8)
        return self._mix(0.5 * plaid) * np.exp(self.contrast * (0.2 * weave + 0.15 * fuzz))[..., None]

    def _ink(self, u, v, rng):
        """Return word-like marks (V,U) in {0, 1}: glyphs of 3x5 random strokes in lines of ragged length."""
        char, line = u * 4, v * 2.2
        glyph = rng.random((_PERIOD, _PERIOD)) < 0.62
        word = rng.random((_PERIOD, _PERIOD)) > 0.2
        row, column = np.floor(line).astype(int), np.floor(char).astype(int)
        stroke_v, stroke_u = np.floor((line - row) * 8).astype(int), np.floor((char - column) * 4).astype(int)
        ink = glyph[(row * 5 + stroke_v)[:, None] % _PERIOD, (column * 3 + stroke_u)[None] % _PERIOD]
        spaced = word[row[:, None] % _PERIOD, column[None] % _PERIOD] & (stroke_v < 5)[:, None] & (stroke_u < 3)[None]
        return (ink & spaced).astype(float)

    def _text(self, u, v, finest, rng):
        paper, ink = np.sqrt(self.palette[0]), 0.08 * self.palette[1]
        sheet = self._grain(np.broadcast_to(paper, (len(v), len(u), 3)), u, v, finest, rng, 0.04)
        return np.where(self._ink(u, v, rng)[..., None] > 0, ink, sheet)

    def _books(self, u, v, finest, rng):
        edges = np.cumsum(rng.uniform(0.25, 0.9, 400)) + np.floor(u[0]) - 1
        book, shelf = np.searchsorted(edges, u), np.floor(v / 4).astype(int)
        number = (book[None] + 97 * shelf[:, None]) % 397
        hue, value = rng.random(397), rng.uniform(0.1, 0.95, 397)
        covers = srgb_to_linear(hsv_to_rgb(np.stack([hue, rng.beta(1.5, 2, 397), value], -1)))
        top = (v / 4 - shelf)[:, None] < 0.08 + 0.22 * rng.random(397)[number]
        label = self._ink(u * 1.3, v * 1.3, rng) * (rng.random(397)[number] < 0.5)
        colour = covers[number] * (1 - 0.75 * label[..., None])
        gap = np.minimum(np.abs(u[:, None] - edges[None]).min(1), 0.08)[None, :, None] / 0.08
        return self._grain(np.where(top[..., None], 0.02, colour * (0.25 + 0.75 * gap)), u, v, finest, rng, 0.08)

    def _shapes(self, u, v, finest, rng, smallest: float, largest: float, count: int, boxes: float) -> Array:
        """Draw dead leaves: ``count`` overlapping discs and boxes of power-law sizes, as in photographs' statistics."""
        image = np.tile(self.palette[0] * 0.6, (len(v), len(u), 1))
        jitter = rng.normal(0, 1, (count, 3))
        choice = rng.random((count, 6))
        size = 1 / np.sqrt(1 / largest**2 + choice[:, 0] * (1 / smallest**2 - 1 / largest**2))
        for k in range(count):
            cu, cv = u[0] + choice[k, 1] * (u[-1] - u[0]), v[0] + choice[k, 2] * (v[-1] - v[0])
            a, b = size[k] * (0.5 + choice[k, 3]), size[k] * (1.5 - choice[k, 3])
            i0, i1 = np.searchsorted(v, (cv - b, cv + b))
            j0, j1 = np.searchsorted(u, (cu - a, cu + a))
            if i1 <= i0 or j1 <= j0:
                continue
            du, dv = np.abs(u[j0:j1] - cu)[None] / a, np.abs(v[i0:i1] - cv)[:, None] / b
            radius = np.maximum(du, dv) if choice[k, 4] < boxes else np.hypot(du, dv)
            alpha = np.clip((1 - radius) * min(a, b) / finest + 0.5, 0, 1)[..., None]
            colour = self.palette[int(choice[k, 5] * 2.999)] * np.exp(0.35 * jitter[k, 0] + 0.12 * jitter[k])
            lit = 1 + 0.35 * np.sin(jitter[k, 1] + 2 * (v[i0:i1] - cv) / b)[:, None, None]
            image[i0:i1, j0:j1] += alpha * (colour * lit - image[i0:i1, j0:j1])
        return image

    def _leaves(self, u, v, finest, rng):
        area = (u[-1] - u[0]) * (v[-1] - v[0])
        count = int(np.clip(area * 60, 60, 1800))
        return self._grain(self._shapes(u, v, finest, rng, 0.05, 1.2, count, 0.15), u, v, finest, rng)

    def _poster(self, u, v, finest, rng):
        extent = max(u[-1] - u[0], v[-1] - v[0])
        image = self._shapes(u, v, finest, rng, 0.02 * extent, 0.5 * extent, 140, 0.6)
        haze = 0.5 + 0.5 * np.tanh(2 * _fractal(2 * u / extent, 2 * v / extent, rng, 2 * finest / extent, 0.7))
        image = image + 0.45 * haze[..., None] * (self.palette[2] - image)
        title = self._ink(u * 6 / extent, v * 6 / extent, rng) * (np.abs(v - v.mean()) < 0.12 * extent)[:, None]
        return self._grain(np.where(title[..., None] > 0, self.palette[1] * 0.3, image), u, v, finest, rng, 0.1)
