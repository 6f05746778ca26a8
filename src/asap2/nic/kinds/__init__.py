# SPDX-License-Identifier: Apache-2.0
"""Link kinds that a node has on any kernel. A kind is a module here, and an entry in :data:`KINDS`."""

from __future__ import annotations

from typing import Final

from asap2.nic.kinds import erspan, ip_in_ip, plain, tunnel
from asap2.nic.kinds.bond import Bond
from asap2.nic.kinds.dummy import Dummy
from asap2.nic.kinds.kind import LinkKind
from asap2.nic.kinds.macvlan import Macvlan
from asap2.nic.kinds.vlan import Vlan
from asap2.nic.kinds.vrf import Vrf

BOND: Final = Bond()
"""The kind of bonds."""
VRF: Final = Vrf()
"""The kind of VRF devices."""
KINDS: Final[dict[str, LinkKind]] = {kind.name: kind for kind in (BOND, Dummy(), Macvlan(), Vlan(), VRF)}
"""Every kind, by name."""
KINDS.update((kind.name, kind) for kind in (*tunnel.KINDS, *erspan.KINDS, *plain.KINDS, *ip_in_ip.KINDS))
