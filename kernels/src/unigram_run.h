// Words of a Unigram tokenizer's fast path, one by one: those that the cache has not got, and those whose
// tokens depend on what is before them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/ascii_blocks.h"
#include "penstock/pipeline.h"
#include "penstock/unigram.h"
#include "penstock/word_cache.h"
#include "unigram_chain.h"

namespace penstock {

struct UnigramPathScratch final : Scratch {
  // Code points are counted from the word's begin, or from a separator before it.
  struct Token {
    std::int32_t id, begin, end;
  };

  explicit UnigramPathScratch(std::size_t cache_bytes) : cache(cache_bytes) {}

  std::size_t bytes() const noexcept override {
    return sizeof *this + cache.bytes() + model.bytes() + text.capacity() + tokens.capacity() * sizeof(Token) +
           (chars.capacity() + spare.capacity() + word.capacity() + run.capacity()) * sizeof(AlignedChar);
  }

  // Gives back what a very long word needed.
  void give_back_if_large();

  WordCache cache;
  WordScan scan;
  WordKeys keys;
  std::uint16_t begins[WordKeys::kWords];
  UnigramScratch model;
  std::string text;
  AlignedText chars, spare, word;
  AlignedText run;
  std::vector<Token> tokens;  // of the last word
};

// A word of the raw text, within the piece: what lies between characters that become spaces.
struct RawWord {
  std::string_view text;
  std::int32_t begin;       // code point of the original
  bool follows_separator;   // else it begins the piece
};

// One call: a piece on its way, word by word. Words come in order; what lies between them is told first.
class UnigramRun {
 public:
  UnigramRun(const UnigramChain& chain, const KeptChars& kept, const Unigram& model, std::string_view piece,
             UnigramPathScratch& scratch, TokenBuffer& out) noexcept
      : chain_(chain),
        kept_(kept),
        model_(model),
        piece_(piece),
        scratch_(scratch),
        out_(out),
        next_word_(out.words_used()) {
    // A call that ran out of memory leaves what it had begun.
    scratch.run.clear();
    scratch.word.clear();
  }

  bool is_declined() const noexcept { return is_declined_; }
  std::int32_t next_word() const noexcept { return next_word_; }
  void set_next_word(std::int32_t word) noexcept { next_word_ = word; }
  // Whether the next word must come through add(), as something before it counts.
  bool is_pending() const noexcept { return !scratch_.run.empty(); }

  // Separators before the next word, or at the end; `end` is the code point behind them.
  void add_separators(std::string_view text, std::int32_t end);
  void add(const RawWord& word, const ShortKey* key);
  void finish();

 private:
  bool is_cacheable(const RawWord& word) const noexcept;
  bool emit_cached(const RawWord& word, std::uint64_t hash);
  void emit_single_separators();
  void emit_tokens(const RawWord& word);
  void insert(const RawWord& word, std::uint64_t hash);

  bool repeat_token(const UnigramCut& cut, const UnigramCut*& last);
  bool cut_kept(const RawWord& word);
  std::uint32_t separator_before(const RawWord& word) const noexcept;
  bool lies_between_cr_and_lf(const RawWord& word) const noexcept;
  bool normalize(const RawWord& word);
  bool has_own_clusters(const RawWord& word);
  bool is_one_word() const noexcept;
  void cut_one_word(const RawWord& word);
  void take_tokens(const AlignedChar* chars, std::size_t size);
  void feed_spaced(const RawWord& word);
  void feed_whitespace_cut(const RawWord& word);
  void feed(AlignedChar c);
  void flush_run();
  void flush_word();
  const UnigramChain& chain_;
  const KeptChars& kept_;
  const Unigram& model_;
  std::string_view piece_;
  UnigramPathScratch& scratch_;
  TokenBuffer& out_;
  std::int32_t next_word_;
  bool has_fed_ = false;  // whether any character of the normalised piece has come
  bool is_declined_ = false;
  bool is_joined_ = false;  // whether the last word normalised may be one cluster with a separator before it
};

}  // namespace penstock
