"""`sitecustomize` of the stand-in's Python: each process that ends normally leaves PREFIX/processes/*.json.

The files say what the process took, and from where: its command line, interpreter, path and imported files.
"""

import atexit
import json
import os
import sys
import sysconfig
import tempfile


def record() -> None:
    """Write the record; called as the interpreter ends."""
    # Python makes __file__ absolute; torch has a few modules that are no files and name one all the same.
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    content = {
        "command": sys.orig_argv,
        "executable": sys.executable,
        "prefix": sys.prefix,
        "path": sys.path,
        "folder": os.getcwd(),
        "stdlib": [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")],
        "user_site_off": bool(sys.flags.no_user_site),
        "files": sorted(file for file in files if isinstance(file, str) and os.path.isabs(file)),
    }
    folder = os.path.join(sys.prefix, "processes")
    os.makedirs(folder, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".json", delete=False) as file:
        json.dump(content, file)


atexit.register(record)
