// SPDX-License-Identifier: Apache-2.0
// Numbers and names for people.
import type { Kind, Way } from "./model";

export const KINDS: Record<Kind, string> = {
  pf: "PF",
  uplink: "uplink",
  vf: "VF",
  representor: "representor",
  internal: "internal port",
  tunnel: "tunnel port",
  patch: "patch port",
  other: "port",
};

const PREFIXES = ["", "k", "M", "G", "T"];

function scaled(number: number, unit: string): string {
  let prefix = 0;
  while (number >= 999.5 && prefix < PREFIXES.length - 1) {
    number /= 1000;
    prefix++;
  }
  const digits = number >= 99.5 || (prefix === 0 && number >= 9.95) ? 0 : number >= 9.95 ? 1 : 2;
  const text = number.toFixed(digits).replace(/\.?0+$/, (zeros) => (zeros.startsWith(".") ? "" : zeros));
  return `${text} ${PREFIXES[prefix]}${unit}`;
}

export const bits = (bytes: number): string => scaled(bytes * 8, "bit/s");
export const packets = (number: number): string => scaled(number, "packets/s");
export const count = (number: number): string => number.toLocaleString("en");

/** A rate below this is none: packets per second. */
export const STILL = 0.05;

/** What passes, in a few words: for a line of the picture, and for who listens to it. */
export function sentence(way: Way): string {
  const parts = [];
  if (way.hardware >= STILL) parts.push(`${packets(way.hardware)} in hardware`);
  if (way.software >= STILL) parts.push(`${packets(way.software)} in software`);
  if (way.dropped >= STILL) parts.push(`${packets(way.dropped)} refused`);
  return parts.join(", ") || "no traffic";
}

export function clock(seconds: number): string {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}
