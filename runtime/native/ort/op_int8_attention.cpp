// Attention over integers, from the product that gives queries, keys and values to the quantized result.
#include <algorithm>

#include "ops.h"
#include "packed.h"
#include "scratch.h"
#include "texts.h"

namespace moembed::ort {
namespace {

struct Operands {
    Tensor<uint8_t> quantized;
    Tensor<float> scale;
    Packed weight;
    Tensor<float> weight_scale, bias;
    Tensor<int64_t> tokens, mask;
    Tensor<float> cos, sin;
    size_t heads, dim;

    explicit Operands(Call& call)
        : quantized(call.input<uint8_t>(0, "quantized", {kAny, kAny})),
          scale(call.input<float>(1, "scale", {quantized.shape[0], 1})),
          weight(call, 2, "weight", quantized.shape[1]),
          weight_scale(call.input<float>(3, "weight_scale", {static_cast<int64_t>(weight.columns)})),
          bias(call.input<float>(4, "qkv_bias", weight_scale.shape)),
          tokens(call.input<int64_t>(5, "tokens", {quantized.shape[0]})),
          mask(call.input<int64_t>(6, "attention_mask", {kAny, kAny})),
          cos(call.input<float>(7, "cos", {kAny, kAny})),
          sin(call.input<float>(8, "sin", cos.shape)),
          heads(heads_of(call)),
          dim(2 * cos[1]) {
        if (!dim) throw InvalidInput("cos has no columns, expected half the size of a head");
        if (dim > kMostDim) {
            throw InvalidInput("cos has " + std::to_string(cos[1]) + " columns, expected at most " +
                               std::to_string(kMostDim / 2));
        }
        if (weight.columns != 3 * heads * dim) {
            throw InvalidInput("weight has " + std::to_string(weight.columns) + " columns, expected " +
                               std::to_string(3 * heads * dim) + ", three times num_heads times the size of a head");
        }
        weight.prepare_sums(call, tokens[0], kSymmetricZeroPoint);
    }

private:
    static constexpr size_t kMostDim = 512;  // sums of larger heads might not fit 32 bits
};

// Multiplies, rotates and quantizes. A task computes some heads of some tokens, whose floats stay in the cache.
void project(Call& call, const Operands& x, const Int8Heads& heads) {
    const size_t rows = x.tokens[0], slices = 3 * heads.heads;
    const size_t height = even_part(rows, call.kernels.task_rows), down = (rows + height - 1) / height;
    const size_t wanted = (kTasksOfThread * call.threads + down - 1) / down;
    // Only whole blocks of columns can be multiplied.
    const size_t width = heads.dim % 16 ? slices : (slices + wanted - 1) / wanted;
    const size_t across = (slices + width - 1) / width;
    call.parallel(down * across, [&](size_t task) {
        const size_t begin = task / across * height, end = begin + height < rows ? begin + height : rows;
        const size_t first = task % across * width, last = first + width < slices ? first + width : slices;
        Product p = x.weight.product(x.weight_scale.data, x.bias.data, begin, end);
        p.quantized = x.quantized.data + begin * x.quantized[1];
        p.scale = x.scale.data + begin;
        p.zero_point = kSymmetricZeroPoint;
        void* scratch = Scratch::of_task().get(call.kernels.project_heads_scratch(p, heads, first, last));
        call.kernels.project_heads(p, heads, first, last, begin, scratch);
    });
}

// Queries `first` to `last` of a text, of all heads.
struct Part {
    const Text* text;
    const char* packed;  // the text's heads
    size_t first, last;
};

// Divides the queries so that all threads end at about the same time; small parts multiply less than whole tiles.
std::vector<Part> query_parts(const std::vector<Text>& texts, const std::vector<const char*>& packed, size_t tokens,
                              size_t threads) {
    constexpr size_t kLeast = 8, kMost = 64, kPartsOfThread = 4;
    const size_t fair = (tokens + kPartsOfThread * threads - 1) / (kPartsOfThread * threads);
    const size_t most = std::min(std::max(fair, kLeast), kMost);
    std::vector<Part> parts;
    for (size_t i = 0; i < texts.size(); ++i) {
        const size_t length = texts[i].end - texts[i].begin, size = even_part(length, most);
        for (size_t first = 0; first < length; first += size) {
            parts.push_back({&texts[i], packed[i], first, std::min(first + size, length)});
        }
    }
    return parts;
}

}  // namespace

void int8_attention(Call& call) {
    Operands x(call);
    const size_t rows = x.tokens[0], hidden = x.heads * x.dim;
    const auto texts = texts_of(x.tokens, x.mask);
    const auto positions = positions_of(x.tokens, x.mask, x.cos);
    auto* quantized = call.output<uint8_t>(0, {rows, hidden});
    auto* scale = call.output<float>(1, {rows, 1});
    if (!rows) return;
    Int8Heads heads;
    heads.heads = x.heads;
    heads.dim = x.dim;
    heads.stride = (x.dim + 15) / 16 * 16;
    heads.tokens = rows;
    heads.cos = x.cos.data;
    heads.sin = x.sin.data;
    heads.positions = positions.data();
    std::vector<size_t> starts;  // of the packed heads of each text
    size_t all = 0, longest = 0;
    for (const Text& text : texts) {
        starts.push_back(all);
        all += x.heads * call.kernels.packed_head_bytes(heads, text.end - text.begin);
        longest = std::max(longest, text.end - text.begin);
    }
    const size_t places = x.heads * rows, bytes = places * heads.stride;
    Arrays arrays;
    const size_t at[] = {arrays.add<uint8_t>(bytes), arrays.add<uint8_t>(bytes),  arrays.add<uint8_t>(bytes),
                         arrays.add<uint8_t>(bytes), arrays.add<float>(places),   arrays.add<float>(places),
                         arrays.add<float>(places),  arrays.add<int32_t>(places), arrays.add<char>(all)};
    arrays.take(Scratch::of_call());
    heads.query_low = arrays.at<uint8_t>(at[0]);
    heads.query_high = arrays.at<uint8_t>(at[1]);
    heads.key = arrays.at<uint8_t>(at[2]);
    heads.value = arrays.at<uint8_t>(at[3]);
    heads.query_scale = arrays.at<float>(at[4]);
    heads.key_scale = arrays.at<float>(at[5]);
    heads.value_scale = arrays.at<float>(at[6]);
    heads.key_sum = arrays.at<int32_t>(at[7]);
    auto* packed = arrays.at<char>(at[8]);
    project(call, x, heads);
    x.weight.keep_sums();

    constexpr size_t kKeysOfTask = 1024;
    call.ranges(texts.size() * x.heads, kKeysOfTask / longest + 1, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; ++i) {
            const Text& text = texts[i / x.heads];
            const size_t head = i % x.heads, size = call.kernels.packed_head_bytes(heads, text.end - text.begin);
            call.kernels.pack_head(heads, head, text.begin, text.end, packed + starts[i / x.heads] + head * size);
        }
    });
    std::vector<const char*> of_text;
    of_text.reserve(starts.size());
    for (const size_t start : starts) of_text.push_back(packed + start);
    const auto parts = query_parts(texts, of_text, rows, call.threads);
    call.parallel(parts.size(), [&](size_t task) {
        const Part& part = parts[task];
        const size_t count = part.last - part.first, row = part.text->begin + part.first;
        Arrays own;
        const size_t at_mixed = own.add<float>(count * hidden);
        const size_t at_scratch =
            own.add<char>(call.kernels.int8_attention_scratch(heads, part.text->end - part.text->begin));
        own.take(Scratch::of_task());
        auto* mixed = own.at<float>(at_mixed);
        call.kernels.int8_attention(heads, part.packed, part.text->begin, part.text->end, part.first, part.last, mixed,
                                    own.at<char>(at_scratch));
        call.kernels.quantize(mixed, hidden, 0, count, quantized + row * hidden, scale + row);
    });
}

}  // namespace moembed::ort
