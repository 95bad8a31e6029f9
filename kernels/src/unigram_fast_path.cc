#include "penstock/unigram_fast_path.h"

#include <algorithm>
#include <utility>

#include "penstock/unicode.h"
#include "penstock/utf8.h"
#include "unigram_chain.h"
#include "unigram_run.h"

namespace penstock {
namespace {

// Bytes looked at for each token that is still wanted, so that little is scanned in vain; chosen.
constexpr std::size_t kBytesPerToken = 8;
constexpr std::size_t kChunkBytesMin = 256;
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
    std::int32_t code_point;  // of its first character
    std::size_t last_end;     // of the word before, in the piece
  };

  struct Scanned {
    std::size_t size;
    std::size_t words;
  };

  Piece strip(const Piece& piece) const noexcept;
  Scanned scan(Chunk& chunk, std::size_t tokens_wanted, WordScan& scan) const;
  void emit_long_word(Chunk& chunk, UnigramRun& run) const;
  bool is_separator(std::string_view text, std::size_t at) const noexcept;
  std::size_t word_end(std::string_view text, std::size_t at) const noexcept;
  void emit_group(Chunk& chunk, std::size_t first, std::size_t count, bool one_by_one, UnigramRun& run,
                  UnigramPathScratch& scratch, TokenBuffer& out) const;
  std::size_t emit_hits(const Chunk& chunk, std::size_t first, std::size_t at, std::size_t count, UnigramRun& run,
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
                                       UnigramRun& run, UnigramPathScratch& scratch, TokenBuffer& out) const {
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

void UnigramFastPath::emit_group(Chunk& chunk, std::size_t first, std::size_t count, bool one_by_one, UnigramRun& run,
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
    run.add_separators(text.substr(before, from - before), index);
    run.add({text.substr(from, word_end - word_begin), index, from > 0}, &scratch.keys.keys[at]);
  }
  chunk.last_end = chunk.at + scan.ends[first + count - 1];
}

// How much of the chunk is to be worked off, and its words. A last word that may go on, and the separator
// before any word, are left to the next chunk; none of it if it has nothing but one word.
UnigramFastPath::Scanned UnigramFastPath::scan(Chunk& chunk, std::size_t tokens_wanted, WordScan& scan) const {
  const std::size_t left = chunk.text.size() - chunk.at;
  const std::size_t tokens = std::min(tokens_wanted, WordScan::kChunkBytes / kBytesPerToken);
  const std::size_t size = std::max(kChunkBytesMin, tokens * kBytesPerToken);
  if (size >= left) {
    kernels_.scan(classes_, chunk.text.data() + chunk.at, left, scan);
    return {left, scan.words};
  }
  std::size_t end = previous_start(chunk.text, chunk.at + size + 1) - chunk.at;
  kernels_.scan(classes_, chunk.text.data() + chunk.at, end, scan);
  std::size_t words = scan.words;
  if (words && scan.ends[words - 1] == end) end = scan.begins[--words];
  if (end) end = previous_start(chunk.text, chunk.at + end) - chunk.at;
  return {end, words};
}

// A word that is longer than a chunk, perhaps behind its separator.
void UnigramFastPath::emit_long_word(Chunk& chunk, UnigramRun& run) const {
  const std::string_view text = chunk.text;
  const bool is_led = is_separator(text, chunk.at);
  std::size_t begin = chunk.at;
  if (is_led) next_code_point(text, begin);
  const std::size_t end = word_end(text, begin);
  const std::int32_t index = chunk.code_point + is_led;
  run.add_separators(text.substr(chunk.last_end, begin - chunk.last_end), index);
  run.add({text.substr(begin, end - begin), index, begin > 0}, nullptr);
  chunk.code_point = index + static_cast<std::int32_t>(count_code_points(text.substr(begin, end - begin)));
  chunk.at = chunk.last_end = end;
}

Outcome UnigramFastPath::encode(const Piece& whole, std::size_t tokens_wanted, Scratch& base, TokenBuffer& out) const {
  auto& scratch = static_cast<UnigramPathScratch&>(base);
  const Piece piece = strip(whole);
  const std::string_view text = piece.text;
  const std::size_t size_before = out.size();
  // Where two characters become one space, what stands for it is not one before the word.
  const bool one_by_one =
      out.with_spans() && !chain_.cuts_at_whitespace && text.find("\r\n") != std::string_view::npos;
  UnigramRun run(chain_, kept_, model_, text, scratch, out);
  Chunk chunk{text, 0, piece.begin, 0};
  const auto is_full = [&] { return out.size() >= tokens_wanted; };
  while (chunk.at < text.size() && !run.is_declined() && !is_full()) {
    const auto [size, words] = scan(chunk, tokens_wanted - out.size(), scratch.scan);
    if (!size) {
      emit_long_word(chunk, run);
      continue;
    }
    for (std::size_t first = 0; first < words && !run.is_declined() && !is_full(); first += WordKeys::kWords)
      emit_group(chunk, first, std::min(words - first, WordKeys::kWords), one_by_one, run, scratch, out);
    chunk.code_point += static_cast<std::int32_t>(count_code_points(text.substr(chunk.at, size)));
    chunk.at += size;
  }
  const bool is_cut_short = is_full() && !run.is_declined();
  if (!is_cut_short) {
    run.add_separators(text.substr(chunk.last_end), chunk.code_point);
    run.finish();
  }
  scratch.give_back_if_large();
  if (run.is_declined()) {
    out.shrink(size_before);
    return Outcome::kDeclined;
  }
  out.skip_words(run.next_word() - out.words_used());
  return is_cut_short ? Outcome::kLimitReached : Outcome::kDone;
}

}  // namespace

std::unique_ptr<FastPath> make_unigram_fast_path(const BlobView& blob) {
  auto chain = UnigramChain::of(blob);
  if (!chain) return nullptr;
  return std::make_unique<UnigramFastPath>(blob, std::move(*chain));
}

}  // namespace penstock
