// What the kernels share: vectors of float32, memory of a thread, tasks on XLA's threads.

#ifndef INFLUENCE_JAX_KERNELS_COMMON_H_
#define INFLUENCE_JAX_KERNELS_COMMON_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "xla/ffi/api/ffi.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

namespace ffi = xla::ffi;

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

inline Vector Load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void Store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }
inline Vector All(float value) { return value - Vector{}; }

// Calls step(channel, load, store) for each vector of channels; the last may be a part of one.
template <typename Step>
inline void OverChannels(int64_t channels, Step step) {
  int64_t c = 0;
  const auto load = [](const float* from) { return Load(from); };
  const auto store = [](float* to, Vector value) { Store(to, value); };
  for (; c + kLanes <= channels; c += kLanes) step(c, load, store);  // pointers are not inlined
  if (const int64_t rest = channels - c) {
#if defined(__AVX512F__)
    const auto valid = static_cast<__mmask16>((1u << rest) - 1);
    step(
        c, [valid](const float* from) { return Vector(_mm512_maskz_loadu_ps(valid, from)); },
        [valid](float* to, Vector value) { _mm512_mask_storeu_ps(to, valid, (__m512)value); });
#else
    step(
        c,
        [rest](const float* from) {
          Vector value{};
          std::memcpy(&value, from, sizeof(float) * rest);
          return value;
        },
        [rest](float* to, Vector value) { std::memcpy(to, &value, sizeof(float) * rest); });
#endif
  }
}

int64_t WholeVectors(int64_t channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// Floats that belong to the thread and are kept from call to call.
class Scratch {
 public:
  float* OfSize(int64_t floats) {
    if (floats > size_) {
      std::free(memory_);
      size_ = 0;
      memory_ = static_cast<float*>(std::aligned_alloc(64, (4 * floats + 63) / 64 * 64));
      if (!memory_) throw std::bad_alloc();
      size_ = floats;
    }
    return memory_;
  }
  ~Scratch() { std::free(memory_); }

 private:
  float* memory_ = nullptr;
  int64_t size_ = 0;
};

// --- Tasks on XLA's threads ---

// Calls run(task) for every task; where there is a pool, its threads take some. The caller does
// what no thread has begun, so that it never waits for one that is busy elsewhere. What a task
// throws is thrown again once all are done.
void InParallel(ffi::ThreadPool* pool, int64_t tasks, const std::function<void(int64_t)>& run) {
  if (!pool || tasks < 2) {
    for (int64_t task = 0; task < tasks; ++task) run(task);
    return;
  }
  struct Shared {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable all_done;
    int64_t done = 0;
    std::exception_ptr failure;
  };
  auto shared = std::make_shared<Shared>();
  const auto* const body = &run;  // not touched once every task is done
  const std::function<void()> work = [shared, tasks, body] {
    for (int64_t task; (task = shared->next.fetch_add(1)) < tasks;) {
      std::exception_ptr failure;
      try {
        (*body)(task);
      } catch (...) {
        failure = std::current_exception();
      }
      const std::lock_guard<std::mutex> lock(shared->mutex);
      if (failure) shared->failure = failure;
      if (++shared->done == tasks) shared->all_done.notify_all();
    }
  };
  const int64_t helpers = std::min<int64_t>(pool->num_threads(), tasks) - 1;
  for (int64_t helper = 0; helper < helpers; ++helper) pool->Schedule(std::function<void()>(work));
  work();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == tasks; });
  if (shared->failure) std::rethrow_exception(shared->failure);
}

// What XLA is told of a call.
template <typename Work>
ffi::Error Reported(Work work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory is left for a kernel");
  }
  return ffi::Error::Success();
}

using Array = ffi::Buffer<ffi::F32>;

}  // namespace

#endif  // INFLUENCE_JAX_KERNELS_COMMON_H_
