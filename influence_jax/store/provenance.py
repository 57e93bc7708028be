"""With which versions and which commit a run was made."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import influence_jax


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the packages that decide its numbers."""
    return {
        'python': platform.python_version(),
        'influence_jax': influence_jax.__version__,
        **{
            name: importlib.metadata.version(name)
            for name in ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
        },
    }


def git_commit() -> str | None:
    """Commit of the checkout this package runs from; ends in `-dirty` if files were changed.

    None where the package is installed, or git is not: an installed copy may well lie inside
    another project's checkout, whose commit would say nothing.
    """
    package = Path(__file__).parents[1]
    try:
        subprocess.run(
            ['git', 'ls-files', '--error-unmatch', '__init__.py'],
            cwd=package,
            capture_output=True,
            check=True,
        )
        described = subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
            cwd=package,
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
