// The stages that a tokenizer is put together from, and what they share.
//
// There are two ways for a piece of text (what lies between added tokens). The general one runs any supported
// chain of stages, character by character with alignments: it is the specification in C++. A fast path does
// the same for one family of chains, several times to a hundred times faster; what it cannot do, it declines.
// Both must give the same tokens, which the tests hold them to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "penstock/aligned_text.h"
#include "penstock/token_buffer.h"

namespace penstock {

// Everything below is immutable after construction and shared by threads; what changes lies in a scratch
// that each thread has for itself, and in which nothing may be kept that results depend on.

class NormalizerStage {
 public:
  virtual ~NormalizerStage() = default;
  // Changes `text`; `spare` is room for it and may be swapped with it. `piece_begin` is where the piece starts
  // in the original, in code points: characters inserted before anything else stand for [begin, begin).
  virtual void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const = 0;
};

class PreTokenizerStage {
 public:
  virtual ~PreTokenizerStage() = default;
  // Cuts, and may rewrite, the words that the stages before left; `spare` is room and may be swapped.
  virtual void apply(Words& words, Words& spare) const = 0;
};

// Room that a stage or a fast path needs in each thread (caches, buffers).
class Scratch {
 public:
  virtual ~Scratch() = default;
  // Bytes held now. Bounded by what make_scratch() was told and by the longest text.
  virtual std::size_t bytes() const noexcept = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual std::unique_ptr<Scratch> make_scratch() const = 0;
  // Cuts one word (not empty) into tokens and pushes them; `word` is its index for TokenBuffer::words.
  // A token stands for [begin of its first character, end of its last).
  virtual void cut(const AlignedChar* begin, const AlignedChar* end, std::int32_t word, Scratch& scratch,
                   TokenBuffer& out) const = 0;
};

// A piece of one text: what lies between added tokens.
struct Piece {
  std::string_view text;  // valid UTF-8, not empty
  std::int32_t begin;     // code points of the original before it
};

enum class Outcome : std::uint8_t {
  kDone,          // the whole piece is in the buffer
  kLimitReached,  // there are tokens_wanted tokens or more; what follows was left out
  kDeclined,      // nothing was written: the general way must take this piece
};

class FastPath {
 public:
  virtual ~FastPath() = default;
  // `cache_bytes` bounds what the word caches may hold.
  virtual std::unique_ptr<Scratch> make_scratch(std::size_t cache_bytes) const = 0;
  // Appends the tokens of a piece, and their spans if the buffer has them, stopping soon after there are
  // tokens_wanted in the buffer. Linear in the piece's size.
  virtual Outcome encode(const Piece& piece, std::size_t tokens_wanted, Scratch& scratch,
                         TokenBuffer& out) const = 0;
  // Whether encode() declines every piece in whose normalised text an added token lies that is matched there.
  virtual bool watches_added_tokens() const noexcept { return false; }
  // Whether the normalisers are known to leave the text as it is. Linear.
  virtual bool is_normalized(std::string_view) const noexcept { return false; }
  // Makes `out` the normalised form of the text, if that is ASCII of the same size: then each byte of one stands
  // for that of the other. False where it is not known to be. Linear.
  virtual bool normalize_ascii(std::string_view, std::string& out) const {
    out.clear();
    return false;
  }
};

}  // namespace penstock
