"""Exit codes, what stands on which stream, and options that reach their job."""

import json
from typing import Any

import pytest

from unlabeled.core.errors import Interrupted
from unlabeled.pipelines import cli
from unlabeled.pipelines import sensors as sensor_jobs
from unlabeled.pipelines.jobs import Outcome


def ends(monkeypatch: pytest.MonkeyPatch, what: Outcome | BaseException, *arguments: str) -> object:
    def app(given: list[str], **options: Any) -> Outcome:
        if isinstance(what, BaseException):
            raise what
        return what

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        (Outcome(headline="fine"), 0, ""),
        (Outcome(headline="a gate failed", passed=False), 1, ""),
        (
            KeyboardInterrupt(),
            130,
            "unlabeled: interrupted; the same command goes on from the last training state, where there is one\n",
        ),
        (Interrupted("stopped at step 3"), 130, "unlabeled: stopped at step 3\n"),
        (RuntimeError("odd"), 1, "unlabeled: unexpected RuntimeError: odd (--debug shows where; please report it)\n"),
    ],
)
def test_how_it_ended_is_the_exit_code(
    what: Outcome | BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends(monkeypatch, what, "--json") == code
    out, err = capsys.readouterr()
    assert err == said
    assert out == "" if isinstance(what, BaseException) else json.loads(out)["headline"] == what.headline


def test_options_reach_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def job(inputs: object, **options: Any) -> Outcome:
        given.update(options)
        return Outcome(headline="done")

    monkeypatch.setattr(sensor_jobs, "fit", job)
    with pytest.raises(SystemExit):
        cli.main(["sensors", "fit", "a.npz", "--normal-until", "5", "--fs", "7", "--every", "9", "--asset", "x"])
    assert (given["normal_until"], given["fs"], given["every"], list(given["assets"])) == ("5", 7, 9, ["x"])
