// SPDX-License-Identifier: Apache-2.0
// The picture as SVG: made anew for a new structure, after that only what has changed is touched.
import { select } from "d3-selection";
import { zoom, zoomIdentity } from "d3-zoom";
import { bits, packets, sentence, STILL } from "./format";
import type { Edge, Layout, Vertex } from "./layout";
import { of, way } from "./model";
import type { History, Rates, Way } from "./model";
import type { Story } from "./story";

const SVG = "http://www.w3.org/2000/svg";
export type Unit = "bytes" | "packets";

function made(name: string, attributes: Record<string, string | number>, parent?: Element): SVGElement {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  parent?.append(element);
  return element;
}

interface Drawn {
  edge: Edge;
  group: SVGElement;
  lines: Record<keyof Way, SVGElement>;
  labels: Record<keyof Way, SVGElement>;
  shown: string;
}

export class Picture {
  private readonly root: SVGElement;
  private edges: Drawn[] = [];
  private vertices = new Map<string, { vertex: Vertex; group: SVGElement }>();
  private readonly moving = zoom<SVGSVGElement, unknown>().scaleExtent([0.05, 4]);
  private current: string | null = null;
  /** Whether numbers would be too small to read: they are not drawn then, which is most of the work. */
  private far = false;
  private size = { width: 1, height: 1 };

  constructor(
    private readonly svg: SVGSVGElement,
    private readonly choose: (vertex: Vertex) => void,
  ) {
    this.root = made("g", { class: "all" }, svg);
    this.moving.on("zoom", (event: { transform: { k: number; toString(): string } }) => {
      this.root.setAttribute("transform", event.transform.toString());
      this.far = event.transform.k < LEGIBLE;
      svg.classList.toggle("far", this.far);
    });
    select(svg).call(this.moving).on("dblclick.zoom", null);
    svg.addEventListener("keydown", (event) => this.key(event));
  }

  draw(layout: Layout): void {
    const focused = document.activeElement?.getAttribute("data-id");
    this.root.replaceChildren();
    this.size = layout;
    for (const box of layout.boxes) {
      const group = made("g", { class: box.state === "up" ? "box" : "box bad" }, this.root);
      made("rect", { x: box.x, y: box.y, width: box.width, height: box.height, rx: 8 }, group);
      const text = made("text", { x: box.x + 12, y: box.y + 19 }, group);
      text.textContent = box.state === "up" ? box.name : `${box.name}: ${box.state}`;
    }
    const lines = made("g", { class: "edges" }, this.root);
    const boxes = made("g", { class: "vertices" }, this.root);
    this.edges = layout.edges.map((edge) => this.edge(edge, layout, lines));
    this.vertices = new Map();
    for (const vertex of layout.vertices.values()) {
      this.vertices.set(vertex.id, { vertex, group: this.vertex(vertex, boxes) });
    }
    const first = this.current && this.vertices.has(this.current) ? this.current : [...this.vertices.keys()][0];
    if (first) this.rove(first, false);
    if (focused && this.vertices.has(focused)) this.rove(focused, true);
  }

  /** Have the whole picture in sight. */
  fit(): void {
    const { clientWidth, clientHeight } = this.svg;
    if (!clientWidth || !clientHeight) return;
    const scale = Math.min(clientWidth / this.size.width, clientHeight / this.size.height, 1.4);
    const x = (clientWidth - this.size.width * scale) / 2;
    const y = (clientHeight - this.size.height * scale) / 2;
    select(this.svg).call(this.moving.transform, zoomIdentity.translate(x, y).scale(scale));
  }

  scale(by: number): void {
    select(this.svg).call(this.moving.scaleBy, by);
  }

  selected(id: string | null): void {
    for (const [key, { group }] of this.vertices) group.setAttribute("aria-pressed", String(key === id));
  }

  /** Show the way of a packet, or none: where it was is numbered in its order. `step` is a step that stands out. */
  tell(told: Story | null, step: number | null): void {
    for (const { group } of this.vertices.values()) {
      delete group.dataset["way"];
      group.classList.remove("step");
      group.querySelector(".badge")?.remove();
    }
    for (const { group } of this.edges) delete group.dataset["way"];
    this.svg.classList.toggle("told", told !== null);
    if (!told) return;
    told.visits.forEach(({ vertex, steps, medium }, place) => {
      const group = this.vertices.get(vertex)?.group;
      if (!group) return;
      group.dataset["way"] = group.dataset["way"] === "software" ? "software" : medium;
      const badge = group.querySelector(".badge") ?? made("text", { class: "badge", x: 0, y: -5 }, group);
      badge.textContent = badge.textContent ? `${badge.textContent}, ${place + 1}` : String(place + 1);
      if (step !== null && steps.includes(step)) group.classList.add("step");
    });
    const taken = new Map(told.passages.map(({ edge, medium }) => [edge, medium]));
    for (const { edge, group } of this.edges) {
      const medium = taken.get(edge.id);
      if (medium) group.dataset["way"] = medium;
    }
  }

  /** Show rates; with *words*, also in what screen readers read, which need it less often. */
  update(history: History, found: Rates, unit: Unit, words: boolean): void {
    for (const drawn of this.edges) {
      const { edge } = drawn;
      if (!edge.port || edge.part === "none") continue;
      const numbers = of(found, history, edge.port);
      const counted = part(way(numbers, unit), edge);
      if (words) spoken(drawn.group, `${edge.words}: ${sentence(part(way(numbers, "packets"), edge))}`);
      const texts = NAMES.map((name) => (counted[name] < STILL ? "" : this.far ? String(thickness(counted[name])) : text(name, counted[name], unit)));
      const key = texts.join();
      if (key === drawn.shown) continue;
      drawn.shown = key;
      NAMES.forEach((name, at) => {
        const moves = counted[name] >= STILL;
        changed(drawn.lines[name], "class", moves ? `${name} moves` : name);
        if (moves) changed(drawn.lines[name], "stroke-width", String(thickness(counted[name])));
        if (!this.far && drawn.labels[name].textContent !== texts[at]) drawn.labels[name].textContent = texts[at]!;
      });
    }
    const focused = this.current ? this.vertices.get(this.current) : undefined;
    if (focused && words) this.label(focused.vertex, focused.group, history, found);
  }

  private label(vertex: Vertex, group: SVGElement, history: History, found: Rates): void {
    const numbers = of(found, history, vertex.id);
    const traffic = numbers ? `: ${sentence(way(numbers, "packets"))}` : "";
    spoken(group, named(vertex) + traffic);
  }

  private edge(edge: Edge, layout: Layout, parent: Element): Drawn {
    const from = layout.vertices.get(edge.from)!;
    const to = layout.vertices.get(edge.to)!;
    const group = made("g", { class: `edge ${edge.what}`, role: "img", "aria-label": edge.words, "data-edge": edge.id }, parent);
    const path = curve(from, to, edge, layout);
    made("path", { class: "base", d: path.d(0) }, group);
    const line = (name: string, aside: number): SVGElement => made("path", { class: name, d: path.d(aside) }, group);
    const label = (name: string, row: number): SVGElement =>
      made("text", { class: `label ${name}`, x: path.x + 9, y: path.y + row * 13 - 6 }, group);
    const lines = { hardware: line("hardware", -3), software: line("software", 3), dropped: line("dropped", 8) };
    const labels = { hardware: label("hardware", 0), software: label("software", 1), dropped: label("dropped", 2) };
    return { edge, group, lines, labels, shown: "" };
  }

  private vertex(vertex: Vertex, parent: Element): SVGElement {
    const group = made(
      "g",
      {
        class: `vertex ${vertex.kind}`,
        role: "button",
        tabindex: -1,
        "aria-label": named(vertex),
        "aria-pressed": "false",
        "data-id": vertex.id,
        transform: `translate(${vertex.x - vertex.width / 2},${vertex.y - vertex.height / 2})`,
      },
      parent,
    );
    made("rect", { width: vertex.width, height: vertex.height, rx: vertex.kind === "guest" ? 14 : 5 }, group);
    const middle = vertex.width / 2;
    made("text", { class: "title", x: middle, y: 16, "text-anchor": "middle" }, group).textContent = vertex.title;
    made("text", { class: "under", x: middle, y: 30, "text-anchor": "middle" }, group).textContent = vertex.under;
    group.addEventListener("click", () => {
      this.rove(vertex.id, true);
      this.choose(vertex);
    });
    group.addEventListener("focus", () => this.rove(vertex.id, false));
    return group;
  }

  /** One vertex is in the tab order; arrow keys go from it to the next one in their direction. */
  private rove(id: string, focus: boolean): void {
    if (this.current) this.vertices.get(this.current)?.group.setAttribute("tabindex", "-1");
    this.current = id;
    const group = this.vertices.get(id)?.group;
    group?.setAttribute("tabindex", "0");
    if (focus) group?.focus();
  }

  private key(event: KeyboardEvent): void {
    const now = this.current ? this.vertices.get(this.current)?.vertex : undefined;
    if (!now || document.activeElement?.getAttribute("data-id") !== now.id) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(now);
      return;
    }
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    let best: Vertex | null = null;
    let least = Infinity;
    for (const { vertex } of this.vertices.values()) {
      const x = vertex.x - now.x;
      const y = vertex.y - now.y;
      const along = x * step[0]! + y * step[1]!;
      const aside = Math.abs(x * step[1]!) + Math.abs(y * step[0]!);
      if (along > 1 && along + 2 * aside < least) {
        least = along + 2 * aside;
        best = vertex;
      }
    }
    if (best) this.rove(best.id, true);
  }
}

/** The least scale at which numbers can be read. */
const LEGIBLE = 0.5;
const NAMES = ["hardware", "software", "dropped"] as const;

const thickness = (rate: number): number => 1.5 + Math.min(4, Math.round(Math.log10(1 + rate)) / 2);

function text(name: keyof Way, rate: number, unit: Unit): string {
  return `${LETTERS[name]} ${name !== "dropped" && unit === "bytes" ? bits(rate) : packets(rate)}`;
}

function changed(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

const spoken = (element: Element, words: string): void => changed(element, "aria-label", words);

const LETTERS: Record<keyof Way, string> = { hardware: "HW", software: "SW", dropped: "✕" };

/** Of what passes a port, what passes this line. */
function part(whole: Way, edge: Edge): Way {
  return edge.part === "software" ? { hardware: 0, software: whole.software, dropped: 0 } : whole;
}

function named(vertex: Vertex): string {
  return `${vertex.title}, ${vertex.under}${vertex.node ? `, at ${vertex.node}` : ""}`;
}

function curve(from: Vertex, to: Vertex, edge: Edge, layout: Layout): { d: (aside: number) => string; x: number; y: number } {
  const { points, what } = edge;
  if (what === "trunk") {
    const d = (): string => `M${points.map(({ x, y }) => `${x},${y}`).join(" L")}`;
    return { d, x: 0, y: 0 };
  }
  if (from.kind === "switch" || to.kind === "switch") {
    const [port, wire] = from.kind === "switch" ? [to, from] : [from, to];
    const sign = Math.sign(wire.y - port.y) || 1;
    const [start, end] = [port.y + (sign * port.height) / 2, wire.y - (sign * wire.height) / 2];
    return { d: (aside) => `M${port.x + aside},${start} V${end}`, x: port.x, y: (start + end) / 2 };
  }
  if (points.length) {
    const d = (aside: number): string =>
      points.reduce((path, { x, y }, at) => {
        const before = points[at - 1];
        if (!before) return `M${x + aside},${y}`;
        const middle = (before.y + y) / 2;
        return `${path} C${before.x + aside},${middle} ${x + aside},${middle} ${x + aside},${y}`;
      }, "");
    const one = points[Math.floor((points.length - 1) / 2)]!;
    const next = points[Math.ceil((points.length - 1) / 2)]!;
    return { d, x: (one.x + next.x) / 2, y: (one.y + next.y) / 2 };
  }
  if (what !== "inside" && Math.abs(from.y - to.y) < 60) {
    const down = from.y + from.height / 2;
    const bottoms = layout.boxes.filter(({ name }) => name === from.node || name === to.node).map(({ y, height }) => y + height);
    // A cubic curve reaches three quarters of the way to its control points.
    const deep = (Math.max(...bottoms) + (what === "tunnel" ? 85 : 35) - down) / 0.75;
    const x = (from.x + to.x) / 2;
    const d = (aside: number): string =>
      `M${from.x + aside},${down} C${from.x + aside},${down + deep + aside} ${to.x - aside},${down + deep + aside} ${to.x - aside},${down}`;
    return { d, x: x - 40, y: down + deep * 0.75 + 18 };
  }
  const sign = Math.sign(to.y - from.y) || 1;
  const start = from.y + (sign * from.height) / 2;
  const end = to.y - (sign * to.height) / 2;
  const bend = (end - start) / 2;
  const d = (aside: number): string =>
    `M${from.x + aside},${start} C${from.x + aside},${start + bend} ${to.x + aside},${end - bend} ${to.x + aside},${end}`;
  return { d, x: (from.x + to.x) / 2, y: (start + end) / 2 };
}
