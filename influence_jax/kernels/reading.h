// A column of an influence matrix, read once in the cache: strongest entries, candidates, moments,
// histogram, values of some ranks.

#ifndef INFLUENCE_JAX_KERNELS_READING_H_
#define INFLUENCE_JAX_KERNELS_READING_H_

#include <functional>
#include <vector>

#include "members.h"

namespace {

constexpr int kBinsASide = 512;       // as contract.BINS_A_SIDE
constexpr int kBins = 2 * kBinsASide;
constexpr float kBinsAUnit = 64;  // BINS_A_SIDE / contract.REACH

const __m512 kNothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());

// The largest of a row of values, with their places; of equal ones that of the last place, or the
// first.
template <bool kLastPlace>
class StrongestOf {
 public:
  // Of rows of that many values, at least `count`.
  StrongestOf(int64_t count, int64_t values)
      : count_(count),
        capacity_(std::max<int64_t>(256, 4 * count)),
        entries_(capacity_ + kLanes),
        of_chunks_(std::min(4 * count / kLanes + 1, (values + kLanes - 1) / kLanes) * kLanes) {}

  // A new row. A first pass is shown all vectors of it (beyond its end: minus infinity).
  void Clear() {
    held_ = next_ = 0;
    std::fill(of_chunks_.begin(), of_chunks_.end(), -std::numeric_limits<float>::infinity());
  }
  void Show(__m512 values) {
    float* const of = of_chunks_.data() + next_;
    _mm512_storeu_ps(of, _mm512_max_ps(values, _mm512_loadu_ps(of)));
    next_ = next_ + kLanes == static_cast<int64_t>(of_chunks_.size()) ? 0 : next_ + kLanes;
  }
  // The largest of that many chunks are a threshold that so many values reach, and few others.
  void SetThreshold() {
    if (count_ > static_cast<int64_t>(of_chunks_.size())) {
      least_ = -std::numeric_limits<float>::infinity();
      return;
    }
    std::nth_element(of_chunks_.begin(), of_chunks_.begin() + count_ - 1, of_chunks_.end(),
                     std::greater<float>());
    least_ = of_chunks_[count_ - 1];
  }

  // In a second pass what reaches the threshold is added.
  __mmask16 Reached(__m512 values) const {
    return _mm512_cmp_ps_mask(values, _mm512_set1_ps(least_), _CMP_GE_OQ);
  }
  void Add(__m512 values, __mmask16 which, int64_t first) {
    alignas(64) float value[kLanes];
    _mm512_store_ps(value, values);
    for (unsigned rest = which; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      entries_[held_++] = {value[lane], first + lane};
    }
    if (held_ >= capacity_) Prune();
  }

  // Places of the largest, largest first.
  void Sorted(int64_t* places) {
    Prune();
    std::sort(entries_.begin(), entries_.begin() + held_, Precedes);
    for (int64_t k = 0; k < count_; ++k) places[k] = entries_[k].place;
  }

 private:
  struct Entry {
    float value;
    int64_t place;
  };
  static bool Precedes(const Entry& a, const Entry& b) {
    if (a.value != b.value) return a.value > b.value;
    return kLastPlace ? a.place > b.place : a.place < b.place;
  }
  void Prune() {
    if (held_ <= count_) return;
    std::nth_element(entries_.begin(), entries_.begin() + count_ - 1, entries_.begin() + held_,
                     Precedes);
    held_ = count_;
    least_ = entries_[count_ - 1].value;
  }

  int64_t count_, capacity_, held_ = 0, next_ = 0;
  float least_ = 0;
  std::vector<Entry> entries_;
  std::vector<float> of_chunks_;
};

// Values of some ranks, from the bins that hold them.
class Ranked {
 public:
  Ranked(const int64_t* ranks, int64_t count) : ranks_(ranks), count_(count), of_rank_(count) {}

  void Read(const float* values, const uint16_t* bins, const int64_t* counts, int64_t examples,
            float* ranked) {
    alignas(64) uint32_t wanted[kBins / 32] = {};
    int64_t bin = 0, before = 0, chosen = 0;
    for (int64_t r = 0; r < count_; ++r) {  // ascending
      while (before + counts[bin] <= ranks_[r]) before += counts[bin++];
      of_rank_[r] = {bin, before};
      if (!(wanted[bin / 32] >> (bin % 32) & 1)) {
        wanted[bin / 32] |= 1u << (bin % 32);
        next_[bin] = chosen;
        chosen += counts[bin];
      }
    }
    if (chosen + kLanes > static_cast<int64_t>(chosen_.size())) {
      for (auto* const of : {&found_, &chosen_}) of->resize(chosen + kLanes);
      bins_.resize(chosen + kLanes);
    }
    const __m512i low = _mm512_load_si512(wanted), high = _mm512_load_si512(wanted + kLanes);
    int64_t found = 0;
    for (int64_t example = 0; example < examples; example += kLanes) {
      const __m512i bin_of = _mm512_cvtepu16_epi32(
          _mm256_load_si256(reinterpret_cast<const __m256i*>(bins + example)));
      // All bins as bits in two vectors.
      const __m512i word = _mm512_permutex2var_epi32(low, _mm512_srli_epi32(bin_of, 5), high);
      const __m512i bit = _mm512_srlv_epi32(word, _mm512_and_si512(bin_of, _mm512_set1_epi32(31)));
      const __mmask16 is_wanted =
          _mm512_mask_test_epi32_mask(Before(example, examples), bit, _mm512_set1_epi32(1));
      _mm512_storeu_ps(found_.data() + found,
                       _mm512_maskz_compress_ps(is_wanted, _mm512_load_ps(values + example)));
      _mm512_storeu_si512(bins_.data() + found, _mm512_maskz_compress_epi32(is_wanted, bin_of));
      found += __builtin_popcount(is_wanted);
    }
    for (int64_t one = 0; one < found; ++one) chosen_[next_[bins_[one]]++] = found_[one];
    for (int64_t r = 0; r < count_; ++r) {
      const auto [of, smaller] = of_rank_[r];
      float* const end = chosen_.data() + next_[of];
      float* const at = end - counts[of] + (ranks_[r] - smaller);
      if (r > 0 && ranks_[r] == ranks_[r - 1] + 1 && of_rank_[r - 1].bin == of) {
        std::iter_swap(at, std::min_element(at, end));  // all that is smaller is before it
      } else {
        std::nth_element(end - counts[of], at, end);
      }
      ranked[r] = *at;
    }
  }

 private:
  struct Place {
    int64_t bin, before;
  };
  const int64_t* ranks_;
  int64_t count_;
  std::vector<Place> of_rank_;
  int64_t next_[kBins] = {};
  std::vector<float> found_, chosen_;
  std::vector<int32_t> bins_;
};

// Reads a column once: strongest entries, candidates, moments, histogram, values of some ranks.
class ColumnReader {
 public:
  ColumnReader(int64_t examples, int64_t strongest, const int64_t* ranks, int64_t num_ranks)
      : examples_(examples),
        largest_(strongest, examples),
        least_(strongest, examples),
        ranked_(ranks, num_ranks),
        bins_(Scratch<uint16_t>(kOfBins, (examples + kBlock - 1) / kBlock * kBlock)) {}

  // Begins with the strongest entries of both signs, and the candidates: those whose absolute value
  // is above the floor, added to `candidates` from `*listed` on, counted from `first_entry`.
  void Read(const float* column, float per_unit, float floor, int64_t first_entry,
            int64_t* candidates, int64_t* listed) {
    largest_.Clear();
    least_.Clear();
    for (int64_t e = 0; e < examples_; e += kLanes) {
      const __mmask16 valid = Before(e, examples_);
      const __m512 value = _mm512_load_ps(column + e);
      largest_.Show(_mm512_mask_mov_ps(kNothing, valid, value));
      least_.Show(_mm512_mask_sub_ps(kNothing, valid, _mm512_setzero_ps(), value));
    }
    largest_.SetThreshold();
    least_.SetThreshold();
    std::fill(&count_[0][0], &count_[0][0] + 4 * kBins, 0);
    for (auto& power : power_) power = _mm512_setzero_pd();
    const __m512 unit = _mm512_set1_ps(per_unit), beyond = _mm512_set1_ps(floor);
    constexpr int kInFloat = 16;  // vectors whose powers are summed in float32
    for (int64_t start = 0; start < examples_; start += kInFloat * kLanes) {
      __m512 part[4] = {};
      const int64_t stop = std::min(start + kInFloat * kLanes, examples_);
      for (int64_t e = start; e < stop; e += kLanes) {
        const __mmask16 valid = Before(e, examples_);
        const __m512 value = _mm512_load_ps(column + e);
        const __m512 negative = _mm512_sub_ps(_mm512_setzero_ps(), value);
        const __mmask16 is_top = largest_.Reached(value) & valid;
        const __mmask16 is_bottom = least_.Reached(negative) & valid;
        const __mmask16 is_candidate =
            _mm512_mask_cmp_ps_mask(valid, _mm512_abs_ps(value), beyond, _CMP_GT_OQ);
        if (is_top | is_bottom | is_candidate) {
          if (is_top) largest_.Add(value, is_top, e);
          if (is_bottom) least_.Add(negative, is_bottom, e);
          for (unsigned rest = is_candidate; rest; rest &= rest - 1) {
            candidates[(*listed)++] = first_entry + e + __builtin_ctz(rest);
          }
        }
        const __m512 z = _mm512_maskz_mul_ps(valid, value, unit);
        const __m512 z2 = _mm512_mul_ps(z, z);
        part[0] = _mm512_add_ps(part[0], z);
        part[1] = _mm512_add_ps(part[1], z2);
        part[2] = _mm512_fmadd_ps(z2, z, part[2]);
        part[3] = _mm512_fmadd_ps(z2, z2, part[3]);
        Count(z, e);
      }
      for (int p = 0; p < 4; ++p) {
        power_[p] = _mm512_add_pd(power_[p], _mm512_cvtps_pd(_mm512_castps512_ps256(part[p])));
        power_[p] = _mm512_add_pd(power_[p], _mm512_cvtps_pd(_mm512_extractf32x8_ps(part[p], 1)));
      }
    }
    for (int b = 0; b < kBins; ++b) {
      counts_[b] = int64_t{count_[0][b]} + count_[1][b] + count_[2][b] + count_[3][b];
    }
  }

  // What was read.
  void Strongest(int64_t* top, int64_t* bottom) {
    largest_.Sorted(top);
    least_.Sorted(bottom);
  }
  void Moments(double* moments) const {
    for (int p = 0; p < 4; ++p) moments[p] = _mm512_reduce_add_pd(power_[p]) / examples_;
  }
  void Values(const float* column, float* ranked) {
    ranked_.Read(column, bins_, counts_, examples_, ranked);
  }
  void AddHistogram(int64_t own, int64_t* histogram) const {
    for (int b = 0; b < kBins; ++b) histogram[b] += counts_[b];
    if (own >= 0) --histogram[bins_[own]];
  }

 private:
  void Count(__m512 z, int64_t first) {
    const __m512 scaled = _mm512_mul_ps(z, _mm512_set1_ps(kBinsAUnit));
    const __m512 within = _mm512_min_ps(_mm512_max_ps(scaled, _mm512_set1_ps(-kBinsASide)),
                                        _mm512_set1_ps(kBinsASide - 1));
    const __m512i bin = _mm512_add_epi32(
        _mm512_cvt_roundps_epi32(within, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC),
        _mm512_set1_epi32(kBinsASide));
    _mm256_store_si256(reinterpret_cast<__m256i*>(bins_ + first), _mm512_cvtepi32_epi16(bin));
    alignas(64) int32_t bins[kLanes];
    _mm512_store_si512(bins, bin);
    if (const int64_t many = examples_ - first; many >= kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) ++count_[lane % 4][bins[lane]];
    } else {
      for (int lane = 0; lane < many; ++lane) ++count_[0][bins[lane]];
    }
  }

  int64_t examples_;
  StrongestOf<true> largest_;
  StrongestOf<false> least_;
  Ranked ranked_;
  uint16_t* bins_;
  __m512d power_[4];
  // Four histograms, so that neighbours of one bin do not wait for one another.
  uint32_t count_[4][kBins];
  int64_t counts_[kBins];
};

}  // namespace

#endif  // INFLUENCE_JAX_KERNELS_READING_H_
