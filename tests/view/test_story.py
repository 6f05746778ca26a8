# SPDX-License-Identifier: Apache-2.0
"""A packet's story on the page in Chromium: from a file, and of a real lab as it happens."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.view.conftest import Serve
from tests.view.test_picture import all_of, opened, until, vertex
from tests.view.ways import written


def on_the_way(page: Chrome) -> dict[str, tuple[str, str]]:
    """What of the picture belongs to the packet: when it was there, and whether in hardware or software."""
    return {
        one.get_attribute("data-id") or "": (
            one.find_element(By.CSS_SELECTOR, ".badge").text,
            one.get_attribute("data-way") or "",
        )
        for one in all_of(page, ".vertex[data-way]")
    }


def test_a_packet_of_a_file_is_told_on_the_picture(page: Chrome, synthetic: Serve, tmp_path: Path) -> None:
    with synthetic(2, written(tmp_path / "trace.json")) as (url, _):
        opened(page, url)
        until(page, lambda: len(all_of(page, "#ways tr")) == 2)
        second, first = (row.text for row in all_of(page, "#ways tr"))
        assert "seq 1" in first
        assert "partly in software" in first
        assert "seq 2" in second
        assert "in hardware" in second
        assert "trace.json" in page.find_element(By.ID, "packets-about").text

        page.find_element(By.CSS_SELECTOR, '[data-packet="2"]').send_keys(Keys.ENTER)
        assert on_the_way(page) == {
            "guest hv1-vm0": ("1", "hardware"),
            "nic hv1/nic0": ("2", "hardware"),
            "hv1/enp3s0f0": ("3", "hardware"),
            "hv2/enp3s0f0": ("4", "hardware"),
            "nic hv2/nic0": ("5", "hardware"),
            "guest hv2-vm0": ("6", "hardware"),
        }
        lines = {
            one.get_attribute("data-edge"): one.get_attribute("data-way") for one in all_of(page, ".edge[data-way]")
        }
        assert lines["cable 0"] == "hardware"
        assert "guest hv1-vm0 hv1/nic0/pf0vf0" in lines
        assert "hv1/nic0/pf0vf0 nic hv1/nic0" in lines
        story = page.find_element(By.ID, "story")
        assert "25.0 µs HW hv1 wire p0: leaves by wire p0" in story.text
        assert "rewritten: vlan none to 52" in story.text
        assert "matches on eth_type IPv4" in story.text


def test_the_first_packet_goes_through_the_switch_in_software(page: Chrome, synthetic: Serve, tmp_path: Path) -> None:
    with synthetic(2, written(tmp_path / "trace.json")) as (url, _):
        opened(page, url)
        until(page, lambda: all_of(page, '[data-packet="1"]'))[0].send_keys(Keys.ENTER)
        told = on_the_way(page)
        assert told["hv1/eth0"] == ("3", "hardware")
        assert told["bridge hv1/br-int"] == ("4", "software")
        assert told["hv1/enp3s0f0"] == ("5", "hardware")
        assert "because the NIC has no rule" in page.find_element(By.ID, "story").text


def test_steps_are_gone_through_by_keyboard(page: Chrome, synthetic: Serve, tmp_path: Path) -> None:
    with synthetic(2, written(tmp_path / "trace.json")) as (url, _):
        opened(page, url)
        until(page, lambda: all_of(page, '[data-packet="2"]'))[0].send_keys(Keys.ENTER)
        later = next(one for one in all_of(page, "#story .steps button") if one.text == "Later step")
        for place in ("guest hv1-vm0", "nic hv1/nic0", "hv1/enp3s0f0"):
            later.send_keys(Keys.ENTER)
            assert "step" in (vertex(page, place).get_attribute("class") or "").split()
            assert len(all_of(page, ".vertex.step")) == 1
        assert page.find_element(By.CSS_SELECTOR, '#story [aria-current="step"]').get_attribute("data-step") == "2"
        for one in all_of(page, "#story button, #ways button"):
            assert one.accessible_name
        later.send_keys(Keys.ESCAPE)
        assert not all_of(page, "[data-way], .vertex.step, .badge")
        assert not page.find_element(By.ID, "story").is_displayed()


def test_without_a_trace_there_are_no_packets(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        assert not page.find_element(By.ID, "packets").is_displayed()
