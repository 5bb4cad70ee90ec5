"use strict";
// Pictures with boxes on a canvas: zoom, score, classes, layers. No library and no request; what is
// shown stands in the URL's hash, so that a link keeps it.
(() => {
  const root = document.getElementById("viewer");
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const part = name => root.querySelector(`[data-part="${name}"]`);
  const canvas = part("canvas"), ink = canvas.getContext("2d");
  const DASHES = [[7, 4], [2, 3], []]; // whole image, crops, fused: the last layer is solid
  const OUTCOMES = { TP: "#46cd5a", FP: "#ff4848", FN: "#ffcc00" };
  const MOST = 40; // greatest zoom
  const main = data.layers[data.layers.length - 1];
  const judged = data.images.some(image => image.truth);
  const has = {
    density: data.images.some(image => image.density),
    windows: data.images.some(image => image.windows.length),
    truth: judged,
  };
  const start = { index: 0, score: data.score, layers: [main], off: [], colour: "class", view: [0.5, 0.5, 1] };
  const state = { ...start };
  const pictures = new Map(); // source -> Image
  const current = () => data.images[state.index];

  // --- what is shown ------------------------------------------------------------------------------

  /** Boxes of a layer of an image as objects: [x1, y1, x2, y2], score, class, matched truth row. */
  function boxes(image, layer) {
    image.parsed ??= {};
    return image.parsed[layer] ??= rows(image.boxes[layer] ?? [], 7).map(row => (
      { box: row.slice(0, 4), score: row[4] / 1000, kind: row[5], match: row[6] }));
  }

  function rows(flat, width) {
    return Array.from({ length: flat.length / width }, (_, i) => flat.slice(i * width, (i + 1) * width));
  }

  const isOn = layer => state.layers.includes(layer);
  const seen = (image, layer) =>
    boxes(image, layer).filter(one => one.score >= state.score - 1e-9 && !state.off.includes(one.kind));
  const truths = image => rows(image.truth ?? [], 5)
    .map((row, at) => ({ box: row.slice(0, 4), kind: row[4], at }))
    .filter(one => !state.off.includes(one.kind));

  /** TP, FP and FN of the last layer at the slider's score; matches were made at IoU 0.5. */
  function outcome(image) {
    const found = seen(image, main), hit = new Set(found.map(one => one.match));
    const all = truths(image);
    const tp = found.filter(one => one.match >= 0).length;
    return { tp, fp: found.filter(one => one.match === -1).length, missed: all.filter(one => !hit.has(one.at)) };
  }

  // --- drawing ------------------------------------------------------------------------------------

  function geometry() {
    const [height, width] = current().size, frame = canvas.getBoundingClientRect();
    const fit = Math.min(frame.width / width, frame.height / height) || 1;
    const [cx, cy, zoom] = state.view, scale = fit * zoom;
    return { width, height, frame, scale, left: frame.width / 2 - cx * width * scale, top: frame.height / 2 - cy * height * scale };
  }

  function loaded(source) {
    let picture = pictures.get(source);
    if (!picture) {
      if (pictures.size > 40) pictures.delete(pictures.keys().next().value);
      picture = new Image();
      picture.onload = picture.onerror = render;
      picture.src = source;
      pictures.set(source, picture);
    }
    return picture;
  }

  let due = 0;
  function render() {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(draw);
  }

  function draw() {
    const g = geometry(), dots = window.devicePixelRatio || 1, image = current();
    canvas.width = Math.round(g.frame.width * dots);
    canvas.height = Math.round(g.frame.height * dots);
    ink.setTransform(dots, 0, 0, dots, 0, 0);
    ink.imageSmoothingEnabled = g.scale < 4;
    const picture = loaded(image.src), area = [g.left, g.top, g.width * g.scale, g.height * g.scale];
    const broken = picture.complete && !picture.naturalWidth;
    if (picture.complete && !broken) ink.drawImage(picture, ...area);
    part("problem").hidden = !broken;
    if (isOn("density") && image.density) {
      const overlay = loaded(image.density);
      if (overlay.complete && overlay.naturalWidth) {
        ink.imageSmoothingEnabled = true;
        ink.drawImage(overlay, ...area);
      }
    }
    const place = ([x1, y1, x2, y2]) => [g.left + x1 * g.scale, g.top + y1 * g.scale, (x2 - x1) * g.scale, (y2 - y1) * g.scale];
    const byOutcome = state.colour === "outcome" && image.truth, tags = [];
    if (isOn("windows")) for (const window of image.windows) frame(place(window), "#ffffff", 2, [10, 6], "#00000099");
    if (isOn("truth") && !byOutcome) for (const one of truths(image)) frame(place(one.box), "#ffffff", 1.5, [], "#000000cc");
    data.layers.forEach((layer, at) => {
      if (!isOn(layer)) return;
      const dash = layer === main ? [] : DASHES[at % 2];
      for (const one of seen(image, layer)) {
        let colour = data.classes[one.kind].colour;
        if (byOutcome && layer === main) colour = one.match >= 0 ? OUTCOMES.TP : one.match === -1 ? OUTCOMES.FP : "#9aa7bf";
        const where = place(one.box);
        frame(where, colour, 2, dash);
        tags.push([where, `${data.classes[one.kind].name} ${one.score.toFixed(2)}`, colour]);
      }
    });
    if (byOutcome && isOn(main)) for (const one of outcome(image).missed) {
      const where = place(one.box);
      frame(where, OUTCOMES.FN, 2, [4, 3]);
      tags.push([where, `${data.classes[one.kind].name} FN`, OUTCOMES.FN]);
    }
    for (const each of tags) tag(...each);
  }

  function frame([x, y, w, h], colour, width, dash, halo) {
    ink.setLineDash(dash);
    if (halo) {
      ink.setLineDash([]);
      ink.strokeStyle = halo;
      ink.lineWidth = width + 2;
      ink.strokeRect(x, y, w, h);
      ink.setLineDash(dash);
    }
    ink.strokeStyle = colour;
    ink.lineWidth = Math.min(width, Math.max(1, Math.min(w, h) / 6));
    ink.strokeRect(x, y, w, h);
  }

  /** Class and score above a box that is wide enough for them. */
  function tag([x, y, w], text, colour) {
    if (w < 44) return;
    ink.font = "600 12px system-ui, sans-serif";
    const wide = ink.measureText(text).width + 8, top = Math.max(0, y - 17);
    if (w < 0.8 * wide) return;
    ink.fillStyle = colour;
    ink.fillRect(x - 1, top, wide, 17);
    ink.fillStyle = "#10141c";
    ink.fillText(text, x + 3, top + 12.5);
  }

  // --- counts -------------------------------------------------------------------------------------

  const number = value => value.toLocaleString("en");
  const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;

  function counts() {
    const image = current(), found = seen(image, main), per = data.classes.map(() => 0);
    boxes(image, main).forEach(one => { if (one.score >= state.score - 1e-9) per[one.kind] += 1; });
    part("classes").querySelectorAll("output").forEach(out => { out.value = number(per[out.dataset.kind]); });
    part("layers").querySelectorAll("output").forEach(out => {
      const name = out.dataset.layer;
      if (name === "density") out.value = image.count == null ? "" : image.count.toFixed(1);
      else if (name === "windows") out.value = number(image.windows.length);
      else if (name === "truth") out.value = image.truth ? number(truths(image).length) : "";
      else out.value = number(seen(image, name).length);
    });
    part("objects").textContent = number(found.length);
    const total = data.images.reduce((sum, each) => sum + seen(each, main).length, 0);
    part("total").textContent = `${plural(total, "object", "objects")} in ${plural(data.images.length, "image", "images")}`;
    const rates = part("rates");
    rates.hidden = !image.truth;
    let spoken = `${image.id}: ${plural(found.length, "object", "objects")} at score ${state.score.toFixed(2)} or more`;
    if (image.truth) {
      const { tp, fp, missed } = outcome(image);
      [["tp", tp], ["fp", fp], ["fn", missed.length]].forEach(([name, value]) => { part(name).textContent = number(value); });
      spoken += `; ${tp} TP, ${fp} FP, ${missed.length} FN`;
    }
    const named = data.classes.map((kind, at) => [kind.name, per[at], at]).filter(([, n, at]) => n && !state.off.includes(at));
    if (named.length) spoken += `: ${named.map(([name, n]) => `${n} ${name}`).join(", ")}`;
    canvas.setAttribute("aria-label", `Picture ${spoken}`);
    clearTimeout(speak.due);
    speak.due = setTimeout(speak, 350, spoken);
  }

  function speak(text) {
    part("live").textContent = text;
  }

  // --- state and its link -------------------------------------------------------------------------

  function update(change, keep = true) {
    const moved = "index" in change && change.index !== state.index;
    Object.assign(state, change);
    if (moved) state.view = change.view ?? start.view;
    const image = current();
    part("score").value = state.score;
    part("score-value").value = state.score.toFixed(2);
    part("name").textContent = image.id;
    part("position").textContent = `${state.index + 1} / ${data.images.length}`;
    part("zoom-value").textContent = `${Math.round(100 * state.view[2])} %`;
    root.querySelectorAll("[data-kind-box]").forEach(box => { box.checked = !state.off.includes(Number(box.value)); });
    root.querySelectorAll("[data-layer-box]").forEach(box => { box.checked = isOn(box.value); });
    root.querySelectorAll("[data-colour]").forEach(box => { box.checked = box.value === state.colour; });
    part("thumbs").querySelectorAll("button").forEach((button, at) => {
      if (at === state.index) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    if (moved) reveal(part("thumbs").querySelector("[aria-current]"));
    canvas.classList.toggle("zoomed", state.view[2] > 1.001);
    if (Object.keys(change).some(name => name !== "view") || !keep) counts();
    render();
    if (keep) remember();
  }

  let later = 0;
  /** Write the link once things are calm: browsers limit how often it may change. */
  function remember() {
    clearTimeout(later);
    later = setTimeout(() => history.replaceState(null, "", `#${link()}`), 150);
  }

  /** Scroll the strip of thumbnails alone, never the page. */
  function reveal(button) {
    const strip = part("thumbs"), item = button.parentElement;
    strip.scrollTop = item.offsetTop - (strip.clientHeight - item.offsetHeight) / 2;
    strip.scrollLeft = item.offsetLeft - (strip.clientWidth - item.offsetWidth) / 2;
  }

  function link() {
    const out = new URLSearchParams({ image: current().id, score: state.score.toFixed(2), layers: state.layers.join(",") });
    if (state.off.length) out.set("off", state.off.map(at => data.classes[at].name).join(","));
    if (state.colour !== "class") out.set("colour", state.colour);
    if (state.view[2] > 1.001) out.set("view", state.view.map(value => value.toFixed(4)).join(","));
    return out.toString();
  }

  function follow() {
    const text = location.hash.slice(1);
    if (!text.includes("image=")) return;
    const wanted = new URLSearchParams(text), list = name => (wanted.get(name) ?? "").split(",").filter(Boolean);
    const index = Math.max(0, data.images.findIndex(image => image.id === wanted.get("image")));
    const score = Number(wanted.get("score") ?? NaN);
    const view = list("view").map(Number);
    update({
      index,
      score: Number.isFinite(score) ? Math.min(1, Math.max(data.floor, score)) : start.score,
      layers: wanted.has("layers") ? list("layers").filter(name => data.layers.includes(name) || has[name]) : start.layers,
      off: list("off").map(name => data.classes.findIndex(kind => kind.name === name)).filter(at => at >= 0),
      colour: judged && wanted.get("colour") === "outcome" ? "outcome" : "class",
      view: view.length === 3 && view.every(Number.isFinite) ? view : start.view,
    }, false);
  }

  // --- zoom and pan -------------------------------------------------------------------------------

  function zoom(factor, at) {
    const g = geometry(), [cx, cy, old] = state.view, next = Math.min(MOST, Math.max(1, old * factor));
    if (next === 1) return update({ view: start.view });
    const x = at ? at[0] - g.frame.left : g.frame.width / 2, y = at ? at[1] - g.frame.top : g.frame.height / 2;
    const px = (x - g.left) / g.scale / g.width, py = (y - g.top) / g.scale / g.height; // stays under the pointer
    const share = old / next;
    update({ view: inside(px + (cx - px) * share, py + (cy - py) * share, next) });
  }

  function pan(dx, dy) {
    const g = geometry(), [cx, cy, now] = state.view;
    if (now > 1) update({ view: inside(cx - dx / g.scale / g.width, cy - dy / g.scale / g.height, now) });
  }

  const clip = value => Math.min(1, Math.max(0, value));
  const inside = (x, y, scale) => [clip(x), clip(y), scale];

  const fingers = new Map();
  canvas.addEventListener("pointerdown", event => {
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId), now = [event.clientX, event.clientY];
    if (!before) return hover(event);
    if (fingers.size === 2) {
      const [, other] = [...fingers].find(([id]) => id !== event.pointerId);
      const apart = point => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoom(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    } else pan(now[0] - before[0], now[1] - before[1]);
    fingers.set(event.pointerId, now);
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, event => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => { part("hint").hidden = true; });
  canvas.addEventListener("dblclick", event => zoom(2, [event.clientX, event.clientY]));
  canvas.addEventListener("wheel", event => {
    const mine = !data.embedded || event.ctrlKey || event.metaKey || document.activeElement === canvas;
    if (!mine) return; // in a longer page the wheel scrolls until the picture is clicked
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), [event.clientX, event.clientY]);
  }, { passive: false });

  /** The smallest box under the pointer, in words. */
  function hover(event) {
    const g = geometry(), image = current(), hint = part("hint");
    const x = (event.clientX - g.frame.left - g.left) / g.scale, y = (event.clientY - g.frame.top - g.top) / g.scale;
    const under = ({ box: [x1, y1, x2, y2] }) => x >= x1 && x < x2 && y >= y1 && y < y2;
    const size = ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1);
    const hits = data.layers.filter(isOn).flatMap(layer => seen(image, layer).filter(under).map(one => ({ ...one, layer })));
    if (isOn("truth") || state.colour === "outcome") hits.push(...truths(image).filter(under).map(one => ({ ...one, layer: "ground truth" })));
    const best = hits.sort((a, b) => size(a) - size(b))[0];
    hint.hidden = !best;
    if (!best) return;
    const [x1, y1, x2, y2] = best.box.map(Math.round);
    const score = best.score === undefined ? "" : ` ${best.score.toFixed(3)}`;
    hint.textContent = `${data.classes[best.kind].name}${score} · ${best.layer} · ${x2 - x1} x ${y2 - y1} px at ${x1}, ${y1}`;
    const stage = hint.parentElement.getBoundingClientRect();
    hint.style.left = `${Math.min(event.clientX - stage.left + 12, stage.width - hint.offsetWidth - 6)}px`;
    hint.style.top = `${Math.max(4, event.clientY - stage.top - 30)}px`;
  }

  // --- controls -----------------------------------------------------------------------------------

  const step = by => update({ index: (state.index + by + data.images.length) % data.images.length });
  const shift = by => update({ score: Math.round(100 * Math.min(1, Math.max(data.floor, state.score + by))) / 100 });
  const toggle = (list, one) => list.includes(one) ? list.filter(each => each !== one) : [...list, one];
  const switchLayer = name => update({ layers: toggle(state.layers, name) });
  const keys = {
    ArrowRight: () => step(1), n: () => step(1), ArrowLeft: () => step(-1), p: () => step(-1),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => zoom(0),
    "]": () => shift(0.05), "[": () => shift(-0.05),
    d: () => has.density && switchLayer("density"), w: () => has.windows && switchLayer("windows"),
    g: () => has.truth && switchLayer("truth"),
    o: () => judged && update({ colour: state.colour === "class" ? "outcome" : "class" }),
    "?": () => part("help").showModal(),
  };
  data.layers.forEach((name, at) => { keys[at + 1] = () => switchLayer(name); });
  const panning = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };

  (data.embedded ? root : document).addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || part("help").open) return;
    if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
    if (event.target.type === "radio" && event.key.startsWith("Arrow")) return;
    const move = event.shiftKey && panning[event.key];
    if (move) pan(...move);
    else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });

  part("score").addEventListener("input", event => update({ score: Number(event.target.value) }));
  const presses = { previous: () => step(-1), next: () => step(1), in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit: () => zoom(0), keys: keys["?"] };
  for (const [name, run] of Object.entries(presses)) part(name).addEventListener("click", run);
  part("all").addEventListener("click", () => update({ off: [] }));
  part("none").addEventListener("click", () => update({ off: data.classes.map((_, at) => at) }));
  root.addEventListener("change", event => {
    const box = event.target;
    if (box.dataset.kindBox !== undefined) update({ off: toggle(state.off, Number(box.value)) });
    if (box.dataset.layerBox !== undefined) switchLayer(box.value);
    if (box.dataset.colour !== undefined) update({ colour: box.value });
  });

  function element(tag, values = {}, ...children) {
    const out = Object.assign(document.createElement(tag), values);
    out.append(...children);
    return out;
  }

  /** A labelled check box with a swatch and a count that follows the slider. */
  function choice(value, text, swatch, datum) {
    const box = element("input", { type: "checkbox", value }), mark = element("i"), out = element("output");
    Object.assign(mark.style, swatch);
    box.dataset[datum] = "";
    out.dataset[datum === "kindBox" ? "kind" : "layer"] = value;
    return element("label", {}, box, mark, element("span", { textContent: text }), out);
  }

  function build() {
    data.classes.forEach((kind, at) => part("classes").append(choice(at, kind.name, { background: kind.colour }, "kindBox")));
    const styles = ["dashed", "dotted"];
    data.layers.forEach((name, at) => part("layers").append(
      choice(name, name, { borderTop: `3px ${name === main ? "solid" : styles[at % 2]} currentColor`, height: 0 }, "layerBox")));
    const more = { truth: ["ground truth", { border: "2px solid #fff", outline: "1px solid #555" }],
      windows: ["crop windows", { border: "2px dashed currentColor" }],
      density: ["density", { background: "linear-gradient(90deg, #3b1c6d, #d8485c, #fce08a)" }] };
    for (const [name, [text, swatch]] of Object.entries(more)) if (has[name]) part("layers").append(choice(name, text, swatch, "layerBox"));
    part("colours").hidden = !judged;
    part("score").min = data.floor;
    const near = new IntersectionObserver(entries => entries.forEach(entry => {
      if (!entry.isIntersecting) return;
      entry.target.src = entry.target.dataset.source;
      near.unobserve(entry.target);
    }), { root: part("thumbs"), rootMargin: "300px" });
    data.images.forEach((image, at) => {
      const picture = element("img", { alt: "", decoding: "async" });
      picture.dataset.source = image.src;
      const button = element("button", { type: "button", title: image.id }, picture, element("span", { textContent: image.id }));
      button.addEventListener("click", () => update({ index: at }));
      part("thumbs").append(element("li", {}, button));
      near.observe(picture);
    });
    new ResizeObserver(render).observe(canvas);
    addEventListener("hashchange", follow);
    update({}, false);
    follow();
  }

  if (data.images.length) build();
  else root.classList.add("empty");
})();
