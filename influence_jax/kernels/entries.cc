// Single entries of influence matrices, and their p-values, from the bits of masks.

#include "members.h"

namespace {

// bits [examples words]
constexpr int kMembers = 16;  // a word

// Calls step(vector, which are members, which have the example) for every vector of the members of
// words `first` to `last` - 1.
template <typename Step>
inline void OverMembers(const Ensemble& of, int64_t first, int64_t last, const uint16_t* word,
                        Step step) {
  for (int64_t w = first; w < last; ++w) {
    // Members fill a half's words from the first on.
    unsigned is_member = 0xffff;
    if (w + 1 == of.first_words || w + 1 == of.words) {
      is_member = 0;
      for (int bit = 0; bit < kMembers; ++bit) {
        is_member |= unsigned{of.order[kMembers * w + bit] >= 0} << bit;
      }
    }
    for (int part = 0; part < 2; ++part) {
      step(2 * w + part, static_cast<__mmask8>(is_member >> (8 * part)),
           static_cast<__mmask8>(word[w] >> (8 * part)));
    }
  }
}

template <typename Step>
inline void OverMembers(const Ensemble& of, const uint16_t* word, Step step) {
  OverMembers(of, 0, of.words, word, step);
}

// exp(x) for x <= 0, within 2 units of the last place; 0 below -746.
inline __m512d Exp(__m512d x) {
  x = _mm512_max_pd(x, _mm512_set1_pd(-746));
  const __m512d n = _mm512_roundscale_pd(_mm512_mul_pd(x, _mm512_set1_pd(1.4426950408889634)), 0);
  // ln 2 in two parts.
  __m512d r = _mm512_fnmadd_pd(n, _mm512_set1_pd(6.93147180369123816490e-01), x);
  r = _mm512_fnmadd_pd(n, _mm512_set1_pd(1.90821492927058770002e-10), r);
  double inverse_factorial = 1.0 / 6227020800.0;  // of 13
  __m512d sum = _mm512_set1_pd(inverse_factorial);
  for (int k = 13; k > 0; --k) {
    inverse_factorial *= k;
    sum = _mm512_fmadd_pd(sum, r, _mm512_set1_pd(inverse_factorial));
  }
  return _mm512_scalef_pd(sum, n);
}

inline double Sum(__m512d of) { return _mm512_reduce_add_pd(of); }

// The smaller tail of a sum of losses, see uncertainty._smaller_tail.
double SmallerTail(const Ensemble& of, const uint16_t* word, int64_t members, int64_t count,
                   double total, double squares, const double* losses) {
  constexpr int kMostSteps = 100;
  constexpr double kConverged = 1e-4, kLargestStep = 2, kLargestTilt = 700, kTiny = 1e-300;
  const double share = double(count) / members, odds = std::log(share / (1 - share));
  double u = total / (squares > 0 ? share * (1 - share) * squares : 1), v = 0;
  double uu = 0, uv = 0, vv = 0, determinant = 0, cumulant = 0;
  // Second derivatives of the cumulants; returns the first ones. Last, the cumulants themselves.
  const auto at_saddle = [&](bool is_last, double* first) {
    __m512d p_sum{}, py_sum{}, uu_sum{}, uv_sum{}, vv_sum{}, linear{};
    __m512d product = _mm512_set1_pd(1);
    int64_t factors = 0;
    double log_product = 0;
    OverMembers(of, word, [&](int64_t vector, __mmask8 is_member, __mmask8) {
      const __m512d y = _mm512_load_pd(losses + 8 * vector);
      const __m512d x = _mm512_fmadd_pd(_mm512_set1_pd(u), y, _mm512_set1_pd(odds + v));
      const __m512d e = Exp(_mm512_sub_pd(_mm512_setzero_pd(), _mm512_abs_pd(x)));
      const __m512d one_and = _mm512_add_pd(_mm512_set1_pd(1), e);
      const __m512d small = _mm512_div_pd(e, one_and);
      const __mmask8 positive = _mm512_cmp_pd_mask(x, _mm512_setzero_pd(), _CMP_GT_OQ);
      const __m512d p = _mm512_maskz_mov_pd(
          is_member, _mm512_mask_sub_pd(small, positive, _mm512_set1_pd(1), small));
      const __m512d weight =
          _mm512_maskz_mul_pd(is_member, small, _mm512_sub_pd(_mm512_set1_pd(1), small));
      const __m512d weighted = _mm512_mul_pd(weight, y);
      p_sum = _mm512_add_pd(p_sum, p);
      py_sum = _mm512_fmadd_pd(p, y, py_sum);
      uu_sum = _mm512_fmadd_pd(weighted, y, uu_sum);
      uv_sum = _mm512_add_pd(uv_sum, weighted);
      vv_sum = _mm512_add_pd(vv_sum, weight);
      if (is_last) {  // log(1 + exp x) = max(x, 0) + log(1 + exp -|x|), of many at once
        linear = _mm512_mask_add_pd(linear, is_member & positive, linear, x);
        product = _mm512_mask_mul_pd(product, is_member, product, one_and);
        if (++factors % 1000 == 0) {  // each is 2 at most
          for (int lane = 0; lane < 8; ++lane) log_product += std::log(product[lane]);
          product = _mm512_set1_pd(1);
        }
      }
    });
    first[0] = Sum(py_sum), first[1] = Sum(p_sum);
    uu = Sum(uu_sum), uv = Sum(uv_sum), vv = Sum(vv_sum);
    determinant = std::max(uu * vv - uv * uv, kTiny);
    if (is_last) {
      for (int lane = 0; lane < 8; ++lane) log_product += std::log(product[lane]);
      const double of_odds = std::max(odds, 0.0) + std::log1p(std::exp(-std::abs(odds)));
      cumulant = Sum(linear) + log_product - members * of_odds;
    }
  };
  double first[2];
  for (int step = 0; step < kMostSteps; ++step) {
    at_saddle(false, first);
    const double by_u = total - first[0], by_v = count - first[1];
    const double du = (vv * by_u - uv * by_v) / determinant;
    const double dv = (uu * by_v - uv * by_u) / determinant;
    const double length = std::abs(du) + std::abs(dv);
    const double shrink = std::min(1.0, kLargestStep / std::max(length, kTiny));
    u = std::min(std::max(u + shrink * du, -kLargestTilt), kLargestTilt);
    v += shrink * dv;
    if (!(length > kConverged * (1 + std::abs(u)))) break;
  }
  at_saddle(true, first);
  const double w = std::sqrt(2 * std::max(u * total + v * count - cumulant, 0.0));
  const double q = std::abs(u) * std::sqrt(determinant / (members * share * (1 - share)));
  const bool near = w < 1e-3 || q < 1e-3;  // at the center of the distribution: a half
  return 0.5 * std::erfc((near ? w : w + std::log(q / w) / w) / std::sqrt(2.0));
}

// Count, mean and sums of the second to fourth powers about it, of the members of some words without
// an example and with it: moments [2 5].
void Moments(const Ensemble& of, int64_t first, int64_t last, const uint16_t* word,
             const float* losses, double* moments) {
  const auto loss = [&](int64_t vector) {
    return _mm512_cvtps_pd(_mm256_loadu_ps(losses + 8 * vector));
  };
  __m512d sum[2] = {};
  int64_t count[2] = {};
  OverMembers(of, first, last, word, [&](int64_t vector, __mmask8 is_member, __mmask8 has) {
    const __mmask8 of_group[] = {static_cast<__mmask8>(is_member & ~has), has};
    for (int group = 0; group < 2; ++group) {
      sum[group] = _mm512_mask_add_pd(sum[group], of_group[group], sum[group], loss(vector));
      count[group] += __builtin_popcount(of_group[group]);
    }
  });
  __m512d powers[2][3] = {};
  double mean[2];
  for (int group = 0; group < 2; ++group) {
    mean[group] = Sum(sum[group]) / std::max<int64_t>(count[group], 1);
  }
  OverMembers(of, first, last, word, [&](int64_t vector, __mmask8 is_member, __mmask8 has) {
    const __mmask8 of_group[] = {static_cast<__mmask8>(is_member & ~has), has};
    for (int group = 0; group < 2; ++group) {
      const __m512d d =
          _mm512_maskz_sub_pd(of_group[group], loss(vector), _mm512_set1_pd(mean[group]));
      const __m512d d2 = _mm512_mul_pd(d, d);
      powers[group][0] = _mm512_add_pd(powers[group][0], d2);
      powers[group][1] = _mm512_fmadd_pd(d2, d, powers[group][1]);
      powers[group][2] = _mm512_fmadd_pd(d2, d2, powers[group][2]);
    }
  });
  for (int group = 0; group < 2; ++group) {
    *moments++ = count[group];
    *moments++ = mean[group];
    for (const __m512d power : powers[group]) *moments++ = Sum(power);
  }
}

double PValue(const Ensemble& of, const uint16_t* word, int64_t members, const float* losses,
              float taken, double sure, double* standardized) {
  const __m512d infinite = _mm512_set1_pd(std::numeric_limits<double>::infinity());
  __m512d sum{}, low = infinite, high = _mm512_sub_pd(_mm512_setzero_pd(), infinite);
  int64_t count = 0;
  OverMembers(of, word, [&](int64_t vector, __mmask8 is_member, __mmask8 has) {
    const __m512d all = _mm512_cvtps_pd(_mm256_loadu_ps(losses + 8 * vector));
    // Rounded as losses are: what is equal stays so.
    const __m512d loss = _mm512_cvtps_pd(_mm512_cvtpd_ps(
        _mm512_mask_sub_pd(all, has, all, _mm512_set1_pd(taken))));
    _mm512_store_pd(standardized + 8 * vector, loss);
    sum = _mm512_mask_add_pd(sum, is_member, sum, loss);
    low = _mm512_mask_min_pd(low, is_member, low, loss);
    high = _mm512_mask_max_pd(high, is_member, high, loss);
    count += __builtin_popcount(has);
  });
  const double mean = Sum(sum) / members;
  const double least = _mm512_reduce_min_pd(low), largest = _mm512_reduce_max_pd(high);
  const double spread = std::max(std::abs(least - mean), std::abs(largest - mean));
  if (!(largest > least) || !(spread > 0)) return 1;
  __m512d total_sum{}, square_sum{};
  bool two_valued = true;
  OverMembers(of, word, [&](int64_t vector, __mmask8 is_member, __mmask8 has) {
    const __m512d loss = _mm512_load_pd(standardized + 8 * vector);
    const __mmask8 extreme =
        _mm512_cmp_pd_mask(loss, _mm512_set1_pd(least), _CMP_EQ_OQ) |
        _mm512_cmp_pd_mask(loss, _mm512_set1_pd(largest), _CMP_EQ_OQ);
    two_valued = two_valued && !(is_member & ~extreme);
    const __m512d y = _mm512_maskz_div_pd(is_member, _mm512_sub_pd(loss, _mm512_set1_pd(mean)),
                                          _mm512_set1_pd(spread));
    _mm512_store_pd(standardized + 8 * vector, y);
    total_sum = _mm512_mask_add_pd(total_sum, has, total_sum, y);
    square_sum = _mm512_fmadd_pd(y, y, square_sum);
  });
  if (two_valued) return std::numeric_limits<double>::quiet_NaN();
  const double total = Sum(total_sum), squares = Sum(square_sum);
  double exponent = 0;  // see uncertainty._bernstein
  for (const int64_t group : {count, members - count}) {
    const double size = std::max<int64_t>(group, 1), beyond = std::abs(total) / size;
    exponent = std::max(exponent, size * beyond * beyond /
                                      std::max(2 * squares / members + 2.0 / 3 * beyond, 1e-300));
  }
  const double bound = 2 * std::exp(-exponent);
  if (!(bound > sure)) return bound;
  return 2 * SmallerTail(of, word, members, count, total, squares, standardized);
}

}  // namespace

extern "C" {

// Of entries `first` to `last` - 1: sums of the losses, and of their squares, of the members of words
// `first_word` to `last_word` - 1 that have the example. Fastest where those of a target follow one
// another.
//
// of_target, of_example [entries]; sums [entries 2]. Returns 0; -1: no memory.
int64_t entries_sums(int64_t first, int64_t last, const Ensemble* ensemble, int64_t first_word,
                     int64_t last_word, const int64_t* of_target, const int64_t* of_example,
                     double* sums) try {
  const Ensemble& of = *ensemble;
  constexpr int kAhead = 4;
  LossRow losses(of);
  for (int64_t entry = first; entry < last; ++entry) {
    const float* const row = losses.Of(of_target[entry]);
    const uint16_t* const word = of.bits + of_example[entry] * of.words;
    if (entry + kAhead < last) {  // examples lie anywhere
      const uint16_t* const later = of.bits + of_example[entry + kAhead] * of.words;
      for (int64_t w = 0; w < of.words; w += kWordLanes) __builtin_prefetch(later + w);
    }
    __m512d sum[2] = {}, square[2] = {};
    for (int64_t w = first_word; w < last_word; ++w) {
      for (int part = 0; part < 2; ++part) {
        const __m512d value = _mm512_cvtps_pd(
            _mm256_maskz_loadu_ps(word[w] >> (8 * part), row + kMembers * w + 8 * part));
        sum[part] = _mm512_add_pd(sum[part], value);
        square[part] = _mm512_fmadd_pd(value, value, square[part]);
      }
    }
    sums[2 * entry] = _mm512_reduce_add_pd(_mm512_add_pd(sum[0], sum[1]));
    sums[2 * entry + 1] = _mm512_reduce_add_pd(_mm512_add_pd(square[0], square[1]));
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

// Moments of the losses of targets `first` to `last` - 1 of a block, of the members of the first words
// and of the others, without an example and with it.
//
// of_example [targets of the block], -1 for one that nobody has.
// moments [targets of the block, 2, 2, 5]: see Moments. Returns 0; -1: no memory.
int64_t entries_moments(int64_t first, int64_t last, const Ensemble* ensemble,
                        const int64_t* of_example, double* moments) try {
  const Ensemble& of = *ensemble;
  LossRow losses(of);
  uint16_t* const nobody = Scratch<uint16_t>(kOthers, of.words);
  std::fill(nobody, nobody + of.words, 0);
  for (int64_t target = first; target < last; ++target) {
    const int64_t example = of_example[target];
    const uint16_t* const word = example < 0 ? nobody : of.bits + example * of.words;
    for (int half = 0; half < 2; ++half) {
      Moments(of, half ? of.first_words : 0, half ? of.words : of.first_words, word,
              losses.Of(target), moments + 5 * 2 * (2 * target + half));
    }
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

// Two-sided p-values of entries `first` to `last` - 1 by the randomness of the masks, as
// uncertainty.randomization_p_values computes them, but for what the number of subsets allows.
//
// of_target, of_example: as above. taken [entries]: subtracted from the losses of the members
// with the example first. sure: where a bound of the p-value is no more than that, it will do.
// p_values [entries]: NaN where losses have two values, which is another test. Returns 0; -1: no
// memory.
int64_t entries_p_values(int64_t first, int64_t last, const Ensemble* ensemble,
                         const int64_t* of_target, const int64_t* of_example, const float* taken,
                         double sure, double* p_values) try {
  const Ensemble& of = *ensemble;
  LossRow losses(of);
  double* const standardized = Scratch<double>(kOthers, of.slots);
  for (int64_t entry = first; entry < last; ++entry) {
    p_values[entry] = PValue(of, of.bits + of_example[entry] * of.words, of.members,
                             losses.Of(of_target[entry]), taken[entry], sure, standardized);
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}
}
