// SPDX-License-Identifier: Apache-2.0
// Where everything is: each node's inside by dagre, nodes in rows with their wires towards each other.
import dagre from "@dagrejs/dagre";
import type { Kind, Node, Snapshot } from "./model";
import { KINDS } from "./format";

/** What a line shows: all that passes a port, or what of it the host's CPU saw. */
export type Part = "all" | "software" | "none";

export interface Vertex {
  id: string;
  kind: Kind | "guest" | "nic" | "bridge" | "switch" | "unused";
  title: string;
  under: string;
  node: string | null;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Edge {
  id: string;
  from: string;
  to: string;
  port: string | null;
  part: Part;
  what: "inside" | "cable" | "tunnel" | "trunk";
  words: string;
  /** Where it goes, from border to border; of an edge inside a node. */
  points: Point[];
}

export interface Point {
  x: number;
  y: number;
}

export interface Box {
  name: string;
  state: string;
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Layout {
  width: number;
  height: number;
  boxes: Box[];
  vertices: Map<string, Vertex>;
  edges: Edge[];
}

const HIGH = 38;
const PAD = 18;
const HEAD = 26;
const GAP = { x: 70, y: 150 };
/** From one switch to the next in a lane. */
const BAR = 56;

const wide = (title: string, under: string): number => Math.max(84, 7 * Math.max(title.length, under.length) + 20);

interface Inside {
  width: number;
  height: number;
  vertices: Vertex[];
  edges: Edge[];
}

/** The vertices and edges inside a node, without places. */
function inside(node: Node, snapshot: Snapshot): { vertices: Vertex[]; edges: Edge[] } {
  const vertices: Vertex[] = [];
  const edges: Edge[] = [];
  const add = (id: string, kind: Vertex["kind"], title: string, under: string): void => {
    vertices.push({ id, kind, title, under, node: node.name, x: 0, y: 0, width: wide(title, under), height: HIGH });
  };
  const join = (from: string, to: string, port: string | null, part: Part, words: string): void => {
    edges.push({ id: `${from} ${to}`, from, to, port, part, what: "inside", words, points: [] });
  };
  const bridged = new Set(node.ports.filter((port) => port.bridge !== null).map((port) => port.id));
  for (const guest of snapshot.guests) {
    if (guest.node === node.name && guest.port) add(`guest ${guest.name}`, "guest", guest.name, guest.addresses[0] ?? "guest");
  }
  for (const nic of node.nics) add(`nic ${node.name}/${nic.name}`, "nic", `eSwitch of ${nic.name}`, `${nic.model}, ${nic.mode ?? "mode unknown"}`);
  for (const bridge of node.bridges) add(`bridge ${node.name}/${bridge.name}`, "bridge", bridge.name, "bridge");
  const unused = new Map<string, number>();
  for (const port of node.ports) {
    const vf = port.kind === "vf" || port.kind === "representor";
    if (vf && !port.guest && !bridged.has(port.id) && !(port.twin && used(port.twin, node, bridged))) {
      if (port.kind === "vf" && port.nic) unused.set(port.nic, (unused.get(port.nic) ?? 0) + 1);
      continue;
    }
    const about = port.vf !== null ? `${KINDS[port.kind]} ${port.vf}` : KINDS[port.kind];
    add(port.id, port.kind, port.name, about);
    const nic = `nic ${node.name}/${port.nic}`;
    const bridge = `bridge ${node.name}/${port.bridge}`;
    const name = `${about} ${port.name} of ${node.name}`;
    switch (port.kind) {
      case "vf": {
        const guest = snapshot.guests.find((one) => one.port === port.id);
        if (guest) join(`guest ${guest.name}`, port.id, port.id, "all", `${guest.name} to ${name}`);
        join(port.id, nic, port.id, "all", `${name} to eSwitch`);
        break;
      }
      case "representor":
        join(nic, port.id, port.id, "software", `eSwitch to ${name}`);
        if (port.bridge) join(port.id, bridge, port.id, "software", `${name} to bridge ${port.bridge}`);
        break;
      case "pf":
      case "uplink":
        join(nic, port.id, port.id, "all", `eSwitch to ${name}`);
        if (port.bridge) join(bridge, port.id, port.id, "software", `bridge ${port.bridge} to ${name}`);
        break;
      default:
        if (port.bridge) join(bridge, port.id, port.id, "software", `bridge ${port.bridge} to ${name}`);
    }
  }
  for (const [nic, number] of unused) {
    const id = `unused ${node.name}/${nic}`;
    add(id, "unused", `${number} more VF${number === 1 ? "" : "s"}`, "not used");
    join(id, `nic ${node.name}/${nic}`, null, "none", "");
  }
  return { vertices, edges };
}

function used(id: string, node: Node, bridged: Set<string>): boolean {
  const twin = node.ports.find((port) => port.id === id);
  return Boolean(twin && (twin.guest || bridged.has(twin.id)));
}

function placed(node: Node, snapshot: Snapshot, flip: boolean): Inside {
  const { vertices, edges } = inside(node, snapshot);
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "TB", nodesep: 26, ranksep: 62, marginx: PAD, marginy: PAD });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const one of vertices) graph.setNode(one.id, { width: one.width, height: one.height });
  for (const one of edges) graph.setEdge(one.from, one.to, { weight: one.part === "all" ? 4 : 1 }, one.id);
  // Wires lead out of the node, so uplinks lie below everything else.
  const uplinks = vertices.filter((one) => one.kind === "uplink" || one.kind === "pf");
  for (const bridge of vertices.filter((one) => one.kind === "bridge")) {
    const below = edges.some((one) => one.from === bridge.id && !uplinks.some(({ id }) => id === one.to));
    for (const uplink of uplinks) graph.setEdge(bridge.id, uplink.id, { weight: 0, minlen: below ? 2 : 1 }, "rank");
  }
  if (vertices.length) dagre.layout(graph);
  const { width = 160, height = 60 } = vertices.length ? graph.graph() : {};
  for (const one of vertices) {
    const at = graph.node(one.id);
    one.x = at.x;
    one.y = flip ? height - at.y : at.y;
  }
  for (const one of edges) {
    const points = graph.edge(one.from, one.to, one.id).points as Point[];
    one.points = points.map(({ x, y }) => ({ x, y: flip ? height - y : y }));
  }
  return { width: Math.max(width, 160), height: Math.max(height, 60), vertices, edges };
}

/** The nodes in the order in which cables and tunnels lead from one to the next. */
function ordered(snapshot: Snapshot): Node[] {
  const near = new Map<string, Set<string>>(snapshot.nodes.map((node) => [node.name, new Set<string>()]));
  for (const { ends } of snapshot.cables) {
    const [one, other] = ends.map((end) => end.split("/")[0]!) as [string, string];
    near.get(one)?.add(other);
    near.get(other)?.add(one);
  }
  const rest = new Map(snapshot.nodes.map((node) => [node.name, node]));
  const found: Node[] = [];
  for (const node of snapshot.nodes) {
    const waiting = [node.name];
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const next = rest.get(name);
      if (!next) continue;
      rest.delete(name);
      found.push(next);
      waiting.push(...(near.get(name) ?? []));
    }
  }
  return found;
}

export function layout(snapshot: Snapshot): Layout {
  const nodes = ordered(snapshot);
  const columns = nodes.length <= 3 ? Math.max(1, nodes.length) : Math.ceil(Math.sqrt(nodes.length * 3));
  const vertices = new Map<string, Vertex>();
  const edges: Edge[] = [];
  const boxes: Box[] = [];
  let y = PAD;
  let widest = 0;
  const rows: Node[][] = [];
  for (let at = 0; at < nodes.length; at += columns) rows.push(nodes.slice(at, at + columns));
  const lanes: number[] = [];
  rows.forEach((row, number) => {
    const flip = number % 2 === 1;
    const insides = row.map((node) => placed(node, snapshot, flip));
    const height = Math.max(...insides.map((one) => one.height)) + HEAD;
    let x = PAD;
    row.forEach((node, place) => {
      const one = insides[place]!;
      boxes.push({ name: node.name, state: node.state, x, y, width: one.width, height });
      const down = HEAD + (flip ? 0 : height - HEAD - one.height);
      for (const vertex of one.vertices) {
        vertex.x += x;
        vertex.y += y + down;
        vertices.set(vertex.id, vertex);
      }
      for (const edge of one.edges) {
        edge.points = edge.points.map((point) => ({ x: point.x + x, y: point.y + y + down }));
        edges.push(edge);
      }
      x += one.width + GAP.x;
    });
    widest = Math.max(widest, x);
    y += height;
    if (!flip) lanes.push(y + GAP.y / 2);
    y += flip ? 40 : GAP.y + Math.max(0, switchNames(snapshot).length - 1) * BAR;
  });
  switches(snapshot, vertices, edges, widest, lanes);
  outside(snapshot, vertices, edges);
  return { width: widest + PAD, height: y + PAD, boxes, vertices, edges };
}

const switchNames = (snapshot: Snapshot): string[] => [
  ...new Set(snapshot.cables.flatMap(({ ends }) => ends.filter((end) => !end.includes("/")))),
];

/** A switch is a bar in each lane between rows, where the uplinks are; a line at the left joins its bars. */
function switches(snapshot: Snapshot, vertices: Map<string, Vertex>, edges: Edge[], width: number, lanes: number[]): void {
  switchNames(snapshot).forEach((name, number) => {
    lanes.forEach((lane, place) => {
      const id = bar(name, place);
      const y = lane + number * BAR;
      const x = PAD + (width - PAD - GAP.x) / 2;
      vertices.set(id, { id, kind: "switch", title: name, under: "switch", node: null, x, y, width: width - PAD - GAP.x, height: HIGH });
      if (place === 0) return;
      const left = PAD / 2 - number * 6;
      const before = lanes[place - 1]! + number * BAR;
      const points = [{ x: PAD, y: before }, { x: left, y: before }, { x: left, y }, { x: PAD, y }];
      edges.push({ id: `trunk ${id}`, from: bar(name, place - 1), to: id, port: null, part: "none", what: "trunk", words: `switch ${name}`, points });
    });
  });
}

const bar = (name: string, place: number): string => (place ? `switch ${name} ${place}` : `switch ${name}`);

/** The bar of a switch that is nearest to a port. */
function nearest(name: string, port: Vertex, vertices: Map<string, Vertex>): string {
  let best = bar(name, 0);
  for (let place = 1; vertices.has(bar(name, place)); place++) {
    const one = vertices.get(bar(name, place))!;
    if (Math.abs(one.y - port.y) < Math.abs(vertices.get(best)!.y - port.y)) best = one.id;
  }
  return best;
}

function outside(snapshot: Snapshot, vertices: Map<string, Vertex>, edges: Edge[]): void {
  snapshot.cables.forEach(({ ends, impaired }, number) => {
    const [from, to] = ends.map((end, at) => {
      const other = vertices.get(ends[1 - at]!);
      return end.includes("/") || !other ? end : nearest(end, other, vertices);
    }) as [string, string];
    if (!vertices.has(from) || !vertices.has(to)) return;
    const words = `${impaired ? "bad cable" : "cable"} from ${ends[0]} to ${ends[1]}`;
    const port = ends[0].includes("/") ? ends[0] : ends[1];
    edges.push({ id: `cable ${number}`, from, to, port, part: "all", what: "cable", words, points: [] });
  });
  for (const tunnel of snapshot.tunnels) {
    const peer = snapshot.tunnels.find((one) => one.port.split("/")[0] === tunnel.peer && one.remote === tunnel.local);
    const other = peer ?? snapshot.tunnels.find((one) => one.port.split("/")[0] === tunnel.peer && one.peer === tunnel.port.split("/")[0]);
    if (!other || other.port <= tunnel.port || !vertices.has(tunnel.port) || !vertices.has(other.port)) continue;
    const words = `${tunnel.kind} tunnel from ${tunnel.port} to ${other.port}`;
    edges.push({ id: `tunnel ${tunnel.port}`, from: tunnel.port, to: other.port, port: tunnel.port, part: "all", what: "tunnel", words, points: [] });
  }
}
