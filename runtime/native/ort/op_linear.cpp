// Linear layers over rows of codes.
#include "ops.h"
#include "packed.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kRowsOfTask = 48;

struct Operands {
    Tensor<uint8_t> codes;
    Tensor<float> step;
    Packed weight;
    Tensor<float> scale, bias;

    explicit Operands(Call& call)
        : codes(call.input<uint8_t>(0, "codes", {kAny, kAny})),
          step(call.input<float>(1, "step", {codes.shape[0], 1})),
          weight(call, 2, "weight", codes.shape[1]),
          scale(call.input<float>(3, "scale", {static_cast<int64_t>(weight.columns)})),
          bias(call.input<float>(4, "bias", {static_cast<int64_t>(weight.columns)})) {
        if (codes[0] >= kFewRows) weight.summed(call);
    }

    Product product(int64_t middle, bool gelu, float* out) const {
        return {codes.data,
                step.data,
                static_cast<int>(codes[0]),
                weight.depth,
                static_cast<int>(middle),
                weight.data,
                weight.sums,
                scale.data,
                bias.data,
                gelu,
                out,
                weight.columns};
    }
};

}  // namespace

void int8_linear(Call& call) {
    const Operands x(call);
    const int64_t middle = call.settings.middle;
    if (middle < 0 || middle > 255) refuse("zero_point is " + std::to_string(middle) + ", expected 0 to 255");
    const size_t rows = x.codes[0];
    const Product whole = x.product(middle, false, call.output<float>(0, {rows, x.weight.columns}));
    multiply(call, whole, rows, x.weight.blocks());
}

void int8_linear_gelu(Call& call) {
    const Operands x(call);
    const size_t rows = x.codes[0], columns = x.weight.columns;
    auto* codes = call.output<uint8_t>(0, {rows, columns});
    auto* step = call.output<float>(1, {rows, 1});
    if (rows < kFewRows) {
        auto* active = static_cast<float*>(Scratch::of_call().get(rows * columns * sizeof(float)));
        multiply(call, x.product(128, true, active), rows, x.weight.blocks());
        call.ranges(rows, 4, [&](size_t first, size_t last) {
            call.kernels.quantize_gelu(active, columns, first, last, codes, step);
        });
        return Scratch::of_call().trim();
    }
    // Floats of a few rows stay in a cache.
    call.ranges(rows, kRowsOfTask, [&](size_t first, size_t last) {
        auto* active = static_cast<float*>(Scratch::of_task().get(kRowsOfTask * columns * sizeof(float)));
        call.kernels.product(rows_of(x.product(128, true, active), first, last, false), 0, x.weight.blocks());
        call.kernels.quantize_gelu(active, columns, 0, last - first, codes + first * columns, step + first);
    });
}

}  // namespace moembed::ort
