// Cheap scores of entries [examples targets], and the means that follow from them: what
// influence_jax.estimators.prior says, in passes over 16 targets' columns, which stay in a cache.

#include <new>
#include <vector>

#include "vectors.h"

namespace {

using Vectors = std::vector<__m512>;

constexpr int kAtOnce = 16;  // examples whose features are multiplied together
constexpr int kTile = 4;     // features, likewise

inline __m512 Zero() { return _mm512_setzero_ps(); }

// Sums of vectors in double precision.
class Sums {
 public:
  explicit Sums(int64_t vectors) : sums_(2 * vectors) {}

  void Add(int64_t vector, __m512 x) {
    __m512d* const sum = &sums_[2 * vector];
    sum[0] = _mm512_add_pd(sum[0], _mm512_cvtps_pd(_mm512_castps512_ps256(x)));
    sum[1] = _mm512_add_pd(sum[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)));
  }
  double Of(int64_t vector, int lane) const { return sums_[2 * vector + lane / 8][lane % 8]; }
  // Divided by a number, in single precision.
  __m512 Mean(int64_t vector, double count) const {
    const __m512d* const sum = &sums_[2 * vector];
    const __m512d per_count = _mm512_set1_pd(1 / count);
    return _mm512_insertf32x8(
        _mm512_castps256_ps512(_mm512_cvtpd_ps(_mm512_mul_pd(sum[0], per_count))),
        _mm512_cvtpd_ps(_mm512_mul_pd(sum[1], per_count)), 1);
  }

 private:
  std::vector<__m512d> sums_;
};

// The features of standardized scores: each score itself, and hinges at its knots.
struct Features {
  int64_t scores;
  const float* values;        // [scores examples targets]
  const int64_t* num_knots;   // [scores]
  const float* knots;         // of one score after the other

  int64_t Count() const {
    int64_t count = scores;
    for (int64_t score = 0; score < scores; ++score) count += num_knots[score];
    return count;
  }

  // Calls use(feature, its values) for 16 targets of an example; hinges are not 0 at a score of 0.
  template <typename Use>
  void Of(int64_t at, int64_t entries, __mmask16 valid, Use use) const {
    const float* knot = knots;
    int64_t feature = 0;
    for (int64_t score = 0; score < scores; ++score) {
      const __m512 value = _mm512_maskz_loadu_ps(valid, values + score * entries + at);
      use(feature++, value);
      for (int64_t k = 0; k < num_knots[score]; ++k) {
        use(feature++, _mm512_max_ps(_mm512_sub_ps(value, Set(*knot++)), Zero()));
      }
    }
  }
};

// The estimates of either half of the members, from sums of losses.
struct Halves {
  const float* sums;     // [2 examples targets]
  const float* of_sums;  // [2 examples]

  __m512 Of(int half, int64_t example, int64_t target, int64_t examples, int64_t targets,
            __mmask16 valid) const {
    const int64_t row = half * examples + example;
    return _mm512_mul_ps(_mm512_maskz_loadu_ps(valid, sums + row * targets + target),
                         Set(of_sums[row]));
  }
};

// One over each, 0 where that is 0.
inline __m512 Inverse(__m512 x) {
  return _mm512_maskz_div_ps(_mm512_cmp_ps_mask(x, Zero(), _CMP_GT_OQ), Set(1), x);
}

// Adds to the products [size size] of the rows of all pairs, above the diagonal, those of some
// examples: rows [examples size], size a multiple of kTile.
void AddProducts(const __m512* rows, int64_t examples, int64_t size, __m512* products) {
  for (int64_t p = 0; p < size; p += kTile) {
    for (int64_t q = p; q < size; q += kTile) {
      __m512 sum[kTile][kTile];
#pragma GCC unroll 4
      for (int i = 0; i < kTile; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < kTile; ++j) sum[i][j] = products[(p + i) * size + q + j];
      }
      for (int64_t example = 0; example < examples; ++example) {
        const __m512* const row = rows + example * size;
#pragma GCC unroll 4
        for (int i = 0; i < kTile; ++i) {
#pragma GCC unroll 4
          for (int j = 0; j < kTile; ++j) {
            sum[i][j] = _mm512_fmadd_ps(row[p + i], row[q + j], sum[i][j]);
          }
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < kTile; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < kTile; ++j) products[(p + i) * size + q + j] = sum[i][j];
      }
    }
  }
}

}  // namespace

extern "C" {

// Standardizes the scores of targets `first` to `last` - 1 within each, own ones left out.
//
// scores: rows of examples, `stride` apart. self_index [targets]. standardized [examples targets].
// Returns 0; 1 where a score is not finite.
int64_t scores_standardized(int64_t first, int64_t last, int64_t examples, int64_t targets,
                            const float* scores, int64_t stride, const int32_t* self_index,
                            float* standardized) {
  bool is_finite = true;
  for (int64_t target = first; target < last; target += kLanes) {
    const __mmask16 valid = Before(target, last);
    const __m512i own = _mm512_maskz_loadu_epi32(valid, self_index + target);
    const auto score = [&](int64_t example) {
      return _mm512_maskz_loadu_ps(valid, scores + example * stride + target);
    };
    const auto others = [&](int64_t example) {
      return _mm512_mask_cmpneq_epi32_mask(valid, own, _mm512_set1_epi32(example));
    };
    __m512d mean[2] = {}, square[2] = {}, count[2] = {};
    const auto half = [](__m512 x, int of) {
      return _mm512_cvtps_pd(of ? _mm512_extractf32x8_ps(x, 1) : _mm512_castps512_ps256(x));
    };
    for (int64_t example = 0; example < examples; ++example) {
      const __m512 value = score(example);
      constexpr int kNotFinite = 0x99;
      is_finite = is_finite && !_mm512_fpclass_ps_mask(value, kNotFinite);
      const __mmask16 counted = others(example);
      for (int of = 0; of < 2; ++of) {
        const __mmask8 which = counted >> (8 * of);
        mean[of] = _mm512_mask_add_pd(mean[of], which, mean[of], half(value, of));
        count[of] = _mm512_mask_add_pd(count[of], which, count[of], _mm512_set1_pd(1));
      }
    }
    for (int of = 0; of < 2; ++of) {
      count[of] = _mm512_max_pd(count[of], _mm512_set1_pd(1));
      mean[of] = _mm512_div_pd(mean[of], count[of]);
    }
    for (int64_t example = 0; example < examples; ++example) {
      const __m512 value = score(example);
      const __mmask16 counted = others(example);
      for (int of = 0; of < 2; ++of) {
        const __m512d off =
            _mm512_maskz_sub_pd(counted >> (8 * of), half(value, of), mean[of]);
        square[of] = _mm512_fmadd_pd(off, off, square[of]);
      }
    }
    for (int of = 0; of < 2; ++of) {
      const __m512d deviation = _mm512_sqrt_pd(_mm512_div_pd(square[of], count[of]));
      square[of] = _mm512_mask_div_pd(
          _mm512_set1_pd(1), _mm512_cmp_pd_mask(deviation, _mm512_setzero_pd(), _CMP_GT_OQ),
          _mm512_set1_pd(1), deviation);
    }
    for (int64_t example = 0; example < examples; ++example) {
      const __m512 value = score(example);
      __m256 scaled[2];
      for (int of = 0; of < 2; ++of) {
        scaled[of] = _mm512_cvtpd_ps(
            _mm512_mul_pd(_mm512_sub_pd(half(value, of), mean[of]), square[of]));
      }
      const __m512 both = _mm512_insertf32x8(_mm512_castps256_ps512(scaled[0]), scaled[1], 1);
      _mm512_mask_storeu_ps(standardized + example * targets + target, valid,
                            _mm512_maskz_mov_ps(others(example), both));
    }
  }
  return is_finite ? 0 : 1;
}

// Moments of the features, and the estimates, of targets `first` to `last` - 1, all about the mean
// of the target's column: P features, then the estimates of both halves, G = P + 2 of them.
//
// bounds [blocks + 1]: of blocks of examples. unit [targets]: by which estimates are divided.
// of_target [targets G G]: of each target. of_block [blocks G G]: of these targets, added to. Both
// above the diagonal alone. Returns 0; -1: no memory.
int64_t scores_moments(int64_t first, int64_t last, int64_t examples, int64_t targets,
                       int64_t num_scores, const float* scores, const int64_t* num_knots,
                       const float* knots, const float* sums, const float* of_sums,
                       const float* unit, int64_t blocks, const int64_t* bounds,
                       double* of_target, double* of_block) try {
  const Features features{num_scores, scores, num_knots, knots};
  const Halves halves{sums, of_sums};
  const int64_t count = features.Count(), all = count + 2;
  const int64_t size = (all + kTile - 1) / kTile * kTile;
  Vectors rows(kAtOnce * size, Zero()), mean(size), products(size * size);
  for (int64_t target = first; target < last; target += kLanes) {
    const __mmask16 valid = Before(target, last);
    const __m512 per_unit = Inverse(_mm512_maskz_loadu_ps(valid, unit + target));
    const auto of_example = [&](int64_t example, auto use) {
      features.Of(example * targets + target, examples * targets, valid, use);
      for (int half = 0; half < 2; ++half) {
        use(count + half,
            _mm512_mul_ps(halves.Of(half, example, target, examples, targets, valid), per_unit));
      }
    };
    Sums total(all);
    for (int64_t begin = 0; begin < examples; begin += kAtOnce) {
      std::fill(mean.begin(), mean.end(), Zero());
      for (int64_t example = begin; example < std::min(begin + kAtOnce, examples); ++example) {
        of_example(example, [&](int64_t feature, __m512 value) {
          mean[feature] = _mm512_add_ps(mean[feature], value);
        });
      }
      for (int64_t feature = 0; feature < all; ++feature) total.Add(feature, mean[feature]);
    }
    for (int64_t feature = 0; feature < all; ++feature) mean[feature] = total.Mean(feature, examples);

    Sums of_all(all * all);
    for (int64_t block = 0; block < blocks; ++block) {
      std::fill(products.begin(), products.end(), Zero());
      for (int64_t begin = bounds[block]; begin < bounds[block + 1]; begin += kAtOnce) {
        const int64_t some = std::min<int64_t>(kAtOnce, bounds[block + 1] - begin);
        for (int64_t one = 0; one < some; ++one) {
          of_example(begin + one, [&](int64_t feature, __m512 value) {
            rows[one * size + feature] = _mm512_maskz_sub_ps(valid, value, mean[feature]);
          });
        }
        AddProducts(rows.data(), some, size, products.data());
      }
      for (int64_t p = 0; p < all; ++p) {
        for (int64_t q = p; q < all; ++q) {
          const __m512 product = products[p * size + q];
          of_all.Add(p * all + q, product);
          of_block[(block * all + p) * all + q] += _mm512_reduce_add_ps(product);
        }
      }
    }
    for (int64_t lane = 0; lane < std::min<int64_t>(kLanes, last - target); ++lane) {
      for (int64_t p = 0; p < all; ++p) {
        for (int64_t q = p; q < all; ++q) {
          of_target[((target + lane) * all + p) * all + q] = of_all.Of(p * all + q, lane);
        }
      }
    }
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

// Means of the entries of targets `first` to `last` - 1 by what either half of the members taught,
// each times the target's own slope: prior.own_slopes.
//
// coefficients [2 features]; unit [targets]: what means are multiplied by, estimates divided by.
// noise, variance [2]: see there. means [2 examples targets]. Returns 0; -1: no memory.
int64_t scores_means(int64_t first, int64_t last, int64_t examples, int64_t targets,
                     int64_t num_scores, const float* scores, const int64_t* num_knots,
                     const float* knots, const float* sums, const float* of_sums,
                     const float* unit, const float* coefficients, const double* noise,
                     const double* variance, float* means) try {
  const Features features{num_scores, scores, num_knots, knots};
  const Halves halves{sums, of_sums};
  const int64_t count = features.Count(), entries = examples * targets;
  // What features are at a score of 0, where the mean is 0, too.
  std::vector<float> at_zero;
  for (int64_t score = 0; score < num_scores; ++score) {
    at_zero.push_back(0);
    for (int64_t k = 0; k < num_knots[score]; ++k) at_zero.push_back(std::max(-*knots++, 0.0f));
  }
  for (int64_t target = first; target < last; target += kLanes) {
    const __mmask16 valid = Before(target, last);
    const __m512 of_unit = _mm512_maskz_loadu_ps(valid, unit + target);
    const __m512 per_unit = Inverse(of_unit);
    Sums total(4);  // of squares, and of products with the estimates, of each half
    for (int64_t begin = 0; begin < examples; begin += kAtOnce) {
      __m512 square[2] = {Zero(), Zero()}, product[2] = {Zero(), Zero()};
      for (int64_t example = begin; example < std::min(begin + kAtOnce, examples); ++example) {
        const int64_t at = example * targets + target;
        __m512 mean[2] = {Zero(), Zero()};
        features.Of(at, entries, valid, [&](int64_t feature, __m512 value) {
          value = _mm512_sub_ps(value, Set(at_zero[feature]));
          for (int half = 0; half < 2; ++half) {
            const __m512 coefficient = Set(coefficients[half * count + feature]);
            mean[half] = _mm512_fmadd_ps(coefficient, value, mean[half]);
          }
        });
        for (int half = 0; half < 2; ++half) {
          const __m512 estimate = _mm512_mul_ps(
              halves.Of(half, example, target, examples, targets, valid), per_unit);
          square[half] = _mm512_fmadd_ps(mean[half], mean[half], square[half]);
          product[half] = _mm512_fmadd_ps(mean[half], estimate, product[half]);
          _mm512_mask_storeu_ps(means + half * entries + at, valid, mean[half]);
        }
      }
      for (int half = 0; half < 2; ++half) {
        total.Add(half, square[half]);
        total.Add(2 + half, product[half]);
      }
    }
    for (int half = 0; half < 2; ++half) {
      alignas(64) float slopes[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const double squares = std::max(total.Of(half, lane), 1e-300);
        const double off = total.Of(2 + half, lane) / squares - 1;
        const double share = variance[half] / (variance[half] + noise[half] / squares + 1e-300);
        slopes[lane] = std::max(1 + off * share, 0.0);
      }
      const __m512 factor = _mm512_mul_ps(_mm512_load_ps(slopes), of_unit);
      for (int64_t example = 0; example < examples; ++example) {
        float* const mean = means + half * entries + example * targets + target;
        _mm512_mask_storeu_ps(mean, valid,
                              _mm512_mul_ps(_mm512_maskz_loadu_ps(valid, mean), factor));
      }
    }
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}
}
