# SPDX-License-Identifier: Apache-2.0
"""What commands print: a result as JSON, or as tables for people."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(data: Any) -> None:
    """Print *data* as JSON."""
    print(json.dumps(data, indent=2))


def table(title: str, *columns: str) -> Table:
    """An empty table in the style of all of ours."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column)
    return made


def print_lab(lab: dict[str, Any]) -> None:
    """Print what :meth:`asap2.lab.lab.Lab.describe` gives."""
    nodes = table(
        f"Nodes, up since {lab['since']}", "node", "daemon", "processes", "NIC", "model", "netdev", "PCI", "VFs"
    )
    for node in lab["nodes"]:
        daemon = f"pid {node['daemon']}" if node["daemon"] else "[red]down[/red]"
        start = (node["name"], daemon, str(node["processes"]))
        for nic in node["nics"]:
            netdevs, addresses = "\n".join(nic["netdevs"]), "\n".join(nic["netdevs"].values())
            nodes.add_row(*start, nic["name"], nic["model"], netdevs, addresses, f"up to {nic['total_vfs']}")
            start = ("", "", "")
        if not node["nics"]:
            nodes.add_row(*start, "none")
    console = Console()
    console.print(nodes)
    if lab["cables"]:
        cables = table("Cables", "from", "to")
        for ends in lab["cables"]:
            cables.add_row(*ends)
        console.print(cables)
    if lab["guests"]:
        guests = table("Guests", "guest", "node", "VF", "device", "MAC", "address", "processes")
        for guest in lab["guests"]:
            words = [guest[key] or "" for key in ("name", "node", "vf", "device", "mac", "address")]
            guests.add_row(*words, str(guest["processes"]))
        console.print(guests)


def print_bench(result: dict[str, Any]) -> None:
    """Print what :func:`asap2.lab.bench.run.run` gives."""
    title = f"Medians of {result['rounds']} interleaved rounds; in brackets, ratios to direct"
    figures = table(title, "path", "TCP Gbit/s", "packets/s", "transactions/s", "CPU s/Gbit")
    for name, path in result["paths"].items():
        ratio = result["ratios"][name]
        figures.add_row(
            name,
            f"{path['tcp_gbps']:.2f} ({ratio['tcp_gbps']:.2f})",
            f"{path['packets_per_second']:.0f} ({ratio['packets_per_second']:.2f})",
            f"{path['transactions_per_second']:.0f} ({ratio['transactions_per_second']:.2f})",
            f"{path['cpu_seconds_per_gbit']:.3f} ({ratio['cpu_seconds_per_gbit']:.2f})",
        )
    Console().print(figures)


def print_scale(result: dict[str, Any]) -> None:
    """Print what :func:`asap2.lab.bench.scale.run.run` gives."""
    console = Console()

    def spread(each: dict[str, float]) -> list[str]:
        return [f"{each[key]:g}" for key in ("median", "least", "most")]

    figures = table(f"Over {result['rounds']} interleaved rounds", "what", "figure", "median", "least", "most")
    for name, found in result["figures"].items():
        for figure, each in found.items():
            figures.add_row(name, figure, *spread(each))
    console.print(figures)
    ratios = table("Ratios in the same round", "ratio", "median", "least", "most")
    for name, each in result["ratios"].items():
        ratios.add_row(name, *spread(each))
    console.print(ratios)
    targets = table("Targets", "what", "value", "target", "")
    for name, each in result["targets"].items():
        bound = f"at least {each['at_least']:g}" if "at_least" in each else f"at most {each['at_most']:g}"
        verdict = "[green]met[/green]" if each["met"] else "[red]missed[/red]"
        targets.add_row(name, f"{each['value']:g}", bound, verdict)
    console.print(targets)
