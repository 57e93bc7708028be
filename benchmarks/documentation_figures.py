"""Redraws the figures of docs/ and prints every number that the pages quote.

    python -m benchmarks.documentation_figures RUN_DIRECTORY [OUTPUT_DIRECTORY]

The run is one of the embedded clip art, such as that of docs/results/clipart_1000.md. The figures
go to docs/figures unless said otherwise.
"""

import sys
from pathlib import Path

from benchmarks import documentation_margins, documentation_noise, documentation_reading
from benchmarks.documentation_drawing import Study


def main(run: str, output: str = 'docs/figures') -> None:
    study = Study.of(run)
    directory = Path(output)
    directory.mkdir(parents=True, exist_ok=True)
    pages = documentation_reading, documentation_noise, documentation_margins
    for draw in (figure for page in pages for figure in page.FIGURES):
        name, png = draw(study)
        (directory / f'{name}.png').write_bytes(png)
        print(f'-> {directory / name}.png, {len(png) / 1024:.0f} KiB\n', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
