"""The page in a real browser: every image shows, nothing hostile runs, nothing is blank."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which('chromium')
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
)
PROBE = """
<pre id="probe"></pre>
<script>
addEventListener('load', () => {
  const images = [...document.images];
  document.getElementById('probe').textContent = JSON.stringify({
    title: document.title,
    images: images.length,
    broken: images.filter(image => !(image.complete && image.naturalWidth > 0)).length,
    heights: [...document.querySelectorAll('.figure')].map(image => image.clientHeight),
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  });
});
</script>
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no chromium on the PATH')


def chromium(page: Path, tmp_path: Path, *arguments: str) -> str:
    profile = tmp_path / 'profile'
    command = [CHROMIUM, *FLAGS, f'--user-data-dir={profile}', *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize('width', [1280, 500])
@pytest.mark.parametrize(('page_of', 'images'), [('written', 51), ('language_page', 15)])
def test_images_show_and_no_text_from_data_runs(request, tmp_path, page_of, images, width):
    written = request.getfixturevalue(page_of)
    # Without its security policy, so that escaping alone must hold.
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', '', written.read_text())
    assert 'Content-Security-Policy' not in text
    page = tmp_path / 'probe.html'
    page.write_text(text.replace('</body>', PROBE + '</body>'))
    dump = chromium(page, tmp_path, f'--window-size={width},2000', '--dump-dom')
    (found,) = re.findall('<pre id="probe">(.*?)</pre>', dump)
    found = json.loads(html.unescape(found))
    assert found['title'].startswith('A run "><script>')
    assert found['images'] >= images
    assert found['broken'] == 0
    assert min(found['heights']) > 100
    assert found['width'] == width
    assert found['overflow'] <= 0


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_screenshot_is_not_blank(written, tmp_path, scheme):
    shot = tmp_path / 'shot.png'
    preferred = '--blink-settings=preferredColorScheme=' + {'dark': '0', 'light': '1'}[scheme]
    chromium(
        written, tmp_path, preferred, '--hide-scrollbars', '--window-size=1280,2400',
        f'--screenshot={shot}',
    )  # fmt: skip
    pixels = np.asarray(Image.open(shot).convert('L'), float)
    assert pixels.shape == (2400, 1280)
    assert (pixels[0, 0] < 60) == (scheme == 'dark')
    for band in np.array_split(pixels, 4):
        assert band.std() > 5
