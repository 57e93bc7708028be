// What a summary asks of matrices that lie row after row: medians and largest absolute values of
// columns, entries beyond their floors.

#include <cmath>
#include <limits>
#include <new>
#include <vector>

#include "vectors.h"

namespace {

// The order of numbers as that of whole numbers, and back.
inline __m512i Key(__m512i bits) {
  return _mm512_xor_si512(
      bits, _mm512_and_si512(_mm512_srai_epi32(bits, 31), _mm512_set1_epi32(0x7fffffff)));
}

// The middle of 16 columns at once, by bisection: the number that half of them do not exceed.
class Middle {
 public:
  explicit Middle(int64_t count) : keys_(count) {}

  // NaN where a number is.
  __m512 Of(const float* rows, int64_t stride, __mmask16 valid) {
    const int64_t count = keys_.size();
    __mmask16 unknown = 0;
    __m512i low = _mm512_set1_epi32(std::numeric_limits<int32_t>::max());
    __m512i high = _mm512_set1_epi32(std::numeric_limits<int32_t>::min());
    for (int64_t row = 0; row < count; ++row) {
      const __m512 some = _mm512_maskz_loadu_ps(valid, rows + row * stride);
      unknown |= _mm512_cmp_ps_mask(some, some, _CMP_UNORD_Q);
      const __m512i key = keys_[row] = Key(_mm512_castps_si512(some));
      low = _mm512_min_epi32(low, key);
      high = _mm512_max_epi32(high, key);
    }
    const __m512i before = _mm512_set1_epi32((count - 1) / 2);
    while (_mm512_cmplt_epi32_mask(low, high)) {
      const __m512i half = _mm512_add_epi32(
          _mm512_and_si512(low, high), _mm512_srai_epi32(_mm512_xor_si512(low, high), 1));
      const __mmask16 is_enough = _mm512_cmpgt_epi32_mask(CountUpTo(half), before);
      high = _mm512_mask_mov_epi32(high, is_enough, half);
      low = _mm512_mask_add_epi32(low, ~is_enough, half, _mm512_set1_epi32(1));
    }
    // Of an even number the mean of two.
    __m512i next = low;
    if (count % 2 == 0) {
      const __mmask16 is_alone =
          _mm512_cmple_epi32_mask(CountUpTo(low), _mm512_set1_epi32(count / 2));
      next = _mm512_mask_mov_epi32(next, is_alone, LeastAbove(low));
    }
    const auto number = [](__m512i key) { return _mm512_castsi512_ps(Key(key)); };
    const __m512 mean =
        _mm512_mul_ps(_mm512_add_ps(number(low), number(next)), _mm512_set1_ps(0.5f));
    return _mm512_mask_mov_ps(mean, unknown, Set(std::numeric_limits<float>::quiet_NaN()));
  }

 private:
  __m512i CountUpTo(__m512i most) const {
    const __m512i one = _mm512_set1_epi32(1);
    __m512i count = _mm512_setzero_si512();
    for (const __m512i key : keys_) {
      count = _mm512_mask_add_epi32(count, _mm512_cmple_epi32_mask(key, most), count, one);
    }
    return count;
  }
  __m512i LeastAbove(__m512i bound) const {
    __m512i least = _mm512_set1_epi32(std::numeric_limits<int32_t>::max());
    for (const __m512i key : keys_) {
      least = _mm512_mask_min_epi32(least, _mm512_cmpgt_epi32_mask(key, bound), least, key);
    }
    return least;
  }

  std::vector<__m512i> keys_;  // in a cache, where rows far apart would push one another out
};

}  // namespace

extern "C" {

// Of columns `first` to `last` - 1 of a matrix of so many rows, `stride` apart: medians, NaN where
// a number is. Returns 0; -1: no memory.
int64_t matrices_medians(int64_t first, int64_t last, int64_t rows, const float* numbers,
                           int64_t stride, float* medians) try {
  Middle middle(rows);
  for (int64_t column = first; column < last; column += kLanes) {
    const __mmask16 valid = Before(column, last);
    _mm512_mask_storeu_ps(medians + column, valid, middle.Of(numbers + column, stride, valid));
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

// Likewise the largest absolute values; NaN where a number is.
int64_t matrices_largest(int64_t first, int64_t last, int64_t rows, const float* numbers,
                        int64_t stride, float* largest) {
  for (int64_t column = first; column < last; column += kLanes) {
    const __mmask16 valid = Before(column, last);
    __m512 most = _mm512_setzero_ps();
    __mmask16 unknown = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const __m512 some = _mm512_maskz_loadu_ps(valid, numbers + row * stride + column);
      unknown |= _mm512_cmp_ps_mask(some, some, _CMP_UNORD_Q);
      most = _mm512_max_ps(most, _mm512_abs_ps(some));
    }
    most = _mm512_mask_mov_ps(most, unknown, Set(std::numeric_limits<float>::quiet_NaN()));
    _mm512_mask_storeu_ps(largest + column, valid, most);
  }
  return 0;
}

// Entries of rows `first` to `last` - 1 whose absolute value is above their floor, where that is a
// number: row * columns + column, listed. Rows are `stride` and `floor_stride` apart. Returns how
// many.
int64_t matrices_beyond(int64_t first, int64_t last, int64_t columns, const float* numbers,
                        int64_t stride, const float* floors, int64_t floor_stride,
                        int64_t* listed) {
  int64_t count = 0;
  for (int64_t row = first; row < last; ++row) {
    for (int64_t column = 0; column < columns; column += kLanes) {
      const __mmask16 valid = Before(column, columns);
      const __m512 some = _mm512_maskz_loadu_ps(valid, numbers + row * stride + column);
      const __m512 floor = _mm512_maskz_loadu_ps(valid, floors + row * floor_stride + column);
      unsigned beyond = _mm512_mask_cmp_ps_mask(valid, _mm512_abs_ps(some), floor, _CMP_GT_OQ);
      for (; beyond; beyond &= beyond - 1) {
        listed[count++] = row * columns + column + __builtin_ctz(beyond);
      }
    }
  }
  return count;
}
}
