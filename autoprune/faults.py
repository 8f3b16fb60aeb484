"""Tells exceptions that are no fault of ours from those that are."""

import errno

from autoprune import usercode

USERS_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def outside_fault(error: Exception) -> str | None:
    """What to tell of an exception that is no fault of ours: a disk, a device's memory, the user's own code."""
    if isinstance(error, OSError) and (error.errno in USERS_ERRNO or error.filename):
        return f"{error.strerror}: '{error.filename}'" if error.filename else f"{error.strerror}."
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        way = "--batch 1, a smaller --state-memory, a shorter --sequence-length or another --device"
        return f"{str(error).splitlines()[0]} Try {way}."
    return usercode.blamed(error)
