// Runs every table of kernels that the processor has on random shapes, in buffers of exactly the size that a step may touch, on
// several threads, and compares bytes with the plain table's. Prints a hash of all results, the same on every machine.
//
//     driver [SEED] [SHAPES]
//
// It is compiled with -fsanitize=address,undefined, with -fsanitize=thread, and for other processors; see test_kernels_driver.py.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "../../runtime/native/kernels/select.h"

using namespace moembed;

namespace {

struct Random {
    uint64_t state;
    uint32_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<uint32_t>(state >> 33);
    }
    size_t below(size_t n) { return next() % n; }
    float real() { return (static_cast<float>(next()) / 1073741824.0f - 1.0f) * 2.0f; }
};

// Exactly as large as it says: the sanitizer sees a byte before or behind.
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

uint64_t hash = 1469598103934665603u;

template <class T>
std::vector<char> bytes(const Exact<T>& x) {
    const char* p = reinterpret_cast<const char*>(x.data);
    return {p, p + x.size * sizeof(T)};
}

// f(first, last) over two parts of `count`, each on a thread.
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
    Exact<float> x(t * width), residual(t * width), gamma(width), beta(width), smooth(width), y(t * width), step(t);
    Exact<uint8_t> codes(t * width);
    x.randomized(r);
    residual.randomized(r);
    gamma.randomized(r);
    beta.randomized(r);
    smooth.randomized(r);
    halves(t, [&](size_t a, size_t b) { k.quantize(x.data, width, a, b, codes.data, step.data); });
    out.add(codes), out.add(step);
    halves(t, [&](size_t a, size_t b) { k.quantize_gelu(x.data, width, a, b, codes.data, step.data); });
    out.add(codes), out.add(step);
    const Norm norm{width, 1e-5f, gamma.data, beta.data, smooth.data, y.data, codes.data, step.data};
    halves(t, [&](size_t a, size_t b) { k.add_norm(x.data, residual.data, norm, a, b); });
    out.add(y), out.add(codes), out.add(step);
    const size_t words = 1 + r.below(9), top_k = 1 + r.below(3), experts = top_k + r.below(20);
    Exact<int64_t> ids(t), chosen(t * top_k);
    for (size_t i = 0; i < t; ++i) ids.data[i] = static_cast<int64_t>(r.below(words));
    Exact<int8_t> table(words * width);
    Exact<float> scale(words), weight(experts * width), weights(t * top_k), slots(t * top_k * width), mean(width);
    table.randomized(r), scale.randomized(r), weight.randomized(r), slots.randomized(r);
    const Embedding embedding{ids.data, beta.data, table.data, scale.data, nullptr, nullptr};
    halves(t, [&](size_t a, size_t b) { k.embed(embedding, norm, a, b); });
    out.add(y), out.add(codes);
    // In 4 bits a row is whole blocks; its scales are any finite float16.
    const size_t blocks = 1 + r.below(8), wide = blocks * kBlock4;
    Exact<uint8_t> table4(words * wide / 2), codes4(t * wide);
    Exact<uint16_t> scale4(words * blocks);
    Exact<float> vector(wide), y4(t * wide);
    table4.randomized(r), vector.randomized(r);
    for (size_t i = 0; i < scale4.size; ++i) scale4.data[i] = static_cast<uint16_t>(r.below(0x7c00) | r.below(2) << 15);
    const Embedding embedding4{ids.data, vector.data, nullptr, nullptr, table4.data, scale4.data};
    const Norm norm4{wide, 1e-5f, vector.data, vector.data, vector.data, y4.data, codes4.data, step.data};
    halves(t, [&](size_t a, size_t b) { k.embed(embedding4, norm4, a, b); });
    out.add(y4), out.add(codes4), out.add(step);
    halves(t, [&](size_t a, size_t b) {
        Exact<float> scratch((experts + 15) / 16 * 16);
        k.route(x.data, width, weight.data, experts, top_k, a, b, weights.data, chosen.data, scratch.data);
    });
    out.add(weights), out.add(chosen);
    halves(t, [&](size_t a, size_t b) { k.combine(slots.data, weights.data, top_k, beta.data, width, a, b, y.data); });
    k.mean(x.data, width, 0, t, 3.0f, mean.data);
    out.add(y), out.add(mean);
    return out;
}

Outputs products(const Kernels& k, uint64_t seed) {
    Random r{seed};
    Outputs out;
    const size_t t = r.below(70), depth = 1 + r.below(90), blocks = 1 + r.below(5), n = 16 * blocks;
    Exact<uint8_t> codes(t * depth * 4);
    Exact<int8_t> weight(blocks * depth * 64);
    Exact<float> step(t), scale(n), bias(n), y(t * n);
    Exact<int32_t> sums(n);
    codes.randomized(r), weight.randomized(r), step.randomized(r), scale.randomized(r), bias.randomized(r);
    if (r.below(4) == 0) codes.fill(255), weight.fill(0x81);
    halves(blocks, [&](size_t a, size_t b) { k.sum_columns(weight.data, depth, a, b, sums.data); });
    for (int way = 0; way < 4; ++way) {
        const Product p{codes.data,
                        step.data,
                        static_cast<int>(t),
                        depth,
                        way & 1 ? 32 : 128,
                        weight.data,
                        way & 2 ? sums.data : nullptr,
                        scale.data,
                        way ? bias.data : nullptr,
                        way == 2,
                        y.data,
                        n};
        halves(blocks, [&](size_t a, size_t b) { k.product(p, a, b); });
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
    const Attention a{qkv.data, heads, dim, cos.data, sin.data, at.data, y.data};
    halves(tokens, [&](size_t first, size_t last) {
        Exact<float> scratch(k.attention_scratch(a, tokens));
        scratch.fill(0xff);  // NaN, if it were ever read
        for (size_t head = 0; head < heads; ++head)
            k.attention(a, head, before, before + tokens, first, last, scratch.data);
    });
    out.add(y);
    return out;
}

}  // namespace

int main(int count, char** arguments) {
    const uint64_t seed = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 0;
    const uint64_t shapes = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 100;
    const Kernels* plain = kernels_named("plain");
    std::printf("tables:");
    for (const Choice* c = choices(); c->kernels; ++c) {
        if (c->usable) std::printf(" %s", c->kernels->name);
    }
    std::printf("\n");
    Outputs (*const all[])(const Kernels&, uint64_t) = {rows, products, attentions};
    for (uint64_t i = 0; i < shapes; ++i) {
        for (auto* f : all) {
            const auto expected = f(*plain, seed + i);
            for (const auto& part : expected.all) {
                for (char byte : part) hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211u;
            }
            for (const Choice* c = choices(); c->kernels; ++c) {
                if (!c->usable || c->kernels == plain) continue;
                const auto found = f(*c->kernels, seed + i);
                for (size_t part = 0; part < expected.all.size(); ++part) {
                    if (found.all[part] == expected.all[part]) continue;
                    std::printf("%s differs from plain: seed %llu, output %zu\n", c->kernels->name,
                                static_cast<unsigned long long>(seed + i), part);
                    return 1;
                }
            }
        }
    }
    std::printf("hash: %016llx\n", static_cast<unsigned long long>(hash));
    return 0;
}
