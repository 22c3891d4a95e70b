"""Vibration and condition trends: what is normal for this machine, and an alarm before it fails.

>>> from unlabeled.sensors import MachineMonitor, read  # doctest: +SKIP
>>> machine, = read("pump-3.npz")  # doctest: +SKIP
>>> scores = MachineMonitor().fit(machine, normal_share=0.25).score(machine)  # doctest: +SKIP
"""

from unlabeled.sensors.alarms import AlarmRule
from unlabeled.sensors.backtest import backtest
from unlabeled.sensors.explain import Explanation
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.readers import read
from unlabeled.sensors.recording import Recording, make
from unlabeled.sensors.stream import Stream

__all__ = ["AlarmRule", "Explanation", "MachineMonitor", "Recording", "Stream", "backtest", "make", "read"]
