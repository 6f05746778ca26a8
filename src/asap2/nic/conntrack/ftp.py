# SPDX-License-Identifier: Apache-2.0
"""What an end of an FTP connection announces: the address and port of a data connection.

The commands PORT and EPRT (RFC 959, RFC 2428) and the replies 227 and 229, read as nf_conntrack_ftp.c reads them, which
takes much that the RFCs do not allow, and drops a packet in which such a line is not complete.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from asap2.nic.conntrack.tcp import after, before

_LINES_KNOWN: Final = 2
"""Ends of lines that are remembered of each direction (NUM_SEQ_TO_REMEMBER)."""
_SEQUENCE: Final = 1 << 32
_LEAST_DELIMITER, _GREATEST_DELIMITER = 33, 126
_NO_DELIMITER: Final = b"0123456789"


class IncompleteError(ValueError):
    """Raised for a line that begins as an announcement does and is none: the packet has to be dropped."""


class NoPortError(IncompleteError):
    """Raised where NAT finds no port for an announcement, whose line has been read all the same."""


class Announced(NamedTuple):
    """An *address* (``None``: the sender's own) and *port*, and their place in the data."""

    form: str
    address: bytes | None
    port: int
    start: int
    end: int


class _Numbers(NamedTuple):
    address: bytes | None
    port: int
    start: int
    length: int


@dataclass(slots=True)
class Lines:
    """Where lines of either direction begin: 0 original, 1 reply. An announcement is read only at the start of a line.

    With *picked_up*, lines before the first packet have not been seen, and it is taken for the start of a line.
    """

    picked_up: list[bool] = field(default_factory=lambda: [False, False])
    _begin: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))

    def begins(self, way: int, sequence: int) -> bool:
        """Whether data of this *sequence* number is the start of a line (find_nl_seq())."""
        if sequence in self._begin[way]:
            return True
        begun, self.picked_up[way] = self.picked_up[way], False
        return begun

    def ended(self, way: int, sequence: int | None) -> None:
        """A line has ended before this *sequence* number; ``None``: it has not (update_nl_seq())."""
        if sequence is None:
            return
        sequence %= _SEQUENCE
        known = self._begin[way]
        if sequence in known:
            return
        if len(known) < _LINES_KNOWN:
            known.append(sequence)
            return
        oldest = 0 if before(*known) else 1
        if after(sequence, known[oldest]):
            known[oldest] = sequence


def announced(data: bytes, way: int, *, ipv4: bool) -> Announced | None:
    """What a line in direction *way* announces over IPv4, or else IPv6; ``None``: nothing.

    Raises:
        IncompleteError: the packet has to be dropped.
    """
    for form, skipped, read in _FORMS[way]:
        pattern = form.encode()
        if not data or data[: len(pattern)].upper() != pattern[: len(data)]:
            continue
        if len(data) <= len(pattern):
            raise IncompleteError(form)
        at = len(pattern)
        if skipped:
            at = data.find(skipped, at) + 1
            if not at:
                raise IncompleteError(form)
        found = read(data[at:], ipv4)
        if found is None:
            raise IncompleteError(form)
        start = at + found.start
        return Announced(form.strip(), found.address, found.port, start, start + found.length)
    return None


def _numbers(data: bytes, count: int, separator: bytes, terminator: bytes) -> tuple[list[int], int] | None:
    """So many decimal numbers, each of 32 bits, and their length; any other octet ends them if *terminator* is empty
    (try_number())."""
    found = [0]
    for at in range(len(data)):
        octet = data[at : at + 1]
        if octet.isdigit():
            found[-1] = (found[-1] * 10 + int(octet)) % _SEQUENCE
        elif octet == separator:
            found.append(0)
            if len(found) > count:
                return None
        elif len(found) == count and octet == (terminator or octet):
            return (found, at) if at else None
        else:
            return None
    return None


def _ipv4(numbers: list[int]) -> bytes:
    """An address of four numbers, which may be too large (their bits run together)."""
    value = 0
    for number, shift in zip(numbers, (24, 16, 8, 0), strict=False):
        value |= number << shift
    return (value % _SEQUENCE).to_bytes(4, "big")


def _rfc959(data: bytes, _ipv4_only: bool, terminator: bytes = b"\r") -> _Numbers | None:
    found = _numbers(data, 6, b",", terminator)
    if found is None:
        return None
    numbers, length = found
    return _Numbers(_ipv4(numbers), (numbers[4] << 8 | numbers[5]) & 0xFFFF, 0, length)


def _rfc1123(data: bytes, ipv4: bool) -> _Numbers | None:
    """The same behind any text without digits, ended by anything."""
    start = next((at for at, octet in enumerate(data) if octet in _NO_DELIMITER), None)
    found = None if start is None else _rfc959(data[start:], ipv4, b"")
    return None if found is None or start is None else found._replace(start=start)


def _delimiter(data: bytes, places: tuple[int, ...]) -> bytes | None:
    """The octet with which *data* begins, if it may be a delimiter and is at these *places*, too."""
    found = data[:1]
    if len(data) <= 3 or found in _NO_DELIMITER or not _LEAST_DELIMITER <= data[0] <= _GREATEST_DELIMITER:
        return None
    return found if all(data[place : place + 1] == found for place in places) else None


def _port(data: bytes, start: int, delimiter: bytes) -> tuple[int, int] | None:
    """A port other than 0 from *start* to a delimiter, and the place behind that (get_port())."""
    end = data.find(delimiter, start)
    text = data[start:end]
    if end < 0 or (text and not text.isdigit()):
        return None
    port = int(text or b"0") & 0xFFFF
    return (port, end + 1) if port else None


def _extended(data: bytes, ipv4: bool) -> _Numbers | None:
    """``|1|10.0.0.1|4660|`` or ``|2|fd00::1|4660|``, with any delimiter (try_eprt())."""
    delimiter = _delimiter(data, (2,))
    if delimiter is None or data[1:2] != (b"1" if ipv4 else b"2"):
        return None
    if ipv4:
        found = _numbers(data[3:], 4, b".", delimiter)
        if found is None:
            return None
        address, length = _ipv4(found[0]), found[1]
    else:
        length = data[3:].find(delimiter)
        try:
            address = ipaddress.IPv6Address(data[3 : 3 + max(length, 0)].decode("ascii")).packed
        except ValueError:
            return None
    port = _port(data, 3 + length + 1, delimiter)
    return None if port is None else _Numbers(address, port[0], 0, port[1])


def _extended_passive(data: bytes, _ipv4_only: bool) -> _Numbers | None:
    """``|||4660|``, with any delimiter (try_epsv_response())."""
    delimiter = _delimiter(data, (1, 2))
    port = None if delimiter is None else _port(data, 3, delimiter)
    return None if port is None else _Numbers(None, port[0], 0, port[1])


_Read = Callable[[bytes, bool], _Numbers | None]
_FORMS: Final[tuple[tuple[tuple[str, bytes, _Read], ...], ...]] = (
    (("PORT", b" ", _rfc959), ("EPRT", b" ", _extended)),
    (("227 ", b"", _rfc1123), ("229 ", b"(", _extended_passive)),
)
"""What lines of each direction begin with, the octet behind which the numbers begin, and how to read them."""
