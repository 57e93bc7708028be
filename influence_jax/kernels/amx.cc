// 3x3 convolutions of stride 1 with one pixel of zero padding, NHWC x HWIO -> NHWC, and their
// gradients: factors rounded to bfloat16, sums in float32, by the tiles of Intel's AMX.
//
// A tile has 16 rows of 64 bytes. One instruction adds to a tile of 16 x 16 sums the product of
// 16 rows of 32 factors each by 32 factors of 16 columns each; of the latter, two of a column are
// next to each other. So nothing of a convolution is copied nine times: rows are images, one
// pixel of 16 images after another, and what a tap of the kernel shifts is the pixel.
//
//     convolution:         for a pixel and 16 images, over taps and channels,
//                          sums[image, output] += x[pixel + tap, image, input] k[tap, input, output]
//     gradient by kernel:  for a tap, over pixels and images,
//                          sums[input, output] += x[pixel + tap, input, image] y[pixel, image, output]
//
// Without AMX the same is computed in its instructions' stead, slowly, for tests.

#include <immintrin.h>
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "common.h"

namespace {

typedef uint16_t Half;  // a bfloat16

constexpr int64_t kSide = 16;              // rows of a tile; columns of sums
constexpr int64_t kDepth = 32;             // factors of a sum that an instruction adds
constexpr int64_t kTile = kSide * kDepth;  // factors of a tile
constexpr int kTaps = 9;

int64_t Parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

// --- Tiles: 0 to 3 hold sums of 2 x 2 blocks, 4 and 5 the rows, 6 and 7 the columns ---

#if defined(__AMX_BF16__)

class Tiles {
 public:
  Tiles() {
    alignas(64) uint8_t config[64] = {1};  // palette
    for (int tile = 0; tile < 8; ++tile) {
      config[16 + 2 * tile] = 64;  // bytes of a row
      config[48 + tile] = kSide;   // rows
    }
    _tile_loadconfig(config);
  }
  ~Tiles() { _tile_release(); }
  void Zero() {
    Reached(nullptr);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  void Add(const Half* row0, const Half* row1, const Half* column0, const Half* column1) {
    _tile_loadd(4, row0, 64);
    _tile_loadd(6, column0, 64);
    _tile_loadd(7, column1, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, row1, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  // Of one of the four blocks; `apart` floats from row to row.
  void Store(int block, float* to, int64_t apart) {
    if (block == 0) { _tile_stored(0, to, 4 * apart); }
    if (block == 1) { _tile_stored(1, to, 4 * apart); }
    if (block == 2) { _tile_stored(2, to, 4 * apart); }
    if (block == 3) { _tile_stored(3, to, 4 * apart); }
    Reached(to);
  }

 private:
  // Compilers do not know what the instructions for tiles read and write.
  static void Reached(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }
};

bool Permitted() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return permitted;
}

#else

class Tiles {
 public:
  void Zero() { std::memset(sums_, 0, sizeof(sums_)); }
  void Add(const Half* row0, const Half* row1, const Half* column0, const Half* column1) {
    AddTo(0, row0, column0), AddTo(1, row0, column1);
    AddTo(2, row1, column0), AddTo(3, row1, column1);
  }
  void Store(int block, float* to, int64_t apart) {
    for (int64_t r = 0; r < kSide; ++r)
      std::memcpy(to + r * apart, sums_[block][r], sizeof(sums_[block][r]));
  }

 private:
  void AddTo(int block, const Half* row, const Half* column) {
    for (int64_t r = 0; r < kSide; ++r) {
      __m512 sum = _mm512_loadu_ps(sums_[block][r]);
      for (int64_t pair = 0; pair < kSide; ++pair) {
        int32_t factors;
        std::memcpy(&factors, row + r * kDepth + 2 * pair, sizeof(factors));
        sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(factors),
                               (__m512bh)_mm512_loadu_si512(column + pair * kDepth));
      }
      _mm512_storeu_ps(sums_[block][r], sum);
    }
  }
  float sums_[4][kSide][kSide];
};

bool Permitted() { return true; }

#endif

// --- Into tiles ---

inline __mmask16 First(int64_t count) {
  return count >= kSide ? 0xffff : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

// 16 numbers, or the first of them and zeros.
inline __m512 Read(const float* from, int64_t count) {
  return _mm512_maskz_loadu_ps(First(count), from);
}

// Two of each of 16 columns, next to each other: the first in the lower half.
inline __m512i Paired(__m512 first, __m512 second) {
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(first));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(second));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Rows of 16 pairs as columns.
inline void Transpose(__m512i rows[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {
    rows[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    rows[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}

// Of an array [count, *, channels] whose entries of `count` are `apart` floats from one another:
// a tile of 32 of these, two and two in a row, by 16 channels.
inline void Pairs(const float* from, int64_t apart, int64_t count, int64_t channels,
                  __m512i rows[16]) {
  for (int64_t pair = 0; pair < kSide; ++pair) {
    const float* const at = from + 2 * pair * apart;
    rows[pair] = Paired(2 * pair < count ? Read(at, channels) : _mm512_setzero_ps(),
                        2 * pair + 1 < count ? Read(at + apart, channels) : _mm512_setzero_ps());
  }
}

inline void Keep(const __m512i rows[16], Half* to) {
  for (int64_t r = 0; r < kSide; ++r) _mm512_storeu_si512(to + r * kDepth, rows[r]);
}

struct Images {
  int64_t count, height, width, channels;

  int64_t pixels() const { return height * width; }
  int64_t apart() const { return pixels() * channels; }  // one image from the next
};

// Halves that belong to the thread.
Half* OfSize(Scratch& scratch, int64_t halves) {
  return reinterpret_cast<Half*>(scratch.OfSize((halves + 1) / 2));
}

// Tiles that are read where a pixel is outside of the image.
const Half* Outside(int64_t tiles) {
  thread_local std::vector<Half> zeros;
  if ((int64_t)zeros.size() < tiles * kTile) zeros.assign(tiles * kTile, 0);
  return zeros.data();
}

// The pixel that a tap shifts another to; -1 outside.
inline int64_t Shifted(const Images& images, int64_t pixel, int tap) {
  const int64_t y = pixel / images.width + tap / 3 - 1, x = pixel % images.width + tap % 3 - 1;
  const bool inside = y >= 0 && y < images.height && x >= 0 && x < images.width;
  return inside ? y * images.width + x : -1;
}

// --- The maps ---

// A kernel [3, 3, inputs, outputs] as tiles [tap, outputs / 32, inputs / 32, 2] of pairs of inputs
// by outputs. `turned`: given as [3, 3, outputs, inputs], to be turned by half a turn.
void KernelTiles(const float* kernel, int64_t inputs, int64_t outputs, bool turned, Half* to) {
  const int64_t depths = Parts(inputs, kDepth), columns = Parts(outputs, 2 * kSide);
  for (int tap = 0; tap < kTaps; ++tap) {
    const float* const at = kernel + (turned ? kTaps - 1 - tap : tap) * inputs * outputs;
    for (int64_t o = 0; o < 2 * kSide * columns; o += kSide)
      for (int64_t depth = 0; depth < depths; ++depth) {
        const int64_t i = depth * kDepth;
        __m512i rows[16];
        if (!turned) {
          Pairs(at + i * outputs + o, outputs, inputs - i, outputs - o, rows);
        } else {
          for (int64_t r = 0; r < kSide; ++r) {
            const float* const from = at + (o + r) * inputs + i;
            const bool there = o + r < outputs;
            const __m512 first = there ? Read(from, inputs - i) : _mm512_setzero_ps();
            const __m512 second = there ? Read(from + kSide, inputs - i - kSide)
                                        : _mm512_setzero_ps();
            rows[r] = (__m512i)_mm512_cvtne2ps_pbh(second, first);
          }
          Transpose(rows);
        }
        const int64_t column = o / (2 * kSide), side = o / kSide % 2;
        Keep(rows, to + (((tap * columns + column) * depths + depth) * 2 + side) * kTile);
      }
  }
}

// Sums of a tile to floats of which there may be fewer.
void StoreSums(Tiles& tiles, int block, int64_t rows, int64_t columns, float* to, int64_t apart) {
  if (rows <= 0 || columns <= 0) return;
  if (rows >= kSide && columns >= kSide) return tiles.Store(block, to, apart);
  alignas(64) float sums[kSide * kSide];
  tiles.Store(block, sums, kSide);
  for (int64_t r = 0; r < std::min(rows, kSide); ++r)
    std::memcpy(to + r * apart, sums + r * kSide, sizeof(float) * std::min(columns, kSide));
}

void Convolve(ffi::ThreadPool* pool, const Images& images, const float* from, const float* kernel,
              bool turned, int64_t channels, float* to) {
  const int64_t inputs = images.channels, pixels = images.pixels();
  const int64_t depths = Parts(inputs, kDepth), columns = Parts(channels, 2 * kSide);
  const int64_t groups = Parts(images.count, kSide);  // of images
  thread_local Scratch kernel_scratch, image_scratch;
  Half* const k = OfSize(kernel_scratch, kTaps * columns * depths * 2 * kTile);
  KernelTiles(kernel, inputs, channels, turned, k);
  // [group, pixel, depth]: tiles of 16 images by 32 channels.
  const int64_t of_group = pixels * depths * kTile;
  Half* const x = OfSize(image_scratch, groups * of_group);
  const auto of_images = [&](int64_t group) {
    const int64_t first = group * kSide, count = std::min(kSide, images.count - first);
    for (int64_t r = 0; r < kSide; ++r)
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        const float* const at = from + (first + r) * images.apart() + pixel * inputs;
        for (int64_t depth = 0; depth < depths; ++depth) {
          const int64_t left = inputs - depth * kDepth;
          const float* const channel = at + depth * kDepth;
          const __m512 low = r < count ? Read(channel, left) : _mm512_setzero_ps();
          const __m512 high =
              r < count ? Read(channel + kSide, left - kSide) : _mm512_setzero_ps();
          _mm512_storeu_si512(x + group * of_group + (pixel * depths + depth) * kTile + r * kDepth,
                              (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
      }
  };
  InParallel(pool, groups, of_images);
  // Two pixels of 16 images at a time, by 32 outputs.
  const int64_t pairs = Parts(pixels, 2);
  const Half* const zeros = Outside(depths);
  InParallel(pool, groups, [&](int64_t group) {
    Tiles tiles;
    const Half* const own = x + group * of_group;
    const int64_t first = group * kSide, count = images.count - first;
    for (int64_t column = 0; column < columns; ++column)
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t pixel = 2 * pair;
        tiles.Zero();
        for (int tap = 0; tap < kTaps; ++tap) {
          const int64_t a = Shifted(images, pixel, tap);
          const int64_t b = pixel + 1 < pixels ? Shifted(images, pixel + 1, tap) : -1;
          if (a < 0 && b < 0) continue;
          const Half* const row0 = a < 0 ? zeros : own + a * depths * kTile;
          const Half* const row1 = b < 0 ? zeros : own + b * depths * kTile;
          const Half* const by = k + (tap * columns + column) * depths * 2 * kTile;
          for (int64_t depth = 0; depth < depths; ++depth)
            tiles.Add(row0 + depth * kTile, row1 + depth * kTile, by + 2 * depth * kTile,
                      by + (2 * depth + 1) * kTile);
        }
        for (int block = 0; block < 4; ++block) {
          const int64_t place = pixel + block / 2, o = column * 2 * kSide + block % 2 * kSide;
          if (place >= pixels) continue;
          StoreSums(tiles, block, count, channels - o,
                    to + (first * pixels + place) * channels + o, pixels * channels);
        }
      }
  });
}

void KernelGradient(ffi::ThreadPool* pool, const Images& images, const float* from,
                    const float* cotangent, int64_t channels, float* to) {
  const int64_t inputs = images.channels, pixels = images.pixels();
  const int64_t depths = Parts(images.count, kDepth);
  const int64_t rows = Parts(inputs, 2 * kSide), columns = Parts(channels, 2 * kSide);
  thread_local Scratch image_scratch, cotangent_scratch;
  // [channels / 16, pixel, depth]: tiles of 16 channels by 32 images, and of 32 images by 16.
  const int64_t of_channels = pixels * depths * kTile;
  Half* const x = OfSize(image_scratch, 2 * rows * of_channels);
  Half* const y = OfSize(cotangent_scratch, 2 * columns * of_channels);
  InParallel(pool, pixels, [&](int64_t pixel) {
    for (int64_t depth = 0; depth < depths; ++depth) {
      const int64_t image = depth * kDepth, count = images.count - image;
      const int64_t place = (pixel * depths + depth) * kTile;
      __m512i pairs[16];
      for (int64_t part = 0; part < 2 * rows; ++part) {
        Pairs(from + image * images.apart() + pixel * inputs + part * kSide, images.apart(), count,
              inputs - part * kSide, pairs);
        Transpose(pairs);
        Keep(pairs, x + part * of_channels + place);
      }
      for (int64_t part = 0; part < 2 * columns; ++part) {
        Pairs(cotangent + (image * pixels + pixel) * channels + part * kSide, pixels * channels,
              count, channels - part * kSide, pairs);
        Keep(pairs, y + part * of_channels + place);
      }
    }
  });
  InParallel(pool, kTaps * rows * columns, [&](int64_t number) {
    Tiles tiles;
    const int tap = number % kTaps;
    const int64_t row = number / kTaps / columns, column = number / kTaps % columns;
    const Half* const x0 = x + 2 * row * of_channels;
    const Half* const y0 = y + 2 * column * of_channels;
    tiles.Zero();
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const int64_t shifted = Shifted(images, pixel, tap);
      if (shifted < 0) continue;
      for (int64_t depth = 0; depth < depths; ++depth) {
        const int64_t a = (shifted * depths + depth) * kTile, b = (pixel * depths + depth) * kTile;
        tiles.Add(x0 + a, x0 + of_channels + a, y0 + b, y0 + of_channels + b);
      }
    }
    for (int block = 0; block < 4; ++block) {
      const int64_t i = (2 * row + block / 2) * kSide, o = (2 * column + block % 2) * kSide;
      StoreSums(tiles, block, inputs - i, channels - o, to + (tap * inputs + i) * channels + o,
                channels);
    }
  });
}

// --- XLA's calls; a leading axis, if there is one, is of problems that share nothing ---

Images ImagesOf(const Array& array) {
  const auto sizes = array.dimensions().last(4);
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

int64_t Problems(const Array& array) {
  return array.dimensions().size() == 5 ? array.dimensions()[0] : 1;
}

ffi::Error ConvolveCall(ffi::ThreadPool pool, Array images, Array kernel, ffi::Result<Array> result,
                        bool turned, bool threads) {
  const int64_t problems = Problems(images), channels = result->dimensions().back();
  for (int64_t p = 0; p < problems; ++p)
    Convolve(threads ? &pool : nullptr, ImagesOf(images),
             images.typed_data() + p * (images.element_count() / problems),
             kernel.typed_data() + p * (kernel.element_count() / problems), turned, channels,
             result->typed_data() + p * (result->element_count() / problems));
  return ffi::Error::Success();
}

ffi::Error KernelGradientCall(ffi::ThreadPool pool, Array images, Array cotangent,
                              ffi::Result<Array> result, bool threads) {
  const int64_t problems = Problems(images), channels = result->dimensions().back();
  for (int64_t p = 0; p < problems; ++p)
    KernelGradient(threads ? &pool : nullptr, ImagesOf(images),
                   images.typed_data() + p * (images.element_count() / problems),
                   cotangent.typed_data() + p * (cotangent.element_count() / problems), channels,
                   result->typed_data() + p * (result->element_count() / problems));
  return ffi::Error::Success();
}

}  // namespace

// Whether Linux lets this process use the tiles; asks for it.
extern "C" int32_t influence_jax_tiles_permitted() { return Permitted(); }

XLA_FFI_DEFINE_HANDLER_SYMBOL(influence_jax_tile_convolve, ConvolveCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Attr<bool>("turned")
                                  .Attr<bool>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(influence_jax_tile_kernel_gradient, KernelGradientCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Attr<bool>("threads"));
