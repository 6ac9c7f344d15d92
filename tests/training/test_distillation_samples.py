"""Self-made stacks: a teacher's answer is the exact answer to the stack that is rendered of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sfdfd.networks.interface import NetworkOutput
from sfdfd.networks.plane_sweep import PlaneSweepNet
from sfdfd.optics import DefocusRenderer
from sfdfd.optics.depth import depth_from_normalized
from sfdfd.scenes.synthesis import StackSynthesis
from sfdfd.training import distillation
from sfdfd.training import distillation_samples as selfmade
from sfdfd.training.distillation import distillation_terms
from sfdfd.training.distillation_samples import (
    BatchPlans,
    ReplayBuffer,
    TeacherPrediction,
    photographed,
    random_sample_setup,
    random_samples,
    sample_from_stack,
    unpack,
)  # fmt: skip
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

PLANES = 8


@pytest.fixture
def answer():
    generator = torch.Generator().manual_seed(3)
    inverse_depth_01 = torch.linspace(0.1, 0.7, 64)[None].expand(56, 64)
    return TeacherPrediction(inverse_depth_01, torch.rand(3, 56, 64, generator=generator), torch.ones(56, 64))


def random_lesson(answers, seed, size, planes):
    return random_samples([random_sample_setup(answers, seed, size)], planes)[0]


def test_a_lesson_depends_on_its_seed_alone(answer):
    one, same, other = (random_lesson([answer], seed, 40, PLANES) for seed in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(one.images, same.images) and torch.equal(one.costs, same.costs)
    assert one.images.shape != other.images.shape or not torch.equal(one.images, other.images)


def test_cut_outs_stand_in_front_and_their_edges_are_sharp(answer):
    """Only nearer, only inside the silhouette; the AIF is one surface's or the other's but for a pixel between them."""
    ground = answer._replace(inverse_depth_01=torch.full((56, 64), 0.3), aif=torch.zeros(3, 56, 64))
    other = answer._replace(inverse_depth_01=torch.full((56, 64), 0.9), aif=torch.ones(3, 56, 64))
    covered = []
    for seed in range(20):
        g = np.random.default_rng(seed)
        inside_px = selfmade._silhouette(48, g)
        scene = selfmade._in_front_of(
            TeacherPrediction(*(value[..., :48, :48] for value in ground)), TeacherPrediction(*(value[..., :48, :48] for value in other)),
            inside_px, g,
        )  # fmt: skip
        nearer = scene.inverse_depth_01 > 0.3
        assert bool((scene.inverse_depth_01 >= 0.3).all()) and not bool((nearer & (inside_px <= 0)).any())
        assert bool((scene.aif[0][inside_px < -0.5] == 0).all())
        within = scene.aif[0][(inside_px > 0.5) & nearer]
        assert bool((within == 1).all())
        covered.append(float(nearer.float().mean()))
    assert 0.02 < np.mean(covered) < 0.6


@pytest.mark.parametrize("seed", range(12))
def test_cameras_and_answers_are_what_they_say(answer, seed):
    lesson = random_lesson([answer], (7, seed), 40, PLANES)
    slices = len(lesson.images)
    assert lesson.images.shape == (slices, 3, 40, 40) and lesson.costs.shape == (2, PLANES, 20, 20)
    assert 2 <= slices <= 12 and lesson.ends_px.shape == (slices, 2)
    span = (lesson.ends_px[:, 0] - lesson.ends_px[:, 1]).abs()
    assert float(span.min()) > 0.8 and float(span.max()) < 40 and float(lesson.near_m) < float(lesson.far_m)
    assert float(lesson.answer.inverse_depth_01.min()) >= 0 and float(lesson.answer.inverse_depth_01.max()) <= 1
    codes = lesson.images * 255
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def plain(setup):
    """Without what photographing spoils."""
    return setup._replace(moves_px=0 * setup.moves_px, noise_std=0.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_stack_is_the_answer_rendered(answer, seed):
    """Away from what silhouettes hide, and from the border."""
    setup = plain(random_sample_setup([answer], (0, seed), 40))._replace(behind=torch.zeros(0, 5, 40, 40))
    inverse_depth_01, aif, _ = setup.answer
    near_m, far_m = (torch.tensor([end]) for end in (setup.near_m, setup.far_m))
    expected = setup.renderer(
        aif[None], depth_from_normalized(inverse_depth_01[None], near_m, far_m), setup.focus_m, setup.camera
    )[0]
    reach = int(selfmade._ends_px(setup.camera, setup.focus_m, setup.near_m, setup.far_m).abs().max()) + 2
    if reach < 15:
        inside = (..., slice(reach, 40 - reach), slice(reach, 40 - reach))
        difference = (photographed(setup)[inside] - expected.clamp(0, 1)[inside]).abs()
        assert float(difference.mean()) < 2e-3
        assert float(difference.max()) < 0.02  # levels differ where the border is more


@pytest.mark.parametrize(("height", "width"), [(40, 40), (32, 56)])
def test_slices_are_misaligned_by_as_many_pixels_as_is_said(answer, height, width):
    """Held against the slices that lie still, moved by whole pixels and averaged for halves."""
    setup = plain(random_sample_setup([answer], (0, 0), 56))
    cut = TeacherPrediction(*(value[..., :height, :width] for value in setup.answer))
    setup = setup._replace(answer=cut, behind=setup.behind[..., :height, :width])
    still = photographed(setup)
    moves_px = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-1.0, 4.0], [0.0, 0.0]])[torch.arange(len(still)) % 4]
    moved = photographed(setup._replace(moves_px=moves_px))
    for index, (x, y) in enumerate(moves_px.int().tolist()):
        rows, columns = (slice(5 + y, height - 5 + y), slice(5 + x, width - 5 + x))
        torch.testing.assert_close(moved[index, :, 5:-5, 5:-5], still[index, :, rows, columns], atol=2 / 255, rtol=0)
        assert float((moved[index] - still[index]).abs().mean()) > 1e-3 or (x, y) == (0, 0)
    half = photographed(setup._replace(moves_px=torch.full_like(moves_px, 0.5)))[..., 5:-5, 5:-5]
    four = [still[..., 5 + y : height - 5 + y, 5 + x : width - 5 + x] for y in (0, 1) for x in (0, 1)]
    torch.testing.assert_close(half, sum(four) / 4, atol=2 / 255, rtol=0)


def test_slices_are_misaligned_by_eight_tenths_of_a_pixel_in_every_fifth_stack(answer):
    moves_px = [random_sample_setup([answer], (9, seed), 16).moves_px for seed in range(300)]
    misaligned = [one for one in moves_px if bool(one.any())]
    assert 0.15 < len(misaligned) / 300 < 0.25
    assert float(torch.cat(misaligned).std()) == pytest.approx(0.8, abs=0.06)


def test_behind_a_blurred_cut_out_its_ground_shines_through(answer):
    """A black bar before a white wall, far out of focus: with the wall behind it given, no more light is lost."""
    bar = torch.zeros(40, 40)
    bar[:, 18:22] = 1
    seen = TeacherPrediction(0.1 + 0.8 * bar, (1 - bar).expand(3, -1, -1), torch.ones(40, 40))
    wall = torch.cat([torch.ones(3, 40, 40), torch.full((1, 40, 40), 0.1), bar[None]])[None]
    setup = next(
        setup
        for seed in range(200)
        if (setup := plain(random_sample_setup([answer], (4, seed), 40))).renderer.options["linear_light"]
        and setup.renderer.options["psf"] == "disc" and len(setup.behind)
        and 5 < float(selfmade._ends_px(setup.camera, setup.focus_m, setup.near_m, setup.far_m).abs().max()) < 12
    )  # fmt: skip
    light = [photographed(setup._replace(answer=seen, behind=behind)) ** 2.2 for behind in (wall, wall[:0])]
    dark = (1 - light[0][:, 0, 20]).sum(-1)  # what the bar takes away is its width, however blurred
    torch.testing.assert_close(dark, torch.full_like(dark, 4.0), atol=0.4, rtol=0)
    assert float((light[0] - light[1]).abs().max()) > 0.1


def test_a_network_that_takes_no_sweep_has_lessons_without_one(answer):
    lesson = random_lesson([answer], (0, 1), 40, 0)
    assert lesson.costs.shape == (2, 0, 20, 20)
    assert torch.equal(lesson.images, random_lesson([answer], (0, 1), 40, PLANES).images)


def test_a_step_is_the_same_whether_or_not_the_training_was_interrupted(answer):
    whole, later = (BatchPlans([answer], 6, first, 1, 3, 4, 40, 5, PLANES) for first in (0, 4))
    practice, anew = ReplayBuffer(whole, 24), ReplayBuffer(later, 24)
    batches = [practice(exercise, "cpu") for exercise in (whole[index] for index in range(6))]
    for index in range(2):
        batch = anew(later[index], "cpu")
        assert torch.equal(batch.images, batches[4 + index].images)
        assert torch.equal(batch.costs, batches[4 + index].costs)
    assert len(practice.known) <= 5 and [*whole[3].fresh] == [3] and all(number < 4 for number in whole[3].again)


def test_packing_keeps_a_lesson_and_cutting_moves_all_alike(answer):
    lesson = random_lesson([answer], (0, 3), 40, PLANES)
    back = unpack(pack(lesson))
    torch.testing.assert_close(back.images, lesson.images, atol=2e-3, rtol=0)
    torch.testing.assert_close(back.costs, lesson.costs, atol=2e-2, rtol=1e-2)
    marked = lesson._replace(
        images=lesson.answer.inverse_depth_01.expand(len(lesson.images), 3, -1, -1),
        costs=F.avg_pool2d(lesson.answer.inverse_depth_01[None], 2).expand(2, PLANES, -1, -1),
    )
    for seed in range(6):
        cut = marked.cropped(24, np.random.default_rng(seed))
        assert cut.costs.shape[-2:] == (12, 12)
        assert torch.equal(cut.images[0, 0], cut.answer.inverse_depth_01)
        torch.testing.assert_close(cut.costs[0, 0], F.avg_pool2d(cut.answer.inverse_depth_01[None], 2)[0])


def test_the_teachers_own_stack_is_a_lesson_and_a_batch_is_padded(answer):
    renderer = DefocusRenderer(sigma_scale=0.5)
    synthesis = StackSynthesis(renderer, CAMERA, FOCUS_M, 0.5, 10.0)
    stack = procedural_stacks(1, synthesis, seed=0, height=40, width=48)[0]
    inverse_depth_01 = torch.zeros(40, 48)
    own = sample_from_stack(
        stack, TeacherPrediction(inverse_depth_01, stack.images[0, 0], inverse_depth_01 + 1), renderer, PLANES
    )
    assert own.costs.shape == (2, PLANES, 20, 24) and torch.equal(own.images, stack.images[0])
    lessons = [random_lesson([answer], (1, seed), 40, PLANES) for seed in (0, 1, 2)]
    batch = collate_samples(lessons)
    longest = max(len(one.images) for one in lessons)
    assert batch.images.shape[:2] == (3, longest) and batch.slice_mask.sum(1).tolist() == [
        len(o.images) for o in lessons
    ]


def test_the_terms_vanish_at_the_answer_and_teach_the_spread(answer):
    lesson = collate_samples([random_lesson([answer], (2, 0), 40, PLANES)])
    low, high = 1 / lesson.far_m, 1 / lesson.near_m
    depth_m = 1 / (low + lesson.answer.inverse_depth_01 * (high - low))
    weights = {"log_depth": 1.0, "inverse_depth_01": 1.0, "aif": 1.0, "std": 0.0}
    std = torch.full_like(depth_m, 0.05)
    exact = distillation_terms(NetworkOutput(depth_m, lesson.answer.aif, std), lesson, weights)
    assert float(exact["total"]) < 1e-5
    off = 1 / (low + (lesson.answer.inverse_depth_01 + 0.05) * (high - low))
    values = [
        float(
            distillation_terms(NetworkOutput(off, lesson.answer.aif, torch.full_like(off, s)), lesson, weights)["std"]
        )
        for s in (0.01, 0.05, 0.25)
    ]
    assert values[1] == min(values)  # the likelihood is largest where s is the error


def test_what_lies_about_silhouettes_counts_more_and_the_sum_of_weights_stays(answer):
    lesson = collate_samples([random_lesson([answer], (2, 0), 40, PLANES)])
    inverse_depth_01 = torch.full((1, 40, 40), 0.2)
    inverse_depth_01[..., 20:] = 0.8
    near = distillation.near_silhouettes(inverse_depth_01)
    columns = torch.arange(40)
    inside = (columns >= 20 - 1 - distillation.EDGE_PX) & (columns <= 20 + distillation.EDGE_PX)
    assert torch.equal(near, inside.float().expand(1, 40, 40))
    lesson = lesson._replace(
        answer=TeacherPrediction(inverse_depth_01, lesson.answer.aif, torch.full_like(inverse_depth_01, 0.5))
    )
    low, high = 1 / lesson.far_m, 1 / lesson.near_m
    weights = {"log_depth": 0.0, "inverse_depth_01": 1.0, "aif": 0.0}

    def cost(off):
        depth_m = 1 / (low + (inverse_depth_01 + off) * (high - low))
        return float(distillation_terms(NetworkOutput(depth_m, lesson.answer.aif), lesson, weights)["inverse_depth_01"])

    everywhere = torch.full_like(inverse_depth_01, 0.01)
    assert cost(everywhere) == pytest.approx(0.5 * 0.01, rel=1e-3)
    share = float(near.mean())
    assert cost(everywhere * near) / cost(everywhere) == pytest.approx(4 * share / (1 + 3 * share), rel=1e-3)


def test_a_network_learns_a_lesson(answer):
    torch.manual_seed(0)
    from sfdfd.training.distillation import Distillation

    weights = {"log_depth": 1.0, "inverse_depth_01": 1.0, "aif": 0.0, "scores": 0.2}
    module = Distillation(PlaneSweepNet(width=8, planes=PLANES, depth=3), lambda p: torch.optim.Adam(p, 3e-3), weights)
    lesson = collate_samples([random_lesson([answer], (3, 1), 40, PLANES)])
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    found = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = module.terms(lesson)["total"].mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.8 * found[0]


def test_scores_cost_least_at_the_answer():
    inverse_depth_01 = torch.tensor([0.3, 0.3, 0.9, 0.9]).expand(1, 2, 4)
    exact = torch.zeros(1, 11, 1, 2)
    exact[:, 3, :, 0] = exact[:, 9, :, 1] = 20.0
    sure = torch.ones(1, 2, 4)
    assert float(distillation.cross_entropy(exact, inverse_depth_01, sure)) < 1e-3
    assert float(distillation.cross_entropy(exact.flip(-1), inverse_depth_01, sure)) > 10
