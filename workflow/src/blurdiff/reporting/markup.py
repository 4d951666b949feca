"""What a page of HTML is made of: our Markdown, tables that can be sorted, and pictures as parts of the file."""

import base64
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from blurdiff.errors import UserError

# Of Markdown, what `labels.markdown` and our captions write: an escaped sign, bold, code, italic.
MARKS = re.compile(r"\\(?P<sign>[^A-Za-z0-9\s])|\*\*(?P<b>.+?)\*\*|`(?P<code>[^`]+)`|\*(?P<i>[^*\s][^*]*)\*")
DPI = 96  # of CSS


class Table(NamedTuple):
    """Headings, whether a column is of numbers, and rows of cells."""

    heads: list[Markup]
    numeric: list[bool]
    rows: list[list[Markup]]


class Picture(NamedTuple):
    """An image of the page."""

    source: str  # a data URI
    width: int  # pixels of CSS at which it is as large as on paper, or pixel for pixel
    height: int
    text: str  # for those who do not see it


def inline(markdown: str) -> Markup:
    """A line of Markdown as HTML."""
    parts, end = [], 0
    for found in MARKS.finditer(markdown):
        parts.append(escape(markdown[end : found.start()]))
        kind, end = found.lastgroup or "", found.end()
        inner = found[kind]
        if kind == "sign":
            parts.append(escape(inner))
        else:
            parts.append(Markup(f"<{kind}>{{}}</{kind}>").format(inner if kind == "code" else inline(inner)))
    parts.append(escape(markdown[end:]))
    return Markup("").join(parts)


def blocks(markdown: str) -> list[Markup | Table]:
    """Paragraphs and tables of a file of Markdown, down to its first heading of second level, where details begin.

    Its title is left out: the page has its own.
    """
    found: list[Markup | Table] = []
    for block in re.split(r"\n\s*\n", re.split(r"^## ", markdown, maxsplit=1, flags=re.MULTILINE)[0].strip()):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            heads, marks, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
            cells = [[inline(cell) for cell in row] for row in rows]
            found.append(Table([inline(head) for head in heads], [mark.endswith(":") for mark in marks], cells))
        elif lines[0].startswith("- "):
            found += [inline(line.removeprefix("- ")) for line in lines]
        elif not lines[0].startswith("#"):
            found.append(inline(" ".join(lines)))
    return found


def picture_file(path: Path, text: str) -> Picture:
    """A picture in a file: one that moves as it is, else much smaller, with losses that no eye sees.

    Raises UserError when it is none.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            dpi = image.info.get("dpi", (DPI, DPI))[0]
            width, height = (round(pixels * DPI / dpi) for pixels in image.size)
            if getattr(image, "is_animated", False):
                return Picture(data_uri(content, image.get_format_mimetype()), width, height, text)
            return Picture(webp(image.convert("RGB"), quality=92, method=2), width, height, text)
    except (OSError, SyntaxError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path} is no whole picture; delete it and run again") from error


def picture_of(array: np.ndarray, text: str) -> Picture:
    """A picture of uint8 (H, W, 3), without loss."""
    return Picture(
        webp(Image.fromarray(array), lossless=True, method=1, quality=20), array.shape[1], array.shape[0], text
    )


def webp(image: Image.Image, **options: object) -> str:
    """An image as a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return data_uri(buffer.getvalue(), "image/webp")


def data_uri(content: bytes, mime: str | None) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
