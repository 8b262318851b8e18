// Draws the images of one or two generators, with onnxruntime-web, from seeds that mean the same as in the Python tools.

const data = JSON.parse(document.getElementById("page-data").textContent);
const field = (name) => document.getElementById(name);
const RECENT = 9;  // images whose median time is shown
const state = { networks: [], queue: Promise.resolve(), walking: false, drawn: 0 };

// A file of the page: embedded as gzip in base64, or beside the page on a server.
async function bytesOf(name) {
  const embedded = document.querySelector(`script[data-file="${name}"]`);
  if (!embedded) {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
  }
  const packed = Uint8Array.from(atob(embedded.textContent.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), seeded with one number.
class MersenneTwister {
  constructor(seed) {
    this.words = new Uint32Array(624);
    this.words[0] = seed;
    for (let i = 1; i < 624; i++) {
      const mixed = this.words[i - 1] ^ (this.words[i - 1] >>> 30);
      this.words[i] = Math.imul(mixed, 1812433253) + i;
    }
    this.position = 624;
  }

  word() {
    if (this.position === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (this.words[i] & 0x80000000) | (this.words[(i + 1) % 624] & 0x7fffffff);
        this.words[i] = this.words[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.position = 0;
    }
    let y = this.words[this.position++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  // 53 random bits in [0, 1).
  uniform() {
    const high = this.word() >>> 5;
    return (high * 67108864 + (this.word() >>> 6)) / 9007199254740992;
  }
}

// What numpy.random.RandomState(seed).randn(count) returns: Marsaglia's polar method, the second of each pair first.
function randn(seed, count) {
  const source = new MersenneTwister(seed);
  const found = [];
  while (found.length < count) {
    let a, b, square;
    do {
      a = 2 * source.uniform() - 1;
      b = 2 * source.uniform() - 1;
      square = a * a + b * b;
    } while (square >= 1 || square === 0);
    const scale = Math.sqrt((-2 * Math.log(square)) / square);
    found.push(scale * b, scale * a);
  }
  return Float32Array.from(found.slice(0, count));
}

const lerp = (from, to, t) => from.map((value, i) => value + (to[i] - value) * t);

// From one latent to another along a great circle, so that the length stays that of random latents.
function slerp(from, to, t) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const cosine = dot(from, to) / Math.sqrt(dot(from, from) * dot(to, to));
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  if (angle < 1e-4) return lerp(from, to, t);
  return from.map((v, i) => (v * Math.sin((1 - t) * angle) + to[i] * Math.sin(t * angle)) / Math.sin(angle));
}

const number = (name) => Math.min(Math.max(Math.floor(Number(field(name).value) || 0), 0), 4294967295);

// The label that the page's field stands for: a class number, or the label's own numbers with commas between them.
function labelOf(network) {
  const numbers = field("class").value.split(",").map((item) => Number(item) || 0);
  const label = new Float32Array(network.c_dim);
  if (network.takes_vectors || numbers.length > 1) label.set(numbers.slice(0, network.c_dim));
  else label[Math.min(Math.max(Math.floor(numbers[0]) - network.first_class, 0), network.c_dim - 1)] = 1;
  return label;
}

async function latentInputs(ort, network, z) {
  const inputs = { z: new ort.Tensor("float32", z, [1, network.z_dim]) };
  inputs.truncation = new ort.Tensor("float32", [Number(field("psi").value)], []);
  if (network.c_dim) {
    inputs.label = new ort.Tensor("float32", labelOf(network), [1, network.c_dim]);
  }
  return inputs;
}

async function imageOf(ort, network, step) {
  const latent = (seed) => randn(seed, network.z_dim);
  const seed = number("seed");
  const z = step === null ? latent(seed) : slerp(latent(seed), latent((seed + 1) % 4294967296), step);
  const inputs = await latentInputs(ort, network, z);
  if (!network.mapping) return (await network.image.run(inputs)).image;
  let { w } = await network.mapping.run(inputs);
  const layer = number("layer");
  if (layer < network.num_ws) {
    const other = await network.mapping.run(await latentInputs(ort, network, latent(number("other"))));
    const mixed = Float32Array.from(w.data);
    mixed.set(other.w.data.subarray(layer * network.w_dim), layer * network.w_dim);
    w = new ort.Tensor("float32", mixed, w.dims);
  }
  return (await network.image.run({ w })).image;
}

function show(network, image) {
  const [, height, width, channels] = image.dims;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = image.data[channels * i + (channels < 3 ? 0 : c)];
    pixels.data[4 * i + 3] = 255;
  }
  Object.assign(network.canvas, { width, height });
  network.canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

async function drawNow(ort, step) {
  for (const network of state.networks) {
    const start = performance.now();
    show(network, await imageOf(ort, network, step));
    network.times = [...network.times, performance.now() - start].slice(-RECENT);
    network.caption.textContent = `${network.name}: ${median(network.times).toFixed(1)} ms`;
  }
  document.body.dataset.drawn = String(++state.drawn);
}

function fail(error) {
  state.walking = false;
  field("status").className = "error";
  field("status").textContent = String(error.message || error);
}

function showSettings() {
  field("psi-text").textContent = field("psi").value;
  field("layer-text").textContent = Number(field("layer").value) < Number(field("layer").max)
    ? field("layer").value : "(none)";
}

// Draws once everything that was asked for before is drawn: a session runs one image at a time.
function draw(ort, step = null) {
  showSettings();
  state.queue = state.queue.then(() => drawNow(ort, step)).catch(fail);
  return state.queue;
}

async function walk(ort) {
  state.walking = !state.walking;
  field("walk").setAttribute("aria-pressed", String(state.walking));
  let step = 0;
  while (state.walking) {
    await draw(ort, step);
    step += 1 / 30;
    if (step >= 1) {
      step -= 1;
      field("seed").value = (number("seed") + 1) % 4294967296;
    }
    await new Promise(requestAnimationFrame);
  }
}

function connect(ort) {
  const step = (by) => { field("seed").value = Math.min(Math.max(number("seed") + by, 0), 4294967295); draw(ort); };
  field("controls").addEventListener("submit", (event) => event.preventDefault());
  field("controls").addEventListener("input", () => { if (!state.walking) draw(ort); });
  field("previous").addEventListener("click", () => step(-1));
  field("next").addEventListener("click", () => step(1));
  field("walk").addEventListener("click", () => walk(ort));
  field("download").addEventListener("click", () => {
    const network = state.networks.at(-1);  // beside a teacher, the student
    const link = document.createElement("a");
    link.download = `${network.name}-seed${String(number("seed")).padStart(4, "0")}.png`;
    link.href = network.canvas.toDataURL("image/png");
    document.body.dataset.downloaded = link.href;
    link.click();
  });
}

async function addNetwork(ort, network, provider) {
  const open = async (name) => ort.InferenceSession.create(new Uint8Array(await bytesOf(name)),
    { executionProviders: [provider], logSeverityLevel: 3 });
  network.image = await open(network.image_file);
  network.mapping = network.mapping_file ? await open(network.mapping_file) : null;
  const figure = document.createElement("figure");
  network.canvas = document.createElement("canvas");
  network.canvas.width = network.canvas.height = network.resolution;
  network.canvas.setAttribute("role", "img");
  network.canvas.setAttribute("aria-label", `image of ${network.name}`);
  network.times = [];
  network.caption = document.createElement("figcaption");
  figure.append(network.canvas, network.caption);
  field("images").append(figure);
  state.networks.push(network);
}

// Opens all networks with a provider of onnxruntime-web, and draws the first images.
async function open(ort, provider) {
  state.networks = [];
  field("images").replaceChildren();
  for (const network of data.networks) await addNetwork(ort, network, provider);
  await drawNow(ort, null);
  // A session's first images take longer than the later ones. They do not count, unless images take seconds anyway.
  const slow = state.networks.some((network) => network.times[0] > 1000);
  for (let i = 0; !slow && i < 5; i++) {
    for (const network of state.networks) network.times = [];
    await drawNow(ort, null);
  }
}

// Opens all networks with WebGPU where that works, else with WebAssembly; returns what to say about it.
async function openAnyhow(ort) {
  let reason = "this browser has no WebGPU";
  if (navigator.gpu) {
    try {
      const adapter = await navigator.gpu.requestAdapter();
      if (!adapter) throw new Error("it offers no adapter");
      (await adapter.requestDevice()).destroy();
      await open(ort, "webgpu");
      return "Computed in this browser, by WebGPU.";
    } catch (error) {
      reason = `its WebGPU does not work (${String(error.message || error).split("\n")[0]})`;
    }
  }
  await open(ort, "wasm");
  return `Computed in this browser, by WebAssembly: ${reason}.`;
}

// A module with one SIMD instruction.
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0,
  253, 15, 253, 98, 11]);

async function start() {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Error("This browser has no WebAssembly SIMD, which the page needs to compute images. " +
      "Current versions of Chrome, Edge, Firefox and Safari have it.");
  }
  if (typeof DecompressionStream !== "function") throw new Error("This browser is too old: it cannot unpack the page.");
  const text = await bytesOf("runtime.mjs");
  const ort = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  ort.env.wasm.wasmBinary = await bytesOf("runtime.wasm");
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const first = data.networks[0];
  if (first.c_dim) {
    field("class-row").hidden = false;
    field("class").value = first.takes_vectors ? new Array(first.c_dim).fill(0).join(",") : String(first.first_class);
    field("class-text").textContent = first.takes_vectors ? `Label, ${first.c_dim} numbers`
      : `Class ${first.first_class} to ${first.first_class + first.c_dim - 1}, or weights of all of them`;
  }
  field("layer").max = field("layer").value = Math.max(...data.networks.map((network) => network.num_ws));
  field("mixing").hidden = data.networks.every((network) => !network.mapping_file);
  showSettings();
  field("status").textContent = await openAnyhow(ort);
  connect(ort);
  field("about").textContent = `${data.about} Times are medians of the last ${RECENT} images.`;
  document.body.dataset.ready = "1";
}

start().catch((error) => { fail(error); document.body.dataset.ready = "1"; });
