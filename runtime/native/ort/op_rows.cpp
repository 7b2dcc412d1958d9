// Operators that compute each row by itself: quantization, norms, the embedding and the router.
#include "norm.h"
#include "ops.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kRowsOfTask = 32;

void add_norm(Call& call, bool quantize) {
    const auto x = call.input<float>(0, "x", {kAny, kAny});
    const auto residual = call.input<float>(1, "residual", x.shape);
    const size_t rows = x[0], width = x[1];
    const auto gamma = call.input<float>(2, "gamma", {x.shape[1]}), beta = call.input<float>(3, "beta", {x.shape[1]});
    Norm norm = norm_of(call, width, gamma, beta, call.output<float>(0, {rows, width}));
    if (quantize) quantize_into(call, norm, call.input<float>(4, "smooth", {x.shape[1]}), rows);
    call.ranges(rows, kRowsOfTask,
                [&](size_t first, size_t last) { call.kernels.add_norm(x.data, residual.data, norm, first, last); });
}

// Completes an embedding with a table of `words` rows of `width` values, and computes it.
void embed(Call& call, Embedding& embedding, int64_t words, int64_t width) {
    const auto ids = call.input<int64_t>(0, "ids", {kAny});
    const auto type = call.input<float>(3, "type", {width}, {ids.shape[0], width});
    const auto gamma = call.input<float>(4, "gamma", {width}), beta = call.input<float>(5, "beta", {width});
    const auto smooth = call.input<float>(6, "smooth", {width});
    const size_t rows = ids[0], values = gamma[0];
    // A negative id counts from the end, as for Gather.
    auto* places = static_cast<int64_t*>(Scratch::of_call().get(rows * sizeof(int64_t)));
    for (size_t t = 0; t < rows; ++t) {
        places[t] = ids.data[t] < 0 ? ids.data[t] + words : ids.data[t];
        if (places[t] < 0 || places[t] >= words) {
            throw InvalidInput("token id " + std::to_string(ids.data[t]) + " is out of range (table size " +
                               std::to_string(words) + ")");
        }
    }
    Norm norm = norm_of(call, values, gamma, beta, call.output<float>(0, {rows, values}));
    quantize_into(call, norm, smooth, rows);
    embedding.ids = places;
    embedding.type = type.data;
    embedding.type_stride = type.shape.size() == 1 ? 0 : values;
    call.ranges(rows, kRowsOfTask,
                [&](size_t first, size_t last) { call.kernels.embed(embedding, norm, first, last); });
}

void quantize_gated(Call& call, Kernels::QuantizeGated* kernel) {
    const auto gate = call.input<float>(0, "gate", {kAny, kAny}), up = call.input<float>(1, "up", gate.shape);
    auto* quantized = call.output<uint8_t>(0, {gate[0], gate[1]});
    auto* scale = call.output<float>(1, {gate[0], 1});
    call.ranges(gate[0], kRowsOfTask, [&](size_t first, size_t last) {
        auto* product = static_cast<float*>(Scratch::of_task().get(gate[1] * sizeof(float)));
        kernel(gate.data, up.data, gate[1], first, last, product, quantized, scale);
    });
}

}  // namespace

void quantize(Call& call) {
    const auto x = call.input<float>(0, "x", {kAny, kAny});
    auto* quantized = call.output<uint8_t>(0, {x[0], x[1]});
    auto* scale = call.output<float>(1, {x[0], 1});
    call.ranges(x[0], kRowsOfTask,
                [&](size_t first, size_t last) { call.kernels.quantize(x.data, x[1], first, last, quantized, scale); });
}

void gelu_mul_quantize(Call& call) { quantize_gated(call, call.kernels.quantize_gelu_mul); }

void silu_mul_quantize(Call& call) { quantize_gated(call, call.kernels.quantize_silu_mul); }

void add_norm(Call& call) { add_norm(call, false); }

void add_norm_quantize(Call& call) { add_norm(call, true); }

void int8_embedding(Call& call) {
    const auto table = call.input<int8_t>(1, "table", {kAny, kAny});
    Embedding embedding;
    embedding.table8 = table.data;
    embedding.table8_scale = call.input<float>(2, "table_scale", {table.shape[0]}).data;
    embed(call, embedding, table.shape[0], table.shape[1]);
}

void int4_embedding(Call& call) {
    constexpr auto kBlock = static_cast<int64_t>(kBlock4);
    const auto table = call.input<uint8_t>(1, "table", {kAny, kAny});
    const int64_t width = 2 * table.shape[1];
    if (width % kBlock) {
        throw InvalidInput("table has rows of " + std::to_string(width) + " values, expected a multiple of " +
                           std::to_string(kBlock));
    }
    Embedding embedding;
    embedding.table4 = table.data;
    embedding.table4_scale = call.input<uint16_t>(2, "table_scale", {table.shape[0], width / kBlock}).data;
    embed(call, embedding, table.shape[0], width);
}

void router(Call& call) {
    const auto x = call.input<float>(0, "x", {kAny, kAny});
    const auto weight = call.input<float>(1, "weight", {kAny, x.shape[1]});
    const int64_t top_k = call.attributes.top_k;
    if (top_k < 1 || top_k > weight.shape[0]) {
        throw InvalidInput("top_k is " + std::to_string(top_k) + ", expected 1 to " + std::to_string(weight.shape[0]) +
                           ", the number of experts");
    }
    const auto k = static_cast<size_t>(top_k);
    auto* weights = call.output<float>(0, {x[0], k});
    auto* expert_indices = call.output<int64_t>(1, {x[0], k});
    call.ranges(x[0], kRowsOfTask, [&](size_t first, size_t last) {
        auto* scratch = static_cast<float*>(Scratch::of_task().get((weight[0] + 15) / 16 * 16 * sizeof(float)));
        call.kernels.route(x.data, x[1], weight.data, weight[0], k, first, last, weights, expert_indices, scratch);
    });
}

}  // namespace moembed::ort
