"""Small stacks, and broken forms of their stack.yaml."""

import imageio.v3 as iio
import numpy as np
import yaml

from tests.fuzz.mutations import mutated_bytes


def pixels(index=0, height=24, width=32, channels=3, dtype=np.uint8):
    top = np.iinfo(dtype).max
    return np.random.default_rng(index).integers(0, top, (height, width, channels), dtype=dtype)


STACK = {
    "camera": {"focal_length_m": 0.05, "f_number": 8.0, "pixel_pitch_m": 1.2e-5},
    "focus_distances_m": [1, 2, 4],
    "near_m": 0.8,
    "far_m": 5,
}
MORE = {
    "files": ["0.png", "1.png", "2.png"], "crop": [0, 0, 4, 0], "focus_distances_std": [0.1, 0.1, 0.2],
    "focus_unit": "metre", "focus_distance_unit_m": 1, "frames": None, "truth": None,
    "optics": {"psf": "disc", "linear_light": True, "weighting": "occlusion", "sigma_scale": 0.5},
}  # fmt: skip


def write_slices(folder, described=None):
    """Three slices of noise, and what is said of them."""
    folder.mkdir(parents=True)
    for index in range(3):
        iio.imwrite(folder / f"{index}.png", pixels(index))
    if described is not None:
        (folder / "stack.yaml").write_text(yaml.safe_dump(described))
    return folder


ENDINGS = [":", " [", " {", " &a *a", " !!python/object:os.system x", " '", ' "', "\t"]
LINES = [
    "&a a: *a",
    "<<: *x",
    "? [1, 2]\n: x",
    "---",
    "...",
    "%YAML 9",
    "1: 2",
    "[]: 1",
    "null: x",
    "x: &x {y: &y [*y]}",
]
SCALARS = [
    "0x10", "1_0", "1:30", "2020-01-01", "2020-01-01 10:00:00", "2020-13-45", "!!binary aGk=", ".inf", "-.inf", "1e400",
    "!!set {1}", "~", "9" * 5000, f"0x{'9' * 5000}", "${near_m}", "${oc.env:HOME}", "&a [1, *a]", "[" * 3, "[" * 3000,
    "[" + ", ".join(f"&a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else '1'}]" for i in range(12)) + "]",
]  # fmt: skip
WHOLE = ["", "null", "[]", "5", "x", "- 1\n- 2", "{}", "!!str", "a: b: c", "\0", "\ufeffnear_m: 1"]


def broken_yaml(text, random_):
    """YAML that is changed as text."""
    lines = text.splitlines()
    choice, line = random_.randrange(8), random_.randrange(len(lines))
    if choice == 0:
        lines[line] += random_.choice(ENDINGS)
    elif choice == 1:
        lines.insert(line, random_.choice(LINES))
    elif choice <= 4:
        lines.append(f"{random_.choice(list(STACK))}: {random_.choice(SCALARS)}")  # the last of a key counts
    elif choice == 5:
        return mutated_bytes(text.encode(), random_)
    elif choice == 6:
        del lines[line]
    else:
        return random_.choice(WHOLE).encode()
    return "\n".join(lines).encode("utf-8", "surrogatepass")
