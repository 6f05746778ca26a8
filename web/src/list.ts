// SPDX-License-Identifier: Apache-2.0
// The list beside the picture: the same ports as rows of a table, for who does not see, or does not want, a picture.
import { bits, KINDS, packets, STILL } from "./format";
import { of, way } from "./model";
import type { History, Port, Rates } from "./model";
import type { Unit } from "./picture";

export class List {
  private rows: { port: Port; cells: HTMLElement[]; button: HTMLElement }[] = [];

  constructor(
    private readonly body: HTMLTableSectionElement,
    private readonly choose: (id: string) => void,
  ) {}

  draw(history: History): void {
    const focused = document.activeElement?.getAttribute("data-row");
    this.body.replaceChildren();
    this.rows = [];
    for (const node of history.snapshot.nodes) {
      for (const port of node.ports) {
        const row = this.body.insertRow();
        const head = document.createElement("th");
        head.scope = "row";
        const button = document.createElement("button");
        button.textContent = port.name;
        button.dataset["row"] = port.id;
        button.addEventListener("click", () => this.choose(port.id));
        head.append(button);
        row.append(head);
        const kind = port.vf !== null ? `${KINDS[port.kind]} ${port.vf}` : KINDS[port.kind];
        for (const text of [node.name, kind, port.guest ?? port.bridge ?? ""]) row.insertCell().textContent = text;
        const cells = ["hardware", "software", "dropped"].map((name) => {
          const cell = row.insertCell();
          cell.className = `number ${name}`;
          return cell;
        });
        this.rows.push({ port, cells, button });
        if (focused === port.id) button.focus();
      }
    }
  }

  selected(id: string | null): void {
    for (const { port, button } of this.rows) button.setAttribute("aria-pressed", String(port.id === id));
  }

  update(history: History, found: Rates, unit: Unit): void {
    for (const { port, cells } of this.rows) {
      const { hardware, software, dropped } = way(of(found, history, port.id), unit);
      const shown = unit === "bytes" ? bits : packets;
      const texts = [hardware, software].map((rate) => (rate >= STILL ? shown(rate) : "–"));
      texts.push(dropped >= STILL ? packets(dropped) : "–");
      cells.forEach((cell, at) => {
        if (cell.textContent !== texts[at]) cell.textContent = texts[at]!;
      });
    }
  }
}
