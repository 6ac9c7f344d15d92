/* The circle of confusion over depth, by hand: the formula of Camera.blur_radius_px. Runs from a file, without a server. */
(function () {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";
  const SLIDERS = [
    { key: "f", label: "focal length", unit: "mm", min: 3, max: 100, step: 0.5, value: 50 },
    { key: "N", label: "f-number", unit: "", min: 1, max: 16, step: 0.1, value: 8 },
    { key: "p", label: "pixel pitch", unit: "µm", min: 0.8, max: 20, step: 0.1, value: 12 },
    { key: "F", label: "focus distance", unit: "m", min: 0.3, max: 8, step: 0.05, value: 2.5 },
  ];
  const W = 640, H = 300, LEFT = 46, BOTTOM = 262, TOP = 14, RIGHT = 628, NEAR = 0.3, FAR = 10;

  function blurRadius(v, depth) {            // r = k |1/F - 1/d| / (1 - f/F), k = f^2 / (2 N p)
    const f = v.f * 1e-3, k = f * f / (2 * v.N * v.p * 1e-6);
    return k * Math.abs(1 / v.F - 1 / depth) / (1 - f / v.F);
  }
  function element(name, attributes, parent, text) {
    const made = document.createElementNS(NS, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    parent.appendChild(made);
    return made;
  }
  function controls(box, values, redraw) {
    const place = document.createElement("div");
    place.className = "controls";
    for (const slider of SLIDERS) {
      const label = document.createElement("label");
      const output = document.createElement("output");
      const input = document.createElement("input");
      Object.assign(input, { type: "range", min: slider.min, max: slider.max, step: slider.step, value: slider.value });
      input.setAttribute("aria-label", slider.label);
      values[slider.key] = slider.value;
      const show = () => { output.textContent = `${slider.label}: ${values[slider.key]} ${slider.unit}`; };
      input.addEventListener("input", () => { values[slider.key] = Number(input.value); show(); redraw(); });
      show();
      label.append(output, input);
      place.append(label);
    }
    box.append(place);
  }
  function draw(svg, said, v) {
    svg.replaceChildren();
    const inverseX = (d) => LEFT + (RIGHT - LEFT) * (1 / NEAR - 1 / d) / (1 / NEAR - 1 / FAR);
    const largest = Math.max(2, blurRadius(v, NEAR), blurRadius(v, FAR)) * 1.05;
    const y = (r) => BOTTOM - (BOTTOM - TOP) * r / largest;
    for (const d of [0.3, 0.4, 0.5, 0.7, 1, 1.5, 2.5, 5, 10]) {
      element("line", { x1: inverseX(d), x2: inverseX(d), y1: TOP, y2: BOTTOM, class: "axis" }, svg);
      element("text", { x: inverseX(d), y: BOTTOM + 15, "text-anchor": "middle" }, svg, String(d));
    }
    const step = Math.pow(10, Math.floor(Math.log10(largest)));
    for (let r = 0; r <= largest; r += largest / step > 4 ? step : step / 2) {
      element("line", { x1: LEFT, x2: RIGHT, y1: y(r), y2: y(r), class: "axis" }, svg);
      element("text", { x: LEFT - 6, y: y(r) + 4, "text-anchor": "end" }, svg, String(Math.round(r * 100) / 100));
    }
    element("text", { x: (LEFT + RIGHT) / 2, y: H - 6, "text-anchor": "middle" }, svg, "depth in metres (evenly in 1/depth)");
    element("text", { x: 12, y: TOP + 4, transform: `rotate(-90 12 ${TOP + 110})`, "text-anchor": "middle" }, svg, "blur radius in pixels");
    const points = [];
    for (let i = 0; i <= 300; i++) {
      const d = 1 / (1 / NEAR - (1 / NEAR - 1 / FAR) * i / 300);
      points.push(`${inverseX(d).toFixed(1)},${y(blurRadius(v, d)).toFixed(1)}`);
    }
    element("line", { x1: LEFT, x2: RIGHT, y1: y(0.5), y2: y(0.5), stroke: "var(--sfdfd-mark)", "stroke-dasharray": "3 4" }, svg);
    element("polyline", { points: points.join(" "), class: "curve", stroke: "var(--sfdfd-near)" }, svg);
    const k = Math.pow(v.f * 1e-3, 2) / (2 * v.N * v.p * 1e-6);
    said.textContent = `k = f²/(2Np) = ${k.toPrecision(3)} px·m; at ${FAR} m the blur radius is ${blurRadius(v, FAR).toFixed(2)} px, at ${NEAR} m `
      + `${blurRadius(v, NEAR).toFixed(2)} px. Below the dashed line (half a pixel) nothing is to be seen.`;
  }
  function start() {
    for (const box of document.querySelectorAll('[data-play="lens"]')) {
      if (box.dataset.ready) continue;
      box.dataset.ready = "1";
      const svg = element("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "blur radius over depth" }, box);
      const said = document.createElement("p"), values = {};
      controls(box, values, () => draw(svg, said, values));
      box.append(said);
      draw(svg, said, values);
    }
  }
  document.addEventListener("DOMContentLoaded", start);
})();
