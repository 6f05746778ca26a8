# SPDX-License-Identifier: Apache-2.0
"""Numbers and flags in the text that a program writes to sysfs, read as the kernel reads them (lib/kstrtox.c)."""

from __future__ import annotations

import errno
import os
import re

_INTEGER = re.compile(rb"\+?(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))\n?\Z")
_TRUE, _FALSE = b"yYtT1", b"nNfF0"


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def line(data: bytes) -> str:
    """*data* up to a NUL and without one newline at its end (sysfs_streq)."""
    text = data.split(b"\0", 1)[0]
    return text.removesuffix(b"\n").decode(errors="surrogateescape")


def unsigned(data: bytes, bits: int = 64) -> int:
    """kstrtouN(buf, 0): decimal, 0x hexadecimal or 0 octal. EINVAL for other text, ERANGE beyond *bits*."""
    match = _INTEGER.match(data.split(b"\0", 1)[0])
    if match is None:
        raise _error(errno.EINVAL)
    hexadecimal, octal, decimal = match.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else int(decimal)
    if value >> bits:
        raise _error(errno.ERANGE)
    return value


def boolean(data: bytes) -> bool:
    """kstrtobool(): by the first letter (y, n, t, f, 1, 0), or the first two of "on" and "off"; else EINVAL."""
    first, both = data[:1], data[:2].lower()
    if first and (first in _TRUE or both == b"on"):
        return True
    if first and (first in _FALSE or both == b"of"):
        return False
    raise _error(errno.EINVAL)
