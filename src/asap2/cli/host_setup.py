# SPDX-License-Identifier: Apache-2.0
"""``asap2 host setup [--config FILE] [--vfs N] [--bridge BR] [--verify PEER] [--dry-run] [--force] [PF…]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from asap2.cli import complete, typer
from asap2.cli.host_subject import AsJson
from asap2.cli.root import need_root

if TYPE_CHECKING:
    from asap2.host.setup.wanted import Wanted
    from asap2.host.verify.proof import Wanted as Proof

app = typer.Typer()
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan without changing anything.")]


@app.command()
def setup(
    pfs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PF", help="Network devices or PCI addresses (default: the only one).", complete=complete.pfs
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read a configuration file instead of options.")
    ] = None,
    vfs: Annotated[
        int | None, typer.Option(metavar="N", help="Number of VFs to create (default: keep the current number, or 4).")
    ] = None,
    order: Annotated[
        str, typer.Option(metavar="ORDER", help="vfs-first, switchdev-first, or auto (what the driver needs).")
    ] = "auto",
    bridge: Annotated[str | None, typer.Option(metavar="BR", help="Bridge for the uplink; created if missing.")] = None,
    uplink: Annotated[bool, typer.Option(help="Put the uplink into the bridge.")] = True,
    representors: Annotated[
        bool, typer.Option(help="Also put the representors into the bridge, and set their links up.")
    ] = False,
    restart: Annotated[bool, typer.Option(help="Restart Open vSwitch if hw-offload changes.")] = True,
    nic_only: Annotated[
        bool, typer.Option("--nic-only", help="Leave Open vSwitch alone; it need not be running.")
    ] = False,
    dry_run: DryRun = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on even if this cuts the link by which this host is reached.")
    ] = False,
    verify: Annotated[
        str | None,
        typer.Option(metavar="PEER", help="Afterwards, prove offload with traffic from the first VF to this address."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="ADDRESS/LENGTH", help="Temporary address of that VF for the proof.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Set up NICs and Open vSwitch for hardware offload. Steps that are already done are skipped. If a step
    fails, those before it are undone."""
    from asap2.errors import Asap2Error, UsageError
    from asap2.host.setup.wanted import load

    need_root("asap2 host")
    if address is not None and verify is None:
        raise UsageError("--address is for --verify PEER")
    if verify is not None and (nic_only or not restart):
        raise UsageError("--verify needs Open vSwitch to offload: leave out --nic-only and --no-restart")
    proof = _proof(verify, address)
    if config is not None:
        if pfs or (vfs, order, bridge, uplink, representors, restart) != (None, "auto", None, True, False, True):
            raise UsageError("say what is wanted in --config or in options, not in both")
        wanted = load(config)
    else:
        wanted = _from_options(pfs, vfs, order, bridge, uplink, representors, restart)
    if nic_only:
        import dataclasses

        wanted = dataclasses.replace(wanted, nic_only=True)

    from asap2.cli.host_steps import Shown
    from asap2.host.setup.hands import Hands
    from asap2.host.setup.journal import exclusively
    from asap2.host.setup.run import prepare
    from asap2.host.setup.run import setup as do

    shown = Shown(as_json)
    with shown.interruptible(), exclusively(), Hands() as hands:
        if dry_run:
            shown.planned(prepare(wanted, hands, force=force), False)
            shown.end({"changed": False})
            return 0
        outcome = do(wanted, hands, shown, force=force)
    data: dict[str, Any] = {"changed": bool(outcome.steps)}
    if not as_json:
        shown.nics(outcome.host)
        if not wanted.nic_only:
            shown.failures(wanted)
    good = True
    if proof is not None:
        from asap2.cli.host_verify import as_data, show
        from asap2.host.verify.proof import prove

        try:
            host, port, results = prove((nic.pf for nic in wanted.nic), proof)
        except Asap2Error as error:
            if as_json:  # what was set up stays, and is to be told
                shown.end({**data, "verify": {"offloaded": False, "error": str(error)}})
            raise
        good = all(result.offloaded for result in results)
        data["verify"] = as_data(host, port, results, good)
        if not as_json:
            shown.say("")
            show(port, results)
            shown.end(
                {}, "verified: all traffic is offloaded" if good else "not verified: not all traffic is offloaded"
            )
    if as_json:
        shown.end(data)
    return 0 if good else 1


def _proof(peer: str | None, address: str | None) -> Proof | None:
    """The requested proof."""
    if peer is None:
        return None
    from asap2.host.verify.proof import checked

    return checked(peer, address)


def _from_options(
    pfs: list[str] | None,
    vfs: int | None,
    order: str,
    bridge: str | None,
    uplink: bool,
    representors: bool,
    restart: bool,
) -> Wanted:
    """The setup that the command line describes."""
    from asap2.host.observe import observe
    from asap2.host.records import RecordError, from_data
    from asap2.host.setup.target import with_default
    from asap2.host.setup.wanted import Wanted, checked

    names = tuple(pfs) if pfs else with_default(observe(filters=False, openflow=False), ())
    nic = {"vfs": vfs, "order": order, "bridge": bridge, "uplink": uplink, "representors": representors}
    data = {"nic": [{"pf": name, **nic} for name in names], "openvswitch": {"restart": restart}}
    try:
        return checked(from_data(Wanted, data), "the command line")
    except RecordError as error:
        from asap2.errors import UsageError

        raise UsageError(f"the command line: {error}") from None


command = typer.get_command(app)
