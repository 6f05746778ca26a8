// SPDX-License-Identifier: Apache-2.0
// Bundles the page into the directory that is the first argument: no file of it names a path of this machine.
import { build } from "esbuild";
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

const target = process.argv[2] ?? "../src/asap2/view/static";
await mkdir(target, { recursive: true });
const { metafile } = await build({
  entryPoints: ["src/main.ts"],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "none",
  metafile: true,
  outfile: join(target, "view.js"),
});
await copyFile("index.html", join(target, "index.html"));
await copyFile("view.css", join(target, "view.css"));
await copyFile("icon.svg", join(target, "icon.svg"));

// The licence of each package whose code is in the bundle.
const packages = new Set();
for (const input of Object.keys(metafile.inputs)) {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
  if (found) packages.add(found[1]);
}
let text = "";
for (const name of [...packages].sort()) {
  const directory = join("node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(directory, "package.json"), "utf8"));
  const file = (await readdir(directory)).find((one) => /^licen[cs]e/i.test(one));
  if (!file) throw new Error(`${name} has no licence file`);
  text += `${name} ${version} (${license})\n\n${(await readFile(join(directory, file), "utf8")).trim()}\n\n\n`;
}
await writeFile(join(target, "licences.txt"), text);
