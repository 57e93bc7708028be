// Columns of influence matrices: sums of losses, then each column read once in the cache.

#include "reading.h"
#include "sums.h"

namespace {

// The difference of the two means, from sums in steps: sum of_inside + total of_total.
class Difference {
 public:
  Difference(const int32_t* sums, float step, double total, const float* of_inside,
             const float* of_total)
      : sums_(sums),
        step_(_mm512_set1_ps(step)),
        total_(_mm512_set1_ps(total)),
        of_inside_(of_inside),
        of_total_(of_total) {}

  __m512 operator()(int64_t example, __mmask16 valid) const {
    const __m512 inside =
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums_ + example)), step_);
    const __m512 of_total = _mm512_maskz_loadu_ps(valid, of_total_ + example);
    return _mm512_fmadd_ps(inside, _mm512_maskz_loadu_ps(valid, of_inside_ + example),
                           _mm512_mul_ps(total_, of_total));
  }

 private:
  const int32_t* sums_;
  __m512 step_, total_;
  const float *of_inside_, *of_total_;
};

}  // namespace

extern "C" {

// Whether the bits of masks must lie as Products wants them, not as Lookups does.
int32_t columns_by_tiles() { return ByTiles(); }

// Answers a request about the columns of targets `first` to `last` - 1 of a block, as
// HostScan.columns does; all arrays of targets begin with the first of the block.
//
// of_inside, of_total [examples]: see Difference.
// fixed_examples, fixed_values [targets fixed]: -1 for none.
// per_unit, floor, self_index [targets]; ranks [num_ranks] ascending.
// top, bottom [targets strongest]; moments [targets 4]; ranked [targets num_ranks];
// histogram [kBins], added to; candidates [targets examples], of these targets alone: filled from
// the first on with target * examples + example. Returns how many; -1: no memory.
int64_t columns_read(int64_t first, int64_t last, const Ensemble* ensemble, const float* of_inside,
                     const float* of_total, const int64_t* fixed_examples,
                     const float* fixed_values, int64_t fixed, const float* per_unit,
                     const float* floor, const int64_t* self_index, int64_t strongest,
                     const int64_t* ranks, int64_t num_ranks, int64_t* top, int64_t* bottom,
                     double* moments, float* ranked, int64_t* histogram, int64_t* candidates) try {
  return WithSums<2>(*ensemble, [&](auto& of_losses) -> int64_t {
    constexpr int kTargets = std::decay_t<decltype(of_losses)>::kTargets;
    const Ensemble& of = *ensemble;
    const int64_t filled = of.Filled(), examples = of.examples;
    int32_t* const sums = Scratch<int32_t>(kSums, kTargets * filled);
    float* const column = Scratch<float>(kOthers, filled);
    ColumnReader reader(examples, strongest, ranks, num_ranks);
    LossRow losses(of);
    int64_t listed = 0;
    for (int64_t begin = first; begin < last; begin += kTargets) {
      const int64_t width = std::min<int64_t>(kTargets, last - begin);
      Steps steps[kTargets];
      for (int64_t t = 0; t < width; ++t) steps[t] = of_losses.Take(t, losses.Of(begin + t));
      of_losses.Sum(0, of.words, sums);
      for (int64_t t = 0; t < width; ++t) {
        const int64_t target = begin + t;
        const Difference difference(sums + t * filled, steps[t].step,
                                    steps[t].totals[0] + steps[t].totals[1], of_inside, of_total);
        for (int64_t e = 0; e < examples; e += kLanes) {
          _mm512_store_ps(column + e, difference(e, Before(e, examples)));
        }
        for (int64_t f = target * fixed; f < (target + 1) * fixed; ++f) {
          if (fixed_examples[f] >= 0) column[fixed_examples[f]] = fixed_values[f];
        }
        reader.Read(column, per_unit[target], floor[target], target * examples, candidates,
                    &listed);
        reader.Strongest(top + strongest * target, bottom + strongest * target);
        reader.Moments(moments + 4 * target);
        reader.Values(column, ranked + num_ranks * target);
        reader.AddHistogram(self_index[target], histogram);
      }
    }
    return listed;
  });
} catch (const std::bad_alloc&) {
  return -1;
}

// Answers a request about columns that are there, of targets `first` to `last` - 1, but for the
// candidates.
//
// values: entry e of target t is values[e stride + t]. counted [targets]: whether the histogram has
// a column. All others as above. Returns 0; -1: no memory.
int64_t columns_of_values(int64_t first, int64_t last, int64_t examples, const float* values,
                          int64_t stride, const float* per_unit, const int64_t* self_index,
                          const int64_t* counted, int64_t strongest, const int64_t* ranks,
                          int64_t num_ranks, int64_t* top, int64_t* bottom, double* moments,
                          float* ranked, int64_t* histogram) try {
  const int64_t filled = (examples + kBlock - 1) / kBlock * kBlock;
  // A few columns together, as they share lines of the cache.
  float* const columns = Scratch<float>(kSums, kLanes * filled);
  ColumnReader reader(examples, strongest, ranks, num_ranks);
  int64_t listed = 0;
  for (int64_t begin = first; begin < last; begin += kLanes) {
    const int64_t width = std::min<int64_t>(kLanes, last - begin);
    for (int64_t e = 0; e < examples; ++e) {
      for (int64_t t = 0; t < width; ++t) columns[t * filled + e] = values[e * stride + begin + t];
    }
    for (int64_t t = 0; t < width; ++t) {
      const int64_t target = begin + t;
      const float* const column = columns + t * filled;
      reader.Read(column, per_unit[target], std::numeric_limits<float>::infinity(), 0, nullptr,
                  &listed);
      reader.Strongest(top + strongest * target, bottom + strongest * target);
      reader.Moments(moments + 4 * target);
      reader.Values(column, ranked + num_ranks * target);
      if (counted[target]) reader.AddHistogram(self_index[target], histogram);
    }
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

// The examples of largest |t| of targets `first` to `last` - 1 of a block, each one's own before
// all others, as HostScan.candidate_regressors finds them; by sums of 16-bit losses.
//
// of_inside, of_total [3 examples]: by the members of the first words, of the others, and by all.
// strongest [parts targets count]. Returns 0; -1: no memory.
int64_t columns_strongest(int64_t first, int64_t last, const Ensemble* ensemble,
                          const float* of_inside, const float* of_total,
                          const int64_t* self_index, int64_t count, int64_t parts,
                          int64_t* strongest) try {
  return WithSums<1>(*ensemble, [&](auto& of_losses) -> int64_t {
    constexpr int kTargets = std::decay_t<decltype(of_losses)>::kTargets;
    const Ensemble& of = *ensemble;
    const int64_t filled = of.Filled(), examples = of.examples, targets = of.targets;
    // Of two parts each in the place of the other: less to keep in a cache.
    int32_t* halves[2];
    halves[0] = Scratch<int32_t>(kSums, kTargets * filled);
    halves[1] = parts > 2 ? Scratch<int32_t>(kOthers, kTargets * filled) : halves[0];
    float* const scores = Scratch<float>(kOfBins, filled);
    StrongestOf<true> largest(count, examples);
    LossRow losses(of);
    for (int64_t begin = first; begin < last; begin += kTargets) {
      const int64_t width = std::min<int64_t>(kTargets, last - begin);
      Steps steps[kTargets];
      for (int64_t t = 0; t < width; ++t) steps[t] = of_losses.Take(t, losses.Of(begin + t));
      for (int64_t part = 0; part < parts; ++part) {
        int32_t* const sums = halves[part % 2];
        if (part < 2) {
          of_losses.Sum(part ? of.first_words : 0, part ? of.words : of.first_words, sums);
        } else {
          for (int64_t e = 0; e < kTargets * filled; ++e) sums[e] += halves[1][e];
        }
        for (int64_t t = 0; t < width; ++t) {
          const int64_t own = self_index[begin + t];
          const auto& [step, total] = steps[t];
          const Difference difference(sums + t * filled, step,
                                      part < 2 ? total[part] : total[0] + total[1],
                                      of_inside + part * examples, of_total + part * examples);
          largest.Clear();
          for (int64_t e = 0; e < examples; e += kLanes) {
            const __mmask16 valid = Before(e, examples);
            const __m512 value = _mm512_abs_ps(difference(e, valid));
            largest.Show(_mm512_mask_mov_ps(kNothing, valid, value));
            _mm512_store_ps(scores + e, value);
          }
          if (own >= 0) scores[own] = std::numeric_limits<float>::infinity();
          largest.SetThreshold();
          for (int64_t e = 0; e < examples; e += kLanes) {
            const __m512 value = _mm512_load_ps(scores + e);
            const __mmask16 reached = largest.Reached(value) & Before(e, examples);
            if (reached) largest.Add(value, reached, e);
          }
          largest.Sorted(strongest + (part * targets + begin + t) * count);
        }
      }
    }
    return 0;
  });
} catch (const std::bad_alloc&) {
  return -1;
}

}
