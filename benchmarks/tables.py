"""How the benchmarks print numbers."""

from collections.abc import Sequence

from unlabeled.core.evaluation import over_runs


def interval(values: Sequence[float], *, sign: str = "", digits: int = 3) -> str:
    """The mean over runs and, of more than one, Student's 95 % interval; ``sign="+"`` for differences."""
    found, form = over_runs(values), f"{sign}.{digits}f"
    return f"{found.value:{form}}" + (f" [{found.low:{form}}, {found.high:{form}}]" if len(values) > 1 else "")
