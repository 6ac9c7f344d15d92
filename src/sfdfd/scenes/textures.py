"""Solid procedural textures: colour as a function of a point, from octaves of value noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

__all__ = ["TEXTURED", "SolidTexture"]

Array = np.ndarray
PERIOD = 64
_LATTICE = np.random.default_rng(20230310).random((PERIOD,) * 3, dtype=np.float32)


def _fractal(point: Array, salt: int, octaves: int, gain: float) -> Array:
    """Sum octaves of value noise at points (N, 3), each ``gain`` times the one before; zero mean, about unit range."""
    total, amplitude, norm = np.zeros(len(point), np.float32), 1.0, 0.0
    shift = np.random.default_rng(salt).uniform(0, PERIOD, (octaves, 3))
    for octave in range(octaves):
        coordinates = (point * 2.0**octave + shift[octave]).T
        total += amplitude * (map_coordinates(_LATTICE, coordinates, order=1, mode="grid-wrap") - 0.5)
        norm += amplitude**2
        amplitude *= gain
    return total * (2.0 / np.sqrt(norm))


def _cell_tone(cell: Array, salt: int) -> Array:
    """Return a random number in [0, 1) for each integer cell (N, 3)."""
    i, j, k = (((cell + salt % 4096) % PERIOD).astype(np.int64)).T
    return _LATTICE[i, j, k]


@dataclass
class SolidTexture:
    """A solid texture: colour as a function of a point on the surface, in metres."""

    kind: str
    base: Array
    other: Array
    scale_m: float
    gain: float
    salt: int
    contrast: float

    @classmethod
    def random(cls, rng: np.random.Generator, kinds: tuple[str, ...]) -> SolidTexture:
        """Draw a texture of one of the kinds."""
        from matplotlib.colors import hsv_to_rgb  # loads slowly

        hue, value = rng.random(), rng.uniform(0.55, 1.0)
        base = hsv_to_rgb((hue, rng.uniform(0.05, 0.65), value))
        other = hsv_to_rgb(((hue + rng.normal(0, 0.12)) % 1, rng.uniform(0.1, 0.8), value * rng.uniform(0.12, 0.55)))
        if rng.random() < 0.4:
            base, other = other, base
        return cls(
            kind=str(rng.choice(kinds)),
            base=np.asarray(base),
            other=np.asarray(other),
            scale_m=float(np.exp(rng.uniform(np.log(0.05), np.log(0.4)))),
            gain=float(rng.uniform(0.6, 0.85)),
            salt=int(rng.integers(1 << 30)),
            contrast=float(rng.uniform(0.6, 1.2)),
        )

    def colour(self, point: Array) -> Array:
        """Return the reflectance (N,3) in [0, 1] at points (N,3) in metres."""
        if self.kind == "plain":
            amount = 0.05 + 0.05 * _fractal(point / 0.8, self.salt, 2, 0.5)
        elif self.kind == "checker":
            cell = np.floor(point / self.scale_m).astype(np.int64).sum(1) % 2
            amount = 0.7 * cell + 0.3 * _fractal(point / self.scale_m, self.salt, 4, self.gain)
        elif self.kind == "stripes":
            axis = self.salt % 3
            wave = np.sin(2 * np.pi * (point[:, axis] / self.scale_m + 0.3 * _fractal(point / 0.5, self.salt, 2, 0.5)))
            amount = 0.5 + 0.5 * np.tanh(3 * wave) + 0.2 * _fractal(point / self.scale_m, self.salt + 9, 4, self.gain)
        elif self.kind == "bricks":
            u, v = (point[:, 0] + point[:, 2]) / (2 * self.scale_m), point[:, 1] / self.scale_m
            u = u + 0.5 * (np.floor(v) % 2)
            mortar = (u - np.floor(u) < 0.06) | (v - np.floor(v) < 0.12)
            tone = _cell_tone(np.stack([np.floor(u), np.floor(v), 0 * u], 1), self.salt)
            amount = np.where(mortar, 1.0, 0.6 * tone) + 0.25 * _fractal(point / 0.05, self.salt, 4, self.gain)
        elif self.kind == "wood":
            stretch = np.array([1.0, 1.0, 1.0])
            stretch[self.salt % 3] = 0.08
            amount = 0.5 + 0.8 * _fractal(point * stretch / (0.25 * self.scale_m), self.salt, 5, self.gain)
        else:  # "marble", "speckle": fractal noise, coarse or fine
            scale = self.scale_m if self.kind == "marble" else 0.15 * self.scale_m
            amount = 0.5 + 0.9 * _fractal(point / scale, self.salt, 6, self.gain)
        amount = np.clip(self.contrast * amount, -0.2, 1.2)[:, None]
        tint = 1 + 0.15 * _fractal(point / 0.3 + 5.5, self.salt + 77, 3, 0.6)[:, None]
        return np.clip((self.base * (1 - amount) + self.other * amount) * tint, 0.0, 1.0)


TEXTURED = ("marble", "speckle", "checker", "stripes", "bricks", "wood", "speckle", "marble")
