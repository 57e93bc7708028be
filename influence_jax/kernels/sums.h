// Sums of the losses of the members that have an example, of every example.
//
// Losses are whole numbers of a step of their target, of 16 or of 24 bits, and their sums exact.
// These are looked up, or computed by AMX's tiles where there are some; the same either way.

#ifndef INFLUENCE_JAX_KERNELS_SUMS_H_
#define INFLUENCE_JAX_KERNELS_SUMS_H_

#include <cstring>

#include "amx.h"
#include "members.h"

namespace {

// --- Whole numbers ---

constexpr int kSummed = 252;          // members whose sums are no larger than kLargestSum
constexpr float kLargestSum = 32600;  // of 16 bits, and what rounding adds to so many losses
constexpr int kFineBits = 8;          // more, of the second of two numbers

// What a target's losses are counted in, and their totals: of the members of the first words, and
// of the others.
struct Steps {
  float step = 0;
  double totals[2] = {};
};

// Rounds a target's losses to numbers of 16 bits, and of 8 more bits if there are two. Members of a
// word: so many.
template <int kNumbers>
Steps Rounded(const Ensemble& of, int members, const float* losses, int32_t* whole) {
  const int64_t half[] = {0, of.first_words * members, of.words * members};
  const __m512 zero = _mm512_setzero_ps();
  float largest = 0;
  double positive = 0, negative = 0;
  for (int h = 0; h < 2; ++h) {
    for (int64_t start = half[h]; start < half[h + 1]; start += kSummed) {
      const int64_t stop = std::min(start + kSummed, half[h + 1]);
      __m512 above = zero, below = zero;
      for (int64_t slot = start; slot < stop; slot += kLanes) {
        const __m512 some = _mm512_maskz_loadu_ps(Before(slot, stop), losses + slot);
        above = _mm512_add_ps(above, _mm512_max_ps(some, zero));
        below = _mm512_sub_ps(below, _mm512_min_ps(some, zero));
      }
      const float above_zero = _mm512_reduce_add_ps(above), below_zero = _mm512_reduce_add_ps(below);
      largest = std::max({largest, above_zero, below_zero});
      positive += above_zero;
      negative += below_zero;
    }
  }
  constexpr float kFine = kNumbers == 2 ? 1 << kFineBits : 1;
  const float most = std::max(positive, negative) / (1u << 30);  // of many members
  Steps steps;
  steps.step = std::max(largest / (kLargestSum * kFine), most);
  // Losses so small that a step has no reciprocal are as good as none.
  const float per_step =
      steps.step > std::numeric_limits<float>::min() ? 1 / steps.step : 0;
  for (int h = 0; h < 2; ++h) {
    __m512i total{};
    for (int64_t slot = half[h]; slot < half[h + 1]; slot += kLanes) {
      const __mmask16 valid = Before(slot, half[h + 1]);
      const __m512i some = _mm512_cvtps_epi32(_mm512_mul_ps(
          _mm512_maskz_loadu_ps(valid, losses + slot), _mm512_set1_ps(per_step)));
      _mm512_mask_storeu_epi32(whole + slot, valid, some);
      total = _mm512_add_epi32(total, some);
    }
    // Of the whole numbers, so that what is rounded alike everywhere changes no difference of means.
    steps.totals[h] = double{steps.step} * _mm512_reduce_add_epi32(total);
  }
  return steps;
}

// --- By lookup ---

// Sums of a few targets at once. The sums over every choice of six members are two vectors of 32
// numbers, and six bits of an example's mask say which it is: one lookup and one addition take the
// place of six multiplications (Arlazarov, Dinic, Kronrod and Faradzev 1970, Soviet Mathematics
// Doklady 11:1209, there of bits alone). Two numbers of a loss are summed apart.
//
// bits: in pieces of kWordsAtOnce words, fewer at the end of either half, each
//     [filled / kBlock, words of the piece, kBlock].
template <int kNumbers>
class Lookups {
 public:
  static constexpr int kTargets = 8;  // whose sums stay in a cache

  explicit Lookups(const Ensemble& of)
      : of_(of),
        whole_(Scratch<int32_t>(kWhole, of.slots)),
        tables_(Scratch<int16_t>(kTables, kTargets * kNumbers * TableSize())) {}

  // Takes the losses of a target, of so many.
  Steps Take(int target, const float* losses) {
    const Steps steps = Rounded<kNumbers>(of_, kMembers, losses, whole_);
    FillTables(tables_ + target * kNumbers * TableSize());
    return steps;
  }

  // The sums over the members of words `first` to `last` - 1, of either half or of all: sums
  // [kTargets filled].
  void Sum(int64_t first, int64_t last, int32_t* sums) const {
    const int64_t filled = of_.Filled(), blocks = filled / kBlock;
    if (first == last) std::fill(sums, sums + kTargets * filled, 0);
    for (int64_t word = first, words; word < last; word += words) {
      words = std::min<int64_t>(kWordsAtOnce, (word < of_.first_words ? of_.first_words : last) - word);
      for (int64_t block = 0; block < blocks; block += kBlocksAtOnce) {
        const int64_t some = std::min<int64_t>(kBlocksAtOnce, blocks - block);
        for (int64_t row = 0; row < kTargets * kNumbers; row += kRows) {
          Lookup(of_.bits + word * filled + block * words * kBlock, some, words,
                 tables_ + row * TableSize() + word * kTable, word == first, filled,
                 sums + row / kNumbers * filled + block * kBlock);
        }
      }
    }
  }

 private:
  static constexpr int kVectors = kBlock / kWordLanes;  // of examples, looked up together
  static constexpr int kRows = 4;      // whole numbers of losses, likewise
  static constexpr int kSix = 6;       // members of a lookup
  static constexpr int kMembers = 12;  // a word
  static constexpr int kGroups = kMembers / kSix;
  // Whose tables stay in the nearest cache, whose sums in 16 bits.
  static constexpr int kWordsAtOnce = kSummed / kMembers;
  static constexpr int kChoices = 1 << kSix;
  static constexpr int kTable = kGroups * kChoices;  // a word
  static constexpr int kBlocksAtOnce = 8;  // whose masks stay in the nearest cache for more targets

  int64_t TableSize() const { return of_.words * kTable; }

  // Sums over every choice among six losses, group after group; of two numbers a loss in tables one
  // behind the other.
  void FillTables(int16_t* tables) const {
    for (int64_t group = 0; group < kGroups * of_.words; ++group) {
      const int32_t* const six = whole_ + group * kSix;
      __m512i table[kNumbers] = {}, last[kNumbers];
      for (int member = 0; member < kSix; ++member) {
        // Which of 32 choices have this member; the other 32 have the last one.
        constexpr __mmask32 kHave[] = {0xaaaaaaaa, 0xcccccccc, 0xf0f0f0f0, 0xff00ff00, 0xffff0000};
        const int32_t coarse =
            kNumbers == 2 ? (six[member] + (1 << (kFineBits - 1))) >> kFineBits : six[member];
        const int16_t number[] = {static_cast<int16_t>(coarse),
                                  static_cast<int16_t>(six[member] - coarse * (1 << kFineBits))};
        for (int n = 0; n < kNumbers; ++n) {
          last[n] = _mm512_set1_epi16(number[n]);
          if (member + 1 < kSix) {
            table[n] = _mm512_mask_add_epi16(table[n], kHave[member], table[n], last[n]);
          }
        }
      }
      for (int n = 0; n < kNumbers; ++n) {
        int16_t* const at = tables + n * TableSize() + group * kChoices;
        _mm512_store_si512(at, table[n]);
        _mm512_store_si512(at + kWordLanes, _mm512_add_epi16(table[n], last[n]));
      }
    }
  }

  // Adds to the sums of some blocks of examples, or begins with, what the members of `words` words
  // bring in.
  //
  // bits [blocks words kBlock]; tables [kRows], the numbers of a target one after the other; sums
  // [kRows / kNumbers filled].
  void Lookup(const uint16_t* bits, int64_t blocks, int64_t words, const int16_t* tables,
              bool is_first, int64_t filled, int32_t* sums) const {
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
        for (int group = 0; group < kGroups; ++group, table += kChoices) {
#pragma GCC unroll 4
          for (int row = 0; row < kRows; ++row) {
            __m512i without = _mm512_load_si512(table + row * TableSize());
            __m512i with_last = _mm512_load_si512(table + row * TableSize() + kWordLanes);
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
            if (!is_first) more = _mm512_add_epi32(_mm512_load_si512(at), more);
            _mm512_store_si512(at, more);
          }
        }
      }
    }
  }

  const Ensemble& of_;
  int32_t* whole_;
  int16_t* tables_;
};

// --- By tiles ---

#if defined(__AMX_INT8__)

// Sums of a few targets at once: products of the losses' digits of 8 bits by masks, which are 0 and
// 1, in 32 bits. Tiles 0 to 5 hold the sums of three digits of 16 targets and of twice 16 examples.
//
// bits [filled / 16, words, 16, 64 bits]: of a word of 64 members, row after row, of four members
//     each of 16 examples, example after example.
template <int kNumbers>
class Products {
 public:
  static constexpr int kTargets = 16;

  explicit Products(const Ensemble& of)
      : of_(of),
        whole_(Scratch<int32_t>(kWhole, of.slots)),
        digits_(Scratch<int8_t>(kTables, kDigits * of.words * kTile)) {}

  Steps Take(int target, const float* losses) {
    const Steps steps = Rounded<kNumbers>(of_, kMembers, losses, whole_);
    for (int64_t word = 0; word < of_.words; ++word) {
      for (int64_t m = 0; m < kMembers; m += kLanes) {
        __m512i rest = _mm512_loadu_si512(whole_ + kMembers * word + m);
        for (int digit = 0; digit < kDigits; ++digit) {
          const __m128i lowest = _mm512_cvtepi32_epi8(rest);
          int8_t* const to = digits_ + (digit * of_.words + word) * kTile + target * kMembers + m;
          _mm_store_si128(reinterpret_cast<__m128i*>(to), lowest);
          // Digits are signed.
          rest = _mm512_srai_epi32(_mm512_sub_epi32(rest, _mm512_cvtepi8_epi32(lowest)), 8);
        }
      }
    }
    return steps;
  }

  void Sum(int64_t first, int64_t last, int32_t* sums) const {
    constexpr int64_t kAhead = 1;  // words: what was just written takes a while until it is read
    alignas(64) uint8_t columns[kAhead + 1][2 * kTile];
    alignas(64) int32_t found[2 * kDigits][kSide * kSide];
    const int64_t words = last - first, filled = of_.Filled();
    WholeTiles tiles;
    for (int64_t example = 0; example < filled; example += 2 * kSide, sums += 2 * kSide) {
      const uint16_t* const bits = of_.bits + (example / kSide * of_.words + first) * kWord;
      Zero();
      for (int64_t word = 0; word < words + kAhead; ++word) {
        if (word < words) {
          uint8_t* const to = columns[word % (kAhead + 1)];
          Unpack(bits + word * kWord, to);
          Unpack(bits + (of_.words + word) * kWord, to + kTile);
        }
        if (word >= kAhead) {
          const int64_t ready = word - kAhead;
          Multiply(digits_ + (first + ready) * kTile, columns[ready % (kAhead + 1)]);
        }
      }
      Store(found);
      for (int side = 0; side < 2; ++side) {
        for (int target = 0; target < kTargets; ++target) {
          __m512i sum{};
          for (int digit = 0; digit < kDigits; ++digit) {
            const __m512i of_digit = _mm512_load_si512(found[2 * digit + side] + target * kSide);
            sum = _mm512_add_epi32(sum, _mm512_slli_epi32(of_digit, 8 * digit));
          }
          _mm512_store_si512(sums + target * filled + side * kSide, sum);
        }
      }
    }
  }

 private:
  static constexpr int kDigits = kNumbers + 1;
  static constexpr int kMembers = 64;  // a word
  static constexpr int kSide = 16;
  static constexpr int kTile = 1024;  // bytes
  static constexpr int kWord = kTile / 16;  // of its bits, numbers of 16

  static void Unpack(const uint16_t* bits, uint8_t* tile) {
    for (int row = 0; row < kSide; ++row) {
      uint64_t of_row;
      std::memcpy(&of_row, bits + 4 * row, sizeof(of_row));
      _mm512_store_si512(tile + 64 * row, _mm512_maskz_set1_epi8(of_row, 1));
    }
  }

  static void Zero() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
  }

  void Multiply(const int8_t* digits, const uint8_t* columns) const {
    WholeTiles::Reached(columns);
    const int64_t next = of_.words * kTile;
    _tile_loadd(6, digits, 64);
    _tile_loadd(7, columns, 64);
    _tile_dpbsud(0, 6, 7);
    _tile_loadd(7, columns + kTile, 64);
    _tile_dpbsud(1, 6, 7);
    _tile_loadd(6, digits + next, 64);
    _tile_dpbsud(3, 6, 7);
    _tile_loadd(7, columns, 64);
    _tile_dpbsud(2, 6, 7);
    if (kDigits > 2) {
      _tile_loadd(6, digits + 2 * next, 64);
      _tile_dpbsud(4, 6, 7);
      _tile_loadd(7, columns + kTile, 64);
      _tile_dpbsud(5, 6, 7);
    }
    WholeTiles::Reached(columns);
  }

  static void Store(int32_t (*found)[kSide * kSide]) {
    _tile_stored(0, found[0], 64);
    _tile_stored(1, found[1], 64);
    _tile_stored(2, found[2], 64);
    _tile_stored(3, found[3], 64);
    if (kDigits > 2) {
      _tile_stored(4, found[4], 64);
      _tile_stored(5, found[5], 64);
    }
    WholeTiles::Reached(found);
  }

  const Ensemble& of_;
  int32_t* whole_;
  int8_t* digits_;
};

#endif

bool ByTiles() {
#if defined(__AMX_INT8__)
  return TilesPermitted();
#else
  return false;
#endif
}

// Calls work(what sums), as the bits of masks lie here.
template <int kNumbers, typename Work>
int64_t WithSums(const Ensemble& of, Work work) {
#if defined(__AMX_INT8__)
  if (ByTiles()) {
    Products<kNumbers> products(of);
    return work(products);
  }
#endif
  Lookups<kNumbers> lookups(of);
  return work(lookups);
}

}  // namespace

#endif  // INFLUENCE_JAX_KERNELS_SUMS_H_
