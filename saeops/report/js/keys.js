"use strict";
document.addEventListener("browser", () => {
  const { browser } = report;
  const id = (name) => document.getElementById(name);
  const [query, list, pane, keys] = ["query", "list", "pane", "keys"].map(id);

  const walk = { j: 1, k: -1 };
  const inList = () => ({
    ArrowDown: 1, ArrowUp: -1, PageDown: browser.list.page(), PageUp: -browser.list.page(), Home: -1e9, End: 1e9,
  });
  const step = (by) => {
    browser.step(by);
    list.scrollIntoView({ block: "nearest" });
  };
  const enter = () => {
    if (browser.chosen < 0) browser.step(0);
    if (browser.chosen >= 0) browser.choose(browser.chosen, { opens: true });
    pane.focus({ preventScroll: true });
  };
  const leave = () => {
    if (browser.chosen >= 0) browser.close();
    else browser.clear();
  };

  const typing = (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      list.focus();
      if (event.key === "Enter") enter();
      else step(0);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (query.value) browser.clear();
      else query.blur();
    }
  };
  const anywhere = (event) => {
    const by = walk[event.key] ?? (event.target === list ? inList()[event.key] : undefined);
    if (by !== undefined) step(by);
    else if (event.key === "/") { query.focus(); query.select(); }
    else if (event.key === "?") keys.showModal();
    else if (event.key === "Escape") leave();
    else if (event.key === "Enter" && (event.target === list || event.target === document.body)) enter();
    else return;
    event.preventDefault();
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
    if (event.target === query) typing(event);
    else if (!event.target.closest("input, select, textarea, svg, [contenteditable]")) anywhere(event);
  });
  id("help").addEventListener("click", () => keys.showModal());
});
