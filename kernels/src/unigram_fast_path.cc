#include "penstock/unigram_fast_path.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "penstock/graphemes.h"
#include "penstock/unicode.h"
#include "penstock/unigram.h"
#include "penstock/utf8.h"
#include "penstock/word_cache.h"
#include "unigram_chain.h"

namespace penstock {
namespace {

using Prepend = MetaspaceStage::Prepend;

// Bytes looked at for each token that is still wanted, so that little is scanned in vain; chosen.
constexpr std::size_t kBytesPerToken = 8;
constexpr std::size_t kChunkBytesMin = 256;
// Buffers of a longer word than this are given back after its piece.
constexpr std::size_t kCharsKept = std::size_t{1} << 16;

struct UnigramPathScratch final : Scratch {
  explicit UnigramPathScratch(std::size_t cache_bytes) : cache(cache_bytes) {}

  std::size_t bytes() const noexcept override {
    return sizeof *this + cache.bytes() + model.bytes() + text.capacity() + tokens.capacity() * sizeof(LongEntry) +
           (chars.capacity() + spare.capacity() + word.capacity() + run.capacity()) * sizeof(AlignedChar);
  }

  WordCache cache;
  WordScan scan;
  WordKeys keys;
  std::uint16_t begins[WordKeys::kWords];
  UnigramScratch model;
  std::string text;
  AlignedText chars, spare, word;
  AlignedText run;
  struct Token {
    std::int32_t id, begin, end;
  };
  std::vector<Token> tokens;
};

// A word of the raw text: what lies between characters that become spaces.
struct RawWord {
  std::string_view text;
  std::int32_t begin;       // code point of the original
  bool follows_separator;   // else it begins the piece
};

// One call: a piece on its way, word by word.
class Run {
 public:
  Run(const UnigramChain& chain, const KeptChars& kept, const Unigram& model, UnigramPathScratch& scratch,
      TokenBuffer& out) noexcept
      : chain_(chain), kept_(kept), model_(model), scratch_(scratch), out_(out), next_word_(out.words_used()) {
    scratch.run.clear();
  }

  bool is_declined() const noexcept { return is_declined_; }
  std::int32_t next_word() const noexcept { return next_word_; }
  void set_next_word(std::int32_t word) noexcept { next_word_ = word; }
  // Whether the next word must come through add(), as something before it counts.
  bool is_pending() const noexcept { return !scratch_.run.empty(); }

  // Separators before the next word, or at the end.
  void add_separators(std::string_view text, std::int32_t begin);
  void add(const RawWord& word, const ShortKey* key);
  void finish();

 private:
  bool is_cacheable(const RawWord& word) const noexcept;
  bool emit_cached(const RawWord& word, std::uint64_t hash);
  void emit_single_separators();
  void emit_tokens(const RawWord& word);
  void insert(const RawWord& word, std::uint64_t hash);

  bool cut_kept(const RawWord& word);
  bool normalize(const RawWord& word);
  bool is_one_word() const noexcept;
  void cut_one_word(const RawWord& word);
  void take_tokens(const AlignedChar* chars, std::size_t size);
  void feed_spaced(const RawWord& word);
  void feed_whitespace_cut(const RawWord& word);
  void feed(AlignedChar c);
  void flush_run();
  void flush_word();
  bool holds_added(std::string_view text) const noexcept;

  const UnigramChain& chain_;
  const KeptChars& kept_;
  const Unigram& model_;
  UnigramPathScratch& scratch_;
  TokenBuffer& out_;
  std::int32_t next_word_;
  bool has_fed_ = false;  // whether any character of the normalised piece has come
  bool is_declined_ = false;
};

bool Run::holds_added(std::string_view text) const noexcept {
  return std::any_of(chain_.added.begin(), chain_.added.end(),
                     [text](const std::string& token) { return text.find(token) != std::string_view::npos; });
}

void Run::add_separators(std::string_view text, std::int32_t begin) {
  if (chain_.cuts_at_whitespace) return;
  for (std::size_t at = 0; at < text.size(); ++begin) {
    const std::uint32_t c = next_code_point(text, at);
    scratch_.run.push_back({' ', begin, begin + 1});
    // These two are one cluster, and become one space that stands for the first.
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at, ++begin;
  }
}

bool Run::is_cacheable(const RawWord& word) const noexcept {
  return chain_.cuts_at_whitespace ? chain_.prepend != Prepend::kFirst || word.begin > 0 : word.follows_separator;
}

// Tokens of the cache count code points from the word's begin, or from a separator before it.
void Run::add(const RawWord& word, const ShortKey* key) {
  if (is_declined_) return;
  const bool may_cache = is_cacheable(word);
  const bool is_short = word.text.size() <= ShortEntry::kBytesMax;
  const std::uint64_t hash = is_short || !key ? WordCache::hash(word.text) : key->low;
  if (may_cache && emit_cached(word, hash)) return;
  if (!cut_kept(word)) {
    if (!normalize(word)) {
      is_declined_ = true;
      return;
    }
    if (!is_one_word()) {
      if (chain_.cuts_at_whitespace) {
        feed_whitespace_cut(word);
      } else {
        feed_spaced(word);
      }
      return;
    }
    cut_one_word(word);
  }
  if (is_declined_) return;
  if (may_cache) insert(word, hash);
  emit_single_separators();
  emit_tokens(word);
}

bool Run::emit_cached(const RawWord& word, std::uint64_t hash) {
  auto& tokens = scratch_.tokens;
  tokens.clear();
  if (word.text.size() <= ShortEntry::kBytesMax) {
    const ShortKey key = WordCache::short_key(word.text);
    if (const ShortEntry* entry = WordCache::find(scratch_.cache.bucket(WordCache::hash(key)), key)) {
      for (std::size_t i = 0; i < entry->count; ++i)
        tokens.push_back({entry->ids[i], i ? entry->ends[i - 1] : 0, entry->ends[i]});
    }
  }
  if (tokens.empty() && word.text.size() <= LongEntry::kBytesMax) {
    if (const LongEntry* entry = scratch_.cache.find_long(word.text, hash))
      for (std::size_t i = 0; i < entry->count; ++i)
        tokens.push_back({entry->ids[i], entry->begins[i], entry->ends[i]});
  }
  if (tokens.empty()) return false;
  emit_single_separators();
  emit_tokens(word);
  return true;
}

void Run::insert(const RawWord& word, std::uint64_t hash) {
  const auto& tokens = scratch_.tokens;
  if (word.text.size() > LongEntry::kBytesMax || tokens.size() > LongEntry::kTokensMax || tokens.empty()) return;
  bool is_regular = tokens.size() <= ShortEntry::kTokensMax && word.text.size() <= ShortEntry::kBytesMax;
  std::int32_t end = 0;
  for (const auto& token : tokens) {
    is_regular &= token.begin == end;
    end = token.end;
  }
  if (is_regular) {
    ShortEntry entry{WordCache::short_key(word.text), {}, {}, static_cast<std::uint8_t>(tokens.size())};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      entry.ids[i] = tokens[i].id;
      entry.ends[i] = static_cast<std::uint8_t>(tokens[i].end);
    }
    scratch_.cache.insert(scratch_.cache.bucket(WordCache::hash(entry.key)), entry);
    return;
  }
  LongEntry& entry = scratch_.cache.insert_long(word.text, hash);
  entry.count = static_cast<std::uint8_t>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    entry.ids[i] = tokens[i].id;
    entry.begins[i] = static_cast<std::uint8_t>(tokens[i].begin);
    entry.ends[i] = static_cast<std::uint8_t>(tokens[i].end);
  }
}

// Spaces before a word that begins with the last of them.
void Run::emit_single_separators() {
  AlignedText& run = scratch_.run;
  if (run.size() > 1 && !chain_.collapses)
    for (std::size_t i = 0; i + 1 < run.size(); ++i) {
      feed({chain_.mark, run[i].begin, run[i].end});
      flush_word();
    }
}

// The tokens of the one word that was looked up or cut.
void Run::emit_tokens(const RawWord& word) {
  AlignedText& run = scratch_.run;
  const std::int32_t base = word.begin - (chain_.cuts_at_whitespace ? 0 : 1);
  has_fed_ = true;
  out_.grow(scratch_.tokens.size());
  for (const auto& token : scratch_.tokens) {
    std::int32_t begin = base + token.begin, end = base + token.end;
    if (!chain_.cuts_at_whitespace && token.begin == 0) {
      // What stands for the separator, or before a word that has none.
      const AlignedChar mark = run.empty() ? AlignedChar{0, word.begin, word.begin + 1} : run.back();
      begin = mark.begin;
      if (token.end == 1) end = mark.end;
    }
    out_.push(token.id, begin, end, next_word_);
  }
  ++next_word_;
  run.clear();
}

// Cuts a word that normalisation does not change.
bool Run::cut_kept(const RawWord& word) {
  if (!kept_.all(word.text)) return false;
  if (holds_added(word.text)) {
    is_declined_ = true;
    return true;
  }
  const bool has_mark = word.follows_separator && !chain_.cuts_at_whitespace
                            ? true
                            : chain_.prepend == Prepend::kAlways || (chain_.prepend == Prepend::kFirst && !word.begin);
  std::string& text = scratch_.text;
  text.assign(has_mark ? chain_.mark_text : "");
  text += word.text;
  model_.cut_text(text, scratch_.model);
  const auto prefix = static_cast<std::uint32_t>(text.size() - word.text.size());
  const std::int32_t first = chain_.cuts_at_whitespace ? 0 : 1;  // of the word's own characters
  std::int32_t at = first;
  std::uint32_t counted = prefix;
  scratch_.tokens.clear();
  for (const UnigramCut& cut : scratch_.model.cuts) {
    UnigramPathScratch::Token token{cut.id, 0, 0};
    // Tokens of byte fallback share their bytes, so that counting may have to begin again.
    const auto index_of = [&](std::uint32_t byte) {
      if (byte < counted) counted = prefix, at = first;
      at += static_cast<std::int32_t>(count_code_points(std::string_view(text).substr(counted, byte - counted)));
      counted = byte;
      return at;
    };
    token.begin = cut.begin < prefix ? 0 : index_of(cut.begin);
    token.end = cut.end <= prefix ? 1 : index_of(cut.end);
    scratch_.tokens.push_back(token);
  }
  return true;
}

// What a word becomes, in scratch.chars, counted from a space before it; false if that depends on what is
// around the word.
bool Run::normalize(const RawWord& word) {
  AlignedText& chars = scratch_.chars;
  chars.clear();
  chars.push_back({' ', 0, 1});
  for (std::size_t at = 0; at < word.text.size();) {
    const auto index = static_cast<std::int32_t>(chars.size());
    chars.push_back({next_code_point(word.text, at), index, index + 1});
  }
  for (const auto& stage : chain_.stages) stage->apply(chars, scratch_.spare, 0);
  if (chain_.charsmap) {
    GraphemeBreaker breaker;
    breaker.begins(' ');
    bool is_apart = chars.size() < 2 || breaker.begins(chars[1].code_point);
    for (std::size_t i = 2; i < chars.size(); ++i) breaker.begins(chars[i].code_point);
    is_apart &= breaker.begins(' ');
    if (!is_apart) return false;
    PrecompiledStage(*chain_.charsmap).apply(chars, scratch_.spare, 0);
  }
  // At the beginning, deleted characters shift all alignments of the piece.
  if (!word.follows_separator && (chars.size() < 2 || chars[1].begin != 1)) return false;
  if (!chain_.added.empty()) {
    scratch_.text.clear();
    for (const AlignedChar& c : chars) append_utf8(scratch_.text, c.code_point);
    if (holds_added(scratch_.text)) return false;
  }
  const auto is_odd_space = [](const AlignedChar& c) {
    return c.code_point != ' ' && (UnicodeTables::get().info(c.code_point).flags & kWhitespace);
  };
  return !chain_.strips_normalized || std::none_of(chars.begin(), chars.end(), is_odd_space);
}

// Whether it became exactly one word, whose tokens can be counted from the raw word's begin.
bool Run::is_one_word() const noexcept {
  const AlignedText& chars = scratch_.chars;
  const auto ends_words = [this](const AlignedChar& c) {
    return c.code_point == ' ' || c.code_point == chain_.mark ||
           (chain_.cuts_at_whitespace && (UnicodeTables::get().info(c.code_point).flags & kWhitespace));
  };
  return chars.size() > 1 && chars[1].begin == 1 && std::none_of(chars.begin() + 1, chars.end(), ends_words);
}

void Run::cut_one_word(const RawWord& word) {
  AlignedText& chars = scratch_.chars;
  const bool follows = word.follows_separator && !chain_.cuts_at_whitespace;
  const bool has_mark =
      follows || chain_.prepend == Prepend::kAlways || (chain_.prepend == Prepend::kFirst && !word.begin);
  chars[0] = {chain_.mark, 0, 1};
  if (chain_.cuts_at_whitespace) {
    for (AlignedChar& c : chars) --c.begin, --c.end;
    chars[0] = {chain_.mark, chars[1].begin, chars[1].end};
  }
  take_tokens(chars.data() + !has_mark, chars.size() - !has_mark);
}

void Run::take_tokens(const AlignedChar* chars, std::size_t size) {
  std::string& text = scratch_.text;
  text.clear();
  for (std::size_t i = 0; i < size; ++i) append_utf8(text, chars[i].code_point);
  model_.cut_text(text, scratch_.model);
  scratch_.tokens.clear();
  // Bytes come in order, but for those of byte fallback, which repeat.
  std::size_t at = 0;
  std::uint32_t byte = 0;
  const auto char_at = [&](std::uint32_t wanted) {
    if (wanted < byte) at = 0, byte = 0;
    for (; byte < wanted; ++at) {
      std::size_t next = byte;
      next_code_point(text, next);
      byte = static_cast<std::uint32_t>(next);
    }
    return at;
  };
  for (const UnigramCut& cut : scratch_.model.cuts) {
    const std::int32_t begin = chars[char_at(cut.begin)].begin;
    scratch_.tokens.push_back({cut.id, begin, chars[char_at(cut.end) - 1].end});
  }
}

void Run::feed_spaced(const RawWord& word) {
  for (std::size_t i = 1; i < scratch_.chars.size(); ++i) {
    AlignedChar c = scratch_.chars[i];
    c.begin += word.begin - 1;
    c.end += word.begin - 1;
    if (c.code_point == ' ') {
      scratch_.run.push_back(c);
      continue;
    }
    flush_run();
    feed(c);
  }
  flush_word();
}

void Run::feed_whitespace_cut(const RawWord& word) {
  AlignedText& part = scratch_.word;
  const auto flush = [&] {
    flush_word();
    has_fed_ = false;
  };
  has_fed_ = false;
  part.clear();
  for (std::size_t i = 1; i < scratch_.chars.size(); ++i) {
    AlignedChar c = scratch_.chars[i];
    c.begin += word.begin - 1;
    c.end += word.begin - 1;
    if (UnicodeTables::get().info(c.code_point).flags & kWhitespace) {
      flush();
    } else {
      feed(c);
    }
  }
  flush();
}

void Run::flush_run() {
  AlignedText& run = scratch_.run;
  if (run.empty()) return;
  const std::size_t first = chain_.collapses ? run.size() - 1 : 0;
  for (std::size_t i = first; i < run.size(); ++i) feed({chain_.mark, run[i].begin, run[i].end});
  run.clear();
}

// Takes a character of the normalised text, with spaces as marks already.
void Run::feed(AlignedChar c) {
  AlignedText& word = scratch_.word;
  if (!has_fed_) {
    has_fed_ = true;
    word.clear();
    const bool prepends = chain_.prepend == Prepend::kAlways || (chain_.prepend == Prepend::kFirst && !c.begin);
    if (prepends && c.code_point != chain_.mark) word.push_back({chain_.mark, c.begin, c.end});
  }
  if (c.code_point == chain_.mark) flush_word();
  word.push_back(c);
}

void Run::flush_word() {
  AlignedText& word = scratch_.word;
  if (word.empty()) return;
  model_.cut(word.data(), word.data() + word.size(), next_word_++, scratch_.model, out_);
  word.clear();
}

void Run::finish() {
  if (is_declined_) return;
  if (!chain_.strips_normalized) flush_run();
  flush_word();
  for (AlignedText* chars : {&scratch_.chars, &scratch_.spare, &scratch_.word, &scratch_.run})
    if (chars->capacity() > kCharsKept) *chars = {};
  if (scratch_.text.capacity() > kCharsKept) scratch_.text = {};
  if (scratch_.tokens.capacity() > kCharsKept) scratch_.tokens = {};
}

class UnigramFastPath final : public FastPath {
 public:
  UnigramFastPath(const BlobView& blob, UnigramChain chain)
      : chain_(std::move(chain)),
        classes_([this](std::uint32_t c) { return static_cast<std::uint8_t>(chain_.class_of(c)); }, false),
        kept_(chain_),
        model_(blob),
        kernels_(best_block_kernels()) {}

  std::unique_ptr<Scratch> make_scratch(std::size_t cache_bytes) const override {
    return std::make_unique<UnigramPathScratch>(cache_bytes);
  }
  bool watches_added_tokens() const noexcept override { return true; }
  Outcome encode(const Piece& piece, std::size_t tokens_wanted, Scratch& scratch, TokenBuffer& out) const override;

 private:
  struct Chunk {
    std::string_view text;   // the whole piece
    std::size_t at;
    std::size_t size;
    std::int32_t code_point;  // of its first character
    std::size_t last_end;     // of the word before, in the piece
  };

  Piece strip(const Piece& piece) const noexcept;
  bool is_separator(std::string_view text, std::size_t at) const noexcept;
  std::size_t word_end(std::string_view text, std::size_t at) const noexcept;
  void emit_group(Chunk& chunk, std::size_t first, std::size_t count, bool one_by_one, Run& run,
                  UnigramPathScratch& scratch, TokenBuffer& out) const;
  std::size_t emit_hits(const Chunk& chunk, std::size_t first, std::size_t at, std::size_t count, Run& run,
                        UnigramPathScratch& scratch, TokenBuffer& out) const;
  bool has_gaps(const Chunk& chunk, std::size_t first, std::size_t count, const WordScan& scan) const noexcept;

  UnigramChain chain_;
  BlockClasses classes_;
  KeptChars kept_;
  Unigram model_;
  const BlockKernels& kernels_;
};

Piece UnigramFastPath::strip(const Piece& piece) const noexcept {
  const auto is_white = [&](std::size_t at) {
    return (UnicodeTables::get().info(next_code_point(piece.text, at)).flags & kWhitespace) != 0;
  };
  std::size_t begin = 0, end = piece.text.size();
  std::int32_t index = piece.begin;
  if (chain_.strips_left)
    for (; begin < end && is_white(begin); ++index) next_code_point(piece.text, begin);
  if (chain_.strips_right)
    while (end > begin && is_white(previous_start(piece.text, end))) end = previous_start(piece.text, end);
  return {piece.text.substr(begin, end - begin), index};
}

bool UnigramFastPath::is_separator(std::string_view text, std::size_t at) const noexcept {
  return classes_.of(next_code_point(text, at)) == static_cast<std::uint8_t>(BlockClass::kSpace);
}

std::size_t UnigramFastPath::word_end(std::string_view text, std::size_t at) const noexcept {
  while (at < text.size() && !is_separator(text, at)) next_code_point(text, at);
  return at;
}

// Whether more than one byte lies between some words: only then separators can be words themselves.
bool UnigramFastPath::has_gaps(const Chunk& chunk, std::size_t first, std::size_t count,
                               const WordScan& scan) const noexcept {
  std::size_t end = chunk.last_end;
  for (std::size_t i = first; i < first + count; ++i) {
    if (chunk.at + scan.begins[i] > end + 1) return true;
    end = chunk.at + scan.ends[i];
  }
  return false;
}

std::size_t UnigramFastPath::emit_hits(const Chunk& chunk, std::size_t first, std::size_t at, std::size_t count,
                                       Run& run, UnigramPathScratch& scratch, TokenBuffer& out) const {
  out.grow((count - at) * ShortEntry::kTokensMax);
  const std::size_t size = out.size();
  TokenSink sink{out.ids() + size, nullptr, nullptr, nullptr, run.next_word(), chunk.code_point};
  std::size_t next;
  if (out.with_spans()) {
    sink.begins = out.begins() + size;
    sink.ends = out.ends() + size;
    sink.words = out.words() + size;
    const std::uint16_t* begins = chain_.cuts_at_whitespace ? scratch.scan.begins + first : scratch.begins;
    next = kernels_.emit_spans(scratch.keys, at, count, scratch.cache, scratch.scan, begins, sink);
    run.set_next_word(sink.word);
  } else {
    next = kernels_.emit(scratch.keys, at, count, scratch.cache, sink);
  }
  out.advance(static_cast<std::size_t>(sink.ids - out.ids()) - size);
  return next;
}

void UnigramFastPath::emit_group(Chunk& chunk, std::size_t first, std::size_t count, bool one_by_one, Run& run,
                                 UnigramPathScratch& scratch, TokenBuffer& out) const {
  const WordScan& scan = scratch.scan;
  const std::string_view text = chunk.text;
  kernels_.make_keys(scan, first, count, scratch.cache, scratch.keys);
  if (out.with_spans() && !chain_.cuts_at_whitespace) {
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t begin = scan.begins[first + i];
      if (begin) begin = previous_start(text, chunk.at + begin) - chunk.at;
      scratch.begins[i] = static_cast<std::uint16_t>(begin);
    }
  }
  one_by_one |= !chain_.cuts_at_whitespace && !chain_.collapses && has_gaps(chunk, first, count, scan);
  for (std::size_t at = 0; at < count && !run.is_declined(); ++at) {
    // What begins the piece, or has something before it that is not a single separator, is a case for add().
    const std::size_t begin = chunk.at + scan.begins[first + at];
    const bool is_plain = begin > 0 && !run.is_pending() && !one_by_one;
    if (is_plain) {
      at = emit_hits(chunk, first, at, count, run, scratch, out);
      if (at == count) break;
    }
    const std::size_t word_begin = scan.begins[first + at], word_end = scan.ends[first + at];
    const std::size_t before = at ? chunk.at + scan.ends[first + at - 1] : chunk.last_end;
    const std::size_t from = chunk.at + word_begin;
    const std::int32_t index = chunk.code_point + static_cast<std::int32_t>(scan.heads_until(word_begin));
    const std::string_view gap = text.substr(before, from - before);
    run.add_separators(gap, index - static_cast<std::int32_t>(count_code_points(gap)));
    run.add({text.substr(from, word_end - word_begin), index, from > 0}, &scratch.keys.keys[at]);
  }
  chunk.last_end = chunk.at + scan.ends[first + count - 1];
}

Outcome UnigramFastPath::encode(const Piece& whole, std::size_t tokens_wanted, Scratch& base, TokenBuffer& out) const {
  auto& scratch = static_cast<UnigramPathScratch&>(base);
  const Piece piece = strip(whole);
  const std::string_view text = piece.text;
  const std::size_t size_before = out.size();
  // Where two characters become one space, what stands for it is not one before the word.
  const bool one_by_one =
      out.with_spans() && !chain_.cuts_at_whitespace && text.find("\r\n") != std::string_view::npos;
  Run run(chain_, kept_, model_, scratch, out);
  Chunk chunk{text, 0, 0, piece.begin, 0};
  bool is_unfinished = false;
  while (chunk.at < text.size() && !run.is_declined() && !is_unfinished) {
    const std::size_t wanted = std::min(tokens_wanted - std::min(out.size(), tokens_wanted), WordScan::kChunkBytes / kBytesPerToken);
    chunk.size = std::max(kChunkBytesMin, wanted * kBytesPerToken);
    const bool is_last = chunk.size >= text.size() - chunk.at;
    chunk.size = is_last ? text.size() - chunk.at : previous_start(text, chunk.at + chunk.size + 1) - chunk.at;
    kernels_.scan(classes_, text.data() + chunk.at, chunk.size, scratch.scan);
    std::size_t words = scratch.scan.words;
    // The last word may go on; the separator before a word stays with it.
    std::size_t end = chunk.size;
    if (!is_last && words && scratch.scan.ends[words - 1] == chunk.size) end = scratch.scan.begins[--words];
    if (!is_last) end = end ? previous_start(text, chunk.at + end) - chunk.at : 0;
    for (std::size_t first = 0; first < words && !run.is_declined() && !is_unfinished; first += WordKeys::kWords) {
      emit_group(chunk, first, std::min(words - first, WordKeys::kWords), one_by_one, run, scratch, out);
      is_unfinished = out.size() >= tokens_wanted;
    }
    if (is_unfinished || run.is_declined()) break;
    if (!end) {
      // One word that is longer than a chunk, perhaps behind its separator.
      const bool is_led = is_separator(text, chunk.at);
      std::size_t begin = chunk.at;
      if (is_led) next_code_point(text, begin);
      const std::size_t to = word_end(text, begin);
      const std::string_view gap = text.substr(chunk.last_end, begin - chunk.last_end);
      const std::int32_t index = chunk.code_point + is_led;
      run.add_separators(gap, index - static_cast<std::int32_t>(count_code_points(gap)));
      run.add({text.substr(begin, to - begin), index, begin > 0}, nullptr);
      chunk.last_end = to;
      end = to - chunk.at;
      chunk.code_point = index + static_cast<std::int32_t>(count_code_points(text.substr(begin, to - begin)));
    } else {
      chunk.code_point += static_cast<std::int32_t>(count_code_points(text.substr(chunk.at, end)));
    }
    chunk.at += end;
    is_unfinished = out.size() >= tokens_wanted;
  }
  if (!is_unfinished && !run.is_declined()) {
    const std::string_view gap = text.substr(chunk.last_end);
    run.add_separators(gap, chunk.code_point - static_cast<std::int32_t>(count_code_points(gap)));
    run.finish();
  }
  if (run.is_declined()) {
    out.shrink(size_before);
    return Outcome::kDeclined;
  }
  out.skip_words(run.next_word() - out.words_used());
  return is_unfinished ? Outcome::kLimitReached : Outcome::kDone;
}

}  // namespace

std::unique_ptr<FastPath> make_unigram_fast_path(const BlobView& blob) {
  auto chain = UnigramChain::of(blob);
  if (!chain) return nullptr;
  return std::make_unique<UnigramFastPath>(blob, std::move(*chain));
}

}  // namespace penstock
