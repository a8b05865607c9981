"use strict";
(() => {
  const { element, drawing } = report;
  const readout = document.body.appendChild(element("div", { id: "readout", role: "status", hidden: true }));
  report.readout = (text, x, y) => {
    readout.hidden = !text;
    if (!text) return;
    readout.textContent = text;
    const { width, height } = readout.getBoundingClientRect();
    readout.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
    readout.style.top = `${y - height - 12 < 4 ? y + 18 : y - height - 12}px`;
  };

  // Titles are what a page without scripts shows; with them the readout is at hand at once.
  for (const title of document.querySelectorAll("svg.chart title, svg.whisker title")) {
    title.parentElement.dataset.says = title.textContent;
    title.remove();
  }

  const curves = new WeakMap();
  const curve = (svg) => {
    if (!curves.has(svg)) {
      const points = svg.dataset.points.split("|").map((text) => {
        const [, x, y, says] = /^(\S+) (\S+) (.*)$/s.exec(text);
        return { x: Number(x), y: Number(y), says };
      });
      curves.set(svg, { points, dot: svg.appendChild(drawing("circle", { class: "dot", r: 4 })) });
    }
    return curves.get(svg);
  };
  const inside = (svg, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const readCurve = (svg, event) => {
    const { points, dot } = curve(svg);
    const { x } = inside(svg, event);
    const near = points.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
    dot.setAttribute("cx", near.x);
    dot.setAttribute("cy", near.y);
    return near.says;
  };
  document.addEventListener("pointermove", (event) => {
    if (!(event.target instanceof Element) || event.target.tagName === "CANVAS") return;
    const svg = event.target.closest("svg[data-points]");
    const said = event.target.closest("[data-says]")?.dataset.says ?? (svg ? readCurve(svg, event) : "");
    report.readout(said, event.clientX, event.clientY);
  });
  addEventListener("scroll", () => report.readout(""), { passive: true, capture: true });

  // ── ranges of a histogram pick latents ───────────────────────────────────

  const prepare = (svg) => {
    const { browser } = report;
    const { column } = svg.dataset;
    const [low, high, left, right] = ["low", "high", "left", "right"].map((name) => Number(svg.dataset[name]));
    const log = "log" in svg.dataset;
    const bars = [...svg.querySelectorAll("rect")];
    const brush = svg.appendChild(drawing("rect", { class: "brush", y: 10, height: 142, width: 0 }));
    const value = (x) => low + (Math.min(Math.max(x, left), right) - left) / (right - left) * (high - low);
    const pick = (from, to) => {
      browser.range(column, { low: Math.min(from, to), high: Math.max(from, to), log });
      document.getElementById("features").scrollIntoView();
    };
    // A bin ends where the next begins, and a value there belongs to the next, but for the last.
    const pickBar = (bar) => pick(Number(bar.dataset.low), bar.dataset.high === String(bars.at(-1).dataset.high)
      ? Number(bar.dataset.high) : Number(bar.dataset.high) - 3e-9);

    let from = null;
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = inside(svg, event).x;
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const { x } = inside(svg, event);
      brush.setAttribute("x", Math.max(left, Math.min(from, x)));
      brush.setAttribute("width", Math.min(right, Math.max(from, x)) - Math.max(left, Math.min(from, x)));
    });
    svg.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const [start, { x }] = [from, inside(svg, event)];
      from = null;
      brush.setAttribute("width", 0);
      if (Math.abs(x - start) > 4) { pick(value(start), value(x)); return; }
      const bar = bars.find((b) => x >= b.x.baseVal.value - 1 && x <= b.x.baseVal.value + b.width.baseVal.value + 1);
      if (bar) pickBar(bar);
    });
    svg.addEventListener("pointercancel", () => { from = null; brush.setAttribute("width", 0); });

    let at = -1;
    const point = (place) => {
      at = Math.min(Math.max(place, 0), bars.length - 1);
      bars.forEach((bar, number) => bar.classList.toggle("at", number === at));
      const box = bars[at].getBoundingClientRect();
      report.readout(bars[at].dataset.says, box.left, box.top);
    };
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) point(at + by);
      else if (event.key === "Enter" && at >= 0) pickBar(bars[at]);
      else if (event.key === "Escape") browser.range(column, null);
      else return;
      event.preventDefault();
    });
    svg.addEventListener("blur", () => { bars[at]?.classList.remove("at"); at = -1; report.readout(""); });
    document.addEventListener("ranges", ({ detail }) => {
      const range = detail.get(column);
      svg.classList.toggle("picking", Boolean(range));
      for (const bar of bars) {
        const middle = (Number(bar.dataset.low) + Number(bar.dataset.high)) / 2;
        bar.classList.toggle("picked", Boolean(range) && middle >= range.low && middle <= range.high);
      }
    });
  };
  document.addEventListener("browser", () => {
    for (const svg of document.querySelectorAll("svg[data-column]")) prepare(svg);
  });
})();
