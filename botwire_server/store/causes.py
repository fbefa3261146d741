"""Why the system or SQLite said no, in words for the person who can do something about it.

One table for each. What is not in it is told by its name, never by an exception's text.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple


class Cause(NamedTuple):
    """What is so, as the middle of a sentence, and what helps, as the end of one."""

    says: str
    remedy: str


_RIGHTS = "run this as the user that owns it, or give this user the right"
_ROOM = "make room there"
_SYSTEM_LOG = "look at the system's log (dmesg): the disk may be failing"
_DESCRIPTORS = "raise the limit (ulimit -n, LimitNOFILE= in a unit)"

_SYSTEM: dict[int, Cause] = {
    errno.EACCES: Cause("this user may not", _RIGHTS),
    errno.EPERM: Cause(
        "the system does not let this user",
        "see whose it is (ls -ld) and whether it is immutable (lsattr), and run this as its owner",
    ),
    errno.ENOSPC: Cause("there is no room left on its disk", _ROOM),
    errno.EDQUOT: Cause("this user's share of its disk is used up", f"{_ROOM}, or raise the quota"),
    errno.EFBIG: Cause(
        "the file would be larger than the system allows", "raise the limit (ulimit -f)"
    ),
    errno.EROFS: Cause(
        "it is mounted read-only",
        "mount it for writing; a disk that fails is often mounted so by the system (dmesg)",
    ),
    errno.EIO: Cause("its disk failed", _SYSTEM_LOG),
    errno.EMFILE: Cause("this process has too many files open", _DESCRIPTORS),
    errno.ENFILE: Cause("this machine has too many files open", "raise fs.file-max, or end others"),
    errno.ENOMEM: Cause("there is no memory left", "give this process more memory"),
    errno.ENOLCK: Cause("its file system gives no locks", "put the data directory on a local disk"),
    errno.ENOENT: Cause("it is not there", "name another, or put it back"),
    errno.ENOTDIR: Cause("a part of it is no directory", "name another"),
    errno.EISDIR: Cause("it is a directory", "name a file"),
    errno.EEXIST: Cause("it is there already", "name another, or move it away"),
    errno.ENOTEMPTY: Cause("it is not empty", "look at what is in it, and move that away"),
    errno.EBUSY: Cause("it is a mount, or in use", "unmount it, or end what uses it"),
    errno.EXDEV: Cause("it lies on another file system", "put both on one"),
    errno.ELOOP: Cause("it is a link that leads nowhere", "name what it should lead to"),
    errno.ENAMETOOLONG: Cause("its name is too long", "name one that is shorter"),
    errno.EINTR: Cause("it was interrupted", "try again"),
    errno.ESTALE: Cause("it is gone from its network file system", "mount it anew"),
    errno.ENODEV: Cause("its device is gone", "mount it anew"),
    errno.ENXIO: Cause("its device is gone", "mount it anew"),
    errno.ENOTCONN: Cause("its file system is not connected", "mount it anew"),
    errno.ENOTSUP: Cause("its file system cannot do that", "put it on a local disk"),
    errno.EINVAL: Cause("its file system cannot do that", "put it on a local disk"),
}

# By primary result code; https://www.sqlite.org/rescode.html.
_SQLITE: dict[int, Cause] = {
    3: Cause("this user may not", _RIGHTS),
    5: Cause("another process holds it for too long", "end that, or try again"),
    6: Cause("another process holds it for too long", "end that, or try again"),
    7: Cause("there is no memory left", "give this process more memory"),
    8: Cause("this user may only read it", _RIGHTS),
    10: Cause("its disk failed", _SYSTEM_LOG),
    11: Cause("it is damaged", "restore it from a backup"),
    13: Cause("there is no room left on its disk", _ROOM),
    14: Cause(
        "it, or its journal beside it, cannot be opened",
        "see that it is there, that this user may read and write it and its directory, that there "
        f"is room, and that not too many files are open; {_SYSTEM_LOG}",
    ),
    15: Cause("its file system gives no locks", "put the data directory on a local disk"),
    22: Cause("its file system cannot hold files so large", "put it on a local disk"),
    26: Cause("it is no database", "restore it from a backup"),
}


def of(error: BaseException) -> Cause:
    """The cause of an error of the file system or of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        name = getattr(error, "sqlite_errorname", None) or f"code {code}"
        return _SQLITE.get(code & 0xFF, Cause(f"SQLite says {name}", _SYSTEM_LOG))
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return Cause(f"it failed ({type(error).__name__})", _SYSTEM_LOG)
    return _SYSTEM.get(number, Cause(f"the system says: {os.strerror(number)}", _SYSTEM_LOG))


def told(what: str, error: BaseException) -> str:
    """A sentence: what could not be done, why, and what helps.

    >>> told("/data/lock cannot be made", OSError(errno.ENOSPC, ""))
    '/data/lock cannot be made: there is no room left on its disk. To go on, make room there.'
    """
    says, remedy = of(error)
    return f"{what}: {says}. To go on, {remedy}."
