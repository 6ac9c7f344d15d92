"""A depth map is aligned whatever its scale, decides where the blur says little, and loses where the blur contradicts it."""

import pytest
import torch
import torch.nn.functional as F

from sfdfd.inference.prior import align_prior
from sfdfd.refinement.variables import Start

HEIGHT, WIDTH = 96, 128
COVERAGE = torch.ones(1, HEIGHT, WIDTH)
PLAIN = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
PLAIN[20:60, 30:90] = True


def scene():
    """Normalized inverse depth of a slanted floor with a box on it, from 0.1 to 0.9."""
    rows = torch.linspace(0.15, 0.75, HEIGHT)[:, None].expand(HEIGHT, WIDTH).clone()
    rows[56:84, 20:50] = 0.85
    return rows


def start_of(truth, plain_error=0.08, seed=0):
    """The start: right to 0.003 where there is texture, wrong by a smooth error and unsure on the plain part."""
    generator = torch.Generator().manual_seed(seed)
    std = torch.where(PLAIN, 0.1, 0.003)
    error = 0.003 * torch.randn(HEIGHT, WIDTH, generator=generator)
    return Start((truth + torch.where(PLAIN, plain_error, error))[None], std[None])


def smooth_noise(cells, seed=1):
    noise = torch.randn(1, 1, cells, cells, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (HEIGHT, WIDTH), mode="bicubic")[0, 0]


def joined(values, kind="inverse_depth", start=None):
    start = start_of(scene()) if start is None else start
    alignment = align_prior(values, kind, start, COVERAGE)
    return alignment, torch.lerp(start.inverse_depth_01, alignment.prior.inverse_depth_01, alignment.prior.share)[0]


def error(found, where=PLAIN):
    return float((found - scene()).abs()[where].mean())


@pytest.mark.parametrize(("kind", "values"), [
    ("inverse_depth", lambda p: 7 * p + 3), ("inverse_depth", lambda p: 0.01 * p - 2), ("depth", lambda p: 5 / (p + 0.2)),
    ("depth", lambda p: 0.001 / (p + 1)),
])  # fmt: skip
def test_scale_shift_and_kind_do_not_matter(kind, values):
    """The plain part takes the depth of the map, whose kind is found."""
    for asked in (kind, "auto"):
        alignment, found = joined(values(scene()), asked)
        assert alignment.is_used and alignment.kind == kind and alignment.curve == "line"
        assert error(found) < 0.1 * 0.08 and alignment.prior.share[0][PLAIN].median() > 0.95


def test_a_curve_where_it_explains_clearly_more():
    alignment, found = joined(scene() ** 3)
    assert alignment.curve == "monotone curve" and error(found) < 0.25 * 0.08
    x, y = (scene() ** 3).flatten(), alignment.prior.inverse_depth_01.flatten()
    order = x.argsort()
    assert (y[order].diff() > -0.01).all()


@pytest.mark.parametrize("values", [
    torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)), smooth_noise(6), -scene(),
])  # fmt: skip
def test_what_explains_nothing_is_not_used(values):
    """Noise, and depth taken for its inverse."""
    alignment, _ = joined(values)
    assert not alignment.is_used and alignment.facts()["decides_on_share"] == 0


def test_sure_blur_wins():
    """An object at a wrong depth whose texture is sure stays where the blur has it, and the rest of the map is used."""
    wrong = scene()
    wrong[56:84, 20:50] = 0.3
    alignment, found = joined(wrong)
    box = torch.zeros_like(PLAIN)
    box[62:78, 26:44] = True
    assert alignment.is_used and error(found, box & ~PLAIN) < 0.004 and error(found) < 0.25 * 0.08


def test_a_smooth_error_is_corrected_from_around():
    wrong = scene() + 0.05 * smooth_noise(3)
    _, found = joined(wrong)
    sure = joined(scene())[1]
    assert error(found) < 0.6 * 0.08 and error(found, ~PLAIN) < error(sure, ~PLAIN) + 0.002


def test_a_contradicted_map_loses_where_the_start_is_fairly_sure():
    """The share falls with the departure in standard deviations."""
    shares = []
    for departure in (0.0, 0.05, 0.4):
        start = start_of(scene(), departure)
        start = start._replace(std=torch.where(PLAIN, 0.03, 0.003)[None])
        shares.append(float(joined(scene(), start=start)[0].prior.share[0][PLAIN].mean()))
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.8 and shares[2] < 0.05


def test_unknown_pixels_change_nothing_and_infinity_is_far():
    values = 1 / scene().clamp_min(0.01)
    values[20:40] = torch.nan
    alignment, found = joined(values, "depth")
    assert torch.equal(found[20:40], start_of(scene()).inverse_depth_01[0, 20:40])
    sky = 1 / (scene() - 0.15).clamp_min(0)  # infinite in the first row, whose inverse depth is 0.15
    assert sky.isinf().any()
    alignment, found = joined(sky, "depth")
    assert alignment.kind == "depth" and found.isfinite().all() and error(found) < 0.2 * 0.08


def test_too_little_sure_evidence_is_no_alignment():
    start = start_of(scene())
    alignment = align_prior(scene(), "auto", start, torch.zeros_like(COVERAGE))
    assert not alignment.is_used
    assert not align_prior(torch.full_like(scene(), torch.nan), "auto", start, COVERAGE).is_used


def test_displaced_edges_are_not_believed():
    """Beside its edges a map counts less when sure pixels of the start contradict it there."""
    start = start_of(scene())
    band = torch.zeros_like(PLAIN)
    band[58:82, 48:56] = True  # beside the box
    start = start._replace(std=torch.where(band, 0.1, start.std[0])[None])
    shares = [
        float(joined(values, start=start)[0].prior.share[0][band].mean())
        for values in (scene(), scene().roll(5, 1), F.avg_pool2d(scene()[None], 11, 1, 5, count_include_pad=False)[0])
    ]
    assert shares[0] > 0.6 and shares[1] < 0.3 * shares[0]


def test_alignment_is_deterministic():
    first, second = joined(scene() ** 2)[1], joined(scene() ** 2)[1]
    assert torch.equal(first, second)
