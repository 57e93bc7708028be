// AMX's tiles in plain C++, to be included before a kernel: what it computes where there are some.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#define __AMX_TILE__ 1
#define __AMX_INT8__ 1
#define __AMX_BF16__ 1

namespace emulated {

inline thread_local uint8_t tiles[8][16][64];
inline thread_local bool configured = false;

inline void Configure(const uint8_t* config) {
  configured = config[0] == 1;
  for (int tile = 0; tile < 8; ++tile) {
    configured &= config[16 + 2 * tile] == 64 && config[17 + 2 * tile] == 0 && config[48 + tile] == 16;
  }
}

inline void Load(int tile, const void* from, int64_t stride) {
  if (!configured) std::abort();
  for (int row = 0; row < 16; ++row) {
    std::memcpy(tiles[tile][row], static_cast<const char*>(from) + row * stride, 64);
  }
}

inline void Store(int tile, void* to, int64_t stride) {
  if (!configured) std::abort();
  for (int row = 0; row < 16; ++row) {
    std::memcpy(static_cast<char*>(to) + row * stride, tiles[tile][row], 64);
  }
}

// sums[row, column] += the products of left's `kOfFour` next to each other by right's.
template <typename Sum, typename Left, typename Right, typename Widened>
inline void Multiply(int sums, int left, int right, Widened widened) {
  constexpr int kNext = 4 / sizeof(Left);
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 16; ++column) {
      Sum sum;
      std::memcpy(&sum, tiles[sums][row] + 4 * column, 4);
      for (int four = 0; four < 16; ++four) {
        Left a[kNext];
        Right b[kNext];
        std::memcpy(a, tiles[left][row] + 4 * four, 4);
        std::memcpy(b, tiles[right][four] + 4 * column, 4);
        for (int next = 0; next < kNext; ++next) sum += widened(a[next]) * widened(b[next]);
      }
      std::memcpy(tiles[sums][row] + 4 * column, &sum, 4);
    }
  }
}

inline float FromBfloat16(uint16_t half) {
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace emulated

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbsud
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) emulated::Configure(config)
#define _tile_release() (emulated::configured = false)
#define _tile_zero(tile) std::memset(emulated::tiles[tile], 0, 1024)
#define _tile_loadd(tile, from, stride) emulated::Load(tile, from, stride)
#define _tile_stored(tile, to, stride) emulated::Store(tile, to, stride)
#define _tile_dpbsud(sums, left, right)                                   \
  emulated::Multiply<int32_t, int8_t, uint8_t>(sums, left, right,         \
                                               [](auto of) { return int32_t{of}; })
#define _tile_dpbf16ps(sums, left, right) \
  emulated::Multiply<float, uint16_t, uint16_t>(sums, left, right, emulated::FromBfloat16)
#define syscall(...) 0
