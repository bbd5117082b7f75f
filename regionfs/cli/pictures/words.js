/* The maps of a manifest's files, to scale, in the page or SVG document that holds this script and its data.

   A strip shows the bytes [from, from + span) of one file and draws only what is in it: regions narrower than
   NARROW pixels are drawn together, so that no strip has more elements than pixels, whatever the map has. The strip
   is a list box: one region is chosen, arrow keys go to its neighbours, and what it says is in its label and in the
   tip. Numbers above 2^53 come as strings; they are drawn as doubles and written exactly. */
const HTML = "http://www.w3.org/1999/xhtml", SVG = "http://www.w3.org/2000/svg";
const NARROW = 2, LEAST_ERROR = 3, THIN = 8, BAR_TOP = 26, BAR = 80, LEAST_SPAN = 32, PAGE = 100, LEGEND = 12;
const START = 0, LENGTH = 1, KIND = 2, SOURCE = 3, OFFSET = 4, RW = 5;  // of a region's row
const UNITS = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
const data = JSON.parse(document.getElementById("data").textContent);

function make(space, name, attributes = {}, ...children) {
  const node = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const h = (...words) => make(HTML, ...words);
const s = (...words) => make(SVG, ...words);

// 1572864 -> "1.5 MiB"
function human(value) {
  if (!value) return "0";
  for (const [factor, unit] of UNITS) if (value >= factor) return `${+(value / factor).toFixed(1)} ${unit}`;
  return `${+value.toFixed(value < 1 ? 3 : 1)} B`;
}
// 1048577 -> "1 MiB (1,048,577 bytes)"
function exact(value) {
  const bytes = `${grouped(BigInt(value))} bytes`;
  return value >= 1024 ? `${human(Number(value))} (${bytes})` : bytes;
}
// the place of a tick, exact, in the largest unit that needs at most three decimals
function place(value) {
  for (const [factor, unit] of UNITS) {
    const amount = value / factor;
    if (amount >= 1 && Number.isInteger(amount * 1000)) return `${grouped(amount)} ${unit}`;
  }
  return value ? `${grouped(value)} B` : "0";
}
const pen = document.createElementNS(HTML, "canvas").getContext("2d");
function fitted(text, width, bold) {
  pen.font = `${bold ? "600 " : ""}12px system-ui, sans-serif`;
  if (pen.measureText(text).width <= width) return text;
  let count = Math.floor(text.length * width / pen.measureText(text).width);
  while (count > 2 && pen.measureText(text.slice(0, count) + "…").width > width) count--;
  return count > 2 ? text.slice(0, count) + "…" : "";
}

// of numbers for people
const grouped = value => value.toLocaleString("en");
function count(number, word) { return `${grouped(number)} ${word}${number === 1 ? "" : "s"}`; }

// ---- one tip for the page
const tip = h("div", {class: "tip", role: "tooltip", id: "tip"});
tip.hidden = true;
function showTip(title, rows, x, top, bottom) {
  const list = h("dl");
  for (const [key, value] of rows) list.append(h("dt", {}, key), h("dd", {}, value));
  tip.replaceChildren(h("strong", {}, title), list);
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), width = document.documentElement.clientWidth, height = window.innerHeight;
  const left = Math.max(8, Math.min(x - box.width / 2, width - box.width - 8));
  const below = bottom + 8 + box.height <= height || top < box.height + 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? bottom + 8 : top - box.height - 8}px`;
}
