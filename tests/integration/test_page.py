"""The map page in a real Chromium: what a person sees, moves, opens, decides and takes away."""

import base64
import io
import json
import os
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daemon.bench.browser import SOFTWARE_GL, chromium
from daemon.config import ExportSettings, HttpSettings, Scope
from daemon.http import application
from daemon.jobs.jobs import Exports
from daemon.jobs.records import Shelf
from daemon.metrics import Metrics
from daemon.submit import Intake
from schemas.alert import AlertState, FalseAlarm, Verdict
from schemas.nomenclature import COUVERTURE, CS_LEAVES
from tests.page_scene import COMMUNE, page_scene
from tests.served import LOOPBACK, Running, known, listening
from updater.reads import alerts_now
from updater.review import false_alarms, find_alert, reject_alert

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (Debian: chromium)"),
    pytest.mark.slow,
]

REVIEWER, READER = "token-reviewer", "token-reader"
WAIT_MS = 60_000
"""A machine with other work on it draws a view in software in tens of seconds."""
IDLE = """wait => new Promise((done, fail) => {
  setTimeout(() => fail(new Error("the map is never whole")), wait);
  const { left, right } = window.millesimed;
  Promise.all([left, right].filter(Boolean).map((map) => new Promise((idle) => {
    map.once("idle", idle);
    map.triggerRepaint(); // else one that is whole already says nothing
  }))).then(done);
})"""
CANVAS = "#map-after canvas"
GROUND = (243, 242, 238)
"""Where there is no map."""
PIXEL = "p => { const { x, y } = window.millesimed.right.project(p); return [x, y]; }"
AT_MARK = """const mark = performance.mark.bind(performance);
performance.mark = (name, more) => {
  const canvas = document.querySelector("#map-after canvas");
  if (name === "map-meaningful") window.atMark = canvas.toDataURL();
  return mark(name, more);
};"""
THEN_AND_NOW = """() => new Promise((done) => {
  const { right } = window.millesimed;
  right.once("render", () => done([window.atMark, right.getCanvas().toDataURL()]));
  right.triggerRepaint();
})"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory, small_scene):
    made = page_scene(tmp_path_factory.mktemp("page"), small_scene)
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    return tmp_path_factory.mktemp("inbox")


@pytest.fixture(scope="module")
def url(scene, inbox, tmp_path_factory):
    tokens = {
        "reviewer": known(Scope.REVIEW, token=REVIEWER),
        "reader": known(Scope.READ, token=READER),
    }
    folder = tmp_path_factory.mktemp("exports")
    jobs = Exports(ExportSettings(spare_bytes=0), Shelf(folder), [scene.store], Metrics())
    intake = Intake(None, inbox)
    settings = HttpSettings(tokens=tokens)
    app = application(Running(), [scene.store], settings, LOOPBACK, None, jobs, intake)
    jobs.start()
    with listening(app) as address:
        yield address
    jobs.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        made = play.chromium.launch(executable_path=chromium(), args=list(SOFTWARE_GL))
        yield made
        made.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    named = os.environ.get("MILLESIMED_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Tab:
    """A page, and what went wrong on it."""

    def __init__(self, browser, width, height, **more):
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, accept_downloads=True, **more
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.problems, self.hosts = [], set()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", lambda request: self.hosts.add(re.split("[/?]", request.url)[2]))

    def _heard(self, message):
        if message.type == "error" or "Content Security Policy" in message.text:
            self.problems.append(message.text)

    def drawn(self):
        """Wait until the maps are whole."""
        self.page.wait_for_function("() => window.millesimed")
        self.page.evaluate(IDLE, WAIT_MS)

    def colours(self, selector="#maps"):
        """Pixels of a part of the screen, ``(n, 3)``."""
        shot = self.page.locator(selector).screenshot()
        return np.array(Image.open(io.BytesIO(shot)).convert("RGB")).reshape(-1, 3).astype(int)


@pytest.fixture(scope="module")
def desk(browser, url, scene):
    tab = Tab(browser, 1280, 800, locale="fr-FR")
    tab.page.goto(url)
    tab.drawn()
    yield tab
    tab.context.close()


@pytest.fixture
def home(desk, url):
    """The page as it opens, whatever a test did before."""
    desk.page.goto("about:blank")
    desk.page.goto(url)
    desk.page.locator("#list button").first.wait_for()
    desk.drawn()
    desk.problems.clear()
    return desk


def choose(page, name, value):
    """A switch drawn over its input, as a person clicks it."""
    page.locator(f"#controls label:has(input[name={name}][value={value}])").click()


def share_of(pixels, colour, apart=6):
    return float((np.abs(pixels - np.array(colour)).max(axis=1) <= apart).mean())


def test_the_map_is_painted_in_the_official_colours(home, shots):
    page = home.page
    page.locator("#opacity").fill("100")
    page.locator("label:has(#show-changes)").click()
    home.drawn()
    page.screenshot(path=shots / "map-1280.png")
    pixels = home.colours()
    seen = {c: share_of(pixels, COUVERTURE[c].rgb) for c in CS_LEAVES}
    assert sum(seen.values()) > 0.3, seen
    assert sum(share > 0.002 for share in seen.values()) >= 4, seen
    choose(page, "theme", "artificialisation")
    home.drawn()
    page.screenshot(path=shots / "artificialisation.png")
    pixels = home.colours()
    assert share_of(pixels, (213, 94, 0)) > 0.02 and share_of(pixels, (214, 228, 236)) > 0.1
    assert not home.problems and len(home.hosts) == 1, (home.problems, home.hosts)


def test_the_mark_of_the_first_meaningful_paint_comes_with_every_polygon(browser, url):
    """What is on the canvas when the mark is set is, without images, the finished picture."""
    tab = Tab(browser, 900, 700, locale="fr-FR")
    held = []

    def late(route):
        if not held:
            held.append(route.request.url)
            time.sleep(0.5)  # one tile long after all others
        route.continue_()

    tab.context.route("**/image/**", lambda route: route.fulfill(status=204))
    tab.context.route("**/map/2024/**", late)
    tab.page.add_init_script(AT_MARK)
    tab.page.goto(url)
    tab.drawn()
    first, last = (
        np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))
        for address in tab.page.evaluate(THEN_AND_NOW)
    )
    bare = (np.abs(last.astype(int) - GROUND) <= 3).all(axis=2).mean()
    assert held and bare < 0.7, "the map covers a good part of its view"
    assert (np.abs(first.astype(int) - last).max(axis=2) <= 3).mean() > 0.999
    assert not tab.problems, tab.problems
    tab.context.close()


def test_the_slider_changes_the_millesime(home, shots):
    page = home.page
    choose(page, "theme", "artificialisation")
    home.drawn()
    assert page.locator("#year-shown").text_content() == "2024"
    page.locator("label:has(#show-image)").click()
    page.locator("label:has(#show-changes)").click()
    page.locator("label:has(#show-alerts)").click()
    page.locator("#opacity").fill("100")
    home.drawn()
    now = share_of(home.colours(CANVAS), (213, 94, 0))
    page.locator("#year").focus()
    page.keyboard.press("ArrowLeft")
    home.drawn()
    assert page.locator("#year-shown").text_content() == "2021"
    page.screenshot(path=shots / "millesime-2021.png")
    then = share_of(home.colours(CANVAS), (213, 94, 0))
    assert now > then + 0.002, (now, then)  # what was built since is artificialised


def test_the_swipe_shows_both_images_and_moves(home, shots):
    page = home.page
    choose(page, "theme", "none")
    for what in ("changes", "alerts"):
        page.locator(f"label:has(#show-{what})").click()
    page.locator("#swipe").click()
    home.drawn()
    assert page.locator("#label-before").text_content() == "2021"
    page.screenshot(path=shots / "swipe.png")
    divider = page.locator("#divider")
    shape = page.locator("#maps").bounding_box()
    y = shape["y"] + shape["height"] / 3

    def strip():
        """Ground just right of the middle: after, or before once the divider is beyond it."""
        clip = {
            "x": shape["x"] + shape["width"] * 0.55,
            "y": y,
            "width": shape["width"] * 0.1,
            "height": 120,
        }
        return np.array(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")).astype(
            int
        )

    after = strip()
    box = divider.bounding_box()
    page.mouse.move(box["x"] + 2, y)
    page.mouse.down()
    page.mouse.move(shape["x"] + shape["width"] * 0.8, y, steps=4)
    page.mouse.up()
    assert abs(int(divider.get_attribute("aria-valuenow")) - 80) <= 1
    before = strip()
    assert np.abs(before - after).mean() > 3  # another season, other sun
    divider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert abs(int(divider.get_attribute("aria-valuenow")) - 68) <= 1
    centre = """m => { const map = window.millesimed[m]; const { lng, lat } = map.getCenter();
    return [lng, lat, map.getZoom()]; }"""
    page.evaluate(
        "() => window.millesimed.left.zoomTo(window.millesimed.left.getZoom() + 1, {duration: 0})"
    )
    assert page.evaluate(centre, "left") == pytest.approx(page.evaluate(centre, "right"))


def test_filters_narrow_the_list_and_the_export_follows(home, scene):
    page = home.page
    records = alerts_now(scene.store)
    count = page.locator("#count")
    assert count.text_content() == f"{len(records)} alertes"
    page.locator("#territory").select_option(f"ter:{COMMUNE}")
    inside = [r for r in records if any(p.code == COMMUNE for p in r.places)]
    sync_api.expect(page.locator("#list li")).to_have_count(len(inside))
    with page.expect_download() as taken:
        page.locator("#export").click()
    found = json.loads(Path(taken.value.path()).read_text())
    assert taken.value.suggested_filename == f"alertes-{COMMUNE}.geojson"
    assert {f["id"] for f in found["features"]} == {r.id for r in inside}
    page.locator("#territory").select_option("")
    page.locator("#more summary").click()
    page.locator("#min-area").fill("500")
    large = [r for r in records if round(r.geometry.area, 1) >= 500]
    assert 0 < len(large) < len(records)
    sync_api.expect(page.locator("#list li")).to_have_count(len(large))
    page.locator("label:has(input[value=confirmed])").click()
    sync_api.expect(count).to_contain_text("Aucune")
    page.locator("#filters button[type=reset]").click()
    sync_api.expect(page.locator("#list li")).to_have_count(len(records))


def test_an_alert_opens_with_its_reasons_its_pictures_and_its_lineage(home, shots, scene):
    page = home.page
    first = page.locator("#list button").first
    alert = first.get_attribute("data-id")
    first.click()
    page.locator("#explanation").wait_for()
    record = find_alert(scene.store, alert)
    text = page.locator("#explanation").text_content()
    assert record.before.code_cs in text and record.after.code_cs in text
    assert COUVERTURE[record.after.code_cs].label in text
    assert "artificialisé" in text and "Règle du décret" in text
    chips = page.locator("img.chips")
    page.wait_for_function("() => document.querySelector('img.chips')?.naturalWidth")
    assert chips.evaluate("i => i.naturalWidth") > 900
    page.locator("details.lineage summary").first.click()
    page.locator("details.lineage table").first.wait_for()
    assert "test/1" in page.locator("details.lineage").first.text_content()
    home.drawn()
    page.screenshot(path=shots / "alert-open.png")
    assert f"alert={alert}" in page.url
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#browse")).to_be_visible()
    assert page.evaluate("document.activeElement.dataset.id") == alert
    assert not home.problems, home.problems


def test_a_polygon_of_the_map_tells_what_it_is(home):
    page = home.page
    page.locator("label:has(#show-alerts)").click()
    home.drawn()
    page.locator(CANVAS).click(position={"x": 300, "y": 200})
    page.locator("#detail table").wait_for()
    assert re.search(r"CS\d[\d.]+", page.locator("#detail").text_content())
    assert "2021" in page.locator("#detail table").text_content()


def test_who_may_reject_does_and_who_may_not_is_told_why(home, scene, shots):
    page = home.page
    row = page.locator("#list button").last
    alert = row.get_attribute("data-id")
    row.click()
    page.locator("#reason").fill("une bâche")
    page.locator("#cause").select_option("temporary")
    page.locator("#reject button").click()
    sync_api.expect(page.locator("#reject .problem")).to_contain_text("jeton")
    page.locator("#token").fill("nonsense")
    page.locator("#token-form button").click()
    sync_api.expect(page.locator("#token-form .problem")).to_contain_text("ne connaît pas ce jeton")
    page.locator("#token").fill(READER)
    page.locator("#token-form button").click()
    sync_api.expect(page.locator("#token-form")).to_contain_text("en place")
    page.locator("#reject button").click()
    sync_api.expect(page.locator("#reject .problem")).to_contain_text("review")
    assert find_alert(scene.store, alert).state is not AlertState.REJECTED
    page.locator("#token-form button").click()
    page.locator("#token").fill(REVIEWER)
    page.locator("#token-form button").click()
    sync_api.expect(page.locator("#token-form")).to_contain_text("en place")
    page.locator("#reject button").click()
    sync_api.expect(page.locator("#detail .badge").first).to_have_text("Rejetée")
    record = find_alert(scene.store, alert)
    assert record.state is AlertState.REJECTED and record.reason == "une bâche"
    assert record.review.cause is FalseAlarm.TEMPORARY and record.review.by == "reviewer"
    assert page.evaluate("localStorage.length") == 0  # the token goes with the tab
    page.screenshot(path=shots / "rejected.png")
    page.locator("#back").click()
    sync_api.expect(page.locator(f'#list button[data-id="{alert}"]')).to_have_count(0)
    page.evaluate("sessionStorage.clear()")


def test_an_alert_is_accepted_and_its_outline_drawn_anew(home, scene, inbox, shots):
    page = home.page
    row = page.locator("#list button").nth(1)
    alert = row.get_attribute("data-id")
    row.click()
    page.locator("#token").fill(REVIEWER)
    page.locator("#token-form button").click()
    page.locator("#accept button").click()
    sync_api.expect(page.locator("#detail .note").nth(1)).to_contain_text("reviewer")
    assert find_alert(scene.store, alert).review.verdict is Verdict.ACCEPTED
    home.drawn()
    page.locator("#redraw button[type=submit]").click()
    sync_api.expect(page.locator("#redraw [role=status]")).to_contain_text("Rien")
    page.locator("#redraw-new").click()
    shape = page.locator("#maps").bounding_box()
    x, y = shape["x"] + shape["width"] / 2, shape["y"] + shape["height"] / 3
    for dx, dy in ((-60, -40), (60, -40), (60, 40), (-60, 40)):
        page.mouse.click(x + dx, y + dy)
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".pen circle")).to_have_count(4)
    page.mouse.move(x + 60, y + 40)
    page.mouse.down()
    page.mouse.move(x + 90, y + 60, steps=3)
    page.mouse.up()
    page.screenshot(path=shots / "redraw.png")
    corner = """([x, y]) => { const p = window.millesimed.right.unproject([x, y]);
    return [p.lng, p.lat]; }"""
    wanted = page.evaluate(corner, [x + 90 - shape["x"], y + 60 - shape["y"]])
    page.locator("#redraw-us").select_option("US5")
    page.locator("#redraw button[type=submit]").click()
    sync_api.expect(page.locator("#redraw [role=status]")).to_contain_text("corrections-")
    (file,) = inbox.glob("*.json")
    data = json.loads(file.read_text())["data"]
    assert (data["alert"], data["author"]) == (alert, "reviewer")
    (drawn,) = data["features"]
    assert drawn["properties"]["code_us"] == "US5"
    assert len(drawn["geometry"]["coordinates"][0]) == 5
    assert drawn["geometry"]["coordinates"][0][2] == pytest.approx(wanted, abs=2e-5)
    assert page.locator(".pen").count() == 0 and not home.problems, home.problems
    page.evaluate("sessionStorage.clear()")


def test_an_outline_is_drawn_with_keys_alone(home, scene, inbox):
    page = home.page
    said = page.locator("#redraw [role=status]")
    row = page.locator("#list button").first
    alert = row.get_attribute("data-id")
    row.press("Enter")
    page.locator("#token").fill(REVIEWER)
    page.locator("#token").press("Enter")
    sync_api.expect(page.locator("#token-form")).to_contain_text("en place")
    home.drawn()

    def keys(*names):
        for name in names:
            page.keyboard.press(name)

    page.locator("#redraw-new").press("Enter")
    sync_api.expect(said).to_contain_text("Espace")
    assert page.locator(".pen .cross").count() == 1
    centre = "() => window.millesimed.right.getCenter().toArray()"
    keys("Space")
    sync_api.expect(said).to_have_text("Sommet 1 posé.")
    wanted = [page.evaluate(centre)]
    keys("Enter")  # a point is no outline
    sync_api.expect(said).to_contain_text("trois sommets")
    for way in (["ArrowRight"] * 4, ["ArrowDown"] * 4, ["Shift+ArrowLeft"] * 10):
        keys(*way, "Space")
        wanted.append(page.evaluate(centre))
    sync_api.expect(said).to_contain_text("Sommet 4 posé")
    across, down, back = np.diff([page.evaluate(PIXEL, p) for p in wanted], axis=0).tolist()
    assert across == pytest.approx([40, 0], abs=0.6) and down == pytest.approx([0, 40], abs=0.6)
    assert back == pytest.approx([-10, 0], abs=0.6)
    keys("Backspace")
    sync_api.expect(said).to_contain_text("il en reste 3")
    keys("Escape")
    sync_api.expect(said).to_have_text("Dessin abandonné.")
    assert page.locator(".pen").count() == 0 and page.locator("#detail").is_visible()
    assert page.evaluate("document.activeElement.id") == "redraw-new"
    keys("Enter", "Space", *["ArrowRight"] * 4, "Space", *["ArrowDown"] * 4, "Space", "Enter")
    sync_api.expect(said).to_contain_text("envoyez")
    assert page.locator(".pen circle").count() == 3 and page.locator(".pen .cross").count() == 0
    before = set(inbox.glob("*.json"))
    page.locator("#redraw-source").press("Enter")
    sync_api.expect(said).to_contain_text("corrections-")
    (file,) = set(inbox.glob("*.json")) - before
    (drawn,) = json.loads(file.read_text())["data"]["features"]
    assert len(drawn["geometry"]["coordinates"][0]) == 4
    assert json.loads(file.read_text())["data"]["alert"] == alert
    assert not home.problems, home.problems
    page.evaluate("sessionStorage.clear()")


def test_every_control_is_named_and_reached_by_keyboard(home):
    page = home.page
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, a, [role=slider]')]
        .filter((e) => e.checkVisibility() && !(e.labels?.length || e.ariaLabel
          || e.textContent.trim()
          || e.title)).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    page.locator("body").evaluate("b => { b.tabIndex = -1; b.focus(); }")
    reached = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "() => { const e = document.activeElement;"
                " return e.id || e.name || e.className || e.tagName; }"
            )
        )
    for wanted in (
        "territory",
        "state",
        "sort",
        "export",
        "theme",
        "year",
        "opacity",
        "show-image",
        "swipe",
        "maplibregl-canvas",
    ):
        assert wanted in reached, (wanted, reached)
    page.locator("#list button").first.focus()
    page.keyboard.press("ArrowDown")
    second = page.locator("#list button").nth(1).get_attribute("data-id")
    assert page.evaluate("document.activeElement.dataset.id") == second
    page.keyboard.press("Enter")
    page.locator("#explanation").wait_for()
    assert page.evaluate("document.activeElement.id") == "detail"


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_stands_out_from_its_ground(desk):
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text."""
    names = ("ink", "soft", "link", "grave", "good", "paper", "ground", "link-ink")
    colours = desk.page.evaluate(
        "names => { const all = getComputedStyle(document.body);"
        " return names.map((n) => all.getPropertyValue(`--${n}`).trim()); }",
        list(names),
    )
    value = dict(zip(names, map(luminance, colours), strict=True))
    pairs = [
        (text, on)
        for text in ("ink", "soft", "link", "grave", "good")
        for on in ("paper", "ground")
    ]
    for text, ground in [*pairs, ("link-ink", "link"), ("link-ink", "grave")]:
        light, dark = sorted((value[text], value[ground]), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def test_a_phone_shows_it_all_without_scrolling_sideways(browser, url, shots):
    tab = Tab(browser, 390, 844, locale="en-GB", is_mobile=True, has_touch=True)
    page = tab.page
    page.goto(url)
    tab.drawn()
    page.locator("#list button").first.wait_for()
    page.screenshot(path=shots / "phone.png")
    page.screenshot(path=shots / "phone-whole.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("html").get_attribute("lang") == "en"
    page.locator("#list button").first.click()
    page.locator("#explanation").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = page.evaluate(
        """() => [...document.querySelectorAll('button, select, a, summary')].filter((e) =>
        e.checkVisibility() && !e.closest('.skip') && e.getBoundingClientRect().height < 24)
        .map((e) => e.outerHTML.slice(0, 90))"""
    )
    assert small == [], "WCAG 2.2, 2.5.8: targets of 24 pixels"
    page.goto(f"{url}/figures")
    page.locator("figure").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not tab.problems, tab.problems
    tab.context.close()


def test_the_figures_are_drawn_and_tabled(browser, url, shots, scene):
    gone = next(r for r in alerts_now(scene.store) if r.review is None)
    reject_alert(scene.store, gone.id, reason="no", cause=FalseAlarm.SHADOW)
    tab = Tab(browser, 1280, 900, locale="en-GB")
    page = tab.page
    page.goto(f"{url}/figures?lang=fr")
    page.locator("figure").first.wait_for()
    page.screenshot(path=shots / "figures.png", full_page=True)
    assert page.locator("figure").count() == 5
    assert page.locator("svg.chart").count() == 4 and page.locator("table.matrix").count() == 1
    assert page.locator("svg.chart rect").count() >= 4
    for summary in page.locator("details.table summary").all():
        summary.click()
    rows = page.locator("details.table tbody tr").all_text_contents()
    assert any("Auch" in row for row in rows) and any(row.startswith("2024") for row in rows)
    assert "CS1.1.1.1" in page.locator("table.matrix").text_content()
    known = false_alarms(scene.store)
    counts = Counter(dict.fromkeys({row.cause for row in known}, 0))
    for row in known:
        counts[row.cause] += row.count
    names = {FalseAlarm.SHADOW: "Ombre", FalseAlarm.TEMPORARY: "Objet temporaire", None: "Non"}
    told = page.locator("#false-alarms tbody tr").all_text_contents()
    assert len(told) == len(counts) and counts[FalseAlarm.SHADOW] == 1
    for cause, count in counts.items():
        (line,) = [line for line in told if line.startswith(names[cause])]
        share = f"{100 * count / counts.total():.1f}".removesuffix(".0").replace(".", ",")
        assert line.replace("\u202f", " ").replace("\xa0", " ").endswith(f"{count} ({share} %)")
    assert page.locator("#false-alarms tfoot td").last.text_content() == str(counts.total())
    assert not tab.problems, tab.problems
    tab.context.close()


def test_a_file_is_asked_for_with_the_keyboard_watched_and_taken(browser, url, shots):
    tab = Tab(browser, 1280, 900, locale="fr-FR")
    page = tab.page
    page.goto(url)
    page.locator("#list button").first.wait_for()
    page.locator("#take summary").focus()
    page.keyboard.press("Enter")
    page.locator("#take-product").select_option("raster")
    assert page.locator("#take-resolution").is_visible()
    assert not page.locator("#take-before").is_visible()
    page.locator("#take-product").select_option("differential")
    assert page.locator("#take-before").input_value() == "2021"
    page.locator("#take-product").select_option("map")
    page.locator("#take-territory").select_option(f"D032/{COMMUNE}")
    page.locator("#take-crs").select_option("EPSG:4326")
    page.locator("#take-crs").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#take-progress:visible").wait_for()
    page.locator("#take-file").wait_for()
    page.screenshot(path=shots / "take.png")
    assert page.locator("#take-said").text_content() == "Le fichier est prêt."
    with page.expect_download() as started:
        page.locator("#take-file").click()
    taken = started.value
    assert taken.suggested_filename == f"OCS-GE_2-0__GPKG_EPSG4326_D032_{COMMUNE}_2024-01-01.gpkg"
    assert Path(taken.path()).read_bytes()[:6] == b"SQLite"
    page.goto(f"{url}/?lang=en")
    page.locator("#take-file").wait_for()  # still known after the page is opened again
    assert page.locator("#take-said").text_content() == "The file is ready."
    assert not tab.problems, tab.problems
    tab.context.close()
