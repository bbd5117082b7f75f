// ---- the page, or what an SVG document becomes where scripts run

function patterns() {
  return s("svg", {width: 0, height: 0, style: "position:absolute", "aria-hidden": "true"}, s("defs", {},
    s("pattern", {id: "dots", width: 8, height: 8, patternUnits: "userSpaceOnUse"},
      s("circle", {class: "dot", cx: 2, cy: 2, r: 1})),
    s("pattern", {id: "stripes", width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)"},
      s("rect", {class: "stripe-ground", width: 8, height: 8}),
      s("line", {class: "stripe", x1: 0, x2: 0, y1: 0, y2: 8}))));
}

function page(parent) {
  const keys = h("p", {class: "lead soft"}, "To scale. ", h("kbd", {}, "wheel"), " ", h("kbd", {}, "+"), " ",
    h("kbd", {}, "−"), " zoom, drag or ", h("kbd", {}, "Shift"), " ", h("kbd", {}, "← →"), " move, ",
    h("kbd", {}, "← →"), " go from region to region, ", h("kbd", {}, "Enter"), " zooms to one, ",
    h("kbd", {}, "0"), " shows all.");
  const main = h("main", {class: "page"}, patterns(), h("h1", {}, data.title), keys);
  const maps = new Map();
  // a strip is drawn once it has a width: cards far from the view have none yet
  const resized = new ResizeObserver(entries => {
    for (const entry of entries) maps.get(entry.target).resize(entry.contentRect.width);
  });
  data.files.forEach((file, number) => {
    const map = new FileMap(file, number);
    maps.set(map.strip, map);
    main.append(map.card);
  });
  parent.append(main, tip);
  for (const strip of maps.keys()) resized.observe(strip);
  window.addEventListener("beforeprint", () => { for (const map of maps.values()) map.print(); });
}

const root = document.documentElement;
if (root.namespaceURI === SVG) {
  document.getElementById("still").remove();
  root.removeAttribute("viewBox");
  root.setAttribute("width", "100%");
  root.setAttribute("height", "100%");
  const scroller = h("div", {style: "height:100%;overflow:auto"});
  const body = h("div", {style: "height:100%"}, scroller);
  root.append(s("foreignObject", {width: "100%", height: "100%"}, body));
  page(scroller);
} else page(document.body);
