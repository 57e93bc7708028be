"""Headers of `.npy` files: what numpy writes is read, and any other bytes are refused in a line."""

import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from influence_jax.data.sources import numpy_files

DTYPES = st.one_of(
    st_numpy.boolean_dtypes(),
    st_numpy.integer_dtypes(),
    st_numpy.floating_dtypes(),
    st_numpy.complex_number_dtypes(),
    st_numpy.unicode_string_dtypes(),
    st_numpy.byte_string_dtypes(),
    st_numpy.datetime64_dtypes(endianness='<'),
)


def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


@settings(max_examples=100, deadline=None)
@given(
    DTYPES,
    st.lists(st.integers(0, 4), max_size=5),
    st.sampled_from([None, (1, 0), (2, 0), (3, 0)]),
    st.booleans(),
)
def test_what_numpy_writes_is_read(dtype, shape, version, fortran):
    array = np.zeros(shape, dtype, 'F' if fortran else 'C')
    content = saved(array, version)
    header = numpy_files.read_header(io.BytesIO(content))
    assert (header.shape, header.dtype) == (array.shape, array.dtype)
    assert header.offset + header.nbytes == len(content)
    assert header.fortran_order == (array.flags.f_contiguous and not array.flags.c_contiguous)


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="'{}[](),:descrfotn_shapeTueFl1|<u4O-+~ \n") | st.binary(max_size=60),
    st.sampled_from([b'\x01', b'\x02', b'\x03', b'\x00']),
)
def test_any_header_is_read_or_refused_in_a_line(text, version):
    text = text.encode() if isinstance(text, str) else text
    length = len(text).to_bytes(2 if version == b'\x01' else 4, 'little')
    try:
        numpy_files.read_header(io.BytesIO(numpy_files.MAGIC + version + b'\x00' + length + text))
    except ValueError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize('nested', ['(' * 9_999, '[' * 9_999, '-' * 9_998 + '1', 'f(' * 4_000])
def test_nesting_costs_no_time_and_no_traceback(nested):
    content = numpy_files.MAGIC + b'\x01\x00' + len(nested).to_bytes(2, 'little') + nested.encode()
    start = time.monotonic()
    with pytest.raises(ValueError, match='header'):
        numpy_files.read_header(io.BytesIO(content))
    assert time.monotonic() - start < 1
