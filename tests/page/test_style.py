"""What can be said of colors and scripts without a browser: contrast, size, and that nothing is built from text."""

import re
from pathlib import Path

import pytest

import graft
from graft.page.html import SCRIPTS

TEMPLATE = Path(graft.__file__).parent / "page" / "template"
STYLE = (TEMPLATE / "page.css").read_text(encoding="utf-8")


def palette(dark: bool) -> dict[str, str]:
    """The variables of a color scheme."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", "".join(blocks[: 2 if dark else 1])))


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2.2."""
    digits = color[1:] if len(color) == 7 else "".join(2 * each for each in color[1:])
    channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colors, WCAG 2.2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_have_the_contrast_that_wcag_asks_for(dark: bool) -> None:
    colors = palette(dark)
    for ground in ("page", "panel", "tint"):
        for text in ("ink", "quiet", "better", "worse", "accent"):
            assert contrast(colors[text], colors[ground]) >= 4.5, (text, ground)
        for at in range(8):
            assert contrast(colors[f"c{at}"], colors[ground]) >= 3, (at, ground)
    assert contrast(colors["ink"], colors["hot"]) >= 4.5


def test_scripts_are_short_and_never_make_markup_from_text() -> None:
    assert {path.stem for path in TEMPLATE.glob("*.js")} == set(SCRIPTS)
    text = "\n".join((TEMPLATE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    assert len(text.splitlines()) < 500
    assert not re.search(
        r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(|https?:",
        text.replace("http://www.w3.org/2000/svg", ""),
    )


def test_templates_never_switch_escaping_off() -> None:
    found = [match for path in TEMPLATE.glob("*.html") for match in re.findall(r"(\w+) \| safe", path.read_text())]
    assert sorted(found) == ["data", "script", "style"]
    assert not [path for path in TEMPLATE.glob("*.html") if "autoescape" in path.read_text()]
