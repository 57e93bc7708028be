// Sums of the losses of the members that have an example, of all examples and a block of targets.

#include "sums.h"

namespace {

// See mask_sums.
template <int kNumbers>
int64_t Sums(int64_t first, int64_t last, const Ensemble& of, int64_t parts, float* found) {
  return WithSums<kNumbers>(of, [&](auto& of_losses) -> int64_t {

    constexpr int kTargets = std::decay_t<decltype(of_losses)>::kTargets;
    const int64_t filled = of.Filled();
    int32_t* const sums = Scratch<int32_t>(kSums, kTargets * filled);
    LossRow losses(of);
    for (int64_t begin = first; begin < last; begin += kTargets) {
      const int64_t width = std::min<int64_t>(kTargets, last - begin);
      float step[kTargets];
      for (int64_t t = 0; t < width; ++t) step[t] = of_losses.Take(t, losses.Of(begin + t)).step;
      for (int64_t part = 0; part < parts; ++part) {
        std::fill(sums, sums + kTargets * filled, 0);
        if (part == 0) of_losses.Add(0, of.first_words, sums);
        if (part == parts - 1) of_losses.Add(of.first_words, of.words, sums);
        // Sums of a target lie together, those of an example are to.
        for (int64_t example = 0; example < of.examples; example += kLanes) {
          alignas(64) float of_targets[kTargets][kLanes];
          for (int64_t t = 0; t < width; ++t) {
            const __m512i some = _mm512_load_si512(sums + t * filled + example);
            _mm512_store_ps(of_targets[t],
                            _mm512_mul_ps(_mm512_cvtepi32_ps(some), _mm512_set1_ps(step[t])));
          }
          const int64_t some = std::min<int64_t>(kLanes, of.examples - example);
          for (int64_t e = 0; e < some; ++e) {
            float* const to = found + (part * of.examples + example + e) * of.targets + begin;
            for (int64_t t = 0; t < width; ++t) to[t] = of_targets[t][e];
          }
        }
      }
    }
    return 0;
  });
}

}  // namespace

extern "C" {

// The sums of targets `first` to `last` - 1: of all members, of losses of 24 bits; or, of two parts,
// of the members of the first words and of the others apart, of losses of 16 bits.
//
// found [parts examples targets]. Returns 0; -1: no memory.
int64_t mask_sums(int64_t first, int64_t last, const Ensemble* ensemble, int64_t parts,
                  float* found) try {
  return parts == 1 ? Sums<2>(first, last, *ensemble, parts, found)
                    : Sums<1>(first, last, *ensemble, parts, found);
} catch (const std::bad_alloc&) {
  return -1;
}
}
