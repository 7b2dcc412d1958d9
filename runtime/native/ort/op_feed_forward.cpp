// The feed-forward network of a layer without experts, with a gate or without.
#include <algorithm>

#include "norm.h"
#include "ops.h"
#include "packed.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kRowsOfTask = 256;

// A packed weight with its scales and biases: inputs `index` to `index + 2`.
struct Layer {
    Packed weight;
    Tensor<float> scale, bias;

    Layer(Call& call, size_t index, const char* const (&names)[3], int64_t width, int64_t out = kAny)
        : weight(call, index, names[0], width, out),
          scale(call.input<float>(index + 1, names[1], {static_cast<int64_t>(weight.columns)})),
          bias(call.input<float>(index + 2, names[2], scale.shape)) {}

    int64_t columns() const { return scale.shape[0]; }
    Product product(size_t first, size_t last, int zero_point) const {
        Product p = weight.product(scale.data, bias.data, first, last);
        p.zero_point = zero_point;
        return p;
    }
};

// The rows that a network reads.
struct Rows {
    Tensor<uint8_t> quantized;
    Tensor<float> scale;

    explicit Rows(Call& call)
        : quantized(call.input<uint8_t>(0, "quantized", {kAny, kAny})),
          scale(call.input<float>(1, "scale", {quantized.shape[0], 1})) {}

    int64_t width() const { return quantized.shape[1]; }
    Product product(const Layer& layer, size_t first, size_t last) const {
        Product p = layer.product(first, last, kSymmetricZeroPoint);
        p.quantized = quantized.data + first * quantized[1];
        p.scale = scale.data + first;
        return p;
    }
};

Product second_product(const Layer& down, size_t first, size_t last, int zero_point, float* y) {
    Product p = down.product(first, last, zero_point);
    p.out = y ? y + first * down.weight.columns : nullptr;
    return p;
}

// down(gelu(up(x)))
struct Plain {
    static constexpr size_t kInputs = 8;
    static constexpr int kZeroPoint = kGeluZeroPoint;
    Rows rows;
    Layer up, down;

    explicit Plain(Call& call)
        : rows(call),
          up(call, 2, {"w1", "w1_scale", "b1"}, rows.width()),
          down(call, 5, {"w2", "w2_scale", "b2"}, up.columns()) {}

    // f(weight, zero point of the rows that are multiplied with it)
    template <class F>
    void for_each_weight(F f) {
        f(up.weight, kSymmetricZeroPoint);
        f(down.weight, kZeroPoint);
    }
    Product first(size_t first, size_t last) const {
        Product p = rows.product(up, first, last);
        p.gelu = true;
        return p;
    }
    // All rows, with tasks for parts of the weights.
    void activate(Call& call, float* active) const {
        Product p = first(0, rows.quantized[0]);
        p.out = active;
        multiply(call, p, rows.quantized[0], up.weight.blocks());
    }
    void quantize(const Kernels& kernels, const float* active, size_t first, size_t last, uint8_t* quantized,
                  float* scale) const {
        kernels.quantize_gelu(active, up.weight.columns, first, last, quantized, scale);
    }
    float* run(const Kernels& kernels, size_t first_row, size_t last, float* y) const {
        const Product one = first(first_row, last), two = second_product(down, first_row, last, kZeroPoint, y);
        return kernels.feed_forward(one, two, Scratch::of_task().get(kernels.feed_forward_scratch(one, two)));
    }
};

// down(act(gate(x)) * up(x))
template <Activation kAct>
struct Gated {
    static constexpr size_t kInputs = 11;
    static constexpr int kZeroPoint = kSymmetricZeroPoint;
    Rows rows;
    Layer up, gate, down;

    explicit Gated(Call& call)
        : rows(call),
          up(call, 2, {"up", "up_scale", "up_bias"}, rows.width()),
          gate(call, 5, {"gate", "gate_scale", "gate_bias"}, rows.width(), up.columns()),
          down(call, 8, {"down", "down_scale", "down_bias"}, up.columns()) {}

    template <class F>
    void for_each_weight(F f) {
        f(up.weight, kSymmetricZeroPoint);
        f(gate.weight, kSymmetricZeroPoint);
        f(down.weight, kZeroPoint);
    }
    GatedProduct first(size_t first, size_t last) const {
        GatedProduct p;
        p.activation = kAct;
        p.up = rows.product(up, first, last);
        p.gate = rows.product(gate, first, last);
        return p;
    }
    void activate(Call& call, float* active) const {
        divide(call, rows.quantized[0], up.weight.blocks(),
               [&](size_t row, size_t last_row, size_t block, size_t last_block) {
                   GatedProduct part = first(row, last_row);
                   part.up.out = active + row * up.weight.columns;
                   void* scratch = Scratch::of_task().get(call.kernels.product_scratch(part.up));
                   call.kernels.gated_product(part, block, last_block, scratch);
               });
    }
    void quantize(const Kernels& kernels, const float* active, size_t first, size_t last, uint8_t* quantized,
                  float* scale) const {
        kernels.quantize_product(active, up.weight.columns, first, last, quantized, scale);
    }
    float* run(const Kernels& kernels, size_t first_row, size_t last, float* y) const {
        const GatedProduct one = first(first_row, last);
        const Product two = second_product(down, first_row, last, kZeroPoint, y);
        void* scratch = Scratch::of_task().get(kernels.feed_forward_scratch(one.up, two));
        return kernels.gated_feed_forward(one, two, scratch);
    }
};

// For few rows: each task multiplies all of them with a part of the weights, so that every weight is read once. Without
// `y`, the result is in the call's memory, and returned.
template <class Network>
float* by_weights(Call& call, const Network& x, float* y) {
    const size_t rows = x.rows.quantized[0], inner = x.up.weight.columns;
    Arrays arrays;
    const size_t at_y = arrays.add<float>(y ? 0 : rows * x.down.weight.columns);
    const size_t at_active = arrays.add<float>(rows * inner), at_quantized = arrays.add<uint8_t>(rows * inner);
    const size_t at_scale = arrays.add<float>(rows);
    arrays.take(Scratch::of_call());
    if (!y) y = arrays.at<float>(at_y);
    auto *active = arrays.at<float>(at_active), *scale = arrays.at<float>(at_scale);
    auto* quantized = arrays.at<uint8_t>(at_quantized);
    x.activate(call, active);
    call.ranges(rows, 4,
                [&](size_t first, size_t last) { x.quantize(call.kernels, active, first, last, quantized, scale); });
    Product down = second_product(x.down, 0, rows, Network::kZeroPoint, y);
    down.quantized = quantized;
    down.scale = scale;
    multiply(call, down, rows, x.down.weight.blocks());
    return y;
}

// For many rows: calls f(result, first, last) for each part, whose result is in `y` or, without it, in the task's memory.
template <class Network, class F>
void by_rows(Call& call, const Network& x, float* y, F f) {
    const size_t rows = x.rows.quantized[0];
    call.ranges(rows, even_part(rows, std::min(kRowsOfTask, rows / call.threads)),
                [&](size_t first, size_t last) { f(x.run(call.kernels, first, last, y), first, last); });
}

template <class Network>
void prepare_sums(Call& call, Network& x) {
    const size_t rows = x.rows.quantized[0];
    x.for_each_weight([&](Packed& weight, int zero_point) { weight.prepare_sums(call, rows, zero_point); });
}

template <class Network>
void keep_sums(Network& x) {
    x.for_each_weight([](Packed& weight, int) { weight.keep_sums(); });
}

template <class Network>
void feed_forward(Call& call) {
    Network x(call);
    const size_t rows = x.rows.quantized[0];
    auto* y = call.output<float>(0, {rows, x.down.weight.columns});
    if (!rows) return;
    prepare_sums(call, x);
    if (few_rows(call, rows)) {
        by_weights(call, x, y);
    } else {
        by_rows(call, x, y, [](const float*, size_t, size_t) {});
    }
    keep_sums(x);
}

template <class Network>
void feed_forward_norm(Call& call) {
    Network x(call);
    const size_t rows = x.rows.quantized[0], columns = x.down.weight.columns;
    const FollowingNorm norm(call, Network::kInputs, rows, columns);
    prepare_sums(call, x);
    if (few_rows(call, rows)) {
        const float* y = by_weights(call, x, nullptr);
        call.ranges(rows, 4, [&](size_t first, size_t last) { norm(y + first * columns, first, last); });
    } else {
        by_rows(call, x, nullptr, norm);
    }
    keep_sums(x);
}

}  // namespace

void int8_feed_forward(Call& call) { feed_forward<Plain>(call); }

void int8_feed_forward_norm(Call& call) { feed_forward_norm<Plain>(call); }

void int8_gelu_mul_feed_forward(Call& call) { feed_forward<Gated<Activation::Gelu>>(call); }

void int8_gelu_mul_feed_forward_norm(Call& call) { feed_forward_norm<Gated<Activation::Gelu>>(call); }

void int8_silu_mul_feed_forward(Call& call) { feed_forward<Gated<Activation::Silu>>(call); }

void int8_silu_mul_feed_forward_norm(Call& call) { feed_forward_norm<Gated<Activation::Silu>>(call); }

}  // namespace moembed::ort
