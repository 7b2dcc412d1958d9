// Memory that a thread keeps from call to call: one buffer for
// the call itself, and one for the tasks that the thread runs.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace moembed::ort {

class Scratch {
public:
    // Returns at least `bytes` uninitialized bytes, aligned to a
    // cache line, valid until the next call of `get` or `trim`.
    void* get(size_t bytes) {
        if (bytes > size_) {
            memory_.reset();
            size_ = 0;
            memory_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{64})));
            size_ = bytes;
        }
        return memory_.get();
    }
    // Frees the memory if an unusually large call made it grow. Not after every operator: the next one of a network would
    // have its pages zeroed again.
    void trim() {
        if (size_ > kKept) {
            memory_.reset();
            size_ = 0;
        }
    }

    static Scratch& of_call() {
        static thread_local Scratch scratch;
        return scratch;
    }
    static Scratch& of_task() {
        static thread_local Scratch scratch;
        return scratch;
    }

private:
    struct Free {
        void operator()(char* p) const { ::operator delete(p, std::align_val_t{64}); }
    };
    static constexpr size_t kKept = size_t{16} << 20;

    std::unique_ptr<char, Free> memory_;
    size_t size_ = 0;
};

// Several arrays in one piece of scratch memory: add all of them, take the memory, then ask for each array.
class Arrays {
public:
    template <class T>
    size_t add(size_t count) {
        const size_t offset = size_;
        size_ += (count * sizeof(T) + 63) / 64 * 64;
        return offset;
    }
    void take(Scratch& scratch) { base_ = static_cast<char*>(scratch.get(size_)); }
    template <class T>
    T* at(size_t offset) const {
        return reinterpret_cast<T*>(base_ + offset);
    }

private:
    size_t size_ = 0;
    char* base_ = nullptr;
};

}  // namespace moembed::ort
