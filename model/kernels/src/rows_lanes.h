// The loops of rows.h. To be included once in a file that has defined TALIPOT_TARGET, as
// matmul_tile.h is. The compiler's own vectors of 16 become what the target has.
#pragma once

#include <cmath>
#include <cstring>

#include "rows.h"

namespace talipot {
namespace {

constexpr int kLanes = 16;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

// The first `count` of 16 floats, the rest zeros.
TALIPOT_TARGET TALIPOT_INLINE Floats load_some(const float* at, int64_t count) {
  Floats value = {};
  std::memcpy(&value, at, count * sizeof(float));
  return value;
}

TALIPOT_TARGET TALIPOT_INLINE Floats load_all(const float* at) {
  Floats value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

TALIPOT_TARGET TALIPOT_INLINE void store_all(float* at, Floats value) {
  std::memcpy(at, &value, sizeof value);
}

// In the order of the lanes, folded by halves.
TALIPOT_TARGET TALIPOT_INLINE float sum_of(Floats value) {
  float lanes[kLanes];
  std::memcpy(lanes, &value, sizeof lanes);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

TALIPOT_TARGET void norm(const float* x, int64_t count, const float* scale, const float* bias,
                         float eps, float* out) {
  const int64_t whole = count / kLanes * kLanes;
  Floats total = {};
  for (int64_t i = 0; i < whole; i += kLanes) total += load_all(x + i);
  if (whole < count) total += load_some(x + whole, count - whole);
  const auto width = static_cast<float>(count);
  const float mean = sum_of(total) / width;
  Floats squares = {};
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats centred = load_all(x + i) - mean;
    squares += centred * centred;
  }
  float variance = sum_of(squares);
  for (int64_t i = whole; i < count; ++i) {
    const float centred = x[i] - mean;
    variance += centred * centred;
  }
  const float factor = 1.0f / std::sqrt(variance / width + eps);
  for (int64_t i = 0; i < whole; i += kLanes) {
    Floats normed = (load_all(x + i) - mean) * factor * load_all(scale + i);
    if (bias != nullptr) normed += load_all(bias + i);
    store_all(out + i, normed);
  }
  for (int64_t i = whole; i < count; ++i) {
    out[i] = (x[i] - mean) * factor * scale[i];
    if (bias != nullptr) out[i] += bias[i];
  }
}

TALIPOT_TARGET void add(float* x, const float* y, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store_all(x + i, load_all(x + i) + load_all(y + i));
  for (; i < count; ++i) x[i] += y[i];
}

TALIPOT_TARGET void rotate_neighbours(float* head, int64_t count, const float* turn,
                                      float factor) {
  const Ints partner = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
  const float* sine = turn + count;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Floats value = load_all(head + i);
    const Floats turned = value * load_all(turn + i) +
                          __builtin_shuffle(value, partner) * load_all(sine + i);
    store_all(head + i, turned * factor);
  }
  for (; i < count; i += 2) {
    const float first = head[i], second = head[i + 1];
    head[i] = (first * turn[i] + second * sine[i]) * factor;
    head[i + 1] = (second * turn[i + 1] + first * sine[i + 1]) * factor;
  }
}

TALIPOT_TARGET void rotate_halves(float* head, int64_t count, const float* turn, float factor) {
  const float* sine = turn + count;
  const int64_t half = count / 2;
  float* other = head + half;
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Floats first = load_all(head + i), second = load_all(other + i);
    store_all(head + i, (first * load_all(turn + i) + second * load_all(sine + i)) * factor);
    store_all(other + i, (second * load_all(turn + half + i) + first * load_all(sine + half + i)) *
                             factor);
  }
  for (; i < half; ++i) {
    const float first = head[i], second = other[i];
    head[i] = (first * turn[i] + second * sine[i]) * factor;
    other[i] = (second * turn[half + i] + first * sine[half + i]) * factor;
  }
}

TALIPOT_TARGET void rotate(float* head, int64_t count, const float* turn, bool halves,
                           float factor) {
  if (halves) {
    rotate_halves(head, count, turn, factor);
  } else {
    rotate_neighbours(head, count, turn, factor);
  }
}

TALIPOT_TARGET TALIPOT_INLINE Floats clamp(Floats x, float low, float high) {
  const Floats least = Floats{} + low, most = Floats{} + high;
  x = x < least ? least : x;
  return x > most ? most : x;
}

// e^x, with x where 2^±126 ends it.
TALIPOT_TARGET TALIPOT_INLINE Floats exponential(Floats x) {
  constexpr float kLog2E = 1.4426950408889634f;
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: it leaves the nearest integer below
  const Floats power = clamp(x * kLog2E, -126.0f, 126.0f);
  const Floats shifted = power + kShift;
  const Floats rest = power - (shifted - kShift);
  Floats sum = rest * 1.535336063e-4f + 1.339887487e-3f;
  sum = sum * rest + 9.618437366e-3f;
  sum = sum * rest + 5.550332470e-2f;
  sum = sum * rest + 2.402264791e-1f;
  sum = sum * rest + 6.931472029e-1f;
  sum = sum * rest + 1.0f;
  Ints bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000;
  Floats scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return sum * scale;
}

// erf, as the quotient of two polynomials in x^2 that Eigen has for float.
TALIPOT_TARGET TALIPOT_INLINE Floats error_function(Floats x) {
  x = clamp(x, -4.0f, 4.0f);
  const Floats square = x * x;
  Floats above = square * -2.72614225801306e-10f + 2.77068142495902e-08f;
  above = above * square + -2.10102402082508e-06f;
  above = above * square + -5.69250639462346e-05f;
  above = above * square + -7.34990630326855e-04f;
  above = above * square + -2.95459980854025e-03f;
  above = above * square + -1.60960333262415e-02f;
  Floats below = square * -1.45660718464996e-05f + -2.13374055278905e-04f;
  below = below * square + -1.68282697438203e-03f;
  below = below * square + -7.37332916720468e-03f;
  below = below * square + -1.42647390514189e-02f;
  return x * above / below;
}

TALIPOT_TARGET TALIPOT_INLINE Floats activated(Floats x, bool gelu) {
  if (gelu) return x * 0.5f * (error_function(x * 0.70710678f) + 1.0f);
  return x / (exponential(-x) + 1.0f);
}

TALIPOT_TARGET void activate(const float* gate, const float* up, int64_t count, bool gelu,
                             float* out) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t left = count - i;
    if (left >= kLanes) {
      Floats value = activated(load_all(gate + i), gelu);
      if (up != nullptr) value *= load_all(up + i);
      store_all(out + i, value);
    } else {
      Floats value = activated(load_some(gate + i, left), gelu);
      if (up != nullptr) value *= load_some(up + i, left);
      std::memcpy(out + i, &value, left * sizeof(float));
    }
  }
}

constexpr RowOps kOps = {norm, add, rotate, activate};

}  // namespace
}  // namespace talipot
