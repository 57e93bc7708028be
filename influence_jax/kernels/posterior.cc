// Posteriors of entries [examples targets], and counts from which they are learnt: one pass over
// the ensemble's deviations from the means.

#include <cmath>

#include "vectors.h"

namespace {

// Targets with what is known of their entries; shrinkage._Block says what each array is.
struct Block {
  int64_t targets;
  const float *values, *errors;  // of the deviations, [examples targets]
  const float* means;            // [examples targets]; null where all are 0
  const float *unit, *scale;     // [targets]
  const int32_t* self_index;     // [targets]
  int64_t freedom;               // of Student's t
  const float* edges;            // of the means, between bins
  int64_t num_edges;
};

// Sixteen entries of an example.
struct Entries {
  __mmask16 valid, is_other;
  __m512 value, error;     // deviation and its standard error, by the ensemble
  __m512 z, size;          // normal z-score, and its absolute value
  __m512 error_of_z;       // the standard error that goes with z
  __m512 mean;
  __m512i bin;
};

class Reader {
 public:
  explicit Reader(const Block& of)
      : of_(of),
        freedom_(Set(of.freedom)),
        per_freedom_(Set(1.0f / of.freedom)),
        factor_(Set((8.0f * of.freedom + 1) / (8.0f * of.freedom + 3))) {}

  Entries operator()(int64_t example, int64_t target) const {
    const int64_t at = example * of_.targets + target;
    Entries found;
    found.valid = Before(target, of_.targets);
    found.is_other = _mm512_mask_cmpneq_epi32_mask(
        found.valid, _mm512_maskz_loadu_epi32(found.valid, of_.self_index + target),
        _mm512_set1_epi32(example));
    found.value = _mm512_maskz_loadu_ps(found.valid, of_.values + at);
    found.error = _mm512_maskz_loadu_ps(found.valid, of_.errors + at);
    // As far out as Student's t: prior.normal_z.
    __m512 t = _mm512_abs_ps(_mm512_div_ps(found.value, found.error));
    constexpr int kNotFinite = 0x99;
    t = _mm512_maskz_mov_ps(_knot_mask16(_mm512_fpclass_ps_mask(t, kNotFinite)), t);
    t = _mm512_min_ps(t, Set(1e15f));  // whose square is finite
    const __m512 squared =
        _mm512_mul_ps(freedom_, Log1p(_mm512_mul_ps(_mm512_mul_ps(t, t), per_freedom_)));
    found.size = _mm512_mul_ps(_mm512_sqrt_ps(squared), factor_);
    const __m512 sign = _mm512_and_ps(found.value, Set(-0.0f));
    found.z = _mm512_or_ps(found.size, sign);
    const __mmask16 known = _mm512_cmp_ps_mask(found.size, Set(1e-3f), _CMP_GT_OQ);
    found.error_of_z = _mm512_mask_div_ps(found.error, known, found.value, found.z);
    found.mean = _mm512_setzero_ps();
    if (of_.means) found.mean = _mm512_maskz_loadu_ps(found.valid, of_.means + at);
    found.bin = _mm512_setzero_si512();
    if (of_.num_edges) {
      const __m512 unit = _mm512_maskz_loadu_ps(found.valid, of_.unit + target);
      const __mmask16 is_constant = _mm512_cmp_ps_mask(unit, _mm512_setzero_ps(), _CMP_LE_OQ);
      const __m512 relative =
          _mm512_div_ps(found.mean, _mm512_mask_mov_ps(unit, is_constant, Set(1)));
      for (int64_t edge = 0; edge < of_.num_edges; ++edge) {
        const __mmask16 is_above = _mm512_cmp_ps_mask(Set(of_.edges[edge]), relative, _CMP_LT_OQ);
        found.bin =
            _mm512_mask_add_epi32(found.bin, is_above, found.bin, _mm512_set1_epi32(1));
      }
    }
    return found;
  }

 private:
  const Block& of_;
  __m512 freedom_, per_freedom_, factor_;
};

}  // namespace

extern "C" {

// Posterior means and standard deviations of examples `first` to `last` - 1, in the unit of the
// losses, read off a table; own entries as the ensemble has them.
//
// table [bins steps 2]: by what z is multiplied, and the deviation, at steps of log(1 + |z|), so
//     many a unit. See odds.OddsTable. values, errors [examples targets]. Returns 0.
int64_t posterior_values(int64_t first, int64_t last, int64_t targets, const float* deviations,
                         const float* their_errors, const float* means, const float* unit,
                         const float* scales, const int32_t* self_index, int64_t freedom,
                         const float* edges, int64_t num_edges, const float* table, int64_t steps,
                         int64_t steps_a_unit, float* values, float* errors) {
  const Block of{targets,    deviations, their_errors, means, unit,
                 scales,     self_index, freedom,      edges, num_edges};
  const Reader read(of);
  const auto* const pairs = reinterpret_cast<const double*>(table);
  const __m512i real = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  const __m512i imaginary = _mm512_add_epi32(real, _mm512_set1_epi32(1));
  for (int64_t example = first; example < last; ++example) {
    for (int64_t target = 0; target < of.targets; target += kLanes) {
      const Entries entry = read(example, target);
      const __m512 place = _mm512_min_ps(_mm512_mul_ps(Log1p(entry.size), Set(steps_a_unit)),
                                         Set(steps - 1.5f));
      const __m512i step = _mm512_cvttps_epi32(place);
      const __m512 beyond = _mm512_sub_ps(place, _mm512_cvtepi32_ps(step));
      const __m512i at =
          _mm512_add_epi32(_mm512_mullo_epi32(entry.bin, _mm512_set1_epi32(steps)), step);
      const __m256i low = _mm512_castsi512_si256(at), high = _mm512_extracti64x4_epi64(at, 1);
      const auto gathered = [&](__m256i which, const double* from) {
        return _mm512_castpd_ps(_mm512_i32gather_pd(which, from, 8));
      };
      const __m512 before[] = {gathered(low, pairs), gathered(high, pairs)};
      const __m512 after[] = {gathered(low, pairs + 1), gathered(high, pairs + 1)};
      const auto between = [&](__m512i which) {
        const __m512 one = _mm512_permutex2var_ps(before[0], which, before[1]);
        const __m512 other = _mm512_permutex2var_ps(after[0], which, after[1]);
        return _mm512_fmadd_ps(_mm512_sub_ps(other, one), beyond, one);
      };
      const __m512 kept = between(real), deviation = between(imaginary);
      const __m512 moved = _mm512_mul_ps(entry.error_of_z, _mm512_mul_ps(entry.z, kept));
      const __m512 scale = _mm512_maskz_loadu_ps(entry.valid, of.scale + target);
      const __m512 value = _mm512_mask_add_ps(entry.value, entry.is_other, entry.mean, moved);
      const __m512 error =
          _mm512_mask_mul_ps(entry.error, entry.is_other, entry.error_of_z, deviation);
      const int64_t into = example * of.targets + target;
      _mm512_mask_storeu_ps(values + into, entry.valid, _mm512_mul_ps(value, scale));
      _mm512_mask_storeu_ps(errors + into, entry.valid, _mm512_mul_ps(error, scale));
    }
  }
  return 0;
}

// Counts entries of examples `first` to `last` - 1, as odds.Histogram.counts does: own ones and
// those of constant targets left out.
//
// sums [2 examples targets]: of either half's losses, about their mean, with the example; of_sums
//     [2 examples]: what makes of them the half's estimate.
// end: the largest z of the cells. counts [bins cells], products, squares [bins]: added to.
// Returns 0.
int64_t posterior_counts(int64_t first, int64_t last, int64_t targets, const float* deviations,
                         const float* their_errors, const float* means, const float* unit,
                         const float* scales, const int32_t* self_index, int64_t freedom,
                         const float* edges, int64_t num_edges, int64_t examples,
                         const float* sums, const float* of_sums, double end, int64_t cells,
                         int64_t* counts, double* products, double* squares) {
  const Block of{targets,    deviations, their_errors, means, unit,
                 scales,     self_index, freedom,      edges, num_edges};
  const Reader read(of);
  const __m512 per_reach = Set(1 / std::asinh(end)), half = Set(cells / 2.0f), one = Set(1);
  for (int64_t example = first; example < last; ++example) {
    for (int64_t target = 0; target < of.targets; target += kLanes) {
      const Entries entry = read(example, target);
      const __mmask16 counted = _mm512_mask_cmp_ps_mask(
          entry.is_other, _mm512_maskz_loadu_ps(entry.valid, of.unit + target),
          _mm512_setzero_ps(), _CMP_GT_OQ);
      const __m512 square = _mm512_mul_ps(entry.size, entry.size);
      const __m512 root = _mm512_sqrt_ps(_mm512_add_ps(one, square));
      const __m512 arsinh =
          Log1p(_mm512_add_ps(entry.size, _mm512_div_ps(square, _mm512_add_ps(one, root))));
      const __m512 sign = _mm512_and_ps(entry.z, Set(-0.0f));
      const __m512 place = _mm512_mul_ps(
          _mm512_fmadd_ps(_mm512_or_ps(arsinh, sign), per_reach, one), half);
      __m512i cell = _mm512_cvttps_epi32(place);
      cell = _mm512_max_epi32(cell, _mm512_setzero_si512());
      cell = _mm512_min_epi32(cell, _mm512_set1_epi32(cells - 1));
      __m512 product = one;
      for (int part = 0; part < 2; ++part) {
        const int64_t row = part * examples + example;
        const __m512 sum = _mm512_maskz_loadu_ps(entry.valid, sums + row * of.targets + target);
        const __m512 estimate = _mm512_mul_ps(sum, Set(of_sums[row]));
        product = _mm512_mul_ps(product, _mm512_div_ps(estimate, entry.error_of_z));
      }
      alignas(64) int32_t bins[kLanes], places[kLanes];
      alignas(64) float of_halves[kLanes];
      _mm512_store_si512(bins, entry.bin);
      _mm512_store_si512(
          places, _mm512_add_epi32(
                      _mm512_mullo_epi32(entry.bin, _mm512_set1_epi32(cells)), cell));
      _mm512_store_ps(of_halves, product);
      for (unsigned rest = counted; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        const double both = of_halves[lane];
        ++counts[places[lane]];
        products[bins[lane]] += both;
        squares[bins[lane]] += both * both;
      }
    }
  }
  return 0;
}
}
