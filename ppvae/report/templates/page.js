"use strict";
// On paper nothing can be opened.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
(() => {
  const source = document.getElementById("decoder");
  if (!source) return;
  const { axis, event_shape: shape, low, high, grid, means, site, labels } = JSON.parse(source.textContent);
  const n = axis.length, first = axis[0], last = axis[n - 1];
  const size = shape.reduce((a, b) => a * b, 1);
  const isPicture = shape.length === 2 && Math.min(...shape) > 1;
  const values = Uint8Array.from(atob(grid), (letter) => letter.charCodeAt(0)); // [z₁][z₀][feature]
  const pad = document.getElementById("pad"), seen = document.getElementById("seen");
  const place = document.getElementById("place");
  const sliders = [document.getElementById("z0"), document.getElementById("z1")];
  const z = [0, 0].map((zero) => Math.min(Math.max(zero, first), last));
  const side = pad.width;
  document.querySelector(".plane").hidden = false;

  // x̂ at z: bilinear between the four grid points around it, in steps of 1/255 of high − low.
  function decode([z0, z1]) {
    const at = [z0, z1].map((value) => ((value - first) / (last - first)) * (n - 1));
    const [i, j] = at.map((value) => Math.min(Math.max(Math.floor(value), 0), n - 2));
    const [s, t] = [at[0] - i, at[1] - j];
    const x = new Float32Array(size);
    for (const [row, column, weight] of [
      [j, i, (1 - t) * (1 - s)], [j, i + 1, (1 - t) * s], [j + 1, i, t * (1 - s)], [j + 1, i + 1, t * s],
    ]) {
      const start = (row * n + column) * size;
      for (let f = 0; f < size; f++) x[f] += weight * values[start + f];
    }
    return x;
  }

  function picture(x) {
    const canvas = document.createElement("canvas");
    [canvas.height, canvas.width] = shape;
    const pixels = new ImageData(shape[1], shape[0]);
    for (let f = 0; f < size; f++) pixels.data.set([255 - x[f], 255 - x[f], 255 - x[f], 255], 4 * f);
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  function curve(context, x, left, top, width, height) {
    context.beginPath();
    for (let f = 0; f < size; f++) {
      const u = left + width * (0.05 + (0.9 * (f + 0.5)) / size);
      const v = top + height * (0.95 - (0.9 * x[f]) / 255);
      if (f) context.lineTo(u, v); else context.moveTo(u, v);
    }
    context.stroke();
  }

  const toPad = ([z0, z1]) => [((z0 - first) / (last - first)) * side, (1 - (z1 - first) / (last - first)) * side];

  // What does not change on the plane: the decoded grid, the axes, the posterior means.
  const ground = document.createElement("canvas");
  ground.width = ground.height = side;
  function drawGround() {
    const context = ground.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, side, side);
    const every = isPicture ? 2 : 4, cell = (side / (n - 1)) * every;
    context.globalAlpha = 0.4;
    context.imageSmoothingEnabled = false;
    context.strokeStyle = "#0072b2";
    const scale = isPicture ? cell / Math.max(...shape) : 0;
    for (let j = 0; j < n; j += every) for (let i = 0; i < n; i += every) {
      const [u, v] = toPad([axis[i], axis[j]]), x = decode([axis[i], axis[j]]);
      if (isPicture) context.drawImage(picture(x), u - (scale * shape[1]) / 2, v - (scale * shape[0]) / 2, scale * shape[1], scale * shape[0]);
      else curve(context, x, u - cell / 2, v - cell / 2, cell, cell);
    }
    context.globalAlpha = 1;
    context.strokeStyle = "#777";
    context.fillStyle = "#444";
    context.font = "22px sans-serif";
    const [u0, v0] = toPad([0, 0]);
    context.beginPath();
    context.moveTo(u0, 0); context.lineTo(u0, side); context.moveTo(0, v0); context.lineTo(side, v0);
    context.stroke();
    context.fillText(`${site}₁ = ${signed(last)}`, u0 + 6, 24);
    context.textAlign = "right";
    context.fillText(`${site}₀ = ${signed(last)}`, side - 6, v0 - 8);
    means.forEach((mean, i) => {
      const [u, v] = toPad(mean);
      context.fillStyle = colour(i);
      context.beginPath(); context.arc(u, v, labels ? 6 : 4.5, 0, 7); context.fill();
    });
    context.textAlign = "left";
    classes.slice(0, 12).forEach((name, k) => {
      context.fillStyle = colours[k % colours.length];
      context.fillText(name.length > 24 ? `${name.slice(0, 23)}…` : name, 8, side - 12 - 26 * k);
    });
  }

  // With labels a colour a class, and the label of the nearest dot under the pointer.
  const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8a7a00"];
  const classes = labels ? [...new Set(labels)].sort() : [];
  const colour = (i) => colours[labels ? classes.indexOf(labels[i]) % colours.length : 0];
  function hover(event) {
    const box = pad.getBoundingClientRect();
    const at = [((event.clientX - box.left) / box.width) * side, ((event.clientY - box.top) / box.height) * side];
    let nearest = 12, said = "";
    means.forEach((mean, i) => {
      const [u, v] = toPad(mean), distance = Math.hypot(u - at[0], v - at[1]);
      if (distance < nearest) [nearest, said] = [distance, labels[i]];
    });
    pad.title = said;
  }
  if (labels) pad.addEventListener("pointermove", hover);

  const signed = (value) => value.toFixed(2).replace("-", "−");

  function draw() {
    const context = pad.getContext("2d");
    context.drawImage(ground, 0, 0);
    const [u, v] = toPad(z);
    for (const [colour, width] of [["#fff", 12], ["#d55e00", 6]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath(); context.arc(u, v, 17, 0, 7); context.stroke();
    }
    const x = decode(z), view = seen.getContext("2d");
    seen.height = isPicture ? Math.round((seen.width * shape[0]) / shape[1]) : seen.width * 0.75;
    view.fillStyle = "#fff";
    view.fillRect(0, 0, seen.width, seen.height);
    view.imageSmoothingEnabled = false;
    if (isPicture) view.drawImage(picture(x), 0, 0, seen.width, seen.height);
    else { view.strokeStyle = "#0072b2"; view.lineWidth = 3; curve(view, x, 0, 0, seen.width, seen.height); }
    place.textContent = `${site} = (${signed(z[0])}, ${signed(z[1])})`;
    sliders.forEach((slider, k) => { slider.value = z[k]; });
  }

  function move(z0, z1) {
    [z0, z1].forEach((value, k) => { z[k] = Math.min(Math.max(value, first), last); });
    draw();
  }

  function follow(event) {
    const box = pad.getBoundingClientRect();
    move(first + ((event.clientX - box.left) / box.width) * (last - first),
      last - ((event.clientY - box.top) / box.height) * (last - first));
  }
  pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); follow(event); });
  pad.addEventListener("pointermove", (event) => { if (pad.hasPointerCapture(event.pointerId)) follow(event); });
  pad.addEventListener("keydown", (event) => {
    const step = ((last - first) / (n - 1)) * (event.shiftKey ? 0.1 : 0.5);
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!steps) return;
    event.preventDefault();
    move(z[0] + steps[0] * step, z[1] + steps[1] * step);
  });
  sliders.forEach((slider, k) => {
    slider.min = first;
    slider.max = last;
    slider.addEventListener("input", () => { move(k ? z[0] : +slider.value, k ? +slider.value : z[1]); });
  });
  drawGround();
  draw();
})();
