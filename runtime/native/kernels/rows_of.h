// From a number of rows known when it runs to one known when it is compiled, so that sums stay in registers.
#pragma once

#include "bytes.h"

namespace moembed {
namespace {

template <int N>
struct Count {
    static constexpr int value = N;
};

// Calls f(Count<rows>{}) for 1 <= rows <= Most.
template <int Most, class F>
inline void rows_of(int rows, F&& f) {
    if constexpr (Most > 1) {
        if (rows < Most) return rows_of<Most - 1>(rows, f);
    }
    f(Count<Most>{});
}

}  // namespace
}  // namespace moembed
