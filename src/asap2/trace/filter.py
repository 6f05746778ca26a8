# SPDX-License-Identifier: Apache-2.0
"""Filters of packets in the words of pcap-filter(7), compiled and run by libpcap, which comes with tcpdump."""

from __future__ import annotations

import ctypes
import functools
from typing import Final

from asap2.errors import Asap2Error, UsageError

_ETHERNET: Final = 1
"""DLT_EN10MB."""
_SNAP: Final = 262144


class _Program(ctypes.Structure):
    """``struct bpf_program``."""

    _fields_ = [("bf_len", ctypes.c_uint), ("bf_insns", ctypes.c_void_p)]


class _Header(ctypes.Structure):
    """``struct pcap_pkthdr``."""

    _fields_ = [("seconds", ctypes.c_long), ("micros", ctypes.c_long), ("kept", ctypes.c_uint), ("len", ctypes.c_uint)]


@functools.cache
def _libpcap() -> ctypes.CDLL:
    for name in ("libpcap.so.0.8", "libpcap.so.1"):
        try:
            lib = ctypes.CDLL(name)
        except OSError:
            continue
        lib.pcap_open_dead.restype = ctypes.c_void_p
        lib.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        lib.pcap_compile.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint]
        lib.pcap_geterr.restype = ctypes.c_char_p
        lib.pcap_geterr.argtypes = [ctypes.c_void_p]
        lib.pcap_offline_filter.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p]
        return lib
    raise Asap2Error("a filter needs libpcap; `apt install libpcap0.8`, or tcpdump, which brings it")


class Filter:
    """The packets that *text* describes."""

    def __init__(self, text: str) -> None:
        """UsageError where libpcap does not understand *text*."""
        self._lib = lib = _libpcap()
        self._handle = lib.pcap_open_dead(_ETHERNET, _SNAP)
        self._program = _Program()
        if lib.pcap_compile(self._handle, ctypes.byref(self._program), text.encode(), 1, 0xFFFF_FFFF):
            why = lib.pcap_geterr(self._handle).decode(errors="replace")
            raise UsageError(f"{text!r} is no filter: {why}; `man pcap-filter` has them")

    def takes(self, frame: bytes, length: int | None = None) -> bool:
        """Whether a packet, of *length* octets if it is not all there, is one of them."""
        header = _Header(0, 0, len(frame), length or len(frame))
        return bool(self._lib.pcap_offline_filter(ctypes.byref(self._program), ctypes.byref(header), frame))
