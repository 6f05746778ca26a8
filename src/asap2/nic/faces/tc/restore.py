# SPDX-License-Identifier: Apache-2.0
"""Taking up the qdiscs and filters of an earlier run; their rules are in the pipelines still."""

from __future__ import annotations

from dataclasses import replace

from asap2.netlink.tables.tc import TC
from asap2.nic.faces.tc import actions as tc_actions
from asap2.nic.faces.tc import match_all
from asap2.nic.faces.tc.blocks import Blocks, Proto
from asap2.nic.faces.tc.chain_templates import chain_template_of
from asap2.nic.faces.tc.filter import Filter
from asap2.nic.faces.tc.flower import parse as parse_flower
from asap2.nic.faces.tc.kept import Kept, KeptFilter
from asap2.nic.faces.tc.offload import Offloader
from asap2.nic.faces.tc.shared_actions import SharedActions
from asap2.nic.function import Nic


def restore(
    kept: Kept, blocks: Blocks, actions: SharedActions, offloader: Offloader, nics: dict[str, Nic]
) -> list[int]:
    """Fill *blocks* and *actions* with what was *kept*; the devices that have a qdisc."""
    for ifindex, kind, shared in kept.qdiscs():
        blocks.join(ifindex, kind, shared)
    for kind, instance in kept.actions():
        actions.table.take(kind, instance.index)
        actions.table.share(kind, instance)
    for identity, egress, chain, template in kept.chains():
        block = blocks.known_by(identity, egress)
        block.explicit[chain] = chain_template_of(template, again=True) if template else None
        block.chains.setdefault(chain, {})
    for identity, egress, parent in kept.parents():
        blocks.known_by(identity, egress).parent = parent
    for record in kept.filters():
        _restore_filter(record, blocks, actions, offloader, nics)
    for proto, one in blocks.all():
        proto.block.returned |= one.gives_back
    return list(blocks.qdiscs)


def _restore_filter(
    kept: KeptFilter, blocks: Blocks, actions: SharedActions, offloader: Offloader, nics: dict[str, Nic]
) -> None:
    _, attrs = TC.decode(kept.request)
    options, kind = attrs["options"], attrs.get("kind", "flower")
    block = blocks.known_by(kept.block, kept.egress)
    protos = block.chains.setdefault(kept.chain, {})
    proto = protos.setdefault(kept.prio, Proto(block, kept.chain, kept.prio, kept.protocol, kind))
    key = parse_flower(match_all.keys_of(kind, options), kept.protocol, again=True)
    given = tc_actions.Given(kept.indices, actions.table.instance)
    actions_given = match_all.actions_of(options)
    steps, listed = tc_actions.parse(actions_given, given) if actions_given else ((), ())
    placed = tuple(
        replace(offloader.placed(place.name, nics, place.in_port, place.handle, steps), device=place.device)
        for place in kept.places
    )
    one = Filter(
        kept.handle,
        key.identity,
        key.masks,
        options.get("classid"),
        options.get("flags", 0),
        listed,
        steps,
        placed,
        kept.made_ns,
        record=kept.record,
        rank=kept.rank,
        request=kept.request,
        indices=kept.indices,
        shared=any(action.instance is not None for action in listed),
        translated=key,
    )
    proto.hold(one)
    actions.rejoin(one)
