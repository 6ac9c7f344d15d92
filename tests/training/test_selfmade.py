"""Self-made stacks: a teacher's answer is the exact answer to the stack that is rendered of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sfdfd.data.synthesis import StackSynthesis
from sfdfd.networks.sweep import PlaneSweepNet
from sfdfd.optics import DefocusRenderer
from sfdfd.training import distillation, selfmade
from sfdfd.training.distillation import distillation_terms
from sfdfd.training.selfmade import Answer, own_lesson, packed, random_lesson, together, unpacked
from tests.conftest import CAMERA, FOCUS_M, procedural_stacks

PLANES = 8


@pytest.fixture
def answer():
    generator = torch.Generator().manual_seed(3)
    position = torch.linspace(0.1, 0.7, 64)[None].expand(56, 64)
    return Answer(position, torch.rand(3, 56, 64, generator=generator), torch.ones(56, 64))


def test_a_lesson_depends_on_its_seed_alone(answer):
    one, same, other = (random_lesson([answer], seed, 40, PLANES) for seed in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(one.images, same.images) and torch.equal(one.costs, same.costs)
    assert one.images.shape != other.images.shape or not torch.equal(one.images, other.images)


def test_cut_outs_stand_in_front_and_their_edges_are_sharp(answer):
    """Only nearer, only inside the silhouette; the AIF is one surface's or the other's but for a pixel between them."""
    ground = answer._replace(position=torch.full((56, 64), 0.3), aif=torch.zeros(3, 56, 64))
    other = answer._replace(position=torch.full((56, 64), 0.9), aif=torch.ones(3, 56, 64))
    covered = []
    for seed in range(20):
        g = np.random.default_rng(seed)
        inside_px = selfmade._silhouette(48, g)
        scene = selfmade._in_front_of(
            Answer(*(value[..., :48, :48] for value in ground)), Answer(*(value[..., :48, :48] for value in other)),
            inside_px, g,
        )  # fmt: skip
        nearer = scene.position > 0.3
        assert bool((scene.position >= 0.3).all()) and not bool((nearer & (inside_px <= 0)).any())
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
    assert float(lesson.answer.position.min()) >= 0 and float(lesson.answer.position.max()) <= 1
    codes = lesson.images * 255
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)


def test_the_stack_is_the_answer_rendered(answer, monkeypatch):
    kept = {}
    monkeypatch.setattr(selfmade, "_as_photographed", lambda images, g: kept.setdefault("images", images))
    lesson = random_lesson([answer], (0, 5), 40, PLANES)
    near, far = lesson.ends_px.unbind(-1)
    blur = (far[:, None, None] + lesson.answer.position * (near - far)[:, None, None]).abs()
    sharpest = blur.amin((1, 2)).argmin()
    inside = blur[sharpest] < 0.3
    if bool(inside.any()):  # where a slice is in focus it is the AIF
        difference = (kept["images"][sharpest] - lesson.answer.aif).abs().mean(0)[inside]
        assert float(difference.mean()) < 0.05


def test_packing_keeps_a_lesson_and_cutting_moves_all_alike(answer):
    lesson = random_lesson([answer], (0, 3), 40, PLANES)
    back = unpacked(packed(lesson))
    torch.testing.assert_close(back.images, lesson.images, atol=2e-3, rtol=0)
    torch.testing.assert_close(back.costs, lesson.costs, atol=2e-2, rtol=1e-2)
    marked = lesson._replace(
        images=lesson.answer.position.expand(len(lesson.images), 3, -1, -1),
        costs=F.avg_pool2d(lesson.answer.position[None], 2).expand(2, PLANES, -1, -1),
    )
    for seed in range(6):
        cut = marked.cropped(24, np.random.default_rng(seed))
        assert cut.costs.shape[-2:] == (12, 12)
        assert torch.equal(cut.images[0, 0], cut.answer.position)
        torch.testing.assert_close(cut.costs[0, 0], F.avg_pool2d(cut.answer.position[None], 2)[0])


def test_the_teachers_own_stack_is_a_lesson_and_a_batch_is_padded(answer):
    renderer = DefocusRenderer(sigma_scale=0.5)
    synthesis = StackSynthesis(renderer, CAMERA, FOCUS_M, 0.5, 10.0)
    stack = procedural_stacks(1, synthesis, seed=0, height=40, width=48)[0]
    position = torch.zeros(40, 48)
    own = own_lesson(stack, Answer(position, stack.images[0, 0], position + 1), renderer, PLANES)
    assert own.costs.shape == (2, PLANES, 20, 24) and torch.equal(own.images, stack.images[0])
    lessons = [random_lesson([answer], (1, seed), 40, PLANES) for seed in (0, 1, 2)]
    batch = together(lessons)
    longest = max(len(one.images) for one in lessons)
    assert batch.images.shape[:2] == (3, longest) and batch.slice_mask.sum(1).tolist() == [
        len(o.images) for o in lessons
    ]


def test_the_terms_vanish_at_the_answer_and_teach_the_spread(answer):
    lesson = together([random_lesson([answer], (2, 0), 40, PLANES)])
    low, high = 1 / lesson.far_m, 1 / lesson.near_m
    depth_m = 1 / (low + lesson.answer.position * (high - low))
    weights = {"log_depth": 1.0, "position": 1.0, "aif": 1.0, "spread": 0.0}
    spread = torch.full_like(depth_m, 0.05)
    exact = distillation_terms(depth_m, lesson.answer.aif, spread, lesson, weights)
    assert float(exact["total"]) < 1e-5
    off = 1 / (low + (lesson.answer.position + 0.05) * (high - low))
    values = [
        float(distillation_terms(off, lesson.answer.aif, torch.full_like(off, s), lesson, weights)["spread"])
        for s in (0.01, 0.05, 0.25)
    ]
    assert values[1] == min(values)  # the likelihood is largest where s is the error


def test_what_lies_about_silhouettes_counts_more_and_the_sum_of_weights_stays(answer):
    lesson = together([random_lesson([answer], (2, 0), 40, PLANES)])
    position = torch.full((1, 40, 40), 0.2)
    position[..., 20:] = 0.8
    near = distillation.near_silhouettes(position)
    columns = torch.arange(40)
    inside = (columns >= 20 - 1 - distillation.EDGE_PX) & (columns <= 20 + distillation.EDGE_PX)
    assert torch.equal(near, inside.float().expand(1, 40, 40))
    lesson = lesson._replace(answer=Answer(position, lesson.answer.aif, torch.full_like(position, 0.5)))
    low, high = 1 / lesson.far_m, 1 / lesson.near_m
    weights = {"log_depth": 0.0, "position": 1.0, "aif": 0.0}

    def cost(off):
        depth_m = 1 / (low + (position + off) * (high - low))
        return float(distillation_terms(depth_m, lesson.answer.aif, None, lesson, weights)["position"])

    everywhere = torch.full_like(position, 0.01)
    assert cost(everywhere) == pytest.approx(0.5 * 0.01, rel=1e-3)
    share = float(near.mean())
    assert cost(everywhere * near) / cost(everywhere) == pytest.approx(4 * share / (1 + 3 * share), rel=1e-3)


def test_a_network_learns_a_lesson(answer):
    torch.manual_seed(0)
    from sfdfd.training.distillation import Distillation

    weights = {"log_depth": 1.0, "position": 1.0, "aif": 0.0, "spread": 0.0}
    module = Distillation(PlaneSweepNet(width=16, planes=PLANES, depth=3), lambda p: torch.optim.Adam(p, 3e-3), weights)
    lesson = together([random_lesson([answer], (3, 1), 40, PLANES)])
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    found = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = module.terms(lesson)["total"].mean()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.8 * found[0]
