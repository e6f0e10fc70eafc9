"use strict";
/* Charts of one layer, drawn as wide as their box. */
const minus = (s) => String(s).replace(/-/g, "−");
const short = (v) => (v === 0 ? "0" : minus(Number(v.toPrecision(3)).toString()));

function ticks(lo, hi, most) {
  const span = Math.max(hi - lo, 1e-12),
    size = 10 ** Math.floor(Math.log10(span / most));
  for (const step of [1, 2, 2.5, 5, 10, 20].map((k) => k * size)) {
    const a = Math.floor(lo / step + 1e-9),
      b = Math.ceil(hi / step - 1e-9);
    if (b - a < most) return Array.from({ length: Math.max(b - a, 1) + 1 }, (_, k) => (a + k) * step);
  }
  return [lo, hi];
}

function svg(tag, attrs, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}
/* A frame with axes; returns where values lie. */
function frame(box, label, marks, height, xLabel) {
  const width = Math.max(box.clientWidth || 320, 280),
    left = 56,
    right = 10,
    top = 10,
    bottom = 40;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const lo = marks[0],
    hi = marks[marks.length - 1];
  const y = (v) => height - bottom - ((v - lo) / (hi - lo || 1)) * (height - bottom - top);
  for (const m of marks) {
    root.append(svg("line", { class: m === 0 ? "zero" : "grid", x1: left, x2: width - right, y1: y(m), y2: y(m) }));
    root.append(svg("text", { class: "tick end", x: left - 6, y: y(m) + 4 }, short(m)));
  }
  root.append(svg("text", { class: "tick mid", x: (left + width - right) / 2, y: height - 4 }, xLabel));
  box.replaceChildren(root);
  return { root, y, left, right: width - right, base: height - bottom, top };
}
function xTicks(f, values, place) {
  for (const v of values) f.root.append(svg("text", { class: "tick mid", x: place(v), y: f.base + 16 }, minus(v)));
}
/* A hair line that follows the pointer, and what it points at. */
function pointed(f, count, place, box, text) {
  const hair = svg("line", { class: "hair", y1: f.top, y2: f.base, visibility: "hidden" });
  f.root.append(hair);
  const out = box.parentNode.querySelector(".readout");
  f.root.addEventListener("pointermove", (e) => {
    const r = f.root.getBoundingClientRect(),
      w = f.root.viewBox.baseVal.width;
    const k = Math.min(count - 1, Math.max(0, place((e.clientX - r.left) * (w / r.width))));
    const x = text.at(k);
    hair.setAttribute("x1", x);
    hair.setAttribute("x2", x);
    hair.setAttribute("visibility", "visible");
    out.textContent = text.say(k);
  });
  f.root.addEventListener("pointerleave", () => {
    hair.setAttribute("visibility", "hidden");
    out.textContent = "\u00a0";
  });
}

function wholeTicks(n) {
  for (let most = 8; most > 1; most--) {
    const marks = ticks(0, n, most);
    if (marks.every((v) => v % 1 === 0)) return marks.filter((v) => v < n);
  }
  return [0];
}
function channelChart(box, rows, marks, label, limits, say) {
  const n = rows.length / 3,
    f = frame(box, label, marks, 250, "output channel");
  const step = (f.right - f.left) / n,
    wide = Math.max(step * 0.7, 0.6);
  let ranges = "",
    medians = "";
  for (let k = 0; k < n; k++) {
    const [lo, mid, hi] = rows.slice(3 * k, 3 * k + 3).map(f.y),
      x = f.left + (k + 0.5) * step - wide / 2;
    const across = wide.toFixed(2),
      low = Math.max(lo, hi + 0.8).toFixed(1);
    ranges += `M${x.toFixed(2)} ${hi.toFixed(1)}h${across}V${low}h-${across}z`;
    medians += `M${x.toFixed(2)} ${(mid - 1).toFixed(1)}h${wide.toFixed(2)}v2h${(-wide).toFixed(2)}z`;
  }
  f.root.append(svg("path", { class: "range", d: ranges }), svg("path", { class: "median", d: medians }));
  for (const v of limits)
    f.root.append(svg("line", { class: "limit", x1: f.left, x2: f.right, y1: f.y(v), y2: f.y(v) }));
  const at = (k) => f.left + (k + 0.5) * step;
  xTicks(f, wholeTicks(n), at);
  pointed(f, n, (x) => Math.floor((x - f.left) / step), box, { at, say });
}

function histogram(box, l) {
  const { counts, width } = l.histogram,
    g = l.grid,
    most = Math.max(...counts);
  const f = frame(
    box,
    `Histogram of ${l.weights} integer weights`,
    ticks(0, most, 5),
    250,
    width > 1 ? `integer weight (bars of ${width} steps)` : "integer weight (one bar a step)",
  );
  const step = (f.right - f.left) / counts.length,
    total = l.weights;
  let bars = "";
  counts.forEach((c, k) => {
    if (c)
      bars +=
        `M${(f.left + k * step).toFixed(2)} ${f.base}V${Math.min(f.y(c), f.base - 1).toFixed(1)}` +
        `h${Math.max(step * 0.85, 0.6).toFixed(2)}V${f.base}z`;
  });
  f.root.append(svg("path", { class: "hist", d: bars }));
  const at = (k) => f.left + (k + 0.5) * step,
    q = (k) => g.first + k * width;
  const marks = ticks(g.first, g.last + 1, 9).filter((v) => v >= g.first && v <= g.last + 1);
  xTicks(f, marks, (v) => at((v - g.first) / width));
  pointed(f, counts.length, (x) => Math.floor((x - f.left) / step), box, {
    at,
    say: (k) =>
      `${minus(q(k))}${width > 1 ? " to " + minus(q(k) + width - 1) : ""}: ` +
      `${counts[k]} weights (${((100 * counts[k]) / total).toFixed(1)} %)`,
  });
}

/* Values of an activation over its grid and beyond, of which the outermost bars hold the rest. */
function activation(parent, title, t) {
  const { inside, beyond } = data,
    total = t.counts.reduce((a, b) => a + b, 0),
    width = (t.hi - t.lo) / inside,
    most = Math.max(...t.counts);
  const share = (n) => `${((100 * n) / total).toPrecision(2)} %`;
  const cut = t.saturated > 0 ? `${(100 * t.saturated).toPrecision(2)} % of the values lie beyond it` : "no value beyond it";
  const box = figure(parent, title, `${t.bits} bits, ${short(t.lo)} to ${short(t.hi)}; ${cut}; heights are square roots`, [
    ["limit", "ends of the grid"],
  ]);
  const f = frame(box, `${title}: ${cut}`, [0, 1], 250, "value, real units");
  f.root.querySelectorAll("text.end, line.grid").forEach((e) => e.remove());
  const step = (f.right - f.left) / t.counts.length;
  const x = (v) => f.left + ((v - t.lo) / width + beyond) * step;
  let bars = "";
  t.counts.forEach((c, k) => {
    if (c)
      bars +=
        `M${(f.left + k * step).toFixed(2)} ${f.base}V${Math.min(f.y(Math.sqrt(c / most)), f.base - 1).toFixed(1)}` +
        `h${(step * 0.85).toFixed(2)}V${f.base}z`;
  });
  f.root.append(svg("path", { class: "hist", d: bars }));
  for (const v of [t.lo, t.hi])
    f.root.append(svg("line", { class: "limit", x1: x(v), x2: x(v), y1: f.top, y2: f.base }));
  const apart = (v) => Math.abs(x(0) - x(v)) > 40;
  for (const v of new Set([t.lo, ...(t.lo < 0 && t.hi > 0 && apart(t.lo) && apart(t.hi) ? [0] : []), t.hi]))
    f.root.append(svg("text", { class: "tick mid", x: x(v), y: f.base + 16 }, short(v)));
  const low = (k) => t.lo + (k - beyond) * width;
  pointed(f, t.counts.length, (p) => Math.floor((p - f.left) / step), box, {
    at: (k) => f.left + (k + 0.5) * step,
    say: (k) => `${short(low(k))} to ${short(low(k + 1))}: ${t.counts[k]} values (${share(t.counts[k])})`,
  });
}
