"""What is left of a pretraining that collapses: its last healthy weights, as a model in a folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unlabeled.core import tracking
from unlabeled.core.errors import CollapseError


def folder_of_healthy(out: Path) -> Path:
    """Where they go, beside the folder that the whole pretraining would have filled."""
    return out.with_name(f"{out.name}-last-healthy")


@contextmanager
def last_healthy(run: tracking.Run, out: Path, save: Callable[[Path], object]) -> Iterator[None]:
    """Around a pretraining: where it collapses, saves the weights of its last healthy look, and says where.

    Args:
        run: gets the model as well.
        out: of the pretraining.
        save: writes the model, which has those weights again, to a folder.

    Raises:
        CollapseError: the pretraining collapsed.
    """
    try:
        yield
    except CollapseError as error:
        if error.kept is None:
            raise
        folder = folder_of_healthy(out)
        save(folder)
        run.model(folder, "last-healthy")
        raise CollapseError(
            f"{error} As a model, they are in {folder}.", step=error.step, kept=error.kept, history=error.history
        ) from None
