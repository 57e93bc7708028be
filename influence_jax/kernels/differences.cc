// Differences of means and their standard errors, from sums of losses: all entries in one pass.

#include "vectors.h"

extern "C" {

// Entries of examples `first` to `last` - 1. See standard_errors.standard_error, of which this is
// what holds of entries that noise may be; others are listed, as example * targets + target.
//
// values, errors [examples targets]: the first holds sums of the losses with the example before.
// per_in, per_out [examples]: one over how many members have it, and over how many have not.
// by_kurtosis, by_skewness [examples]: of the widening for the losses' shape.
// total, squares, kurtosis, skewness [targets]: of the losses, the last one squared.
// scale, error_scale [targets]: by which values and errors are multiplied in the end.
// Returns how many are listed.
int64_t differences(int64_t first, int64_t last, int64_t targets, float* values, float* errors,
                    const float* per_in, const float* per_out, const float* by_kurtosis,
                    const float* by_skewness, const float* total, const float* squares,
                    const float* kurtosis, const float* skewness, const float* scale,
                    const float* error_scale, int64_t freedom, double widest,
                    double surely_not_noise, int64_t* listed) {
  const __m512 per_freedom = Set(1.0f / freedom), one = Set(1), most = Set(widest);
  const __m512 beyond = Set(surely_not_noise * surely_not_noise);
  int64_t count = 0;
  for (int64_t example = first; example < last; ++example) {
    const __m512 in = Set(per_in[example]), out = Set(per_out[example]);
    const __m512 both = _mm512_mul_ps(_mm512_add_ps(in, out), per_freedom);
    const __m512 of_kurtosis = Set(by_kurtosis[example]), of_skewness = Set(by_skewness[example]);
    float* const value = values + example * targets;
    float* const error = errors + example * targets;
    for (int64_t target = 0; target < targets; target += kLanes) {
      const __mmask16 valid = Before(target, targets);
      const auto load = [&](const float* from) {
        return _mm512_maskz_loadu_ps(valid, from + target);
      };
      const __m512 inside = load(value), outside = _mm512_sub_ps(load(total), inside);
      const __m512 mean_in = _mm512_mul_ps(inside, in), mean_out = _mm512_mul_ps(outside, out);
      const __m512 of_means =
          _mm512_fmadd_ps(inside, mean_in, _mm512_mul_ps(outside, mean_out));
      const __m512 within =
          _mm512_max_ps(_mm512_sub_ps(load(squares), of_means), _mm512_setzero_ps());
      __m512 widening = _mm512_fmadd_ps(of_kurtosis, load(kurtosis), one);
      widening = _mm512_fmadd_ps(of_skewness, load(skewness), widening);
      widening = _mm512_min_ps(_mm512_max_ps(widening, one), most);
      const __m512 pooled =
          _mm512_mul_ps(_mm512_mul_ps(within, both), _mm512_mul_ps(widening, widening));
      const __m512 difference = _mm512_sub_ps(mean_out, mean_in);
      const __mmask16 unlike =
          _mm512_mask_cmp_ps_mask(valid, _mm512_mul_ps(difference, difference),
                                  _mm512_mul_ps(beyond, pooled), _CMP_GT_OQ);
      _mm512_mask_storeu_ps(value + target, valid, _mm512_mul_ps(difference, load(scale)));
      _mm512_mask_storeu_ps(error + target, valid,
                            _mm512_mul_ps(_mm512_sqrt_ps(pooled), load(error_scale)));
      for (unsigned rest = unlike; rest; rest &= rest - 1) {
        listed[count++] = example * targets + target + __builtin_ctz(rest);
      }
    }
  }
  return count;
}
}
