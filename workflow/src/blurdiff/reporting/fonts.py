"""Fonts for labels in scripts that our own font does not have."""

import logging
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

OWN = "DejaVu Sans"  # comes with matplotlib
# Where a font has no bold face its regular one is taken, which is no news.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


def families(texts: Iterable[str]) -> list[str]:
    """Our font, and others of this machine for the characters of `texts` that it lacks: matplotlib's fallback list.

    What no font has is told on stderr, in one line for each text.
    """
    texts, chosen = list(texts), [OWN]
    missing = _shown(texts) - _characters(OWN)
    if missing:
        _find_new_fonts()
        names = sorted({font.name for font in font_manager.fontManager.ttflist} - {OWN})
        while missing:  # the font that has most of them, then the one that has most of the rest
            best = max(names, key=lambda name: len(missing & _characters(name)), default=OWN)
            if not missing & _characters(best):
                break
            chosen.append(best)
            missing -= _characters(best)
    for text in dict.fromkeys(texts):
        if lacking := "".join(sign for sign in text if sign in missing):
            print(
                f"warning: no font here has {lacking}, so that figures show boxes in the label {text!r}; install a font"
                " that has them (fonts-noto-cjk for Chinese, Japanese and Korean), or give another label",
                file=sys.stderr,
                flush=True,
            )
    return chosen


def _shown(texts: Iterable[str]) -> set[str]:
    """The characters that need a glyph."""
    return {sign for sign in "".join(texts) if unicodedata.category(sign)[0] not in "CZ"}


@cache
def _characters(family: str) -> frozenset[str]:
    """What a family of fonts has, in the face that matplotlib would draw with; nothing if it cannot."""
    try:
        font = FT2Font(font_manager.findfont(family, fallback_to_default=False))
        font.set_size(8, 72)  # fails for fonts of coloured bitmaps, as emoji are
        return frozenset(map(chr, font.get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def _find_new_fonts() -> None:
    """Add what was installed since matplotlib last listed the machine's fonts."""
    known = {Path(font.fname) for font in font_manager.fontManager.ttflist}
    for path in sorted({Path(path) for path in font_manager.findSystemFonts()} - known):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # not one that matplotlib reads
            continue
