// ---- what stands below a map: its legend, and its table

function legend(map) {
  const {file, rows} = map, bytes = new Map(), kinds = new Map();
  const add = (totals, key, length) => totals.set(key, (totals.get(key) ?? 0) + length);
  let shown = 0;
  for (const row of rows) {
    const length = Number(row[LENGTH]), kind = data.kinds[row[KIND]];
    shown += length;
    if (kind === "source") add(bytes, row[SOURCE], length); else add(kinds, kind, length);
  }
  if (shown < map.size) add(kinds, "hole", map.size - shown);
  const words = {data: "inline data", hole: "hole: reads zeros", error: "error: reads fail"};
  const entry = (kind, index, text, length, rw) => h("li", {},
    s("svg", {class: "swatch", "aria-hidden": "true"}, s("g", {class: kind, style: `--h:${file.hues[index]}`},
      s("rect", {class: "box", x: .5, y: .5, width: 21, height: 13, rx: 3}),
      ...(rw ? [s("rect", {class: "rw", x: 0, y: 9, width: 22, height: 5, rx: 2})] : []))),
    h("span", {}, text, " ", h("span", {class: "soft"}, length)));
  const list = h("ul", {class: "legend", "aria-label": "Legend"});
  const sources = [...bytes].sort((one, other) => other[1] - one[1]), rest = sources.length - LEGEND;
  for (const [index, length] of sources.slice(0, LEGEND))
    list.append(entry("source", index, file.sources[index], human(length)));
  if (rest > 0) list.append(h("li", {class: "soft"}, `and ${count(rest, "more source")}`));
  if (rows.some(row => row[RW])) list.append(entry("source", 0, "bar along the bottom: rw", "", true));
  for (const [kind, length] of kinds) list.append(entry(kind, 0, words[kind], human(length)));
  return list;
}

// rows appear when the table is opened, a page at a time
class RegionTable {
  constructor(map) {
    this.map = map, this.page = 0;
    this.body = h("tbody");
    this.where = h("span", {role: "status"});
    this.back = this.turn("Previous", -1), this.next = this.turn("Next", 1);
    const pager = h("div", {class: "pager"}, this.back, this.next, this.where);
    pager.hidden = map.rows.length <= PAGE;
    const numbers = ["start", "length", "offset"];
    const heads = ["#", "start", "length", "kind", "access", "source", "offset"].map(name =>
      h("th", {scope: "col", class: numbers.includes(name) ? "number" : ""}, name));
    this.details = h("details", {}, h("summary", {}, `Table of ${count(map.rows.length, "region")}`),
      h("div", {class: "rows", tabindex: 0, role: "region", "aria-label": `Table of ${map.file.path}`},
        h("table", {}, h("thead", {}, h("tr", {}, ...heads)), this.body)),
      pager);
    this.details.addEventListener("toggle", () => this.show(Math.max(map.chosen, 0)));
  }

  turn(text, by) {
    const node = h("button", {type: "button"}, text);
    node.addEventListener("click", () => this.fill(this.page + by));
    return node;
  }

  // the page with a region
  show(index) { this.fill(Math.floor(index / PAGE)); }

  fill(page) {
    if (!this.details.open) return;
    const {rows} = this.map, last = Math.max(Math.ceil(rows.length / PAGE) - 1, 0);
    this.page = Math.max(0, Math.min(page, last));
    const first = this.page * PAGE, shown = rows.slice(first, first + PAGE);
    this.body.replaceChildren(...shown.map((row, at) => this.row(row, first + at)));
    this.where.textContent = `${first} to ${first + shown.length - 1} of 0 to ${grouped(rows.length - 1)}`;
    this.back.disabled = this.page === 0, this.next.disabled = this.page === last;
  }

  row(row, index) {
    const {map} = this, inSource = data.kinds[row[KIND]] === "source";
    const go = h("button", {type: "button", "aria-label": `Show region ${index} in the map`}, String(index));
    go.addEventListener("click", () => { map.strip.focus(); map.choose(index); });
    const number = value => h("td", {class: "number"}, value);
    return h("tr", index === map.chosen ? {"aria-current": "true"} : {}, h("td", {}, go),
      number(grouped(BigInt(row[START]))), number(grouped(BigInt(row[LENGTH]))),
      h("td", {}, data.kinds[row[KIND]]), h("td", {}, row[RW] ? "rw" : "ro"),
      h("td", {class: "wide"}, inSource ? map.file.sources[row[SOURCE]] : "–"),
      number(inSource ? grouped(BigInt(row[OFFSET])) : "–"));
  }
}
