# SPDX-License-Identifier: Apache-2.0
"""``asap2 host verify [--netns NAME|PID] [--listen SECONDS] [--serve SECONDS] [--json] VF [PEER]``."""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING, Annotated, Any

from asap2.cli import typer
from asap2.cli.host_subject import AsJson
from asap2.cli.root import need_root
from asap2.errors import Asap2Error, UsageError
from asap2.host.verify import COUNT, ECHO_PORT, PROTOCOLS

if TYPE_CHECKING:
    from asap2.host.inventory import Host
    from asap2.host.verify.endpoint import Port
    from asap2.host.verify.verify import Result

app = typer.Typer()


@app.command()
def verify(
    vf: Annotated[
        str | None,
        typer.Argument(metavar="VF", help="The VF: its representor, PCI address, network device, or guest's id."),
    ] = None,
    peer: Annotated[
        str | None, typer.Argument(metavar="PEER", help="Where to send: an address, or another VF of this host.")
    ] = None,
    netns: Annotated[
        str | None, typer.Option(metavar="NAME|PID", help="Namespace of VF's device (default: search for it).")
    ] = None,
    peer_netns: Annotated[
        str | None, typer.Option(metavar="NAME|PID", help="Namespace of PEER's device, if it is a VF.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS/LENGTH", help="Temporary address of VF's device.")
    ] = None,
    protocol: Annotated[str, typer.Option(metavar="LIST", help="Protocols to send: any of icmp, udp, tcp.")] = ",".join(
        PROTOCOLS
    ),
    count: Annotated[
        int,
        typer.Option(min=20, max=1_000_000, metavar="N", help="Packets of each protocol, in both directions together."),
    ] = COUNT,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="UDP and TCP port; PEER need not listen on it.")
    ] = ECHO_PORT,
    through: Annotated[
        str | None, typer.Option(metavar="WHAT", help="vlan or tunnel: fail unless all packets use one.")
    ] = None,
    listen: Annotated[
        float | None, typer.Option(min=0.5, metavar="SECONDS", help="Send nothing; watch the VF's own traffic.")
    ] = None,
    serve: Annotated[
        float | None, typer.Option(min=0.5, metavar="SECONDS", help="Be the other end, and echo UDP and TCP.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Prove with traffic that a VF's flows are offloaded, or say why not. Exit status 0: they are."""
    need_root("asap2 host")
    protocols = _chosen(protocol, through)
    if serve is not None:
        return _serve(port, serve, netns)
    if vf is None:
        raise UsageError("say which VF: its representor, PCI address, network device, or guest's id")
    if (peer is None) == (listen is None):
        raise UsageError("say whom to send to, PEER, or with --listen SECONDS that nothing is to be sent")
    from asap2.host.observe import observe
    from asap2.host.verify.endpoint import port_of
    from asap2.host.verify.verify import listen as watch

    host = observe(full=True, filters=False, openflow=False)
    one = port_of(host, vf)
    if listen is not None:
        results = [watch(host, one, listen)]
    else:
        results = _send(host, one, peer or "", (netns, peer_netns), address, protocols, count, port)
    return _end(host, one, results, through, as_json)


def _chosen(protocol: str, through: str | None) -> list[str]:
    words = [word.strip() for word in protocol.split(",") if word.strip()]
    wrong = [word for word in words if word not in PROTOCOLS]
    if wrong or not words:
        raise UsageError(f"--protocol is a list of {', '.join(PROTOCOLS)}, not {protocol!r}")
    if through not in (None, "vlan", "tunnel"):
        raise UsageError(f"--through is vlan or tunnel, not {through!r}")
    return words


def _send(
    host: Host,
    one: Port,
    peer: str,
    places: tuple[str | None, str | None],
    mine: str | None,
    protocols: list[str],
    count: int,
    port: int,
) -> list[Result]:
    from asap2.host.verify import agent
    from asap2.host.verify.endpoint import addressed, guest_of, port_of
    from asap2.host.verify.proof import reaches
    from asap2.host.verify.verify import need_switch, send

    need_switch(host)
    guest = guest_of(one, places[0])
    with contextlib.ExitStack() as stack:
        try:
            other = ipaddress.ip_address(peer)
        except ValueError:
            there = guest_of(port_of(host, peer), places[1])
            own = (ipaddress.ip_interface(mine).ip,) if mine else map(ipaddress.ip_address, guest.addresses)
            versions = {each.version for each in own}
            addresses = [each for each in map(ipaddress.ip_address, there.addresses) if each.version in versions]
            if not addresses:
                raise Asap2Error(f"{there.device}, VF {peer}, has no address that {guest.device} could reach") from None
            other = addresses[0]
            stack.enter_context(agent.serving(there.netns, port))
        if mine is not None:
            reaches(mine, other)
        guest = stack.enter_context(addressed(guest, mine))
        return [send(host, one, guest, str(other), protocol, count, port) for protocol in protocols]


def _serve(port: int, seconds: float, netns: str | None) -> int:
    from asap2.host.kernel import namespaces
    from asap2.host.verify import traffic
    from asap2.output import say

    if netns is not None:
        namespaces.enter(namespaces.path_of(netns))
    traffic.serve(port, seconds, lambda: say(f"echoing UDP and TCP at port {port} for {seconds:g} s"))
    return 0


def _end(host: Host, one: Port, results: list[Result], through: str | None, as_json: bool) -> int:
    missing = through is not None and not all(_goes(result, through) for result in results)
    good = all(result.offloaded for result in results) and not missing
    if as_json:
        from asap2.answers import answer

        answer("host-verify", as_data(host, one, results, good))
        return 0 if good else 1
    show(one, results)
    if missing:
        from asap2.screen import Screen

        Screen().say(f"  the traffic does not go through a {through}", style="bold red")
    return 0 if good else 1


def as_data(host: Host, one: Port, results: list[Result], good: bool) -> dict[str, Any]:
    """The result, for JSON."""
    from asap2.host.records import to_data

    return {
        "host": host.hostname,
        "pf": one.pf.address,
        "vf": one.vf.index,
        "representor": one.representor.name,
        "offloaded": good,
        "results": to_data(results),
    }


def show(one: Port, results: list[Result]) -> None:
    """Print the result for people."""
    from asap2.screen import Screen

    screen = Screen()
    screen.say(f"VF {one.vf.index} of {one.pf.name}, representor {one.representor.name}", style="bold")
    for result in results:
        screen.say((f"  {result.protocol:5}", "bold"), (result.verdict, "green" if result.offloaded else "bold red"))
        for flow in result.flows:
            words = f"        {flow.way:3} {flow.packets} packets, {'in hardware' if flow.offloaded else 'in software'}"
            words += f", {', '.join(flow.through)}" if flow.through else ""
            words += f": {flow.reason}: {flow.found}" if flow.reason else ""
            screen.say(words, style="dim")
    if any(flow.reason for result in results for flow in result.flows):
        screen.say(f"  `asap2 host explain {one.representor.name}` says what to do")


def _goes(result: Result, through: str) -> bool:
    """Whether the traffic uses a VLAN or a tunnel in both directions."""
    if not result.flows:
        return False
    return all(any(word.startswith(through) for word in flow.through) for flow in result.flows)


command = typer.get_command(app)
