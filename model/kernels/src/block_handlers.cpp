// XLA's call of all blocks; the order of its many operands is that of model/kernels/blocks.py.
#include <vector>

#include "blocks.h"
#include "xla_call.h"

namespace talipot {
namespace {

// Operands of a block; an empty one is not there.
enum Operand : size_t {
  kNormScale,
  kNormBias,
  kQueryNorm,
  kKeyNorm,
  kInto,
  kIntoScale,
  kOut,
  kOutScale,
  kKeys,
  kValues,
  kOperands,
};

constexpr size_t kPools = 2;

template <typename Buffer>
const float* floats(const Buffer& buffer) {
  if (buffer.element_count() == 0) return nullptr;
  return static_cast<const float*>(buffer.untyped_data());
}

const MatmulKernel& kernel_of(const ffi::AnyBuffer& weights, Isa isa) {
  if (weights.element_type() == ffi::U8) return int8_kernel(isa);
  return weights.element_type() == ffi::BF16 ? bf16_kernel(isa) : f32_kernel(isa);
}

// Pools are written where they will be read: in the results' memory.
ffi::ErrorOr<Block> find_block(const ffi::RemainingArgs& args, const ffi::RemainingRets& rets,
                               size_t block) {
  std::vector<ffi::AnyBuffer> found;
  for (size_t i = 0; i < kOperands; ++i) {
    auto operand = args.get<ffi::AnyBuffer>(block * kOperands + i);
    if (!operand.has_value()) return ffi::Unexpected(operand.error());
    found.push_back(*operand);
  }
  void* pools[kPools];
  for (size_t i = 0; i < kPools; ++i) {
    auto result = rets.get<ffi::AnyBuffer>(block * kPools + i);
    if (!result.has_value()) return ffi::Unexpected(result.error());
    carry_over(found[kKeys + i], **result);
    pools[i] = (*result)->untyped_data();
  }
  const auto packed = [&](Operand weights, Operand scale) -> PackedWeights {
    return {static_cast<const uint8_t*>(found[weights].untyped_data()), floats(found[scale])};
  };
  return Block{{floats(found[kNormScale]), floats(found[kNormBias])},
               floats(found[kQueryNorm]),
               floats(found[kKeyNorm]),
               packed(kInto, kIntoScale),
               packed(kOut, kOutScale),
               pools[0],
               pools[1]};
}

ffi::Error blocks(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::F32> turns,
                  ffi::Buffer<ffi::S32> table, ffi::Buffer<ffi::S32> start,
                  ffi::Buffer<ffi::F32> last_scale, ffi::Buffer<ffi::F32> last_bias,
                  ffi::RemainingArgs args, ffi::Result<ffi::Buffer<ffi::F32>> y,
                  ffi::RemainingRets rets, int32_t isa, int32_t heads, int32_t d_ff,
                  bool is_gated, bool is_gelu, bool has_half_pairs, float norm_eps) {
  const size_t count = args.size() / kOperands;
  if (count == 0 || args.size() != count * kOperands || rets.size() != count * kPools) {
    return ffi::Error::InvalidArgument("blocks have other operands or results");
  }
  std::vector<Block> found;
  for (size_t block = 0; block < count; ++block) {
    auto one = find_block(args, rets, block);
    if (!one.has_value()) return one.error();
    found.push_back(*one);
  }
  const auto weights = args.get<ffi::AnyBuffer>(kInto);
  if (!weights.has_value()) return weights.error();
  const auto keys = args.get<ffi::AnyBuffer>(kKeys);
  if (!keys.has_value()) return keys.error();
  const auto in = x.dimensions();
  const auto pages = keys->dimensions();
  const BlocksShape shape{in[0],    in[1],   in[2],          heads,
                          pages[2], turns.dimensions()[2],   d_ff,
                          table.dimensions()[1],             turns.dimensions()[0],
                          is_gated, is_gelu, has_half_pairs, norm_eps};
  const PageLayout layout{pages[0], pages[1], pool_format(*keys)};
  const auto level = static_cast<Isa>(isa);
  return guarded([&] {
    XlaWorkers workers(std::move(pool));
    std::copy_n(x.typed_data(), x.element_count(), y->typed_data());
    run_blocks(shape, kernel_of(*weights, level), level, layout, found,
               {last_scale.typed_data(), floats(last_bias)}, turns.typed_data(),
               table.typed_data(), start.typed_data(), y->typed_data(), workers);
  });
}

}  // namespace
}  // namespace talipot

namespace ffi = xla::ffi;

TALIPOT_EXPORT XLA_FFI_Error* talipot_blocks(XLA_FFI_CallFrame* frame);

XLA_FFI_DEFINE_HANDLER_SYMBOL(talipot_blocks, talipot::blocks,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .RemainingArgs()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .RemainingRets()
                                  .Attr<int32_t>("isa")
                                  .Attr<int32_t>("heads")
                                  .Attr<int32_t>("d_ff")
                                  .Attr<bool>("is_gated")
                                  .Attr<bool>("is_gelu")
                                  .Attr<bool>("has_half_pairs")
                                  .Attr<float>("norm_eps"));
