"""A file by HTTP, resumed where it stopped: over dropped connections, and over deaths of this process.

Beside the file stands a small JSON, its state: which version of which address the bytes are of. The server's validator
(a strong ETag, or the date of the last change) goes with every request for the rest, so that two versions of a file are
never mixed.
"""

import os
import re
import time
from pathlib import Path
from typing import BinaryIO

import requests

from blurdiff import __version__
from blurdiff.errors import UserError
from blurdiff.runtime import text
from blurdiff.runtime.files import check_room, fsync, read_json, write_all, write_json
from blurdiff.runtime.parallel import progress

TIMEOUT = (20, 60)  # seconds: to connect, and between two pieces of data
LONGEST_WAIT = 60  # seconds between two attempts
PIECE = 1 << 18  # bytes; what a dropped connection loses at most


class Dropped(Exception):
    """A transfer that ended early and may be tried again; the message is the reason."""


def fetch(url: str, file: BinaryIO, state: Path, size: int | None, retries: int) -> None:
    """Bring `file` to the whole content of `url`, going on from what it holds.

    `state` is a small JSON beside it that says which version of which address the bytes are of. Raises UserError when
    the server refuses, or `retries` attempts in a row brought nothing new.
    """
    mark, failures = length_of(file), 0
    with requests.Session() as session:
        while True:
            try:
                return transfer(session, url, file, state, size)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                reason = f"the connection broke ({innermost(error)})"
            except Dropped as error:
                reason = str(error)
            except requests.RequestException as error:
                raise UserError(f"cannot download {url}: {innermost(error)}") from error
            # Only what exceeds all attempts before counts: a server that starts over each time brings nothing new.
            have = length_of(file)
            if have >= mark + PIECE:
                mark, failures = have, 0
            failures += 1
            if failures > retries:
                often = f", {failures} times in a row" if failures > 1 else ""
                kept = f"; {text.size(have)} are kept, and the same command goes on from there" if have else ""
                raise UserError(f"cannot download {url}: {reason}{often}{kept}")
            wait = min(2 ** (failures - 1), LONGEST_WAIT)
            text.say(f"{reason} at {text.size(have)}; trying again in {wait} s")
            time.sleep(wait)


def transfer(session: requests.Session, url: str, file: BinaryIO, state: Path, known_size: int | None) -> None:
    """One request for what is missing of `file`; returns when that is complete, else raises Dropped or as requests."""
    known = read_state(state, url)
    if length_of(file) > known.get("size", 0):
        forget(file, state)
        known = {}
    have = length_of(file)
    if known and have == known["size"]:
        return
    # Compressed on the way, a file would have other byte positions.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"blurdiff/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if known["validator"]:
            headers["If-Range"] = known["validator"]
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status = f"{response.status_code} {response.reason}"
        if response.status_code >= 500 or response.status_code in (408, 425, 429):
            raise Dropped(f"the server answers {status}")
        if have and response.status_code == 416:
            forget(file, state)
            raise Dropped("the server's file is shorter than what was downloaded of it, so this starts over")
        if response.status_code != 200 and not (have and response.status_code == 206):
            raise UserError(f"cannot download {url}: the server answers {status}; correct the address")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise UserError(f"cannot download {url}: the server compresses it on the way; use another address")
        if response.status_code == 206:
            same = validator_of(response) in (None, known["validator"])
            if not same or content_range(response) != (have, known["size"]):
                forget(file, state)
                raise Dropped("the server sends another part or file than was asked for, so this starts over")
            total = known["size"]
            check_space(file, total - have, total)
            text.say(f"going on at {text.size(have)} of {text.size(total)}")
        else:
            total = total_length(response, url, known_size)
            validator = validator_of(response)
            if have:
                changed = validator != known["validator"] or total != known["size"]
                why = "the file on the server has changed" if changed else "the server cannot resume"
                text.say(f"{why}: starting over")
                forget(file, state)
                have = 0
            check_space(file, total, total)
            write_json(state, {"url": url, "size": total, "validator": validator})
        with progress(total, "B", "download", have) as advance:
            for chunk in response.iter_content(PIECE):
                if have + len(chunk) > total:
                    forget(file, state)
                    raise Dropped(f"the server sends more than the {total:,} bytes that it announced")
                try:
                    write_all(file, chunk)
                except OSError as error:
                    reason = f"{error.strerror or error}; what is there stays, and the same command goes on"
                    raise UserError(f"cannot write {file.name}: {reason}") from error
                have += len(chunk)
                advance(len(chunk))
    if have < total:
        raise Dropped("the connection ended early")
    fsync(file.fileno())


def total_length(response: requests.Response, url: str, known_size: int | None) -> int:
    """The size of the whole file, in bytes, as the server announces it; UserError when it does not or is another."""
    length = response.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise UserError(f"cannot download {url}: the server does not say how large it is; use another address")
    if known_size is not None and int(length) != known_size:
        raise UserError(f"{url} has {int(length):,} bytes on the server, not {known_size:,}: it is another file")
    return int(length)


def content_range(response: requests.Response) -> tuple[int, int] | None:
    """(first byte, size of the whole) from the header Content-Range; None when it does not say so."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
    return match and (int(match[1]), int(match[2]))


def validator_of(response: requests.Response) -> str | None:
    """What If-Range takes to tell whether a file is still the same: a strong ETag, or the date of its last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def check_space(file: BinaryIO, missing: int, total: int) -> None:
    """Raise UserError unless the disk has room for what is missing of the zip and for the LMDB.

    Encoded images do not compress: unpacked, they need about as much again.
    """
    use = f"{text.size(missing)} more and about {text.size(total)} unpacked"
    check_room(file.name, Path(file.name).parent, missing + total, use)


def read_state(state: Path, url: str) -> dict:
    """What the bytes downloaded so far are of: {url, size, validator}; {} when that is not known or another file."""
    try:
        known = read_json(state)
        ours = known["url"] == url and isinstance(known["size"], int) and "validator" in known
        return known if ours else {}
    except (UserError, KeyError, TypeError):  # not there, or not ours
        return {}


def forget(file: BinaryIO, state: Path) -> None:
    """Throw away what was downloaded."""
    state.unlink(missing_ok=True)
    file.truncate(0)


def length_of(file: BinaryIO) -> int:
    """Bytes in the file."""
    return os.fstat(file.fileno()).st_size


def innermost(error: BaseException) -> str:
    """The last cause in words: requests wraps what happened in two or three layers of its own."""
    while error.__context__ is not None and str(error.__context__):
        error = error.__context__
    return str(error)
