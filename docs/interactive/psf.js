/* The PSF families of sfdfd.optics.psf for one blur radius: the kernel as a picture, and its profile. */
(function () {
  "use strict";
  const FAMILIES = {
    gaussian: (q, r, scale) => Math.exp(-q * q / (2 * Math.pow(Math.max(0.2, scale * r), 2))),
    disc: (q, r) => 1 / (1 + Math.exp(1.7 * (q - r) / 0.22)),           // erfc((q - r) / (sqrt(2) w)) / 2, to within a percent
    "power:4": (q, r, scale) => Math.exp(-2 * Math.pow(q / Math.max(0.3, 2 * scale * r), 4)),
  };
  const COLOURS = { gaussian: "--sfdfd-near", disc: "--sfdfd-far", "power:4": "--sfdfd-mark" };
  const REACH = 12, CELL = 9, SIDE = 2 * REACH + 1;

  function draw(canvas, values) {
    const c = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const ink = style.getPropertyValue("--sfdfd-ink"), grid = style.getPropertyValue("--sfdfd-grid");
    c.clearRect(0, 0, canvas.width, canvas.height);
    c.font = "15px system-ui, sans-serif";
    Object.entries(FAMILIES).forEach(([name, weight], column) => {
      const x0 = 20 + column * (SIDE * CELL + 20), kernel = [];
      let sum = 0, top = 0;
      for (let v = -REACH; v <= REACH; v++) for (let u = -REACH; u <= REACH; u++) {
        const w = weight(Math.hypot(u, v), values.r, values.scale);
        kernel.push(w); sum += w; top = Math.max(top, w);
      }
      kernel.forEach((w, i) => {
        const level = Math.round(255 * Math.sqrt(w / top));
        c.fillStyle = `rgb(${level},${level},${level})`;
        c.fillRect(x0 + (i % SIDE) * CELL, 30 + Math.floor(i / SIDE) * CELL, CELL, CELL);
      });
      c.fillStyle = style.getPropertyValue(COLOURS[name]);
      c.fillText(name, x0, 20);
      c.strokeStyle = c.fillStyle; c.lineWidth = 2.5; c.beginPath();
      for (let i = 0; i <= 200; i++) {
        const q = REACH * (2 * i / 200 - 1);
        const height = weight(Math.abs(q), values.r, values.scale) / sum * Math.PI * values.r * values.r;
        c.lineTo(x0 + (q + REACH + 0.5) * CELL, 400 - 55 * Math.min(2.4, height));
      }
      c.stroke();
      c.strokeStyle = grid; c.lineWidth = 1; c.strokeRect(x0, 265, SIDE * CELL, 135);
    });
    c.fillStyle = ink;
    c.fillText("profile: weight over distance, in units of the disc's height", 20, 424);
  }
  function slider(box, text, min, max, step, value, changed) {
    const label = document.createElement("label"), output = document.createElement("output"), input = document.createElement("input");
    Object.assign(input, { type: "range", min, max, step, value });
    input.setAttribute("aria-label", text);
    const show = () => { output.textContent = `${text}: ${input.value}`; };
    input.addEventListener("input", () => { show(); changed(Number(input.value)); });
    show();
    label.append(output, input);
    box.append(label);
  }
  function start() {
    for (const box of document.querySelectorAll('[data-play="psf"]')) {
      if (box.dataset.ready) continue;
      box.dataset.ready = "1";
      const canvas = document.createElement("canvas"), place = document.createElement("div"), values = { r: 6, scale: 0.5 };
      Object.assign(canvas, { width: 760, height: 436 });
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", "three point spread functions");
      place.className = "controls";
      slider(place, "blur radius r in pixels", 0.5, 10, 0.1, 6, (value) => { values.r = value; draw(canvas, values); });
      slider(place, "sigma_scale", 0.25, 1, 0.05, 0.5, (value) => { values.scale = value; draw(canvas, values); });
      box.append(canvas, place);
      draw(canvas, values);
      new MutationObserver(() => draw(canvas, values)).observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
    }
  }
  document.addEventListener("DOMContentLoaded", start);
})();
