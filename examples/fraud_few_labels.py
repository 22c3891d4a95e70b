"""Find fraud with fifty labels: learn habits from unlabelled payments, then from a few labelled ones.

Run: python examples/fraud_few_labels.py
Your own payments: replace ``simulate()`` by ``read_table("payments.parquet")``; the columns are found by their
names, and ``infer_roles(table, entity="...")`` says so where a name is unusual.
"""

import numpy as np

from unlabeled.fraud import FraudDetector, Size, infer_roles, simulate, transactions

table = simulate(seed=1)  # tx_id, time, customer, merchant, category, amount, fraud
roles = infer_roles(table)
for part, columns in roles.rows():
    print(f"{part:>14}: {columns}")

payments = transactions(table, roles)
cut = payments.time[0] + 56 * 86_400
past, new = payments.take(payments.time < cut), payments.take(payments.time >= cut)

# Labels for fifty frauds and a thousand genuine payments; everything else is unknown (-1).
rng = np.random.default_rng(0)
known = np.full(len(past), -1)
known[rng.choice(np.flatnonzero(past.label == 1), 50, replace=False)] = 1
known[rng.choice(np.flatnonzero(past.label == 0), 1000, replace=False)] = 0

detector = FraudDetector(roles=roles, size=Size(dim=48, length=48, steps=400))
detector.pretrain(past)
detector.finetune(past, known)
scores, why = detector.explained(new, history=past)

alerts = detector.alerts(scores, new, per_day=10)
print(f"{(new.label[alerts] == 1).sum()} of {len(alerts)} alerts are frauds; there were {(new.label == 1).sum()}")
highest = alerts[np.argsort(-scores[alerts])][:5]
for position, reason in zip(highest, why(highest), strict=True):
    print(f"  {new.when(new.time[position])}  {scores[position]:.3f}  {reason}")

detector.save("fraud-example-model")
