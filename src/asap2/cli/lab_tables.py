# SPDX-License-Identifier: Apache-2.0
"""A lab as tables."""

from __future__ import annotations

from typing import Any

from asap2.screen import Part, Screen, Table, styled, table


def print_lab(lab: dict[str, Any]) -> None:
    """Print what :func:`asap2.lab.description.describe` gives."""
    screen = Screen(wrap=True)
    if lab["state"] != "up":
        screen.print(styled(("Lab ", "bold"), (lab["name"], "bold"), " is ", (lab["state"], "red")))
        return
    screen.print(styled((f"Lab {lab['name']}", "bold"), f", up since {lab['since']}"))
    nodes = table("", "node", "state", "NIC", "model", "netdev", "PCI", "mode", "VFs used", "guests")
    for node in lab["nodes"]:
        guests = "\n".join(guest["name"] for guest in lab["guests"] if guest["node"] == node["name"])
        start: tuple[Any, ...] = (node["name"], _state(node))
        for nic in node["nics"]:
            ports = nic["ports"]
            columns = ("netdev", "pci", "mode")
            texts = ["\n".join(_known(port[column]) for port in ports) for column in columns]
            used = "\n".join(_used(port, nic["total_vfs"]) for port in ports)
            nodes.add_row(*start, nic["name"], nic["model"], *texts, used, guests)
            start, guests = ("", ""), ""
    screen.print(nodes)
    if lab["cables"]:
        screen.print(cable_table(lab["cables"]))
    if lab["guests"]:
        guest_table = table("Guests", "guest", "node", "VF", "device", "MAC", "address")
        for guest in lab["guests"]:
            guest_table.add_row(*(guest[key] or "" for key in ("name", "node", "vf", "device", "mac", "address")))
        screen.print(guest_table)


def cable_table(cables: list[dict[str, Any]]) -> Table:
    """Cables, as :meth:`asap2.lab.cables.Cable.as_data` gives them, and how bad they are if any is."""
    columns: tuple[str, ...] = ("from", "to")
    if any(cable["impairment"] for cable in cables):
        columns += ("delay", "jitter", "loss", "rate", "lost at from", "lost at to")
    made = table("Cables", *columns)
    for cable in cables:
        made.add_row(*cable["ends"], *(_impaired(cable) if cable["impairment"] else ()))
    return made


def _impaired(cable: dict[str, Any]) -> list[str]:
    bad = cable["impairment"]
    units = {"delay_ms": " ms", "jitter_ms": " ms", "loss_percent": " %", "rate_mbit": " Mbit/s"}
    values = [f"{bad[key]:g}{unit}" if bad[key] else "" for key, unit in units.items()]
    losses = [cable["packets"].get(end) for end in cable["ends"]]
    return values + [f"{one['lost'] + one['dropped']} of {one['received']}" if one else "" for one in losses]


def _state(node: dict[str, Any]) -> Any:
    part: Part = (node["state"], "green" if node["state"] == "up" else "red")
    return styled(part)


def _known(value: str | None) -> str:
    return "?" if value is None else value


def _used(port: dict[str, Any], total: int) -> str:
    if port["num_vfs"] is None:
        return f"? of {total}"
    return f"{port['used_vfs']} of {port['num_vfs']}"
