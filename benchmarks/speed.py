"""One training step of a masked autoencoder at one configuration: ours beside transformers' and MONAI's.

    python benchmarks/speed.py

The same pictures, the same process, the same threads; contenders take turns, and what counts is the ratio within a
round, because absolute speed on a shared machine drifts. Peers read through PyTorch's DataLoader, one picture at a
time, as their own examples do; ours through ``Batches``, a whole batch at a time. Needs the development set-up
(transformers, MONAI). Pictures are noise: speed does not depend on what is in them.

A processor with AVX-512 multiplies large matrices twice as fast as one without, and everything else hardly faster, so
that everybody stands further below the floor. As on a processor without:

    MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 \\
        python benchmarks/speed.py --name speed-avx2

On a GPU the peers' DataLoaders have eight workers and pinned memory; MONAI's network does not train in bfloat16
(autocast stops where it writes into a float32 tensor):

    python benchmarks/speed.py --device cuda --precision bfloat16 --batch 1024 --rounds 6 --steps 20 --threads 8 \\
        --name speed-gpu
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from peers import DECODER, DEPTH, DIM, HEADS, PATCH, RATIO, SIDE, Peer, monai_mae, plain_optimizer, plain_step, vit_mae
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from unlabeled.core.batches import Batches
from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.encoder import Backbone, Encoder
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.masking import RandomMask
from unlabeled.core.optimization import Precision, TrainingSettings, make_optimizer, train_step
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.tokens import GridPatches

HERE = Path(__file__).parent
BATCH = 256
WORKERS = 8  # of a peer's DataLoader beside a GPU
INSTRUCTIONS = ("MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
Step = Callable[[Tensor, int], None]


class Where(NamedTuple):
    """On what, in which precision and in how large batches everybody trains."""

    device: torch.device
    precision: Precision
    batch: int

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


class Pictures(Dataset[Tensor]):
    """As a peer's example would read them: one 8-bit picture at a time, to numbers around zero."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return (torch.from_numpy(self.images[index]).float()[None] / 255 - 0.5) / 0.25


def whole_batch(batch: tuple[Tensor, ...], draw: torch.Generator) -> tuple[Tensor, ...]:
    return ((batch[0].float()[:, None] / 255 - 0.5) / 0.25,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=4, help="steps a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--name", default="speed", help="of the result's files")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    where = Where(torch.device(given.device), given.precision, given.batch)
    images = np.random.default_rng(0).integers(0, 256, (16 * given.batch, SIDE, SIDE), dtype=np.uint8)
    contenders = {
        "ours": ours(where),
        "transformers ViTMAE": theirs(vit_mae, where),
        "MONAI MaskedAutoEncoderViT": theirs(monai_mae, where),
    }
    if given.precision == "bfloat16":
        # Writes what its decoder gave, in bfloat16, into a float32 tensor: autocast stops there.
        del contenders["MONAI MaskedAutoEncoderViT"]
    sources = {name: _ours_data(images, where) if name == "ours" else _peer_data(images, where) for name in contenders}
    seconds: dict[str, dict[str, list[float]]] = {name: {"step": [], "data": []} for name in contenders}
    for turn in range(given.rounds + 1):
        for name, (_, step) in contenders.items():
            data, compute = _turn(sources[name], step, given.steps, where)
            if turn:  # the first is a warm-up
                seconds[name]["data"].append(data)
                seconds[name]["step"].append(compute)
    floor = matmul_speed(where)
    content = {
        "command": "".join(f"{name}={os.environ[name]} " for name in INSTRUCTIONS if name in os.environ)
        + f"python benchmarks/speed.py --rounds {given.rounds} --steps {given.steps} --threads {given.threads}"
        + ("" if given.device == "cpu" else f" --device {given.device} --precision {given.precision}")
        + ("" if given.batch == BATCH else f" --batch {given.batch}")
        + ("" if given.name == "speed" else f" --name {given.name}"),
        "batch": given.batch,
        "precision": given.precision,
        "hardware": describe_hardware(),
        "versions": {name: version(name) for name in ("torch", "transformers", "monai")},
        "matmul_flops_a_second": floor,
        "contenders": {
            name: _summary(seconds, name, batch=given.batch, flops=contenders[name][0], floor=floor)
            for name in contenders
        },
        "profile": profile(ours(where)[1], next(sources["ours"]), where),
    }
    write_atomically(given.out / f"{given.name}.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / f"{given.name}.md", markdown(content))
    print(markdown(content))


def ours(where: Where) -> tuple[float, Step]:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(SIDE, SIDE), patch=(PATCH, PATCH), dim=DIM)
    dim, depth, heads = DECODER
    task = MaskedReconstruction(tokenizer, mask=RandomMask(RATIO), dim=dim, depth=depth, heads=heads)
    module = Pretraining(Backbone(tokenizer, Encoder(dim=DIM, depth=DEPTH, heads=HEADS)), task).train()
    flops = _flops(lambda x: module((x,), 0), where.batch)
    module.to(where.device)
    settings = TrainingSettings(steps=10_000, precision=where.precision)
    optimizer = make_optimizer(module, settings)

    def step(batch: Tensor, number: int) -> None:
        train_step(module, optimizer, (batch,), number, settings, where.device)

    return flops, step


def theirs(make: Callable[[], Peer], where: Where) -> tuple[float, Step]:
    torch.manual_seed(0)
    peer = make()
    flops = _flops(peer.loss, where.batch)
    peer.model.to(where.device)
    optimizer = plain_optimizer(peer.model)

    def step(batch: Tensor, number: int) -> None:
        with where.autocast():
            loss = peer.loss(batch)
        plain_step(peer.model, optimizer, loss)

    return flops, step


def _ours_data(images: np.ndarray, where: Where) -> Iterator[Tensor]:
    batches, number = Batches(images, batch_size=where.batch, transform=whole_batch), 0
    while True:
        yield batches.at(number, device=where.device)[0]
        number += 1


def _peer_data(images: np.ndarray, where: Where) -> Iterator[Tensor]:
    beside = where.device.type == "cuda"
    loader = DataLoader(
        Pictures(images), batch_size=where.batch, shuffle=True, drop_last=True, num_workers=WORKERS if beside else 0,
        pin_memory=beside, persistent_workers=beside,
    )  # fmt: skip
    while True:
        for batch in loader:
            yield batch.to(where.device, non_blocking=True)


def _turn(source: Iterator[Tensor], step: Step, steps: int, where: Where) -> tuple[float, float]:
    """Mean seconds a step of getting the data and of computing."""
    data = compute = 0.0
    for number in range(steps):
        began = time.perf_counter()
        batch = next(source)
        where.wait()
        ready = time.perf_counter()
        step(batch, number + 2000)
        where.wait()
        done = time.perf_counter()
        data, compute = data + ready - began, compute + done - ready
    return data / steps, compute / steps


def _flops(loss: Callable[[Tensor], Any], batch: int) -> float:
    """Training FLOPs a step of what PyTorch counts: three times the forward pass's (attention is left out on a CPU)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loss(torch.randn(batch, 1, SIDE, SIDE))
    return 3.0 * counter.get_total_flops()


def matmul_speed(where: Where, times: int = 6) -> float:
    """FLOPs a second of a large matrix product: the floor of everything here."""
    size = 8192 if where.device.type == "cuda" else 2048
    kind = torch.bfloat16 if where.precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=where.device).to(kind) for _ in range(2))
    took = []
    for _ in range(times):
        where.wait()
        began = time.perf_counter()
        a @ b
        where.wait()
        took.append(time.perf_counter() - began)
    return 2.0 * size**3 / float(np.median(took[1:]))


def _summary(
    seconds: dict[str, dict[str, list[float]]], name: str, *, batch: int, flops: float, floor: float
) -> dict[str, float]:
    own, base = seconds[name], seconds["ours"]
    both = np.array(own["step"]) + np.array(own["data"])
    against = np.array(base["step"]) + np.array(base["data"])
    return {
        "pictures_a_second": batch / float(np.median(both)),
        "pictures_a_second_step_alone": batch / float(np.median(own["step"])),
        "data_share": float(np.median(np.array(own["data"]) / both)),
        "ours_is_faster_by": float(np.median(both / against)),
        "ours_is_faster_by_step_alone": float(np.median(np.array(own["step"]) / np.array(base["step"]))),
        "flops_a_step": flops,
        "share_of_the_floor": flops / floor / float(np.median(own["step"])),
    }


def profile(step: Step, batch: Tensor, where: Where) -> list[list[Any]]:
    """Where the time of our step goes: operation, share of the processor's (or the GPU's) time, calls a step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    step(batch, 2000)
    gpu = where.device.type == "cuda"
    with profiler(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as found:
        for number in range(3):
            step(batch, 2001 + number)
        where.wait()
    # On a GPU the kernels stand in the list beside the operations that started them, with the same time.
    events = [e for e in found.key_averages() if e.device_type == torch.autograd.DeviceType.CPU]
    took = {e.key: (e.self_device_time_total if gpu else e.self_cpu_time_total) for e in events}
    calls = {e.key: e.count / 3 for e in events}
    total = sum(took.values())
    return [[key, took[key] / total, calls[key]] for key in sorted(took, key=lambda key: -took[key])[:12]]


def markdown(content: dict[str, Any]) -> str:
    lines = [
        "# A training step of a masked autoencoder, side by side",
        "",
        f"`{content['command']}`",
        "",
        f"{SIDE} x {SIDE} pixels, patch {PATCH}, encoder {DIM} x {DEPTH} ({HEADS} heads), decoder {DECODER[0]} x "
        f"{DECODER[1]}, {RATIO:.0%} hidden, batch {content['batch']}, {content['precision']}. "
        "Medians over turns within one process; a ratio above 1 means that ours is faster. The floor is the time that "
        "a large matrix product would take for the same FLOPs "
        f"({content['matmul_flops_a_second'] / 1e9:.0f} GFLOP/s here). Hardware: {content['hardware']}; "
        f"{content['versions']}.",
        "",
        "| | pictures/s with data | ours is faster by | pictures/s, step alone | ours is faster by | data's share "
        "| share of the floor |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in content["contenders"].items():
        lines.append(
            f"| {name} | {row['pictures_a_second']:.0f} | {row['ours_is_faster_by']:.2f} | "
            f"{row['pictures_a_second_step_alone']:.0f} | {row['ours_is_faster_by_step_alone']:.2f} | "
            f"{row['data_share']:.1%} | {row['share_of_the_floor']:.0%} |"
        )
    if content["profile"]:
        lines += ["", "Where our step's time goes:", "", "| operation | share | calls a step |", "|---|---|---|"]
    lines += [f"| {name} | {share:.1%} | {calls:.0f} |" for name, share, calls in content["profile"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
