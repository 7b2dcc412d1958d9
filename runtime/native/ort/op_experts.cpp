// The experts of a layer: tokens are grouped by expert, multiplied, and combined per token.
#include <algorithm>

#include "norm.h"
#include "ops.h"
#include "packed.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kFixedInputs = 7, kNormInputs = 4;
constexpr size_t kRowsOfTask = 256;
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

    // The weights come after `fixed` other inputs.
    Experts(Call& call, size_t fixed)
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
        if (call.inputs() != fixed + 2 * count) {
            throw InvalidInput(std::to_string(call.inputs() - fixed) + " matrices for " + std::to_string(count) +
                               " experts, expected " + std::to_string(2 * count));
        }
        for (size_t e = 0; e < count; ++e) {
            w1.emplace_back(call, fixed + e, "w1", w2_scale.shape[1], w1_scale.shape[1]);
        }
        for (size_t e = 0; e < count; ++e) {
            w2.emplace_back(call, fixed + count + e, "w2", w1_scale.shape[1], w2_scale.shape[1]);
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
// `tokens` are those of the slots in `order`.
struct Groups {
    std::vector<size_t> order, tokens, starts;

    explicit Groups(const Experts& x) : order(x.slots), tokens(x.slots), starts(x.count + 1) {
        for (size_t i = 0; i < x.slots; ++i) ++starts[static_cast<size_t>(x.expert_indices.data[i]) + 1];
        for (size_t e = 0; e < x.count; ++e) starts[e + 1] += starts[e];
        std::vector<size_t> next(starts);
        for (size_t i = 0; i < x.slots; ++i) order[next[static_cast<size_t>(x.expert_indices.data[i])]++] = i;
        for (size_t i = 0; i < x.slots; ++i) tokens[i] = order[i] / x.top_k;
    }
};

// A task: slots in the order of the groups, or blocks of columns, of one expert.
struct Part {
    size_t expert, first, last;
};

// Rows `first` to `last` are counted in the order of the groups.
Product up_product(const Experts& x, const Groups& groups, size_t e, size_t first, size_t last) {
    Product p = x.w1[e].product(x.w1_scale.data + e * x.ffn, nullptr, first, last);
    p.quantized = x.quantized.data;
    p.scale = x.scale.data;
    p.source = groups.tokens.data() + first;
    p.zero_point = kSymmetricZeroPoint;
    p.gelu = true;
    return p;
}

Product down_product(const Experts& x, const Groups& groups, size_t e, size_t first, size_t last, float* slots) {
    Product p = x.w2[e].product(x.w2_scale.data + e * x.hidden, nullptr, first, last);
    p.zero_point = kGeluZeroPoint;
    p.out = slots;
    p.target = groups.order.data() + first;
    return p;
}

// For many slots: each task computes both products of some rows, and what lies between them stays in the cache.
void by_rows(Call& call, const Experts& x, const Groups& groups, float* slots) {
    std::vector<Part> parts;
    for (size_t e = 0; e < x.count; ++e) {
        const size_t size = even_part(groups.starts[e + 1] - groups.starts[e], kRowsOfTask);
        for (size_t i = groups.starts[e]; i < groups.starts[e + 1]; i += size) {
            parts.push_back({e, i, std::min(i + size, groups.starts[e + 1])});
        }
    }
    // The largest first, so that all threads end at about the same time.
    std::stable_sort(parts.begin(), parts.end(),
                     [](const Part& a, const Part& b) { return a.last - a.first > b.last - b.first; });
    call.parallel(parts.size(), [&](size_t task) {
        const auto [e, first, last] = parts[task];
        const Product up = up_product(x, groups, e, first, last), down = down_product(x, groups, e, first, last, slots);
        call.kernels.feed_forward(up, down, Scratch::of_task().get(call.kernels.feed_forward_scratch(up, down)));
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
// once. What lies between the products is in the call's memory.
void by_weights(Call& call, const Experts& x, const Groups& groups, float* slots, float* active, uint8_t* inner,
                float* inner_scale) {
    const auto ups = along_weights(x.w1, groups), downs = along_weights(x.w2, groups);
    call.parallel(ups.size(), [&](size_t task) {
        const auto [e, first, last] = ups[task];
        Product up = up_product(x, groups, e, groups.starts[e], groups.starts[e + 1]);
        up.out = active + groups.starts[e] * x.ffn;
        multiply_part(call, up, first, last);
    });
    call.ranges(x.slots, 4, [&](size_t first, size_t last) {
        call.kernels.quantize_gelu(active, x.ffn, first, last, inner, inner_scale);
    });
    call.parallel(downs.size(), [&](size_t task) {
        const auto [e, first, last] = downs[task];
        Product down = down_product(x, groups, e, groups.starts[e], groups.starts[e + 1], slots);
        down.quantized = inner + groups.starts[e] * x.ffn;
        down.scale = inner_scale + groups.starts[e];
        multiply_part(call, down, first, last);
    });
}

// Calls finish(first, last, combine) for parts of the tokens, where combine(y) mixes the results of their experts.
template <class Finish>
void compute(Call& call, Experts& x, Finish finish) {
    if (!x.tokens) return;
    const Groups groups(x);
    const bool few = x.slots <= kFewSlots * std::max(x.count, call.threads);
    Arrays arrays;
    const size_t at_slots = arrays.add<float>(x.slots * x.hidden);
    const size_t at_active = arrays.add<float>(few ? x.slots * x.ffn : 0);
    const size_t at_inner = arrays.add<uint8_t>(few ? x.slots * x.ffn : 0);
    const size_t at_inner_scale = arrays.add<float>(few ? x.slots : 0);
    arrays.take(Scratch::of_call());
    auto* slots = arrays.at<float>(at_slots);
    for (size_t e = 0; e < x.count; ++e) {
        if (groups.starts[e] == groups.starts[e + 1]) continue;
        // One task has all rows of an expert if they are few.
        if (few) {
            x.w1[e].gather_sums(call, kSymmetricZeroPoint);
            x.w2[e].gather_sums(call, kGeluZeroPoint);
        } else {
            x.w1[e].require_sums(call, kSymmetricZeroPoint);
            x.w2[e].require_sums(call, kGeluZeroPoint);
        }
    }
    if (few) {
        by_weights(call, x, groups, slots, arrays.at<float>(at_active), arrays.at<uint8_t>(at_inner),
                   arrays.at<float>(at_inner_scale));
        for (size_t e = 0; e < x.count; ++e) {
            x.w1[e].keep_sums();
            x.w2[e].keep_sums();
        }
    } else {
        by_rows(call, x, groups, slots);
    }
    call.ranges(x.tokens, std::min<size_t>(32, (x.tokens + call.threads - 1) / call.threads),
                [&](size_t first, size_t last) {
                    finish(first, last, [&](float* y) {
                        call.kernels.combine(slots + first * x.top_k * x.hidden, x.weights.data + first * x.top_k,
                                             x.top_k, x.bias.data, x.hidden, 0, last - first, y);
                    });
                });
}

}  // namespace

void int8_experts(Call& call) {
    Experts x(call, kFixedInputs);
    auto* y = call.output<float>(0, {x.tokens, x.hidden});
    compute(call, x, [&](size_t first, size_t, const auto& combine) { combine(y + first * x.hidden); });
}

void int8_experts_norm(Call& call) {
    Experts x(call, kFixedInputs + kNormInputs);
    const FollowingNorm norm(call, kFixedInputs, x.tokens, x.hidden);
    compute(call, x, [&](size_t first, size_t last, const auto& combine) {
        auto* y = static_cast<float*>(Scratch::of_task().get((last - first) * x.hidden * sizeof(float)));
        combine(y);
        norm(y, first, last);
    });
}

}  // namespace moembed::ort
