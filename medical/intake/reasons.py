"""Why a file is refused, and what is remarked of one that is kept: a closed list of words.

What a hospital's files say goes into no reason, so that the gate's table can name nobody: a detail beside a reason is
one of the standard's own terms, or a number of ours.
"""

KEPT, FLAGGED, REFUSED = "kept", "flagged", "refused"
# Of which the other one is kept, so that what is said of this one is said of that.
EXACT = "exact duplicate"

REFUSALS = {
    "unreadable": "the system does not let it be read, or it is no ordinary file",
    "unreadable folder": "the system does not let it be listed; what is in it was not found",
    "link to a folder": "not followed, so that nothing is read twice or for ever",
    "empty file": "it has 0 bytes",
    "too large": "larger than is read here",
    "not DICOM": "it begins like no DICOM file",
    "not an image": "DICOM without pixels: a directory (DICOMDIR), a report, a presentation state",
    "damaged DICOM": "its tags cannot be read",
    "truncated": "it ends before its pixels do",
    "not a radiograph": "its modality is another one",
    "multi-frame": "it holds several pictures",
    "not greyscale": "its pixels are colours, or no whole numbers",
    "not a chest": "its tags name another part of the body",
    "body part unknown": "no tag names the part of the body",
    "lateral view": "taken from the side",
    "view unknown": "its tags do not say that it is frontal",
    "bit depth": "8 to 16 bits a pixel are read, its tags say otherwise or contradict each other",
    "stored range": "its values need more bits than its tags say",
    "no decoder": "nothing installed decodes its compression",
    "damaged pixels": "its pixels cannot be decoded",
    "crash": "reading it ended the process that read it",
    "unusable window or LUT": "its own window or look-up table cannot be applied",
    "empty": "one grey, or next to no contrast",
    "saturated": "most of it is the darkest or the brightest grey",
    "too small": "a side has fewer than 16 pixels",
    "burned-in text": "its tags say that text is burned in, and not all of it could be found and masked",
    "no instance UID": "without its SOPInstanceUID it cannot be told from others",
    "repeated instance UID": "another picture has its SOPInstanceUID",
    "two patients in a study": "its study is also under another patient id: one of them is wrong",
    EXACT: "its decoded pixels are those of a picture that is kept",
    "error": "something that was not foreseen",
}
FLAGS = {
    "inverted": "lungs and surroundings bright, middle dark: against its tags, it looks like a negative",
    "unlike a chest": "no middle that is brighter than both sides, as a frontal chest film has",
    "near duplicate": "looks like an earlier picture in another window, compression or size",
    "another patient": "its exact pixels are also under another patient id",
    "no patient": "it has no patient id: it counts with its study",
}
# Modalities of the standard (PS3.3 C.7.3.1.1.1) that are met most often: anything else goes unnamed.
MODALITIES = (
    *(
        "CR",
        "DX",
        "RG",
        "CT",
        "MR",
        "US",
        "NM",
        "PT",
        "MG",
        "PX",
        "IO",
        "RF",
        "XA",
        "SC",
        "OT",
        "SR",
        "PR",
        "KO",
        "ECG",
    ),
    *(
        "ES",
        "XC",
        "GM",
        "OP",
        "OPT",
        "DOC",
        "SEG",
        "BMD",
        "RTIMAGE",
        "RTDOSE",
        "RTPLAN",
        "RTSTRUCT",
        "REG",
        "HD",
        "IVUS",
    ),
)


class NotKept(Exception):
    """This file is left out.

    Attributes:
        reason: one of :data:`REFUSALS`.
        detail: terms of the standard or numbers, or nothing.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REFUSALS, reason
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail
