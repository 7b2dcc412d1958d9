// One call of an operator's kernel: its inputs, checked, its outputs, and the session's threads.
#pragma once

#include <atomic>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "../kernels/table.h"
#include "abi.h"

namespace moembed::ort {

// What an operator was given cannot be computed; becomes ONNX Runtime's error.
struct Refusal {
    std::string message;
};

// Calls a function of ONNX Runtime that returns a status; throws a Refusal unless it is null.
void check(Functions api, OrtStatus* status);

template <class R = OrtStatus*, class... A>
R invoke(Functions api, Place place, A... arguments) {
    return reinterpret_cast<R (*)(A...)>(reinterpret_cast<void*>(api[static_cast<size_t>(place)]))(arguments...);
}

using Shape = std::vector<int64_t>;

// A dimension that may be anything.
constexpr int64_t kAny = -1;

template <class T>
struct Tensor {
    const T* data;
    Shape shape;

    size_t operator[](size_t axis) const { return static_cast<size_t>(shape[axis]); }
};

// What a node is asked to do, read once when the session is made.
struct Settings {
    const Kernels* kernels = nullptr;
    float epsilon = 0;
    int64_t middle = 0, top_k = 0, heads = 0;
};

// The column sums of a constant packed weight: made when they are first wanted, kept as long as the session.
class ColumnSums {
public:
    ~ColumnSums() { delete[] values_.load(); }

    bool constant = false;
    const int32_t* get() const { return values_.load(std::memory_order_acquire); }
    // Keeps what another call put there first.
    const int32_t* put(std::unique_ptr<int32_t[]> made) {
        int32_t* none = nullptr;
        if (values_.compare_exchange_strong(none, made.get(), std::memory_order_acq_rel)) return made.release();
        return none;
    }

private:
    std::atomic<int32_t*> values_{nullptr};
};

class Call {
public:
    // `sums` has one entry per input.
    Call(Functions api, OrtKernelContext* context, const Settings& settings, ColumnSums* sums)
        : settings(settings), kernels(*settings.kernels), sums_(sums), api_(api), context_(context) {}

    const Settings& settings;
    const Kernels& kernels;

    // Input `index`, called `name` in errors; its shape must be `expected`.
    template <class T>
    Tensor<T> input(size_t index, const char* name, const Shape& expected) const {
        Tensor<T> tensor;
        tensor.data = static_cast<const T*>(raw_input(index, name, expected, tensor.shape));
        return tensor;
    }
    size_t inputs() const;
    ColumnSums& sums(size_t index) const { return sums_[index]; }

    template <class T>
    T* output(size_t index, std::initializer_list<size_t> shape) {
        return static_cast<T*>(raw_output(index, shape));
    }

    // f(i) for every i below `tasks`, on the session's threads, in any order.
    template <class F>
    void parallel(size_t tasks, F f) {
        struct Shared {
            F* f;
            std::atomic<bool> out_of_memory;
        } shared{&f, {false}};
        auto task = [](void* data, size_t i) {
            auto& s = *static_cast<Shared*>(data);
            try {
                (*s.f)(i);
            } catch (...) {  // std::bad_alloc, the only one there is
                s.out_of_memory = true;
            }
        };
        if (tasks == 1) {
            task(&shared, 0);
        } else if (tasks) {
            run(task, tasks, &shared);
        }
        if (shared.out_of_memory) throw Refusal{"not enough memory"};
    }

    // The same for ranges [first, last) of `count` items, at most `size` in each.
    template <class F>
    void ranges(size_t count, size_t size, F f) {
        parallel((count + size - 1) / size, [&](size_t i) {
            const size_t last = (i + 1) * size;
            f(i * size, last < count ? last : count);
        });
    }

private:
    const void* raw_input(size_t index, const char* name, const Shape& expected, Shape& found) const;
    void* raw_output(size_t index, std::initializer_list<size_t> shape);
    void run(void (*task)(void*, size_t), size_t tasks, void* data);

    ColumnSums* sums_;
    Functions api_;
    OrtKernelContext* context_;
};

[[noreturn]] void refuse(const std::string& message);

}  // namespace moembed::ort
