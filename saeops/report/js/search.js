"use strict";
(() => {
  /** `two words "one phrase" token:the #12` → terms that must all hold. */
  const parse = (query) => [...query.toLowerCase().matchAll(/token:"([^"]*)"|token:(\S*)|"([^"]*)"?|(\S+)/g)]
    .map(([, quotedToken, token, phrase, word]) => {
      if (quotedToken !== undefined || token !== undefined) {
        return { kind: "token", text: (quotedToken ?? token).trim() };
      }
      const number = /^#?(\d+)$/.exec(word ?? "")?.[1];
      const only = number !== undefined && word.startsWith("#");
      return { kind: only ? "number" : "text", text: phrase ?? word, number: number === undefined ? -1 : Number(number) };
    })
    .filter((term) => term.text);

  report.searcher = (data) => {
    let near = null;
    const far = new Array(data.size);

    const nearby = () => {
      near ??= data.latent.map((_, row) =>
        `${data.label[row] ?? ""}\n${data.texts(data.fires[row]).join("\n")}`.toLowerCase());
      return near;
    };
    const firesOn = (row, text) => data.fires[row].some((n) => data.strings[n].trim().toLowerCase() === text);
    const holds = (term, row, texts) => {
      if (term.kind === "token") return firesOn(row, term.text);
      if (term.number === data.latent[row]) return true;
      return term.kind === "text" && texts.some((text) => text.includes(term.text));
    };

    const loads = new Map();
    const load = (number) => {
      const read = async () => {
        const start = number * data.block;
        (await data.blockOf(number)).forEach((details, place) => {
          const contexts = (details.contexts ?? []).map((context) => data.texts(context[3]).join(""));
          far[start + place] = contexts.join("\n").toLowerCase();
        });
      };
      if (!loads.has(number)) loads.set(number, read());
      return loads.get(number);
    };

    return {
      parse,
      /** Read all contexts before they are asked for, a block at a time. */
      async warm() {
        for (let number = 0; number < data.blocks; number += 1) await load(number);
      },
      /** By number, label and the tokens it fires on: at once. */
      direct: (row, terms) => terms.every((term) => holds(term, row, [nearby()[row]])),
      /** By the text of the contexts too, block by block; `each` gets the share done and says whether to go on. */
      async contexts(rows, terms, each) {
        const found = new Set();
        if (!terms.some((term) => term.kind === "text")) return found;
        const byBlock = Map.groupBy(rows, (row) => Math.floor(row / data.block));
        let done = 0;
        for (const [number, members] of byBlock) {
          if (far[number * data.block] === undefined) {
            await load(number);
            if (!each(done / byBlock.size, found)) return null;
          }
          for (const row of members) {
            if (terms.every((term) => holds(term, row, [nearby()[row], far[row]]))) found.add(row);
          }
          done += 1;
        }
        return found;
      },
    };
  };
})();
