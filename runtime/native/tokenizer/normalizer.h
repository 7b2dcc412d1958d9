// SentencePiece's normalisation as the Rust crates `tokenizers` and `spm_precompiled` do it, clusters and quirks included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "charsmap.h"

namespace moembed {

// Bytes [start, end) of the text as it was given.
struct Span {
    size_t start, end;
};

struct Normalized {
    std::vector<uint8_t> text;
    std::vector<Span> origins;  // of every byte of `text`; only if they were asked for
};

class Normalizer {
public:
    explicit Normalizer(const Charsmap& charsmap);

    // Replaces `out` by the normal form of `text`.
    void run(const uint8_t* text, size_t size, Normalized* out) const;

    // The same with origins; `shift` is where `text` begins in the text as it was given.
    void run_with_origins(const uint8_t* text, size_t size, size_t shift, Normalized* out) const;

private:
    template <class Sink>
    void each_part(const uint8_t* text, size_t size, Sink& sink) const;

    const Charsmap& charsmap_;
    bool plain_[128];  // ASCII that stays as it is when another ASCII character follows
};

}  // namespace moembed
