// Turns a row count at run time into one at compile time, so that the compiler keeps the sums of all rows in registers.
#pragma once

#include "common.h"

namespace moembed {
namespace {

template <int N>
struct Count {
    static constexpr int value = N;
};

// Calls f(Count<rows>{}) for 1 <= rows <= Most.
template <int Most, class F>
inline void with_row_count(int rows, F&& f) {
    if constexpr (Most > 1) {
        if (rows < Most) return with_row_count<Most - 1>(rows, f);
    }
    f(Count<Most>{});
}

}  // namespace
}  // namespace moembed
