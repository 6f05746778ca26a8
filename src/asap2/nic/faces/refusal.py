# SPDX-License-Identifier: Apache-2.0
"""The driver's errors as netlink answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from asap2.netlink.wire import NetlinkError
from asap2.nic.device import DriverError


@contextlib.contextmanager
def as_netlink() -> Iterator[None]:
    """An OSError in the block becomes the :class:`NetlinkError` that says the same: a driver's text goes into the
    extended acknowledgement, and what has none is a bare errno."""
    try:
        yield
    except NetlinkError:
        raise
    except DriverError as error:
        raise NetlinkError(error.errno or 0, error.text, at_start=True) from None
    except OSError as error:
        raise NetlinkError(error.errno or 0, at_start=True) from None
