// SPDX-License-Identifier: Apache-2.0
// Puts the page together: what the server tells goes to the picture, the list and the panel.
import { Connection } from "./connection";
import { clock } from "./format";
import { layout } from "./layout";
import type { Layout, Vertex } from "./layout";
import { List } from "./list";
import { History } from "./model";
import type { Detail, Message } from "./model";
import { Packets } from "./packets";
import { Panel } from "./panel";
import { Picture } from "./picture";
import type { Unit } from "./picture";
import { story } from "./story";

const at = <T extends Element>(id: string): T => document.getElementById(id) as unknown as T;

const state = at<HTMLElement>("state");
const slider = at<HTMLInputElement>("time");
const shownTime = at<HTMLOutputElement>("shown-time");
const live = at<HTMLButtonElement>("live");
const unit = at<HTMLSelectElement>("unit");

let history_: History | null = null;
let places: Layout | null = null;
let chosen: string | null = null;
const details = new Map<string, Detail>();
/** The moment that is looked at, in seconds since 1970; null: now. */
let past: number | null = null;
let due = false;
/** Milliseconds between two changes of what is read, or heard, rather than seen: the list, and the picture's names. */
const SAY_EVERY = 500;
let said = 0;

const picture = new Picture(at<SVGSVGElement>("picture"), (vertex) => choose(vertex));
const list = new List(at<HTMLTableSectionElement>("ports"), (id) => {
  const vertex = places?.vertices.get(id);
  const port = history_?.port(id);
  if (vertex) choose(vertex);
  else if (port) choose({ id, kind: port.kind, title: port.name, under: port.kind, node: id.split("/")[0]!, x: 0, y: 0, width: 0, height: 0 });
});
const panel = new Panel(at("chosen"), at("attributes"), at("counters"), at("details"), () => ask());
const packets = new Packets(at("packets"), at("packets-about"), at<HTMLTableSectionElement>("ways"), at("story"), (way, step) => {
  picture.tell(way && places && history_ ? story(way, places, history_) : null, step);
});

function choose(vertex: Vertex | null): void {
  chosen = vertex?.id ?? null;
  picture.selected(chosen);
  list.selected(chosen);
  if (!history_) return;
  panel.show(vertex, history_);
  ask();
  const known = vertex?.node ? details.get(vertex.node) : undefined;
  if (known) panel.detail(known, history_);
  refresh();
}

/** Ask for the details of the node that is looked at. */
function ask(): void {
  const node = (chosen && places?.vertices.get(chosen)?.node) || chosen?.match(/^([^ /]+)\//)?.[1] || null;
  connection.want(node, panel.listed);
}

function receive(message: Message): void {
  if (message.type === "structure") {
    const before = history_;
    history_ = new History(message.snapshot);
    places = layout(message.snapshot);
    picture.draw(places);
    picture.tell(packets.shown ? story(packets.shown, places, history_) : null, null);
    list.draw(history_);
    at("source").textContent = { lab: "lab", host: "host", capture: "capture of" }[message.snapshot.source] + ` ${message.snapshot.name}`;
    document.body.dataset["source"] = message.snapshot.source;
    if (!before || before.snapshot.nodes.length !== message.snapshot.nodes.length) picture.fit();
    const vertex = chosen ? places.vertices.get(chosen) : undefined;
    choose(vertex ?? null);
    past = null;
  } else if (message.type === "counters") {
    history_?.take(message);
    refresh();
  } else if (message.type === "packets") {
    packets.take(message);
  } else if (message.type === "detail" && history_) {
    details.set(message.node, message.detail);
    const node = chosen ? places?.vertices.get(chosen)?.node : null;
    if (node === message.node || chosen?.startsWith(`${message.node}/`)) panel.detail(message.detail, history_);
  }
}

/** Show what there is at the next frame; a page in the background draws nothing. */
function refresh(): void {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    if (!history_) return;
    const moments = history_.moments;
    slider.max = String(Math.max(0, moments.length - 1));
    let place: number | null = null;
    if (past === null) slider.value = slider.max;
    else {
      place = moments.findIndex((one) => one >= past!);
      if (place < 0) place = moments.length - 1;
      slider.value = String(place);
    }
    const now = place === null ? history_.taken : (moments[place] ?? history_.taken);
    const text = past === null ? `now, ${clock(now)}` : clock(now);
    if (shownTime.textContent !== text) {
      shownTime.textContent = text;
      slider.setAttribute("aria-valuetext", text);
    }
    live.setAttribute("aria-pressed", String(past === null));
    const rates = history_.rates(place);
    const words = performance.now() - said >= SAY_EVERY;
    if (words) said = performance.now();
    picture.update(history_, rates, unit.value as Unit, words);
    if (words) list.update(history_, rates, unit.value as Unit);
    panel.update(history_, rates, place);
  });
}

const connection = new Connection(receive, (text) => {
  state.textContent = text;
  document.body.dataset["state"] = text.split(/[ :;]/)[0]!;
});

slider.addEventListener("input", () => {
  const moments = history_?.moments ?? [];
  const place = Number(slider.value);
  past = place >= moments.length - 1 ? null : (moments[place] ?? null);
  refresh();
});
live.addEventListener("click", () => {
  past = null;
  refresh();
});
unit.addEventListener("change", refresh);
at("fit").addEventListener("click", () => picture.fit());
at("larger").addEventListener("click", () => picture.scale(1.3));
at("smaller").addEventListener("click", () => picture.scale(1 / 1.3));
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  choose(null);
  packets.choose(null);
});
