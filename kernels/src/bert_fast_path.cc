#include "penstock/bert_fast_path.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "penstock/ascii_blocks.h"
#include "penstock/double_array.h"
#include "penstock/normalizer.h"
#include "penstock/unicode.h"
#include "penstock/utf8.h"
#include "penstock/word_cache.h"

namespace penstock {
namespace {

// Bytes looked at for each token that is still wanted, so that little is scanned in vain; chosen.
constexpr std::size_t kBytesPerToken = 8;
constexpr std::size_t kChunkBytesMin = 256;
// Characters of a longer word than this are given back after it.
constexpr std::size_t kCharsKept = std::size_t{1} << 16;

struct Token {
  std::int32_t id;
  std::int32_t begin;  // code points of the original
  std::int32_t end;
  std::int32_t word;  // within what was cut
};

struct BertScratch final : Scratch {
  explicit BertScratch(std::size_t cache_bytes) : cache(cache_bytes) {}

  std::size_t bytes() const noexcept override {
    return sizeof *this + cache.bytes() + chars.capacity() * sizeof(AlignedChar) + normalized.capacity() +
           tokens.capacity() * sizeof(Token);
  }

  void give_back_if_large() noexcept {
    if (chars.capacity() + normalized.capacity() + tokens.capacity() <= kCharsKept) return;
    // Braces alone would assign an empty list and keep the memory.
    chars = AlignedText();
    normalized = std::string();
    tokens = std::vector<Token>();
  }

  WordCache cache;
  WordScan scan;
  WordKeys keys;
  AlignedText chars;
  std::string normalized;
  std::vector<Token> tokens;
};

// A run of characters that is cut by itself.
struct Atom {
  std::string_view text;    // with small ASCII letters if the normaliser makes them
  std::int32_t code_point;  // of its first character
};

class BertFastPath final : public FastPath {
 public:
  BertFastPath(const BlobView& blob, std::int32_t flags, const BlockKernels& kernels);

  std::unique_ptr<Scratch> make_scratch(std::size_t cache_bytes) const override;
  Outcome encode(const Piece& piece, std::size_t tokens_wanted, Scratch& scratch, TokenBuffer& out) const override;
  bool normalize_ascii(std::string_view text, std::string& out) const override;

 private:
  Outcome cut_piece(const Piece& piece, std::size_t tokens_wanted, BertScratch& scratch, TokenBuffer& out) const;
  // Where emitting stands in a piece.
  struct Place {
    std::string_view piece;
    std::size_t at = 0;          // bytes done
    std::int32_t code_point = 0;  // of the byte at `at`
  };

  BlockClass class_of(std::uint32_t c) const noexcept;
  std::size_t chunk_size(const Place& place, std::size_t tokens_wanted) const noexcept;
  bool may_go_on(const Place& place, std::size_t size, const WordScan& scan) const noexcept;
  void emit_endless(Place& place, std::size_t size, BertScratch& scratch, TokenBuffer& out) const;
  bool emit_words(const Place& place, std::size_t words, std::size_t tokens_wanted, BertScratch& scratch,
                  TokenBuffer& out) const;
  void emit_group(const Place& place, std::size_t first, std::size_t count, BertScratch& scratch,
                  TokenBuffer& out) const;
  void emit_missing(const Place& place, std::size_t word, BertScratch& scratch, TokenBuffer& out) const;

  void cut(const Atom& atom, BertScratch& scratch) const;
  bool is_plain(std::string_view text) const noexcept;
  void cut_plain(const Atom& atom, std::vector<Token>& out) const;
  void cut_any(const Atom& atom, BertScratch& scratch) const;
  void cut_word(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, BertScratch& scratch) const;
  void seed(WordCache& cache) const;

  BlobView blob_;
  NormalizerOptions options_;
  const BlockKernels& kernels_;
  BlockClasses classes_;
  DoubleArray vocabulary_;
  DoubleArray::State continuation_;
  std::int32_t unknown_id_;
  std::int64_t word_chars_max_;
};

NormalizerOptions options_of(std::int32_t flags) noexcept {
  return {(flags & kCleanText) != 0, (flags & kHandleChineseChars) != 0, (flags & kStripAccents) != 0,
          (flags & kLowercase) != 0};
}

void push_all(const std::vector<Token>& tokens, TokenBuffer& out) {
  const std::int32_t first = out.words_used();
  for (const Token& token : tokens) out.push(token.id, token.begin, token.end, first + token.word);
  if (!tokens.empty()) out.skip_words(tokens.back().word + 1);
}

BertFastPath::BertFastPath(const BlobView& blob, std::int32_t flags, const BlockKernels& kernels)
    : blob_(blob),
      options_(options_of(flags)),
      kernels_(kernels),
      classes_([this](std::uint32_t c) { return static_cast<std::uint8_t>(class_of(c)); }, options_.lowercase),
      vocabulary_(blob.records<DoubleArray::Node>(Section::kVocabularyTrie)),
      continuation_(vocabulary_.find(blob.text(blob.config().continuing_prefix))),
      unknown_id_(blob.config().unknown_id),
      word_chars_max_(blob.config().word_chars_max) {}

// What ends words must stay in the text, as one character that no mark can be moved across.
BlockClass BertFastPath::class_of(std::uint32_t c) const noexcept {
  const CharInfo& info = UnicodeTables::get().info(c);
  const auto is = [&info](std::uint32_t flag) { return (info.flags & flag) != 0; };
  if (info.combining_class || (options_.strip_accents && is(kMark))) return BlockClass::kWord;
  if (options_.clean_text && is(kCleanRemoved)) return BlockClass::kWord;
  if (is(kWhitespace) || (options_.clean_text && is(kCleanSpace))) return BlockClass::kSpace;
  if (is(kPunctuation) || (options_.handle_chinese_chars && is(kCjk))) return BlockClass::kIsolated;
  return BlockClass::kWord;
}

std::unique_ptr<Scratch> BertFastPath::make_scratch(std::size_t cache_bytes) const {
  auto scratch = std::make_unique<BertScratch>(cache_bytes);
  seed(scratch->cache);
  return scratch;
}

Outcome BertFastPath::encode(const Piece& piece, std::size_t tokens_wanted, Scratch& base, TokenBuffer& out) const {
  auto& scratch = static_cast<BertScratch&>(base);
  const Outcome outcome = cut_piece(piece, tokens_wanted, scratch, out);
  scratch.give_back_if_large();
  return outcome;
}

bool BertFastPath::normalize_ascii(std::string_view text, std::string& out) const {
  // No branch in the loop, so that the compiler makes it one of whole registers.
  unsigned char is_other = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_space = byte == '\t' || byte == '\n' || byte == '\r';
    is_other |= static_cast<unsigned char>(byte >= 0x7f) | static_cast<unsigned char>(byte < 0x20 && !is_space);
  }
  if (is_other) return false;
  out.resize(text.size());
  const unsigned char upper = options_.lowercase ? 0x20 : 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto lower = static_cast<unsigned char>(byte >= 'A' && byte <= 'Z' ? byte | upper : byte);
    out[i] = static_cast<char>(options_.clean_text && byte < 0x20 ? ' ' : lower);
  }
  return true;
}

Outcome BertFastPath::cut_piece(const Piece& piece, std::size_t tokens_wanted, BertScratch& scratch,
                                TokenBuffer& out) const {
  const WordScan& scan = scratch.scan;
  Place place{piece.text, 0, piece.begin};
  while (place.at < piece.text.size()) {
    if (out.size() >= tokens_wanted) return Outcome::kLimitReached;
    std::size_t size = chunk_size(place, tokens_wanted - out.size());
    kernels_.scan(classes_, piece.text.data() + place.at, size, scratch.scan);
    std::size_t words = scan.words;
    std::uint32_t code_points = scan.code_points;
    if (may_go_on(place, size, scan)) {
      // Comes again with the next chunk, at its beginning.
      if (words == 1 && scan.begins[0] == 0) {
        emit_endless(place, size, scratch, out);
        continue;
      }
      size = scan.begins[--words];
      code_points = scan.heads_until(size);
    }
    if (!emit_words(place, words, tokens_wanted, scratch, out)) return Outcome::kLimitReached;
    place.at += size;
    place.code_point += static_cast<std::int32_t>(code_points);
  }
  return Outcome::kDone;
}

std::size_t BertFastPath::chunk_size(const Place& place, std::size_t tokens_wanted) const noexcept {
  const std::size_t wanted = std::min(tokens_wanted, WordScan::kChunkBytes / kBytesPerToken);
  const std::size_t size = std::max(kChunkBytesMin, wanted * kBytesPerToken);
  if (size >= place.piece.size() - place.at) return place.piece.size() - place.at;
  return previous_start(place.piece, place.at + size + 1) - place.at;
}

bool BertFastPath::may_go_on(const Place& place, std::size_t size, const WordScan& scan) const noexcept {
  if (!scan.words || scan.ends[scan.words - 1] != size || place.at + size == place.piece.size()) return false;
  std::size_t begin = place.at + scan.begins[scan.words - 1];
  return classes_.of(next_code_point(place.piece, begin)) == static_cast<std::uint8_t>(BlockClass::kWord);
}

// A word that is longer than a chunk.
void BertFastPath::emit_endless(Place& place, std::size_t size, BertScratch& scratch, TokenBuffer& out) const {
  std::size_t end = place.at + size;
  for (std::size_t next = end; next < place.piece.size(); end = next) {
    if (classes_.of(next_code_point(place.piece, next)) != static_cast<std::uint8_t>(BlockClass::kWord)) break;
  }
  const std::string_view text = place.piece.substr(place.at, end - place.at);
  cut_any({text, place.code_point}, scratch);
  push_all(scratch.tokens, out);
  place.at = end;
  place.code_point += static_cast<std::int32_t>(count_code_points(text));
}

// False if there are tokens_wanted before the words are done.
bool BertFastPath::emit_words(const Place& place, std::size_t words, std::size_t tokens_wanted,
                              BertScratch& scratch, TokenBuffer& out) const {
  for (std::size_t first = 0; first < words; first += WordKeys::kWords) {
    if (out.size() >= tokens_wanted) return false;
    emit_group(place, first, std::min(WordKeys::kWords, words - first), scratch, out);
  }
  return true;
}

void BertFastPath::emit_group(const Place& place, std::size_t first, std::size_t count, BertScratch& scratch,
                              TokenBuffer& out) const {
  kernels_.make_keys(scratch.scan, first, count, scratch.cache, scratch.keys);
  for (std::size_t at = 0; at < count; ++at) {
    out.grow(ShortEntry::kTokensMax * (count - at));
    TokenSink sink{out.ids() + out.size(), nullptr, nullptr, nullptr, out.words_used(), place.code_point};
    if (out.with_spans()) {
      sink.begins = out.begins() + out.size();
      sink.ends = out.ends() + out.size();
      sink.words = out.words() + out.size();
      at = kernels_.emit_spans(scratch.keys, at, count, scratch.cache, scratch.scan, scratch.scan.begins + first, sink);
      out.skip_words(sink.word - out.words_used());
    } else {
      at = kernels_.emit(scratch.keys, at, count, scratch.cache, sink);
    }
    out.advance(static_cast<std::size_t>(sink.ids - out.ids()) - out.size());
    if (at < count) emit_missing(place, first + at, scratch, out);
  }
}

void push_entry(const LongEntry& entry, std::int32_t code_point, TokenBuffer& out) {
  out.grow(LongEntry::kTokensMax);
  const std::size_t size = out.size();
  std::memcpy(out.ids() + size, entry.ids, sizeof entry.ids);
  if (out.with_spans() && entry.count) {
    const std::int32_t word = out.take_word();
    for (std::size_t i = 0; i < LongEntry::kTokensMax; ++i) {
      out.begins()[size + i] = code_point + entry.begins[i];
      out.ends()[size + i] = code_point + entry.ends[i];
      out.words()[size + i] = word;
    }
  }
  out.advance(entry.count);
}

// Whether the tokens are those of one word and can be told by bytes behind its first code point.
bool can_be_kept(const std::vector<Token>& tokens, std::int32_t code_point) noexcept {
  return tokens.size() <= LongEntry::kTokensMax &&
         std::all_of(tokens.begin(), tokens.end(), [code_point](const Token& token) {
           return token.word == 0 && token.end <= code_point + 0xFF;
         });
}

bool is_short(const std::vector<Token>& tokens, std::int32_t code_point) noexcept {
  if (tokens.size() > ShortEntry::kTokensMax) return false;
  std::int32_t end = code_point;
  for (const Token& token : tokens) {
    if (token.begin != end) return false;
    end = token.end;
  }
  return true;
}

// Tokens that can be kept, of a word that is not in the cache.
void keep(const Atom& atom, const std::vector<Token>& tokens, std::uint64_t hash, WordCache& cache) {
  const auto offset = [&](std::int32_t at) { return static_cast<std::uint8_t>(at - atom.code_point); };
  if (atom.text.size() <= ShortEntry::kBytesMax && is_short(tokens, atom.code_point)) {
    ShortEntry entry{WordCache::short_key(atom.text), {}, {}, static_cast<std::uint8_t>(tokens.size())};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      entry.ids[i] = tokens[i].id;
      entry.ends[i] = offset(tokens[i].end);
    }
    return cache.insert(cache.bucket(WordCache::hash(entry.key)), entry);
  }
  LongEntry& entry = cache.insert_long(atom.text, hash);
  entry.count = static_cast<std::uint8_t>(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    entry.ids[i] = tokens[i].id;
    entry.begins[i] = offset(tokens[i].begin);
    entry.ends[i] = offset(tokens[i].end);
  }
}

// A word that is not in the short table.
void BertFastPath::emit_missing(const Place& place, std::size_t word, BertScratch& scratch, TokenBuffer& out) const {
  const WordScan& scan = scratch.scan;
  const std::size_t begin = scan.begins[word];
  const Atom atom{{scan.text + begin, std::size_t{scan.ends[word]} - begin},
                  place.code_point + static_cast<std::int32_t>(scan.heads_until(begin))};
  const bool may_be_kept = atom.text.size() <= LongEntry::kBytesMax;
  std::uint64_t hash = 0;
  if (may_be_kept) {
    hash = WordCache::hash(atom.text);
    if (const LongEntry* entry = scratch.cache.find_long(atom.text, hash))
      return push_entry(*entry, atom.code_point, out);
  }
  cut(atom, scratch);
  push_all(scratch.tokens, out);
  if (may_be_kept && can_be_kept(scratch.tokens, atom.code_point)) keep(atom, scratch.tokens, hash, scratch.cache);
}

// ---- Words that the cache has not got

void BertFastPath::cut(const Atom& atom, BertScratch& scratch) const {
  if (!is_plain(atom.text)) return cut_any(atom, scratch);
  scratch.tokens.clear();
  cut_plain(atom, scratch.tokens);
}

// Whether the normaliser changes nothing but the size of letters.
bool BertFastPath::is_plain(std::string_view text) const noexcept {
  return std::all_of(text.begin(), text.end(), [this](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x80 && (!options_.clean_text || (byte >= 0x20 && byte != 0x7F));
  });
}

void BertFastPath::cut_plain(const Atom& atom, std::vector<Token>& out) const {
  const auto size = static_cast<std::int32_t>(atom.text.size());
  const Token unknown{unknown_id_, atom.code_point, atom.code_point + size, 0};
  if (size > word_chars_max_) return out.push_back(unknown);
  for (std::size_t at = 0; at < atom.text.size();) {
    const DoubleArray::State start = at ? continuation_ : DoubleArray::kRoot;
    const DoubleArray::Match match = vocabulary_.longest(atom.text.substr(at), start);
    if (!match.size) {
      out.clear();
      return out.push_back(unknown);
    }
    const std::int32_t begin = atom.code_point + static_cast<std::int32_t>(at);
    out.push_back({match.value, begin, begin + static_cast<std::int32_t>(match.size), 0});
    at += match.size;
  }
}

void BertFastPath::cut_any(const Atom& atom, BertScratch& scratch) const {
  AlignedText& chars = scratch.chars;
  chars.clear();
  scratch.tokens.clear();
  // That other text stands before it makes no difference: what NFD inserts stands for the character it was
  // inserted after, and as decompositions are in canonical order, no mark of them is moved before that one.
  BertNormalizer(options_, atom.code_point).append(atom.text, chars);

  const UnicodeTables& tables = UnicodeTables::get();
  const AlignedChar* const end = chars.data() + chars.size();
  const AlignedChar* word = chars.data();
  std::int32_t words = 0;
  for (const AlignedChar* c = word; c != end; ++c) {
    const std::uint32_t flags = tables.info(c->code_point).flags;
    if (!(flags & (kWhitespace | kPunctuation))) continue;
    if (word != c) cut_word(word, c, words++, scratch);
    if (!(flags & kWhitespace)) cut_word(c, c + 1, words++, scratch);
    word = c + 1;
  }
  if (word != end) cut_word(word, end, words, scratch);
}

void BertFastPath::cut_word(const AlignedChar* begin, const AlignedChar* end, std::int32_t word,
                            BertScratch& scratch) const {
  std::vector<Token>& out = scratch.tokens;
  const Token unknown{unknown_id_, begin->begin, (end - 1)->end, word};
  if (end - begin > word_chars_max_) return out.push_back(unknown);
  std::string& text = scratch.normalized;
  text.clear();
  for (const AlignedChar* c = begin; c != end; ++c) append_utf8(text, c->code_point);
  const std::size_t tokens_before = out.size();
  const AlignedChar* first = begin;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view rest = std::string_view(text).substr(at);
    const DoubleArray::Match match = vocabulary_.longest(rest, at ? continuation_ : DoubleArray::kRoot);
    if (!match.size) {
      out.resize(tokens_before);
      return out.push_back(unknown);
    }
    const AlignedChar* next = first + count_code_points(rest.substr(0, match.size));
    out.push_back({match.value, first->begin, (next - 1)->end, word});
    first = next;
    at += match.size;
  }
}

// Puts the vocabulary's own words in, so that a thread's first texts find them: each that stays as it is when
// normalised is its only token. The first entries of a vocabulary are its most frequent ones.
void BertFastPath::seed(WordCache& cache) const {
  const auto starts = blob_.records<std::uint32_t>(Section::kTokenStarts);
  const std::string_view texts = blob_.bytes(Section::kTokenTexts);
  if (starts.empty()) return;
  const std::size_t tokens = std::min(starts.size() - 1, cache.short_entries() / 2);
  for (std::size_t id = tokens; id-- > 0;) {
    if (starts[id] >= starts[id + 1] || starts[id + 1] > texts.size()) continue;
    const std::string_view word = texts.substr(starts[id], starts[id + 1] - starts[id]);
    const auto is_small_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
    if (word.size() > ShortEntry::kBytesMax || static_cast<std::int64_t>(word.size()) > word_chars_max_ ||
        !std::all_of(word.begin(), word.end(), is_small_letter) ||
        vocabulary_.get(word) != static_cast<std::int32_t>(id))
      continue;
    const auto size = static_cast<std::uint8_t>(word.size());
    const ShortEntry entry{WordCache::short_key(word), {static_cast<std::int32_t>(id)}, {size}, 1};
    cache.insert(cache.bucket(WordCache::hash(entry.key)), entry);
  }
}

}  // namespace

std::unique_ptr<FastPath> make_bert_fast_path(const BlobView& blob, const BlockKernels* kernels) {
  const auto normalizers = blob.records<StageRecord>(Section::kNormalizers);
  const auto pre_tokenizers = blob.records<StageRecord>(Section::kPreTokenizers);
  const ConfigRecord& config = blob.config();
  if (config.model_kind != static_cast<std::int32_t>(ModelKind::kWordPiece) || config.unknown_id < 0) return nullptr;
  if (pre_tokenizers.size() != 1 || pre_tokenizers[0].kind != static_cast<std::int32_t>(PreTokenizerKind::kBert))
    return nullptr;
  if (normalizers.size() > 1) return nullptr;
  if (!normalizers.empty() && normalizers[0].kind != static_cast<std::int32_t>(NormalizerKind::kBert)) return nullptr;
  const std::int32_t flags = normalizers.empty() ? 0 : normalizers[0].flags;
  return std::make_unique<BertFastPath>(blob, flags, kernels ? *kernels : best_block_kernels());
}

}  // namespace penstock
