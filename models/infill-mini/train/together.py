"""Several processes on one machine that train one network, each with a part of the batch and of the matrices.

On processors this uses the cores better than threads inside one process do: small operations have no work for two. They
meet in shared memory.
"""

import torch
import torch.multiprocessing

ROOM = 1 << 25  # the most weights that a network may have


class Meeting:
    """What the processes have in common: a row of numbers for each of them, and a place to wait for one another."""

    def __init__(self, count: int):
        self.rows = torch.zeros(count, ROOM).share_memory_()
        self.barrier = torch.multiprocessing.get_context("spawn").Barrier(count)


_meeting: Meeting | None = None
_rank = 0


def size() -> int:
    """How many processes train together."""
    return len(_meeting.rows) if _meeting else 1


def rank() -> int:
    """Which of them this one is."""
    return _rank


@torch.no_grad()
def start_equal(weights: list[torch.Tensor]) -> None:
    """Gives every process the first one's weights."""
    share(weights, lambda index: 0)


def mean_gradients(weights: list[torch.Tensor]) -> None:
    """Replaces every gradient by the mean of all processes' gradients."""
    if size() == 1:
        return
    rows = _meeting.rows[:, : sum(w.numel() for w in weights)]
    torch.cat([w.grad.reshape(-1) for w in weights], out=rows[_rank])
    _meeting.barrier.wait()
    mean = rows.mean(0)
    _meeting.barrier.wait()  # so that nobody writes what another has yet to read
    for weight, part in zip(weights, mean.split([w.numel() for w in weights])):
        weight.grad.copy_(part.view_as(weight.grad))


def share(tensors: list[torch.Tensor], owner=lambda index: index % size()) -> None:
    """Gives every process all tensors, of which each had computed those that it owns: by default every `size()`-th."""
    if size() == 1:
        return
    parts = _meeting.rows[0, : sum(t.numel() for t in tensors)].split([t.numel() for t in tensors])
    for index, (tensor, part) in enumerate(zip(tensors, parts)):
        if owner(index) == _rank:
            part.view_as(tensor).copy_(tensor)
    _meeting.barrier.wait()
    for index, (tensor, part) in enumerate(zip(tensors, parts)):
        if owner(index) != _rank:
            tensor.copy_(part.view_as(tensor))
    _meeting.barrier.wait()


def _enter(number: int, work, arguments, meeting: Meeting) -> None:
    global _meeting, _rank
    _meeting, _rank = meeting, number
    work(arguments)


def run(work, arguments, count: int) -> None:
    """Calls `work(arguments)` in `count` processes, in this one if there is one only."""
    if count == 1:
        work(arguments)
    else:
        torch.multiprocessing.spawn(_enter, (work, arguments, Meeting(count)), nprocs=count)
