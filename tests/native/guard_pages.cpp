// Runs the products, feed-forward networks and integer attention of every table that is compiled into this program and
// that this machine can run, with a page without access right behind each buffer, or right before it: sanitizers do not
// see what AMX tiles load and store. Also compares the results with those of the plain table, and checks that no tiles
// are left configured. Prints the tables. test_guard_pages.py compiles it.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../../runtime/native/kernels/cpu.h"
#include "../../runtime/native/kernels/select.h"
#include "heads.h"
#include "layer.h"
#include "random.h"

using namespace moembed;

namespace moembed {
// Stand for the tables whose files are not compiled into this program; those of a file replace them.
extern const Kernels kAvx2 __attribute__((weak)), kAvxVnni __attribute__((weak)), kAvx512Vnni __attribute__((weak)),
    kAmx __attribute__((weak)), kNeon __attribute__((weak)), kNeonI8mm __attribute__((weak));
const Kernels kAvx2 = {""}, kAvxVnni = {""}, kAvx512Vnni = {""}, kAmx = {""}, kNeon = {""}, kNeonI8mm = {""};
}  // namespace moembed

namespace {

enum class Guard { Behind, Before };

Guard side;
char current[200];

void faulted(int) {
    const ssize_t written = write(1, current, std::strlen(current));
    _exit(written > 0 ? 1 : 2);
}

// A buffer of n elements whose last byte is the last, or whose first byte is the first, that may be touched.
template <class T>
class Guarded {
public:
    explicit Guarded(size_t n, size_t alignment = alignof(T)) : size(n) {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes = n * sizeof(T);
        length_ = (bytes + page - 1) / page * page + 2 * page;
        base_ = static_cast<char*>(mmap(nullptr, length_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (length_ > 2 * page) mprotect(base_ + page, length_ - 2 * page, PROT_READ | PROT_WRITE);
        char* end = base_ + length_ - page;
        data = reinterpret_cast<T*>(side == Guard::Behind ? end - (bytes + alignment - 1) / alignment * alignment
                                                          : base_ + page);
    }
    ~Guarded() { munmap(base_, length_); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    // Values from a generator that knows no library, so that they are the same everywhere.
    void fill(uint64_t seed, float scale = 1) {
        Random random{seed};
        for (size_t i = 0; i < size; ++i) {
            if constexpr (sizeof(T) == 1) {
                data[i] = static_cast<T>(random.next());
            } else {
                data[i] = (static_cast<float>(random.next()) / 1073741824.0f - 1.0f) * scale;
            }
        }
    }
    std::string bytes() const { return {reinterpret_cast<const char*>(data), size * sizeof(T)}; }

    T* data;
    size_t size;

private:
    char* base_;
    size_t length_;
};

using Scratch = Guarded<uint8_t>;
constexpr size_t kLine = 64;

// The tiles that this thread has in use, as bits of XINUSE.
uint64_t tiles_in_use() {
#if defined(__x86_64__) && !defined(MOEMBED_AMX_EMULATED)
    if (!cpu().amx.usable) return 0;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    return low & 0x60000;
#else
    return 0;
#endif
}

std::string product(const Kernels& k, size_t rows, size_t depth, size_t blocks, bool listed) {
    const size_t n = 16 * blocks;
    Guarded<uint8_t> quantized(rows * depth * 4);
    Guarded<int8_t> weight(n * depth * 4);
    Guarded<float> scale(rows), weight_scale(n), bias(n), y(rows * n);
    Guarded<int32_t> sums(n);
    Guarded<size_t> source(rows), target(rows);
    quantized.fill(1), weight.fill(2), scale.fill(3), weight_scale.fill(4), bias.fill(5);
    for (size_t i = 0; i < rows; ++i) source.data[i] = rows - 1 - i, target.data[i] = (i + 1) % rows;
    Product p =
        layer(rows, depth, listed ? kGeluZeroPoint : kSymmetricZeroPoint, weight.data, weight_scale.data, bias.data);
    p.quantized = quantized.data;
    p.scale = scale.data;
    p.source = listed ? source.data : nullptr;
    p.target = listed ? target.data : nullptr;
    p.gelu = listed;
    p.out = y.data;
    p.out_stride = n;
    if (listed) {
        k.sum_columns(weight.data, depth, 0, blocks, sums.data);
        p.column_sums = sums.data;
    }
    Scratch scratch(k.product_scratch(p), kLine);
    k.product(p, 0, blocks, scratch.data);
    return y.bytes();
}

std::string feed_forward(const Kernels& k, size_t rows, size_t hidden, size_t inner) {
    Guarded<uint8_t> quantized(rows * hidden);
    Guarded<int8_t> up_weight(inner * hidden), down_weight(inner * hidden);
    Guarded<float> scale(rows), up_scale(inner), down_scale(hidden), up_bias(inner), down_bias(hidden),
        y(rows * hidden);
    quantized.fill(1), up_weight.fill(2), down_weight.fill(3), scale.fill(4, 0.01f), up_scale.fill(5, 0.01f);
    down_scale.fill(6), up_bias.fill(7), down_bias.fill(8);
    Product up = layer(rows, hidden / 4, kSymmetricZeroPoint, up_weight.data, up_scale.data, up_bias.data);
    Product down = layer(rows, inner / 4, kGeluZeroPoint, down_weight.data, down_scale.data, down_bias.data);
    up.quantized = quantized.data;
    up.scale = scale.data;
    up.gelu = true;
    up.out_stride = inner;
    down.out = y.data;
    down.out_stride = hidden;
    Scratch scratch(k.feed_forward_scratch(up, down), kLine);
    k.feed_forward(up, down, scratch.data);
    return y.bytes();
}

std::string gated_feed_forward(const Kernels& k, size_t rows, size_t hidden, size_t inner, Activation activation) {
    Guarded<uint8_t> quantized(rows * hidden);
    Guarded<int8_t> up_weight(inner * hidden), gate_weight(inner * hidden), down_weight(inner * hidden);
    Guarded<float> scale(rows), up_scale(inner), gate_scale(inner), down_scale(hidden), up_bias(inner),
        gate_bias(inner), down_bias(hidden), active(rows * inner), y(rows * hidden);
    quantized.fill(1), up_weight.fill(2), gate_weight.fill(3), down_weight.fill(4), scale.fill(5, 0.01f);
    up_scale.fill(6, 0.01f), gate_scale.fill(7, 0.01f), down_scale.fill(8), up_bias.fill(9), gate_bias.fill(10);
    down_bias.fill(11);
    GatedProduct a;
    a.activation = activation;
    a.up = layer(rows, hidden / 4, kSymmetricZeroPoint, up_weight.data, up_scale.data, up_bias.data);
    a.gate = layer(rows, hidden / 4, kSymmetricZeroPoint, gate_weight.data, gate_scale.data, gate_bias.data);
    a.up.quantized = quantized.data;
    a.up.scale = scale.data;
    a.up.out = active.data;
    a.up.out_stride = inner;
    Product down = layer(rows, inner / 4, kSymmetricZeroPoint, down_weight.data, down_scale.data, down_bias.data);
    down.out = y.data;
    down.out_stride = hidden;
    {
        Scratch scratch(k.product_scratch(a.up), kLine);
        k.gated_product(a, 0, inner / 16, scratch.data);
    }
    Scratch scratch(k.feed_forward_scratch(a.up, down), kLine);
    k.gated_feed_forward(a, down, scratch.data);
    return active.bytes() + y.bytes();
}

std::string int8_attention(const Kernels& k, size_t tokens, size_t dim) {
    const size_t heads = dim % 16 ? 8 : 2;
    HeadProduct<Guarded> x(tokens, 12, 3 * heads * dim);
    Guarded<float> cos(tokens * dim / 2), sin(tokens * dim / 2), y(tokens * heads * dim);
    Guarded<int64_t> positions(tokens);
    x.quantized.fill(1), x.weight.fill(4), x.scale.fill(5), x.weight_scale.fill(6), x.bias.fill(7);
    cos.fill(2), sin.fill(3);
    for (size_t i = 0; i < tokens; ++i) positions.data[i] = static_cast<int64_t>(i);
    const HeadArrays<Guarded> memory(heads, dim, tokens, cos, sin, positions);
    const Int8Heads& a = memory.heads;
    if (!tokens) return {};
    const Product p = x.of(0, tokens);
    {
        Scratch scratch(k.project_heads_scratch(p, a, 0, 3 * heads), kLine);
        k.project_heads(p, a, 0, 3 * heads, 0, scratch.data);
    }
    const size_t size = k.packed_head_bytes(a, tokens);
    Scratch packed(heads * size, kLine), scratch(k.int8_attention_scratch(a, tokens), kLine);
    for (size_t head = 0; head < heads; ++head) k.pack_head(a, head, 0, tokens, packed.data + head * size);
    const size_t half = tokens / 2;
    k.int8_attention(a, packed.data, 0, tokens, 0, half, y.data, scratch.data);
    k.int8_attention(a, packed.data, 0, tokens, half, tokens, y.data + half * heads * dim, scratch.data);
    return y.bytes();
}

// All results of a table for a number of rows.
std::vector<std::string> results(const Kernels& k, size_t rows) {
    std::vector<std::string> all;
    const auto add = [&](const char* what, size_t a, size_t b, auto compute) {
        std::snprintf(current, sizeof current, "%s: %s of %zu rows, %zu x %zu, guard %s\n", k.name, what, rows, a, b,
                      side == Guard::Behind ? "behind" : "before");
        all.push_back(compute());
        if (tiles_in_use()) {
            std::printf("tiles are left configured: %s", current);
            std::exit(1);
        }
    };
    for (const size_t depth : {1, 15, 16, 24, 96}) {
        for (const size_t blocks : {1, 2, 3}) {
            for (const bool listed : {false, true})
                add("product", 4 * depth, 16 * blocks, [&] { return product(k, rows, depth, blocks, listed); });
        }
    }
    for (const size_t hidden : {16, 48, 128}) {
        for (const size_t inner : {16, 80, 192})
            add("feed_forward", hidden, inner, [&] { return feed_forward(k, rows, hidden, inner); });
        for (const Activation activation : {Activation::Gelu, Activation::Silu})
            add("gated_feed_forward", hidden, 80, [&] { return gated_feed_forward(k, rows, hidden, 80, activation); });
    }
    for (const size_t dim : {2, 16, 24, 64})
        add("int8_attention", dim, 2, [&] { return int8_attention(k, rows, dim); });
    return all;
}

bool runs(const Choice& choice) { return choice.support.usable && *choice.kernels->name; }

}  // namespace

int main() {
    struct sigaction action = {};
    action.sa_handler = faulted;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
    for (const size_t rows : {0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 257}) {
        side = Guard::Behind;
        const auto expected = results(*kernels_named("plain"), rows);
        for (const Choice* c = choices(); c->kernels; ++c) {
            if (!runs(*c)) continue;
            for (const Guard guard : {Guard::Behind, Guard::Before}) {
                side = guard;
                if (results(*c->kernels, rows) == expected) continue;
                std::printf("%s differs from plain: %zu rows\n", c->kernels->name, rows);
                return 1;
            }
        }
    }
    for (const Choice* c = choices(); c->kernels; ++c) {
        if (runs(*c)) std::printf("%s ", c->kernels->name);
    }
    std::printf("\n");
    return 0;
}
