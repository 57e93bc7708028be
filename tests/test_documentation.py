"""The documentation: its site builds without a warning, and its tutorials run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / 'docs' / 'tutorials').glob('*.md'))

RUN = """
import re, subprocess, sys

blocks = re.findall(r'^```(python|bash)\\n(.*?)^```', sys.stdin.read(), flags=re.M | re.S)
names = {'__name__': '__main__'}
for language, block in blocks:
    if language == 'python':
        exec(compile(block, 'tutorial', 'exec'), names)
    else:
        subprocess.run(['bash', '-ec', block], check=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize('tutorial', TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(tutorial, tmp_path):
    """Its blocks one after another, in an empty directory; where a step needs what is not there
    it says so in the block."""
    (tmp_path / 'python').symlink_to(sys.executable)
    ran = subprocess.run(
        [sys.executable, '-c', RUN],
        cwd=tmp_path,
        input=tutorial.read_text(encoding='utf-8'),
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-3000:]


def test_all_tutorials_are_found():
    assert len(TUTORIALS) >= 8


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip('mkdocs', reason="the site needs pip install -e '.[docs]'")
    pytest.importorskip('mkdocstrings', reason="the site needs pip install -e '.[docs]'")
    built = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', f'--site-dir={tmp_path / "site"}'],
        cwd=ROOT,
        env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    site = tmp_path / 'site'
    reference = (site / 'reference' / 'estimators.html').read_text(encoding='utf-8')
    assert 'id="influence_jax.estimators.adjusted"' in reference
    fields = re.findall(r'<td><code>(?:<span[^>]*>)?(\w+)', reference)
    assert 'self_influence' in fields, 'fields of records are a table'
    equations = (site / 'concepts' / 'assisted.html').read_text(encoding='utf-8')
    assert '<math' in equations and 'class="arithmatex"' not in equations
    pages = '\n'.join(page.read_text(encoding='utf-8') for page in site.rglob('*.html'))
    fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', pages)
    assert not [one for one in fetched if 'canonical' not in one], 'nothing is fetched'
