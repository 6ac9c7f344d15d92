"""The renderer's speed, memory and accuracy against its baseline, in one run: ``make bench``.

Writes ``benchmarks/results/renderer.json`` and ``renderer.md`` and the curves ``docs/assets/renderer_scaling.png``.
Times are medians; compare them as ratios of one run, on a quiet machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from sfdfd.measures.losses import SelfSupervisedLoss
from sfdfd.networks import DAIFNet
from sfdfd.optics import Camera, render_focal_stack
from sfdfd.optics.psf import floored_size_px
from sfdfd.optics.render import defocus_map_px
from sfdfd.scenes.procedural import make_scene
from sfdfd.stack import FocalStack, Prediction

ROOT = Path(__file__).resolve().parents[1]
CAMERA = Camera(0.05, 8.0, 1.2e-5)
FOCUS_M = (1.0, 1.5, 2.5, 4.0, 6.0)
THREADS = 2


def inputs(height: int, width: int, sigma_max: float = 6.0, slices: int = 5, batch: int = 1, seed: int = 0):
    """A procedural scene and the sigma_scale at which its largest blur is ``sigma_max`` pixels."""
    scenes = [make_scene(seed, index, height, width, 0.6, 9.5, 1) for index in range(batch)]
    aif = torch.stack([torch.from_numpy(scene[0]).permute(2, 0, 1) for scene in scenes])
    depth = torch.stack([torch.from_numpy(scene[1]) for scene in scenes])
    focus = torch.tensor(FOCUS_M) if slices == 5 else 1 / torch.linspace(1, 1 / 6, slices)
    largest = float(defocus_map_px(depth, focus, CAMERA).abs().max())
    return aif.contiguous(), depth.contiguous(), focus, sigma_max / largest


def plain_taps(aif: Tensor, depth_m: Tensor, focus: Tensor, sigma_scale: float, weighting: str = "source") -> Tensor:
    """The baseline: one shifted multiply-add per tap of a 4 sigma window, in eager PyTorch with autograd."""
    sigma = floored_size_px(sigma_scale * defocus_map_px(depth_m, focus, CAMERA).abs(), 0.2)
    reach = int(np.ceil(4 * float(sigma.detach().max())))
    height, width = depth_m.shape[-2:]
    inside = F.pad(torch.ones_like(depth_m)[:, None], (reach,) * 4)
    image, precision = F.pad(aif, (reach,) * 4), 1 / (sigma * sigma)
    spread = F.pad(precision, (reach,) * 4, value=1.0)
    light, total = 0.0, 0.0
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            here = (slice(None), slice(None), slice(dy, dy + height), slice(dx, dx + width))
            p = spread[here] if weighting == "source" else precision
            weight = p * torch.exp(-0.5 * ((dy - reach) ** 2 + (dx - reach) ** 2) * p) * inside[here]
            light = light + weight[:, :, None] * image[here][:, None]
            total = total + weight
    return light / total[:, :, None]


def kornia_layers(aif: Tensor, depth_m: Tensor, focus: Tensor, sigma_scale: float, levels: int = 12) -> Tensor:
    """Source weighting on Gaussian layers with kornia.filters: weights linear in variance between levels."""
    sigma = floored_size_px(sigma_scale * defocus_map_px(depth_m, focus, CAMERA).abs(), 0.2)
    grid = torch.logspace(np.log10(0.2), np.log10(float(sigma.detach().max()) + 1e-3), levels)
    variance, steps = sigma * sigma, grid * grid
    upper = torch.bucketize(variance.detach(), steps).clamp(1, levels - 1)
    share = (variance - steps[upper - 1]) / (steps[upper] - steps[upper - 1])
    light = torch.cat([aif, torch.ones_like(aif[:, :1])], 1)[:, None]
    total = 0.0
    for level in range(levels):
        weight = torch.where(upper == level, share, 0.0) + torch.where(upper - 1 == level, 1 - share, 0.0)
        reach = int(np.ceil(4 * float(grid[level])))
        one = float(grid[level])
        kernel = get_gaussian_kernel1d(2 * reach + 1, one)
        kernel = kernel * (torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / one) ** 2).sum() / one)
        part = (weight[:, :, None] * light).flatten(0, 1)
        total = total + filter2d_separable(part, kernel, kernel, "constant").unflatten(0, sigma.shape[:2])
    return total[:, :, :-1] / total[:, :, -1:]


def ours(method: str, weighting: str = "source", psf: str = "gaussian") -> Callable[..., Tensor]:
    def render(aif: Tensor, depth_m: Tensor, focus: Tensor, sigma_scale: float) -> Tensor:
        camera, options = CAMERA, {"sigma_scale": sigma_scale, "method": method, "weighting": weighting, "psf": psf}
        if psf == "disc":  # of the same spread: a Gaussian's sigma is half a disc's radius
            camera = replace(camera, f_number=camera.f_number / (2 * sigma_scale))
        return render_focal_stack(aif, depth_m, focus, camera, **options)

    return render


METHODS: dict[str, Callable[..., Tensor]] = {
    "plain taps (baseline)": plain_taps,
    "kornia.filters layers": kornia_layers,
    "exact, source": ours("exact"),
    "fast, source": ours("fast"),
    "exact, target": ours("exact", "target"),
    "fast, target": ours("fast", "target"),
    "occlusion": ours("auto", "occlusion"),
    "occlusion, disc": ours("auto", "occlusion", "disc"),
}


def step(render: Callable[..., Tensor], aif: Tensor, depth: Tensor, focus: Tensor, sigma_scale: float):
    aif, depth = aif.clone().requires_grad_(), depth.clone().requires_grad_()
    generator = torch.Generator().manual_seed(1)
    stack = render(aif, depth, focus, sigma_scale)
    (stack * torch.rand(stack.shape, generator=generator)).sum().backward()
    return stack.detach(), aif.grad, depth.grad


def operators(size: tuple[int, int], batch: int = 1) -> dict[str, dict[str, int]]:
    """Operators of a forward and backward pass, and values that the host reads back; the machine's load does not matter."""
    counts = {}
    for name, render in METHODS.items():
        if name.startswith(("plain", "kornia")):
            continue
        case = inputs(*size, batch=batch)
        step(render, *case)  # what is cached is computed
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            step(render, *case)
        names = [event.name for event in recorded.events()]
        counts[name] = {
            "operators": sum(one.startswith("aten::") for one in names),
            "read back": names.count("aten::_local_scalar_dense"),
        }
    return counts


def seconds(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _memory_child(name: str, size: tuple[int, int], queue) -> None:
    torch.set_num_threads(THREADS)
    arguments = inputs(*size)
    warm = inputs(16, 16, 1.0)
    step(METHODS[name], *warm)
    gc.collect()
    before, peak, running = _resident_kib(), 0, True

    def watch() -> None:
        nonlocal peak
        while running:
            peak = max(peak, _resident_kib())
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    step(METHODS[name], *arguments)
    first = time.perf_counter() - started
    running = False
    watcher.join()
    queue.put((peak - before, first))


def _resident_kib() -> int:
    """Resident memory of this process now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def peak_mib(name: str, size: tuple[int, int]) -> tuple[float, float]:
    """Extra resident memory of one forward and backward in a process of its own, and the time of that first call."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_memory_child, args=(name, size, queue))
    process.start()
    kib, first = queue.get(timeout=1200)
    process.join()
    return kib / 1024, first


def untruncated(aif: Tensor, depth: Tensor, focus: Tensor, sigma_scale: float, weighting: str) -> np.ndarray:
    """The float64 sum over all pixels."""
    channels, height, width = aif.shape[1:]
    y, x = (grid.ravel() for grid in np.mgrid[:height, :width])
    square = (y[:, None] - y) ** 2.0 + (x[:, None] - x) ** 2
    sizes = floored_size_px(sigma_scale * defocus_map_px(depth.double(), focus.double(), CAMERA).abs(), 0.2)[0].numpy()
    result = []
    for size in sizes.reshape(len(sizes), -1):
        s = size[None, :] if weighting == "source" else size[:, None]
        weight = np.exp(-square / (2 * s * s)) / (s * s)
        image = aif[0].double().numpy().reshape(channels, -1)
        result.append(((image @ weight.T) / weight.sum(1)).reshape(channels, height, width))
    return np.stack(result)


def worst_inputs(height: int, width: int):
    """Checkerboard and noise at full contrast over a depth that jumps at every pixel."""
    generator = torch.Generator().manual_seed(0)
    checker = (torch.arange(height)[:, None] + torch.arange(width)[None, :]) % 2
    noise = torch.rand(3, height, width, generator=generator).round()
    aif = torch.where(torch.arange(width) < width // 2, checker.float().expand(3, -1, -1), noise)[None]
    depth = 0.7 + 8 * torch.rand(1, height, width, generator=generator)
    depth[:, height // 2 :] = torch.where(torch.arange(width) % 16 < 8, 1.0, 6.0)
    focus = torch.tensor(FOCUS_M)
    return aif, depth, focus, 6.0 / float(defocus_map_px(depth, focus, CAMERA).abs().max())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(F.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


def training_share(repeats: int) -> dict[str, float]:
    """The renderer's share of a DAIF-Net training step at 8 x 5 x 64 x 64."""
    network, loss = DAIFNet().to(memory_format=torch.channels_last), SelfSupervisedLoss(border_px=4)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    aif, depth, focus, _ = inputs(64, 64, batch=8)
    stack = render_focal_stack(aif, depth, focus, CAMERA, sigma_scale=0.5)
    given = FocalStack.collate([FocalStack.single(one, focus, CAMERA, 0.5, 10.0) for one in stack])
    result: dict[str, float] = {}
    ways = {key: {"method": key} for key in ("exact", "fast", "auto")}
    ways["occlusion"] = {"method": "auto", "weighting": "occlusion"}
    for method, options in ways.items():
        spent = []

        def whole(options: dict[str, str] = options, spent: list[float] = spent) -> None:
            optimizer.zero_grad()
            output = network(stack, focus)
            guess, guess_depth = output.aif.detach().requires_grad_(), output.depth_m.detach().requires_grad_()
            started = time.perf_counter()
            rendered = render_focal_stack(guess, guess_depth, focus, CAMERA, sigma_scale=0.5, **options)
            inner = time.perf_counter() - started
            cut = rendered.detach().requires_grad_()
            defocus_px = defocus_map_px(guess_depth, focus, CAMERA)
            terms = loss(Prediction(guess_depth, guess, defocus_px, cut), given)
            terms["total"].mean().backward()
            started = time.perf_counter()
            rendered.backward(cut.grad)
            spent.append(inner + time.perf_counter() - started)
            torch.autograd.backward([output.aif, output.depth_m], [guess.grad, guess_depth.grad])
            optimizer.step()

        total = seconds(whole, repeats)
        result[method] = statistics.median(spent) / total
        result[f"{method} step s"] = total
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one repeat: does it run at all")
    parser.add_argument("--operators", action="store_true", help="count operators alone, and update the results")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "assets" / "renderer_scaling.png")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    size, large, repeats = ((30, 40), (60, 80), 1) if options.quick else ((120, 160), (240, 320), 5)
    counted = {f"1 x 5 x {large[0]} x {large[1]}": (large, 1), "8 x 5 x 64 x 64": ((64, 64), 8)}
    if options.operators:
        path = options.output / "renderer.json"
        recorded = json.loads(path.read_text())
        recorded["operators"] = {key: operators(*case) for key, case in counted.items()}
        path.write_text(json.dumps(recorded, indent=2) + "\n")
        return
    result: dict[str, object] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{THREADS} threads",
        "load": os.getloadavg()[0],
    }

    print("accuracy", flush=True)
    small = (32, 40) if options.quick else (60, 80)
    accuracy: dict[str, dict[str, float]] = {}
    natural = [inputs(*small, seed=seed) for seed in range(3)]
    for name in list(METHODS)[1:]:
        if name.startswith("occlusion"):
            continue  # another model: tests/optics/test_occlusion.py compares it with aperture integration
        weighting = "target" if "target" in name else "source"
        errors = [np.abs(METHODS[name](*case).numpy()[0] - untruncated(*case, weighting)).max() for case in natural]
        worst = worst_inputs(*small)
        exact = [step(ours("exact", weighting), *case) for case in natural]
        mine = [step(METHODS[name], *case) for case in natural]
        accuracy[name] = {
            "natural": float(max(errors)),
            "worst": float(np.abs(METHODS[name](*worst).numpy()[0] - untruncated(*worst, weighting)).max()),
            "cosine depth": min(cosine(a[2], b[2]) for a, b in zip(mine, exact, strict=True)),
            "cosine aif": min(cosine(a[1], b[1]) for a, b in zip(mine, exact, strict=True)),
        }
    result["accuracy"] = accuracy

    print("speed and memory", flush=True)
    speed: dict[str, dict[str, float]] = {}
    for name, render in METHODS.items():
        baseline = name.startswith("plain")
        memory, first = peak_mib(name, size)
        row: dict[str, float] = {}
        case = inputs(*size)
        if not baseline:
            step(render, *case)
        row["small s"] = seconds(lambda r=render, c=case: step(r, *c), 1 if baseline else repeats)
        row["small MiB"], row["first call s"] = memory, first
        if not baseline:
            case = inputs(*large)
            step(render, *case)
            row["large s"] = seconds(lambda r=render, c=case: step(r, *c), repeats)
        speed[name] = row
        print(f"  {name}: {row}", flush=True)
    result["speed"] = speed

    print("scaling", flush=True)
    scaling: dict[str, dict[str, list[float]]] = {}
    for name in ("exact, source", "fast, source", "exact, target", "fast, target"):
        render = METHODS[name]

        def timed(render: Callable[..., Tensor] = render, **options) -> float:
            case = inputs(options.pop("height", size[0]), options.pop("width", size[1]), **options)
            step(render, *case)
            return seconds(lambda: step(render, *case), max(1, repeats - 2))

        sigmas, factors, slices = [1.5, 3.0, 6.0, 12.0, 24.0], [0.5, 1.0, 2.0], [2, 5, 10]
        scaling[name] = {
            "sigma": sigmas,
            "sigma s": [timed(sigma_max=sigma) for sigma in sigmas],
            "pixels": [int(size[0] * f) * int(size[1] * f) for f in factors],
            "pixels s": [timed(height=int(size[0] * f), width=int(size[1] * f)) for f in factors],
            "slices": slices,
            "slices s": [timed(slices=count) for count in slices],
        }
    result["scaling"] = scaling

    print("operators", flush=True)
    result["operators"] = {key: operators(*case) for key, case in counted.items()}

    print("training step", flush=True)
    result["training share"] = training_share(2 * repeats + 1)

    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "renderer.json").write_text(json.dumps(result, indent=2) + "\n")
    table = report(result, size, large)
    (options.output / "renderer.md").write_text(table)
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    draw(scaling, options.figure)
    page = ROOT / "docs" / "explanation" / "renderer.md"
    if not options.quick:
        text = page.read_text()
        begin, end = "<!-- bench:begin -->\n", "<!-- bench:end -->"
        before, after = text.split(begin)[0], text.split(end)[1]
        page.write_text(f"{before}{begin}{table}{end}{after}")
    print(table)


def report(result: dict, size: tuple[int, int], large: tuple[int, int]) -> str:
    base = result["speed"]["plain taps (baseline)"]
    small, big = f"{size[0]}x{size[1]}", f"{large[0]}x{large[1]}"
    lines = [
        f"Forward + backward, B=1, S=5, 3 channels, sigma up to 6 px; {result['machine']}; medians; command `make bench`.",
        "",
        f"| method | {small} s | times baseline | extra peak MiB | of baseline | first call s | {big} s | max error, scenes"
        " | max error, worst case | cosine of depth gradient | of AIF gradient |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["speed"].items():
        accuracy = result["accuracy"].get(name, {})
        lines.append(
            f"| {name} | {row['small s']:.3f} | {base['small s'] / row['small s']:.0f} x | {row['small MiB']:.0f} | "
            f"{row['small MiB'] / base['small MiB']:.3f} | {row['first call s']:.2f} | "
            + (f"{row['large s']:.3f}" if "large s" in row else "-")
            + "".join(
                f" | {accuracy[key]:.{digits}}" if key in accuracy else " | -"
                for key, digits in (("natural", "1e"), ("worst", "1e"), ("cosine depth", "5f"), ("cosine aif", "5f"))
            )
            + " |"
        )
    share, fast = result["training share"], result["speed"]["fast, source"]
    ratios = [
        f"{name}: {row['large s'] / fast['large s']:.1f} x the time ({big}), {row['small MiB'] / fast['small MiB']:.1f} x "
        f"the memory ({small})"
        for name, row in result["speed"].items()
        if name.startswith("occlusion")
    ]
    lines += [
        "",
        f"Against `fast, source` in the same run: {'; '.join(ratios)}.",
        "",
        "The renderer's share of a DAIF-Net training step (8 stacks of 5 x 64 x 64, sigma_scale 0.5): "
        + ", ".join(f"{method} {100 * share[method]:.0f} %" for method in ("exact", "fast", "auto", "occlusion"))
        + ".",
        "",
    ]
    return "\n".join(lines)


def draw(scaling: dict, path: Path) -> None:
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (key, label) in zip(
        axes, (("sigma", "largest sigma in pixels"), ("pixels", "pixels"), ("slices", "slices")), strict=True
    ):
        for name, values in scaling.items():
            axis.plot(values[key], values[f"{key} s"], "o-", label=name)
        first = next(iter(scaling.values()))
        xs = np.array(first[key], float)
        power = 2 if key == "sigma" else 1
        axis.plot(xs, first[f"{key} s"][0] * (xs / xs[0]) ** power, "k:", label="quadratic" if power == 2 else "linear")
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="forward + backward, s")
        axis.set_xticks(xs, [f"{x:g}" for x in xs])
        axis.minorticks_off()
        axis.legend(fontsize=7)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
