from pathlib import Path

import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines import demo


def test_the_demo_never_writes_into_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "medical" / "data").mkdir(parents=True)
    (tmp_path / "medical" / "data" / "precious.dcm").write_text("precious")
    with pytest.raises(DataError, match="was not made by a demo: name another folder with --out"):
        demo.run(tmp_path)
    assert (tmp_path / "medical" / "data" / "precious.dcm").read_text() == "precious"
