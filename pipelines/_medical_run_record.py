"""Which stages of a run are done, and with what: ``run.json``."""

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines._medical_places import RECORD
from unlabeled.pipelines._medical_run_plan import FOLDER, LABELS, TAUGHT, Plan, in_words, settings_of, stages_before
from unlabeled.pipelines.jobs import Outcome

FORMAT = 2
# Of a stage that is being changed where it stands: it fits nothing until that is done.
UNFINISHED = "unfinished"


class Record:
    """The stages of a run's folder; each is written when its files are complete, with what it was made of, and is done
    again where that is something else now.

    Args:
        out: the run's folder.
        plan: what is asked for now.
        folder: digest of where the films lie.
        labels: digest of what the labels say.
        earlier: digest by which an earlier version knew folder and labels.

    Raises:
        DataError: the folder holds something else, a run of other films, or a record that cannot be read.
    """

    def __init__(self, out: Path, plan: Plan, *, folder: str, labels: str, earlier: str = "") -> None:
        self.path, self.out = out / RECORD, out
        self.plan = json.loads(json.dumps(vars(plan)))
        self.digests = {FOLDER: folder, LABELS: labels}
        self.names = plan.stages()
        self.stages: dict[str, Any] = {}
        # What stages that are not done were begun with: what is left of them may be of that.
        self.begun: dict[str, Any] = {}
        if self.path.is_file():
            self._take_up(earlier)
            self._check_films()
            return
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} exists and holds no run: name another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        self._write()

    @property
    def done(self) -> dict[str, Any]:
        """The stages that this plan has and that are done, in order."""
        return {name: self.stages[name] for name in self.names if name in self.stages}

    def made_of(self, name: str, digests: Mapping[str, str]) -> dict[str, Any]:
        """What a stage would be made of now: its settings, what these digests stand for, and the stages before it."""
        before = {other: self.stages[other]["mark"] for other in stages_before(name) if other in self.names}
        return {**settings_of(name, self.plan), **digests, **before}

    def stage(
        self,
        name: str,
        work: Callable[[], Outcome],
        *,
        digests: Mapping[str, str] | None = None,
        clear: Callable[[], object] | None = None,
    ) -> dict[str, Any]:
        """What came of a stage, now or in an earlier call that was interrupted later on.

        Args:
            name: of the stage.
            work: does it; interrupted and called again, it goes on where it was.
            digests: of what else it is made of.
            clear: removes what is left of it where it was made of something else, so that ``work`` begins anew.
        """
        made_of, number = self.made_of(name, digests or {}), self._numbered(name)
        done = self.stages.get(name)
        before = done["made_of"] if done else self.begun.get(name, {})
        differ = in_words(before, made_of)
        if done and not differ:
            say(f"{number}: done before")
            return dict(done)
        why = f" ({'; '.join(differ)})"
        say(f"{number}{': done again' + why if done else ': begun anew' + why if differ else ''}")
        if differ and clear is not None:
            clear()
        # From here on what is there is neither the old nor the new one, and a page of it would be wrong.
        (self.out / "report.html").unlink(missing_ok=True)
        self.stages.pop(name, None)
        self.begun[name] = made_of
        self._write()
        return self._put(name, work(), made_of, mark=secrets.token_hex(8))

    def amend(self, name: str, work: Callable[[], Outcome], *, said: str, digests: Mapping[str, str]) -> None:
        """Changes a stage that is done where it stands; those after it see whether that concerns them."""
        say(f"{self._numbered(name)}: {said}")
        done = self.stages[name]
        done["made_of"] |= dict.fromkeys(digests, UNFINISHED)
        (self.out / "report.html").unlink(missing_ok=True)
        self._write()
        self._put(name, work(), {**done["made_of"], **digests}, mark=done["mark"])

    def _put(self, name: str, outcome: Outcome, made_of: Mapping[str, Any], *, mark: str) -> dict[str, Any]:
        self.stages[name] = {
            "headline": outcome.headline, "lines": outcome.lines, "run_id": outcome.run_id,
            "details": outcome.to_json(), "made_of": made_of, "mark": mark,
        }  # fmt: skip
        self.begun.pop(name, None)
        self._write()
        return dict(self.stages[name])

    def _numbered(self, name: str) -> str:
        return f"{self.names.index(name) + 1} of {len(self.names)}: {name}"

    def _write(self) -> None:
        content = {
            "format": FORMAT, "plan": {**self.plan, **self.digests}, "stages": self.stages, "begun": self.begun,
        }  # fmt: skip
        # As it will be read back: what was a tuple is a list from now on.
        text = json.dumps(content, indent=1)
        self.stages, self.begun = (json.loads(text)[name] for name in ("stages", "begun"))
        write_atomically(self.path, text + "\n")

    def _take_up(self, earlier: str) -> None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found.get("format", FORMAT) != FORMAT:
                raise DataError(
                    f"{self.path} was written by another version of unlabeled: go on with that one, or name another "
                    "folder with --out"
                )
            self.stages, self.begun = dict(found["stages"]), dict(found.get("begun", {}))
            if "format" not in found:
                self._of_earlier(dict(found["plan"]), earlier)
            for stage in self.stages.values():
                if not {"headline", "lines", "run_id", "details", "made_of", "mark"} <= set(stage):
                    raise ValueError("a stage lacks something")
        except DataError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self.path} is damaged ({error}): name another folder with --out") from None

    def _of_earlier(self, told: dict[str, Any], earlier: str) -> None:
        """A run that an earlier version began had one plan for all stages, and knows nothing of choices that came
        later: it took their defaults."""
        if "finding" in told:
            told["findings"] = [told.pop("finding")]
        plan = {**json.loads(json.dumps(vars(Plan()))), **told}
        same_labels = told.get("what the labels say") == self.digests[LABELS]
        if "intake" in self.stages and told.get("folder and labels") != earlier:
            raise DataError(
                f"{self.out} holds a run that an earlier version began, of another folder of films or another file of "
                "labels: give those, or name another folder with --out"
            )
        for stage in self.stages.values():
            stage["mark"] = stage["run_id"]
        names = [*self.stages, *([] if "pretraining" in self.stages else ["pretraining"])]
        for name in names:
            made_of = settings_of(name, plan)
            made_of |= {one: self.stages[one]["mark"] for one in stages_before(name) if one in self.stages}
            # The same labels are taken for the same pictures and parts of them, which it kept no digest of.
            if not same_labels:
                made_of |= {LABELS: UNFINISHED, TAUGHT: UNFINISHED}
            if name == "intake":
                made_of[FOLDER] = self.digests[FOLDER]
                made_of |= {LABELS: self.digests[LABELS]} if same_labels else {}
            if name in self.stages:
                self.stages[name]["made_of"] = made_of
            else:
                self.begun[name] = made_of

    def _check_films(self) -> None:
        """Raises a DataError where the store was made of other films, or in another way: all else depends on it."""
        if "intake" not in self.stages:
            return
        now = self.made_of("intake", {FOLDER: self.digests[FOLDER]})
        differ = in_words(self.stages["intake"]["made_of"], now)
        if differ:
            raise DataError(
                f"{self.out} holds a run of another plan ({'; '.join(differ)}), and its films are taken in so: name "
                "another folder with --out"
            )
