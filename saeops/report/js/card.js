"use strict";
(() => {
  const { element, drawing, number, share, count } = report;

  const MARKS = { "\n": "↵", "\r": "␍", "\t": "⇥", " ": "·" };
  // One space before a word is how tokens look; any other white space, and what cannot be seen, gets a mark.
  // eslint-disable-next-line no-control-regex
  const UNSEEN = /[\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060\ufeff]| {2,}|^ $/g;

  const glyphs = (text) => {
    const found = [];
    let end = 0;
    for (const match of text.matchAll(UNSEEN)) {
      found.push(text.slice(end, match.index));
      for (const character of match[0]) found.push(element("i", {}, MARKS[character] ?? "�"));
      end = match.index + match[0].length;
    }
    return [...found, text.slice(end)].filter((part) => part !== "");
  };
  /** A token by itself: every space and line end marked. */
  const alone = (text) => [...text].map((character) => MARKS[character] ?? character)
    .join("").replace(UNSEEN, "�") || "∅";
  report.alone = alone;

  const context = (data, [activation, , peak, numbers, pairs], strongest) => {
    const level = new Map();
    for (let i = 0; i < pairs.length; i += 2) level.set(pairs[i], pairs[i + 1]);
    const pieces = [];
    let silent = "";
    const hush = () => { pieces.push(...glyphs(silent)); silent = ""; };
    data.texts(numbers).forEach((text, place) => {
      if (!level.has(place) && place !== peak) { silent += text; return; }
      hush();
      const part = (level.get(place) ?? 0) / data.levels;
      const mark = element("mark", { class: place === peak && "peak", title: `activation ${number(part * strongest, 2)}` },
        ...glyphs(text));
      mark.style.setProperty("--a", part.toFixed(2));
      pieces.push(mark);
    });
    hush();
    return element("li", {}, element("span", { class: "value" }, number(activation, 2)),
      element("span", { class: "text", dir: "auto" }, ...pieces));
  };
  const contexts = (data, shown, strongest, name) => shown.length
    ? element("ul", { class: "contexts", "aria-label": name }, ...shown.map((c) => context(data, c, strongest))) : "";

  const meter = (value) => {
    const inner = element("span");
    inner.style.width = `${(100 * value).toFixed(1)}%`;
    return element("span", { class: "meter", "aria-hidden": "true" }, inner);
  };
  report.meter = meter;

  const label = (data, view) => {
    const text = view.text ?? element("span", { class: "quiet" },
      `no label: ${view.unparsed || "the answer could not be read"}`);
    const parts = view.parts.map((part, place) => part && element("div", { title: data.label_parts[place][1] },
      element("dt", {}, data.label_parts[place][0]),
      element("dd", {}, share(part[0]), element("span", { class: "quiet" },
        part[1] === null ? " no interval" : ` ${share(part[1])} to ${share(part[2])}`.replace(" % to", " to")))));
    return [
      element("p", { class: "label" }, text),
      element("div", { class: "confidence" }, meter(view.confidence),
        element("span", {}, element("strong", {}, view.confidence.toFixed(2)), " confidence"),
        element("span", { class: "quiet" }, view.by)),
      view.parts.length ? element("dl", { class: "parts" }, ...parts.filter(Boolean))
        : element("p", { class: "quiet small" }, "Too few firing snippets to test this label."),
    ];
  };

  const logits = (data, title, [numbers, values] = [[], []]) => numbers.length
    ? element("div", { class: "logits" }, element("span", { class: "quiet" }, title), ...data.texts(numbers).map(
      (text, place) => element("code", { title: `${number(values[place])} a unit of activation` }, alone(text)))) : "";

  const histogram = (data, [first, ...counts]) => {
    const [width, height, floor] = [320, 84, 66];
    const edge = (bin) => data.first_edge * 2 ** (bin / data.bins_per_octave);
    const tallest = Math.log1p(Math.max(...counts));
    const step = width / Math.max(counts.length, 8);
    const bars = counts.map((amount, place) => amount && drawing("rect", {
      x: (place * step + 0.5).toFixed(1), width: Math.max(step - 1, 0.5).toFixed(1), rx: 1,
      y: (floor - 60 * Math.log1p(amount) / tallest).toFixed(1), height: (60 * Math.log1p(amount) / tallest).toFixed(1),
      "data-says": `${number(edge(first + place), 2)} to ${number(edge(first + place + 1), 2)}: ${count(amount)} tokens`,
    })).filter(Boolean);
    const end = counts.length * step;
    return element("figure", { class: "activations" },
      element("figcaption", { class: "quiet small" }, "Tokens by activation, held-out documents; both axes logarithmic"),
      drawing("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Activation histogram" },
        ...bars, drawing("line", { class: "axis", x1: 0, x2: end, y1: floor, y2: floor }),
        drawing("text", { x: 0, y: height - 3 }, number(edge(first), 2)),
        drawing("text", { x: end, y: height - 3, "text-anchor": "end" }, number(edge(first + counts.length), 2))));
  };

  const link = (data, latent) => {
    const row = data.rowOf(latent);
    const says = data.label[row] ?? data.texts(data.fires[row]).map(alone).join("  ");
    return element("a", { href: `#latent=${latent}` }, element("span", { class: "mono" }, `#${latent}`), ` ${says}`);
  };
  const neighbours = (data, [latents, cosines] = [[], []]) => latents.length
    ? element("details", { open: true }, element("summary", {}, "Nearest directions"),
      element("ul", { class: "neighbours" }, ...latents.map((latent, place) => element("li", {},
        element("span", { class: "value" }, number(cosines[place], 2)), link(data, latent))))) : "";

  const effects = (rows) => {
    const cell = (value) => element("td", {}, number(value));
    const line = ([what, moves, effect, control, difference, low, high]) => element("tr", {},
      element("td", {}, what), element("td", {}, moves), cell(effect), cell(control),
      element("td", {}, element("strong", {}, number(difference)),
        element("span", { class: "between" }, low === null ? "no interval" : `${number(low)} to ${number(high)}`)));
    const heads = ["what", "moves", "by", "random", "difference"].map((head) => element("th", {}, head));
    return element("details", { open: true }, element("summary", {}, "What it does when switched off or steered"),
      element("div", { class: "scroll" }, element("table", {}, element("thead", {}, element("tr", {}, ...heads)),
        element("tbody", {}, ...rows.map(line)))));
  };

  const facts = (data, row) => element("dl", { class: "parts" }, ...[...data.columns.values()]
    .filter((column) => column.name !== "confidence" && column.name !== "density" && column.values[row] !== null)
    .map((column) => element("div", {}, element("dt", {}, column.title.toLowerCase()),
      element("dd", {}, number(column.values[row])))));

  const header = (data, row) => element("header", {},
    element("h4", {}, element("a", { href: `#latent=${data.latent[row]}` }, `#${data.latent[row]}`)),
    data.is(row, "trusted") ? element("span", { class: "tag good" }, "trusted") : "",
    data.is(row, "waiting") ? element("span", { class: "tag" }, "awaits review") : "",
    data.is(row, "reviewed") ? element("span", { class: "tag" }, "reviewed") : "",
    data.is(row, "living")
      ? element("span", { class: "density", title: "share of explain tokens on which it fires" },
        `fires on ${share(data.value(row, "density"))} `,
        element("span", { class: "quiet" }, `of tokens, ${count(data.n_active[row])} times`))
      : element("span", { class: "tag" }, "dead"));

  const named = (data, row, best) => best ? label(data, best)
    : [element("p", { class: "label" }, element("span", { class: "quiet" }, "not labelled"))];
  const dead = () => element("p", { class: "quiet" }, "Silent on every explain document: nothing to show, nothing to label.");
  const frame = (data, row, parts) => element("article",
    { class: data.is(row, "living") ? "card" : "card dead", "data-latent": data.latent[row] }, header(data, row), ...parts);

  /** A latent in a few lines. */
  report.brief = (data, row, details) => {
    if (!data.is(row, "living")) return frame(data, row, [dead()]);
    const top = (details.contexts ?? []).filter((c) => c[1] < 0).slice(0, 3);
    return frame(data, row, [
      ...named(data, row, details.labels?.[0]),
      contexts(data, top, data.value(row, "max_activation"), "Strongest contexts"),
      logits(data, "raises", details.raised),
    ]);
  };

  /** All that the page holds of a latent. */
  report.card = (data, row, details) => {
    const logit = [logits(data, "raises", details.raised), logits(data, "lowers", details.lowered)];
    if (!data.is(row, "living")) return frame(data, row, [dead(), ...logit, neighbours(data, details.neighbours)]);
    const all = details.contexts ?? [];
    const strongest = data.value(row, "max_activation");
    const [best, ...rivals] = details.labels ?? [];
    const weaker = all.filter((c) => c[1] >= 0);
    return frame(data, row, [
      ...named(data, row, best),
      element("h5", {}, "Strongest contexts"),
      contexts(data, all.filter((c) => c[1] < 0), strongest, "Strongest contexts"),
      weaker.length ? element("h5", {}, "Down the activation range") : "",
      contexts(data, weaker, strongest, "Contexts from the quantiles of its activation"),
      details.histogram ? histogram(data, details.histogram) : "",
      element("h5", {}, "Measured"),
      facts(data, row),
      element("h5", {}, "Logits it moves"),
      ...logit,
      details.effects ? effects(details.effects) : "",
      neighbours(data, details.neighbours),
      ...rivals.map((rival) => element("details", {}, element("summary", {}, `Also labelled by ${rival.by} `,
        element("span", { class: "quiet" }, `confidence ${rival.confidence.toFixed(2)}`)), ...label(data, rival))),
    ]);
  };
})();
