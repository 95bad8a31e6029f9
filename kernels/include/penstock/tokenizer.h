// A compiled tokenizer: one text to its tokens. Truncation, templates and padding come after (encode.h).
//
// The way of a text, as tokenizers 0.23.3 has it: cut at added tokens; each piece between them is normalised,
// cut at added tokens that are matched on normalised text, cut into words by the pre-tokenisers, and each word
// into tokens by the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "penstock/added_tokens.h"
#include "penstock/blob.h"
#include "penstock/pipeline.h"
#include "penstock/token_buffer.h"

namespace penstock {

struct TokenizeOptions {
  static constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

  std::size_t tokens_wanted = kNoLimit;  // stop soon after so many
  bool split_special_tokens = false;     // special added tokens are text like any other
  bool with_spans = false;               // fill the buffer's begins, ends and words
  bool with_added_spaces = false;        // and, with these, its added_spaces
};

// Immutable after construction: any number of threads may use one, each with a context of its own.
class Tokenizer {
 public:
  // What one thread needs besides: caches and buffers. Belongs to the tokenizer that made it.
  class Context {
   public:
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    // Bytes held now.
    std::size_t bytes() const noexcept;

   private:
    friend class Tokenizer;
    Context();
    struct Parts;
    std::unique_ptr<Parts> parts_;
  };

  static constexpr std::size_t kTextBytesMax = 0x7FFFFFFF;

  // Reads the blob in place: it must outlive the tokenizer. Throws std::invalid_argument if the blob is broken
  // or two added tokens become the same when normalised. `with_fast_path` false leaves the general way only,
  // which the tests compare with.
  explicit Tokenizer(BlobView blob, bool with_fast_path = true);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  std::unique_ptr<Context> make_context(std::size_t cache_bytes) const;

  // Tokens of valid UTF-8 of at most kTextBytesMax bytes; `out` is reset first. Throws std::bad_alloc only.
  void tokenize(std::string_view text, const TokenizeOptions& options, Context& context, TokenBuffer& out) const;

  const BlobView& blob() const noexcept { return blob_; }
  // Name of the fast path in use, or "general".
  const char* path_name() const noexcept;

 private:
  struct Stages;

  bool tokenize_piece(const Piece& piece, const TokenizeOptions& options, Context& context, TokenBuffer& out) const;
  bool tokenize_generally(const Piece& piece, bool finds_tokens, const TokenizeOptions& options, Context& context,
                          TokenBuffer& out) const;
  bool cut_words(Context& context, std::size_t tokens_wanted, TokenBuffer& out) const;

  BlobView blob_;
  std::unique_ptr<const Stages> stages_;
};

}  // namespace penstock
