"""Arrays by name from the files that laboratories and measuring instruments write.

What a file says of itself comes under the names that an npz would have it: ``fs`` (Hz), ``start`` (date and time of the
first sample), ``axes`` (names), ``unit`` (of the signal).
"""

import contextlib
import importlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.sensors import units

Arrays = dict[str, NDArray[Any]]

RATES = ("fs", "sampling_rate", "sample_rate", "samplerate", "sampling_frequency")
LARGEST = 2**34  # bytes of one array in HDF5, TDMS or sound: what a damaged header claims must not fill the memory


def arrays(path: Path, wanted: Sequence[str] = ()) -> Arrays:
    """Everything in a file that is an array of numbers or texts; what else it holds is passed over.

    Args:
        wanted: of arrays or channels that each have a rate of their own, only that of these counts.

    Raises:
        DataError: the file cannot be read, or needs a package that is not there.
    """
    return _READERS[path.suffix.lower()](path, wanted)


def _npz(path: Path, wanted: Sequence[str]) -> Arrays:
    """Object arrays are never loaded (they could run code)."""
    found: Arrays = {}
    try:
        # Opened here: NumPy would leave the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            for name in stored.files:
                with contextlib.suppress(ValueError):  # an object array
                    found[name] = stored[name]
    except (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error):
        # NumPy's own message would advise to load what may run code.
        raise DataError(f"{path} is no npz archive of plain arrays: write it again with numpy.savez") from None
    return found


def _mat(path: Path, wanted: Sequence[str]) -> Arrays:
    """MATLAB's own format to version 7; since 7.3 it is HDF5, with its arrays' axes the other way round."""
    from scipy.io import loadmat, matlab

    try:
        found = loadmat(path, squeeze_me=True)
    except NotImplementedError:
        return {name: np.squeeze(values.T) for name, values in _hdf5(path, wanted).items()}
    except (OSError, ValueError, TypeError, LookupError, EOFError, zlib.error, matlab.MatReadError) as error:
        raise _unreadable(path, "MAT file", error) from None
    return _said({name: np.asarray(values) for name, values in found.items() if not name.startswith("__")})


def _hdf5(path: Path, wanted: Sequence[str]) -> Arrays:
    """Data sets by their names, with their groups' where two have one name; a rate is an attribute or a data set."""
    h5py = _package("h5py", path)
    found: Arrays = {}
    rates: Arrays = {}
    said: dict[str, list[str]] = {}

    def take(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        text = h5py.check_string_dtype(item.dtype) is not None
        if not text and item.dtype.kind not in "fiub":
            return
        # Either would read other files than this one.
        if item.external or item.is_virtual:
            raise DataError(f"{path}: {name} keeps its numbers in other files; copy them into this one")
        _check_size(path, name, item.nbytes)
        found[name] = np.asarray(item.asstr()[()], dtype=np.str_) if text else item[()]
        for rate in _rate(item.attrs):
            rates[name] = rate
        said[name] = _units(item.attrs)

    try:
        with h5py.File(path, "r") as file:
            of_all, unit_of_all = _rate(file.attrs), _units(file.attrs)
            file.visititems(take)  # follows no link
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise _unreadable(path, "HDF5 file", error) from None
    short = [name.rpartition("/")[2] for name in found]
    names = {name: part if short.count(part) == 1 else name for part, name in zip(short, found, strict=True)}
    own = {tuple(np.atleast_1d(rate).tolist()) for name, rate in rates.items() if not wanted or names[name] in wanted}
    arrays = _said({names[name]: values for name, values in found.items()})
    for rate in own if len(own) == 1 else of_all if not own else ():  # of several nobody says which
        arrays["fs"] = np.squeeze(np.asarray(rate))
    own_units = {one for name, of_one in said.items() if not wanted or names[name] in wanted for one in of_one}
    if own_units or unit_of_all:
        arrays.setdefault("unit", np.array(sorted(own_units) or unit_of_all))
    return arrays


def _rate(attributes: Any) -> list[NDArray[Any]]:
    """The sampling rate among attributes, if there is one."""
    return [np.asarray(value) for name, value in attributes.items() if name.lower() in RATES][:1]


def _units(attributes: Any) -> list[str]:
    """The units among attributes, as texts."""
    found = [value for name, value in attributes.items() if name.lower() in units.NAMES]
    return [one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in found]


def _tdms(path: Path, wanted: Sequence[str]) -> Arrays:
    """Channels of National Instruments' files: those measured alike are the axes of one signal, others stay apart."""
    nptdms = _package("nptdms", path)
    try:
        # Opened here: of what is no TDMS file, the package would leave it open.
        with path.open("rb") as raw, nptdms.TdmsFile.open(raw) as file:
            channels = [c for group in file.groups() for c in group.channels() if c.dtype.kind in "fiu" and len(c)]
            short = [channel.name for channel in channels]
            names = [c.name if short.count(c.name) == 1 else f"{c.group_name}/{c.name}" for c in channels]
            taken = [n for n, name in enumerate(names) if not wanted or name in wanted] or range(len(names))
            channels, names = [channels[n] for n in taken], [names[n] for n in taken]
            for channel in channels:
                _check_size(path, channel.name, len(channel) * channel.dtype.itemsize)
            values = [np.asarray(channel[:]) for channel in channels]
            steps = [float(channel.properties.get("wf_increment", 0.0)) for channel in channels]
            starts = [channel.properties.get("wf_start_time") for channel in channels]
            said = {str(channel.properties.get("unit_string", "")) for channel in channels}
    except Exception as error:  # whatever damaged bytes make of the parser
        raise _unreadable(path, "TDMS file", error) from None
    alike = {(len(v), step) for v, step in zip(values, steps, strict=True)}
    found: Arrays = dict(zip(names, values, strict=True))
    if len(alike) == 1:
        found = {"signal": np.stack(values, axis=1), "axes": np.array(names)}
    if len(set(steps)) == 1 and steps[0] > 0:
        found["fs"] = np.array(1 / steps[0])
    if said - {""}:
        found["unit"] = np.array(sorted(said - {""}))
    if starts and starts[0] is not None:
        found["start"] = np.array(starts[0], dtype="datetime64[ns]")
    return found


def _sound(path: Path, wanted: Sequence[str]) -> Arrays:
    soundfile = _package("soundfile", path)
    try:
        about = soundfile.info(path)
        _check_size(path, "the sound", about.frames * about.channels * 4)
        values, fs = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreadable(path, "sound file", error) from None
    return {
        "signal": values,
        "fs": np.array(float(fs)),
        "axes": np.array([f"channel {n + 1}" for n in range(values.shape[1])]),
    }


_READERS: dict[str, Callable[[Path, Sequence[str]], Arrays]] = {
    ".npz": _npz, ".mat": _mat, ".h5": _hdf5, ".hdf5": _hdf5, ".tdms": _tdms, ".wav": _sound, ".flac": _sound,
}  # fmt: skip
SUFFIXES = tuple(_READERS)


def _said(found: Arrays) -> Arrays:
    """Without what is no plain array, and a sampling rate under its one name."""
    plain = {name: values for name, values in found.items() if values.dtype.kind in "fiubMU"}
    for name in list(plain):
        if name.lower() in RATES and "fs" not in plain:
            plain["fs"] = plain.pop(name)
    return plain


def _package(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise DataError(f"{path} needs the package {name}: pip install 'unlabeled[formats]'") from None


def _check_size(path: Path, name: str, size: int) -> None:
    if size > LARGEST:
        raise DataError(f"{path}: {name} claims {size / 2**30:.0f} GiB, more than is read at once: write it in parts")


def _unreadable(path: Path, kind: str, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    return DataError(f"{path} cannot be read as a {kind} ({type(error).__name__}): write it again")
