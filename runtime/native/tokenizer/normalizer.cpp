#include "normalizer.h"

#include "graphemes.h"
#include "utf8.h"

namespace moembed {
namespace {

constexpr size_t kLongestWholeCluster = 5;  // longer ones are looked up character by character

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

// What the Rust library notes of every character it emits: 1 for an inserted one, else minus the characters that vanish
// after the one it replaces. A part that vanishes is charged to the character before it; at the start there is none, and
// the note is lost.
struct Change {
    uint32_t length;
    int64_t change;
};

struct Recorder {
    std::vector<uint8_t>& text;
    std::vector<Change> changes;

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

void trace(const std::vector<Change>& changes, const uint8_t* text, size_t size, size_t shift, std::vector<Span>* origins) {
    const uint8_t *p = text, *const end = text + size;
    Span previous{shift, shift};
    const auto next = [&] {
        if (p == end) return;
        const size_t start = shift + static_cast<size_t>(p - text);
        const uint32_t length = character_at(p, end).length;
        previous = {start, start + length};
        p += length;
    };
    for (const Change& change : changes) {
        Span origin = previous;
        if (change.change <= 0) {
            next();
            origin = previous;
            for (int64_t i = 0; i < -change.change; ++i) next();
        }
        origins->insert(origins->end(), change.length, origin);
    }
}

}  // namespace

Normalizer::Normalizer(const Charsmap& charsmap) : charsmap_(charsmap) {
    for (int c = 0; c < 128; ++c) {
        const auto byte = static_cast<uint8_t>(c);
        Bytes found;
        plain_[c] = c >= 0x20 && c < 0x7F && !charsmap.replacement(&byte, 1, &found);
    }
}

void Normalizer::run(const uint8_t* text, size_t size, Normalized* out) const {
    out->text.clear();
    out->origins.clear();
    Appender sink{out->text};
    each_part(text, size, sink);
}

void Normalizer::run_with_origins(const uint8_t* text, size_t size, size_t shift, Normalized* out) const {
    out->text.clear();
    out->origins.clear();
    Recorder sink{out->text, {}};
    each_part(text, size, sink);
    trace(sink.changes, text, size, shift, &out->origins);
}

template <class Sink>
void Normalizer::each_part(const uint8_t* text, size_t size, Sink& sink) const {
    const uint8_t* const end = text + size;
    Bytes by;
    for (const uint8_t* p = text; p < end;) {
        const uint8_t* run = p;
        while (p < end && *p < 128 && plain_[*p] && (p + 1 == end || p[1] < 128)) ++p;
        if (p > run) {
            sink.keep(run, static_cast<size_t>(p - run));
            continue;
        }
        // From here to the next plain run; a cluster never reaches over the start of one.
        ClusterBreaks breaks;
        Character next = character_at(p, end);
        breaks.before(next.code);
        while (p < end) {
            const uint8_t* const cluster = p;
            do {
                p += next.length;
                if (p == end) break;
                next = character_at(p, end);
            } while (!breaks.before(next.code));
            const auto length = static_cast<size_t>(p - cluster);
            if (length <= kLongestWholeCluster && charsmap_.replacement(cluster, length, &by)) {
                sink.replace(cluster, length, by);
            } else {
                for (const uint8_t* c = cluster; c < p;) {
                    const uint32_t one = character_at(c, p).length;
                    if (charsmap_.replacement(c, one, &by)) {
                        sink.replace(c, one, by);
                    } else {
                        sink.keep(c, one);
                    }
                    c += one;
                }
            }
            if (p < end && *p < 128 && plain_[*p] && (p + 1 == end || p[1] < 128)) break;
        }
    }
}

}  // namespace moembed
