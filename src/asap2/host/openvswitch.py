# SPDX-License-Identifier: Apache-2.0
"""Open vSwitch: its database read by OVSDB's protocol (RFC 7047), its switch asked by unixctl; changed by ovs-vsctl.

What is read comes as :class:`asap2.host.inventory.OpenVSwitch`.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import struct
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ovs.jsonrpc
import ovs.poller
import ovs.stream

from asap2.host import switch_log
from asap2.host.inventory import SECURE, Bridge, DatapathPort, Interface, OpenVSwitch, Pairs, Port, Remote
from asap2.netlink.client import Connection, genl_family
from asap2.netlink.tables.ovs import DATAPATH, OVS_DP_CMD_GET, OvsHeader
from asap2.netlink.wire import NETLINK_GENERIC, NLM_F_DUMP, NetlinkError

DATABASE = "Open_vSwitch"
TABLES = ("Open_vSwitch", "Bridge", "Port", "Interface", "Controller", "Manager")
SERVICES = ("openvswitch-switch", "openvswitch")
"""What distributions call the service: Debian's name, then Red Hat's."""
UNIT_DIRECTORIES = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
SERVER, SWITCH = "ovsdb-server", "ovs-vswitchd"
OPENFLOW_PRIORITY = 65535
"""The highest that an OpenFlow rule can have."""
PATIENCE = 30.0
"""Seconds that an answer may take; the switch needs some to print a great many flows."""
VSCTL_TIMEOUT = 20
"""Seconds that ovs-vsctl waits for the switch to do what the database says."""
OPTIONS = (
    "bundle-idle-timeout",
    "emc-insert-inv-prob",
    "flow-limit",
    "hw-offload",
    "max-idle",
    "max-revalidator",
    "min-revalidate-pps",
    "n-handler-threads",
    "n-offload-threads",
    "n-revalidator-threads",
    "offload-rebalance",
    "tc-policy",
    "vlan-limit",
)
"""The keys of Open_vSwitch.other_config that are read: those of the datapath (ovs-vswitchd.conf.db(5))."""
EXTERNAL_IDS = ("attached-mac", "iface-id", "iface-status", "ovn-installed", "vm-id", "vm-uuid")
"""The keys of Interface.external_ids that are read: who is behind the port."""
INTERFACE_OPTIONS = ("df_default", "dst_port", "exts", "key", "local_ip", "peer", "remote_ip", "tos", "ttl")
"""The keys of Interface.options that are read: a tunnel's shape, and no secret (psk and certificates are left out)."""


class SwitchError(Exception):
    """The database or the switch did not answer, or refused; the text says what."""


class SilentError(SwitchError):
    """A daemon runs, and gave no answer within :data:`PATIENCE`."""

    def __init__(self, daemon: str) -> None:
        super().__init__(f"{daemon} did not answer within {PATIENCE:g} s")
        self.daemon = daemon


def run_directory() -> Path:
    """Where the sockets are."""
    return Path(os.environ.get("OVS_RUNDIR", "/var/run/openvswitch"))


def transact(
    remote: str, daemon: str, method: str, parameters: list[Any], patience: float | None = None
) -> tuple[int, Any]:
    """Call *method* by JSON-RPC at *remote* (``unix:PATH``, ``tcp:ADDRESS:PORT``) of *daemon*: an error number, or 0
    and the reply. SilentError when it takes longer than *patience* seconds (:data:`PATIENCE` if none are given)."""
    patience = PATIENCE if patience is None else patience
    end = time.monotonic() + patience
    error, stream = ovs.stream.Stream.open_block(ovs.stream.Stream.open(remote), int(patience * 1000))
    if error:
        return error, None
    connection = ovs.jsonrpc.Connection(stream)
    try:
        request = ovs.jsonrpc.Message.create_request(method, parameters)
        error, reply = connection.send(request), None
        while not error and (reply is None or reply.id != request.id):
            error, reply = connection.recv()
            if error != errno.EAGAIN:
                continue
            error = 0
            left = end - time.monotonic()
            if left <= 0:
                raise SilentError(daemon)
            connection.run()
            poller = ovs.poller.Poller()
            connection.wait(poller)
            connection.recv_wait(poller)
            poller.timer_wait(int(left * 1000) + 1)
            poller.block()
        return error, reply
    finally:
        connection.close()


# ---- the database


def read_tables() -> dict[str, list[dict[str, Any]]] | None:
    """The rows of :data:`TABLES`; None when no database server runs. SilentError."""
    path = run_directory() / "db.sock"
    if not path.exists():
        return None
    selects = [{"op": "select", "table": table, "where": []} for table in TABLES]
    error, reply = transact(f"unix:{path}", SERVER, "transact", [DATABASE, *selects])
    if error or reply.error is not None:
        return None
    return {table: result["rows"] for table, result in zip(TABLES, reply.result, strict=True)}


def value(column: Any) -> Any:
    """A column as plain Python: a set as a list, a map as a dict, a UUID as its text (RFC 7047, section 5.1)."""
    if isinstance(column, list) and len(column) == 2:
        kind, content = column
        if kind == "set":
            return [value(item) for item in content]
        if kind == "map":
            return {value(key): value(item) for key, item in content}
        if kind in ("uuid", "named-uuid"):
            return str(content)
    return column


def _many(column: Any) -> list[Any]:
    found = value(column)
    return found if isinstance(found, list) else [found]


def _one(column: Any) -> Any:
    return next(iter(_many(column)), None)


def _pairs(column: Any, keys: Iterable[str]) -> Pairs:
    found = value(column)
    return tuple((key, str(found[key])) for key in sorted(keys) if key in found)


def remote(row: dict[str, Any]) -> Remote:
    """A row of Controller or Manager."""
    status = value(row["status"])
    seconds = str(status.get("sec_since_disconnect", ""))
    return Remote(
        target=row["target"],
        connected=row["is_connected"],
        state=status.get("state"),
        last_error=status.get("last_error"),
        seconds=int(seconds) if seconds.isdecimal() else None,
    )


def bridges(tables: dict[str, list[dict[str, Any]]]) -> tuple[Bridge, ...]:
    """The bridges in rows of the database, by name, as are their ports."""
    rows = {row["_uuid"][1]: row for table in TABLES for row in tables.get(table, [])}

    def interface(row: dict[str, Any]) -> Interface:
        return Interface(
            name=row["name"],
            type=row["type"],
            error=_one(row["error"]),
            ofport=_one(row["ofport"]),
            options=_pairs(row["options"], INTERFACE_OPTIONS),
            external_ids=_pairs(row["external_ids"], EXTERNAL_IDS),
        )

    def port(row: dict[str, Any]) -> Port:
        below = sorted((rows[uuid] for uuid in _many(row["interfaces"]) if uuid in rows), key=lambda one: one["name"])
        return Port(row["name"], _one(row["tag"]), _one(row["vlan_mode"]), tuple(map(interface, below)))

    def bridge(row: dict[str, Any]) -> Bridge:
        below = sorted((rows[uuid] for uuid in _many(row["ports"]) if uuid in rows), key=lambda one: one["name"])
        return Bridge(
            name=row["name"],
            datapath_type=row["datapath_type"],
            ports=tuple(map(port, below)),
            fail_mode=_one(row["fail_mode"]),
            controllers=tuple(remote(rows[uuid]) for uuid in _many(row["controller"]) if uuid in rows),
        )

    return tuple(bridge(row) for row in sorted(tables["Bridge"], key=lambda one: one["name"]))


# ---- the switch


def switch_pid() -> int | None:
    """The switch's process id while it runs."""
    try:
        pid = int((run_directory() / f"{SWITCH}.pid").read_text())
        return pid if Path(f"/proc/{pid}/comm").read_text().strip() == SWITCH else None
    except (OSError, ValueError):
        return None


def ask(command: str, *arguments: str) -> str:
    """What the switch answers to ``ovs-appctl COMMAND ARGUMENTS``; SwitchError when it does not run or refuses."""
    pid = switch_pid()
    if pid is None:
        raise SwitchError("ovs-vswitchd is not running")
    error, reply = transact(f"unix:{run_directory() / f'{SWITCH}.{pid}.ctl'}", SWITCH, command, list(arguments))
    if error:
        why = os.strerror(error) if error > 0 else "it closed the connection"
        raise SwitchError(f"ovs-vswitchd does not answer {command}: {why}")
    if reply.error is not None:
        raise SwitchError(f"ovs-vswitchd refused {command}: {str(reply.error).strip()}")
    return str(reply.result)


def upcall_figures(text: str) -> tuple[int, int | None]:
    """The flows in the software datapath and those offloaded that ``upcall/show`` printed, of all datapaths."""
    flows = sum(int(number) for number in re.findall(r"flows\s+: \(current (\d+)\)", text))
    offloaded = [int(number) for number in re.findall(r"offloaded flows : (\d+)", text)]
    return flows, sum(offloaded) if offloaded else None


def lookups(text: str) -> tuple[int, int, int] | None:
    """Hit, missed and lost lookups that ``dpctl/show`` printed, of all datapaths."""
    found = [tuple(map(int, one)) for one in re.findall(r"lookups: hit:(\d+) missed:(\d+) lost:(\d+)", text)]
    return (sum(one[0] for one in found), sum(one[1] for one in found), sum(one[2] for one in found)) if found else None


def datapath_ports(text: str) -> tuple[DatapathPort, ...]:
    """The ports of the kernel's datapath that ``dpctl/show`` printed."""
    found, system = [], False
    for line in text.splitlines():
        if not line.startswith(" "):
            system = line.startswith("system@")
        port = re.fullmatch(r"\s+port (\d+): (\S+)(?: \((\w+).*\))?", line)
        if port and system:
            found.append(DatapathPort(int(port[1]), port[2], port[3] or ""))
    return tuple(found)


def flow_limit(text: str) -> int | None:
    """The smallest limit of flows that ``upcall/show`` printed."""
    found = [int(number) for number in re.findall(r"\(limit (\d+)\)", text)]
    return min(found) if found else None


def datapaths() -> tuple[str, ...]:
    """The names of the datapaths, as "system@ovs-system"; SwitchError when the switch refuses."""
    return tuple(ask("dpctl/dump-dps").split())


def dump_flows(of: Sequence[str] | None = None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The flows of the kernel's datapaths, and of userspace ones, as lines; *of* names the datapaths, if they are
    known. SwitchError when the switch refuses."""
    kernel: list[str] = []
    userspace: list[str] = []
    for datapath in datapaths() if of is None else of:
        lines = kernel if datapath.startswith("system@") else userspace
        dumped = ask("dpctl/dump-flows", "-m", datapath).splitlines()
        lines += [line for line in dumped if "actions:" in line]
    return tuple(kernel), tuple(userspace)


_GENL = struct.Struct("=BBH")


def datapath_features() -> int | None:
    """The features (OVS_DP_F_*) of the kernel's datapath; None where it has none, or does not tell."""
    try:
        with Connection(NETLINK_GENERIC) as generic:
            family = genl_family(generic, "ovs_datapath")
            if family is None:
                return None
            request = _GENL.pack(OVS_DP_CMD_GET, 2, 0) + DATAPATH.encode(OvsHeader(0), {})
            for message in generic.request(family.id, NLM_F_DUMP, request):
                found = DATAPATH.decode(message.payload[_GENL.size :])[1].get("user_features")
                return None if found is None else int(found)
    except NetlinkError:
        pass
    return None


def openflow_figures(text: str) -> tuple[int, int]:
    """How many OpenFlow rules ``bridge/dump-flows`` printed, without those that Open vSwitch makes for itself (in table
    254, or of priorities beyond OpenFlow's), and how many use connection tracking."""
    lines = [line for line in text.splitlines() if "actions=" in line and not _hidden(line)]
    return len(lines), sum(1 for line in lines if "ct(" in line or "ct_state=" in line)


def _hidden(line: str) -> bool:
    priority = re.search(r"\bpriority=(\d+)", line)
    return "table_id=254," in line or bool(priority and int(priority[1]) > OPENFLOW_PRIORITY)


# ---- both


def service() -> str | None:
    """The service that runs Open vSwitch here, None when systemd has none."""
    for name in SERVICES:
        if any(os.path.lexists(f"{directory}/{name}.service") for directory in UNIT_DIRECTORIES):
            return name
    return None


def installed_version() -> str | None:
    """The version of the installed switch, running or not; None when there is none."""
    try:
        done = subprocess.run([SWITCH, "--version"], capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(r"(\d+\.\d+[\w.\-]*)\s*$", done.stdout.splitlines()[0] if done.stdout else "")
    return found[1] if found else None


def observe(*, full: bool = False, openflow: bool = True) -> OpenVSwitch:
    """The state now: with *full* the datapath's flows too, with *openflow* the bridges' rules counted, with either the
    log, and the rules of bridges that drop what no rule is for."""
    silent = None
    try:
        tables = read_tables()
    except SilentError as error:
        tables, silent = None, error.daemon
    if tables is None:
        return OpenVSwitch(installed=installed_version(), service=service(), silent=silent)
    root = next(iter(tables["Open_vSwitch"]), {})
    ids = value(root.get("external_ids", ["map", []]))
    version = _one(root.get("ovs_version", ""))
    found = bridges(tables)
    running = switch_pid() is not None
    flows: tuple[int, int | None] = (0, None)
    counted: tuple[int, int, int] | None = None
    lines: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    ports: tuple[DatapathPort, ...] = ()
    limit: int | None = None
    if running:
        try:
            upcalls, datapaths = ask("upcall/show"), ask("dpctl/show")
            flows, limit = upcall_figures(upcalls), flow_limit(upcalls)
            counted, ports = lookups(datapaths), datapath_ports(datapaths)
            found = tuple(
                _with_figures(bridge) if openflow or (full and bridge.fail_mode == SECURE) else bridge
                for bridge in found
            )
            if full:
                lines = dump_flows()
        except SilentError as error:
            running, silent = False, error.daemon
        except SwitchError:
            running = switch_pid() is not None
    return OpenVSwitch(
        installed=version or installed_version(),
        database=True,
        running=running,
        version=version,
        other_config=_pairs(root.get("other_config", ["map", []]), OPTIONS),
        bridges=found,
        flows=flows[0] if running else None,
        offloaded_flows=flows[1],
        lookups=counted,
        service=service(),
        datapath_flows=lines[0],
        userspace_flows=lines[1],
        datapath_ports=ports,
        datapath_features=datapath_features() if full else None,
        flow_limit=limit,
        log=switch_log.relevant(switch_pid()) if full or openflow else (),
        managers=tuple(map(remote, tables["Manager"])),
        silent=silent,
        ovn_remote=ids.get("ovn-remote"),
    )


def _with_figures(bridge: Bridge) -> Bridge:
    flows, ct_flows = openflow_figures(ask("bridge/dump-flows", bridge.name))
    return dataclasses.replace(bridge, flows=flows, ct_flows=ct_flows)


def vsctl(*arguments: str) -> str:
    """Run ovs-vsctl, which waits until the switch has done it; SwitchError with its words when it fails."""
    command = ["ovs-vsctl", f"--timeout={VSCTL_TIMEOUT}", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SwitchError(f"ovs-vsctl cannot be run: {error.strerror}") from None
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise SwitchError(words.removeprefix("ovs-vsctl: "))
    return done.stdout


def systemctl(verb: str, unit: str) -> None:
    """Run ``systemctl VERB UNIT``; SwitchError with its words when it fails."""
    try:
        done = subprocess.run(["systemctl", verb, f"{unit}.service"], capture_output=True, text=True)
    except OSError as error:
        raise SwitchError(f"systemctl cannot be run: {error.strerror}") from None
    if done.returncode:
        words = " ".join((done.stderr + done.stdout).split()) or f"exit status {done.returncode}"
        raise SwitchError(words)
