"""A backbone's embedding as an ONNX file, checked against ours before it stays."""

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unlabeled.core.encoder import Backbone, Pool
from unlabeled.core.errors import CheckpointError, UnlabeledError

TOLERANCE = 1e-4
# Not "embedding": a node of that name would collide with it.
INPUT, OUTPUT = "batch", "features"
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


class Embedding(nn.Module):
    """Raw batch -> (B, D), as :meth:`Backbone.embed`; what :func:`write` exports."""

    def __init__(self, backbone: Backbone, pool: Pool) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool

    def forward(self, batch: Tensor) -> Tensor:
        return self.backbone.embed(batch, self.pool)


def write(path: str | Path, backbone: Backbone, example: Tensor, *, pool: Pool = "mean") -> Path:
    """Writes ``batch -> features`` (B, D) with a free batch size, and runs the file to see that it agrees.

    The file is put in place only after onnxruntime has computed the same embeddings as ours to 1e-4, for one row and
    for a batch.

    Args:
        path, example: as for :func:`write_module`.
        backbone: any; is left in the mode and on the device it was.
        pool: as in :meth:`Backbone.embed`.

    Raises:
        As :func:`write_module`.
    """
    training = backbone.training
    try:
        write_module(path, Embedding(backbone, pool), example)
    finally:
        backbone.train(training)
    return Path(path).absolute()


def write_module(path: str | Path, module: nn.Module, example: Tensor, *, output: str = OUTPUT) -> float:
    """Writes a function of a raw batch, one row of output a row, and runs the file to see that it agrees.

    The file is put in place only after onnxruntime has computed the same numbers as ours to 1e-4, for one row and for
    a batch.

    Args:
        path: the file; replaced when it exists.
        module: raw batch -> (B, ...); put into evaluation mode.
        example: a raw batch, at least one row. All sizes but the batch's are fixed to the example's.
        output: name of the result in the file; the input is called ``batch``.

    Returns:
        The largest difference that was found.

    Raises:
        ValueError: an example without rows.
        UnlabeledError: the packages of the extra ``onnx`` are not installed.
        CheckpointError: the file does not run, or computes something else (says by how much).
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UnlabeledError(
            f"writing ONNX needs {', '.join(missing)}, which is not installed: pip install 'unlabeled[onnx]'"
        )
    if not len(example):
        raise ValueError(f"expected an example of at least one row, got shape {tuple(example.shape)}")
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two rows at least: the exporter takes a batch of one for a constant.
    several = torch.cat([example, example]).to(next(module.parameters()).device)
    new = path.with_name(f".{path.name}.new-{os.getpid()}")
    module.eval()
    try:
        _export(new, module, several, output)
        with torch.inference_mode():
            differences = [_compare(new, batch, module(batch), output) for batch in (several, several[:1])]
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    return max(differences)


def _export(path: Path, module: nn.Module, batch: Tensor, output: str) -> None:
    with _without_notes_on_torchvision(), warnings.catch_warnings():
        # The exporter copies one of torch's own tree specifications in a way that torch deprecates.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        program = torch.onnx.export(
            module,
            (batch,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            verbose=False,
        )
    assert program is not None  # by dynamo=True
    program.save(str(path))


@contextmanager
def _without_notes_on_torchvision() -> Iterator[None]:
    """The exporter warns of every torchvision operator that it cannot register; none is used here."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _compare(path: Path, batch: Tensor, ours: Tensor, output: str) -> float:
    """The largest difference."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (theirs,) = session.run([output], {INPUT: batch.cpu().numpy()})
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise CheckpointError(f"the ONNX file does not run on {len(batch)} rows and was not kept: {error}") from error
    if theirs.shape != tuple(ours.shape):
        raise CheckpointError(
            f"on {len(batch)} rows the ONNX file gives {theirs.shape}, the network {tuple(ours.shape)}; it was not "
            "kept: please report this with the versions of torch and onnxscript"
        )
    difference = float(np.abs(theirs - ours.cpu().numpy()).max())
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"on {len(batch)} rows the ONNX file differs from the network by {difference:.3g}, more than "
            f"{TOLERANCE:g}, and was not kept: please report this with the versions of torch and onnxscript"
        )
    return difference
