// SPDX-License-Identifier: Apache-2.0
// The packets whose ways are known, as a table, and the story of the one that is chosen, step by step.
import { count } from "./format";
import type { Message, PacketWay, Step } from "./model";
import { element } from "./panel";

/** Packets that are kept, as many as the server keeps. */
const MOST = 200;
const MARKS = { hardware: "HW", software: "SW" };
const micros = (number: number): string => `${number.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} µs`;

export class Packets {
  private ways = new Map<number, { way: PacketWay; row: HTMLTableRowElement; button: HTMLButtonElement }>();
  private chosen: PacketWay | null = null;
  private step = -1;
  private buttons: HTMLButtonElement[] = [];

  constructor(
    private readonly section: HTMLElement,
    private readonly about: HTMLElement,
    private readonly body: HTMLTableSectionElement,
    private readonly story: HTMLElement,
    /** A packet was chosen, or none; or one of its steps. */
    private readonly show: (way: PacketWay | null, step: number | null) => void,
  ) {}

  /** The packet whose story is shown. */
  get shown(): PacketWay | null {
    return this.chosen;
  }

  take(message: Extract<Message, { type: "packets" }>): void {
    this.section.hidden = false;
    if (message.since === 0) {
      this.body.replaceChildren();
      this.ways.clear();
    }
    const words = [`Packets ${message.about}.`];
    if (message.lost) words.push(`${count(message.lost)} steps were lost: packets came faster than they are read.`);
    if (message.left_out) words.push(`${count(message.left_out)} packets were too many to be shown.`);
    if (message.trouble) words.push(`${message.trouble}.`);
    const text = words.join(" ");
    if (this.about.textContent !== text) this.about.textContent = text;
    for (const way of message.ways) this.add(way);
    for (const [number, { row }] of this.ways) {
      if (this.ways.size <= MOST) break;
      row.remove();
      this.ways.delete(number);
    }
  }

  private add(way: PacketWay): void {
    const row = this.body.insertRow(0);
    const head = element("th");
    head.scope = "row";
    const button = element("button", way.packet);
    button.dataset["packet"] = String(way.number);
    button.setAttribute("aria-pressed", String(this.chosen?.number === way.number));
    button.addEventListener("click", () => this.choose(way));
    head.append(button);
    row.append(head);
    for (const text of [way.origin, way.targets.join(", ") || way.ending]) row.insertCell().textContent = text;
    const time = row.insertCell();
    time.className = "number";
    time.textContent = way.microseconds ? micros(way.microseconds) : "";
    const place = row.insertCell();
    place.className = way.ending === "dropped" ? "dropped" : way.in_hardware ? "hardware" : "software";
    place.textContent = way.ending === "dropped" ? "dropped" : way.in_hardware ? "in hardware" : "partly in software";
    this.ways.set(way.number, { way, row, button });
  }

  choose(way: PacketWay | null): void {
    this.chosen = way;
    for (const { way: one, button } of this.ways.values()) button.setAttribute("aria-pressed", String(one === way));
    this.story.replaceChildren();
    this.story.hidden = way === null;
    this.step = -1;
    if (way) this.tell(way);
    this.show(way, null);
  }

  private tell(way: PacketWay): void {
    const tools = element("div", "", "steps");
    const move = (name: string, by: number): void => {
      const button = element("button", name);
      button.addEventListener("click", () => this.at(Math.min(way.steps.length - 1, Math.max(0, this.step + by))));
      tools.append(button);
    };
    move("Earlier step", -1);
    move("Later step", 1);
    const close = element("button", "Close");
    close.addEventListener("click", () => this.choose(null));
    tools.append(close);
    const list = element("ol");
    this.buttons = way.steps.map((step, number) => {
      const item = element("li", "", step.medium);
      const button = element("button");
      const time = way.microseconds ? `${micros(step.microseconds)} ` : "";
      button.append(element("b", `${time}${MARKS[step.medium]} ${step.node} ${step.device}: `), step.text);
      button.dataset["step"] = String(number);
      button.addEventListener("click", () => this.at(number));
      item.append(button, ...more(step));
      list.append(item);
      return button;
    });
    this.story.append(element("h2", `The way of ${way.packet}`), tools, list);
    this.story.scrollIntoView({ block: "nearest" });
  }

  private at(step: number): void {
    this.step = step;
    this.buttons.forEach((button, number) => {
      if (number === step) button.setAttribute("aria-current", "step");
      else button.removeAttribute("aria-current");
    });
    this.buttons[step]?.scrollIntoView({ block: "nearest" });
    this.show(this.chosen, step);
  }
}

function more(step: Step): HTMLElement[] {
  const found = [];
  if (step.why) found.push(element("p", `because ${step.why}`, "why"));
  if (step.rewritten.length) found.push(element("p", `rewritten: ${step.rewritten.map(([name, old, now]) => `${name} ${old} to ${now}`).join(", ")}`));
  if (step.connection && !step.text.includes("connection")) found.push(element("p", `connection: ${step.connection}`));
  if (step.matches.length) found.push(element("p", `matches on ${step.matches.join(", ")}`));
  return found;
}
