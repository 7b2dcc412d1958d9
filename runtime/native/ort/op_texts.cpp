// Operators over the tokens of a text: attention and mean pooling.
#include "ops.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kQueriesOfTask = 128;
constexpr size_t kManyTasks = 48;

struct Text {
    size_t row, begin, end;  // row of the mask, tokens
};

// Finds the texts. A token is given as its cell of the mask, counted row by row; the tokens of one row are a text.
std::vector<Text> texts_of(const Tensor<int64_t>& tokens, const Tensor<int64_t>& mask) {
    std::vector<Text> texts;
    const int64_t sequence = mask.shape[1], cells = mask.shape[0] * sequence;
    int64_t before = -1;
    for (size_t t = 0; t < tokens[0]; ++t) {
        const int64_t cell = tokens.data[t];
        if (cell <= before || cell >= cells) {
            throw InvalidInput("token " + std::to_string(t) + " is cell " + std::to_string(cell) +
                               " of the mask, expected more than " + std::to_string(before) + " and less than " +
                               std::to_string(cells));
        }
        before = cell;
        const auto row = static_cast<size_t>(cell / sequence);
        if (texts.empty() || texts.back().row != row) texts.push_back({row, t, t});
        texts.back().end = t + 1;
    }
    return texts;
}

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

}  // namespace

void attention(Call& call) {
    const int64_t heads = call.attributes.num_heads;
    const auto cos = call.input<float>(3, "cos", {kAny, kAny}), sin = call.input<float>(4, "sin", cos.shape);
    if (heads < 1 || heads > 1 << 16) {
        throw InvalidInput("num_heads is " + std::to_string(heads) + ", expected 1 to 65536");
    }
    if (cos.shape[1] < 1) throw InvalidInput("cos has no columns, expected half the size of a head");
    const auto qkv = call.input<float>(0, "qkv", {kAny, 3 * heads * 2 * cos.shape[1]});
    const auto tokens = call.input<int64_t>(1, "tokens", {qkv.shape[0]});
    const auto mask = call.input<int64_t>(2, "attention_mask", {kAny, kAny});
    const auto texts = texts_of(tokens, mask);
    std::vector<int64_t> positions(tokens[0]);
    for (size_t t = 0; t < positions.size(); ++t) {
        positions[t] = tokens.data[t] % mask.shape[1];
        if (positions[t] >= cos.shape[0]) {
            throw InvalidInput("position " + std::to_string(positions[t]) + " is out of range (cos has " +
                               std::to_string(cos.shape[0]) + " rows)");
        }
    }
    Attention a;
    a.qkv = qkv.data;
    a.heads = static_cast<size_t>(heads);
    a.dim = 2 * cos[1];
    a.cos = cos.data;
    a.sin = sin.data;
    a.positions = positions.data();
    a.y = call.output<float>(0, {qkv[0], a.heads * a.dim});

    struct Part {
        const Text* text;
        size_t head, first, last;
    };
    // Every task rotates the keys of its text and head. Texts are divided further only if there are few of both.
    const size_t size = texts.size() * a.heads < kManyTasks ? kQueriesOfTask : tokens[0];
    std::vector<Part> parts;
    for (const Text& text : texts) {
        const size_t length = text.end - text.begin;
        for (size_t head = 0; head < a.heads; ++head) {
            for (size_t first = 0; first < length; first += size) {
                parts.push_back({&text, head, first, first + size < length ? first + size : length});
            }
        }
    }
    // A short text takes a few microseconds: one task computes several.
    const size_t together = parts.size() / 256 + 1;
    call.ranges(parts.size(), together, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; ++i) {
            const Part& p = parts[i];
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
}

}  // namespace moembed::ort
