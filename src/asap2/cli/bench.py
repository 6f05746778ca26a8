# SPDX-License-Identifier: Apache-2.0
"""``asap2 bench [--suite paths|scale|stateful|rates|redirect|trace|view] [--json FILE] [--rounds N] [--plot FILE]``."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from asap2.cli import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from asap2.lab.lab import Lab
    from asap2.progress import Progress

app = typer.Typer()


class Suite(enum.StrEnum):
    """A set of measurements."""

    PATHS = "paths"
    SCALE = "scale"
    STATEFUL = "stateful"
    RATES = "rates"
    REDIRECT = "redirect"
    TRACE = "trace"
    VIEW = "view"


@app.command()
def bench(
    suite: Annotated[
        Suite,
        typer.Option(
            help="What to measure: five paths between guests; many rules, masks and flows; tracked connections; "
            "the accuracy of rate limits; what requests to the NIC cost that are redirected; what asap2 trace "
            "and capture cost; or what asap2 view costs."
        ),
    ] = Suite.PATHS,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Number of rounds; the rates suite ignores it.")] = 5,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a plot as PNG (default: beside the JSON file).")
    ] = None,
) -> None:
    """Compare the NIC with its alternatives, in rounds of about a minute. The scale suite also needs a minute to
    prepare, and 5 GB of memory for its millions of rules. The rates suite is one round of six minutes."""
    from asap2.answers import marked
    from asap2.cli.root import need_root
    from asap2.lab.lab import Lab
    from asap2.progress import Progress

    need_root("asap2 bench")
    suites = {Suite.PATHS: _paths, Suite.SCALE: _scale, Suite.STATEFUL: _stateful, Suite.RATES: _rates}
    suites |= {Suite.REDIRECT: _redirect, Suite.TRACE: _trace, Suite.VIEW: _view}
    with Progress() as progress:
        result, draw, show = suites[suite](Lab(tell=progress.step), rounds, lambda line: _tell(progress, line))
    if json_file is not None:
        json_file.write_text(json.dumps(marked("bench", {"suite": str(suite), **result}), indent=2) + "\n")
        plot = plot or json_file.with_suffix(".png")
    if plot is not None:
        draw(result, plot)
    show(result)


def _tell(progress: Progress, line: str) -> None:
    progress.say(line)
    progress.step("measuring")


def _paths(lab: Lab, rounds: int, tell: Callable[[str], object]) -> Any:
    """The suite's result, and the functions that draw and print it."""
    from asap2.cli.tables import print_bench
    from asap2.lab.bench.plot import plot
    from asap2.lab.bench.run import run

    def told(number: int, name: str, figures: dict[str, float]) -> None:
        words = f"{figures['tcp_gbps']:6.2f} Gbit/s, {figures['packets_per_second']:8.0f} packets/s"
        words += f", {figures['transactions_per_second']:7.0f} transactions/s"
        tell(f"round {number} of {rounds}: {name:14} {words}")

    return run(lab, rounds, told), plot, print_bench


def _scale(lab: Lab, rounds: int, tell: Callable[[str], object]) -> Any:
    """As :func:`_paths`."""
    from asap2.cli.tables import print_ratios
    from asap2.lab.bench.scale.plot import plot
    from asap2.lab.bench.scale.run import run

    return run(lab, rounds, tell), plot, print_ratios


def _stateful(lab: Lab, rounds: int, tell: Callable[[str], object]) -> Any:
    """As :func:`_paths`."""
    from asap2.cli.tables import print_ratios
    from asap2.lab.bench.stateful.plot import plot
    from asap2.lab.bench.stateful.run import run

    return run(lab, rounds, tell), plot, print_ratios


def _rates(lab: Lab, _rounds: int, tell: Callable[[str], object]) -> Any:
    """As :func:`_paths`; each rate is measured once."""
    from asap2.cli.tables import print_rates
    from asap2.lab.bench.rates.plot import plot
    from asap2.lab.bench.rates.run import run

    return run(lab, tell), plot, print_rates


def _redirect(lab: Lab, rounds: int, tell: Callable[[str], object]) -> Any:
    """As :func:`_paths`."""
    from asap2.cli.tables import print_ratios
    from asap2.lab.bench.redirect.plot import plot
    from asap2.lab.bench.redirect.run import run

    return run(lab, rounds, tell), plot, print_ratios


def _trace(lab: Lab, rounds: int, tell: Callable[[str], object]) -> Any:
    """As :func:`_paths`."""
    from asap2.cli.tables import print_ratios
    from asap2.trace.bench import plot, run

    return run(lab, rounds, tell), plot, print_ratios


def _view(lab: Lab, rounds: int, tell: Callable[[str], object]) -> Any:
    """As :func:`_paths`."""
    from asap2 import extras
    from asap2.cli.tables import print_ratios

    extras.need("view")
    from asap2.lab.bench.view import plot, run

    return run(lab, rounds, tell), plot, print_ratios


command = typer.get_command(app)
