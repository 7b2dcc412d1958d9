// Operators over the tokens of a text: attention and mean pooling.
#include "ops.h"
#include "scratch.h"
#include "texts.h"

namespace moembed::ort {
namespace {

// Counts the tokens of each row of the mask, which is 1 for a token and 0 for padding.
std::vector<size_t> token_counts(const Tensor<int64_t>& mask) {
    std::vector<size_t> counts(mask[0]);
    for (size_t row = 0; row < mask[0]; ++row) {
        for (size_t i = 0; i < mask[1]; ++i) {
            const int64_t value = mask.data[row * mask[1] + i];
            if (value != 0 && value != 1) {
                throw InvalidInput("attention_mask has " + std::to_string(value) + ", expected 0 or 1");
            }
            counts[row] += value == 1;
        }
    }
    return counts;
}

// Queries `first` to `last` of a text, for one head.
struct HeadPart {
    const Text* text;
    size_t head, first, last;
};

// Divides attention into tasks. Every task prepares all keys of its text and head, so texts are divided further only if
// there are few of both.
std::vector<HeadPart> head_parts(const std::vector<Text>& texts, size_t heads) {
    constexpr size_t kQueriesOfTask = 128, kManyTasks = 48;
    std::vector<HeadPart> parts;
    for (const Text& text : texts) {
        const size_t length = text.end - text.begin;
        const size_t size = texts.size() * heads < kManyTasks ? kQueriesOfTask : length;
        for (size_t head = 0; head < heads; ++head) {
            for (size_t first = 0; first < length; first += size) {
                parts.push_back({&text, head, first, first + size < length ? first + size : length});
            }
        }
    }
    return parts;
}

}  // namespace

void attention(Call& call) {
    const auto cos = call.input<float>(3, "cos", {kAny, kAny}), sin = call.input<float>(4, "sin", cos.shape);
    const auto heads = static_cast<int64_t>(heads_of(call));
    if (cos.shape[1] < 1) throw InvalidInput("cos has no columns, expected half the size of a head");
    const auto qkv = call.input<float>(0, "qkv", {kAny, 3 * heads * 2 * cos.shape[1]});
    const auto tokens = call.input<int64_t>(1, "tokens", {qkv.shape[0]});
    const auto mask = call.input<int64_t>(2, "attention_mask", {kAny, kAny});
    const auto texts = texts_of(tokens, mask);
    const auto positions = positions_of(tokens, mask, cos);
    Attention a;
    a.qkv = qkv.data;
    a.heads = static_cast<size_t>(heads);
    a.dim = 2 * cos[1];
    a.cos = cos.data;
    a.sin = sin.data;
    a.positions = positions.data();
    a.y = call.output<float>(0, {qkv[0], a.heads * a.dim});

    const auto parts = head_parts(texts, a.heads);
    // A short text takes a few microseconds: one task computes several parts.
    call.ranges(parts.size(), parts.size() / 256 + 1, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; ++i) {
            const HeadPart& p = parts[i];
            const size_t floats = call.kernels.attention_scratch(a, p.text->end - p.text->begin);
            auto* scratch = static_cast<float*>(Scratch::of_task().get(floats * sizeof(float)));
            call.kernels.attention(a, p.head, p.text->begin, p.text->end, p.first, p.last, scratch);
        }
    });
}

void pool(Call& call) {
    const auto x = call.input<float>(0, "x", {kAny, kAny});
    const auto tokens = call.input<int64_t>(1, "tokens", {x.shape[0]});
    const auto mask = call.input<int64_t>(2, "attention_mask", {kAny, kAny});
    const auto texts = texts_of(tokens, mask);
    const auto counts = token_counts(mask);
    auto* y = call.output<float>(0, {mask[0], x[1]});
    std::vector<Text> rows(mask[0]);  // a row without tokens has the mean 0
    for (const Text& text : texts) rows[text.row] = text;
    call.parallel(rows.size(), [&](size_t row) {
        const float divisor = counts[row] ? static_cast<float>(counts[row]) : 1e-9f;
        call.kernels.mean(x.data, x[1], rows[row].begin, rows[row].end, divisor, y + row * x[1]);
    });
    Scratch::of_call().trim();  // pooling is a network's last operator
}

}  // namespace moembed::ort
