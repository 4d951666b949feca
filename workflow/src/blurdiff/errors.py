"""The one exception that means: the input is wrong, not the program."""


class UserError(Exception):
    """Bad input or an environment that cannot do what was asked.

    The message is one line that names the file, key or record and says what to do next; the command line prints it
    as `error: …` and exits with status 1, without a traceback.
    """
