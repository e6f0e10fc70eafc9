/* The network as a graph: zoom, pan, and a choice that is the layers' own. */
const net = $("net");
if (net) {
  const root = net.querySelector("svg"),
    boxes = [...net.querySelectorAll("g[data-layer]")].sort((a, b) => a.dataset.layer - b.dataset.layer);
  const full = { width: root.viewBox.baseVal.width, height: root.viewBox.baseVal.height };
  let scale = 1;

  function zoom(to, x = net.clientWidth / 2, y = net.clientHeight / 2) {
    const next = Math.min(2.5, Math.max(0.06, to)),
      left = (net.scrollLeft + x) / scale,
      top = (net.scrollTop + y) / scale;
    scale = next;
    root.setAttribute("width", full.width * scale);
    root.setAttribute("height", full.height * scale);
    net.scrollLeft = left * scale - x;
    net.scrollTop = top * scale - y;
  }
  const fitting = () => Math.min((net.clientWidth - 4) / full.width, (net.clientHeight - 4) / full.height);
  $("zoom-in").addEventListener("click", () => zoom(scale * 1.3));
  $("zoom-out").addEventListener("click", () => zoom(scale / 1.3));
  $("zoom-fit").addEventListener("click", () => zoom(fitting()));
  $("zoom-one").addEventListener("click", () => zoom(1));
  net.addEventListener(
    "wheel",
    (e) => {
      if (!e.ctrlKey && !e.metaKey) return;
      e.preventDefault();
      const r = net.getBoundingClientRect();
      zoom(scale * Math.exp(-e.deltaY / 300), e.clientX - r.left, e.clientY - r.top);
    },
    { passive: false },
  );
  let held = null;
  net.addEventListener("pointerdown", (e) => {
    if (e.pointerType === "mouse") held = { x: e.clientX, y: e.clientY, left: net.scrollLeft, top: net.scrollTop };
  });
  net.addEventListener("pointermove", (e) => {
    if (!held) return;
    net.scrollLeft = held.left - (e.clientX - held.x);
    net.scrollTop = held.top - (e.clientY - held.y);
  });
  for (const end of ["pointerup", "pointerleave", "pointercancel"]) net.addEventListener(end, () => (held = null));

  const near = (box) => {
    const r = box.getBoundingClientRect(),
      f = net.getBoundingClientRect();
    if (r.top < f.top || r.bottom > f.bottom) net.scrollTop += r.top - f.top - f.height / 2;
    if (r.left < f.left || r.right > f.right) net.scrollLeft += r.left - f.left - f.width / 2;
  };
  chosenListeners.push((k) => {
    for (const box of boxes) {
      const own = Number(box.dataset.layer) === k;
      box.classList.toggle("chosen", own);
      box.setAttribute("aria-pressed", own);
      box.setAttribute("tabindex", own ? 0 : -1);
      if (own) near(box);
    }
  });
  if (boxes.length) boxes[0].setAttribute("tabindex", 0);
  for (const box of boxes) box.addEventListener("click", () => choose(Number(box.dataset.layer), false));
  root.addEventListener("keydown", (e) => {
    const k = boxes.indexOf(document.activeElement);
    if (k < 0) return;
    if (e.key === "Enter" || e.key === " ") {
      e.preventDefault();
      choose(Number(boxes[k].dataset.layer), false);
      return;
    }
    const to = { ArrowDown: k + 1, ArrowRight: k + 1, ArrowUp: k - 1, ArrowLeft: k - 1, Home: 0, End: boxes.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    const next = boxes[Math.min(boxes.length - 1, Math.max(0, to))];
    boxes[k].setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus({ preventScroll: true });
    near(next);
  });
  $("paint").addEventListener("change", (e) => {
    net.className = "net " + e.target.value;
    for (const kind of ["by-form", "by-noise"]) $(kind + "-key").hidden = kind !== e.target.value;
  });
  zoom(Math.max(0.55, Math.min(1, (net.clientWidth - 20) / full.width)));
  net.scrollLeft = (full.width * scale - net.clientWidth) / 2;
}
