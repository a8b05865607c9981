"use strict";
(() => {
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

  const cards = [...document.querySelectorAll(".card")];
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const query = document.getElementById("query");
  const kind = document.getElementById("kind");
  const found = document.getElementById("found");
  const filter = () => {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, index) => {
      const fits = words.every((word) => texts[index].includes(word))
        && (!kind.value || card.dataset.kind.split(" ").includes(kind.value));
      card.hidden = !fits;
      shown += fits;
    });
    found.textContent = words.length || kind.value ? `${shown} of ${cards.length} shown` : "";
  };
  query.addEventListener("input", filter);
  kind.addEventListener("change", filter);
  query.form.addEventListener("submit", (event) => event.preventDefault());

  const links = new Map([...document.querySelectorAll(".bar a")].map((link) => [link.hash.slice(1), link]));
  const here = new IntersectionObserver((entries) => {
    for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const id of links.keys()) here.observe(document.getElementById(id));
})();
