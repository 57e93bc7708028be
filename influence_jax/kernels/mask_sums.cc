// Sums of the losses of the members that have an example, of all examples and a block of targets.

#include <numeric>

#include "sums.h"

namespace {

constexpr int kWidth = 16;  // targets whose sums of an example are written together: a line

// Writes sums that lie target after target, [kWidth filled] in steps, example after example.
//
// included [examples]; excess [kWidth]: by how much a loss is too large on average, as rounded.
void Write(const int32_t* sums, int64_t filled, const float* steps, const float* excess,
           int64_t width, const Ensemble& of, const float* included, float* found) {
  const __m512i column = _mm512_mullo_epi32(
      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
      _mm512_set1_epi32(kLanes));
  const __mmask16 valid = Before(0, width);
  const __m512 step = _mm512_maskz_loadu_ps(valid, steps);
  const __m512 too_large = _mm512_maskz_loadu_ps(valid, excess);
  for (int64_t example = 0; example < of.examples; example += kLanes) {
    alignas(64) int32_t square[kWidth * kLanes];
    for (int64_t t = 0; t < kWidth; ++t) {
      _mm512_store_si512(square + t * kLanes, _mm512_load_si512(sums + t * filled + example));
    }
    const int64_t some = std::min<int64_t>(kLanes, of.examples - example);
    for (int64_t e = 0; e < some; ++e) {
      const __m512i of_targets = _mm512_i32gather_epi32(column, square + e, 4);
      const __m512 sum = _mm512_mul_ps(_mm512_cvtepi32_ps(of_targets), step);
      _mm512_mask_storeu_ps(found + (example + e) * of.targets, valid,
                            _mm512_fnmadd_ps(Set(included[example + e]), too_large, sum));
    }
  }
}

// See mask_sums.
template <int kNumbers>
int64_t Sums(int64_t first, int64_t last, const Ensemble& of, int64_t parts,
             const float* included, float* found) {
  return WithSums<kNumbers>(of, [&](auto& of_losses) -> int64_t {
    constexpr int kTargets = std::decay_t<decltype(of_losses)>::kTargets;
    const int64_t filled = of.Filled();
    int32_t* sums[2];
    for (int part = 0; part < parts; ++part) {
      sums[part] = Scratch<int32_t>(part ? kOthers : kSums, kWidth * filled);
    }
    LossRow losses(of);
    for (int64_t begin = first; begin < last; begin += kWidth) {
      const int64_t width = std::min<int64_t>(kWidth, last - begin);
      float steps[kWidth] = {}, excess[2][kWidth] = {};
      for (int64_t some = 0; some < width; some += kTargets) {
        for (int64_t t = some; t < std::min<int64_t>(some + kTargets, width); ++t) {
          const float* const row = losses.Of(begin + t);
          const Steps taken = of_losses.Take(t - some, row);
          steps[t] = taken.step;
          const int64_t slots[] = {0, of.slots / of.words * of.first_words, of.slots};
          double too_large[2];
          for (int half = 0; half < 2; ++half) {
            const double total = std::accumulate(row + slots[half], row + slots[half + 1], 0.0);
            too_large[half] = taken.totals[half] - total;
          }
          const int64_t in_half[] = {(of.members + 1) / 2, of.members / 2};
          for (int part = 0; part < parts; ++part) {
            excess[part][t] = parts == 1 ? (too_large[0] + too_large[1]) / of.members
                                         : too_large[part] / std::max<int64_t>(in_half[part], 1);
          }
        }
        for (int part = 0; part < parts; ++part) {
          int32_t* const at = sums[part] + some * filled;
          of_losses.Sum(part ? of.first_words : 0, part + 1 < parts ? of.first_words : of.words, at);
        }
      }
      for (int part = 0; part < parts; ++part) {
        Write(sums[part], filled, steps, excess[part], width, of, included + part * of.examples,
              found + part * of.examples * of.targets + begin);
      }
    }
    return 0;
  });
}

}  // namespace

extern "C" {

// The sums of targets `first` to `last` - 1: of all members, of losses of 24 bits; or, of two parts,
// of the members of the first words and of the others apart, of losses of 16 bits. Losses as rounded
// have the mean that they had.
//
// included [parts examples]: how many of these members have an example. found [parts examples targets]. Returns 0; -1: no memory.
int64_t mask_sums(int64_t first, int64_t last, const Ensemble* ensemble, int64_t parts,
                  const float* included, float* found) try {
  return parts == 1 ? Sums<2>(first, last, *ensemble, parts, included, found)
                    : Sums<1>(first, last, *ensemble, parts, included, found);
} catch (const std::bad_alloc&) {
  return -1;
}
}
