"use strict";
(() => {
  const { element, count, number } = report;
  const id = (name) => document.getElementById(name);
  const PAGE = 12;

  const start = (data) => {
    const [query, kind, sort, turn, found, progress] = ["query", "kind", "sort", "turn", "found", "progress"].map(id);
    const pane = id("pane");
    const searcher = report.searcher(data);
    const state = { ranges: new Map(), rising: false, chosen: -1, page: 0, asked: 0, cards: 0, shown: "" };
    const listeners = [];
    const list = report.list(data, id("list"), (row) => choose(row, { opens: true }));

    // ── order and filters ──────────────────────────────────────────────────

    const orders = [["", "drawn at random"], ["latent", "number"],
      ...[...data.columns.values()].filter((c) => c.values.some((v) => v !== null)).map((c) => [c.name, c.title.toLowerCase()])];
    sort.append(...orders.map(([name, title]) => element("option", { value: name }, title)));

    const every = data.latent.map((_, row) => row);
    let ranked = every;
    const rank = () => {
      const name = sort.value;
      turn.hidden = !name;
      turn.textContent = state.rising ? "↑" : "↓";
      turn.title = state.rising ? "smallest first" : "largest first";
      if (!name) { ranked = every; return; }
      const values = name === "latent" ? data.latent : data.columns.get(name).values;
      const sign = state.rising ? 1 : -1;
      // What was not measured comes last, whichever way the order runs.
      ranked = every.toSorted((a, b) => (values[a] === null) - (values[b] === null)
        || sign * (values[a] - values[b]) || a - b);
    };
    const inside = (row) => [...state.ranges].every(([name, { low, high, log }]) => {
      const value = data.value(row, name);
      if (value === null || (log && value <= 0)) return false;
      const at = log ? Math.log10(value) : value;
      return at >= low - 1e-9 && at <= high + 1e-9;
    });
    const fits = (row) => {
      const wanted = kind.value;
      if (wanted.startsWith("-") ? data.is(row, wanted.slice(1)) : wanted && !data.is(row, wanted)) return false;
      return inside(row);
    };

    // ── what is shown ──────────────────────────────────────────────────────

    const column = () => (sort.value && sort.value !== "latent" && sort.value !== "confidence" ? sort.value : "density");
    const say = (rows, alsoIn) => {
      const all = rows.length === data.size ? `all ${count(data.size)} latents` : `${count(rows.length)} of ${count(data.size)} latents`;
      found.textContent = alsoIn ? `${all}, ${count(alsoIn)} by their contexts alone` : all;
    };
    const show = (direct, later, keepPlace) => {
      const rows = later.length ? [...direct, ...later] : direct;
      list.show(rows, column(), { keepPlace });
      say(rows, later.length);
      listeners.forEach((tell) => tell(rows));
      if (state.chosen < 0 && !(keepPlace && sameCards())) cards();
    };
    const search = async () => {
      const asked = state.asked += 1;
      const terms = searcher.parse(query.value);
      const rows = ranked.filter(fits);
      state.page = 0;
      const direct = terms.length ? rows.filter((row) => searcher.direct(row, terms)) : rows;
      show(direct, [], false);
      if (!terms.length || query.value.trim().length < 2) { progress.hidden = true; return; }
      const near = new Set(direct);
      const rest = rows.filter((row) => !near.has(row));
      let shown = performance.now();
      const later = (hits) => rest.filter((row) => hits.has(row));
      const hits = await searcher.contexts(rest, terms, (done, soFar) => {
        if (asked !== state.asked) return false;
        progress.hidden = false;
        progress.value = done;
        if (performance.now() - shown > 250) { show(direct, later(soFar), true); shown = performance.now(); }
        return true;
      });
      if (asked !== state.asked || hits === null) return;
      progress.hidden = true;
      show(direct, later(hits), true);
    };

    const chips = () => id("ranges").replaceChildren(...[...state.ranges].map(([name, { low, high, log }]) => {
      const end = (value) => number(log ? 10 ** value : value);
      const title = data.columns.get(name).title;
      return element("button", { type: "button", class: "chip", "aria-label": `Drop the range of ${title}`, click: () => range(name, null) },
        `${title} ${end(low)} to ${end(high)} ×`);
    }));
    const range = (name, limits) => {
      if (limits) state.ranges.set(name, limits);
      else state.ranges.delete(name);
      chips();
      document.dispatchEvent(new CustomEvent("ranges", { detail: state.ranges }));
      search();
    };

    // ── the pane ───────────────────────────────────────────────────────────

    const onPage = () => list.rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
    const sameCards = () => onPage().join() === state.shown && list.rows.length > 0;
    const cards = async () => {
      const rows = onPage();
      state.shown = rows.join();
      const asked = state.cards += 1;
      const details = await Promise.all(rows.map((row) => data.details(row)));
      if (state.chosen >= 0 || asked !== state.cards) return;
      const first = state.page * PAGE;
      const turnTo = (by, text, off) => element("button", { type: "button", disabled: off, click: () => { state.page += by; cards(); } }, text);
      const title = sort.value ? `By ${sort.selectedOptions[0].textContent}` : "Drawn at random";
      pane.replaceChildren(
        element("div", { class: "pages" }, element("h3", {}, title),
          element("span", { class: "quiet" }, rows.length ? `${count(first + 1)} to ${count(first + rows.length)} of ${count(list.rows.length)}` : ""),
          turnTo(-1, "Previous", first === 0), turnTo(1, "Next", first + PAGE >= list.rows.length)),
        ...(rows.length ? rows.map((row, place) => report.brief(data, row, details[place]))
          : [element("p", { class: "empty" }, "No latent fits. Esc clears search and filters.")]));
      pane.scrollTop = 0;
    };
    const read = async (row) => {
      const details = await data.details(row);
      if (state.chosen !== row) return;
      pane.replaceChildren(
        element("div", { class: "pages" },
          element("button", { type: "button", class: "push", title: "Esc", click: close }, "← Back"),
          element("button", { type: "button", title: "k", click: () => step(-1) }, "Previous"),
          element("button", { type: "button", title: "j", click: () => step(1) }, "Next")),
        report.card(data, row, details));
      if (id(`bench-${data.latent[row]}`)) {
        pane.append(element("p", { class: "small" }, element("a", { href: `#bench-${data.latent[row]}` }, "Its doses and effects")));
      }
      pane.scrollTop = 0;
    };
    const choose = (row, { opens = false } = {}) => {
      state.chosen = row;
      list.choose(row);
      id("browser").classList.toggle("reading", opens || (report.isPhone() && id("browser").classList.contains("reading")));
      const hash = `#latent=${data.latent[row]}`;
      if (location.hash !== hash) history[opens && !location.hash.startsWith("#latent=") ? "pushState" : "replaceState"](null, "", hash);
      return read(row);
    };
    const step = (by) => {
      const place = list.rows.indexOf(state.chosen);
      const row = list.rows[Math.min(Math.max(place < 0 ? 0 : place + by, 0), list.rows.length - 1)];
      if (row !== undefined) choose(row);
    };
    const close = () => {
      state.chosen = -1;
      id("browser").classList.remove("reading");
      list.choose(-1);
      if (location.hash.startsWith("#latent=")) history.replaceState(null, "", "#features");
      cards();
      id("list").focus({ preventScroll: true });
    };
    const follow = () => {
      const row = data.rowOf(Number(/^#latent=(\d+)$/.exec(location.hash)?.[1] ?? NaN));
      if (row === undefined) {
        if (state.chosen >= 0 && !location.hash.startsWith("#bench")) close();
        return;
      }
      if (row !== state.chosen) choose(row, { opens: true });
      id("browser").scrollIntoView({ block: "start" });
    };

    // ── wiring ─────────────────────────────────────────────────────────────

    let typed = 0;
    query.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(search, 40); });
    query.addEventListener("focus", () => searcher.warm(), { once: true });
    query.form.addEventListener("submit", (event) => event.preventDefault());
    kind.addEventListener("change", search);
    sort.addEventListener("change", () => { state.rising = sort.value === "latent"; rank(); search(); });
    turn.addEventListener("click", () => { state.rising = !state.rising; rank(); search(); });
    addEventListener("hashchange", follow);

    report.browser = {
      data, list, choose, step, close, range,
      get chosen() { return state.chosen; },
      get ranges() { return state.ranges; },
      listed: (tell) => { listeners.push(tell); tell(list.rows); },
      clear() {
        [query.value, kind.value] = ["", ""];
        state.ranges.clear();
        chips();
        document.dispatchEvent(new CustomEvent("ranges", { detail: state.ranges }));
        search();
      },
    };
    id("browser").hidden = false;
    rank();
    search();
    follow();
    document.dispatchEvent(new Event("browser"));
  };

  report.open().then(start, (error) => {
    id("browser").replaceWith(element("p", { class: "empty" },
      `The feature browser could not be opened (${error.message}). It needs a browser of 2024 or later.`));
  });
})();
