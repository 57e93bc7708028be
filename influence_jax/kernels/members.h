// An ensemble's masks and losses as the kernels of summaries read them.

#ifndef INFLUENCE_JAX_KERNELS_MEMBERS_H_
#define INFLUENCE_JAX_KERNELS_MEMBERS_H_

#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>

#include "vectors.h"

namespace {

constexpr int kWordLanes = 32;
constexpr int kBlock = 4 * kWordLanes;  // examples whose masks lie together

enum { kTables, kSums, kOthers, kOfBins, kLosses, kWhole, kScratches };

// Memory of a thread, kept from call to call.
template <typename Element>
Element* Scratch(int which, int64_t size) {
  struct Freed {
    void* memory = nullptr;
    int64_t bytes = 0;
    ~Freed() { std::free(memory); }
  };
  thread_local Freed kept[kScratches];
  Freed& one = kept[which];
  const int64_t bytes = (size * sizeof(Element) + 63) / 64 * 64;
  if (bytes > one.bytes) {
    std::free(one.memory);
    one.bytes = 0;  // should there be no memory
    one.memory = std::aligned_alloc(64, bytes);
    if (!one.memory) throw std::bad_alloc();
    one.bytes = bytes;
  }
  return static_cast<Element*>(one.memory);
}

// Masks and losses of an ensemble.
//
// bits: which members have an example, in words; first those of the members of even number. How they
//     lie, and how many members a word has, each file says.
// order [slots]: the member of each bit of all words; -1 for none.
// losses [targets members]: of a block.
struct Ensemble {
  const uint16_t* bits;
  int64_t words, first_words, examples, slots;
  const int64_t* order;
  const float* losses;
  int64_t members, targets;

  int64_t Filled() const { return (examples + kBlock - 1) / kBlock * kBlock; }
};

// A target's losses, bit after bit; 0 where a bit is no member's.
class LossRow {
 public:
  explicit LossRow(const Ensemble& of) : of_(of), row_(Scratch<float>(kLosses, of.slots)) {}

  const float* Of(int64_t target) {
    if (target != target_) {
      target_ = target;
      const float* const losses = of_.losses + target * of_.members;
      for (int64_t slot = 0; slot < of_.slots; ++slot) {
        const int64_t member = of_.order[slot];
        row_[slot] = member < 0 ? 0 : losses[member];
      }
    }
    return row_;
  }

 private:
  const Ensemble& of_;
  int64_t target_ = -1;
  float* row_;
};

}  // namespace

#endif  // INFLUENCE_JAX_KERNELS_MEMBERS_H_
