"""Colours stand in Python, in two style sheets and in the script: they must be the same."""

import json
import re
from pathlib import Path

from cka_widget.widgets.look.assets import SLOTS
from cka_widget.widgets.look.style import LIGHT, css

JS = Path(__file__).resolve().parents[3] / "js/src"


def test_every_slot_has_its_colour_in_both_themes():
    sheets = [css(), (JS / "shared/base.css").read_text(encoding="utf-8")]
    for slot in SLOTS:
        fixed = [re.findall(rf"--cka-{slot}: (#\w+);", sheet) for sheet in sheets]
        assert fixed[0] == fixed[1], "the explorer's and its views' differ"
        assert len(fixed[0]) == 2
        assert fixed[0][0] == LIGHT[slot]
        assert all(f".cka-{slot} {{" in sheet for sheet in sheets)
    picker = (JS / "picker.css").read_text(encoding="utf-8")
    assert all(f'[data-color="{slot}"]' in picker for slot in SLOTS[1:])
    script = (JS / "shared/slots.ts").read_text(encoding="utf-8")
    assert json.dumps(SLOTS) in script
