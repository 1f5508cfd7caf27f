"use strict";
// The recorded runs of the page of `attn trace --html` as states, and two of them on one clock.

// ---------------------------------------------------------------- a run as states: state 0, then one after each event

const ORDER = ["Q", "K", "S", "P", "V", "O", "P V", "m", "m~", "m'", "l", "l~", "a", "b", "LSE"];

function prepare(run) {
  for (const name of ["Q", "K", "V", "O"]) run[name] = run[name].map(value);
  const slow = {Q: [run.rows, run.dim], K: [run.keys, run.dim], V: [run.keys, run.dim], O: [run.rows, run.dim]};
  const shapes = {S: [run.rows, run.keys], P: [run.rows, run.keys]};
  for (const e of run.events) if (e.a && !slow[e.a]) slow[e.a] = shapes[e.a] || [run.rows, 1];
  run.slow = slow;
  let now = {event: null, phase: 0, slots: [], slow: {Q: run.Q, K: run.K, V: run.V}, read: 0, written: 0, seen: []};
  for (const name in slow) if (!now.slow[name]) now.slow[name] = new Array(slow[name][0] * slow[name][1]);
  run.states = [now];
  run.phases = [[]];
  run.low = Infinity, run.high = -Infinity;
  for (const e of run.events) {
    const slots = now.slots.map(s => s && {...s, fresh: null});
    let phase = now.phase;
    if (e.x.some(([t, name]) => name === "" && slots[t])) { // fast memory was given back: another part begins
      phase++;
      run.phases.push([]);
      slots.length = 0;
    }
    for (const [t, name, rows, cols, numbers] of e.x) {
      if (name === "" || (name === "m" && !run.maximum)) continue;
      const data = numbers.map(value), before = slots[t];
      const same = before && before.rows === rows && before.cols === cols && e.s !== "load";
      const fresh = data.map((x, i) => !same || !Object.is(x, before.data[i]));
      slots[t] = {name, rows, cols, data, home: before && before.home, fresh};
      if (name !== "S") continue;
      const scores = data.filter(Number.isFinite);
      run.low = Math.min(run.low, ...scores), run.high = Math.max(run.high, ...scores);
    }
    const memory = {...now.slow};
    if (e.a) {
      const s = slots[e.t] = {...slots[e.t], home: {name: e.a, at: e.at}};
      if (e.s === "load" && !s.fresh) s.fresh = s.data.map(() => true);
      if (e.s === "store") {
        const m = memory[e.a] = memory[e.a].slice(), width = slow[e.a][1];
        s.data.forEach((x, n) => m[(e.at[0] + Math.floor(n / s.cols)) * width + e.at[1] + n % s.cols] = x);
      }
    }
    let seen = now.seen;
    if (e.s === "scores") seen = [...seen, [e.r, e.c]];
    slots.forEach((s, t) => {
      if (!s) return;
      const p = run.phases[phase][t] = run.phases[phase][t] || {first: s.name, rows: 0, cols: 0};
      p.rows = Math.max(p.rows, s.rows), p.cols = Math.max(p.cols, s.cols);
    });
    now = {event: e, phase, slots, slow: memory, read: e.rd, written: e.wr, seen};
    run.states.push(now);
  }
}

// Both on one clock: who has moved more bytes waits with the next move; arithmetic takes no time.
function timeline(left, right) {
  const ticks = [[0, 0]], runs = [left, right], at = [0, 0];
  const bytes = n => runs[n].states[at[n]].read + runs[n].states[at[n]].written;
  while (at[0] < left.events.length || at[1] < right.events.length) {
    const moved = [bytes(0), bytes(1)], go = [0, 1].map(n => {
      const next = runs[n].events[at[n]], other = runs[1 - n];
      return next && (!next.a || moved[n] <= moved[1 - n] || at[1 - n] === other.events.length);
    });
    at[0] += go[0] ? 1 : 0, at[1] += go[1] ? 1 : 0;
    ticks.push([...at]);
  }
  return ticks;
}
