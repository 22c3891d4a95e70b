"""What a user can mend: each message says what was expected, what came, and what to do."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unlabeled.core.training import History


class UnlabeledError(ValueError):
    """Base of every error that reaches the command line as one plain line."""


class DataError(UnlabeledError):
    """The input cannot be used as it is."""


class GateError(UnlabeledError):
    """The data or the model failed a check that must not be passed over (a leaking split, say)."""


class CheckpointError(UnlabeledError):
    """A saved model cannot be used here: damaged, of another kind, or made for other data."""


class TrainingError(UnlabeledError):
    """Training cannot go on, for instance because the loss is no longer a number."""


class CollapseError(TrainingError):
    """The embeddings no longer tell inputs apart, so that going on would teach nothing.

    Attributes:
        step: where training was stopped.
        kept: step of the last healthy weights, which the module has again; ``None`` where there were none.
        history: of the training until it was stopped.
    """

    def __init__(self, message: str, *, step: int, kept: int | None, history: "History | None" = None) -> None:
        super().__init__(message)
        self.step, self.kept, self.history = step, kept, history


class BadBatchError(TrainingError):
    """The loss of one batch is no finite number.

    Attributes:
        step: which batch.
        rows: the row numbers that it was made of.
    """

    def __init__(self, message: str, *, step: int, rows: list[int]) -> None:
        super().__init__(message)
        self.step, self.rows = step, rows


class Interrupted(BaseException):
    """Stopped by the user between two steps; says whether the same command goes on from there.

    Like KeyboardInterrupt it passes ``except Exception`` by; unlike it, frameworks leave its message alone.
    """
