"""Run `klarsicht` as if this were no Linux and no other POSIX system.

python elsewhere.py ARGUMENTS: fcntl and resource cannot be imported, nothing is found in /proc, a folder cannot be
opened to be synced, and files are locked by a stand-in for Windows' msvcrt, made of lockf.
"""

import builtins
import ctypes
import errno
import io
import os
import stat
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

HIDDEN = {"fcntl", "resource", "pwd", "grp", "termios"}
F_TLOCK = 2


class Hiding(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def locking(descriptor, mode, count):
    """Lock bytes from the position on, as msvcrt does; of the process, and given back when it ends."""
    if ctypes.CDLL(None, use_errno=True).lockf(descriptor, F_TLOCK, ctypes.c_long(count)) != 0:
        raise OSError(errno.EACCES, "Permission denied")


def hide():
    for name in HIDDEN & set(sys.modules):
        del sys.modules[name]
    sys.meta_path.insert(0, Hiding())
    windows = ModuleType("msvcrt")
    windows.locking, windows.LK_NBLCK = locking, 2
    there, opened, handle, imported = io.open, os.open, os.fsync, builtins.__import__

    def windows_for_us(name, here=None, *args, **kwargs):  # the standard library would take this for Windows throughout
        ours = name == "msvcrt" and (here or {}).get("__name__", "").startswith("klarsicht")
        return windows if ours else imported(name, here, *args, **kwargs)

    def proc_is_absent(file, *args, **kwargs):
        if str(file).startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, "No such file", str(file))
        return there(file, *args, **kwargs)

    def no_folders(path, flags, *args, **kwargs):
        ours = sys._getframe(1).f_globals["__name__"].startswith("klarsicht")  # shutil has another way on Windows
        if ours and Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *args, **kwargs)

    def writable_only(descriptor):
        flags = ctypes.CDLL(None).fcntl(descriptor, 3)
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and flags & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return handle(descriptor)

    builtins.__import__ = windows_for_us
    io.open, os.open, os.fsync = proc_is_absent, no_folders, writable_only


if __name__ == "__main__":
    hide()
    from klarsicht.cli.app import run

    sys.exit(run(sys.argv[1:]))
