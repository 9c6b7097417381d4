// What XLA calls: checks of what Python has promised, then the kernels.
#include <utility>

#include "attention.h"
#include "matmul.h"
#include "pages.h"
#include "xla_call.h"

namespace talipot {
namespace {

ffi::Error run_matmul(const MatmulKernel& kernel, ffi::ThreadPool pool,
                      const ffi::Buffer<ffi::F32>& x, const void* weights, int64_t weight_groups,
                      const float* column_scale, ffi::Result<ffi::Buffer<ffi::F32>> y) {
  const auto in = x.dimensions();
  const auto out = y->dimensions();
  if (in.size() != 2 || out.size() != 2 || in[0] != out[0]) {
    return ffi::Error::InvalidArgument("x and the result must be [M, K] and [M, N]");
  }
  const MatmulShape shape{in[0], in[1], out[1], (in[1] + kernel.group - 1) / kernel.group};
  if (weight_groups != shape.groups) {
    return ffi::Error::InvalidArgument("weights were packed for another K");
  }
  return guarded([&] {
    XlaWorkers workers(std::move(pool));
    matmul(kernel, shape, x.typed_data(), static_cast<const uint8_t*>(weights), column_scale,
           y->typed_data(), workers);
  });
}

ffi::Error int8_matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::U8> weights,
                       ffi::Buffer<ffi::F32> scale, ffi::Result<ffi::Buffer<ffi::F32>> y,
                       int32_t isa) {
  return run_matmul(int8_kernel(static_cast<Isa>(isa)), std::move(pool), x, weights.typed_data(),
                    weights.dimensions()[1], scale.typed_data(), y);
}

ffi::Error bf16_matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                       ffi::Buffer<ffi::BF16> weights, ffi::Result<ffi::Buffer<ffi::F32>> y,
                       int32_t isa) {
  return run_matmul(bf16_kernel(static_cast<Isa>(isa)), std::move(pool), x, weights.typed_data(),
                    weights.dimensions()[1], nullptr, y);
}

ffi::Error f32_matmul(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                      ffi::Buffer<ffi::F32> weights, ffi::Result<ffi::Buffer<ffi::F32>> y,
                      int32_t isa) {
  return run_matmul(f32_kernel(static_cast<Isa>(isa)), std::move(pool), x, weights.typed_data(),
                    weights.dimensions()[1], nullptr, y);
}

ffi::Error attend(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> query, ffi::AnyBuffer keys,
                  ffi::AnyBuffer values, ffi::Buffer<ffi::S32> table, ffi::Buffer<ffi::S32> start,
                  ffi::Result<ffi::Buffer<ffi::F32>> y, int32_t isa) {
  const auto in = query.dimensions();
  const auto pages = keys.dimensions();
  const int64_t stride = in[2] * in[3];
  const AttentionShape shape{in[0], in[1], in[2], table.dimensions()[1], stride, stride};
  const Pools pools{keys.untyped_data(), values.untyped_data(), pool_format(keys), pages[0],
                    pages[1],            pages[2],              in[3]};
  return guarded([&] {
    XlaWorkers workers(std::move(pool));
    paged_attention(shape, pools, query.typed_data(), table.typed_data(), start.typed_data(),
                    y->typed_data(), static_cast<Isa>(isa), workers);
  });
}

ffi::Error write(ffi::ThreadPool pool, ffi::AnyBuffer keys, ffi::AnyBuffer values,
                 ffi::Buffer<ffi::F32> new_keys, ffi::Buffer<ffi::F32> new_values,
                 ffi::Buffer<ffi::S32> table, ffi::Buffer<ffi::S32> start,
                 ffi::Result<ffi::AnyBuffer> keys_out, ffi::Result<ffi::AnyBuffer> values_out) {
  const auto in = new_keys.dimensions();
  const auto pages = keys.dimensions();
  const NewTokens shape{in[0], in[1], in[2], in[3], table.dimensions()[1]};
  const PageLayout layout{pages[0], pages[1], pool_format(keys)};
  carry_over(keys, *keys_out);
  carry_over(values, *values_out);
  return guarded([&] {
    XlaWorkers workers(std::move(pool));
    write_pages(shape, layout, new_keys.typed_data(), table.typed_data(), start.typed_data(),
                keys_out->untyped_data(), workers);
    write_pages(shape, layout, new_values.typed_data(), table.typed_data(), start.typed_data(),
                values_out->untyped_data(), workers);
  });
}

}  // namespace
}  // namespace talipot

namespace ffi = xla::ffi;

TALIPOT_EXPORT XLA_FFI_Error* talipot_int8_matmul(XLA_FFI_CallFrame* frame);
TALIPOT_EXPORT XLA_FFI_Error* talipot_bf16_matmul(XLA_FFI_CallFrame* frame);
TALIPOT_EXPORT XLA_FFI_Error* talipot_f32_matmul(XLA_FFI_CallFrame* frame);
TALIPOT_EXPORT XLA_FFI_Error* talipot_paged_attention(XLA_FFI_CallFrame* frame);
TALIPOT_EXPORT XLA_FFI_Error* talipot_write_pages(XLA_FFI_CallFrame* frame);

XLA_FFI_DEFINE_HANDLER_SYMBOL(talipot_int8_matmul, talipot::int8_matmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int32_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(talipot_bf16_matmul, talipot::bf16_matmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::BF16>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int32_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(talipot_f32_matmul, talipot::f32_matmul,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int32_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(talipot_paged_attention, talipot::attend,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int32_t>("isa"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(talipot_write_pages, talipot::write,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>());

TALIPOT_EXPORT int32_t talipot_best_isa() { return static_cast<int32_t>(talipot::best_isa()); }

// Of what sources the library was built; setup.py computes it.
TALIPOT_EXPORT const char* talipot_sources() { return TALIPOT_SOURCES; }
