"""Pneumonia on chest X-rays from forty labels: pretrain without labels, fine-tune, score, explain.

    python examples/medical_few_labels.py

Synthetic films; with your own, replace the first lines by ``read_images("folder-of-dicom")`` and
``read_labels("labels.csv")``. For research; not a medical device.
"""

from unlabeled.medical import PneumoniaModel, attach, check_no_leak, read_images, read_labels, simulate
from unlabeled.medical.splits import first_labels, hold_out

archive = simulate.write_archive("phantom-films", patients=200, seed=0)
films = attach(read_images(archive.images, size=64), read_labels(archive.labels))
for skip in films.skipped:
    print(f"left out: {skip.source}: {skip.reason}")

learn, unseen = hold_out(films, share=1 / 3, seed=0)  # by patient, never by picture
few = first_labels(learn, 40, seed=0)
check_no_leak({"labelled": few, "unseen": unseen})  # refuses, and names the patients, if the parts share any

model = PneumoniaModel(dim=64, depth=3, pretrain_epochs=20, finetune_steps=60, folds=2)
model.pretrain(learn)  # its labels are not read
model.finetune(few, few.labels, groups=few.patients)
model.save("pneumonia-model")

model = PneumoniaModel.load("pneumonia-model")
for name, probability in zip(unseen.ids[:5], model.score(unseen)[:5], strict=True):
    print(f"{name}: probability {probability:.2f}")
print(
    "patches that speak for pneumonia in the first film, strongest first:",
    model.explain(unseen)[0].ravel().argsort()[::-1][:3],
)
