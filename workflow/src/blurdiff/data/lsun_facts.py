"""What is known of LSUN's archives without opening one: addresses, sizes, digests, names, and where to get them.

It imports nothing heavy, so that a config can be checked in a moment.
"""

import os
import re
from pathlib import Path

LSUN_SITE = "http://dl.yf.io/lsun/scenes"
LSUN_SCENES = (
    "bedroom", "bridge", "church_outdoor", "classroom", "conference_room",
    "dining_room", "kitchen", "living_room", "restaurant", "tower",
)  # fmt: skip
# Size in bytes and digest of the archives, as TensorFlow Datasets records them; 32 hex digits are MD5, 64 SHA-256.
LSUN_ARCHIVES = {
    "bedroom_train": (45_922_737_680, "f2c5d904a82a6295dbdccb322b4b0a99"),
    "bedroom_val": (4_670_661, "5d022e781b241c25ec2e1f1f769afcdb8091d7fd58362667aec03137b8114b12"),
    "church_outdoor_train": (2_448_463_466, "91128ae026840ac0c5982b4445ab5fc4e092d6847cca76793b2b1a0815c2e74a"),
    "church_outdoor_val": (5_957_308, "34635b7547a3e51a15f942a4a4082dd6bc9cca381a953515cb2275c0eed50584"),
}
# Images in the training sets that the paper uses.
LSUN_IMAGES = {"bedroom_train": 3_033_042, "church_outdoor_train": 126_227}


def lsun_name(folder: str | os.PathLike) -> str:
    """What LSUN calls the scenes in a folder, church_outdoor_train for church_outdoor_train_lmdb; "" if nothing."""
    match = re.fullmatch(rf"((?:{'|'.join(LSUN_SCENES)})_(?:train|val))_lmdb", Path(folder).name)
    return match[1] if match else ""


def lsun_address(name: str) -> str:
    """The address of the zip of scenes by LSUN's name of them, church_outdoor_train."""
    return f"{LSUN_SITE}/{name}_lmdb.zip"


def how_to_get(folder: str, dataset: str) -> str:
    """Where a data set's LMDB comes from, as part of a sentence: LSUN's site if the folder has a name of LSUN's."""
    name = lsun_name(folder)
    if not name:
        return "give a folder with an LSUN-format LMDB (data.mdb)"
    text = f"download {lsun_address(name)}"
    if name in LSUN_ARCHIVES:
        size, digest = LSUN_ARCHIVES[name]
        text += f" ({size:,} bytes, {'MD5' if len(digest) == 32 else 'SHA-256'} {digest})"
    return f"{text} and unzip it in {Path(folder).parent}, or set datasets.{dataset}.download: lsun"


def download_hint(folder: str | os.PathLike) -> str:
    """What to do about a missing LMDB: the address of its zip if the folder has a name of LSUN's, else the pattern."""
    return f"for LSUN, download {lsun_address(lsun_name(folder) or '<category>_<split>')} and unzip it there"
