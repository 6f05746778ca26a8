# SPDX-License-Identifier: Apache-2.0
"""``asap2 bench [--suite paths|scale|stateful|rates] [--json FILE] [--rounds N] [--plot FILE]``."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from asap2.screen import Screen

app = typer.Typer(add_completion=False)


class Suite(enum.StrEnum):
    """A set of measurements."""

    PATHS = "paths"
    SCALE = "scale"
    STATEFUL = "stateful"
    RATES = "rates"


@app.command()
def bench(
    suite: Annotated[
        Suite,
        typer.Option(
            help="What to measure: five paths between guests; many rules, masks and flows; tracked connections; "
            "or the accuracy of rate limits."
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
    from asap2.screen import Screen

    screen = Screen(stderr=True)
    suites = {Suite.PATHS: _paths, Suite.SCALE: _scale, Suite.STATEFUL: _stateful, Suite.RATES: _rates}
    result, draw, show = suites[suite](rounds, screen)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
        plot = plot or json_file.with_suffix(".png")
    if plot is not None:
        draw(result, plot)
    show(result)


def _paths(rounds: int, screen: Screen) -> Any:
    """The suite's result, and the functions that draw and print it."""
    from asap2.cli.tables import print_bench
    from asap2.lab.bench.plot import plot
    from asap2.lab.bench.run import run
    from asap2.lab.lab import Lab

    def tell(number: int, name: str, figures: dict[str, float]) -> None:
        words = f"{figures['tcp_gbps']:6.2f} Gbit/s, {figures['packets_per_second']:8.0f} packets/s"
        words += f", {figures['transactions_per_second']:7.0f} transactions/s"
        screen.say(f"round {number} of {rounds}: {name:14} {words}")

    return run(Lab(), rounds, tell), plot, print_bench


def _scale(rounds: int, screen: Screen) -> Any:
    """As :func:`_paths`."""
    from asap2.cli.tables import print_ratios
    from asap2.lab.bench.scale.plot import plot
    from asap2.lab.bench.scale.run import run
    from asap2.lab.lab import Lab

    return run(Lab(), rounds, screen.say), plot, print_ratios


def _stateful(rounds: int, screen: Screen) -> Any:
    """As :func:`_paths`."""
    from asap2.cli.tables import print_ratios
    from asap2.lab.bench.stateful.plot import plot
    from asap2.lab.bench.stateful.run import run
    from asap2.lab.lab import Lab

    return run(Lab(), rounds, screen.say), plot, print_ratios


def _rates(_rounds: int, screen: Screen) -> Any:
    """As :func:`_paths`; each rate is measured once."""
    from asap2.cli.tables import print_rates
    from asap2.lab.bench.rates.plot import plot
    from asap2.lab.bench.rates.run import run
    from asap2.lab.lab import Lab

    return run(Lab(), screen.say), plot, print_rates


command = typer.main.get_command(app)
