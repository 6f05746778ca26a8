# SPDX-License-Identifier: Apache-2.0
"""The tables of commands whose result is mostly tables."""

from __future__ import annotations

from typing import Any

from asap2.screen import Screen, styled, table


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
    screen = Screen(wrap=True)
    screen.print(figures)
    hosts = table("What the hosts did", "path", "CPU s of its processes per Gbit", "packets that it saw")
    for name, host in result["hosts"].items():
        hosts.add_row(name, f"{host['host_cpu_seconds_per_gbit']:.4f}", f"{host['host_packets']:,.0f}")
    screen.print(hosts)
    _print_targets(screen, "Offloaded, as a multiple of ovs_userspace", result["targets"])


def print_ratios(result: dict[str, Any]) -> None:
    """Print what :func:`asap2.lab.bench.ratios.summarize` gives."""
    screen = Screen(wrap=True)

    def spread(each: dict[str, float]) -> list[str]:
        return [f"{each[key]:g}" for key in ("median", "least", "most")]

    figures = table(f"Over {result['rounds']} interleaved rounds", "what", "figure", "median", "least", "most")
    for name, found in result["figures"].items():
        for figure, each in found.items():
            figures.add_row(name, figure, *spread(each))
    screen.print(figures)
    ratios = table("Ratios in the same round", "ratio", "median", "least", "most")
    for name, each in result["ratios"].items():
        ratios.add_row(name, *spread(each))
    screen.print(ratios)
    _print_targets(screen, "Targets", result["targets"])


def print_rates(result: dict[str, Any]) -> None:
    """Print what :func:`asap2.lab.bench.rates.run.run` gives."""
    shown = table(f"Over {result['seconds']} s", "limit", "by", "Mbit/s asked", "measured", "off, %")
    for one in result["rates"]:
        within = abs(one["off"]) <= result["tolerance_percent"]
        off = styled((f"{one['off']:+.2f}", "green" if within else "red"))
        shown.add_row(one["kind"], one["protocol"], f"{one['asked']:g}", f"{one['measured']:.3f}", off)
    Screen(wrap=True).print(shown)


def _print_targets(screen: Screen, title: str, targets: dict[str, dict[str, Any]]) -> None:
    shown = table(title, "what", "value", "target", "")
    for name, each in targets.items():
        bound = f"at least {each['at_least']:g}" if "at_least" in each else f"at most {each['at_most']:g}"
        verdict = styled(("met", "green") if each["met"] else ("missed", "red"))
        shown.add_row(name, "none" if each["value"] is None else f"{each['value']:g}", bound, verdict)
    screen.print(shown)
