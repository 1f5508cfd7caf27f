#!/usr/bin/env python3
"""The page of `attn trace --html` in a real browser: python3 page_test.py path/to/attn [FOLDER [NAME]...]

Plays, steps and scrubs by keyboard and by mouse, and compares the numbers with the terminal's. Skipped (exit status 77)
where there is no Chromium; the environment's CHROMIUM names one. Screenshots go to FOLDER, if given, to be looked at.
Ends with "N passed, N failed".
"""

import pathlib
import random
import re
import struct
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import browser  # noqa: E402
import cli  # noqa: E402
import trace_test  # noqa: E402

PAGE = None   # the browser
PATH = ""     # the page's file
TEXT = ""     # what the terminal showed in the same run
RUNS = {}     # the page's JSON
TOO_LONG = 20  # seconds, for waiting only
CHAPTERS = (("standard_simple", "simple"), ("standard", "flash2"), ("large_simple", "large_flash2"),
            ("flash1", "flash2"))

# ---------------------------------------------------------------- asking the page


def opened(fragment="", width=1280, height=900, phone=False, **media):
    media = {"prefers_color_scheme": "light", "prefers_reduced_motion": "no-preference", **media}
    PAGE.size(width, height, phone)
    PAGE.media(**media)
    PAGE.open(PATH, fragment)
    PAGE.evaluate("localStorage.clear()")


def tick():
    return int(PAGE.evaluate("document.getElementById('scrub').value"))


def last():
    return int(PAGE.evaluate("document.getElementById('scrub').max"))


def playing():
    return PAGE.evaluate("document.getElementById('play').textContent.trim()") == "Pause"


def chapter():
    return PAGE.evaluate("[...document.querySelectorAll('#chapters button')]"
                         ".findIndex(b => b.ariaCurrent === 'true') + 1")


def theme():
    return PAGE.evaluate("document.documentElement.dataset.theme")


def click(selector):
    x, y = PAGE.evaluate(f"""(e => {{
        e.scrollIntoView({{block: "center"}});
        const r = e.getBoundingClientRect();
        return [r.x + r.width / 2, r.y + r.height / 2];
    }})(document.querySelector({selector!r}))""")
    PAGE.click(x, y)


def settle():
    """Two frames, so that what was asked for is drawn."""
    PAGE.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until(test):
    end = time.monotonic() + TOO_LONG
    while not test():
        assert time.monotonic() < end, "never true"
        time.sleep(0.02)


# ---------------------------------------------------------------- keyboard


def test_steps_by_keyboard():
    opened()
    assert (tick(), chapter()) == (0, 1)
    PAGE.press("Right")
    PAGE.press("Right")
    assert tick() == 2
    PAGE.press("Left")
    assert tick() == 1
    PAGE.press("End")
    assert tick() == last() > 40
    PAGE.press("Right")
    assert tick() == last()
    PAGE.press("Home")
    PAGE.press("Left")
    assert tick() == 0
    PAGE.press("PageDown")
    here = tick()
    PAGE.press("PageDown")
    assert tick() > here > 0
    PAGE.press("PageUp")
    assert tick() == here


def test_plays_by_keyboard():
    opened("#1.0")
    for _ in range(3):
        PAGE.press("+")
    PAGE.press("Space")
    assert playing()
    until(lambda: tick() >= 3)
    PAGE.press("Space")
    assert not playing()
    here = tick()
    time.sleep(0.7)
    assert tick() == here
    PAGE.press("End")
    PAGE.press("Left")
    PAGE.press("Space")
    until(lambda: tick() == last() and not playing())


def test_scrubs_by_keyboard():
    """With nothing but Tab and arrows; the focus can be seen on the way."""
    opened("#2.10")
    for _ in range(30):
        PAGE.press("Tab")
        outline, name = PAGE.evaluate("""(e => {
            const style = getComputedStyle(e);
            return [style.outlineStyle + style.outlineWidth, e.id];
        })(document.activeElement)""")
        assert outline == "solid3px", (name, outline)
        if name == "scrub":
            break
    assert name == "scrub"
    PAGE.press("Right")
    assert tick() == 11
    assert PAGE.evaluate("document.getElementById('scrub').getAttribute('aria-valuetext')").startswith("step 11 of")


def test_every_control_by_keyboard():
    opened("#2.10")
    reached = set()
    for _ in range(40):
        PAGE.press("Tab")
        reached.add(PAGE.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"theme", "help", "back", "play", "step", "scrub", "speed"} <= reached, reached
    PAGE.evaluate("document.getElementById('step').focus()")
    PAGE.press("Space")
    PAGE.press("Enter")
    assert tick() == 12 and not playing()


def test_chapters_and_help_by_keyboard():
    opened()
    for n in (3, 4, 2):
        PAGE.press(str(n))
        assert chapter() == n and tick() == 0
    PAGE.press("?")
    assert PAGE.evaluate("document.getElementById('dialog').open")
    PAGE.press("3")
    assert chapter() == 2
    PAGE.press("Escape")
    assert not PAGE.evaluate("document.getElementById('dialog').open")


# ---------------------------------------------------------------- mouse


def test_mouse():
    opened("#2.0")
    click("#step")
    click("#step")
    click("#back")
    assert tick() == 1
    x, y, width = PAGE.evaluate("(r => [r.x, r.y + r.height / 2, r.width])"
                                "(document.getElementById('scrub').getBoundingClientRect())")
    PAGE.click(x + width / 2, y)
    assert abs(tick() - last() / 2) <= 2, tick()
    click("#play")
    assert playing()
    click("#play")
    assert not playing()
    click("#chapters button:nth-child(3)")
    assert chapter() == 3
    click("#numbers summary")
    click("#table tbody tr:nth-child(5) button")
    assert PAGE.evaluate("document.querySelector('#table tr.current').textContent").startswith("A[0,2]")


# ---------------------------------------------------------------- numbers


def test_table_is_the_terminals():
    opened()
    for number, name in ((1, "simple"), (2, "flash2"), (3, "large_flash2")):
        PAGE.press(str(number))
        rows = PAGE.evaluate("[...document.querySelectorAll('#table tbody tr')]"
                             ".map(r => [...r.cells].map(c => c.textContent))")
        found = []
        for title, query, *cells in rows:
            if title:
                found.append((title, {}))
            found[-1][1][int(query[1:])] = [c for c in cells if c]
        part = trace_test.tiles(trace_test.part(TEXT, number + 1))
        if name == "large_flash2":  # the terminal shows its last rows
            found, part = found[4:], part[4:]
        assert found == part and len(found) in (8, 4), (name, found, part)


def test_format():
    """The page's text of a number is the terminal's, ties to even included."""
    rng = random.Random()
    values = [0.125, 0.375, 2.625, -0.625, 12.25, 12.75, 0.005, 0.00499, 9.995, 99.95, 9999.5, -6.1e34, 1e-30, 10.0,
              120.0, -0.0]
    values += [rng.uniform(-1, 1) * 10 ** rng.uniform(-3, 6) for _ in range(2000)]
    values = [struct.unpack("<f", struct.pack("<f", x))[0] for x in values]
    opened()
    got = PAGE.evaluate(f"{values}.map(format)")
    wrong = [(x, a, trace_test.shown(x)) for x, a in zip(values, got) if a != trace_test.shown(x)]
    assert not wrong, wrong[:5]


def pictures():
    """What each side draws: {place in fast memory: numbers}, numbers of slow memory, steps taken (None: all)."""
    sides = PAGE.evaluate("""["left", "right"].map(side => {
        const root = document.getElementById(side), all = (from, what) => [...from.querySelectorAll(what)];
        const full = cell => cell.querySelector("title").textContent;
        return [all(root, "[data-slot]").map(s => [s.dataset.slot, all(s, ".cell").map(full)]),
                all(root, ".slow .cell:not(.empty)").map(full), root.querySelector(".chip").textContent];
    })""")
    found = []
    for slots, slow, chip in sides:
        step = re.search(r"step (\d+) of", chip)
        k = int(step.group(1)) if step else None if chip.startswith("done") else 0
        held = {int(t): [str(float(x) + 0.0) for x in cells] for t, cells in slots}
        found.append((held, [str(float(x)) for x in slow], k))
    return found


def scrub(at):
    PAGE.evaluate(f"(s => {{ s.value = {at}; s.dispatchEvent(new Event('input')); }})"
                  "(document.getElementById('scrub'))")


def test_picture_is_the_record():
    """Fast memory as it is drawn has the numbers of the record, at every ninth step of every chapter."""
    compared = 0
    opened(prefers_reduced_motion="reduce")
    for n, names in enumerate(CHAPTERS, 1):
        PAGE.press(str(n))
        states = [list(trace_test.states(RUNS[name])) for name in names]
        for at in range(0, last() + 1, 9):
            scrub(at)
            for (slots, _, k), name, run in zip(pictures(), names, states):
                held = {} if k == 0 else run[-1 if k is None else k - 1][2]
                want = {t: [str(x + 0.0) for x in data] for t, (what, _, _, data) in held.items()
                        if what != "m" or RUNS[name]["maximum"]}
                assert slots == want, (name, at, k)
                compared += len(slots)
    assert compared > 200


def test_final_picture():
    opened()
    for n, name in ((1, "simple"), (2, "flash2"), (4, "flash2")):
        PAGE.press(str(n))
        PAGE.press("End")
        _, slow, step = pictures()[1]
        assert step is None
        for x in RUNS[name]["O"]:
            assert str(float(x)) in slow, (name, x)
        done = PAGE.evaluate("[...document.querySelectorAll('.chip')].map(c => c.textContent)")
        for chip, run in zip(done, ("standard_simple" if n == 1 else "standard" if n == 2 else "flash1", name)):
            assert chip == f"done after {RUNS[run]['read'] + RUNS[run]['written']} bytes", chip


# ---------------------------------------------------------------- looks


def test_themes():
    opened(prefers_color_scheme="dark")
    assert theme() == "dark"
    opened()
    assert theme() == "light"
    paper = "getComputedStyle(document.body).backgroundColor"
    light = PAGE.evaluate(paper)
    PAGE.press("t")
    assert theme() == "dark" and PAGE.evaluate(paper) != light
    click("#theme")
    assert theme() == "light" and PAGE.evaluate(paper) == light


def test_motion():
    opened("#2.0")
    PAGE.evaluate("""(animate => {
        window.flights = 0;
        Element.prototype.animate = function (...a) { flights++; return animate.apply(this, a); };
    })(Element.prototype.animate)""")
    PAGE.press("Right")
    assert PAGE.evaluate("flights") == 2
    PAGE.media(prefers_reduced_motion="reduce")
    PAGE.press("Right")
    PAGE.press("Right")
    assert PAGE.evaluate("flights") == 2 and tick() == 3


def test_sizes():
    """On screens from a small phone up: nothing wider than the screen, numbers legible and inside their cells."""
    opened("#2.0")
    for width, height in ((1440, 900), (1024, 768), (768, 1024), (390, 844), (320, 568)):
        PAGE.size(width, height, width < 1000)
        for n in (1, 2, 3, 4):
            PAGE.press(str(n))
            PAGE.press("End")
            settle()
            page_width, smallest, over = PAGE.evaluate("""(() => {
                const texts = [...document.querySelectorAll("svg .cell text")].filter(t => t.getClientRects().length);
                const width = e => e.getBBox().width, cell = t => t.parentNode.querySelector("rect");
                const over = texts.filter(t => width(t) > width(cell(t)) + .5).map(t => t.textContent);
                const sizes = texts.map(t => parseFloat(t.getAttribute("font-size")));
                return [document.documentElement.scrollWidth, Math.min(...sizes), over];
            })()""")
            assert page_width <= width, (width, n, page_width)
            assert smallest >= 6.5 and over == [], (width, n, smallest, over)


def test_labels():
    opened("#2.20")
    bare = PAGE.evaluate("""[...document.querySelectorAll("button, input, select, svg[role=img]")]
        .filter(e => !e.ariaLabel && !e.textContent.trim() && !(e.labels && e.labels.length)).map(e => e.outerHTML)""")
    assert bare == [], bare
    label = PAGE.evaluate("document.querySelector('#right svg').getAttribute('aria-label')")
    assert label.startswith("FlashAttention-2."), label
    assert PAGE.evaluate("document.documentElement.lang") == "en"
    assert PAGE.evaluate("document.querySelectorAll('h1').length") == 1


def test_contrast():
    """Text on its ground: at least 4.5 to 1 (WCAG 2.1, 1.4.3), in both themes."""
    opened("#2.20")
    for scheme in ("light", "dark"):
        assert theme() == scheme
        ratios = PAGE.evaluate("""(() => {
            const style = getComputedStyle(document.documentElement);
            const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
            const light = name => {
                const hex = style.getPropertyValue(name).trim();
                const [r, g, b] = [1, 3, 5].map(i => linear(parseInt(hex.slice(i, i + 2), 16) / 255));
                return .2126 * r + .7152 * g + .0722 * b;
            };
            const pairs = [["--on-accent", "--accent"], ["--read", "--raised"], ["--write", "--raised"],
                           ["--v", "--raised"], ["--accent", "--paper"]];
            for (const ground of ["--paper", "--raised", "--slow", "--fast"])
                for (const ink of ["--ink", "--soft"]) pairs.push([ink, ground]);
            return pairs.map(pair => {
                const [a, b] = pair.map(light);
                return [pair.join(" on "), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
            });
        })()""")
        assert all(r >= 4.5 for _, r in ratios), (scheme, [x for x in ratios if x[1] < 4.5])
        PAGE.press("t")


def test_source_alone():
    """The page's source without numbers says what it is."""
    source = pathlib.Path(__file__).resolve().parent.parent.parent / "tools" / "attn" / "trace_page.html"
    PAGE.open(source)
    assert "attn trace --html" in PAGE.evaluate("document.body.textContent")


def test_quiet():
    """After all of the above: no error, no warning, nothing asked of a network."""
    assert PAGE.errors == [], PAGE.errors
    asked = {url for url in PAGE.requests if not re.match(r"file:|data:|about:", url)}
    assert not asked, asked


# ---------------------------------------------------------------- screenshots


def screenshots(folder):
    folder.mkdir(parents=True, exist_ok=True)
    dark, phone = {"prefers_color_scheme": "dark"}, {"width": 390, "height": 844, "phone": True}
    shots = {"light": ("#2.41", {}), "dark": ("#2.41", dark), "overflow": ("#3.55", dark), "flash1": ("#4.60", {}),
             "laptop": ("#1.30", {"width": 1366, "height": 768}), "phone": ("#2.41", phone),
             "phone-dark": ("#3.55", {**phone, **dark})}
    for name, (fragment, how) in shots.items():
        opened(fragment, **how)
        settle()
        PAGE.screenshot(folder / f"{name}.png")


def main():
    global PAGE, PATH, TEXT, RUNS
    if len(sys.argv) < 2:
        sys.exit("usage: page_test.py path/to/attn [FOLDER [NAME]...]")
    program = browser.find()
    if program is None:
        print("no Chromium here (Debian: apt-get install chromium) to try the page of attn trace in")
        sys.exit(77)
    cli.ATTN = str(pathlib.Path(sys.argv[1]).resolve())
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        cli.FOLDER = pathlib.Path(folder)
        TEXT, _, RUNS = trace_test.page()
        PATH = cli.FOLDER / "trace.html"
        PAGE = browser.Browser(program)
        tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
        if len(sys.argv) > 3:
            tests = [(name, test) for name, test in tests if any(word in name for word in sys.argv[3:])]
        for name, test in tests:
            began = time.monotonic()
            try:
                test()
            except Exception as error:  # noqa: BLE001, a test may fail in any way
                failed += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                print(f"{name}: {type(error).__name__}: {error} ({where.line})")
            print(f"{time.monotonic() - began:6.1f} s  {name}", file=sys.stderr)
        if len(sys.argv) == 3:
            screenshots(pathlib.Path(sys.argv[2]))
        PAGE.close()
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
