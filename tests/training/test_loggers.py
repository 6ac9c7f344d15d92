"""The CSV file of a continued run."""

import csv

import pytest

from sfdfd.training.loggers import ResumableCSVLogger


def rows(folder):
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["a"], row.get("b") or "") for row in csv.DictReader(file)]


def logged(folder, first, steps, key="a"):
    logger = ResumableCSVLogger(save_dir=str(folder), name=None, version="csv")
    if first is not None:
        logger.continue_from(first)
    for step in steps:
        logger.log_metrics({"a": step, key: step}, step=step)
    logger.save()


def test_a_continued_run_keeps_its_rows_without_gaps_or_doubles(tmp_path):
    logged(tmp_path, None, [0, 1, 2, 3])
    logged(tmp_path, 2, [2, 3, 4], key="b")  # from a checkpoint of two steps; a new column comes along
    assert rows(tmp_path) == [("0", "0", ""), ("1", "1", ""), ("2", "2", "2"), ("3", "3", "3"), ("4", "4", "4")]


def test_a_new_run_deletes_old_rows(tmp_path, recwarn):
    logged(tmp_path, None, [0, 1, 2, 3])
    logged(tmp_path, None, [0])
    assert rows(tmp_path) == [("0", "0", "")]


def test_a_continued_run_drops_rows_of_an_earlier_test(tmp_path):
    logger = ResumableCSVLogger(save_dir=str(tmp_path), name=None, version="csv")
    logger.log_metrics({"a": 1}, step=0)
    logger.log_metrics({"a": 2, "test/depth/abs_rel": 0.1}, step=1)
    logger.save()
    logged(tmp_path, 4, [4])
    assert [row[0] for row in rows(tmp_path)] == ["0", "4"]


@pytest.mark.filterwarnings("ignore:Experiment logs directory")  # of the second logger
def test_columns_written_by_another_process_are_kept(tmp_path):
    """After a spawned training, the process that waited logs the test into the same file."""
    waiting = ResumableCSVLogger(save_dir=str(tmp_path), name=None, version="csv")
    waiting.log_hyperparams({"a": 1})
    trained = ResumableCSVLogger(save_dir=str(tmp_path), name=None, version="csv")
    trained.log_metrics({"a": 1, "b": 2}, step=0)
    trained.save()
    waiting.log_metrics({"c": 3}, step=1)
    waiting.save()
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        assert [(row["a"], row["b"], row["c"]) for row in csv.DictReader(file)] == [("1", "2", ""), ("", "", "3")]
