"use strict";
// Words of the page of `attn trace --html`: numbers, names, what the chapters and the steps say.

// ---------------------------------------------------------------- numbers, as the terminal shows them

const value = x => x === "inf" ? Infinity : x === "-inf" ? -Infinity : x === "nan" ? NaN : x;

// To the nearest; ties to even, as printf does. x is a float32, so x * 100 is exact.
function fixed(x, digits) {
  const scaled = x * 10 ** digits, low = Math.floor(scaled), rest = scaled - low;
  const whole = rest > .5 || (rest === .5 && low % 2 !== 0) ? low + 1 : low;
  return (whole / 10 ** digits).toFixed(digits);
}

function format(x) {
  if (Number.isNaN(x)) return "nan";
  const size = Math.abs(x), sign = x < 0 ? "-" : "";
  if (size === Infinity) return sign + "inf";
  if (size < .005) return "0.00";
  if (size < 9999.5) return sign + fixed(size, size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
  return sign + size.toExponential(0).replace("+", "");
}

// In the picture a whole number has no decimals, and in narrow cells the others have one.
function brief(x, digits) {
  const size = Math.abs(x);
  if (Number.isInteger(x) && size < 9999.5) return String(x + 0);
  if (digits === 2 || !(size < 9.995)) return format(x);
  const text = fixed(size, digits);
  return x < 0 && /[1-9]/.test(text) ? "-" + text : text;
}
const pretty = (x, digits) => brief(x, digits).replace("-", "−").replace("inf", "∞").replace("nan", "NaN");
const span = (first, count) => count === 1 ? `${first}` : `${first}–${first + count - 1}`;
const prose = text => text.replace(/\*(.+?)\*/g, "<var>$1</var>");
const escape = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

// ---------------------------------------------------------------- what the chapters say

const CHAPTERS = [
  {
    title: "Without the maximum", left: "standard_simple", right: "simple",
    lesson: "Softmax divides exp(*A*) by its row sums, and a sum can be taken piece by piece. So keep a running " +
      "denominator *l* and a running *O*, add each tile’s share and divide at the end: nothing needs the whole of *A*. " +
      "The standard way stores *A* and *P* and reads both back.",
    formula: ["l <i>←</i> l + rowsum exp(A<sub>tile</sub>)", "O <i>←</i> O + exp(A<sub>tile</sub>) V<sub>tile</sub>",
      "<i>at the end</i> O / l"],
  },
  {
    title: "With the maximum", left: "standard", right: "flash2",
    lesson: "A large score overflows exp, so each row’s maximum *m* is subtracted first. A tile cannot know the scores " +
      "still to come: when a larger one appears, *l* and *O* are multiplied by exp(*m* − *m′*), and go on as if *m′* had " +
      "been known all along. This is FlashAttention-2.",
    formula: ["m′ = max(m, rowmax A<sub>tile</sub>) &emsp; a = exp(m − m′)",
      "l <i>←</i> a l + rowsum exp(A<sub>tile</sub> − m′)",
      "O <i>←</i> a O + exp(A<sub>tile</sub> − m′) V<sub>tile</sub>"],
  },
  {
    title: "Why the maximum", left: "large_simple", right: "large_flash2",
    lesson: "The toy again, with *Q* forty times as large: scores reach 120. A float32 ends at 3.4\u00a0×\u00a010³⁸, and " +
      "exp(120) is 1.3\u00a0×\u00a010⁵². Without the maximum two rows end as NaN. With it no exponent is above 0, and the same " +
      "scores give the right answer.",
    formula: ["exp(120) = ∞ <i>in float32</i>", "∞ / ∞ = NaN", "exp(120 − 120) = 1"],
  },
  {
    title: "FlashAttention 1 and 2", left: "flash1", right: "flash2",
    lesson: "Neither stores *A*. The first FlashAttention keeps a tile of keys and lets the queries pass by, so each query’s " +
      "*O*, *m* and *l* travel to slow memory and back for every tile of keys. FlashAttention-2 turns the loops around: " +
      "queries stay, and *O* is divided and written once.",
    formula: ["1 &ensp; <i>for each tile of keys: for all queries</i>",
      "2 &ensp; <i>for each tile of queries: for all keys</i>"],
  },
];

const NAMES = {
  standard: ["Standard attention", "the whole of A and P"],
  simple: ["Tiles, no maximum", "sums only"],
  flash1: ["FlashAttention 1", "keys outside, queries inside"],
  flash2: ["FlashAttention-2", "queries outside, keys inside"],
};
const nameOf = run => NAMES[run.algorithm][0];
const aboutOf = run =>
  run.algorithm === "standard" && !run.maximum ? "all of A and P, no maximum" : NAMES[run.algorithm][1];

const pen = document.createElement("canvas").getContext("2d");
function textWidth(text) { // in ems
  pen.font = "100px " + getComputedStyle(document.body).fontFamily;
  return pen.measureText(text).width / 100;
}

const KIND = {Q: "q", K: "k", V: "v", S: "a", P: "a", O: "o", "P V": "o"};
const kind = name => KIND[name] || "s";
const SHOWN = {K: "Kᵀ", V: "Vᵀ", S: "A", "m'": "m′", "m~": "m\u0303", "l~": "l\u0303", "P V": "P V"};
const shown = name => SHOWN[name] || name;
const turned = name => name === "K" || name === "V"; // drawn transposed, so that keys are columns everywhere
const formulaText = text => text.replace(/\bS\b/g, "A").replace(/scale /, "")
  .replace(/\^T/g, "ᵀ").replace(/'/g, "′").replace(/~/g, "\u0303").replace(/-/g, "−");

// One plain sentence for each step: of a move, and of what is computed.
function sentence(run, state) {
  const e = state.event;
  if (!e) return "All of Q, K and V lie in slow memory. Fast memory is empty.";
  const any = (name, test) => {
    const tile = state.slots.find(s => s && s.name === name);
    return tile !== undefined && tile.data.some(test);
  };
  const words = {load: loadWords, store: storeWords}[e.s] || COMPUTED[e.s];
  const tiled = run.algorithm !== "standard", first = run.algorithm === "flash1";
  return words ? words({run, state, e, any, tiled, first}) : e.f;
}

function loadWords({state, e}) {
  const tile = state.slots[e.t], where = span(e.at[0], tile.rows);
  return {
    Q: `Read queries ${where}.`, K: `Read keys ${where}.`, V: `Read values ${where}.`,
    S: `Read A back, rows ${where}: softmax needs whole rows.`,
    P: `Read P back, a tile of it: keys ${span(e.at[1], tile.cols)}.`,
    O: `Read O of queries ${where} back, as the keys before left it.`,
    m: "And their maximum m,", l: "and their denominator l.",
  }[e.a] || `Read ${shown(e.a)}.`;
}

function storeWords({state, e, any, first}) {
  const queries = "queries " + span(e.at[0], state.slots[e.t].rows);
  const end = any("O", Number.isNaN) ? "lost" : "done";
  const partial = e.j < 0 ? "it begins at 0" : "right for the keys so far";
  return {
    S: "Write the tile of A to slow memory. Its place is needed for the next one.",
    P: "Write P to slow memory: as large as A, and read again soon.",
    O: first ? `Write O of ${queries} back: ${partial}.` : `Write O of ${queries}: these rows are ${end}.`,
    m: "And their maximum m,", l: "and their denominator l.",
    LSE: "Write m + log l, one number a row: the backward pass rebuilds P from it.",
  }[e.a] || `Write ${shown(e.a)}.`;
}

const moves = x => x !== 1; // of a factor a = exp(m - m')
const COMPUTED = {
  clear: () => "Nothing seen yet: the sums begin at 0.",
  scores({tiled}) {
    return tiled ? "Multiply Q and Kᵀ: one tile of A. It exists only here, in fast memory." : "Multiply Q and Kᵀ: one tile of A.";
  },
  maximum({state, e, tiled}) {
    if (!tiled) return "The largest score of each whole row.";
    if (e.j === 0) return "The largest score of each row, so far.";
    return grew(state) ? "A larger score has come: a row’s maximum grows." : "The largest score so far is still the old one.";
  },
  probabilities({run, any}) {
    if (run.maximum) return "exp of (score − maximum): never above 1.";
    return any("P", x => x === Infinity) ? "exp of a score above 88.7 is more than float32 can hold: ∞."
      : "exp of each score, with nothing subtracted.";
  },
  sum({run, e, any, tiled, first}) {
    if (first) return "Sum this tile’s rows. The factors a and b take old and new to a common maximum.";
    if (!tiled) return "The denominator: the sum of the whole row.";
    if (any("l", x => x === Infinity)) return "The denominator is ∞ from now on.";
    return run.maximum && e.j > 0 && any("a", moves)
      ? "The running denominator is taken to the new maximum, then grows by this tile’s row sums."
      : "The running denominator grows by this tile’s row sums.";
  },
  rescale({e, any, first}) {
    if (first) return "Undo O’s division and take it to the common maximum.";
    if (e.j === 0) return "O is still 0: nothing to rescale.";
    return any("a", moves) ? "What O holds is taken to the new maximum as well."
      : "No maximum grew: a is 1 and O stays as it is.";
  },
  accumulate({any, tiled}) {
    if (any("O", Number.isNaN)) return "0 × ∞ and ∞ − ∞ are NaN: this row is lost.";
    return tiled ? "Add P V: weighted values, not divided yet." : "Add P V.";
  },
  finish({any, tiled, first}) {
    if (any("O", Number.isNaN)) return "∞ / ∞ is NaN: the row is lost.";
    if (first) return "Divide by the new l: O is right for the keys seen so far.";
    return tiled ? "All keys have passed. Divide by l, once." : "Divide by the row sums: P.";
  },
};

function grew(state) {
  const find = name => state.slots.find(s => s && s.name === name), old = find("m"), now = find("m'");
  return old && now && old.data.some((x, i) => x !== now.data[i]);
}
