// Linear layers over quantized rows.
#include <algorithm>

#include "norm.h"
#include "ops.h"
#include "packed.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kRowsOfTask = 128;

struct Operands {
    Tensor<uint8_t> quantized;
    Tensor<float> scale;
    Packed weight;
    Tensor<float> weight_scale, bias;

    explicit Operands(Call& call)
        : quantized(call.input<uint8_t>(0, "quantized", {kAny, kAny})),
          scale(call.input<float>(1, "scale", {quantized.shape[0], 1})),
          weight(call, 2, "weight", quantized.shape[1]),
          weight_scale(call.input<float>(3, "weight_scale", {static_cast<int64_t>(weight.columns)})),
          bias(call.input<float>(4, "bias", {static_cast<int64_t>(weight.columns)})) {}

    size_t rows() const { return quantized[0]; }

    Product product(int zero_point, bool gelu, float* out) const {
        Product p = weight.product(weight_scale.data, bias.data, 0, rows());
        p.quantized = quantized.data;
        p.scale = scale.data;
        p.zero_point = zero_point;
        p.gelu = gelu;
        p.out = out;
        return p;
    }
};

// Multiplies, and calls finish(result, first, last) for parts of the rows; `result` begins with row `first`. The floats of a
// few rows at a time stay in the cache.
template <class Finish>
void multiply_and(Call& call, Operands& x, bool gelu, Finish finish) {
    const size_t rows = x.rows(), columns = x.weight.columns;
    x.weight.prepare_sums(call, rows, kSymmetricZeroPoint);
    if (few_rows(call, rows)) {
        auto* y = static_cast<float*>(Scratch::of_call().get(rows * columns * sizeof(float)));
        multiply(call, x.product(kSymmetricZeroPoint, gelu, y), rows, x.weight.blocks());
        x.weight.keep_sums();
        call.ranges(rows, 4, [&](size_t first, size_t last) { finish(y + first * columns, first, last); });
        return;
    }
    call.ranges(rows, even_part(rows, std::min(kRowsOfTask, (rows + call.threads - 1) / call.threads)),
                [&](size_t first, size_t last) {
                    Product part = row_range(x.product(kSymmetricZeroPoint, gelu, nullptr), first, last);
                    Arrays arrays;
                    const size_t at_packed = arrays.add<uint8_t>(call.kernels.product_scratch(part));
                    const size_t at_y = arrays.add<float>((last - first) * columns);
                    arrays.take(Scratch::of_task());
                    part.out = arrays.at<float>(at_y);
                    call.kernels.product(part, 0, x.weight.blocks(), arrays.at<uint8_t>(at_packed));
                    finish(part.out, first, last);
                });
}

}  // namespace

void int8_linear(Call& call) {
    Operands x(call);
    const int64_t zero_point = call.attributes.zero_point;
    if (zero_point < 0 || zero_point > 255) {
        throw InvalidInput("zero_point is " + std::to_string(zero_point) + ", expected 0 to 255");
    }
    auto* y = call.output<float>(0, {x.rows(), x.weight.columns});
    x.weight.prepare_sums(call, x.rows(), static_cast<int>(zero_point));
    multiply(call, x.product(static_cast<int>(zero_point), false, y), x.rows(), x.weight.blocks());
    x.weight.keep_sums();
}

void int8_linear_norm(Call& call) {
    Operands x(call);
    multiply_and(call, x, false, FollowingNorm(call, 5, x.rows(), x.weight.columns));
}

void int8_linear_gelu(Call& call) {
    Operands x(call);
    const size_t rows = x.rows(), columns = x.weight.columns;
    auto* quantized = call.output<uint8_t>(0, {rows, columns});
    auto* scale = call.output<float>(1, {rows, 1});
    multiply_and(call, x, true, [&](const float* active, size_t first, size_t last) {
        call.kernels.quantize_gelu(active, columns, 0, last - first, quantized + first * columns, scale + first);
    });
}

}  // namespace moembed::ort
