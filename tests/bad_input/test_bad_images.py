"""LMDB values that are no image, half of one, an odd one or a bomb: RGB, or a skipped record with a reason."""

import io
import json
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from blurdiff import cli
from blurdiff.data import lsun
from blurdiff.data.preprocess import squash
from pictures import encode, key, write_lmdb


def picture(seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth enough that its compressed forms are short."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return Image.fromarray(small).resize((40, 30), Image.Resampling.BICUBIC).convert(mode)


def png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that claims this size, with hardly any pixels in it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG of one pixel with 200 MB of compressed text."""
    body = b"comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    whole = encode(Image.new("RGB", (1, 1)), "PNG")
    return whole[:33] + chunk + whole[33:]


two = {"save_all": True, "append_images": [picture(1)]}
EXOTIC = {
    "CMYK JPEG": encode(picture(mode="CMYK"), "JPEG"),
    "progressive JPEG": encode(picture(), "JPEG", progressive=True),
    "grey JPEG": encode(picture(mode="L"), "JPEG"),
    "JPEG with a broken EXIF": encode(picture(), "JPEG", exif=b"Exif\0\0no TIFF at all"),
    "palette PNG": encode(picture().quantize(7), "PNG"),
    "palette with transparency": encode(picture().quantize(7), "PNG", transparency=3),
    "one bit a pixel": encode(picture(mode="1"), "PNG"),
    "RGBA PNG": encode(picture(mode="RGBA"), "PNG"),
    "grey with alpha": encode(picture(mode="LA"), "PNG"),
    "RGBA WebP": encode(picture(mode="RGBA"), "WEBP"),
    "animated PNG": encode(picture(), "PNG", **two),
    "animated GIF": encode(picture(), "GIF", **two),
    "animated WebP": encode(picture(), "WEBP", **two),
    "lossless WebP": encode(picture(), "WEBP", lossless=True),
    "TIFF of two pages": encode(picture(), "TIFF", **two),
    "CMYK TIFF": encode(picture(mode="CMYK"), "TIFF"),
    "JPEG 2000": encode(picture(), "JPEG2000"),
    "bytes behind the end": encode(picture(), "JPEG") + bytes(100),
}
PLAIN = {kind: encode(picture(), kind) for kind in ("JPEG", "PNG", "WEBP")}
BAD = {
    "empty": b"",
    "one byte": b"\xff",
    "text": b"<html>404 not found</html>",
    "a zip": b"PK\x03\x04" + bytes(100),
    "a pickle": b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    **{f"{part} % of a {kind}": value[: part * len(value) // 100]
       for kind, value in PLAIN.items() for part in (10, 50, 90)},
    "header of a PNG": PLAIN["PNG"][:33],
    "bomb of 8,001 × 8,001": png(8001, 8001),
    "bomb of 100,000 × 100,000": png(100_000, 100_000),
    "bomb of one bit a pixel": png(500_000, 500_000, 1, 0),
    "bomb of one row": png(2**31 - 1, 1),
    "bomb without pixels": png(8000, 8000),
    "bomb in the text": text_bomb(),
    "no width": png(0, 10),
    "floating-point TIFF": encode(picture(mode="F"), "TIFF"),
    "32-bit TIFF": encode(picture(mode="I"), "TIFF"),
}  # fmt: skip
GOOD = {f"good {number}": encode(picture(number), "PNG") for number in range(4)}


@pytest.mark.parametrize("name", EXOTIC | PLAIN)
def test_odd_images_are_decoded_as_pillow_converts_them(name):
    value = (EXOTIC | PLAIN)[name]
    decoded = lsun.decode_image(value)
    assert (decoded.mode, decoded.size) == ("RGB", (40, 30))
    with Image.open(io.BytesIO(value)) as image:
        assert decoded.tobytes() == image.convert("RGB").tobytes()


def test_of_several_pages_the_first_is_decoded():
    assert lsun.decode_image(EXOTIC["TIFF of two pages"]).tobytes() == picture().tobytes()


@pytest.mark.parametrize("name", BAD)
def test_bad_values_have_a_reason_the_same_every_time(name):
    reasons = set()
    for value in (BAD[name], bytes(bytearray(BAD[name]))):
        with lsun.quiet(), pytest.raises(lsun.CorruptRecord) as caught:
            lsun.decode_image(value)
        reasons.add(str(caught.value))
    [reason] = reasons
    assert reason and "\n" not in reason and "0x" not in reason
    assert ("too large:" in reason) == name.startswith("bomb of ")
    if name in ("empty", "text", "PostScript"):  # which Pillow would hand to Ghostscript
        assert ("empty" if name == "empty" else "known format") in reason


def decode(value: bytes) -> bytes | str:
    """What becomes of a value: the pixels of an RGB image, or the reason why not."""
    try:
        with lsun.quiet():
            image = lsun.decode_image(value)
    except lsun.CorruptRecord as reason:
        assert str(reason) and "\n" not in str(reason) and " at 0x" not in str(reason)
        return str(reason)
    assert image.mode == "RGB" and 0 < image.width * image.height <= lsun.MAX_PIXELS
    return squash(image, 8).tobytes()


@settings(max_examples=200)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", *(value[:12] for value in PLAIN.values()), b"GIF89a", b"BM", b"II*\0"]),
)
def test_random_bytes_are_an_image_or_have_a_reason(rest, start):
    assert decode(start + rest) == decode(start + rest)


@settings(max_examples=200)
@given(
    name=st.sampled_from(sorted([*PLAIN, "animated GIF", "CMYK JPEG", "palette PNG", "CMYK TIFF", "JPEG 2000"])),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=5),
    cut=st.none() | st.integers(0, 10**6),
)
def test_flipped_and_missing_bytes_give_an_image_or_a_reason(name, flips, cut):
    value = bytearray((PLAIN | EXOTIC)[name])
    for place, mask in flips:
        value[place % len(value)] ^= mask
    value = bytes(value[: cut and cut % len(value)])
    assert decode(value) == decode(value)


@pytest.fixture
def preprocess(tmp_path, capsys):
    """Run the stage on these values with this fraction allowed; gives (exit status, stderr, folder, keys)."""

    def run(values: list[bytes], fraction: float) -> tuple:
        records = {key(number): value for number, value in enumerate(values)}
        write_lmdb(tmp_path / "x_lmdb", records)
        out = tmp_path / "out"
        command = ["preprocess", "--lmdb", str(tmp_path / "x_lmdb"), "--resolution", "8", "--workers", "1"]
        command += ["--max-corrupt-fraction", str(fraction), "--output", str(out / "images.npy")]
        status = cli.main([*command, "--manifest", str(out / "manifest.json")])
        return status, capsys.readouterr().err, out, [name.decode() for name in records]

    return run


def test_bad_records_are_skipped_and_named_where_so_many_are_allowed(preprocess):
    rng, damaged = random.Random(0), []
    for number in range(60):
        value = bytearray(PLAIN[sorted(PLAIN)[number % 3]])
        for _ in range(3):
            value[rng.randrange(len(value))] ^= rng.randrange(1, 256)
        damaged.append(bytes(value))
    values = [*BAD.values(), *EXOTIC.values(), *damaged]
    status, _, out, keys = preprocess(values, 1)
    assert status == 0
    manifest, images = json.loads((out / "manifest.json").read_text()), np.load(out / "images.npy")
    expected = [decode(value) for value in values]
    reasons = [{"key": key, "reason": what} for key, what in zip(keys, expected, strict=True) if isinstance(what, str)]
    assert manifest["skipped"] == reasons
    assert len(reasons) >= len(BAD)
    assert [image.tobytes() for image in images] == [what for what in expected if not isinstance(what, str)]
    assert manifest["n_used"] == len(images) == len(values) - len(reasons)
    assert sorted(path.name for path in out.iterdir()) == ["images.npy", "manifest.json"]


@pytest.mark.parametrize("name", ["50 % of a WEBP", "bomb of 100,000 × 100,000"])
def test_one_bad_record_too_many_is_one_line_that_names_it(preprocess, name):
    status, error, out, keys = preprocess([*GOOD.values(), BAD[name]], 0.1)
    assert status == 1
    line = error.splitlines()[-1]
    assert line.startswith("error: ") and keys[4] in line and decode(BAD[name]) in line
    assert "Traceback" not in error
    # What the stage remembers to go on from is hidden, and nothing reads it but the stage itself.
    assert [path.name for path in out.iterdir() if path.name != ".images.npy.partial"] == []


def test_pillow_is_not_told_to_accept_truncated_images():
    """The switch is global: a stage that set it would let half images through everywhere."""
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
