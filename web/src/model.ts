// SPDX-License-Identifier: Apache-2.0
// What the server tells (docs/schemas/live.json and asap2/view/stream.py), rates of it, and the last minutes.

export type Kind = "pf" | "uplink" | "vf" | "representor" | "internal" | "tunnel" | "patch" | "other";

export interface Port {
  id: string;
  name: string;
  kind: Kind;
  nic: string | null;
  pf: number | null;
  vf: number | null;
  guest: string | null;
  bridge: string | null;
  twin: string | null;
  up: boolean | null;
  mac: string | null;
}

export interface Nic {
  name: string;
  model: string;
  address: string;
  mode: string | null;
  pfs: string[];
}

export interface Node {
  name: string;
  state: string;
  nics: Nic[];
  ports: Port[];
  bridges: { name: string; ports: string[] }[];
}

export interface Guest {
  name: string;
  node: string;
  port: string | null;
  device: string | null;
  addresses: string[];
}

export interface Snapshot {
  taken: number;
  source: "lab" | "host" | "capture";
  name: string;
  nodes: Node[];
  guests: Guest[];
  cables: { ends: [string, string]; impaired: boolean }[];
  tunnels: { port: string; kind: string; local: string | null; remote: string | null; key: string | null; peer: string | null }[];
}

export interface Flow {
  ufid: string;
  in_port: string;
  outputs: string[];
  match: string;
  actions: string;
  packets: number;
  bytes: number;
  offloaded: string;
  code: string;
  why: string;
  found: string;
  fix: string;
}

export interface Detail {
  taken: number;
  flows: Flow[];
  connections: { hardware: number; software: number } | null;
  tracked: { code: string; why: string; what: string; count: number; example: string }[];
  trouble: string | null;
  listings: { words: string; matching: number; entries: Connection[] }[];
}

/** One connection. */
export interface Connection {
  protocol: string;
  original: string;
  zone: number;
  state: string;
  mark: number;
  hardware: boolean;
}

/** One step of a packet (docs/schemas/trace.json). */
export interface Step {
  microseconds: number;
  node: string;
  device: string;
  stage: string;
  medium: "hardware" | "software";
  text: string;
  why: string | null;
  rule: string | null;
  matches: string[];
  actions: string[];
  connection: string | null;
  rewritten: [string, string, string][];
}

/** The way of one packet. */
export interface PacketWay {
  number: number;
  packet: string;
  octets: number;
  origin: string;
  targets: string[];
  ending: "delivered" | "dropped" | "out of sight";
  in_hardware: boolean;
  microseconds: number;
  steps: Step[];
}

export type Message =
  | { type: "structure"; snapshot: Snapshot }
  | { type: "counters"; taken: number; ports: Record<string, number[]>; drops: Record<string, Record<string, number>> }
  | { type: "detail"; node: string; detail: Detail }
  | { type: "packets"; since: number; about: string; lost: number; left_out: number; trouble: string | null; ways: PacketWay[] }
  | { type: "end"; why: string };

/** Places in a list of counters, in the order of asap2.live.Counters. */
export const enum At {
  HardwareInPackets,
  HardwareInBytes,
  HardwareOutPackets,
  HardwareOutBytes,
  SoftwareInPackets,
  SoftwareInBytes,
  SoftwareOutPackets,
  SoftwareOutBytes,
  Dropped,
  Size,
}

/** Seconds that a rate is over. */
const WINDOW = 1.0;
/** Seconds between two moments that are kept, and how many are: five minutes. */
const KEPT_EVERY = 0.5;
const MOST_KEPT = 600;

interface Moment {
  taken: number;
  counters: Float64Array;
}

/** The counters of all ports of one structure, now and in the last minutes. */
export class History {
  readonly ports: Port[];
  readonly place = new Map<string, number>();
  /** Packets that each NIC has dropped, by reason. */
  readonly drops: Record<string, number>[] = [];
  private readonly now: Float64Array;
  private kept: Moment[] = [];
  private recent: Moment[] = [];
  taken = 0;

  constructor(readonly snapshot: Snapshot) {
    this.ports = snapshot.nodes.flatMap((node) => node.ports);
    this.ports.forEach((port, place) => this.place.set(port.id, place));
    this.now = new Float64Array(this.ports.length * At.Size);
  }

  take(message: Extract<Message, { type: "counters" }>): void {
    for (const [place, numbers] of Object.entries(message.ports)) this.now.set(numbers, Number(place) * At.Size);
    for (const [place, reasons] of Object.entries(message.drops)) this.drops[Number(place)] = reasons;
    this.taken = message.taken;
    const moment = { taken: message.taken, counters: this.now.slice() };
    this.recent.push(moment);
    while (this.recent.length > 2 && this.recent[1]!.taken <= message.taken - WINDOW) this.recent.shift();
    const last = this.kept.at(-1);
    if (!last || message.taken - last.taken >= KEPT_EVERY) {
      this.kept.push(moment);
      if (this.kept.length > MOST_KEPT) this.kept.shift();
    }
  }

  /** The port that has an id. */
  port(id: string | null | undefined): Port | undefined {
    const place = this.place.get(id ?? "");
    return place === undefined ? undefined : this.ports[place];
  }

  /** The times, in seconds since 1970, of the moments that are kept. */
  get moments(): number[] {
    return this.kept.map((one) => one.taken);
  }

  /** The counters of a port now, or at the kept moment number `at`. */
  counters(id: string, at: number | null = null): Float64Array | null {
    const place = this.place.get(id);
    const from = at === null ? this.now : this.kept[at]?.counters;
    return place === undefined || !from ? null : from.subarray(place * At.Size, (place + 1) * At.Size);
  }

  /** Per second: of all ports, now or at the kept moment number `at`. */
  rates(at: number | null = null): Rates {
    if (at === null) return rates(this.recent[0], this.recent.at(-1));
    const end = this.kept[at];
    let start = at;
    while (start > 0 && end && end.taken - this.kept[start]!.taken < WINDOW) start--;
    return rates(this.kept[start], end);
  }
}

/** Counters per second, by a port's place. */
export type Rates = Float64Array | null;

function rates(before: Moment | undefined, after: Moment | undefined): Rates {
  if (!before || !after || after.taken <= before.taken) return null;
  const seconds = after.taken - before.taken;
  return after.counters.map((number, place) => Math.max(0, number - before.counters[place]!) / seconds);
}

export interface Way {
  hardware: number;
  software: number;
  dropped: number;
}

/** What passes a port, both directions together. */
export function way(numbers: Float64Array | null, unit: "packets" | "bytes"): Way {
  if (!numbers) return { hardware: 0, software: 0, dropped: 0 };
  const more = unit === "bytes" ? 1 : 0;
  return {
    hardware: numbers[At.HardwareInPackets + more]! + numbers[At.HardwareOutPackets + more]!,
    software: numbers[At.SoftwareInPackets + more]! + numbers[At.SoftwareOutPackets + more]!,
    dropped: numbers[At.Dropped]!,
  };
}

export function of(found: Rates, history: History, id: string): Float64Array | null {
  const place = history.place.get(id);
  return found && place !== undefined ? found.subarray(place * At.Size, (place + 1) * At.Size) : null;
}
