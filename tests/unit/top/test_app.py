# SPDX-License-Identifier: Apache-2.0
"""The program on a terminal: keys, sizes, and a lab that goes down meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from asap2.errors import InterruptError
from asap2.top.app import Page, Top
from asap2.top.plain import View
from asap2.top.watch import Watch
from tests.unit.top.made import Collector

INTERVAL = 3600
"""Seconds: a test says itself when to look."""
PORTS = View()
Story = Callable[[Top, Pilot[Any]], Awaitable[None]]


def play(
    story: Story,
    collector: Collector,
    view: View = PORTS,
    size: tuple[int, int] = (80, 24),
) -> Top:
    """Run *story* with the program, and end it."""
    app = Top(Watch(lambda: collector), view, INTERVAL)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.moment is not None)
            await look(app, pilot)
            await story(app, pilot)

    try:
        asyncio.run(run())
    finally:
        app.end()
    return app


async def until(pilot: Pilot[Any], holds: Callable[[], bool]) -> None:
    """Let the program go on until *holds*."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        await pilot.pause()
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"it did not come to that; shown are {shown(pilot.app)}, {head(pilot.app)}")


async def look(app: Top, pilot: Pilot[Any]) -> None:
    """Have it look once more."""
    before = app.moment, app.trouble
    app.look_now()
    await until(pilot, lambda: app.moment is not before[0] or app.trouble != before[1])
    await pilot.pause()


def table(app: Any) -> DataTable[Any]:
    found: DataTable[Any] = app.screen_stack[0].query_one("#table", DataTable)
    return found


def shown(app: Any) -> list[str]:
    """The lines of the table, if there is one."""
    found = table(app)
    if not found.display:
        return []
    return [" ".join(str(cell) for cell in found.get_row_at(number)) for number in range(found.row_count)]


def head(app: Any) -> str:
    return str(app.screen_stack[0].query_one("#head", Static).content)


def names(app: Any) -> list[str]:
    return [str(key.value) for key in table(app).columns]


def two() -> Collector:
    return Collector(("hv1", 1000, 0), ("hv2", 3000, 1000))


def test_ports_and_totals_are_shown_and_move() -> None:
    collector = two()

    async def story(app: Top, pilot: Pilot[Any]) -> None:
        assert "80.0 % in hardware" in head(app)
        assert "lab made, 2 nodes, 2 guests" in head(app)
        assert "10k packets/s" in head(app)
        numbers = ["4k", "4k", "3.2M", "3.2M", "75.0", "1"]
        assert shown(app)[0].split() == ["hv2", "p0", "uplink", *numbers]
        assert shown(app)[1].split() == ["hv2", "eth0", "vm-hv2", "vf", "eth0", *numbers]
        collector.rates = (("hv1", 0, 0), ("hv2", 900_000, 0))
        await look(app, pilot)
        assert shown(app)[1].split()[5:7] == ["2.69M", "2.69M"]

    play(story, collector)


def test_another_column_sorts_and_r_reverses() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("s")
        assert app.view.sort == names(app)[names(app).index("in") + 1] == "out"
        for _ in range(names(app).index("hardware") - names(app).index("out")):
            await pilot.press("greater_than_sign")
        assert app.view.sort == "hardware"
        assert shown(app)[0].split()[0] == "hv1"
        await pilot.press("r")
        assert shown(app)[0].split()[0] == "hv2"
        await pilot.press("less_than_sign")
        assert app.view.sort == "out-bits"

    play(story, two())


def test_a_click_on_a_heading_sorts_by_it_and_another_reverses() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.click("#table", offset=(1, 0))
        await until(pilot, lambda: app.view.sort == "node" and not app.view.reverse)
        await pilot.click("#table", offset=(1, 0))
        await until(pilot, lambda: app.view.reverse)

    play(story, two())


def test_the_filter_leaves_rows_with_the_words_and_escape_shows_all() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("slash", *"vf hv2")
        await until(pilot, lambda: len(shown(app)) == 1)
        assert "only vf hv2" in head(app)
        await pilot.press("enter")
        assert not app.query_one("#filter", Input).display
        await pilot.press("slash", *"zz", "enter")
        await until(pilot, lambda: not shown(app))
        assert "nothing has the words zz; Esc shows all" in str(app.query_one("#nothing", Static).content)
        await pilot.press("escape")
        await until(pilot, lambda: len(shown(app)) == 6)

    play(story, two())


def test_letters_of_the_filter_are_no_keys() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("slash", *"qfrs")
        assert app.query_one("#filter", Input).value == "qfrs"
        assert app.is_running
        assert not app.view.flows

    play(story, two())


def test_f_shows_flows_and_ports_again() -> None:
    collector = two()

    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("f")
        await until(pilot, lambda: "match" in names(app))
        await look(app, pilot)
        await look(app, pilot)
        assert len(shown(app)) == 4
        assert "3k" in shown(app)[0]
        assert collector.wanted == {"hv1", "hv2"}
        assert any("nic.match" in line and "host" in line for line in shown(app))
        await pilot.press("f")
        await until(pilot, lambda: "guest" in names(app))
        await until(pilot, lambda: not collector.wanted)

    play(story, collector)


@pytest.mark.parametrize(("width", "one"), [(200, "bridge"), (80, "refused"), (56, "in-bits"), (42, "hardware")])
def test_columns_fit_the_terminal(width: int, one: str) -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:  # noqa: ARG001
        assert sum(column.get_render_width(table(app)) for column in table(app).columns.values()) <= width
        assert {one, "node", "port", "in", "out", "hardware"} <= set(names(app))

    play(story, two(), size=(width, 24))


def test_the_terminal_may_change_its_size() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        before = set(names(app))
        await pilot.resize_terminal(50, 12)
        await until(pilot, lambda: set(names(app)) < before)
        await pilot.resize_terminal(200, 40)
        await until(pilot, lambda: "bridge" in names(app))

    play(story, two())


def test_the_cursor_stays_on_its_row_while_rows_move() -> None:
    collector = two()

    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("down")
        at = table(app).coordinate_to_cell_key(table(app).cursor_coordinate).row_key.value
        assert at == "hv2/nic0/pf0vf0"
        collector.rates = (("hv1", 900_000, 0), ("hv2", 3000, 1000))
        await look(app, pilot)
        assert shown(app)[0].startswith("hv1")
        now = table(app).coordinate_to_cell_key(table(app).cursor_coordinate).row_key.value
        assert (now, table(app).cursor_row) == (at, 3)

    play(story, collector)


def test_a_lab_without_ports_says_so() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        assert "there are no ports" in str(app.query_one("#nothing", Static).content)
        assert "nothing passes" in head(app)
        await pilot.press("s", "enter", "down", "r", "f")
        await until(pilot, lambda: "flows" in str(app.query_one("#nothing", Static).content))

    play(story, Collector())


def test_a_lab_that_goes_down_and_comes_back_is_followed() -> None:
    collector = two()

    async def story(app: Top, pilot: Pilot[Any]) -> None:
        collector.down = True
        await look(app, pilot)
        assert "no lab is up; `asap2 lab up TOPOLOGY` makes one" in head(app)
        assert shown(app) == []
        await pilot.press("s", "f", "f", "enter")
        collector.down = False
        await look(app, pilot)
        assert len(shown(app)) == 6
        assert "no lab" not in head(app)

    play(story, collector)
    assert collector.closed >= 2


def test_space_pauses_and_goes_on() -> None:
    collector = two()

    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("space")
        await until(pilot, lambda: "paused" in head(app))
        at = collector.seconds
        app.look_now()
        for _ in range(5):
            await pilot.pause(0.01)
        assert collector.seconds == at
        await pilot.press("space")
        await until(pilot, lambda: collector.seconds > at)

    play(story, collector)


def test_enter_shows_all_about_a_row_while_the_table_goes_on() -> None:
    collector = two()

    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, Page))
        text = str(app.screen.query_one(Static).content)
        for fact in ("eth0, vf of hv2", "nic0, ConnectX-5, 0000:03:00.0, switchdev", "PF 0, VF 0", "vm-hv2", "br-int"):
            assert fact in text
        await look(app, pilot)
        await pilot.press("escape")
        assert not isinstance(app.screen, Page)
        await pilot.press("f")
        await until(pilot, lambda: len(shown(app)) == 4)
        await pilot.press("down", "down", "down", "enter")
        await until(pilot, lambda: isinstance(app.screen, Page))
        assert "leave it out" in str(app.screen.query_one(Static).content)

    play(story, collector)


def test_question_mark_shows_the_keys_and_q_closes_only_them() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Page))
        assert "show only rows" in str(app.screen.query_one(Static).content)
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, Page))
        assert app.is_running

    play(story, two())


def test_the_keys_are_shown_at_the_bottom_of_80_columns() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:  # noqa: ARG001
        from textual.widgets import Footer

        footer = app.query_one(Footer)
        words = "".join(segment.text for strip in footer.screen._compositor.render_strips() for segment in strip)
        for word in ("Quit", "Flows/ports", "Sort", "Reverse", "Filter", "Pause", "Keys"):
            assert word in words

    play(story, two())


@pytest.mark.parametrize(("key", "status"), [("q", 0), ("ctrl+q", 0), ("ctrl+c", InterruptError.status)])
def test_a_key_ends_the_program(key: str, status: int) -> None:
    collector = two()

    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await pilot.press(key)
        await until(pilot, lambda: not app.is_running)

    assert play(story, collector).return_code == status
    assert collector.closed == 1


def test_names_are_no_markup_and_no_escape_sequences() -> None:
    async def story(app: Top, pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: any("[red]" in line for line in shown(app)))
        assert not any("\x1b" in line for line in shown(app))
        await pilot.press("slash", *"[red]", "enter")
        assert len(shown(app)) == 3
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Page))
        assert "[red]" in str(app.screen.query_one(Static).content)

    play(story, Collector(("[red]\x1b]0;x\x07", 10, 0), ("hv2", 5, 5)), size=(120, 24))
