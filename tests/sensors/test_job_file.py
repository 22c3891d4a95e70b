"""What a job file says, and what is wrong with it by the name in it."""

import shutil
from pathlib import Path

import pytest

from unlabeled.core.errors import DataError
from unlabeled.pipelines._sensors_job_file import read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models = ", "cannot be read as a job file"),
        ("", r"at least one watched folder under \[\[folders\]\], or a broker"),
        ('[[folders]]\npath = "in"', "does not say models"),
        ('models = "m"\n[[folders]]\nasset = "a"', "does not say folders.path"),
        ('models = "m"\nfolder = 1\n[[folders]]\npath = "in"', "unknown folder; known are models, folders"),
        ('models = "m"\n[[folders]]\npath = "in"\nrate = 3', "unknown folders.rate"),
        (
            'models = "m"\nevery_seconds = "often"\n[[folders]]\npath = "in"',
            "every_seconds is 'often', expected a number",
        ),
        ('models = "m"\nevery_seconds = -1\n[[folders]]\npath = "in"', "is a number from 0 on, got -1"),
        ('models = 3\n[[folders]]\npath = "in"', "models is 3, expected a path"),
        ('models = "m"\n[[folders]]\npath = "none"', "none does not exist"),
        ('models = "m"\n[[folders]]\npath = "in"\n[[folders]]\npath = "in"', "is watched twice"),
        ('models = "m"\n[mqtt]\nport = 1', "does not say mqtt.host"),
        ('models = "m"\n[mqtt]\nhost = "h"\nport = "x"', "mqtt.port is 'x', expected a number above 0"),
        ('models = "m"\n[mqtt]\nhost = "h"\ntls = 1', "mqtt.tls is 1, expected true or false"),
        ('models = "m"\n[mqtt]\nhost = "h"\npassword = "p"', "unknown mqtt.password"),
        ('models = "m"\nmaintenance = 3\n[[folders]]\npath = "in"', r"maintenance stands under a \[\[maintenance\]\]"),
        ('models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nasset = "a"', "does not say maintenance.since"),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = "2024-01-01"',
            "maintenance.since is '2024-01-01', expected a date, or date and time, without quotes",
        ),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = 2024-01-02\nuntil = 2024-01-01',
            "ends at 2024-01-01T00:00:00.000000000, before it begins",
        ),
        ('models = "m"\nalarms = 3\n[[folders]]\npath = "in"', r"stands under \[alarms\]"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nneeded = 7', "needed is 7 of the last 6"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nclear_below = 2', "at most 1, got 2"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nthreshold_factor = 0', "threshold_factor is above 0"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nthreshold_factor = nan', "is a number from 0 on, got nan"),
        ('models = "m"\n[[folders]]\npath = "in"\n[alarms]\nthreshold_factor = inf', "is a number from 0 on, got inf"),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = 2024-01-01\nuntil = 2600-01-01',
            "maintenance.until is before 1970 or after 2261",
        ),
        (
            'models = "m"\n[[folders]]\npath = "in"\n[[maintenance]]\nsince = 9999-12-31T23:59:59-05:00',
            "maintenance.since is before 1970 or after 2261",
        ),
        ('models = "m"\n[[folders]]\npath = "in"\n[webhook]\ntoken = "x"', "unknown webhook.token"),
        ('models = "m"\nlogbook = "in/l.sqlite"\n[[folders]]\npath = "in"', "must not lie in a watched folder"),
    ],
)
def test_a_wrong_job_file_is_told_by_the_name_in_it(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "job.toml").write_text(text)
    with pytest.raises(DataError, match=why):
        read(tmp_path / "job.toml")


def test_the_example_is_a_job_file(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "examples" / "monitor.toml", tmp_path)
    (tmp_path / "incoming").mkdir()
    found = read(tmp_path / "monitor.toml")
    assert found.models == tmp_path / "pump7-model"
    assert (found.folders[0].path, found.folders[0].asset) == (tmp_path / "incoming", "pump7")
