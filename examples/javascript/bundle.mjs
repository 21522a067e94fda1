// A bundle in JavaScript, for Node and for browsers: checks its files, reads manifest and vectors, runs model.onnx, and
// prepares pictures as the manifest says. Imports nothing: who opens a bundle brings onnxruntime and what unzips.

const NEEDED = ["manifest.json", "model.onnx", "vectors.npz"];
// What this program does; a manifest that asks for something else is refused.
const KNOWN = {
  layout: "NCHW",
  dtype: "float32",
  interpolation: "bilinear, half-pixel centers, no antialiasing, edges repeated",
  order: "divide by pixel_max, pad, resize to size, subtract mean, divide by std",
};

/**
 * Open a bundle.
 * @param {Map<string, Uint8Array>} files its files by name
 * @param ort onnxruntime-node or onnxruntime-web
 * @param unzip from bytes of an archive to an object of bytes by name
 */
export async function openBundle(files, ort, unzip) {
  await checkFiles(files);
  const manifest = JSON.parse(textOf(files, "manifest.json"));
  const unknown = Object.keys(KNOWN).filter((key) => manifest.preprocessing[key] !== KNOWN[key]);
  if (manifest.schema !== 3 || unknown.length) {
    throw new Error(`manifest.json has another schema or ${unknown.join(", ")} than this program knows`);
  }
  const session = await ort.InferenceSession.create(files.get("model.onnx"), { intraOpNumThreads: 1 });
  const [input] = manifest.inputs;
  const [output] = manifest.outputs;

  /** From images (N, C, S, S), flat, to logits (N, K), flat. */
  async function run(images) {
    const size = sizeOf(input.shape.slice(1));
    const tensor = new ort.Tensor("float32", images, [images.length / size, ...input.shape.slice(1)]);
    return (await session.run({ [input.name]: tensor }))[output.name].data;
  }

  /** How far outputs are from the recorded ones: of each image alone, and of all at once if they may be. */
  async function parity() {
    const vectors = unzip(files.get("vectors.npz"));
    const inputs = floatsOf(vectors["inputs.npy"], input.shape.slice(1));
    const outputs = floatsOf(vectors["outputs.npy"], output.shape.slice(1));
    const batches = input.shape[0] === "batch" ? [1, inputs.num] : [1];
    const found = { num_inputs: inputs.num, max_abs_diff: 0, max_scaled_diff: 0 };
    const sameClass = Array(inputs.num).fill(true);
    for (const batch of batches) {
      for (let first = 0; first < inputs.num; first += batch) {
        const logits = await run(inputs.data.subarray(first * inputs.size, (first + batch) * inputs.size));
        for (let i = 0; i < batch; i++) {
          const recorded = outputs.data.subarray((first + i) * outputs.size, (first + i + 1) * outputs.size);
          const computed = logits.subarray(i * outputs.size, (i + 1) * outputs.size);
          // A scaled difference is relative to the image's largest absolute logit above 1. NaN stays NaN.
          const difference = Math.max(...recorded.map((value, k) => Math.abs(value - computed[k])));
          const scale = Math.max(1, ...recorded.map(Math.abs));
          found.max_abs_diff = Math.max(found.max_abs_diff, difference);
          found.max_scaled_diff = Math.max(found.max_scaled_diff, difference / scale);
          sameClass[first + i] &&= indexOfLargest(computed) === indexOfLargest(recorded);
        }
      }
    }
    const { tolerance } = manifest.models["onnx-fp32"].gate;
    const num_same_class = sameClass.filter(Boolean).length;
    const passed = found.max_scaled_diff <= tolerance && num_same_class === inputs.num;
    return { ...found, tolerance, num_same_class, passed };
  }

  /** What the model says of a picture: its class, how probable that is, and all logits. */
  async function classify(picture) {
    const prepared = prepare(picture, manifest.preprocessing);
    const logits = Array.from(await run(prepared));
    const index = indexOfLargest(logits);
    const sum = logits.reduce((total, logit) => total + Math.exp(logit - logits[index]), 0);
    return { prepared, answer: { class: manifest.classes[index], index, probability: 1 / sum, logits } };
  }

  return { manifest, parity, classify };
}

/** Return what `parity` found, as a line. */
export function lineOf({ num_inputs, max_abs_diff, max_scaled_diff, tolerance, num_same_class }) {
  const [largest, scaled] = [max_abs_diff, max_scaled_diff].map((value) => value.toExponential(1));
  const found = `largest difference ${largest}, scaled ${scaled} (allowed ${tolerance.toExponential()})`;
  return `${num_inputs} recorded images: ${found}, same class of ${num_same_class}`;
}

/** Return what is told of a picture that was classified. */
export const toldOf = (answer) => `${answer.class}  ${(100 * answer.probability).toFixed(1)} %`;

/** Compare every file that SHA256SUMS lists with its hash; what it does not list is not read. */
async function checkFiles(files) {
  const lines = textOf(files, "SHA256SUMS").split("\n").filter(Boolean);
  const hashes = new Map(lines.map((line) => [line.slice(66), line.slice(0, 64)]));
  for (const name of new Set([...NEEDED, ...hashes.keys()])) {
    if (!files.has(name)) throw new Error(`${name} is missing`);
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", files.get(name)));
    const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (found !== hashes.get(name)) throw new Error(`${name} was altered: its hash is not that of SHA256SUMS`);
  }
}

function textOf(files, name) {
  if (!files.has(name)) throw new Error(`${name} is missing; expected the files of a bundle`);
  return new TextDecoder().decode(files.get(name));
}

/** Read an array of float32 in NumPy's format, whose shape but for the first size is known. */
function floatsOf(npy, shape) {
  const length = npy[8] + 256 * npy[9];
  const header = new TextDecoder("latin1").decode(npy.subarray(10, 10 + length));
  const [, sizes] = /'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9, ]+)\)/.exec(header) ?? [];
  const [num, ...rest] = (sizes ?? "").split(",").filter((text) => text.trim()).map(Number);
  if (String(rest) !== String(shape)) throw new Error(`vectors.npz holds ${header.trim()}, expected float32, ${shape}`);
  const size = sizeOf(shape);
  // From a copy, as numbers of four bytes have to begin at a multiple of four.
  const data = new Float32Array(npy.slice(10 + length).buffer);
  if (data.length !== num * size) throw new Error("vectors.npz is cut short");
  return { data, num, size };
}

const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

const indexOfLargest = (values) => values.indexOf(Math.max(...values));

/**
 * Lay a picture on white.
 * @param {Uint8Array | Uint8ClampedArray} rgba (H, W, 4)
 * @returns the picture, data (H, W, 3)
 */
export function onWhite(rgba, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    const alpha = rgba[4 * i + 3];
    for (let c = 0; c < 3; c++) {
      data[3 * i + c] = Math.round((rgba[4 * i + c] * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return { data, width, height };
}

/**
 * Do what a manifest's preprocessing says.
 * @param picture data (H, W, 3) of 8 bits, width and height
 * @param how `preprocessing` of the manifest
 * @returns {Float32Array} (C, S, S)
 */
export function prepare(picture, how) {
  const channels = how.mean.length;
  const n = how.native_size;
  if ((how.pixel_dtype ?? "uint8") !== "uint8" || ![1, 3].includes(channels)) {
    throw new Error(`the model takes ${channels} channels of ${how.pixel_dtype ?? "uint8"}, and no picture has them`);
  }
  const { data, width, height } = how.source_resize ? makeSquare(picture, how.source_resize) : picture;
  if (width !== n || height !== n) throw new Error(`the picture is ${width}x${height} pixels, expected ${n}x${n}`);
  if (channels === 1 && data.some((value, i) => value !== data[i - (i % 3)])) {
    throw new Error("the picture has colours, expected a grey one");
  }
  const { top, left, bottom, right, value } = how.padding;
  const rows = top + n + bottom;
  const columns = left + n + right;
  const { size } = how;
  const result = new Float32Array(channels * size * size);
  for (let c = 0; c < channels; c++) {
    const padded = new Float64Array(rows * columns).fill(Array.isArray(value) ? value[c] : value);
    for (let y = 0; y < n; y++) {
      for (let x = 0; x < n; x++) padded[(top + y) * columns + left + x] = data[(y * n + x) * 3 + c] / how.pixel_max;
    }
    const sized = toSize(padded, rows, size);
    for (let i = 0; i < size * size; i++) result[c * size * size + i] = (sized[i] - how.mean[c]) / how.std[c];
  }
  return result;
}

/** Do what `source_resize` says to a picture of any size. */
function makeSquare({ data, width: w, height: h }, { how, size: n }) {
  if (how === "crop") {
    const s = Math.min(w, h);
    return scaled(part(data, w, Math.floor((w - s) / 2), Math.floor((h - s) / 2), s), s, s, n, n);
  }
  if (how === "pad") {
    const m = Math.max(w, h);
    const [c, r] = [w, h].map((side) => Math.max(1, Math.floor((2 * side * n + m) / (2 * m))));
    const inner = scaled(data, w, h, c, r).data;
    const [left, top] = [Math.floor((n - c) / 2), Math.floor((n - r) / 2)];
    const square = new Uint8Array(n * n * 3);
    for (let y = 0; y < r; y++) square.set(inner.subarray(y * c * 3, (y + 1) * c * 3), ((top + y) * n + left) * 3);
    return { data: square, width: n, height: n };
  }
  if (how === "stretch") return scaled(data, w, h, n, n);
  throw new Error(`this program cannot ${how}`);
}

/** Cut a square of s x s pixels out of a picture of w columns. */
function part(data, w, left, top, s) {
  const square = new Uint8Array(s * s * 3);
  for (let y = 0; y < s; y++) {
    const start = ((top + y) * w + left) * 3;
    square.set(data.subarray(start, start + s * 3), y * s * 3);
  }
  return square;
}

/** Scale first along the longer side, then the other, rounded after each. */
function scaled(data, width, height, columns, rows) {
  const across = (pixels, lines) => scaledAxis(pixels, lines, width, 3, columns);
  const down = (pixels, inLine) => scaledAxis(pixels, 1, height, inLine * 3, rows);
  const result = height > width ? across(down(data, width), rows) : down(across(data, height), columns);
  return { data: result, width: columns, height: rows };
}

/** Scale the middle axis of pixels (outer, length, inner) to `size`. Sums are exact: they stay below 2**53. */
function scaledAxis(pixels, outer, length, inner, size) {
  const result = new Uint8Array(outer * size * inner);
  for (let i = 0; i < size; i++) {
    const { first, weights } = weightsOf(i, length, size);
    for (let o = 0; o < outer; o++) {
      for (let k = 0; k < inner; k++) {
        let sum = 2 ** 21;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * pixels[(o * length + first + j) * inner + k];
        result[(o * size + i) * inner + k] = Math.min(255, Math.floor(sum / 2 ** 22));
      }
    }
  }
  return result;
}

/** Return which pixels of an axis of `a` make pixel i of `b`, and their integer weights, times 2**22. */
function weightsOf(i, a, b) {
  const f = Math.max(a / b, 1);
  const p = (i + 0.5) * (a / b);
  const first = Math.max(0, Math.floor(p - f + 0.5));
  const last = Math.min(a, Math.floor(p + f + 0.5));
  const parts = Array.from({ length: last - first }, (_, j) => Math.max(0, 1 - Math.abs(first + j + 0.5 - p) / f));
  const sum = parts.reduce((total, each) => total + each, 0);
  return { first, weights: parts.map((each) => Math.floor((each / sum) * 2 ** 22 + 0.5)) };
}

/** Resize a square of numbers: bilinear, half-pixel centers, no antialiasing, edges repeated. */
function toSize(pixels, side, size) {
  const places = Array.from({ length: size }, (_, i) => {
    const at = Math.min(Math.max(((i + 0.5) * side) / size - 0.5, 0), side - 1);
    const low = Math.floor(at);
    return { low, high: Math.min(low + 1, side - 1), share: at - low };
  });
  const between = (a, b, share) => a * (1 - share) + b * share;
  const line = (y, { low, high, share }) => between(pixels[y * side + low], pixels[y * side + high], share);
  return places.flatMap((y) => places.map((x) => between(line(y.low, x), line(y.high, x), y.share)));
}
