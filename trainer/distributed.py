"""Several workers train one model: `torchrun` starts them, every step is divided among them.

Each worker has the whole model and takes its part of a batch's rows. A worker's loss is the mean
over its own rows; times `weight` its gradient, averaged over the workers, is the gradient of the
mean over all rows. The diffusion model's gradients are averaged by DistributedDataParallel; an
encoder is not one call of one module (a graph is propagated once, items are looked up later), so
that its gradients are averaged by `average_gradients`.

Alone, everything here does nothing. gloo carries it on the CPU, nccl on CUDA.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from core.errors import ConfigError
from core.samplers import Sampler


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Be one of torchrun's workers while the block lasts; elsewhere this does nothing.

    Args:
        device: cpu or cuda.

    Returns:
        The device of this worker: under torchrun `cuda` becomes one each.

    Raises:
        ConfigError: one device for several workers, or none for this one.
    """
    if not distributed.is_torchelastic_launched():
        yield device
        return
    backend = "gloo"
    if torch.device(device).type == "cuda":
        backend, device = "nccl", _own_device(device)
        torch.cuda.set_device(device)
    distributed.init_process_group(backend)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def world() -> int:
    """How many workers there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the worker that validates, publishes, saves and talks."""
    return rank() == 0


def weight(rows: int) -> float:
    """What makes the mean over this worker's `rows`, averaged over workers, the mean over all."""
    if world() == 1:
        return 1.0
    return world() * rows / float(total(torch.tensor(float(rows), device=_device())))


def total(tensor: Tensor) -> Tensor:
    """The sum over all workers, in place."""
    if world() > 1:
        distributed.all_reduce(tensor)
    return tensor


def gathered(*parts: Float[Tensor, "_ d"]) -> list[Float[Tensor, "B d"]]:
    """The rows of all workers, in the workers' order, the same everywhere; without gradient.

    Args:
        parts: tensors (b, d) of one shape, each this worker's rows; b may differ among workers.
    """
    whole = [part.detach() for part in parts]
    if world() == 1:
        return whole
    ours = torch.stack(whole)
    sizes = [torch.zeros(1, dtype=torch.int64, device=ours.device) for _ in range(world())]
    distributed.all_gather(sizes, torch.tensor([ours.shape[1]], device=ours.device))
    counts = [int(size) for size in sizes]
    padded = ours.new_zeros(len(ours), max(counts), ours.shape[2])
    padded[:, : ours.shape[1]] = ours
    theirs = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(theirs, padded)
    real = [rows[:, :count] for rows, count in zip(theirs, counts, strict=True)]
    return list(torch.cat(real, 1).unbind())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Every worker's gradients become the mean of all workers'; one that has none counts as 0."""
    if world() == 1:
        return
    moved = [one for one in parameters if one.requires_grad]
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in moved]
    mean = total(torch.cat([gradient.reshape(-1) for gradient in gradients])) / world()
    pieces = mean.split([gradient.numel() for gradient in gradients])
    for one, piece in zip(moved, pieces, strict=True):
        one.grad = piece.view_as(one)


def parallel_loss(sampler: Sampler) -> Callable[..., Any]:
    """`sampler.loss`, whose backward pass leaves the mean of all workers' gradients.

    Everybody begins with the main worker's weights and scales.
    """
    if world() == 1:
        return sampler.loss
    # Scales are moved by what all workers see, so that nobody need send them round again.
    return DistributedDataParallel(_Loss(sampler), broadcast_buffers=False)


def from_main(call: Callable[[], Any]) -> Any:
    """What `call` gives in the main worker, where alone it is called; it must fit into JSON."""
    if world() == 1:
        return call()
    content = json.dumps(call()).encode() if is_main() else b""
    size = total(torch.tensor(len(content), device=_device()))
    text = torch.zeros(int(size), dtype=torch.uint8, device=_device())
    if is_main():
        text.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    distributed.broadcast(text, src=0)
    return json.loads(bytes(text.tolist()))


class _Loss(nn.Module):
    """A sampler's objective as what DistributedDataParallel takes: a module that is called."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(self, *args: Any, **more: Any) -> Any:
        return self.sampler.loss(*args, **more)


def _device() -> torch.device:
    """Where small tensors must be for the backend."""
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _own_device(device: str) -> str:
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if torch.device(device).index is not None:
        raise ConfigError(f"device = {device} for every worker of torchrun; say cuda: one each")
    if local >= there:
        raise ConfigError(
            f"worker {local} of torchrun has no device: {there} here; start at most as many with "
            "--nproc-per-node"
        )
    return f"cuda:{local}"
