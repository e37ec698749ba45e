/* Batch normalisation in training mode, with or without a ReLU behind it, of bfloat16 activations, channels last.

   Activations are one array in which the channel of element i is i % channels. It is gone through in strips of whole
   rows, at least STRIP numbers long, so that few channels use the whole width of the machine too. Every thread has
   a part of the strips; sums are taken per thread, then over the threads in their order. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STRIP 256

static inline float widen(uint16_t bits) {
  uint32_t word = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &word, 4);
  return value;
}

static inline uint16_t narrow(float value) { /* to the nearest, ties to even */
  uint32_t word;
  memcpy(&word, &value, 4);
  return (uint16_t)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

static int64_t strip_length(int64_t channels) { return (STRIP + channels - 1) / channels * channels; }

static float *numbers(int64_t count) { return aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64); }

static float *tiled(const float *per_channel, int64_t channels) {
  int64_t length = strip_length(channels);
  float *strip = numbers(length);
  for (int64_t j = 0; j < length; ++j) strip[j] = per_channel[j % channels];
  return strip;
}

/* A part of the strips, as bounds of elements. */
static void part(int64_t size, int64_t length, int64_t of, int64_t number, int64_t *begin, int64_t *end) {
  int64_t strips = (size + length - 1) / length;
  *begin = strips * number / of * length;
  *end = strips * (number + 1) / of * length;
  if (*end > size) *end = size;
}

static void add_up(double *first, double *second, float **of_threads, int threads, int64_t channels) {
  int64_t length = strip_length(channels);
  memset(first, 0, channels * sizeof(double));
  memset(second, 0, channels * sizeof(double));
  for (int t = 0; t < threads; ++t) {
    for (int64_t j = 0; j < length; ++j) {
      first[j % channels] += of_threads[t][j];
      second[j % channels] += of_threads[t][length + j];
    }
    free(of_threads[t]);
  }
}

/* x, y: size bfloat16; weight, bias, mean, variance (biased): channels float32. */
void forward(const uint16_t *restrict x, uint16_t *restrict y, int64_t size, int64_t channels, const float *weight,
             const float *bias, double eps, int relu, float *mean, float *variance) {
  int64_t length = strip_length(channels);
  int threads = omp_get_max_threads();
  float *values = numbers(2 * channels), *of_threads[threads];
  double *sums = malloc(2 * channels * sizeof(double)), *squares = sums + channels;
  for (int64_t c = 0; c < channels; ++c) values[c] = widen(x[c]);
  float *origin = tiled(values, channels); /* sums around it lose no digits */
#pragma omp parallel for schedule(static, 1)
  for (int t = 0; t < threads; ++t) {
    float *restrict sum = numbers(2 * length), *restrict square = sum + length;
    memset(sum, 0, 2 * length * sizeof(float));
    int64_t begin, end;
    part(size, length, threads, t, &begin, &end);
    for (int64_t i = begin; i < end; i += length)
      for (int64_t j = 0; j < (end - i < length ? end - i : length); ++j) {
        float d = widen(x[i + j]) - origin[j];
        sum[j] += d;
        square[j] += d * d;
      }
    of_threads[t] = sum;
  }
  add_up(sums, squares, of_threads, threads, channels);
  double rows = (double)size / channels;
  float *scale = values, *shift = values + channels;
  for (int64_t c = 0; c < channels; ++c) {
    double m = sums[c] / rows, v = squares[c] / rows - m * m;
    mean[c] = (float)(origin[c] + m);
    variance[c] = (float)(v > 0 ? v : 0);
    scale[c] = (float)(weight[c] / sqrt(variance[c] + eps));
    shift[c] = bias[c] - mean[c] * scale[c];
  }
  float *a = tiled(scale, channels), *b = tiled(shift, channels), least = relu ? 0 : -INFINITY;
#pragma omp parallel for schedule(static, 1)
  for (int t = 0; t < threads; ++t) {
    int64_t begin, end;
    part(size, length, threads, t, &begin, &end);
    for (int64_t i = begin; i < end; i += length)
      for (int64_t j = 0; j < (end - i < length ? end - i : length); ++j) {
        float value = widen(x[i + j]) * a[j] + b[j];
        y[i + j] = narrow(value > least ? value : least);
      }
  }
  free(values), free(sums), free(origin), free(a), free(b);
}

/* g: gradient of y; of_x: what it is of x; of_weight, of_bias: channels float32. */
void backward(const uint16_t *restrict g, const uint16_t *restrict x, uint16_t *restrict of_x, int64_t size,
              int64_t channels, const float *weight, const float *bias, const float *mean, const float *variance,
              double eps, int relu, float *of_weight, float *of_bias) {
  int64_t length = strip_length(channels);
  int threads = omp_get_max_threads();
  float *values = numbers(3 * channels), *of_threads[threads];
  double *sums = malloc(2 * channels * sizeof(double)), *products = sums + channels;
  float *scale = values, *shift = values + channels;
  for (int64_t c = 0; c < channels; ++c) {
    scale[c] = (float)(weight[c] / sqrt(variance[c] + eps));
    shift[c] = relu ? bias[c] - mean[c] * scale[c] : INFINITY; /* without a ReLU, all of it is let through */
  }
  float *a = tiled(scale, channels), *b = tiled(shift, channels), *centre = tiled(mean, channels);
#pragma omp parallel for schedule(static, 1)
  for (int t = 0; t < threads; ++t) {
    float *restrict sum = numbers(2 * length), *restrict product = sum + length;
    memset(sum, 0, 2 * length * sizeof(float));
    int64_t begin, end;
    part(size, length, threads, t, &begin, &end);
    for (int64_t i = begin; i < end; i += length)
      for (int64_t j = 0; j < (end - i < length ? end - i : length); ++j) {
        float value = widen(x[i + j]), one = value * a[j] + b[j] > 0 ? widen(g[i + j]) : 0;
        sum[j] += one;
        product[j] += one * (value - centre[j]);
      }
    of_threads[t] = sum;
  }
  add_up(sums, products, of_threads, threads, channels);
  double rows = (double)size / channels;
  float *slope = values, *constant = values + channels, *factor = values + 2 * channels;
  for (int64_t c = 0; c < channels; ++c) {
    double inverse = 1 / sqrt(variance[c] + eps), s = weight[c] * inverse;
    of_weight[c] = (float)(products[c] * inverse);
    of_bias[c] = (float)sums[c];
    factor[c] = (float)s;
    slope[c] = (float)(-s * inverse * inverse * products[c] / rows);
    constant[c] = (float)(-s * sums[c] / rows - slope[c] * mean[c]);
  }
  float *p = tiled(factor, channels), *q = tiled(slope, channels), *r = tiled(constant, channels);
#pragma omp parallel for schedule(static, 1)
  for (int t = 0; t < threads; ++t) {
    int64_t begin, end;
    part(size, length, threads, t, &begin, &end);
    for (int64_t i = begin; i < end; i += length)
      for (int64_t j = 0; j < (end - i < length ? end - i : length); ++j) {
        float value = widen(x[i + j]), one = value * a[j] + b[j] > 0 ? widen(g[i + j]) : 0;
        of_x[i + j] = narrow(one * p[j] + value * q[j] + r[j]);
      }
  }
  free(values), free(sums), free(a), free(b), free(centre), free(p), free(q), free(r);
}
