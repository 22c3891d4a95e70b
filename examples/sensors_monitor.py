"""Watch one machine: learn what is normal from its first weeks, then judge each snapshot as it comes.

    python examples/sensors_monitor.py

Simulated data; with your own, replace the first lines by ``read("my-machine.npz")``.
"""

from unlabeled.sensors import MachineMonitor, simulate

*fleet, machine = simulate.fleet(healthy=3, failing=1, seed=0)

monitor = MachineMonitor(steps=150)
monitor.pretrain(fleet)  # the other machines' first weeks teach the encoder, without labels
monitor.fit(machine, normal_share=0.25)  # this machine's own first weeks set its normal state and its threshold
monitor.save("my-machine-model")

stream = MachineMonitor.load("my-machine-model").stream()
for i, snapshot in enumerate(machine.values):
    judged = stream.push(snapshot)
    if judged["alarm"]:
        print(f"alarm {machine.hours[-1] - machine.hours[i]:.0f} h before the end (score {judged['smoothed']:.1f})")
        break

for sentence in monitor.explain(machine, row=i).words:
    print(" ", sentence)
