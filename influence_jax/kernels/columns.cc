// Columns of influence matrices: sums of losses by lookup, then each column read once in the cache.
//
// Masks are bits. The sums of the losses of six members over every choice of them are two vectors
// of 32 numbers, and six bits of an example's mask say which it is: one lookup and one addition
// take the place of six multiplications (Arlazarov, Dinic, Kronrod and Faradzev 1970, Soviet
// Mathematics Doklady 11:1209, there of bits alone). Losses are whole numbers of a step of their
// target for that, of 16 bits; eight more bits are a second number. Both are exact when summed.

#include <functional>
#include <vector>

#include "members.h"

namespace {

constexpr int kVectors = kBlock / kWordLanes;  // of examples, looked up together
constexpr int kRows = 4;     // whole numbers of losses, likewise
constexpr int kTargets = 8;  // whose sums stay in a cache
// bits: in pieces of kWordsAtOnce words, fewer at the end of either half, each
//     [filled / kBlock, words of the piece, kBlock].
constexpr int kSix = 6;           // members of a lookup
constexpr int kMembers = 12;      // a word
constexpr int kWordsAtOnce = 21;  // whose tables stay in the nearest cache, whose sums in 16 bits
constexpr int kChoices = 1 << kSix;
constexpr int kTable = kMembers / kSix * kChoices;  // a word
constexpr int kBlocksAtOnce = 8;  // whose masks stay in the nearest cache for the next targets
constexpr int kFineBits = 8;
constexpr float kLargestSum = 32600;  // of 16 bits, and what rounding adds to 252 losses
constexpr int kBinsASide = 512;       // as contract.BINS_A_SIDE
constexpr int kBins = 2 * kBinsASide;
constexpr float kBinsAUnit = 64;  // BINS_A_SIDE / contract.REACH

// --- Sums ---

int64_t TableSize(const Ensemble& of) { return of.words * kTable; }

// Tables of a target: sums over every choice among six losses, group after group; of two numbers
// a loss in tables one behind the other. Sets what a step is, and the totals of the losses of the
// first words and of the others.
template <int kNumbers>
void FillTables(const Ensemble& of, const float* losses, int16_t* tables, float* step,
                double totals[2]) {
  float largest = 0;
  double positive = 0, negative = 0;
  for (int half = 0; half < 2; ++half) {
    const int64_t begin = half ? of.first_words : 0, end = half ? of.words : of.first_words;
    for (int64_t word = begin; word < end; word += kWordsAtOnce) {
      const int64_t last = std::min<int64_t>(word + kWordsAtOnce, end);
      float above = 0, below = 0;
      for (int64_t slot = kMembers * word; slot < kMembers * last; ++slot) {
        above += std::max(losses[slot], 0.0f);
        below -= std::min(losses[slot], 0.0f);
      }
      largest = std::max({largest, above, below});
      positive += above;
      negative += below;
    }
  }
  constexpr float kFine = kNumbers == 2 ? 1 << kFineBits : 1;
  const float most = std::max(positive, negative) / (1u << 30);  // of many members
  *step = std::max(largest / (kLargestSum * kFine), most);
  // Losses so small that a step has no reciprocal are as good as none.
  const float per_step = *step > std::numeric_limits<float>::min() ? 1 / *step : 0;
  int64_t whole_totals[2] = {};
  constexpr int kGroups = kMembers / kSix;
  for (int64_t group = 0; group < kGroups * of.words; ++group) {
    const float* const six = losses + group * kSix;
    __m512i table[kNumbers] = {}, last[kNumbers];
    for (int member = 0; member < kSix; ++member) {
      const int32_t whole = std::lrint(six[member] * per_step);
      whole_totals[group >= kGroups * of.first_words] += whole;
      // Which of 32 choices have this member; the other 32 have the last one.
      constexpr __mmask32 kHave[] = {0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00, 0xffff0000};
      const int32_t coarse =
          kNumbers == 2 ? (whole + (1 << (kFineBits - 1))) >> kFineBits : whole;
      const int16_t number[] = {static_cast<int16_t>(coarse),
                                static_cast<int16_t>(whole - coarse * (1 << kFineBits))};
      for (int n = 0; n < kNumbers; ++n) {
        last[n] = _mm512_set1_epi16(number[n]);
        if (member + 1 < kSix) {
          table[n] = _mm512_mask_add_epi16(table[n], kHave[member], table[n], last[n]);
        }
      }
    }
    for (int n = 0; n < kNumbers; ++n) {
      int16_t* const at = tables + n * TableSize(of) + group * kChoices;
      _mm512_store_si512(at, table[n]);
      _mm512_store_si512(at + kWordLanes, _mm512_add_epi16(table[n], last[n]));
    }
  }
  // Of the whole numbers, so that what is rounded alike everywhere changes no difference of means.
  for (int half = 0; half < 2; ++half) totals[half] = double{*step} * whole_totals[half];
}

// Adds to the sums of some blocks of examples what the members of `words` words bring in.
//
// bits [blocks words kBlock]; tables [kRows table_stride], the numbers of a target one after the
// other; sums [kRows / kNumbers filled].
template <int kNumbers>
void Lookup(const uint16_t* bits, int64_t blocks, int64_t words, const int16_t* tables,
            int64_t table_stride, int64_t filled, int32_t* sums) {
  for (int64_t block = 0; block < blocks; ++block, sums += kBlock) {
    // Kept in registers: what is indexed by a number not known to the compiler would not be.
    __m512i added[kRows][kVectors];
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) added[row][v] = _mm512_setzero_si512();
    }
    const int16_t* table = tables;
    for (int64_t word = 0; word < words; ++word, bits += kBlock) {
      __m512i six[kVectors];
      for (int v = 0; v < kVectors; ++v) six[v] = _mm512_loadu_si512(bits + v * kWordLanes);
#pragma GCC unroll 2
      for (int group = 0; group < kMembers / kSix; ++group, table += kChoices) {
#pragma GCC unroll 4
        for (int row = 0; row < kRows; ++row) {
          __m512i without = _mm512_load_si512(table + row * table_stride);
          __m512i with_last = _mm512_load_si512(table + row * table_stride + kWordLanes);
          asm("" : "+v"(without), "+v"(with_last));  // loaded once, not in each lookup
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            // Of the bits the lowest six count.
            const __m512i chosen = _mm512_permutex2var_epi16(without, six[v], with_last);
            added[row][v] = _mm512_add_epi16(added[row][v], chosen);
          }
        }
        for (int v = 0; v < kVectors; ++v) six[v] = _mm512_srli_epi16(six[v], kSix);
      }
    }
    __m512i sum[kRows][kVectors];
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[row][v] = added[row][v];
    }
    for (int row = 0; row < kRows; row += kNumbers) {
      for (int v = 0; v < kVectors; ++v) {
        for (int half = 0; half < 2; ++half) {
          const auto wide = [&](int of) {
            return _mm512_cvtepi16_epi32(half ? _mm512_extracti64x4_epi64(sum[of][v], 1)
                                              : _mm512_castsi512_si256(sum[of][v]));
          };
          int32_t* const at = sums + row / kNumbers * filled + v * kWordLanes + half * kLanes;
          __m512i more = wide(row);
          if (kNumbers == 2) {
            more = _mm512_add_epi32(_mm512_slli_epi32(more, kFineBits), wide(row + 1));
          }
          _mm512_store_si512(at, _mm512_add_epi32(_mm512_load_si512(at), more));
        }
      }
    }
  }
}

// The sums [kTargets filled] over the members of words `first` to `last` - 1.
template <int kNumbers>
void SumsOfWords(const Ensemble& of, int64_t first, int64_t last, const int16_t* tables,
                 int32_t* sums) {
  const int64_t filled = of.Filled(), blocks = filled / kBlock;
  for (int64_t word = first; word < last; word += kWordsAtOnce) {
    const int64_t words = std::min<int64_t>(kWordsAtOnce, last - word);
    for (int64_t block = 0; block < blocks; block += kBlocksAtOnce) {
      const int64_t some = std::min<int64_t>(kBlocksAtOnce, blocks - block);
      for (int64_t row = 0; row < kTargets * kNumbers; row += kRows) {
        Lookup<kNumbers>(of.bits + word * filled + block * words * kBlock, some, words,
                         tables + row * TableSize(of) + word * kTable, TableSize(of), filled,
                         sums + row / kNumbers * filled + block * kBlock);
      }
    }
  }
}

// --- Reading ---

const __m512 kNothing = _mm512_set1_ps(-std::numeric_limits<float>::infinity());

inline __mmask16 Valid(int64_t first, int64_t examples) {
  return examples - first >= kLanes ? 0xffff : (1u << (examples - first)) - 1;
}

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
    std::sort(entries_.begin(), entries_.begin() + held_, Before);
    for (int64_t k = 0; k < count_; ++k) places[k] = entries_[k].place;
  }

 private:
  struct Entry {
    float value;
    int64_t place;
  };
  static bool Before(const Entry& a, const Entry& b) {
    if (a.value != b.value) return a.value > b.value;
    return kLastPlace ? a.place > b.place : a.place < b.place;
  }
  void Prune() {
    if (held_ <= count_) return;
    std::nth_element(entries_.begin(), entries_.begin() + count_ - 1, entries_.begin() + held_,
                     Before);
    held_ = count_;
    least_ = entries_[count_ - 1].value;
  }

  int64_t count_, capacity_, held_ = 0, next_ = 0;
  float least_ = 0;
  std::vector<Entry> entries_;
  std::vector<float> of_chunks_;
};

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
          _mm512_mask_test_epi32_mask(Valid(example, examples), bit, _mm512_set1_epi32(1));
      _mm512_storeu_ps(found_.data() + found,
                       _mm512_maskz_compress_ps(is_wanted, _mm512_load_ps(values + example)));
      _mm512_storeu_si512(bins_.data() + found, _mm512_maskz_compress_epi32(is_wanted, bin_of));
      found += __builtin_popcount(is_wanted);
    }
    for (int64_t one = 0; one < found; ++one) chosen_[next_[bins_[one]]++] = found_[one];
    for (int64_t r = 0; r < count_; ++r) {
      const auto [of, smaller] = of_rank_[r];
      float* const end = chosen_.data() + next_[of];
      float* const begin = end - counts[of];
      std::nth_element(begin, begin + (ranks_[r] - smaller), end);
      ranked[r] = begin[ranks_[r] - smaller];
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
      const __mmask16 valid = Valid(e, examples_);
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
        const __mmask16 valid = Valid(e, examples_);
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

extern "C" {

// Answers a request about the columns of targets `first` to `last` - 1 of a block, as
// HostScan.columns does; all arrays of targets begin with the first of the block.
//
// of_inside, of_total [examples]: see Difference.
// fixed_examples, fixed_values [targets fixed]: -1 for none.
// per_unit, floor, self_index [targets]; ranks [num_ranks] ascending.
// top, bottom [targets strongest]; moments [targets 4]; ranked [targets num_ranks];
// histogram [kBins], added to; candidates [targets examples], of these targets alone: filled from
// the first on with target * examples + example. Returns how many; -1: no memory.
int64_t columns_read(const Ensemble* ensemble, int64_t first, int64_t last, const float* of_inside,
                     const float* of_total, const int64_t* fixed_examples,
                     const float* fixed_values, int64_t fixed, const float* per_unit,
                     const float* floor, const int64_t* self_index, int64_t strongest,
                     const int64_t* ranks, int64_t num_ranks, int64_t* top, int64_t* bottom,
                     double* moments, float* ranked, int64_t* histogram, int64_t* candidates) try {
  const Ensemble& of = *ensemble;
  const int64_t filled = of.Filled(), examples = of.examples;
  constexpr int kNumbers = 2;
  int16_t* const tables = Scratch<int16_t>(kTables, kTargets * kNumbers * TableSize(of));
  int32_t* const sums = Scratch<int32_t>(kSums, kTargets * filled);
  float* const column = Scratch<float>(kOthers, filled);
  ColumnReader reader(examples, strongest, ranks, num_ranks);
  LossRow losses(of);
  int64_t listed = 0;
  for (int64_t begin = first; begin < last; begin += kTargets) {
    const int64_t width = std::min<int64_t>(kTargets, last - begin);
    float steps[kTargets];
    double totals[kTargets][2];
    for (int64_t t = 0; t < width; ++t) {
      FillTables<kNumbers>(of, losses.Of(begin + t), tables + t * kNumbers * TableSize(of), steps + t,
                           totals[t]);
    }
    std::fill(sums, sums + kTargets * filled, 0);
    SumsOfWords<kNumbers>(of, 0, of.first_words, tables, sums);
    SumsOfWords<kNumbers>(of, of.first_words, of.words, tables, sums);
    for (int64_t t = 0; t < width; ++t) {
      const int64_t target = begin + t;
      const Difference difference(sums + t * filled, steps[t], totals[t][0] + totals[t][1],
                                  of_inside, of_total);
      for (int64_t e = 0; e < examples; e += kLanes) {
        _mm512_store_ps(column + e, difference(e, Valid(e, examples)));
      }
      for (int64_t f = target * fixed; f < (target + 1) * fixed; ++f) {
        if (fixed_examples[f] >= 0) column[fixed_examples[f]] = fixed_values[f];
      }
      reader.Read(column, per_unit[target], floor[target], target * examples, candidates, &listed);
      reader.Strongest(top + strongest * target, bottom + strongest * target);
      reader.Moments(moments + 4 * target);
      reader.Values(column, ranked + num_ranks * target);
      reader.AddHistogram(self_index[target], histogram);
    }
  }
  return listed;
} catch (const std::bad_alloc&) {
  return -1;
}

// Answers a request about columns that are there, of targets `first` to `last` - 1, but for the
// candidates.
//
// values: entry e of target t is values[e stride + t]. counted [targets]: whether the histogram has
// a column. All others as above. Returns 0; -1: no memory.
int64_t columns_of_values(int64_t examples, int64_t first, int64_t last, const float* values,
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
int64_t columns_strongest(const Ensemble* ensemble, int64_t first, int64_t last,
                          const float* of_inside, const float* of_total,
                          const int64_t* self_index, int64_t count, int64_t parts,
                          int64_t* strongest) try {
  const Ensemble& of = *ensemble;
  const int64_t filled = of.Filled(), examples = of.examples, targets = of.targets;
  int16_t* const tables = Scratch<int16_t>(kTables, kTargets * TableSize(of));
  int32_t* const halves[] = {Scratch<int32_t>(kSums, kTargets * filled),
                             Scratch<int32_t>(kOthers, kTargets * filled)};
  float* const scores = Scratch<float>(kOfBins, filled);
  StrongestOf<true> largest(count, examples);
  LossRow losses(of);
  for (int64_t begin = first; begin < last; begin += kTargets) {
    const int64_t width = std::min<int64_t>(kTargets, last - begin);
    float steps[kTargets];
    double totals[kTargets][3];
    for (int64_t t = 0; t < width; ++t) {
      FillTables<1>(of, losses.Of(begin + t), tables + t * TableSize(of), steps + t, totals[t]);
      totals[t][2] = totals[t][0] + totals[t][1];
    }
    for (int half = 0; half < 2; ++half) {
      std::fill(halves[half], halves[half] + kTargets * filled, 0);
      SumsOfWords<1>(of, half ? of.first_words : 0, half ? of.words : of.first_words, tables,
                     halves[half]);
    }
    for (int64_t part = 0; part < parts; ++part) {
      int32_t* const sums = halves[part % 2];
      if (part == 2) {
        for (int64_t e = 0; e < kTargets * filled; ++e) sums[e] += halves[1][e];
      }
      for (int64_t t = 0; t < width; ++t) {
        const int64_t own = self_index[begin + t];
        const Difference difference(sums + t * filled, steps[t], totals[t][part],
                                    of_inside + part * examples, of_total + part * examples);
        largest.Clear();
        for (int64_t e = 0; e < examples; e += kLanes) {
          const __mmask16 valid = Valid(e, examples);
          const __m512 value = _mm512_abs_ps(difference(e, valid));
          largest.Show(_mm512_mask_mov_ps(kNothing, valid, value));
          _mm512_store_ps(scores + e, value);
        }
        if (own >= 0) scores[own] = std::numeric_limits<float>::infinity();
        largest.SetThreshold();
        for (int64_t e = 0; e < examples; e += kLanes) {
          const __m512 value = _mm512_load_ps(scores + e);
          const __mmask16 reached = largest.Reached(value) & Valid(e, examples);
          if (reached) largest.Add(value, reached, e);
        }
        largest.Sorted(strongest + (part * targets + begin + t) * count);
      }
    }
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

}
