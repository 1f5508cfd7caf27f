"use strict";
// One side of the page of `attn trace --html`: slow memory above, fast memory below.

class Side {
  constructor(root) {
    this.root = root;
    root.innerHTML = '<header><h2></h2><span class="chip"></span></header>' +
      '<p class="caption" aria-live="polite"></p><svg role="img"></svg>';
    this.svg = root.querySelector("svg");
  }

  show(run) {
    this.run = run;
    this.root.querySelector("h2").textContent = nameOf(run);
    this.at = -1;
  }

  /*
   * Sizes for a width; heights that two sides should share are left to the caller. Keys are columns, queries rows:
   *
   *     wide:    K^T  V^T          narrow:    K^T
   *           Q   A    P   O               Q   A   m l
   *                                            P   O
   *                                           V^T
   *
   * Where P is not stored, the statistics of the rows stand in its place.
   */
  measure(width) {
    const {run} = this, label = 21;
    const wide = width >= 500 && (width - 90) / (run.dim * 2 + run.keys * 2) >= 24;
    const [pad, gap, lead] = wide ? [14, 14, 20] : [8, 12, 18];
    const right = Math.max(run.dim, wide ? 0 : 2), columns = run.dim + run.keys * (wide ? 2 : 1) + right;
    const room = width - 2 * pad - lead - gap * (wide ? 3 : 2);
    const cw = Math.max(8, Math.min(44, Math.floor(room / columns)));
    const ch = Math.max(12, Math.min(25, Math.round(cw * .8)));
    const fit = text => Math.min(13, (cw - 3) / textWidth(text)), digits = fit("−0.00") < 7.4 ? 1 : 2;
    const long = fit(digits === 2 ? "−0.00" : "−0.0");
    const short = Math.max(long, Math.min(fit("8e18"), fit("00.0"), fit("NaN") / 1.12)); // NaN is bold
    const g = {width, pad, gap, cw, ch, wide, digits, numbers: long >= 6.5, places: {}, names: {}};
    g.font = text => text.length > digits + 2 ? long : short;
    const used = cw * columns + gap * (wide ? 3 : 2) + lead;
    const x0 = Math.max(pad, (width - used) / 2) + lead, xa = x0 + cw * run.dim + gap, xp = xa + cw * run.keys + gap;
    const put = (name, x, y, word) => { g.places[name] = {x, y}; g.names[name] = word || shown(name); };
    const tall = ch * run.rows, statistics = ["m", "l", "LSE"].filter(name => run.slow[name]), noA = !run.slow.S;
    let y = 42;
    put("K", xa, y);
    const under = y + ch * run.dim + label;
    put("Q", x0, under);
    put("S", xa, under, noA ? "A and P, never stored" : "A = Q Kᵀ");
    if (wide) {
      const xo = xp + cw * run.keys + gap;
      put("V", xp, y);
      if (!noA) put("P", xp, under, "P = softmax(A)");
      put("O", xo, under);
      statistics.forEach((name, n) => put(name, xo - gap - (cw + 8) * (statistics.length - n) + 8, under));
      y = under + tall + 14;
    } else {
      statistics.forEach((name, n) => put(name, xp + n * cw, under));
      y = under + tall + label;
      put("O", xp, y);
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
      const full = x + wide > g.width - g.pad + 1;
      if (x > g.pad && (full || (isVector && !vectors))) x = g.pad, y += tall * g.ch + 22, tall = 0;
      vectors = isVector;
      places[p.t] = {x, y};
      x += wide + (isVector ? Math.min(between, 22) : between), tall = Math.max(tall, h);
    }
    return {places, height: y + tall * g.ch + 14};
  }

  cell(x, y, name, number, look) {
    const {g, run} = this, place = `x="${x}" y="${y}" width="${g.cw}" height="${g.ch}" rx="3"`;
    if (number === undefined) return `<g class="cell empty"><rect ${place}/></g>`;
    let share = 20; // percent of the hue
    if (Number.isFinite(number)) {
      if (name === "S" && run.high > run.low) share = 8 + 36 * (number - run.low) / (run.high - run.low);
      if (name === "P") share = 6 + 44 * Math.min(1, number);
    }
    const bad = Number.isNaN(number) || number === Infinity, words = pretty(number, g.digits);
    const text = `<text x="${x + g.cw / 2}" y="${y + g.ch / 2}" dy=".35em" text-anchor="middle" ` +
      `font-size="${g.font(words).toFixed(1)}">${words}</text>`;
    return `<g class="cell ${kind(name)}${bad ? " bad" : ""}" style="--ink-share:${share.toFixed(0)}%">` +
      `<title>${number}</title><rect class="${look || ""}" ${place}/>${g.numbers ? text : ""}</g>`;
  }

  // A matrix or tile with its first number at (x, y).
  matrix(x, y, name, rows, cols, at, fresh) {
    const g = this.g, turn = turned(name);
    let out = "";
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < cols; c++)
        out += this.cell(x + (turn ? r : c) * g.cw, y + (turn ? c : r) * g.ch, name, at(r, c),
          fresh && fresh(r, c) ? "lit" : "");
    return out;
  }

  box(x, y, name, rows, cols, look) {
    const g = this.g, [h, w] = turned(name) ? [cols, rows] : [rows, cols];
    const round = look === "seen" ? 0 : 4; // what was seen joins without gaps
    return `<rect class="${look}" x="${x}" y="${y}" width="${w * g.cw}" height="${h * g.ch}" rx="${round}"/>`;
  }

  // Where a tile lies in slow memory.
  home(home) {
    const g = this.g, place = g.places[home.name], [down, right] = turned(home.name) ? [...home.at].reverse() : home.at;
    return {x: place.x + right * g.cw, y: place.y + down * g.ch};
  }

  text(x, y, look, words, anchor) {
    return `<text x="${x}" y="${y}" class="${look}" text-anchor="${anchor || "start"}">${words}</text>`;
  }

  // Names of the matrices, numbers of rows and columns.
  labels() {
    const {run, g} = this, p = g.places, down = g.ch * run.dim / 2 + 5;
    let out = this.text(g.pad, 20, "zone-name", "slow memory");
    for (const name in p) {
      const {x, y} = p[name], word = g.names[name];
      if (name === "V" && g.wide) out += this.text(x + run.keys * g.cw + 6, y + down, "name", word);
      else if (turned(name)) out += this.text(x - 6, y + down, "name", word, "end");
      else if (kind(name) === "s") out += this.text(x + g.cw / 2, y - 6, "name", word, "middle");
      else out += this.text(x, y - 6, "name", word);
    }
    if (g.cw < 20) return out;
    for (let k = 0; k < run.keys; k++)
      for (const name of ["K", "V"])
        out += this.text(p[name].x + (k + .5) * g.cw, p[name].y - 6, "index", name.toLowerCase() + k, "middle");
    for (let q = 0; q < run.rows; q++)
      out += this.text(p.Q.x - 6, p.Q.y + (q + .5) * g.ch + 4, "index", "q" + q, "end");
    return out;
  }

  // Where A would be: the tiles seen so far, and the one at hand.
  ghost(state) {
    const {run, g} = this, {x, y} = g.places.S, e = state.event;
    const tile = (rows, keys, look) => this.box(x + keys[0] * g.cw, y + rows[0] * g.ch, "S", rows[1], keys[1], look);
    let out = this.box(x, y, "S", run.rows, run.keys, "ghost");
    for (const [rows, keys] of state.seen) out += tile(rows, keys, "seen");
    return e && e.i >= 0 && e.j >= 0 ? out + tile(e.r, e.c, "here") : out;
  }

  slowPicture(state) {
    const {run, g} = this, e = state.event, p = g.places;
    let out = `<rect class="zone-slow" width="${g.width}" height="${g.slowHeight}" rx="10"/>` + this.labels();
    if (!run.slow.S) out += this.ghost(state);
    for (const name in run.slow) {
      const [rows, cols] = run.slow[name], data = state.slow[name];
      const wrote = e && e.s === "store" && e.a === name ? state.slots[e.t] : null;
      const within = (x, first, count) => x >= first && x < first + count;
      out += this.matrix(p[name].x, p[name].y, name, rows, cols, (r, c) => data[r * cols + c],
        wrote && ((r, c) => within(r, e.at[0], wrote.rows) && within(c, e.at[1], wrote.cols)));
    }
    for (const s of state.slots) { // what has a copy in fast memory
      if (!s || !s.home || kind(s.name) !== kind(s.home.name)) continue;
      const {x, y} = this.home(s.home), moving = e.a && state.slots[e.t] === s;
      out += `<g class="${moving ? "now" : ""}">` +
        this.box(x, y, s.home.name, s.rows, s.cols, "frame " + kind(s.home.name)) + "</g>";
    }
    return out;
  }

  fastPicture(state) {
    const {run, g} = this, top = g.slowHeight + g.bus, {places} = g.slots[state.phase];
    let out = `<rect class="zone-fast" y="${top}" width="${g.width}" height="${g.fastTotal}" rx="10"/>` +
      this.text(g.pad, top + 20, "zone-name", "fast memory");
    run.phases[state.phase].forEach((p, t) => {
      const s = state.slots[t], x = places[t].x, y = top + places[t].y, name = s ? s.name : p.first;
      out += this.text(x, y - 6, "name", shown(name));
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
    return this.text(g.pad, y, "bus read-text", `↓ read ${state.read} B`) +
      this.text(g.width - g.pad, y, "bus write-text", `↑ written ${state.written} B`, "end");
  }

  describe(state) {
    const held = state.slots.filter(Boolean).map(s => shown(s.name)).join(", ");
    return `${nameOf(this.run)}. Slow memory above, fast memory below. Fast memory holds ${held || "nothing"}. ` +
      `${state.read} bytes read, ${state.written} written.`;
  }

  // The state after k steps. flight: how long its tile travels, in milliseconds; waits: for the other side.
  draw(k, flight, waits) {
    const {run, g} = this, state = run.states[k], e = state.event, moved = k !== this.at;
    const height = g.slowHeight + g.bus + g.fastTotal;
    this.land();
    this.at = k;
    this.svg.setAttribute("viewBox", `0 0 ${g.width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.setAttribute("aria-label", this.describe(state));
    this.svg.innerHTML = `<g class="slow">${this.slowPicture(state)}</g><g class="fast">${this.fastPicture(state)}</g>` +
      this.busPicture(state) + '<g class="air"></g>';
    if (!moved) this.svg.querySelectorAll(".lit").forEach(x => x.classList.remove("lit"));
    this.tell(k, waits);
    if (flight && moved && e && e.a) this.fly(state, flight);
  }

  // The same in words.
  tell(k, waits) {
    const {run} = this, state = run.states[k], e = state.event, done = k === run.events.length;
    const how = !e ? "" : e.a ? `${e.b} bytes ${e.s === "load" ? "read" : "written"}` : formulaText(e.f);
    const caption = this.root.querySelector(".caption"), chip = this.root.querySelector(".chip");
    const html = escape(sentence(run, state)) + (how && `<span class="how">${escape(how)}</span>`);
    if (caption.innerHTML !== html) caption.innerHTML = html;
    this.root.classList.toggle("waiting", waits);
    chip.classList.toggle("done", done);
    if (done) chip.textContent = `done after ${state.read + state.written} bytes`;
    else if (k === 0) chip.textContent = aboutOf(run);
    else chip.textContent = `${waits ? "waits at " : ""}step ${k} of ${run.events.length}`;
  }

  // The tile travels; its picture at the goal appears when it arrives.
  fly(state, duration) {
    const {g} = this, e = state.event, s = state.slots[e.t], home = this.home({name: e.a, at: e.at});
    const place = g.slots[state.phase].places[e.t], slot = {x: place.x, y: g.slowHeight + g.bus + place.y};
    const [from, to] = e.s === "load" ? [home, slot] : [slot, home];
    const air = this.svg.querySelector(".air");
    const goal = e.s === "load" ? this.svg.querySelector(`[data-slot="${e.t}"]`) : null;
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
