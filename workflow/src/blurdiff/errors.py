"""The one exception that means: the input is wrong, not the program."""

from collections.abc import Collection


class UserError(Exception):
    """Bad input or an environment that cannot do what was asked.

    The message is one line that names the file, key or record and says what to do next; the command line prints it
    as `error: …` and exits with status 1, without a traceback.
    """


def check_known(key: str, value: str, known: Collection[str]) -> None:
    """Raise UserError when the value of a key is not one of those that are known."""
    if value not in known:
        raise UserError(f"{key}: {value!r} is not one of {', '.join(known)}")
