# SPDX-License-Identifier: Apache-2.0
"""What the server says to multicast groups of the kernel's own."""

from __future__ import annotations

import subprocess
import sys

from tests.system.patience import PATIENCE

SCRIPT = """
import socket, struct
from pathlib import Path
from asap2.netlink.namespaces import Namespace, own_namespace_fd
from asap2.netlink.wire import build

listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
listener.bind((0, 1 << 7))
namespace = Namespace(1, own_namespace_fd())
up = struct.pack("=BBHiII", 0, 0, 0, socket.if_nametoindex("lo"), 1, 1)
message = build(19, 5, 7, 0, up)  # RTM_SETLINK, "up", with NLM_F_REQUEST and NLM_F_ACK
for _ in range(300):
    namespace.multicast(0, 8, message)
    assert listener.recv(1 << 16) == message
print(Path("/sys/class/net/lo/flags").read_text().strip(), end=" ")
print(max(int(line.split()[4]) for line in open("/proc/net/netlink") if f" {0x41534132} " in line))
"""


def test_a_notification_is_heard_and_is_no_request_to_the_kernel() -> None:
    mount = 'mount -t sysfs sysfs /sys && exec "$@"'
    command = ["unshare", "--net", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("0x8 0\n", "")  # lo is as it was: not up; and nothing waits to be read
