// What the processor can do at best, printed as JSON: each arithmetic unit that kernels use, out of registers and in a product
// of matrices from the second-level cache, and reading of memory. limits.py compiles it, with the units of its machine.
//
//     limits THREADS [SAMPLES [FILE]]
//
// A busy neighbour on the same core may halve a unit, and a guest does not see its siblings. So each sample stands between two
// short ones of the same unit out of registers, and is counted as "alone" where these reach the unit's full rate, as "shared"
// where they reach about half of it, and else as "between". A sample during which other processes took the processor is
// "disturbed". Rates are medians of a state: TOPS, TFLOPS and GB/s of all threads together.
//
// Memory is read as kernels read weights: mapped pages of a file in the page cache, a part for each thread. FILE is that file,
// such as the weights of a bundle. The last-level cache may answer such a file when it is read again, so reading of more than
// twice that cache is measured too.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "units/reading.h"
#include "units/unit.h"

namespace moembed::limits {
namespace {

#if defined(__x86_64__)
const Unit* const kUnits[] = {&kAmxUnit, &kAvx512VnniUnit, &kAvxVnniUnit, &kAvx2Unit, &kAvx512Float, &kAvx2Float};
#else
const Unit* const kUnits[] = {&kNeonI8mmUnit, &kNeonUnit, &kNeonFloat};
#endif

constexpr double kAlone = 0.85, kShared = 0.6;     // of the full rate
constexpr double kNever = 0.7;                     // a unit that never reached so much of its peak was never alone
constexpr double kOwnTime = 0.97;                  // least share of the time that a thread was running
constexpr double kBracket = 0.5e-3, kWork = 8e-3;  // seconds
constexpr size_t kWeights = 250u << 20, kBeyond = 1u << 30;

double seconds(clockid_t clock = CLOCK_MONOTONIC) {
    timespec t;
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
    return values[values.size() / 2];
}

// Operations a second of something that gives its operations, repeated for a while.
template <class F>
double rate(double least, F work) {
    double done = 0, spent = 0;
    for (const double start = seconds(); spent < least; spent = seconds() - start) done += work();
    return done / spent;
}

// Cycles a second, from a chain of multiplications of which each waits for the one before; a neighbour does not slow it.
double clock_rate() {
#if defined(__x86_64__)
    return rate(0.1e-3, [] {
        uint64_t x = 3;
        for (int i = 0; i < 1000; ++i) __asm__ volatile("imul %0, %0" : "+r"(x));
        return 3000.0;
    });
#else
    return 0;
#endif
}

struct Sample {
    double rate, bracket, clock, own_time;  // of one thread; the bracket is the lesser of two
};

// Samples of all threads at once: `[thread][sample]`. `work(thread, sample)` gives a rate.
std::vector<std::vector<Sample>> measure(int threads, int samples, const Unit& unit,
                                         const std::function<double(int, int)>& work) {
    std::vector<std::vector<Sample>> found(static_cast<size_t>(threads));
    std::atomic<long> arrived{0};
    const auto meet = [&](long turn) {
        ++arrived;
        while (arrived < turn * threads) {
        }
    };
    const auto run = [&](int thread) {
        long turn = 0;
        for (int i = 0; i < samples; ++i) {
            const auto registers = [&] { return rate(kBracket, [&] { return unit.registers(50); }); };
            meet(++turn);
            const double start = seconds(), own = seconds(CLOCK_THREAD_CPUTIME_ID);
            Sample s{};
            s.bracket = registers();
            s.rate = work(thread, i);
            s.bracket = std::min(s.bracket, registers());
            s.clock = clock_rate();
            s.own_time = (seconds(CLOCK_THREAD_CPUTIME_ID) - own) / (seconds() - start);
            found[static_cast<size_t>(thread)].push_back(s);
        }
    };
    std::vector<std::thread> all;
    for (int i = 0; i < threads; ++i) all.emplace_back(run, i);
    for (auto& thread : all) thread.join();
    return found;
}

// The full rate of a unit: the best that was seen, unless that is far below what every processor with the unit can do.
double full_rate(const Unit& unit, const std::vector<std::vector<Sample>>& found) {
    double best = 0;
    std::vector<double> clocks;
    for (const auto& samples : found) {
        for (const Sample& s : samples) {
            best = std::max(best, s.bracket);
            clocks.push_back(s.clock);
        }
    }
    const double peak = unit.peak_per_cycle * median(clocks);
    return best < kNever * peak ? peak : best;
}

// Rates of all threads together by state.
struct States {
    std::map<std::string, std::vector<double>> rates, brackets;
};

States by_state(const std::vector<std::vector<Sample>>& found, double full, int part = 0, int parts = 1) {
    States states;
    for (size_t i = static_cast<size_t>(part); i < found[0].size(); i += static_cast<size_t>(parts)) {
        double rate = 0, brackets = 0, least = full, own_time = 1;
        for (const auto& samples : found) {
            rate += samples[i].rate;
            brackets += samples[i].bracket;
            least = std::min(least, samples[i].bracket);
            own_time = std::min(own_time, samples[i].own_time);
        }
        const char* state = own_time < kOwnTime       ? "disturbed"
                            : least >= kAlone * full  ? "alone"
                            : least <= kShared * full ? "shared"
                                                      : "between";
        states.rates[state].push_back(rate);
        states.brackets[state].push_back(brackets);
    }
    return states;
}

uint8_t* mapped(size_t bytes, int file) {
    void* found = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
    return found == MAP_FAILED ? nullptr : static_cast<uint8_t*>(found);
}

// Pages of the page cache that no file on a disk has.
uint8_t* page_cache(size_t bytes) {
#if defined(__linux__)
    const int file = memfd_create("limits", 0);
#else
    char name[] = "/tmp/limitsXXXXXX";
    const int file = mkstemp(name);
    unlink(name);
#endif
    const std::vector<char> part(1 << 20, 1);
    for (size_t done = 0; done < bytes; done += part.size()) {
        if (file < 0 || write(file, part.data(), part.size()) != static_cast<ssize_t>(part.size())) return nullptr;
    }
    return mapped(bytes, file);
}

// Closes the object that was begun.
void print_states(const States& states, double scale, bool brackets) {
    for (const auto& [state, rates] : states.rates) {
        std::printf(", \"%s\": {\"samples\": %zu", state.c_str(), rates.size());
        if (brackets) std::printf(", \"registers\": %.4g", median(states.brackets.at(state)) * scale);
        std::printf(", \"rate\": %.4g}", median(rates) * scale);
    }
    std::printf("}");
}

void print_unit(const Unit& unit, int threads, int samples) {
    std::vector<Operands> operands(static_cast<size_t>(threads));
    for (auto& o : operands) {
        const auto pages = [](size_t bytes) {
            void* found = std::aligned_alloc(4096, bytes);
            std::memset(found, 1, bytes);
            return found;
        };
        o.rows = static_cast<uint8_t*>(pages(4 * kRows * kDepth));
        o.weights = static_cast<int8_t*>(pages(4 * kColumns * kDepth));
        o.sums = static_cast<int32_t*>(pages(1 << 16));
    }
    const auto found = measure(threads, samples, unit, [&](int thread, int) {
        const Operands& o = operands[static_cast<size_t>(thread)];
        return unit.product ? rate(kWork, [&] { return unit.product(o); })
                            : rate(kWork, [&] { return unit.registers(50); });
    });
    std::vector<double> clocks;
    for (const Sample& s : found[0]) clocks.push_back(s.clock);
    std::printf("\"%s\": {\"clock_ghz\": %.3g", unit.name, median(clocks) / 1e9);
    print_states(by_state(found, full_rate(unit, found)), 1e-12, true);
    for (const auto& o : operands) std::free(o.rows), std::free(o.weights), std::free(o.sums);
}

void print_memory(const char* name, const Unit& unit, int threads, int samples, const uint8_t* memory, size_t bytes) {
    const size_t part = bytes / static_cast<size_t>(threads) / 4096 * 4096;
    const auto found = measure(threads, (samples + 1) * kWays, unit, [&](int thread, int sample) {
        const uint8_t* begin = memory + static_cast<size_t>(thread) * part;
        const double start = seconds();
        volatile uint64_t read = read_memory(begin, part, kAhead[sample % kWays]);
        (void)read;
        return static_cast<double>(part) / (seconds() - start);
    });
    auto warm = found;  // pages that were not used for a while are slow at first
    for (auto& samples_of : warm) samples_of.erase(samples_of.begin(), samples_of.begin() + kWays);
    const double full = full_rate(unit, warm);
    States best;
    for (int way = 0; way < kWays; ++way) {
        States states = by_state(warm, full, way, kWays);
        for (auto& [state, rates] : states.rates) {
            auto& kept = best.rates[state];
            if (kept.empty() || median(rates) > median(kept)) kept = rates;
        }
    }
    std::printf("\"%s\": {\"bytes\": %zu", name, bytes);
    print_states(best, 1e-9, false);
}

int run(int count, char** arguments) {
    const int threads = count > 1 ? std::max(1, std::atoi(arguments[1])) : 1;
    const int samples = count > 2 ? std::max(1, std::atoi(arguments[2])) : 40;
    std::vector<const Unit*> usable;
    for (const Unit* unit : kUnits) {
        const bool same =
            std::any_of(usable.begin(), usable.end(), [&](auto* u) { return !std::strcmp(u->name, unit->name); });
        if (!same && unit->usable()) usable.push_back(unit);
    }
    if (usable.empty()) {
        std::fprintf(stderr, "no unit that this program knows\n");
        return 1;
    }
    std::printf("{\"threads\": %d, \"units\": {", threads);
    for (const Unit* unit : usable) {
        if (unit != usable[0]) std::printf(", ");
        print_unit(*unit, threads, samples);
    }
    std::printf("}, \"memory\": {");
    size_t bytes = kWeights, beyond = kBeyond;
    const uint8_t* weights = nullptr;
    struct stat status;
    const int file = count > 3 ? open(arguments[3], O_RDONLY) : -1;
    if (file >= 0 && fstat(file, &status) == 0) {
        bytes = std::min(bytes, static_cast<size_t>(status.st_size));
        weights = mapped(bytes, file);
    } else if (count > 3) {
        std::fprintf(stderr, "%s cannot be read\n", arguments[3]);
        return 1;
    } else {
        weights = page_cache(bytes);
    }
    const int fewer = std::max(1, samples / 4);
    if (weights) print_memory("weights", *usable[0], threads, fewer, weights, bytes);
#if defined(_SC_LEVEL3_CACHE_SIZE)
    beyond = std::max(beyond, 2 * static_cast<size_t>(std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE))));
#endif
    const auto installed = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
    beyond &= ~((size_t{1} << 20) - 1);
    const uint8_t* memory = beyond <= installed / 4 ? page_cache(beyond) : nullptr;
    if (memory) {
        if (weights) std::printf(", ");
        print_memory("beyond_cache", *usable[0], threads, fewer, memory, beyond);
    }
    std::printf("}}\n");
    return 0;
}

}  // namespace
}  // namespace moembed::limits

int main(int count, char** arguments) { return moembed::limits::run(count, arguments); }
