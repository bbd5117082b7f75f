class FileMap {
  constructor(file, number) {
    this.file = file, this.number = number;
    this.rows = file.regions, this.size = Number(file.size);
    this.starts = Float64Array.from(this.rows, row => Number(row[START]));
    this.ends = Float64Array.from(this.rows, row => Number(row[START]) + Number(row[LENGTH]));
    this.from = 0, this.span = Math.max(this.size, 1);
    this.chosen = -1, this.width = 0, this.queued = false;
    this.table = new RegionTable(this);
    this.build();
  }

  // ---- the card
  build() {
    const {file} = this, id = `file${this.number}`;
    const button = (label, text, act) => {
      const node = h("button", {type: "button", "aria-label": `${label} ${file.path}`, title: label}, text);
      node.addEventListener("click", act);
      return node;
    };
    this.out = button("Zoom out", "−", () => this.zoom(2));
    this.in = button("Zoom in", "+", () => this.zoom(.5));
    this.fit = button("Show all of", "All", () => this.look(0, this.size));
    this.strip = s("svg", {class: "strip", role: "listbox", tabindex: 0, "aria-orientation": "horizontal",
                           "aria-label": `Regions of ${file.path}`});
    this.overview = s("svg", {class: "overview", "aria-hidden": "true"});
    this.range = h("span", {class: "range"});
    this.scale = h("span", {class: "pixel"});
    this.note = h("span", {class: "note"});
    this.card = h("section", {class: "card", "aria-labelledby": id},
      h("div", {class: "head"},
        h("div", {},
          h("h2", {id}, file.path),
          h("p", {class: "facts"}, `${exact(file.size)}, ${count(this.rows.length, "region")}`),
          h("p", {class: "facts"}, h("span", {class: "mode"}, file.mode), file.reason)),
        h("div", {class: "tools", role: "group", "aria-label": `Zoom of ${file.path}`}, this.out, this.in, this.fit)),
      ...(this.size ? [this.strip, this.overview,
                       h("div", {class: "view", role: "status"}, this.range, this.scale, this.note),
                       legend(this)] : []),
      ...(this.rows.length ? [this.table.details] : []));
    this.listen();
  }

  // ---- words about a region
  name(index) {
    const row = this.rows[index], kind = data.kinds[row[KIND]];
    return kind === "source" ? this.file.sources[row[SOURCE]] : {data: "inline data"}[kind] ?? kind;
  }

  about(index) {
    const row = this.rows[index], inSource = data.kinds[row[KIND]] === "source";
    return [
      ["Start", exact(row[START])], ["Length", exact(row[LENGTH])],
      ["End", exact(String(BigInt(row[START]) + BigInt(row[LENGTH])))],
      ["Kind", data.kinds[row[KIND]]],
      ...(inSource ? [["Source", this.file.sources[row[SOURCE]]], ["Offset", exact(row[OFFSET])]] : []),
      ["Access", row[RW] ? "rw: writes go to the source" : "ro"],
      ["Mode", this.file.mode], ["Reason", this.file.reason],
    ];
  }

  title(index) { return `Region ${grouped(index)} of 0 to ${grouped(this.rows.length - 1)}: ${this.name(index)}`; }

  // ---- the view
  x(position) { return (position - this.from) / this.span * this.width; }

  look(from, span) {
    this.span = Math.max(Math.min(LEAST_SPAN, this.size), Math.min(span, this.size), 1);
    this.from = Math.max(0, Math.min(from, this.size - this.span));
    this.draw();
  }

  zoom(factor, x = this.width / 2) {
    const at = this.from + x / this.width * this.span;
    const span = Math.max(Math.min(LEAST_SPAN, this.size), Math.min(this.span * factor, this.size));
    this.look(at - x / this.width * span, span);
  }

  choose(index) {
    if (!this.rows.length) return;
    this.chosen = Math.max(0, Math.min(index, this.rows.length - 1));
    const start = this.starts[this.chosen], end = this.ends[this.chosen];
    if (start < this.from || end > this.from + this.span) {
      const span = Math.max(this.span, Math.min(end - start, this.size));
      this.look((start + end - span) / 2, end - start > this.span ? (end - start) * 1.2 : span);
    } else this.draw();
    this.table.show(this.chosen);
    this.tipFor(this.chosen);
  }

  zoomTo(index) {
    const length = this.ends[index] - this.starts[index];
    this.look(this.starts[index] - length * .1, length * 1.2);
    this.tipFor(index);
  }

  // index of the first region that ends after a position
  after(position) {
    let low = 0, high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.ends[middle] > position) high = middle; else low = middle + 1;
    }
    return low;
  }

  // [first, last) of the regions that a person sees at x
  at(x) {
    for (const reach of [.5, NARROW]) {
      const per = this.span / this.width;
      const low = this.from + (x - reach) * per, high = this.from + (x + reach) * per;
      const first = this.after(low);
      let last = first;
      while (last < this.rows.length && this.starts[last] < high) last++;
      if (last > first) return [first, last];
    }
    return [0, 0];
  }

  // ---- drawing
  resize(width) {
    this.width = width;
    this.draw();
  }

  // before paper is made: what was never in view has not been drawn
  print() {
    this.width ||= this.strip.getBoundingClientRect().width || 1000;
    if (this.size) this.paint();
  }

  draw() {
    if (this.queued || !this.width) return;
    this.queued = true;
    requestAnimationFrame(() => { this.queued = false; this.paint(); });
  }

  paint() {
    const drawing = document.createDocumentFragment();
    this.ruler(drawing);
    drawing.append(s("rect", {class: "ground", x: 0, y: BAR_TOP, width: this.width, height: BAR}));
    const crowded = this.boxes(drawing);
    this.strip.replaceChildren(drawing);
    this.strip.setAttribute("viewBox", `0 0 ${this.width} 112`);
    this.strip.setAttribute("preserveAspectRatio", "none");
    if (this.chosen >= 0) this.strip.setAttribute("aria-activedescendant", `f${this.number}r${this.chosen}`);
    this.paintOverview();
    this.range.textContent = `${human(this.from)} to ${human(this.from + this.span)} of ${human(this.size)}`;
    this.scale.textContent = `1 pixel is ${human(this.span / this.width)}`;
    this.note.textContent = crowded ? "regions too narrow to tell apart are drawn together; zoom in" : "";
    this.in.disabled = this.span <= LEAST_SPAN;
    this.out.disabled = this.fit.disabled = this.span >= this.size;
  }

  ruler(drawing) {
    const ticks = step => {
      const places = [];
      for (let at = Math.ceil(this.from / step) * step; at <= this.from + this.span; at += step) places.push(at);
      return places;
    };
    let step = 2 ** Math.ceil(Math.log2(Math.max(this.span * 80 / this.width, 1)));
    const tooLong = at => (place(at).length * 7 + 20) / this.width > step / this.span;
    while (step < this.span && ticks(step).some(tooLong)) step *= 2;
    for (const at of ticks(step)) {
      const x = this.x(at), text = place(at);
      if (x + text.length * 7 > this.width) continue;
      drawing.append(s("line", {class: "tick", x1: x, x2: x, y1: 6, y2: BAR_TOP}),
                     s("text", {class: "scale", x: x + 5, y: 17}, text));
    }
  }

  // regions in view; true when some are drawn together
  boxes(drawing) {
    const limit = this.from + this.span;
    const isError = index => data.kinds[this.rows[index][KIND]] === "error", errors = [];
    let crowd = null, crowded = false;
    const flush = () => {
      if (!crowd) return;
      crowded ||= crowd.last - crowd.first > 1;
      const error = isError(crowd.most), least = error ? LEAST_ERROR : NARROW;
      const box = this.box(crowd.most, crowd.x, Math.max(crowd.end - crowd.x, least), crowd.last - crowd.first);
      if (error) errors.push(box); else drawing.append(box);
      crowd = null;
    };
    for (let index = this.after(this.from); index < this.rows.length && this.starts[index] < limit; index++) {
      const x = this.x(this.starts[index]), end = this.x(this.ends[index]);
      if (end - x >= NARROW) {
        flush();
        drawing.append(this.box(index, x, end - x, 1));
        continue;
      }
      if (crowd && end > crowd.x + NARROW) flush();
      crowd ??= {first: index, x, most: index};
      crowd.last = index + 1, crowd.end = end;
      const longest = this.ends[crowd.most] - this.starts[crowd.most];
      const outranks = isError(index) - isError(crowd.most);
      if (outranks > 0 || !outranks && this.ends[index] - this.starts[index] > longest) crowd.most = index;
    }
    flush();
    drawing.append(...errors);  // on top: a bad sector must be seen beside a terabyte
    if (this.chosen >= 0 && this.ends[this.chosen] > this.from && this.starts[this.chosen] < limit) {
      drawing.querySelector(`[data-region="${this.chosen}"]`)?.remove();
      const x = this.x(this.starts[this.chosen]), width = Math.max(this.x(this.ends[this.chosen]) - x, NARROW);
      drawing.append(this.box(this.chosen, x, width, 1));
    }
    return crowded;
  }

  box(index, x, width, together) {
    const row = this.rows[index], kind = data.kinds[row[KIND]], chosen = index === this.chosen;
    const left = Math.max(x, -4), right = Math.min(x + width, this.width + 4);
    const thin = kind === "error" && width < THIN ? " thin" : "";
    const node = s("g", {class: `${kind}${thin}${chosen ? " chosen" : this.inCrowd(index, x, width) ? " narrow" : ""}`,
                         style: `--h:${this.file.hues[row[SOURCE]]}`, role: "option",
                         id: `f${this.number}r${index}`, "data-region": index, "data-together": together,
                         "aria-selected": chosen, "aria-posinset": index + 1, "aria-setsize": this.rows.length,
                         "aria-label": this.spoken(index, together)});
    node.append(s("rect", {class: "box", x: left, y: BAR_TOP, width: right - left, height: BAR}));
    if (row[RW]) node.append(s("rect", {class: "rw", x: left, y: BAR_TOP + BAR - 7, width: right - left, height: 7}));
    if (chosen) {
      const middle = Math.max(7, Math.min((left + right) / 2, this.width - 7));
      node.append(s("path", {class: "caret", d: `M${middle},${BAR_TOP} l-6,-8 h12 z`}));
    }
    const shown = Math.min(right, this.width) - Math.max(left, 0) - 16;
    if (together === 1 && shown > 24) {
      const at = Math.max(left, 0) + 8, size = human(Number(row[LENGTH])) + (row[RW] ? ", rw" : "");
      node.append(s("text", {class: "label name", x: at, y: BAR_TOP + 30}, fitted(this.name(index), shown, true)),
                  s("text", {class: "label", x: at, y: BAR_TOP + 48}, fitted(size, shown, false)));
    }
    return node;
  }

  // too narrow for a line of its own; one that stands alone needs it to be seen
  inCrowd(index, x, width) {
    const before = index ? this.x(this.ends[index - 1]) : -Infinity;
    const after = index + 1 < this.rows.length ? this.x(this.starts[index + 1]) : Infinity;
    return width < 4 && (x - before < 4 || after - x - width < 4);
  }

  // the chosen region says all; that takes too long for a thousand
  spoken(index, together) {
    if (together > 1) return `${together} regions drawn together, the longest is region ${index}`;
    if (index !== this.chosen) return this.title(index);
    return `${this.title(index)}. ${this.about(index).map(([key, value]) => `${key} ${value}`).join(", ")}`;
  }

  // the whole file, drawn once for a width, and the window that the strip shows of it
  paintOverview() {
    const per = this.width / Math.max(this.size, 1);
    if (this.drawn !== this.width) {
      this.window = s("rect", {class: "window", y: 1, height: 16});
      this.overview.replaceChildren(...this.wholeFile(per), this.window);
      this.overview.setAttribute("viewBox", `0 0 ${this.width} 18`);
      this.overview.setAttribute("preserveAspectRatio", "none");
      this.drawn = this.width;
    }
    const left = this.from * per, width = this.span < this.size ? Math.max(this.span * per, 4) : 0;
    this.window.setAttribute("x", Math.min(left, this.width - width));
    this.window.setAttribute("width", width);
  }

  *wholeFile(per) {
    const place = {y: 3, height: 12}, errors = [];
    yield s("rect", {class: "ground", x: 0, width: this.width, ...place});
    let filled = -1;
    for (let index = 0; index < this.rows.length; index++) {
      const x = this.starts[index] * per, end = Math.max(this.ends[index] * per, x + 1), row = this.rows[index];
      if (data.kinds[row[KIND]] === "error") {
        if (!errors.length || x > errors.at(-1)[0] + 1) errors.push([x, Math.max(end - x, NARROW)]);
        continue;
      }
      if (end < filled + 1) continue;
      yield s("g", {class: `${data.kinds[row[KIND]]} flat`, style: `--h:${this.file.hues[row[SOURCE]]}`},
              s("rect", {class: "box", x, width: end - x, ...place}));
      filled = end;
    }
    for (const [x, width] of errors) yield s("g", {class: "error flat"}, s("rect", {class: "box", x, width, ...place}));
  }

  // ---- the tip
  tipFor(index, others = 0) {
    const box = this.strip.getBoundingClientRect();
    const start = Math.max(this.starts[index], this.from), end = Math.min(this.ends[index], this.from + this.span);
    const middle = this.x((start + end) / 2);
    const more = others ? [["Here too", `${count(others, "other region")}; zoom in to tell them apart`]] : [];
    showTip(this.title(index), [...this.about(index), ...more],
            box.left + Math.max(0, Math.min(middle, box.width)), box.top + BAR_TOP, box.top + BAR_TOP + BAR);
  }

  tipForGap(x) {
    const position = this.from + x / this.width * this.span, next = this.after(position);
    const start = next ? this.ends[next - 1] : 0, end = next < this.rows.length ? this.starts[next] : this.size;
    const box = this.strip.getBoundingClientRect();
    showTip("Hole: no region here", [["Start", exact(start)], ["Length", exact(end - start)], ["End", exact(end)]],
            box.left + x, box.top + BAR_TOP, box.top + BAR_TOP + BAR);
  }

  rest() {
    if (document.activeElement === this.strip && this.chosen >= 0) this.tipFor(this.chosen);
    else tip.hidden = true;
  }

  // ---- mouse, touch, wheel and keys
  listen() {
    const {strip} = this, x = event => event.clientX - strip.getBoundingClientRect().left;
    let drag = null;
    strip.addEventListener("wheel", event => {
      const sideways = event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY);
      const amount = (event.deltaY || event.deltaX) * (event.deltaMode ? 30 : 1);
      if (this.span >= this.size && (sideways || amount > 0)) return;  // nothing to do here: the page scrolls
      event.preventDefault();
      if (sideways) this.look(this.from + (event.deltaX || event.deltaY) / this.width * this.span, this.span);
      else this.zoom(Math.exp(Math.max(-1, Math.min(amount * .003, 1))), x(event));
      tip.hidden = true;
    }, {passive: false});
    strip.addEventListener("pointerdown", event => {
      if (event.button) return;
      drag = {x: x(event), from: this.from, moved: false};
      strip.setPointerCapture(event.pointerId);
    });
    strip.addEventListener("pointermove", event => {
      if (drag) {
        drag.moved ||= Math.abs(x(event) - drag.x) > 3;
        strip.classList.toggle("dragged", drag.moved);
        if (!drag.moved) return;
        tip.hidden = true;
        this.look(drag.from - (x(event) - drag.x) / this.width * this.span, this.span);
        return;
      }
      const [first, last] = this.at(x(event));
      if (last > first) this.tipFor(first, last - first - 1); else if (this.size) this.tipForGap(x(event));
    });
    strip.addEventListener("pointerup", event => {
      const [first, last] = this.at(x(event));
      if (drag && !drag.moved && last > first) this.choose(first);
      drag = null;
      strip.classList.remove("dragged");
    });
    strip.addEventListener("pointercancel", () => { drag = null; strip.classList.remove("dragged"); });
    strip.addEventListener("pointerleave", () => { if (!drag) this.rest(); });
    strip.addEventListener("dblclick", event => {
      const [first, last] = this.at(x(event));
      if (last > first) this.zoomTo(first);
    });
    strip.addEventListener("focus", () => {
      if (strip.matches(":focus-visible")) this.choose(this.chosen >= 0 ? this.chosen : this.after(this.from));
    });
    strip.addEventListener("blur", () => { tip.hidden = true; });
    strip.addEventListener("keydown", event => this.key(event));
    this.overview.addEventListener("pointerdown", event => {
      this.overview.setPointerCapture(event.pointerId);
      this.centre(event);
    });
    this.overview.addEventListener("pointermove", event => { if (event.buttons) this.centre(event); });
  }

  centre(event) {
    const box = this.overview.getBoundingClientRect();
    this.look((event.clientX - box.left) / box.width * this.size - this.span / 2, this.span);
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const pan = share => () => this.look(this.from + share * this.span, this.span);
    const keys = {
      ArrowRight: event.shiftKey ? pan(.25) : () => this.choose(this.chosen + 1),
      ArrowLeft: event.shiftKey ? pan(-.25) : () => this.choose(this.chosen - 1),
      PageDown: pan(.9), PageUp: pan(-.9),
      Home: () => this.choose(0), End: () => this.choose(this.rows.length - 1),
      "+": () => this.zoomChosen(.5), "=": () => this.zoomChosen(.5), "-": () => this.zoomChosen(2),
      0: () => this.look(0, this.size), Enter: () => this.chosen >= 0 && this.zoomTo(this.chosen),
      Escape: () => { tip.hidden = true; },
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  // around the chosen region where it is in view
  zoomChosen(factor) {
    const middle = this.chosen < 0 ? -1 : this.x((this.starts[this.chosen] + this.ends[this.chosen]) / 2);
    this.zoom(factor, middle >= 0 && middle <= this.width ? middle : undefined);
    if (this.chosen >= 0) this.tipFor(this.chosen);
  }
}
