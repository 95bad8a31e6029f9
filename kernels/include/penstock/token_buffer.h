// Tokens of one text, before truncation and templates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace penstock {

// Space characters at the ends of what an added token matched, counted in the text that it was found in: the
// normalised one for tokens that are matched there.
struct AddedSpaces {
  std::size_t token;  // its index in the buffer
  std::size_t leading;
  std::size_t trailing;
};

// Growing arrays of ids and, if asked for, of where each token comes from. Fast paths write behind the end
// themselves: grow(n) first, which guarantees room for n tokens and kSlack more, then advance(). Storage is
// kept from text to text. Not thread-safe.
class TokenBuffer {
 public:
  // Room behind the tokens asked for, so that stores of a whole vector register need no check.
  static constexpr std::size_t kSlack = 32;

  // Forgets the tokens; `with_spans` says whether begins, ends and words are kept for the next ones.
  void reset(bool with_spans) noexcept {
    size_ = 0;
    words_ = 0;
    added_spaces_.clear();
    with_spans_ = with_spans;
    if (with_spans && !begins_) capacity_ = 0;
  }

  std::size_t size() const noexcept { return size_; }
  bool with_spans() const noexcept { return with_spans_; }
  // Tokens that there is room for.
  std::size_t capacity() const noexcept { return capacity_; }

  const std::int32_t* ids() const noexcept { return ids_.get(); }
  // Code points of the original text, [begin, end), and the index of the split that the token was cut from.
  // Only with spans.
  const std::int32_t* begins() const noexcept { return begins_.get(); }
  const std::int32_t* ends() const noexcept { return ends_.get(); }
  const std::int32_t* words() const noexcept { return word_of_.get(); }

  std::int32_t* ids() noexcept { return ids_.get(); }
  std::int32_t* begins() noexcept { return begins_.get(); }
  std::int32_t* ends() noexcept { return ends_.get(); }
  std::int32_t* words() noexcept { return word_of_.get(); }

  // Makes room for `tokens` more. Pointers taken before are void. Throws std::bad_alloc.
  void grow(std::size_t tokens) {
    if (size_ + tokens + kSlack > capacity_) reallocate(size_ + tokens + kSlack);
  }
  // Takes over `tokens` that were written behind the end.
  void advance(std::size_t tokens) noexcept { size_ += tokens; }
  // Drops tokens from the end.
  void shrink(std::size_t size) noexcept { size_ = size; }

  void push(std::int32_t id, std::int32_t begin, std::int32_t end, std::int32_t word) {
    grow(1);
    ids_[size_] = id;
    if (with_spans_) {
      begins_[size_] = begin;
      ends_[size_] = end;
      word_of_[size_] = word;
    }
    ++size_;
  }

  // Of the added tokens, in order; only if the tokens were asked for so.
  const std::vector<AddedSpaces>& added_spaces() const noexcept { return added_spaces_; }
  std::vector<AddedSpaces>& added_spaces() noexcept { return added_spaces_; }

  // The running index of splits: every split takes one, also one that gives no tokens.
  std::int32_t take_word() noexcept { return words_++; }
  std::int32_t words_used() const noexcept { return words_; }
  void skip_words(std::int32_t count) noexcept { words_ += count; }

 private:
  static void move_to(std::unique_ptr<std::int32_t[]>& from, std::size_t size, std::size_t capacity) {
    std::unique_ptr<std::int32_t[]> to(new std::int32_t[capacity]);
    if (size) std::memcpy(to.get(), from.get(), size * sizeof(std::int32_t));
    from = std::move(to);
  }

  void reallocate(std::size_t wanted) {
    const std::size_t capacity = wanted + wanted / 2 + 256;
    move_to(ids_, size_, capacity);
    if (with_spans_) {
      const std::size_t kept = begins_ ? size_ : 0;
      move_to(begins_, kept, capacity);
      move_to(ends_, kept, capacity);
      move_to(word_of_, kept, capacity);
    } else {
      begins_.reset();
      ends_.reset();
      word_of_.reset();
    }
    capacity_ = capacity;
  }

  std::unique_ptr<std::int32_t[]> ids_, begins_, ends_, word_of_;
  std::vector<AddedSpaces> added_spaces_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  std::int32_t words_ = 0;
  bool with_spans_ = false;
};

}  // namespace penstock
