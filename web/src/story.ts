// SPDX-License-Identifier: Apache-2.0
// The way of a packet on the picture: at which vertices its steps are, and which lines join them.
import type { Layout } from "./layout";
import type { History, PacketWay, Step } from "./model";

/** Steps that follow one another at one vertex; `steps` are their places in the way. */
export interface Visit {
  vertex: string;
  steps: number[];
  medium: Step["medium"];
}

/** A line that a packet takes. */
export interface Passage {
  edge: string;
  medium: Step["medium"];
}

export interface Story {
  visits: Visit[];
  passages: Passage[];
}

/** `way` on the picture. A step at a place that the picture does not have is left out: a trace in a file may be of another lab. */
export function story(way: PacketWay, layout: Layout, history: History): Story {
  const visits: Visit[] = [];
  const find = finder(layout, history);
  way.steps.forEach((step, number) => {
    const vertex = find(step);
    if (vertex === null) return;
    const last = visits.at(-1);
    if (last?.vertex === vertex) {
      last.steps.push(number);
      if (step.medium === "software") last.medium = "software";
    } else visits.push({ vertex, steps: [number], medium: step.medium });
  });
  const passages: Passage[] = [];
  const lines = joined(layout);
  visits.forEach(({ vertex, steps }, place) => {
    const before = visits[place - 1];
    if (!before) return;
    const { medium } = way.steps[steps[0]!]!;
    for (const edge of between(before.vertex, vertex, lines)) passages.push({ edge, medium });
  });
  return { visits, passages };
}

/** Gives the vertex of each step, in order: where people say only "Open vSwitch" or "wire p0", the steps before say of what. */
function finder(layout: Layout, history: History): (step: Step) => string | null {
  const nic = new Map<string, string>();
  const bridge = new Map<string, string>();
  const known = (id: string): string | null => (layout.vertices.has(id) ? id : null);
  return ({ node, device }) => {
    const guest = known(`guest ${device}`);
    if (guest && layout.vertices.get(guest)!.node === node) return guest;
    const silicon = known(`nic ${node}/${device}`);
    if (silicon) {
      nic.set(node, device);
      return silicon;
    }
    const own = history.ports.filter((port) => port.id.startsWith(`${node}/`));
    const wire = /^wire p(\d+)$/.exec(device);
    if (wire) {
      const ends = own.filter((port) => (port.kind === "uplink" || port.kind === "pf") && port.pf === Number(wire[1]));
      const end = ends.find((port) => port.nic === nic.get(node)) ?? ends[0];
      return end ? known(end.id) : null;
    }
    if (device === "Open vSwitch") {
      const name = bridge.get(node) ?? history.snapshot.nodes.find((one) => one.name === node)?.bridges[0]?.name;
      return name === undefined ? null : known(`bridge ${node}/${name}`);
    }
    const port = history.port(`${node}/${device}`) ?? own.find((one) => one.name === device && layout.vertices.has(one.id));
    if (port?.bridge) bridge.set(node, port.bridge);
    return port ? known(port.id) : null;
  };
}

type Lines = Map<string, { to: string; edge: string }[]>;

function joined(layout: Layout): Lines {
  const found: Lines = new Map();
  const add = (from: string, to: string, edge: string): void => {
    const known = found.get(from) ?? [];
    known.push({ to, edge });
    found.set(from, known);
  };
  for (const { id, from, to } of layout.edges) {
    add(from, to, id);
    add(to, from, id);
  }
  return found;
}

/** The lines of the shortest way from one vertex to another. */
function between(from: string, to: string, lines: Lines): string[] {
  const came = new Map<string, { from: string; edge: string } | null>([[from, null]]);
  const waiting = [from];
  for (let here = waiting.shift(); here !== undefined && here !== to; here = waiting.shift()) {
    for (const { to: next, edge } of lines.get(here) ?? []) {
      if (came.has(next)) continue;
      came.set(next, { from: here, edge });
      waiting.push(next);
    }
  }
  const found: string[] = [];
  for (let step = came.get(to); step; step = came.get(step.from)) found.unshift(step.edge);
  return found;
}
