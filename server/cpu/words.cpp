// Logits from 8-bit weights: y[row][o] = scale[o] (weights[o] . x[row]), for the words of a vocabulary.
//
// A step reads all these weights once, for a few rows: memory is the limit, so weights stay 8 bits until they are in a
// register. Inputs are rounded to 16 bits, one scale a row, which loses nothing that a logit would show; products add up
// as whole numbers.
//
// server/cpu/build.py compiles this for the machine it runs on; server/cpu/words.py calls it.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

namespace {

constexpr float LEVELS = 32767;
constexpr int64_t ROWS = 4;
constexpr int64_t COLUMNS = 4;  // as many products at once as hide how long one takes
constexpr int64_t VECTOR = 32;
constexpr int64_t SAFE = 512;  // so many products of 8 and 16 bits fit into a sum of 32

#ifdef __AVX512VNNI__
float sum_of(__m512i sums) { return _mm512_reduce_add_ps(_mm512_cvtepi32_ps(sums)); }
#endif

// sums[i * COLUMN_COUNT + j] = w[j] . q[i]; both have `inputs` numbers a row, one row after the other.
template <int ROW_COUNT, int COLUMN_COUNT>
void dot(const int16_t* q, const int8_t* w, int64_t inputs, float* sums) {
  std::fill_n(sums, ROW_COUNT * COLUMN_COUNT, 0.0f);
  int64_t k = 0;
#ifdef __AVX512VNNI__
  while (k + VECTOR <= inputs) {
    // Each of the 16 parts of a vector may take SAFE products.
    const int64_t end = std::min(inputs, k + 16 * SAFE);
    __m512i parts[ROW_COUNT][COLUMN_COUNT];
    for (auto& of_row : parts)
      for (__m512i& part : of_row) part = _mm512_setzero_si512();
    for (; k + VECTOR <= end; k += VECTOR)
      for (int j = 0; j < COLUMN_COUNT; ++j) {
        // The outputs that come next, so that memory never waits: twice as fast for one row.
        _mm_prefetch((const char*)(w + (j + COLUMN_COUNT) * inputs + k), _MM_HINT_T0);
        const __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(w + j * inputs + k)));
        for (int i = 0; i < ROW_COUNT; ++i)
          parts[i][j] = _mm512_dpwssd_epi32(parts[i][j], wide, _mm512_loadu_si512(q + i * inputs + k));
      }
    for (int i = 0; i < ROW_COUNT; ++i)
      for (int j = 0; j < COLUMN_COUNT; ++j) sums[i * COLUMN_COUNT + j] += sum_of(parts[i][j]);
  }
#endif
  while (k < inputs) {
    const int64_t end = std::min(inputs, k + SAFE);
    for (int i = 0; i < ROW_COUNT; ++i)
      for (int j = 0; j < COLUMN_COUNT; ++j) {
        int32_t sum = 0;
        for (int64_t n = k; n < end; ++n)
          sum += static_cast<int16_t>(w[j * inputs + n]) * q[i * inputs + n];
        sums[i * COLUMN_COUNT + j] += static_cast<float>(sum);
      }
    k = end;
  }
}

struct Product {
  const int16_t* q;
  const float* row_scales;
  const int8_t* weights;
  const float* scales;
  float* y;
  int64_t inputs, outputs;

  template <int ROW_COUNT, int COLUMN_COUNT>
  void write(int64_t row, int64_t output) const {
    float sums[ROW_COUNT * COLUMN_COUNT];
    dot<ROW_COUNT, COLUMN_COUNT>(q + row * inputs, weights + output * inputs, inputs, sums);
    for (int i = 0; i < ROW_COUNT; ++i)
      for (int j = 0; j < COLUMN_COUNT; ++j)
        y[(row + i) * outputs + output + j] = sums[i * COLUMN_COUNT + j] * row_scales[row + i] * scales[output + j];
  }

  // All rows of so many outputs, whose weights the first rows bring into the cache.
  template <int COLUMN_COUNT>
  void write_all(int64_t rows, int64_t output) const {
    int64_t row = 0;
    for (; row + ROWS <= rows; row += ROWS) write<ROWS, COLUMN_COUNT>(row, output);
    switch (rows - row) {
      case 1: write<1, COLUMN_COUNT>(row, output); break;
      case 2: write<2, COLUMN_COUNT>(row, output); break;
      case 3: write<3, COLUMN_COUNT>(row, output); break;
    }
  }
};

// x (rows, inputs) in float32 -> q in 16 bits; returns the scale of each row.
std::vector<float> rounded(const at::Tensor& x, std::vector<int16_t>& q) {
  const int64_t rows = x.size(0), inputs = x.size(1);
  const float* from = x.const_data_ptr<float>();
  std::vector<float> scales(rows);
  for (int64_t row = 0; row < rows; ++row, from += inputs) {
    float largest = 0;
    for (int64_t k = 0; k < inputs; ++k) largest = std::max(largest, std::abs(from[k]));
    scales[row] = largest > 0 ? largest / LEVELS : 1;
    for (int64_t k = 0; k < inputs; ++k)
      q[row * inputs + k] = static_cast<int16_t>(std::nearbyint(from[k] / scales[row]));
  }
  return scales;
}

// x: (rows, inputs), weights: int8 (outputs, inputs), scale: float32 (outputs, 1) -> float32 (rows, outputs).
at::Tensor logits(const at::Tensor& x, const at::Tensor& weights, const at::Tensor& scale) {
  const at::Tensor in = x.to(at::kFloat).contiguous();
  const int64_t rows = in.size(0), inputs = in.size(1), outputs = weights.size(0);
  std::vector<int16_t> q(rows * inputs);
  const std::vector<float> row_scales = rounded(in, q);
  at::Tensor y = at::empty({rows, outputs}, in.options());
  const Product product{q.data(), row_scales.data(), weights.const_data_ptr<int8_t>(), scale.const_data_ptr<float>(),
                        y.mutable_data_ptr<float>(), inputs, outputs};
  const int64_t whole = outputs / COLUMNS * COLUMNS;
#pragma omp parallel for schedule(static)
  for (int64_t output = 0; output < whole; output += COLUMNS) product.write_all<COLUMNS>(rows, output);
  for (int64_t output = whole; output < outputs; ++output) product.write_all<1>(rows, output);
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mailwright, m) {
  m.def("logits(Tensor x, Tensor weights, Tensor scale) -> Tensor");
  m.impl("logits", c10::kCPU, &logits);
}
