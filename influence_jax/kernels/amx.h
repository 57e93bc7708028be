// The tiles of Intel's AMX: 16 rows of 64 bytes each, all eight of them.

#ifndef INFLUENCE_JAX_KERNELS_AMX_H_
#define INFLUENCE_JAX_KERNELS_AMX_H_

#if defined(__AMX_TILE__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace {

// The thread's tiles, as long as it lives.
class WholeTiles {
 public:
  WholeTiles() {
    constexpr int kTileRows = 16, kRowBytes = 64;
    alignas(64) uint8_t config[64] = {1};  // palette
    for (int tile = 0; tile < 8; ++tile) {
      config[16 + 2 * tile] = kRowBytes;
      config[48 + tile] = kTileRows;
    }
    Reached(config);
    _tile_loadconfig(config);
  }
  ~WholeTiles() { _tile_release(); }
  WholeTiles(const WholeTiles&) = delete;
  WholeTiles& operator=(const WholeTiles&) = delete;

  // Compilers do not know what the instructions for tiles read and write.
  static void Reached(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }
};

// Whether the system lets this process use them.
bool TilesPermitted() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return permitted;
}

}  // namespace

#endif  // defined(__AMX_TILE__)

#endif  // INFLUENCE_JAX_KERNELS_AMX_H_
