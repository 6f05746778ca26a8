# SPDX-License-Identifier: Apache-2.0
"""A run as a picture: how far each rate is off what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asap2.lab.bench.drawing import picture
from asap2.lab.bench.rates.run import KINDS, PROTOCOLS, RATES

_COLOURS = dict(zip(KINDS, ("#76b900", "#3f8f5f", "#4c78a8"), strict=True))
_TITLES = {"vf": "VF, max_tx_rate", "meter": "meter in hardware", "police": "act_police in software"}


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw *result* (:func:`asap2.lab.bench.rates.run.run`) into the PNG *file*."""
    with picture(file, len(PROTOCOLS), (10, 3.8), f"Rates over {result['seconds']} s") as axes:
        for axis, protocol in zip(axes, PROTOCOLS, strict=True):
            for kind in KINDS:
                of_kind = [one for one in result["rates"] if (one["kind"], one["protocol"]) == (kind, protocol)]
                asked, measured = [one["asked"] for one in of_kind], [one["measured"] / one["asked"] for one in of_kind]
                axis.plot(asked, measured, marker="o", color=_COLOURS[kind], label=_TITLES[kind])
            band = result["tolerance_percent"] / 100
            axis.axhspan(1 - band, 1 + band, color="#dddddd", zorder=0)
            axis.set_xscale("log")
            axis.set_xticks(RATES, [str(rate) for rate in RATES])
            axis.set_ylim(bottom=0)
            axis.set_title(f"{protocol.upper()}: measured / asked", fontsize=10)
            axis.set_xlabel("Mbit/s asked", fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].legend(fontsize=8, loc="lower left")
