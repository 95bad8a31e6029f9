// The fast path of Unigram tokenizers whose words are cut at spaces: XLM-RoBERTa, XLNet, ALBERT, T5, DeBERTa-v3,
// and what transformers converts from SentencePiece.
#pragma once

#include <memory>

#include "penstock/blob.h"
#include "penstock/pipeline.h"

namespace penstock {

// Words are found in the raw text, between characters that become spaces, and looked up by their raw bytes:
// the words of the normalised text depend on nothing else, but for a few that are left to the general path
// with their whole piece (those that begin or end within a grapheme cluster). What is not in the cache is
// normalised, if a character of it may change, and cut.
//
// Takes chains of: literal replacements, normal forms, StripAccents, Lowercase; Strip; Precompiled; Strip on the
// right; space runs to one space or Metaspace's character (each may be missing); then WhitespaceSplit or nothing;
// Metaspace with split. Null for all others. Reads the blob in place.
std::unique_ptr<FastPath> make_unigram_fast_path(const BlobView& blob);

}  // namespace penstock
