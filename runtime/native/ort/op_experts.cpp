// The experts of a layer: tokens are grouped by expert, multiplied, and combined per token.
#include <algorithm>
#include <cstring>

#include "ops.h"
#include "packed.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kFixedInputs = 7;
constexpr size_t kRowsOfTask = 48;
// Up to this number of slots per expert, reading the weights takes the time: tasks divide the weights, not the rows.
constexpr size_t kFewSlots = 24;
constexpr size_t kBlocksOfTask = 24;

struct Experts {
    Tensor<uint8_t> quantized;
    Tensor<float> scale, weights;
    Tensor<int64_t> expert_indices;
    Tensor<float> bias, w1_scale, w2_scale;
    std::vector<Packed> w1, w2;
    size_t tokens, hidden, ffn, count, top_k, slots;

    explicit Experts(Call& call)
        : quantized(call.input<uint8_t>(0, "quantized", {kAny, kAny})),
          scale(call.input<float>(1, "scale", {quantized.shape[0], 1})),
          weights(call.input<float>(2, "weights", {quantized.shape[0], kAny})),
          expert_indices(call.input<int64_t>(3, "expert_indices", weights.shape)),
          bias(call.input<float>(4, "bias", {quantized.shape[1]})),
          w1_scale(call.input<float>(5, "w1_scale", {kAny, kAny})),
          w2_scale(call.input<float>(6, "w2_scale", {w1_scale.shape[0], quantized.shape[1]})),
          tokens(quantized[0]),
          hidden(quantized[1]),
          ffn(w1_scale[1]),
          count(w1_scale[0]),
          top_k(weights[1]),
          slots(tokens * top_k) {
        if (!top_k) throw InvalidInput("weights has no columns, expected one per expert of a token");
        if (call.inputs() != kFixedInputs + 2 * count) {
            throw InvalidInput(std::to_string(call.inputs() - kFixedInputs) + " matrices for " + std::to_string(count) +
                               " experts, expected " + std::to_string(2 * count));
        }
        for (size_t e = 0; e < count; ++e) {
            w1.emplace_back(call, kFixedInputs + e, "w1", w2_scale.shape[1], w1_scale.shape[1]);
        }
        for (size_t e = 0; e < count; ++e) {
            w2.emplace_back(call, kFixedInputs + count + e, "w2", w1_scale.shape[1], w2_scale.shape[1]);
        }
        for (size_t i = 0; i < slots; ++i) {
            if (expert_indices.data[i] < 0 || expert_indices.data[i] >= w1_scale.shape[0]) {
                throw InvalidInput("expert index " + std::to_string(expert_indices.data[i]) +
                                   " is out of range (number of experts " + std::to_string(count) + ")");
            }
        }
    }
};

// Slots (token * top_k + rank), grouped by expert: those of expert e are order[starts[e]] to order[starts[e + 1]].
struct Groups {
    std::vector<size_t> order, starts;

    explicit Groups(const Experts& x) : order(x.slots), starts(x.count + 1) {
        for (size_t i = 0; i < x.slots; ++i) ++starts[static_cast<size_t>(x.expert_indices.data[i]) + 1];
        for (size_t e = 0; e < x.count; ++e) starts[e + 1] += starts[e];
        std::vector<size_t> next(starts);
        for (size_t i = 0; i < x.slots; ++i) order[next[static_cast<size_t>(x.expert_indices.data[i])]++] = i;
    }
};

// A task: slots in the order of the groups, or blocks of columns, of one expert.
struct Part {
    size_t expert, first, last;
};

void gather(const Experts& x, const Groups& groups, size_t first, size_t last, uint8_t* quantized, float* scale) {
    for (size_t i = first; i < last; ++i) {
        const size_t token = groups.order[i] / x.top_k;
        std::memcpy(quantized + (i - first) * x.hidden, x.quantized.data + token * x.hidden, x.hidden);
        scale[i - first] = x.scale.data[token];
    }
}

void scatter(const Experts& x, const Groups& groups, size_t first, size_t last, const float* from, float* slots) {
    for (size_t i = first; i < last; ++i) {
        std::memcpy(slots + groups.order[i] * x.hidden, from + (i - first) * x.hidden, x.hidden * sizeof(float));
    }
}

// The product of quantized rows and one matrix, except for zero point and GELU.
Product product_with(const Packed& weight, const float* weight_scale, const uint8_t* quantized, const float* scale,
                     size_t rows, float* out) {
    Product p;
    p.quantized = quantized;
    p.scale = scale;
    p.rows = static_cast<int>(rows);
    p.depth = weight.depth;
    p.weight = weight.data;
    p.column_sums = weight.sums;
    p.weight_scale = weight_scale;
    p.out = out;
    p.out_stride = weight.columns;
    return p;
}

Product up_product(const Experts& x, size_t e, const uint8_t* quantized, const float* scale, size_t rows, float* out) {
    Product p = product_with(x.w1[e], x.w1_scale.data + e * x.ffn, quantized, scale, rows, out);
    p.zero_point = kSymmetricZeroPoint;
    p.gelu = true;
    return p;
}

Product down_product(const Experts& x, size_t e, const uint8_t* quantized, const float* scale, size_t rows,
                     float* out) {
    Product p = product_with(x.w2[e], x.w2_scale.data + e * x.hidden, quantized, scale, rows, out);
    p.zero_point = kGeluZeroPoint;
    return p;
}

// The working memory for a number of slots: quantized rows before each product, and floats after it.
struct Workspace {
    uint8_t *quantized, *inner;
    float *scale, *inner_scale, *floats;

    Workspace(const Experts& x, size_t slots, Scratch& scratch) {
        Arrays arrays;
        const size_t at_quantized = arrays.add<uint8_t>(slots * x.hidden), at_scale = arrays.add<float>(slots);
        const size_t at_floats = arrays.add<float>(slots * std::max(x.ffn, x.hidden));
        const size_t at_inner = arrays.add<uint8_t>(slots * x.ffn), at_inner_scale = arrays.add<float>(slots);
        arrays.take(scratch);
        quantized = arrays.at<uint8_t>(at_quantized);
        scale = arrays.at<float>(at_scale);
        floats = arrays.at<float>(at_floats);
        inner = arrays.at<uint8_t>(at_inner);
        inner_scale = arrays.at<float>(at_inner_scale);
    }
};

// For many slots: each task computes both products of a few rows, whose floats stay in the cache.
void by_rows(Call& call, const Experts& x, const Groups& groups, float* slots) {
    std::vector<Part> parts;
    for (size_t e = 0; e < x.count; ++e) {
        for (size_t i = groups.starts[e]; i < groups.starts[e + 1]; i += kRowsOfTask) {
            parts.push_back({e, i, std::min(i + kRowsOfTask, groups.starts[e + 1])});
        }
    }
    call.parallel(parts.size(), [&](size_t task) {
        const Part part = parts[task];
        const size_t e = part.expert, rows = part.last - part.first;
        const Workspace w(x, rows, Scratch::of_task());
        gather(x, groups, part.first, part.last, w.quantized, w.scale);
        call.kernels.product(up_product(x, e, w.quantized, w.scale, rows, w.floats), 0, x.w1[e].blocks());
        call.kernels.quantize_gelu(w.floats, x.ffn, 0, rows, w.inner, w.inner_scale);
        call.kernels.product(down_product(x, e, w.inner, w.inner_scale, rows, w.floats), 0, x.w2[e].blocks());
        scatter(x, groups, part.first, part.last, w.floats, slots);
    });
}

std::vector<Part> along_weights(const std::vector<Packed>& weights, const Groups& groups) {
    std::vector<Part> parts;
    for (size_t e = 0; e < weights.size(); ++e) {
        if (groups.starts[e] == groups.starts[e + 1]) continue;
        for (size_t block = 0; block < weights[e].blocks(); block += kBlocksOfTask) {
            parts.push_back({e, block, std::min(block + kBlocksOfTask, weights[e].blocks())});
        }
    }
    return parts;
}

// For few slots: each task multiplies all rows of an expert with a part of its weights, so that every weight is read
// once. All rows are in the task memory of the calling thread; its own tasks need none.
void by_weights(Call& call, const Experts& x, const Groups& groups, float* slots) {
    const Workspace w(x, x.slots, Scratch::of_task());
    gather(x, groups, 0, x.slots, w.quantized, w.scale);
    const auto first_of = [&](const Part& part) { return groups.starts[part.expert]; };
    const auto rows_of = [&](const Part& part) { return groups.starts[part.expert + 1] - first_of(part); };
    const auto ups = along_weights(x.w1, groups), downs = along_weights(x.w2, groups);
    call.parallel(ups.size(), [&](size_t task) {
        const Part& part = ups[task];
        const size_t first = first_of(part);
        const Product up = up_product(x, part.expert, w.quantized + first * x.hidden, w.scale + first, rows_of(part),
                                      w.floats + first * x.ffn);
        call.kernels.product(up, part.first, part.last);
    });
    call.ranges(x.slots, 4, [&](size_t first, size_t last) {
        call.kernels.quantize_gelu(w.floats, x.ffn, first, last, w.inner, w.inner_scale);
    });
    call.parallel(downs.size(), [&](size_t task) {
        const Part& part = downs[task];
        const size_t first = first_of(part);
        const Product down = down_product(x, part.expert, w.inner + first * x.ffn, w.inner_scale + first, rows_of(part),
                                          w.floats + first * x.hidden);
        call.kernels.product(down, part.first, part.last);
    });
    scatter(x, groups, 0, x.slots, w.floats, slots);
    Scratch::of_task().trim();
}

}  // namespace

void int8_experts(Call& call) {
    Experts x(call);
    auto* y = call.output<float>(0, {x.tokens, x.hidden});
    if (!x.tokens) return;
    const Groups groups(x);
    auto* slots = static_cast<float*>(Scratch::of_call().get(x.slots * x.hidden * sizeof(float)));
    if (x.slots <= kFewSlots * x.count) {
        by_weights(call, x, groups, slots);
    } else {
        for (size_t e = 0; e < x.count; ++e) {
            if (groups.starts[e] == groups.starts[e + 1]) continue;
            x.w1[e].require_sums(call);
            x.w2[e].require_sums(call);
        }
        by_rows(call, x, groups, slots);
    }
    call.ranges(x.tokens, 32, [&](size_t first, size_t last) {
        call.kernels.combine(slots, x.weights.data, x.top_k, x.bias.data, x.hidden, first, last, y);
    });
    Scratch::of_call().trim();
}

}  // namespace moembed::ort
