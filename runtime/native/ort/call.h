// One call of an operator: its checked inputs, its outputs, and the threads of the session.
#pragma once

#include <atomic>
#include <exception>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../float_mode.h"
#include "../kernels/table.h"
#include "abi.h"

namespace moembed::ort {

// The inputs of an operator are invalid.
struct InvalidInput : std::runtime_error {
    using runtime_error::runtime_error;
};

// Throws ONNX Runtime's message unless `status` is null, which stands for success.
void check(const OrtApi& api, OrtStatus* status);

using Shape = std::vector<int64_t>;

// A dimension of any size.
constexpr int64_t kAny = -1;

template <class T>
struct Tensor {
    const T* data = nullptr;
    Shape shape;

    size_t operator[](size_t axis) const { return static_cast<size_t>(shape[axis]); }
};

// The attributes of a node, read when the session is created. An operator ignores those that it does not have.
struct Attributes {
    float epsilon = 0;
    int64_t zero_point = 0;
    int64_t top_k = 0;
    int64_t num_heads = 0;
};

// The column sums of a constant packed weight. Computed on first use and kept for the lifetime of the session.
class ColumnSums {
public:
    ColumnSums() = default;
    ColumnSums(const ColumnSums&) = delete;
    ColumnSums& operator=(const ColumnSums&) = delete;
    ~ColumnSums() { delete[] values_.load(); }

    bool constant = false;
    const int32_t* get() const { return values_.load(std::memory_order_acquire); }
    // Stores the sums, unless another call stored them first. Returns what is stored.
    const int32_t* put(std::unique_ptr<int32_t[]> sums) {
        int32_t* stored = nullptr;
        if (values_.compare_exchange_strong(stored, sums.get(), std::memory_order_acq_rel)) return sums.release();
        return stored;
    }

private:
    std::atomic<int32_t*> values_{nullptr};
};

class Call {
public:
    // `sums` has one element per input.
    Call(const OrtApi& api, OrtKernelContext* context, const Kernels& kernels, size_t threads,
         const Attributes& attributes, ColumnSums* sums)
        : kernels(kernels), threads(threads), attributes(attributes), sums_(sums), api_(api), context_(context) {}

    const Kernels& kernels;
    const size_t threads;  // that tasks are divided for; there may be fewer
    const Attributes& attributes;

    // Input `index`, which errors call `name`. Throws unless its shape matches `expected` or `other`.
    template <class T>
    Tensor<T> input(size_t index, const char* name, const Shape& expected, const Shape& other) const {
        Tensor<T> tensor;
        tensor.data = static_cast<const T*>(raw_input(index, name, expected, other, tensor.shape));
        return tensor;
    }
    template <class T>
    Tensor<T> input(size_t index, const char* name, const Shape& expected) const {
        return input<T>(index, name, expected, expected);
    }
    size_t inputs() const;
    ColumnSums& sums(size_t index) const { return sums_[index]; }

    template <class T>
    T* output(size_t index, std::initializer_list<size_t> shape) {
        return static_cast<T*>(raw_output(index, shape));
    }

    // Calls f(i) for every i below `tasks`, on the threads of the
    // session, in any order. Throws what a task threw first.
    template <class F>
    void parallel(size_t tasks, F f) {
        struct Shared {
            F* f;
            std::atomic<bool> failed;
            std::exception_ptr error;
        } shared{&f, {false}, nullptr};
        auto task = [](void* data, size_t i) {
            auto& s = *static_cast<Shared*>(data);
            const DefaultFloatMode mode;  // of a thread of the pool, whose options may count denormals as zero
            try {
                (*s.f)(i);
            } catch (...) {  // an exception must not reach the thread pool
                if (!s.failed.exchange(true)) s.error = std::current_exception();
            }
        };
        if (tasks == 1) {
            task(&shared, 0);
        } else if (tasks) {
            run(task, tasks, &shared);
        }
        if (shared.error) std::rethrow_exception(shared.error);
    }

    // Calls f(first, last) for ranges of `count` items, with at most `size` items each.
    template <class F>
    void ranges(size_t count, size_t size, F f) {
        parallel((count + size - 1) / size, [&](size_t i) {
            const size_t last = (i + 1) * size;
            f(i * size, last < count ? last : count);
        });
    }

private:
    const void* raw_input(size_t index, const char* name, const Shape& expected, const Shape& other,
                          Shape& found) const;
    void* raw_output(size_t index, std::initializer_list<size_t> shape);
    void run(void (*task)(void*, size_t), size_t tasks, void* data);

    ColumnSums* sums_;
    const OrtApi& api_;
    OrtKernelContext* context_;
};

}  // namespace moembed::ort
