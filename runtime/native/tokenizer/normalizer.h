// SentencePiece's normalisation as the Rust crates `tokenizers` and `spm_precompiled` do it, clusters and quirks included.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "charsmap.h"
#include "graphemes.h"
#include "utf8.h"

namespace moembed {

// Bytes [start, end) of the text as it was given. A word of megabytes has one for each of its bytes.
struct Span {
    uint32_t start, end;
};
constexpr size_t kMostBytesWithSpans = UINT32_MAX;

struct Normalized {
    std::vector<uint8_t> text;
    // Of every byte of `text`, only if they were asked for. The last character's come with the next part.
    std::vector<Span> origins;
};

// The rules; safe to share between threads.
class Normalizer {
public:
    explicit Normalizer(const Charsmap& charsmap);

private:
    friend class NormalizedParts;

    const Charsmap& charsmap_;
    bool plain_[128];  // ASCII that stays as it is when another ASCII character follows
};

// What the Rust library notes of every character it emits: 1 for an inserted one, else minus the characters that vanish
// after the one it replaces. A part that vanishes is charged to the character before it; at the start there is none, and
// the note is lost.
struct Change {
    uint32_t length;
    int64_t change;
};

// The normal form of a stretch of text, part by part: its memory does not grow with the stretch.
class NormalizedParts {
public:
    // Bytes [begin, end) of `text`, which must outlive this.
    NormalizedParts(const Normalizer& normalizer, const uint8_t* text, size_t begin, size_t end, bool origins);

    // Appends the normal form of the next few kilobytes. False: nothing was left.
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
    // Within clusters: where the next one begins, and its first character.
    bool in_clusters_ = false;
    bool in_long_cluster_ = false;
    ClusterBreaks breaks_;
    Character next_{0, 1};
    // Of characters whose origins are not known yet, and how far those of the others reach.
    const bool origins_;
    std::vector<Change> changes_;
    const uint8_t* traced_;
    Span previous_;
};

}  // namespace moembed
