// The compiled tokenizer: one immutable run of bytes that is written once, mapped by every process that needs
// it, and read in place. penstock_kernels/blob.py writes it and describes its sections.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace penstock {

// What a section holds. The numbers are the format's: never reuse one, and raise kBlobVersion when the
// meaning of any changes.
enum class Section : std::uint32_t {
  kConfig = 1,          // ConfigRecord, one
  kStrings = 2,         // bytes that TextRef points into
  kNormalizers = 3,     // StageRecord
  kPreTokenizers = 4,   // StageRecord
  kAddedTokens = 5,     // AddedTokenRecord
  kSingle = 6,          // TemplateRecord
  kPair = 7,            // TemplateRecord
  kTokenStarts = 8,     // u32 [ids + 1]: token texts within kTokenTexts, by id
  kTokenTexts = 9,      // bytes
  kTokenIsThere = 10,   // u8 [ids]: whether there is such an id
  kTokenTrims = 11,     // u8 [ids, 2]: leading and trailing space characters of byte-level tokens, or empty
  kVocabularyTrie = 12, // DoubleArray::Node, keys are the vocabulary's tokens as they stand there, in UTF-8
  kScores = 13,         // f64 [ids], Unigram
  kMergeTable = 14,     // MergeRecord, BPE: see build_merge_table() in bpe.h
  kByteIds = 15,        // i32 [256], BPE: id of each byte's symbol, Unigram and BPE: of byte fallback; or empty
  kCharsmapTrie = 16,   // u32, Precompiled: Darts units as the JSON has them
  kCharsmapTexts = 17,  // bytes, Precompiled: replacements, each ended by NUL
};

constexpr std::uint32_t kBlobVersion = 1;
constexpr std::size_t kSectionAlignment = 64;

struct TextRef {
  std::uint32_t at;
  std::uint32_t size;
};

enum class NormalizerKind : std::int32_t {
  kBert = 1,             // flags: BertFlag
  kUnicodeForm = 2,      // number: Form (0 NFC, 1 NFD, 2 NFKC, 3 NFKD)
  kLowercase = 3,
  kStripAccents = 4,
  kStrip = 5,            // flags: 1 left, 2 right
  kReplace = 6,          // text: pattern, other: content
  kReplaceSpaceRuns = 7, // other: content
  kPrepend = 8,          // text
  kPrecompiled = 9,
};

enum BertFlag : std::int32_t { kCleanText = 1, kHandleChineseChars = 2, kStripAccents = 4, kLowercase = 8 };

enum class PreTokenizerKind : std::int32_t {
  kBert = 1,
  kWhitespaceSplit = 2,
  kWhitespace = 3,
  kPunctuation = 4,  // number: SplitBehavior as in spec.py
  kDigits = 5,       // flags: 1 individual
  kByteLevel = 6,    // flags: 1 add_prefix_space, 2 use_regex
  kMetaspace = 7,    // text: replacement, number: PrependScheme as in spec.py, flags: 1 split
};

struct StageRecord {
  std::int32_t kind;
  std::int32_t flags;
  std::int32_t number;
  std::int32_t unused;
  TextRef text;
  TextRef other;
};

enum class ModelKind : std::int32_t { kWordPiece = 1, kBpe = 2, kUnigram = 3 };

enum ModelFlag : std::int32_t {
  kFuseUnknown = 1,
  kByteFallback = 2,
  kIgnoreMerges = 4,
};

enum ConfigFlag : std::int32_t {
  kTrims = 1,                // the post-processor trims offsets
  kTrimAddsPrefixSpace = 2,  // its add_prefix_space
  kRetypesOverflow = 4,
};

struct ConfigRecord {
  std::int32_t model_kind;
  std::int32_t model_flags;
  std::int32_t config_flags;
  std::int32_t unknown_id;      // -1 for none
  std::int64_t word_chars_max;  // WordPiece
  TextRef continuing_prefix;    // WordPiece, BPE
  TextRef end_suffix;           // BPE
  std::int32_t ids_end;         // one past the highest id, added tokens included
  std::int32_t pad_id;
  std::int32_t pad_type_id;
  std::int32_t unused;
  double unknown_score;         // Unigram: score of an unknown character
};

enum AddedTokenFlag : std::int32_t { kSingleWord = 1, kLstrip = 2, kRstrip = 4, kNormalized = 8, kSpecial = 16 };

struct AddedTokenRecord {
  std::int32_t id;
  std::int32_t flags;
  TextRef content;
};

struct TemplateRecord {
  std::int32_t slot;  // Slot as in spec.py
  std::int32_t type_id;
  std::int32_t token_id;
  std::int32_t unused;
};

// A blob in memory that outlives the view and everything made from it. Construction checks the header and
// that every section lies within the blob, and throws std::invalid_argument (the text says what is wrong);
// the bytes' checksum is the loader's business.
class BlobView {
 public:
  explicit BlobView(std::string_view bytes);

  // The section's records; empty if there is none. Throws if its size is no multiple of the record's.
  template <typename Record>
  std::span<const Record> records(Section section) const {
    const std::string_view bytes = find(section);
    if (bytes.size() % sizeof(Record))
      throw std::invalid_argument("section " + std::to_string(static_cast<std::uint32_t>(section)) +
                                  " of the compiled tokenizer has a broken size");
    return {reinterpret_cast<const Record*>(bytes.data()), bytes.size() / sizeof(Record)};
  }

  std::string_view bytes(Section section) const noexcept { return find(section); }

  // A text of kStrings; throws if it lies outside.
  std::string_view text(TextRef ref) const;

  const ConfigRecord& config() const;

 private:
  std::string_view find(Section section) const noexcept;

  std::string_view bytes_;
};

}  // namespace penstock
