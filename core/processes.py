"""This process among those that train together."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """This process among those that train together (one, unless ``torchrun`` started more)."""

    def __init__(self, device: str = "auto") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        cuda = torch.cuda.is_available()
        local = int(os.environ.get("LOCAL_RANK", "0"))
        try:
            self.device = torch.device((f"cuda:{local}" if cuda else "cpu") if device == "auto" else device)
        except RuntimeError:
            raise ValueError(f"there is no device {device!r}: give 'auto', 'cpu' or 'cuda'") from None
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
