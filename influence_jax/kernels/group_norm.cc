// GroupNorm of images [images, pixels, channels] float32, what is added to it and ReLU, and the
// gradients.
//
// What XLA computes in several passes over all images is computed here image after image: one of
// those that members train on stays in the first cache.

#include <type_traits>

#include "common.h"

namespace {

constexpr float kEpsilon = 1e-5f;  // as in models/group_norm.py
constexpr int64_t kTogether = 8;  // images of a task

struct Shape {
  int64_t images, pixels, channels, groups;

  int64_t image() const { return pixels * channels; }
  int64_t size() const { return images * image(); }
};

// The arguments of one problem; null where one is absent.
struct Given {
  const float* x;      // [images, pixels, channels]
  const float* scale;  // [channels]
  const float* shift;  // [channels]
  const float* added;  // like x
};

struct Gradients {
  float *x, *scale, *shift, *added;
};

// Sums over pixels, of the vectors term(pixel); in four parts, as one addition waits for the last.
template <typename Term>
inline Vector OverPixels(int64_t pixels, Term term) {
  Vector sums[4]{};
  int64_t p = 0;
  for (; p + 4 <= pixels; p += 4)
    for (int part = 0; part < 4; ++part) sums[part] += term(p + part);
  for (; p < pixels; ++p) sums[0] += term(p);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// ReLU; NaN stays.
inline Vector Rectified(Vector value) { return value <= Vector{} ? Vector{} : value; }

// One image: for each channel its group's mean and 1 / standard deviation, and so a factor and an
// offset, y = factor x + offset.
class Image {
 public:
  explicit Image(const Shape& shape) : shape_(shape), of_channels_(6 * shape.channels) {}

  void Read(const Given& given, const float* x) {
    x_ = x;
    OverChannelsAndPixels([&](int64_t c, int64_t pixels, int64_t apart, auto load, auto store) {
      const float* const from = x + c;
      store(mean() + c, OverPixels(pixels, [=](int64_t p) { return load(from + p * apart); }));
    });
    OverGroups(mean(), [](float mean) { return mean; });
    OverChannelsAndPixels([&](int64_t c, int64_t pixels, int64_t apart, auto load, auto store) {
      const float* const from = x + c;
      const Vector middle = load(mean() + c);
      store(inverse() + c, OverPixels(pixels, [=](int64_t p) {
              const Vector away = load(from + p * apart) - middle;
              return away * away;
            }));
    });
    OverGroups(inverse(), [](float variance) { return 1.0f / std::sqrt(variance + kEpsilon); });
    OverChannels(shape_.channels, [&](int64_t c, auto load, auto store) {
      const Vector by = load(inverse() + c) * load(given.scale + c);
      store(factor() + c, by);
      store(offset() + c, load(given.shift + c) - load(mean() + c) * by);
    });
  }

  // y = factor x + offset + added, or 0 where that is less.
  template <bool kAdds, bool kRectified>
  void Value(const float* added, float* y) {
    OverChannelsAndPixels([&](int64_t c, int64_t pixels, int64_t apart, auto load, auto store) {
      const Vector by = load(factor() + c), from = load(offset() + c);
      const float* const x = x_ + c;
      const float* const more = added + c;
      float* const to = y + c;
      for (int64_t at = 0; at < pixels * apart; at += apart) {
        Vector value = load(x + at) * by + from;
        if (kAdds) value += load(more + at);
        store(to + at, kRectified ? Rectified(value) : value);
      }
    });
  }

  // Gradients by x and by what is added; to those by scale and shift the image's are added.
  template <bool kAdds, bool kRectified>
  void Gradient(const float* scale, const float* added, const float* cotangent, float* by_x,
                float* by_added, float* by_scale, float* by_shift) {
    // The gradient by what is added is that by what is normalised; else it is kept in by_x.
    float* const by_value = kAdds ? by_added : by_x;
    OverChannelsAndPixels([&](int64_t c, int64_t pixels, int64_t apart, auto load, auto store) {
      const Vector by = load(factor() + c), from = load(offset() + c), middle = load(mean() + c);
      const float* const x = x_ + c;
      const float* const more = added + c;
      const float* const y = cotangent + c;
      float* const to = by_value + c;
      Vector sums[2]{}, products[2]{};
      const auto add = [&](int64_t at, int part) {
        const Vector of_x = load(x + at);
        Vector gradient = load(y + at);
        if (kRectified) {
          Vector value = of_x * by + from;
          if (kAdds) value += load(more + at);
          gradient = value > Vector{} ? gradient : Vector{};
        }
        if (kAdds || kRectified) store(to + at, gradient);
        sums[part] += gradient;
        products[part] += gradient * (of_x - middle);
      };
      int64_t p = 0;
      for (; p + 2 <= pixels; p += 2) {
        add(p * apart, 0);
        add(p * apart + apart, 1);
      }
      if (p < pixels) add(p * apart, 0);
      const Vector sum = sums[0] + sums[1];
      const Vector product = (products[0] + products[1]) * load(inverse() + c);
      store(by_shift + c, load(by_shift + c) + sum);
      store(by_scale + c, load(by_scale + c) + product);
      store(sums_of() + c, sum * load(scale + c));
      store(products_of() + c, product * load(scale + c));
    });
    OverGroups(sums_of(), [](float mean) { return mean; });
    OverGroups(products_of(), [](float mean) { return mean; });
    const float* const kept = kAdds || kRectified ? by_value : cotangent;
    OverChannelsAndPixels([&](int64_t c, int64_t pixels, int64_t apart, auto load, auto store) {
      const Vector by = load(factor() + c), over = load(inverse() + c);
      const Vector slope = -over * over * load(products_of() + c);
      const Vector from = -over * load(sums_of() + c) - slope * load(mean() + c);
      const float* const x = x_ + c;
      const float* const gradient = kept + c;
      float* const to = by_x + c;
      for (int64_t at = 0; at < pixels * apart; at += apart)
        store(to + at, by * load(gradient + at) + (slope * load(x + at) + from));
    });
  }

 private:
  // Calls step(channel, pixels, floats from one to the next, load, store): numbers that no store
  // can change, as far as a compiler sees.
  template <typename Step>
  void OverChannelsAndPixels(Step step) const {
    const int64_t pixels = shape_.pixels, apart = shape_.channels;
    OverChannels(apart, [&](int64_t c, auto load, auto store) {
      step(c, pixels, apart, load, store);
    });
  }

  // Of sums over pixels, of(the mean over the group), for each of its channels.
  template <typename Of>
  void OverGroups(float* sums, Of of) const {
    const int64_t width = shape_.channels / shape_.groups;
    for (int64_t first = 0; first < shape_.channels; first += width) {
      float sum = 0;
      for (int64_t c = first; c < first + width; ++c) sum += sums[c];
      std::fill_n(sums + first, width, of(sum / (width * shape_.pixels)));
    }
  }

  float* mean() { return of_channels_.data(); }
  float* inverse() { return mean() + shape_.channels; }
  float* factor() { return mean() + 2 * shape_.channels; }
  float* offset() { return mean() + 3 * shape_.channels; }
  float* sums_of() { return mean() + 4 * shape_.channels; }
  float* products_of() { return mean() + 5 * shape_.channels; }

  const Shape& shape_;
  const float* x_ = nullptr;
  std::vector<float> of_channels_;
};

// Calls run(task, its first image, the first of the next).
template <typename Run>
void OverImages(ffi::ThreadPool* pool, const Shape& shape, Run run) {
  InParallel(pool, (shape.images + kTogether - 1) / kTogether, [&](int64_t task) {
    run(task, task * kTogether, std::min(shape.images, (task + 1) * kTogether));
  });
}

inline const float* From(const float* array, int64_t at) { return array ? array + at : nullptr; }
inline float* From(float* array, int64_t at) { return array ? array + at : nullptr; }

template <bool kAdds, bool kRectified>
void Normalize(ffi::ThreadPool* pool, const Shape& shape, const Given& given, float* y) {
  OverImages(pool, shape, [&](int64_t, int64_t first, int64_t end) {
    Image image(shape);
    for (int64_t i = first; i < end; ++i) {
      const int64_t at = i * shape.image();
      image.Read(given, given.x + at);
      image.Value<kAdds, kRectified>(From(given.added, at), y + at);
    }
  });
}

template <bool kAdds, bool kRectified>
void Differentiate(ffi::ThreadPool* pool, const Shape& shape, const Given& given,
                   const float* cotangent, const Gradients& to) {
  const int64_t tasks = (shape.images + kTogether - 1) / kTogether, channels = shape.channels;
  std::vector<float> sums(tasks * 2 * channels);  // of a task's images, by scale and by shift
  OverImages(pool, shape, [&](int64_t task, int64_t first, int64_t end) {
    Image image(shape);
    float* const by_scale = sums.data() + task * 2 * channels;
    for (int64_t i = first; i < end; ++i) {
      const int64_t at = i * shape.image();
      image.Read(given, given.x + at);
      image.Gradient<kAdds, kRectified>(given.scale, From(given.added, at), cotangent + at,
                                        to.x + at, From(to.added, at), by_scale,
                                        by_scale + channels);
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    to.scale[c] = to.shift[c] = 0;
    for (int64_t task = 0; task < tasks; ++task) {
      to.scale[c] += sums[task * 2 * channels + c];
      to.shift[c] += sums[task * 2 * channels + channels + c];
    }
  }
}

// --- XLA's calls; a leading axis, if there is one, is of problems that share nothing ---

int64_t Problems(const Array& x) { return x.dimensions().size() == 5 ? x.dimensions()[0] : 1; }

Shape ShapeOf(const Array& x, int64_t groups) {
  const auto sizes = x.dimensions().last(4);
  return {sizes[0], sizes[1] * sizes[2], sizes[3], groups};
}

Given Of(int64_t problem, const Shape& shape, const Array& x, const Array& scale,
         const Array& shift, const float* added) {
  return {x.typed_data() + problem * shape.size(), scale.typed_data() + problem * shape.channels,
          shift.typed_data() + problem * shape.channels, From(added, problem * shape.size())};
}

// What is wrong with the shapes of arrays that are like x, and of arrays of channels; else nothing.
ffi::Error Checked(const Array& x, int64_t groups, const std::vector<const Array*>& like_x,
                   const std::vector<const Array*>& of_channels) {
  const int64_t axes = x.dimensions().size();
  bool right = (axes == 4 || axes == 5) && groups > 0 && x.dimensions().back() % groups == 0;
  for (const Array* array : like_x) right = right && array->element_count() == x.element_count();
  for (const Array* array : of_channels)
    right = right && array->element_count() == Problems(x) * int64_t(x.dimensions().back());
  return right ? ffi::Error::Success()
               : ffi::Error(ffi::ErrorCode::kInvalidArgument, "GroupNorm of shapes that do not fit");
}

// Calls run(whether something is added, whether ReLU follows), of types that say so.
template <typename Run>
void Chosen(bool adds, bool rectified, Run run) {
  using Yes = std::true_type;
  using No = std::false_type;
  if (adds)
    rectified ? run(Yes(), Yes()) : run(Yes(), No());
  else
    rectified ? run(No(), Yes()) : run(No(), No());
}

ffi::Error NormalizeCall(ffi::ThreadPool pool, Array x, Array scale, Array shift,
                         ffi::RemainingArgs rest, ffi::Result<Array> y, int64_t groups,
                         bool rectified, bool threads) {
  const Array& more = rest.size() ? *rest.get<Array>(0) : x;
  if (auto wrong = Checked(x, groups, {&more}, {&scale, &shift}); wrong.failure()) return wrong;
  const Shape shape = ShapeOf(x, groups);
  const float* const added = rest.size() ? more.typed_data() : nullptr;
  return Reported([&] {
    Chosen(added, rectified, [&](auto adds, auto rectified) {
      for (int64_t p = 0; p < Problems(x); ++p)
        Normalize<adds.value, rectified.value>(threads ? &pool : nullptr, shape,
                                               Of(p, shape, x, scale, shift, added),
                                               y->typed_data() + p * shape.size());
    });
  });
}

ffi::Error DifferentiateCall(ffi::ThreadPool pool, Array cotangent, Array x, Array scale,
                             Array shift, ffi::RemainingArgs rest, ffi::Result<Array> by_x,
                             ffi::Result<Array> by_scale, ffi::Result<Array> by_shift,
                             ffi::RemainingRets by_rest, int64_t groups, bool rectified,
                             bool threads) {
  const Array& more = rest.size() ? *rest.get<Array>(0) : x;
  if (auto wrong = Checked(x, groups, {&more, &cotangent}, {&scale, &shift}); wrong.failure())
    return wrong;
  const Shape shape = ShapeOf(x, groups);
  const float* const added = rest.size() ? more.typed_data() : nullptr;
  float* const by_added = rest.size() ? (*by_rest.get<Array>(0))->typed_data() : nullptr;
  return Reported([&] {
    Chosen(added, rectified, [&](auto adds, auto rectified) {
      for (int64_t p = 0; p < Problems(x); ++p)
        Differentiate<adds.value, rectified.value>(
            threads ? &pool : nullptr, shape, Of(p, shape, x, scale, shift, added),
            cotangent.typed_data() + p * shape.size(),
            {by_x->typed_data() + p * shape.size(), by_scale->typed_data() + p * shape.channels,
             by_shift->typed_data() + p * shape.channels, From(by_added, p * shape.size())});
    });
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(influence_jax_group_norm, NormalizeCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .RemainingArgs()
                                  .Ret<Array>()
                                  .Attr<int64_t>("groups")
                                  .Attr<bool>("rectified")
                                  .Attr<bool>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(influence_jax_group_norm_gradients, DifferentiateCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .RemainingArgs()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .RemainingRets()
                                  .Attr<int64_t>("groups")
                                  .Attr<bool>("rectified")
                                  .Attr<bool>("threads"));
