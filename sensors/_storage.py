"""A monitor on disk: weights, constants and the normal period's embeddings; distances are fitted anew on loading."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.core import checkpoints
from unlabeled.core.checkpoints import under
from unlabeled.core.errors import CheckpointError
from unlabeled.core.training import History
from unlabeled.sensors.found_regimes import FoundRegimes
from unlabeled.sensors.harmonics import Normal
from unlabeled.sensors.level import Level
from unlabeled.sensors.prior import Begun, Prior
from unlabeled.sensors.regimes import Addition, Conditional, Regimes
from unlabeled.sensors.spares import Spare

if TYPE_CHECKING:
    from unlabeled.sensors.monitor import MachineMonitor

_FOUND = ("middle", "scale", "directions", "centres")
_SCALING = ("picture_mean", "picture_scale", "indicator_mean", "indicator_scale")
_SEEN = ("embedding", "error", "outside")  # of the normal period, without an axis
_OF_PRIOR = ("pictures", "indicators")
_HARMONICS = ("level", "over", "spectrum")
# Written into the manifest once fitted: plain values only.
_FITTED = ("asset_", "kind_", "fs_", "samples_", "threshold_", "cut_", "data_fingerprint_")


def save(monitor: "MachineMonitor", folder: str | Path, *, pretraining_run: str | None) -> Path:
    from unlabeled.sensors.monitor import KIND

    if not hasattr(monitor, "backbone_"):
        raise CheckpointError("there is nothing to save yet: call pretrain or fit first")
    tensors: dict[str, Tensor] = {f"backbone.{k}": v for k, v in monitor.backbone_.state_dict().items()}
    tensors |= {f"pretext.{k}": v for k, v in monitor.pretext_.state_dict().items()}
    params = monitor.get_params(deep=False)
    manifest: dict[str, Any] = {
        "params": {
            **params,
            "rule": monitor.rule.config(),
            "bearing": None if monitor.bearing is None else asdict(monitor.bearing),
        },
        "picture": {"channels": monitor.channels_, "grid": list(monitor.grid_), "fs": monitor.pretraining_fs_},
        "fleet": monitor.fleet_,
        "pretrained": getattr(monitor, "pretrained_", False),
        "curves": monitor.history_.curves,
        "pretraining_run": pretraining_run,
        "licence": "as the data that it was fitted on",
    }
    prior = getattr(monitor, "prior_", None)
    if prior is not None and not hasattr(monitor, "threshold_"):  # a fitted monitor has no more use for it
        manifest["prior"] = {"machines": list(prior.machines), "names": list(prior.names), "fs": prior.fs,
                             "unit": prior.unit}  # fmt: skip
        for number in range(len(prior.machines)):
            for name in _OF_PRIOR:
                tensors[f"prior.{number}.{name}"] = torch.from_numpy(getattr(prior, name)[number])
    if hasattr(monitor, "threshold_"):
        tensors |= {f"reference.{k}": v for k, v in monitor.reference_.items()}
        tensors |= {f"scaling.{k}": torch.from_numpy(getattr(monitor.scaling_, k)) for k in _SCALING}
        if monitor.conditional_ is not None:
            tensors |= {
                f"conditional.{k}": torch.from_numpy(v) for k, v in _of_conditions(monitor.conditional_).items()
            }
        if monitor.harmonics_ is not None:
            tensors |= {f"harmonics.{k}": torch.from_numpy(getattr(monitor.harmonics_, k)) for k in _HARMONICS}
        for axis, spare in monitor.spares_.items():
            tensors |= {f"spares.{axis}.{k}": torch.from_numpy(getattr(spare, k)) for k in _SEEN}
        manifest["fitted"] = {name: getattr(monitor, name) for name in _FITTED}
        manifest["fitted"] |= {
            "names_": list(monitor.names_),
            "unit_": monitor.unit_,
            "offset_": None if monitor.offset_ is None else asdict(monitor.offset_),
            "period_": asdict(monitor.period_),
            "plain_rules_": [asdict(rule) for rule in monitor.plain_rules_],
            "conditions": [] if monitor.conditional_ is None else list(monitor.conditional_.regimes.names),
            "level_": None if monitor.level_ is None else asdict(monitor.level_),
            "harmonics_": None if monitor.harmonics_ is None else _of_shaft(monitor.harmonics_),
            "tail_": None if monitor.tail_ is None else asdict(monitor.tail_),
            "additions": [] if monitor.conditional_ is None else [
                {"gain": one.gain, "overall_ratio": one.overall_ratio} for one in monitor.conditional_.additions
            ],
            "vouched_": [asdict(one) for one in monitor.vouched_],
            "begun_": None if monitor.begun_ is None else asdict(monitor.begun_),
            "spares_": {axis: _of_spare(spare) for axis, spare in monitor.spares_.items()},
        }  # fmt: skip
    return checkpoints.save(folder, kind=KIND, tensors=tensors, manifest=manifest)


def _prior(tensors: Mapping[str, Tensor], told: Mapping[str, Any] | None) -> Prior | None:
    if told is None:
        return None
    machines = range(len(told["machines"]))
    pictures, indicators = (
        tuple(tensors[f"prior.{number}.{name}"].numpy() for number in machines) for name in _OF_PRIOR
    )
    return Prior(
        tuple(told["machines"]), pictures, indicators, names=tuple(told["names"]), fs=told["fs"], unit=told["unit"]
    )


def _of_spare(spare: Spare) -> dict[str, Any]:
    return {"cut": spare.cut, "gain": spare.gain, "level": None if spare.level is None else asdict(spare.level)}


def _spare(monitor: "MachineMonitor", stored: Mapping[str, Tensor], told: Mapping[str, Any]) -> Spare:
    seen = {k: stored[k].numpy() for k in _SEEN}
    level = None if told["level"] is None else Level(**told["level"])
    normal = monitor.normal_model(**seen, cut=told["cut"])
    return Spare(**seen, cut=told["cut"], normal=normal, gain=told["gain"], level=level)


def _of_shaft(normal: Normal) -> dict[str, Any]:
    return {"shaft_hz": normal.shaft_hz, "orders": list(normal.orders)}


def _harmonics(stored: Mapping[str, Tensor], told: Mapping[str, Any] | None) -> Normal | None:
    if told is None:
        return None
    return Normal(shaft_hz=told["shaft_hz"], orders=tuple(told["orders"]), **{k: stored[k].numpy() for k in _HARMONICS})


def _of_conditions(normal: Conditional) -> dict[str, NDArray[Any]]:
    every = {
        "known": normal.regimes.known, "indicators": normal.indicators, "pictures": normal.pictures,
        "overall": normal.overall,
    }  # fmt: skip
    if isinstance(normal.regimes, FoundRegimes):
        every |= {name: getattr(normal.regimes, name) for name in _FOUND}
    told = {name: np.ascontiguousarray(values) for name, values in every.items() if values is not None}
    for number, one in enumerate(normal.additions):
        own = {**_of_conditions(one.normal), "indicator_ratio": one.indicator_ratio}
        own |= {} if one.picture_ratio is None else {"picture_ratio": one.picture_ratio}
        told |= {f"added.{number}.{name}": np.ascontiguousarray(values) for name, values in own.items()}
    return told


def _conditional(
    stored: Mapping[str, Tensor], names: Sequence[str], additions: Sequence[Mapping[str, float]] = ()
) -> Conditional | None:
    known = {name: values.numpy() for name, values in stored.items()}
    if not known:
        return None
    added = []
    for number, told in enumerate(additions):
        own = under(f"added.{number}.", dict(stored))
        normal = _conditional(own, names)
        assert normal is not None
        picture = own["picture_ratio"].numpy() if "picture_ratio" in own else None
        added.append(Addition(normal, own["indicator_ratio"].numpy(), picture, **told))
    regimes = Regimes.of(known["known"], names) if names else FoundRegimes(known["known"], *(known[n] for n in _FOUND))
    return Conditional(regimes, known["indicators"], known.get("pictures"), known.get("overall"), tuple(added))


def load(cls: "type[MachineMonitor]", folder: str | Path) -> "MachineMonitor":
    from unlabeled.sensors._fitting import Period
    from unlabeled.sensors.alarms import AlarmRule
    from unlabeled.sensors.baselines import Rule
    from unlabeled.sensors.bearings import Bearing
    from unlabeled.sensors.false_alarms import Tail
    from unlabeled.sensors.health import Offset
    from unlabeled.sensors.monitor import KIND
    from unlabeled.sensors.views import Scaling
    from unlabeled.sensors.vouched import Vouched

    tensors, manifest = checkpoints.load(folder, kind=KIND)
    params = {**manifest["params"], "rule": AlarmRule(**manifest["params"]["rule"])}
    told = params.get("bearing")  # a monitor of before there was one has none
    params["bearing"] = None if told is None else Bearing(**told)
    monitor = cls(**params)
    fitted = manifest.get("fitted")
    grid = tuple(manifest["picture"]["grid"])
    monitor.build(manifest["picture"]["channels"], (grid[0], grid[1]), manifest["picture"].get("fs"))
    checkpoints.put(monitor.backbone_, under("backbone.", tensors), what=folder)
    checkpoints.put(monitor.pretext_, under("pretext.", tensors), what=folder)
    monitor.backbone_.eval()
    monitor.pretext_.eval()
    monitor.fleet_, monitor.pretrained_ = manifest["fleet"], manifest["pretrained"]
    monitor.history_ = History(curves={k: [(a, b) for a, b in v] for k, v in manifest["curves"].items()})
    monitor.pretraining_run_ = manifest["pretraining_run"]
    monitor.prior_ = _prior(tensors, manifest.get("prior"))
    if fitted:
        for name in _FITTED:
            setattr(monitor, name, fitted[name])
        offset = fitted.get("offset_")
        monitor.offset_ = None if offset is None else Offset(**{name: tuple(of) for name, of in offset.items()})
        monitor.unit_ = fitted.get("unit_", "")  # a monitor of before there was one has none
        monitor.names_, monitor.period_ = tuple(fitted["names_"]), Period(**fitted["period_"])
        # A monitor of before there were these has none.
        told, level = fitted.get("tail_"), fitted.get("level_")
        monitor.tail_ = None if told is None else Tail(**told)
        monitor.level_ = None if level is None else Level(**level)
        monitor.harmonics_ = _harmonics(under("harmonics.", tensors), fitted.get("harmonics_"))
        monitor.conditional_ = _conditional(
            under("conditional.", tensors), fitted.get("conditions", []), fitted.get("additions", ())
        )
        monitor.vouched_ = tuple(Vouched(**{**one, "files": tuple(one["files"])}) for one in fitted.get("vouched_", ()))
        begun = fitted.get("begun_")
        monitor.begun_ = None if begun is None else Begun(**{**begun, "machines": tuple(begun["machines"])})
        monitor.plain_rules_ = [Rule(**rule) for rule in fitted["plain_rules_"]]
        monitor.scaling_ = Scaling(*(tensors[f"scaling.{k}"].numpy() for k in _SCALING))
        reference = {k: v.numpy() for k, v in under("reference.", tensors).items()}
        monitor.set_reference(reference["embedding"], reference["error"], reference["outside"], monitor.cut_)
        monitor.spares_ = {
            int(axis): _spare(monitor, under(f"spares.{axis}.", tensors), told)
            for axis, told in fitted.get("spares_", {}).items()
        }
    return monitor
