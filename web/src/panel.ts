// SPDX-License-Identifier: Apache-2.0
// What is chosen: its attributes, counters, flows with reasons, and connections.
import { bits, count, KINDS, packets, STILL } from "./format";
import type { Vertex } from "./layout";
import { At, of } from "./model";
import type { Detail, Flow, History, Rates } from "./model";

const DIRECTIONS: [string, At, At][] = [
  ["in, hardware", At.HardwareInPackets, At.HardwareInBytes],
  ["in, software", At.SoftwareInPackets, At.SoftwareInBytes],
  ["out, hardware", At.HardwareOutPackets, At.HardwareOutBytes],
  ["out, software", At.SoftwareOutPackets, At.SoftwareOutBytes],
];

/** A new element. */
export function element<K extends keyof HTMLElementTagNameMap>(name: K, text = "", kind = ""): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

export class Panel {
  private chosen: Vertex | null = null;
  private readonly open = new Set<string>();
  private flows = new Map<string, { box: HTMLDetailsElement; line: HTMLElement; text: string }>();

  constructor(
    private readonly title: HTMLElement,
    private readonly attributes: HTMLElement,
    private readonly counters: HTMLElement,
    private readonly details: HTMLElement,
    /** Other connections are to be listed. */
    private readonly ask: () => void,
  ) {}

  /** Words of the connections that are listed one by one; null: none are. */
  listed: string | null = null;

  show(vertex: Vertex | null, history: History): void {
    this.chosen = vertex;
    this.flows.clear();
    this.title.textContent = vertex ? `${vertex.title}, ${vertex.under}` : "Nothing is chosen";
    this.attributes.replaceChildren();
    this.counters.replaceChildren();
    this.details.replaceChildren(element("p", vertex?.node ? "Flows are being read." : ""));
    if (!vertex) return;
    for (const [name, value] of attributes(vertex, history)) {
      this.attributes.append(element("dt", name), element("dd", value));
    }
  }

  update(history: History, found: Rates, at: number | null): void {
    const vertex = this.chosen;
    const numbers = vertex ? history.counters(vertex.id, at) : null;
    if (!vertex) return;
    if (!numbers) {
      if (vertex.kind === "nic") this.drops(vertex, history);
      return;
    }
    const rate = of(found, history, vertex.id);
    const rows = DIRECTIONS.map(([name, packet, octet]) => [
      name,
      count(numbers[packet]!),
      rate && rate[packet]! >= STILL ? packets(rate[packet]!) : "–",
      rate && rate[octet]! >= STILL ? bits(rate[octet]!) : "–",
    ]);
    rows.push(["refused", count(numbers[At.Dropped]!), rate && rate[At.Dropped]! >= STILL ? packets(rate[At.Dropped]!) : "–", ""]);
    this.table(["", "packets", "now", "now"], rows, "Counters");
  }

  private drops(vertex: Vertex, history: History): void {
    let place = 0;
    for (const node of history.snapshot.nodes) {
      for (const nic of node.nics) {
        if (`nic ${node.name}/${nic.name}` === vertex.id) {
          const rows = Object.entries(history.drops[place] ?? {}).map(([reason, number]) => [reason, count(number)]);
          this.table(["refused because of", "packets"], rows.length ? rows : [["nothing yet", "0"]], "Packets that the eSwitch has refused");
        }
        place++;
      }
    }
  }

  /** A table in the counters' place; cells that stay the same are left alone. */
  private table(heads: string[], rows: string[][], caption: string): void {
    let table = this.counters.querySelector("table");
    if (!table || table.tBodies[0]?.rows.length !== rows.length) {
      table = element("table");
      table.append(element("caption", caption));
      const head = table.createTHead().insertRow();
      for (const text of heads) {
        const cell = element("th", text);
        cell.scope = "col";
        head.append(cell);
      }
      const body = table.createTBody();
      for (const row of rows) {
        const line = body.insertRow();
        row.forEach((_, at) => (at ? line.insertCell() : line.appendChild(element("th"))));
      }
      this.counters.replaceChildren(table);
    }
    rows.forEach((row, y) =>
      row.forEach((text, x) => {
        const cell = table.tBodies[0]!.rows[y]!.cells[x]!;
        if (cell.textContent !== text) cell.textContent = text;
      }),
    );
  }

  detail(found: Detail, history: History): void {
    const vertex = this.chosen;
    if (!vertex) return;
    const names = ports(vertex, history);
    const flows = found.flows.filter((flow) => names === null || names(flow.in_port) || flow.outputs.some(names));
    flows.sort((one, other) => other.packets - one.packets);
    if (!this.details.querySelector(".flows")) this.frame();
    const text = this.details.querySelector(".summary")!;
    const hardware = flows.filter((flow) => flow.offloaded === "yes").length;
    text.textContent = found.trouble ?? `${flows.length} flows, ${hardware} in hardware`;
    this.list(this.details.querySelector(".flows")!, flows);
    this.connections(this.details.querySelector(".connections")!, found);
    this.listing(found);
  }

  private frame(): void {
    this.details.replaceChildren(
      element("h3", "Flows"),
      element("p", "", "summary"),
      element("div", "", "flows"),
      element("h3", "Connections of the node"),
      element("div", "", "connections"),
      this.lister(),
    );
  }

  /** What lists connections one by one, once it is opened, and the words that they are to have. */
  private lister(): HTMLElement {
    const box = element("details", "", "lister");
    box.open = this.listed !== null;
    const label = element("label", "Only those with ");
    const words = element("input");
    words.type = "search";
    words.placeholder = "10.57.0.2 tcp hardware";
    words.value = this.listed ?? "";
    label.append(words);
    const tell = (): void => {
      this.listed = box.open ? words.value.trim() : null;
      this.ask();
    };
    box.addEventListener("toggle", () => {
      if (box.open !== (this.listed !== null)) tell();
    });
    words.addEventListener("change", tell);
    words.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") event.stopPropagation();
    });
    const table = element("table");
    const head = table.createTHead().insertRow();
    for (const text of ["connection", "zone", "mark", "state", "where"]) {
      const cell = element("th", text);
      cell.scope = "col";
      head.append(cell);
    }
    table.createTBody();
    box.append(element("summary", "One by one"), label, element("p", "", "matching"), table);
    return box;
  }

  private listing(found: Detail): void {
    const known = found.listings.find((one) => one.words === this.listed);
    const box = this.details.querySelector(".lister");
    if (!box || !known) return;
    const shown = known.entries.length;
    box.querySelector(".matching")!.textContent =
      known.matching > shown ? `${count(known.matching)} connections, of which ${count(shown)} are shown` : `${count(shown)} connections`;
    const body = element("tbody");
    for (const one of known.entries) {
      const row = body.insertRow();
      const place = one.hardware ? "hardware" : "software";
      for (const text of [`${one.protocol} ${one.original}`, String(one.zone), String(one.mark), one.state, place]) row.insertCell().textContent = text;
      row.cells[4]!.className = place;
    }
    box.querySelector("tbody")!.replaceWith(body);
  }

  private list(parent: Element, flows: Flow[]): void {
    const present = new Set(flows.map((flow) => flow.ufid));
    for (const [ufid, { box }] of this.flows) {
      if (!present.has(ufid)) {
        box.remove();
        this.flows.delete(ufid);
      }
    }
    for (const flow of flows) {
      let shown = this.flows.get(flow.ufid);
      const text = JSON.stringify({ ...flow, packets: 0, bytes: 0 });
      if (!shown || shown.text !== text) {
        shown?.box.remove();
        shown = this.flow(flow, text);
        this.flows.set(flow.ufid, shown);
        parent.append(shown.box);
      }
      const line = `${count(flow.packets)} packets, ${count(flow.bytes)} bytes`;
      if (shown.line.textContent !== line) shown.line.textContent = line;
    }
  }

  private flow(flow: Flow, text: string): { box: HTMLDetailsElement; line: HTMLElement; text: string } {
    const box = element("details", "", `flow ${flow.offloaded === "yes" ? "hardware" : "software"}`);
    box.dataset["ufid"] = flow.ufid;
    box.open = this.open.has(flow.ufid);
    box.addEventListener("toggle", () => (box.open ? this.open.add(flow.ufid) : this.open.delete(flow.ufid)));
    const summary = element("summary");
    const place = flow.offloaded === "yes" ? "hardware" : `software: ${flow.code}`;
    summary.append(element("b", `${flow.in_port} → ${flow.outputs.join(", ") || "dropped"}`), element("span", place, "place"));
    const line = element("span", "", "counted");
    summary.append(line);
    const list = element("dl");
    const rows: [string, string][] = [
      ["match", flow.match],
      ["actions", flow.actions],
    ];
    if (flow.offloaded !== "yes") rows.push(["reason", flow.code], ["why", flow.why], ["found", flow.found], ["to do", flow.fix]);
    for (const [name, value] of rows) list.append(element("dt", name), element("dd", value, name === "reason" ? "reason" : ""));
    box.append(summary, list);
    return { box, line, text };
  }

  private connections(parent: Element, found: Detail): void {
    const known = found.connections;
    const lines = known ? [`${count(known.hardware)} in hardware, ${count(known.software)} in software`] : ["None are tracked."];
    for (const one of found.tracked) lines.push(`${count(one.count)} × ${one.what} (${one.code}): ${one.why}; such as ${one.example}`);
    if (parent.textContent !== lines.join("")) parent.replaceChildren(...lines.map((line) => element("p", line)));
  }
}

function attributes(vertex: Vertex, history: History): [string, string][] {
  const found: [string, string | null | undefined][] = [["node", vertex.node]];
  const port = history.port(vertex.id);
  if (port) {
    found.push(["kind", KINDS[port.kind]], ["NIC", port.nic], ["PF", text(port.pf)], ["VF", text(port.vf)]);
    found.push(["guest", port.guest], ["bridge", port.bridge], ["MAC address", port.mac]);
    found.push(["link", port.up === null ? null : port.up ? "up" : "down"], ["other side", port.twin]);
  }
  for (const node of history.snapshot.nodes) {
    const nic = node.nics.find((one) => `nic ${node.name}/${one.name}` === vertex.id);
    if (nic) {
      found.push(["model", nic.model], ["PCI address", nic.address], ["eSwitch mode", nic.mode]);
      found.push(["PFs", nic.pfs.join(", ")]);
    }
  }
  const guest = history.snapshot.guests.find((one) => `guest ${one.name}` === vertex.id);
  if (guest) found.push(["device", guest.device], ["addresses", guest.addresses.join(", ")], ["VF", guest.port]);
  return found.filter((row): row is [string, string] => Boolean(row[1]));
}

const text = (number: number | null): string | null => (number === null ? null : String(number));

/** Whether a port of the datapath is what was chosen, or of it; null: all are. */
function ports(vertex: Vertex, history: History): ((name: string) => boolean) | null {
  const port = history.port(vertex.id);
  if (vertex.kind === "nic") {
    const own = history.ports.filter((one) => `nic ${vertex.node}/${one.nic}` === vertex.id && one.kind !== "vf");
    const names = new Set(own.map((one) => one.name));
    return (name) => names.has(name);
  }
  if (vertex.kind === "guest") {
    const guest = history.snapshot.guests.find((one) => `guest ${one.name}` === vertex.id);
    const twin = history.port(history.port(guest?.port)?.twin);
    return (name) => name === twin?.name;
  }
  if (!port) return null;
  if (port.kind === "tunnel") {
    const kind = history.snapshot.tunnels.find((one) => one.port === port.id)?.kind ?? port.name;
    return (name) => name === port.name || name.startsWith(`${kind.slice(0, 5)}_sys`) || name.startsWith(`${kind}_sys`);
  }
  const twin = port.kind === "vf" ? history.port(port.twin) : port;
  return (name) => name === twin?.name;
}
