"""A benchmark: laws of its scores, what failing contestants do to it, its table."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sfdfd.datasets.datamodule import StacksDataModule
from sfdfd.datasets.sources.base import write_stack
from sfdfd.errors import InputError
from sfdfd.evaluation.benchmark import Benchmark, group_of, run_benchmark, score, table_rows
from sfdfd.evaluation.intervals import mean_interval, paired_interval
from sfdfd.evaluation.setup import known_methods
from sfdfd.inference.answers import Answer
from sfdfd.inference.contestants import MethodContestant, contestants_of
from sfdfd.networks.interface import NetworkOutput, render_prediction
from sfdfd.optics import DefocusRenderer
from sfdfd.refinement.refiner import Refiner
from sfdfd.scenes.example_stack import example_stack
from sfdfd.training.checkpoints import load_model

RENDERER = DefocusRenderer(sigma_scale=0.5, method="fast")
NAMES = ("dslr_00", "phone_00", "macro_00")


@pytest.fixture(scope="module")
def stack():
    return replace(example_stack(), name=("dslr_00",))


@pytest.fixture(scope="module")
def root(stack, tmp_path_factory):
    """Three small stacks with truth, of three classes."""
    folder = tmp_path_factory.mktemp("set")
    for name in NAMES:
        codes = (255 * stack.images[0]).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        aif = (255 * stack.aif[0]).round().to(torch.uint8).permute(1, 2, 0).numpy()
        focus_m, ends = stack.focus_distances_m[0].tolist(), (float(stack.near_m[0]), float(stack.far_m[0]))
        camera, depth_m = stack.camera[0].as_dict(), stack.depth_m[0].numpy()
        write_stack(folder, name, list(codes), camera, focus_m, *ends, depth_m, aif)
    return folder


@pytest.fixture(scope="module")
def known():
    module, renderer = load_model("pretrained", {}, {"method": "fast"})
    return known_methods(lambda: module, renderer, Refiner(steps=1), "auto", torch.device("cpu"))


def oracle(stack):
    """Knows the truth of the example."""
    truth = example_stack()
    return render_prediction(NetworkOutput(truth.depth_m, truth.aif), RENDERER, stack)


def broken(stack):
    raise RuntimeError("out of luck")


# ---------------------------------------------------------------- scores


def test_the_truth_scores_nothing_but_perfect_figures(stack):
    figures = score(Answer(stack.depth_m[0], stack.aif[0]), stack, "metric")
    assert {key: value for key, value in figures.items() if key.startswith("abs_rel")} == {
        key: pytest.approx(0, abs=1e-6) for key in figures if key.startswith("abs_rel")
    }
    assert figures["delta1"] == 1 and figures["aif_psnr"] == 100
    assert {"abs_rel", "abs_rel_edges", "abs_rel_aligned"} <= set(figures)


def test_what_an_answer_lacks_has_no_figure(stack):
    assert set(score(Answer(None, stack.aif[0]), stack, "metric")) == {"aif_psnr"}
    assert "aif_psnr" not in score(Answer(stack.depth_m[0], None), stack, "metric")


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 100), st.floats(-10, 10))
def test_the_aligned_figure_does_not_see_scale_and_shift(scale, shift):
    stack = example_stack()
    noise = 0.05 * torch.rand(stack.depth_m[0].shape, generator=torch.Generator().manual_seed(0))
    inverse = (1 / stack.depth_m[0] + noise).double()
    expected = score(Answer(inverse.float(), None), stack, "inverse")["abs_rel_aligned"]
    moved = score(Answer((scale * inverse + shift).float(), None), stack, "inverse")
    assert moved["abs_rel_aligned"] == pytest.approx(expected, rel=2e-3) == moved["abs_rel"]


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=12))
def test_the_interval_contains_the_mean(values):
    mean, low, high = mean_interval(values)
    assert low <= mean <= high and mean == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= low and high <= max(values) + 1e-9


def test_a_constant_difference_is_sure_and_a_wider_sample_has_a_wider_interval():
    mean, low, high = paired_interval([0.2, 0.4, 0.9], [0.1, 0.3, 0.8])
    assert [mean, low, high] == pytest.approx([0.1] * 3)
    narrow, wide = mean_interval([0.4, 0.5, 0.6]), mean_interval([0.0, 0.5, 1.0])
    assert wide[2] - wide[1] > narrow[2] - narrow[1] > 0


# ---------------------------------------------------------------- runs


def test_a_failure_is_a_result_and_the_others_go_on(root, tmp_path):
    contestants = [MethodContestant("oracle", oracle), MethodContestant("broken", broken)]
    benchmark = Benchmark(contestants, StacksDataModule(str(root)), "all", RENDERER)
    result = run_benchmark(benchmark, tmp_path, {})
    assert result["methods"]["oracle"]["summary"]["all"]["failed"] == 0
    failed = result["methods"]["broken"]
    assert failed["summary"]["all"] == {"scenes": 3, "failed": 3}
    assert failed["scenes"]["dslr_00"]["error"] == "RuntimeError: out of luck"
    head, rows = table_rows(result)
    assert rows[0][head.index("AbsRel")] == "0.000 [0.000, 0.000]" and rows[1][0] == "broken (3 of 3 failed)"
    assert set(result["methods"]["oracle"]["summary"]) == {"all", "dslr", "phone", "macro"}
    assert json.loads((tmp_path / "results.json").read_text())["methods"].keys() == result["methods"].keys()


def test_the_packages_methods_run_by_name_and_never_see_the_truth(root, known, tmp_path):
    names = ["constant", "classical", "laplacian", "ring_difference", "sweep", "pretrained"]
    datamodule = StacksDataModule(str(root))
    benchmark = Benchmark(contestants_of(names, known), datamodule, "all", RENDERER)
    result = run_benchmark(benchmark, tmp_path, {})
    summary = {name: method["summary"]["all"] for name, method in result["methods"].items()}
    assert all(row["failed"] == 0 and row["cpu_seconds"] > 0 for row in summary.values())
    assert summary["pretrained"]["abs_rel"][0] < summary["constant"]["abs_rel"][0]
    assert "constant - " + min(summary, key=lambda name: summary[name]["abs_rel"][0]) in result["differences"]

    def curious(stack):
        assert stack.depth_m is None and stack.aif is None and stack.valid is None
        return oracle(stack)

    peeking = Benchmark([MethodContestant("curious", curious)], datamodule, "all", RENDERER)
    assert run_benchmark(peeking, tmp_path, {})["methods"]["curious"]["summary"]["all"]["failed"] == 0


def test_left_out_slices_and_planes_judge_without_truth(root, tmp_path):
    datamodule = StacksDataModule(str(root))
    datamodule.set_holdout([1, 3])
    planes = {"dslr_00": [0.0, 0.5, 0.0, 0.5]}
    benchmark = Benchmark([MethodContestant("oracle", oracle)], datamodule, "all", RENDERER, planes=planes)
    row = run_benchmark(benchmark, tmp_path, {})["methods"]["oracle"]["summary"]["dslr"]
    assert row["left_out_psnr"][0] > 35 and row["left_out_over_nearest"][0] > 3 and row["plane_deviation"][0] >= 0


def test_groups_are_the_camera_classes():
    assert [group_of(name) for name in ("dslr_03", "macro_00", "0045", "ring")] == ["dslr", "macro", "", ""]


# ---------------------------------------------------------------- what methods=[...] takes


def test_any_callable_by_its_import_path(known, tmp_path, monkeypatch, stack):
    (tmp_path / "mine.py").write_text(
        "from tests.evaluation.test_benchmark import oracle\n"
        "class Method:\n    def __init__(self, gain=1.0): self.gain = gain\n    def __call__(self, s): return oracle(s)\n"
        "def function(s, gain): return oracle(s)\n"
    )
    monkeypatch.chdir(tmp_path)
    entries = [
        "mine:Method",
        {"name": "other", "call": "mine:Method", "options": {"gain": 2.0}},
        {"name": "third", "call": "mine:function", "options": {"gain": 2.0}, "depth": "relative"},
    ]
    found = contestants_of(entries, known)
    assert [one.name for one in found] == ["Method", "other", "third"] and found[1].method.gain == 2.0
    assert all(one.solve(stack.without_truth()).depth.shape == (48, 64) for one in found)


def test_entries_may_stand_in_a_file(known, tmp_path):
    path = tmp_path / "peers.yaml"
    path.write_text(yaml.safe_dump([{"name": "x", "command": "x {input} {output}", "depth": "inverse"}]))
    assert [one.name for one in contestants_of(["classical", str(path)], known)] == ["classical", "x"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("pretrained", "expected a list"),
        (["nothing"], "expected constant"),
        (["no.such.package:Name"], "ModuleNotFoundError"),
        (["json:nothing"], "AttributeError"),
        (["classical", "classical"], "two are called classical"),
        ([{"name": "a"}], "one of call, command, predictions"),
        ([{"name": "a", "command": "run"}], "{input} and {output}"),
        ([{"name": "a", "command": "$NOWHERE_SET {input} {output}"}], "needs NOWHERE_SET"),
        ([{"name": "a", "predictions": "nowhere"}], "no folder nowhere"),
        ([{"name": "a/b", "call": "json:loads"}], "without slashes"),
        ([{"name": "a", "call": "json:loads", "depth": "feet"}], "depth: expected metric"),
        ([{"name": "a", "call": "json:loads", "dept": 1}], "dept"),
        (["missing.yaml"], "not readable"),
    ],
)
def test_wrong_entries_are_refused_by_name(entries, message, known):
    with pytest.raises(InputError) as error:
        contestants_of(entries, known)
    assert message in str(error.value)
