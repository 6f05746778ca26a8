# SPDX-License-Identifier: Apache-2.0
"""The page in Chromium, with labs that are not there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.view.conftest import Serve, cpu_seconds

T = TypeVar("T")


def until(page: Chrome, true: Callable[[], T], seconds: float = 20) -> T:
    """What *true* gives, as soon as it is true."""
    wait = WebDriverWait(page, seconds, 0.1, [StaleElementReferenceException, AssertionError])
    return wait.until(lambda _: true())


def all_of(page: Chrome, selector: str) -> list[WebElement]:
    """All elements that a selector matches."""
    return page.find_elements(By.CSS_SELECTOR, selector)


def label(page: Chrome, edge: str) -> str:
    """What a line of the picture says to who does not see it."""
    return page.find_element(By.CSS_SELECTOR, f'[data-edge="{edge}"]').get_attribute("aria-label") or ""


def opened(page: Chrome, url: str) -> None:
    """Load the page, and wait for the picture."""
    page.get(url)
    until(page, lambda: all_of(page, ".vertex"))


def vertex(page: Chrome, identity: str) -> WebElement:
    """A vertex of the picture."""
    return page.find_element(By.CSS_SELECTOR, f'.vertex[data-id="{identity}"]')


def test_the_picture_of_two_nodes_has_what_there_is(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        assert [one.text for one in all_of(page, ".box")] == ["hv1", "hv2"]
        found = {one.get_attribute("data-id") for one in all_of(page, ".vertex")}
        of_hv1 = {one for one in found if one and "hv1" in one}
        assert of_hv1 == {
            *("guest hv1-vm0", "guest hv1-vm1", "nic hv1/nic0", "bridge hv1/br-int", "unused hv1/nic0"),
            *("hv1/nic0/pf0vf0", "hv1/nic0/pf0vf1", "hv1/eth0", "hv1/eth1", "hv1/enp3s0f0", "hv1/br-int"),
        }
        assert len(found) == 2 * len(of_hv1)
        edges = {one.get_attribute("data-edge") for one in all_of(page, ".edge")}
        assert {"cable 0", "guest hv1-vm0 hv1/nic0/pf0vf0", "hv1/nic0/pf0vf0 nic hv1/nic0"} <= edges
        assert {"nic hv1/nic0 hv1/eth0", "hv1/eth0 bridge hv1/br-int", "bridge hv1/br-int hv1/enp3s0f0"} <= edges


def test_nothing_lies_over_anything_else(page: Chrome, synthetic: Serve) -> None:
    with synthetic(8) as (url, _):
        opened(page, url)
        places = page.execute_script(
            "return [...document.querySelectorAll('.vertex rect')].map(one => {"
            "const {left, right, top, bottom} = one.getBoundingClientRect(); return [left, right, top, bottom]})"
        )
        assert len(places) > 80
        for number, (left, right, top, bottom) in enumerate(places):
            for other in places[:number]:
                assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top


def test_numbers_move_and_have_three_colours(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        edge = "hv1/nic0/pf0vf0 nic hv1/nic0"
        said = until(page, lambda: text if "in hardware" in (text := label(page, edge)) else "")
        assert "in software" in said
        assert "refused" in said
        assert "in hardware" not in label(page, "nic hv1/nic0 hv1/eth0")
        texts = all_of(page, f'[data-edge="{edge}"] .label')
        assert [one.text.split()[0] for one in texts] == ["HW", "SW", "✕"]
        assert len({one.value_of_css_property("fill") for one in texts}) == 3
        row = page.find_element(By.XPATH, "//tr[th/button[@data-row='hv1/enp3s0f0']]")
        assert "bit/s" in row.text


def test_a_click_shows_attributes_flows_and_the_reason(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        ActionChains(page).move_to_element(vertex(page, "hv1/eth0")).click().perform()
        panel = page.find_element(By.ID, "panel")
        assert page.find_element(By.ID, "chosen").text == "eth0, representor 0"
        until(page, lambda: "2 flows, 1 in hardware" in panel.text)
        assert "br-int" in page.find_element(By.ID, "attributes").text
        assert "3 in hardware, 1 in software" in panel.text
        flow = page.find_element(By.CSS_SELECTOR, '[data-ufid="u2"]')
        flow.find_element(By.TAG_NAME, "summary").click()
        assert flow.find_element(By.CSS_SELECTOR, "dd.reason").text == "nic.to-host"
        assert "its packets go to the host" in flow.text
        counted = page.find_element(By.CSS_SELECTOR, '[data-ufid="u1"] .counted')
        before = counted.text
        until(page, lambda: counted.text != before)
        assert flow.get_attribute("open"), "a flow that was opened stays open"


def test_connections_are_shown_one_by_one_by_words(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        ActionChains(page).move_to_element(vertex(page, "hv1/eth0")).click().perform()
        until(page, lambda: all_of(page, ".lister summary"))[0].click()
        rows = until(page, lambda: [one.text for one in all_of(page, ".lister tbody tr")])
        assert rows[0] == "tcp src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=80 7 5 ESTABLISHED hardware"
        assert len(rows) == 2
        assert "600 connections, of which 2 are shown" in page.find_element(By.ID, "details").text
        page.find_element(By.CSS_SELECTOR, ".lister input").send_keys("icmp", Keys.ENTER)
        until(page, lambda: len(all_of(page, ".lister tbody tr")) == 1)
        assert "UNREPLIED" in page.find_element(By.CSS_SELECTOR, ".lister tbody").text


def test_all_is_reached_by_the_keyboard(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        focus = page.switch_to
        page.find_element(By.ID, "fit").send_keys(Keys.TAB)
        assert "vertex" in (focus.active_element.get_attribute("class") or "")
        first = focus.active_element.get_attribute("data-id")
        reached = {first}
        for key in [*[Keys.ARROW_DOWN] * 5, *[Keys.ARROW_RIGHT] * 4, *[Keys.ARROW_UP] * 5]:
            focus.active_element.send_keys(key)
            reached.add(focus.active_element.get_attribute("data-id"))
        assert len(reached) > 6
        assert {one.split("/")[0].split(" ")[-1].split("-")[0] for one in reached if one} == {"hv1", "hv2"}
        focus.active_element.send_keys(Keys.ENTER)
        assert focus.active_element.get_attribute("aria-pressed") == "true"
        assert page.find_element(By.ID, "chosen").text != "Nothing is chosen"
        focus.active_element.send_keys(Keys.ESCAPE)
        assert page.find_element(By.ID, "chosen").text == "Nothing is chosen"
        row = page.find_element(By.CSS_SELECTOR, "[data-row='hv2/eth1']")
        row.send_keys(Keys.ENTER)
        assert page.find_element(By.ID, "chosen").text == "eth1, representor 1"


def test_a_screen_reader_has_a_name_for_everything(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        for one in all_of(page, "button, select, input, .vertex"):
            assert one.accessible_name, one.get_attribute("outerHTML")
        assert vertex(page, "hv1/nic0/pf0vf0").aria_role == "button"
        assert vertex(page, "hv1/nic0/pf0vf0").accessible_name.startswith("eth0, VF 0, at hv1")
        assert page.find_element(By.ID, "state").aria_role == "status"
        assert len(all_of(page, "tbody th[scope=row]")) == 20
        assert len(all_of(page, "[tabindex='0']")) == 1


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of ``rgb(…)``."""
    parts = [int(one) / 255 for one in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(page: Chrome, synthetic: Serve, scheme: str) -> None:
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    with synthetic(2) as (url, _):
        opened(page, url)
        paper = luminance(page.find_element(By.ID, "panel").value_of_css_property("background-color"))
        assert (paper > 0.5) == (scheme == "light")
        for selector in (".legend .hardware", ".legend .software", ".legend .dropped", "#state", "#chosen"):
            ink = luminance(page.find_element(By.CSS_SELECTOR, selector).value_of_css_property("color"))
            contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
            assert contrast >= 4.5, selector


def test_the_slider_shows_what_was(page: Chrome, synthetic: Serve) -> None:
    with synthetic(2) as (url, _):
        opened(page, url)
        slider = page.find_element(By.ID, "time")
        until(page, lambda: int(slider.get_attribute("max") or 0) >= 5)
        ActionChains(page).move_to_element(vertex(page, "hv1/eth0")).click().perform()

        def packets() -> int:
            cell = page.find_element(By.CSS_SELECTOR, "#counters tbody td")
            return int(cell.text.replace(",", ""))

        now = until(page, packets)
        slider.send_keys(Keys.HOME)
        shown = page.find_element(By.ID, "shown-time")
        until(page, lambda: "now" not in shown.text)
        past = packets()
        assert past < now
        time.sleep(0.5)
        assert packets() == past
        page.find_element(By.ID, "live").click()
        until(page, lambda: packets() > now)
        assert "now" in shown.text


def busy(page: Chrome) -> float:
    """The CPU time of the page's thread, in seconds."""
    metrics = page.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def test_32_nodes_at_10_updates_a_second(page: Chrome, synthetic: Serve) -> None:
    with synthetic(32) as (url, server):
        opened(page, url)
        until(page, lambda: "in hardware" in label(page, "cable 31"))
        page.execute_script(
            "window.seen = 0; new MutationObserver(() => window.seen++)"
            ".observe(document.querySelector('#counters'), {subtree: true, childList: true, characterData: true})"
        )
        ActionChains(page).move_to_element(vertex(page, "hv1/enp3s0f0")).click().perform()
        page.execute_script("window.seen = 0")
        page.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        began, used, drawn = time.monotonic(), cpu_seconds(server), busy(page)
        time.sleep(8)
        seconds = time.monotonic() - began
        page_cores = (busy(page) - drawn) / seconds
        cores = (cpu_seconds(server) - used) / seconds
        updates = page.execute_script("return window.seen") / seconds
        print(f"{cores:.2f} cores of the server, {page_cores:.2f} of the page, {updates:.1f} updates/s")
        assert cores + page_cores < 0.5
        assert updates > 8
