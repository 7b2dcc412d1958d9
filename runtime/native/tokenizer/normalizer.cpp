#include "normalizer.h"

#include <algorithm>

namespace moembed {
namespace {

constexpr size_t kPart = 4096;              // bytes of the text read at a time
constexpr size_t kLongestWholeCluster = 5;  // bytes; longer clusters are looked up character by character

size_t characters(const uint8_t* text, size_t size) {
    size_t count = 0;
    for (const uint8_t *p = text, *end = text + size; p < end; p += character_at(p, end).length) ++count;
    return count;
}

struct Appender {
    std::vector<uint8_t>& text;

    void keep(const uint8_t* part, size_t size) { text.insert(text.end(), part, part + size); }
    void replace(const uint8_t*, size_t, Bytes by) { keep(by.data, by.size); }
};

struct Recorder {
    std::vector<uint8_t>& text;
    std::vector<Change>& changes;

    void keep(const uint8_t* part, size_t size) {
        text.insert(text.end(), part, part + size);
        for (const uint8_t *p = part, *end = part + size; p < end; p += changes.back().length) {
            changes.push_back({character_at(p, end).length, 0});
        }
    }

    void replace(const uint8_t* part, size_t size, Bytes by) {
        const auto removed = static_cast<int64_t>(characters(part, size));
        const auto added = static_cast<int64_t>(characters(by.data, by.size));
        keep(by.data, by.size);
        for (int64_t i = 0; i < added - removed; ++i) changes[changes.size() - 1 - static_cast<size_t>(i)].change = 1;
        if (added < removed && !changes.empty()) changes.back().change += added - removed;
    }
};

}  // namespace

Normalizer::Normalizer(const Charsmap& charsmap) : charsmap_(charsmap) {
    for (int c = 0; c < 128; ++c) {
        const auto byte = static_cast<uint8_t>(c);
        Bytes found;
        plain_[c] = c >= 0x20 && c < 0x7F && !charsmap.replacement(&byte, 1, &found);
    }
}

NormalizedParts::NormalizedParts(const Normalizer& normalizer, const uint8_t* text, size_t begin, size_t end,
                                 bool origins)
    : normalizer_(normalizer),
      text_(text),
      p_(text + begin),
      end_(text + end),
      origins_(origins),
      traced_(p_),
      previous_{static_cast<uint32_t>(begin), static_cast<uint32_t>(begin)} {}

bool NormalizedParts::read(Normalized* out) {
    if (p_ == end_) return false;
    if (origins_) {
        Recorder sink{out->text, changes_};
        read_into(sink);
        // Characters that vanish later may still be charged to the last one.
        if (!changes_.empty()) trace(changes_.size() - (p_ < end_ ? 1 : 0), &out->origins);
    } else {
        Appender sink{out->text};
        read_into(sink);
    }
    return true;
}

template <class Sink>
void NormalizedParts::read_into(Sink& sink) {
    const uint8_t* const until = p_ + std::min(kPart, static_cast<size_t>(end_ - p_));
    while (p_ < until) {
        if (in_clusters_) {
            read_cluster(sink);
        } else {
            read_plain(sink);
        }
    }
}

bool NormalizedParts::is_plain(const uint8_t* p) const {
    return *p < 128 && normalizer_.plain_[*p] && (p + 1 == end_ || p[1] < 128);
}

// Reads a run of plain characters, or prepares to read clusters.
template <class Sink>
void NormalizedParts::read_plain(Sink& sink) {
    const uint8_t *const run = p_, *p = p_;
    const uint8_t* const until = p + std::min(kPart, static_cast<size_t>(end_ - p));
    while (p < until && is_plain(p)) ++p;
    p_ = p;
    if (p > run) {
        sink.keep(run, static_cast<size_t>(p - run));
        return;
    }
    // Clusters from here to the next plain run.
    in_clusters_ = true;
    breaks_ = ClusterBreaks();
    next_ = character_at(p, end_);
    breaks_.before(next_.code);
}

// Reads a cluster, or a part of one that is too long to be looked up as a whole.
template <class Sink>
void NormalizedParts::read_cluster(Sink& sink) {
    const Charsmap& charsmap = normalizer_.charsmap_;
    const uint8_t* const cluster = p_;
    bool is_end = false;
    while (!is_end && static_cast<size_t>(p_ - cluster) <= kLongestWholeCluster) {
        p_ += next_.length;
        if (p_ == end_) {
            is_end = true;
        } else {
            next_ = character_at(p_, end_);
            is_end = breaks_.before(next_.code);
        }
    }
    const auto length = static_cast<size_t>(p_ - cluster);
    Bytes by;
    if (!in_long_cluster_ && length <= kLongestWholeCluster && charsmap.replacement(cluster, length, &by)) {
        sink.replace(cluster, length, by);
    } else {
        for (const uint8_t* c = cluster; c < p_;) {
            const uint32_t one = character_at(c, p_).length;
            if (charsmap.replacement(c, one, &by)) {
                sink.replace(c, one, by);
            } else {
                sink.keep(c, one);
            }
            c += one;
        }
    }
    in_long_cluster_ = !is_end;
    if (is_end && p_ < end_ && is_plain(p_)) in_clusters_ = false;
}

// Appends the origins of the first `count` characters in `changes_`, and removes these.
void NormalizedParts::trace(size_t count, std::vector<Span>* origins) {
    const auto next = [&] {
        if (traced_ == end_) return;
        const auto start = static_cast<uint32_t>(traced_ - text_);
        const uint32_t length = character_at(traced_, end_).length;
        previous_ = {start, start + length};
        traced_ += length;
    };
    for (size_t i = 0; i < count; ++i) {
        const Change& change = changes_[i];
        Span origin = previous_;
        if (change.change <= 0) {
            next();
            origin = previous_;
            for (int64_t vanished = 0; vanished < -change.change; ++vanished) next();
        }
        origins->insert(origins->end(), change.length, origin);
    }
    changes_.erase(changes_.begin(), changes_.begin() + static_cast<std::ptrdiff_t>(count));
}

}  // namespace moembed
