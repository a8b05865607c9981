"use strict";
(() => {
  const KEPT = 16;

  const unpack = async (id) => {
    const packed = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  };

  // The index stands before this script, the details after it: they may not be there yet.
  const parsed = new Promise((done) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done);
    else done();
  });

  const blocks = new Map();
  const block = (number) => {
    const found = blocks.get(number) ?? parsed.then(() => unpack(`block-${number}`));
    blocks.delete(number);
    blocks.set(number, found);
    if (blocks.size > KEPT) blocks.delete(blocks.keys().next().value);
    return found;
  };

  report.open = async () => {
    const index = await unpack("block-index");
    const bit = new Map(index.flag_names.map((name, place) => [name, 1 << place]));
    const columns = new Map(index.columns.map((column) => [column.name, column]));
    const row = new Map(index.latent.map((latent, place) => [latent, place]));
    return {
      ...index,
      columns,
      size: index.latent.length,
      blocks: Math.ceil(index.latent.length / index.block),
      rowOf: (latent) => row.get(latent),
      is: (place, name) => (index.flags[place] & bit.get(name)) !== 0,
      value: (place, name) => columns.get(name)?.values[place] ?? null,
      texts: (numbers) => numbers.map((number) => index.strings[number]),
      details: async (place) => (await block(Math.floor(place / index.block)))[place % index.block],
      blockOf: (number) => block(number),
    };
  };
})();
