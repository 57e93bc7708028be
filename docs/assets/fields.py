"""An extension of Griffe: fields that a docstring lists without a heading, as a table."""

import re
from typing import Any

import griffe

_FIELD = re.compile(r'(\w+(, \w+)*): ')


class Fields(griffe.Extension):
    """Gives the paragraph that explains the fields of a record the heading `Attributes:`."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Changes the docstring, which is not parsed before the page is made."""
        if cls.docstring is None or 'Attributes:' in cls.docstring.value:
            return
        paragraphs = cls.docstring.value.split('\n\n')
        for place, paragraph in enumerate(paragraphs):
            found = _FIELD.match(paragraph)
            if found and found[1].split(', ')[0] in cls.members:
                lines = (f'    {line}'.rstrip() for line in paragraph.splitlines())
                paragraphs[place] = '\n'.join(('Attributes:', *lines))
        cls.docstring.value = '\n\n'.join(paragraphs)
