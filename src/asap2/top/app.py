# SPDX-License-Identifier: Apache-2.0
"""The program on a terminal: two tables that follow what passes, with textual."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static

from asap2 import bars
from asap2.errors import Asap2Error, InterruptError
from asap2.output import line, visible
from asap2.quantities import percent, short
from asap2.top import details, plain, rows
from asap2.top.columns import GAP, Column, Row, arranged, fit
from asap2.top.plain import View
from asap2.top.rows import FLOWS, PORTS, FlowRow, PortRow
from asap2.top.watch import Moment, Watch

_BAR = 20
_THEMES = ("ansi-dark", "textual-ansi")
"""Those with the terminal's own colours, by the names that releases of textual have for them."""
_SCROLLBAR = 2
"""Columns that the table's scroll bar takes."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""They end the program as any other, but only when the terminal is as it was."""
KEYS = (
    ("q, Ctrl-C", "quit"),
    ("f", "flows or ports"),
    ("s, >", "sort by the next column"),
    ("<", "sort by the column before"),
    ("r", "reverse the order"),
    ("/", "show only rows that have these words; Esc shows all"),
    ("Enter", "all about the row"),
    ("Space", "pause, and go on"),
    ("arrows, PgUp, PgDn, Home, End", "move"),
    ("?", "these keys"),
)


class Page(ModalScreen[None]):
    """A text over the tables, until a key closes it."""

    CSS = """
    Page { align: center middle; }
    Page > VerticalScroll { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round; padding: 0 1; }
    Page Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "app.pop_screen", "Close"),
    ]

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text."""
        with VerticalScroll():
            yield Static(self._text)


class Top(App[None]):
    """Shows what *watch* sees every *interval* seconds."""

    CSS = """
    #head { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    #table { height: 1fr; }
    #nothing { height: 1fr; display: none; }
    #filter { display: none; border: none; height: 1; padding: 0; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("q,ctrl+q", "quit", "Quit", key_display="q"),
        Binding("f", "flows", "Flows/ports"),
        Binding("s,greater_than_sign", "sort(1)", "Sort", key_display="s"),
        Binding("less_than_sign", "sort(-1)", show=False),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "show_all", show=False),
        Binding("space,p", "pause", "Pause", key_display="space"),
        Binding("question_mark,h,f1", "keys", "Keys", key_display="?"),
    ]

    def __init__(self, watch: Watch, view: View, interval: float) -> None:
        super().__init__(ansi_color=True)
        self.theme = next((theme for theme in _THEMES if theme in self.available_themes), self.theme)
        self.view = view
        self.interval = interval
        self.paused = False
        self.moment: Moment | None = None
        self.trouble = ""
        self._watch = watch
        self._thread = ThreadPoolExecutor(1, "top")  # a collector is for one thread
        self._at_once = asyncio.Event()
        self._shape: tuple[str, list[tuple[str, int]]] = ("", [])
        """The columns of the table, with their widths, and which of them rows are sorted by."""

    @property
    def _base(self) -> Screen[object]:
        """The screen of the tables, also while another is over it."""
        return self.screen_stack[0]

    def compose(self) -> ComposeResult:
        """Totals, table, filter, keys."""
        yield Static(id="head")
        yield DataTable(id="table", cursor_type="row", cell_padding=0)
        yield Static(id="nothing")
        yield Input(placeholder="words, then Enter", id="filter")
        footer = Footer()
        footer.compact = True  # an argument in newer releases alone
        yield footer

    def on_mount(self) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.exit, None, 128 + number)
        self._base.query_one("#table").focus()
        if self.view.filter:
            self._base.query_one("#filter", Input).value = self.view.filter
        self.run_worker(self._follow(), exit_on_error=True)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            if not self.paused:
                try:
                    self.moment = await loop.run_in_executor(self._thread, self._look, self.view.flows)
                    self.trouble = ""
                except Asap2Error as error:
                    self.moment, self.trouble = None, str(error)
                self.draw()
            due = max(due + self.interval, loop.time())
            try:
                await asyncio.wait_for(self._at_once.wait(), due - loop.time())
                self._at_once.clear()
            except TimeoutError:
                pass

    def look_now(self) -> None:
        """Look without waiting for the end of the interval."""
        self._at_once.set()

    def _look(self, flows: bool) -> Moment:
        return self._watch.look(flows=flows)

    def end(self) -> None:
        """Let go of what is watched, after the program has run."""
        self._thread.submit(self._watch.close).result()
        self._thread.shutdown()

    # ---- the picture

    def draw(self) -> None:
        """Show the last moment."""
        if not self._base.query("#table"):  # resized before it was composed
            return
        self._base.query_one("#head", Static).update(self._head())
        found = self._found()
        nothing = self._base.query_one("#nothing", Static)
        table = self._base.query_one("#table", DataTable)
        nothing.display = not found
        table.display = bool(found)
        if found and self._base.focused is None:  # it was hidden
            self._base.set_focus(table)
        nothing.update(Text(self._why_nothing()))
        if self.view.flows:
            self._fill(table, FLOWS, [row for row in found if isinstance(row, FlowRow)])
        else:
            self._fill(table, PORTS, [row for row in found if isinstance(row, PortRow)])

    def _found(self) -> Sequence[PortRow | FlowRow]:
        if self.moment is None:
            return ()
        if self.view.flows:
            return rows.chosen(rows.flows(self.moment) or (), self.view.filter)
        return rows.chosen(rows.ports(self.moment), self.view.filter)

    def _why_nothing(self) -> str:
        if self.moment is None:
            return "" if self.trouble else "reading the counters …"
        if self.view.filter:
            return f"nothing has the words {line(self.view.filter)}; Esc shows all"
        if self.view.flows:
            return "there are no flows" if rows.flows(self.moment) is not None else "reading the flows …"
        return "there are no ports"

    def _head(self) -> Text:
        made = Text(no_wrap=True, overflow="ellipsis")
        if self.moment is None:
            return made.append(
                visible(self.trouble) if self.trouble else "asap2 top", "red" if self.trouble else "bold"
            )
        made.append(line(plain.heading(self.moment.snapshot)), "bold")
        state = ", paused" if self.paused else f", every {self.interval:g} s"
        made.append(f"{state}, by {self._by().heading}{' reversed' if self.view.reverse else ''}")
        if self.view.filter:
            made.append(f", only {line(self.view.filter)}")
        total = rows.totals(self.moment)
        made.append("\n")
        if total.hardware is not None:
            for part in bars.parts(((total.hardware, "green"), (1 - total.hardware, "yellow")), _BAR):
                made.append(*part)
            made.append(f" {percent(total.hardware)} % in hardware", "green" if total.hardware > 0.5 else "yellow")
        else:
            made.append("nothing passes")
        made.append(f", {short(total.packets)} packets/s, {short(total.bits)}bit/s, ")
        made.append(f"{short(total.refused)} refused/s", "red" if total.refused else "")
        for text in rows.troubles(self.moment.snapshot):
            made.append(f"\n{line(text)}", "red")
        return made

    def _fill(self, table: DataTable[Text], columns: Sequence[Column[Row]], found: Sequence[Row]) -> None:
        """Replace the table's rows, with the cursor on the row that it was on; at the top it stays there."""
        position, offset = table.cursor_row, table.scroll_offset
        at = self._selected(table) if position else None
        by = self._by()
        found = arranged(columns, found, by.name, reverse=self.view.reverse)
        shown = fit(columns, found, self._base.size.width - _SCROLLBAR)
        shape = by.name, [(column.name, width) for column, width in shown]
        table.clear(columns=shape != self._shape)
        if shape != self._shape:
            self._shape = shape
            for column, width in shown:
                style = "bold reverse" if column.name == by.name else "bold"
                table.add_column(Text(column.head(width), style), width=width + GAP, key=column.name)
        for row in found:
            cells = [Text(column.cell(row, width), _style(column.name, row)) for column, width in shown]
            table.add_row(*cells, key=row.id)  # type: ignore[attr-defined]
        keys = [row.id for row in found]  # type: ignore[attr-defined]
        table.move_cursor(row=keys.index(at) if at in keys else max(0, min(position, len(keys) - 1)), scroll=False)
        table.scroll_to(offset.x, offset.y, animate=False, immediate=True)

    @staticmethod
    def _selected(table: DataTable[Text]) -> str | None:
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(Coordinate(table.cursor_row, 0)).row_key.value

    def _by(self) -> Column[PortRow] | Column[FlowRow]:
        """The column that rows are sorted by; the first number where the table has none of that name."""
        columns: Sequence[Column[PortRow] | Column[FlowRow]] = FLOWS if self.view.flows else PORTS
        names = [column.name for column in columns]
        return columns[names.index(self.view.sort if self.view.sort in names else rows.NUMBERS_FIRST)]

    # ---- keys

    def action_interrupt(self) -> None:
        """Ctrl-C."""
        self.exit(return_code=InterruptError.status)

    def action_flows(self) -> None:
        """Show the other table."""
        self.view = dataclasses.replace(self.view, flows=not self.view.flows)
        self.draw()
        self.look_now()

    def action_sort(self, step: int) -> None:
        """Sort by another column that is shown."""
        table = self._base.query_one("#table", DataTable)
        names = [str(key.value) for key in table.columns]
        if not names:
            return
        now = names.index(self._by().name) if self._by().name in names else -step
        self._sort_by(names[(now + step) % len(names)])

    def action_reverse(self) -> None:
        """Reverse the order."""
        self.view = dataclasses.replace(self.view, reverse=not self.view.reverse)
        self.draw()

    def action_filter(self) -> None:
        """Ask for words."""
        field = self._base.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_show_all(self) -> None:
        """Show all rows."""
        field = self._base.query_one("#filter", Input)
        field.value = ""
        self._close_filter()

    def action_pause(self) -> None:
        """Look no more, or look again."""
        self.paused = not self.paused
        self.draw()
        self.look_now()

    def action_keys(self) -> None:
        """Show the keys."""
        widest = max(len(key) for key, _ in KEYS)
        self.push_screen(Page(Text("\n".join(f"{key:<{widest}}  {what}" for key, what in KEYS))))

    # ---- events

    def on_resize(self, _event: events.Resize) -> None:
        """The terminal has another size."""
        self.call_after_refresh(self.draw)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Other words."""
        self.view = dataclasses.replace(self.view, filter=event.value)
        self.draw()

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """Back to the table."""
        self._close_filter()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a heading sorts by it; another one reverses the order."""
        name = str(event.column_key.value)
        if name == self._by().name:
            self.action_reverse()
        else:
            self._sort_by(name)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show all about a row."""
        text = details.of(self.moment, str(event.row_key.value)) if self.moment else None
        if text:
            self.push_screen(Page(Text(visible(text))))

    def _sort_by(self, name: str) -> None:
        self.view = dataclasses.replace(self.view, sort=name, reverse=False)
        self.draw()

    def _close_filter(self) -> None:
        self._base.query_one("#filter", Input).display = False
        self._base.query_one("#table").focus()


_COLOURS = {"NIC": "green", "host": "yellow", "both": "yellow"}


def _style(column: str, row: object) -> str:
    if isinstance(row, PortRow):
        if column == "hardware" and row.hardware is not None:
            return "green" if row.hardware > 0.5 else "yellow"
        return "red" if column == "refused" and row.refused else ""
    if isinstance(row, FlowRow) and column == "where":
        return _COLOURS[row.where]
    return ""


def run(watch: Watch, view: View, interval: float) -> int:
    """Run the program until it is told to end; its exit status."""
    app = Top(watch, view, interval)
    try:
        app.run()
    finally:
        app.end()
    return app.return_code or 0
