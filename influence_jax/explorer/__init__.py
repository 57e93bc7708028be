"""The explorer: stored results as a web application, or as static files for any web server.

`Site([open_results(DIR)])` has all documents by their addresses; `server.application(site)` serves
them, `export.write(site, FOLDER)` writes them. Needs `pip install 'influence_jax[explore]'`.
"""

from influence_jax.explorer.opened import Opened, open_results
from influence_jax.explorer.site import Site

__all__ = ['Opened', 'Site', 'open_results']
