const data = JSON.parse(document.getElementById("data").textContent),
  layers = data.layers;
const $ = (id) => document.getElementById(id);
const tiles = [...document.querySelectorAll(".tile")];
const into = layers.map(() => []);
layers.forEach((l, k) => l.from.forEach((j) => into[j].push(k)));
let chosen = -1;
const chosenListeners = []; // called with the number of the layer that was chosen

function make(tag, attrs, ...kids) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {}))
    k === "onclick" ? e.addEventListener("click", v) : e.setAttribute(k, v);
  e.append(...kids);
  return e;
}
const db = (v) => (v == null ? "–" : minus(v.toFixed(1)) + " dB");
const pair = (v, f) => v.map((x) => (x == null ? "–" : f(x))).join(" → ");
function words(text) {
  const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(raw.buffer);
  return Array.from({ length: raw.length / 2 }, (_, k) => view.getUint16(2 * k, true));
}
function figure(parent, caption, detail, legend) {
  const box = make("div", { class: "draw" });
  const list = make("ul", { class: "legend" }, ...legend.map(([c, t]) => make("li", {}, make("i", { class: c }), t)));
  parent.append(
    make(
      "figure",
      {},
      make("figcaption", {}, caption, make("span", { class: "detail" }, detail)),
      list,
      box,
      make("p", { class: "readout", "aria-hidden": "true" }, "\u00a0"),
    ),
  );
  return box;
}

function facts(l) {
  const rows = [
      ["type", l.type],
      ["weight", l.shape.join(" × ")],
    ],
    g = l.grid;
  if (g) {
    const two = (v, f) => (v[0] === v[1] ? f(v[0]) : `${f(v[0])} to ${f(v[1])}`);
    rows.push(
      ["grid", `${g.bits} bits, ${minus(g.first)} to ${g.last}`],
      ["step", two(g.steps, short)],
      ["zero point", two(g.zeros, minus)],
    );
    rows.push(["integers used", `${l.histogram.used} of ${g.last - g.first + 1}`]);
  } else rows.push(["grid", "none: weights stay float"]);
  if (l.shifts) rows.push(["shifts", `${Math.min(...l.shifts)} to ${Math.max(...l.shifts)} bits`]);
  if (l.measured) rows.push(...sqnrs(l.measured, "measured"));
  rows.push(
    ["overlap ratio", pair(l.overlap, (v) => v.toFixed(2))],
    ["rounding error", pair(l.error, (v) => short(100 * v) + " %")],
  );
  return listed(rows);
}
const sqnrs = (noise, how) =>
  [
    ["weights", "of weights"],
    ["activations", "of input"],
    ["both", "of both"],
  ].map(([key, label]) => [`SQNR ${label}, ${how}`, db(noise[key])]);
function listed(rows) {
  return make(
    "dl",
    { class: "facts" },
    ...rows.map(([k, v]) => make("div", {}, make("dt", {}, k), make("dd", {}, v))),
  );
}
function predictions(l) {
  const rows = sqnrs(l.predicted, "predicted");
  rows.push(["limited by", l.limit || "–"], ["share of all noise", `${(100 * l.share).toFixed(1)} % by its weights`]);
  return make("details", {}, make("summary", {}, "Predicted for this layer"), listed(rows));
}

function steps(k) {
  const jump = (j, text) => make("button", { type: "button", onclick: () => choose(j, true) }, text);
  const bar = make("div", { class: "steps" });
  if (k > 0) bar.append(jump(k - 1, "← previous"));
  if (k < layers.length - 1) bar.append(jump(k + 1, "next →"));
  for (const [word, list] of [
    ["reads", layers[k].from],
    ["feeds", into[k]],
  ])
    if (list.length)
      bar.append(
        make("span", { class: "detail" }, word),
        ...list.slice(0, 12).map((j) => jump(j, `${j + 1} ${layers[j].name}`)),
        ...(list.length > 12 ? [`and ${list.length - 12} more`] : []),
      );
  return bar;
}

function numbers(before, after, l) {
  const d = make("details", {}, make("summary", {}, `Numbers of ${l.channels} channels`));
  d.addEventListener("toggle", () => {
    if (!d.open || d.children.length > 1) return;
    const head = [
      "channel",
      "min",
      "median",
      "max",
      ...(after ? ["integer min", "median", "max"] : []),
      ...(l.shifts ? ["shift"] : []),
    ];
    const table = make(
      "table",
      {},
      make(
        "caption",
        {},
        "Float weights of every output channel, BatchNorms folded, and the integers that they became",
      ),
      make("thead", {}, make("tr", {}, ...head.map((h) => make("th", { scope: "col" }, h)))),
    );
    const body = make("tbody");
    for (let k = 0; k < l.channels; k++) {
      const cells = [
        ...before.slice(3 * k, 3 * k + 3).map(short),
        ...(after ? after.slice(3 * k, 3 * k + 3).map(minus) : []),
        ...(l.shifts ? [l.shifts[k]] : []),
      ];
      body.append(
        make("tr", {}, make("th", { scope: "row" }, String(k)), ...cells.map((c) => make("td", {}, String(c)))),
      );
    }
    table.append(body);
    d.append(
      make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Numbers of channels" }, table),
    );
  });
  return d;
}

function show(k) {
  const l = layers[k],
    g = l.grid,
    panel = $("detail");
  const before = words(l.ranges.packed).map((v) => ((v > 32767 ? v - 65536 : v) / 32767) * l.ranges.peak);
  const after = g ? words(l.integers).map((v) => v + g.first) : null;
  const grid = make("div", { class: "panels" });
  panel.replaceChildren(
    make("h3", {}, `Layer ${k + 1}: ${l.name}`),
    steps(k),
    facts(l),
    grid,
    predictions(l),
    numbers(before, after, l),
  );
  const legend = [
      ["range", "min to max"],
      ["median", "median"],
    ],
    ends = [...legend, ["limit", "ends of the grid"]];
  const name = (v, j) => `channel ${j}: ${short(v[3 * j])} to ${short(v[3 * j + 2])}, median ${short(v[3 * j + 1])}`;
  const one = figure(grid, "Channels before", "float weights, BatchNorms folded, real units", legend);
  const two = g && figure(grid, "Channels after", `${l.shifts ? "shifted " : ""}weights on their grid, steps`, ends);
  const three =
    g &&
    figure(
      grid,
      "Weights on the grid",
      `${l.weights} weights, ${l.histogram.used} of ${g.last - g.first + 1} integers used`,
      [],
    );
  let lo = 0,
    hi = 0;
  for (const v of before) {
    lo = Math.min(lo, v);
    hi = Math.max(hi, v);
  }
  if (lo === hi) hi = 1;
  channelChart(
    one,
    before,
    ticks(lo, hi, 6),
    `Weight ranges of ${l.channels} channels before quantization`,
    [],
    (j) => name(before, j),
  );
  for (const [side, words] of [
    ["input", "Input on its grid"],
    ["output", "Output on its grid"],
  ]) {
    const tensor = l.tensors[side] && data.activations[l.tensors[side]];
    if (tensor) activation(grid, words, tensor);
  }
  if (!g) return;
  const marks = [0, 1, 2, 3, 4].map((j) => Math.min(g.first + (j * (g.last - g.first + 1)) / 4, g.last));
  channelChart(
    two,
    after,
    marks,
    `Integer ranges of ${l.channels} channels`,
    [g.first, g.last],
    (j) => name(after, j) + (l.shifts ? `, shift ${l.shifts[j]}` : ""),
  );
  histogram(three, l);
}

function choose(k, focus) {
  if (chosen >= 0) tiles[chosen].setAttribute("aria-pressed", "false");
  tiles.forEach((t, j) => (t.tabIndex = j === k ? 0 : -1));
  tiles[k].setAttribute("aria-pressed", "true");
  chosen = k;
  if (focus) tiles[k].focus({ preventScroll: true });
  const map = $("map"),
    t = tiles[k];
  if (t.offsetTop < map.scrollTop || t.offsetTop + t.offsetHeight > map.scrollTop + map.clientHeight)
    map.scrollTop = t.offsetTop - map.clientHeight / 2;
  show(k);
  for (const listener of chosenListeners) listener(k);
  if (focus !== undefined) $("said").textContent = `Layer ${k + 1}, ${layers[k].name}, is shown`;
}

tiles.forEach((t, k) => t.addEventListener("click", () => choose(k, false)));
$("map").addEventListener("keydown", (e) => {
  const k = tiles.indexOf(document.activeElement);
  if (k < 0) return;
  const row = tiles.filter((t) => t.offsetTop === tiles[0].offsetTop).length;
  const to = {
    ArrowRight: k + 1,
    ArrowLeft: k - 1,
    ArrowDown: k + row,
    ArrowUp: k - row,
    Home: 0,
    End: tiles.length - 1,
  }[e.key];
  if (to === undefined) return;
  e.preventDefault();
  const next = Math.min(tiles.length - 1, Math.max(0, to));
  tiles[k].tabIndex = -1;
  tiles[next].tabIndex = 0;
  tiles[next].focus();
});

if ($("side"))
  $("side").addEventListener("change", (e) => {
    const m = e.target.value === "measured";
    for (const t of tiles) {
      t.className = "tile b" + (m ? t.dataset.m : t.dataset.p);
      t.querySelector("b").textContent = m ? t.dataset.tm : t.dataset.tp;
    }
  });

document.querySelectorAll(".plot").forEach((plot) => {
  const root = plot.querySelector("svg"),
    series = JSON.parse(plot.dataset.series);
  const left = Number(root.dataset.left),
    step = Number(root.dataset.step),
    height = root.viewBox.baseVal.height;
  const f = { root, top: 10, base: height - 40 };
  const near = (x) => Math.round((x - left) / step);
  const box = root.parentNode;
  pointed(f, layers.length, near, box, {
    at: (k) => left + k * step,
    say: (k) => `${k + 1} ${layers[k].name}: ` + series.map(([name, v]) => `${name} ${db(v[k])}`).join(", "),
  });
  root.addEventListener("click", (e) => {
    const r = root.getBoundingClientRect();
    const k = Math.min(
      layers.length - 1,
      Math.max(0, near(((e.clientX - r.left) * root.viewBox.baseVal.width) / r.width)),
    );
    choose(k, false);
    $("detail").scrollIntoView({ block: "start" });
  });
});

const theme = $("theme"),
  modes = ["auto", "light", "dark"];
theme.hidden = false;
theme.addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || "auto",
    next = modes[(modes.indexOf(now) + 1) % 3];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  theme.textContent = `Theme: ${next}`;
});
let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => chosen >= 0 && show(chosen), 150);
});
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
