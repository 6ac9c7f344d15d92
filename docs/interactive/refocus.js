/* Refocus a small scene: every pixel spreads over its own circle of confusion (weighting="source", a disc, linear light), in the browser.
   window.SFDFD_SCENE (generated/scene.js, made by docs/figures/make.py) has the all-in-focus picture and inverse depth. */
(function () {
  "use strict";
  function bytes(text) { return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)); }
  function render(scene, focus, aperture, out) {
    const { width, height, light, inverse } = scene, n = width * height;
    const sums = new Float32Array(3 * n), weights = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const r = Math.max(0.6, aperture * Math.abs(inverse[i] - 1 / focus)), reach = Math.ceil(r), limit = (r + 0.3) * (r + 0.3);
      const x = i % width, y = (i - x) / width, share = 1 / (r * r);
      for (let v = Math.max(0, y - reach); v <= Math.min(height - 1, y + reach); v++)
        for (let u = Math.max(0, x - reach); u <= Math.min(width - 1, x + reach); u++) {
          if ((u - x) * (u - x) + (v - y) * (v - y) > limit) continue;
          const j = v * width + u;
          weights[j] += share;
          for (let c = 0; c < 3; c++) sums[3 * j + c] += share * light[3 * i + c];
        }
    }
    for (let j = 0; j < n; j++) {
      for (let c = 0; c < 3; c++) out.data[4 * j + c] = 255 * Math.pow(sums[3 * j + c] / weights[j], 1 / 2.2);
      out.data[4 * j + 3] = 255;
    }
  }
  function start() {
    const packed = window.SFDFD_SCENE;
    for (const box of document.querySelectorAll('[data-play="refocus"]')) {
      if (box.dataset.ready || !packed) continue;
      box.dataset.ready = "1";
      const colours = bytes(packed.aif), levels = bytes(packed.inverse);
      const scene = {
        width: packed.width, height: packed.height,
        light: Float32Array.from(colours, (c) => Math.pow(c / 255, 2.2)),
        inverse: Float32Array.from(levels, (l) => 1 / packed.far_m + (1 / packed.near_m - 1 / packed.far_m) * l / 255),
      };
      const canvas = document.createElement("canvas"), c = canvas.getContext("2d"), place = document.createElement("div");
      Object.assign(canvas, { width: scene.width, height: scene.height });
      canvas.style.cursor = "crosshair";
      const image = c.createImageData(scene.width, scene.height), middle = Math.sqrt(packed.near_m * packed.far_m), values = { focus: middle, aperture: packed.k };
      const outputs = {};
      const draw = () => { render(scene, values.focus, values.aperture, image); c.putImageData(image, 0, 0); };
      const slider = (key, text, min, max, step, value, said) => {
        const label = document.createElement("label"), output = document.createElement("output"), input = document.createElement("input");
        Object.assign(input, { type: "range", min, max, step, value });
        input.setAttribute("aria-label", text);
        outputs[key] = { input, show: () => { output.textContent = `${text}: ${said(values[key])}`; } };
        input.addEventListener("input", () => { values[key] = Number(input.value); outputs[key].show(); draw(); });
        outputs[key].show();
        label.append(output, input);
        place.append(label);
      };
      place.className = "controls";
      slider("focus", "focus distance", packed.near_m, packed.far_m, 0.01, middle, (v) => `${v.toFixed(2)} m`);
      slider("aperture", "aperture (k)", 0, 3 * packed.k, 0.1, packed.k, (v) => `${v.toFixed(1)} px·m`);
      canvas.addEventListener("click", (event) => {
        const rect = canvas.getBoundingClientRect();
        const x = Math.floor((event.clientX - rect.left) / rect.width * scene.width), y = Math.floor((event.clientY - rect.top) / rect.height * scene.height);
        values.focus = 1 / scene.inverse[y * scene.width + x];
        outputs.focus.input.value = values.focus;
        outputs.focus.show();
        draw();
      });
      box.append(canvas, place);
      draw();
    }
  }
  document.addEventListener("DOMContentLoaded", start);
})();
