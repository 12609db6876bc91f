// LoRA for the rows of one step: y[row] += B[slot] (A[slot] x[row]), in one call for each linear layer of the model.
//
// Which row belongs to which adapter slot is said once a step, by set_rows; rows of the base model are in no tile and
// are neither read nor written. Rows of one slot go together in tiles, so that its weights are read once for TILE rows.
// A row's sums are the same, in the same order, whatever else is in the step. Sums are float32, also between A and B.
//
// server/cpu/build.py compiles this for the machine it runs on; server/cpu/lora.py calls it.

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define CPU_CAPABILITY AVX512
#define CPU_CAPABILITY_AVX512
#elif defined(__AVX2__) && defined(__FMA__)
#define CPU_CAPABILITY AVX2
#define CPU_CAPABILITY_AVX2
#else
#define CPU_CAPABILITY DEFAULT
#define CPU_CAPABILITY_DEFAULT
#endif

#include <ATen/core/Tensor.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <torch/library.h>

#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

namespace {

using at::BFloat16;
using at::Half;
using Vec = at::vec::Vectorized<float>;

constexpr int64_t TILE = 4;
constexpr int64_t PAIR = 2 * Vec::size();  // what one vector of a 16-bit type holds, and two of float

struct Tile {
  int64_t slot;
  int64_t count;
  int64_t rows[TILE];
};

std::vector<Tile> tiles;  // of the current step; only the thread that runs the model calls in here

// slots: int64, the adapter slot of each row, or -1 for a row of the base model.
void set_rows(const at::Tensor& slots) {
  const int64_t* slot_of = slots.const_data_ptr<int64_t>();
  tiles.clear();
  std::vector<int64_t> filling;  // by slot: which tile still has room, or -1
  for (int64_t row = 0; row < slots.numel(); ++row) {
    const int64_t slot = slot_of[row];
    if (slot < 0) continue;
    if (slot >= static_cast<int64_t>(filling.size())) filling.resize(slot + 1, -1);
    if (filling[slot] < 0) {
      filling[slot] = static_cast<int64_t>(tiles.size());
      tiles.push_back({slot, 0, {}});
    }
    Tile& tile = tiles[filling[slot]];
    tile.rows[tile.count++] = row;
    if (tile.count == TILE) filling[slot] = -1;
  }
}

template <typename T>
std::tuple<Vec, Vec> read(const T* from) {
  if constexpr (std::is_same_v<T, float>)
    return {Vec::loadu(from), Vec::loadu(from + Vec::size())};
  else
    return at::vec::convert_to_float<T>(at::vec::Vectorized<T>::loadu(from));
}

template <typename T>
void write(T* to, const Vec& low, const Vec& high) {
  if constexpr (std::is_same_v<T, float>) {
    low.store(to);
    high.store(to + Vec::size());
  } else {
    at::vec::convert_from_float<T>(low, high).store(to);
  }
}

// sum + the products of PAIR numbers at w and at x; which lane a product goes to is open.
template <typename T>
Vec multiply_add(const T* w, const T* x, const Vec& sum) {
#ifdef __AVX512BF16__
  if constexpr (std::is_same_v<T, BFloat16>) {
    const auto load = [](const T* from) { return (__m512bh)_mm512_loadu_si512(from); };
    return _mm512_dpbf16_ps(sum, load(w), load(x));
  }
#endif
  const auto [w_low, w_high] = read(w);
  const auto [x_low, x_high] = read(x);
  return at::vec::fmadd(w_high, x_high, at::vec::fmadd(w_low, x_low, sum));
}

// h[i * outputs + j] = a[j] . x[i], for ROWS rows of x and COLUMNS rows of a, which has `outputs` in all.
template <typename T, int ROWS, int COLUMNS>
void dot(const T* const* x, const T* a, int64_t inputs, int64_t outputs, float* h) {
  Vec sums[ROWS][COLUMNS];
  for (auto& of_row : sums)
    for (Vec& sum : of_row) sum = Vec(0);
  int64_t k = 0;
  for (; k + PAIR <= inputs; k += PAIR)
    for (int j = 0; j < COLUMNS; ++j)
      for (int i = 0; i < ROWS; ++i) sums[i][j] = multiply_add(a + j * inputs + k, x[i] + k, sums[i][j]);
  for (int i = 0; i < ROWS; ++i)
    for (int j = 0; j < COLUMNS; ++j) {
      float sum = at::vec::vec_reduce_all<float>([](const Vec& a, const Vec& b) { return a + b; }, sums[i][j]);
      for (int64_t n = k; n < inputs; ++n) sum += static_cast<float>(a[j * inputs + n]) * static_cast<float>(x[i][n]);
      h[i * outputs + j] = sum;
    }
}

template <typename T, int ROWS>
void shrink(const T* const* x, const T* a, int64_t inputs, int64_t outputs, float* h) {
  constexpr int COLUMNS = 4;  // as many sums at once as hide how long one takes
  int64_t j = 0;
  for (; j + COLUMNS <= outputs; j += COLUMNS) dot<T, ROWS, COLUMNS>(x, a + j * inputs, inputs, outputs, h + j);
  for (; j < outputs; ++j) dot<T, ROWS, 1>(x, a + j * inputs, inputs, outputs, h + j);
}

// y[i][o] += the sum over k < rank of b[k][o] h[i][k], for o < width; `b_stride` and `h_stride` lie between rows.
template <typename T, int ROWS>
void expand(T* const* y, const float* h, int64_t h_stride, const T* b, int64_t b_stride, int64_t rank, int64_t width) {
  int64_t o = 0;
  for (; o + PAIR <= width; o += PAIR) {
    Vec low[ROWS], high[ROWS];
    for (int i = 0; i < ROWS; ++i) low[i] = high[i] = Vec(0);
    for (int64_t k = 0; k < rank; ++k) {
      const auto [b_low, b_high] = read(b + k * b_stride + o);
      for (int i = 0; i < ROWS; ++i) {
        const Vec inner(h[i * h_stride + k]);
        low[i] = at::vec::fmadd(b_low, inner, low[i]);
        high[i] = at::vec::fmadd(b_high, inner, high[i]);
      }
    }
    for (int i = 0; i < ROWS; ++i) {
      const auto [y_low, y_high] = read<T>(y[i] + o);
      write(y[i] + o, y_low + low[i], y_high + high[i]);
    }
  }
  for (; o < width; ++o)
    for (int i = 0; i < ROWS; ++i) {
      float sum = 0;
      for (int64_t k = 0; k < rank; ++k) sum += h[i * h_stride + k] * static_cast<float>(b[k * b_stride + o]);
      y[i][o] = static_cast<T>(static_cast<float>(y[i][o]) + sum);
    }
}

template <typename T, int ROWS>
void add_tile(const Tile& tile, T* y, int64_t y_stride, const T* x, int64_t x_stride, const at::Tensor& a,
              const at::Tensor& b, at::IntArrayRef widths) {
  const int64_t rank = a.size(2), slices = static_cast<int64_t>(widths.size());
  const T* x_rows[ROWS];
  T* y_rows[ROWS];
  for (int i = 0; i < ROWS; ++i) {
    x_rows[i] = x + tile.rows[i] * x_stride;
    y_rows[i] = y + tile.rows[i] * y_stride;
  }
  thread_local std::vector<float> h;
  h.resize(ROWS * slices * rank);
  shrink<T, ROWS>(x_rows, a.const_data_ptr<T>() + tile.slot * a.stride(0), a.size(3), slices * rank, h.data());
  const T* weights = b.const_data_ptr<T>() + tile.slot * b.stride(0);
  for (int64_t slice = 0; slice < slices; ++slice) {
    expand<T, ROWS>(y_rows, h.data() + slice * rank, slices * rank, weights, b.stride(3), rank, widths[slice]);
    weights += widths[slice];
    for (T*& row : y_rows) row += widths[slice];
  }
}

template <typename T>
void add(at::Tensor& y, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b, at::IntArrayRef widths) {
  T* to = y.mutable_data_ptr<T>();
  const T* from = x.const_data_ptr<T>();
  const int64_t y_stride = y.stride(0), x_stride = x.stride(0), count = static_cast<int64_t>(tiles.size());
#pragma omp parallel for schedule(static, 1) if (count > 1)
  for (int64_t n = 0; n < count; ++n) {
    const Tile& tile = tiles[n];
    switch (tile.count) {
      case 1: add_tile<T, 1>(tile, to, y_stride, from, x_stride, a, b, widths); break;
      case 2: add_tile<T, 2>(tile, to, y_stride, from, x_stride, a, b, widths); break;
      case 3: add_tile<T, 3>(tile, to, y_stride, from, x_stride, a, b, widths); break;
      default: add_tile<T, TILE>(tile, to, y_stride, from, x_stride, a, b, widths);
    }
  }
}

// y: (rows, sum of widths), x: (rows, inputs), both with neighbouring columns. A layer that is several in one, as q, k
// and v, has as many slices: `widths` are their outputs. a and b are vLLM's tensors of the first slice, (slots, 1, rank,
// inputs) and (slots, 1, outputs, rank), in memory as server/cpu/lora.py lays out all slices: a slot's A are rows one
// after the other, its B are `rank` rows that hold the outputs of all slices.
void add_lora(at::Tensor y, const at::Tensor& x, const at::Tensor& a, const at::Tensor& b, at::IntArrayRef widths) {
  if (tiles.empty()) return;
  if (y.scalar_type() == at::kBFloat16)
    add<BFloat16>(y, x, a, b, widths);
  else if (y.scalar_type() == at::kHalf)
    add<Half>(y, x, a, b, widths);
  else
    add<float>(y, x, a, b, widths);
}

}  // namespace

TORCH_LIBRARY(mailwright, m) {
  m.def("add_lora(Tensor(a!) y, Tensor x, Tensor a, Tensor b, int[] widths) -> ()");
  m.impl("add_lora", c10::kCPU, &add_lora);
  m.def("set_rows(Tensor slots) -> ()");
  m.impl("set_rows", c10::kCPU, &set_rows);
}
