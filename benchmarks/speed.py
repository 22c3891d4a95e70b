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
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from unlabeled.core.optimization import TrainingSettings, make_optimizer, train_step
from unlabeled.core.pretext import MaskedReconstruction, Pretraining
from unlabeled.core.tokens import GridPatches

HERE = Path(__file__).parent
BATCH = 256
INSTRUCTIONS = ("MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
Step = Callable[[Tensor, int], None]


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
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--name", default="speed", help="of the result's files")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    images = np.random.default_rng(0).integers(0, 256, (4096, SIDE, SIDE), dtype=np.uint8)
    contenders = {
        "ours": ours(),
        "transformers ViTMAE": theirs(vit_mae),
        "MONAI MaskedAutoEncoderViT": theirs(monai_mae),
    }
    sources = {name: _ours_data(images) if name == "ours" else _peer_data(images) for name in contenders}
    seconds: dict[str, dict[str, list[float]]] = {name: {"step": [], "data": []} for name in contenders}
    for turn in range(given.rounds + 1):
        for name, (_, step) in contenders.items():
            data, compute = _turn(sources[name], step, given.steps)
            if turn:  # the first is a warm-up
                seconds[name]["data"].append(data)
                seconds[name]["step"].append(compute)
    floor = matmul_speed()
    content = {
        "command": "".join(f"{name}={os.environ[name]} " for name in INSTRUCTIONS if name in os.environ)
        + f"python benchmarks/speed.py --rounds {given.rounds} --steps {given.steps} --threads {given.threads}",
        "hardware": describe_hardware(),
        "versions": {name: version(name) for name in ("torch", "transformers", "monai")},
        "matmul_flops_a_second": floor,
        "contenders": {name: _summary(seconds, name, flops=contenders[name][0], floor=floor) for name in contenders},
        "profile": profile(ours()[1], next(sources["ours"])),
    }
    write_atomically(given.out / f"{given.name}.json", json.dumps(content, indent=1) + "\n")
    write_atomically(given.out / f"{given.name}.md", markdown(content))
    print(markdown(content))


def ours() -> tuple[float, Step]:
    torch.manual_seed(0)
    tokenizer = GridPatches(grid=(SIDE, SIDE), patch=(PATCH, PATCH), dim=DIM)
    dim, depth, heads = DECODER
    task = MaskedReconstruction(tokenizer, mask=RandomMask(RATIO), dim=dim, depth=depth, heads=heads)
    module = Pretraining(Backbone(tokenizer, Encoder(dim=DIM, depth=DEPTH, heads=HEADS)), task).train()
    settings = TrainingSettings(steps=10_000)
    optimizer = make_optimizer(module, settings)
    device = torch.device("cpu")

    def step(batch: Tensor, number: int) -> None:
        train_step(module, optimizer, (batch,), number, settings, device)

    return _flops(lambda x: module((x,), 0)), step


def theirs(make: Callable[[], Peer]) -> tuple[float, Step]:
    torch.manual_seed(0)
    peer = make()
    optimizer = plain_optimizer(peer.model)

    def step(batch: Tensor, number: int) -> None:
        plain_step(peer.model, optimizer, peer.loss(batch))

    return _flops(peer.loss), step


def _ours_data(images: np.ndarray) -> Iterator[Tensor]:
    batches, number = Batches(images, batch_size=BATCH, transform=whole_batch), 0
    while True:
        yield batches.at(number)[0]
        number += 1


def _peer_data(images: np.ndarray) -> Iterator[Tensor]:
    while True:
        yield from DataLoader(Pictures(images), batch_size=BATCH, shuffle=True, drop_last=True)


def _turn(source: Iterator[Tensor], step: Step, steps: int) -> tuple[float, float]:
    """Mean seconds a step of getting the data and of computing."""
    data = compute = 0.0
    for number in range(steps):
        began = time.perf_counter()
        batch = next(source)
        ready = time.perf_counter()
        step(batch, number + 2000)
        done = time.perf_counter()
        data, compute = data + ready - began, compute + done - ready
    return data / steps, compute / steps


def _flops(loss: Callable[[Tensor], Any]) -> float:
    """Training FLOPs a step of what PyTorch counts: three times the forward pass's (attention is left out on a CPU)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        loss(torch.randn(BATCH, 1, SIDE, SIDE))
    return 3.0 * counter.get_total_flops()


def matmul_speed(size: int = 2048, times: int = 6) -> float:
    """FLOPs a second of a large matrix product: the floor of everything here."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        a @ b
        took.append(time.perf_counter() - began)
    return 2.0 * size**3 / float(np.median(took[1:]))


def _summary(seconds: dict[str, dict[str, list[float]]], name: str, *, flops: float, floor: float) -> dict[str, float]:
    own, base = seconds[name], seconds["ours"]
    both = np.array(own["step"]) + np.array(own["data"])
    against = np.array(base["step"]) + np.array(base["data"])
    return {
        "pictures_a_second": BATCH / float(np.median(both)),
        "pictures_a_second_step_alone": BATCH / float(np.median(own["step"])),
        "data_share": float(np.median(np.array(own["data"]) / both)),
        "ours_is_faster_by": float(np.median(both / against)),
        "ours_is_faster_by_step_alone": float(np.median(np.array(own["step"]) / np.array(base["step"]))),
        "flops_a_step": flops,
        "share_of_the_floor": flops / floor / float(np.median(own["step"])),
    }


def profile(step: Step, batch: Tensor) -> list[list[Any]]:
    """Where the time of our step goes: operation, share of the processor's time, calls a step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    step(batch, 2000)
    with profiler(activities=[ProfilerActivity.CPU]) as found:
        for number in range(3):
            step(batch, 2001 + number)
    events = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    return [[e.key, e.self_cpu_time_total / total, e.count / 3] for e in events[:12]]


def markdown(content: dict[str, Any]) -> str:
    lines = [
        "# A training step of a masked autoencoder, side by side",
        "",
        f"`{content['command']}`",
        "",
        f"{SIDE} x {SIDE} pixels, patch {PATCH}, encoder {DIM} x {DEPTH} ({HEADS} heads), decoder {DECODER[0]} x "
        f"{DECODER[1]}, {RATIO:.0%} hidden, batch {BATCH}, float32. Medians over turns within one process; a ratio "
        "above 1 means that ours is faster. The floor is the time that a large matrix product would take for the same "
        f"FLOPs ({content['matmul_flops_a_second'] / 1e9:.0f} GFLOP/s here). Hardware: {content['hardware']}; "
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
    lines += ["", "Where our step's time goes:", "", "| operation | share | calls a step |", "|---|---|---|"]
    lines += [f"| {name} | {share:.1%} | {calls:.0f} |" for name, share, calls in content["profile"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
