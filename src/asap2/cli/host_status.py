# SPDX-License-Identifier: Apache-2.0
"""``asap2 host status [--watch] [--json] [--from FILE] [PF…]``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.cli.host_subject import AsJson, From, Pfs, subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from asap2.host.connections import Connections
    from asap2.host.status import Status, VfStatus
    from asap2.screen import Group, Screen, Text

app = typer.Typer()
COLUMNS = ("VF", "PCI", "MAC", "VLAN", "representor", "guest", "received", "sent", "by host", "offloaded")
"""Of the table of VFs; the last four are about packets as the guest counts them."""


@app.command()
def status(
    pfs: Pfs = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until interrupted.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="Refresh interval, with --watch.")] = 2.0,
    as_json: AsJson = False,
    file: From = None,
) -> None:
    """Show NICs, their VFs, representors and guests, and where the flows are."""
    if as_json:
        from asap2.answers import answer
        from asap2.host.records import to_data

        while True:
            answer("host-status", to_data(page(pfs, file)), indent=None if watch else 2)
            if not watch:
                return
            time.sleep(interval)
    from asap2.screen import Screen

    screen = Screen(wrap=True)
    if not watch:
        screen.print(drawn(page(pfs, file)))
        return
    follow(lambda: drawn(page(pfs, file)), screen, lambda: time.sleep(interval))


def follow(look: Callable[[], Group], screen: Screen, wait: Callable[[], object]) -> None:
    """Print what *look* gives again and again, after each *wait*: over the last page on a terminal that has room for
    it; else, as in a pipe, below it."""
    from asap2.screen import Group, Live

    while True:
        shown = look()
        if not _fits(shown, screen):
            screen.print(shown)
            wait()
            continue
        with Live(shown, console=screen) as live:
            while _fits(shown, screen):
                live.update(shown)
                wait()
                shown = look()
            live.update(Group())
        screen.print(shown)
        wait()


def _fits(shown: Group, screen: Screen) -> bool:
    return screen.is_terminal and len(screen.lines(shown)) < screen.height


def page(pfs: list[str] | None, file: Path | None) -> Status:
    """The current page."""
    from asap2.host.status import status as of

    return of(*subject(file, pfs, connections="count"))


def drawn(page: Status) -> Group:
    """The page, formatted for a terminal."""
    from asap2.quantities import short
    from asap2.screen import Group, Table, Text, styled, table

    flows = page.flows
    offload = "hw-offload on" if page.hw_offload else "hw-offload off"
    if page.hw_offload and not page.in_force:
        offload += " (not in force)"
    state = "running" if page.running else f"({page.silent} does not answer)" if page.silent else "not running"
    switch = f"Open vSwitch {page.openvswitch or 'not installed'} {state}"
    head = styled((page.host, "bold"), f"   Linux {page.kernel}   {switch}, {offload}   {page.taken}")
    datapath = "?" if flows.in_datapath is None else flows.in_datapath
    where = styled(
        "Flows: ",
        (f"{flows.in_hardware} in hardware", "green" if flows.in_hardware else ""),
        f", {flows.in_tc_software} in TC software, {datapath} in Open vSwitch's datapath",
        "; lookups there: hit {}, missed {}, lost {}".format(*flows.lookups) if flows.lookups else "",
    )
    parts: list[Text | Table] = [head, where]
    if page.connections is not None:
        parts.append(_connections(page.connections))
    for nic in page.nics:
        link = "up" if nic.carrier else "no carrier" if nic.up else "down"
        words = [
            f"{nic.model}, firmware {nic.firmware or 'unknown'}, {nic.driver or 'no driver'}",
            f"{nic.mode or 'no eSwitch'}, encap {nic.encap or 'unknown'}",
            f"hw-tc-offload {'on' if nic.hw_tc_offload else 'off'}",
            f"{link}, MTU {nic.mtu}" + (f", in {nic.bridge}" if nic.bridge else ""),
            f"{nic.num_vfs} of {nic.total_vfs} VFs",
            f"rules: {nic.rules_in_hardware} in hardware, {nic.rules_in_software} not",
        ]
        title = styled((nic.name, "bold"), f" ({nic.address})  {'; '.join(words)}")
        vfs = table("", *COLUMNS)
        for column in vfs.columns[:5]:
            column.no_wrap = True
        for vf in nic.vfs:
            part = vf.offloaded
            vfs.add_row(
                str(vf.index),
                vf.address.removeprefix("0000:"),
                vf.mac or "",
                str(vf.vlan or ""),
                _representor(vf),
                _guest(vf) or vf.netdev or vf.driver or "unbound",
                short(vf.rx_packets),
                short(vf.tx_packets),
                short(vf.host_packets),
                "" if part is None else f"{100 * part:.1f} %",
            )
        parts += [Text(), title]
        if nic.vfs:
            parts.append(vfs)
    return Group(*parts)


def _connections(found: Connections) -> Text:
    from asap2.screen import styled

    hardware = found.in_hardware
    if hardware is None:
        return styled(f"Connections: {found.tracked} of at most {found.most}")
    return styled(
        "Connections: ",
        (f"{hardware} in hardware", "green" if hardware else ""),
        f", {found.in_software} in software, of at most {found.most}",
    )


def _representor(vf: VfStatus) -> str:
    """The representor, its bridge, and whether it is down."""
    if vf.representor is None:
        return "none"
    return vf.representor + (f" in {vf.bridge}" if vf.bridge else "") + ("" if vf.up else " (down)")


def _guest(vf: VfStatus) -> str | None:
    """Who has it: server and port in a line each, their UUIDs being long; the port's MAC where it is another than the
    VF's, and its status where it is not active."""
    one = vf.attachment
    if one is None:
        return vf.guest
    lines = [f"server {one.server}" if one.server else "", f"port {one.port}" if one.port else ""]
    lines.append(f"attached-mac {one.mac}" if one.mac and vf.mac and one.mac.lower() != vf.mac.lower() else "")
    lines.append(f"iface-status {one.status}" if one.status not in (None, "active") else "")
    return "\n".join(line for line in lines if line)


command = typer.get_command(app)
