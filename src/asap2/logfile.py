# SPDX-License-Identifier: Apache-2.0
"""Log files that stay short."""

from __future__ import annotations

import os
import stat


def shorten(descriptor: int, most: int) -> None:
    """Remove the older part of the file open at *descriptor* for appending when it has more than *most* octets; half
    of that many stay. OSError."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size <= most:
        return
    reading = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kept = os.pread(reading, most // 2, status.st_size - most // 2)
    finally:
        os.close(reading)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, kept[kept.find(b"\n") + 1 :])
