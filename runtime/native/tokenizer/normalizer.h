// SentencePiece's normalization exactly as the Rust crates `tokenizers`
// and `spm_precompiled` compute it, quirks included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "charsmap.h"
#include "graphemes.h"
#include "utf8.h"

namespace moembed {

// Bytes [start, end) of the original text. 32 bits, because a word of megabytes has a span for each of its bytes.
struct Span {
    uint32_t start, end;
};
constexpr size_t kMostBytesWithSpans = UINT32_MAX;

struct Normalized {
    std::vector<uint8_t> text;
    // Of every byte of `text`, if requested. Those of the last character come with the next part.
    std::vector<Span> origins;
};

// The normalization rules; safe to share between threads.
class Normalizer {
public:
    explicit Normalizer(const Charsmap& charsmap);

private:
    friend class NormalizedParts;

    const Charsmap& charsmap_;
    bool plain_[128];  // ASCII characters that do not change when another ASCII character follows
};

// What the Rust library records for every character that it emits: 1 for an inserted one, otherwise minus the number of
// characters that vanish after the one that it replaces. Characters that vanish are charged to the character before
// them. At the start of a text there is none, and the record is lost.
struct Change {
    uint32_t length;
    int64_t change;
};

// Normalizes a range of text part by part, in memory that does not grow with the range.
class NormalizedParts {
public:
    // Bytes [begin, end) of `text`, which must outlive this.
    NormalizedParts(const Normalizer& normalizer, const uint8_t* text, size_t begin, size_t end, bool origins);

    // Appends the normal form of the next few kilobytes. Returns false at the end of the range.
    bool read(Normalized* out);

private:
    template <class Sink>
    void read_into(Sink& sink);
    template <class Sink>
    void read_plain(Sink& sink);
    template <class Sink>
    void read_cluster(Sink& sink);
    bool is_plain(const uint8_t* p) const;
    void trace(size_t count, std::vector<Span>* origins);

    const Normalizer& normalizer_;
    const uint8_t* const text_;
    const uint8_t *p_, *const end_;
    // The state within clusters; `next_` is the character at `p_`.
    bool in_clusters_ = false;
    bool in_long_cluster_ = false;
    ClusterBreaks breaks_;
    Character next_{0, 1};
    // Characters whose origins are not known yet, and the end of the text that earlier characters come from.
    const bool origins_;
    std::vector<Change> changes_;
    const uint8_t* traced_;
    Span previous_;
};

}  // namespace moembed
