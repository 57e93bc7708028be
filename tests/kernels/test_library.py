"""Kernels are compiled once, privately, and left to XLA where that cannot be done."""

import os
import shutil
import stat

import pytest

from influence_jax.kernels import library

CODE = '#include "xla/ffi/api/ffi.h"\nextern "C" int answer() { return 42; }\n'

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, library._COMPILERS)), reason='there is no C++ compiler'
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    path = tmp_path / 'cache'
    monkeypatch.setattr(library, '_default_directory', lambda: path)
    return path


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'answer.cc'
    path.write_text(CODE, encoding='utf-8')
    return path


def compilations(monkeypatch):
    seen, run = [], library._run
    monkeypatch.setattr(library, '_run', lambda command: (seen.append(command), run(command))[1])
    return lambda: sum('-o' in command for command in seen)


@needs_compiler
def test_compiled_once_for_all_processes(cache, source, monkeypatch):
    compiled = compilations(monkeypatch)
    assert library._loaded(source).answer() == 42
    assert library._loaded(source).answer() == 42
    assert compiled() == 1
    (kept,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    source.write_text(CODE.replace('42', '43'), encoding='utf-8')
    assert library._loaded(source).answer() == 43
    assert kept.exists()


@needs_compiler
def test_a_damaged_library_is_compiled_anew(cache, source):
    library._loaded(source)
    (kept,) = cache.iterdir()
    kept.unlink()  # the loaded file stays as it is
    kept.write_bytes(b'half')
    assert library._loaded(source).answer() == 42


@needs_compiler
def test_what_killed_compilations_have_left_is_removed(cache, source):
    library._loaded(source)
    old, under_way = cache / 'answer-0.so.x.partial', cache / 'answer-0.so.y.partial'
    for path in (old, under_way):
        path.write_bytes(b'half')
    long_ago = old.stat().st_mtime - 2 * library._LONGEST
    os.utime(old, (long_ago, long_ago))
    source.write_text(CODE.replace('42', '43'), encoding='utf-8')
    library._loaded(source)
    assert sorted(path.suffix for path in cache.iterdir()) == ['.partial', '.so', '.so']
    assert under_way.exists()


@needs_compiler
def test_without_a_cache_it_works_for_the_process(cache, source, caplog):
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    assert library._loaded(source).answer() == 42
    assert 'chmod 700' in caplog.text
    assert not list(cache.iterdir())


def test_switched_off(monkeypatch):
    monkeypatch.setattr(library, '_registered', lambda *_: True)
    assert library.registered('any.cc', ())
    try:
        library.use(False)
        assert not library.registered('any.cc', ())
    finally:
        library.use(True)
    assert library.registered('any.cc', ())


@pytest.mark.parametrize(
    ('compiler', 'reason'), [('/bin/false', 'failed'), ('/no/such/compiler', 'cannot be run')]
)
def test_a_compiler_that_fails(cache, source, compiler, reason, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda _: compiler)
    with pytest.raises(library.Unavailable, match=reason):
        library._loaded(source)


def test_no_compiler(cache, source, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda _: None)
    with pytest.raises(library.Unavailable, match='no C\\+\\+ compiler'):
        library._loaded(source)


@needs_compiler
def test_code_that_does_not_compile_leaves_nothing_behind(cache, source):
    source.write_text('no code', encoding='utf-8')
    with pytest.raises(library.Unavailable, match='failed'):
        library._loaded(source)
    assert not list(cache.iterdir())


def test_where_there_are_none_xla_computes(cache, source, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda _: None)
    monkeypatch.setattr(library, '_SOURCES', source.parent)
    assert not library._registered.__wrapped__(source.name, ('answer',))
