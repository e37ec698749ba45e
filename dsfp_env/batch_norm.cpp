// Batch normalisation in training mode of bfloat16 activations, channels last, on the CPU.
//
// Activations are read as one array in which the channel of element i is i % channels. It is gone through in
// strips of whole rows, at least STRIP numbers long, so that few channels use the whole width of the machine too.

#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t STRIP = 256;

inline float widen(uint16_t bits) {
  uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &word, 4);
  return value;
}

inline uint16_t narrow(float value) {  // to the nearest, ties to even
  uint32_t word;
  __builtin_memcpy(&word, &value, 4);
  return static_cast<uint16_t>((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

const uint16_t* bits_of(const at::Tensor& t) { return reinterpret_cast<const uint16_t*>(t.data_ptr<at::BFloat16>()); }
uint16_t* bits_to(at::Tensor& t) { return reinterpret_cast<uint16_t*>(t.data_ptr<at::BFloat16>()); }

struct Strips {
  int64_t channels, length, size, count;  // numbers in a row, in a strip, in all; strips, the last may be short
  Strips(int64_t channels, int64_t size) : channels(channels), size(size) {
    length = (STRIP + channels - 1) / channels * channels;
    count = (size + length - 1) / length;
  }
  std::vector<float> tiled(const std::vector<float>& per_channel) const {
    std::vector<float> strip(length);
    for (int64_t j = 0; j < length; ++j) strip[j] = per_channel[j % channels];
    return strip;
  }
  // Two sums per channel over all strips; `add` adds those of one strip to two arrays of `length`.
  template <typename Add>
  void sum(const Add& add, std::vector<double>& first, std::vector<double>& second) const {
    int64_t chunks = std::min<int64_t>(at::get_num_threads(), count);
    std::vector<std::vector<float>> a(chunks), b(chunks);
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        a[chunk].assign(length, 0.f);
        b[chunk].assign(length, 0.f);
        for (int64_t strip = chunk * count / chunks; strip < (chunk + 1) * count / chunks; ++strip) {
          int64_t start = strip * length;
          add(start, std::min(length, size - start), a[chunk].data(), b[chunk].data());
        }
      }
    });
    first.assign(channels, 0.);
    second.assign(channels, 0.);
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t j = 0; j < length; ++j) {
        first[j % channels] += a[chunk][j];
        second[j % channels] += b[chunk][j];
      }
  }
  template <typename Write>
  void each(const Write& write) const {
    at::parallel_for(0, count, std::max<int64_t>(1, 32768 / length), [&](int64_t begin, int64_t end) {
      for (int64_t strip = begin; strip < end; ++strip) write(strip * length, std::min(length, size - strip * length));
    });
  }
};

}  // namespace

// images [N, C, H, W] bfloat16, channels last; returns output, mean [C] and variance [C] (biased), float32
std::vector<at::Tensor> forward(const at::Tensor& images, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  Strips strips(images.size(1), images.numel());
  auto output = at::empty_like(images);
  auto mean = at::empty({strips.channels}, weight.options()), variance = at::empty_like(mean);
  const uint16_t* x = bits_of(images);
  std::vector<float> first(strips.channels);
  for (int64_t c = 0; c < strips.channels; ++c) first[c] = widen(x[c]);
  auto origin = strips.tiled(first);  // sums around it lose no digits
  std::vector<double> sums, squares;
  strips.sum(
      [&](int64_t start, int64_t n, float* sum, float* square) {
        for (int64_t j = 0; j < n; ++j) {
          float d = widen(x[start + j]) - origin[j];
          sum[j] += d;
          square[j] += d * d;
        }
      },
      sums, squares);
  double rows = static_cast<double>(strips.size) / strips.channels;
  std::vector<float> scale(strips.channels), shift(strips.channels);
  for (int64_t c = 0; c < strips.channels; ++c) {
    double m = sums[c] / rows, v = std::max(0., squares[c] / rows - m * m);
    mean.data_ptr<float>()[c] = first[c] + m;
    variance.data_ptr<float>()[c] = v;
    scale[c] = weight.data_ptr<float>()[c] / std::sqrt(v + eps);
    shift[c] = bias.data_ptr<float>()[c] - (first[c] + m) * scale[c];
  }
  auto a = strips.tiled(scale), b = strips.tiled(shift);
  uint16_t* y = bits_to(output);
  strips.each([&](int64_t start, int64_t n) {
    for (int64_t j = 0; j < n; ++j) y[start + j] = narrow(widen(x[start + j]) * a[j] + b[j]);
  });
  return {output, mean, variance};
}

// Gradients of images, weight and bias
std::vector<at::Tensor> backward(const at::Tensor& gradient, const at::Tensor& images, const at::Tensor& weight,
                                 const at::Tensor& mean, const at::Tensor& variance, double eps) {
  Strips strips(images.size(1), images.numel());
  auto of_images = at::empty_like(images);
  auto of_weight = at::empty_like(weight), of_bias = at::empty_like(weight);
  const uint16_t *g = bits_of(gradient), *x = bits_of(images);
  std::vector<float> means(mean.data_ptr<float>(), mean.data_ptr<float>() + strips.channels);
  auto centre = strips.tiled(means);
  std::vector<double> sums, products;
  strips.sum(
      [&](int64_t start, int64_t n, float* sum, float* product) {
        for (int64_t j = 0; j < n; ++j) {
          float one = widen(g[start + j]);
          sum[j] += one;
          product[j] += one * (widen(x[start + j]) - centre[j]);
        }
      },
      sums, products);
  double rows = static_cast<double>(strips.size) / strips.channels;
  std::vector<float> of_g(strips.channels), of_x(strips.channels), constant(strips.channels);
  for (int64_t c = 0; c < strips.channels; ++c) {
    double inverse = 1 / std::sqrt(variance.data_ptr<float>()[c] + eps);
    double scale = weight.data_ptr<float>()[c] * inverse;
    of_weight.data_ptr<float>()[c] = products[c] * inverse;
    of_bias.data_ptr<float>()[c] = sums[c];
    double slope = -scale * inverse * inverse * products[c] / rows;
    of_g[c] = scale;
    of_x[c] = slope;
    constant[c] = -scale * sums[c] / rows - slope * means[c];
  }
  auto a = strips.tiled(of_g), b = strips.tiled(of_x), d = strips.tiled(constant);
  uint16_t* out = bits_to(of_images);
  strips.each([&](int64_t start, int64_t n) {
    for (int64_t j = 0; j < n; ++j)
      out[start + j] = narrow(widen(g[start + j]) * a[j] + widen(x[start + j]) * b[j] + d[j]);
  });
  return {of_images, of_weight, of_bias};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward, pybind11::call_guard<pybind11::gil_scoped_release>());
  m.def("backward", &backward, pybind11::call_guard<pybind11::gil_scoped_release>());
}
