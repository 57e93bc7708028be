// What XLA calls of convolutions: shapes of problems, and one after the other.
//
// A source file has, in these terms,
//     Convolve(pool, images, from, kernel, turned, channels, to)
//     KernelGradient(pool, images, from, cotangent, channels, to)

#ifndef INFLUENCE_JAX_KERNELS_CONVOLUTIONS_H_
#define INFLUENCE_JAX_KERNELS_CONVOLUTIONS_H_

#include "common.h"

namespace {

struct Shape {
  int64_t count, height, width, channels;  // of images

  int64_t pixels() const { return height * width; }
  int64_t apart() const { return pixels() * channels; }  // one image from the next
};

// Of one problem; a leading axis, if there is one, is of problems that share nothing.
inline Shape ShapeOf(const Array& array) {
  const auto sizes = array.dimensions().last(4);
  return {sizes[0], sizes[1], sizes[2], sizes[3]};
}

template <typename Step>
inline void OverProblems(const Array& a, const Array& b, ffi::Result<Array>& result, Step step) {
  const int64_t problems = a.dimensions().size() == 5 ? a.dimensions()[0] : 1;
  for (int64_t p = 0; p < problems; ++p)
    step(a.typed_data() + p * (a.element_count() / problems),
         b.typed_data() + p * (b.element_count() / problems),
         result->typed_data() + p * (result->element_count() / problems));
}

// `turned`: the kernel is [3, 3, outputs, inputs], and turned by half a turn.
using Convolution = void(ffi::ThreadPool*, const Shape&, const float*, const float*, bool turned,
                         int64_t channels, float*);
using Gradient = void(ffi::ThreadPool*, const Shape&, const float*, const float*, int64_t channels,
                      float*);

template <Convolution* kConvolve>
ffi::Error ConvolveCall(ffi::ThreadPool pool, Array images, Array kernel, ffi::Result<Array> result,
                        bool turned, bool threads) {
  return Reported([&] {
    OverProblems(images, kernel, result, [&](const float* from, const float* by, float* to) {
      kConvolve(threads ? &pool : nullptr, ShapeOf(images), from, by, turned,
                result->dimensions().back(), to);
    });
  });
}

template <Gradient* kGradient>
ffi::Error KernelGradientCall(ffi::ThreadPool pool, Array images, Array cotangent,
                              ffi::Result<Array> result, bool threads) {
  return Reported([&] {
    OverProblems(images, cotangent, result, [&](const float* from, const float* by, float* to) {
      kGradient(threads ? &pool : nullptr, ShapeOf(images), from, by, result->dimensions().back(),
                to);
    });
  });
}

}  // namespace

#define INFLUENCE_JAX_CONVOLVE(name, convolve)                               \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, ConvolveCall<convolve>,                \
                                ffi::Ffi::Bind()                             \
                                    .Ctx<ffi::ThreadPool>()                  \
                                    .Arg<Array>()                            \
                                    .Arg<Array>()                            \
                                    .Ret<Array>()                            \
                                    .Attr<bool>("turned")                    \
                                    .Attr<bool>("threads"))

#define INFLUENCE_JAX_KERNEL_GRADIENT(name, gradient)                        \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(name, KernelGradientCall<gradient>,          \
                                ffi::Ffi::Bind()                             \
                                    .Ctx<ffi::ThreadPool>()                  \
                                    .Arg<Array>()                            \
                                    .Arg<Array>()                            \
                                    .Ret<Array>()                            \
                                    .Attr<bool>("threads"))

#endif  // INFLUENCE_JAX_KERNELS_CONVOLUTIONS_H_
