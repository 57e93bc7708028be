// Vectors of 16 numbers of 32 bits, on CPUs with AVX-512.

#ifndef INFLUENCE_JAX_KERNELS_VECTORS_H_
#define INFLUENCE_JAX_KERNELS_VECTORS_H_

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || \
    !defined(__AVX512VL__)
#error "numpy computes this: the CPU has no AVX-512"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace {

constexpr int kLanes = 16;

// Which lanes of the vector that begins at `first` are before `end`.
inline __mmask16 Before(int64_t first, int64_t end) {
  return end - first >= kLanes ? 0xffff : (1u << (end - first)) - 1;
}

inline __m512 Set(float x) { return _mm512_set1_ps(x); }

// log(1 + x) for x >= 0, within 3 units of the last place.
inline __m512 Log1p(__m512 x) {
  const __m512 one = Set(1), u = _mm512_add_ps(one, x);
  // u = m 2^e, m in [0.75, 1.5).
  const __m512 m = _mm512_getmant_ps(u, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_zero);
  __m512 e = _mm512_getexp_ps(u);
  e = _mm512_mask_add_ps(e, _mm512_cmp_ps_mask(m, one, _CMP_LT_OQ), e, one);
  // log m = 2 artanh s.
  const __m512 r = _mm512_sub_ps(m, one), s = _mm512_div_ps(r, _mm512_add_ps(r, Set(2)));
  const __m512 s2 = _mm512_mul_ps(s, s);
  __m512 series = Set(2.0f / 11);
  for (const float coefficient : {2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3}) {
    series = _mm512_fmadd_ps(series, s2, Set(coefficient));
  }
  const __m512 log_m = _mm512_fmadd_ps(_mm512_mul_ps(series, s2), s, _mm512_add_ps(s, s));
  // What u lost of x.
  const __m512 lost = _mm512_mul_ps(_mm512_sub_ps(x, _mm512_sub_ps(u, one)), _mm512_rcp14_ps(u));
  return _mm512_fmadd_ps(e, Set(0.693147181f), _mm512_add_ps(log_m, lost));
}

}  // namespace

#endif  // INFLUENCE_JAX_KERNELS_VECTORS_H_
