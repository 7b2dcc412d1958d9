// The floating-point mode of a thread: rounding, and whether denormal numbers count as zero. Libraries change it in the
// threads that load them, and new threads inherit it, so every function of this library that computes floats sets the
// default mode first: rounded to nearest, denormals kept, no traps.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#elif defined(_M_ARM64)
#include <intrin.h>
#endif

namespace moembed {

#if defined(__x86_64__) || defined(_M_X64)
constexpr uint64_t kDefaultFloatMode = 0x1f80, kFloatModeBits = 0xffc0;  // of MXCSR; its other bits are flags of events
inline uint64_t float_mode() { return _mm_getcsr(); }
inline void set_float_mode(uint64_t mode) { _mm_setcsr(static_cast<uint32_t>(mode)); }
#elif defined(__aarch64__)
constexpr uint64_t kDefaultFloatMode = 0, kFloatModeBits = ~uint64_t{0};  // of FPCR
inline uint64_t float_mode() {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
inline void set_float_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#elif defined(_M_ARM64)
constexpr uint64_t kDefaultFloatMode = 0, kFloatModeBits = ~uint64_t{0};
constexpr int kFpcr = ARM64_SYSREG(3, 3, 4, 4, 0);
inline uint64_t float_mode() { return static_cast<uint64_t>(_ReadStatusReg(kFpcr)); }
inline void set_float_mode(uint64_t mode) { _WriteStatusReg(kFpcr, static_cast<__int64>(mode)); }
#else
constexpr uint64_t kDefaultFloatMode = 0, kFloatModeBits = 0;
inline uint64_t float_mode() { return 0; }
inline void set_float_mode(uint64_t) {}
#endif

// Sets the default mode for its lifetime, also if an exception ends it.
class DefaultFloatMode {
public:
    DefaultFloatMode() : before_(float_mode()), changed_((before_ & kFloatModeBits) != kDefaultFloatMode) {
        if (changed_) set_float_mode(kDefaultFloatMode);
    }
    ~DefaultFloatMode() {
        if (changed_) set_float_mode(before_);
    }
    DefaultFloatMode(const DefaultFloatMode&) = delete;
    DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

private:
    uint64_t before_;
    bool changed_;
};

}  // namespace moembed
