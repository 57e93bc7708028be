// Medians, and largest absolute values, of columns of matrices that lie row after row.

#include <cmath>
#include <limits>
#include <new>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kBins = 256;

// The middle of 16 columns: which of the bins between a column's least and largest number holds
// it, then of the few numbers in that bin.
class Middle {
 public:
  explicit Middle(int64_t count) : count_(count), counts_(kLanes * kBins) {}

  void Of(const float* rows, int64_t stride, __mmask16 valid, float* medians) {
    const float infinity = std::numeric_limits<float>::infinity();
    __m512 least = Set(infinity), most = Set(-infinity);
    __mmask16 unknown = 0;
    const auto load = [&](int64_t row) { return _mm512_maskz_loadu_ps(valid, rows + row * stride); };
    for (int64_t row = 0; row < count_; ++row) {
      const __m512 some = load(row);
      unknown |= _mm512_cmp_ps_mask(some, some, _CMP_UNORD_Q);
      least = _mm512_min_ps(least, some);
      most = _mm512_max_ps(most, some);
    }
    const __m512 range = _mm512_sub_ps(most, least);
    // All in one bin where there is no range, or none that is finite.
    constexpr int kNotFiniteOrZero = 0x99 | 0x06;
    const __m512 a_bin = _mm512_maskz_div_ps(_knot_mask16(_mm512_fpclass_ps_mask(range, kNotFiniteOrZero)),
                                             Set(kBins), range);
    const auto bins_of = [&](__m512 some) {
      const __m512i bin =
          _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_sub_ps(some, least), a_bin));
      return _mm512_min_epi32(_mm512_max_epi32(bin, _mm512_setzero_si512()),
                              _mm512_set1_epi32(kBins - 1));
    };
    std::fill(counts_.begin(), counts_.end(), 0);
    const __m512i lane_first = _mm512_mullo_epi32(
        _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
        _mm512_set1_epi32(kBins));
    for (int64_t row = 0; row < count_; ++row) {
      alignas(64) int32_t at[kLanes];
      _mm512_store_si512(at, _mm512_add_epi32(lane_first, bins_of(load(row))));
      for (int lane = 0; lane < kLanes; ++lane) ++counts_[at[lane]];
    }
    // Of an even number the mean of two, which may lie in two bins.
    const int64_t low = (count_ - 1) / 2, high = count_ / 2;
    alignas(64) int32_t from[kLanes], to[kLanes];
    int64_t before[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t* const counts = counts_.data() + lane * kBins;
      int64_t below = 0;
      int bin = 0;
      while (below + counts[bin] <= low) below += counts[bin++];
      from[lane] = bin;
      before[lane] = below;
      while (below + counts[bin] <= high) below += counts[bin++];
      to[lane] = bin;
      among_[lane].clear();
    }
    const __m512i first = _mm512_load_si512(from), last = _mm512_load_si512(to);
    for (int64_t row = 0; row < count_; ++row) {
      const __m512 some = load(row);
      const __m512i bins = bins_of(some);
      const __mmask16 chosen = _mm512_mask_cmple_epi32_mask(
          _mm512_cmpge_epi32_mask(bins, first) & valid, bins, last);
      if (!chosen) continue;
      alignas(64) float numbers[kLanes];
      _mm512_store_ps(numbers, some);
      for (unsigned rest = chosen; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        among_[lane].push_back(numbers[lane]);
      }
    }
    for (unsigned rest = valid; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      if (unknown >> lane & 1) {
        medians[lane] = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      auto& among = among_[lane];
      const auto middle = among.begin() + (low - before[lane]);
      std::nth_element(among.begin(), middle, among.end());
      const float one = *middle;
      const float other = high == low ? one : *std::min_element(middle + 1, among.end());
      medians[lane] = (one + other) / 2;
    }
  }

 private:
  int64_t count_;
  std::vector<int32_t> counts_;
  std::vector<float> among_[kLanes];
};

}  // namespace

extern "C" {

// Of columns `first` to `last` - 1 of a matrix of so many rows, `stride` apart: medians, NaN where
// a number is. Returns 0; -1: no memory.
int64_t medians_of_columns(int64_t first, int64_t last, int64_t rows, const float* numbers,
                           int64_t stride, float* medians) try {
  Middle middle(rows);
  for (int64_t column = first; column < last; column += kLanes) {
    middle.Of(numbers + column, stride, Before(column, last), medians + column);
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

// Likewise the largest absolute values; NaN where a number is.
int64_t medians_largest(int64_t first, int64_t last, int64_t rows, const float* numbers,
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
}
