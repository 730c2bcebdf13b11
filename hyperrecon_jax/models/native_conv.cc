// The convolutions of conv.py by oneDNN, as functions that XLA calls on a CPU. native.py compiles this file.
//
//   HyperreconConv       x (g, n, h, w, c_in), kernel (g, kh, kw, c_in, c_out) -> (g, n, h, w, c_out)
//   HyperreconCorrelate  x (g, n, h, w, c_in), ct (g, n, h, w, c_out) -> (g, kh, kw, c_in, c_out), float32
//
// A call runs on the thread of its device alone: there is a device for each core. Nothing is copied but kernels, and for the
// second function a few rows at a time, with zeros around them and into the layout that oneDNN prefers.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <tuple>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

// of the OpenMP that the library was linked with
extern "C" int omp_get_max_threads(void);
extern "C" void omp_set_num_threads(int);

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using tag = memory::format_tag;
using dim = memory::dim;

constexpr dim kStripRows = 16;       // of an image, for the kernel's gradient: they stay in the cache of a core
// fewer channels than a block has would be filled up with zeros
constexpr dim kMinBlockedChannels = 8, kMinBlockedChannelsOfBfloat16 = 16;

class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

class Workspace {  // aligned memory of a thread that grows and is used again
 public:
  ~Workspace() { std::free(data_); }
  void* AtLeast(size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      size_ = 0;
      data_ = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
      if (data_ == nullptr) throw std::bad_alloc();
      size_ = bytes;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

struct Shape {
  dim images, rows, columns, inputs, outputs, kernel_rows, kernel_columns;  // rows and columns of the result
  memory::data_type type;

  auto Key() const {
    return std::make_tuple(images, rows, columns, inputs, outputs, kernel_rows, kernel_columns, static_cast<int>(type));
  }
  memory::dims Kernel() const { return {outputs, inputs, kernel_rows, kernel_columns}; }
  memory::desc Result() const { return {{images, outputs, rows, columns}, type, tag::nhwc}; }
};

using ShapeKey = decltype(Shape{}.Key());

template <typename Plan>
const Plan& PlanFor(const Shape& shape) {  // made once for each thread and shape
  thread_local std::map<ShapeKey, std::unique_ptr<Plan>> plans;
  auto& plan = plans[shape.Key()];
  if (!plan) plan = std::make_unique<Plan>(shape);
  return *plan;
}

dnnl::primitive_attr Attributes() {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // float32 is float32, whatever the environment says
  return attributes;
}

dnnl::reorder Reorder(const memory::desc& from, const memory::desc& to) {
  return dnnl::reorder(dnnl::reorder::primitive_desc(Engine(), from, Engine(), to));
}

struct ConvPlan {
  explicit ConvPlan(const Shape& s)
      : x({s.images, s.inputs, s.rows, s.columns}, s.type, tag::nhwc), y(s.Result()), kernel(s.Kernel(), s.type, tag::hwio) {
    const memory::dims margins = {s.kernel_rows / 2, s.kernel_columns / 2};
    const dnnl::convolution_forward::primitive_desc description(
        Engine(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, x,
        memory::desc(s.Kernel(), s.type, tag::any), y, {1, 1}, margins, margins, Attributes());
    inner_kernel = description.weights_desc();
    scratchpad = description.scratchpad_desc();
    primitive = dnnl::convolution_forward(description);
    reorder = Reorder(kernel, inner_kernel);
  }
  memory::desc x, y, kernel, inner_kernel, scratchpad;
  dnnl::primitive primitive, reorder;
};

struct CorrelatePlan {  // of a strip of rows
  explicit CorrelatePlan(const Shape& s)
      : x({s.images, s.inputs, s.rows + s.kernel_rows - 1, s.columns + s.kernel_columns - 1}, s.type, tag::nhwc),
        ct(s.Result()),
        kernel(s.Kernel(), memory::data_type::f32, tag::hwio) {
    const bool is_blocked = s.type == memory::data_type::bf16
                                ? std::min(s.inputs, s.outputs) >= kMinBlockedChannelsOfBfloat16
                                : s.inputs >= kMinBlockedChannels;
    const auto preferred = is_blocked ? tag::any : tag::nhwc;
    const memory::desc any_x(x.get_dims(), s.type, preferred), any_ct(ct.get_dims(), s.type, preferred);
    const memory::dims stride = {1, 1}, margins = {0, 0};
    const auto algorithm = dnnl::algorithm::convolution_direct;
    const dnnl::convolution_forward::primitive_desc hint(
        Engine(), dnnl::prop_kind::forward_training, algorithm, any_x, memory::desc(s.Kernel(), s.type, tag::any), any_ct,
        stride, margins, margins);
    const dnnl::convolution_backward_weights::primitive_desc description(
        Engine(), algorithm, any_x, memory::desc(s.Kernel(), memory::data_type::f32, tag::any), any_ct, stride, margins,
        margins, hint, Attributes());
    inner_x = description.src_desc();
    inner_ct = description.diff_dst_desc();
    inner_kernel = description.diff_weights_desc();
    scratchpad = description.scratchpad_desc();
    primitive = dnnl::convolution_backward_weights(description);
    if (inner_x != x) reorder_x = Reorder(x, inner_x);
    if (inner_ct != ct) reorder_ct = Reorder(ct, inner_ct);
    reorder_kernel = Reorder(inner_kernel, kernel);
  }
  memory::desc x, ct, kernel, inner_x, inner_ct, inner_kernel, scratchpad;
  dnnl::primitive primitive, reorder_x, reorder_ct, reorder_kernel;
};

char* Data(const ffi::AnyBuffer& buffer) { return static_cast<char*>(buffer.untyped_data()); }

memory::data_type Type(const ffi::AnyBuffer& buffer) {
  return buffer.element_type() == ffi::DataType::BF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

void Conv(const ffi::AnyBuffer& x, const ffi::AnyBuffer& kernel, const ffi::AnyBuffer& y) {
  const auto xs = x.dimensions(), ks = kernel.dimensions();
  const ConvPlan& plan = PlanFor<ConvPlan>({xs[1], xs[2], xs[3], xs[4], ks[4], ks[1], ks[2], Type(x)});
  thread_local Workspace scratch, inner;
  dnnl::stream stream(Engine());
  memory scratchpad(plan.scratchpad, Engine(), scratch.AtLeast(plan.scratchpad.get_size()));
  memory inner_kernel(plan.inner_kernel, Engine(), inner.AtLeast(plan.inner_kernel.get_size()));
  for (dim i = 0; i < xs[0]; ++i) {
    memory own_kernel(plan.kernel, Engine(), Data(kernel) + i * plan.kernel.get_size());
    plan.reorder.execute(stream, {{DNNL_ARG_FROM, own_kernel}, {DNNL_ARG_TO, inner_kernel}});
    plan.primitive.execute(stream, {{DNNL_ARG_SRC, memory(plan.x, Engine(), Data(x) + i * plan.x.get_size())},
                                    {DNNL_ARG_WEIGHTS, inner_kernel},
                                    {DNNL_ARG_DST, memory(plan.y, Engine(), Data(y) + i * plan.y.get_size())},
                                    {DNNL_ARG_SCRATCHPAD, scratchpad}});
  }
  stream.wait();
}

// Adds the kernel's gradient from a strip of rows to `sum`, in the layout of the result.
void CorrelateStrip(const CorrelatePlan& plan, const dnnl::stream& stream, char* x, char* ct, float* sum) {
  thread_local Workspace scratch, x_space, ct_space, inner_space, kernel_space;
  memory own_x(plan.x, Engine(), x), own_ct(plan.ct, Engine(), ct), inner_x = own_x, inner_ct = own_ct;
  if (plan.reorder_x) {
    inner_x = memory(plan.inner_x, Engine(), x_space.AtLeast(plan.inner_x.get_size()));
    plan.reorder_x.execute(stream, {{DNNL_ARG_FROM, own_x}, {DNNL_ARG_TO, inner_x}});
  }
  if (plan.reorder_ct) {
    inner_ct = memory(plan.inner_ct, Engine(), ct_space.AtLeast(plan.inner_ct.get_size()));
    plan.reorder_ct.execute(stream, {{DNNL_ARG_FROM, own_ct}, {DNNL_ARG_TO, inner_ct}});
  }
  memory inner(plan.inner_kernel, Engine(), inner_space.AtLeast(plan.inner_kernel.get_size()));
  const size_t bytes = plan.kernel.get_size();
  float* part = static_cast<float*>(kernel_space.AtLeast(bytes));
  memory scratchpad(plan.scratchpad, Engine(), scratch.AtLeast(plan.scratchpad.get_size()));
  plan.primitive.execute(stream, {{DNNL_ARG_SRC, inner_x},
                                  {DNNL_ARG_DIFF_DST, inner_ct},
                                  {DNNL_ARG_DIFF_WEIGHTS, inner},
                                  {DNNL_ARG_SCRATCHPAD, scratchpad}});
  memory own_kernel(plan.kernel, Engine(), part);
  plan.reorder_kernel.execute(stream, {{DNNL_ARG_FROM, inner}, {DNNL_ARG_TO, own_kernel}});
  const_cast<dnnl::stream&>(stream).wait();
  for (size_t i = 0; i < bytes / sizeof(float); ++i) sum[i] += part[i];
}

// Rows `first` to `first + count` of an image of `rows` rows, with zeros around it, into the strip of a plan.
void CopyStrip(const char* image, dim rows, size_t row_bytes, size_t margin_bytes, dim first, dim count, char* strip) {
  const size_t padded_bytes = row_bytes + 2 * margin_bytes;
  for (dim row = first; row < first + count; ++row, strip += padded_bytes) {
    if (row < 0 || row >= rows) {
      std::memset(strip, 0, padded_bytes);
      continue;
    }
    std::memset(strip, 0, margin_bytes);
    std::memcpy(strip + margin_bytes, image + row * row_bytes, row_bytes);
    std::memset(strip + margin_bytes + row_bytes, 0, margin_bytes);
  }
}

void Correlate(const ffi::AnyBuffer& x, const ffi::AnyBuffer& ct, const ffi::AnyBuffer& result) {
  const auto xs = x.dimensions(), cs = ct.dimensions(), ks = result.dimensions();
  const dim images = cs[0] * cs[1], rows = cs[2], kernel_size = ks[1] * ks[2] * ks[3] * ks[4];
  const size_t item = Type(x) == memory::data_type::bf16 ? 2 : 4;
  const size_t x_row = xs[3] * xs[4] * item, ct_row = cs[3] * cs[4] * item, margin = ks[2] / 2 * xs[4] * item;
  float* sums = reinterpret_cast<float*>(Data(result));
  std::fill_n(sums, cs[0] * kernel_size, 0.0f);
  thread_local Workspace strip_space;
  dnnl::stream stream(Engine());
  for (dim image = 0; image < images; ++image) {
    const char* own_x = Data(x) + image * rows * x_row;
    char* own_ct = Data(ct) + image * rows * ct_row;
    for (dim row = 0; row < rows; row += kStripRows) {
      const dim height = std::min(kStripRows, rows - row);
      const auto& plan = PlanFor<CorrelatePlan>({1, height, cs[3], xs[4], cs[4], ks[1], ks[2], Type(x)});
      char* strip = static_cast<char*>(strip_space.AtLeast(plan.x.get_size()));
      CopyStrip(own_x, rows, x_row, margin, row - ks[1] / 2, height + ks[1] - 1, strip);
      CorrelateStrip(plan, stream, strip, own_ct + row * ct_row, sums + image / cs[1] * kernel_size);
    }
  }
}

template <void function(const ffi::AnyBuffer&, const ffi::AnyBuffer&, const ffi::AnyBuffer&)>
ffi::Error Run(ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> result) {
  try {
    OneThread one_thread;
    function(a, b, *result);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

}  // namespace

#define HYPERRECON_BINDING \
  ffi::Ffi::Bind().Arg<ffi::AnyBuffer>().Arg<ffi::AnyBuffer>().Ret<ffi::AnyBuffer>()

XLA_FFI_DEFINE_HANDLER_SYMBOL(HyperreconConv, Run<Conv>, HYPERRECON_BINDING);
XLA_FFI_DEFINE_HANDLER_SYMBOL(HyperreconCorrelate, Run<Correlate>, HYPERRECON_BINDING);
