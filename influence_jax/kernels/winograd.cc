// 3x3 convolutions of stride 1 with one pixel of zero padding, NHWC x HWIO -> NHWC, float32, and
// their gradients, by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308).
//
// A tile of 4x4 pixels d and a kernel g give 2x2 pixels by 16 products instead of 36:
//
//     A' [(G g G') * (B' d B)] A        with
//
//     B' = 1  0 -1  0    G = 1    0   0      A' = 1  1  1  0
//          0  1  1  0        1/2  1/2 1/2         0  1 -1 -1
//          0 -1  1  0        1/2 -1/2 1/2
//          0  1  0 -1        0    0   1
//
// Summed over channels, the products are 16 products of matrices, [tiles x inputs] by
// [inputs x outputs]. Blocks of tiles go through all steps while they are in the cache; that is
// what a compiler of array programs does not do. The gradient by the kernel is the adjoint,
// G' [sum over tiles of (B' d B)' (A y A')] G, of the same 16 products.
//
// Sums are in an order that depends on shapes alone, not on how many threads there are.

#include "convolutions.h"

namespace {

// Of products: so many rows by two vectors stay in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif
constexpr int kPositions = 16;
constexpr int64_t kMostTiles = 48;       // of a block
constexpr int64_t kMostChannels = 4096;  // that the row of zeros outside an image has

// --- Products of matrices ---

// C = A B, or C += A B, of kRows x (Columns vectors). Element (r, k) of A is at
// a[r * a_row + k * a_step]; rows of B and C are so far apart.
template <int Columns, bool kAdd>
inline void MultiplyTile(int64_t depth, const float* __restrict a, int64_t a_row, int64_t a_step,
                         const float* __restrict b, int64_t b_row, float* __restrict c,
                         int64_t c_row) {
  Vector sums[kRows][Columns];
  for (int r = 0; r < kRows; ++r)
    for (int n = 0; n < Columns; ++n)
      sums[r][n] = kAdd ? Load(c + r * c_row + n * kLanes) : Vector{};
  for (int64_t k = 0; k < depth; ++k) {
    Vector row[Columns];
    for (int n = 0; n < Columns; ++n) row[n] = Load(b + k * b_row + n * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vector factor = All(a[r * a_row + k * a_step]);
      for (int n = 0; n < Columns; ++n) sums[r][n] += factor * row[n];
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int n = 0; n < Columns; ++n) Store(c + r * c_row + n * kLanes, sums[r][n]);
}

// Of `rows` rounded up to kRows, and of whole vectors of columns.
template <bool kAdd>
void Multiply(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row,
              int64_t a_step, const float* b, int64_t b_row, float* c, int64_t c_row) {
  for (int64_t n = 0; n < columns; n += 2 * kLanes)
    for (int64_t m = 0; m < rows; m += kRows) {
      const auto multiply =
          n + kLanes < columns ? MultiplyTile<2, kAdd> : MultiplyTile<1, kAdd>;
      multiply(depth, a + m * a_row, a_row, a_step, b + n, b_row, c + m * c_row + n, c_row);
    }
}

// --- The transforms; a plane is one of the 16 positions ---

struct Images : Shape {
  int64_t tile_rows() const { return (height + 1) / 2; }
  int64_t tile_columns() const { return (width + 1) / 2; }
  int64_t tiles() const { return count * tile_rows() * tile_columns(); }

  // The pixel of an image; zeros outside.
  const float* Pixel(const float* images, int64_t image, int64_t y, int64_t x) const {
    static const float outside[kMostChannels] = {};
    const bool inside = y >= 0 && y < height && x >= 0 && x < width;
    return inside ? images + ((image * height + y) * width + x) * channels : outside;
  }
};

struct Block {
  int64_t first, count;  // tiles

  // Calls step(number within the block, image, y, x of the tile's first output).
  template <typename Step>
  void OverTiles(const Images& images, Step step) const {
    const int64_t columns = images.tile_columns(), rows = images.tile_rows();
    for (int64_t t = 0; t < count; ++t) {
      const int64_t place = first + t, row = place / columns;
      step(t, row / rows, 2 * (row % rows), 2 * (place % columns));
    }
  }
};

// Tiles [16, tiles, stride] of channels from..from + channels, B' d B.
void TransformImages(const Images& images, const float* from, int64_t channel, int64_t channels,
                     const Block& block, float* to, int64_t stride) {
  const int64_t plane = kMostTiles * stride;
  block.OverTiles(images, [&](int64_t t, int64_t image, int64_t y, int64_t x) {
    const float* pixels[4][4];
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j)
        pixels[i][j] = images.Pixel(from, image, y + i - 1, x + j - 1) + channel;
    OverChannels(channels, [&](int64_t c, auto load, auto) {
      Vector h[4][4];
      for (int i = 0; i < 4; ++i) {
        const Vector d0 = load(pixels[i][0] + c), d1 = load(pixels[i][1] + c);
        const Vector d2 = load(pixels[i][2] + c), d3 = load(pixels[i][3] + c);
        h[i][0] = d0 - d2, h[i][1] = d1 + d2, h[i][2] = d2 - d1, h[i][3] = d1 - d3;
      }
      float* out = to + t * stride + c;
      for (int j = 0; j < 4; ++j) {
        Store(out + j * plane, h[0][j] - h[2][j]);
        Store(out + (4 + j) * plane, h[1][j] + h[2][j]);
        Store(out + (8 + j) * plane, h[2][j] - h[1][j]);
        Store(out + (12 + j) * plane, h[1][j] - h[3][j]);
      }
    });
  });
}

// Cotangents [16, tiles, stride] of channels from..from + channels, A y A'.
void TransformCotangent(const Images& outputs, const float* from, int64_t channel,
                        int64_t channels, const Block& block, float* to, int64_t stride) {
  const int64_t plane = kMostTiles * stride;
  block.OverTiles(outputs, [&](int64_t t, int64_t image, int64_t y, int64_t x) {
    const float* pixels[2][2];
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j)
        pixels[i][j] = outputs.Pixel(from, image, y + i, x + j) + channel;
    OverChannels(channels, [&](int64_t c, auto load, auto) {
      Vector h[4][2];
      for (int j = 0; j < 2; ++j) {
        const Vector y0 = load(pixels[0][j] + c), y1 = load(pixels[1][j] + c);
        h[0][j] = y0, h[1][j] = y0 + y1, h[2][j] = y0 - y1, h[3][j] = -y1;
      }
      float* out = to + t * stride + c;
      for (int i = 0; i < 4; ++i) {
        Store(out + 4 * i * plane, h[i][0]);
        Store(out + (4 * i + 1) * plane, h[i][0] + h[i][1]);
        Store(out + (4 * i + 2) * plane, h[i][0] - h[i][1]);
        Store(out + (4 * i + 3) * plane, -h[i][1]);
      }
    });
  });
}

// Pixels of the outputs from [16, tiles, stride], A' m A.
void TransformOutputs(const Images& outputs, const float* from, int64_t stride, const Block& block,
                      float* to) {
  const int64_t plane = kMostTiles * stride;
  block.OverTiles(outputs, [&](int64_t t, int64_t image, int64_t y, int64_t x) {
    const bool below = y + 1 < outputs.height, right = x + 1 < outputs.width;
    float* const pixel = to + ((image * outputs.height + y) * outputs.width + x) * outputs.channels;
    float* const next = pixel + outputs.width * outputs.channels;
    OverChannels(outputs.channels, [&](int64_t c, auto, auto store) {
      Vector h[2][4];
      for (int j = 0; j < 4; ++j) {
        const float* in = from + j * plane + t * stride + c;
        const Vector m0 = Load(in), m1 = Load(in + 4 * plane);
        const Vector m2 = Load(in + 8 * plane), m3 = Load(in + 12 * plane);
        h[0][j] = m0 + m1 + m2, h[1][j] = m1 - m2 - m3;
      }
      store(pixel + c, h[0][0] + h[0][1] + h[0][2]);
      if (right) store(pixel + outputs.channels + c, h[0][1] - h[0][2] - h[0][3]);
      if (below) store(next + c, h[1][0] + h[1][1] + h[1][2]);
      if (below && right) store(next + outputs.channels + c, h[1][1] - h[1][2] - h[1][3]);
    });
  });
}

// G g G' of a kernel [3, 3, rows, columns], as [16, rows, stride].
void TransformKernel(const float* kernel, int64_t rows, int64_t columns, float* to,
                     int64_t stride) {
  const int64_t tap = rows * columns, plane = rows * stride;
  const Vector half = All(0.5f);
  for (int64_t r = 0; r < rows; ++r)
    OverChannels(columns, [&](int64_t c, auto load, auto) {
      Vector h[4][3];
      for (int j = 0; j < 3; ++j) {
        const float* g = kernel + j * tap + r * columns + c;
        const Vector g0 = load(g), g1 = load(g + 3 * tap), g2 = load(g + 6 * tap);
        h[0][j] = g0, h[1][j] = half * (g0 + g1 + g2), h[2][j] = half * (g0 - g1 + g2);
        h[3][j] = g2;
      }
      for (int i = 0; i < 4; ++i) {
        float* out = to + 4 * i * plane + r * stride + c;
        Store(out, h[i][0]);
        Store(out + plane, half * (h[i][0] + h[i][1] + h[i][2]));
        Store(out + 2 * plane, half * (h[i][0] - h[i][1] + h[i][2]));
        Store(out + 3 * plane, h[i][2]);
      }
    });
}

// What the kernel turned by half a turn, inputs and outputs exchanged, transforms to: columns
// of [16, rows, from_stride] as rows. Half a turn exchanges the first position and the last.
void TurnKernel(const float* from, int64_t rows, int64_t columns, int64_t from_stride, float* to,
                int64_t to_stride) {
  constexpr int kTurned[4] = {3, 1, 2, 0};
  constexpr int64_t kSide = 16;
  for (int p = 0; p < kPositions; ++p) {
    const float* in = from + p * rows * from_stride;
    float* out = to + (4 * kTurned[p / 4] + kTurned[p % 4]) * columns * to_stride;
    for (int64_t r0 = 0; r0 < rows; r0 += kSide)
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = r0; r < std::min(rows, r0 + kSide); ++r)
          out[c * to_stride + r] = in[r * from_stride + c];
  }
}

// dk = G' s G of [16, rows, stride], for rows and columns of a gradient [3, 3, inputs, outputs].
void TransformGradient(const float* from, int64_t rows, int64_t columns, int64_t stride,
                       int64_t plane, float* to, int64_t to_row, int64_t to_tap) {
  const Vector half = All(0.5f);
  for (int64_t r = 0; r < rows; ++r)
    OverChannels(columns, [&](int64_t c, auto, auto store) {
      Vector h[3][4];
      for (int j = 0; j < 4; ++j) {
        const float* in = from + j * plane + r * stride + c;
        const Vector s0 = Load(in), s1 = Load(in + 4 * plane);
        const Vector s2 = Load(in + 8 * plane), s3 = Load(in + 12 * plane);
        const Vector sum = half * (s1 + s2);
        h[0][j] = s0 + sum, h[1][j] = half * (s1 - s2), h[2][j] = sum + s3;
      }
      for (int i = 0; i < 3; ++i) {
        float* out = to + 3 * i * to_tap + r * to_row + c;
        const Vector sum = half * (h[i][1] + h[i][2]);
        store(out, h[i][0] + sum);
        store(out + to_tap, half * (h[i][1] - h[i][2]));
        store(out + 2 * to_tap, sum + h[i][3]);
      }
    });
}

// --- The maps ---

void Convolve(ffi::ThreadPool* pool, const Shape& shape, const float* from, const float* kernel,
              bool turned, int64_t channels, float* to) {
  const Images images{shape};
  const int64_t inputs = images.channels;
  const int64_t in_stride = WholeVectors(inputs), out_stride = WholeVectors(channels);
  thread_local Scratch kernels, turning;
  float* const u = kernels.OfSize(kPositions * inputs * out_stride);
  if (turned) {
    float* const plain = turning.OfSize(kPositions * channels * in_stride);
    TransformKernel(kernel, channels, inputs, plain, in_stride);
    TurnKernel(plain, channels, inputs, in_stride, u, out_stride);
  } else {
    TransformKernel(kernel, inputs, channels, u, out_stride);
  }
  const Images outputs{{shape.count, shape.height, shape.width, channels}};
  const int64_t tiles = images.tiles(), blocks = (tiles + kMostTiles - 1) / kMostTiles;
  InParallel(pool, blocks, [&](int64_t number) {
    const Block block{number * kMostTiles, std::min(kMostTiles, tiles - number * kMostTiles)};
    thread_local Scratch tile_scratch, product_scratch;
    float* const v = tile_scratch.OfSize(kPositions * kMostTiles * in_stride);
    float* const m = product_scratch.OfSize(kPositions * kMostTiles * out_stride);
    TransformImages(images, from, 0, inputs, block, v, in_stride);
    for (int p = 0; p < kPositions; ++p)
      Multiply<false>(block.count, out_stride, inputs, v + p * kMostTiles * in_stride, in_stride, 1,
                      u + p * inputs * out_stride, out_stride, m + p * kMostTiles * out_stride,
                      out_stride);
    TransformOutputs(outputs, m, out_stride, block, to);
  });
}

void KernelGradient(ffi::ThreadPool* pool, const Shape& shape, const float* from,
                    const float* cotangent, int64_t channels, float* to) {
  const Images images{shape};
  const Images outputs{{shape.count, shape.height, shape.width, channels}};
  const int64_t inputs = images.channels, tiles = images.tiles();
  // Threads share out the gradient's entries and not the tiles, whose sum stays in order.
  const int64_t in_part = pool ? 2 * kLanes : WholeVectors(inputs);
  const int64_t out_part = pool ? 2 * kLanes : WholeVectors(channels);
  const int64_t in_parts = (inputs + in_part - 1) / in_part;
  const int64_t out_parts = (channels + out_part - 1) / out_part;
  InParallel(pool, in_parts * out_parts, [&](int64_t part) {
    const int64_t row = part / out_parts * in_part, column = part % out_parts * out_part;
    const int64_t rows = std::min(in_part, inputs - row);
    const int64_t columns = std::min(out_part, channels - column);
    const int64_t in_stride = WholeVectors(rows), out_stride = WholeVectors(columns);
    thread_local Scratch tile_scratch, cotangent_scratch, sum_scratch;
    float* const v = tile_scratch.OfSize(kPositions * kMostTiles * in_stride);
    float* const z = cotangent_scratch.OfSize(kPositions * kMostTiles * out_stride);
    const int64_t plane = in_stride * out_stride;
    float* const sums = sum_scratch.OfSize(kPositions * plane);
    std::fill_n(sums, kPositions * plane, 0.0f);
    for (int64_t first = 0; first < tiles; first += kMostTiles) {
      const Block block{first, std::min(kMostTiles, tiles - first)};
      TransformImages(images, from, row, rows, block, v, in_stride);
      TransformCotangent(outputs, cotangent, column, columns, block, z, out_stride);
      for (int p = 0; p < kPositions; ++p)
        Multiply<true>(in_stride, out_stride, block.count, v + p * kMostTiles * in_stride, 1,
                       in_stride, z + p * kMostTiles * out_stride, out_stride, sums + p * plane,
                       out_stride);
    }
    TransformGradient(sums, rows, columns, out_stride, plane, to + row * channels + column,
                      channels, inputs * channels);
  });
}

}  // namespace

INFLUENCE_JAX_CONVOLVE(influence_jax_convolve, Convolve);
INFLUENCE_JAX_KERNEL_GRADIENT(influence_jax_kernel_gradient, KernelGradient);
