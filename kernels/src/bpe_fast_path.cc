#include "penstock/bpe_fast_path.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "penstock/byte_level.h"
#include "penstock/byte_merger.h"
#include "penstock/unicode.h"
#include "penstock/utf8.h"

namespace penstock {
namespace {

// Whether tokens lie side by side, as short entries have it.
bool fits_short(std::string_view word, const std::vector<Part>& parts) noexcept {
  if (word.size() > ShortEntry::kBytesMax || parts.size() > ShortEntry::kTokensMax) return false;
  for (std::size_t i = 1; i < parts.size(); ++i)
    if (parts[i].begin != parts[i - 1].end) return false;
  return true;
}

ShortEntry short_entry(ShortKey key, const std::vector<Part>& parts) noexcept {
  ShortEntry entry{key, {0, 0, 0}, {0, 0, 0}, static_cast<std::uint8_t>(parts.size())};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    entry.ids[i] = parts[i].id;
    entry.ends[i] = static_cast<std::uint8_t>(parts[i].end);
  }
  return entry;
}

class BpeFastPath final : public FastPath {
 public:
  BpeFastPath(const BlobView& blob, const ByteIds& byte_ids, bool adds_space, std::optional<unsigned> form,
              Instructions instructions)
      : merger_(blob, byte_ids),
        classes_(ByteLevelClasses::get()),
        tables_(UnicodeTables::get()),
        loops_(byte_level_loops(instructions)),
        adds_space_(adds_space),
        changed_bit_(static_cast<std::uint8_t>(form ? 1U << (ByteLevelClasses::kInertShift + *form) : 0)) {
    seed(blob);
  }

  std::unique_ptr<Scratch> make_scratch(std::size_t cache_bytes) const override {
    auto room = std::make_unique<Room>(cache_bytes);
    // The words of lower ids, which are more frequent, are inserted last and stay.
    const std::size_t seeds = std::min(seeds_.size(), room->cache.short_entries() / 2);
    for (std::size_t i = seeds; i-- > 0;) {
      ShortBucket& bucket = room->cache.bucket(WordCache::hash(seeds_[i].key));
      if (!WordCache::find(bucket, seeds_[i].key)) room->cache.insert(bucket, seeds_[i]);
    }
    return room;
  }

  bool is_normalized(std::string_view text) const noexcept override { return !changed_bit_ || is_inert(text); }

  Outcome encode(const Piece& piece, std::size_t tokens_wanted, Scratch& scratch, TokenBuffer& out) const override {
    if (!is_normalized(piece.text)) return Outcome::kDeclined;
    Room& room = static_cast<Room&>(scratch);
    std::string_view text = piece.text;
    std::int32_t begin = piece.begin;
    if (adds_space_ && text.front() != ' ') {
      const std::string_view first = text.substr(0, first_match_after_space(text, classes_));
      emit_after_space(first, begin, room, out);
      text.remove_prefix(first.size());
      begin += static_cast<std::int32_t>(count_code_points(first));
      if (text.empty()) return Outcome::kDone;
    }
    WordWindow& window = room.window.emplace(text, begin, out.with_spans());
    for (;;) {
      if (out.size() >= tokens_wanted) return Outcome::kLimitReached;
      const std::size_t wanted = std::min<std::size_t>(tokens_wanted - out.size(), WordWindow::kWordsMax);
      loops_.scan(window, static_cast<std::uint32_t>(wanted), classes_);
      const std::uint32_t words = window.count - !window.is_finished();
      emit(window, words, room, out);
      if (window.is_finished()) return Outcome::kDone;
      window.starts[0] = window.starts[words];
      if (window.with_points) window.points[0] = window.points[words];
      window.count = 1;
    }
  }

 private:
  struct Room final : Scratch {
    explicit Room(std::size_t cache_bytes) : cache(cache_bytes) {}

    WordCache cache;
    Merger merger;
    std::vector<Part> parts;
    std::string word;
    std::optional<WordWindow> window;

    std::size_t bytes() const noexcept override {
      return sizeof(Room) + cache.bytes() + merger.bytes() + parts.capacity() * sizeof(Part) + word.capacity();
    }
    void trim() {
      // Not = {}, which keeps a vector's capacity.
      if (parts.capacity() > kPartsKept) parts = std::vector<Part>();
      if (word.capacity() > kPartsKept) word = std::string();
    }
    static constexpr std::size_t kPartsKept = std::size_t{1} << 14;
  };

  // Where tokens of a word are put.
  struct Place {
    std::int32_t begin;  // of the word, in code points
    std::int32_t word;   // its index
    bool after_space;    // the word's first character is the space added before `begin`
  };

  // Computes what the vocabulary's own words become.
  void seed(const BlobView& blob) {
    const auto starts = blob.records<std::uint32_t>(Section::kTokenStarts);
    const std::string_view texts = blob.bytes(Section::kTokenTexts);
    std::array<std::int16_t, 0x200> byte_of;
    byte_of.fill(-1);
    const auto characters = byte_characters();
    for (std::size_t byte = 0; byte < 256; ++byte) byte_of[characters[byte]] = static_cast<std::int16_t>(byte);
    Merger merger;
    std::vector<Part> parts;
    std::string word;
    for (std::size_t id = 0; id + 1 < starts.size(); ++id) {
      if (starts[id] > starts[id + 1] || starts[id + 1] > texts.size())
        throw std::invalid_argument("the compiled tokenizer's token texts are broken; compile it anew");
      const std::string_view text = texts.substr(starts[id], starts[id + 1] - starts[id]);
      if (!is_utf8(text)) continue;
      word.clear();
      bool is_spelt = true;
      for (std::size_t at = 0; at < text.size() && is_spelt;) {
        const std::uint32_t c = next_code_point(text, at);
        is_spelt = c < byte_of.size() && byte_of[c] >= 0;
        if (is_spelt) word += static_cast<char>(byte_of[c]);
      }
      if (!is_spelt || word.empty() || word.size() > ShortEntry::kBytesMax || !is_utf8(word)) continue;
      merger_.cut(word, merger, parts);
      if (fits_short(word, parts)) seeds_.push_back(short_entry(WordCache::short_key(word), parts));
    }
  }

  // Whether the normaliser leaves the text as it is, alignments included. May say no although it does.
  bool is_inert(std::string_view text) const noexcept {
    std::uint32_t base = ' ';  // the last character of combining class 0
    std::uint8_t last_class = 0;
    for (std::size_t at = 0; at < text.size();) {
      std::uint64_t bytes;
      while (text.size() - at >= 8 && (std::memcpy(&bytes, text.data() + at, 8), (bytes & 0x8080808080808080U) == 0)) {
        at += 8;
        base = static_cast<unsigned char>(text[at - 1]);
        last_class = 0;
      }
      if (at == text.size()) break;
      const std::uint32_t c = next_code_point(text, at);
      if (!(classes_[c] & changed_bit_)) {
        const CharInfo& info = tables_.info(c);
        if (is_decomposed(info) || !stays_behind(base, c, info, last_class)) return false;
        last_class = info.combining_class;
        if (last_class) continue;
      }
      base = c;
      last_class = 0;
    }
    return true;
  }

  static bool is_decomposed(const CharInfo& info) noexcept {
    return info.decomposition || info.compatibility || (info.flags & kHangul);
  }

  // A mark in order stays where it is if it composes with nothing. If its base is decomposed on the way, the
  // alignments of what that leaves may change.
  bool stays_behind(std::uint32_t base, std::uint32_t c, const CharInfo& info, std::uint8_t last_class) const noexcept {
    if (tables_.compose(base, c)) return false;
    return info.combining_class == 0 || (info.combining_class >= last_class && !is_decomposed(tables_.info(base)));
  }

  // Emits words 0 to `words` - 1 of a window.
  void emit(WordWindow& window, std::uint32_t words, Room& room, TokenBuffer& out) const {
    loops_.make_keys(window, words, room.cache);
    const auto loop = out.with_spans() ? loops_.emit_spans : loops_.emit_ids;
    const std::int32_t first_word = out.words_used();
    out.skip_words(static_cast<std::int32_t>(words));
    constexpr std::uint32_t kNear = 4;
    std::uint32_t seen = 0, missed = 0U - kNear;
    for (std::uint32_t word = 0; word < words;) {
      out.grow((words - word) * ShortEntry::kTokensMax);
      TokenSink sink{out.ids(), out.begins(), out.ends(), out.words(), out.size(), first_word};
      word = loop(window, word, words, room.cache, sink);
      out.advance(sink.size - out.size());
      if (word == words) break;
      // Where one word is missing soon after another, more will be: text of a kind that is new to the cache.
      if (word >= seen && word - missed < kNear) seen = prefetch_missing(window, word + 1, words, room.cache);
      missed = word;
      const std::int32_t point = window.with_points ? window.points[word] : 0;
      emit_word(sought(window, word), {point, first_word + static_cast<std::int32_t>(word), false}, room, out);
      ++word;
    }
  }

  static std::string_view text_of(const WordWindow& window, std::uint32_t word) noexcept {
    return {window.text + window.starts[word], window.starts[word + 1] - window.starts[word]};
  }

  // A word to look up.
  struct Sought {
    std::string_view text;
    ShortKey key;              // if it is short enough
    std::uint64_t short_hash;  // of the key
    std::uint64_t long_hash;   // for the long entries

    bool is_short() const noexcept { return text.size() <= ShortEntry::kBytesMax; }
    bool is_cached() const noexcept { return text.size() <= LongEntry::kBytesMax; }
  };

  static Sought sought(std::string_view text, ShortKey key) noexcept {
    const std::uint64_t hash = WordCache::hash(key);
    return {text, key, hash, (hash ^ hash >> 32) * 0x9E3779B97F4A7C15U};
  }
  static Sought sought(std::string_view text) noexcept {
    if (text.size() <= ShortEntry::kBytesMax) return sought(text, WordCache::short_key(text));
    return {text, {}, 0, text.size() <= LongEntry::kBytesMax ? WordCache::hash(text) : 0};
  }
  static Sought sought(const WordWindow& window, std::uint32_t word) noexcept {
    const std::string_view text = text_of(window, word);
    return text.size() <= ShortEntry::kBytesMax ? sought(text, window.keys[word]) : sought(text);
  }

  // Fetches what emit_word() will look at for the next words that the short entries lack; returns where it ended.
  static std::uint32_t prefetch_missing(const WordWindow& window, std::uint32_t word, std::uint32_t words,
                                        const WordCache& cache) noexcept {
    constexpr std::uint32_t kAhead = 16;
    const std::uint32_t end = std::min(words, word + kAhead);
    for (; word < end; ++word) {
      const ShortBucket& bucket = cache.buckets()[window.buckets[word]];
      if (WordCache::find(bucket, window.keys[word])) continue;
      WordCache::prefetch(neighbour_of(bucket, cache));
      const Sought next = sought(window, word);
      if (next.is_cached()) cache.prefetch_long(next.long_hash);
    }
    return end;
  }

  // Emits one word that the loops did not find, whatever its size, and caches it if it fits.
  void emit_word(const Sought& word, const Place& place, Room& room, TokenBuffer& out) const {
    if (word.is_short() && emit_short(word, place, room.cache, out)) return;
    if (word.is_cached()) {
      if (const LongEntry* entry = room.cache.find_long(word.text, word.long_hash)) {
        emit_parts(entry->count, *entry, place, out);
        return;
      }
    }
    merger_.cut(word.text, room.merger, room.parts);
    for (const Part& part : room.parts) {
      const auto [begin, end] = span_of(part.begin, part.end, place);
      out.push(part.id, begin, end, place.word);
    }
    keep(word, room.parts, room.cache);
    room.trim();
  }

  // An earlier word of the window may have been the same; or it was moved out of its bucket.
  static bool emit_short(const Sought& word, const Place& place, WordCache& cache, TokenBuffer& out) {
    ShortBucket& bucket = cache.bucket(word.short_hash);
    ShortBucket& neighbour = neighbour_of(bucket, cache);
    const ShortEntry* entry = WordCache::find(bucket, word.key);
    ShortEntry* moved = nullptr;
    for (std::size_t i = 0; !entry && i < 2; ++i)
      if (neighbour.entries[i].key == word.key) entry = moved = neighbour.entries + i;
    if (!entry) return false;
    const ShortEntry found = *entry;
    for (std::size_t i = 0; i < found.count; ++i) {
      const auto [begin, end] = span_of(i ? found.ends[i - 1] : 0, found.ends[i], place);
      out.push(found.ids[i], begin, end, place.word);
    }
    // Where it was, the entry that it displaces is put.
    if (moved) *moved = exchange_first(bucket, found);
    return true;
  }

  static void emit_parts(std::size_t count, const LongEntry& entry, const Place& place, TokenBuffer& out) {
    out.grow(LongEntry::kTokensMax);
    const std::size_t size = out.size();
    std::memcpy(out.ids() + size, entry.ids, sizeof entry.ids);
    out.advance(count);
    if (!out.with_spans()) return;
    for (std::size_t i = 0; i < count; ++i) {
      const auto [begin, end] = span_of(entry.begins[i], entry.ends[i], place);
      out.begins()[size + i] = begin;
      out.ends()[size + i] = end;
      out.words()[size + i] = place.word;
    }
  }

  static void keep(const Sought& word, const std::vector<Part>& parts, WordCache& cache) {
    if (fits_short(word.text, parts)) {
      ShortBucket& bucket = cache.bucket(word.short_hash);
      keep_displaced(exchange_first(bucket, short_entry(word.key, parts)), bucket, cache);
    } else if (word.is_cached() && parts.size() <= LongEntry::kTokensMax) {
      LongEntry& entry = cache.insert_long(word.text, word.long_hash);
      entry.count = static_cast<std::uint8_t>(parts.size());
      for (std::size_t i = 0; i < parts.size(); ++i) {
        entry.ids[i] = parts[i].id;
        entry.begins[i] = static_cast<std::uint8_t>(parts[i].begin);
        entry.ends[i] = static_cast<std::uint8_t>(parts[i].end);
      }
    }
  }

  // Entries that two others push out of their bucket go to its neighbour, the other half of 128 bytes, where only
  // emit_word() looks.
  static ShortBucket& neighbour_of(const ShortBucket& bucket, const WordCache& cache) noexcept {
    const auto index = static_cast<std::uint64_t>(&bucket - cache.buckets()) ^ 1;
    return cache.bucket(index << cache.short_shift());
  }

  // An entry that leaves its bucket takes a place in the neighbour, and the entry there one among the long ones:
  // both are still found faster than computed.
  static void keep_displaced(const ShortEntry& displaced, const ShortBucket& bucket, WordCache& cache) {
    if (displaced.key.high == 0) return;
    ShortEntry& place = neighbour_of(bucket, cache).entries[1];
    const ShortEntry last = place;
    place = displaced;
    if (last.key.high == 0) return;
    const Sought word = sought({reinterpret_cast<const char*>(&last.key), last.key.high >> 56}, last.key);
    if (cache.find_long(word.text, word.long_hash)) return;
    LongEntry& entry = cache.insert_long(word.text, word.long_hash);
    entry.count = last.count;
    for (std::size_t i = 0; i < last.count; ++i) {
      entry.ids[i] = last.ids[i];
      entry.begins[i] = i ? last.ends[i - 1] : std::uint8_t{0};
      entry.ends[i] = last.ends[i];
    }
  }

  // Puts an entry first and returns the one that leaves the bucket.
  static ShortEntry exchange_first(ShortBucket& bucket, const ShortEntry& entry) noexcept {
    const ShortEntry displaced = bucket.entries[1];
    bucket.entries[1] = bucket.entries[0];
    bucket.entries[0] = entry;
    return displaced;
  }

  void emit_after_space(std::string_view text, std::int32_t begin, Room& room, TokenBuffer& out) const {
    room.word.assign(1, ' ');
    room.word += text;
    emit_word(sought(room.word), {begin, out.take_word(), true}, room, out);
  }

  // Where a token of a word lies, given its characters within the word.
  static std::pair<std::int32_t, std::int32_t> span_of(std::int32_t begin, std::int32_t end,
                                                       const Place& place) noexcept {
    if (!place.after_space) return {place.begin + begin, place.begin + end};
    // The space stands for the same character as the one behind it.
    return {place.begin + std::max(begin - 1, 0), place.begin + std::max(end - 1, 1)};
  }

  ByteMerger merger_;
  const ByteLevelClasses& classes_;
  const UnicodeTables& tables_;
  const ByteLevelLoops& loops_;
  bool adds_space_;
  std::uint8_t changed_bit_;  // what inert characters have; 0 if there is no normaliser
  std::vector<ShortEntry> seeds_;
};

// The symbols of all bytes, if the vocabulary has them.
std::optional<ByteIds> find_byte_ids(const BlobView& blob) {
  const DoubleArray vocabulary(blob.records<DoubleArray::Node>(Section::kVocabularyTrie));
  if (vocabulary.empty()) return std::nullopt;
  const auto characters = byte_characters();
  ByteIds ids;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string symbol;
    append_utf8(symbol, characters[byte]);
    ids[byte] = vocabulary.get(symbol);
    if (ids[byte] < 0) return std::nullopt;
  }
  return ids;
}

}  // namespace

std::unique_ptr<FastPath> make_bpe_fast_path(const BlobView& blob, Instructions instructions) {
  const ConfigRecord& config = blob.config();
  if (config.model_kind != static_cast<std::int32_t>(ModelKind::kBpe) || config.continuing_prefix.size ||
      config.end_suffix.size)
    return nullptr;
  const auto normalizers = blob.records<StageRecord>(Section::kNormalizers);
  const auto pre_tokenizers = blob.records<StageRecord>(Section::kPreTokenizers);
  constexpr std::int32_t kPrefixSpace = 1, kRegex = 2;
  if (pre_tokenizers.size() != 1 ||
      pre_tokenizers[0].kind != static_cast<std::int32_t>(PreTokenizerKind::kByteLevel) ||
      !(pre_tokenizers[0].flags & kRegex))
    return nullptr;
  std::optional<unsigned> form;
  if (!normalizers.empty()) {
    if (normalizers.size() > 1 || normalizers[0].kind != static_cast<std::int32_t>(NormalizerKind::kUnicodeForm) ||
        normalizers[0].number < 0 || normalizers[0].number > 3)
      return nullptr;
    form = static_cast<unsigned>(normalizers[0].number);
  }
  const std::optional<ByteIds> byte_ids = find_byte_ids(blob);
  if (!byte_ids) return nullptr;
  return std::make_unique<BpeFastPath>(blob, *byte_ids, (pre_tokenizers[0].flags & kPrefixSpace) != 0, form,
                                       instructions);
}

}  // namespace penstock
