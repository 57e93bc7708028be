"""A local web server of the explorer: documents, the page's files, BokehJS; no other address."""

import hashlib
import importlib.resources
import ipaddress
import re
from collections.abc import Awaitable, Callable
from importlib.resources.abc import Traversable

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from influence_jax.explorer import encoding
from influence_jax.explorer.site import DAMAGES, Site, UnknownAddress
from influence_jax.text import clean

VENDOR = ('bokeh.min.js', 'bokeh-api.min.js')
"""Files of BokehJS that the page may load, below `vendor/`."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)
"""Content-Security-Policy. BokehJS sets styles in line; no script but the server's own runs."""

_HEADERS = {
    'Content-Security-Policy': f"{POLICY}; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-cache',
}
_TYPES = {
    'html': 'text/html; charset=utf-8',
    'js': 'text/javascript; charset=utf-8',
    'mjs': 'text/javascript; charset=utf-8',
    'css': 'text/css; charset=utf-8',
    'json': 'application/json',
    'png': 'image/png',
    'svg': 'image/svg+xml',
    'txt': 'text/plain; charset=utf-8',
}
_HOST = re.compile(r'(?:\[([\da-fA-F:.]+)\]|([^:\[\]]+))(?::\d{1,5})?')
_FAST = 1  # of gzip's levels: the server's time is what counts


def page_files() -> dict[str, Traversable]:
    """Returns the page's own files and those of BokehJS, by their addresses."""
    static = importlib.resources.files('influence_jax.explorer') / 'static'
    found = dict(_walk(static, ''))
    bokeh = importlib.resources.files('bokeh') / 'server' / 'static' / 'js'
    return found | {f'vendor/{name}': bokeh / name for name in VENDOR}


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _walk(entry, f'{prefix}{entry.name}/')
        elif entry.name.rpartition('.')[2] in _TYPES:
            found.append((f'{prefix}{entry.name}', entry))
    return found


def application(site: Site, *, host: str = '127.0.0.1') -> Starlette:
    """Returns the application that serves a site.

    A request must name a loopback address, or `host`, as that of the server: a page of elsewhere
    whose name is made to lead here (DNS rebinding) reads nothing.

    Args:
        site: the documents.
        host: on which the server listens; requests to it are answered too.
    """
    files = page_files()

    def document(request: Request) -> Response:
        return _document(site, request)

    def file(request: Request) -> Response:
        name = request.path_params['path'] or 'index.html'
        if name not in files:
            return PlainTextResponse('not found', 404)
        return Response(files[name].read_bytes(), media_type=_TYPES[name.rpartition('.')[2]])

    async def guarded(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if not _is_own(request.headers.get('host', ''), host):
            response: Response = PlainTextResponse('this server has another name', 403)
        else:
            response = await answer(request)
        response.headers.update(_HEADERS)
        return response

    return Starlette(
        routes=[Route('/data/{address:path}', document), Route('/{path:path}', file)],
        middleware=[
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=_FAST),
            Middleware(BaseHTTPMiddleware, dispatch=guarded),
        ],
    )


def _document(site: Site, request: Request) -> Response:
    address = request.path_params['address']
    try:
        content = site.get(address)
    except UnknownAddress:
        return _error('there is no such document', 404)
    except DAMAGES as error:
        return _error(str(error) or type(error).__name__, 500)
    # Of what is sent: results, what lies beside them and this program may all have changed.
    tag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    if request.headers.get('if-none-match') == tag:
        return Response(status_code=304, headers={'ETag': tag})
    media_type = _TYPES[address.rpartition('.')[2]]
    # The table is there: while it is read, what the next pages need can be prepared.
    task = BackgroundTask(site.warm) if address.endswith('/targets.json') else None
    return Response(content, media_type=media_type, headers={'ETag': tag}, background=task)


def _error(message: str, status: int) -> Response:
    content = encoding.dump({'error': clean(message)})
    return Response(content, status, media_type='application/json')


def _is_own(header: str, host: str) -> bool:
    """Whether the Host of a request is the server's own name, not one of somebody else's page."""
    match = _HOST.fullmatch(header)
    if match is None:
        return False
    name = (match[1] or match[2]).lower()
    if name in ('localhost', host.lower()):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # By its number nobody is misled; listening on all addresses, any of them may be used.
    return address.is_loopback or host in ('0.0.0.0', '::')
