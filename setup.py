"""Packaging of influence_jax; tool settings live in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
# Read and not imported: what the package imports need not be there yet.
(VERSION,) = re.findall(
    r"^__version__ = '(.+)'$",
    (HERE / 'influence_jax' / '__init__.py').read_text(encoding='utf-8'),
    flags=re.MULTILINE,
)
EXPLORE = ['bokeh>=3.9,<4', 'starlette>=1,<2', 'uvicorn>=0.54,<1']
TABLES = ['pandas>=2.2.3,<4', 'pyarrow>=18,<27', 'xarray>=2024.10,<2027']

setup(
    name='influence_jax',
    version=VERSION,
    description='How every training example influences every target, measured on ensembles.',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    packages=find_packages(include=['influence_jax*']),
    package_data={
        'influence_jax': ['py.typed'],
        'influence_jax.data': ['embedded/*'],
        'influence_jax.explorer': ['static/*'],
        'influence_jax.kernels': ['*.cc', '*.h'],
        'influence_jax.report': ['templates/*', 'paper.mplstyle'],
    },
    python_requires='>=3.11',
    install_requires=[
        # What the launches of a checkout read their flags with; the library has no use for it.
        'absl-py>=2.3,<3',
        # jax bounds its compilation cache by it.
        'filelock>=3.16,<5',
        'flax>=0.12.4,<0.13',
        'huggingface_hub>=1,<3',
        'jax>=0.10,<0.11',
        'jaxtyping>=0.3.3,<0.4',
        'jinja2>=3.1.4,<4',
        'markupsafe>=2.1,<4',
        'matplotlib>=3.10,<4',
        'numpy>=2.1,<3',
        'optax>=0.2.6,<0.3',
        'orbax-checkpoint>=0.11.32,<0.13',
        'pillow>=11,<14',
        'platformdirs>=4.2,<5',
        'rich>=14,<16',
        'sacrebleu>=2.5.1,<3',
        'scikit-learn>=1.5,<2',
        'scipy>=1.15,<2',
        'tensorstore>=0.1.79,<0.2',
        'threadpoolctl>=3.5,<4',
        'transformers>=5,<6',
        'safetensors>=0.6,<1',
        'tokenizers>=0.22,<1',
        # TFDS imports importlib_resources without declaring it.
        'tensorflow-datasets>=4.9.10,<5',
        'importlib_resources>=6,<8',
    ],
    extras_require={
        # `Run.to_xarray` and `Run.to_parquet`.
        'tables': TABLES,
        # `experiments.explore`; bokeh is there for the scripts that draw in the browser.
        'explore': EXPLORE,
        # `experiments.export --format=graphml`.
        'graph': ['networkx>=3.2,<4'],
        # The site of docs/, built by `mkdocs build`.
        'docs': [
            'latex2mathml>=3.77,<4',
            'mkdocs>=1.6.1,<2',
            'mkdocs-material>=9.6,<10',
            'mkdocstrings[python]>=1,<2',
        ],
        'test': [
            *EXPLORE,
            *TABLES,
            'beartype>=0.20,<1',
            'httpx>=0.28,<1',
            'hypothesis>=6.100,<7',
            'mypy>=1.18.1,<3',
            'networkx>=3.2,<4',
            'playwright>=1.50,<2',
            'pytest>=8.4,<10',
            'pytest-xdist>=3.6,<4',
            'ruff>=0.14,<0.18',
        ],
        # *Preparing* CIFAR-10 with TFDS needs TensorFlow; reading a prepared copy does not.
        'tfds': ['tensorflow>=2.20,<3'],
        'tpu': ['jax[tpu]>=0.10,<0.11'],
        'cuda12': ['jax[cuda12]>=0.10,<0.11'],
    },
    classifiers=[
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
