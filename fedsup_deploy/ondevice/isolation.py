"""The start of `run.py`: what lies beside it must not be taken for a library.

It stands before any import of the packed file, even that of `__future__`. `sys` is a part of Python itself, so no file
can stand for it. Imported as a module it does nothing.
"""

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", sys.flags.isolated):
    sys.path[:] = [entry for entry in sys.path if entry not in ("", sys.path[0])]
