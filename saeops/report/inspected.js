"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel");
  const text = document.querySelector(".text");
  const chips = [...document.querySelectorAll(".tokens button")];
  const rows = [...document.querySelectorAll("#features button")];
  let chosen = null;

  // Everything is set as text: a label or a token may look like HTML.
  const make = (tag, name, words) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (words !== undefined) element.textContent = words;
    return element;
  };
  const entry = (feature) => {
    const item = make("li");
    const meter = make("span", "meter");
    const bar = make("span");
    bar.style.width = `${100 * feature.strength}%`;
    meter.append(bar);
    const facts = make("span", "facts");
    facts.append(make("b", "", feature.activation), ` · ${feature.share} of its maximum · confidence ${feature.confidence} · latent ${feature.latent}`);
    item.append(make("span", "label", feature.label), meter, facts);
    return item;
  };
  const show = (at) => {
    const token = data[at];
    const list = make("ol");
    list.append(...token.features.map(entry));
    panel.replaceChildren(make("h2", "", token.text), make("p", "quiet", token.note), list);
  };
  const choose = (at) => {
    chosen = at;
    chips.forEach((chip) => chip.toggleAttribute("aria-current", Number(chip.dataset.at) === at));
    if (at !== null) show(at);
  };

  for (const chip of chips) {
    const at = Number(chip.dataset.at);
    // The panel shows it all; a tooltip over it would hide the next line.
    chip.removeAttribute("title");
    chip.addEventListener("mouseenter", () => show(at));
    chip.addEventListener("mouseleave", () => { if (chosen !== null) show(chosen); });
    chip.addEventListener("focus", () => choose(at));
    chip.addEventListener("click", () => choose(at));
  }
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const next = chosen === null ? 0 : Math.min(chips.length - 1, Math.max(0, chosen + step));
    event.preventDefault();
    chips[next].focus();
  });

  const shade = (latent) => {
    text.classList.toggle("shaded", latent !== null);
    for (const chip of chips) {
      const own = data[Number(chip.dataset.at)].features.find((feature) => feature.latent === latent);
      chip.classList.toggle("own", own !== undefined);
      chip.style.setProperty("--own", own ? own.strength : 0);
    }
  };
  for (const row of rows) {
    row.addEventListener("click", () => {
      const on = row.getAttribute("aria-pressed") !== "true";
      rows.forEach((other) => other.setAttribute("aria-pressed", String(other === row && on)));
      shade(on ? Number(row.dataset.latent) : null);
    });
  }
})();
