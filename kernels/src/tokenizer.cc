#include "penstock/tokenizer.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "penstock/bert_fast_path.h"
#include "penstock/bpe.h"
#include "penstock/bpe_fast_path.h"
#include "penstock/byte_level.h"
#include "penstock/metaspace.h"
#include "penstock/normalizer.h"
#include "penstock/normalizers.h"
#include "penstock/pre_tokenizers.h"
#include "penstock/precompiled.h"
#include "penstock/unigram.h"
#include "penstock/unigram_fast_path.h"
#include "penstock/utf8.h"
#include "penstock/wordpiece_model.h"

namespace penstock {
namespace {

// Buffers of a longer text than this are given back after it.
constexpr std::size_t kCharsKept = std::size_t{1} << 16;

using NormalizerStages = std::vector<std::unique_ptr<const NormalizerStage>>;
using PreTokenizerStages = std::vector<std::unique_ptr<const PreTokenizerStage>>;

class BertNormalizerStage final : public NormalizerStage {
 public:
  explicit BertNormalizerStage(std::int32_t flags) noexcept
      : options_{(flags & kCleanText) != 0, (flags & kHandleChineseChars) != 0, (flags & BertFlag::kStripAccents) != 0,
                 (flags & BertFlag::kLowercase) != 0} {}

  void apply(AlignedText& text, AlignedText& spare, std::int32_t piece_begin) const override {
    BertNormalizer normalizer(options_, piece_begin);
    spare.clear();
    for (const AlignedChar& c : text) normalizer.push(c, spare);
    normalizer.end(spare);
    text.swap(spare);
  }

 private:
  NormalizerOptions options_;
};

[[noreturn]] void refuse(const char* what, std::int32_t kind) {
  throw std::invalid_argument(std::string("the compiled tokenizer has an unknown ") + what + " " +
                              std::to_string(kind));
}

std::unique_ptr<const NormalizerStage> make_normalizer(const BlobView& blob, const StageRecord& record) {
  const auto text = [&] { return std::string(blob.text(record.text)); };
  const auto other = [&] { return std::string(blob.text(record.other)); };
  switch (static_cast<NormalizerKind>(record.kind)) {
    case NormalizerKind::kBert: return std::make_unique<BertNormalizerStage>(record.flags);
    case NormalizerKind::kUnicodeForm:
      if (record.number < 0 || record.number > 3) refuse("normal form", record.number);
      return std::make_unique<UnicodeFormStage>(static_cast<UnicodeForm>(record.number));
    case NormalizerKind::kLowercase: return std::make_unique<LowercaseStage>();
    case NormalizerKind::kStripAccents: return std::make_unique<StripAccentsStage>();
    case NormalizerKind::kStrip: return std::make_unique<StripStage>((record.flags & 1) != 0, (record.flags & 2) != 0);
    case NormalizerKind::kReplace: return std::make_unique<ReplaceStage>(text(), other());
    case NormalizerKind::kReplaceSpaceRuns: return std::make_unique<ReplaceSpaceRunsStage>(other());
    case NormalizerKind::kPrepend: return std::make_unique<PrependStage>(text());
    case NormalizerKind::kPrecompiled: return std::make_unique<PrecompiledStage>(blob);
  }
  refuse("normaliser", record.kind);
}

std::unique_ptr<const PreTokenizerStage> make_pre_tokenizer(const BlobView& blob, const StageRecord& record) {
  switch (static_cast<PreTokenizerKind>(record.kind)) {
    case PreTokenizerKind::kBert: return std::make_unique<BertSplitStage>();
    case PreTokenizerKind::kWhitespaceSplit: return std::make_unique<WhitespaceSplitStage>();
    case PreTokenizerKind::kWhitespace: return std::make_unique<WhitespaceStage>();
    case PreTokenizerKind::kPunctuation:
      if (record.number < 0 || record.number > 4) refuse("split behaviour", record.number);
      return std::make_unique<PunctuationStage>(static_cast<SplitBehavior>(record.number));
    case PreTokenizerKind::kDigits: return std::make_unique<DigitsStage>((record.flags & 1) != 0);
    case PreTokenizerKind::kByteLevel:
      return std::make_unique<ByteLevelStage>((record.flags & 1) != 0, (record.flags & 2) != 0);
    case PreTokenizerKind::kMetaspace:
      return std::make_unique<MetaspaceStage>(std::string(blob.text(record.text)), record.number,
                                              (record.flags & 1) != 0);
  }
  refuse("pre-tokeniser", record.kind);
}

std::unique_ptr<const Model> make_model(const BlobView& blob) {
  switch (static_cast<ModelKind>(blob.config().model_kind)) {
    case ModelKind::kWordPiece: return std::make_unique<WordPieceModel>(blob);
    case ModelKind::kBpe: return std::make_unique<Bpe>(blob);
    case ModelKind::kUnigram: return std::make_unique<Unigram>(blob);
  }
  refuse("model", blob.config().model_kind);
}

struct Named {
  std::unique_ptr<const FastPath> path;
  const char* name;
};

Named make_fast_path(const BlobView& blob) {
  if (auto path = make_bert_fast_path(blob)) return {std::move(path), "bert"};
  if (auto path = make_bpe_fast_path(blob)) return {std::move(path), "byte-level"};
  if (auto path = make_unigram_fast_path(blob)) return {std::move(path), "unigram"};
  return {nullptr, "general"};
}

void normalize(const NormalizerStages& stages, AlignedText& text, AlignedText& spare, std::int32_t begin) {
  for (const auto& stage : stages) stage->apply(text, spare, begin);
}

// Added tokens of one of the two kinds; those matched on normalised text are normalised themselves, each with
// stages that see it as a piece of its own.
std::vector<AddedToken> added_tokens(const BlobView& blob, bool normalized, const NormalizerStages& stages) {
  std::vector<AddedToken> tokens;
  for (const AddedTokenRecord& record : blob.records<AddedTokenRecord>(Section::kAddedTokens)) {
    if (((record.flags & kNormalized) != 0) != normalized) continue;
    std::string content(blob.text(record.content));
    if (normalized) {
      AlignedText text, spare;
      for (std::size_t at = 0; at < content.size();) text.push_back({next_code_point(content, at), 0, 0});
      normalize(stages, text, spare, 0);
      content.clear();
      for (const AlignedChar& c : text) append_utf8(content, c.code_point);
    }
    tokens.push_back({std::move(content), record.id, (record.flags & kSingleWord) != 0, (record.flags & kLstrip) != 0,
                      (record.flags & kRstrip) != 0, (record.flags & kSpecial) != 0});
  }
  return tokens;
}

NormalizerStages normalizers(const BlobView& blob) {
  NormalizerStages stages;
  for (const StageRecord& record : blob.records<StageRecord>(Section::kNormalizers))
    stages.push_back(make_normalizer(blob, record));
  return stages;
}

PreTokenizerStages pre_tokenizers(const BlobView& blob) {
  PreTokenizerStages stages;
  for (const StageRecord& record : blob.records<StageRecord>(Section::kPreTokenizers))
    stages.push_back(make_pre_tokenizer(blob, record));
  return stages;
}

// Whether ASCII passes the normalisers unchanged.
bool keeps_ascii(const BlobView& blob) {
  const auto records = blob.records<StageRecord>(Section::kNormalizers);
  return std::all_of(records.begin(), records.end(), [](const StageRecord& record) {
    return record.kind == static_cast<std::int32_t>(NormalizerKind::kUnicodeForm);
  });
}

bool is_ascii(std::string_view text) noexcept {
  unsigned char all = 0;
  for (const char c : text) all |= static_cast<unsigned char>(c);
  return all < 0x80;
}

// Code point index of byte positions that mostly move forward; none is counted unless spans are wanted.
class CodePointCounter {
 public:
  CodePointCounter(std::string_view text, std::int32_t first, bool counts) noexcept
      : text_(text), index_(first), counts_(counts) {}

  std::int32_t at(std::size_t position) noexcept {
    // Without spans all that matters is what is 0: Metaspace prepends to the text's first piece alone.
    if (!counts_) return index_ + (position != 0);
    if (position >= position_) {
      index_ += static_cast<std::int32_t>(count_code_points(text_.substr(position_, position - position_)));
    } else {
      index_ -= static_cast<std::int32_t>(count_code_points(text_.substr(position, position_ - position)));
    }
    position_ = position;
    return index_;
  }

 private:
  std::string_view text_;
  std::size_t position_ = 0;
  std::int32_t index_;
  bool counts_;
};

// Where the splits of a text lie, in code points; each kind of place has a counter that only moves forward.
class SplitPlaces {
 public:
  SplitPlaces(std::string_view text, std::int32_t first, bool counts) noexcept
      : begins_(text, first, counts), content_ends_(begins_), stripped_ends_(begins_) {}

  std::int32_t begin(const AddedSplit& split) noexcept { return begins_.at(split.begin); }
  std::int32_t end(const AddedSplit& split) noexcept {
    return split.token->rstrip ? stripped_ends_.at(split.end) : content_ends_.at(split.end);
  }
  // Spaces between a token's content and its end.
  std::size_t stripped(const AddedSplit& split) noexcept {
    return static_cast<std::size_t>(end(split) - content_ends_.at(split.content_end));
  }

 private:
  CodePointCounter begins_, content_ends_, stripped_ends_;
};

void note_spaces(std::string_view text, const AddedSplit& split, std::size_t stripped, TokenBuffer& out) {
  const EndSpaces spaces = end_spaces(text, split, stripped);
  out.added_spaces().push_back({out.size() - 1, spaces.leading, spaces.trailing});
}

void push_added(std::string_view text, const AddedSplit& split, const TokenizeOptions& options, SplitPlaces& places,
                TokenBuffer& out) {
  out.push(split.token->id, places.begin(split), places.end(split), out.take_word());
  if (options.with_added_spaces) note_spaces(text, split, places.stripped(split), out);
}

template <typename T>
std::size_t bytes_of(const std::vector<T>& items) noexcept {
  return items.capacity() * sizeof(T);
}

std::size_t bytes_of(const Words& words) noexcept { return bytes_of(words.chars) + bytes_of(words.words); }

}  // namespace

struct Tokenizer::Stages {
  explicit Stages(const BlobView& blob, bool with_fast_path)
      : normalizers(penstock::normalizers(blob)),
        pre_tokenizers(penstock::pre_tokenizers(blob)),
        model(make_model(blob)),
        fast(with_fast_path ? make_fast_path(blob) : Named{nullptr, "general"}),
        raw_tokens(added_tokens(blob, false, normalizers)),
        normalized_tokens(added_tokens(blob, true, normalizers)),
        is_plain(normalizers.empty()),
        ascii_is_plain(keeps_ascii(blob)) {}

  NormalizerStages normalizers;
  PreTokenizerStages pre_tokenizers;
  std::unique_ptr<const Model> model;
  Named fast;
  AddedTokens raw_tokens;
  AddedTokens normalized_tokens;
  bool is_plain;        // normalisers change nothing
  bool ascii_is_plain;  // they change nothing in ASCII
};

struct Tokenizer::Context::Parts {
  std::unique_ptr<Scratch> model;
  std::unique_ptr<Scratch> fast;
  Words words;
  Words spare;
  AlignedText chars;  // of a whole piece, where added tokens are to be found in it
  std::string normalized;
  std::vector<std::uint32_t> char_of_byte;

  void give_back_if_large() {
    if (words.chars.capacity() + spare.chars.capacity() + chars.capacity() + normalized.capacity() +
            char_of_byte.capacity() < 4 * kCharsKept)
      return;
    words = {};
    spare = {};
    // Braces alone would assign an empty list and keep the memory.
    chars = AlignedText();
    normalized = std::string();
    char_of_byte = std::vector<std::uint32_t>();
  }
};

Tokenizer::Context::Context() : parts_(std::make_unique<Parts>()) {}
Tokenizer::Context::~Context() = default;

std::size_t Tokenizer::Context::bytes() const noexcept {
  const Parts& parts = *parts_;
  return parts.model->bytes() + (parts.fast ? parts.fast->bytes() : 0) + bytes_of(parts.words) +
         bytes_of(parts.spare) + bytes_of(parts.chars) + parts.normalized.capacity() + bytes_of(parts.char_of_byte);
}

Tokenizer::Tokenizer(BlobView blob, bool with_fast_path) : blob_(blob) {
  // Built here, where running out of memory can be told.
  UnicodeTables::get();
  stages_ = std::make_unique<const Stages>(blob_, with_fast_path);
}

Tokenizer::~Tokenizer() = default;

const char* Tokenizer::path_name() const noexcept { return stages_->fast.name; }

std::unique_ptr<Tokenizer::Context> Tokenizer::make_context(std::size_t cache_bytes) const {
  std::unique_ptr<Context> context(new Context);
  context->parts_->model = stages_->model->make_scratch();
  if (stages_->fast.path) context->parts_->fast = stages_->fast.path->make_scratch(cache_bytes);
  return context;
}

void Tokenizer::tokenize(std::string_view text, const TokenizeOptions& options, Context& context,
                         TokenBuffer& out) const {
  out.reset(options.with_spans);
  const AddedTokens& tokens = stages_->raw_tokens;
  if (tokens.empty() || !tokens.may_match(text)) {
    if (!text.empty()) tokenize_piece({text, 0}, options, context, out);
  } else {
    SplitPlaces places(text, 0, options.with_spans);
    tokens.split(text, options.split_special_tokens, [&](const AddedSplit& split) {
      if (!split.token)
        return tokenize_piece({text.substr(split.begin, split.end - split.begin), places.begin(split)}, options,
                              context, out);
      push_added(text, split, options, places, out);
      return out.size() < options.tokens_wanted;
    });
  }
  context.parts_->give_back_if_large();
}

// True if there is more to come.
bool Tokenizer::tokenize_piece(const Piece& piece, const TokenizeOptions& options, Context& context,
                               TokenBuffer& out) const {
  const FastPath* fast = stages_->fast.path.get();
  if (!fast) return tokenize_generally(piece, true, options, context, out);
  const bool watches = fast->watches_added_tokens();
  const auto try_fast = [&](const Piece& part) {
    const Outcome outcome = fast->encode(part, options.tokens_wanted, *context.parts_->fast, out);
    if (outcome == Outcome::kDeclined) return tokenize_generally(part, watches, options, context, out);
    return outcome == Outcome::kDone && out.size() < options.tokens_wanted;
  };
  const AddedTokens& tokens = stages_->normalized_tokens;
  if (watches || tokens.empty()) return try_fast(piece);
  // Tokens matched on normalised text can be cut out of the raw one only where both have the same places.
  std::string_view text = piece.text;
  if (!stages_->is_plain && !(stages_->ascii_is_plain && is_ascii(text)) && !fast->is_normalized(text)) {
    std::string& normalized = context.parts_->normalized;
    if (!fast->normalize_ascii(text, normalized)) return tokenize_generally(piece, true, options, context, out);
    text = normalized;
  }
  if (!tokens.may_match(text)) return try_fast(piece);
  bool is_unfinished = true;
  SplitPlaces places(text, piece.begin, options.with_spans);
  tokens.split(text, options.split_special_tokens, [&](const AddedSplit& split) {
    if (split.token) {
      push_added(text, split, options, places, out);
      is_unfinished = out.size() < options.tokens_wanted;
    } else {
      is_unfinished = try_fast({piece.text.substr(split.begin, split.end - split.begin), places.begin(split)});
    }
    return is_unfinished;
  });
  return is_unfinished;
}

bool Tokenizer::tokenize_generally(const Piece& piece, bool finds_tokens, const TokenizeOptions& options,
                                   Context& context, TokenBuffer& out) const {
  Context::Parts& parts = *context.parts_;
  AlignedText& chars = parts.chars;
  chars.clear();
  std::int32_t index = piece.begin;
  for (std::size_t at = 0; at < piece.text.size(); ++index)
    chars.push_back({next_code_point(piece.text, at), index, index + 1});
  normalize(stages_->normalizers, chars, parts.spare.chars, piece.begin);
  const auto cut = [&](std::size_t begin, std::size_t end) {
    parts.words.clear();
    parts.words.chars.assign(chars.begin() + static_cast<std::ptrdiff_t>(begin),
                             chars.begin() + static_cast<std::ptrdiff_t>(end));
    parts.words.words.push_back({0, static_cast<std::uint32_t>(end - begin), chars[begin].begin});
    return cut_words(context, options.tokens_wanted, out);
  };
  if (chars.empty()) return true;
  if (!finds_tokens || stages_->normalized_tokens.empty()) return cut(0, chars.size());

  parts.normalized.clear();
  parts.char_of_byte.clear();
  for (std::size_t i = 0; i < chars.size(); ++i) {
    append_utf8(parts.normalized, chars[i].code_point);
    parts.char_of_byte.resize(parts.normalized.size(), static_cast<std::uint32_t>(i));
  }
  parts.char_of_byte.push_back(static_cast<std::uint32_t>(chars.size()));
  bool is_unfinished = true;
  stages_->normalized_tokens.split(parts.normalized, options.split_special_tokens, [&](const AddedSplit& split) {
    const std::uint32_t from = parts.char_of_byte[split.begin], to = parts.char_of_byte[split.end];
    if (split.token) {
      out.push(split.token->id, chars[from].begin, chars[to - 1].end, out.take_word());
      if (options.with_added_spaces)
        note_spaces(parts.normalized, split, to - parts.char_of_byte[split.content_end], out);
      is_unfinished = out.size() < options.tokens_wanted;
    } else {
      is_unfinished = cut(from, to);
    }
    return is_unfinished;
  });
  return is_unfinished;
}

bool Tokenizer::cut_words(Context& context, std::size_t tokens_wanted, TokenBuffer& out) const {
  Context::Parts& parts = *context.parts_;
  for (const auto& stage : stages_->pre_tokenizers) stage->apply(parts.words, parts.spare);
  const AlignedChar* chars = parts.words.chars.data();
  for (const Words::Word& word : parts.words.words) {
    stages_->model->cut(chars + word.begin, chars + word.end, out.take_word(), *parts.model, out);
    if (out.size() >= tokens_wanted) return false;
  }
  return true;
}

}  // namespace penstock
