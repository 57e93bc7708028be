"""Prints the first Python program of the README."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / 'README.md'
first = re.search(r'^```python\n(.*?)^```$', README.read_text('utf-8'), re.DOTALL | re.MULTILINE)
if first is None:
    raise SystemExit('README.md has no block that begins with ```python')
print(first[1])
