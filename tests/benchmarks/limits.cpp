// What the processor can do at best: sums of byte products and float products out of registers, and bytes read from memory, in
// a given number of threads. Prints "TOPS TFLOPS GB/s", with the seconds of the clock that is named.
//
//     limits THREADS wall|cpu
#include <immintrin.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

clockid_t clock_id = CLOCK_MONOTONIC;

double now() {
    timespec t;
    clock_gettime(clock_id, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

constexpr int kSums = 12;
constexpr long kRounds = 8000000;

#if defined(__AVX512VNNI__)
using Ints = __m512i;
using Floats = __m512;
void step(Ints& sum, Ints a, Ints b) { asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
void step(Floats& sum, Floats a, Floats b) { asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
constexpr double kIntOps = 128, kFloatOps = 32;
#else
using Ints = __m256i;
using Floats = __m256;
void step(Ints& sum, Ints a, Ints b) {  // two instructions, as without saturation
    Ints pair;
    asm volatile("vpmaddwd %2, %1, %0" : "=v"(pair) : "v"(a), "v"(b));
    asm volatile("vpaddd %1, %0, %0" : "+v"(sum) : "v"(pair));
}
void step(Floats& sum, Floats a, Floats b) { asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); }
constexpr double kIntOps = 32, kFloatOps = 16;
#endif

template <class V>
double loop(double operations) {
    V a, b, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11;
    std::memset(&a, 0, sizeof a);
    b = s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s11 = a;
    const double start = now();
    for (long i = 0; i < kRounds; ++i) {
        step(s0, a, b), step(s1, a, b), step(s2, a, b), step(s3, a, b), step(s4, a, b), step(s5, a, b);
        step(s6, a, b), step(s7, a, b), step(s8, a, b), step(s9, a, b), step(s10, a, b), step(s11, a, b);
    }
    return kRounds * kSums * operations / (now() - start) / 1e12;
}

double reads(const std::vector<uint64_t>& memory) {
    uint64_t s[8] = {};
    const double start = now();
    for (size_t i = 0; i + 8 <= memory.size(); i += 8) {
        for (size_t j = 0; j < 8; ++j) s[j] += memory[i + j];
    }
    const double seconds = now() - start;
    volatile uint64_t kept = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
    (void)kept;
    return static_cast<double>(memory.size()) * 8 / seconds / 1e9;
}

}  // namespace

int main(int count, char** arguments) {
    const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
    if (count > 2 && !std::strcmp(arguments[2], "cpu")) clock_id = CLOCK_THREAD_CPUTIME_ID;
    double best[3] = {};
    std::vector<std::vector<uint64_t>> memory(threads, std::vector<uint64_t>(size_t{1} << 25, 1));
    for (int round = 0; round < 5; ++round) {
        std::vector<std::vector<double>> found(threads);
        std::vector<std::thread> all;
        for (int i = 0; i < threads; ++i) {
            all.emplace_back([&, i] { found[i] = {loop<Ints>(kIntOps), loop<Floats>(kFloatOps), reads(memory[i])}; });
        }
        for (auto& thread : all) thread.join();
        for (int k = 0; k < 3; ++k) {
            double sum = 0;
            for (const auto& one : found) sum += one[k];
            best[k] = std::max(best[k], sum);
        }
    }
    std::printf("%g %g %g\n", best[0], best[1], best[2]);
}
