# SPDX-License-Identifier: Apache-2.0
"""The gallery of the documentation: a picture and the file of each topology that comes with asap2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asap2.lab import gallery as topologies
from asap2.lab.topology import Node, Topology

BOX, GAP, TOP, NODE, GUEST = 148, 56, 84, 64, 40
"""Of a picture, in pixels: width of a node and space beside it, where nodes begin, height of a node and of a guest."""
ROW: Final = 4
"""Guests beside each other above a node; more are a number."""
STYLE: Final = """
text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: #24292f }
text.small { font-size: 11px; fill: #57606a }
rect { fill: #f6f8fa; stroke: #57606a }
rect.guest { fill: #dafbe1; stroke: #1a7f37 }
rect.tor { fill: #ddf4ff; stroke: #0969da }
line { stroke: #0969da; stroke-width: 2 } line.vf { stroke: #1a7f37 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } text.small { fill: #9ea7b3 }
  rect { fill: #22272e; stroke: #768390 }
  rect.guest { fill: #1b3a26; stroke: #57ab5a }
  rect.tor { fill: #1c2f45; stroke: #539bf5 }
}
"""


def gallery(source: Path) -> None:
    """Add the topologies to the page of the gallery in *source*, and their pictures beside it."""
    pictures = source / "gallery"
    pictures.mkdir(exist_ok=True)
    parts = [(source / "gallery.md").read_text()]
    for name, about in topologies.names().items():
        topology = topologies.named(name)
        (pictures / f"{name}.svg").write_text(picture(topology, f"{name}: {about}"))
        body = "\n".join(topologies.text_of(name).splitlines()[1:])
        shown = f"![{name}](gallery/{name}.svg)"
        parts.append(f"## {name}\n\n{about}\n\n{shown}\n\n```sh\nasap2 lab up {name}\n```\n\n")
        parts.append(f"```toml\n{body}\n```\n")
    (source / "gallery.md").write_text("\n".join(parts))


def picture(topology: Topology, title: str) -> str:
    """*topology* as SVG: nodes in a row, their guests above, cables and switches below."""
    centre = {node.name: GAP // 2 + BOX // 2 + at * (BOX + GAP) for at, node in enumerate(topology.nodes)}
    width = len(topology.nodes) * (BOX + GAP)
    below = TOP + NODE
    height = below + (90 if topology.cables or topology.switches else 16)
    body = [*_links(topology, centre, below)]
    for node in topology.nodes:
        body += _node(topology, node, centre[node.name])
    lines = "\n".join(body)
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'{frame} role="img">\n<title>{_text(title)}</title>\n<style>{STYLE}</style>\n{lines}\n</svg>\n'


def _node(topology: Topology, node: Node, middle: int) -> Iterator[str]:
    """A node with its NICs and guests."""
    guests = [one for one in topology.guests if one.node == node.name]
    shown = guests if len(guests) <= ROW else [guests[0], guests[-1]]
    wide = BOX // max(len(shown), 1)
    for at, guest in enumerate(shown):
        x = middle - BOX // 2 + at * wide
        yield f'<line class="vf" x1="{x + wide // 2}" y1="{8 + GUEST}" x2="{x + wide // 2}" y2="{TOP}"/>'
        yield f'<rect class="guest" x="{x + 2}" y="8" width="{wide - 4}" height="{GUEST}" rx="4"/>'
        yield f'<text x="{x + wide // 2}" y="{8 + GUEST // 2 + 5}">{_text(guest.name)}</text>'
    if len(shown) < len(guests):
        yield f'<text x="{middle}" y="{8 + GUEST // 2 + 5}">…</text>'
    yield f'<rect x="{middle - BOX // 2}" y="{TOP}" width="{BOX}" height="{NODE}" rx="6"/>'
    yield f'<text x="{middle}" y="{TOP + 24}">{_text(node.name)}</text>'
    for at, nic in enumerate(node.nics):
        mode = "switchdev" if nic.switchdev else "legacy"
        yield f'<text class="small" x="{middle}" y="{TOP + 44 + 14 * at}">{_text(nic.model)}, {mode}</text>'


def _links(topology: Topology, centre: dict[str, int], below: int) -> Iterator[str]:
    """Cables and switches."""
    for at, cable in enumerate(topology.cables):
        shift = (at - (len(topology.cables) - 1) / 2) * 48
        low = below + 28 + at * 24
        left, right = (centre[end.node] + shift for end in cable.ends)
        for x in (left, right):
            yield f'<line x1="{x}" y1="{below}" x2="{x}" y2="{low}"/>'
        yield f'<line x1="{left}" y1="{low}" x2="{right}" y2="{low}"/>'
        if cable.impairment:
            yield f'<text class="small" x="{(left + right) / 2}" y="{low + 16}">{cable.impairment}</text>'
    for switch in topology.switches:
        middle = sum(centre.values()) / len(centre)
        for end in switch.ends:
            yield f'<line x1="{centre[end.node]}" y1="{below}" x2="{middle}" y2="{below + 56}"/>'
        yield f'<rect class="tor" x="{middle - 50}" y="{below + 44}" width="100" height="32" rx="4"/>'
        yield f'<text x="{middle}" y="{below + 65}">{_text(switch.name)}</text>'


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
