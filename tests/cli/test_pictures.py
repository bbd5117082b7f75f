"""`regionfs show --html` and `--svg`: what a person sees in a browser, wide and narrow, light and dark."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from selenium.webdriver.common.keys import Keys

from regionfs.cli.pictures.content import Pictured, page
from regionfs.cli.pictures.paint import oklch
from regionfs.cli.pictures.svg import MARGIN, WIDTH, document
from regionfs.regions import Kind, Region, RegionMap
from tests.cli.browser import Page, browser
from tests.cli.conftest import MIB, Cli

WIDTHS = (1280, 480)
REASON = "region 2 is rw, and a composed file is read-only"
REGIONS = (
    Region(0, 4, Kind.DATA, data=b"boot"),
    Region(MIB, 8 * MIB, Kind.SOURCE, "esp.img", -MIB),
    Region(8 * MIB, 40 * MIB, Kind.SOURCE, "root", 4 * MIB, writable=True),
    Region(40 * MIB, 48 * MIB, Kind.HOLE),
    Region(48 * MIB, 56 * MIB, Kind.ERROR),
)
SHOWN = (Pictured("vm/disk.img", RegionMap(64 * MIB, REGIONS), "userspace", REASON),)
MANY = 10_000


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    """One browser for all tests."""
    with browser() as seen:
        yield seen


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """SHOWN as a page and as an SVG document."""
    (tmp_path / "disk.html").write_text(page("disk.yaml", SHOWN))
    (tmp_path / "disk.svg").write_text(document("disk.yaml", SHOWN))
    return {"html": tmp_path / "disk.html", "svg": tmp_path / "disk.svg"}


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """A page of one file with MANY regions over three sources."""
    regions = [Region(n * 4096, (n + 1) * 4096, Kind.SOURCE, "abc"[n % 3], 0, n % 3 == 2) for n in range(MANY)]
    path = tmp_path / "many.html"
    path.write_text(page("many.yaml", [Pictured("big", RegionMap(MANY * 4096, regions), "userspace", "many")]))
    return path


def boxes(seen: Page) -> list[tuple[float, float]]:
    """(left, right) of every region drawn, from the strip's left edge, in pixels, in order."""
    return [(left, right) for left, right in seen.run("""
        const left = document.querySelector(".strip").getBoundingClientRect().left;
        return [...document.querySelectorAll("[data-region] > .box")].map(box => box.getBoundingClientRect())
            .map(box => [box.left - left, box.right - left]).sort((one, other) => one[0] - other[0])""")]


def tip(seen: Page) -> dict[str, str]:
    """The tip's rows, its title as "", when it is to be seen as a whole; else nothing."""
    return dict(seen.run("""
        const tip = document.querySelector(".tip"), box = tip.getBoundingClientRect();
        const inside = box.left >= 0 && box.top >= 0 && box.right <= innerWidth && box.bottom <= innerHeight;
        const rows = [...tip.querySelectorAll("dt")].map(term => [term.textContent, term.nextSibling.textContent]);
        return inside && !tip.hidden ? [["", tip.querySelector("strong").textContent], ...rows] : []"""))


def focus(seen: Page) -> None:
    """Tab until the first map has the focus."""
    seen.press(*[Keys.TAB] * 2)  # past the one button that is not disabled
    assert "strip" == seen.run("return document.activeElement.getAttribute('class')")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["html", "svg"])
def test_every_region_is_seen_to_scale(chromium: Page, pictures: dict[str, Path], kind: str, width: int) -> None:
    """Each has its share of the width, at least 2 pixels; those with room have their name; nothing sticks out."""
    chromium.open(pictures[kind], width)
    strip = chromium.run("return document.querySelector('.strip').getBoundingClientRect().width")
    assert strip > width * .8
    drawn = boxes(chromium)
    assert len(REGIONS) == len(drawn)
    for region, (left, right) in zip(REGIONS, drawn, strict=True):
        assert region.start / (64 * MIB) * strip == pytest.approx(left, abs=2)
        assert max(region.length / (64 * MIB) * strip, 2) == pytest.approx(right - left, abs=2)
    assert ["root", "32 MiB, rw"] == chromium.texts('[data-region="2"] .label')
    assert {"hole", "8 MiB"} == set(chromium.texts('[data-region="3"] .label'))
    assert ("vm/disk.img", "userspace") == (chromium.texts("h2")[0], chromium.texts(".mode")[0])
    assert REASON in chromium.texts(".facts")[1]
    assert chromium.run("return document.documentElement.scrollWidth <= innerWidth")
    assert [] == chromium.complaints()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["html", "svg"])
def test_the_pointer_brings_what_a_region_is(chromium: Page, pictures: dict[str, Path], kind: str, width: int) -> None:
    """Source, offsets, access, mode and reason, wholly in view; a gap says that it is one."""
    chromium.open(pictures[kind], width)
    chromium.hover(chromium.one('[data-region="2"] .box'))
    assert {"": "Region 2 of 0 to 4: root", "Start": "8 MiB (8,388,608 bytes)", "Length": "32 MiB (33,554,432 bytes)",
            "End": "40 MiB (41,943,040 bytes)", "Kind": "source", "Source": "root",
            "Offset": "12 MiB (12,582,912 bytes)", "Access": "rw: writes go to the source", "Mode": "userspace",
            "Reason": REASON} == tip(chromium)
    chromium.hover(chromium.one('[data-region="4"] .box'))
    assert ("Region 4 of 0 to 4: error", "error") == (tip(chromium)[""], tip(chromium)["Kind"])
    chromium.hover(chromium.one("h1"))
    assert {} == tip(chromium)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["html", "svg"])
def test_the_keyboard_does_the_same(chromium: Page, pictures: dict[str, Path], kind: str, width: int) -> None:
    """Arrows, Home and End go from region to region; assistive technology is told the same words."""
    chromium.open(pictures[kind], width)
    focus(chromium)
    assert "Region 0 of 0 to 4: inline data" == tip(chromium)[""]
    chromium.press(Keys.ARROW_RIGHT)
    assert ("Region 1 of 0 to 4: esp.img", "ro", "0 bytes") == (
        tip(chromium)[""], tip(chromium)["Access"], tip(chromium)["Offset"])
    active = chromium.one(f"#{chromium.one('.strip').get_attribute('aria-activedescendant')}")
    assert ("option", "true", "2", "5") == tuple(
        active.get_attribute(name) for name in ("role", "aria-selected", "aria-posinset", "aria-setsize"))
    assert f"Source esp.img, Offset 0 bytes, Access ro, Mode userspace, Reason {REASON}" in (
        active.get_attribute("aria-label") or "")
    chromium.press(Keys.END)
    assert "Region 4 of 0 to 4: error" == tip(chromium)[""]
    chromium.press(Keys.ESCAPE)
    assert {} == tip(chromium)


def pixel(seen: Page) -> str:
    """What a pixel stands for, as the page says it."""
    return seen.texts(".pixel")[0]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["html", "svg"])
def test_zoom(chromium: Page, pictures: dict[str, Path], kind: str, width: int) -> None:
    """By button, key and wheel; 0 and All go back; Enter fills the view with a region."""
    chromium.open(pictures[kind], width)
    at_first, wide = pixel(chromium), boxes(chromium)[2]
    chromium.one('button[title="Zoom in"]').click()
    chromium.settle()
    assert at_first != pixel(chromium)
    left, right = next(box for box in boxes(chromium) if box[1] - box[0] > 200)
    assert wide[1] - wide[0] < right - left
    chromium.one('button[title="Show all of"]').click()
    chromium.settle()
    assert at_first == pixel(chromium)
    focus_from_button(chromium)
    chromium.press("+", "+")
    assert at_first != pixel(chromium)
    chromium.press("0")
    assert at_first == pixel(chromium)
    chromium.press(Keys.HOME, Keys.ARROW_RIGHT, Keys.ENTER)
    left, right = boxes(chromium)[0]
    strip = chromium.run("return document.querySelector('.strip').clientWidth")
    assert pytest.approx(strip / 1.2, abs=3) == right - left
    chromium.press("0")
    wheel(chromium, -400)
    assert at_first != pixel(chromium)
    wheel(chromium, 4000)
    wheel(chromium, 4000)
    assert at_first == pixel(chromium)
    assert [] == chromium.complaints()


def focus_from_button(seen: Page) -> None:
    """The strip again after a button was used."""
    seen.run("document.querySelector('.strip').focus({focusVisible: true})")
    seen.settle()


def wheel(seen: Page, amount: int) -> None:
    """Turn the wheel over the map's middle; negative is up."""
    box = seen.run("const box = document.querySelector('.strip').getBoundingClientRect();"
                   "return [box.left + box.width / 2, box.top + 60]")
    seen.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {
        "type": "mouseWheel", "x": box[0], "y": box[1], "deltaX": 0, "deltaY": amount})
    seen.settle()


def test_dragging_moves_a_zoomed_map(chromium: Page, pictures: dict[str, Path]) -> None:
    """And the tip stays away meanwhile."""
    from selenium.webdriver import ActionChains
    chromium.open(pictures["html"])
    wheel(chromium, -400)
    before = chromium.texts(".range")[0]
    ActionChains(chromium.driver).drag_and_drop_by_offset(chromium.one(".strip"), -200, 0).perform()
    chromium.settle()
    assert before != chromium.texts(".range")[0]


@pytest.mark.parametrize("width", WIDTHS)
def test_ten_thousand_regions(chromium: Page, crowd: Path, width: int) -> None:
    """No more boxes than pixels; the last region is a key away, and a zoom tells it from its neighbours."""
    chromium.open(crowd, width)
    assert width // 4 < len(chromium.all("[data-region]")) <= width
    assert ["regions too narrow to tell apart are drawn together; zoom in"] == chromium.texts(".note")
    assert MANY == sum(chromium.run("return [...document.querySelectorAll('[data-region]')]"
                                    ".map(box => +box.dataset.together)"))
    focus(chromium)
    chromium.press(Keys.END)
    assert "Region 9,999 of 0 to 9,999: a" == tip(chromium)[""]
    chromium.press(Keys.ENTER)
    assert ["a", "4 KiB"] == chromium.texts(f'[data-region="{MANY - 1}"] .label')
    assert [""] == chromium.texts(".note")
    chromium.press(Keys.ARROW_LEFT)
    assert "Region 9,998 of 0 to 9,999: c" == tip(chromium)[""]
    assert [] == chromium.complaints()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_is_paged_and_leads_to_the_map(chromium: Page, crowd: Path, width: int) -> None:
    """A hundred rows at a time, none wider than the page; a row's button chooses its region."""
    chromium.open(crowd, width)
    chromium.one("summary").click()
    chromium.settle()
    assert (100, "0 to 99 of 0 to 9,999") == (len(chromium.all("tbody tr")), chromium.texts(".pager span")[0])
    assert chromium.run("return document.documentElement.scrollWidth <= innerWidth")
    chromium.all(".pager button")[1].click()
    assert ["101", "413,696", "4,096", "source", "rw", "c", "413,696"] == chromium.texts("tbody tr:nth-child(2) td")
    chromium.one("tbody tr:nth-child(2) button").click()
    chromium.settle()
    assert "f0r101" == chromium.one(".strip").get_attribute("aria-activedescendant")


@pytest.mark.parametrize("kind", ["html", "svg"])
def test_many_files_are_drawn_as_they_come_into_view(chromium: Page, tmp_path: Path, kind: str) -> None:
    """1,000 of them open at once; an empty file and one without regions are told apart."""
    rest = [Pictured(f"d/{number}", RegionMap(MIB, [Region(0, MIB, Kind.SOURCE, "s")]), "passthrough", "whole")
            for number in range(1000)]
    shown = [Pictured("empty", RegionMap(0, []), "userspace", "empty"),
             Pictured("hole", RegionMap(MIB, []), "userspace", "hole"), *rest]
    path = tmp_path / f"files.{kind}"
    path.write_text((page if kind == "html" else document)("files.yaml", shown))
    chromium.open(path)
    assert 1002 == len(chromium.all(".card"))
    assert 1001 == len(chromium.all(".strip"))
    assert len(chromium.all("[data-region]")) < 20
    chromium.run("[...document.querySelectorAll('.card')].at(-1).scrollIntoView()")
    chromium.settle()
    assert ["s", "1 MiB"] == chromium.texts("#f1001r0 .label")
    assert [] == chromium.complaints()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_label_can_be_read(chromium: Page, tmp_path: Path, dark: bool) -> None:
    """Contrast of 4.5 at least between text and what it stands on, for 20 sources, in both colour schemes."""
    size = 21 * MIB
    regions = RegionMap(size, [Region(n * MIB, (n + 1) * MIB, Kind.SOURCE, f"{n}.img") for n in range(20)])
    path = tmp_path / "colours.html"
    path.write_text(page("colours.yaml", [Pictured("colours", regions, "composed", "all regions are ro")]))
    chromium.open(path, dark=dark)
    pairs = chromium.run("""
        const pen = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
        const luminance = colour => {
            pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(v => v / 255)
                .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const contrast = (one, other) => {
            const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
            return (high + .05) / (low + .05);
        };
        const css = (node, name) => getComputedStyle(node)[name], at = name => document.querySelector(name);
        const ground = css(at(".card"), "backgroundColor");
        return [
            ...[...document.querySelectorAll(".source")].filter(box => box.querySelector(".label")).map(
                box => contrast(css(box.querySelector(".label"), "fill"), css(box.querySelector(".box"), "fill"))),
            ...[".facts", ".mode", "h2", "summary", ".legend .soft", ".view"].map(
                name => contrast(css(at(name), "color"), ground)),
            contrast(css(at(".scale"), "fill"), ground),
        ]""")
    assert 27 == len(pairs)
    assert min(pairs) >= 4.5
    lightness = chromium.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert dark == (max(lightness) < 64)


@pytest.mark.parametrize("kind", ["html", "svg"])
def test_names_are_text_whatever_they_hold(chromium: Page, tmp_path: Path, kind: str) -> None:
    """Markup, quotes, control characters and the end of a script element do nothing but be shown."""
    name = "]]></script><script>document.title='gone'</script>\"'&\x01.img"
    shown = [Pictured(name, RegionMap(MIB, [Region(0, MIB, Kind.SOURCE, name)]), "userspace", "<b>why</b>\u202e")]
    path = tmp_path / f"names.{kind}"
    path.write_text((page if kind == "html" else document)("<i>names</i>", shown))
    chromium.open(path)
    assert ([name.replace("\x01", "\\x01")], ["<i>names</i>"]) == (chromium.texts("h2"), chromium.texts("h1"))
    assert "gone" not in chromium.driver.title
    assert [] == chromium.complaints()


def test_large_numbers_are_exact(chromium: Page, tmp_path: Path) -> None:
    """Bytes above 2^53, which JavaScript's numbers would round."""
    odd = 2**60 + 1
    regions = RegionMap(2**61, [Region(odd, odd + 2**59, Kind.SOURCE, "s", 2 - odd)])
    path = tmp_path / "large.html"
    path.write_text(page("large.yaml", [Pictured("large", regions, "userspace", "large")]))
    chromium.open(path)
    focus(chromium)
    assert ("1048576 TiB (1,152,921,504,606,846,977 bytes)", "2 bytes") == (
        tip(chromium)["Start"], tip(chromium)["Offset"])


def test_without_scripts_the_svg_is_a_picture() -> None:
    """Well-formed, a box to scale and a title for every region."""
    root = ElementTree.fromstring(document("disk\x01.yaml", SHOWN))
    space = {"s": "http://www.w3.org/2000/svg"}
    groups = [group for group in root.findall(".//s:g", space) if group.find("s:title", space) is not None]
    assert [region.kind for region in REGIONS] == [group.get("class") for group in groups]
    titles = [group.findtext("s:title", "", space) for group in groups]
    assert "Region 2 of 0 to 4: root, from byte 12582912 of it; 33554432 bytes at 8388608, rw" == titles[2]
    box = groups[2].find("s:rect", space)
    assert box is not None
    inner = WIDTH - 2 * MARGIN
    assert (pytest.approx(MARGIN + inner / 8), pytest.approx(inner / 2)) == (
        float(box.get("x", "")), float(box.get("width", "")))


def bad_disk(count: int) -> RegionMap:
    """A terabyte of `count` regions and one bad sector in its middle."""
    size, part = 2**40, 2**40 // count
    middle = count // 2
    regions = [Region(n * part, (n + 1) * part - 512 * (n == middle), Kind.SOURCE, "ab"[n % 2]) for n in range(count)]
    regions.insert(middle + 1, Region((middle + 1) * part - 512, (middle + 1) * part, Kind.ERROR))
    return RegionMap(size, regions)


@pytest.mark.parametrize("count", [2, 8192])
def test_a_bad_sector_of_a_large_disk_is_seen(chromium: Page, tmp_path: Path, count: int) -> None:
    """In the page and its overview: three pixels at least, in front of the others, and in the legend."""
    path = tmp_path / "bad.html"
    path.write_text(page("bad.yaml", [Pictured("bad", bad_disk(count), "userspace", "an error region")]))
    chromium.open(path)
    widths = chromium.run("""
        const last = [...document.querySelectorAll(".strip > g")].at(-1);
        const flat = document.querySelector(".overview .error");
        return [last.getAttribute("class"), last.querySelector(".box").getBoundingClientRect().width,
                flat.querySelector(".box").getBoundingClientRect().width]""")
    assert (True, True, True) == (widths[0].startswith("error thin"), widths[1] >= 3, widths[2] >= 2)
    assert "error: reads fail 512 B" in chromium.texts(".legend li span")


@pytest.mark.parametrize("count", [2, 8192])
def test_a_bad_sector_is_seen_in_the_drawing(count: int) -> None:
    """The same in the SVG document without scripts."""
    root = ElementTree.fromstring(document("bad.yaml", [Pictured("bad", bad_disk(count), "userspace", "why")]))
    space = {"s": "http://www.w3.org/2000/svg"}
    groups = [group for group in root.findall(".//s:g", space) if group.find("s:title", space) is not None]
    box = groups[-1].find("s:rect", space)
    assert box is not None
    assert ("error thin", 3.0) == (groups[-1].get("class"), float(box.get("width", "")))
    assert "error: reads fail 512 B" in [text.text for text in root.findall(".//s:text", space)]


def test_viewers_without_style_sheets_see_colours() -> None:
    """CSS variables and oklch() are unknown to rsvg and others, which drew all in black: attributes say it too."""
    root = ElementTree.fromstring(document("disk.yaml", SHOWN))
    space = {"s": "http://www.w3.org/2000/svg"}
    shapes = [shape for name in ("rect", "text", "circle") for shape in root.findall(f".//s:{name}", space)]
    assert all((shape.get("fill") or "black") not in ("black", "#000000") for shape in shapes)


@pytest.mark.parametrize(("lightness", "chroma", "degrees", "colour"), [
    (1, 0, 0, "#ffffff"), (0, 0, 0, "#000000"), (0.6279553639, 0.2576833077, 29.2338802, "#ff0000"),
    (0.8664396115, 0.2948272403, 142.4953389, "#00ff00"), (0.4520137184, 0.3132143717, 264.0520206, "#0000ff"),
])
def test_oklch(lightness: float, chroma: float, degrees: float, colour: str) -> None:
    """The corners of sRGB, as CSS Color 4 converts them."""
    assert colour == oklch(lightness, chroma, degrees)


def test_rsvg_draws_it(tmp_path: Path) -> None:
    """A viewer without scripts, variables and oklch()."""
    convert = shutil.which("rsvg-convert")
    if convert is None:
        pytest.skip("rsvg-convert (librsvg2-bin) is not installed")
    (tmp_path / "disk.svg").write_text(document("disk.yaml", SHOWN))
    done = subprocess.run([convert, "-f", "png", tmp_path / "disk.svg"], capture_output=True, check=True, timeout=60)
    assert len(done.stdout) > 10_000, "one colour all over makes a small file"


def test_what_was_never_in_view_is_drawn_before_it_is_printed(chromium: Page, tmp_path: Path) -> None:
    """Cards far below have no picture yet; on paper they need one."""
    shown = [Pictured(f"d/{number}", RegionMap(MIB, [Region(0, MIB, Kind.SOURCE, "s")]), "passthrough", "whole")
             for number in range(100)]
    (tmp_path / "files.html").write_text(page("files.yaml", shown))
    chromium.open(tmp_path / "files.html")
    drawn = "return [...document.querySelectorAll('.strip')].filter(strip => strip.querySelector('.box')).length"
    assert chromium.run(drawn) < 20
    chromium.run("window.dispatchEvent(new Event('beforeprint'))")
    assert 100 == chromium.run(drawn)


def test_show_writes_them(run: Cli, disk: Path, tmp_path: Path) -> None:
    """Both at once, complete in themselves, and nothing to stdout; the mode's reason is in them."""
    page_path, drawing = tmp_path / "disk.html", tmp_path / "disk.svg"
    result = run("show", disk, "--html", page_path, "--svg", drawing)
    assert (0, "") == (result.exit_code, result.output)
    for path in (page_path, drawing):
        assert "vm/disk.img" in path.read_text()
        assert "://" not in path.read_text().replace("http://www.w3.org/", "")


def test_a_source_is_never_overwritten(run: Cli, disk: Path) -> None:
    """Nor the manifest."""
    for name in ("root.img", "disk.yaml"):
        before = (disk.parent / name).read_bytes()
        assert 2 == run("show", disk, "--html", disk.parent / name).exit_code
        assert before == (disk.parent / name).read_bytes()
