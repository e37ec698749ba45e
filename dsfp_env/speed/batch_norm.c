/* Batch normalisation in training mode of activations, channels last; alone, with the ReLU behind it, or with the ReLU
   and 2x2 max pooling behind that. Activations are float32 if FLOAT32 is defined, else bfloat16.

   Activations are one array in which the channel of element i is i % channels. Where there is no pooling, it is gone
   through in strips of whole rows, at least STRIP numbers long, so that few channels use the whole width of the
   machine too. Every thread has a part of the work; sums are taken per thread, then over the threads in their order. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STRIP 256
#define PARTS(t) _Pragma("omp parallel for schedule(static, 1)") for (int t = 0; t < threads; ++t)

typedef struct {
  int64_t images, height, width, channels;
  int relu, pool; /* pool: height and width are even */
} Shape;

#ifdef FLOAT32
typedef float number;

static inline float widen(number value) { return value; }

static inline number narrow(float value) { return value; }
#else
typedef uint16_t number;

static inline float widen(number bits) {
  uint32_t word = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &word, 4);
  return value;
}

static inline number narrow(float value) { /* to the nearest, ties to even */
  uint32_t word;
  memcpy(&word, &value, 4);
  return (number)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}
#endif

static inline number rectified(number one, float scale, float shift) {
  float value = widen(one) * scale + shift;
  return narrow(value > 0 ? value : 0);
}

static inline number larger(number a, number b) { return a > b ? a : b; } /* of numbers that are not negative */

static int64_t size_of(const Shape *s) { return s->images * s->height * s->width * s->channels; }

static int64_t strip_length(int64_t channels) { return (STRIP + channels - 1) / channels * channels; }

static float *numbers(int64_t count) { return aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64); }

static float *tiled(const float *per_channel, int64_t channels) {
  int64_t length = strip_length(channels);
  float *strip = numbers(length);
  for (int64_t j = 0; j < length; ++j) strip[j] = per_channel[j % channels];
  return strip;
}

/* Part `number` of `of` parts of some units, as a range. */
static void part(int64_t units, int64_t of, int64_t number, int64_t *begin, int64_t *end) {
  *begin = units * number / of;
  *end = units * (number + 1) / of;
}

static void strips(int64_t size, int64_t length, int64_t of, int64_t number, int64_t *begin, int64_t *end) {
  part((size + length - 1) / length, of, number, begin, end);
  *begin *= length;
  *end = *end * length < size ? *end * length : size;
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

static float *zeros(int64_t count) { return memset(numbers(count), 0, count * sizeof(float)); }

/* x: activations; y: what is behind them, a quarter of the size if pooled; weight, bias, mean, variance (biased):
   channels float32. */
void forward(const Shape *s, const number *restrict x, number *restrict y, const float *weight, const float *bias,
             double eps, float *mean, float *variance) {
  int64_t channels = s->channels, size = size_of(s), length = strip_length(channels), row = s->width * channels;
  int threads = omp_get_max_threads();
  float *values = numbers(2 * channels), *of_threads[threads];
  double *sums = malloc(2 * channels * sizeof(double)), *squares = sums + channels;
  for (int64_t c = 0; c < channels; ++c) values[c] = widen(x[c]);
  float *origin = tiled(values, channels); /* sums around it lose no digits */
  PARTS(t) {
    float *restrict sum = zeros(2 * length), *restrict square = sum + length;
    int64_t begin, end;
    strips(size, length, threads, t, &begin, &end);
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
  float *a = tiled(scale, channels), *b = tiled(shift, channels), least = s->relu ? 0 : -INFINITY;
  PARTS(t) {
    int64_t begin, end;
    if (s->pool) {
      part(s->images * s->height / 2, threads, t, &begin, &end);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t k = 0; k < s->width / 2; ++k) {
          const number *p = x + 2 * i * row + 2 * k * channels, *q = p + row;
          number *restrict out = y + (i * s->width / 2 + k) * channels;
          for (int64_t c = 0; c < channels; ++c)
            out[c] = larger(larger(rectified(p[c], a[c], b[c]), rectified(p[channels + c], a[c], b[c])),
                            larger(rectified(q[c], a[c], b[c]), rectified(q[channels + c], a[c], b[c])));
        }
      continue;
    }
    strips(size, length, threads, t, &begin, &end);
    for (int64_t i = begin; i < end; i += length)
      for (int64_t j = 0; j < (end - i < length ? end - i : length); ++j) {
        float value = widen(x[i + j]) * a[j] + b[j];
        y[i + j] = narrow(value > least ? value : least);
      }
  }
  free(values), free(sums), free(origin), free(a), free(b);
}

/* g: gradient of y; of_x: what it is of x; of_weight, of_bias: channels float32. */
void backward(const Shape *s, const number *restrict g, const number *restrict x, number *restrict of_x,
              const float *weight, const float *bias, const float *mean, const float *variance, double eps,
              float *of_weight, float *of_bias) {
  int64_t channels = s->channels, size = size_of(s), length = strip_length(channels), row = s->width * channels;
  int threads = omp_get_max_threads();
  float *values = numbers(3 * channels), *of_threads[threads];
  double *sums = malloc(2 * channels * sizeof(double)), *products = sums + channels;
  float *scale = values, *shift = values + channels;
  for (int64_t c = 0; c < channels; ++c) {
    scale[c] = (float)(weight[c] / sqrt(variance[c] + eps));
    shift[c] = s->relu ? bias[c] - mean[c] * scale[c] : INFINITY; /* without a ReLU, all of it is let through */
  }
  float *a = tiled(scale, channels), *b = tiled(shift, channels), *centre = tiled(mean, channels);
  PARTS(t) {
    float *restrict sum = zeros(2 * length), *restrict product = sum + length;
    int64_t begin, end;
    of_threads[t] = sum;
    if (s->pool) {
      part(s->images * s->height / 2, threads, t, &begin, &end);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t k = 0; k < s->width / 2; ++k) {
          const number *p = x + 2 * i * row + 2 * k * channels, *q = p + row;
          const number *in = g + (i * s->width / 2 + k) * channels;
          for (int64_t c = 0; c < channels; ++c) {
            number r0 = rectified(p[c], a[c], b[c]), r1 = rectified(p[channels + c], a[c], b[c]);
            number r2 = rectified(q[c], a[c], b[c]), r3 = rectified(q[channels + c], a[c], b[c]);
            number most = larger(larger(r0, r1), larger(r2, r3)); /* the first that is as large has won */
            number won = r0 == most ? p[c] : r1 == most ? p[channels + c] : r2 == most ? q[c] : q[channels + c];
            float one = most > 0 ? widen(in[c]) : 0;
            sum[c] += one;
            product[c] += one * (widen(won) - centre[c]);
          }
        }
      continue;
    }
    strips(size, length, threads, t, &begin, &end);
    for (int64_t i = begin; i < end; i += length)
      for (int64_t j = 0; j < (end - i < length ? end - i : length); ++j) {
        float value = widen(x[i + j]), one = value * a[j] + b[j] > 0 ? widen(g[i + j]) : 0;
        sum[j] += one;
        product[j] += one * (value - centre[j]);
      }
  }
  add_up(sums, products, of_threads, threads, channels);
  double rows = (double)size / channels;
  float *slope = values, *constant = values + channels, *factor = values + 2 * channels;
  for (int64_t c = 0; c < channels; ++c) {
    double inverse = 1 / sqrt(variance[c] + eps), f = weight[c] * inverse;
    of_weight[c] = (float)(products[c] * inverse);
    of_bias[c] = (float)sums[c];
    factor[c] = (float)f;
    slope[c] = (float)(-f * inverse * inverse * products[c] / rows);
    constant[c] = (float)(-f * sums[c] / rows - slope[c] * mean[c]);
  }
  float *d = tiled(factor, channels), *e = tiled(slope, channels), *f = tiled(constant, channels);
  PARTS(t) {
    int64_t begin, end;
    if (s->pool) {
      part(s->images * s->height / 2, threads, t, &begin, &end);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t k = 0; k < s->width / 2; ++k) {
          int64_t place = 2 * i * row + 2 * k * channels;
          const number *p = x + place, *q = p + row;
          number *out = of_x + place, *below = out + row;
          const number *in = g + (i * s->width / 2 + k) * channels;
#pragma omp simd
          for (int64_t c = 0; c < channels; ++c) {
            number r0 = rectified(p[c], a[c], b[c]), r1 = rectified(p[channels + c], a[c], b[c]);
            number r2 = rectified(q[c], a[c], b[c]), r3 = rectified(q[channels + c], a[c], b[c]);
            number most = larger(larger(r0, r1), larger(r2, r3));
            int first = r0 == most, second = !first & (r1 == most), third = !first & !second & (r2 == most);
            float one = most > 0 ? widen(in[c]) * d[c] : 0;
            out[c] = narrow((first ? one : 0) + widen(p[c]) * e[c] + f[c]);
            out[channels + c] = narrow((second ? one : 0) + widen(p[channels + c]) * e[c] + f[c]);
            below[c] = narrow((third ? one : 0) + widen(q[c]) * e[c] + f[c]);
            below[channels + c] =
                narrow((first | second | third ? 0 : one) + widen(q[channels + c]) * e[c] + f[c]);
          }
        }
      continue;
    }
    strips(size, length, threads, t, &begin, &end);
    for (int64_t i = begin; i < end; i += length)
      for (int64_t j = 0; j < (end - i < length ? end - i : length); ++j) {
        float value = widen(x[i + j]), one = value * a[j] + b[j] > 0 ? widen(g[i + j]) : 0;
        of_x[i + j] = narrow(one * d[j] + value * e[j] + f[j]);
      }
  }
  free(values), free(sums), free(a), free(b), free(centre), free(d), free(e), free(f);
}
