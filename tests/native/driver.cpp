// Runs every table of kernels that this machine can run on random shapes, on several threads, in buffers of exactly the
// size that a kernel may touch. Compares their bytes with those of the plain table. Prints a hash of all results, which
// is the same on every machine.
//
//     driver [SEED] [SHAPES]
//
// test_kernels_driver.py compiles it with -fsanitize=address,undefined, with -fsanitize=thread, and for other
// processors.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "../../runtime/native/kernels/cpu.h"
#include "../../runtime/native/kernels/select.h"
#include "heads.h"
#include "layer.h"
#include "random.h"

using namespace moembed;

namespace {

// A buffer of exactly n elements: the sanitizer detects an access before or after it.
template <class T>
struct Exact {
    T* data;
    size_t size;
    explicit Exact(size_t n) : data(static_cast<T*>(std::malloc(n * sizeof(T) + !n))), size(n) { fill(0); }
    ~Exact() { std::free(data); }
    Exact(const Exact&) = delete;
    void fill(int byte) {
        if (size) std::memset(data, byte, size * sizeof(T));
    }
    Exact& randomized(Random& r, float scale = 1) {
        for (size_t i = 0; i < size; ++i) {
            if constexpr (sizeof(T) == 1) {
                data[i] = static_cast<T>(r.next());
            } else {
                data[i] = r.real() * scale;
            }
        }
        return *this;
    }
};

// Scratch memory: bytes that begin at a cache line, filled with a value that no kernel may rely on.
struct Lines {
    void* data;
    explicit Lines(size_t n) : data(std::aligned_alloc(64, (n + 64) / 64 * 64)) {
        std::memset(data, 0xff, (n + 64) / 64 * 64);
    }
    ~Lines() { std::free(data); }
    Lines(const Lines&) = delete;
};

uint64_t hash = 1469598103934665603u;

template <class T>
std::vector<char> bytes(const Exact<T>& x) {
    const char* p = reinterpret_cast<const char*>(x.data);
    return {p, p + x.size * sizeof(T)};
}

// Calls f(first, last) for two halves of `count`, each on its own thread.
template <class F>
void halves(size_t count, F f) {
    std::thread other([&] { f(size_t{0}, count / 2); });
    f(count / 2, count);
    other.join();
}

struct Outputs {
    std::vector<std::vector<char>> all;
    template <class T>
    void add(const Exact<T>& x) {
        all.push_back(bytes(x));
    }
};

Outputs rows(const Kernels& k, uint64_t seed) {
    Random r{seed};
    Outputs out;
    const size_t t = r.below(20), width = 4 * (1 + r.below(60));
    Exact<float> x(t * width), residual(t * width), gamma(width), beta(width), smooth(width), y(t * width), scale(t);
    Exact<uint8_t> quantized(t * width);
    x.randomized(r);
    residual.randomized(r);
    gamma.randomized(r);
    beta.randomized(r);
    smooth.randomized(r);
    halves(t, [&](size_t a, size_t b) { k.quantize(x.data, width, a, b, quantized.data, scale.data); });
    out.add(quantized), out.add(scale);
    const size_t inner = 16 * (1 + r.below(12));  // whole blocks of a product's columns
    Exact<float> active(t * inner);
    Exact<uint8_t> quantized_active(t * inner);
    active.randomized(r);
    if (t) active.data[0] = 3e38f, active.data[t * inner - 1] = 6e-6f;  // beyond float16, and subnormal in it
    halves(t,
           [&](size_t a, size_t b) { k.quantize_gelu(active.data, inner, a, b, quantized_active.data, scale.data); });
    out.add(quantized_active), out.add(scale);
    if (t) active.data[0] = -3e38f;
    halves(t, [&](size_t a, size_t b) {
        k.quantize_product(active.data, inner, a, b, quantized_active.data, scale.data);
    });
    out.add(quantized_active), out.add(scale);
    Norm norm;
    norm.width = width;
    norm.epsilon = 1e-5f;
    norm.gamma = gamma.data;
    norm.beta = beta.data;
    norm.smooth = smooth.data;
    norm.y = y.data;
    norm.quantized = quantized.data;
    norm.scale = scale.data;
    halves(t, [&](size_t a, size_t b) { k.add_norm(x.data, residual.data, norm, a, b); });
    out.add(y), out.add(quantized), out.add(scale);
    const size_t words = 1 + r.below(9), top_k = 1 + r.below(3), experts = top_k + r.below(20);
    Exact<int64_t> ids(t), expert_indices(t * top_k);
    for (size_t i = 0; i < t; ++i) ids.data[i] = static_cast<int64_t>(r.below(words));
    Exact<int8_t> table(words * width);
    Exact<float> table_scale(words), weight(experts * width), weights(t * top_k), slots(t * top_k * width), mean(width);
    table.randomized(r), table_scale.randomized(r), weight.randomized(r), slots.randomized(r);
    Embedding embedding;
    embedding.ids = ids.data;
    embedding.type = beta.data;
    embedding.table8 = table.data;
    embedding.table8_scale = table_scale.data;
    halves(t, [&](size_t a, size_t b) { k.embed(embedding, norm, a, b); });
    out.add(y), out.add(quantized);
    // A 4-bit row consists of whole blocks, whose scales are any finite float16.
    const size_t blocks = 1 + r.below(8), wide = blocks * kBlock4;
    Exact<uint8_t> table4(words * wide / 2), quantized4(t * wide);
    Exact<uint16_t> table4_scale(words * blocks);
    Exact<float> vector(wide), y4(t * wide);
    table4.randomized(r), vector.randomized(r);
    for (size_t i = 0; i < table4_scale.size; ++i)
        table4_scale.data[i] = static_cast<uint16_t>(r.below(0x7c00) | r.below(2) << 15);
    Embedding embedding4;
    embedding4.ids = ids.data;
    embedding4.type = vector.data;
    embedding4.table4 = table4.data;
    embedding4.table4_scale = table4_scale.data;
    Norm norm4 = norm;
    norm4.width = wide;
    norm4.gamma = norm4.beta = norm4.smooth = vector.data;
    norm4.y = y4.data;
    norm4.quantized = quantized4.data;
    halves(t, [&](size_t a, size_t b) { k.embed(embedding4, norm4, a, b); });
    out.add(y4), out.add(quantized4), out.add(scale);
    halves(t, [&](size_t a, size_t b) {
        Exact<float> scratch((experts + 15) / 16 * 16);
        k.route(x.data, width, weight.data, experts, top_k, a, b, weights.data, expert_indices.data, scratch.data);
    });
    out.add(weights), out.add(expert_indices);
    halves(t, [&](size_t a, size_t b) { k.combine(slots.data, weights.data, top_k, beta.data, width, a, b, y.data); });
    k.mean(x.data, width, 0, t, 3.0f, mean.data);
    out.add(y), out.add(mean);
    return out;
}

// Rows around the sizes at which kernels divide them.
size_t rows_of_product(Random& r) {
    static constexpr size_t kEdges[] = {0, 1, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65};
    return r.below(2) ? kEdges[r.below(sizeof kEdges / sizeof *kEdges)] : r.below(8) ? r.below(70) : 250 + r.below(20);
}

// A permutation of 0 to n - 1.
std::vector<size_t> shuffled(Random& r, size_t n) {
    std::vector<size_t> order(n);
    for (size_t i = 0; i < n; ++i) order[i] = i;
    for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[r.below(i)]);
    return order;
}

Outputs products(const Kernels& k, uint64_t seed) {
    Random r{seed};
    Outputs out;
    const size_t t = rows_of_product(r), depth = r.below(3) ? 1 + r.below(90) : 16 * (1 + r.below(6));
    const size_t blocks = 1 + r.below(5), n = 16 * blocks;
    Exact<uint8_t> quantized(t * depth * 4);
    Exact<int8_t> weight(blocks * depth * 64);
    Exact<float> scale(t), weight_scale(n), bias(n), y(t * n);
    Exact<int32_t> sums(n), new_sums(n);
    quantized.randomized(r), weight.randomized(r), scale.randomized(r), weight_scale.randomized(r), bias.randomized(r);
    // Pairs of these overflow 16 bits: all of one sign, or of both.
    const size_t extreme = r.below(4);
    if (extreme < 2) quantized.fill(255), weight.fill(0x81);
    for (size_t i = 0; extreme == 1 && i < weight.size; ++i) weight.data[i] = r.below(2) ? 127 : -127;
    const auto source = shuffled(r, t), target = shuffled(r, t);
    halves(blocks, [&](size_t a, size_t b) { k.sum_columns(weight.data, depth, a, b, sums.data); });
    for (int way = 0; way < 4; ++way) {
        Product p = layer(t, depth, way & 1 ? kGeluZeroPoint : kSymmetricZeroPoint, weight.data, weight_scale.data,
                          way ? bias.data : nullptr);
        p.quantized = quantized.data;
        p.scale = scale.data;
        p.source = way == 3 ? source.data() : nullptr;
        p.target = way >= 2 ? target.data() : nullptr;
        p.column_sums = way & 2 ? sums.data : nullptr;
        p.new_sums = way == 1 ? new_sums.data : nullptr;
        p.gelu = way == 2;
        p.out = y.data;
        p.out_stride = n;
        halves(blocks, [&](size_t a, size_t b) {
            if (a == b) return;
            Lines scratch(k.product_scratch(p));
            k.product(p, a, b, scratch.data);
        });
        out.add(y);
    }
    // A product that needs no sums stores none.
    if (!t || k.zero_point == kGeluZeroPoint) std::memcpy(new_sums.data, sums.data, n * sizeof(int32_t));
    out.add(sums), out.add(new_sums);
    return out;
}

Outputs feed_forwards(const Kernels& k, uint64_t seed) {
    Random r{seed};
    Outputs out;
    const size_t t = rows_of_product(r), hidden = 16 * (1 + r.below(9)), inner = 16 * (1 + r.below(13));
    Exact<uint8_t> quantized(t * hidden);
    Exact<int8_t> up_weight(inner * hidden), down_weight(inner * hidden);
    Exact<float> scale(t), up_scale(inner), down_scale(hidden), up_bias(inner), down_bias(hidden), y(t * hidden);
    quantized.randomized(r), up_weight.randomized(r), down_weight.randomized(r), scale.randomized(r, 0.01f);
    // Some values between the products are beyond float16.
    up_scale.randomized(r, r.below(4) ? 0.01f : 1e5f);
    down_scale.randomized(r), up_bias.randomized(r), down_bias.randomized(r);
    const auto source = shuffled(r, t), target = shuffled(r, t);
    for (int way = 0; way < 2; ++way) {
        Product up =
            layer(t, hidden / 4, kSymmetricZeroPoint, up_weight.data, up_scale.data, way ? nullptr : up_bias.data);
        Product down =
            layer(t, inner / 4, kGeluZeroPoint, down_weight.data, down_scale.data, way ? nullptr : down_bias.data);
        up.quantized = quantized.data;
        up.scale = scale.data;
        up.source = way ? source.data() : nullptr;
        up.gelu = true;
        up.out_stride = inner;
        down.out = y.data;
        down.target = way ? target.data() : nullptr;
        down.out_stride = hidden;
        Lines scratch(k.feed_forward_scratch(up, down));
        k.feed_forward(up, down, scratch.data);
        out.add(y);
    }
    return out;
}

Outputs gated_feed_forwards(const Kernels& k, uint64_t seed) {
    Random r{seed};
    Outputs out;
    const size_t t = rows_of_product(r), hidden = 16 * (1 + r.below(9)), inner = 16 * (1 + r.below(13));
    Exact<uint8_t> quantized(t * hidden);
    Exact<int8_t> up_weight(inner * hidden), gate_weight(inner * hidden), down_weight(inner * hidden);
    Exact<float> scale(t), up_scale(inner), gate_scale(inner), down_scale(hidden), up_bias(inner), gate_bias(inner);
    Exact<float> down_bias(hidden), active(t * inner), y(t * hidden);
    quantized.randomized(r), up_weight.randomized(r), gate_weight.randomized(r), down_weight.randomized(r);
    scale.randomized(r, 0.01f), up_scale.randomized(r, r.below(4) ? 0.01f : 1e4f), gate_scale.randomized(r, 0.01f);
    down_scale.randomized(r), up_bias.randomized(r), gate_bias.randomized(r), down_bias.randomized(r);
    const auto source = shuffled(r, t), target = shuffled(r, t);
    for (const bool listed : {false, true}) {
        GatedProduct a;
        a.activation = r.below(2) ? Activation::Silu : Activation::Gelu;
        a.up =
            layer(t, hidden / 4, kSymmetricZeroPoint, up_weight.data, up_scale.data, listed ? nullptr : up_bias.data);
        a.gate = layer(t, hidden / 4, kSymmetricZeroPoint, gate_weight.data, gate_scale.data, gate_bias.data);
        a.up.quantized = quantized.data;
        a.up.scale = scale.data;
        a.up.source = listed ? source.data() : nullptr;
        a.up.out = active.data;
        a.up.target = listed ? target.data() : nullptr;
        a.up.out_stride = inner;
        halves(inner / 16, [&](size_t first, size_t last) {
            if (first == last) return;
            Lines scratch(k.product_scratch(a.up));
            k.gated_product(a, first, last, scratch.data);
        });
        out.add(active);
        Product down = layer(t, inner / 4, kSymmetricZeroPoint, down_weight.data, down_scale.data,
                             listed ? nullptr : down_bias.data);
        down.out = y.data;
        down.target = listed ? target.data() : nullptr;
        down.out_stride = hidden;
        Lines scratch(k.feed_forward_scratch(a.up, down));
        k.gated_feed_forward(a, down, scratch.data);
        out.add(y);
    }
    return out;
}

Outputs attentions(const Kernels& k, uint64_t seed) {
    Random r{seed};
    Outputs out;
    const size_t heads = 1 + r.below(3), dim = 2 * (1 + r.below(40)), before = r.below(3), tokens = 1 + r.below(60);
    const size_t t = before + tokens + r.below(3), positions = t + r.below(3);
    Exact<float> qkv(t * 3 * heads * dim), cos(positions * dim / 2), sin(positions * dim / 2), y(t * heads * dim);
    qkv.randomized(r, 2), cos.randomized(r), sin.randomized(r);
    Exact<int64_t> at(t);
    for (size_t i = 0; i < t; ++i) at.data[i] = static_cast<int64_t>(r.below(positions));
    Attention a;
    a.qkv = qkv.data;
    a.heads = heads;
    a.dim = dim;
    a.cos = cos.data;
    a.sin = sin.data;
    a.positions = at.data;
    a.y = y.data;
    halves(tokens, [&](size_t first, size_t last) {
        Exact<float> scratch(k.attention_scratch(a, tokens));
        scratch.fill(0xff);  // NaN, to reveal a read of uninitialized memory
        for (size_t head = 0; head < heads; ++head)
            k.attention(a, head, before, before + tokens, first, last, scratch.data);
    });
    out.add(y);
    return out;
}

Outputs int8_attentions(const Kernels& k, uint64_t seed) {
    Random r{seed};
    Outputs out;
    const size_t dim = r.below(2) ? 2 * (1 + r.below(40)) : 16 * (1 + r.below(5));
    const size_t heads = dim % 16 ? 8 : 1 + r.below(3);  // so that all columns are whole blocks
    const size_t before = r.below(3), tokens = 1 + (r.below(8) ? r.below(70) : 500 + r.below(40));
    const size_t t = before + tokens + r.below(3), positions = t + r.below(3);
    HeadProduct<Exact> x(t, 1 + r.below(20), 3 * heads * dim);
    Exact<float> cos(positions * dim / 2), sin(positions * dim / 2), y(tokens * heads * dim);
    x.quantized.randomized(r), x.weight.randomized(r), x.scale.randomized(r), x.weight_scale.randomized(r);
    x.bias.randomized(r, 2), cos.randomized(r), sin.randomized(r);
    if (r.below(4) == 0) x.weight.fill(0);
    Exact<int64_t> at(t);
    for (size_t i = 0; i < t; ++i) at.data[i] = static_cast<int64_t>(r.below(positions));
    const HeadArrays<Exact> memory(heads, dim, t, cos, sin, at);
    const Int8Heads& a = memory.heads;
    const size_t split = dim % 16 ? 3 * heads : 1 + r.below(3 * heads);  // slices of two tasks
    halves(t, [&](size_t first, size_t last) {
        const Product p = x.of(first, last);
        for (const size_t slice : {size_t{0}, split}) {
            const size_t after = slice ? 3 * heads : split;
            if (slice == after) continue;
            Lines scratch(k.project_heads_scratch(p, a, slice, after));
            k.project_heads(p, a, slice, after, first, scratch.data);
        }
    });
    out.add(memory.query_scale), out.add(memory.key_scale), out.add(memory.value_scale), out.add(memory.key_sum);
    const size_t size = k.packed_head_bytes(a, tokens);
    Lines packed(heads * size);
    for (size_t head = 0; head < heads; ++head)
        k.pack_head(a, head, before, before + tokens, static_cast<char*>(packed.data) + head * size);
    halves(tokens, [&](size_t first, size_t last) {
        Lines scratch(k.int8_attention_scratch(a, tokens));
        k.int8_attention(a, packed.data, before, before + tokens, first, last, y.data + first * heads * dim,
                         scratch.data);
    });
    out.add(y);
    return out;
}

}  // namespace

int main(int count, char** arguments) {
    const uint64_t seed = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 0;
    const uint64_t shapes = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 100;
    const Kernels* plain = kernels_named("plain");
    std::printf("cpu: %s: %s\n", cpu().name, cpu().flags);
    std::printf("tables:");
    for (const Choice* c = choices(); c->kernels; ++c) {
        if (c->support.usable) std::printf(" %s", c->kernels->name);
    }
    std::printf("\n");
    Outputs (*const all[])(const Kernels&, uint64_t) = {rows,       products,       feed_forwards, gated_feed_forwards,
                                                        attentions, int8_attentions};
    for (uint64_t i = 0; i < shapes; ++i) {
        for (auto* f : all) {
            const auto expected = f(*plain, seed + i);
            for (const auto& part : expected.all) {
                for (char byte : part) hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211u;
            }
            for (const Choice* c = choices(); c->kernels; ++c) {
                if (!c->support.usable || c->kernels == plain) continue;
                const auto found = f(*c->kernels, seed + i);
                for (size_t part = 0; part < expected.all.size(); ++part) {
                    if (found.all[part] == expected.all[part]) continue;
                    std::printf("%s differs from plain: seed %" PRIu64 ", output %zu\n", c->kernels->name, seed + i,
                                part);
                    return 1;
                }
            }
        }
    }
    std::printf("hash: %016" PRIx64 "\n", hash);
    return 0;
}
