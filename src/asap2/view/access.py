# SPDX-License-Identifier: Apache-2.0
"""Who may see the picture: the address to listen at, the Host header, the token.

A page of another site can make a browser send requests to a server on loopback, under a name that the site has resolve
to 127.0.0.1 (DNS rebinding). So a request must name the server by a literal address or by the name that it listens at.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass

from asap2.errors import UsageError

LOCAL_NAMES = frozenset({"localhost"})
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\[\]:@/\s]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Access:
    """What a server at ``address`` (as the user gave it) lets in; ``token`` is None on loopback, which needs none."""

    address: str
    loopback: bool
    token: str | None

    def host_allowed(self, header: str | None) -> bool:
        """Whether a request with this Host header (RFC 9110, section 7.2) is meant for this server."""
        found = _HOST.fullmatch(header or "")
        if found is None:
            return False
        name = found["name"].strip("[]").lower().rstrip(".")
        literal = _literal(name)
        if literal is not None:
            return literal.is_loopback or not self.loopback
        return name in LOCAL_NAMES or (
            not self.loopback and name in (self.address.lower(), socket.gethostname().lower())
        )

    def origin_allowed(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of *origin* may open a WebSocket to *host*: its own page, or a program that is no browser."""
        return origin is None or origin in (f"http://{host}", f"https://{host}")

    def token_allowed(self, token: object) -> bool:
        """Whether *token* is the right one, in a time that does not tell how much of it is right."""
        if self.token is None:
            return True
        return isinstance(token, str) and hmac.compare_digest(token.encode(errors="replace"), self.token.encode())

    def url(self, port: int) -> str:
        """Where a person opens the page. The token is in the fragment, which no browser sends to a server."""
        literal = _literal(self.address)
        host = self.address
        if literal is not None and literal.is_unspecified:
            host = socket.gethostname()
        elif literal is not None and literal.version == 6:
            host = f"[{self.address}]"
        return f"http://{host}:{port}/" + (f"#token={self.token}" if self.token is not None else "")


def access(address: str) -> Access:
    """The access of a server that listens at *address*, an address or a name of this machine; a new token for it,
    unless it is loopback. UsageError when it cannot be resolved."""
    try:
        found = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM) if address else []
    except (OSError, ValueError):
        found = []
    if not found:
        raise UsageError(f"{address!r} is no address of this machine; --listen takes one, as 127.0.0.1") from None
    loopback = all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)
    return Access(address, loopback, None if loopback else secrets.token_urlsafe(24))


def _literal(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
