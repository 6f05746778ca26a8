# SPDX-License-Identifier: Apache-2.0
"""The device models: who each says that it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from asap2.nic.model import MELLANOX, MODELS, model

PCI_IDS = Path("/usr/share/misc/pci.ids")


@pytest.fixture(scope="module")
def devices() -> dict[int, str]:
    """Mellanox's PCI devices, from the system's PCI ID database."""
    if not PCI_IDS.exists():
        pytest.skip("there is no PCI ID database here")
    found, inside = {}, False
    for line in PCI_IDS.read_text(errors="replace").splitlines():
        if line and not line.startswith(("\t", "#")):
            inside = line.startswith(f"{MELLANOX:04x} ")
        elif inside and line.startswith("\t") and not line.startswith("\t\t"):
            found[int(line[1:5], 16)] = line[7:]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_pci_ids_are_those_of_the_database(devices: dict[int, str], name: str) -> None:
    one = MODELS[name]
    assert name in devices[one.device_id]
    assert "Virtual Function" in devices[one.vf_device_id]


@pytest.mark.parametrize(
    ("name", "family", "speed"), [("ConnectX-4 Lx", 14, 25), ("ConnectX-5", 16, 100), ("ConnectX-6 Dx", 22, 100)]
)
def test_firmware_is_of_the_family_and_new_enough_for_the_page(name: str, family: int, speed: int) -> None:
    one = model(name)
    major, minor, patch = map(int, one.firmware.split("."))
    assert major == family
    assert (minor, patch) >= (21, 338)
    assert one.port_speed == speed * 1000
    assert one.board_id.startswith("MT_")


def test_models_differ_where_it_is_told_by() -> None:
    for attribute in ("device_id", "firmware", "board_id", "part_number", "max_rules", "subsystem_id"):
        assert len({getattr(one, attribute) for one in MODELS.values()}) == len(MODELS)


def test_the_name_of_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="known are ConnectX-4 Lx, ConnectX-5, ConnectX-6 Dx"):
        model("ConnectX-3")
