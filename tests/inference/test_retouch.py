"""Strokes on a prediction: their laws, at the working and at the full size."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfdfd.errors import InputError
from sfdfd.inference.estimator import Solution
from sfdfd.inference.methods import SweepMethod, with_confidence
from sfdfd.inference.retouch import FullSlices, fit_plane, fitted_retouch, retouched_solution, stroke_weight
from sfdfd.inference.upsampling import upsample_prediction
from sfdfd.io.retouch_file import Retouch, Stroke
from sfdfd.optics import DefocusRenderer
from sfdfd.scenes.synthesis import StackSynthesis
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")
HEIGHT, WIDTH = 72, 96
BOX = (slice(10, 40), slice(20, 60))


@pytest.fixture(scope="module")
def solved():
    """The solutions of a stack that is worked on at its size and at half of it, with its slices."""
    stack = procedural_stacks(
        1, StackSynthesis(RENDERER, CAMERA, FOCUS_M, 0.5, 10.0), seed=3, height=HEIGHT, width=WIDTH
    )[0].without_truth()  # fmt: skip
    images = [(255 * image).byte().permute(1, 2, 0).numpy() for image in stack.images[0]]
    slices = FullSlices.of(images)
    stack = replace(stack, images=torch.stack([load() for load in slices.load])[None])
    solutions = {}
    for name, one in (("full", stack), ("reduced", stack.resized(HEIGHT // 2, WIDTH // 2))):
        working = with_confidence(SweepMethod(RENDERER)(one), one, RENDERER)
        full = working
        if one is not stack:
            full = upsample_prediction(working, one, slices.load, (HEIGHT, WIDTH), stack.camera[0])
        solutions[name] = Solution(one, working, full, None)
    return solutions, slices


def outline(operation, **keys):
    """A stroke that fills BOX."""
    (top, bottom), (left, right) = ((part.start, part.stop) for part in BOX)
    points = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return {"operation": operation, "points": points, "radius_px": 0.01, "fill": True, **keys}


def applied(solved, *strokes, where="full", size=(HEIGHT, WIDTH), **options):
    solutions, slices = solved
    retouch = Retouch.parse({"size": list(size), "strokes": list(strokes), **options})
    fitted = fitted_retouch(retouch, list("abcde"), (HEIGHT, WIDTH), CAMERA, relative=retouch.unit == "relative")
    found = retouched_solution(
        solutions[where], fitted, slices, CAMERA, RENDERER, relative=retouch.unit == "relative"
    )  # fmt: skip
    return found, solutions[where]


def test_weights_are_those_of_the_distance_to_the_stroke():
    stroke = Stroke("slice", ((10.0, 12.0), (30.0, 20.0), (33.0, 40.0)), radius_px=5, feather_px=4, slice=0)
    (rows, columns), weight = stroke_weight(stroke, (50, 60))
    whole = torch.zeros(50, 60)
    whole[rows, columns] = weight
    along = torch.cat([torch.linspace(0, 1, 4000)[:, None] * torch.tensor(b) + (1 - torch.linspace(0, 1, 4000)[:, None]) *
                       torch.tensor(a) for a, b in zip(stroke.points, stroke.points[1:], strict=False)])  # fmt: skip
    y, x = torch.meshgrid(torch.arange(50) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    distance = torch.cdist(torch.stack([x.flatten(), y.flatten()], 1), along).amin(1).reshape(50, 60)
    torch.testing.assert_close(whole, (1 - (distance - 5) / 4).clamp(0, 1), atol=2e-3, rtol=0)
    hard = stroke_weight(replace(stroke, feather_px=0.0), (50, 60))[1]
    assert set(hard.unique().tolist()) == {0, 1}
    assert stroke_weight(replace(stroke, points=((-50.0, 5.0),)), (50, 60)) is None
    assert stroke_weight(replace(stroke, points=((5.0, 500.0),)), (50, 60)) is None
    assert stroke_weight(replace(stroke, points=((0.0, 0.0), (0.0, 0.0))), (50, 60))[1].sum() > 0


def test_a_filled_outline_holds_its_inside():
    stroke = Retouch.parse({"size": [HEIGHT, WIDTH], "strokes": [outline("plane")]}).strokes[0]
    (rows, columns), weight = stroke_weight(stroke, (HEIGHT, WIDTH))
    whole = torch.zeros(HEIGHT, WIDTH)
    whole[rows, columns] = weight
    assert bool((whole[BOX] == 1).all()) and whole.sum() == whole[BOX].numel()


@pytest.mark.parametrize("wrong", [0.0, 0.4])
def test_a_plane_is_found_although_many_points_are_wrong(wrong):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 3000))
    values = 0.3 * x - 0.2 * y + 0.5
    bad = rng.random(3000) < wrong
    values[bad] = 1.5 + 0.3 * x[bad]  # another surface, not noise
    np.testing.assert_allclose(fit_plane(x, y, values), [0.3, -0.2, 0.5], atol=1e-6)
    noisy = fit_plane(x, y, values + 0.01 * rng.standard_normal(3000))
    np.testing.assert_allclose(noisy, [0.3, -0.2, 0.5], atol=0.01)


def test_few_or_aligned_points_have_a_plane_too():
    np.testing.assert_allclose(fit_plane(np.ones(2), np.ones(2), np.array([2.0, 4.0])), [0, 0, 3])
    x = np.linspace(0, 1, 50)
    a, b, c = fit_plane(x, x, 0.5 + 0.2 * x)
    np.testing.assert_allclose(a * x + b * x + c, 0.5 + 0.2 * x, atol=1e-9)


@pytest.mark.parametrize("where", ["full", "reduced"])
def test_no_strokes_change_nothing(solved, where):
    found, base = applied(solved, where=where)
    assert found.solution is base and found.picture is None
    outside = {"operation": "slice", "slice": 0, "points": [[-500, 3]], "radius_px": 5}
    found, base = applied(solved, outside, outline("distance", depth=1.0, strength=0), where=where)
    assert torch.equal(found.solution.full.aif, base.full.aif) and found.picture is None
    torch.testing.assert_close(found.solution.full.depth_m, base.full.depth_m, rtol=0, atol=0)
    assert found.facts["depth_share"] == found.facts["aif_share"] == 0


@pytest.mark.parametrize("where", ["full", "reduced"])
def test_a_stroke_of_a_slice_makes_pixels_equal_to_it_and_leaves_the_others(solved, where):
    stroke = {"operation": "slice", "slice": 3, "points": [[30, 30], [60, 40]], "radius_px": 8, "feather_px": 5}
    found, base = applied(solved, stroke, where=where)
    (rows, columns), weight = stroke_weight(
        Retouch.parse({"size": [9, 9], "strokes": [stroke]}).strokes[0], (HEIGHT, WIDTH)
    )
    whole = torch.zeros(HEIGHT, WIDTH)
    whole[rows, columns] = weight
    aif, slice_ = found.solution.full.aif[0], solved[1].load[3]()
    assert torch.equal(aif[:, whole == 1], slice_[:, whole == 1])
    assert torch.equal(aif[:, whole == 0], base.full.aif[0][:, whole == 0])
    torch.testing.assert_close(aif, torch.lerp(base.full.aif[0], slice_, whole))
    assert torch.equal(found.solution.full.depth_m, base.full.depth_m)
    assert found.facts["strokes"] == {"slice": 1} and found.facts["depth_share"] == 0 < found.facts["aif_share"] < 1
    if where == "reduced":  # the report's viewer shows the working size
        small = found.solution.working.aif[0][:, 17, 22]
        torch.testing.assert_close(small, base.stack.images[0, 3][:, 17, 22])
    assert not torch.equal(found.solution.working.rendered, base.working.rendered)


def test_a_slice_that_shows_nothing_at_a_pixel_leaves_it(solved):
    solutions, slices = solved
    covered = [torch.ones(HEIGHT, WIDTH, dtype=torch.bool) for _ in slices.load]
    covered[3][:, :30] = False
    found, base = applied((solutions, FullSlices(slices.load, covered)), outline("slice", slice=3))
    aif, inside = found.solution.full.aif[0], (slice(None), *BOX)
    assert torch.equal(aif[..., :30], base.full.aif[0][..., :30])
    assert torch.equal(aif[inside][..., 10:], slices.load[3]()[inside][..., 10:])


@pytest.mark.parametrize("where", ["full", "reduced"])
def test_the_plane_brush_leaves_an_exact_plane_in_inverse_depth(solved, where):
    found, base = applied(solved, outline("plane"), where=where)
    for prediction, box in ((found.solution.full, BOX), (found.solution.working, None)):
        if box is None:
            scale = prediction.depth_m.shape[-1] / WIDTH
            box = tuple(slice(round(part.start * scale), round(part.stop * scale)) for part in BOX)
        inverse = 1 / prediction.depth_m[0][box].double()
        assert inverse.diff(dim=0).diff(dim=0).abs().max() < 3e-6 and inverse.diff(dim=1).diff(dim=1).abs().max() < 3e-6
    outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    outside[BOX] = False
    assert torch.equal(found.solution.full.depth_m[0][outside], base.full.depth_m[0][outside])
    assert torch.equal(found.solution.full.aif[0][:, outside], base.full.aif[0][:, outside])
    middle = (1 / base.full.depth_m[0][BOX]).median()
    assert (1 / found.solution.full.depth_m[0][BOX]).median() == pytest.approx(float(middle), rel=0.2)


def test_a_distance_holds_and_its_strength_is_in_inverse_depth(solved):
    hard, _ = applied(solved, outline("distance", depth=1.25), where="reduced")
    assert torch.allclose(hard.solution.full.depth_m[0][BOX], torch.tensor(1.25))
    assert torch.allclose(hard.solution.working.depth_m[0, 8:18, 12:28], torch.tensor(1.25))
    soft, _ = applied(solved, outline("distance", depth=1.25, strength=0.25))
    expected = 0.75 / solved[0]["full"].full.depth_m[0][BOX] + 0.25 / 1.25
    torch.testing.assert_close(1 / soft.solution.full.depth_m[0][BOX], expected)


def test_the_aif_takes_the_slices_that_are_sharp_at_the_new_depth(solved):
    found, base = applied(solved, outline("distance", depth=FOCUS_M[4]))
    inside = (slice(None), *BOX)
    moved = CAMERA.blur_scale_px_m * (1 / base.full.depth_m[0][BOX] - 1 / FOCUS_M[4]).abs()
    wrong = (found.solution.full.aif[0][inside] - solved[1].load[4]()[inside]).abs()
    assert (moved > 5).any() and wrong[:, moved > 5].max() < 0.05
    unmoved, base = applied(solved, outline("plane", strength=1e-6))
    assert (unmoved.solution.full.aif - base.full.aif).abs().max() < 1e-3


def test_strokes_apply_in_order_and_undoing_one_is_leaving_it_out(solved):
    first, second = outline("distance", depth=1.0), outline("plane")
    both, _ = applied(solved, first, second)
    assert torch.allclose(both.solution.full.depth_m[0][BOX], torch.tensor(1.0))  # a plane through what the first left
    one, _ = applied(solved, first)
    undone, _ = applied(solved, *[first, second][:1])
    assert torch.equal(one.solution.full.depth_m, undone.solution.full.depth_m)
    assert torch.equal(one.solution.full.aif, undone.solution.full.aif)
    late, _ = applied(solved, outline("slice", slice=0), outline("slice", slice=4))
    assert torch.equal(late.solution.full.aif[0][(slice(None), *BOX)], solved[1].load[4]()[(slice(None), *BOX)])


def test_strokes_of_another_size_are_scaled(solved):
    stroke = {"operation": "distance", "depth": 2.0, "points": [[40, 30], [60, 40]], "radius_px": 9}
    twice = {**stroke, "points": [[80, 60], [120, 80]], "radius_px": 18}
    same, _ = applied(solved, stroke)
    scaled, _ = applied(solved, twice, size=(2 * HEIGHT, 2 * WIDTH))
    assert torch.equal(same.solution.full.depth_m, scaled.solution.full.depth_m)
    with pytest.raises(InputError, match="retouch: size"):
        applied(solved, stroke, size=(WIDTH, HEIGHT))


@pytest.mark.parametrize("where", ["full", "reduced"])
def test_a_rendered_background_blurs_only_beyond_its_depth(solved, where):
    depth_m, aif = solved[0][where].full.depth_m[0], solved[0][where].full.aif[0]
    middle_m, far_m = (float(depth_m.quantile(share)) for share in (0.3, 0.9))
    found, base = applied(solved, {"operation": "background", "depth": middle_m}, where=where)
    assert torch.equal(found.picture[:, depth_m <= middle_m], aif[:, depth_m <= middle_m])
    assert torch.equal(found.solution.full.aif, base.full.aif)  # refocusing needs it sharp
    assert (found.picture - aif).abs()[:, depth_m > far_m].mean() > 0.005
    wider, _ = applied(solved, {"operation": "background", "depth": middle_m, "aperture": 1e6}, where=where)
    assert bool(torch.isfinite(wider.picture).all())  # as wide as can be rendered
    beyond_all, _ = applied(solved, {"operation": "background", "depth": 1e4}, where=where)
    assert torch.equal(beyond_all.picture, aif)


def test_a_background_from_a_slice_is_that_slice_and_later_strokes_lie_on_it(solved):
    depth_m, aif = solved[0]["full"].full.depth_m[0], solved[0]["full"].full.aif[0]
    middle_m, far_m = (float(depth_m.quantile(share)) for share in (0.3, 0.5))
    background = {"operation": "background", "depth": middle_m, "slice": 0}
    found, _ = applied(solved, background, outline("slice", slice=4))
    outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    outside[BOX] = False
    kept = outside & (depth_m <= middle_m)
    assert torch.equal(found.picture[:, kept], aif[:, kept])
    nearest_around = -torch.nn.functional.max_pool2d(-depth_m[None], 7, 1, 3)[0]
    far = outside & (nearest_around > far_m) & (CAMERA.blur_radius_px(nearest_around, torch.tensor(middle_m)) > 1)
    assert far.any()
    torch.testing.assert_close(found.picture[:, far], solved[1].load[0]()[:, far])
    assert torch.equal(found.picture[(slice(None), *BOX)], solved[1].load[4]()[(slice(None), *BOX)])


def test_relative_depths_are_those_of_the_relative_map(solved):
    found, _ = applied(solved, outline("distance", depth=1.0), unit="relative")
    assert torch.allclose(found.solution.full.depth_m[0][BOX], torch.tensor(FOCUS_M[-1]))
    middle, _ = applied(solved, outline("distance", depth=0.5), unit="relative")
    expected = 2 / (1 / FOCUS_M[0] + 1 / FOCUS_M[-1])
    assert torch.allclose(middle.solution.full.depth_m[0][BOX], torch.tensor(expected))


def test_what_does_not_fit_is_refused_before_anything_is_done(solved):
    with pytest.raises(InputError, match=r"strokes\[0\].depth: expected a distance beyond the focal length \(0.05 m\)"):
        applied(solved, outline("distance", depth=0.01))
    with pytest.raises(InputError, match=r"strokes\[0\].slice: slice 9 is not among the 5"):
        applied(solved, outline("slice", slice=9))
    metric = Retouch.parse({"size": [HEIGHT, WIDTH], "strokes": [outline("distance", depth=1.0)]})
    with pytest.raises(InputError, match="retouch: unit"):
        fitted_retouch(metric, list("abcde"), (HEIGHT, WIDTH), CAMERA, relative=True)


def test_previews_are_made_as_slices_are_loaded_or_later():
    slices = FullSlices.of([np.full((30, 2400, 3), value, np.uint8) for value in (10, 20, 30)])
    slices.load[1]()
    assert list(slices.previews) == [1]
    previews = slices.all_previews()
    assert [image.shape for image in previews] == [(3, 16, 1024)] * 3
    assert [int(image.float().mean()) for image in previews] == [10, 20, 30]
