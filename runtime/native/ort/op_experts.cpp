// The experts of a layer: tokens are grouped by expert, computed, and mixed by rank.
#include <algorithm>
#include <cstring>

#include "ops.h"
#include "packed.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kFixedInputs = 7;
constexpr size_t kRowsOfTask = 48;
// Up to so many slots per expert, the weights and not the arithmetic take the time: tasks are cut along the weights.
constexpr size_t kFewSlots = 24;
constexpr size_t kBlocksOfTask = 24;

struct Experts {
    Tensor<uint8_t> codes;
    Tensor<float> step, weights;
    Tensor<int64_t> chosen;
    Tensor<float> bias, scale1, scale2;
    std::vector<Packed> up, down;
    size_t tokens, hidden, ffn, count, top_k, slots;

    explicit Experts(Call& call)
        : codes(call.input<uint8_t>(0, "codes", {kAny, kAny})),
          step(call.input<float>(1, "step", {codes.shape[0], 1})),
          weights(call.input<float>(2, "weights", {codes.shape[0], kAny})),
          chosen(call.input<int64_t>(3, "chosen", weights.shape)),
          bias(call.input<float>(4, "bias", {codes.shape[1]})),
          scale1(call.input<float>(5, "scale1", {kAny, kAny})),
          scale2(call.input<float>(6, "scale2", {scale1.shape[0], codes.shape[1]})),
          tokens(codes[0]),
          hidden(codes[1]),
          ffn(scale1[1]),
          count(scale1[0]),
          top_k(weights[1]),
          slots(tokens * top_k) {
        if (!top_k) refuse("weights are for no expert");
        if (call.inputs() != kFixedInputs + 2 * count) {
            refuse(std::to_string(call.inputs() - kFixedInputs) + " matrices for " + std::to_string(count) +
                   " experts");
        }
        for (size_t e = 0; e < count; ++e)
            up.emplace_back(call, kFixedInputs + e, "w1", scale2.shape[1], scale1.shape[1]);
        for (size_t e = 0; e < count; ++e) {
            down.emplace_back(call, kFixedInputs + count + e, "w2", scale1.shape[1], scale2.shape[1]);
        }
        for (size_t i = 0; i < slots; ++i) {
            if (chosen.data[i] < 0 || chosen.data[i] >= scale1.shape[0]) {
                refuse("expert " + std::to_string(chosen.data[i]) + " of " + std::to_string(count));
            }
        }
    }
};

// Slots (token * top_k + rank) by expert: those of expert e are order[starts[e]] to order[starts[e + 1]].
struct Groups {
    std::vector<size_t> order, starts;

    explicit Groups(const Experts& x) : order(x.slots), starts(x.count + 1) {
        for (size_t i = 0; i < x.slots; ++i) ++starts[static_cast<size_t>(x.chosen.data[i]) + 1];
        for (size_t e = 0; e < x.count; ++e) starts[e + 1] += starts[e];
        std::vector<size_t> next(starts);
        for (size_t i = 0; i < x.slots; ++i) order[next[static_cast<size_t>(x.chosen.data[i])]++] = i;
    }
};

struct Part {
    size_t expert, first, last;  // slots in the groups' order, or blocks of columns
};

void gather(const Experts& x, const Groups& groups, size_t first, size_t last, uint8_t* codes, float* step) {
    for (size_t i = first; i < last; ++i) {
        const size_t token = groups.order[i] / x.top_k;
        std::memcpy(codes + (i - first) * x.hidden, x.codes.data + token * x.hidden, x.hidden);
        step[i - first] = x.step.data[token];
    }
}

Product up_product(const Experts& x, size_t e, const uint8_t* codes, const float* step, size_t rows, float* out) {
    const Packed& w = x.up[e];
    const float* scale = x.scale1.data + e * x.ffn;
    return {codes, step, static_cast<int>(rows), w.depth, 128, w.data, w.sums, scale, nullptr, true, out, x.ffn};
}

Product down_product(const Experts& x, size_t e, const uint8_t* codes, const float* step, size_t rows, float* out) {
    const Packed& w = x.down[e];
    const float* scale = x.scale2.data + e * x.hidden;
    return {codes, step, static_cast<int>(rows), w.depth, 32, w.data, w.sums, scale, nullptr, false, out, x.hidden};
}

void scatter(const Experts& x, const Groups& groups, size_t first, size_t last, const float* from, float* slots) {
    for (size_t i = first; i < last; ++i) {
        std::memcpy(slots + groups.order[i] * x.hidden, from + (i - first) * x.hidden, x.hidden * sizeof(float));
    }
}

// Both products and what is between them for a few rows at a time, whose floats stay in a cache.
void by_rows(Call& call, const Experts& x, const Groups& groups, float* slots) {
    std::vector<Part> parts;
    for (size_t e = 0; e < x.count; ++e) {
        for (size_t i = groups.starts[e]; i < groups.starts[e + 1]; i += kRowsOfTask) {
            parts.push_back({e, i, std::min(i + kRowsOfTask, groups.starts[e + 1])});
        }
    }
    call.parallel(parts.size(), [&](size_t task) {
        const Part part = parts[task];
        const size_t rows = part.last - part.first;
        Arrays arrays;
        const size_t codes = arrays.add<uint8_t>(rows * x.hidden), step = arrays.add<float>(rows);
        const size_t active = arrays.add<float>(rows * std::max(x.ffn, x.hidden));
        const size_t inner = arrays.add<uint8_t>(rows * x.ffn), inner_step = arrays.add<float>(rows);
        arrays.take(Scratch::of_task());
        gather(x, groups, part.first, part.last, arrays.at<uint8_t>(codes), arrays.at<float>(step));
        auto* floats = arrays.at<float>(active);
        const auto up = up_product(x, part.expert, arrays.at<uint8_t>(codes), arrays.at<float>(step), rows, floats);
        call.kernels.product(up, 0, x.up[part.expert].blocks());
        call.kernels.quantize_gelu(floats, x.ffn, 0, rows, arrays.at<uint8_t>(inner), arrays.at<float>(inner_step));
        const auto down =
            down_product(x, part.expert, arrays.at<uint8_t>(inner), arrays.at<float>(inner_step), rows, floats);
        call.kernels.product(down, 0, x.down[part.expert].blocks());
        scatter(x, groups, part.first, part.last, floats, slots);
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

// Every expert's weights once, whoever of the threads reads them. Tasks need no scratch memory of their own here: that of this
// thread's tasks holds the rows of all.
void by_weights(Call& call, const Experts& x, const Groups& groups, float* slots) {
    Arrays arrays;
    const size_t codes = arrays.add<uint8_t>(x.slots * x.hidden), step = arrays.add<float>(x.slots);
    const size_t active = arrays.add<float>(x.slots * std::max(x.ffn, x.hidden));
    const size_t inner = arrays.add<uint8_t>(x.slots * x.ffn), inner_step = arrays.add<float>(x.slots);
    arrays.take(Scratch::of_task());
    auto* floats = arrays.at<float>(active);
    gather(x, groups, 0, x.slots, arrays.at<uint8_t>(codes), arrays.at<float>(step));
    auto part_of = [&](const Part& part, auto product, const uint8_t* c, const float* s, size_t k, size_t n) {
        const size_t first = groups.starts[part.expert], rows = groups.starts[part.expert + 1] - first;
        call.kernels.product(product(x, part.expert, c + first * k, s + first, rows, floats + first * n), part.first,
                             part.last);
    };
    const auto ups = along_weights(x.up, groups), downs = along_weights(x.down, groups);
    call.parallel(ups.size(), [&](size_t task) {
        part_of(ups[task], up_product, arrays.at<uint8_t>(codes), arrays.at<float>(step), x.hidden, x.ffn);
    });
    call.ranges(x.slots, 4, [&](size_t first, size_t last) {
        call.kernels.quantize_gelu(floats, x.ffn, first, last, arrays.at<uint8_t>(inner), arrays.at<float>(inner_step));
    });
    call.parallel(downs.size(), [&](size_t task) {
        part_of(downs[task], down_product, arrays.at<uint8_t>(inner), arrays.at<float>(inner_step), x.ffn, x.hidden);
    });
    scatter(x, groups, 0, x.slots, floats, slots);
    Scratch::of_task().trim();
}

}  // namespace

void int8_experts(Call& call) {
    Experts x(call);
    auto* y = call.output<float>(0, {x.tokens, x.hidden});
    if (!x.tokens) return;
    const Groups groups(x);
    auto* slots = static_cast<float*>(Scratch::of_call().get(x.slots * x.hidden * sizeof(float)));
    const bool few = x.slots <= kFewSlots * x.count;
    for (size_t e = 0; e < x.count && !few; ++e) {
        if (groups.starts[e] == groups.starts[e + 1]) continue;
        x.up[e].summed(call);
        x.down[e].summed(call);
    }
    (few ? by_weights : by_rows)(call, x, groups, slots);
    call.ranges(x.tokens, 32, [&](size_t first, size_t last) {
        call.kernels.combine(slots, x.weights.data, x.top_k, x.bias.data, x.hidden, first, last, y);
    });
    Scratch::of_call().trim();
}

}  // namespace moembed::ort
