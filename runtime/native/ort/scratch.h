// Memory that a thread uses again and again: one buffer for a call, one for each task of it.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace moembed::ort {

class Scratch {
public:
    // At least `bytes` bytes, aligned to a cache line, with anything in them; valid until the next call of `get` or `trim`.
    void* get(size_t bytes) {
        if (bytes > size_) {
            memory_.reset();
            size_ = 0;
            memory_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{64})));
            size_ = bytes;
        }
        return memory_.get();
    }
    // Gives back what only an unusually large call needed.
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

// Several arrays in one piece of scratch memory: add them all, then take them in the same order.
class Arrays {
public:
    template <class T>
    size_t add(size_t count) {
        const size_t at = size_;
        size_ += (count * sizeof(T) + 63) / 64 * 64;
        return at;
    }
    void take(Scratch& scratch) { base_ = static_cast<char*>(scratch.get(size_)); }
    template <class T>
    T* at(size_t place) const {
        return reinterpret_cast<T*>(base_ + place);
    }

private:
    size_t size_ = 0;
    char* base_ = nullptr;
};

}  // namespace moembed::ort
