// The norm with ReLU of norm.py and its gradient, as functions that XLA calls on a CPU. native.py compiles this file.
//
//   HyperreconNorm          x (..., h, w, c), scale and bias (..., c) -> y (..., h, w, c), mean and inverse deviation (..., c)
//   HyperreconNormGradient  x, scale, bias, mean, inverse deviation, ct (..., h, w, c) -> the cotangents of x, scale, bias
//
// Images are float32 or bfloat16, all else is float32; c divides 64, and h w c is a multiple of 64. A call runs on the thread of
// its device alone. It reads an image twice, 64 entries at a time: those of a pixel of 64 channels, or of 64 / c pixels.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;
using Buffer = ffi::AnyBuffer;
using Result = ffi::Result<ffi::AnyBuffer>;
using Bfloat16 = uint16_t;

constexpr float kEpsilon = 1e-5f;  // of norm.py
constexpr int kLanes = 16, kVectors = 4, kEntries = kLanes * kVectors;
constexpr int64_t kBlock = 64;  // groups of entries that are summed in float32, before their sum is added to one in float64

// vectors of GCC and Clang, which become the instructions of the processor
typedef float Floats16 __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Bits16 __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Shorts16 __attribute__((vector_size(2 * kLanes)));

struct Entries {
  Floats16 part[kVectors];
};

template <typename T>
inline Floats16 Load(const T* from) {
  if constexpr (std::is_same_v<T, float>) {
    Floats16 values;
    std::memcpy(&values, from, sizeof(values));
    return values;
  } else {
    Shorts16 values;
    std::memcpy(&values, from, sizeof(values));
    return reinterpret_cast<Floats16>(__builtin_convertvector(values, Bits16) << 16);
  }
}

template <typename T>
inline void Store(Floats16 values, T* to) {
  if constexpr (std::is_same_v<T, float>) {
    std::memcpy(to, &values, sizeof(values));
  } else {  // the nearest, of two the even one; NaN stays
    const Bits16 bits = reinterpret_cast<Bits16>(values);
    const Bits16 rounded = bits + 0x7fff + ((bits >> 16) & 1);
    const Shorts16 result = __builtin_convertvector((values != values ? bits | 0x400000 : rounded) >> 16, Shorts16);
    std::memcpy(to, &result, sizeof(result));
  }
}

struct Shape {
  explicit Shape(const Buffer& x) {
    const auto sides = x.dimensions();
    channels = sides[sides.size() - 1];
    pixels = sides[sides.size() - 3] * sides[sides.size() - 2];
    groups = pixels * channels / kEntries;
    images = x.element_count() / (pixels * channels);
  }
  int64_t images, pixels, channels, groups;
};

struct Channels {  // a number of each channel
  float value[kEntries];
  Entries Repeat(int64_t channels) const {
    float repeated[kEntries];
    for (int i = 0; i < kEntries; ++i) repeated[i] = value[i % channels];
    Entries entries;
    std::memcpy(&entries, repeated, sizeof(entries));
    return entries;
  }
};

// The result before ReLU is x * gain + shift. Forward and backward use the same numbers, so that ReLU cuts at the same pixels.
struct Affine {
  Affine(int64_t channels, const float* scale, const float* bias, const float* mean, const float* inverse) {
    Channels gain, shift;
    for (int64_t c = 0; c < channels; ++c) {
      gain.value[c] = scale[c] * inverse[c];
      shift.value[c] = bias[c] - mean[c] * gain.value[c];
    }
    gains = gain.Repeat(channels);
    shifts = shift.Repeat(channels);
  }
  Floats16 operator()(Floats16 x, int v) const { return x * gains.part[v] + shifts.part[v]; }
  Entries gains, shifts;
};

// Two sums of each channel over the pixels, in float64. `add(group, v, first, second)` adds vector v of a group of entries.
template <typename Add>
void Sum(int64_t groups, int64_t channels, const Add& add, double first[kEntries], double second[kEntries]) {
  std::memset(first, 0, kEntries * sizeof(double));
  std::memset(second, 0, kEntries * sizeof(double));
  for (int64_t block = 0; block < groups; block += kBlock) {
    Entries firsts{}, seconds{};
    const int64_t stop = block + kBlock < groups ? block + kBlock : groups;
    for (int64_t group = block; group < stop; ++group)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) add(group, v, firsts.part[v], seconds.part[v]);
    for (int i = 0; i < kEntries; ++i) {
      first[i % channels] += firsts.part[i / kLanes][i % kLanes];
      second[i % channels] += seconds.part[i / kLanes][i % kLanes];
    }
  }
}

template <typename T>
void Normalize(const Shape& shape, const T* x, const float* scale, const float* bias, T* y, float* mean, float* inverse) {
  double first[kEntries], second[kEntries];
  Channels center;
  const auto add = [&](const Entries& center) {
    return [x, center](int64_t group, int v, Floats16& sum, Floats16& squares) {
      const Floats16 difference = Load(x + group * kEntries + v * kLanes) - center.part[v];
      sum += difference;
      squares += difference * difference;
    };
  };
  // about the mean of some groups, so that the variance is no difference of two large numbers
  const int64_t some = kBlock < shape.groups ? kBlock : shape.groups, stride = shape.groups / some;
  const auto add_some = [&, add = add(Entries{})](int64_t group, int v, Floats16& sum, Floats16& squares) {
    add(group * stride, v, sum, squares);
  };
  Sum(some, shape.channels, add_some, first, second);
  for (int64_t c = 0; c < shape.channels; ++c) center.value[c] = first[c] * shape.channels / (some * kEntries);
  Sum(shape.groups, shape.channels, add(center.Repeat(shape.channels)), first, second);
  for (int64_t c = 0; c < shape.channels; ++c) {
    const double offset = first[c] / shape.pixels, variance = second[c] / shape.pixels - offset * offset;
    mean[c] = center.value[c] + offset;
    inverse[c] = 1 / std::sqrt(variance + kEpsilon);
  }
  const Affine affine(shape.channels, scale, bias, mean, inverse);
  for (int64_t group = 0; group < shape.groups; ++group)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = group * kEntries + v * kLanes;
      const Floats16 value = affine(Load(x + at), v);
      Store(value < 0.0f ? Floats16{} : value, y + at);  // NaN stays
    }
}

// With g = ct where the result is above 0, and h = (x - mean) * inverse:
// bias_ct = sum g, scale_ct = sum g h, x_ct = scale * inverse * (g - mean of g - h * mean of g h).
template <typename T>
void PullBack(const Shape& shape, const T* x, const float* scale, const float* bias, const float* mean, const float* inverse,
              const T* ct, T* x_ct, float* scale_ct, float* bias_ct) {
  double first[kEntries], second[kEntries];
  Channels center, slope, constant;
  for (int64_t c = 0; c < shape.channels; ++c) center.value[c] = mean[c];
  const Entries centers = center.Repeat(shape.channels);
  const Affine affine(shape.channels, scale, bias, mean, inverse);
  const auto masked = [&](Floats16 value, const T* ct, int v) {
    return affine(value, v) > 0.0f ? Load(ct) : Floats16{};
  };
  const auto add = [&](int64_t group, int v, Floats16& sum, Floats16& products) {
    const int64_t at = group * kEntries + v * kLanes;
    const Floats16 value = Load(x + at), g = masked(value, ct + at, v);
    sum += g;
    products += g * (value - centers.part[v]);
  };
  Sum(shape.groups, shape.channels, add, first, second);
  for (int64_t c = 0; c < shape.channels; ++c) {
    bias_ct[c] = first[c];
    scale_ct[c] = second[c] * inverse[c];
    const float gain = scale[c] * inverse[c];
    slope.value[c] = -gain * inverse[c] * scale_ct[c] / shape.pixels;
    constant.value[c] = -gain * bias_ct[c] / shape.pixels - slope.value[c] * mean[c];
  }
  const Entries slopes = slope.Repeat(shape.channels), constants = constant.Repeat(shape.channels);
  for (int64_t group = 0; group < shape.groups; ++group)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = group * kEntries + v * kLanes;
      const Floats16 value = Load(x + at), g = masked(value, ct + at, v);
      Store(g * affine.gains.part[v] + value * slopes.part[v] + constants.part[v], x_ct + at);
    }
}

template <typename T>
T* Part(const Buffer& buffer, int64_t offset) {
  return static_cast<T*>(buffer.untyped_data()) + offset;
}

template <typename T>
void NormalizeAll(const Buffer& x, const Buffer& scale, const Buffer& bias, const Buffer& y, const Buffer& mean,
                  const Buffer& inverse) {
  const Shape shape(x);
  for (int64_t i = 0; i < shape.images; ++i) {
    const int64_t image = i * shape.pixels * shape.channels, row = i * shape.channels;
    Normalize(shape, Part<T>(x, image), Part<float>(scale, row), Part<float>(bias, row), Part<T>(y, image),
              Part<float>(mean, row), Part<float>(inverse, row));
  }
}

template <typename T>
void PullBackAll(const Buffer& x, const Buffer& scale, const Buffer& bias, const Buffer& mean, const Buffer& inverse,
                 const Buffer& ct, const Buffer& x_ct, const Buffer& scale_ct, const Buffer& bias_ct) {
  const Shape shape(x);
  for (int64_t i = 0; i < shape.images; ++i) {
    const int64_t image = i * shape.pixels * shape.channels, row = i * shape.channels;
    PullBack(shape, Part<T>(x, image), Part<float>(scale, row), Part<float>(bias, row), Part<float>(mean, row),
             Part<float>(inverse, row), Part<T>(ct, image), Part<T>(x_ct, image), Part<float>(scale_ct, row),
             Part<float>(bias_ct, row));
  }
}

ffi::Error Norm(Buffer x, Buffer scale, Buffer bias, Result y, Result mean, Result inverse) {
  const bool is_short = x.element_type() == ffi::DataType::BF16;
  (is_short ? NormalizeAll<Bfloat16> : NormalizeAll<float>)(x, scale, bias, *y, *mean, *inverse);
  return ffi::Error::Success();
}

ffi::Error NormGradient(Buffer x, Buffer scale, Buffer bias, Buffer mean, Buffer inverse, Buffer ct, Result x_ct,
                        Result scale_ct, Result bias_ct) {
  const bool is_short = x.element_type() == ffi::DataType::BF16;
  (is_short ? PullBackAll<Bfloat16> : PullBackAll<float>)(x, scale, bias, mean, inverse, ct, *x_ct, *scale_ct, *bias_ct);
  return ffi::Error::Success();
}

}  // namespace

#define HYPERRECON_THREE_ARGUMENTS .Arg<Buffer>().Arg<Buffer>().Arg<Buffer>()
#define HYPERRECON_THREE_RESULTS .Ret<Buffer>().Ret<Buffer>().Ret<Buffer>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(HyperreconNorm, Norm, ffi::Ffi::Bind() HYPERRECON_THREE_ARGUMENTS HYPERRECON_THREE_RESULTS);
XLA_FFI_DEFINE_HANDLER_SYMBOL(HyperreconNormGradient, NormGradient,
                              ffi::Ffi::Bind() HYPERRECON_THREE_ARGUMENTS HYPERRECON_THREE_ARGUMENTS
                                  HYPERRECON_THREE_RESULTS);
