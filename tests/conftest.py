"""What all tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unlabeled.core import progress

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real benchmark data beside the checkout; tests that need it skip where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real benchmark data is not at {folder.parent.name}/{folder.name} beside this checkout")
    return folder


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in an empty folder, with the default tracking store there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def has_states() -> Callable[[Path], bool]:
    """Whether a running training has kept a state below a folder. Folders come and go while this looks."""

    def look(folder: Path) -> bool:
        try:
            return bool(list(folder.glob("**/step-*/manifest.json")))
        except FileNotFoundError:
            return False

    return look


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """Each test starts with notes and bars shown, whatever one before it switched off."""
    progress.quiet(False)
    yield
    progress.quiet(False)
