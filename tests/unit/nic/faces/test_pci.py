# SPDX-License-Identifier: Apache-2.0
"""PCI functions: configuration space that decodes to what the function is."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import pytest

from asap2.nic.faces.sysfs import pci
from asap2.nic.model import MODELS
from tests.unit.nic.backend import booted, nic

PF = "0000:03:00.0"


def capabilities(space: bytes) -> dict[int, int]:
    """Capability id to place, by following the list; a loop would not end."""
    found: dict[int, int] = {}
    at = space[0x34]
    while at:
        assert at not in found.values()
        found[space[at]] = at
        at = space[at + 1]
    return found


def extended(space: bytes) -> Iterator[tuple[int, int]]:
    at = 0x100
    while at:
        (header,) = struct.unpack_from("<I", space, at)
        yield header & 0xFFFF, at
        assert header >> 20 == 0 or header >> 20 > at
        at = header >> 20


def test_a_pf_is_an_ethernet_controller_with_its_capabilities_in_a_chain() -> None:
    driver, _ = booted()
    pf = driver.nics[0].pfs[0]
    space = pci.config(pf)
    assert len(space) == 4096
    assert struct.unpack_from("<HHH", space) == (0x15B3, 0x1017, 0x0406)
    assert space[9:12] == b"\x00\x00\x02"
    assert set(capabilities(space)) == {0x10, 0x03, 0x11, 0x09, 0x01}
    assert [capability for capability, _ in extended(space)] == [0x0001, 0x000E, 0x0010, 0x0019]
    (bar,) = struct.unpack_from("<Q", space, 0x10)
    assert bar & ~0xF == pci.identity(pf).resources[0][0]


def test_sriov_registers_say_how_many_vfs_there_are() -> None:
    driver, _ = booted()
    pf = driver.nics[0].pfs[0]

    def registers() -> tuple[int, ...]:
        space = pci.config(pf)
        at = dict(extended(space))[0x0010]
        return (*struct.unpack_from("<H", space, at + 8), *struct.unpack_from("<HHHHHH2xH", space, at + 0x0C))

    assert registers() == (0x10, 8, 8, 0, 0, 2, 1, 0x1018)
    driver.set_numvfs(PF, 4)
    assert registers() == (0x19, 8, 8, 4, 0, 2, 1, 0x1018)


def test_a_nic_without_sriov_has_no_such_capability() -> None:
    card = nic(total_vfs=0)
    assert 0x0010 not in dict(extended(pci.config(card.pfs[0])))
    assert pci.last_bus(card) == 3


def test_a_vf_reads_as_ones_and_is_known_by_its_pf() -> None:
    driver, _ = booted()
    driver.set_numvfs(PF, 2)
    pf = driver.nics[0].pfs[0]
    space = pci.config(pf.vfs[1])
    assert space[:4] == b"\xff" * 4
    function = pci.identity(pf.vfs[1])
    assert (function.device, function.irq) == (0x1018, 0)
    whole = pci.identity(pf).resources[7]
    assert whole[0] + pci.VF_BAR == function.resources[0][0]
    assert function.resources[0][1] < whole[1]


def test_binding_turns_on_memory_bus_mastering_and_msix() -> None:
    card = nic()
    unbound = pci.config(card.pfs[0])
    assert struct.unpack_from("<H", unbound, 4) == (0x0002,)
    assert not unbound[0x9C + 3] & 0x80
    card.pfs[0].bound = True
    assert pci.config(card.pfs[0])[0x9C + 3] & 0x80
    assert "DRIVER=mlx5_core" in pci.identity(card.pfs[0]).uevent


def test_two_ports_are_one_multifunction_device_whose_windows_do_not_meet() -> None:
    card = nic(ports=2, total_vfs=64)
    spaces = [pci.config(pf) for pf in card.pfs]
    assert [space[0x0E] for space in spaces] == [0x80, 0x80]
    windows = sorted(r[:2] for pf in card.pfs for r in pci.identity(pf).resources if r[1])
    assert all(before[1] < after[0] for before, after in itertools.pairwise(windows))
    first, last, _ = pci.root_port("0000:00:1e.0", card).resources[15]
    assert first <= windows[0][0]
    assert windows[-1][1] <= last


def test_the_root_port_leads_to_every_bus_of_the_nic() -> None:
    card = nic()
    card.total_vfs = 300
    space = pci.root_port_config("0000:00:1e.0", card)
    assert tuple(space[0x18:0x1B]) == (0, 3, 4)
    assert space[0x0E] & 0x7F == 1


@pytest.mark.parametrize("model", MODELS)
def test_identity_texts(model: str) -> None:
    card = nic(model)
    function = pci.identity(card.pfs[0])
    texts = function.texts()
    assert texts["vendor"] == "0x15b3\n"
    assert texts["class"] == "0x020000\n"
    assert texts["device"] == f"0x{MODELS[model].device_id:04x}\n"
    assert len(texts["resource"].splitlines()) == 13
    assert texts["max_link_width"] == f"{MODELS[model].link_width}\n"
    device, subsystem = MODELS[model].device_id, MODELS[model].subsystem_id
    assert texts["modalias"] == f"pci:v000015B3d{device:08X}sv000015B3sd{subsystem:08X}bc02sc00i00\n"


@pytest.mark.parametrize("model", MODELS)
def test_vital_product_data_sums_to_zero_and_names_the_part(model: str) -> None:
    data = pci.vital_product_data(nic(model))
    end = data.index(b"RV\x01") + 4
    assert sum(data[:end]) & 0xFF == 0
    assert data[end:] == b"\x78"
    assert MODELS[model].part_number.encode() in data
