"use strict";
document.addEventListener("browser", () => {
  const { browser, element, number, share } = report;
  const { data } = browser;
  const figure = document.getElementById("scatter");
  const choice = document.getElementById("scatter-y");
  const canvas = figure.querySelector("canvas");
  const [LEFT, RIGHT, TOP, BOTTOM] = [40, 10, 10, 34];

  const columns = [...data.columns.values()].filter((c) => c.name !== "density" && c.values.some((v) => v !== null));
  const density = data.columns.get("density").values;
  if (!columns.length) return;
  choice.append(...columns.map((column) => element("option", { value: column.name }, column.title.toLowerCase())));
  figure.hidden = false;

  let points = [];
  let listed = null;
  let wanted = false;
  const ends = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);

  const place = () => {
    const { name, values } = data.columns.get(choice.value);
    const log = name === "max_activation";
    const rows = data.latent.map((_, row) => row).filter((row) => density[row] > 0 && values[row] !== null && (!log || values[row] > 0));
    const x = rows.map((row) => Math.log10(density[row]));
    const y = rows.map((row) => (log ? Math.log10(values[row]) : values[row]));
    const [[x0, x1], [y0, y1]] = [ends(x), ends(y)];
    const at = (v, a, b) => (b > a ? (v - a) / (b - a) : 0.5);
    points = rows.map((row, i) => ({ row, x: at(x[i], x0, x1), y: at(y[i], y0, y1), value: values[row] }));
    const end = (v) => number(log ? 10 ** v : v, 2);
    canvas.axes = { x: [share(10 ** x0), share(10 ** x1)], y: [end(y0), end(y1)], title: data.columns.get(name).title };
  };
  const spot = ({ x, y }, { width, height }) => [LEFT + x * (width - LEFT - RIGHT), height - BOTTOM - y * (height - TOP - BOTTOM)];

  const draw = () => {
    wanted = false;
    const size = { width: canvas.clientWidth, height: canvas.clientHeight };
    const scale = devicePixelRatio;
    [canvas.width, canvas.height] = [size.width * scale, size.height * scale];
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    pen.scale(scale, scale);
    const dots = (wantedRows, name, alpha) => {
      pen.fillStyle = colour(name);
      pen.globalAlpha = alpha;
      const side = points.length > 5000 ? 2 : 3.5;
      for (const point of points) {
        if (listed !== null && listed.has(point.row) !== wantedRows) continue;
        const [x, y] = spot(point, size);
        pen.fillRect(x - side / 2, y - side / 2, side, side);
      }
    };
    if (listed === null) dots(true, "--accent", 0.55);
    else { dots(false, "--quiet", 0.18); dots(true, "--accent", 0.8); }
    pen.globalAlpha = 1;
    pen.strokeStyle = pen.fillStyle = colour("--quiet");
    pen.beginPath();
    pen.moveTo(LEFT, TOP); pen.lineTo(LEFT, size.height - BOTTOM); pen.lineTo(size.width - RIGHT, size.height - BOTTOM);
    pen.stroke();
    pen.font = `11.5px ${colour("--sans")}`;
    const { x, y } = canvas.axes;
    pen.textAlign = "left"; pen.fillText(x[0], LEFT, size.height - BOTTOM + 14);
    pen.textAlign = "right"; pen.fillText(x[1], size.width - RIGHT, size.height - BOTTOM + 14);
    pen.fillText(y[1], LEFT - 5, TOP + 9); pen.fillText(y[0], LEFT - 5, size.height - BOTTOM);
    pen.textAlign = "center"; pen.fillText("share of tokens it fires on", (LEFT + size.width - RIGHT) / 2, size.height - 4);
    document.getElementById("scatter-says").textContent =
      `${report.count(points.length)} latents that fire and have a ${canvas.axes.title.toLowerCase()}; the listed ones stand out. Press a dot to read it.`;
  };
  const soon = () => { if (!wanted) requestAnimationFrame(draw); wanted = true; };

  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    let [best, distance] = [null, 14 ** 2];
    for (const point of points) {
      const [x, y] = spot(point, box);
      const d = (x - px) ** 2 + (y - py) ** 2;
      if (d < distance) [best, distance] = [point, d];
    }
    return best;
  };
  canvas.addEventListener("pointermove", (event) => {
    const point = nearest(event);
    canvas.style.cursor = point ? "pointer" : "";
    report.readout(point && `#${data.latent[point.row]} ${data.label[point.row] ?? data.texts(data.fires[point.row]).map(report.alone).join(" ")}\n`
      + `${share(density[point.row])} of tokens, ${canvas.axes.title.toLowerCase()} ${number(point.value)}`, event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerleave", () => report.readout(""));
  canvas.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point) location.hash = `#latent=${data.latent[point.row]}`;
  });

  choice.addEventListener("change", () => { place(); soon(); });
  new ResizeObserver(soon).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
  place();
  browser.listed((rows) => { listed = rows.length === data.size ? null : new Set(rows); soon(); });
});
