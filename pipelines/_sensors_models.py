"""Who judges which machine in a monitoring job: read when it is needed, and again when its folder has changed."""

import hashlib
from pathlib import Path
from typing import NamedTuple, cast

from unlabeled.core.checkpoints import MANIFEST, put_back
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines._sensors_job_file import Job
from unlabeled.sensors import MachineMonitor
from unlabeled.sensors.stream import NewRegime, Stream


class Judge(NamedTuple):
    """A machine's model and what it is told from others by."""

    print: str
    model: MachineMonitor

    @property
    def same_before(self) -> tuple[str, ...]:
        """What models are told by from which this one has grown by learning regimes: under conditions that these knew
        it judges as they did, and so goes on from what they remember."""
        found: list[str] = []
        for one in reversed(self.model.vouched_):
            if one.replaced:
                break
            found.append(one.model)
        return tuple(found)

    def stream(self, job: Job, asset: str) -> Stream:
        """With the job's alarm settings in place of the model's own.

        Raises:
            DataError: together they make a rule by which no alarm could start or end.
        """
        model, alarms = self.model, job.alarms
        threshold = alarms.threshold_factor * model.threshold_
        regime = cast(NewRegime, job.new_regime_of.get(asset, job.new_regime))
        return Stream(model, rule=alarms.rule(model.rule), threshold=threshold, new_regime=regime)


def folder_of(asset: str, job: Job) -> Path:
    """Where a machine's model lies: in a folder of its own, or the only one that there is.

    Raises:
        DataError: there is none.
    """
    folder = job.models / files.folder_name(asset)
    put_back(folder)
    if not (folder / MANIFEST).is_file():
        folder = job.models
    if not (folder / MANIFEST).is_file():
        raise DataError(f"there is no model of {asset} in {job.models.name}")
    return folder


def print_of(folder: Path) -> str:
    """What a model on disk is told from others by."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


class Models:
    """Those that were read before, by machine."""

    def __init__(self) -> None:
        self._read: dict[str, Judge] = {}

    def of(self, asset: str, job: Job) -> Judge:
        """A machine's model as it is on disk now.

        Raises:
            DataError: there is none: no other machine's model judges it, not even for a moment.
        """
        folder = folder_of(asset, job)
        print_ = print_of(folder)
        if asset not in self._read or self._read[asset].print != print_:
            model = MachineMonitor.load(folder)
            if folder == job.models and asset not in (model.asset_, *(one.asset for one in job.folders)):
                raise DataError(f"the only model, of {model.asset_}, judges no {asset}")
            if model.begun_ is not None:
                say(f"{asset} is judged by {model.begun_}: fit it anew as soon as it has a normal of its own")
            self._read[asset] = Judge(print_, model)
        return self._read[asset]
