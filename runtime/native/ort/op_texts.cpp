// Operators over the tokens of a text: attention and the mean.
#include "ops.h"
#include "scratch.h"

namespace moembed::ort {
namespace {

constexpr size_t kQueriesOfTask = 128;
constexpr size_t kManyTasks = 48;

struct Text {
    size_t row, begin, end;  // row of the mask, tokens
};

// Tokens are cells of the mask, row by row; a text is those of one row.
std::vector<Text> texts_of(const Tensor<int64_t>& tokens, const Tensor<int64_t>& mask) {
    std::vector<Text> texts;
    const int64_t sequence = mask.shape[1], cells = mask.shape[0] * sequence;
    int64_t before = -1;
    for (size_t t = 0; t < tokens[0]; ++t) {
        const int64_t cell = tokens.data[t];
        if (cell <= before || cell >= cells) {
            refuse("token " + std::to_string(t) + " is cell " + std::to_string(cell) + " behind " +
                   std::to_string(before) + " of " + std::to_string(cells));
        }
        before = cell;
        const auto row = static_cast<size_t>(cell / sequence);
        if (texts.empty() || texts.back().row != row) texts.push_back({row, t, t});
        texts.back().end = t + 1;
    }
    return texts;
}

// The number of tokens that the mask has in each row: it is 1 for each, and 0 elsewhere.
std::vector<size_t> present_of(const Tensor<int64_t>& mask) {
    std::vector<size_t> present(mask[0]);
    for (size_t row = 0; row < mask[0]; ++row) {
        for (size_t i = 0; i < mask[1]; ++i) {
            const int64_t value = mask.data[row * mask[1] + i];
            if (value != 0 && value != 1) refuse("attention_mask has " + std::to_string(value) + ", expected 0 or 1");
            present[row] += value == 1;
        }
    }
    return present;
}

}  // namespace

void attention(Call& call) {
    const int64_t heads = call.settings.heads;
    const auto cos = call.input<float>(3, "cos", {kAny, kAny}), sin = call.input<float>(4, "sin", cos.shape);
    if (heads < 1 || heads > 1 << 16 || cos.shape[1] < 1) refuse("there are no heads");
    const auto qkv = call.input<float>(0, "qkv", {kAny, 3 * heads * 2 * cos.shape[1]});
    const auto tokens = call.input<int64_t>(1, "tokens", {qkv.shape[0]});
    const auto mask = call.input<int64_t>(2, "attention_mask", {kAny, kAny});
    const auto texts = texts_of(tokens, mask);
    std::vector<int64_t> positions(tokens[0]);
    for (size_t t = 0; t < positions.size(); ++t) {
        positions[t] = tokens.data[t] % mask.shape[1];
        if (positions[t] >= cos.shape[0]) {
            refuse("position " + std::to_string(positions[t]) + " of " + std::to_string(cos.shape[0]));
        }
    }
    Attention a{};
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
    // Each task turns the keys of its text: once per head if there are enough heads for everyone.
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
    // Short texts are a few microseconds each: several to a task.
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
    const auto present = present_of(mask);
    auto* y = call.output<float>(0, {mask[0], x[1]});
    std::vector<Text> rows(mask[0]);  // a text without tokens is the mean of nothing
    for (const Text& text : texts) rows[text.row] = text;
    call.parallel(rows.size(), [&](size_t row) {
        const float divisor = present[row] ? static_cast<float>(present[row]) : 1e-9f;
        call.kernels.mean(x.data, x[1], rows[row].begin, rows[row].end, divisor, y + row * x[1]);
    });
}

}  // namespace moembed::ort
