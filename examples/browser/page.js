// The page: takes a bundle and pictures, runs the model with onnxruntime-web in WebAssembly, one thread, fp32.

import { lineOf, onWhite, openBundle, toldOf } from "../javascript/bundle.mjs";
import { unzipSync } from "./node_modules/fflate/esm/browser.js";
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

/** What was found since the page was opened, for whoever imports this module. */
export const found = { parity: null, images: [], inputs: [] };

// More threads would need a page that is isolated from others, by headers of its server.
ort.env.wasm.numThreads = 1;
const [folder, files, state, pictures, answers] = ["folder", "files", "state", "pictures", "answers"].map((id) =>
  document.getElementById(id),
);
let bundle = null;

/** Return the bundle's files by name: of a folder, of files, or of an archive, with or without a folder in it. */
async function filesOf(list) {
  const bytes = async (file) => new Uint8Array(await file.arrayBuffer());
  const [first] = list;
  const paths =
    list.length === 1 && first.name.endsWith(".zip")
      ? new Map(Object.entries(unzipSync(await bytes(first))))
      : new Map(await Promise.all(Array.from(list, async (f) => [f.webkitRelativePath || f.name, await bytes(f)])));
  const manifest = [...paths.keys()].find((path) => /^([^/]*\/)?manifest\.json$/.test(path));
  if (manifest === undefined) throw new Error("manifest.json is missing; expected the files of a bundle");
  const above = manifest.slice(0, -"manifest.json".length);
  return new Map([...paths].map(([path, content]) => [path.slice(above.length), content]));
}

/** Return the pixels of a picture: upright, on white, 8 bits a channel, colours as they are stored. */
async function decode(file) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const image = await createImageBitmap(file, options);
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  return onWhite(context.getImageData(0, 0, width, height).data, width, height);
}

async function take(list) {
  pictures.disabled = true;
  state.setAttribute("aria-busy", "true");
  state.textContent = "Checking the bundle.";
  bundle = null;
  found.parity = null;
  try {
    bundle = await openBundle(await filesOf(list), ort, unzipSync);
    found.parity = await bundle.parity();
    state.textContent = `${found.parity.passed ? "Parity" : "NO PARITY"}: ${lineOf(found.parity)}`;
    pictures.disabled = !found.parity.passed;
  } catch (error) {
    state.textContent = `This bundle cannot be used: ${error.message}`;
  }
  state.setAttribute("aria-busy", "false");
}

async function classify(list) {
  answers.setAttribute("aria-busy", "true");
  for (const file of list) {
    const row = answers.insertRow();
    row.insertCell().textContent = file.name;
    try {
      const { prepared, answer } = await bundle.classify(await decode(file));
      found.images.push({ file: file.name, ...answer });
      found.inputs.push(prepared);
      row.insertCell().textContent = toldOf(answer);
    } catch (error) {
      row.insertCell().textContent = error.message;
    }
  }
  answers.setAttribute("aria-busy", "false");
}

for (const control of [folder, files]) control.addEventListener("change", () => take(control.files));
pictures.addEventListener("change", () => classify(pictures.files));
