"use strict";
(() => {
  const { element, number, share } = report;
  const HEIGHT = 58;
  const SPARE = 6;

  /** A list of which only the rows in sight are in the document. */
  report.list = (data, box, choose) => {
    const tall = box.firstElementChild;
    let rows = [];
    let chosen = -1;
    let shows = "density";
    let wanted = false;

    const option = (row, place) => {
      const tokens = data.texts(data.fires[row]).map((text) => element("code", {}, report.alone(text)));
      const says = data.is(row, "living") ? tokens : [element("span", { class: "quiet" }, "dead")];
      const value = data.value(row, shows);
      const confidence = data.value(row, "confidence");
      const node = element("div", {
        class: "item", role: "option", id: `item-${data.latent[row]}`, "aria-selected": String(row === chosen),
        "aria-setsize": rows.length, "aria-posinset": place + 1, click: () => choose(row),
      },
      element("span", { class: "mono" }, `#${data.latent[row]}`),
      element("span", { class: "says" }, ...(data.label[row] === null ? says : [data.label[row]])),
      element("span", { class: "quiet amount" }, shows === "density" ? share(value) : number(value)),
      confidence === null ? element("span", { class: "quiet none" }, data.is(row, "living") ? "no label" : "") : report.meter(confidence));
      if (data.is(row, "trusted")) node.classList.add("trusted");
      node.style.top = `${place * HEIGHT}px`;
      return node;
    };

    const draw = () => {
      wanted = false;
      const first = Math.max(0, Math.floor(box.scrollTop / HEIGHT) - SPARE);
      const last = Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / HEIGHT) + SPARE);
      tall.replaceChildren(...rows.slice(first, last).map((row, place) => option(row, first + place)));
      const active = rows.includes(chosen) ? `item-${data.latent[chosen]}` : "";
      if (active && document.getElementById(active)) box.setAttribute("aria-activedescendant", active);
      else box.removeAttribute("aria-activedescendant");
    };
    const soon = () => {
      if (!wanted) requestAnimationFrame(draw);
      wanted = true;
    };
    box.addEventListener("scroll", soon, { passive: true });
    new ResizeObserver(soon).observe(box);

    return {
      get rows() { return rows; },
      page: () => Math.max(1, Math.floor(box.clientHeight / HEIGHT) - 1),
      show(next, column, { keepPlace = false } = {}) {
        rows = next;
        shows = column;
        tall.style.height = `${rows.length * HEIGHT}px`;
        if (!keepPlace) box.scrollTop = 0;
        draw();
      },
      choose(row) {
        chosen = row;
        const place = rows.indexOf(row);
        if (place >= 0 && (place * HEIGHT < box.scrollTop || (place + 1) * HEIGHT > box.scrollTop + box.clientHeight)) {
          box.scrollTop = place * HEIGHT - box.clientHeight / 2 + HEIGHT;
        }
        draw();
      },
    };
  };
})();
