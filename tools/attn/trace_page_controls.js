"use strict";
// The page of `attn trace --html` itself: chapters, time, table, theme, mouse and keyboard.

// ---------------------------------------------------------------- the page

const $ = id => document.getElementById(id);
const RUNS = JSON.parse($("trace").textContent);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const sides = [new Side($("left")), new Side($("right"))];
const page = {chapter: 0, tick: 0, ticks: [], timer: 0, visible: 0};
const runs = () => [RUNS[CHAPTERS[page.chapter].left], RUNS[CHAPTERS[page.chapter].right]];
const PLAY = "M3 1.2v11.6L12.2 7z", PAUSE = "M2.5 1.5h3.2v11H2.5zM8.3 1.5h3.2v11H8.3z";
const speed = () => Number($("speed").value);

// Whether a side has stood still in this tick and will go on later.
function waiting(n) {
  const at = page.ticks[page.tick][n];
  return page.tick > 0 && at === page.ticks[page.tick - 1][n] && at < runs()[n].events.length;
}

function layout() {
  const widths = sides.map(s => s.svg.clientWidth), width = Math.max(...widths);
  if (!width) return;
  sides.forEach(s => s.g = s.measure(width));
  const fast = Math.max(...sides.map(s => s.g.fastHeight)), slow = Math.max(...sides.map(s => s.g.slowHeight));
  sides.forEach((s, n) => {
    s.g.fastTotal = fast, s.g.slowHeight = slow, s.at = -1;
    s.draw(page.ticks[page.tick][n], 0, waiting(n));
  });
  sides.forEach(s => s.svg.querySelectorAll(".lit").forEach(x => x.classList.remove("lit")));
}

function meters() {
  const now = runs().map((run, n) => run.states[page.ticks[page.tick][n]]);
  const most = Math.max(...runs().map(run => run.read + run.written));
  runs().forEach((run, n) => {
    const meter = $("meters").children[n], part = x => `${100 * x / most}%`;
    meter.querySelector(".r").style.width = part(now[n].read);
    meter.querySelector(".w").style.width = part(now[n].written);
    meter.lastChild.textContent = `${now[n].read + now[n].written} B`;
  });
}

function go(tick, flight) {
  page.tick = Math.max(0, Math.min(page.ticks.length - 1, tick));
  const at = page.ticks[page.tick];
  sides.forEach((s, n) => s.draw(at[n], flight, waiting(n)));
  meters();
  const last = page.ticks.length - 1;
  $("scrub").value = page.tick;
  $("scrub").setAttribute("aria-valuetext", `step ${page.tick} of ${last}`);
  $("where").textContent = `${page.tick} of ${last}`;
  $("back").disabled = page.tick === 0;
  $("step").disabled = page.tick === last;
  markTable();
  try {
    history.replaceState(null, "", `#${page.chapter + 1}.${page.tick}`);
  } catch (e) { /* too often, while scrubbing */ }
}

function step(by) {
  pause();
  go(page.tick + by, by === 1 && !still.matches ? 520 : 0);
}

// To the next state in which the right side has begun another tile, or the one before.
function jump(by) {
  pause();
  const run = runs()[1], key = t => {
    const e = run.states[page.ticks[t][1]].event;
    return e ? `${e.i},${e.j}` : "";
  };
  let t = page.tick;
  const here = key(t);
  do t += by; while (t > 0 && t < page.ticks.length - 1 && key(t) === here);
  if (by < 0) while (t > 0 && key(t - 1) === key(t)) t--;
  go(t, 0);
}

// Screen readers say each step's sentence, but not while steps follow one another by themselves.
function speak(how) {
  for (const s of sides) s.root.querySelector(".caption").setAttribute("aria-live", how);
}

function pause() {
  clearTimeout(page.timer);
  page.timer = 0;
  speak("polite");
  $("play").querySelector("path").setAttribute("d", PLAY);
  $("play").querySelector(".word").textContent = "Play";
}

function play() {
  if (page.timer) return pause();
  speak("off");
  if (page.tick === page.ticks.length - 1) go(0, 0);
  $("play").querySelector("path").setAttribute("d", PAUSE);
  $("play").querySelector(".word").textContent = "Pause";
  if (!sides.every(s => s.svg.clientWidth))
    sides[page.visible].root.scrollIntoView({block: "start", behavior: still.matches ? "auto" : "smooth"});
  const beat = () => {
    go(page.tick + 1, still.matches ? 0 : Math.min(620, 620 / speed()));
    if (page.tick === page.ticks.length - 1) pause(); else page.timer = setTimeout(beat, 900 / speed());
  };
  page.timer = setTimeout(beat, 60);
}

function choose(n, tick) {
  pause();
  page.chapter = n;
  const chapter = CHAPTERS[n], both = runs();
  [...$("chapters").children].forEach((b, i) => b.setAttribute("aria-current", i === n));
  const nav = $("chapters"), tab = nav.children[n];
  nav.scrollLeft = tab.offsetLeft - (nav.clientWidth - tab.clientWidth) / 2;
  $("lesson").innerHTML = prose(chapter.lesson);
  $("formula").innerHTML = chapter.formula.map(line => `<div>${line}</div>`).join("");
  const r = both[1];
  $("about").textContent = `${r.rows} queries, ${r.keys} keys, dim ${r.dim}, tiles ${r.br} × ${r.bc}` +
    (n === 2 ? ", Q × 40" : r.input === "built in" ? "" : `, ${r.input}`);
  $("about").title = r.input;
  page.ticks = timeline(...both);
  page.tick = Math.max(0, Math.min(tick || 0, page.ticks.length - 1));
  sides.forEach((s, i) => s.show(both[i]));
  $("meters").innerHTML = both.map(run => `<div class="meter"><span>${nameOf(run)}</span>` +
    '<div class="bar"><i class="r"></i><i class="w"></i></div><span></span></div>').join("");
  $("which").innerHTML = both.map(run => `<button type="button">${nameOf(run)}</button>`).join("");
  $("scrub").max = page.ticks.length - 1;
  makeTable();
  foot();
  look(page.visible);
  go(page.tick, 0);
}

// On a narrow screen one side shows at a time.
function look(n) {
  page.visible = n;
  sides.forEach((s, i) => s.root.classList.toggle("other", i !== n));
  [...$("which").children].forEach((b, i) => b.setAttribute("aria-pressed", i === n));
  layout();
}

function foot() {
  const [a, b] = runs().map(run => run.read + run.written), [x, y] = runs();
  $("foot").innerHTML = `Bytes moved here: ${a} (${nameOf(x)}) and ${b} (${nameOf(y)}); held in fast memory at most ` +
    `${x.fast} and ${y.fast}. A toy hides how much it matters: A grows with the square of the length, and at 8192 keys ` +
    "it takes 268 MB for each head. <code>attn io</code> counts any size.";
}

// ---------------------------------------------------------------- the table: the terminal's numbers

function makeTable() {
  const run = runs()[1];
  const heads = [["tile", 1], ["query", 1], ["tile of A", run.bc], ["m", 1], ["l", 1], ["O", run.dim]];
  let html = "<thead><tr>" + heads.map(([word, n]) => `<th scope="col" colspan="${n}">${word}</th>`).join("") +
    "</tr></thead><tbody>";
  const data = x => `<td${Number.isNaN(x) || x === Infinity ? ' class="bad"' : ""}>${format(x)}</td>`;
  let scores = null;
  run.states.forEach((state, k) => {
    const e = state.event, tile = name => state.slots.find(s => s && s.name === name);
    if (!e) return;
    if (e.s === "scores") scores = tile("S");
    if (e.s !== "accumulate" && e.s !== "finish") return;
    for (let r = 0; r < e.r[1]; r++) {
      const end = e.s === "finish", m = tile("m"), l = tile("l"), o = tile("O");
      const name = end ? "O / l" : `A[${e.i},${e.j}]`;
      const jump = `<button type="button" class="jump" data-state="${k}">${name}</button>`;
      html += `<tr data-state="${k}" class="${r ? "" : "first"}"><th scope="row">${r ? "" : jump}</th><th>q${e.r[0] + r}</th>`;
      for (let c = 0; c < run.bc; c++)
        html += end || c >= scores.cols ? "<td></td>" : data(scores.data[r * scores.cols + c]);
      html += (end ? "<td></td><td></td>" : (m ? data(m.data[r]) : "<td>-</td>") + data(l.data[r]));
      for (let c = 0; c < run.dim; c++) html += data(o.data[r * run.dim + c]);
      html += "</tr>";
    }
  });
  $("table").innerHTML = html + "</tbody>";
}

function markTable() {
  const at = page.ticks[page.tick][1];
  let best = -1;
  const rows = [...$("table").querySelectorAll("tbody tr")];
  for (const row of rows) if (Number(row.dataset.state) <= at) best = row.dataset.state;
  for (const row of rows) row.classList.toggle("current", row.dataset.state === best);
}

// ---------------------------------------------------------------- theme

const dark = matchMedia("(prefers-color-scheme: dark)");
let theme = null; // what the reader chose; null: the system's
try { theme = localStorage.getItem("attn-trace-theme"); } catch (e) { /* not for files, in some browsers */ }

function paint() {
  const now = theme || (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now;
  $("theme").textContent = now === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", now === "dark" ? "Light colours" : "Dark colours");
}

function flip() {
  theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("attn-trace-theme", theme); } catch (e) { /* stays for this visit */ }
  paint();
}

// ---------------------------------------------------------------- mouse and keyboard

function faster(by) {
  const s = $("speed");
  s.selectedIndex = Math.max(0, Math.min(s.length - 1, s.selectedIndex + by));
}

const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), PageDown: () => jump(1), PageUp: () => jump(-1),
  Home: () => { pause(); go(0, 0); }, End: () => { pause(); go(page.ticks.length - 1, 0); },
  " ": play, "+": () => faster(1), "=": () => faster(1), "-": () => faster(-1), t: flip, T: flip,
  "?": () => { pause(); $("dialog").showModal(); },
};
CHAPTERS.forEach((c, i) => KEYS[i + 1] = () => choose(i));

function fromAddress() {
  const [, chapter, tick] = /^#(\d+)(?:\.(\d+))?$/.exec(location.hash) || [];
  choose(chapter >= 1 && chapter <= CHAPTERS.length ? chapter - 1 : 0, Number(tick || 0));
}

function listen() {
  [...$("chapters").children].forEach((b, i) => b.addEventListener("click", () => choose(i)));
  $("which").addEventListener("click", e => {
    const i = [...$("which").children].indexOf(e.target);
    if (i >= 0) look(i);
  });
  $("more").addEventListener("click", () => {
    const open = document.querySelector(".lesson").classList.toggle("open");
    $("more").textContent = open ? "Less" : "More";
    $("more").setAttribute("aria-expanded", open);
  });
  $("play").addEventListener("click", play);
  $("step").addEventListener("click", () => step(1));
  $("back").addEventListener("click", () => step(-1));
  $("scrub").addEventListener("input", () => { pause(); go(Number($("scrub").value), 0); });
  $("theme").addEventListener("click", flip);
  $("help").addEventListener("click", () => { pause(); $("dialog").showModal(); });
  $("table").addEventListener("click", e => {
    if (!e.target.dataset.state || e.target.tagName !== "BUTTON") return;
    pause();
    go(page.ticks.findIndex(t => t[1] >= Number(e.target.dataset.state)), 0);
  });
  dark.addEventListener("change", paint);
  addEventListener("hashchange", fromAddress);
  addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || $("dialog").open) return;
    const tag = e.target.tagName;
    if (tag === "SELECT" && e.key !== "?") return;
    if (e.key === " " && (tag === "BUTTON" || tag === "SUMMARY")) return; // it presses the button
    const act = KEYS[e.key];
    if (!act) return;
    e.preventDefault();
    act();
  });
  new ResizeObserver(() => {
    if (sides.some(s => s.svg.clientWidth && s.svg.clientWidth !== s.g.width)) layout();
  }).observe(document.body);
}

if (typeof RUNS === "string") {
  document.body.innerHTML = '<p class="empty-page">This is the source of the page. <code>attn trace --html FILE</code> ' +
    "writes one with numbers in it.</p>";
} else {
  Object.values(RUNS).forEach(prepare);
  paint();
  $("chapters").innerHTML =
    CHAPTERS.map((c, i) => `<button type="button"><b>${i + 1}</b>${c.title}</button>`).join("");
  fromAddress();
  listen();
}
