"""This process among those that train together."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """This process among those that train together (one, unless ``torchrun`` started more).

    Args:
        device: ``auto`` (this process's own GPU where there is one, else the CPU), ``cpu`` or ``cuda``.

    Raises:
        ValueError: there is no such device, or fewer GPUs than processes on this machine.
    """

    def __init__(self, device: str = "auto") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = device_of(device, int(os.environ.get("LOCAL_RANK", "0")))
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        return DistributedDataParallel(module) if self.world > 1 else module

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def agree(self, value: float) -> float:
        """Rank 0's value, everywhere."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def least(self, value: float) -> float:
        """The smallest value among the processes, everywhere."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MIN)
        return float(shared.item())


def device_of(name: str, local: int = 0) -> torch.device:
    """The device called ``name`` (see :class:`Processes`) for the process number ``local`` of this machine."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    if name.startswith("cuda") and not gpus:
        raise ValueError(f"there is no device {name!r} here, as PyTorch sees it: give 'auto' or 'cpu'")
    if name == "cuda":
        if local >= gpus:
            raise ValueError(
                f"process {local} of this machine has no GPU of its own (GPUs: {gpus}, counted from 0): start as many "
                "processes as there are GPUs, or choose the device 'cpu'"
            )
        name = f"cuda:{local}"
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {name!r}: give 'auto', 'cpu' or 'cuda'") from None
