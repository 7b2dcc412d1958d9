// The feed-forward network of a layer without experts.
#include <algorithm>

#include "norm.h"
#include "ops.h"
#include "packed.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kRowsOfTask = 256;

struct Operands {
    Tensor<uint8_t> quantized;
    Tensor<float> scale;
    Packed w1, w2;
    Tensor<float> w1_scale, b1, w2_scale, b2;

    explicit Operands(Call& call)
        : quantized(call.input<uint8_t>(0, "quantized", {kAny, kAny})),
          scale(call.input<float>(1, "scale", {quantized.shape[0], 1})),
          w1(call, 2, "w1", quantized.shape[1]),
          w2(call, 5, "w2", static_cast<int64_t>(w1.columns)),
          w1_scale(call.input<float>(3, "w1_scale", {static_cast<int64_t>(w1.columns)})),
          b1(call.input<float>(4, "b1", w1_scale.shape)),
          w2_scale(call.input<float>(6, "w2_scale", {static_cast<int64_t>(w2.columns)})),
          b2(call.input<float>(7, "b2", w2_scale.shape)) {}

    size_t rows() const { return quantized[0]; }

    Product up(size_t first, size_t last) const {
        Product p = w1.product(w1_scale.data, b1.data, first, last);
        p.quantized = quantized.data + first * quantized[1];
        p.scale = scale.data + first;
        p.zero_point = kSymmetricZeroPoint;
        p.gelu = true;
        return p;
    }
    Product down(size_t first, size_t last, float* y) const {
        Product p = w2.product(w2_scale.data, b2.data, first, last);
        p.zero_point = kGeluZeroPoint;
        p.out = y ? y + first * w2.columns : nullptr;
        return p;
    }
};

// For few rows: each task multiplies all of them with a part of the weights, so that every weight is read once. Without
// `y`, the result is in the call's memory, and returned.
float* by_weights(Call& call, const Operands& x, float* y) {
    const size_t rows = x.rows(), inner = x.w1.columns;
    Arrays arrays;
    const size_t at_y = arrays.add<float>(y ? 0 : rows * x.w2.columns);
    const size_t at_active = arrays.add<float>(rows * inner), at_quantized = arrays.add<uint8_t>(rows * inner);
    const size_t at_scale = arrays.add<float>(rows);
    arrays.take(Scratch::of_call());
    if (!y) y = arrays.at<float>(at_y);
    auto *active = arrays.at<float>(at_active), *scale = arrays.at<float>(at_scale);
    auto* quantized = arrays.at<uint8_t>(at_quantized);
    Product up = x.up(0, rows), down = x.down(0, rows, y);
    up.out = active;
    multiply(call, up, rows, x.w1.blocks());
    call.ranges(rows, 4, [&](size_t first, size_t last) {
        call.kernels.quantize_gelu(active, inner, first, last, quantized, scale);
    });
    down.quantized = quantized;
    down.scale = scale;
    multiply(call, down, rows, x.w2.blocks());
    return y;
}

// For many rows: calls f(result, first, last) for each part, whose result is in `y` or, without it, in the task's memory.
template <class F>
void by_rows(Call& call, Operands& x, float* y, F f) {
    const size_t rows = x.rows();
    x.w1.require_sums(call);
    x.w2.require_sums(call);
    call.ranges(rows, even_part(rows, std::min(kRowsOfTask, rows / call.threads)), [&](size_t first, size_t last) {
        const Product up = x.up(first, last), down = x.down(first, last, y);
        void* scratch = Scratch::of_task().get(call.kernels.feed_forward_scratch(up, down));
        f(call.kernels.feed_forward(up, down, scratch), first, last);
    });
}

}  // namespace

void int8_feed_forward(Call& call) {
    Operands x(call);
    const size_t rows = x.rows();
    auto* y = call.output<float>(0, {rows, x.w2.columns});
    if (!rows) return;
    if (few_rows(call, rows)) {
        by_weights(call, x, y);
    } else {
        by_rows(call, x, y, [](const float*, size_t, size_t) {});
    }
}

void int8_feed_forward_norm(Call& call) {
    Operands x(call);
    const size_t rows = x.rows(), columns = x.w2.columns;
    const FollowingNorm norm(call, 8, rows, columns);
    if (few_rows(call, rows)) {
        const float* y = by_weights(call, x, nullptr);
        call.ranges(rows, 4, [&](size_t first, size_t last) { norm(y + first * columns, first, last); });
    } else {
        by_rows(call, x, nullptr, norm);
    }
}

}  // namespace moembed::ort
