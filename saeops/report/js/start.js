"use strict";
const report = {};
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    // Strings become text nodes: what a corpus or a model wrote is never read as HTML.
    node.append(...children.filter((child) => child !== undefined && child !== ""));
    return node;
  };
  report.element = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  report.drawing = (name, attributes = {}, ...children) =>
    fill(document.createElementNS(SVG, name), attributes, children);

  report.number = (value, digits = 3) => {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.floor(Math.log10(Math.abs(value)));
    const text = size < -4
      ? value.toExponential(digits - 1).replace("e", "×10^")
      : value.toLocaleString("en", {
        minimumFractionDigits: Math.max(0, digits - 1 - size), maximumFractionDigits: Math.max(0, digits - 1 - size),
      });
    return text.replaceAll("-", "−");
  };
  report.share = (value) => {
    const percent = 100 * value;
    if (percent === 0 || percent === 100) return `${percent} %`;
    return percent >= 10 ? `${percent.toFixed(1)} %` : `${report.number(percent, 2)} %`;
  };
  report.count = (value) => value.toLocaleString("en");
  report.isPhone = () => matchMedia("(max-width: 860px)").matches;

  const copied = (button) => {
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1400);
  };
  // A page opened from a file may have no clipboard; then the text is selected for the reader's own copy.
  const select = (button) => {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", () => {
      if (!navigator.clipboard) return select(button);
      navigator.clipboard.writeText(button.dataset.copy).then(() => copied(button), () => select(button));
    });
  }

  const links = new Map([...document.querySelectorAll(".bar a")].map((link) => [link.hash.slice(1), link]));
  const here = new IntersectionObserver((entries) => {
    for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) here.observe(document.getElementById(id));
})();
