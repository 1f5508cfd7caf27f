"use strict";
// One side of the page of `attn trace --html`: slow memory above, fast memory below.

class Side {
  constructor(root) {
    this.root = root;
    root.innerHTML = '<header><h2></h2><span class="chip"></span></header><p class="caption" aria-live="polite"></p>' +
      '<svg role="img"></svg>';
    this.svg = root.querySelector("svg");
  }

  show(run) {
    this.run = run;
    this.root.querySelector("h2").textContent = nameOf(run);
    this.at = -1;
  }

  /*
   * Sizes for a width; heights that two sides should share are left to the caller. Keys are columns, queries are rows:
   *
   *     wide:    K^T  V^T          narrow:    K^T
   *           Q   A    P   O               Q   A   m l
   *                                            P   O
   *                                           V^T
   *
   * Where P is not stored, the statistics of the rows stand in its place.
   */
  measure(width) {
    const {run} = this, wide = width >= 500 && (width - 90) / (run.dim * 2 + run.keys * 2) >= 24, pad = wide ? 14 : 8, gap = wide ? 14 : 12, lead = wide ? 20 : 18, label = 21;
    const right = Math.max(run.dim, wide ? 0 : 2), columns = run.dim + run.keys * (wide ? 2 : 1) + right;
    const room = width - 2 * pad - lead - gap * (wide ? 3 : 2);
    const cw = Math.max(8, Math.min(44, Math.floor(room / columns)));
    const ch = Math.max(12, Math.min(25, Math.round(cw * .8)));
    const fit = text => Math.min(13, (cw - 3) / textWidth(text)), digits = fit("\u22120.00") < 7.4 ? 1 : 2;
    const long = fit(digits === 2 ? "\u22120.00" : "\u22120.0"), short = Math.max(long, Math.min(fit("8e18"), fit("00.0"), fit("NaN") / 1.12));
    const g = {width, pad, gap, cw, ch, wide, digits, numbers: long >= 6.5, places: {}, names: {}};
    g.font = text => text.length > digits + 2 ? long : short;
    const x0 = Math.max(pad, (width - (cw * columns + gap * (wide ? 3 : 2) + lead)) / 2) + lead, xa = x0 + cw * run.dim + gap;
    const put = (name, x, y, word) => { g.places[name] = {x, y}; g.names[name] = word || shown(name); };
    const tall = ch * run.rows, statistics = ["m", "l", "LSE"].filter(name => run.slow[name]), noA = !run.slow.S;
    let y = 42;
    put("K", xa, y);
    const under = y + ch * run.dim + label;
    put("Q", x0, under);
    put("S", xa, under, noA ? "A and P, never stored" : "A = Q K\u1d40");
    if (wide) {
      const xp = xa + cw * run.keys + gap, xo = xp + cw * run.keys + gap;
      put("V", xp, y);
      if (!noA) put("P", xp, under, "P = softmax(A)");
      put("O", xo, under);
      statistics.forEach((name, n) => put(name, xo - gap - (cw + 8) * (statistics.length - n) + 8, under));
      y = under + tall + 14;
    } else {
      const xo = xa + cw * run.keys + gap;
      statistics.forEach((name, n) => put(name, xo + n * cw, under));
      y = under + tall + label;
      put("O", xo, y);
      if (!noA) put("P", xa, y, "P = softmax(A)"), y += tall + label;
      put("V", xa, y);
      y += (noA ? Math.max(tall, ch * run.dim) : ch * run.dim) + 12;
    }
    g.slowHeight = y;
    g.bus = 27;
    g.slots = run.phases.map(phase => this.flow(phase, g));
    g.fastHeight = Math.max(...g.slots.map(s => s.height));
    return g;
  }

  // Slots of a phase side by side, matrices first, in rows as wide as there is room.
  flow(phase, g) {
    const slots = phase.map((p, t) => ({...p, t})).filter(p => p.rows)
      .sort((a, b) => ORDER.indexOf(a.first) - ORDER.indexOf(b.first));
    const places = [];
    const cells = slots.filter(p => kind(p.first) !== "s").map(p => turned(p.first) ? p.rows : p.cols);
    const spare = (g.width - 2 * g.pad - g.cw * cells.reduce((a, b) => a + b, 0)) / Math.max(1, cells.length - 1);
    const between = g.wide ? Math.max(16, Math.min(36, spare)) : Math.max(7, Math.min(14, spare));
    let x = g.pad, y = 46, tall = 0, vectors = false;
    for (const p of slots) {
      const [h, w] = turned(p.first) ? [p.cols, p.rows] : [p.rows, p.cols];
      const isVector = kind(p.first) === "s", wide = Math.max(w * g.cw, 20);
      if (x > g.pad && (x + wide > g.width - g.pad + 1 || (isVector && !vectors))) x = g.pad, y += tall * g.ch + 22, tall = 0;
      vectors = isVector;
      places[p.t] = {x, y};
      x += wide + (isVector ? Math.min(between, 22) : between), tall = Math.max(tall, h);
    }
    return {places, height: y + tall * g.ch + 14};
  }

  cell(x, y, name, number, look) {
    const g = this.g, {run} = this;
    if (number === undefined) return `<g class="cell empty"><rect x="${x}" y="${y}" width="${g.cw}" height="${g.ch}" rx="3"/></g>`;
    let share = 20; // percent of the hue
    if (name === "S" && run.high > run.low && Number.isFinite(number)) share = 8 + 36 * (number - run.low) / (run.high - run.low);
    if (name === "P" && Number.isFinite(number)) share = 6 + 44 * Math.min(1, number);
    const bad = Number.isNaN(number) || number === Infinity;
    const words = pretty(number, g.digits), text = !g.numbers ? "" : `<text x="${x + g.cw / 2}" y="${y + g.ch / 2}" dy=".35em" text-anchor="middle" font-size="${g.font(words).toFixed(1)}">${words}</text>`;
    return `<g class="cell ${kind(name)}${bad ? " bad" : ""}" style="--ink-share:${share.toFixed(0)}%"><title>${number}</title><rect class="${look || ""}" x="${x}" y="${y}" width="${g.cw}" height="${g.ch}" rx="3"/>${text}</g>`;
  }

  // A matrix or tile with its first number at (x, y).
  matrix(x, y, name, rows, cols, at, fresh) {
    const g = this.g, turn = turned(name);
    let out = "";
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < cols; c++)
        out += this.cell(x + (turn ? r : c) * g.cw, y + (turn ? c : r) * g.ch, name, at(r, c), fresh && fresh(r, c) ? "lit" : "");
    return out;
  }

  box(x, y, name, rows, cols, look) {
    const g = this.g, [h, w] = turned(name) ? [cols, rows] : [rows, cols];
    return `<rect class="${look}" x="${x}" y="${y}" width="${w * g.cw}" height="${h * g.ch}" rx="${look === "seen" ? 0 : 4}"/>`;
  }

  // Where a tile lies in slow memory.
  home(home) {
    const g = this.g, place = g.places[home.name], [r, c] = home.at;
    return turned(home.name) ? {x: place.x + r * g.cw, y: place.y + c * g.ch} : {x: place.x + c * g.cw, y: place.y + r * g.ch};
  }

  slowPicture(state) {
    const {run, g} = this, text = (x, y, look, words, anchor) =>
      `<text x="${x}" y="${y}" class="${look}" text-anchor="${anchor || "start"}">${words}</text>`;
    let out = `<rect class="zone-slow" width="${g.width}" height="${g.slowHeight}" rx="10"/>` +
      text(g.pad, 20, "zone-name", "slow memory");
    const p = g.places, turnedNames = ["K", "V"];
    if (g.cw >= 20) {
      for (const name of turnedNames)
        for (let k = 0; k < run.keys; k++) out += text(p[name].x + (k + .5) * g.cw, p[name].y - 6, "index", name.toLowerCase() + k, "middle");
      for (let q = 0; q < run.rows; q++) out += text(p.Q.x - 6, p.Q.y + (q + .5) * g.ch + 4, "index", "q" + q, "end");
    }
    for (const name in p) {
      if (turnedNames.includes(name)) {
        const after = g.wide && name === "V"; // before it there is K
        out += text(p[name].x + (after ? run.keys * g.cw + 6 : -6), p[name].y + g.ch * run.dim / 2 + 5, "name", g.names[name], after ? "start" : "end");
      }
      else if (kind(name) === "s") out += text(p[name].x + g.cw / 2, p[name].y - 6, "name", g.names[name], "middle");
      else out += text(p[name].x, p[name].y - 6, "name", g.names[name]);
    }
    if (!run.slow.S) {
      out += this.box(p.S.x, p.S.y, "S", run.rows, run.keys, "ghost");
      for (const [r, c] of state.seen) out += this.box(p.S.x + c[0] * g.cw, p.S.y + r[0] * g.ch, "S", r[1], c[1], "seen");
      const e = state.event;
      if (e && e.i >= 0 && e.j >= 0) out += this.box(p.S.x + e.c[0] * g.cw, p.S.y + e.r[0] * g.ch, "S", e.r[1], e.c[1], "here");
    }
    for (const name in run.slow) {
      const [rows, cols] = run.slow[name], data = state.slow[name], e = state.event;
      const wrote = e && e.s === "store" && e.a === name ? state.slots[e.t] : null;
      out += this.matrix(p[name].x, p[name].y, name, rows, cols, (r, c) => data[r * cols + c],
        wrote && ((r, c) => r >= e.at[0] && r < e.at[0] + wrote.rows && c >= e.at[1] && c < e.at[1] + wrote.cols));
    }
    for (const s of state.slots) { // what has a copy in fast memory
      if (!s || !s.home || (kind(s.name) !== kind(s.home.name))) continue;
      const h = this.home(s.home), moving = state.event.a && state.slots[state.event.t] === s;
      out += `<g class="${moving ? "now" : ""}">` + this.box(h.x, h.y, s.home.name, s.rows, s.cols, "frame " + kind(s.home.name)) + "</g>";
    }
    return out;
  }

  fastPicture(state) {
    const {run, g} = this, top = g.slowHeight + g.bus, {places} = g.slots[state.phase];
    let out = `<rect class="zone-fast" y="${top}" width="${g.width}" height="${g.fastTotal}" rx="10"/>` +
      `<text x="${g.pad}" y="${top + 20}" class="zone-name">fast memory</text>`;
    run.phases[state.phase].forEach((p, t) => {
      const s = state.slots[t], x = places[t].x, y = top + places[t].y, name = s ? s.name : p.first;
      out += `<text class="name" x="${x}" y="${y - 6}">${shown(name)}</text>`;
      if (s) {
        out += `<g data-slot="${t}">` + this.matrix(x, y, name, s.rows, s.cols, (r, c) => s.data[r * s.cols + c],
          s.fresh && ((r, c) => s.fresh[r * s.cols + c])) + "</g>";
      } else {
        out += this.matrix(x, y, name, p.rows, p.cols, () => undefined);
      }
    });
    return out;
  }

  busPicture(state) {
    const g = this.g, y = g.slowHeight + g.bus / 2 + 5;
    return `<text class="bus read-text" x="${g.pad}" y="${y}">\u2193 read ${state.read} B</text>` +
      `<text class="bus write-text" x="${g.width - g.pad}" y="${y}" text-anchor="end">\u2191 written ${state.written} B</text>`;
  }

  describe(state) {
    const held = state.slots.filter(Boolean).map(s => shown(s.name)).join(", ");
    return `${nameOf(this.run)}. Slow memory above, fast memory below. Fast memory holds ${held || "nothing"}. ` +
      `${state.read} bytes read, ${state.written} written.`;
  }

  draw(k, flight, waits) {
    const {run, g} = this, state = run.states[k], height = g.slowHeight + g.bus + g.fastTotal;
    const moved = k !== this.at;
    this.land();
    this.at = k;
    this.svg.setAttribute("viewBox", `0 0 ${g.width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.setAttribute("aria-label", this.describe(state));
    this.svg.innerHTML = `<g class="slow">${this.slowPicture(state)}</g><g class="fast">${this.fastPicture(state)}</g>` + this.busPicture(state) + '<g class="air"></g>';
    if (!moved) this.svg.querySelectorAll(".lit").forEach(x => x.classList.remove("lit"));
    const e = state.event, done = k === run.events.length;
    const caption = this.root.querySelector(".caption"), words = sentence(run, state);
    const how = e && !e.a ? `<span class="how">${escape(formulaText(e.f))}</span>` : e ? `<span class="how">${e.b} bytes ${e.s === "load" ? "read" : "written"}</span>` : "";
    const html = escape(words) + how;
    if (caption.innerHTML !== html) caption.innerHTML = html;
    const chip = this.root.querySelector(".chip");
    this.root.classList.toggle("waiting", waits);
    chip.textContent = done ? `done after ${state.read + state.written} bytes` : k ? `${waits ? "waits at " : ""}step ${k} of ${run.events.length}` : aboutOf(run);
    chip.classList.toggle("done", done);
    if (flight && moved && e && e.a) this.fly(state, flight);
  }

  // The tile travels; its picture at the goal appears when it arrives.
  fly(state, duration) {
    const {g} = this, e = state.event, s = state.slots[e.t], home = this.home({name: e.a, at: e.at});
    const place = g.slots[state.phase].places[e.t], slot = {x: place.x, y: g.slowHeight + g.bus + place.y};
    const [from, to] = e.s === "load" ? [home, slot] : [slot, home];
    const air = this.svg.querySelector(".air"), goal = e.s === "load" ? this.svg.querySelector(`[data-slot="${e.t}"]`) : null;
    air.innerHTML = this.matrix(to.x, to.y, e.a, s.rows, s.cols, (r, c) => s.data[r * s.cols + c]) +
      this.box(to.x, to.y, e.a, s.rows, s.cols, "frame " + kind(e.a));
    if (goal) goal.style.opacity = 0;
    this.motion = air.animate([{transform: `translate(${from.x - to.x}px, ${from.y - to.y}px)`}, {transform: "none"}],
      {duration, easing: "cubic-bezier(.45, .05, .25, 1)"});
    this.motion.onfinish = () => { if (goal) goal.style.opacity = ""; air.innerHTML = ""; };
  }

  land() {
    if (this.motion) this.motion.cancel();
    this.motion = null;
  }
}
