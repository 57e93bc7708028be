// Causal attention of records laid end to end, [tokens, heads, width] float32, and its gradients.
//
// Every token reads the tokens of its own record that are at most `reach` - 1 before it, itself
// included, by softmax of the products of queries and keys, without a scale (as GPT-Neo has it).
// Records are short: their keys and values stay in the first cache, and nothing is computed for
// pairs of different records.

#include "common.h"

namespace {

typedef int32_t Integers __attribute__((vector_size(kLanes * sizeof(int32_t))));

// exp for arguments from -87 to 0; below, that of -87: about 1e-38. Within 2 units in the last
// place: 2^n times a polynomial (Moshier's Cephes, expf).
inline Vector Exp(Vector x) {
  const Vector least = All(-87.0f);
  x = x < least ? least : x;  // what is no number stays so
  const Integers n = __builtin_convertvector(x * 1.44269504f - 0.5f, Integers);
  const Vector whole = __builtin_convertvector(n, Vector);
  const Vector r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector p = All(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vector value = p * (r * r) + r + 1.0f;
  return value * reinterpret_cast<Vector>((n + 127) << 23);
}

// By halves, which is an order that compilers keep in vectors.
template <typename Combine>
inline float Combined(Vector value, Combine combine) {
  float lanes[kLanes];
  std::memcpy(lanes, &value, sizeof(lanes));
  for (int half = kLanes / 2; half; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] = combine(lanes[lane], lanes[lane + half]);
  return lanes[0];
}

inline float Sum(Vector value) {
  return Combined(value, [](float a, float b) { return a + b; });
}

inline float Largest(Vector value) {
  return Combined(value, [](float a, float b) { return a < b ? b : a; });
}

inline Integers Lanes(int64_t first) {
  Integers lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = lane;
  return lanes + static_cast<int32_t>(first);
}

struct Layout {
  int64_t heads, width, reach;

  int64_t row() const { return heads * width; }
};

// One head of one record: `count` tokens whose rows are so far apart.
class Record {
 public:
  Record(const Layout& layout, int64_t count)
      : layout_(layout), count_(count), padded_(WholeVectors(count)) {}

  int64_t count() const { return count_; }
  int64_t padded() const { return padded_; }

  // [width, padded] of rows, zeros at the end.
  void Transpose(const float* rows, float* to) const {
    for (int64_t e = 0; e < layout_.width; ++e)
      for (int64_t j = 0; j < padded_; ++j)
        to[e * padded_ + j] = j < count_ ? rows[j * layout_.row() + e] : 0.0f;
  }

  int64_t First(int64_t i) const { return std::max<int64_t>(0, i - layout_.reach + 1); }
  int64_t FirstVector(int64_t i) const { return First(i) / kLanes * kLanes; }

  // The vector at c of the products of a row with all columns of a transposed matrix.
  Vector Products(const float* row, const float* transposed, int64_t c) const {
    Vector even{}, odd{};
    int64_t e = 0;
    for (; e + 2 <= layout_.width; e += 2) {
      even += row[e] * Load(transposed + e * padded_ + c);
      odd += row[e + 1] * Load(transposed + (e + 1) * padded_ + c);
    }
    if (e < layout_.width) even += row[e] * Load(transposed + e * padded_ + c);
    return even + odd;
  }

  // The shares of token i in what it reads, from FirstVector(i) on; zeros where it reads nothing.
  void Shares(int64_t i, const float* query, const float* keys, float* shares) const {
    const int32_t first = First(i), last = i;
    const Vector nothing = All(-INFINITY);
    Vector most = nothing;
    for (int64_t c = FirstVector(i); c <= i; c += kLanes) {
      const Integers key = Lanes(c);
      const Vector products = Products(query, keys, c);
      const Vector scores = (key >= first) & (key <= last) ? products : nothing;
      Store(shares + c, scores);
      most = most < scores ? scores : most;
    }
    const Vector largest = All(Largest(most));
    Vector sums{};
    for (int64_t c = FirstVector(i); c <= i; c += kLanes) {
      const Vector scores = Load(shares + c);
      const Vector exponentials = scores == nothing ? Vector{} : Exp(scores - largest);
      Store(shares + c, exponentials);
      sums += exponentials;
    }
    const Vector scale = All(1.0f / Sum(sums));
    for (int64_t c = FirstVector(i); c <= i; c += kLanes) Store(shares + c, Load(shares + c) * scale);
  }

  // to = the sum of shares[j] rows[j] over what token i reads.
  void Read(int64_t i, const float* shares, const float* rows, float* to) const {
    OverChannels(layout_.width, [&](int64_t e, auto load, auto store) {
      Vector even{}, odd{};
      int64_t j = First(i);
      for (; j < i; j += 2) {
        even += shares[j] * load(rows + j * layout_.row() + e);
        odd += shares[j + 1] * load(rows + (j + 1) * layout_.row() + e);
      }
      if (j == i) even += shares[j] * load(rows + j * layout_.row() + e);
      store(to + e, even + odd);
    });
  }

 private:
  const Layout& layout_;
  int64_t count_, padded_;
};

// Calls run(first token, tokens) of every record.
template <typename Run>
void OverRecords(ffi::ThreadPool* pool, const int32_t* records, int64_t tokens, Run run) {
  std::vector<int64_t> starts;
  for (int64_t t = 0; t < tokens; ++t)
    if (t == 0 || records[t] != records[t - 1]) starts.push_back(t);
  starts.push_back(tokens);
  InParallel(pool, static_cast<int64_t>(starts.size()) - 1, [&](int64_t number) {
    run(starts[number], starts[number + 1] - starts[number]);
  });
}

void Attend(ffi::ThreadPool* pool, const Layout& layout, int64_t tokens, const float* queries,
            const float* keys, const float* values, const int32_t* records, float* to) {
  OverRecords(pool, records, tokens, [&](int64_t start, int64_t count) {
    const Record record(layout, count);
    thread_local Scratch scratch;
    float* const shares = scratch.OfSize((layout.width + 1) * record.padded());
    float* const transposed = shares + record.padded();
    for (int64_t h = 0; h < layout.heads; ++h) {
      const int64_t at = start * layout.row() + h * layout.width;
      record.Transpose(keys + at, transposed);
      for (int64_t i = 0; i < count; ++i) {
        record.Shares(i, queries + at + i * layout.row(), transposed, shares);
        record.Read(i, shares, values + at, to + at + i * layout.row());
      }
    }
  });
}

void Gradients(ffi::ThreadPool* pool, const Layout& layout, int64_t tokens, const float* queries,
               const float* keys, const float* values, const int32_t* records,
               const float* cotangent, float* by_queries, float* by_keys, float* by_values) {
  OverRecords(pool, records, tokens, [&](int64_t start, int64_t count) {
    const Record record(layout, count);
    thread_local Scratch scratch;
    const int64_t padded = record.padded(), row = layout.row();
    float* const shares = scratch.OfSize(2 * (layout.width + 1) * padded);
    float* const changes = shares + padded;
    float* const keys_transposed = changes + padded;
    float* const values_transposed = keys_transposed + layout.width * padded;
    std::fill_n(by_keys + start * row, count * row, 0.0f);
    std::fill_n(by_values + start * row, count * row, 0.0f);
    for (int64_t h = 0; h < layout.heads; ++h) {
      const int64_t at = start * row + h * layout.width;
      record.Transpose(keys + at, keys_transposed);
      record.Transpose(values + at, values_transposed);
      for (int64_t i = 0; i < count; ++i) {
        const float* const query = queries + at + i * row;
        const float* const y = cotangent + at + i * row;
        record.Shares(i, query, keys_transposed, shares);
        Vector sums{};
        for (int64_t c = record.FirstVector(i); c <= i; c += kLanes) {
          const Vector change = record.Products(y, values_transposed, c);
          Store(changes + c, change);
          sums += change * Load(shares + c);
        }
        const Vector mean = All(Sum(sums));
        for (int64_t c = record.FirstVector(i); c <= i; c += kLanes)
          Store(changes + c, Load(shares + c) * (Load(changes + c) - mean));
        record.Read(i, changes, keys + at, by_queries + at + i * row);
        OverChannels(layout.width, [&](int64_t e, auto load, auto store) {
          const Vector of_query = load(query + e), of_y = load(y + e);
          for (int64_t j = record.First(i); j <= i; ++j) {
            float* const by_key = by_keys + at + j * row + e;
            float* const by_value = by_values + at + j * row + e;
            store(by_key, load(by_key) + changes[j] * of_query);
            store(by_value, load(by_value) + shares[j] * of_y);
          }
        });
      }
    }
  });
}

// --- XLA's calls; a leading axis, if there is one, is of problems that share nothing ---

using Numbers = ffi::Buffer<ffi::S32>;

int64_t Problems(const Array& array) {
  return array.dimensions().size() == 4 ? array.dimensions()[0] : 1;
}

Layout LayoutOf(const Array& array, int64_t reach) {
  const auto sizes = array.dimensions().last(2);
  return {sizes[0], sizes[1], reach};
}

ffi::Error AttendCall(ffi::ThreadPool pool, Array queries, Array keys, Array values,
                      Numbers records, ffi::Result<Array> result, int64_t reach, bool threads) {
  const int64_t problems = Problems(queries);
  const Layout layout = LayoutOf(queries, reach);
  const int64_t size = queries.element_count() / problems, tokens = size / layout.row();
  return Reported([&] {
    for (int64_t p = 0; p < problems; ++p)
      Attend(threads ? &pool : nullptr, layout, tokens, queries.typed_data() + p * size,
             keys.typed_data() + p * size, values.typed_data() + p * size,
             records.typed_data() + p * tokens, result->typed_data() + p * size);
  });
}

ffi::Error GradientsCall(ffi::ThreadPool pool, Array queries, Array keys, Array values,
                         Numbers records, Array cotangent, ffi::Result<Array> by_queries,
                         ffi::Result<Array> by_keys, ffi::Result<Array> by_values, int64_t reach,
                         bool threads) {
  const int64_t problems = Problems(queries);
  const Layout layout = LayoutOf(queries, reach);
  const int64_t size = queries.element_count() / problems, tokens = size / layout.row();
  return Reported([&] {
    for (int64_t p = 0; p < problems; ++p)
      Gradients(threads ? &pool : nullptr, layout, tokens, queries.typed_data() + p * size,
                keys.typed_data() + p * size, values.typed_data() + p * size,
                records.typed_data() + p * tokens, cotangent.typed_data() + p * size,
                by_queries->typed_data() + p * size, by_keys->typed_data() + p * size,
                by_values->typed_data() + p * size);
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(influence_jax_attend, AttendCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Numbers>()
                                  .Ret<Array>()
                                  .Attr<int64_t>("reach")
                                  .Attr<bool>("threads"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(influence_jax_attention_gradients, GradientsCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Arg<Numbers>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Ret<Array>()
                                  .Attr<int64_t>("reach")
                                  .Attr<bool>("threads"));
