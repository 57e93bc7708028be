"""The server: its own addresses and no others, to its own page and to no other."""

import dataclasses
import json
import re
import shutil

import pytest
from starlette.testclient import TestClient

from influence_jax.explorer import Site, open_results, server
from influence_jax.report.kept import TENSORS


@pytest.fixture
def client(site):
    return TestClient(server.application(site), base_url='http://127.0.0.1:8765')


def test_documents_and_the_page_are_served(client, site):
    for address in ('index.json', '0/targets.json', '0/targets/3.json', '0/examples/3.json'):
        answer = client.get(f'/data/{address}')
        assert answer.status_code == 200 and answer.content == site.get(address)
        assert answer.headers['content-type'] == 'application/json'
    sheet = client.get('/data/0/sheets/0.png')
    assert sheet.headers['content-type'] == 'image/png' and sheet.content[1:4] == b'PNG'
    page = client.get('/')
    assert page.headers['content-type'].startswith('text/html') and '<head>' in page.text
    for name in server.VENDOR:
        script = client.get(f'/vendor/{name}')
        assert script.headers['content-type'].startswith('text/javascript')
        assert len(script.content) > 10_000


def test_what_a_page_may_do_is_limited(client):
    for address in ('/', '/data/index.json', '/nothing', '/vendor/bokeh.min.js'):
        headers = client.get(address).headers
        policy = headers['content-security-policy']
        (scripts,) = re.findall('script-src ([^;]*)', policy)
        assert scripts.strip() == "'self'" and "default-src 'none'" in policy
        assert headers['x-content-type-options'] == 'nosniff'
        assert 'access-control-allow-origin' not in headers


@pytest.mark.parametrize(
    'name',
    [
        'evil.example',
        'evil.example:8765',
        '127.0.0.1.evil.example',
        '192.168.0.7:8765',
        '',
        '[::1',
        'localhost.evil.example',
        '::1',
    ],
)
def test_other_names_of_the_host_are_refused(client, name):
    for address in ('/', '/data/index.json'):
        assert client.get(address, headers={'host': name}).status_code == 403


@pytest.mark.parametrize('name', ['localhost', 'LOCALHOST:1', '127.0.0.1:9', '[::1]:9', '[::1]'])
def test_names_of_this_machine_are_answered(client, name):
    assert client.get('/data/index.json', headers={'host': name}).status_code == 200


def test_a_host_that_was_asked_for_is_answered(site):
    client = TestClient(server.application(site, host='10.0.0.5'), base_url='http://10.0.0.5:1')
    assert client.get('/data/index.json').status_code == 200
    assert client.get('/', headers={'host': '10.0.0.6'}).status_code == 403


@pytest.mark.parametrize(
    'address',
    [
        '/../server.py',
        '/%2e%2e/server.py',
        '/vendor/..%2f..%2fserver.py',
        '/vendor/bokeh.js',
        '/data/0/..%2f..%2fsecret.json',
        '//etc/passwd',
        '/vendor/',
        '/data/0/sheets/..%2f0.png',
        '/server.py',
        '/static/index.html',
    ],
)
def test_nothing_else_is_served(client, address):
    assert client.get(address).status_code == 404


def test_only_reading_is_answered(client):
    for method in ('POST', 'PUT', 'DELETE'):
        assert client.request(method, '/data/index.json').status_code == 405


def test_what_has_not_changed_is_not_sent_again(client, tmp_path, results):
    first = client.get('/data/0/run.json')
    tag = {'if-none-match': first.headers['etag']}
    again = client.get('/data/0/run.json', headers=tag)
    assert again.status_code == 304 and not again.content
    other = tmp_path / 'other'
    other.mkdir()
    dataclasses.replace(results, unit='bits').save(other)
    changed = TestClient(
        server.application(Site([open_results(other)])), base_url='http://localhost'
    )
    assert changed.get('/data/0/run.json', headers=tag).status_code == 200
    assert client.get('/data/0/nothing.json', headers=tag).status_code == 404


def test_long_documents_are_compressed(client):
    answer = client.get('/data/0/run.json', headers={'accept-encoding': 'gzip'})
    assert answer.headers['content-encoding'] == 'gzip' and answer.json()['targets'] == 24


def test_an_unknown_document_is_an_error_that_pages_can_show(client):
    answer = client.get('/data/0/targets/99.json')
    assert answer.status_code == 404 and 'error' in answer.json()


def test_damaged_tensors_leave_what_is_stored(saved):
    (file,) = (saved / TENSORS / 'losses').glob('c*')
    file.write_bytes(file.read_bytes()[:-1] + b'!')
    client = TestClient(
        server.application(Site([open_results(saved)])), base_url='http://localhost'
    )
    (page,) = client.get('/data/0/targets/3.json').json()
    assert page['histogram'] is None and page['influencers']['positive']
    assert 'losses' in page['note'] and '\n' not in page['note']


def test_a_run_without_its_pixels_shows_everything_else(tmp_path, planted_run):
    directory = shutil.copytree(planted_run, tmp_path / 'copy')
    whole = Site([open_results(directory)])
    assert json.loads(whole.get('0/targets/3.json'))[0]['histogram']
    for file in (directory / 'examples.zarr').glob('c*'):
        file.unlink()
    client = TestClient(
        server.application(Site([open_results(directory)])), base_url='http://localhost'
    )
    for address in ('run.json', 'targets.json', 'targets/3.json', 'clusters.json', 'matrix.json'):
        assert client.get(f'/data/0/{address}').status_code == 200
    sheet = client.get('/data/0/sheets/0.png')
    assert sheet.status_code == 500 and 'examples.zarr' in sheet.json()['error']
