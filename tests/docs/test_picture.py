"""The picture: well-formed, the same in both themes, with every method where its paper puts it."""

import re
import sys
from collections.abc import Iterator
from types import ModuleType
from xml.etree import ElementTree

import pytest

import graft
from docs.pages import DOCS
from graft import catalogue
from graft.drawing import reference
from graft.drawing.block import COLUMNS
from graft.errors import GraftError


@pytest.fixture(scope="module")
def picture() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        import picture

        yield picture
        sys.modules.pop("picture")


def test_methods_are_drawn_where_they_act(picture: ModuleType) -> None:
    rows = {line.name: {COLUMNS[m.first][0] + COLUMNS[m.last][0]: m.kind for m in line.marks}
            for line in picture.lines()}  # fmt: skip
    assert rows["LoRA"] == {"qq": "params", "vv": "params"}
    assert rows["IA3"] == {"kk": "params", "vv": "params", "downdown": "params"}
    assert rows["PrefixTuning"] == {"qo": "keys"}
    assert rows["PromptTuning"] == {"embedembed": "tokens"}
    assert rows["Pfeiffer"] == {"gatedown": "passing"}
    assert rows["MAM"] == {"qo": "keys", "gatedown": "passing"}
    for entry in catalogue.own().values():
        if entry.class_name not in rows:
            with pytest.raises(GraftError):
                graft.attach(reference(), getattr(graft, entry.class_name)())


def test_drawing_is_sound_and_alike_in_both_themes(picture: ModuleType) -> None:
    drawn = {theme: picture.picture(theme) for theme in picture.COLORS}
    for text in drawn.values():
        root = ElementTree.fromstring(text)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for node in root.iter():
            for side, limit in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                assert 0 <= float(node.get(side, 0)) <= limit
    plain = {re.sub("#[0-9a-f]{6}", "#", text) for text in drawn.values()}
    assert len(plain) == 1
