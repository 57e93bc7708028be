"""A hook of MkDocs: formulas as MathML, which browsers draw without a script from elsewhere."""

import html
import re
from typing import Any

import latex2mathml.converter

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_: Any) -> str:
    """Replaces what `pymdownx.arithmatex` has marked."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = 'block' if found['tag'] == 'div' else 'inline'
    return latex2mathml.converter.convert(html.unescape(found['tex']), display=display)
