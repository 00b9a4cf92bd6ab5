"""Several processes on one machine that train one network, each with a part of the batch and of the matrices.

On processors this uses the cores better than threads inside one process do: small operations have no work for two.
"""

import os

import torch
import torch.distributed
import torch.multiprocessing


def size() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


@torch.no_grad()
def start_equal(weights: list[torch.Tensor]) -> None:
    """Gives every process the first one's weights."""
    for weight in weights if size() > 1 else ():
        torch.distributed.broadcast(weight, 0)


def mean_gradients(weights: list[torch.Tensor]) -> None:
    """Replaces every gradient by the mean of all processes' gradients."""
    if size() == 1:
        return
    flat = torch.cat([w.grad.reshape(-1) for w in weights])
    torch.distributed.all_reduce(flat)
    flat /= size()
    for weight, part in zip(weights, flat.split([w.numel() for w in weights])):
        weight.grad.copy_(part.view_as(weight.grad))


def share(tensors: list[torch.Tensor]) -> None:
    """Gives every process all tensors, of which each had computed those whose index is its rank modulo their number."""
    for owner in range(size() if size() > 1 else 0):
        mine = tensors[owner :: size()]
        flat = torch.cat([t.reshape(-1) for t in mine])
        torch.distributed.broadcast(flat, owner)
        for tensor, part in zip(mine, flat.split([t.numel() for t in mine])):
            tensor.copy_(part.view_as(tensor))


def _enter(number: int, work, arguments, count: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=number, world_size=count)
    work(arguments)


def run(work, arguments, count: int, port: int = 29507) -> None:
    """Calls `work(arguments)` in `count` processes, in this one if there is one only."""
    if count == 1:
        work(arguments)
    else:
        torch.multiprocessing.spawn(_enter, (work, arguments, count, port), nprocs=count)
