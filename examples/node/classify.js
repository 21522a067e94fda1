// Classifies pictures with a bundle in Node: node classify.js BUNDLE FILE... [--json] [--inputs FILE]
// onnxruntime-node runs the model, sharp decodes pictures, fflate unzips the recorded outputs.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { unzipSync } from "fflate";
import * as ort from "onnxruntime-node";
import sharp from "sharp";
import { lineOf, onWhite, openBundle, toldOf } from "../javascript/bundle.mjs";

/** Return the pixels of a picture: upright, on white, 8 bits a channel, colours as they are stored. */
async function decode(path) {
  const picture = sharp(readFileSync(path), { ignoreIcc: true });
  const { depth, space, pages } = await picture.metadata();
  if (depth !== "uchar" || space === "cmyk" || (pages ?? 1) > 1) {
    throw new Error(`${path}: is ${pages ?? 1} pictures of ${space} in ${depth}, expected one of 8 bits a channel`);
  }
  const rgba = picture.autoOrient().toColourspace("srgb").ensureAlpha().raw();
  const { data, info } = await rgba.toBuffer({ resolveWithObject: true });
  return onWhite(data, info.width, info.height);
}

async function main() {
  const options = { json: { type: "boolean" }, inputs: { type: "string" } };
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [folder, ...paths] = positionals;
  if (folder === undefined) throw new Error("expected the folder of a bundle");

  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const names = entries.map((entry) => relative(folder, join(entry.parentPath, entry.name)));
  const files = new Map(names.map((name) => [name, readFileSync(join(folder, name))]));
  const bundle = await openBundle(files, ort, unzipSync);
  const parity = await bundle.parity();
  const [images, inputs] = [[], []];
  for (const file of paths) {
    const { prepared, answer } = await bundle.classify(await decode(file));
    images.push({ file, ...answer });
    inputs.push(new Uint8Array(prepared.buffer));
  }

  if (values.inputs) writeFileSync(values.inputs, Buffer.concat(inputs));
  if (values.json) {
    console.log(JSON.stringify({ parity, images }));
  } else {
    console.log(`parity  ${lineOf(parity)}`);
    for (const image of images) console.log(`${image.file}  ${toldOf(image)}`);
  }
  process.exitCode = parity.passed ? 0 : 1;
}

await main().catch((error) => {
  console.error(`classify.js: ${error.message}`);
  process.exitCode = 1;
});
