// 3x3 convolutions of stride 1 with one pixel of zero padding, NHWC x HWIO -> NHWC, and their
// gradients: factors rounded to bfloat16, sums in float32, by the tiles of Intel's AMX or, without
// these, by AVX-512's products of pairs.
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

#include <immintrin.h>

#include "amx.h"
#include "convolutions.h"

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
  void Zero() {
    WholeTiles::Reached(nullptr);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  // Products of the rows by the columns, to the sums. Rows and the second columns may be missing;
  // of the pairs, those beyond `pairs` are zeros.
  void Add(const Half* row0, const Half* row1, const Half* column0, const Half* column1, int64_t) {
    _tile_loadd(6, column0, 64);
    if (column1) { _tile_loadd(7, column1, 64); }
    if (row0) {
      _tile_loadd(4, row0, 64);
      _tile_dpbf16ps(0, 4, 6);
      if (column1) { _tile_dpbf16ps(1, 4, 7); }
    }
    if (row1) {
      _tile_loadd(5, row1, 64);
      _tile_dpbf16ps(2, 5, 6);
      if (column1) { _tile_dpbf16ps(3, 5, 7); }
    }
  }
  // Of one of the four blocks; `apart` floats from row to row.
  void Store(int block, float* to, int64_t apart) {
    if (block == 0) { _tile_stored(0, to, 4 * apart); }
    if (block == 1) { _tile_stored(1, to, 4 * apart); }
    if (block == 2) { _tile_stored(2, to, 4 * apart); }
    if (block == 3) { _tile_stored(3, to, 4 * apart); }
    WholeTiles::Reached(to);
  }

 private:
  WholeTiles in_use_;
};

bool Permitted() { return TilesPermitted(); }

#else

// The same with vectors: sums are in memory, of a few rows at a time in registers.
class Tiles {
 public:
  void Zero() { std::memset(sums_, 0, sizeof(sums_)); }
  void Add(const Half* row0, const Half* row1, const Half* column0, const Half* column1,
           int64_t pairs) {
    const auto add = column1 ? AddTo<2> : AddTo<1>;
    if (row0) add(sums_[0], sums_[1], row0, column0, column1, pairs);
    if (row1) add(sums_[2], sums_[3], row1, column0, column1, pairs);
  }
  void Store(int block, float* to, int64_t apart) {
    for (int64_t r = 0; r < kSide; ++r)
      _mm512_storeu_ps(to + r * apart, _mm512_load_ps(sums_[block] + r * kSide));
  }

 private:
  static constexpr int kRows = 4;  // in registers

  template <int kColumns>
  static void AddTo(float* left, float* right, const Half* row, const Half* column0,
                    const Half* column1, int64_t pairs) {
    float* const sums_of[] = {left, right};
    const Half* const columns[] = {column0, column1};
    for (int64_t first = 0; first < kSide; first += kRows) {
      __m512 sums[kRows][kColumns];
      for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < kColumns; ++c)
          sums[r][c] = _mm512_load_ps(sums_of[c] + (first + r) * kSide);
      for (int64_t pair = 0; pair < pairs; ++pair) {
        __m512bh by[kColumns];
        for (int c = 0; c < kColumns; ++c)
          by[c] = (__m512bh)_mm512_loadu_si512(columns[c] + pair * kDepth);
        for (int r = 0; r < kRows; ++r) {
          int32_t two;
          std::memcpy(&two, row + (first + r) * kDepth + 2 * pair, sizeof(two));
          const auto factors = (__m512bh)_mm512_set1_epi32(two);
          for (int c = 0; c < kColumns; ++c)
            sums[r][c] = _mm512_dpbf16_ps(sums[r][c], factors, by[c]);
        }
      }
      for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < kColumns; ++c)
          _mm512_store_ps(sums_of[c] + (first + r) * kSide, sums[r][c]);
    }
  }

  alignas(64) float sums_[4][kSide * kSide];
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

// How many pairs of a tile of factors are of this many in all.
inline int64_t PairsOf(int64_t factors, int64_t depth) {
  return std::min(kSide, Parts(factors - depth * kDepth, 2));
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

// Halves that belong to the thread.
Half* OfSize(Scratch& scratch, int64_t halves) {
  return reinterpret_cast<Half*>(scratch.OfSize((halves + 1) / 2));
}

// The pixel that each tap shifts each pixel to, [pixel, tap]; -1 outside.
std::vector<int64_t> ShiftedPixels(const Shape& images) {
  std::vector<int64_t> shifted;
  shifted.reserve(kTaps * images.pixels());
  for (int64_t row = 0; row < images.height; ++row)
    for (int64_t column = 0; column < images.width; ++column)
      for (int tap = 0; tap < kTaps; ++tap) {
        const int64_t y = row + tap / 3 - 1, x = column + tap % 3 - 1;
        const bool inside = y >= 0 && y < images.height && x >= 0 && x < images.width;
        shifted.push_back(inside ? y * images.width + x : -1);
      }
  return shifted;
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

// The first 16 images as tiles [pixel, depth] of images by 32 channels.
void ImageTiles(const Shape& images, const float* from, int64_t count, Half* to) {
  const int64_t pixels = images.pixels(), depths = Parts(images.channels, kDepth);
  for (int64_t r = 0; r < kSide; ++r)
    for (int64_t pixel = 0; pixel < pixels; ++pixel)
      for (int64_t depth = 0; depth < depths; ++depth) {
        const float* const at = from + r * images.apart() + pixel * images.channels;
        const int64_t channel = depth * kDepth;
        const int64_t left = r < count ? images.channels - channel : 0;
        const __m512 low = Read(at + channel, left), high = Read(at + channel + kSide, left - kSide);
        _mm512_storeu_si512(to + (pixel * depths + depth) * kTile + r * kDepth,
                            (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
}

void Convolve(ffi::ThreadPool* pool, const Shape& images, const float* from, const float* kernel,
              bool turned, int64_t channels, float* to) {
  const int64_t inputs = images.channels, pixels = images.pixels();
  const int64_t depths = Parts(inputs, kDepth), columns = Parts(channels, 2 * kSide);
  thread_local Scratch kernel_scratch;
  Half* const k = OfSize(kernel_scratch, kTaps * columns * depths * 2 * kTile);
  KernelTiles(kernel, inputs, channels, turned, k);
  const std::vector<int64_t> shifted = ShiftedPixels(images);
  // Two pixels of 16 images at a time, by 32 outputs.
  const int64_t pairs = Parts(pixels, 2);
  InParallel(pool, Parts(images.count, kSide), [&](int64_t group) {
    const int64_t first = group * kSide, count = images.count - first;
    thread_local Scratch image_scratch;
    Half* const own = OfSize(image_scratch, pixels * depths * kTile);
    ImageTiles(images, from + first * images.apart(), count, own);
    Tiles tiles;
    for (int64_t column = 0; column < columns; ++column)
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t pixel = 2 * pair;
        tiles.Zero();
        for (int tap = 0; tap < kTaps; ++tap) {
          const int64_t a = shifted[pixel * kTaps + tap];
          const int64_t b = pixel + 1 < pixels ? shifted[(pixel + 1) * kTaps + tap] : -1;
          if (a < 0 && b < 0) continue;
          const Half* const by = k + (tap * columns + column) * depths * 2 * kTile;
          for (int64_t depth = 0; depth < depths; ++depth) {
            const Half* const row0 = a < 0 ? nullptr : own + (a * depths + depth) * kTile;
            const Half* const row1 = b < 0 ? nullptr : own + (b * depths + depth) * kTile;
            const Half* const column0 = by + 2 * depth * kTile;
            const bool second = channels > (2 * column + 1) * kSide;
            tiles.Add(row0, row1, column0, second ? column0 + kTile : nullptr,
                      PairsOf(inputs, depth));
          }
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

void KernelGradient(ffi::ThreadPool* pool, const Shape& images, const float* from,
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
  const std::vector<int64_t> shifted = ShiftedPixels(images);
  InParallel(pool, kTaps * rows * columns, [&](int64_t number) {
    Tiles tiles;
    const int tap = number % kTaps;
    const int64_t row = number / kTaps / columns, column = number / kTaps % columns;
    const Half* const x0 = x + 2 * row * of_channels;
    const Half* const y0 = y + 2 * column * of_channels;
    tiles.Zero();
    for (int64_t pixel = 0; pixel < pixels; ++pixel) {
      const int64_t other = shifted[pixel * kTaps + tap];
      if (other < 0) continue;
      for (int64_t depth = 0; depth < depths; ++depth) {
        const int64_t a = (other * depths + depth) * kTile, b = (pixel * depths + depth) * kTile;
        tiles.Add(x0 + a, inputs > (2 * row + 1) * kSide ? x0 + of_channels + a : nullptr, y0 + b,
                  channels > (2 * column + 1) * kSide ? y0 + of_channels + b : nullptr,
                  PairsOf(images.count, depth));
      }
    }
    for (int block = 0; block < 4; ++block) {
      const int64_t i = (2 * row + block / 2) * kSide, o = (2 * column + block % 2) * kSide;
      StoreSums(tiles, block, inputs - i, channels - o, to + (tap * inputs + i) * channels + o,
                channels);
    }
  });
}

}  // namespace

// Whether Linux lets this process use the tiles; asks for it.
extern "C" int32_t influence_jax_tiles_permitted() { return Permitted(); }

INFLUENCE_JAX_CONVOLVE(influence_jax_convolve_bfloat16, Convolve);
INFLUENCE_JAX_KERNEL_GRADIENT(influence_jax_kernel_gradient_bfloat16, KernelGradient);
