"""Share an evaluation among processes."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch

from sfdfd.errors import InputError
from sfdfd.evaluation.evaluator import Gather, PartialEvaluation

__all__ = ["device_of_rank", "other_processes"]


@contextmanager
def other_processes(evaluate_rank: Callable[[int], bytes], processes: int) -> Iterator[Gather | None]:
    """Evaluate the other shares in the background; yield what gathers them, None where there is only one process.

    Args:
        evaluate_rank: rank -> pickled :class:`PartialEvaluation`; it must be picklable itself.
        processes: how many share the images, this one included.
    """
    if processes == 1:
        yield None
        return
    with ProcessPoolExecutor(processes - 1, multiprocessing.get_context("spawn")) as pool:
        shares = [pool.submit(evaluate_rank, rank) for rank in range(1, processes)]

        def gather(own_share: PartialEvaluation) -> list[PartialEvaluation]:
            try:
                return [own_share, *(pickle.loads(share.result()) for share in shares)]  # from our own processes
            except BrokenProcessPool:
                raise InputError(
                    "a process of the evaluation died (out of memory?); fewer processes=N need less"
                ) from None

        try:
            yield gather
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def device_of_rank(device: torch.device, rank: int, processes: int) -> torch.device:
    """Return the GPU of one of several processes; ``device`` itself where it is no GPU or there is one process."""
    if device.type != "cuda" or processes == 1:
        return device
    return torch.device("cuda", rank % torch.cuda.device_count())
