// Byte-level BPE as GPT-2, RoBERTa and ModernBERT have it, at some hundred megabytes a second.
#pragma once

#include <memory>

#include "penstock/blob.h"
#include "penstock/byte_level_scan.h"
#include "penstock/pipeline.h"

namespace penstock {

// For chains of: no normaliser or one Unicode form; ByteLevel with its regex; BPE whose vocabulary has a symbol
// for every byte. Null for any other chain. Pieces that a normaliser might change are declined.
//
// Words are found in blocks of 64 bytes and looked up by their bytes in a cache for each thread; a word that is
// not there is merged in O(n log n). Caches start with the words of the vocabulary, so that they are useful from
// the first text on; computing those takes some 20 ms here. Throws std::invalid_argument if the blob is broken.
std::unique_ptr<FastPath> make_bpe_fast_path(const BlobView& blob, Instructions instructions = best_instructions());

}  // namespace penstock
