// Least squares of each target's losses on a few mask columns of its own: what
// influence_jax.estimators.least_squares says, from bits. Products of columns are counts of the
// members that have both examples, and those with losses are sums over the members of one.

#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "vectors.h"

#if !defined(__BMI2__)
#error "numpy computes this: the CPU has no BMI2"
#endif

namespace {

constexpr int kMost = 8;   // regressors
constexpr int kWord = 32;  // members of a word, all of one half
constexpr double kRidge = 1e-5;

using Matrix = double[kMost][kMost];
using Vector = double[kMost];

// In which order members are held: words of those of even number, then words of those of odd
// number; -1 where there is none.
class Order {
 public:
  explicit Order(int64_t members)
      : words_((members + 2 * kWord - 1) / (2 * kWord)), members_(2 * words_ * kWord, -1) {
    for (int64_t member = 0; member < members; ++member) {
      const int64_t bit = 2 * kWord - 1 - member % (2 * kWord);  // of eight bytes, see Bits
      const int64_t word = member % 2 * words_ + member / (2 * kWord);
      members_[word * kWord + bit / 2] = member;
    }
  }
  int64_t Words() const { return words_; }  // of a half
  int64_t Slots() const { return members_.size(); }
  int64_t operator[](int64_t slot) const { return members_[slot]; }

 private:
  int64_t words_;
  std::vector<int64_t> members_;
};

// The bits of a column in that order; in bytes, the first member is the highest bit.
void Bits(const uint8_t* bytes, int64_t num_bytes, int64_t words, uint32_t* bits) {
  for (int64_t word = 0; word < words; ++word) {
    uint64_t eight = 0;
    std::memcpy(&eight, bytes + 8 * word, std::min<int64_t>(8, num_bytes - 8 * word));
    eight = __builtin_bswap64(eight);
    bits[word] = _pext_u64(eight, 0xaaaaaaaaaaaaaaaa);
    bits[words + word] = _pext_u64(eight, 0x5555555555555555);
  }
}

inline __mmask16 MaskOf(const uint32_t* bits, int64_t vector) {
  return bits[vector / 2] >> (kLanes * (vector % 2));
}

// What is known of some columns and the losses, over the members of a half.
struct Products {
  double members, total;  // how many there are, and the sum of their losses
  Matrix both;            // how many have two examples; of one, on the diagonal
  Vector inside;          // sums of losses
};

Products ProductsOf(const uint32_t* bits, int64_t words, int64_t stride, int64_t columns,
                    const float* losses, double members) {
  Products found;
  found.members = members;
  __m512 total = _mm512_setzero_ps();
  for (int64_t slot = 0; slot < words * kWord; slot += kLanes) {
    total = _mm512_add_ps(total, _mm512_load_ps(losses + slot));
  }
  found.total = _mm512_reduce_add_ps(total);
  for (int64_t a = 0; a < columns; ++a) {
    const uint32_t* const of_a = bits + a * stride;
    __m512 sum = _mm512_setzero_ps();
    for (int64_t vector = 0; vector < 2 * words; ++vector) {
      sum = _mm512_mask_add_ps(sum, MaskOf(of_a, vector), sum,
                               _mm512_load_ps(losses + vector * kLanes));
    }
    found.inside[a] = _mm512_reduce_add_ps(sum);
    for (int64_t b = 0; b <= a; ++b) {
      const uint32_t* const of_b = bits + b * stride;
      int64_t count = 0;
      for (int64_t word = 0; word < words; ++word) {
        count += __builtin_popcount(of_a[word] & of_b[word]);
      }
      found.both[a][b] = found.both[b][a] = count;
    }
  }
  return found;
}

// Products about the means of some members.
void About(const Products& of, const Vector& mean, double mean_loss, int64_t columns,
           Matrix& squares, Vector& right) {
  for (int64_t a = 0; a < columns; ++a) {
    right[a] = of.inside[a] - mean_loss * of.both[a][a] -
               mean[a] * (of.total - of.members * mean_loss);
    for (int64_t b = 0; b < columns; ++b) {
      squares[a][b] = of.both[a][b] - mean[a] * of.both[b][b] - mean[b] * of.both[a][a] +
                      of.members * mean[a] * mean[b];
    }
  }
}

void Means(const Products& of, int64_t columns, Vector& mean) {
  for (int64_t a = 0; a < columns; ++a) mean[a] = of.both[a][a] / of.members;
}

// The Cholesky factor of squares + ridge on the diagonal; that of the first columns is a part of it.
void Factor(const Matrix& squares, int64_t columns, double ridge, Matrix& factor) {
  for (int64_t a = 0; a < columns; ++a) {
    for (int64_t b = 0; b <= a; ++b) {
      double rest = squares[a][b] + (a == b ? ridge : 0);
      for (int64_t k = 0; k < b; ++k) rest -= factor[a][k] * factor[b][k];
      factor[a][b] = a == b ? std::sqrt(std::max(rest, ridge * 1e-3)) : rest / factor[b][b];
    }
  }
}

// Adds to `wrong` the squared errors of predicting the members of `test` by the first of the
// columns, fitted by those of `train`, less the squares of what is predicted.
void AddHeldOutErrors(const Products& train, const Products& test, int64_t columns,
                      const int64_t* counts, int64_t num_counts, double* wrong) {
  Vector mean, right, test_right, forward;
  Matrix squares, test_squares, factor;
  Means(train, columns, mean);
  const double mean_loss = train.total / train.members;
  About(train, mean, mean_loss, columns, squares, right);
  About(test, mean, mean_loss, columns, test_squares, test_right);
  Factor(squares, columns, kRidge * train.members, factor);
  for (int64_t a = 0; a < columns; ++a) {
    forward[a] = right[a];
    for (int64_t k = 0; k < a; ++k) forward[a] -= factor[a][k] * forward[k];
    forward[a] /= factor[a][a];
  }
  for (int64_t count = 0; count < num_counts; ++count) {
    Vector fitted;
    for (int64_t a = counts[count] - 1; a >= 0; --a) {
      fitted[a] = forward[a];
      for (int64_t k = a + 1; k < counts[count]; ++k) fitted[a] -= factor[k][a] * fitted[k];
      fitted[a] /= factor[a][a];
    }
    for (int64_t a = 0; a < counts[count]; ++a) {
      double predicted = 0;
      for (int64_t b = 0; b < counts[count]; ++b) predicted += test_squares[a][b] * fitted[b];
      wrong[count] += fitted[a] * (predicted - 2 * test_right[a]);
    }
  }
}

void Inverse(const Matrix& factor, int64_t columns, Matrix& inverse) {
  Matrix of_factor;
  for (int64_t a = 0; a < columns; ++a) {
    for (int64_t b = 0; b < columns; ++b) {
      double rest = a == b;
      for (int64_t k = b; k < a; ++k) rest -= factor[a][k] * of_factor[k][b];
      of_factor[a][b] = b > a ? 0 : rest / factor[a][a];
    }
  }
  for (int64_t a = 0; a < columns; ++a) {
    for (int64_t b = 0; b < columns; ++b) {
      inverse[a][b] = 0;
      for (int64_t k = std::max(a, b); k < columns; ++k) {
        inverse[a][b] += of_factor[k][a] * of_factor[k][b];
      }
    }
  }
}

}  // namespace

extern "C" {

// Fits the losses of targets `first` to `last` - 1.
//
// losses [targets members]. columns [3 targets most bytes]: bits of the candidates chosen by the
//     members of even number, of odd number, and by all. counts [num_counts]: of regressors, among
//     which the best at predicting held-out members is chosen. has_self [targets]: 1 where the first
//     candidate is the target's own, which always is used. least_z: other candidates are nearer 0.
// residual [targets members]. used [targets most]: 1 for regressors. For each, else 0 [targets
//     most]: coefficients; inverse, alone: of the variance of least squares, with the others and
//     alone; powers [targets most 4]: of each member's part in a coefficient (its residual, as HC2
//     has it, times its weight) the largest, and of the others divided by it the sums of squares,
//     third and fourth powers. Returns 0; -1: no memory.
int64_t regressions(int64_t first, int64_t last, int64_t targets, int64_t members,
                    const float* losses, int64_t most, int64_t num_bytes, const uint8_t* columns,
                    int64_t num_counts, const int64_t* counts, const int64_t* has_self,
                    double least_z, float* residual, int64_t* used, float* coefficients,
                    float* inverse_squares, float* squares_alone, float* powers) try {
  const Order order(members);
  const int64_t words = order.Words(), stride = 2 * words, vectors = 2 * stride;
  const double of_half[] = {double((members + 1) / 2), double(members / 2)};
  std::vector<uint32_t> bits(most * stride), is_member(stride);
  for (int64_t slot = 0; slot < order.Slots(); ++slot) {
    is_member[slot / kWord] |= uint32_t{order[slot] >= 0} << (slot % kWord);
  }
  std::vector<__m512> held(vectors), left(vectors), parts(kMost * vectors);
  auto* const loss = reinterpret_cast<float*>(held.data());
  for (int64_t target = first; target < last; ++target) {
    for (int64_t slot = 0; slot < order.Slots(); ++slot) {
      loss[slot] = order[slot] < 0 ? 0 : losses[target * members + order[slot]];
    }
    std::vector<double> wrong(num_counts);
    Products half[2];
    for (int by = 0; by < 3; ++by) {  // who chose them; last those of all
      for (int64_t k = 0; k < most; ++k) {
        const int64_t column = (by * targets + target) * most + k;
        Bits(columns + column * num_bytes, num_bytes, words, bits.data() + k * stride);
      }
      for (int of = 0; of < 2; ++of) {
        half[of] = ProductsOf(bits.data() + of * words, words, stride, most,
                              loss + of * words * kWord, of_half[of]);
      }
      if (by < 2) {
        AddHeldOutErrors(half[by], half[1 - by], most, counts, num_counts, wrong.data());
      }
    }
    int64_t best = 0;
    if (has_self[target] && !counts[0]) best = 1;
    for (int64_t count = best + 1; count < num_counts; ++count) {
      if (wrong[count] < wrong[best]) best = count;
    }
    Products all = half[0];
    all.members += half[1].members;
    all.total += half[1].total;
    for (int64_t a = 0; a < most; ++a) {
      all.inside[a] += half[1].inside[a];
      for (int64_t b = 0; b < most; ++b) all.both[a][b] += half[1].both[a][b];
    }
    Vector mean, right;
    Matrix squares, factor, inverse;
    Means(all, most, mean);
    About(all, mean, 0, most, squares, right);

    // Own columns, and those whose difference of means, the own effect left out, is beyond noise.
    __m512 square = _mm512_setzero_ps();
    for (int64_t v = 0; v < vectors; ++v) square = _mm512_fmadd_ps(held[v], held[v], square);
    const double effect = has_self[target] ? right[0] / std::max(squares[0][0], 1e-6) : 0;
    const double whole = _mm512_reduce_add_ps(square) - 2 * effect * right[0] +
                         effect * effect * squares[0][0];
    int64_t chosen[kMost], number = 0;
    for (int64_t k = 0; k < counts[best]; ++k) {
      const double part = right[k] - effect * squares[k][0];
      const double explained = part * part / std::max(squares[k][k], 1e-6);
      const double rest = std::max(whole - explained, 0.0);
      const bool is_self = k == 0 && has_self[target];
      if (is_self || explained * (members - 3) > least_z * least_z * rest) chosen[number++] = k;
    }
    Matrix among;
    for (int64_t a = 0; a < number; ++a) {
      for (int64_t b = 0; b < number; ++b) among[a][b] = squares[chosen[a]][chosen[b]];
    }
    Factor(among, number, kRidge * members, factor);
    Inverse(factor, number, inverse);
    float coefficient[kMost] = {};
    for (int64_t a = 0; a < number; ++a) {
      double sum = 0;
      for (int64_t b = 0; b < number; ++b) sum += inverse[a][b] * right[chosen[b]];
      coefficient[a] = sum;
    }

    const int64_t at = target * most;
    std::fill(used + at, used + at + most, 0);
    for (float* const of : {coefficients, inverse_squares, squares_alone}) {
      std::fill(of + at, of + at + most, 0);
    }
    std::fill(powers + 4 * at, powers + 4 * (at + most), 0);
    __m512 largest[kMost] = {};
    for (int64_t v = 0; v < vectors; ++v) {
      const __mmask16 is_there = MaskOf(is_member.data(), v);
      __m512 column[kMost], rest = held[v], leverage = Set(1.0f / members);
      for (int64_t a = 0; a < number; ++a) {
        const float without = -mean[chosen[a]];
        column[a] = _mm512_maskz_mov_ps(
            is_there, _mm512_mask_mov_ps(Set(without),
                                         MaskOf(bits.data() + chosen[a] * stride, v),
                                         Set(1 + without)));
        rest = _mm512_fnmadd_ps(Set(coefficient[a]), column[a], rest);
      }
      left[v] = rest;
      for (int64_t a = 0; a < number; ++a) {
        __m512 weight = _mm512_setzero_ps();
        for (int64_t b = 0; b < number; ++b) {
          weight = _mm512_fmadd_ps(Set(inverse[a][b]), column[b], weight);
        }
        leverage = _mm512_fmadd_ps(weight, column[a], leverage);
        parts[a * vectors + v] = weight;
      }
      const __m512 kept = _mm512_max_ps(_mm512_sub_ps(Set(1), leverage), Set(1.0f / members));
      const __m512 corrected = _mm512_div_ps(rest, _mm512_sqrt_ps(kept));
      for (int64_t a = 0; a < number; ++a) {
        __m512& part = parts[a * vectors + v];
        part = _mm512_mul_ps(part, corrected);
        largest[a] = _mm512_max_ps(largest[a], _mm512_abs_ps(part));
      }
    }
    const auto* const in_order = reinterpret_cast<const float*>(left.data());
    for (int64_t slot = 0; slot < order.Slots(); ++slot) {
      if (order[slot] >= 0) residual[target * members + order[slot]] = in_order[slot];
    }
    for (int64_t a = 0; a < number; ++a) {
      const int64_t into = at + chosen[a];
      used[into] = 1;
      coefficients[into] = coefficient[a];
      inverse_squares[into] = inverse[a][a];
      squares_alone[into] = squares[chosen[a]][chosen[a]];
      const float most_of_all = _mm512_reduce_max_ps(largest[a]);
      const __m512 per_largest = Set(most_of_all > 0 ? 1 / most_of_all : 0);
      __m512 sum[3] = {};
      for (int64_t v = 0; v < vectors; ++v) {
        const __m512 part = _mm512_mul_ps(parts[a * vectors + v], per_largest);
        const __m512 squared = _mm512_mul_ps(part, part);
        sum[0] = _mm512_add_ps(sum[0], squared);
        sum[1] = _mm512_fmadd_ps(squared, part, sum[1]);
        sum[2] = _mm512_fmadd_ps(squared, squared, sum[2]);
      }
      powers[4 * into] = most_of_all;
      for (int power = 0; power < 3; ++power) {
        powers[4 * into + 1 + power] = _mm512_reduce_add_ps(sum[power]);
      }
    }
  }
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}
}
