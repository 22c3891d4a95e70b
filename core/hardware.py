"""What a run was made on, for records and reports, and how many threads it takes."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@cache
def describe_hardware() -> dict[str, str | int]:
    """Processor, cores, accelerator and versions; nothing that names the machine or its user."""
    import torch

    description: dict[str, str | int] = {
        "hardware.processor": _processor(),
        "hardware.cores": os.cpu_count() or 0,
        "hardware.threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        description["hardware.gpu"] = torch.cuda.get_device_name()
    return description


@contextmanager
def one_thread() -> Iterator[None]:
    """For encoders too small to gain from threads, which lose much where others want the cores too; with one thread
    the order of every sum is fixed as well."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
